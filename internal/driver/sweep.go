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
		d.orphans.Store(true)
	}
	c := batch.Commit{Batch: p.Batch, Revision: p.Revision, Plan: p.Hash(), Time: p.Time, Outcome: outcomes(all)}
	inc, attempt := d.inc, ready.attempt
	d.background(func() {
		if err := d.rooms.Checkpoint.Record(ctx, inc, c); err != nil {
			d.log.Debug("the commit record was not written; the next plan carries it", "batch", c.Batch, "error", err)
		}
		if whole && len(ready.sinks) > 0 {
			if err := d.rooms.Checkpoint.Forget(ctx, attempt); err != nil {
				d.log.Debug("the attempt was not forgotten; a sweep will find nothing to delete", "attempt", attempt, "error", err)
			}
		}
		if int64(p.Batch)%max(1, d.opts.KeepBatches/purgeShare) == 0 {
			if err := d.rooms.Checkpoint.Purge(ctx, inc, p.Batch-batch.ID(d.opts.KeepBatches)); err != nil {
				d.log.Warn("old log entries were not removed", "error", err)
			}
		}
	})
	d.rooms.Source.Publish(p.End())
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

// sweepOrphans deletes the files of attempts that can never land any more. What
// cannot be swept now stays registered.
func (d *Driver) sweepOrphans(ctx context.Context) {
	if !d.orphans.Load() {
		return
	}
	attempts, err := d.rooms.Checkpoint.Attempts(ctx)
	if err != nil {
		d.log.Debug("attempts were not listed; they are swept later", "error", err)
		return
	}
	d.orphans.Store(false)
	for _, a := range attempts {
		if !d.sweep(ctx, a) {
			d.orphans.Store(true)
		}
	}
}

// sweep deletes an attempt's files if no request can name them any more: the
// tag of each of its tables carries a stamp that it does not wait for. A reload
// that merely shows no stamp of the attempt would prove nothing: its commit may
// still be on its way, and asserts the tag. Nor does a table without a tag: it
// may have been removed, and be put back.
func (d *Driver) sweep(ctx context.Context, a batch.Attempt) (gone bool) {
	for _, s := range d.sinks {
		waits, ok := a.Waits[s.Name]
		if !ok {
			continue
		}
		view, err := s.Table.Load(ctx)
		if err != nil || view.Stamp() == nil || slices.Contains(waits, view.Stamp().Hash()) {
			return false
		}
	}
	for name := range a.Waits {
		i := slices.IndexFunc(d.sinks, func(s *sink) bool { return s.Name == name })
		if i < 0 {
			return false // its sink is not in the spec any more: leave it
		}
		if err := d.sinks[i].Table.Sweep(ctx, a.Name); err != nil {
			d.log.Debug("files were not swept; later", "attempt", a.Name, "error", err)
			return false
		}
	}
	if err := d.rooms.Executor.Sweep(ctx, a.Name); err != nil {
		return false
	}
	return d.rooms.Checkpoint.Forget(ctx, a.Name) == nil
}
