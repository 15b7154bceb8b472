package sink

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"testing"

	"github.com/apache/iceberg-go/table"

	"github.com/frazil-io/frazil/internal/batch"
)

// cherryPick commits the files as Iceberg's cherrypick_snapshot does on a head that
// has moved on: in a snapshot of their own, with no stamp.
func (f *fixture) cherryPick(t *Table, files *Files, notes map[string]string) int64 {
	f.Helper()
	v := f.load(t)
	c, err := v.appended(nil, files)
	if err != nil {
		f.Fatal(err)
	}
	c.notes, c.stage = notes, true // which moves no tag
	id, err := v.commit(context.Background(), c)
	if err != nil {
		f.Fatal(err)
	}
	return id
}

// onMain moves the branch as another engine does, and puts the one for audits back.
func (f *fixture) onMain(t *Table, id, staged int64) {
	f.Helper()
	updates := []table.Update{table.NewSetSnapshotRefUpdate(table.MainBranch, id, table.BranchRef, 0, 0, 0)}
	if staged != 0 {
		updates = append(updates, table.NewSetSnapshotRefUpdate(t.AuditBranch(), staged, table.BranchRef, 0, 0, 0))
	} else {
		updates = append(updates, table.NewRemoveSnapshotRefUpdate(t.AuditBranch()))
	}
	if _, err := f.catalog.Commit(context.Background(), t.ident, nil, updates); err != nil {
		f.Fatal(err)
	}
}

func (f *fixture) copied(t *Table) []batch.Copy {
	f.Helper()
	copies, err := f.load(t).Copied(context.Background())
	if err != nil {
		f.Fatal(err)
	}
	return copies
}

// TestCopied: what somebody copied to the branch of what is staged is known, by what
// the copy says of itself or by its files, until it is not there any more.
func TestCopied(t *testing.T) {
	for name, says := range map[string]bool{"cherry-picked": true, "its files added": false} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t)
			tbl := f.mustOpen(func(o *Options) { o.FormatVersion = 2 })
			f.commit(tbl, "one", makeRows(0, 10))
			files, staged := f.stage(tbl, "two", 10, 15)
			f.foreign(1)
			if copies := f.copied(tbl); len(copies) > 0 {
				t.Fatal(copies)
			}
			parent := f.load(tbl).Head()
			notes := map[string]string{}
			if says {
				notes[sourceSnapshot] = strconv.FormatInt(staged, 10)
			}
			// Staging it anew would remove what is staged now; so it is kept by a tag.
			if err := tbl.Pin(context.Background(), "keep", staged); err != nil {
				t.Fatal(err)
			}
			kept := table.NewRemoveSnapshotRefUpdate(tbl.AuditBranch())
			if _, err := f.catalog.Commit(context.Background(), tbl.ident, nil, []table.Update{kept}); err != nil {
				t.Fatal(err)
			}
			id := f.cherryPick(tbl, files, notes)
			f.onMain(tbl, id, staged)
			want := batch.Copy{Snapshot: id, Parent: parent, Attempt: "two", Rows: 5, Staged: true}
			is := func(copies []batch.Copy) bool {
				if len(copies) != 1 || len(copies[0].Files) != len(files.files) {
					return false
				}
				copies[0].Files = nil
				return copies[0].Snapshot == want.Snapshot && copies[0].Parent == want.Parent && copies[0].Attempt == want.Attempt && copies[0].Rows == want.Rows && copies[0].Staged == want.Staged
			}
			if copies := f.copied(tbl); !is(slices.Clone(copies)) {
				t.Fatalf("%+v, want %+v", copies, want)
			}
			if copies := f.copied(f.mustOpen(nil)); !is(slices.Clone(copies)) {
				t.Fatalf("by another process: %+v, want %+v", copies, want)
			}
			// The branch for audits is dropped: then only a copy that says so is looked at.
			f.onMain(tbl, id, 0)
			want.Staged = false
			if copies := f.copied(f.mustOpen(nil)); is(slices.Clone(copies)) != says {
				t.Fatalf("without the branch: %+v", copies)
			}
			f.onMain(tbl, parent, staged)
			if copies := f.copied(tbl); len(copies) > 0 {
				t.Fatalf("the branch went back: %+v", copies)
			}
		})
	}
}

// TestCopiedIsGone: a copy whose manifest is missing is not overlooked.
func TestCopiedIsGone(t *testing.T) {
	f := newFixture(t)
	tbl := f.mustOpen(nil)
	f.commit(tbl, "one", makeRows(0, 10))
	_, _ = f.stage(tbl, "two", 10, 15)
	f.foreign(1)
	v := f.load(tbl)
	manifests, err := v.head.Manifests(&tbl.fs)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range manifests {
		if m.SnapshotID() == v.Head() {
			if err := tbl.fs.Remove(m.FilePath()); err != nil {
				t.Fatal(err)
			}
		}
	}
	if _, err := f.load(f.mustOpen(nil)).Copied(context.Background()); !errors.Is(err, batch.ErrDataLost) {
		t.Fatal(err)
	}
}
