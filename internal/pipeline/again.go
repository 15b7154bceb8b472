package pipeline

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/google/uuid"

	"github.com/frazil-io/frazil/internal/batch"
	"github.com/frazil-io/frazil/internal/config"
	"github.com/frazil-io/frazil/internal/deadletter"
	"github.com/frazil-io/frazil/internal/driver"
	"github.com/frazil-io/frazil/internal/planner"
	"github.com/frazil-io/frazil/internal/sink"
	"github.com/frazil-io/frazil/internal/source"
)

// again runs dead letters again: driver.Executor around the pipeline's own, for
// letters as their source reads them.
type again struct {
	execRoom
	from *waiting

	mu     sync.Mutex
	kinds  map[batch.ID]*deadletter.Kinds // what was rejected again, by the newest execution of each batch
	report Again
}

// Again is what became of dead letters that were run again.
type Again struct {
	// Letters were run, in Batches batches.
	Letters int64 `json:"letters"`
	Batches int64 `json:"batches"`
	// Rows were written, by sink.
	Rows map[string]int64 `json:"rows"`
	// Again were rejected again, and wait; Reasons says why.
	Again   int64    `json:"rejected_again"`
	Reasons []string `json:"reasons"`
	// Dropped are records that the spec skips now, or drops by a rule.
	Dropped int64 `json:"dropped"`
	Dry     bool  `json:"dry_run,omitempty"`
}

// reasonsShown bounds the reasons of a report.
const reasonsShown = 20

// checkReplay says why the letters of this spec cannot be run again.
func (p *Pipeline) checkReplay(ctx context.Context) error {
	switch d := p.spec.DeadLetter; {
	case d == nil:
		return fmt.Errorf("%w: the spec has no dead_letter: there are no letters to run again", batch.ErrInvalid)
	case d.Kafka != nil:
		return fmt.Errorf("%w: letters in a topic cannot be run again exactly once: a crash repeats some of them, and nothing says which ones. "+
			"Read topic %s with a pipeline of its own, and tell letters apart by their headers frazil.topic, frazil.partition, frazil.offset and frazil.sink; or keep letters in a table (dead_letter.iceberg)", batch.ErrInvalid, d.Kafka.Topic)
	}
	if err := p.HasLetters(ctx); err != nil {
		return err
	}
	return p.oneColumn(ctx)
}

// checkpointName is the first part of all keys of a stream in the checkpoint.
func (p *Pipeline) checkpointName(stream string) string {
	if stream == "" || stream == batch.StreamMain {
		return p.spec.Name
	}
	return p.spec.Name + "." + stream
}

// ReplayLetters runs the dead letters that wait through the spec, in a stream of its
// own beside the pipeline's driver, until none waits any more or stop is cancelled.
// It needs Options.Stream.
func (p *Pipeline) ReplayLetters(ctx, stop context.Context) (*Again, error) {
	if err := p.checkReplay(ctx); err != nil {
		return nil, err
	}
	cp, err := p.Checkpoint(ctx)
	if err != nil {
		return nil, err
	}
	tables := map[string]*sink.Table{}
	for _, name := range p.spec.Sinks.Names {
		if p.Routes(name) {
			if _, err := patient(stop, func() (*sink.Routed, error) { return p.Routed(ctx, name) }); err != nil {
				return nil, err
			}
			continue
		}
		if tables[name], err = p.patiently(ctx, stop, name); err != nil {
			return nil, err
		}
	}
	if len(p.current()) > 0 {
		p.readers = newReaders(p, driver.WallClock{})
	}
	x := &again{execRoom: execRoom{p}, from: p.newWaiting(), kinds: map[batch.ID]*deadletter.Kinds{}, report: Again{Rows: map[string]int64{}}}
	rooms, opts, err := p.wire(cp, tables, startTimeout)
	if err != nil {
		return nil, err
	}
	rooms.Source, rooms.Executor, rooms.Replay = x.from, x, x.from
	opts.Stream, opts.Trigger, opts.MaxFraction = p.opts.Stream, driver.Trigger{AvailableNow: true}, 1
	opts.Limits, opts.DelayMax = planner.Limits{BytesMax: opts.Limits.BytesMax}, 0
	if opts.Limits.BytesMax == 0 {
		opts.Limits.BytesMax = int64(p.spec.Memory)
	}
	opts.Sources = planner.Sources{config.DeadLetters: {Topics: []string{batch.StreamMain, batch.StreamReplay}}}
	if p.opts.Rooms != nil {
		rooms = p.opts.Rooms(rooms)
	}
	err = x.run(ctx, stop, rooms, opts)
	return x.end(), err
}

// fencesMax is how often another replay may go on with what this one had begun before
// this one gets a batch of its own. It takes some seconds each time.
const fencesMax = 100

// run drives batches until no letter waits. A replay that another one overtakes, as it
// seemed to be gone or was told to, stands by for that one like one that comes later: it
// has nothing that the other one lacks, and where the other one ends it goes on.
func (x *again) run(ctx, stop context.Context, rooms driver.Rooms, opts driver.Options) error {
	log, had := x.from.p.log, int64(0)
	for fences := 0; ; fences++ {
		err := driver.New(rooms, opts, log, x).Run(ctx, stop)
		if now := x.batches(); now > had {
			had, fences = now, 0
		}
		if !errors.Is(err, batch.ErrFenced) || fences >= fencesMax || stop.Err() != nil {
			return err
		}
		log.Info("another replay of these letters goes on in place of this one, which stands by", "error", err)
		opts.Takeover = false
		select {
		case <-stop.Done():
			return nil // nothing is under way
		case <-time.After(retryEvery):
		}
	}
}

