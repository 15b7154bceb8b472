package driver

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/frazil-io/frazil/internal/batch"
	"github.com/frazil-io/frazil/internal/planner"
)

// Trigger says when a batch begins.
type Trigger struct {
	// Interval is the time from one beginning to the next; a batch that overran
	// is followed at once. 0: each batch follows the last one.
	Interval time.Duration
	// AvailableNow ends the run when everything is committed that was available
	// when it began.
	AvailableNow bool
}

// poll is how often Kafka is asked while there is nothing new and the next
// batch is due. One listing takes a fraction of a millisecond of CPU, so this
// stays well below one percent of a core.
const poll = 50 * time.Millisecond

// fenceEvery is how often an idle driver looks for a newer incarnation. Each
// log entry looks too.
const fenceEvery = time.Second

// confirmAfter is the distance of two listings that must agree before records
// count as lost: one listing can be stale.
const confirmAfter = 10 * time.Second

// due returns how long the next batch must still wait.
func (d *Driver) due() time.Duration {
	if d.opts.Trigger.Interval <= 0 || d.opts.Trigger.AvailableNow || d.started.IsZero() {
		return 0
	}
	return max(0, d.started.Add(d.opts.Trigger.Interval).Sub(d.rooms.Clock.Now()))
}

// next waits for the trigger, plans a batch and logs it.
func (d *Driver) next(ctx context.Context) (*batch.Plan, *prepared, error) {
	pause := d.due()
	if d.lagging() {
		pause = 0 // tables that lag do not wait for the trigger
	}
	for ; ; pause = max(poll, d.due()) {
		if err := d.idle(ctx, pause); err != nil {
			return nil, nil, err
		}
		// Where Kafka does not answer, nobody waits for a batch that will not begin.
		p, err := d.plan(stopOf(ctx))
		var ready *prepared
		if p != nil && err == nil {
			ready, err = d.routed(stopOf(ctx), p)
		}
		if cut := context.Cause(ctx); cut != nil {
			return nil, nil, cut
		}
		if stopOf(ctx).Err() != nil {
			return nil, nil, errDone
		}
		if err != nil {
			return nil, nil, fmt.Errorf("plan batch %d: %w", d.nextBatch(), err)
		}
		if p == nil && d.opts.Trigger.AvailableNow {
			if d.rooms.Replay != nil {
				if err := d.endRun(ctx); err != nil {
					return nil, nil, err
				}
			}
			return nil, nil, errDone
		}
		if p != nil {
			return p, ready, d.begin(ctx, p, ready)
		}
	}
}

// idle sleeps until the next look at Kafka. An idle driver looks for a newer
// incarnation, too.
func (d *Driver) idle(ctx context.Context, pause time.Duration) error {
	if stopOf(ctx).Err() != nil {
		return errDone
	}
	if pause > 0 {
		if err := d.rest(ctx, pause); err != nil {
			return err
		}
	}
	if now := d.rooms.Clock.Now(); now.Sub(d.checked) >= fenceEvery {
		d.checked = now
		return d.checkIncarnation(ctx)
	}
	return nil
}

// checkIncarnation returns batch.ErrFenced if this driver's incarnation is not
// the newest one.
func (d *Driver) checkIncarnation(ctx context.Context) error {
	all, err := d.incarnations(ctx)
	if err != nil {
		return err
	}
	if len(all) == 0 || !all[len(all)-1].Same(d.inc) {
		return fmt.Errorf("%w: the checkpoint has another incarnation than %d-%s of this driver: the pipeline was recovered or rewound, or its checkpoint is gone; "+
			"if no other driver runs it, start it again: it goes on from its tables", batch.ErrFenced, d.inc.Number, d.inc.ID)
	}
	return nil
}

// plan lists offsets and freezes the next batch, nil if there is nothing to do.
func (d *Driver) plan(ctx context.Context) (*batch.Plan, error) {
	p, err := d.freeze(ctx, false)
	if !errors.Is(err, batch.ErrDataLost) {
		return p, err
	}
	d.log.Warn("records seem to be lost; asking Kafka again", "error", err, "after", confirmAfter)
	if err := d.rest(ctx, confirmAfter); err != nil {
		return nil, err
	}
	return d.freeze(ctx, true)
}

func (d *Driver) nextBatch() batch.ID {
	if d.last != nil {
		return d.last.Batch + 1
	}
	id := batch.ID(0)
	for _, s := range d.sinks {
		if last, _, _, ok := s.stood(); ok {
			id = max(id, last+1)
		}
	}
	return id
}

// freeze plans what follows the newest plan, whose outcome the sinks' facts say.
// confirmed: a listing before this one said that records are lost.
func (d *Driver) freeze(ctx context.Context, confirmed bool) (*batch.Plan, error) {
	if err := d.refresh(ctx); err != nil {
		return nil, err
	}
	last, sinks := d.last, d.sinkFacts()
	f := planner.Facts{Incarnation: d.inc, Batch: d.nextBatch(), Readers: d.readers(), Writer: d.opts.Writer, Sinks: sinks, Outcome: d.lastOutcome, Confirmed: confirmed, Recent: d.recent}
	if last != nil {
		f.Batch, f.Entry, f.Last, f.Position = last.Batch+1, last.Entry+1, last.Time, last.Position()
		f.CaughtUp = last.CatchesUp()
	} else {
		f.Position = d.position()
		for _, s := range d.sinks {
			if _, at, _, ok := s.stood(); ok && at.After(f.Last) {
				f.Last = at
			}
		}
	}
	var err error
	if f.Starts, err = d.starts(ctx, f); err != nil {
		return nil, err
	}
	if err := d.retry(ctx, "the dimension tables", func() error { f.Versions, err = d.rooms.Executor.Pin(ctx); return err }); err != nil {
		return nil, err
	}
	var p *batch.Plan
	err = d.retry(ctx, "Kafka", func() error {
		if f.Available, err = d.available(ctx, last, f.Position, f.Starts); err != nil {
			return err
		}
		f.Now, f.Gone = d.rooms.Clock.Now(), d.gone(f.Position, f.Available)
		if p, err = planner.Next(f, d.policy(f)); err != nil {
			return err
		}
		return d.seal(ctx, p)
	})
	if err == nil {
		d.noteUnread(f.Position)
		d.notePlan(f, p)
	}
	return p, err
}

