package spectest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/frazil-io/frazil/internal/batch"
	"github.com/frazil-io/frazil/internal/config"
	"github.com/frazil-io/frazil/internal/driver"
	"github.com/frazil-io/frazil/internal/pipeline"
	"github.com/frazil-io/frazil/internal/query"
	"github.com/frazil-io/frazil/internal/source/decode"
)

// trial runs one case in one way after the other, each in a world of its own.
type trial struct {
	suite suite
	c     *testCase
	o     Options
	mask  *config.Mask // of the spec
}

// whole runs the case with the limits of the spec: one batch, unless it is large.
func (t trial) whole(ctx context.Context) (tables, error) {
	return t.in(ctx, func(ctx context.Context, w *world) error { return w.run(ctx, 0, nil) })
}

// batchesMax bounds how many batches a case is split into.
const batchesMax = 20

// batches runs the case in batches of a random size and returns how many moments
// there were.
func (t trial) batches(ctx context.Context, rnd *rand.Rand) (int64, tables, error) {
	c := &crasher{}
	got, err := t.in(ctx, func(ctx context.Context, w *world) error { return w.run(ctx, t.records(rnd), c) })
	return c.steps.Load(), got, err
}

// crashesMax is how often a case may crash.
const crashesMax = 3

// crashes runs the case in batches, is killed at random moments, and starts
// again.
func (t trial) crashes(ctx context.Context, rnd *rand.Rand, steps int64) (tables, error) {
	return t.in(ctx, func(ctx context.Context, w *world) error {
		records := t.records(rnd)
		for range 1 + rnd.IntN(crashesMax) {
			c := &crasher{at: 1 + rnd.Int64N(max(1, steps))}
			if err := w.run(ctx, records, c); !c.crashed() {
				return err
			}
		}
		return w.run(ctx, records, nil)
	})
}

// records is how many a batch may have.
func (t trial) records(rnd *rand.Rand) int64 {
	n := 0
	for _, records := range t.c.topics {
		n += len(records)
	}
	least := 1 + n/batchesMax
	return int64(least + rnd.IntN(max(1, n/2)))
}

