package driver

import (
	"context"
	"errors"
	"fmt"
	"maps"

	"github.com/frazil-io/frazil/internal/batch"
)

// A stream that runs dead letters again comes and goes. Each of its runs is an
// incarnation, which begins where the marks in the table of the dead letters end:
// they are in the same commits as what failed again, the last ones of each batch.
// It anchors every table before its first plan, so no plan of a run ever waits for
// a table without a tag, and a driver that wakes up after the run's end finds
// nothing that its plan names. At the end the next record says so; then the tags go,
// and the log. The newest record stays: nobody can begin a run behind it unseen.

// identifyRun finds the run that is under way, or begins one. It reads the tags
// first, the records second, and the marks third: where it creates the next record,
// no other run has begun and ended since.
func (d *Driver) identifyRun(ctx context.Context) error {
	records := d.patient(recordsServer)
	for {
		stamped, err := d.newestStamp(ctx, true)
		if err != nil {
			return err
		}
		all, err := d.incarnations(ctx)
		if err != nil {
			return err
		}
		d.inc = batch.Incarnation{Number: -1, Kind: batch.Ended}
		if len(all) > 0 {
			d.inc = all[len(all)-1]
		}
		next := batch.Incarnation{Name: d.opts.Name, Number: d.inc.Number + 1, ID: d.rooms.NewID()}
		switch {
		case stamped != nil && d.inc.Newer(stamped.Incarnation, stamped.IncarnationID) && (stamped.UUID == d.inc.UUID || len(all) == 0):
			next.UUID, next.Kind, next.Number = stamped.UUID, batch.Recover, max(stamped.Incarnation+1, next.Number)
			d.log.Warn("the checkpoint of the replay does not know what the tables carry: it was lost; going on from the tables' own stamps", "incarnation", next.Number, "stamp", stamped.String())
		case d.inc.Kind != batch.Ended:
			records.settled()
			return nil
		default:
			if next, err = d.nextRun(ctx, next, len(all) > 0); err != nil {
				return err
			}
		}
		// Whatever the answer, the next round looks whose record is there.
		err = d.rooms.Checkpoint.CreateIncarnation(ctx, next)
		if fatal(err) {
			return fmt.Errorf("create the record of the replay: %w", err)
		}
		if err != nil {
			if err := records.wait(ctx, err); err != nil {
				return err
			}
		}
	}
}

// nextRun is the record of a run behind one that has ended. errDone: no letter
// waits.
func (d *Driver) nextRun(ctx context.Context, next batch.Incarnation, before bool) (batch.Incarnation, error) {
	if before {
		if err := d.clear(ctx); err != nil {
			return next, err
		}
	}
	upto, id, uuid, err := d.done(ctx)
	if err != nil {
		return next, err
	}
	next.UUID, next.Kind, next.Starts, next.Batch, next.Totals = uuid, batch.Replay, upto, id-1, d.inc.Totals
	var since []batch.Range
	for tp, at := range upto {
		since = append(since, batch.Range{TopicPartition: tp, Start: at, End: at, Epoch: -1})
	}
	var available []batch.Available
	err = d.retry(ctx, "the dead letters", func() error { available, err = d.rooms.Source.List(ctx, since); return err })
	if err != nil {
		return next, err
	}
	for _, a := range available {
		if a.End > upto[a.TopicPartition] {
			return next, nil
		}
	}
	return next, errDone
}

func (d *Driver) done(ctx context.Context) (upto batch.Offsets, next batch.ID, uuid string, err error) {
	err = d.retry(ctx, "the dead letters", func() error { upto, next, uuid, err = d.rooms.Replay.Done(ctx); return err })
	if err != nil {
		return nil, 0, "", fmt.Errorf("read the marks among the dead letters: %w", err)
	}
	return upto, next, uuid, nil
}

