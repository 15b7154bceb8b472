package lake

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"

	iceio "github.com/apache/iceberg-go/io"
)

// TestLocalFilesAreDurable: a file has its name when it is whole and synced, and
// its name is synced, too, and that of each folder which was made for it.
func TestLocalFilesAreDurable(t *testing.T) {
	dir := t.TempDir()
	name := filepath.Join(dir, "a", "b", "file")
	var synced []string
	l := localFS{sync: func(f *os.File) error {
		info, err := f.Stat()
		if err != nil {
			t.Fatal(err)
		}
		switch {
		case info.IsDir():
			inside, err := filepath.Rel(dir, f.Name())
			if err != nil {
				t.Fatal(err)
			}
			synced = append(synced, inside)
		case info.Size() == 5:
			if _, err := os.Stat(name); err == nil {
				t.Error("the file has its name before it is durable")
			}
			synced = append(synced, "whole file")
		default:
			synced = append(synced, "part of a file")
		}
		return f.Sync()
	}}
	if err := l.WriteFile("file://"+name, []byte("12345")); err != nil {
		t.Fatal(err)
	}
	if want := []string{".", "a", "whole file", "a/b"}; !slices.Equal(synced, want) {
		t.Fatalf("synced %v, want %v", synced, want)
	}
	broken := errors.New("planned")
	l.sync = func(*os.File) error { return broken }
	if err := l.WriteFile(name+"2", []byte("1")); !errors.Is(err, broken) {
		t.Fatalf("a sync that failed: %v", err)
	}
	left, err := os.ReadDir(filepath.Dir(name))
	if err != nil || len(left) != 1 {
		t.Fatalf("%v is left of a file that was not durable, %v", left, err)
	}
}

// TestIcebergWritesDurably: iceberg-go gives these files out for directories.
func TestIcebergWritesDurably(t *testing.T) {
	c, err := open(t, Options{Type: "sql", URI: filepath.Join(t.TempDir(), "c.db"), Warehouse: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	fill(t, c)
	tbl, err := c.Load(t.Context(), ident)
	if err != nil {
		t.Fatal(err)
	}
	fs, err := tbl.FS(context.Background())
	if l, ok := fs.(localFS); err != nil || !ok || l.sync == nil {
		t.Fatalf("the table's files are %T, %v", fs, err)
	}
	if fs, err := iceio.LoadFS(t.Context(), nil, "/somewhere"); err != nil {
		t.Fatal(err)
	} else if _, ok := fs.(localFS); !ok {
		t.Fatalf("a bare path gives %T", fs)
	}
}
