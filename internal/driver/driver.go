// Package driver runs the protocol: it alone knows the order in which the rooms
// work, and it knows them by the interfaces of rooms.go only.
//
// Batch N is, in this order:
//
//  1. plan     freeze the ranges and all the rest that the outcome depends on
//  2. log      create the next log entry; whoever creates it owns the batch
//  3. execute  read those offsets, run the SQL, write data files
//  4. commit   one stamped snapshot in each sink's table
//  5. record   the next plan carries N's outcome; commits/N is written behind
//
// There is no recovery code. A logged plan whose outcome is not known is simply
// the next batch, so a restart, a retry and an ordinary batch take one path.
//
// What it keeps:
//
//   - The log never runs ahead of the commit: entry N+1 is created only when
//     N's outcome is known in every sink. Work may run ahead of the log.
//   - Execute once, commit many: a failed commit is tried again with the same
//     files, after a look at what the table carries now.
//   - Dead letters are committed last: what is missing of a batch after a crash is
//     made again from the plan, its letters by the SQL of all sinks.
//   - Done means that the table's tag carries a stamp of this incarnation whose
//     plan hash is that of a logged revision of N. An error is never read to
//     learn what happened; the table is.
package driver

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/frazil-io/frazil/internal/batch"
	"github.com/frazil-io/frazil/internal/planner"
)

// Sink is one sink of the spec, as the driver needs it.
type Sink struct {
	Name  string
	Hash  string // of every key of the spec that its rows depend on
	Table Table
	// Tables, in place of Table, are those of a sink that feeds many. TablesMax
	// bounds how many; 0: nothing does.
	Tables    Tables
	TablesMax int
	// Audit, if not nil, looks at each batch's rows before they are published.
	Audit Auditor
}

// Rooms are what the driver drives.
type Rooms struct {
	Source     Source
	Executor   Executor
	Sinks      []Sink // in the order of the spec
	Checkpoint Checkpoint
	Readers    Readers // nil: no source has a registry
	// Letters, if not nil, takes the dead letters outside of the protocol, at least
	// once: what it has is acknowledged when Close returns, before the batch is
	// committed anywhere.
	Letters func(ctx context.Context, attempt string) (Writer, error)
	// Replay, if not nil, makes the stream one that runs dead letters again.
	Replay Replay
	Clock  Clock
	Tasks  Tasks
	// NewID returns a random id that no other call returns.
	NewID func() string
	// Alive says whether a process of this host still runs.
	Alive func(batch.Writer) bool
}

// Options are settings of one pipeline.
type Options struct {
	Name    string
	Stream  string
	Writer  batch.Writer
	Trigger Trigger
	Limits  planner.Limits
	// DelayMax bounds how long the minimums of Limits may hold a batch back.
	DelayMax time.Duration
	// Sources are those of the spec, by name.
	Sources planner.Sources
	// KeepBatches is how many batches back plans are kept.
	KeepBatches int64
	// Takeover ends the wait for another writer.
	Takeover bool
	// Adopt names heads, as sink@snapshot, of which the tag may be taken as an
	// ancestor though the walk between them ends at an expired snapshot.
	Adopt []string
	// DeadLetters is the name under which the executor hands over dead letters:
	// that of the last sink, or of none with Rooms.Letters; "": there are none.
	DeadLetters string
	// MaxFraction is how many of the last records may become dead letters.
	MaxFraction float64
	// Grace is how long a batch may go on after the end was asked for.
	Grace time.Duration
	// StartTimeout is how long a server may be unavailable before the first
	// contact with it.
	StartTimeout time.Duration
}

func (o Options) withDefaults() Options {
	if o.Stream == "" {
		o.Stream = batch.StreamMain
	}
	if o.KeepBatches <= 0 {
		o.KeepBatches = 1000
	}
	if o.Grace <= 0 {
		o.Grace = 20 * time.Second
	}
	if o.StartTimeout <= 0 {
		o.StartTimeout = 30 * time.Second
	}
	return o
}

