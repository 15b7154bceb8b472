package pipeline

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/apache/arrow-go/v18/parquet"
	"github.com/apache/arrow-go/v18/parquet/file"
	"github.com/apache/arrow-go/v18/parquet/pqarrow"
	"github.com/apache/iceberg-go/table"

	"github.com/frazil-io/frazil/internal/batch"
	"github.com/frazil-io/frazil/internal/checkpoint"
	"github.com/frazil-io/frazil/internal/config"
	"github.com/frazil-io/frazil/internal/exec"
	"github.com/frazil-io/frazil/internal/lake"
)

// dimension opens a table to join with. Its columns are read now.
func (p *Pipeline) dimension(ctx context.Context, d config.Dimension) (exec.Dimension, error) {
	every := time.Duration(d.Refresh)
	if d.Parquet != "" {
		f := &parquetFile{path: d.Parquet, refreshed: refreshed{every: every}, checkpoint: p.Checkpoint}
		data, err := os.ReadFile(d.Parquet)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", batch.ErrInvalid, err)
		}
		rows, err := readParquet(ctx, data)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", d.Parquet, err)
		}
		defer rows.Release()
		f.fields = rows.Schema().Fields()
		return f, nil
	}
	c, err := patient(ctx, func() (*lake.Catalog, error) { return p.Catalog(ctx, d.Iceberg.Catalog) })
	if err != nil {
		return nil, err
	}
	t := &icebergTable{catalog: c, ident: strings.Split(d.Iceberg.Table, "."), refreshed: refreshed{every: every}}
	loaded, err := c.Load(ctx, t.ident)
	if err != nil {
		return nil, err
	}
	schema, err := table.SchemaToArrowSchema(loaded.Schema(), nil, false, false)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", batch.ErrInvalid, err)
	}
	t.fields = schema.Fields()
	return t, nil
}

// refreshed asks for a version at most once in a while.
type refreshed struct {
	every time.Duration
	mu    sync.Mutex
	at    time.Time
	last  string
}

func (r *refreshed) version(ask func() (string, error)) (string, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.last != "" && time.Since(r.at) < r.every {
		return r.last, nil
	}
	v, err := ask()
	if err == nil {
		r.last, r.at = v, time.Now()
	}
	return v, err
}

// icebergTable is pinned by snapshot.
type icebergTable struct {
	refreshed
	catalog *lake.Catalog
	ident   table.Identifier
	fields  []arrow.Field
}

// Fields implements exec.Dimension.
func (t *icebergTable) Fields() []arrow.Field { return t.fields }

// Version implements exec.Dimension.
func (t *icebergTable) Version(ctx context.Context) (string, error) {
	return t.version(func() (string, error) {
		loaded, err := t.catalog.Load(ctx, t.ident)
		if err != nil {
			return "", err
		}
		if s := loaded.CurrentSnapshot(); s != nil {
			return strconv.FormatInt(s.SnapshotID, 10), nil
		}
		return "empty", nil
	})
}

// Load implements exec.Dimension.
func (t *icebergTable) Load(ctx context.Context, version string) (arrow.RecordBatch, error) {
	if version == "empty" {
		return joined(arrow.NewSchema(t.fields, nil), nil)
	}
	id, err := strconv.ParseInt(version, 10, 64)
	if err != nil {
		return nil, fmt.Errorf("%w: %q is not a snapshot", batch.ErrInvalid, version)
	}
	loaded, err := t.catalog.Load(ctx, t.ident)
	if err != nil {
		return nil, err
	}
	if loaded.Metadata().SnapshotByID(id) == nil {
		return nil, fmt.Errorf("%w: snapshot %d has expired; change the spec in any way to revise the batch with the newest one", batch.ErrInvalid, id)
	}
	_, records, err := loaded.Scan(table.WithSnapshotID(id)).ToArrowRecords(t.catalog.Context(ctx))
	if err != nil {
		return nil, lake.Classify("read "+strings.Join(t.ident, "."), err)
	}
	var parts []arrow.RecordBatch
	defer func() {
		for _, b := range parts {
			b.Release()
		}
	}()
	for b, err := range records {
		if err != nil {
			return nil, lake.Classify("read "+strings.Join(t.ident, "."), err)
		}
		parts = append(parts, b)
	}
	return joined(arrow.NewSchema(t.fields, nil), parts)
}