// batches is how many this replay has run.
func (x *again) batches() int64 {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.report.Batches
}

// Execute implements driver.Executor.
func (x *again) Execute(ctx context.Context, job batch.Job, read func(emit, letters func(arrow.RecordBatch) error) error,
	write func(sink string, rows arrow.RecordBatch) error,
) (map[string]batch.Result, error) {
	plan := job.Plan
	job, err := x.from.job(ctx, job)
	if err != nil {
		return nil, err
	}
	kinds := &deadletter.Kinds{}
	results, err := x.execRoom.Execute(ctx, job, read, func(sink string, rows arrow.RecordBatch) error {
		if sink == config.DeadLetters {
			kinds.Add(rows)
		}
		return write(sink, rows)
	})
	if err != nil || !slices.Contains(job.Sinks, config.DeadLetters) {
		return results, err
	}
	x.mu.Lock()
	x.kinds[plan.Batch] = kinds
	x.mu.Unlock()
	res := results[config.DeadLetters]
	if res.Marks, err = x.mark(plan, write); err != nil {
		return nil, err
	}
	results[config.DeadLetters] = res
	return results, nil
}

// mark writes which letters the batch has run.
func (x *again) mark(plan *batch.Plan, write func(sink string, rows arrow.RecordBatch) error) (int64, error) {
	var marks []deadletter.Mark
	for _, r := range plan.Ranges {
		if r.Start < r.End {
			marks = append(marks, deadletter.Mark{Stream: r.Topic, From: r.Start, To: r.End})
		}
	}
	if len(marks) == 0 {
		return 0, nil
	}
	rows := deadletter.Marks(marks, deadletter.Origin{Pipeline: plan.Incarnation.Name, Stream: batch.StreamReplay, Batch: plan.Batch, Time: plan.Time})
	defer rows.Release()
	return rows.NumRows(), write(config.DeadLetters, rows)
}

// Batch implements driver.Observer.
func (x *again) Batch(g driver.Progress) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.report.Batches++
	for _, o := range g.Outcome {
		if o.Sink == config.DeadLetters {
			x.report.Letters += o.Counts.Data
			x.report.Again += o.Counts.Letters
			x.report.Dropped += o.Counts.Skipped + o.Counts.Tombstones
			continue
		}
		x.report.Rows[o.Sink] += o.Counts.Written
		x.report.Dropped += o.Counts.Dropped
	}
	if x.from.p.opts.Observer != nil {
		x.from.p.opts.Observer.Batch(g)
	}
}

// Listed implements driver.Observer.
func (*again) Listed(time.Time, int64) {}

// Waiting implements driver.Observer.
func (x *again) Waiting(reason string) {
	if x.from.p.opts.Observer != nil {
		x.from.p.opts.Observer.Waiting(reason)
	}
}

// Standby implements driver.Observer.
func (x *again) Standby(reason string) {
	if x.from.p.opts.Observer != nil {
		x.from.p.opts.Observer.Standby(reason)
	}
}

// end is the report.
func (x *again) end() *Again {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.report.Reasons = []string{}
	for _, id := range slices.Sorted(maps.Keys(x.kinds)) {
		x.report.Reasons = append(x.report.Reasons, x.kinds[id].Commonest(reasonsShown)...)
	}
	x.report.Reasons = x.report.Reasons[:min(reasonsShown, len(x.report.Reasons))]
	return &x.report
}

// TryLetters says what would become of the letters that wait, and commits nothing.
func (p *Pipeline) TryLetters(ctx context.Context) (*Again, error) {
	if err := p.checkReplay(ctx); err != nil {
		return nil, err
	}
	if _, err := p.Source(); err != nil {
		return nil, err
	}
	x := &again{execRoom: execRoom{p}, from: p.newWaiting(), kinds: map[batch.ID]*deadletter.Kinds{}, report: Again{Rows: map[string]int64{}, Dry: true}}
	from, _, id, err := x.from.Done(ctx)
	if err != nil {
		return nil, err
	}
	available, err := x.from.List(ctx, nil)
	if err != nil {
		return nil, err
	}
	plan := &batch.Plan{Incarnation: batch.Incarnation{UUID: id, Name: p.spec.Name}, Time: time.Now()}
	for _, a := range available {
		plan.Ranges = append(plan.Ranges, batch.Range{TopicPartition: a.TopicPartition, Start: from[a.TopicPartition], End: a.End, Epoch: -1})
	}
	batch.SortRanges(plan.Ranges)
	if plan.Versions, err = p.executor().Pin(ctx); err != nil {
		return nil, err
	}
	if err := x.from.Seal(ctx, plan.Ranges); err != nil {
		return nil, err
	}
	var tally batch.Tally
	job := batch.Job{Plan: plan, Ranges: plan.Ranges, Sinks: p.spec.Sinks.Names, Attempt: uuid.NewString(), Stream: batch.StreamReplay, Letters: batch.Letters{Source: true, Sinks: p.spec.Queries()}}
	results, err := x.Execute(ctx, job, func(emit, letters func(arrow.RecordBatch) error) (err error) {
		tally, err = x.from.Read(ctx, plan.Ranges, emit, letters)
		return err
	}, func(string, arrow.RecordBatch) error { return nil })
	if err != nil {
		return nil, err
	}
	x.report.Letters, x.report.Dropped = tally.Data, tally.Skipped+tally.Tombstones
	for name, res := range results {
		if name == config.DeadLetters {
			x.report.Again = res.Letters
			continue
		}
		x.report.Rows[name] = res.Rows
		x.report.Dropped += res.Dropped
	}
	return x.end(), nil
}

// sourceNow is the source as it is read with now.
func (p *Pipeline) sourceNow() *source.Source { return sourceRoom{p}.now() }
