package driver

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"
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
	routes   map[string]*share // of sinks that feed many tables
	took     time.Duration
	// predicted is, while it ran ahead, what the batch before was expected to
	// come to.
	predicted map[string]string
	listing   *listing  // of work that ran ahead
	begun     time.Time // of what was executed before its plan was logged

	registered bool
	mu         sync.Mutex
	tables     []*sink             // in which it may have files
	stamps     map[string][]string // batch.Attempt.Waits
}

// result is one sink's share.
type result struct {
	batch.Result
	files  Files
	counts batch.Counts
	// stamp is what the commit will carry; nil if the sink commits nothing.
	stamp *batch.Stamp
	// staged says that an earlier process made it, and staged it with its stamp.
	staged bool
}

// prepare reads the plan's ranges, runs the SQL of the given sinks and writes
// their files, all under a new attempt. tags are the stamps that the tables carry
// now, or carried when this began, and those that they will carry where the work runs
// ahead; letters whose dead letters there are.
func (d *Driver) prepare(ctx context.Context, p *batch.Plan, sinks []*sink, tags basis, letters batch.Letters) (*prepared, error) {
	begun := d.rooms.Clock.Now()
	r := &prepared{plan: p, attempt: d.rooms.NewID(), sinks: map[string]*result{}, letters: letters, routes: map[string]*share{}, stamps: map[string][]string{}}
	if len(sinks) == 0 {
		return r, nil
	}
	d.writes(r.attempt, true)
	defer d.writes(r.attempt, false)
	r.registered = true
	for _, s := range sinks {
		if s.whole().route == nil {
			r.waits(s, tags.tag(s.Name), p.Sink(s.Name).Before.Hash)
		}
	}
	if err := d.register(ctx, p, r); err != nil {
		d.orphaned()
		return nil, err
	}
	if err := d.execute(ctx, p, r, sinks, tags); err != nil {
		d.discard(ctx, r)
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
		if s.route == nil {
			tags[s.Name] = s.before.Hash
			continue
		}
		for table, ref := range s.route.stamps {
			tags[batch.RouteName(s.Name, table)] = ref.Hash
		}
	}
	return tags
}

// waits notes that the attempt may have files in a table, and on which stamps its
// commit waits there.
func (r *prepared) waits(s *sink, tag, before string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.tables = append(r.tables, s)
	r.stamps[s.Name] = []string{before}
	if tag != before { // it runs ahead of the batch that will put that stamp there
		r.stamps[s.Name] = []string{tag, before}
	}
}

// register notes the attempt before its first file in a table, so that any later
// process can sweep it.
func (d *Driver) register(ctx context.Context, p *batch.Plan, r *prepared) error {
	r.mu.Lock()
	waits := maps.Clone(r.stamps)
	r.mu.Unlock()
	err := d.rooms.Checkpoint.Register(ctx, batch.Attempt{Name: r.attempt, Batch: p.Batch, Waits: waits, Writer: d.opts.Writer, Time: d.rooms.Clock.Now()})
	if err != nil {
		return fmt.Errorf("register attempt %s: %w", r.attempt, err)
	}
	d.log.Debug("attempt registered", "batch", p.Batch, "attempt", r.attempt)
	return nil
}

