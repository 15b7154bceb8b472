package sink

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/apache/iceberg-go"
	"github.com/apache/iceberg-go/table"

	"github.com/frazil-io/frazil/internal/batch"
)

// A commit asserts everything that its sender saw. Each test changes one thing
// between the load and the commit that nothing but one assertion tells.

// change lets another engine do something to the table.
func (f *fixture) change(do func(*table.Transaction) error) {
	f.Helper()
	loaded, err := f.catalog.Load(context.Background(), table.Identifier{"ns", "t"})
	if err != nil {
		f.Fatal(err)
	}
	tx := loaded.NewTransaction()
	if err := do(tx); err != nil {
		f.Fatal(err)
	}
	if _, err := tx.Commit(context.Background()); err != nil {
		f.Fatal(err)
	}
}

func (f *fixture) rollback(to int64) {
	f.Helper()
	f.change(func(tx *table.Transaction) error { return tx.RollbackToSnapshot(to) })
}

// moveRef points a branch or a tag at any snapshot.
func (f *fixture) moveRef(name string, to int64, kind table.RefType) {
	f.Helper()
	_, err := f.catalog.Commit(context.Background(), table.Identifier{"ns", "t"}, nil, []table.Update{table.NewSetSnapshotRefUpdate(name, to, kind, 0, 0, 0)})
	if err != nil {
		f.Fatal(err)
	}
}

// refused sends a commit through a view that is out of date.
func (f *fixture) refused(stale *View, s *batch.Stamp, files *Files) {
	f.Helper()
	before := f.state()
	if _, err := stale.Commit(context.Background(), s, files); !errors.Is(err, batch.ErrUnavailable) {
		f.Errorf("the commit of what is out of date: %v, want unavailable", err)
	}
	if f.state() != before {
		f.Error("the table has changed")
	}
}

// state names the newest metadata file: it changes with every commit.
func (f *fixture) state() string {
	f.Helper()
	loaded, err := f.catalog.Load(context.Background(), table.Identifier{"ns", "t"})
	if err != nil {
		f.Fatal(err)
	}
	return loaded.MetadataLocation()
}

// TestHeadIsAsserted: a rollback moves the head alone. A commit on the head
// before it would undo the rollback without a word.
func TestHeadIsAsserted(t *testing.T) {
	f := newFixture(t)
	tbl := f.mustOpen(nil)
	first := f.commit(tbl, "a0", makeRows(0, 5))
	f.commit(tbl, "a1", makeRows(5, 8))
	stale := f.load(tbl)
	files := f.write(tbl, "late", makeRows(8, 10))
	f.rollback(first)
	f.refused(stale, f.stamp("late"), files)
}

// TestTagIsAsserted: somebody moved the tag back, then put it where it was. What
// was planned meanwhile is in the table already. No snapshot was added, so
// neither the head nor the sequence number tells.
func TestTagIsAsserted(t *testing.T) {
	f := newFixture(t)
	tbl := f.mustOpen(nil)
	first := f.commit(tbl, "a0", makeRows(0, 5))
	second := f.commit(tbl, "a1", makeRows(5, 8))
	f.moveRef("frazil-p", first, table.TagRef)
	stale := f.load(tbl)
	files := f.write(tbl, "late", makeRows(5, 8))
	f.moveRef("frazil-p", second, table.TagRef)
	f.refused(stale, f.stamp("late"), files)
}

// TestMissingTagIsAsserted: the same with a tag that was removed.
func TestMissingTagIsAsserted(t *testing.T) {
	f := newFixture(t)
	tbl := f.mustOpen(nil)
	first := f.commit(tbl, "a0", makeRows(0, 5))
	if err := tbl.Unpin(context.Background(), "frazil-p"); err != nil {
		t.Fatal(err)
	}
	stale := f.load(tbl)
	files := f.write(tbl, "late", makeRows(0, 5))
	f.moveRef("frazil-p", first, table.TagRef)
	f.refused(stale, f.stamp("late"), files)
}

// TestLateCommitOfABatch: another driver commits the batch, and a rollback puts
// the head back to where it was. A late commit would bring the batch in again.
func TestLateCommitOfABatch(t *testing.T) {
	f := newFixture(t)
	tbl := f.mustOpen(nil)
	first := f.commit(tbl, "a0", makeRows(0, 5))
	stale := f.load(tbl)
	files, s := f.write(tbl, "late", makeRows(5, 8)), f.stamp("late")
	f.commit(tbl, "a1", makeRows(5, 8))
	f.rollback(first)
	f.refused(stale, s, files)
}

