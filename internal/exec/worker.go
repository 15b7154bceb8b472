package exec

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"

	"github.com/frazil-io/frazil/internal/batch"
	"github.com/frazil-io/frazil/internal/deadletter"
	"github.com/frazil-io/frazil/internal/exec/duckdb"
	"github.com/frazil-io/frazil/internal/exec/stream"
	"github.com/frazil-io/frazil/internal/glue"
)

// worker is one instance with the statements of all sinks.
type worker struct {
	instance   *duckdb.Instance
	sources    map[string]*duckdb.Source // and dimension tables
	empty      map[string]arrow.RecordBatch
	statements map[string]*duckdb.Statement // by sink
	bound      map[string]time.Time         // the plan's time that a statement was bound with
	tables     map[string]string            // versions of the dimension tables that are set
}

func (e *Executor) newWorker(ctx context.Context) (*worker, error) {
	o := duckdb.Options{MemoryBytes: e.opts.MemoryBytes / int64(e.opts.Workers)}
	if e.spill != "" {
		o.SpillDir = filepath.Join(e.spill, strconv.Itoa(len(e.workers)))
	}
	i, err := duckdb.Open(ctx, o)
	if err != nil {
		return nil, err
	}
	w := &worker{
		instance: i, sources: map[string]*duckdb.Source{}, empty: map[string]arrow.RecordBatch{}, statements: map[string]*duckdb.Statement{},
		bound: map[string]time.Time{}, tables: map[string]string{},
	}
	for _, s := range e.opts.Sources {
		err = errors.Join(err, w.add(s.Name, s.Fields, duckdb.Stream))
		if err == nil {
			i.Number(w.sources[s.Name], stream.Numbered+s.Name, stream.Ordinal)
		}
	}
	for _, t := range e.opts.Tables {
		err = errors.Join(err, w.add(t.Name, t.Dimension.Fields(), duckdb.Table))
	}
	if err != nil {
		w.close()
		return nil, err
	}
	return w, nil
}

func (w *worker) add(name string, fields []arrow.Field, kind duckdb.Kind) error {
	s, err := w.instance.AddSource(name, fields, kind)
	if err != nil {
		return fmt.Errorf("%w: %w", batch.ErrInvalid, err)
	}
	b := array.NewRecordBuilder(memory.DefaultAllocator, arrow.NewSchema(fields, nil))
	defer b.Release()
	w.sources[name], w.empty[name] = s, b.NewRecordBatch()
	s.Set(w.empty[name])
	return nil
}

func (w *worker) close() {
	for _, s := range w.statements {
		s.Close()
	}
	w.instance.Close()
	for _, rows := range w.empty {
		rows.Release()
	}
}

// bind prepares the statement of a sink, or of a source's rules. One that is timed,
// because it uses the plan's time, is bound again when that changes.
func (w *worker) bind(name, sql string, timed bool, at time.Time) error {
	if s := w.statements[name]; s != nil {
		if !timed || w.bound[name].Equal(at) {
			return nil
		}
		s.Close()
		delete(w.statements, name)
	}
	s, err := w.instance.Prepare(atTime(sql, at))
	if err != nil {
		return err
	}
	w.statements[name], w.bound[name] = s, at
	return nil
}

// atTime is the SQL of a query at the plan's time.
func atTime(sql string, at time.Time) string {
	return strings.ReplaceAll(sql, stream.BatchTime, "TIMESTAMPTZ '"+at.UTC().Format("2006-01-02 15:04:05.000000")+"+00'")
}

// execution is one call of Execute.
type execution struct {
	*Executor
	ctx   context.Context //nolint:containedctx // of one call; emit has none
	job   batch.Job
	write func(sink string, rows arrow.RecordBatch) error
	sinks []string // whose SQL runs

	mu      sync.Mutex
	results map[string]batch.Result
	kinds   deadletter.Kinds
}

