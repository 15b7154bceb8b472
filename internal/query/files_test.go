package query

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	iceio "github.com/apache/iceberg-go/io"

	"github.com/frazil-io/frazil/internal/batch"
)

// remote is an object store that counts what is read of it.
type remote struct {
	objects map[string]string
	opened  []string
}

type object struct {
	*bytes.Reader
	iceio.File
}

func (o object) Read(p []byte) (int, error) { return o.Reader.Read(p) }
func (o object) Close() error               { return nil }
func (o object) ReadAt(p []byte, at int64) (int, error) {
	return o.Reader.ReadAt(p, at)
}

func (o object) Seek(at int64, from int) (int64, error) { return o.Reader.Seek(at, from) }

func (r *remote) Open(name string) (iceio.File, error) {
	data, ok := r.objects[name]
	if !ok {
		return nil, fs.ErrNotExist
	}
	r.opened = append(r.opened, name)
	return object{Reader: bytes.NewReader([]byte(data))}, nil
}

func (r *remote) Remove(string) error { return errors.New("nothing is removed here") }

// TestCache: a file is fetched once, the cache stays below its size by what was
// not used for longest, and never loses what the query reads.
func TestCache(t *testing.T) {
	r := &remote{objects: map[string]string{"s3://b/a": "aaaa", "s3://b/b": "bbbb", "s3://b/c": "cccc"}}
	c := &cache{folder: filepath.Join(t.TempDir(), "cache"), max: 8}
	read := func(names ...string) []string {
		t.Helper()
		r.opened = nil
		var files []dataFile
		for _, n := range names {
			files = append(files, dataFile{n, 4})
		}
		paths, err := c.local(t.Context(), r, files)
		if err != nil {
			t.Fatal(err)
		}
		for i, p := range paths {
			data, err := os.ReadFile(p)
			if err != nil || string(data) != r.objects[names[i]] {
				t.Fatalf("%s: %q %v", names[i], data, err)
			}
			old := time.Now().Add(time.Duration(i-10) * time.Hour) // as if it had been long ago
			if err := os.Chtimes(p, old, old); err != nil {
				t.Fatal(err)
			}
		}
		return paths
	}
	paths := read("s3://b/a", "s3://b/b")
	if read("s3://b/a"); len(r.opened) > 0 {
		t.Errorf("fetched again: %v", r.opened)
	}
	later := time.Now()
	if err := os.Chtimes(paths[1], later, later); err != nil {
		t.Fatal(err)
	}
	read("s3://b/c") // takes the place of a
	if _, err := os.Stat(paths[0]); err == nil {
		t.Error("the cache is above its size")
	}
	if _, err := os.Stat(paths[1]); err != nil {
		t.Error("the file that was used last is gone")
	}
	if _, err := c.local(t.Context(), r, []dataFile{{"s3://b/a", 4}, {"s3://b/b", 4}, {"s3://b/c", 4}}); !errors.Is(err, batch.ErrInvalid) || !strings.Contains(err.Error(), "--cache-size") {
		t.Errorf("more than the cache holds: %v", err)
	}
	if _, err := c.local(t.Context(), r, []dataFile{{"s3://b/none", 4}}); err == nil {
		t.Error("a missing file was read")
	}
	if err := os.WriteFile(paths[1], []byte("b"), 0o600); err != nil { // half a copy
		t.Fatal(err)
	}
	if read("s3://b/b"); len(r.opened) != 1 {
		t.Error("half a copy was used")
	}
}

func TestPlace(t *testing.T) {
	c := &cache{folder: "/cache"}
	for name, want := range map[string]string{
		"file:///a/b%20c/d.parquet": "/a/b c/d.parquet", "/a/b.parquet": "/a/b.parquet", "relative/p:1.parquet": "relative/p:1.parquet",
	} {
		if got, remote := c.place(name); got != want || remote {
			t.Errorf("%s: %s %v", name, got, remote)
		}
	}
	if _, remote := c.place("s3://b/k.parquet"); !remote {
		t.Error("an object is not local")
	}
}
