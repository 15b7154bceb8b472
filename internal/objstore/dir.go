package objstore

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/frazil-io/frazil/internal/batch"
)

const (
	// temporaryPrefix marks files that are not objects yet. A process that died
	// leaves them behind; nobody reads them.
	temporaryPrefix = ".frazil-tmp-"
	// temporaryAge is how old a temporary file is when it is removed: no write
	// takes so long. A process that was frozen for longer writes anew.
	temporaryAge = time.Hour
)

// Dir is a Store in a directory of a local file system. An object is written to
// a temporary file in its own folder, synced, and linked to its name, which
// fails where the name exists; then the folder is synced. So an object is there
// whole or not at all, whenever the process or the machine dies.
type Dir struct {
	root string
	sync func(*os.File) error // (*os.File).Sync; a test watches it

	mu    sync.Mutex
	ready map[string]bool // folders that are there, durable, and rid of old temporary files
}

// OpenDir opens a directory. It is made by the first write if it is missing.
func OpenDir(root string) (*Dir, error) {
	if root == "" {
		return nil, fmt.Errorf("%w: the location of a directory is empty", batch.ErrInvalid)
	}
	abs, err := filepath.Abs(root)
	if err != nil {
		return nil, fmt.Errorf("%w: directory %q: %w", batch.ErrInvalid, root, err)
	}
	return &Dir{root: abs, sync: (*os.File).Sync, ready: map[string]bool{}}, nil
}

// Create implements Store.
func (d *Dir) Create(ctx context.Context, key string, data []byte) error {
	return d.write(ctx, key, data, os.Link)
}

// Put implements Store.
func (d *Dir) Put(ctx context.Context, key string, data []byte) error {
	return d.write(ctx, key, data, os.Rename)
}

// Get implements Store.
func (d *Dir) Get(ctx context.Context, key string) ([]byte, error) {
	if err := check(ctx, "read", key); err != nil {
		return nil, err
	}
	data, err := os.ReadFile(d.file(key))
	if err != nil {
		return nil, d.classify("read", key, err)
	}
	return data, nil
}

// List implements Store.
func (d *Dir) List(ctx context.Context, prefix, after string) ([]string, error) {
	if err := checkPrefix(ctx, prefix); err != nil {
		return nil, err
	}
	var keys []string
	err := filepath.WalkDir(d.file(path.Dir(prefix+"x")), func(name string, e fs.DirEntry, err error) error {
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
	slices.Sort(keys) // a walk sorts by element, and "a-b" is before "a/b"
	return keys, nil
}

// Delete implements Store.
func (d *Dir) Delete(ctx context.Context, key string) error {
	if err := check(ctx, "delete", key); err != nil {
		return err
	}
	if err := os.Remove(d.file(key)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return d.classify("delete", key, err)
	}
	return nil
}

func (d *Dir) file(key string) string { return filepath.Join(d.root, filepath.FromSlash(key)) }

// write makes a durable temporary file and publishes it under the key's name.
func (d *Dir) write(ctx context.Context, key string, data []byte, publish func(from, to string) error) error {
	err := errors.Join(check(ctx, "write", key), checkSize(key, data))
	if err != nil {
		return err
	}
	err = d.place(d.file(key), data, publish)
	if errors.Is(err, fs.ErrNotExist) {
		// A folder, or the temporary file of a process that was frozen for
		// hours, was removed under us: nothing was published yet.
		d.mu.Lock()
		clear(d.ready)
		d.mu.Unlock()
		err = d.place(d.file(key), data, publish)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("write %s: %w: the folder vanishes from directory %s: %w", key, batch.ErrUnavailable, d.root, err)
	}
	return d.classify("write", key, err)
}

func (d *Dir) place(name string, data []byte, publish func(from, to string) error) error {
	folder := filepath.Dir(name)
	if err := d.prepare(folder); err != nil {
		return err
	}
	tmp, err := createTemporary(folder)
	if err != nil {
		return err
	}
	_, err = tmp.Write(data)
	err = errors.Join(err, d.sync(tmp), tmp.Close())
	if err == nil {
		err = publish(tmp.Name(), name)
	}
	_ = os.Remove(tmp.Name()) // gone already after a rename; a leftover does no harm
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	// Also where the name exists: whoever made it may have died before its sync,
	// and our caller may go on as if it were its own.
	if synced := d.syncFolder(folder); synced != nil {
		return synced
	}
	return err
}

func createTemporary(folder string) (*os.File, error) {
	name := filepath.Join(folder, temporaryPrefix+rand.Text())
	return os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
}

// classify says what a caller must do; nil for nil. Every case goes by the
// system's error number.
func (d *Dir) classify(verb, key string, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, fs.ErrExist):
		return fmt.Errorf("%s %s: %w", verb, key, ErrExists)
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%s %s: %w", verb, key, ErrNotFound)
	case isLink(err) && errors.Is(err, fs.ErrPermission), errors.Is(err, syscall.ENOTSUP), errors.Is(err, syscall.ENOSYS), errors.Is(err, syscall.EINVAL):
		return fmt.Errorf("%w: %s %q in directory %s: %w; its file system lacks hard links or synced folders: use a local file system or s3://bucket/prefix",
			batch.ErrInvalid, verb, key, d.root, err)
	case errors.Is(err, fs.ErrPermission), errors.Is(err, syscall.EROFS):
		return fmt.Errorf("%w: %s %q in directory %s: %w; make it a directory that this user may read and write", batch.ErrInvalid, verb, key, d.root, err)
	case errors.Is(err, syscall.ENOTDIR), errors.Is(err, syscall.EISDIR), errors.Is(err, syscall.ENAMETOOLONG):
		return fmt.Errorf("%w: %s %q in directory %s: %w; remove what is in the way, or choose another directory", batch.ErrInvalid, verb, key, d.root, err)
	default: // a full disk, I/O errors: they may pass
		return fmt.Errorf("%s %s in directory %s: %w: %w", verb, key, d.root, batch.ErrUnavailable, err)
	}
}

func isLink(err error) bool {
	var link *os.LinkError
	return errors.As(err, &link) && link.Op == "link"
}
