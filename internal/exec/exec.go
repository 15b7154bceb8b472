// Package exec runs the SQL of the sinks over what a source emits, one record
// batch at a time, in DuckDB instances that belong to one pipeline alone.
package exec

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"

	"github.com/apache/arrow-go/v18/arrow"

	"github.com/frazil-io/frazil/internal/batch"
	"github.com/frazil-io/frazil/internal/deadletter"
	"github.com/frazil-io/frazil/internal/exec/dimension"
	"github.com/frazil-io/frazil/internal/exec/duckdb"
	"github.com/frazil-io/frazil/internal/exec/stream"
)

// Options describe what a pipeline runs.
type Options struct {
	// Workers is how many record batches are executed at once, each by an
	// instance of its own; 0: one.
	Workers     int
	MemoryBytes int64 // of all instances together; 0: DuckDB's default
	TableBytes  int64 // of all dimension tables together; 0: no limit
	// SpillDir is the beginning of a path: each executor makes a folder of its own
	// behind it, and removes it when it is closed. "": instances do not spill.
	SpillDir string
	Sources  []Source
	Tables   []Table
	Macros   []stream.Macro // in the order of the spec
	Views    []stream.View  // in the order of the spec
	Sinks    []Sink         // in the order of the spec
	// OnReject is told of each row that a sink's SQL failed on and that was
	// skipped; may be nil.
	OnReject func(sink string, r batch.Reject)
	// DeadLetters is the name of the sink that takes what was rejected, of sources
	// that say so; "": there is none. It has no SQL.
	DeadLetters string
}

// Source is a relation whose rows are streamed.
type Source struct {
	Name    string
	Fields  []arrow.Field
	SkipBad bool // on_bad_record: skip, for rows that SQL fails on
	// DeadLetters is on_bad_record: dead_letter: its rows carry
	// batch.PayloadColumns.
	DeadLetters bool
	Expect      []Rule // in the order of the spec
}

// Table is a dimension table: a relation that is pinned to one version for each
// batch.
type Table struct {
	Name      string
	Dimension Dimension
}

// Dimension is where a dimension table comes from.
type Dimension interface {
	// Fields are the table's columns.
	Fields() []arrow.Field
	// Version names the contents to use from now on.
	Version(ctx context.Context) (string, error)
	// Load returns the contents of a version, which the caller releases.
	// batch.ErrInvalid: they are not kept any more.
	Load(ctx context.Context, version string) (arrow.RecordBatch, error)
}

// Sink is a SELECT whose rows go to one table.
type Sink struct {
	Name, SQL string
	Expect    []Rule // in the order of the spec
	// Implied are rules that the spec does not write out. They hold behind the others
	// where they cost nothing but their own evaluation: the SQL gives one row for a
	// record at most. Elsewhere whoever takes the rows has to see to it.
	Implied []Rule
	// Holds says that a plan may hold its rows back: batch.SinkPlan.Held.
	Holds bool
}

// Executor runs a pipeline's SQL. See driver.Executor.
type Executor struct {
	opts    Options
	queries map[string]*stream.Query // by sink
	counts  map[string]counting
	narrow  map[string]bool // sinks with rules whose SQL gives one row at most for one
	// expected are the rules by sink, and by source behind sourcePrefix.
	expected map[string]*expectation
	schemas  map[string]*arrow.Schema
	workers  []*worker
	free     chan *worker
	spill    string // the folder that is removed at the end

	mu      sync.Mutex
	loaded  map[string]arrow.RecordBatch // dimension tables, by name
	version map[string]string
}

// New starts the instances and checks all SQL: its construct, names and types.
// batch.ErrInvalid says what is wrong with it, and where.
func New(ctx context.Context, o Options) (*Executor, error) {
	o.Workers = max(1, o.Workers)
	if o.OnReject == nil {
		o.OnReject = func(string, batch.Reject) {}
	}
	e := &Executor{
		opts: o, queries: map[string]*stream.Query{}, counts: map[string]counting{}, narrow: map[string]bool{}, expected: map[string]*expectation{}, schemas: map[string]*arrow.Schema{}, free: make(chan *worker, o.Workers),
		loaded: map[string]arrow.RecordBatch{}, version: map[string]string{},
	}
	if o.SpillDir != "" {
		var err error
		if e.spill, err = spillDir(o.SpillDir); err != nil {
			return nil, err
		}
	}
	for range o.Workers {
		w, err := e.newWorker(ctx)
		if err != nil {
			e.Close()
			return nil, err
		}
		e.workers = append(e.workers, w)
		e.free <- w
	}
	if err := e.prepare(ctx); err != nil {
		e.Close()
		return nil, err
	}
	return e, nil
}

