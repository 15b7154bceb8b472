package sink

import (
	"context"
	"fmt"

	"github.com/apache/iceberg-go/table"

	"github.com/frazil-io/frazil/internal/batch"
)

// Stage makes a branch that has the contents of an earlier snapshot, 0 for nothing,
// and the files. No other ref moves, nothing expires, and the snapshot carries no
// stamp, only notes. batch.ErrInvalid: there is a branch or tag of this name.
func (t *Table) Stage(ctx context.Context, branch string, from int64, files *Files, notes map[string]string) (int64, error) {
	tbl, err := t.load(ctx)
	if err != nil {
		return 0, err
	}
	v, err := t.view(tbl.Metadata())
	if err != nil {
		return 0, err
	}
	if v.meta.SnapshotByName(branch) != nil {
		return 0, fmt.Errorf("%w: table %s has a branch or tag %q already; choose another name, or drop it", batch.ErrInvalid, t.opts.Table, branch)
	}
	if err := files.check(v.meta); err != nil {
		return 0, err
	}
	switch evolution, _, err := v.evolution(files); {
	case err != nil:
		return 0, err
	case evolution != nil:
		return 0, fmt.Errorf("%w: the rows need another schema than table %s has, and a branch does not change it", batch.ErrInvalid, t.opts.Table)
	}
	c := &change{operation: table.OpAppend, files: files.files, notes: notes}
	v.head = nil
	if from != 0 {
		if v.head = v.meta.SnapshotByID(from); v.head == nil {
			return 0, fmt.Errorf("%w: snapshot %d of table %s has expired", batch.ErrInvalid, from, t.opts.Table)
		}
		if c.base, err = t.manifestsOf(v.head); err != nil {
			return 0, err
		}
		c.totals = v.head.Summary
	}
	return v.stage(ctx, c, branch)
}

func (v *View) stage(ctx context.Context, c *change, branch string) (int64, error) {
	t := v.t
	t.mu.Lock()
	defer t.mu.Unlock()
	c.id, c.sequence, c.small = newSnapshotID(), v.meta.LastSequenceNumber()+1, map[string][]byte{}
	c.schema = v.meta.CurrentSchema()
	manifests, err := v.buildManifests(c)
	if err != nil {
		return 0, err
	}
	snapshot, _, err := v.buildSnapshot(c, manifests)
	if err != nil {
		return 0, err
	}
	requirements := []table.Requirement{
		table.AssertTableUUID(v.meta.TableUUID()), table.AssertRefSnapshotID(branch, nil),
		table.AssertCurrentSchemaID(v.meta.CurrentSchema().ID), table.AssertDefaultSpecID(v.meta.DefaultPartitionSpec()),
	}
	_, err = t.catalog.Commit(ctx, t.ident, requirements, []table.Update{
		table.NewAddSnapshotUpdate(snapshot), table.NewSetSnapshotRefUpdate(branch, c.id, table.BranchRef, 0, 0, 0),
	})
	if err != nil {
		t.trash.add(c.wrote...)
		return 0, err
	}
	return c.id, nil
}
