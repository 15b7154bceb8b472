package driver

import (
	"context"
	"fmt"

	"github.com/frazil-io/frazil/internal/batch"
)

// anchorAll brings every table into an incarnation that recovers or rewinds: a
// snapshot with the same contents, or with those to go back to. Only then no
// request of an older incarnation can land any more. Any driver that finds the
// record completes what is missing. The log begins when that is done: sinks of a
// logged plan have their anchors, and only a sink that came later may lack one.
func (d *Driver) anchorAll(ctx context.Context) error {
	if d.inc.Kind == batch.First {
		return nil
	}
	newest, err := d.newest(ctx)
	if err != nil {
		return err
	}
	known, err := d.reached(ctx, newest)
	if err != nil {
		return err
	}
	tables, err := d.newcomers(ctx, newest)
	if err != nil {
		return err
	}
	if d.rooms.Replay != nil { // it may be over by now
		if err := d.checkIncarnation(ctx); err != nil {
			return err
		}
	}
	for _, s := range tables {
		if err := d.anchor(ctx, s, known); err != nil {
			return fmt.Errorf("anchor incarnation %d in the table of sink %s: %w", d.inc.Number, s.Name, err)
		}
	}
	if d.rooms.Replay != nil {
		return nil
	}
	// A rewind that died before its record may have left pins of this number, too.
	for _, s := range d.sinks {
		if s.route != nil {
			continue // it cannot be rewound
		}
		if err := d.retry(ctx, "the catalog", func() error { return s.Table.Unpin(ctx, d.pinTag()) }); err != nil {
			return err
		}
	}
	return nil
}

// newcomers are the tables of sinks that a plan does not name.
func (d *Driver) newcomers(ctx context.Context, newest *batch.Plan) (tables []*sink, err error) {
	for _, s := range d.sinks {
		switch {
		case newest != nil && newest.Sink(s.Name) != nil:
		case s.route == nil:
			tables = append(tables, s)
		case d.rooms.Replay != nil && d.inc.Kind == batch.Replay: // its batches enter what they touch
		default:
			parts, err := d.tablesOf(ctx, s, true)
			if err != nil {
				return nil, err
			}
			tables = append(tables, parts...)
		}
	}
	return tables, nil
}

// reached is where the pipeline stands when it is anchored: where the newest
// plan ends, or without one as far as any table got; nil if none has a stamp.
func (d *Driver) reached(ctx context.Context, newest *batch.Plan) (batch.Offsets, error) {
	if newest != nil {
		return newest.Position(), nil
	}
	tables, err := d.newcomers(ctx, nil)
	if err != nil {
		return nil, err
	}
	views, err := d.views(ctx, tables)
	if err != nil {
		return nil, err
	}
	stamps := map[*sink][]*batch.Stamp{}
	for i, s := range tables {
		view := views[i]
		if err := d.checkUntagged(s, view); err != nil {
			return nil, err
		}
		st, err := d.basis(s, view)
		if err != nil {
			return nil, err
		}
		s.take(st)
		if s.of != nil && st != nil {
			stamps[s.of] = append(stamps[s.of], st)
		}
	}
	for _, s := range d.sinks {
		if s.route != nil {
			s.stand(stamps[s])
		}
	}
	return d.position(), nil
}

// basis is the stamp with whose contents a table goes on in this incarnation:
// that of its anchor, of the snapshot to go back to, or of its tag.
func (d *Driver) basis(s *sink, view View) (*batch.Stamp, error) {
	st := view.Stamp()
	if d.inc.Kind == batch.Replay && st != nil && !st.Of(d.inc, d.opts.Stream) {
		return nil, nil // of a run that is over
	}
	target, back := d.inc.Targets[s.Name]
	if !back || st != nil && st.Of(d.inc, d.opts.Stream) {
		return st, nil
	}
	if st, ok := view.Snapshot(target); ok && st != nil {
		return st, nil
	}
	return nil, fmt.Errorf("%w: snapshot %d, to which the pipeline should go back, has expired", batch.ErrDataLost, target)
}