// prepare analyses each sink's SQL and binds it in every instance.
func (e *Executor) prepare(ctx context.Context) error {
	a, err := e.analyzer(ctx)
	if err != nil {
		return err
	}
	for _, w := range e.workers {
		for k, statement := range a.Macros() {
			if err := w.instance.Exec(ctx, statement); err != nil {
				return fmt.Errorf("%w: macro %s: %w", batch.ErrInvalid, e.opts.Macros[k].Signature, err)
			}
		}
	}
	for _, s := range e.opts.Sources {
		if err := e.expectSource(ctx, a, s); err != nil {
			return err
		}
	}
	for _, s := range e.opts.Sinks {
		if err := e.prepareSink(ctx, a, s); err != nil {
			return err
		}
	}
	for _, w := range e.workers {
		if err := w.instance.Lock(ctx); err != nil {
			return err
		}
	}
	return nil
}

func (e *Executor) analyzer(ctx context.Context) (*stream.Analyzer, error) {
	catalog, err := catalogOf(ctx, e.workers[0].instance)
	if err != nil {
		return nil, err
	}
	names := stream.Names{Macros: e.opts.Macros, Views: e.opts.Views, Columns: map[string]bool{}}
	for _, s := range e.opts.Sources {
		names.Streams = append(names.Streams, s.Name)
		noteColumns(names.Columns, s.Fields)
	}
	for _, t := range e.opts.Tables {
		names.Static = append(names.Static, t.Name)
		noteColumns(names.Columns, t.Dimension.Fields())
	}
	return stream.New(catalog, names)
}

func (e *Executor) prepareSink(ctx context.Context, a *stream.Analyzer, s Sink) error {
	q, err := a.Analyze(s.Name, s.SQL)
	if err != nil {
		return err
	}
	e.queries[s.Name] = q
	if err := e.rebind(s.Name); err != nil {
		return e.placed(ctx, "the sql of sink "+s.Name, "", s.SQL, "", errors.Unwrap(err))
	}
	schema, err := checked(s.Name, e.workers[0].statements[s.Name].Schema())
	if err != nil {
		return err
	}
	e.schemas[s.Name] = schema
	narrow, err := e.checkPlan(ctx, s.Name, q)
	if err != nil {
		return err
	}
	if s.Holds {
		if err := e.holdable(s.Name, q); err != nil {
			return err
		}
	}
	if e.implies(ctx, a, s, q, narrow) {
		s.Expect = slices.Concat(s.Expect, s.Implied)
	}
	switch {
	case len(s.Expect) > 0:
		return e.expectSink(ctx, a, s, q, narrow)
	case s.Holds:
		e.counts[s.Name] = byOrdinal
		return e.rebind(s.Name)
	}
	return e.count(s.Name, q, narrow)
}

func noteColumns(to map[string]bool, fields []arrow.Field) {
	for _, f := range fields {
		to[strings.ToLower(f.Name)] = true
	}
}

func catalogOf(ctx context.Context, i *duckdb.Instance) (stream.Catalog, error) {
	c := stream.Catalog{Aggregates: map[string]bool{}, Volatile: map[string]bool{}, Functions: map[string]bool{}, Macros: map[string][]string{}}
	for condition, to := range map[string]map[string]bool{
		"function_type = 'aggregate'": c.Aggregates, "stability = 'VOLATILE'": c.Volatile, "internal": c.Functions,
	} {
		names, err := i.Text(ctx, "SELECT DISTINCT lower(function_name) FROM duckdb_functions() WHERE "+condition)
		if err != nil {
			return c, fmt.Errorf("ask DuckDB for its functions: %w", err)
		}
		for _, n := range names {
			to[n] = true
		}
	}
	macros, err := i.Text(ctx, "SELECT lower(function_name) || ' ' || macro_definition FROM duckdb_functions() WHERE function_type = 'macro' AND internal ORDER BY ALL")
	if err != nil {
		return c, fmt.Errorf("ask DuckDB for its macros: %w", err)
	}
	for _, m := range macros {
		name, body, _ := strings.Cut(m, " ")
		c.Macros[name] = append(c.Macros[name], body)
	}
	one := func(query, arg string) (string, error) {
		out, err := i.Text(ctx, query, arg)
		if err != nil {
			return "", fmt.Errorf("DuckDB's parser: %w", err)
		}
		return strings.Join(out, ""), nil
	}
	c.Parse = func(sql string) (string, error) { return one("SELECT json_serialize_sql($1::VARCHAR)::VARCHAR", sql) }
	c.Print = func(ast string) (string, error) { return one("SELECT json_deserialize_sql($1::JSON)", ast) }
	return c, nil
}

