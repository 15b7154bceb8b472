package sink

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"github.com/apache/iceberg-go"
	"golang.org/x/sync/errgroup"

	"github.com/frazil-io/frazil/internal/batch"
	"github.com/frazil-io/frazil/internal/lake"
)

// AuditBranch is the name of the branch where a batch waits for its audit.
func (t *Table) AuditBranch() string { return batch.AuditBranch(t.tag) }

// Stage adds one snapshot with the files and the stamp on the branch for audits,
// in place of what is there. The table's branch and tag stay where they are, and
// so does what it asserts of them. A schema that the files need becomes the
// table's. Whatever it returns, it may have been applied.
func (v *View) Stage(ctx context.Context, stamp *batch.Stamp, files *Files) (int64, error) {
	c, err := v.appended(stamp, files)
	if err != nil {
		return 0, err
	}
	c.stage = true
	return v.commit(ctx, c)
}

// Staged returns what is staged and can be committed; no stamp if nothing is. Files
// of format 3 have numbers for their rows that only the staged snapshot itself may
// use, so they can be published, and not committed on another head. What lacks a file,
// because somebody deleted it, cannot be committed either: its plan gives the rows
// again.
func (v *View) Staged(ctx context.Context) (snapshot int64, stamp *batch.Stamp, files *Files, err error) {
	if v.staged == nil || v.staged.SchemaID == nil || v.meta.Version() > 2 && !v.sameHead() {
		return 0, nil, nil, context.Cause(ctx)
	}
	if stamp = v.stagedStamp(); stamp == nil {
		return 0, nil, nil, nil // it is staged anew
	}
	files = &Files{table: v.meta.TableUUID(), schema: *v.staged.SchemaID, spec: v.meta.DefaultPartitionSpec()}
	manifests, err := v.t.manifestsOf(v.staged)
	if err != nil {
		return 0, nil, nil, v.lacks(err)
	}
	for _, m := range manifests {
		if m.SnapshotID() != v.staged.SnapshotID {
			continue
		}
		if int(m.PartitionSpecID()) != files.spec {
			return 0, nil, nil, nil // the partitioning was changed since
		}
		if err := files.add(m, &v.t.fs); err != nil {
			return 0, nil, nil, v.lacks(err)
		}
	}
	if err := files.there(ctx, &v.t.fs); err != nil {
		return 0, nil, nil, v.lacks(err)
	}
	return v.staged.SnapshotID, stamp, files, nil
}

// lacks is no error where a file of what is staged does not exist, or is another one.
func (v *View) lacks(err error) error {
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	v.t.log.Warn("what is staged for an audit lacks a file; the batch is executed again", "table", v.t.opts.Table, "snapshot", v.staged.SnapshotID, "branch", v.t.AuditBranch(), "error", err)
	return nil
}

// there makes sure that the files exist in their length. fs.ErrNotExist: one does not.
func (f *Files) there(ctx context.Context, from *files) error {
	var group errgroup.Group
	group.SetLimit(listsAtOnce)
	for _, d := range f.files {
		group.Go(func() error {
			if err := context.Cause(ctx); err != nil {
				return err
			}
			in, err := from.Open(d.FilePath())
			if err != nil {
				return lake.Classify("look at "+d.FilePath(), err)
			}
			info, err := in.Stat()
			if err = errors.Join(err, in.Close()); err != nil {
				return lake.Classify("look at "+d.FilePath(), err)
			}
			if info.Size() != d.FileSizeBytes() {
				return fmt.Errorf("%s has %d bytes in place of %d: %w", d.FilePath(), info.Size(), d.FileSizeBytes(), fs.ErrNotExist)
			}
			return nil
		})
	}
	return group.Wait()
}

// add takes the files that a manifest's own snapshot added.
func (f *Files) add(m iceberg.ManifestFile, fs *files) error {
	for e, err := range m.Entries(fs, true) {
		if err != nil {
			return lake.Classify("read "+m.FilePath(), err)
		}
		if e.Status() == iceberg.EntryStatusADDED {
			f.files = append(f.files, e.DataFile())
			f.rows += e.DataFile().Count()
		}
	}
	return nil
}

// sameHead says whether the branch is where it was when the batch was staged.
func (v *View) sameHead() bool {
	parent := v.staged.ParentSnapshotID
	return parent == nil && v.head == nil || parent != nil && v.head != nil && *parent == v.head.SnapshotID
}

// publishes says whether a commit of the stamp is the staged snapshot.
func (v *View) publishes(stamp *batch.Stamp) bool {
	staged := v.stagedStamp()
	return staged != nil && v.sameHead() && staged.Hash() == stamp.Hash()
}

// stagedStamp is what the staged snapshot carries; nil if there is none, or if it
// is somebody else's, or a newer version's.
func (v *View) stagedStamp() *batch.Stamp {
	if v.staged == nil {
		return nil
	}
	stamp, err := stampOf(v.staged)
	if err != nil {
		stamp = nil
	}
	return stamp
}

// publish makes the staged snapshot the head.
func (v *View) publish(ctx context.Context) (int64, error) {
	c := &change{id: v.staged.SnapshotID}
	var err error
	if v.head != nil {
		if c.base, err = v.t.manifestsOf(v.head); err != nil {
			return 0, err
		}
	}
	manifests, err := v.t.manifestsOf(v.staged)
	if err != nil {
		return 0, err
	}
	v.t.mu.Lock()
	defer v.t.mu.Unlock()
	moves, expired := v.moves(c)
	meta, err := v.t.catalog.Commit(ctx, v.t.ident, v.requirements(), moves)
	if err != nil {
		return 0, err
	}
	v.t.committed(v.meta, meta, c, manifests, expired)
	return c.id, nil
}