// Driver carries one pipeline from batch to batch. One goroutine calls it and
// changes its fields. What runs beside that goroutine, ahead of a batch or behind
// it, reads only the rooms, the options and the sinks' Sink, which never change,
// and sweeps and arrived, which guard themselves.
type Driver struct {
	rooms Rooms
	opts  Options
	log   *slog.Logger
	watch Observer

	inc  batch.Incarnation
	last *batch.Plan // the newest log entry that this process made or found
	// ordinary is the newest of them that does not catch up.
	ordinary *batch.Plan
	revised  revisions // of the newest batch that was looked for in a table
	sinks    []*sink   // in the order of the spec

	contacted map[string]bool // servers that answered at least once
	seizing   bool            // Takeover has lost a race already
	owned     bool            // this process has logged a plan
	beaten    bool            // another driver logged the plan that was to be this one's first
	arrived   atomic.Bool     // Kafka has sent rows
	sweeps    sweeper
	behind    []*task  // writes the records of batches that are done
	planned   *listing // of the newest plan; nil when it is told, or was found

	lastOutcome []batch.Outcome
	recent      batch.Fraction // behind the newest plan

	readersAfter time.Time // before this, newer reader schemas are not tried again

	absent planner.Absences
	unread map[batch.TopicPartition]bool // it was said that the spec does not read them

	started time.Time     // when the newest batch began
	waiting time.Time     // since when records wait for the minimums
	checked time.Time     // when pipeline/ was last listed while idle
	until   batch.Offsets // the end of an available-now run
	ended   bool          // the run of the stream is over
}

// sink is what the driver knows of one table: all of it is in the newest plan
// or follows from its outcome.
type sink struct {
	Sink
	before  batch.Ref
	from    batch.Offsets // nil: the table has no stamp
	carried batch.Counts
	lags    bool
	// found is the hash of the stamp that this process saw first in the table.
	found *string

	route *route // of a sink that feeds many tables; nil: it feeds one
	of    *sink  // of one of these tables: the sink, and the table's name
	table string
}

// New returns a driver that has not touched anything yet. watch may be nil.
func New(rooms Rooms, opts Options, log *slog.Logger, watch Observer) *Driver {
	if watch == nil {
		watch = nobody{}
	}
	d := &Driver{rooms: rooms, opts: opts.withDefaults(), log: log, watch: watch, contacted: map[string]bool{}, absent: planner.Absences{}, unread: map[batch.TopicPartition]bool{}}
	d.sweeps.writing = map[string]bool{}
	for _, s := range rooms.Sinks {
		one := &sink{Sink: s}
		if s.Tables != nil {
			one.route = newRoute()
		}
		d.sinks = append(d.sinks, one)
	}
	return d
}

// errDone ends Run without an error: the trigger has ended, or stop was asked.
var errDone = errors.New("done")

