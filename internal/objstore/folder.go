package objstore

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// prepare makes a folder, those above it, and their names durable, once for each
// folder in the life of this Dir.
func (d *Dir) prepare(folder string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.ready[folder] {
		return nil
	}
	if err := d.makeFolder(folder); err != nil {
		return err
	}
	if err := removeLeftovers(folder); err != nil {
		return err
	}
	d.ready[folder] = true
	return nil
}

// makeFolder syncs the folder above also where the folder exists: another
// process may have made it and died before its own sync. Folders above the root
// that exist are the user's.
func (d *Dir) makeFolder(folder string) error {
	above := filepath.Dir(folder)
	inside := len(folder) > len(d.root)
	_, err := os.Stat(folder)
	missing := errors.Is(err, fs.ErrNotExist)
	if err != nil && !missing || above == folder {
		return err
	}
	if inside || missing {
		if err := d.makeFolder(above); err != nil {
			return err
		}
	}
	if missing {
		if err := os.Mkdir(folder, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	if len(folder) < len(d.root) && !missing {
		return nil
	}
	err = d.syncFolder(above)
	if !inside && !missing && errors.Is(err, fs.ErrPermission) {
		return nil // the root is the user's own
	}
	return err
}

// removeLeftovers removes temporary files of processes that died. Age is told by
// a file that is made for it: by the file system's own clock.
func removeLeftovers(folder string) error {
	probe, err := createTemporary(folder)
	if err != nil {
		return err
	}
	info, err := probe.Stat()
	err = errors.Join(err, probe.Close(), os.Remove(probe.Name()))
	if err != nil {
		return err
	}
	entries, err := os.ReadDir(folder)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), temporaryPrefix) {
			removeOlder(filepath.Join(folder, e.Name()), info.ModTime().Add(-temporaryAge))
		}
	}
	return nil
}

// removeOlder does what it can: what stays is nobody's object.
func removeOlder(name string, than time.Time) {
	if info, err := os.Lstat(name); err == nil && info.ModTime().Before(than) {
		_ = os.Remove(name)
	}
}

func (d *Dir) syncFolder(folder string) error {
	f, err := os.Open(folder)
	if err != nil {
		return err
	}
	return errors.Join(d.sync(f), f.Close())
}
