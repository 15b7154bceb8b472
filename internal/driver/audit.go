package driver

import (
	"context"
	"fmt"
	"slices"

	"github.com/frazil-io/frazil/internal/batch"
)

// Write, audit, publish: a sink with rules first commits its rows to a snapshot
// beside the branch. Nobody who reads the branch sees them until the rules have
// passed; then the same snapshot becomes the branch's head, or, where the branch
// has moved on meanwhile, the same files are committed on the new head. A batch
// that is held back stays there, and the driver ends.
//
// Or its records become dead letters. What an audit says may depend on the table, so
// its verdict is logged before anything follows from it: in a revision of the plan,
// which is executed and committed as any other, with no row for that sink.

// HeldBack is the verdict of an audit that makes dead letters of a batch.
type HeldBack struct {
	batch.Held
	Sink string
	// Else ends the driver where the batch cannot have dead letters: batch.ErrInvalid.
	Else error
}

// Error implements error.
func (h *HeldBack) Error() string { return h.Else.Error() }

// Unwrap makes it what it is where the driver ends with it.
func (h *HeldBack) Unwrap() error { return h.Else }

// hold logs the revision of p that holds a sink's rows back. Tables that catch up do
// so without dead letters, so there the driver ends.
func (d *Driver) hold(ctx context.Context, p *batch.Plan, h *HeldBack) error {
	lacking, anchored, err := d.lacking(ctx, p)
	if err != nil {
		return err
	}
	i := slices.IndexFunc(lacking, func(s *sink) bool { return s.Name == h.Sink })
	switch {
	case anchored, i < 0:
		return nil // look again
	case p.CatchesUp(), d.opts.DeadLetters == "", d.hasLetterTable() && !slices.ContainsFunc(lacking, d.late):
		return fmt.Errorf("%w\nThe dead letters take no part in this batch, so it has none", h.Else)
	}
	q := d.revision(p, lacking)
	q.Sink(h.Sink).Held = &batch.Held{Rule: h.Rule, Reason: h.Reason}
	d.log.Warn("an audit holds the batch back; its records become dead letters", "sink", h.Sink, "batch", q.Batch, "revision", q.Revision, "audit", h.Rule, "reason", h.Reason)
	return d.append(ctx, q)
}

// overruled logs a revision of p without the verdict on a sink that came to nothing:
// while it was logged another driver, whose audit passed the batch, published it. Its
// rows are in the table, so they are no dead letters. nil: there is none.
func (d *Driver) overruled(ctx context.Context, p *batch.Plan, lacking []*sink) (*batch.Plan, error) {
	for i := range p.Sinks {
		sp := &p.Sinks[i]
		s := d.named(sp.Name)
		if !sp.Active || sp.Held == nil || s == nil || slices.Contains(lacking, s) {
			continue
		}
		made, _, err := d.madeBy(ctx, p, s, sp)
		if err != nil {
			return nil, err
		}
		if made == nil || made.Sink(sp.Name).Held != nil {
			continue
		}
		q := d.revision(p, lacking)
		q.Sink(sp.Name).Held = nil
		d.log.Warn("another driver has published what an audit was to hold back; it makes no dead letters", "sink", sp.Name, "batch", q.Batch, "revision", q.Revision)
		return q, d.append(ctx, q)
	}
	return nil, nil
}

// audit stages the rows of a sink, unless they are staged already, and runs its
// rules over them.
func (d *Driver) audit(ctx context.Context, view View, s *sink, res *result, watch *progress) error {
	snapshot, stamp, _, err := view.Staged(ctx)
	if err != nil {
		return fmt.Errorf("look at what is staged: %w", err)
	}
	if stamp == nil || stamp.Hash() != res.stamp.Hash() {
		watch.tries++ // the files may be in the table from now on
		if snapshot, err = view.Stage(ctx, res.stamp, res.files); err != nil {
			return fmt.Errorf("stage: %w", err)
		}
		d.log.Debug("batch staged", "sink", s.Name, "batch", res.stamp.Last, "snapshot", snapshot)
	}
	return s.Audit.Audit(ctx, snapshot)
}

// staged returns what an earlier process has staged of p, by sink, and the sinks
// for which p must be executed. The same plan gives the same rows, so what is
// staged of it is as good as a new execution; but not where the execution gives
// dead letters, too.
func (d *Driver) staged(ctx context.Context, p *batch.Plan, lacking []*sink) (map[string]*result, []*sink, error) {
	found := map[string]*result{}
	var rest []*sink
	for _, s := range lacking {
		var res *result
		if s.Audit != nil && d.opts.DeadLetters == "" {
			var err error
			if res, err = d.stagedIn(ctx, p, s); err != nil {
				return nil, nil, fmt.Errorf("sink %s: %w", s.Name, err)
			}
		}
		if res == nil {
			rest = append(rest, s)
			continue
		}
		d.log.Info("what was staged of this batch is used again", "sink", s.Name, "batch", p.Batch)
		found[s.Name] = res
	}
	return found, rest, nil
}

func (d *Driver) stagedIn(ctx context.Context, p *batch.Plan, s *sink) (*result, error) {
	view, err := d.load(ctx, s)
	if err != nil {
		return nil, err
	}
	var stamp *batch.Stamp
	var files Files
	err = d.retry(ctx, "the catalog", func() error {
		_, stamp, files, err = view.Staged(ctx)
		return err
	})
	if err != nil || stamp == nil || stamp.Plan != p.Hash() || !view.Fits(files) {
		return nil, err
	}
	return &result{Result: batch.Result{State: stamp.State, Rows: files.Rows()}, files: files, counts: stamp.Counts, stamp: stamp, staged: true}, nil
}
