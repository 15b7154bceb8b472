package sink

import (
	"io/fs"
	"sync"

	iceio "github.com/apache/iceberg-go/io"
)

// files is the table's file system. A REST catalog may vend keys with each load
// that hold for a while only, so the one behind it is exchanged then; whoever
// has a file open goes on with the one it was opened in.
type files struct {
	mu  sync.RWMutex
	now iceio.WriteFileIO
}

func (f *files) exchange(by iceio.WriteFileIO) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.now = by
}

func (f *files) current() iceio.WriteFileIO {
	f.mu.RLock()
	defer f.mu.RUnlock()
	return f.now
}

// Open implements io.IO.
func (f *files) Open(name string) (iceio.File, error) { return f.current().Open(name) }

// Remove implements io.IO.
func (f *files) Remove(name string) error { return f.current().Remove(name) }

// Create implements io.WriteFileIO.
func (f *files) Create(name string) (iceio.FileWriter, error) { return f.current().Create(name) }

// WriteFile implements io.WriteFileIO.
func (f *files) WriteFile(name string, content []byte) error {
	return f.current().WriteFile(name, content)
}

// WalkDir implements io.ListableIO.
func (f *files) WalkDir(root string, visit fs.WalkDirFunc) error {
	if l, ok := f.current().(iceio.ListableIO); ok {
		return l.WalkDir(root, visit)
	}
	return fs.ErrNotExist
}
