package driver

import (
	"context"
	"errors"
	"fmt"

	"github.com/frazil-io/frazil/internal/batch"
)

// outcome is what a plan came to in one sink that takes part in it.
type outcome struct {
	sink     *sink
	landed   *batch.Stamp // nil: nothing was committed
	snapshot int64        // 0 if nothing was
	counts   batch.Counts // of this batch, where nothing was committed
}

// errOutgrown says that a table is not the one any more for which the files were
// written: the batch must be executed again.
var errOutgrown = errors.New("the table's schema or partitioning was changed while the batch was written")

// errOvertaken says that another driver has committed the batch under another
// plan: the dead letters of this one may be others.
var errOvertaken = errors.New("another driver has committed a part of the batch under a revision")

// commit makes p's outcome known in every sink, in the order of the spec.
func (d *Driver) commit(ctx context.Context, p *batch.Plan, ready *prepared, watch *progress) ([]*outcome, error) {
	var all []*outcome
	for parts := d.parts(p); len(parts) > 0; {
		n := oneSink(parts)
		firsts := d.tryAtOnce(ctx, p, ready, parts[:n], watch)
		for i, s := range parts[:n] {
			if d.late(s) && ready.overtaken(p, all) {
				return nil, errOvertaken
			}
			o := firsts[i].landed
			if o == nil {
				var err error
				if o, err = d.commitSink(ctx, p, ready, s, firsts[i], watch); err != nil {
					return nil, fmt.Errorf("commit sink %s: %w", s.Name, err)
				}
			}
			all = append(all, o)
		}
		parts = parts[n:]
	}
	return all, nil
}

// commitSink repeats the commit of one sink with the same files until the table
// says that it, or another attempt of the same batch, is there.
func (d *Driver) commitSink(ctx context.Context, p *batch.Plan, ready *prepared, s *sink, first firstTry, watch *progress) (*outcome, error) {
	res, sp := ready.sinks[s.Name], p.Sink(s.Name)
	if res != nil && res.stamp == nil {
		return &outcome{sink: s, counts: res.counts}, nil
	}
	catalog := d.patient("the catalog")
	defer catalog.settled()
	sent, seen := first.sent, first.view
	defer func() { watch.retries += max(0, sent-1) }()
	audited := s.Audit == nil || res == nil || res.files.Rows() == 0
	failed := first.failed
	for {
		view, landed, err := d.lookFrom(ctx, p, s, sp, seen)
		seen = nil
		if err != nil {
			return nil, errors.Join(err, failed)
		}
		if landed != nil {
			return &outcome{sink: s, landed: landed, snapshot: view.Tagged()}, nil
		}
		if res == nil {
			return nil, fmt.Errorf("%w: the stamp of this batch was in the table and is gone: its tag was moved back", batch.ErrDataLost)
		}
		if fatal(failed) {
			return nil, failed
		}
		if failed != nil {
			d.log.Warn("the commit is tried again with the same files", "sink", s.Name, "batch", p.Batch, "error", failed)
			if err := catalog.wait(ctx, fmt.Errorf("commit of sink %s: %w", s.Name, failed)); err != nil {
				return nil, err
			}
			failed = nil
			continue // the table may have changed while we slept: look again
		}
		if !view.Fits(res.files) {
			return nil, errOutgrown
		}
		if !audited {
			if failed = d.audit(ctx, view, s, res, watch); failed == nil {
				audited = true
			}
			continue // the table may have changed meanwhile: look again
		}
		watch.tries++
		sent++
		d.log.Debug("commit sent", "sink", s.Name, "batch", p.Batch, "head", view.Head())
		snapshot, err := view.Commit(ctx, res.stamp, res.files)
		if err == nil {
			d.log.Debug("commit applied", "sink", s.Name, "batch", p.Batch, "snapshot", snapshot)
			return &outcome{sink: s, landed: res.stamp, snapshot: snapshot}, nil
		}
		failed = err
	}
}

// settle takes over what the batch came to: in memory, and in the executor's
// state.
func (d *Driver) settle(ctx context.Context, p *batch.Plan, ready *prepared, all []*outcome) error {
	d.lastOutcome, d.recent = outcomes(p, all), ready.recent(p)
	for _, o := range all {
		o.sink.advance(p, o)
		stamp := o.landed
		if s := o.sink; s.of != nil {
			s.of.route.stamps[s.table] = s.before
			continue
		}
		if stamp == nil {
			continue
		}
		if err := d.retry(ctx, "the state store", func() error { return d.rooms.Executor.Settle(ctx, o.sink.Name, stamp) }); err != nil {
			return fmt.Errorf("settle the state of sink %s: %w", o.sink.Name, err)
		}
	}
	for _, s := range d.sinks {
		s.passed(p)
	}
	return nil
}

// advance is where a table stands after the outcome of p.
func (s *sink) advance(p *batch.Plan, o *outcome) {
	sp := p.Sink(s.Name)
	s.lags = sp.CatchUp // the next plan says whether it still does
	if o.landed != nil {
		s.before, s.from, s.carried = batch.RefTo(o.landed), o.landed.End.Clone(), batch.Counts{}
		return
	}
	s.before, s.from, s.carried = sp.Before, sp.From, sp.Carried.Plus(o.counts)
}

// outcomes says what p came to, by sink: of one that feeds many tables, in all of
// them together.
func outcomes(p *batch.Plan, all []*outcome) []batch.Outcome {
	out := make([]batch.Outcome, 0, len(p.Sinks))
	for _, sp := range p.Sinks {
		if sp.Active && sp.Route != nil {
			out = append(out, batch.Outcome{Sink: sp.Name, Tables: len(sp.Route.Tables), Counts: sp.Route.Counts})
		}
		for _, o := range all {
			if o.sink.Name != sp.Name {
				continue
			}
			c := o.counts
			if o.landed != nil {
				c = o.landed.Counts
			}
			out = append(out, batch.Outcome{Sink: sp.Name, Snapshot: o.snapshot, Counts: c})
		}
	}
	return out
}
