package dimension

import (
	"context"
	"fmt"
	"os"
	"path"
	"strings"

	"github.com/apache/arrow-go/v18/arrow"

	"github.com/frazil-io/frazil/internal/batch"
	"github.com/frazil-io/frazil/internal/objstore"
)

// object is a file of this host, or an object: s3://bucket/key.
type object struct {
	path       string
	properties map[string]string // s3.endpoint and so on
	bytesMax   int64
}

func (f object) read(ctx context.Context) ([]byte, error) {
	if dir, name := path.Split(f.path); strings.Contains(f.path, "://") {
		store, err := objstore.Open(ctx, strings.TrimSuffix(dir, "/"), f.properties)
		if err != nil {
			return nil, err
		}
		data, err := store.Get(ctx, name)
		if err == nil && f.bytesMax > 0 && int64(len(data)) > f.bytesMax {
			err = tooLarge(int64(len(data)), f.bytesMax)
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", f.path, err)
		}
		return data, nil
	}
	info, err := os.Stat(f.path)
	if err != nil {
		return nil, err
	}
	if f.bytesMax > 0 && info.Size() > f.bytesMax {
		return nil, fmt.Errorf("%s: %w", f.path, tooLarge(info.Size(), f.bytesMax))
	}
	return os.ReadFile(f.path)
}

// tooLarge refuses a table that would not leave the pipeline enough memory.
func tooLarge(bytes, bytesMax int64) error {
	return fmt.Errorf("%w: %w: the table takes %d MB or more, the most is %d MB, an eighth of memory; raise memory, or keep fewer columns or rows",
		batch.ErrInvalid, errMistake, (bytes+1<<20-1)>>20, bytesMax>>20)
}

// parquetFile is its own copy.
type parquetFile struct{ object }

// Parquet opens a Parquet file: a path, or s3://bucket/key with the properties
// that objstore takes.
func Parquet(ctx context.Context, path string, properties map[string]string, o Options) (*Copied, error) {
	return open(ctx, parquetFile{object{path, properties, o.BytesMax}}, o)
}

func (f parquetFile) columns(ctx context.Context, _ []arrow.Field) ([]arrow.Field, error) {
	data, err := f.read(ctx)
	if err != nil {
		return nil, err
	}
	fields, err := fieldsOf(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", f.path, err)
	}
	return fields, nil
}

func (f parquetFile) parquet(ctx context.Context, fields []arrow.Field) ([]byte, error) {
	data, err := f.read(ctx)
	if err != nil {
		return nil, err
	}
	// Checked here, where the file's name is known.
	rows, err := decode(ctx, data, fields, f.bytesMax)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", f.path, err)
	}
	rows.Release()
	return data, nil
}
