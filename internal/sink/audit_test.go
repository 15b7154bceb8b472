package sink

import (
	"context"
	"slices"
	"testing"

	"github.com/apache/iceberg-go/table"
)

// staging runs a test on SQLite and behind a REST server, in both formats.
func staging(t *testing.T, run func(*fixture, *Table)) {
	for name, make := range map[string]func(*testing.T) *fixture{"SQLite": newFixture, "REST": newRESTFixture} {
		for _, format := range []int{2, 3} {
			t.Run(name+" format "+string(rune('0'+format)), func(t *testing.T) {
				f := make(t)
				run(f, f.mustOpen(func(o *Options) { o.FormatVersion = format }))
			})
		}
	}
}

func (f *fixture) stage(t *Table, attempt string, from, to int) (*Files, int64) {
	f.Helper()
	files := f.write(t, attempt, makeRows(from, to))
	id, err := f.load(t).Stage(context.Background(), f.stamp(attempt), files)
	if err != nil {
		f.Fatal(err)
	}
	return files, id
}

// TestStagedIsNotSeen: rows that wait for an audit are not in the table; then the
// snapshot itself is.
func TestStagedIsNotSeen(t *testing.T) {
	staging(t, func(f *fixture, tbl *Table) {
		head := f.commit(tbl, "one", makeRows(0, 10))
		_, staged := f.stage(tbl, "two", 10, 15)
		v := f.load(tbl)
		if v.Head() != head || v.Tagged() != head || !slices.Equal(f.ids(nil), count(10)) {
			f.Fatalf("head %d, tag %d, want %d; rows %v", v.Head(), v.Tagged(), head, f.ids(nil))
		}
		// Another process finds it.
		again := f.mustOpen(nil)
		id, stamp, files, err := f.load(again).Staged(context.Background())
		if err != nil || id != staged || stamp.Hash() != f.stamp("two").Hash() || files.Rows() != 5 {
			f.Fatal(id, stamp, files, err)
		}
		published, err := f.load(again).Commit(context.Background(), stamp, files)
		if err != nil || published != staged {
			f.Fatal(published, staged, err)
		}
		f.last = stamp
		v = f.load(again)
		if v.Head() != staged || v.Tagged() != staged || v.staged != nil || !slices.Equal(f.ids(nil), count(15)) {
			f.Fatalf("head %d, tag %d, want %d; rows %v", v.Head(), v.Tagged(), staged, f.ids(nil))
		}
		f.commit(again, "three", makeRows(15, 20))
		if !slices.Equal(f.ids(nil), count(20)) {
			f.Fatal(f.ids(nil))
		}
	})
}

// TestStagedOnAnotherHead: where somebody committed meanwhile, the same files go
// on the new head, and the staged snapshot is gone.
func TestStagedOnAnotherHead(t *testing.T) {
	staging(t, func(f *fixture, tbl *Table) {
		f.commit(tbl, "one", makeRows(0, 10))
		files, staged := f.stage(tbl, "two", 10, 15)
		f.foreign(1)
		v := f.load(tbl)
		_, stamp, found, err := v.Staged(context.Background())
		if v.meta.Version() == 2 && (err != nil || found.Rows() != 5) || v.meta.Version() == 3 && stamp != nil {
			f.Fatal(stamp, found, err)
		}
		if v.meta.Version() == 2 {
			files = found // as another process would
		}
		id, err := v.Commit(context.Background(), f.stamp("two"), files)
		if err != nil || id == staged {
			f.Fatal(id, err)
		}
		f.last = f.stamp("two")
		v = f.load(tbl)
		if v.meta.SnapshotByID(staged) != nil || v.staged != nil {
			f.Fatal("what was staged is still there")
		}
		have := f.ids(nil)
		for _, id := range count(15) {
			if n := len(slices.DeleteFunc(slices.Clone(have), func(x int64) bool { return x != id })); n != 1 {
				f.Fatalf("row %d is there %d times in %v", id, n, have)
			}
		}
	})
}

