package objstore

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/frazil-io/frazil/internal/batch"
)

// temporaryPrefix marks files that are not objects yet. A process that died
// leaves them behind; nobody reads them.
const temporaryPrefix = ".frazil-tmp-"

// Dir is a Store in a directory of a local file system. An object is written to
// a temporary file, synced, and linked to its name, which fails where the name
// exists; then the folder is synced. So an object is there whole or not at all.
type Dir struct{ root string }

// OpenDir opens a directory and makes it if it is missing.
func OpenDir(root string) (*Dir, error) {
	abs, err := filepath.Abs(root)
	if err != nil {
		return nil, fmt.Errorf("%w: directory %q: %w", batch.ErrInvalid, root, err)
	}
	d := &Dir{root: abs}
	if err := d.makeFolder(abs); err != nil {
		return nil, d.classify("open", root, err)
	}
	return d, nil
}

// Create implements Store.
func (d *Dir) Create(_ context.Context, key string, data []byte) error {
	return d.write(key, data, os.Link)
}

// Put implements Store.
func (d *Dir) Put(_ context.Context, key string, data []byte) error {
	return d.write(key, data, os.Rename)
}

// Get implements Store.
func (d *Dir) Get(_ context.Context, key string) ([]byte, error) {
	data, err := os.ReadFile(d.file(key))
	if err != nil {
		return nil, d.classify("read", key, err)
	}
	return data, nil
}

// List implements Store.
func (d *Dir) List(_ context.Context, prefix, after string) ([]string, error) {
	var keys []string
	folder := path.Dir(prefix + "x")
	err := filepath.WalkDir(d.file(folder), func(name string, e fs.DirEntry, err error) error {
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return nil // nothing there, or removed while we look
		case err != nil:
			return err
		case e.IsDir() || strings.HasPrefix(e.Name(), temporaryPrefix):
			return nil
		}
		rel, err := filepath.Rel(d.root, name)
		if key := filepath.ToSlash(rel); err == nil && strings.HasPrefix(key, prefix) && key > after {
			keys = append(keys, key)
		}
		return err
	})
	if err != nil {
		return nil, d.classify("list", prefix, err)
	}
	slices.Sort(keys)
	return keys, nil
}

// Delete implements Store.
func (d *Dir) Delete(_ context.Context, key string) error {
	err := os.Remove(d.file(key))
	if err == nil || errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return d.classify("delete", key, err)
}

func (d *Dir) file(key string) string { return filepath.Join(d.root, filepath.FromSlash(key)) }

// write makes a durable temporary file and publishes it under the key's name.
func (d *Dir) write(key string, data []byte, publish func(from, to string) error) error {
	name := d.file(key)
	folder := filepath.Dir(name)
	if err := d.makeFolder(folder); err != nil {
		return d.classify("write", key, err)
	}
	tmp, err := os.CreateTemp(folder, temporaryPrefix)
	if err != nil {
		return d.classify("write", key, err)
	}
	defer func() { _ = os.Remove(tmp.Name()) }() // gone already after a rename
	_, err = tmp.Write(data)
	err = errors.Join(err, tmp.Sync(), tmp.Close())
	if err == nil {
		err = publish(tmp.Name(), name)
	}
	if err == nil {
		err = syncFolder(folder)
	}
	if err != nil {
		return d.classify("write", key, err)
	}
	return nil
}

// makeFolder makes a folder and those above it, each one durable.
func (d *Dir) makeFolder(folder string) error {
	if _, err := os.Stat(folder); err == nil {
		return nil
	}
	above := filepath.Dir(folder)
	if above != folder {
		if err := d.makeFolder(above); err != nil {
			return err
		}
	}
	if err := os.Mkdir(folder, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return syncFolder(above)
}

func syncFolder(folder string) error {
	f, err := os.Open(folder)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

func (d *Dir) classify(verb, key string, err error) error {
	switch {
	case errors.Is(err, fs.ErrExist):
		return fmt.Errorf("%s %s: %w", verb, key, ErrExists)
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%s %s: %w", verb, key, ErrNotFound)
	case errors.Is(err, fs.ErrPermission), errors.Is(err, syscall.EROFS), errors.Is(err, syscall.ENOTDIR):
		return fmt.Errorf("%w: %s %q in directory %s: %w; make it a directory that this user may write", batch.ErrInvalid, verb, key, d.root, err)
	default: // disk full, I/O errors: they may pass
		return fmt.Errorf("%s %s in directory %s: %w: %w", verb, key, d.root, batch.ErrUnavailable, err)
	}
}
