package pipeline

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/iceberg-go/table"
	"github.com/google/uuid"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sr"
	"github.com/twmb/franz-go/pkg/sr/srfake"

	"github.com/frazil-io/frazil/internal/batch"
	"github.com/frazil-io/frazil/internal/config"
	"github.com/frazil-io/frazil/internal/driver"
)

// The schemas of orders, by their version and id.
var orders = []string{
	1: `{"type":"record","name":"Order","fields":[{"name":"id","type":"long"},{"name":"n","type":"int"}]}`,
	2: `{"type":"record","name":"Order","fields":[{"name":"id","type":"long"},{"name":"n","type":"int"},{"name":"note","type":["null","string"],"default":null}]}`,
	3: `{"type":"record","name":"Order","fields":[{"name":"id","type":"long"},{"name":"n","type":"long"},{"name":"note","type":["null","string"],"default":null}]}`,
	4: `{"type":"record","name":"Order","fields":[{"name":"id","type":"string"}]}`,
}

// order is a record as a producer with one of these schemas writes it.
func order(schema int, id, n int64, note string) []byte {
	data := binary.BigEndian.AppendUint32([]byte{0}, uint32(schema))
	data = binary.AppendVarint(binary.AppendVarint(data, id), n)
	switch {
	case schema == 1:
		return data
	case note == "":
		return append(data, 0)
	}
	return append(binary.AppendVarint(append(data, 2), int64(len(note))), note...)
}

// shop is a topic, a registry and a place for a catalog, which outlive pipelines.
type shop struct {
	*testing.T
	dir      string
	cluster  *kfake.Cluster
	registry *srfake.Registry
	producer *kgo.Client
	key      string // of the source
}