// TestStageReplaces: one batch waits at a time, and a request that asserts what
// is not so any more changes nothing.
func TestStageReplaces(t *testing.T) {
	staging(t, func(f *fixture, tbl *Table) {
		f.commit(tbl, "one", makeRows(0, 10))
		stale := f.load(tbl)
		_, first := f.stage(tbl, "two", 10, 15)
		f.refused(stale, f.stamp("late"), nil)
		if _, err := stale.Stage(context.Background(), f.stamp("late"), f.write(tbl, "late", makeRows(10, 15))); err == nil {
			f.Fatal("what is staged was replaced unseen")
		}
		_, second := f.stage(tbl, "three", 10, 20)
		v := f.load(tbl)
		if v.meta.SnapshotByID(first) != nil || v.staged == nil || v.staged.SnapshotID != second {
			f.Fatalf("staged %v, want %d alone", v.staged, second)
		}
		// Its files can be swept now, those of the other attempt cannot.
		for attempt, gone := range map[string]bool{"two": true, "three": false} {
			if err := tbl.Sweep(context.Background(), attempt); err != nil {
				f.Fatal(err)
			}
			files, err := tbl.list(tbl.attemptFolder(v.meta, attempt))
			if err != nil || (len(files) == 0) != gone {
				f.Fatal(attempt, files, err)
			}
		}
		// An anchor, or any other commit, ends it.
		if _, err := v.Commit(context.Background(), f.stamp("four"), nil); err != nil {
			f.Fatal(err)
		}
		v = f.load(tbl)
		if v.staged != nil || v.meta.SnapshotByID(second) != nil || v.meta.SnapshotByName(table.MainBranch) == nil {
			f.Fatal("what was staged is still there")
		}
	})
}

// TestStagedOnTheBranch: where another engine moved branch and tag to the staged
// snapshot, it is one of the table's from then on, and does not end with the
// staging.
func TestStagedOnTheBranch(t *testing.T) {
	staging(t, func(f *fixture, tbl *Table) {
		f.commit(tbl, "one", makeRows(0, 10))
		_, staged := f.stage(tbl, "two", 10, 15)
		v := f.load(tbl)
		_, err := f.catalog.Commit(context.Background(), tbl.ident, nil, []table.Update{
			table.NewSetSnapshotRefUpdate(table.MainBranch, staged, table.BranchRef, 0, 0, 0),
			table.NewSetSnapshotRefUpdate(tbl.tag, staged, table.TagRef, 0, 0, 0),
		})
		if err != nil {
			f.Fatal(err)
		}
		f.last = v.stagedStamp()
		f.commit(tbl, "three", makeRows(15, 20))
		v = f.load(tbl)
		if v.meta.SnapshotByID(staged) == nil || v.staged != nil || !slices.Equal(f.ids(nil), count(20)) {
			f.Fatalf("snapshot %d is gone, or %v is still staged; rows %v", staged, v.staged, f.ids(nil))
		}
	})
}

// TestStagedLacksAFile: what is staged and lacks a file, whichever, is none of use;
// something else can be staged in its place.
func TestStagedLacksAFile(t *testing.T) {
	staging(t, func(f *fixture, tbl *Table) {
		f.commit(tbl, "one", makeRows(0, 10))
		list := func(v *View) []string { return []string{v.staged.ManifestList} }
		manifest := func(v *View) (names []string) {
			manifests, err := v.staged.Manifests(&tbl.fs)
			if err != nil {
				f.Fatal(err)
			}
			for _, m := range manifests {
				if m.SnapshotID() == v.staged.SnapshotID {
					names = append(names, m.FilePath())
				}
			}
			return names
		}
		for attempt, of := range map[string]func(*View) []string{"list": list, "manifest": manifest, "data": nil, "cut": nil} {
			files, _ := f.stage(tbl, attempt, 10, 15)
			again := f.mustOpen(nil)
			v := f.load(again)
			if _, stamp, _, err := v.Staged(context.Background()); err != nil || stamp == nil {
				f.Fatal(attempt, stamp, err)
			}
			names := []string{files.files[0].FilePath()}
			if of != nil {
				names = of(v)
			}
			for _, name := range names {
				err := again.fs.Remove(name)
				if attempt == "cut" {
					err = again.fs.WriteFile(name, []byte("PAR1"))
				}
				if err != nil {
					f.Fatal(err)
				}
			}
			again = f.mustOpen(nil)
			if _, stamp, _, err := f.load(again).Staged(context.Background()); err != nil || stamp != nil {
				f.Fatal(attempt, stamp, err)
			}
		}
		files, staged := f.stage(tbl, "new", 10, 15)
		id, err := f.load(tbl).Commit(context.Background(), f.stamp("new"), files)
		if err != nil || id != staged || !slices.Equal(f.ids(nil), count(15)) {
			f.Fatal(id, err, f.ids(nil))
		}
	})
}