// in makes a world, lets drive run pipelines in it, and reads the tables.
func (t trial) in(ctx context.Context, drive func(context.Context, *world) error) (tables, error) {
	dir, err := os.MkdirTemp("", "frazil-test-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir) //nolint:errcheck // a folder in /tmp
	w := &world{trial: t, dir: dir}
	if err := w.broker(); err != nil {
		return nil, err
	}
	defer w.cluster.Close()
	if w.spec, err = w.load(); err != nil {
		return nil, err
	}
	registry, err := w.schemas()
	if err != nil {
		return nil, err
	}
	defer registry.Close()
	if err := w.produce(ctx); err != nil {
		return nil, err
	}
	if err := drive(ctx, w); err != nil {
		return nil, err
	}
	return w.tables(ctx)
}

// world is a broker with the case's records, an empty catalog and warehouse, and
// the spec that uses them.
type world struct {
	trial
	dir     string
	cluster *kfake.Cluster
	spec    *config.Spec
	written map[string][]decode.Schema // by subject, in the order of versions
}

func (w *world) log() *slog.Logger { return w.o.Log }

// broker starts a broker with the topics.
func (w *world) broker() error {
	opts := []kfake.Opt{kfake.NumBrokers(1), kfake.BrokerConfigs(map[string]string{"message.max.bytes": "67108864"})}
	for topic, records := range w.c.topics {
		partitions := max(1, w.c.Partitions)
		for _, r := range records {
			partitions = max(partitions, r.Partition+1)
		}
		opts = append(opts, kfake.SeedTopics(partitions, topic))
	}
	var err error
	if w.cluster, err = kfake.NewCluster(opts...); err != nil {
		return fmt.Errorf("start the embedded broker: %w: %w", batch.ErrUnavailable, err)
	}
	return nil
}

// produce writes the records, encoded as the source that reads them has them.
func (w *world) produce(ctx context.Context) error {
	client, err := kgo.NewClient(kgo.SeedBrokers(w.cluster.ListenAddrs()...), kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ProducerBatchMaxBytes(64<<20))
	if err != nil {
		return err
	}
	defer client.Close()
	for topic, records := range w.c.topics {
		e := w.encoders(topic)
		for i, r := range records {
			if r, err = e.record(r); err != nil {
				return err
			}
			client.Produce(ctx, r.kafka(topic, i, w.c.Now), func(_ *kgo.Record, failed error) { err = cmp.Or(err, failed) })
		}
	}
	return errors.Join(client.Flush(ctx), err)
}

// load reads the spec and moves it into this world.
func (w *world) load() (*config.Spec, error) {
	spec, err := config.Load(w.suite.spec, func(name string) (string, bool) {
		if v, ok := w.c.Env[name]; ok {
			return v, true
		}
		return w.o.Env(name)
	})
	if err != nil {
		return nil, err
	}
	if w.mask != nil {
		*w.mask = spec.Mask()
	}
	spec.Checkpoint = filepath.Join(w.dir, "checkpoints")
	for name := range spec.Catalogs {
		spec.Catalogs[name] = config.Catalog{Type: "sql", URI: filepath.Join(w.dir, name+".db"), Warehouse: filepath.Join(w.dir, name)}
	}
	noGroup := ""
	for name, s := range spec.Sources.By {
		k := *s.Kafka
		k.Brokers, k.SASL, k.TLS, k.Group, k.Start = w.cluster.ListenAddrs(), nil, nil, &noGroup, config.Start{Text: "earliest"}
		s.Kafka = &k
		if s.SchemaFile != "" {
			s.SchemaFile = w.beside(s.SchemaFile)
		}
		if s.Key != nil && s.Key.SchemaFile != "" {
			key := *s.Key
			key.SchemaFile = w.beside(key.SchemaFile)
			s.Key = &key
		}
		spec.Sources.By[name] = s
	}
	w.letters(spec)
	if err := w.c.isRead(spec); err != nil {
		return nil, err
	}
	return spec, w.dimensions(spec)
}

// letters puts a table in the place of a topic for dead letters, which would have some
// of them twice after a crash.
func (w *world) letters(spec *config.Spec) {
	if spec.DeadLetter == nil || spec.DeadLetter.Kafka == nil {
		return
	}
	beside := spec.Sinks.By[spec.Sinks.Names[0]].Iceberg
	letter, create := *spec.DeadLetter, true
	letter.Kafka, letter.Iceberg = nil, &config.Iceberg{Catalog: beside.Catalog, Table: "frazil_test." + config.DeadLetters, Branch: "main", Create: &create, Evolve: beside.Evolve}
	spec.DeadLetter = &letter
	spec.Sinks.Names = append(slices.Clone(spec.Sinks.Names), config.DeadLetters)
	spec.Sinks.By[config.DeadLetters] = config.Sink{Mode: "append", Iceberg: letter.Iceberg}
}

// dimensions puts the case's fixtures in the place of dimension tables, and finds
// files that lie beside the spec.
func (w *world) dimensions(spec *config.Spec) error {
	for name := range w.c.tables {
		if !slices.Contains(spec.Tables.Names, name) {
			return fmt.Errorf("%w: tables/%s: the spec has no dimension table %q", batch.ErrInvalid, filepath.Base(w.c.tables[name]), name)
		}
	}
	for name, d := range spec.Tables.By {
		fixture, ok := w.c.tables[name]
		switch {
		case ok && filepath.Ext(fixture) == ".csv":
			header := true
			one := config.Dimension{CSV: &config.CSV{Path: fixture, Header: &header, Delimiter: ","}, Refresh: d.Refresh}
			if d.CSV != nil {
				columns := *d.CSV
				columns.Path = fixture
				one.CSV = &columns
			}
			d = one
		case ok && filepath.Ext(fixture) == ".parquet":
			d = config.Dimension{Parquet: fixture, Refresh: d.Refresh}
		case ok:
			return fmt.Errorf("%w: tables/%s: a fixture is a .csv or a .parquet", batch.ErrInvalid, filepath.Base(fixture))
		case d.Iceberg != nil || d.Postgres != nil:
			return fmt.Errorf("%w: the dimension table %s comes from a server, which there is none here: write its rows to %s", batch.ErrInvalid, name, filepath.Join(w.c.dir, "tables", name+".csv"))
		case d.CSV != nil:
			d.CSV.Path = w.beside(d.CSV.Path)
		default:
			d.Parquet = w.beside(d.Parquet)
		}
		spec.Tables.By[name] = d
	}
	return nil
}

// beside is a file of the spec, looked for beside it where it is not found from
// the working directory.
func (w *world) beside(path string) string {
	if _, err := os.Stat(path); err != nil && !filepath.IsAbs(path) {
		return filepath.Join(w.suite.dir, path)
	}
	return path
}

// run runs the pipeline over everything the topics have. c, which may be nil,
// stands between driver and rooms.
func (w *world) run(ctx context.Context, records int64, c *crasher) error {
	spec := *w.spec
	spec.Trigger.AvailableNow, spec.Trigger.Interval = true, nil
	if records > 0 {
		spec.Limits.MaxRecords = records
	}
	spec.Limits.MinRecords, spec.Limits.MinBytes = 0, 0
	running, cancel := context.WithCancel(ctx)
	defer cancel()
	p, err := pipeline.New(ctx, &spec, pipeline.Options{AvailableNow: true, Log: w.log(), Rooms: func(r driver.Rooms) driver.Rooms {
		r.Clock = fixedClock{r.Clock, w.c.Now}
		if c == nil {
			return r
		}
		c.cancel = cancel
		return c.rooms(r)
	}})
	if err != nil {
		return err
	}
	defer p.Close()
	return p.Run(running, ctx)
}

// fixedClock stands still at the case's time, and waits as ever.
type fixedClock struct {
	driver.Clock
	now time.Time
}

// Now implements driver.Clock.
func (c fixedClock) Now() time.Time { return c.now }

// lettersSQL is what is told of dead letters: their batch is another one in each trial.
const lettersSQL = `SELECT topic, partition, "offset", source, sink, code, reason FROM "` + config.DeadLetters + `"`

// tables reads what the run has written.
func (w *world) tables(ctx context.Context) (tables, error) {
	p, err := pipeline.New(ctx, w.spec, pipeline.Options{ReadOnly: true, Log: w.log()})
	if err != nil {
		return nil, err
	}
	defer p.Close()
	all, open, err := w.outcome(ctx, p)
	if err != nil {
		return nil, err
	}
	e, err := query.Open(ctx, open, query.Options{Cache: filepath.Join(w.dir, "cache"), MemoryBytes: int64(w.spec.Memory), Log: w.log()})
	if err != nil {
		return nil, err
	}
	defer e.Close()
	for i := range all {
		sql := `FROM "` + open[i].Alias + `"`
		if all[i].name == config.DeadLetters {
			sql = lettersSQL
		}
		err := e.Query(ctx, sql, func(s *arrow.Schema) error { all[i].instants = instants(s); return nil }, func(rows arrow.RecordBatch) error {
			for k := range int(rows.NumRows()) {
				all[i].rows = append(all[i].rows, string(w.o.Encode(nil, rows, k)))
			}
			return nil
		})
		if err != nil {
			return nil, fmt.Errorf("read the table of sink %s: %w", all[i].name, err)
		}
	}
	return all, nil
}

// outcome lists the tables of all sinks: those that rows have chosen, where they do,
// each by its full name.
func (w *world) outcome(ctx context.Context, p *pipeline.Pipeline) (all tables, open []query.Table, err error) {
	for _, name := range w.spec.Sinks.Names {
		i := w.spec.Sinks.By[name].Iceberg
		c, err := p.Catalog(ctx, i.Catalog)
		if err != nil {
			return nil, nil, err
		}
		idents := []string{i.Table}
		routed := p.Routes(name)
		if routed {
			if idents, err = p.TablesOf(ctx, name); err != nil {
				return nil, nil, err
			}
		}
		for _, ident := range idents {
			one := table{name: name, ident: ident}
			if routed {
				one.name = ident
			}
			all = append(all, one)
			open = append(open, query.Table{Alias: one.name, Ident: strings.Split(ident, "."), Branch: i.Branch, Catalog: c})
		}
	}
	return all, open, nil
}

func instants(s *arrow.Schema) map[string]bool {
	all := map[string]bool{}
	for _, f := range s.Fields() {
		if t, ok := f.Type.(*arrow.TimestampType); ok && t.TimeZone != "" {
			all[f.Name] = true
		}
	}
	return all
}
