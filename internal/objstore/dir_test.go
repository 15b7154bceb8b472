package objstore

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/frazil-io/frazil/internal/batch"
)

func newDir(t *testing.T) *Dir {
	t.Helper()
	d, err := OpenDir(filepath.Join(t.TempDir(), "new", "root"))
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func absolute(t *testing.T, name string) string {
	t.Helper()
	abs, err := filepath.Abs(name)
	if err != nil {
		t.Fatal(err)
	}
	return abs
}

func TestDirKeepsThePromises(t *testing.T) { testStore(t, newDir(t)) }

// temporaries returns the names of temporary files anywhere below the root.
func temporaries(t *testing.T, d *Dir) []string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(d.root, "*", temporaryPrefix+"*"))
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func TestDirLeavesNoTemporaryFiles(t *testing.T) {
	d := newDir(t)
	for _, err := range []error{d.Create(t.Context(), "a/1", nil), d.Put(t.Context(), "a/1", nil)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := d.Create(t.Context(), "a/1", nil); !errors.Is(err, ErrExists) {
		t.Fatal(err)
	}
	if left := temporaries(t, d); len(left) > 0 {
		t.Errorf("%v were left", left)
	}
}

// A process that died leaves a temporary file behind. It is no object, and the
// next process removes it once it is old, but not one that is being written.
func TestDirRemovesOldTemporaryFiles(t *testing.T) {
	dead := newDir(t)
	if err := dead.Put(t.Context(), "a/1", nil); err != nil {
		t.Fatal(err)
	}
	for name, age := range map[string]time.Duration{"old": 2 * temporaryAge, "young": temporaryAge / 2} {
		file := filepath.Join(dead.root, "a", temporaryPrefix+name)
		if err := os.WriteFile(file, []byte("half"), 0o644); err != nil {
			t.Fatal(err)
		}
		at := time.Now().Add(-age)
		if err := os.Chtimes(file, at, at); err != nil {
			t.Fatal(err)
		}
	}
	d, err := OpenDir(dead.root)
	if err != nil {
		t.Fatal(err)
	}
	if keys, err := d.List(t.Context(), "", ""); err != nil || !slices.Equal(keys, []string{"a/1"}) {
		t.Errorf("the listing shows %v, %v", keys, err)
	}
	if n := len(temporaries(t, d)); n != 2 {
		t.Errorf("%d temporary files after a listing: reading removed some", n)
	}
	if err := d.Put(t.Context(), "a/2", nil); err != nil {
		t.Fatal(err)
	}
	if left := temporaries(t, d); len(left) != 1 || !strings.HasSuffix(left[0], "young") {
		t.Errorf("left: %v", left)
	}
}

// Somebody removes the checkpoint below a running process: the next write is a
// write into an empty store.
func TestDirIsRemovedMeanwhile(t *testing.T) {
	d := newDir(t)
	if err := d.Put(t.Context(), "a/b/1", nil); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(d.root); err != nil {
		t.Fatal(err)
	}
	if keys, err := d.List(t.Context(), "a/", ""); err != nil || len(keys) > 0 {
		t.Errorf("the listing shows %v, %v", keys, err)
	}
	if err := d.Create(t.Context(), "a/b/1", []byte("new")); err != nil {
		t.Fatal(err)
	}
	wantObject(t, d, "a/b/1", "new")
}

// The publishing step fails where the temporary file was taken away from a
// process that was frozen: it writes again.
func TestDirTemporaryFileIsRemovedMeanwhile(t *testing.T) {
	d := newDir(t)
	tries := 0
	err := d.write(t.Context(), "a/1", []byte("text"), func(from, to string) error {
		if tries++; tries == 1 {
			if err := os.Remove(from); err != nil {
				t.Fatal(err)
			}
		}
		return os.Link(from, to)
	})
	if err != nil || tries != 2 {
		t.Fatalf("%d tries, %v", tries, err)
	}
	wantObject(t, d, "a/1", "text")
}

func TestDirErrorsSayWhatToDo(t *testing.T) {
	blocked := newDir(t)
	if err := blocked.Put(t.Context(), "file", nil); err != nil {
		t.Fatal(err)
	}
	unlinkable := newDir(t)
	noLinks := func(from, to string) error {
		return &os.LinkError{Op: "link", Old: from, New: to, Err: os.ErrPermission}
	}
	_, through := blocked.Get(t.Context(), "file/below")
	for name, c := range map[string]struct {
		err  error
		want []string
	}{
		"a file where a folder must be": {blocked.Put(t.Context(), "file/below/it", nil), []string{blocked.root, "in the way"}},
		"reading through a file":        {through, []string{blocked.root, "in the way"}},
		"a name too long":               {blocked.Put(t.Context(), strings.Repeat("x", 300), nil), []string{blocked.root}},
		"no hard links":                 {unlinkable.write(t.Context(), "a", nil, noLinks), []string{unlinkable.root, "hard links"}},
	} {
		if !errors.Is(c.err, batch.ErrInvalid) {
			t.Errorf("%s: %v", name, c.err)
			continue
		}
		for _, text := range c.want {
			if !strings.Contains(c.err.Error(), text) {
				t.Errorf("%s: %v does not say %q", name, c.err, text)
			}
		}
	}
}

// What passes by itself is not the user's mistake, and the other way round.
func TestDirClassifiesByNumber(t *testing.T) {
	for cause, want := range map[error]error{
		syscall.EROFS:  batch.ErrInvalid,
		syscall.EACCES: batch.ErrInvalid,
		syscall.EINVAL: batch.ErrInvalid,
		syscall.ENOSPC: batch.ErrUnavailable,
		syscall.EIO:    batch.ErrUnavailable,
		syscall.EMFILE: batch.ErrUnavailable,
		syscall.ENOENT: batch.ErrUnavailable,
	} {
		d := newDir(t)
		err := d.write(t.Context(), "a/2", nil, func(from, _ string) error { return &os.PathError{Op: "open", Path: from, Err: cause} })
		if !errors.Is(err, want) || errors.Is(err, ErrNotFound) || !strings.Contains(err.Error(), d.root) {
			t.Errorf("%v is classified as %v", cause, err)
		}
	}
}

// The machine may die at any moment: contents are synced before they get their
// name, names before the call returns, and so are the names of new folders. An
// object that is there already may be one whose maker died before its sync.
func TestDirSyncsInOrder(t *testing.T) {
	d := newDir(t)
	var steps []string
	d.sync = func(f *os.File) error {
		name := f.Name()
		if strings.Contains(name, temporaryPrefix) {
			name = "temporary"
		}
		steps = append(steps, "sync "+strings.TrimPrefix(name, filepath.Dir(filepath.Dir(d.root))))
		return f.Sync()
	}
	link := func(from, to string) error {
		steps = append(steps, "link")
		return os.Link(from, to)
	}
	want := []string{"sync ", "sync /new", "sync /new/root", "sync temporary", "link", "sync /new/root/a"}
	for _, result := range []error{nil, ErrExists} {
		if err := d.write(t.Context(), "a/1", []byte("text"), link); !errors.Is(err, result) {
			t.Errorf("write returned %v, want %v", err, result)
		}
		if !slices.Equal(steps, want) {
			t.Errorf("wrote in the order %q, want %q", steps, want)
		}
		steps, want = nil, want[3:]
	}
	other, err := OpenDir(d.root)
	if err != nil {
		t.Fatal(err)
	}
	other.sync = d.sync
	if err := other.write(t.Context(), "a/2", nil, link); err != nil {
		t.Fatal(err)
	}
	if want := []string{"sync /new", "sync /new/root", "sync temporary", "link", "sync /new/root/a"}; !slices.Equal(steps, want) {
		t.Errorf("another process wrote in the order %q, want %q", steps, want)
	}
}

// What could not be synced was not written, as far as a caller may think.
func TestDirSyncFails(t *testing.T) {
	for fails := range 5 {
		d := newDir(t)
		n := 0
		d.sync = func(*os.File) error {
			if n++; n == fails+1 {
				return syscall.EIO
			}
			return nil
		}
		if err := d.Create(t.Context(), "a/1", nil); !errors.Is(err, batch.ErrUnavailable) {
			t.Errorf("sync %d failed, and create returned %v", fails, err)
		}
		if err := d.Create(t.Context(), "a/1", nil); err != nil && !errors.Is(err, ErrExists) {
			t.Errorf("sync %d failed, and the next create returned %v", fails, err)
		}
		if left := temporaries(t, d); len(left) > 0 {
			t.Errorf("sync %d failed and left %v", fails, left)
		}
	}
}