// Schema returns the columns of a sink's rows.
func (e *Executor) Schema(sink string) *arrow.Schema {
	if sink == e.opts.DeadLetters && sink != "" {
		return deadletter.Schema()
	}
	return e.schemas[sink]
}

// Close frees the instances. Nothing may run any more.
func (e *Executor) Close() {
	for _, w := range e.workers {
		w.close()
	}
	for _, rows := range e.loaded {
		rows.Release()
	}
	if e.spill != "" {
		_ = os.RemoveAll(e.spill) // if it stays, the next process of this name removes it
	}
}

// Pin returns the version of each dimension table that the next plan uses.
func (e *Executor) Pin(ctx context.Context) (map[string]string, error) {
	versions := map[string]string{}
	for _, t := range e.opts.Tables {
		v, err := t.Dimension.Version(ctx)
		if err != nil {
			return nil, fmt.Errorf("table %s: %w", t.Name, err)
		}
		versions[t.Name] = v
	}
	return versions, nil
}

// Settle is of no consequence without state.
func (e *Executor) Settle(context.Context, string, *batch.Stamp) error { return nil }

// Sweep finds nothing to delete without state.
func (e *Executor) Sweep(context.Context, string) error { return nil }

// Execute runs the SQL of the job's sinks over what read emits. See
// driver.Executor.
func (e *Executor) Execute(ctx context.Context, job batch.Job, read func(emit, letters func(arrow.RecordBatch) error) error,
	write func(sink string, rows arrow.RecordBatch) error,
) (map[string]batch.Result, error) {
	if err := e.load(ctx, job.Plan.Versions); err != nil {
		return nil, err
	}
	x := &execution{Executor: e, ctx: ctx, job: job, write: write, results: map[string]batch.Result{}}
	x.choose()
	err := read(x.emit, func(letters arrow.RecordBatch) error {
		if !job.Letters.Source {
			return nil
		}
		return x.letters(letters)
	})
	x.explain()
	return x.results, err
}

// load brings the plan's versions of the dimension tables into memory.
func (e *Executor) load(ctx context.Context, versions map[string]string) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, t := range e.opts.Tables {
		v := versions[t.Name]
		if rows := e.loaded[t.Name]; rows != nil {
			if e.version[t.Name] == v {
				continue
			}
			rows.Release()
			delete(e.loaded, t.Name)
		}
		rows, err := t.Dimension.Load(ctx, v)
		if err != nil {
			return fmt.Errorf("load version %s of table %s: %w", v, t.Name, err)
		}
		e.loaded[t.Name], e.version[t.Name] = rows, v
	}
	return e.checkTables()
}

// checkTables bounds what all dimension tables take together.
func (e *Executor) checkTables() error {
	var bytes int64
	var each []string
	for _, t := range e.opts.Tables {
		n := dimension.Size(e.loaded[t.Name])
		bytes += n
		each = append(each, fmt.Sprintf("%s %d MB", t.Name, n>>20))
	}
	if e.opts.TableBytes > 0 && bytes > e.opts.TableBytes {
		return fmt.Errorf("%w: the dimension tables take %d MB together (%s), the most is %d MB, an eighth of memory; raise memory, or keep fewer columns or rows",
			batch.ErrInvalid, bytes>>20, strings.Join(each, ", "), e.opts.TableBytes>>20)
	}
	return nil
}

// Query returns what a sink's SQL came to.
func (e *Executor) Query(sink string) *stream.Query { return e.queries[sink] }

// ColumnsRead returns the columns of a source or table that a sink's SQL reads,
// in their order: those that DuckDB asks for when it runs over no rows. Nothing
// else may run.
func (e *Executor) ColumnsRead(ctx context.Context, sink, relation string) ([]string, error) {
	w := e.workers[0]
	read := w.sources[relation].Watch()
	if err := w.statements[sink].Run(ctx, discard); err != nil {
		return nil, err
	}
	return read(), nil
}
