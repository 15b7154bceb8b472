package driver

import (
	"context"
	"slices"

	"github.com/frazil-io/frazil/internal/batch"
)

// purgeShare is how many purges of the log there are while KeepBatches pass.
const purgeShare = 20

// record notes the outcome behind the batch: nobody waits for it, and the next
// plan carries it anyway. An attempt all of whose files are in tables is
// forgotten; of any other the files are swept later.
func (d *Driver) record(ctx context.Context, p *batch.Plan, ready *prepared, all []*outcome) {
	whole := d.landedWhole(ready, all)
	if !whole {
		d.orphaned()
	}
	c := batch.Commit{Batch: p.Batch, Revision: p.Revision, Plan: p.Hash(), Time: p.Time, Outcome: outcomes(p, all)}
	inc, attempt := d.inc, ready.attempt
	d.background(func() {
		if err := d.rooms.Checkpoint.Record(ctx, inc, c); err != nil {
			d.log.Debug("the commit record was not written; the next plan carries it", "batch", c.Batch, "error", err)
		}
		if whole && ready.registered {
			if err := d.rooms.Checkpoint.Forget(ctx, attempt); err != nil {
				d.log.Debug("the attempt was not forgotten; a sweep will find nothing to delete", "attempt", attempt, "error", err)
			}
		}
		d.sweepOrphans(ctx)
		if int64(p.Batch)%max(1, d.opts.KeepBatches/purgeShare) == 0 {
			if err := d.rooms.Checkpoint.Purge(ctx, inc, p.Batch-batch.ID(d.opts.KeepBatches)); err != nil {
				d.log.Warn("old log entries were not removed", "error", err)
			}
		}
	})
	d.rooms.Source.Publish(p.Position())
}

// background starts work that nothing waits for before the driver's end.
func (d *Driver) background(f func()) {
	d.behind = slices.DeleteFunc(d.behind, func(t *task) bool { return t.done.Load() })
	t := &task{}
	t.wait = d.rooms.Tasks.Go(func() {
		defer t.done.Store(true)
		f()
	})
	d.behind = append(d.behind, t)
}

// landedWhole says whether nothing of the attempt is left to sweep.
func (d *Driver) landedWhole(ready *prepared, all []*outcome) bool {
	for _, o := range all {
		res := ready.sinks[o.sink.Name]
		if res != nil && res.stamp != nil && (o.landed == nil || o.landed.Attempt != ready.attempt) {
			return false
		}
	}
	return true
}