// emit runs the sinks' SQL over one record batch on a free worker.
func (x *execution) emit(rows arrow.RecordBatch) error {
	var w *worker
	select {
	case w = <-x.free:
	case <-x.ctx.Done():
		return context.Cause(x.ctx)
	}
	defer func() { x.free <- w }()
	first := rangesOf(rows).Value(0)
	source := x.job.Ranges[first].Source
	x.setTables(w)
	failed := rejected{}
	kept, gone, err := x.sift(w, source, rows, failed)
	if err != nil {
		return err
	}
	defer kept.Release()
	for _, sink := range x.sinks {
		from := source
		if !x.isFor(first, sink) {
			from = ""
		}
		if err := x.run(w, sink, from, kept, gone, failed); err != nil {
			return err
		}
	}
	return x.failed(rows, gone, failed)
}

// isFor says whether the rows of a range are for a sink.
func (x *execution) isFor(rg int32, sink string) bool {
	return x.job.Targets == nil || slices.Contains(x.job.Targets[rg], sink)
}

func rangesOf(rows arrow.RecordBatch) *array.Int32 {
	return rows.Column(int(rows.NumCols()) - 2).(*array.Int32)
}

func offsetsOf(rows arrow.RecordBatch) *array.Int64 {
	return rows.Column(int(rows.NumCols()) - 1).(*array.Int64)
}

// setTables gives the worker the plan's versions of the dimension tables.
func (x *execution) setTables(w *worker) {
	for _, t := range x.opts.Tables {
		if v := x.job.Plan.Versions[t.Name]; w.tables[t.Name] != v || v == "" {
			w.sources[t.Name].Set(x.loaded[t.Name])
			w.tables[t.Name] = v
		}
	}
}