// Run drives batches until the trigger ends, stop is cancelled, or a batch
// cannot go on. When stop is cancelled no batch begins any more, and the one
// under way has Options.Grace to finish; then it is abandoned, which costs
// nothing: the next driver runs its plan again.
//
// The error wraps batch.ErrFenced, batch.ErrDataLost, batch.ErrInvalid, or
// batch.ErrUnavailable for a server that was never there.
func (d *Driver) Run(ctx, stop context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	ctx, release := withStop(ctx, stop)
	defer release()
	defer d.rooms.Tasks.After(stop, func() {
		if d.rooms.Clock.Sleep(ctx, d.opts.Grace) == nil {
			cancel(fmt.Errorf("stopped: the batch did not finish within the grace of %s: %w", d.opts.Grace, context.Canceled))
		}
	})()
	err := d.run(ctx)
	for _, t := range d.behind {
		t.wait()
	}
	if d.owns() && !d.ended && !errors.Is(err, batch.ErrFenced) {
		d.release(ctx)
	}
	if errors.Is(err, errDone) || err != nil && stop.Err() != nil && errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// seizeMax bounds the pause before a busy owner's plan is tried again: each try
// is a race that this driver may win.
const seizeMax = time.Second

// run opens the pipeline again where another driver was quicker to log the plan
// that was to be this one's first: of two that start at once, or find a plan free at
// once, one owns it, and the other stands by as if it had come later.
//
// With Options.Takeover it takes over instead, as often as needed: a driver that is
// busy is quicker to log the next batch, as it has prepared it, so from the second
// try on its open plan is revised. Once this driver has logged a plan, whoever
// fences it has taken over in turn.
func (d *Driver) run(ctx context.Context) error {
	pause := newBackoff()
	pause.MaxInterval = seizeMax
	for {
		err := d.drive(ctx)
		if !errors.Is(err, batch.ErrFenced) || d.owns() || !d.opts.Takeover && !d.beaten {
			return err
		}
		d.log.Info("another driver was quicker", "error", err)
		d.watch.Waiting("") // for what the batch that was lost needed
		if err := d.rest(ctx, pause.NextBackOff()); err != nil {
			return err
		}
		d.last, d.ordinary, d.lastOutcome, d.planned = nil, nil, nil, nil
		d.recent = batch.Fraction{}
		d.seizing, d.beaten = d.opts.Takeover, false
	}
}

// owns says whether the newest plan that this driver knows is its own.
func (d *Driver) owns() bool { return d.last != nil && d.last.Writer.ID == d.opts.Writer.ID }

// drive opens the pipeline and carries it from batch to batch.
func (d *Driver) drive(ctx context.Context) error {
	plan, err := d.open(ctx)
	if err != nil {
		return err
	}
	var ready *prepared
	for {
		if plan == nil {
			if plan, ready, err = d.next(ctx); err != nil {
				return err
			}
		}
		ahead, err := d.batch(ctx, plan, ready)
		if err != nil {
			return fmt.Errorf("batch %d: %w", plan.Batch, err)
		}
		plan, ready = nil, nil
		if ahead != nil && d.outdated() {
			d.dropAhead(ctx, ahead, "there are newer reader schemas")
			ahead = nil
		}
		if ahead != nil && stopOf(ctx).Err() == nil {
			if err := d.begin(ctx, ahead.plan, ahead); err != nil {
				return err
			}
			plan, ready = ahead.plan, ahead
		}
	}
}

// begin logs the plan of a batch, which r was made by if not nil.
func (d *Driver) begin(ctx context.Context, p *batch.Plan, r *prepared) error {
	if err := d.bind(ctx, p, r); err != nil {
		return fmt.Errorf("log batch %d: %w", p.Batch, err)
	}
	if stopOf(ctx).Err() != nil {
		return errDone
	}
	return d.append(ctx, p)
}

// append logs a plan. Whoever creates the entry owns the batch.
func (d *Driver) append(ctx context.Context, p *batch.Plan) error {
	err := d.retry(ctx, "the checkpoint", func() error { return d.rooms.Checkpoint.Append(ctx, p) })
	if err != nil {
		d.beaten = !d.owned && errors.Is(err, batch.ErrFenced)
		return fmt.Errorf("log batch %d: %w", p.Batch, err)
	}
	d.owned = true
	d.found(p)
	d.log.Debug("plan logged", "batch", p.Batch, "revision", p.Revision, "entry", p.Entry)
	return nil
}

// found takes p for the newest log entry.
func (d *Driver) found(p *batch.Plan) {
	d.last = p
	if !p.CatchesUp() {
		d.ordinary = p
	}
}

// release lets another driver take over at once. Nothing depends on it.
func (d *Driver) release(ctx context.Context) {
	if err := d.rooms.Checkpoint.Release(context.WithoutCancel(ctx), d.opts.Writer); err != nil {
		d.log.Warn("the pipeline could not be released; another driver will wait before it takes over", "error", err)
	}
}
