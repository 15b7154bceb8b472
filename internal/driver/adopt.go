package driver

import (
	"context"
	"fmt"

	"github.com/frazil-io/frazil/internal/batch"
)

// adoptPlan takes what the newest plan says of each sink. Its outcome is not
// known: it is the next batch. A sink that the plan does not name joins later.
func (d *Driver) adoptPlan(ctx context.Context, p *batch.Plan) error {
	d.found(p)
	d.recent = p.Recent
	for _, s := range d.sinks {
		sp := p.Sink(s.Name)
		if sp != nil && (sp.Route != nil) != (s.route != nil) {
			return fmt.Errorf("%w: sink %s fed one table and shall feed many now, or the other way round: give it another name", batch.ErrInvalid, s.Name)
		}
		if s.route != nil {
			if err := d.adoptRoute(ctx, p, s, sp); err != nil {
				return err
			}
			continue
		}
		if sp != nil {
			s.before, s.from, s.carried, s.lags = sp.Before, sp.From, sp.Carried, sp.Lags
			if s.lags && s.before.Hash == "" {
				s.from = nil // it joins where `start` says, when its turn comes
			}
			continue
		}
		view, err := d.load(ctx, s)
		if err != nil {
			return err
		}
		if err := d.join(ctx, s, view); err != nil {
			return err
		}
	}
	return nil
}

// adoptRoute takes what the newest plan says of a sink that feeds many tables,
// or where their stamps say that it stands.
func (d *Driver) adoptRoute(ctx context.Context, p *batch.Plan, s *sink, sp *batch.SinkPlan) error {
	if sp != nil {
		s.from, s.lags = sp.From, sp.Lags
		s.follow(sp)
	} else {
		s.lags = true
	}
	return d.learn(ctx, s, p)
}

// join takes what the table of a new sink carries: nothing, or the stamp of the
// time when the sink was in the spec before.
func (d *Driver) join(ctx context.Context, s *sink, view View) error {
	if err := d.checkAncestry(ctx, s, view); err != nil {
		return err
	}
	st := view.Stamp()
	if st != nil && !st.Of(d.inc, d.opts.Stream) {
		if err := d.checkIncarnation(ctx); err != nil {
			return err
		}
		return fmt.Errorf("%w: the table of sink %s joins, but carries the stamp of another incarnation: %s. "+
			"Use another table, or remove its tag %s if its rows are to stay as they are", batch.ErrDataLost, s.Name, st, batch.Tag(d.opts.Name, d.opts.Stream))
	}
	s.lags = true
	s.take(st)
	return nil
}

// take is what a table's stamp says of the sink.
func (s *sink) take(st *batch.Stamp) {
	s.before, s.from, s.carried = batch.RefTo(st), nil, batch.Counts{}
	if st != nil {
		s.from = st.End.Clone()
	}
}

// adoptTags begins a log that is empty: batch 0 of a new pipeline, or what the
// stamps of an incarnation that recovers or rewinds say.
func (d *Driver) adoptTags(ctx context.Context) error {
	d.last, d.ordinary = nil, nil
	for _, s := range d.sinks {
		s.take(nil)
		if s.route != nil {
			s.stand(nil)
			clear(s.route.stamps)
		}
		if d.inc.Kind == batch.First {
			continue // a tag that is there already is not ours
		}
		if s.route != nil {
			s.lags = true
			if err := d.learn(ctx, s, nil); err != nil {
				return err
			}
			continue
		}
		view, err := d.load(ctx, s)
		if err != nil {
			return err
		}
		if err := d.checkUntagged(s, view); err != nil {
			return err
		}
		st := view.Stamp()
		if st != nil && st.UUID == d.inc.UUID && d.inc.Newer(st.Incarnation, st.IncarnationID) {
			return fmt.Errorf("%w: the table of sink %s carries incarnation %d-%s", batch.ErrFenced, s.Name, st.Incarnation, st.IncarnationID)
		}
		if st != nil && !st.Of(d.inc, d.opts.Stream) {
			if err := d.checkIncarnation(ctx); err != nil {
				return err
			}
			return fmt.Errorf("%w: the table of sink %s was anchored in incarnation %d-%s, but its tag carries %s now: another pipeline of this name writes there. "+
				"Stop one of them and run `frazil checkpoint recover` for the other", batch.ErrDataLost, s.Name, d.inc.Number, d.inc.ID, st)
		}
		s.take(st)
		s.lags = true
	}
	return nil
}

// position is where the pipeline stands when it has no plan: the furthest end
// of any table's stamp, per partition; nil where no table has one.
func (d *Driver) position() batch.Offsets {
	var position batch.Offsets
	for _, s := range d.sinks {
		_, _, end, ok := s.stood()
		if !ok {
			continue
		}
		if position == nil {
			position = batch.Offsets{}
		}
		for tp, at := range end {
			if was, ok := position[tp]; !ok || at > was {
				position[tp] = at
			}
		}
	}
	return position
}