// TestSchemaIsAsserted: files were written for the columns that the table had.
func TestSchemaIsAsserted(t *testing.T) {
	f := newFixture(t)
	tbl := f.mustOpen(nil)
	f.commit(tbl, "a0", makeRows(0, 5))
	stale := f.load(tbl)
	files := f.write(tbl, "late", makeRows(5, 8))
	f.change(func(tx *table.Transaction) error {
		return tx.UpdateSchema(true, true).AddColumn([]string{"extra"}, iceberg.PrimitiveTypes.String, "", false, nil).Commit()
	})
	f.refused(stale, f.stamp("late"), files)
	if _, err := f.load(tbl).Commit(context.Background(), f.stamp("late"), files); !errors.Is(err, batch.ErrInvalid) {
		t.Errorf("files of the old schema on the new one: %v", err)
	}
}

// TestSpecIsAsserted: files lie in the partitions that the table had.
func TestSpecIsAsserted(t *testing.T) {
	f := newFixture(t)
	tbl := f.mustOpen(nil)
	f.commit(tbl, "a0", makeRows(0, 5))
	stale := f.load(tbl)
	files := f.write(tbl, "late", makeRows(5, 8))
	f.change(func(tx *table.Transaction) error {
		return tx.UpdateSpec(true).AddField("kind", iceberg.IdentityTransform{}, "kind").Commit()
	})
	f.refused(stale, f.stamp("late"), files)
	if _, err := f.load(tbl).Commit(context.Background(), f.stamp("late"), files); !errors.Is(err, batch.ErrInvalid) {
		t.Errorf("files of the old partitions on the new ones: %v", err)
	}
}

// TestTableIsAsserted: a table of the same name is another one. Both are empty,
// so nothing but the UUID tells them apart.
func TestTableIsAsserted(t *testing.T) {
	f := newFixture(t)
	tbl := f.mustOpen(nil)
	stale := f.load(tbl)
	files := f.write(tbl, "late", makeRows(0, 5))
	if err := f.catalog.DropTable(context.Background(), table.Identifier{"ns", "t"}); err != nil {
		t.Fatal(err)
	}
	again := f.mustOpen(nil)
	f.refused(stale, f.stamp("late"), files)
	if _, err := f.load(again).Commit(context.Background(), f.stamp("late"), files); !errors.Is(err, batch.ErrInvalid) {
		t.Errorf("files of the old table in the new one: %v", err)
	}
}

// TestEmptyStampIsASnapshot: an empty stamp moves the head, so that a request
// that was sent before it cannot land any more.
func TestEmptyStampIsASnapshot(t *testing.T) {
	f := newFixture(t)
	tbl := f.mustOpen(nil)
	f.commit(tbl, "a0", makeRows(0, 5))
	stale := f.load(tbl)
	files, s := f.write(tbl, "late", makeRows(5, 8)), f.stamp("late")
	f.commit(tbl, "empty")
	if v := f.load(tbl); v.Stamp().Hash() != f.last.Hash() || v.Head() == stale.Head() {
		t.Errorf("after an empty stamp the tag carries %s on head %d", v.Stamp(), v.Head())
	}
	f.refused(stale, s, files)
	if got := f.ids(nil); !slices.Equal(got, count(5)) {
		t.Errorf("%v", got)
	}
}

// TestRewindFencesLateRequests: a request was on its way when the table still
// was at the snapshot to which a rewind goes back. Restore makes a new snapshot,
// so the request does not find its head again.
func TestRewindFencesLateRequests(t *testing.T) {
	f := newFixture(t)
	tbl := f.mustOpen(nil)
	back := f.commit(tbl, "a0", makeRows(0, 5))
	late := f.load(tbl)
	files, s := f.write(tbl, "late", makeRows(5, 8)), f.stamp("late")
	f.commit(tbl, "a1", makeRows(5, 8))
	anchor := f.stamp("rewind")
	anchor.Incarnation, anchor.IncarnationID = 1, "j"
	id, err := f.load(tbl).Restore(context.Background(), anchor, back, false)
	if err != nil {
		t.Fatal(err)
	}
	v := f.load(tbl)
	if id == back || v.Head() != id || v.Stamp().Hash() != anchor.Hash() || v.Ancestry() != batch.IsAncestor || len(v.History()) != 3 {
		t.Errorf("snapshot %d on head %d carries %s, history %v", id, v.Head(), v.Stamp(), v.History())
	}
	f.refused(late, s, files)
	if got := f.ids(nil); !slices.Equal(got, count(5)) {
		t.Errorf("%v", got)
	}
}

