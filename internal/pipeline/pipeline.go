// Package pipeline turns a spec into rooms and a driver: it alone knows their
// concrete types.
package pipeline

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"sync"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/google/uuid"

	"github.com/frazil-io/frazil/internal/batch"
	"github.com/frazil-io/frazil/internal/checkpoint"
	"github.com/frazil-io/frazil/internal/config"
	"github.com/frazil-io/frazil/internal/deadletter/topic"
	"github.com/frazil-io/frazil/internal/driver"
	"github.com/frazil-io/frazil/internal/exec"
	"github.com/frazil-io/frazil/internal/exec/stream"
	"github.com/frazil-io/frazil/internal/kafka"
	"github.com/frazil-io/frazil/internal/lake"
	"github.com/frazil-io/frazil/internal/objstore"
	"github.com/frazil-io/frazil/internal/planner"
	"github.com/frazil-io/frazil/internal/registry"
	"github.com/frazil-io/frazil/internal/sink"
	"github.com/frazil-io/frazil/internal/source"
	"github.com/frazil-io/frazil/internal/source/decode"
)

// Options are what a command line adds to a spec.
type Options struct {
	AvailableNow bool
	Takeover     bool
	Adopt        []string
	Accept       []string // decisions about a changed spec, such as sink/NAME
	Grace        time.Duration
	// Stream is that of the pipeline's streams that runs; "": main.
	Stream string
	// ReadOnly is for looking: no table, catalog or checkpoint is made, and what
	// would be written to the checkpoint stays in memory.
	ReadOnly bool
	Log      *slog.Logger
	Observer driver.Observer
	// Rooms, if not nil, may put something between the driver and its rooms.
	Rooms func(driver.Rooms) driver.Rooms
}

// Pipeline is a spec whose SQL was checked.
type Pipeline struct {
	spec *config.Spec
	opts Options
	// registries are those of sources, by name, where a source's format has one.
	registries map[string]*registry.Client
	dimensions []exec.Table
	readers    *readers // nil: no source has a registry, or nothing runs
	asking     asking   // for decoders

	// rooms guards what is made for one set of reader schemas.
	rooms   sync.RWMutex
	schemas map[string]decode.Schema // of sources, by name, where a source's format has one
	exec    *exec.Executor
	source  *source.Source
	// fields are the columns of sources and tables, by name.
	fields map[string][]arrow.Field

	closers []func() // of what the driver's rooms have opened

	mu       sync.Mutex
	records  *checkpoint.Checkpoint
	catalogs map[string]*lake.Catalog
	tables   map[string]*sink.Table
	letters  *topic.Topic // nil: they have none
	routed   map[string]*sink.Routed
	log      *slog.Logger

	committed map[string]bool // sinks to whose tables the checkpoint knows commits; set before they are opened
}

// New checks a spec as far as that needs no server but a schema registry, where
// a source has one: columns, SQL, types.
// batch.ErrInvalid says what is wrong.
func New(ctx context.Context, spec *config.Spec, o Options) (*Pipeline, error) {
	p := &Pipeline{spec: spec, opts: o, log: o.Log, fields: map[string][]arrow.Field{}, catalogs: map[string]*lake.Catalog{}, tables: map[string]*sink.Table{}, routed: map[string]*sink.Routed{}, registries: map[string]*registry.Client{}, schemas: map[string]decode.Schema{}, asking: within(context.Background(), context.Background())}
	if p.log == nil {
		p.log = slog.New(slog.DiscardHandler)
	}
	for _, name := range spec.Sources.Names {
		if err := p.findSchema(ctx, name); err != nil {
			return nil, err
		}
	}
	for _, name := range spec.Tables.Names {
		d, err := p.dimension(ctx, name, spec.Tables.By[name])
		if err != nil {
			return nil, fmt.Errorf("table %s: %w", name, err)
		}
		p.dimensions = append(p.dimensions, exec.Table{Name: name, Dimension: d})
	}
	eo, err := p.execOptions(p.schemas)
	if err != nil {
		return nil, err
	}
	p.noteFields(eo)
	if p.exec, err = exec.New(ctx, eo); err != nil {
		return nil, inFile(spec, err)
	}
	for _, name := range spec.Sinks.Names {
		if o, ok := p.routeOptions(name); ok {
			if err := sink.CheckRoute(o, p.exec.Schema(name)); err != nil {
				p.exec.Close()
				return nil, fmt.Errorf("sink %s: %w", name, err)
			}
		}
		if o := p.sinkOptions(name); *spec.Sinks.By[name].Iceberg.Create {
			if err := sink.Check(o, p.Schema(name)); err != nil {
				p.exec.Close()
				return nil, fmt.Errorf("sink %s: %w", name, err)
			}
		}
	}
	if err := p.checkAudits(ctx); err != nil {
		p.exec.Close()
		return nil, inFile(spec, err)
	}
	return p, nil
}

