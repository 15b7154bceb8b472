package driver

import (
	"context"
	"fmt"

	"github.com/frazil-io/frazil/internal/batch"
)

// A run of dead letters does not anchor the tables of a sink that feeds many before
// its first plan: which of them it touches only its batches say. It enters each of
// them when the first row for it comes, before the first file: it makes it where it
// is not there, and anchors itself in it. Then its plan waits for that anchor, as any
// plan of a run waits for one, and never for a table without a tag. The anchor says
// that nothing of the run is in the table; where the sink stands its other stamps say,
// or the marks.

// claimed are the tables of a sink that feeds many which a run may find: the
// namespace says so, by tag and claim, and no list. So nothing of a run is lost with
// its checkpoint, and a run that ended can leave no tag behind.
func (d *Driver) claimed(ctx context.Context, s *sink) (parts []*sink, err error) {
	var found []string
	err = d.retry(ctx, "the catalog", func() error { found, err = s.Tables.Find(ctx); return err })
	if err != nil {
		return nil, fmt.Errorf("look for the tables of sink %s: %w", s.Name, err)
	}
	for _, name := range found {
		parts = append(parts, s.part(name))
	}
	return parts, nil
}

// enter makes a table where it is not there, and anchors the run in it, where that
// was not done. It may run beside the driver's own goroutine. Whatever an error says,
// the anchor may be there: who executes the batch again finds it.
func (d *Driver) enter(ctx context.Context, p *batch.Plan, s *sink) (batch.Ref, error) {
	inc := p.Incarnation
	if err := s.of.Tables.Claim(ctx, s.table); err != nil {
		return batch.Ref{}, err
	}
	view, err := s.Table.Load(ctx)
	if err != nil {
		return batch.Ref{}, err
	}
	st := view.Stamp()
	if st != nil && st.Of(inc, d.opts.Stream) {
		return batch.RefTo(st), nil
	}
	all, err := d.rooms.Checkpoint.Incarnations(ctx)
	if err != nil {
		return batch.Ref{}, err
	}
	if len(all) == 0 || !all[len(all)-1].Same(inc) {
		return batch.Ref{}, fmt.Errorf("%w: incarnation %d-%s of this replay is not the newest one any more", batch.ErrFenced, inc.Number, inc.ID)
	}
	a := &batch.Stamp{
		UUID: inc.UUID, Name: inc.Name, Incarnation: inc.Number, IncarnationID: inc.ID, Stream: d.opts.Stream,
		Kind: inc.Kind, Plan: "anchor-" + inc.ID, Last: batch.None, Start: batch.Offsets{}, End: batch.Offsets{},
		Time: p.Time, Previous: st.Hash(), Route: &batch.Route{Sink: s.of.Name},
		Total: batch.Counts{Written: d.totals(s, view.History()).Written}, // the rest each run counts anew
	}
	if _, err := view.Commit(ctx, a, nil); err != nil {
		return batch.Ref{}, err
	}
	return batch.RefTo(a), nil
}

// beginAtMarks lets a sink that feeds many begin where the marks end, if its tables
// do not say that it came further. The marks are in the last commit of each batch: a
// batch that they cover is in all of its tables, though one of them may have been
// dropped since.
func (d *Driver) beginAtMarks(ctx context.Context, s *sink) error {
	upto, next, _, err := d.done(ctx)
	if err != nil {
		return err
	}
	if d.inc.Kind == batch.Replay {
		next = max(next, d.inc.Batch+1)
		for tp, at := range d.inc.Starts {
			upto[tp] = max(upto[tp], at)
		}
	}
	r := s.route
	if r.newest != nil && r.newest.Last >= next {
		return nil
	}
	if r.newest != nil {
		r.torn, r.total = false, r.newest.Route.Before.Plus(r.newest.Route.Counts)
		for tp, at := range r.newest.End {
			upto[tp] = max(upto[tp], at)
		}
	}
	s.from = upto
	return nil
}
