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
	if ready != nil && !ready.begun.IsZero() {
		watch.begun = ready.begun // it was executed before it was logged
	}
	if !p.CatchesUp() {
		d.started = watch.begun
	}
	for {
		ahead, err := d.try(ctx, p, ready, &watch)
		if back := new(HeldBack); errors.As(err, &back) {
			if err := d.hold(ctx, d.last, back); err != nil {
				return nil, err
			}
			p, ready = d.last, nil
			continue
		}
		if !errors.Is(err, errOutgrown) && !errors.Is(err, errOvertaken) && !errors.Is(err, errAnchored) {
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
		if watch.tries == sent && ready.registered { // it was not sent
			d.discard(ctx, ready)
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
	kafka := d.executing(p)
	defer kafka.settled()
	for again := false; ; {
		lacking, anchored, err := d.lacking(ctx, p)
		if err != nil {
			return nil, nil, err
		}
		if !again && d.lettersAhead(p, lacking) {
			again = true // once: a driver that committed between two looks is seen by the next
			continue
		}
		if err := d.keepsSpec(p, lacking); err != nil {
			return nil, nil, err
		}
		if anchored {
			if p, err = d.reviseTags(ctx, p, lacking); err != nil {
				return nil, nil, err
			}
			continue
		}
		if q, err := d.overruled(ctx, p, lacking); err != nil {
			return nil, nil, err
		} else if q != nil {
			p = q
			continue
		}
		letters, err := d.letters(ctx, p, lacking)
		if other := new(otherReaders); errors.As(err, &other) {
			if p, err = d.revise(ctx, p, lacking, other.ids, "its dead letters are those of tables that have it as another schema reads it"); err != nil {
				return nil, nil, err
			}
			continue
		}
		if err != nil {
			return nil, nil, err
		}
		newest := d.newestReaders(p, lacking)
		if changed := d.changed(p, lacking); changed || d.seizes(p, lacking) {
			ids := p.Readers
			if changed {
				ids = newest
			}
			if p, err = d.revise(ctx, p, lacking, ids, "it was planned by another driver or for another spec"); err != nil {
				return nil, nil, err
			}
			continue
		}
		if err := planner.Unread(p.Ranges, d.opts.Sources); err != nil && len(lacking) > 0 {
			var ready *prepared
			if p, ready, err = d.reviseGap(ctx, p, lacking, letters, err); err != nil || ready != nil {
				return p, ready, err
			}
			continue
		}
		staged, rest, err := d.staged(ctx, p, lacking)
		if err != nil {
			return nil, nil, err
		}
		ready, err := d.prepareAs(ctx, p, rest, letters)
		if err == nil {
			maps.Copy(ready.sinks, staged)
			kafka.over()
			return p, ready, nil
		}
		if d.outgrew(p, newest, err) && !anyRouted(lacking) {
			d.log.Warn("the batch cannot be read with the schemas that its plan names", "batch", p.Batch, "error", err)
			if p, err = d.revise(ctx, p, lacking, newest, "there are newer reader schemas"); err != nil {
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
		if p, ready, err = d.reviseGap(ctx, p, lacking, letters, err); err != nil || ready != nil {
			return p, ready, err
		}
	}
}

// lacking returns the tables that take part in p and have not got it. anchored
// says that one of them carries an anchor of which p does not know.
func (d *Driver) lacking(ctx context.Context, p *batch.Plan) (lacking []*sink, anchored bool, err error) {
	for parts := d.parts(p); len(parts) > 0; {
		n := oneSink(parts)
		views, err := d.views(ctx, parts[:n])
		if err != nil {
			return nil, false, err
		}
		for i, s := range parts[:n] {
			_, done, err := d.lookFrom(ctx, p, s, p.Sink(s.Name), views[i])
			late := errors.Is(err, errAnchored)
			if err != nil && !late {
				return nil, false, err
			}
			anchored = anchored || late
			if done == nil {
				lacking = append(lacking, s)
			}
		}
		parts = parts[n:]
	}
	return lacking, anchored, nil
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

// keepsSpec stops where a batch is open in a sink that feeds many tables, and the
// spec is another one now: a record that went to one table must not go to another
// one as well. Such a batch was executed before it was logged, so it can be
// finished with the spec that it was planned with.
func (d *Driver) keepsSpec(p *batch.Plan, lacking []*sink) error {
	for _, s := range lacking {
		if s.of != nil && p.Sink(s.Name).Hash != s.Hash {
			return fmt.Errorf("%w: batch %d is not in table %s yet and was planned with another spec of sink %s: "+
				"finish it with that one (frazil run --available-now; a replay, by replaying with it), then take the new one", batch.ErrInvalid, p.Batch, s.table, s.of.Name)
		}
	}
	return nil
}

// anyRouted says whether one of these is a table of a sink that feeds many.
func anyRouted(tables []*sink) bool {
	return slices.ContainsFunc(tables, func(s *sink) bool { return s.of != nil })
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
func (d *Driver) revise(ctx context.Context, p *batch.Plan, lacking []*sink, readers map[string]int32, reason string) (*batch.Plan, error) {
	q := d.revision(p, lacking)
	q.Readers = maps.Clone(readers)
	err := d.retry(ctx, "the dimension tables", func() (err error) { q.Versions, err = d.rooms.Executor.Pin(ctx); return err })
	if err != nil {
		return nil, err
	}
	if d.owesLetters(p, lacking) { // they are what tables rejected that have the batch as p has it
		maps.Copy(q.Versions, p.Versions)
	}
	for _, s := range lacking {
		if s.of != nil { // where a row goes may depend on what it is read with and joined with
			maps.Copy(q.Versions, p.Versions)
			q.Readers = p.Readers
		}
	}
	d.log.Info("this batch is revised", "batch", q.Batch, "revision", q.Revision, "reason", reason)
	return q, d.append(ctx, q)
}

// reviseGap logs a revision of p that gives up what Kafka no longer has. That a
// topic is another one now is believed after two listings only.
// A revision of a batch that goes to many tables is executed before it is logged,
// as the batch was.
func (d *Driver) reviseGap(ctx context.Context, p *batch.Plan, lacking []*sink, letters batch.Letters, cause error) (*batch.Plan, *prepared, error) {
	q := d.revision(p, lacking)
	if err := d.gaps(ctx, p, q, cause); err != nil {
		return nil, nil, err
	}
	var ready *prepared
	if anyRouted(lacking) {
		err := d.retry(ctx, "Kafka", func() (err error) { ready, err = d.prepareAs(ctx, q, lacking, letters); return err })
		if err != nil {
			return nil, nil, err
		}
		for name, share := range ready.routes {
			sp := q.Sink(name)
			rp := *sp.Route
			rp.Counts, sp.Route = share.counts, &rp
		}
	}
	return q, ready, d.append(ctx, q)
}

// gaps gives up in q what Kafka no longer has of p.
func (d *Driver) gaps(ctx context.Context, p, q *batch.Plan, cause error) error {
	if err := d.giveUp(ctx, p, q, cause); err != nil {
		return err
	}
	if maps.Equal(p.End(), q.End()) {
		return nil
	}
	if err := d.rest(ctx, confirmAfter); err != nil {
		return err
	}
	return d.giveUp(ctx, p, q, cause)
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

// reviseTags logs a revision of p that names the anchors which tables got after p
// was planned. No commit of p itself can land there any more.
func (d *Driver) reviseTags(ctx context.Context, p *batch.Plan, lacking []*sink) (*batch.Plan, error) {
	q := d.revision(p, lacking)
	for _, s := range lacking {
		if s.of == nil {
			continue
		}
		view, err := d.load(ctx, s)
		if err != nil {
			return nil, err
		}
		sp := q.Sink(s.of.Name)
		if st := view.Stamp(); d.emptyAnchor(st) && sp.Route.Table(s.table).Before.Hash == "" {
			rp := *sp.Route
			rp.Tables = slices.Clone(rp.Tables)
			rp.Table(s.table).Before = batch.RefTo(st)
			sp.Route = &rp
		}
	}
	d.log.Info("tables of this batch were anchored after it was planned; revising it", "batch", q.Batch, "revision", q.Revision)
	return q, d.append(ctx, q)
}

func (d *Driver) revision(p *batch.Plan, lacking []*sink) *batch.Plan {
	q := *p
	q.Revision, q.Entry, q.Writer = p.Revision+1, p.Entry+1, d.opts.Writer
	q.Ranges = append([]batch.Range{}, p.Ranges...)
	q.Sinks = append([]batch.SinkPlan{}, p.Sinks...)
	for _, s := range lacking {
		sp := q.Sink(s.whole().Name)
		if sp.Hash != s.Hash {
			sp.Held = nil // nothing came of what was held back
		}
		sp.Hash, sp.Due = s.Hash, true
	}
	return &q
}

// sinkFacts is what the planner needs to know of the sinks after the newest
// outcome.
func (d *Driver) sinkFacts() []planner.Sink {
	facts := make([]planner.Sink, 0, len(d.sinks))
	for _, s := range d.sinks {
		facts = append(facts, planner.Sink{Name: s.Name, Hash: s.Hash, Before: s.before, From: s.from, Carried: s.carried, Lags: s.lags, Late: d.late(s), Upto: s.upto()})
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
		Prepare: ready.took, Commit: now.Sub(w.prepared), Tries: w.tries, Retries: w.retries, Outcome: outcomes(p, outcome), Tally: ready.tally,
		Plan: p, Lag: l.lag, Latest: l.latest,
	})
}