// available lists what the plan behind the last one can take, or behind a
// position where this process knows no plan, or behind the starts where there is
// none; with its sizes where they make the limit in bytes exact.
func (d *Driver) available(ctx context.Context, last *batch.Plan, position, starts batch.Offsets) ([]batch.Available, error) {
	available, err := d.rooms.Source.List(ctx, d.since(last, position))
	if err != nil || d.opts.Limits.BytesMax <= 0 {
		return available, err
	}
	if position == nil {
		position = starts
	}
	return d.rooms.Source.Ahead(ctx, position, available, d.opts.Limits.BytesMax)
}

// since is where a position stands, with the leader epochs where a plan has them:
// one that catches up has none of what lies behind it.
func (d *Driver) since(last *batch.Plan, position batch.Offsets) (ranges []batch.Range) {
	if last != nil && last.CatchesUp() {
		last = d.ordinary
	}
	if last != nil {
		return slices.DeleteFunc(slices.Clone(last.Ranges), func(r batch.Range) bool { return r.Closed })
	}
	if position == nil {
		return nil
	}
	ranges = []batch.Range{}
	for tp, at := range position {
		ranges = append(ranges, batch.Range{TopicPartition: tp, Start: at, End: at, Epoch: -1})
	}
	return ranges
}

// gone takes note of a listing, and says which topics of the given partitions
// were deleted.
func (d *Driver) gone(known batch.Offsets, available []batch.Available) map[planner.Topic]bool {
	now := d.rooms.Clock.Now()
	d.absent.Note(known, available, now)
	return d.absent.Gone(now, confirmAfter)
}

// noteUnread says once of which topics only the position is kept.
func (d *Driver) noteUnread(position batch.Offsets) {
	for tp, at := range position {
		if !d.opts.Sources.Reads(tp) && !d.unread[tp] {
			d.unread[tp] = true
			d.log.Warn("the spec does not read this partition any more; its position is kept, and reading goes on there if it comes back under the same source and topic",
				"source", tp.Source, "partition", tp.String(), "offset", at)
		}
	}
}

func (d *Driver) policy(f planner.Facts) planner.Policy {
	if d.opts.Trigger.AvailableNow && d.until == nil {
		d.until = batch.Offsets{}
		for _, a := range f.Available {
			d.until[a.TopicPartition] = a.End
			if d.inc.Kind == batch.Replay && a.Topic == d.opts.Stream { // what a run rejects waits for the next one
				d.until[a.TopicPartition] = min(a.End, int64(d.inc.Batch)+1)
			}
		}
	}
	return planner.Policy{Limits: d.limits(f.Batch), Sources: d.opts.Sources, Until: d.until, Full: d.full(f.Now), Early: d.due() > 0}
}

// The first batch of a pipeline is small whatever its limits: rows are in the
// table, and mistakes are seen, as soon as the pipeline runs.
const (
	firstRecords = 100_000
	firstBytes   = 16 << 20
)

// limits returns the limits of a batch.
func (d *Driver) limits(id batch.ID) planner.Limits {
	l := d.opts.Limits
	if id == 0 {
		l.RecordsMax, l.BytesMax = lower(l.RecordsMax, firstRecords), lower(l.BytesMax, firstBytes)
	}
	return l
}

// lower returns the lower one of two limits, of which 0 is none.
func lower(limit, than int64) int64 {
	if limit == 0 {
		return than
	}
	return min(limit, than)
}

// starts resolves `start` where a plan needs it: for the first one, and for a
// table that has no stamp yet.
func (d *Driver) starts(ctx context.Context, f planner.Facts) (starts batch.Offsets, err error) {
	needed := f.Position == nil
	for _, s := range f.Sinks {
		needed = needed || s.Lags && s.From == nil
	}
	if needed {
		err = d.retry(ctx, "Kafka", func() error { starts, err = d.rooms.Source.Start(ctx, f.Position); return err })
	}
	return starts, err
}

// full says whether records have waited for the minimums long enough. An
// available-now run does not wait.
func (d *Driver) full(now time.Time) bool {
	return d.opts.Trigger.AvailableNow || !d.waiting.IsZero() && now.Sub(d.waiting) >= d.opts.DelayMax
}

// notePlan keeps since when records wait, and tells the observer the lag.
func (d *Driver) notePlan(f planner.Facts, p *batch.Plan) {
	end := f.Position
	if p != nil {
		end = p.Position()
		if !p.CatchesUp() {
			d.waiting = time.Time{}
		}
		for _, r := range p.Ranges {
			if r.Lost > 0 || r.Closed {
				d.log.Warn("records are lost; the plan notes the gap", "batch", p.Batch, "source", r.Source, "range", r.String())
			}
		}
	}
	l := listed(f.Available, end)
	if p != nil {
		d.planned = &l
	}
	if (p == nil || p.CatchesUp()) && l.lag > 0 && d.waiting.IsZero() {
		d.waiting = f.Now
	}
	d.watch.Listed(f.Now, l.lag)
}
