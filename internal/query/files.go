package query

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	iceio "github.com/apache/iceberg-go/io"
	"golang.org/x/sync/errgroup"

	"github.com/frazil-io/frazil/internal/batch"
	"github.com/frazil-io/frazil/internal/lake"
)

// cache keeps copies of data files, which never change, below a size. Several
// processes may share it.
type cache struct {
	folder string
	max    int64
}

// copiesAtOnce is how many files are fetched side by side: enough to fill a
// usual connection to an object store.
const copiesAtOnce = 8

// local returns where files can be read: themselves, or their copies.
func (c *cache) local(ctx context.Context, fs iceio.IO, files []dataFile) ([]string, error) {
	paths := make([]string, len(files))
	var missing []int
	var need, fetch int64
	for i, f := range files {
		var remote bool
		if paths[i], remote = c.place(f.path); !remote {
			continue
		}
		need += f.bytes
		if !c.has(paths[i], f.bytes) {
			missing = append(missing, i)
			fetch += f.bytes
		}
	}
	if need > c.max {
		return nil, fmt.Errorf("%w: the query reads %d MiB of remote files and the cache may hold %d: narrow it by columns that the table is partitioned or sorted by, or raise --cache-size", batch.ErrInvalid, need>>20, c.max>>20)
	}
	if len(missing) == 0 {
		return paths, nil
	}
	if err := c.makeRoom(fetch, paths); err != nil {
		return nil, err
	}
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(copiesAtOnce)
	for _, i := range missing {
		group.Go(func() error { return copyFile(ctx, fs, files[i].path, paths[i]) })
	}
	return paths, group.Wait()
}

// place is where a file is read, and whether that is a copy.
func (c *cache) place(name string) (string, bool) {
	if u, err := url.Parse(name); err == nil && u.Scheme == "file" {
		return filepath.FromSlash(u.Path), false // without its escapes, as it was written
	}
	if !strings.Contains(name, "://") {
		return name, false
	}
	sum := sha256.Sum256([]byte(name))
	return filepath.Join(c.folder, hex.EncodeToString(sum[:])+".parquet"), true
}

// has says whether a whole copy is there, and notes that it was used.
func (c *cache) has(path string, bytes int64) bool {
	info, err := os.Stat(path)
	if err != nil || info.Size() != bytes {
		return false
	}
	now := time.Time{} // the file system's own clock
	_ = os.Chtimes(path, now, now)
	return true
}

// makeRoom removes the copies that were not used for longest, except those that
// the query reads.
func (c *cache) makeRoom(need int64, keep []string) error {
	entries, err := os.ReadDir(c.folder)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("%w: the cache: %w", batch.ErrInvalid, err)
	}
	var copies []os.FileInfo
	total := need
	for _, e := range entries {
		info, err := e.Info()
		if err != nil || info.IsDir() {
			continue
		}
		total += info.Size()
		if !slices.Contains(keep, filepath.Join(c.folder, e.Name())) {
			copies = append(copies, info)
		}
	}
	slices.SortFunc(copies, func(a, b os.FileInfo) int { return cmp.Compare(a.ModTime().UnixNano(), b.ModTime().UnixNano()) })
	for _, old := range copies {
		if total <= c.max {
			break
		}
		if err := os.Remove(filepath.Join(c.folder, old.Name())); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("%w: the cache: %w", batch.ErrInvalid, err)
		}
		total -= old.Size()
	}
	return nil
}

func copyFile(ctx context.Context, fs iceio.IO, from, to string) (err error) {
	if err := context.Cause(ctx); err != nil {
		return err
	}
	in, err := fs.Open(from)
	if err != nil {
		return lake.Classify("read "+from, err)
	}
	defer func() { err = errors.Join(err, in.Close()) }()
	if err := os.MkdirAll(filepath.Dir(to), 0o700); err != nil {
		return fmt.Errorf("%w: the cache: %w", batch.ErrInvalid, err)
	}
	out, err := os.CreateTemp(filepath.Dir(to), "copy-")
	if err != nil {
		return fmt.Errorf("%w: the cache: %w", batch.ErrInvalid, err)
	}
	_, err = io.Copy(out, in)
	if err = errors.Join(err, out.Close()); err != nil {
		return errors.Join(lake.Classify("copy "+from, err), os.Remove(out.Name()))
	}
	return os.Rename(out.Name(), to)
}