func (p *Pipeline) noteFields(o exec.Options) {
	for _, s := range o.Sources {
		p.fields[s.Name] = s.Fields
	}
	for _, t := range o.Tables {
		p.fields[t.Name] = t.Dimension.Fields()
	}
}

// Shares of `memory`: DuckDB's part, that of fetched bytes and decoded rows, and
// that of data files in the making, and that of dimension tables, of which two
// versions may be there while one follows the other. The rest is for the garbage
// collector.
const (
	shareOfDuckDB = 3
	shareOfSource = 4
	shareOfSinks  = 4
	shareOfTables = 8
)

// Workers read and run SQL side by side. More than a few only wait for the one
// that writes files, and each needs memory for its rows.
const (
	workersMax  = 4
	workerBytes = 128 << 20
)

// workers is how many a pipeline uses.
func workers(memory int64) int {
	return int(min(workersMax, int64(runtime.GOMAXPROCS(0)), max(1, memory/workerBytes)))
}

// execOptions are those of an executor for rows that are read with these schemas.
func (p *Pipeline) execOptions(schemas map[string]decode.Schema) (exec.Options, error) {
	s := p.spec
	o := exec.Options{
		Workers: workers(int64(s.Memory)), MemoryBytes: int64(s.Memory) / shareOfDuckDB, TableBytes: int64(s.Memory) / shareOfTables,
		SpillDir: filepath.Join(os.TempDir(), "frazil-spill-"+s.Name),
		OnReject: func(sink string, r batch.Reject) {
			p.log.Warn("record skipped by SQL", "sink", sink, "topic", r.Topic, "partition", r.Partition, "offset", r.Offset, "reason", r.Reason)
		},
	}
	for _, name := range s.Sources.Names {
		src := s.Sources.By[name]
		d, err := p.decoder(name, schemas)
		if err != nil {
			return o, err
		}
		fields := d.Fields()
		if src.Metadata {
			fields = append(fields[:len(fields):len(fields)], decode.MetadataFields()...)
		}
		o.Sources = append(o.Sources, exec.Source{Name: name, Fields: fields, SkipBad: src.OnBadRecord == "skip", DeadLetters: src.OnBadRecord == "dead_letter", Expect: rules(src.Expect)})
	}
	for _, signature := range s.Macros.Names {
		o.Macros = append(o.Macros, stream.Macro{Signature: signature, SQL: s.Macros.By[signature]})
	}
	for _, name := range s.Views.Names {
		o.Views = append(o.Views, stream.View{Name: name, SQL: s.Views.By[name]})
	}
	if s.DeadLetter != nil {
		o.DeadLetters = config.DeadLetters
	}
	for _, name := range s.Queries() {
		one := s.Sinks.By[name]
		o.Sinks = append(o.Sinks, exec.Sink{Name: name, SQL: one.SQL, Expect: rules(one.Expect), Implied: p.routeRules(name), Holds: one.Holds()})
	}
	o.Tables = p.dimensions
	return o, nil
}