// runAnchor continues from, the stamp of this run's own tag, nil for a table that
// has none. history is what the table shows of runs before it. The marks are in the
// last commit of each batch: what they say is done is done in every table, whatever
// else is known of it. So the number of the next batch is behind those of the marks,
// also in a table that had no part in a batch in which others caught up.
func (d *Driver) runAnchor(ctx context.Context, s *sink, a, from *batch.Stamp, history []batch.Stamped) (*batch.Stamp, error) {
	upto, next, _, err := d.done(ctx)
	if err != nil {
		return nil, err
	}
	a.Last = next - 1
	maps.Copy(a.End, upto)
	raise := func(to batch.Offsets) {
		for tp, at := range to {
			a.End[tp] = max(a.End[tp], at)
		}
	}
	switch {
	case from != nil:
		raise(from.End)
		a.Last, a.Total, a.Attempt = max(a.Last, from.Last), from.Total, from.Attempt
		if a.Time.Before(from.Time) {
			a.Time = from.Time
		}
	case d.inc.Kind == batch.Replay:
		raise(d.inc.Starts)
		a.Last = max(a.Last, d.inc.Batch)
	}
	if from == nil {
		a.Total = d.totals(s, history)
	}
	a.First, a.Start = a.Last+1, a.End.Clone()
	return a, nil
}

// totals is what runs before this one have counted in a table.
func (d *Driver) totals(s *sink, history []batch.Stamped) batch.Counts {
	if total, ok := d.inc.Totals[s.Name]; ok {
		return total
	}
	for _, h := range history {
		if h.Stamp != nil && h.Stamp.UUID == d.inc.UUID && h.Stamp.Stream == d.opts.Stream {
			return h.Stamp.Total
		}
	}
	return batch.Counts{}
}

// seal completes a plan of a run: which letters its ranges have, and that every
// table gets a stamp of it, so that it can be told of each what it has of a batch.
func (d *Driver) seal(ctx context.Context, p *batch.Plan) error {
	if d.rooms.Replay == nil || p == nil {
		return nil
	}
	for i := range p.Sinks {
		p.Sinks[i].Due = p.Sinks[i].Active
	}
	return d.rooms.Replay.Seal(ctx, p.Ranges)
}

// endRun ends a run when nothing waits any more: the next record fences whoever
// still works for it.
func (d *Driver) endRun(ctx context.Context) error {
	for _, t := range d.behind {
		t.wait()
	}
	d.behind = nil
	next := batch.Incarnation{
		UUID: d.inc.UUID, Name: d.inc.Name, Number: d.inc.Number + 1, ID: d.rooms.NewID(), Kind: batch.Ended, Batch: d.nextBatch() - 1, Totals: map[string]batch.Counts{},
	}
	maps.Copy(next.Totals, d.inc.Totals)
	for _, s := range d.sinks {
		if s.route == nil {
			next.Totals[s.Name] = s.before.Total
			continue
		}
		for table, ref := range s.route.stamps { // of many tables only the rows go on over runs
			if n := ref.Total.Written; n > 0 {
				next.Totals[batch.RouteName(s.Name, table)] = batch.Counts{Written: n}
			}
		}
	}
	err := d.become(ctx, next)
	if err != nil {
		return fmt.Errorf("end the replay: %w", err)
	}
	d.ended = true
	return d.clear(ctx)
}

// clear removes the tags of runs before this driver's record, and then what the
// checkpoint has of them.
func (d *Driver) clear(ctx context.Context) error {
	tables, err := d.tables(ctx, true)
	if err != nil {
		return err
	}
	for _, s := range tables {
		err := d.retry(ctx, "the catalog", func() error {
			view, err := s.Table.Load(ctx)
			if s.of != nil && errors.Is(err, batch.ErrDataLost) {
				return nil // it was dropped meanwhile, and its tag with it
			}
			if err != nil {
				return err
			}
			st := view.Stamp()
			if st == nil || st.UUID == d.inc.UUID && st.Incarnation > d.inc.Number {
				return nil
			}
			return view.Untag(ctx)
		})
		if err != nil {
			return fmt.Errorf("remove the tag of the replay from the table of sink %s: %w", s.Name, err)
		}
	}
	if err := d.retry(ctx, "the checkpoint", func() error { return d.rooms.Checkpoint.Clear(ctx, d.inc) }); err != nil {
		return fmt.Errorf("remove the log of the replay: %w", err)
	}
	return nil
}
