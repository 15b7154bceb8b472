package driver

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/apache/arrow-go/v18/arrow"

	"github.com/frazil-io/frazil/internal/batch"
)

// prepared is one execution of a plan: files that can be committed any number
// of times.
type prepared struct {
	plan    *batch.Plan
	attempt string
	sinks   map[string]*result // sinks that it was executed for
	tally   batch.Tally
	letters batch.Letters
	// rejected counts its dead letters; judged says that they were counted, and
	// share what part of the records they are.
	rejected int64
	judged   bool
	share    batch.Fraction
	took     time.Duration
	// predicted is, while it ran ahead, what the batch before was expected to
	// come to.
	predicted map[string]string
	listing   *listing // of work that ran ahead
}

// result is one sink's share.
type result struct {
	batch.Result
	files  Files
	counts batch.Counts
	// stamp is what the commit will carry; nil if the sink commits nothing.
	stamp *batch.Stamp
}

// prepare reads the plan's ranges, runs the SQL of the given sinks and writes
// their files, all under a new attempt. tags are the stamps that the tables carry
// now, or carried when this began; letters whose dead letters there are.
func (d *Driver) prepare(ctx context.Context, p *batch.Plan, sinks []*sink, tags map[string]string, letters batch.Letters) (*prepared, error) {
	begun := d.rooms.Clock.Now()
	r := &prepared{plan: p, attempt: d.rooms.NewID(), sinks: map[string]*result{}, letters: letters}
	if len(sinks) == 0 {
		return r, nil
	}
	d.writes(r.attempt, true)
	defer d.writes(r.attempt, false)
	if err := d.register(ctx, p, r, sinks, tags); err != nil {
		d.orphaned()
		return nil, err
	}
	if err := d.execute(ctx, p, r, sinks); err != nil {
		d.discard(ctx, r.attempt, sinks)
		return nil, err
	}
	r.took = d.rooms.Clock.Now().Sub(begun)
	d.log.Debug("files written", "batch", p.Batch, "attempt", r.attempt, "rows_read", r.tally.Rows)
	return r, nil
}

// tags are the stamps that the sinks' tables carry, as far as the driver knows.
func (d *Driver) tags() map[string]string {
	tags := map[string]string{}
	for _, s := range d.sinks {
		tags[s.Name] = s.before.Hash
	}
	return tags
}

// register notes the attempt before its first file, so that any later process
// can sweep it.
func (d *Driver) register(ctx context.Context, p *batch.Plan, r *prepared, sinks []*sink, tags map[string]string) error {
	waits := map[string][]string{}
	for _, s := range sinks {
		before := p.Sink(s.Name).Before.Hash
		waits[s.Name] = []string{before}
		if tag := tags[s.Name]; tag != before { // it runs ahead of the batch that will put that stamp there
			waits[s.Name] = []string{tag, before}
		}
	}
	err := d.rooms.Checkpoint.Register(ctx, batch.Attempt{Name: r.attempt, Batch: p.Batch, Waits: waits, Writer: d.opts.Writer, Time: d.rooms.Clock.Now()})
	if err != nil {
		return fmt.Errorf("register attempt %s: %w", r.attempt, err)
	}
	d.log.Debug("attempt registered", "batch", p.Batch, "attempt", r.attempt)
	return nil
}