// rules are those of a source or a sink, in the order of the spec.
func rules(of config.Ordered[config.Rule]) (rules []exec.Rule) {
	for _, name := range of.Names {
		rules = append(rules, exec.Rule{Name: name, SQL: of.By[name].SQL, OnFail: exec.OnFail(of.By[name].OnFail)})
	}
	return rules
}

// Schema returns the columns of a sink's rows.
func (p *Pipeline) Schema(sink string) *arrow.Schema { return p.exec.Schema(sink) }

// Query returns what a sink's SQL came to.
func (p *Pipeline) Query(sink string) *stream.Query { return p.exec.Query(sink) }

// Close frees everything.
func (p *Pipeline) Close() {
	for _, f := range p.closers {
		f()
	}
	if p.readers != nil {
		p.readers.close()
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.source != nil {
		p.source.Close()
	}
	if p.letters != nil {
		p.letters.Close()
	}
	p.exec.Close()
	for _, c := range p.catalogs {
		c.Close()
	}
}

// Source opens the sources, once.
func (p *Pipeline) Source() (*source.Source, error) {
	p.rooms.Lock()
	defer p.rooms.Unlock()
	if p.source != nil {
		return p.source, nil
	}
	s, err := p.newSource(p.schemas)
	if err != nil {
		return nil, err
	}
	p.source = s
	return s, nil
}

// newSource opens the sources, whose records are read with these schemas.
func (p *Pipeline) newSource(schemas map[string]decode.Schema) (*source.Source, error) {
	var all []source.Options
	for _, name := range p.spec.Sources.Names {
		all = append(all, p.sourceOptions(name, schemas))
	}
	limits := source.Limits{Memory: int64(p.spec.Memory) / shareOfSource, Workers: workers(int64(p.spec.Memory))}
	return source.New(all, limits, driver.WallClock{}, p.log, func(r batch.Reject) {
		p.log.Warn("record skipped", "topic", r.Topic, "partition", r.Partition, "offset", r.Offset, "reason", r.Reason)
	})
}

func kafkaOptions(k *config.Kafka) kafka.Options {
	o := kafka.Options{Brokers: k.Brokers}
	if k.SASL != nil {
		o.SASL = kafka.SASL(*k.SASL)
	}
	if k.TLS != nil {
		o.TLS = kafka.TLS{Enabled: true, CA: k.TLS.CA, Cert: k.TLS.Cert, Key: k.TLS.Key, ServerName: k.TLS.ServerName}
	}
	return o
}

func (p *Pipeline) sourceOptions(name string, readers map[string]decode.Schema) source.Options {
	s := p.spec.Sources.By[name]
	k := s.Kafka
	return source.Options{
		Name: name, Kafka: kafkaOptions(k), Topics: k.Topics, Pattern: k.TopicPattern,
		Start:       source.Start{Latest: k.Start.Text == "latest", Time: k.Start.Time, Offsets: k.Start.Offsets},
		Uncommitted: k.Isolation == "read_uncommitted", Group: *k.Group, Tombstones: source.Tombstones(s.Tombstones),
		SkipBad: s.OnBadRecord == "skip", DeadLetters: s.OnBadRecord == "dead_letter", RecordLoss: k.OnDataLoss == "record", Metadata: s.Metadata, MaxRecordBytes: int(*s.MaxRecordBytes),
		Decoder: func() (decode.Decoder, error) { return p.decoder(name, readers) },
	}
}

// Table opens the table of a sink, and makes it where the spec says so.
func (p *Pipeline) Table(ctx context.Context, name string) (*sink.Table, error) {
	i := p.spec.Sinks.By[name].Iceberg
	c, err := p.Catalog(ctx, i.Catalog)
	if err != nil {
		return nil, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if t := p.tables[name]; t != nil {
		return t, nil
	}
	t, err := sink.Open(ctx, c, p.sinkOptions(name), p.Schema(name), time.Now, p.log)
	if err != nil {
		return nil, fmt.Errorf("sink %s: %w", name, err)
	}
	p.tables[name] = t
	return t, nil
}

// sinkOptions are what a sink's table needs to know of the spec.
func (p *Pipeline) sinkOptions(name string) sink.Options {
	i, m := p.spec.Sinks.By[name].Iceberg, p.spec.Maintenance
	format := 2
	if i.Properties["format-version"] == "3" {
		format = 3
	}
	return sink.Options{
		Pipeline: p.spec.Name, Stream: p.opts.Stream, Table: i.Table, Branch: i.Branch, Create: *i.Create && !p.opts.ReadOnly && p.opts.Stream == "", Committed: p.committed[name], PartitionBy: i.PartitionBy, SortBy: i.SortBy, FormatVersion: format, Evolve: sink.Evolve(i.Evolve),
		Properties: i.Properties, KeepSnapshots: m.KeepSnapshots, KeepHourly: time.Duration(m.KeepHourly), FileBytes: int64(m.TargetFileSize),
		MemoryBytes: int64(p.spec.Memory) / shareOfSinks / int64(len(p.spec.Sinks.Names)),
	}
}

// Checkpoint opens the pipeline's own records, once.
func (p *Pipeline) Checkpoint(ctx context.Context) (*checkpoint.Checkpoint, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.records != nil {
		return p.records, nil
	}
	records, err := p.streamRecords(ctx, p.opts.Stream)
	if err == nil {
		p.records = records
	}
	return records, err
}

// streamRecords opens the records of one of the pipeline's streams.
func (p *Pipeline) streamRecords(ctx context.Context, stream string) (*checkpoint.Checkpoint, error) {
	store, err := objstore.Open(ctx, p.spec.Checkpoint, p.storeProperties())
	if err != nil {
		return nil, fmt.Errorf("checkpoint: %w", err)
	}
	if p.opts.ReadOnly {
		store = &overlay{Store: store, kept: map[string][]byte{}}
	}
	return checkpoint.New(store, p.checkpointName(stream)), nil
}

// Driver opens all rooms and wires them, unless stop is cancelled meanwhile.
func (p *Pipeline) Driver(ctx, stop context.Context) (*driver.Driver, error) {
	p.asking = within(ctx, stop)
	cp, err := p.Checkpoint(ctx)
	if err != nil {
		return nil, err
	}
	if p.committed, err = patient(stop, func() (map[string]bool, error) { return committed(ctx, cp) }); err != nil {
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
		p.tellChanges(name, tables[name])
	}
	if len(p.current()) > 0 {
		p.readers = newReaders(p, driver.WallClock{})
	}
	return p.driver(cp, tables, startTimeout)
}

// driver is one for the sinks whose tables these are.
func (p *Pipeline) driver(cp *checkpoint.Checkpoint, tables map[string]*sink.Table, timeout time.Duration) (*driver.Driver, error) {
	rooms, opts, err := p.wire(cp, tables, timeout)
	if err != nil {
		return nil, err
	}
	if p.opts.Rooms != nil {
		rooms = p.opts.Rooms(rooms)
	}
	return driver.New(rooms, opts, p.log, p.opts.Observer), nil
}

// wire wires the rooms for the sinks whose tables these are.
func (p *Pipeline) wire(cp *checkpoint.Checkpoint, tables map[string]*sink.Table, timeout time.Duration) (rooms driver.Rooms, opts driver.Options, err error) {
	if _, err := p.Source(); err != nil {
		return rooms, opts, err
	}
	rooms = driver.Rooms{
		Source: sourceRoom{p}, Executor: execRoom{p}, Checkpoint: cp, Clock: driver.WallClock{}, Tasks: driver.Goroutines{},
		NewID: uuid.NewString, Alive: alive,
	}
	if p.readers != nil {
		rooms.Readers = p.readers
	}
	sources, err := plannerSources(p.spec)
	if err != nil {
		return rooms, opts, err
	}
	for _, name := range p.spec.Sinks.Names {
		if t := tables[name]; t != nil {
			rooms.Sinks = append(rooms.Sinks, driver.Sink{Name: name, Hash: p.sinkHash(name), Table: room{t}, Audit: p.auditor(name, t)})
		}
		if r := p.routedBy(name); r != nil {
			rooms.Sinks = append(rooms.Sinks, driver.Sink{Name: name, Hash: p.sinkHash(name), Tables: routes{r}, TablesMax: p.spec.Sinks.By[name].Iceberg.MaxTables})
		}
	}
	host, err := os.Hostname()
	if err != nil {
		return rooms, opts, fmt.Errorf("this host's name: %w", err)
	}
	l := p.spec.Limits
	opts = driver.Options{
		Name: p.spec.Name, Writer: batch.Writer{ID: uuid.NewString(), Host: host, PID: os.Getpid()},
		Limits:   planner.Limits{BytesMax: int64(l.MaxBytes), RecordsMax: l.MaxRecords, BytesMin: int64(l.MinBytes), RecordsMin: l.MinRecords},
		DelayMax: time.Duration(l.MaxDelay), Sources: sources, KeepBatches: p.spec.Maintenance.KeepBatches,
		Takeover: p.opts.Takeover, Adopt: p.opts.Adopt, Grace: p.opts.Grace, StartTimeout: timeout,
	}
	opts.Trigger.AvailableNow = p.spec.Trigger.AvailableNow || p.opts.AvailableNow
	if i := p.spec.Trigger.Interval; i != nil {
		opts.Trigger.Interval = time.Duration(*i)
	}
	return rooms, opts, p.deadLetters(&rooms, &opts)
}

// tellChanges logs how a sink's table differs from its SQL.
func (p *Pipeline) tellChanges(name string, t *sink.Table) {
	for _, c := range t.Changes() {
		if c.Kind == sink.ChangeAbsent {
			p.log.Warn("the table has a column that the SQL does not give; new rows have NULL there", "sink", name, "table", p.spec.Sinks.By[name].Iceberg.Table, "column", c.Column)
			continue
		}
		p.log.Info("the first rows will change the table's schema", "sink", name, "table", p.spec.Sinks.By[name].Iceberg.Table, "change", c.String())
	}
}

// committed returns the sinks to whose tables the pipeline has committed, as its
// newest plan says.
func committed(ctx context.Context, cp *checkpoint.Checkpoint) (map[string]bool, error) {
	inc, err := newestOf(ctx, cp)
	if err != nil || inc == nil {
		return nil, err
	}
	sinks := map[string]bool{}
	for name := range inc.Targets { // of a rewind, whose log may be empty
		sinks[name] = true
	}
	newest, err := cp.Newest(ctx, *inc)
	if err != nil || newest == nil {
		return sinks, err
	}
	for _, s := range newest.Sinks {
		sinks[s.Name] = s.Before.Hash != ""
	}
	return sinks, nil
}

// plannerSources is what the spec says of its sources to the planner.
func plannerSources(spec *config.Spec) (planner.Sources, error) {
	all := planner.Sources{}
	for name, s := range spec.Sources.By {
		one := planner.Source{Topics: s.Kafka.Topics, RecordLoss: s.Kafka.OnDataLoss == "record"}
		if s.Kafka.TopicPattern != "" {
			var err error
			if one.Pattern, err = regexp.Compile(s.Kafka.TopicPattern); err != nil {
				return nil, fmt.Errorf("%w: source %s: topic_pattern: %w", batch.ErrInvalid, name, err)
			}
		}
		all[name] = one
	}
	return all, nil
}

// startTimeout is how long a server may be away when a pipeline starts.
const startTimeout = 30 * time.Second

// patiently opens a sink's table, and waits for its catalog to start.
func (p *Pipeline) patiently(ctx, stop context.Context, name string) (*sink.Table, error) {
	return patient(stop, func() (*sink.Table, error) { return p.Table(ctx, name) })
}

// Run runs the pipeline until its trigger ends or stop is cancelled.
func (p *Pipeline) Run(ctx, stop context.Context) error {
	d, err := p.decided(ctx, stop)
	if err == nil {
		return d.Run(ctx, stop)
	}
	if stop.Err() == nil {
		return err
	}
	return nil // stopped before anything began
}