func (d *Driver) anchor(ctx context.Context, s *sink, known batch.Offsets) error {
	catalog := d.patient("the catalog")
	for {
		view, err := d.load(ctx, s)
		if err != nil {
			return err
		}
		st := view.Stamp()
		if st != nil && st.Of(d.inc, d.opts.Stream) {
			catalog.over()
			return nil
		}
		if st != nil && st.UUID == d.inc.UUID && d.inc.Newer(st.Incarnation, st.IncarnationID) {
			return fmt.Errorf("%w: the table carries incarnation %d-%s", batch.ErrFenced, st.Incarnation, st.IncarnationID)
		}
		if s.of != nil && d.rooms.Replay != nil && st == nil {
			return nil // a batch that touches it enters it
		}
		if _, back := d.inc.Targets[s.Name]; !back { // a rewind leads out of a rollback
			if err := d.checkAncestry(ctx, s, view); err != nil {
				return err
			}
		}
		if err := d.checkUntagged(s, view); err != nil {
			return err
		}
		sent, err := d.sendAnchor(ctx, s, view, known)
		if !sent || fatal(err) {
			return err
		}
		if err != nil { // whatever the answer, look again
			if err := catalog.wait(ctx, err); err != nil {
				return err
			}
		}
	}
}

// sendAnchor commits the anchor of one table. sent is false where nothing can
// have been sent.
func (d *Driver) sendAnchor(ctx context.Context, s *sink, view View, known batch.Offsets) (sent bool, err error) {
	from, err := d.basis(s, view)
	if err != nil {
		return false, err
	}
	a, err := d.anchorStamp(ctx, s, from, view, known)
	if err != nil {
		return false, err
	}
	if target, back := d.inc.Targets[s.Name]; back {
		if d.replayedSince(s, view) {
			return false, fmt.Errorf("%w: dead letters were run again in the table of sink %s while the pipeline goes back to batch %d, which would take them out of it. Let the replay end; then go back to a later batch, or stay with `frazil checkpoint recover`",
				batch.ErrDataLost, s.Name, d.inc.Batch)
		}
		_, err = view.Restore(ctx, a, target, d.inc.DropForeign || d.vouched(s, view))
	} else {
		_, err = view.Commit(ctx, a, nil)
	}
	return true, err
}

// anchorStamp continues from, and follows what the tag carries.
func (d *Driver) anchorStamp(ctx context.Context, s *sink, from *batch.Stamp, view View, known batch.Offsets) (*batch.Stamp, error) {
	a := &batch.Stamp{
		UUID: d.inc.UUID, Name: d.inc.Name, Incarnation: d.inc.Number, IncarnationID: d.inc.ID, Stream: d.opts.Stream,
		Kind: d.inc.Kind, Plan: "anchor-" + d.inc.ID, Last: batch.None, Start: batch.Offsets{}, End: batch.Offsets{},
		Time: d.rooms.Clock.Now().Round(0), Previous: view.Stamp().Hash(),
	}
	if d.rooms.Replay != nil && s.of == nil {
		return d.runAnchor(ctx, s, a, from, view.History())
	}
	if from != nil {
		a.First, a.Last, a.Start, a.End = from.Last+1, from.Last, from.End, from.End
		a.State, a.Total, a.Attempt, a.Route = from.State, from.Total, from.Attempt, from.Route
		if a.Time.Before(from.Time) {
			a.Time = from.Time
		}
		return a, nil
	}
	if s.of != nil { // it was made for a batch that never came: it has no rows
		a.Route = &batch.Route{Sink: s.of.Name}
		return a, nil
	}
	// A table without a stamp joins where `start` says, but never behind what
	// the others have read: what lies between would be missing in it.
	var starts batch.Offsets
	err := d.retry(ctx, "Kafka", func() (err error) { starts, err = d.rooms.Source.Start(ctx, known); return err })
	if err != nil {
		return nil, err
	}
	for tp, at := range starts {
		end, ok := known[tp]
		switch {
		case known == nil: // it is the first one
			a.Start[tp], a.End[tp] = at, at
		case ok:
			a.Start[tp], a.End[tp] = min(at, end), min(at, end)
		default: // a partition that appeared since
		}
	}
	return a, nil
}
