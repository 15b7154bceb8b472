package driver

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/frazil-io/frazil/internal/batch"
	"github.com/frazil-io/frazil/internal/planner"
)

// batch carries a logged plan to its outcome in every sink. ready is what was
// prepared for it while the batch before was committed, nil if nothing was. It
// returns what it prepared for the batch behind it in the same way, nil if
// nothing.
func (d *Driver) batch(ctx context.Context, p *batch.Plan, ready *prepared) (*prepared, error) {
	watch := progress{d: d, begun: d.rooms.Clock.Now()}
	if !p.CatchesUp() {
		d.started = watch.begun
	}
	for {
		ahead, err := d.try(ctx, p, ready, &watch)
		if !errors.Is(err, errOutgrown) && !errors.Is(err, errOvertaken) {
			return ahead, err
		}
		d.log.Warn("the batch is executed again for the tables as they are now", "batch", p.Batch, "reason", err)
		p, ready = d.last, nil // p, or a revision of it
	}
}

// try makes one try of batch.
func (d *Driver) try(ctx context.Context, p *batch.Plan, ready *prepared, watch *progress) (*prepared, error) {
	if ready == nil {
		var err error
		if p, ready, err = d.ready(ctx, p); err != nil {
			return nil, err
		}
	}
	watch.prepared = d.rooms.Clock.Now()
	ready.stamp(d, p)
	ahead := d.startAhead(ctx, p, ready)
	sent := watch.tries
	outcome, err := d.commit(toTheEnd(ctx), p, ready, watch)
	if err != nil {
		ahead.drop()
		if watch.tries == sent && len(ready.sinks) > 0 { // it was not sent
			d.discard(ctx, ready.attempt, d.sinks)
		} else {
			d.orphaned()
		}
		return nil, err
	}
	// Nothing of a finished batch waits for the work that runs ahead.
	watch.done(p, ready, outcome)
	if err := d.settle(toTheEnd(ctx), p, ready, outcome); err != nil {
		ahead.drop()
		return nil, err
	}
	d.record(ctx, p, ready, outcome)
	return d.keepAhead(ctx, ahead.join(), outcome), nil
}

// ready prepares p for the sinks whose table lacks it, after a revision where
// one is needed.
func (d *Driver) ready(ctx context.Context, p *batch.Plan) (*batch.Plan, *prepared, error) {
	kafka := d.patient("Kafka")
	for {
		lacking, err := d.lacking(ctx, p)
		if err != nil {
			return nil, nil, err
		}
		letters, err := d.letters(ctx, p, lacking)
		if err != nil {
			return nil, nil, err
		}
		if d.changed(p, lacking) || d.seizes(p, lacking) {
			if p, err = d.revise(ctx, p, lacking, d.changed(p, lacking), "it was planned by another driver or for another spec"); err != nil {
				return nil, nil, err
			}
			continue
		}
		if err := planner.Unread(p.Ranges, d.opts.Sources); err != nil && len(lacking) > 0 {
			if p, err = d.reviseGap(ctx, p, lacking, err); err != nil {
				return nil, nil, err
			}
			continue
		}
		ready, err := d.prepareAs(ctx, p, lacking, letters)
		if err == nil {
			kafka.over()
			return p, ready, nil
		}
		if d.outgrew(p, err) {
			d.log.Warn("the batch cannot be read with the schemas that its plan names", "batch", p.Batch, "error", err)
			if p, err = d.revise(ctx, p, lacking, true, "there are newer reader schemas"); err != nil {
				return nil, nil, err
			}
			continue
		}
		if errors.Is(err, batch.ErrUnavailable) {
			// Look again before the next try: meanwhile the batch may be done, or
			// this driver overtaken.
			if d.arrived.Load() {
				d.contacted[kafka.server] = true
			}
			d.log.Warn("the batch is executed again", "batch", p.Batch, "error", err)
			if err := kafka.wait(ctx, err); err != nil {
				return nil, nil, err
			}
			continue
		}
		if !errors.Is(err, batch.ErrDataLost) || !d.opts.Sources.RecordLoss() {
			return nil, nil, err
		}
		d.log.Warn("records of a logged batch are lost; the batch is revised with a gap", "batch", p.Batch, "error", err)
		if p, err = d.reviseGap(ctx, p, lacking, err); err != nil {
			return nil, nil, err
		}
	}
}

// lacking returns the sinks that take part in p and whose table has not got it.
func (d *Driver) lacking(ctx context.Context, p *batch.Plan) ([]*sink, error) {
	var lacking []*sink
	for _, s := range d.sinks {
		sp := p.Sink(s.Name)
		if sp == nil || !sp.Active {
			continue
		}
		_, done, err := d.look(ctx, p, s, sp)
		if err != nil {
			return nil, err
		}
		if done == nil {
			lacking = append(lacking, s)
		}
	}
	return lacking, nil
}

// changed says whether the spec of a lacking sink is not the one that p was
// planned with.
func (d *Driver) changed(p *batch.Plan, lacking []*sink) bool {
	for _, s := range lacking {
		if p.Sink(s.Name).Hash != s.Hash {
			return true
		}
	}
	return false
}