// parquetFile is copied into the checkpoint before a plan names it, so that a
// replay reads the same rows.
type parquetFile struct {
	refreshed
	path       string
	fields     []arrow.Field
	checkpoint func(context.Context) (*checkpoint.Checkpoint, error)
}

// Fields implements exec.Dimension.
func (f *parquetFile) Fields() []arrow.Field { return f.fields }

// Version implements exec.Dimension.
func (f *parquetFile) Version(ctx context.Context) (string, error) {
	return f.version(func() (string, error) {
		data, err := os.ReadFile(f.path)
		if err != nil {
			return "", fmt.Errorf("%w: %w", batch.ErrUnavailable, err)
		}
		sum := sha256.Sum256(data)
		version := hex.EncodeToString(sum[:])
		cp, err := f.checkpoint(ctx)
		if err != nil {
			return "", err
		}
		return version, cp.KeepDimension(ctx, version, data)
	})
}

// Load implements exec.Dimension.
func (f *parquetFile) Load(ctx context.Context, version string) (arrow.RecordBatch, error) {
	cp, err := f.checkpoint(ctx)
	if err != nil {
		return nil, err
	}
	data, err := cp.Dimension(ctx, version)
	if err != nil {
		return nil, err
	}
	return readParquet(ctx, data)
}

func readParquet(ctx context.Context, data []byte) (arrow.RecordBatch, error) {
	pf, err := file.NewParquetReader(bytes.NewReader(data), file.WithReadProps(parquet.NewReaderProperties(memory.DefaultAllocator)))
	if err != nil {
		return nil, fmt.Errorf("%w: it is not Parquet: %w", batch.ErrInvalid, err)
	}
	defer pf.Close() //nolint:errcheck // only memory is behind it
	r, err := pqarrow.NewFileReader(pf, pqarrow.ArrowReadProperties{}, memory.DefaultAllocator)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", batch.ErrInvalid, err)
	}
	t, err := r.ReadTable(ctx)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", batch.ErrInvalid, err)
	}
	defer t.Release()
	reader := array.NewTableReader(t, 0)
	defer reader.Release()
	var parts []arrow.RecordBatch
	for reader.Next() {
		b := reader.RecordBatch()
		b.Retain()
		defer b.Release()
		parts = append(parts, b)
	}
	fields := make([]arrow.Field, 0, t.NumCols())
	for _, f := range t.Schema().Fields() {
		fields = append(fields, arrow.Field{Name: f.Name, Type: f.Type, Nullable: true})
	}
	return joined(arrow.NewSchema(fields, nil), parts)
}

// joined copies record batches into one.
func joined(schema *arrow.Schema, parts []arrow.RecordBatch) (arrow.RecordBatch, error) {
	if len(parts) == 0 {
		b := array.NewRecordBuilder(memory.DefaultAllocator, schema)
		defer b.Release()
		return b.NewRecordBatch(), nil
	}
	var rows int64
	for _, p := range parts {
		rows += p.NumRows()
	}
	columns := make([]arrow.Array, schema.NumFields())
	for i := range columns {
		pieces := make([]arrow.Array, len(parts))
		for k, p := range parts {
			pieces[k] = p.Column(i)
		}
		var err error
		if columns[i], err = array.Concatenate(pieces, memory.DefaultAllocator); err != nil {
			return nil, fmt.Errorf("%w: column %s: %w", batch.ErrInvalid, schema.Field(i).Name, err)
		}
		defer columns[i].Release()
	}
	return array.NewRecordBatch(schema, columns, rows), nil
}
