package driver

import (
	"context"

	"github.com/frazil-io/frazil/internal/batch"
	"github.com/frazil-io/frazil/internal/planner"
)

// startAhead begins to prepare the batch behind p while p is committed, as soon as
// the trigger is due. It works on the prediction that each commit of p
// lands as sent; keepAhead drops the work where one did not. Nothing is logged:
// the log never runs ahead of the commit. Errors are dropped with the work; the
// ordinary path will meet them again.
func (d *Driver) startAhead(ctx, stop context.Context, p *batch.Plan, ready *prepared) (ahead **prepared, join func()) {
	ahead = new(*prepared)
	if stop.Err() != nil || d.anyLags(p) {
		return ahead, func() {}
	}
	sinks, predicted := d.predict(p, ready)
	if sinks == nil {
		return ahead, func() {}
	}
	ctx, cancel := context.WithCancel(ctx)
	abandon := context.AfterFunc(stop, cancel) // no batch begins after that
	committing, committed := context.WithCancel(ctx)
	wait := d.rooms.Tasks.Go(func() {
		if pause := d.due(); pause > 0 && d.rooms.Clock.Sleep(committing, pause) != nil {
			return // the commit was faster than the trigger
		}
		*ahead = d.runAhead(ctx, p, sinks, predicted)
	})
	return ahead, func() {
		committed()
		wait()
		abandon()
		cancel()
	}
}

// anyLags says whether the next plan is not an ordinary one.
func (d *Driver) anyLags(p *batch.Plan) bool {
	for _, s := range d.sinks {
		if p.Sink(s.Name) == nil {
			return true
		}
	}
	return false
}

// predict returns the facts of the sinks if every commit of p lands as sent,
// nil where p was not prepared here for every sink.
func (d *Driver) predict(p *batch.Plan, ready *prepared) ([]planner.Sink, map[string]string) {
	var facts []planner.Sink
	predicted := map[string]string{}
	for _, s := range d.sinks {
		next := *s
		if sp := p.Sink(s.Name); sp.Active {
			res := ready.sinks[s.Name]
			if res == nil {
				return nil, nil
			}
			next.advance(p, &outcome{sink: s, landed: res.stamp, counts: res.counts})
		}
		predicted[s.Name] = next.before.Hash
		facts = append(facts, planner.Sink{Name: s.Name, Hash: s.Hash, Before: next.before, From: next.from, Carried: next.carried})
	}
	return facts, predicted
}

func (d *Driver) runAhead(ctx context.Context, p *batch.Plan, sinks []planner.Sink, predicted map[string]string) *prepared {
	available, err := d.available(ctx, p, p.End(), nil)
	if err != nil {
		return nil
	}
	versions, err := d.rooms.Executor.Pin(ctx)
	if err != nil {
		return nil
	}
	f := planner.Facts{
		Incarnation: d.inc, Entry: p.Entry + 1, Batch: p.Batch + 1, Position: p.End(), Last: p.Time, Available: available,
		Now: d.rooms.Clock.Now(), Versions: versions, Writer: d.opts.Writer, Sinks: sinks,
	}
	next, err := planner.Next(f, d.policy(f))
	if err != nil || next == nil {
		return nil
	}
	ready, err := d.prepare(ctx, next, d.sinks)
	if err != nil {
		return nil
	}
	l := listed(available, next.End())
	ready.predicted, ready.listing = predicted, &l
	return ready
}

// keepAhead returns the work that ran ahead if every prediction came true.
func (d *Driver) keepAhead(ctx context.Context, ahead **prepared, outcome []*outcome) *prepared {
	ready := *ahead
	if ready == nil {
		return nil
	}
	for _, s := range d.sinks {
		if s.before.Hash != ready.predicted[s.Name] {
			d.background(func() { d.discard(ctx, ready.attempt, d.sinks) })
			d.log.Info("work that ran ahead is dropped: another attempt was committed", "batch", ready.plan.Batch)
			return nil
		}
	}
	ready.plan.Outcome = outcomes(outcome)
	return ready
}
