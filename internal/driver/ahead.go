package driver

import (
	"context"
	"slices"

	"github.com/frazil-io/frazil/internal/batch"
	"github.com/frazil-io/frazil/internal/planner"
)

// ahead is the work on the batch behind the one that is committed.
type ahead struct {
	ready  *prepared // of the work, once it has ended
	wait   func()    // nil: there is none
	cancel context.CancelFunc
	hurry  context.CancelFunc // it does not wait for the trigger any more
}

// join waits for the end of the work and returns what it came to, nil if nothing.
func (a *ahead) join() *prepared {
	if a.wait == nil {
		return nil
	}
	a.hurry()
	a.wait()
	a.cancel()
	return a.ready
}

// drop ends the work.
func (a *ahead) drop() {
	if a.wait != nil {
		a.cancel()
		a.wait()
	}
}

// startAhead begins to prepare the batch behind p while p is committed, as soon as
// the trigger is due. It works on the prediction that each commit of p
// lands as sent; keepAhead drops the work where one did not. Nothing is logged:
// the log never runs ahead of the commit. Errors are dropped with the work; the
// ordinary path will meet them again. It ends when the end is asked for: what it
// makes would be thrown away.
//
// The work has all that it needs from here: beside it the driver goes on.
func (d *Driver) startAhead(ctx context.Context, p *batch.Plan, ready *prepared) *ahead {
	stop := stopOf(ctx)
	if stop.Err() != nil || d.anyLags(p) || d.outdated() || d.opts.Trigger.AvailableNow && d.until == nil {
		return &ahead{}
	}
	sinks, predicted := d.predict(p, ready)
	if sinks == nil {
		return &ahead{}
	}
	within, cancel := context.WithCancel(stop)
	committing, hurry := context.WithCancel(within)
	a := &ahead{cancel: cancel, hurry: hurry}
	f := planner.Facts{
		Incarnation: d.inc, Entry: p.Entry + 1, Batch: p.Batch + 1, Position: p.Position(), Last: p.Time, Readers: d.readers(), Writer: d.opts.Writer, Sinks: sinks, Recent: ready.recent(p),
	}
	policy := planner.Policy{Limits: d.limits(f.Batch), Sources: d.opts.Sources, Until: d.until, Full: d.opts.Trigger.AvailableNow}
	tags, pause := d.tags(), d.due()
	a.wait = d.rooms.Tasks.Go(func() {
		if pause > 0 && d.rooms.Clock.Sleep(committing, pause) != nil {
			return // the commit was faster than the trigger
		}
		a.ready = d.runAhead(within, p, f, policy, tags, predicted)
	})
	return a
}

// anyLags says whether the next plan is not an ordinary one.
func (d *Driver) anyLags(p *batch.Plan) bool {
	for _, s := range d.sinks {
		if p.Sink(s.Name) == nil {
			return true
		}
	}
	return p.CatchesUp() || d.lagging()
}

// lagging says whether a table may lag behind the pipeline.
func (d *Driver) lagging() bool {
	return slices.ContainsFunc(d.sinks, func(s *sink) bool { return s.lags })
}

// predict returns the facts of the sinks if every commit of p lands as sent,
// nil where p was not prepared here for every sink.
func (d *Driver) predict(p *batch.Plan, ready *prepared) ([]planner.Sink, map[string]string) {
	var facts []planner.Sink
	predicted := map[string]string{}
	for _, s := range d.sinks {
		next := *s
		if sp := p.Sink(s.Name); s.route != nil && sp.Active {
			next.from = p.End()
		} else if sp.Active {
			res := ready.sinks[s.Name]
			if res == nil {
				return nil, nil
			}
			next.advance(p, &outcome{sink: s, landed: res.stamp, counts: res.counts})
		}
		if s.route == nil {
			predicted[s.Name] = next.before.Hash
		}
		facts = append(facts, planner.Sink{Name: s.Name, Hash: s.Hash, Before: next.before, From: next.from, Carried: next.carried, Late: d.late(s)})
	}
	for _, s := range d.parts(p) {
		if s.of == nil {
			continue
		}
		res := ready.sinks[s.Name]
		if res == nil {
			return nil, nil
		}
		predicted[s.Name] = res.stamp.Hash()
	}
	return facts, predicted
}

// tag is the stamp that a table of the spec's sinks carries.
func (d *Driver) tag(name string) string {
	of, table := batch.SplitRoute(name)
	for _, s := range d.sinks {
		switch {
		case s.Name != of:
		case s.route != nil:
			return s.route.stamps[table].Hash
		default:
			return s.before.Hash
		}
	}
	return ""
}

func (d *Driver) runAhead(ctx context.Context, p *batch.Plan, f planner.Facts, policy planner.Policy, tags, predicted map[string]string) *prepared {
	var err error
	if f.Available, err = d.available(ctx, p, f.Position, nil); err != nil {
		return nil
	}
	if f.Versions, err = d.rooms.Executor.Pin(ctx); err != nil {
		return nil
	}
	f.Now = d.rooms.Clock.Now()
	next, err := planner.Next(f, policy)
	if err != nil || next == nil || d.seal(ctx, next) != nil {
		return nil
	}
	ready, err := d.prepare(ctx, next, d.sinks, basisOf(tags, predicted), d.allLetters())
	if err != nil {
		return nil
	}
	ready.predicted = predicted
	l := listed(f.Available, next.End())
	ready.listing = &l
	return ready
}

// keepAhead returns the work that ran ahead if every prediction came true.
func (d *Driver) keepAhead(ctx context.Context, ready *prepared, outcome []*outcome) *prepared {
	if ready == nil {
		return nil
	}
	for name, stamp := range ready.predicted {
		if d.tag(name) != stamp {
			d.dropAhead(ctx, ready, "another attempt was committed")
			return nil
		}
	}
	ready.plan.Outcome = outcomes(d.last, outcome)
	d.watch.Listed(ready.plan.Time, ready.listing.lag)
	return ready
}

// dropAhead lets go of work that ran ahead and will not be used.
func (d *Driver) dropAhead(ctx context.Context, ready *prepared, reason string) {
	d.background(func() { d.discard(ctx, ready) })
	d.log.Info("work that ran ahead is dropped", "batch", ready.plan.Batch, "reason", reason)
}