// execute runs the plan for the sinks.
func (d *Driver) execute(ctx context.Context, p *batch.Plan, r *prepared, sinks []*sink) (err error) {
	job := batch.Job{Plan: p, Ranges: p.Ranges, Attempt: r.attempt, State: map[string]string{}, Letters: r.letters}
	writers := map[string]Writer{}
	defer func() {
		if err != nil {
			for _, w := range writers {
				w.Abort()
			}
		}
	}()
	for _, s := range sinks {
		job.Sinks = append(job.Sinks, s.Name)
		job.State[s.Name] = p.Sink(s.Name).Before.State
		w, err := s.Table.Writer(ctx, r.attempt)
		if err != nil {
			return fmt.Errorf("open files for sink %s: %w", s.Name, err)
		}
		writers[s.Name] = w
	}
	box, err := d.letterBox(ctx, &job, writers)
	if err != nil {
		return err
	}
	var tally batch.Tally
	results, err := d.rooms.Executor.Execute(ctx, job,
		func(emit, letters func(arrow.RecordBatch) error) (err error) {
			tally, err = d.rooms.Source.Read(ctx, job.Ranges, func(rows arrow.RecordBatch) error {
				d.arrived.Store(true)
				return emit(rows)
			}, letters)
			return err
		},
		func(sink string, rows arrow.RecordBatch) error { return writers[sink].Write(rows) })
	if err != nil {
		return err
	}
	if err := balance(job.Ranges, tally); err != nil {
		return err
	}
	r.tally = r.tally.Plus(tally)
	if err := d.judgeLetters(ctx, p, r, sinks, results, box); err != nil {
		return err
	}
	for _, s := range sinks {
		res := &result{Result: results[s.Name]}
		if res.files, err = writers[s.Name].Close(ctx); err != nil {
			return fmt.Errorf("finish files of sink %s: %w", s.Name, err)
		}
		if err := res.check(s.Name, tally); err != nil {
			return err
		}
		res.counts = batch.Counts{Tally: tally, Inputs: res.Inputs, Written: res.files.Rows()}
		r.sinks[s.Name] = res
	}
	return nil
}

// errMiscount is a hand-over whose two sides counted differently: a bug, and
// never a reason to commit.
var errMiscount = errors.New("records were miscounted; nothing was committed; please report this")

// balance checks the source's side: every offset of the ranges is in one term.
func balance(ranges []batch.Range, t batch.Tally) error {
	var offsets, lost int64
	for _, r := range ranges {
		offsets += r.Len()
		lost += r.Lost
	}
	switch {
	case t.Offsets != offsets || t.Lost != lost, !t.Balanced():
		return fmt.Errorf("%w: the plan has %d offsets, %d of them lost; the source counted %+v", errMiscount, offsets, lost, t)
	}
	return nil
}

// check compares what the source emitted with what the SQL was given, and what
// came out of the SQL with what the files hold.
func (r *result) check(sink string, t batch.Tally) error {
	if !r.Balanced() {
		return fmt.Errorf("%w: sink %s: what became of the rows that its SQL was given does not add up: %+v", errMiscount, sink, r.Inputs)
	}
	if r.Scanned != t.Rows {
		return fmt.Errorf("%w: sink %s: the source emitted %d rows, its SQL was given %d", errMiscount, sink, t.Rows, r.Scanned)
	}
	if r.Rows != r.files.Rows() {
		return fmt.Errorf("%w: sink %s: its SQL returned %d rows, its files hold %d", errMiscount, sink, r.Rows, r.files.Rows())
	}
	return nil
}

// stamp decides for each sink what its commit will carry, or that it commits
// nothing: it has no rows, no change of state, no gap, nothing is due, the batch was
// not revised and no commit of dead letters follows: those are as the other tables
// have the batch, so it must be known what these have. p is the plan as logged.
func (r *prepared) stamp(d *Driver, p *batch.Plan) {
	for name, res := range r.sinks {
		sp := p.Sink(name)
		if res.files.Rows() == 0 && res.State == sp.Before.State && !sp.Due && !p.Lossy() && !r.lettersFollow(d, p) {
			continue
		}
		counts := sp.Carried.Plus(res.counts)
		first := p.Batch
		if sp.Before.Hash != "" {
			first = sp.Before.Last + 1
		}
		res.stamp = &batch.Stamp{
			UUID: d.inc.UUID, Name: d.inc.Name, Incarnation: d.inc.Number, IncarnationID: d.inc.ID, Stream: d.opts.Stream,
			Plan: p.Hash(), First: first, Last: p.Batch, Start: sp.From, End: p.End(), Time: p.Time,
			State: res.State, Attempt: r.attempt, Counts: counts, Total: sp.Before.Total.Plus(counts), Previous: sp.Before.Hash,
		}
	}
}