// TestRestoreKeepsOthers: a rewind drops no snapshot of another writer, nor of
// another pipeline, unless it is told to.
func TestRestoreKeepsOthers(t *testing.T) {
	f := newFixture(t)
	tbl := f.mustOpen(nil)
	other, err := f.open(func(o *Options) { o.Pipeline = "q" }, rowSchema)
	if err != nil {
		t.Fatal(err)
	}
	back := f.commit(tbl, "a0", makeRows(0, 5))
	q := &batch.Stamp{UUID: "v", Name: "q", Stream: batch.StreamMain, Start: batch.Offsets{}, End: batch.Offsets{}}
	files := f.write(other, "q0", makeRows(5, 8))
	if _, err := f.load(other).Commit(context.Background(), q, files); err != nil {
		t.Fatal(err)
	}
	before := f.state()
	if _, err := f.load(tbl).Restore(context.Background(), f.stamp("r"), back, false); !errors.Is(err, batch.ErrDataLost) || f.state() != before {
		t.Fatalf("the rows of another pipeline would be dropped: %v", err)
	}
	if _, err := f.load(tbl).Restore(context.Background(), f.stamp("r"), back, true); err != nil {
		t.Fatal(err)
	}
	if got := f.ids(nil); !slices.Equal(got, count(5)) {
		t.Errorf("%v", got)
	}
}

// TestRestoreOfAnExpiredSnapshot: what it went back to is gone.
func TestRestoreOfAnExpiredSnapshot(t *testing.T) {
	f := newFixture(t)
	tbl := f.mustOpen(nil)
	back := f.commit(tbl, "a0", makeRows(0, 5))
	f.commit(tbl, "a1", makeRows(5, 8))
	if err := tbl.Pin(context.Background(), "frazil-p.rewind-1", back); err != nil {
		t.Fatal(err)
	}
	expire := func() {
		f.change(func(tx *table.Transaction) error {
			return tx.ExpireSnapshots(table.WithRetainLast(1), table.WithOlderThan(0), table.WithPostCommit(false))
		})
	}
	expire()
	if _, ok := f.load(tbl).Snapshot(back); !ok {
		t.Fatal("a pinned snapshot has expired")
	}
	if err := errors.Join(tbl.Unpin(context.Background(), "frazil-p.rewind-1"), tbl.Unpin(context.Background(), "frazil-p.rewind-1")); err != nil {
		t.Fatalf("the pin is removed twice: %v", err)
	}
	expire()
	if _, err := f.load(tbl).Restore(context.Background(), f.stamp("r"), back, true); !errors.Is(err, batch.ErrDataLost) {
		t.Errorf("restored an expired snapshot: %v", err)
	}
	if err := tbl.Pin(context.Background(), "frazil-p.rewind-2", back); !errors.Is(err, batch.ErrInvalid) {
		t.Errorf("pinned an expired snapshot: %v", err)
	}
}

// TestSweepKeepsWhatAnyLiveSnapshotNames: the table was rolled back, and may be
// rolled forward again.
func TestSweepKeepsWhatAnyLiveSnapshotNames(t *testing.T) {
	f := newFixture(t)
	tbl := f.mustOpen(nil)
	first := f.commit(tbl, "a0", makeRows(0, 5))
	second := f.commit(tbl, "a1", makeRows(5, 8))
	f.rollback(first)
	if err := tbl.Sweep(context.Background(), "a1"); err != nil {
		t.Fatal(err)
	}
	if n := f.dataFiles(); n != 2 {
		t.Fatalf("%d data files are left of 2", n)
	}
	f.moveRef(table.MainBranch, second, table.BranchRef)
	if got := f.ids(nil); !slices.Equal(got, count(8)) {
		t.Errorf("%v", got)
	}
}

func (f *fixture) dataFiles() (n int) {
	f.Helper()
	err := filepath.WalkDir(f.dir, func(name string, _ os.DirEntry, err error) error {
		if strings.HasSuffix(name, ".parquet") {
			n++
		}
		return err
	})
	if err != nil {
		f.Fatal(err)
	}
	return n
}