// seizes says whether p, which another driver has open, is to become this
// driver's: its next log entry is made here then, and the other one is fenced.
func (d *Driver) seizes(p *batch.Plan, lacking []*sink) bool {
	return d.seizing && len(lacking) > 0 && p.Writer.ID != d.opts.Writer.ID
}

// revise logs a revision of p: the same ranges with the specs that this driver
// has, and with the newest reader schemas where it could not succeed as it was.
// Tables that have the batch keep what they were made with. A revised
// batch is committed in every lacking sink, empty if need be, so that no other
// revision can land there any more.
func (d *Driver) revise(ctx context.Context, p *batch.Plan, lacking []*sink, newest bool, reason string) (*batch.Plan, error) {
	q := d.revision(p, lacking)
	if newest && d.rooms.Readers != nil {
		q.Readers = maps.Clone(d.rooms.Readers.Newest())
	}
	err := d.retry(ctx, "the dimension tables", func() (err error) { q.Versions, err = d.rooms.Executor.Pin(ctx); return err })
	if err != nil {
		return nil, err
	}
	d.log.Info("this batch is revised", "batch", q.Batch, "revision", q.Revision, "reason", reason)
	return q, d.append(ctx, q)
}

// reviseGap logs a revision of p that gives up what Kafka no longer has. That a
// topic is another one now is believed after two listings only.
func (d *Driver) reviseGap(ctx context.Context, p *batch.Plan, lacking []*sink, cause error) (*batch.Plan, error) {
	q := d.revision(p, lacking)
	if err := d.giveUp(ctx, p, q, cause); err != nil {
		return nil, err
	}
	if !maps.Equal(p.End(), q.End()) {
		if err := d.rest(ctx, confirmAfter); err != nil {
			return nil, err
		}
		if err := d.giveUp(ctx, p, q, cause); err != nil {
			return nil, err
		}
	}
	return q, d.append(ctx, q)
}

// giveUp marks in q what of p's ranges is not there any more. Where listings go on
// showing all of it, cause stands: what Kafka lists and does not serve is no gap.
func (d *Driver) giveUp(ctx context.Context, p, q *batch.Plan, cause error) error {
	begun := d.rooms.Clock.Now()
	return d.retry(ctx, "Kafka", func() error {
		available, err := d.rooms.Source.List(ctx, p.Ranges)
		if err != nil {
			return err
		}
		q.Ranges = slices.Clone(p.Ranges)
		marked, err := planner.GiveUp(q.Ranges, available, d.gone(p.End(), available), d.opts.Sources)
		switch {
		case marked || err != nil:
			return err
		case planner.Cut(q.Ranges, available), d.rooms.Clock.Now().Sub(begun) > 2*confirmAfter:
			return cause // a gap cannot stand for an end that was cut off, either
		default:
			return fmt.Errorf("%w: Kafka still lists what it says is lost: %w", batch.ErrUnavailable, cause)
		}
	})
}

func (d *Driver) revision(p *batch.Plan, lacking []*sink) *batch.Plan {
	q := *p
	q.Revision, q.Entry, q.Writer = p.Revision+1, p.Entry+1, d.opts.Writer
	q.Ranges = append([]batch.Range{}, p.Ranges...)
	q.Sinks = append([]batch.SinkPlan{}, p.Sinks...)
	for _, s := range lacking {
		sp := q.Sink(s.Name)
		sp.Hash, sp.Due = s.Hash, true
	}
	return &q
}

// sinkFacts is what the planner needs to know of the sinks after the newest
// outcome.
func (d *Driver) sinkFacts() []planner.Sink {
	facts := make([]planner.Sink, 0, len(d.sinks))
	for _, s := range d.sinks {
		facts = append(facts, planner.Sink{Name: s.Name, Hash: s.Hash, Before: s.before, From: s.from, Carried: s.carried, Lags: s.lags, Late: d.late(s)})
	}
	return facts
}

// progress measures one batch for the observer.
type progress struct {
	d               *Driver
	begun, prepared time.Time
	tries, retries  int
}

func (w *progress) done(p *batch.Plan, ready *prepared, outcome []*outcome) {
	now := w.d.rooms.Clock.Now()
	w.d.log.Debug("batch done", "batch", p.Batch, "revision", p.Revision, "duration", now.Sub(w.begun))
	l := listing{lag: -1}
	if ready.listing != nil {
		l = *ready.listing
	} else if w.d.planned != nil {
		l = *w.d.planned
	}
	w.d.planned = nil
	w.d.watch.Batch(Progress{
		Batch: p.Batch, Revision: p.Revision, Start: w.begun, Total: now.Sub(w.begun),
		Prepare: ready.took, Commit: now.Sub(w.prepared), Tries: w.tries, Retries: w.retries, Outcome: outcomes(outcome), Tally: ready.tally,
		Plan: p, Lag: l.lag, Latest: l.latest,
	})
}