// run feeds one record batch to one sink; without a source it is not for it. gone is what became of rows that the rules
// of the source took out of it.
func (x *execution) run(w *worker, sink, source string, rows arrow.RecordBatch, gone batch.Inputs, failed rejected) error {
	f := &feed{execution: x, w: w, sink: sink, source: source, all: failed}
	if sp := x.job.Plan.Sink(sink); sp != nil {
		f.withheld = sp.Held
	}
	f.inputs.Scanned = rows.NumRows()
	q := x.queries[sink]
	switch {
	case rows.NumRows() == 0:
	case !slices.Contains(q.Streams, source):
		f.inputs.Unread = rows.NumRows()
	default:
		sql, timed := x.text(sink)
		if err := w.bind(sink, sql, timed, x.job.Plan.Time); err != nil {
			return fmt.Errorf("the sql of sink %s: %w", sink, err)
		}
		if err := f.query(rows, len(q.Static) > 0); err != nil {
			return err
		}
	}
	if err := f.post(); err != nil {
		return err
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	res := x.results[sink]
	res.Inputs = res.Inputs.Plus(gone).Plus(f.inputs)
	res.Rows += f.written
	x.results[sink] = res
	return nil
}

// feed is one record batch on its way through the SQL of one sink.
type feed struct {
	*execution
	w            *worker
	sink, source string
	written      int64
	inputs       batch.Inputs
	all          rejected // of all sinks
	tray         *deadletter.Builder

	// Of the piece that runs.
	out  int64
	left []uint64 // a bit for each row of it that left output
	gone int64    // rows of it that fail a rule
	held *held    // of a sink with rules

	withheld *batch.Held // why no row is written
}

// deliver hands rows of the SQL to the sink.
func (f *feed) deliver(rows arrow.RecordBatch) error {
	defer rows.Release()
	if rows.NumRows() == 0 {
		return nil
	}
	if err := f.mark(rows); err != nil {
		return err
	}
	return f.hand(rows)
}

// hand gives the sink rows that it wants.
func (f *feed) hand(rows arrow.RecordBatch) error {
	if rows.NumRows() == 0 || f.withheld != nil || !f.wanted() {
		return nil
	}
	f.written += rows.NumRows()
	t := typed(rows, f.schemas[f.sink])
	defer t.Release()
	return f.write(f.sink, t)
}

// query runs the sink's statement over rows. Where a row makes it fail, which is
// known before any row of the result is delivered, the rows are halved until
// that row stands alone. suspect: it may not be a row's fault.
func (f *feed) query(rows arrow.RecordBatch, suspect bool) error {
	f.begin(rows)
	deliver := f.deliver
	if f.expected[f.sink] != nil {
		f.held = &held{fails: failures{}}
		defer f.held.release()
		deliver = f.hold
	}
	src := f.w.sources[f.source]
	src.Set(rows)
	err := f.w.statements[f.sink].Run(f.ctx, deliver)
	src.Set(f.w.empty[f.source])
	if err == nil {
		return f.settle(rows)
	}
	memoryShort := duckdb.IsMemoryError(err)
	if !memoryShort && !duckdb.IsRowError(err) {
		if context.Cause(f.ctx) != nil {
			return context.Cause(f.ctx)
		}
		return ownFailure(f.sink, err)
	}
	if suspect && !memoryShort {
		if err := f.blameless(f.w, f.sink, f.source, rows); err != nil {
			return err
		}
	}
	if rows.NumRows() == 1 {
		return f.reject(rows, memoryShort, err)
	}
	half := rows.NumRows() / 2
	for _, part := range [][2]int64{{0, half}, {half, rows.NumRows()}} {
		piece, err := glue.Copy(rows, part[0], part[1])
		if err != nil {
			return err
		}
		err = f.query(piece, false)
		piece.Release()
		if err != nil {
			return err
		}
	}
	return nil
}

// ownFailure is an error that is no row's fault: DuckDB's, or the sink's own, which
// says itself what to do.
func ownFailure(sink string, err error) error {
	var own *duckdb.Error
	if errors.As(err, &own) {
		return fmt.Errorf("sink %s: DuckDB failed: %w", sink, err)
	}
	return err
}

// spread is how many records are tried before the dimension tables are blamed.
const spread = 64

// blameless returns an error if a sink's SQL fails because of its dimension
// tables: without any record, too, or on each of many that lie all over a piece.
// To skip records would lose them all.
func (x *execution) blameless(w *worker, sink, source string, rows arrow.RecordBatch) error {
	err := x.fails(w, sink, source, w.empty[source])
	if err == nil && rows.NumRows() >= spread {
		for k := range int64(spread) {
			at := k * rows.NumRows() / spread
			one, failed := glue.Copy(rows, at, at+1)
			if failed != nil {
				return failed
			}
			err = x.fails(w, sink, source, one)
			one.Release()
			if err == nil {
				return nil
			}
		}
	}
	if err == nil || context.Cause(x.ctx) != nil {
		return context.Cause(x.ctx)
	}
	return fmt.Errorf("%w: sink %s: its SQL fails whatever the record is, so a dimension table has what it cannot take: %w", batch.ErrInvalid, sink, err)
}

// fails runs a sink's statement over rows for its error alone.
func (x *execution) fails(w *worker, sink, source string, rows arrow.RecordBatch) error {
	src := w.sources[source]
	src.Set(rows)
	defer src.Set(w.empty[source])
	return w.statements[sink].Run(x.ctx, discard)
}

func discard(rows arrow.RecordBatch) error {
	rows.Release()
	return nil
}

// reject handles the one row that SQL fails on.
func (f *feed) reject(rows arrow.RecordBatch, memoryShort bool, cause error) error {
	r := f.job.Ranges[rangesOf(rows).Value(0)]
	offset := offsetsOf(rows).Value(0)
	if memoryShort {
		return fmt.Errorf("%w: %s: the record at offset %d of %s needs more memory than there is; raise memory, or set max_record_bytes of its source below its size: %w", batch.ErrInvalid, f.whose(), offset, r.TopicPartition, cause)
	}
	i := slices.IndexFunc(f.opts.Sources, func(s Source) bool { return s.Name == f.source })
	one := batch.Reject{TopicPartition: r.TopicPartition, Offset: offset, Code: batch.CodeCast, Reason: cause.Error()}
	switch s := f.opts.Sources[i]; {
	case s.DeadLetters:
		if err := f.letter(rows, one); err != nil {
			return err
		}
	case s.SkipBad:
		f.opts.OnReject(f.sink, one)
	default:
		return fmt.Errorf("%w: %s: its SQL fails on the record at offset %d of %s: %w. Use TRY_CAST or a filter in the SQL, or set on_bad_record: skip on source %s",
			batch.ErrInvalid, f.whose(), offset, r.TopicPartition, cause, f.source)
	}
	f.inputs.Rejected++
	f.inputs.RejectedBy.Add(one.Code)
	return nil
}