// execute runs the plan for the sinks: as the spec names them, or, of those that
// feed many tables, the tables that lack it.
func (d *Driver) execute(ctx context.Context, p *batch.Plan, r *prepared, tables []*sink, b basis) (err error) {
	job := batch.Job{Plan: p, Ranges: p.Ranges, Attempt: r.attempt, Stream: d.opts.Stream, State: map[string]string{}, Letters: r.letters}
	writers := map[string]rowWriter{}
	defer func() {
		if err != nil {
			for _, w := range writers {
				w.Abort()
			}
		}
	}()
	sinks, lacking := wholes(tables)
	for _, s := range sinks {
		job.Sinks = append(job.Sinks, s.Name)
		job.State[s.Name] = p.Sink(s.Name).Before.State
		var w rowWriter
		if s.route == nil {
			w, err = s.Table.Writer(ctx, r.attempt)
		} else {
			w, err = s.Tables.Writer(ctx, r.attempt, d.opener(ctx, p, r, s, lacking[s], b))
		}
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
	if err := d.judgeLetters(ctx, p, r, tables, results, box); err != nil {
		return err
	}
	for _, s := range sinks {
		one := batch.Counts{Tally: tally, Inputs: results[s.Name].Inputs}
		if err := r.close(ctx, s, results[s.Name], one, writers[s.Name]); err != nil {
			return err
		}
	}
	return nil
}

// rowWriter is a Writer or a RoutedWriter.
type rowWriter interface {
	Write(rows arrow.RecordBatch) error
	Abort()
}

// close finishes the files of a sink. counts are without what was written.
func (r *prepared) close(ctx context.Context, s *sink, out batch.Result, counts batch.Counts, w rowWriter) (err error) {
	res := &result{Result: out, counts: counts}
	if w, many := w.(RoutedWriter); many {
		return r.closeAll(ctx, s, res, w)
	}
	if res.files, err = w.(Writer).Close(ctx); err != nil {
		return fmt.Errorf("finish files of sink %s: %w", s.Name, err)
	}
	if err := res.check(s.Name, counts.Tally, res.files.Rows()); err != nil {
		return err
	}
	res.counts.Written = res.files.Rows()
	r.sinks[s.Name] = res
	return nil
}

// rows is how many rows its files have.
func (r *result) rows() int64 {
	if r.files == nil {
		return 0
	}
	return r.files.Rows()
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
func (r *result) check(sink string, t batch.Tally, written int64) error {
	if !r.Balanced() {
		return fmt.Errorf("%w: sink %s: what became of the rows that its SQL was given does not add up: %+v", errMiscount, sink, r.Inputs)
	}
	if r.Scanned != t.Rows {
		return fmt.Errorf("%w: sink %s: the source emitted %d rows, its SQL was given %d", errMiscount, sink, t.Rows, r.Scanned)
	}
	if r.Rows+r.Marks != written {
		return fmt.Errorf("%w: sink %s: its SQL returned %d rows, its files hold %d", errMiscount, sink, r.Rows+r.Marks, written)
	}
	return nil
}

// stamp decides for each sink what its commit will carry, or that it commits
// nothing: it has no rows, no change of state, no gap, nothing is due, the batch was
// not revised and no commit of dead letters follows: those are as the other tables
// have the batch, so it must be known what these have. p is the plan as logged.
func (r *prepared) stamp(d *Driver, p *batch.Plan) {
	plan, shared := p.Hash(), map[string]*batch.Route{}
	for i := range p.Sinks {
		if sp := &p.Sinks[i]; sp.Route != nil {
			shared[sp.Name] = sp.Route.Stamp(sp)
		}
	}
	for name, res := range r.sinks {
		sp := p.Sink(name)
		if res.staged {
			continue
		}
		if res.rows() == 0 && res.State == sp.Before.State && !sp.Due && !p.Lossy() && !r.lettersFollow(d, p) {
			continue
		}
		counts := sp.Carried.Plus(res.counts)
		first := p.Batch
		var route *batch.Route
		if sink, table := batch.SplitRoute(name); table != "" {
			first, route = 0, shared[sink]
			counts = sp.Carried.Plus(route.Counts)
			counts.Written = res.counts.Written
		}
		if sp.Before.Hash != "" {
			first = sp.Before.Last + 1
		}
		res.stamp = &batch.Stamp{
			UUID: d.inc.UUID, Name: d.inc.Name, Incarnation: d.inc.Number, IncarnationID: d.inc.ID, Stream: d.opts.Stream,
			Plan: plan, First: first, Last: p.Batch, Start: sp.From, End: p.End(), Time: p.Time,
			State: res.State, Attempt: r.attempt, Counts: counts, Total: sp.Before.Total.Plus(counts), Previous: sp.Before.Hash, Route: route,
		}
	}
}
