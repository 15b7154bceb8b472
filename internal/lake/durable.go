package lake

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"

	iceio "github.com/apache/iceberg-go/io"
)

// makeDurable is for the one change of iceberg-go's registry.
var makeDurable sync.Once

// durable makes iceberg-go write local files so that they survive a power cut.
// Its own file system closes them without fsync. The registry is a global of
// iceberg-go, and this replaces its entry once.
func durable() {
	makeDurable.Do(func() {
		for _, scheme := range []string{"file", ""} {
			iceio.Unregister(scheme)
			iceio.Register(scheme, func(context.Context, *url.URL, map[string]string) (iceio.IO, error) {
				return localFS{sync: (*os.File).Sync}, nil
			})
		}
	})
}

// TemporaryPrefix begins the name of a local file in the making. Of a process that was
// killed it stays.
const TemporaryPrefix = ".frazil-tmp-"

// localFS is iceberg-go's local file system with durable writes: a file is
// synced, gets its name when it is whole, and then its folder is synced. Of a
// folder that it makes the one above is synced, or a power cut would take the
// folder with all that is in it.
type localFS struct {
	iceio.LocalFS
	sync func(*os.File) error // (*os.File).Sync; a test watches it
}

func localPath(name string) string {
	if u, err := url.Parse(name); err == nil && u.Scheme == "file" {
		return filepath.FromSlash(u.Path)
	}
	return strings.TrimPrefix(name, "file:")
}

// Create opens a file that appears under its name when it is closed.
func (l localFS) Create(name string) (iceio.FileWriter, error) {
	path := localPath(name)
	if err := l.makeFolder(filepath.Dir(path)); err != nil {
		return nil, err
	}
	f, err := os.CreateTemp(filepath.Dir(path), TemporaryPrefix)
	if err != nil {
		return nil, err
	}
	return &durableFile{File: f, path: path, sync: l.sync}, nil
}

// makeFolder makes a folder, and those above it that are missing.
func (l localFS) makeFolder(path string) error {
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	above := filepath.Dir(path)
	if err := l.makeFolder(above); err != nil {
		return err
	}
	if err := os.Mkdir(path, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return syncFolder(above, l.sync)
}

// WriteFile writes a whole file.
func (l localFS) WriteFile(name string, content []byte) error {
	f, err := l.Create(name)
	if err != nil {
		return err
	}
	if _, err := f.Write(content); err != nil {
		_ = f.(*durableFile).discard()
		return err
	}
	return f.Close()
}

type durableFile struct {
	*os.File
	path   string
	sync   func(*os.File) error
	closed bool
}

// ReadFrom is io.ReaderFrom.
func (f *durableFile) ReadFrom(r io.Reader) (int64, error) { return io.Copy(f.File, r) }

// Close publishes the file.
func (f *durableFile) Close() error {
	if f.closed {
		return os.ErrClosed
	}
	f.closed = true
	if err := errors.Join(f.sync(f.File), f.File.Chmod(0o644), f.File.Close()); err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	if err := os.Rename(f.Name(), f.path); err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return syncFolder(filepath.Dir(f.path), f.sync)
}

func (f *durableFile) discard() error {
	f.closed = true
	return errors.Join(f.File.Close(), os.Remove(f.Name()))
}

func syncFolder(name string, sync func(*os.File) error) error {
	folder, err := os.Open(name)
	if err != nil {
		return err
	}
	return errors.Join(sync(folder), folder.Close())
}