func newShop(t *testing.T) *shop {
	t.Helper()
	c, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(1, "orders"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	s := &shop{T: t, dir: t.TempDir(), cluster: c, registry: srfake.New()}
	t.Cleanup(s.registry.Close)
	if s.producer, err = kgo.NewClient(kgo.SeedBrokers(c.ListenAddrs()...), kgo.DefaultProduceTopic("orders")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.producer.Close)
	s.register(1)
	return s
}

func (s *shop) register(version int) {
	s.registry.SeedSchema("orders-value", version, version, sr.Schema{Schema: orders[version]})
}

// produce puts records into the topic, in one batch of Kafka's.
func (s *shop) produce(values ...[]byte) {
	s.Helper()
	var records []*kgo.Record
	for _, v := range values {
		records = append(records, &kgo.Record{Value: v})
	}
	if err := s.producer.ProduceSync(s.Context(), records...).FirstErr(); err != nil {
		s.Fatal(err)
	}
}

// open opens a pipeline over the shop.
func (s *shop) open(evolve, registry, sql string, o Options) *Pipeline {
	s.Helper()
	spec, err := config.Parse("spec.yaml", fmt.Appendf(nil, `
name: shop
trigger: {interval: 0s}
checkpoint: "%[1]s/checkpoint"
catalogs: {lake: {type: sql, uri: "%[1]s/catalog.db", warehouse: "%[1]s/warehouse"}}
sources:
  orders: {kafka: {brokers: [%[2]q], topics: [orders], start: earliest}, format: avro, registry: {url: %[3]q%[5]s}%[7]s}
sinks:
  all: {sql: %[6]q, iceberg: {catalog: lake, table: a.orders, create: true, evolve: %[4]s}}
`, s.dir, s.cluster.ListenAddrs()[0], s.registry.URL(), evolve, registry, sql, s.key), func(string) (string, bool) { return "", false })
	if err != nil {
		s.Fatal(err)
	}
	o.Log = slog.New(slog.DiscardHandler)
	p, err := New(s.Context(), spec, o)
	if err != nil {
		s.Fatal(err)
	}
	s.Cleanup(p.Close)
	return p
}

// running is a pipeline at work.
type running struct {
	*shop
	*Pipeline
	batches chan driver.Progress
	ended   chan error
	stop    context.CancelFunc
}

func (s *shop) run(evolve, sql string, rooms func(driver.Rooms) driver.Rooms) *running {
	s.Helper()
	w := watcher{make(chan driver.Progress, 100), make(chan string, 1)}
	r := &running{shop: s, Pipeline: s.open(evolve, "", sql, Options{Observer: w, Rooms: rooms, Takeover: true}), batches: w.batches, ended: make(chan error, 1)}
	stop, cancel := context.WithCancel(s.Context())
	r.stop = cancel
	d, err := r.Driver(s.Context(), stop) // its readers are there then
	if err != nil {
		s.Fatal(err)
	}
	go func() { r.ended <- d.Run(s.Context(), stop) }()
	return r
}

// next is the plan of the next batch with records, as committed.
func (r *running) next() *batch.Plan {
	r.Helper()
	for {
		select {
		case b := <-r.batches:
			if slices.ContainsFunc(b.Plan.Ranges, func(g batch.Range) bool { return g.Len() > 0 }) {
				return b.Plan
			}
		case err := <-r.ended:
			r.Fatalf("the pipeline ended: %v", err)
		}
	}
}

func (r *running) finish() {
	r.Helper()
	r.stop()
	if err := <-r.ended; err != nil {
		r.Fatal(err)
	}
}

// rows are what the table has, as JSON, in order.
func (s *shop) rows() (rows []string) {
	s.Helper()
	p := s.open("none", "", "SELECT id FROM orders", Options{ReadOnly: true})
	c, err := p.Catalog(s.Context(), "lake")
	if err != nil {
		s.Fatal(err)
	}
	t, err := c.Load(s.Context(), table.Identifier{"a", "orders"})
	if err != nil {
		s.Fatal(err)
	}
	all, err := t.Scan().ToArrowTable(s.Context())
	if err != nil {
		s.Fatal(err)
	}
	defer all.Release()
	reader := array.NewTableReader(all, -1)
	defer reader.Release()
	for reader.Next() {
		data, err := json.Marshal(reader.RecordBatch())
		if err != nil {
			s.Fatal(err)
		}
		var each []json.RawMessage
		if err := json.Unmarshal(data, &each); err != nil {
			s.Fatal(err)
		}
		for _, r := range each {
			rows = append(rows, string(r))
		}
	}
	slices.Sort(rows)
	return rows
}

// TestGrowingSchema: SELECT * of a topic whose schema grows while the pipeline
// runs. The first batch with a record of the newer schema is read with that, and
// the table gets its columns with these rows. A batch may hold records of both.
func TestGrowingSchema(t *testing.T) {
	s := newShop(t)
	r := s.run("widen", "SELECT * FROM orders", nil)
	s.produce(order(1, 1, 1, ""), order(1, 2, 1, ""))
	if p := r.next(); p.Readers["orders"] != 1 {
		t.Fatalf("the first batch is read with %v", p.Readers)
	}
	s.register(2)
	s.produce(order(1, 3, 1, "")) // nothing in it needs the newer schema
	if p := r.next(); p.Readers["orders"] != 1 || p.Revision != 0 {
		t.Fatalf("revision %d of a batch without newer records is read with %v", p.Revision, p.Readers)
	}
	s.produce(order(1, 4, 1, ""), order(2, 5, 1, "x"), order(1, 6, 1, ""), order(2, 7, 2, ""))
	if p := r.next(); p.Readers["orders"] != 2 || p.Revision != 1 {
		t.Fatalf("revision %d of the batch with newer records is read with %v", p.Revision, p.Readers)
	}
	s.register(3)
	s.produce(order(1, 8, 1, ""), order(3, 9, 1<<40, "y"), order(2, 10, 1, "z")) // which the schema before cannot hold
	if p := r.next(); p.Readers["orders"] != 3 || p.Revision != 1 {
		t.Fatalf("revision %d of the batch with wider records is read with %v", p.Revision, p.Readers)
	}
	s.produce(order(1, 11, 1, ""), order(3, 12, 1, ""))
	if p := r.next(); p.Readers["orders"] != 3 || p.Revision != 0 {
		t.Fatalf("revision %d of the batch behind it is read with %v", p.Revision, p.Readers)
	}
	r.finish()
	want := []string{
		`{"id":1,"n":1,"note":null}`, `{"id":10,"n":1,"note":"z"}`, `{"id":11,"n":1,"note":null}`, `{"id":12,"n":1,"note":null}`, `{"id":2,"n":1,"note":null}`,
		`{"id":3,"n":1,"note":null}`, `{"id":4,"n":1,"note":null}`, `{"id":5,"n":1,"note":"x"}`, `{"id":6,"n":1,"note":null}`, `{"id":7,"n":2,"note":null}`,
		`{"id":8,"n":1,"note":null}`, `{"id":9,"n":1099511627776,"note":"y"}`,
	}
	if got := s.rows(); !slices.Equal(got, want) {
		t.Errorf("the table has %s\nwant %s", got, want)
	}
}

// TestNewerSchemaIsNoticed: also where no record needs it yet, the next plan takes
// a newer schema once somebody has looked, and only then.
func TestNewerSchemaIsNoticed(t *testing.T) {
	s := newShop(t)
	r := s.run("widen", "SELECT * FROM orders", nil)
	s.produce(order(1, 1, 1, ""))
	r.next()
	s.register(2)
	r.Pipeline.readers.look()
	s.produce(order(1, 2, 1, ""))
	p := r.next() // it may have been planned while somebody looked
	for id := int64(3); p.Readers["orders"] != 2; id++ {
		s.produce(order(1, id, 1, ""))
		p = r.next()
	}
	r.finish()
}

// TestGrowingKey: the schema of keys grows while the pipeline runs, as that of values
// does.
func TestGrowingKey(t *testing.T) {
	s := newShop(t)
	s.key = ", key: {format: avro}"
	register := func(version int, fields string) {
		s.registry.SeedSchema("orders-key", version, 10+version, sr.Schema{Schema: `{"type":"record","name":"K","fields":[{"name":"k","type":"long"}` + fields + `]}`})
	}
	produce := func(id int64, key []byte) {
		if err := s.producer.ProduceSync(t.Context(), &kgo.Record{Key: key, Value: order(1, id, 1, "")}).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	register(1, "")
	r := s.run("add", "SELECT * FROM orders", nil)
	produce(1, []byte{0, 0, 0, 0, 11, 2})
	if p := r.next(); p.Readers["orders.key"] != 11 || p.Readers["orders"] != 1 {
		t.Fatalf("read with %v", p.Readers)
	}
	register(2, `,{"name":"shard","type":["null","string"],"default":null}`)
	produce(2, []byte{0, 0, 0, 0, 12, 4, 2, 2, 'x'})
	if p := r.next(); p.Readers["orders.key"] != 12 || p.Readers["orders"] != 1 {
		t.Fatalf("read with %v", p.Readers)
	}
	r.finish()
	if got, want := s.rows(), []string{`{"id":1,"k":1,"n":1,"shard":null}`, `{"id":2,"k":2,"n":1,"shard":"x"}`}; !slices.Equal(got, want) {
		t.Errorf("the table has %s, want %s", got, want)
	}
}

// crashing lets the commits of a table fail, as if the process died before them.
type crashing struct{ driver.Table }

// Load implements driver.Table.
func (c crashing) Load(ctx context.Context) (driver.View, error) {
	v, err := c.Table.Load(ctx)
	return crash{v}, err
}

type crash struct{ driver.View }

var errCrash = errors.New("crash")

// Commit implements driver.View: only that of an anchor is sent.
func (c crash) Commit(ctx context.Context, stamp *batch.Stamp, files driver.Files) (int64, error) {
	if files == nil || files.Rows() == 0 {
		return c.View.Commit(ctx, stamp, files)
	}
	return 0, errCrash
}

// TestReplayOfALoggedBatch: between a crash and the replay of its batch the
// registry gets schemas with which the rows would be others. They are those that
// they would have been, and the table's schema, too; the batch behind it is read
// with what is newest then.
func TestReplayOfALoggedBatch(t *testing.T) {
	s := newShop(t)
	r := s.run("widen", "SELECT * FROM orders", func(rooms driver.Rooms) driver.Rooms {
		rooms.Sinks[0].Table = crashing{rooms.Sinks[0].Table}
		return rooms
	})
	s.produce(order(1, 1, 1, ""), order(1, 2, 2, ""))
	if err := <-r.ended; !errors.Is(err, errCrash) {
		t.Fatalf("it did not crash: %v", err)
	}
	s.register(2)
	r = s.run("widen", "SELECT * FROM orders", nil)
	if p := r.next(); p.Readers["orders"] != 1 || p.Revision != 0 {
		t.Fatalf("revision %d of the batch is read with %v", p.Revision, p.Readers)
	}
	if got, want := s.rows(), []string{`{"id":1,"n":1}`, `{"id":2,"n":2}`}; !slices.Equal(got, want) {
		t.Errorf("after the replay the table has %s, want %s", got, want)
	}
	s.produce(order(2, 3, 3, "x"))
	if p := r.next(); p.Readers["orders"] != 2 || p.Revision != 0 {
		t.Fatalf("revision %d of the next batch is read with %v", p.Revision, p.Readers)
	}
	r.finish()
	if got, want := s.rows(), []string{`{"id":1,"n":1,"note":null}`, `{"id":2,"n":2,"note":null}`, `{"id":3,"n":3,"note":"x"}`}; !slices.Equal(got, want) {
		t.Errorf("the table has %s, want %s", got, want)
	}
}

// TestSchemaThatTheTableCannotTake: a newer schema whose types Iceberg cannot
// widen to stops the pipeline before it commits, with the difference.
func TestSchemaThatTheTableCannotTake(t *testing.T) {
	s := newShop(t)
	r := s.run("widen", "SELECT * FROM orders", nil)
	s.produce(order(1, 1, 1, ""))
	r.next()
	s.register(4)
	s.produce(append(binary.BigEndian.AppendUint32([]byte{0}, 4), 2, 'a'))
	err := <-r.ended
	for _, want := range []string{"with schema 4 for source orders: sink all: ", `column "id": the table has BIGINT, the SQL gives VARCHAR; cast it to BIGINT`} {
		if !errors.Is(err, batch.ErrInvalid) || !strings.Contains(err.Error(), want) {
			t.Errorf("%v\nlacks %s", err, want)
		}
	}
	if got, want := s.rows(), []string{`{"id":1,"n":1}`}; !slices.Equal(got, want) {
		t.Errorf("the table has %s, want %s", got, want)
	}
}

// TestWhoFollows: a source takes newer schemas while it runs where its version is
// not fixed and each sink that reads it may change its table.
func TestWhoFollows(t *testing.T) {
	for _, c := range []struct {
		evolve, registry string
		follows          bool
	}{{"add", "", true}, {"widen", "", true}, {"none", "", false}, {"add", ", version: 1", false}} {
		s := newShop(t)
		p := s.open(c.evolve, c.registry, "SELECT id FROM orders", Options{ReadOnly: true})
		if got := len(p.follows()) > 0; got != c.follows {
			t.Errorf("evolve %s%s: follows %t", c.evolve, c.registry, got)
		}
	}
}

// setClock is a clock that stands still.
type setClock struct {
	driver.WallClock
	mu  sync.Mutex
	now time.Time
}

func (c *setClock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *setClock) pass(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// TestLooksAreSeldom: the registry is asked every so often, by nobody that waits.
func TestLooksAreSeldom(t *testing.T) {
	s := newShop(t)
	p := s.open("add", "", "SELECT id FROM orders", Options{ReadOnly: true})
	clock := &setClock{now: time.Unix(1e9, 0)}
	r := newReaders(p, clock)
	defer r.close()
	requests := 0
	s.registry.Intercept(func(http.ResponseWriter, *http.Request) bool {
		requests++
		return false
	})
	s.register(2)
	for range 3 {
		if id := r.Newest()["orders"]; id != 1 {
			t.Fatalf("before a look the newest schema is %d", id)
		}
	}
	clock.pass(lookEvery)
	if id := r.Newest()["orders"]; id != 1 {
		t.Fatalf("it waited for the registry, which said %d", id)
	}
	r.beside.Wait()
	if id := r.Newest()["orders"]; id != 2 || requests != 1 {
		t.Errorf("after %d requests the newest schema is %d", requests, id)
	}
	// A record of a schema that was not met is asked for at once, and once.
	for range 2 {
		if err := r.meet(t.Context(), writerSchema{"orders", 2}, 1); !errors.Is(err, batch.ErrOutdated) {
			t.Errorf("a record that is newer than its reader: %v", err)
		}
	}
	if requests != 2 {
		t.Errorf("%d requests", requests)
	}
	if err := r.meet(t.Context(), writerSchema{"orders", 7}, 2); err != nil {
		t.Errorf("a record of another subject: %v", err)
	}
	s.register(3)
	r.ask(t.Context())
	if err := r.meet(t.Context(), writerSchema{"orders", 1}, 2); err != nil || r.Newest()["orders"] != 3 {
		t.Errorf("an older record of a batch that is replayed: %v", err)
	}
}

// TestSchemaFileIsPartOfTheSpec: an open batch is revised for a file that was
// changed, as for any other change of the spec; not for what a registry says.
func TestSchemaFileIsPartOfTheSpec(t *testing.T) {
	s := newShop(t)
	file := filepath.Join(s.dir, "order.avsc")
	hash := func(source string) string {
		spec, err := config.Parse("spec.yaml", fmt.Appendf(nil, `
name: shop
trigger: {interval: 0s}
checkpoint: "%[1]s/checkpoint"
catalogs: {lake: {type: sql, uri: "%[1]s/catalog.db", warehouse: "%[1]s/warehouse"}}
sources:
  orders: {kafka: {brokers: [%[2]q], topics: [orders], start: earliest}, format: avro, %[3]s}
sinks:
  all: {sql: SELECT id FROM orders, iceberg: {catalog: lake, table: a.orders}}
`, s.dir, s.cluster.ListenAddrs()[0], source), func(string) (string, bool) { return "", false })
		if err != nil {
			t.Fatal(err)
		}
		p, err := New(t.Context(), spec, Options{ReadOnly: true})
		if err != nil {
			t.Fatal(err)
		}
		defer p.Close()
		return p.sinkHash("all")
	}
	of := func(schema int) string {
		if err := os.WriteFile(file, []byte(orders[schema]), 0o600); err != nil {
			t.Fatal(err)
		}
		return hash(fmt.Sprintf("schema_file: %q", file))
	}
	if one, two, again := of(1), of(2), of(1); one == two || one != again {
		t.Errorf("the hashes are %s, %s with another file, and %s with the first one", one, two, again)
	}
	registry := fmt.Sprintf("registry: {url: %q}", s.registry.URL())
	one := hash(registry)
	s.register(2)
	if two := hash(registry); one != two {
		t.Error("a newer version in the registry is another spec")
	}
}

// TestSchemaInHeader: a record whose schema's GUID is in its header is read as any
// other, and a newer schema is noticed by it.
func TestSchemaInHeader(t *testing.T) {
	s := newShop(t)
	client, err := sr.NewClient(sr.URLs(s.registry.URL()))
	if err != nil {
		t.Fatal(err)
	}
	produce := func(version int, value []byte) {
		found, err := client.SchemaByVersion(t.Context(), "orders-value", version)
		if err != nil {
			t.Fatal(err)
		}
		id := uuid.MustParse(found.GUID)
		r := &kgo.Record{Value: value[5:], Headers: []kgo.RecordHeader{{Key: "__value_schema_id", Value: append([]byte{1}, id[:]...)}}}
		if err := s.producer.ProduceSync(t.Context(), r).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	r := s.run("widen", "SELECT * FROM orders", nil)
	produce(1, order(1, 1, 1, ""))
	if p := r.next(); p.Readers["orders"] != 1 {
		t.Fatalf("read with %v", p.Readers)
	}
	s.register(2)
	produce(2, order(2, 2, 1, "x"))
	if p := r.next(); p.Readers["orders"] != 2 {
		t.Fatalf("read with %v", p.Readers)
	}
	r.finish()
	if got, want := s.rows(), []string{`{"id":1,"n":1,"note":null}`, `{"id":2,"n":1,"note":"x"}`}; !slices.Equal(got, want) {
		t.Errorf("the table has %s, want %s", got, want)
	}
}
