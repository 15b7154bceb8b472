package objstore

import (
	"errors"
	"os"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"github.com/frazil-io/frazil/internal/batch"
)

// nobody is a user without rights on anything.
const nobody = 65534

// A directory that its user may not write is a mistake to be named. Permissions
// do not bind root, as whom containers run tests: it lays its rights down on
// this thread alone.
func TestDirThatMayNotBeWritten(t *testing.T) {
	d := newDir(t)
	if err := d.Put(t.Context(), "a/1", []byte("text")); err != nil {
		t.Fatal(err)
	}
	for _, folder := range []string{d.root, d.root + "/a"} {
		if err := os.Chmod(folder, 0o555); err != nil {
			t.Fatal(err)
		}
		defer func() { _ = os.Chmod(folder, 0o755) }()
	}
	if os.Geteuid() == 0 {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		if err := syscall.Setfsuid(nobody); err != nil {
			t.Fatal(err)
		}
		defer func() { _ = syscall.Setfsuid(0) }()
	}
	fresh, err := OpenDir(d.root)
	if err != nil {
		t.Fatal(err)
	}
	for name, err := range map[string]error{
		"create in a folder": fresh.Create(t.Context(), "a/2", nil),
		"create a folder":    fresh.Create(t.Context(), "b/1", nil),
		"put":                fresh.Put(t.Context(), "a/1", nil),
		"put, known folder":  d.Put(t.Context(), "a/1", nil),
		"delete":             d.Delete(t.Context(), "a/1"),
	} {
		if !errors.Is(err, batch.ErrInvalid) || !strings.Contains(err.Error(), d.root) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
