package checkpoint

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/frazil-io/frazil/internal/batch"
	"github.com/frazil-io/frazil/internal/objstore"
)

var inc = batch.Incarnation{UUID: "u", Name: "p", ID: "i", Kind: batch.First}

func opened(t *testing.T) (*Checkpoint, objstore.Store) {
	t.Helper()
	dir, err := objstore.OpenDir(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	c := New(dir, "p")
	if err := c.CreateIncarnation(t.Context(), inc); err != nil {
		t.Fatal(err)
	}
	return c, dir
}

func plan(entry int64, id batch.ID, writer string) *batch.Plan {
	return &batch.Plan{Incarnation: inc, Entry: entry, Batch: id, Time: time.Unix(1, 0).UTC(), Writer: batch.Writer{ID: writer}, Ranges: []batch.Range{{End: 5}}}
}

func TestAppend(t *testing.T) {
	c, _ := opened(t)
	ctx := t.Context()
	if err := errors.Join(c.Append(ctx, plan(0, 0, "a")), c.Append(ctx, plan(0, 0, "a"))); err != nil {
		t.Fatalf("the same plan twice: %v", err)
	}
	if err := c.Append(ctx, plan(0, 0, "b")); !errors.Is(err, batch.ErrFenced) {
		t.Errorf("another writer's plan: %v", err)
	}
	if err := c.Append(ctx, plan(1, 1, "a")); err != nil {
		t.Fatal(err)
	}
	if err := c.Append(ctx, plan(0, 0, "a")); !errors.Is(err, batch.ErrFenced) {
		t.Errorf("a ghost: %v", err)
	}
	if p, err := c.Newest(ctx, inc); err != nil || p.Hash() != plan(1, 1, "a").Hash() {
		t.Errorf("newest %v %v: a plan changes on its way through the store", p, err)
	}
	newer := inc
	newer.Number, newer.ID = 1, "j"
	if err := c.CreateIncarnation(ctx, newer); err != nil {
		t.Fatal(err)
	}
	if err := c.Append(ctx, plan(2, 2, "a")); !errors.Is(err, batch.ErrFenced) {
		t.Errorf("an old incarnation: %v", err)
	}
}

func TestRevisionsAndPurge(t *testing.T) {
	c, _ := opened(t)
	ctx := t.Context()
	for entry, id := range []batch.ID{0, 1, 1, 2, 3} {
		p := plan(int64(entry), id, "a")
		p.Revision = entry
		if err := errors.Join(c.Append(ctx, p), c.Record(ctx, inc, batch.Commit{Batch: id})); err != nil {
			t.Fatal(err)
		}
	}
	if found, err := c.Revisions(ctx, inc, 1); err != nil || len(found) != 2 || found[0].Entry != 1 {
		t.Fatalf("%v %v", found, err)
	}
	if err := c.Purge(ctx, inc, 2); err != nil {
		t.Fatal(err)
	}
	if found, err := c.Revisions(ctx, inc, 1); err != nil || len(found) != 0 {
		t.Errorf("purged: %v %v", found, err)
	}
	if err := c.Purge(ctx, inc, 99); err != nil {
		t.Fatal(err)
	}
	if p, err := c.Newest(ctx, inc); err != nil || p == nil || p.Batch != 3 {
		t.Errorf("the newest entry is gone: %v %v", p, err)
	}
	if r, err := c.Recorded(ctx, inc, 5); err != nil || len(r) != 0 {
		t.Errorf("records: %v %v", r, err)
	}
}

func TestDamage(t *testing.T) {
	c, store := opened(t)
	ctx := t.Context()
	if err := c.Append(ctx, plan(0, 0, "a")); err != nil {
		t.Fatal(err)
	}
	key := c.log(inc) + number(0)
	whole, err := store.Get(ctx, key)
	if err != nil {
		t.Fatal(err)
	}
	for name, damaged := range map[string]string{
		"cut":      string(whole[:len(whole)-2]),
		"flipped":  strings.Replace(string(whole), `"end":5`, `"end":6`, 1),
		"empty":    "",
		"nonsense": "hello\n{}\n",
	} {
		if err := store.Put(ctx, key, []byte(damaged)); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Newest(ctx, inc); !errors.Is(err, batch.ErrDataLost) || !strings.Contains(err.Error(), key) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := store.Put(ctx, key, []byte(strings.Replace(string(whole), " v1 ", " v9 ", 1))); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Newest(ctx, inc); !errors.Is(err, batch.ErrInvalid) || !strings.Contains(err.Error(), "newer") {
		t.Errorf("a newer version: %v", err)
	}
}

func TestAttemptsAndRelease(t *testing.T) {
	c, _ := opened(t)
	ctx := t.Context()
	a := batch.Attempt{Name: "x", Batch: 3, Waits: map[string][]string{"s": {"h"}}}
	if err := c.Register(ctx, a); err != nil {
		t.Fatal(err)
	}
	if all, err := c.Attempts(ctx); err != nil || len(all) != 1 || all[0].Waits["s"][0] != "h" {
		t.Errorf("%v %v", all, err)
	}
	if err := errors.Join(c.Forget(ctx, "x"), c.Forget(ctx, "x")); err != nil {
		t.Error(err)
	}
	w := batch.Writer{ID: "w"}
	if free, err := c.Released(ctx, w); free || err != nil {
		t.Errorf("%v %v", free, err)
	}
	if err := c.Release(ctx, w); err != nil {
		t.Fatal(err)
	}
	if free, err := c.Released(ctx, w); !free || err != nil {
		t.Errorf("%v %v", free, err)
	}
	// A purge keeps the note of the newest plan's writer only.
	if err := errors.Join(c.Append(ctx, plan(0, 0, "w")), c.Release(ctx, batch.Writer{ID: "v"}), c.Purge(ctx, inc, 0)); err != nil {
		t.Fatal(err)
	}
	for id, want := range map[string]bool{"w": true, "v": false} {
		if free, err := c.Released(ctx, batch.Writer{ID: id}); free != want || err != nil {
			t.Errorf("writer %s: released %v, %v", id, free, err)
		}
	}
}

func FuzzDecode(f *testing.F) {
	data, err := encode(kindPlan, plan(0, 0, "a"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Add([]byte("frazil plan v1 sha256:00\n{}\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		p := &batch.Plan{}
		if err := decode(kindPlan, "k", data, p); err != nil && !errors.Is(err, batch.ErrDataLost) && !errors.Is(err, batch.ErrInvalid) {
			t.Fatal(err)
		}
	})
}

// TestCopiesOfDimensions: a copy stays while any plan of any incarnation names
// it, and while a plan may be about to.
func TestTables(t *testing.T) {
	c, _ := opened(t)
	ctx := t.Context()
	if all, err := c.Tables(ctx, "raw"); err != nil || len(all) > 0 {
		t.Errorf("%v %v", all, err)
	}
	if err := errors.Join(c.NoteTable(ctx, "raw", "n.b"), c.NoteTable(ctx, "raw", "n.a"), c.NoteTable(ctx, "raw", "n.b"), c.NoteTable(ctx, "raw2", "n.c")); err != nil {
		t.Fatal(err)
	}
	if all, err := c.Tables(ctx, "raw"); err != nil || !slices.Equal(all, []string{"n.a", "n.b"}) {
		t.Errorf("%v %v", all, err)
	}
}

func TestCopiesOfDimensions(t *testing.T) {
	c, store := opened(t)
	ctx := t.Context()
	version := func(n int) string { return fmt.Sprintf("%064x", n) }
	keep := func(c *Checkpoint, n int) {
		t.Helper()
		if err := c.KeepDimension(ctx, version(n), []byte{byte(n)}); err != nil {
			t.Fatal(err)
		}
	}
	there := func() (all string) {
		for n := range 10 {
			if data, err := c.Dimension(ctx, version(n)); err == nil && len(data) == 1 && data[0] == byte(n) {
				all += fmt.Sprint(n)
			} else if !errors.Is(err, batch.ErrInvalid) {
				t.Fatal(err)
			}
		}
		return all
	}
	logged := func(inc batch.Incarnation, entry int64, versions ...int) {
		t.Helper()
		p := plan(entry, batch.ID(entry), "a")
		p.Incarnation, p.Versions = inc, map[string]string{"iceberg": "1234"}
		for i, v := range versions {
			p.Versions[fmt.Sprint("t", i)] = version(v)
		}
		if err := c.put(ctx, kindPlan, c.log(inc)+number(entry), p); err != nil {
			t.Fatal(err)
		}
	}
	for n := range 7 {
		keep(c, n)
	}
	other := inc
	other.Number, other.ID = 7, "other"
	logged(other, 0, 1)
	for entry, versions := range [][]int{{0, 1}, {2}, {0, 3}, {3}, {4}} {
		logged(inc, int64(entry), versions...)
	}
	purge := func(keep batch.ID, want string) {
		t.Helper()
		if err := c.Purge(ctx, inc, keep); err != nil {
			t.Fatal(err)
		}
		if got := there(); got != want {
			t.Errorf("purged to %d: copies %s, want %s", keep, got, want)
		}
	}
	c = New(store, c.name) // another process: nothing is fresh
	keep(c, 2)             // a plan may be about to name it
	purge(2, "0123456")
	logged(inc, 5, 2)
	purge(3, "123456") // 5 and 6: kept and never named; 1: named by another incarnation
	purge(4, "12456")
	purge(99, "1256")
}
