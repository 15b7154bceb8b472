package pipeline

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/frazil-io/frazil/internal/batch"
	"github.com/frazil-io/frazil/internal/config"
	"github.com/frazil-io/frazil/internal/driver"
)

// routing is a pipeline of many topics into a table for each, over a broker in
// this process.
type routing struct {
	*testing.T
	dir    string
	broker string
	client *kgo.Client
	want   map[string][]int64 // by table
	next   int64
}

func newRouting(t *testing.T, topics ...string) *routing {
	t.Helper()
	c, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(2, topics...))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	r := &routing{T: t, dir: t.TempDir(), broker: c.ListenAddrs()[0], want: map[string][]int64{}}
	if r.client, err = kgo.NewClient(kgo.SeedBrokers(r.broker), kgo.RecordPartitioner(kgo.ManualPartitioner())); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.client.Close)
	return r
}

// topic makes one more.
func (r *routing) topic(name string) {
	r.Helper()
	if _, err := kadm.NewClient(r.client).CreateTopic(r.Context(), 2, 1, nil, name); err != nil {
		r.Fatal(err)
	}
}

// produce sends records to a topic, whose table should get them.
func (r *routing) produce(topic, table string, n int) {
	r.Helper()
	for range n {
		r.next++
		rec := &kgo.Record{Topic: topic, Partition: int32(r.next % 2), Value: fmt.Appendf(nil, `{"id":%d}`, r.next)}
		if err := r.client.ProduceSync(r.Context(), rec).FirstErr(); err != nil {
			r.Fatal(err)
		}
		r.want[table] = append(r.want[table], r.next)
	}
}

func (r *routing) spec(records int, more string) *config.Spec {
	r.Helper()
	spec, err := config.Parse("spec.yaml", fmt.Appendf(nil, `
name: routes
trigger: {available_now: true}
limits: {max_records: %[3]d}
checkpoint: "%[1]s/checkpoint"
catalogs: {lake: {type: sql, uri: "%[1]s/catalog.db", warehouse: "%[1]s/warehouse"}}
sources: {events: {kafka: {brokers: [%[2]q], topic_pattern: "^ev.*", start: earliest}, format: json, columns: id BIGINT, metadata: true}}
sinks: {raw: {sql: "SELECT id, _topic FROM events", iceberg: {catalog: lake, table: "raw.${_topic}"%[4]s}}}
`, r.dir, r.broker, records, more), func(string) (string, bool) { return "", false })
	if err != nil {
		r.Fatal(err)
	}
	return spec
}

// dying ends a process at the n-th message of a kind.
type dying struct {
	slog.Handler
	mu   sync.Mutex
	at   string
	left int
	kill context.CancelCauseFunc
}

var errDied = errors.New("killed")

func (d *dying) Enabled(context.Context, slog.Level) bool { return true }
func (d *dying) Handle(_ context.Context, m slog.Record) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if m.Message == d.at {
		if d.left--; d.left == 0 {
			d.kill(errDied)
		}
	}
	return nil
}

// held are the tables of a sink, to some of which no commit comes through.
type held struct {
	driver.Tables
	names []string
}

// Table implements driver.Tables.
func (h held) Table(name string) driver.Table {
	t := h.Tables.Table(name)
	if slices.Contains(h.names, name) {
		return heldTable{t}
	}
	return t
}

type heldTable struct{ driver.Table }

// Load implements driver.Table.
func (t heldTable) Load(ctx context.Context) (driver.View, error) {
	v, err := t.Table.Load(ctx)
	return heldView{v}, err
}

type heldView struct{ driver.View }

// Commit implements driver.View.
func (heldView) Commit(ctx context.Context, _ *batch.Stamp, _ driver.Files) (int64, error) {
	<-ctx.Done()
	return 0, context.Cause(ctx)
}

// run runs the pipeline, killed at the n-th message, if n is not 0. No commit comes
// through to tables that are held.
func (r *routing) run(spec *config.Spec, at string, n int, names ...string) error {
	r.Helper()
	ctx, kill := context.WithCancelCause(r.Context())
	defer kill(nil)
	rooms := func(rooms driver.Rooms) driver.Rooms {
		rooms.Sinks[0].Tables = held{rooms.Sinks[0].Tables, names}
		return rooms
	}
	p, err := New(ctx, spec, Options{Takeover: true, Rooms: rooms, Log: slog.New(&dying{Handler: slog.DiscardHandler, at: at, left: n, kill: kill})})
	if err != nil {
		return err
	}
	defer p.Close()
	return p.Run(ctx, r.Context())
}

// check compares the tables with what was produced.
func (r *routing) check(spec *config.Spec) {
	r.Helper()
	p, err := New(r.Context(), spec, Options{ReadOnly: true})
	if err != nil {
		r.Fatal(err)
	}
	defer p.Close()
	r.verified(p)
	r.replayed(p)
	names, err := p.TablesOf(r.Context(), "raw")
	if err != nil {
		r.Fatal(err)
	}
	for table := range r.want {
		if !slices.Contains(names, table) {
			r.Errorf("table %s is not listed in %v", table, names)
		}
	}
	for _, name := range names {
		ids, stamps := r.read(p, name)
		want := slices.Sorted(slices.Values(r.want[name]))
		if !slices.Equal(ids, want) {
			r.Errorf("table %s has %v, not %v", name, ids, want)
		}
		if stamps == 0 {
			r.Errorf("table %s has no stamp", name)
		}
	}
}

// verified audits tables and checkpoint.
func (r *routing) verified(p *Pipeline) {
	r.Helper()
	report, err := p.Verify(r.Context(), time.Now(), true)
	if err != nil {
		r.Fatal(err)
	}
	tables := len(r.want)
	if p.spec.DeadLetter != nil {
		tables++
	}
	if !report.Clean || len(report.Tables) != tables {
		r.Errorf("the audit says %+v", report)
	}
}

// replayed runs each logged batch again: every table that it touched gets the rows
// that it has.
func (r *routing) replayed(p *Pipeline) {
	r.Helper()
	l, err := p.loggedPlans(r.Context())
	if err != nil {
		r.Fatal(err)
	}
	rows := map[string]int64{}
	for i, plan := range l.plans {
		if i+1 < len(l.plans) && l.plans[i+1].Batch == plan.Batch {
			continue // it was revised
		}
		again, err := p.Replay(r.Context(), ReplayOptions{Batch: plan.Batch})
		if err != nil {
			r.Fatal(err)
		}
		if !again.Equal() {
			r.Errorf("batch %d: %+v", plan.Batch, again.Diffs)
		}
		for _, d := range again.Diffs {
			_, table := batch.SplitRoute(d.Sink)
			rows[table] += d.Committed
		}
	}
	for table, want := range r.want {
		if l.inc.Kind == batch.First && rows[table] != int64(len(want)) {
			r.Errorf("of table %s %d rows were compared, not %d", table, rows[table], len(want))
		}
	}
}

// read returns a table's ids, and how many stamps lead from its tag back, each of
// which begins where the one before ended.
func (r *routing) read(p *Pipeline, name string) (ids []int64, stamps int) {
	r.Helper()
	c, err := p.Catalog(r.Context(), "lake")
	if err != nil {
		r.Fatal(err)
	}
	t, err := c.Load(r.Context(), strings.Split(name, "."))
	if err != nil {
		r.Fatal(err)
	}
	_, rows, err := t.Scan().ToArrowRecords(c.Context(r.Context()))
	if err != nil {
		r.Fatal(err)
	}
	for rec, err := range rows {
		if err != nil {
			r.Fatal(err)
		}
		ids = append(ids, rec.Column(0).(*array.Int64).Int64Values()...)
		rec.Release()
	}
	slices.Sort(ids)
	var after *batch.Stamp
	for s := t.SnapshotByName(batch.Tag("routes", batch.StreamMain)); s != nil; {
		st, err := batch.ParseStamp(s.Summary.Properties)
		if st != nil && st.Stream != batch.StreamMain && s.ParentSnapshotID != nil { // of a replay
			s = t.Metadata().SnapshotByID(*s.ParentSnapshotID)
			continue
		}
		if st != nil && st.Stream != batch.StreamMain {
			break
		}
		stamps++
		if err != nil || st == nil || st.Route == nil || st.Route.Sink != "raw" {
			r.Fatalf("table %s: snapshot %d has the stamp %+v: %v", name, s.SnapshotID, st, err)
		}
		if after != nil {
			for tp, end := range st.End {
				if after.Previous != st.Hash() || after.Start[tp] != end || after.First != st.Last+1 || !reflect.DeepEqual(after.Total, st.Total.Plus(after.Counts)) {
					r.Errorf("table %s: stamp %s does not follow %s", name, after, st)
				}
			}
		}
		var offsets int64
		for tp, end := range st.End {
			offsets += end - st.Start[tp]
		}
		if st.Counts.Offsets != offsets || !st.Counts.Tally.Balanced() {
			r.Errorf("table %s: %s has %d offsets and counts %+v", name, st, offsets, st.Counts)
		}
		after = st
		if s.ParentSnapshotID == nil {
			break
		}
		s = t.Metadata().SnapshotByID(*s.ParentSnapshotID)
	}
	return ids, stamps
}

// TestRoutes: three topics, then four, into a table for each, through deaths
// between any two commits.
func TestRoutes(t *testing.T) {
	t.Parallel()
	r := newRouting(t, "ev.a", "ev-B", "evc", "other")
	for range 5 {
		r.produce("ev.a", "raw.ev_a", 9)
		r.produce("ev-B", "raw.ev_b", 4)
	}
	r.produce("evc", "raw.evc", 3)
	spec := r.spec(12, "")
	if err := r.run(spec, "commit sent", 1); !errors.Is(err, errDied) {
		t.Fatalf("it ends with %v", err)
	}
	for n := 1; n <= 5; n++ { // each time one commit further
		if err := r.run(spec, "commit applied", n); !errors.Is(err, errDied) && err != nil {
			t.Fatalf("it ends with %v", err)
		}
		r.produce("ev.a", "raw.ev_a", 2)
	}
	r.topic("ev4")
	r.produce("ev4", "raw.ev4", 5)
	if err := r.run(spec, "files written", 2); !errors.Is(err, errDied) && err != nil {
		t.Fatalf("it ends with %v", err)
	}
	if err := r.run(spec, "", 0); err != nil {
		t.Fatal(err)
	}
	r.check(spec)
}

// poison sends records to a topic that cannot be decoded, or on which SQL fails,
// and returns what their dead letters have.
func (r *routing) poison(topic string) (letters []string) {
	r.Helper()
	for value, of := range map[string]string{`{"id":`: "", `{"id":-1}`: "raw"} {
		rec := &kgo.Record{Topic: topic, Value: []byte(value)}
		if err := r.client.ProduceSync(r.Context(), rec).FirstErr(); err != nil {
			r.Fatal(err)
		}
		letters = append(letters, fmt.Sprintf("%s|%d|%s", topic, rec.Offset, of))
	}
	return letters
}

// lettered is the spec with a table of dead letters, and SQL that fails on some
// records.
func (r *routing) lettered(records int) *config.Spec {
	r.Helper()
	const sql = "SELECT CASE WHEN id < 0 THEN 'x' ELSE id::VARCHAR END::BIGINT AS id, _topic FROM events"
	spec, err := config.Parse("spec.yaml", fmt.Appendf(nil, `
name: routes
checkpoint: "%[1]s/checkpoint"
catalogs: {lake: {type: sql, uri: "%[1]s/catalog.db", warehouse: "%[1]s/warehouse"}}
sources: {events: {kafka: {brokers: [%[2]q], topic_pattern: "^ev.*", start: earliest}, format: json, columns: id BIGINT, metadata: true}}
sinks: {raw: {sql: "%[3]s", iceberg: {catalog: lake, table: "raw.${_topic}"}}}
trigger: {available_now: true}
limits: {max_records: %[4]d}
dead_letter: {iceberg: {catalog: lake, table: dead.letters}, max_fraction: 1}
`, r.dir, r.broker, sql, records), func(string) (string, bool) { return "", false })
	if err != nil {
		r.Fatal(err)
	}
	return spec
}

// TestRoutesLetters: dead letters in a table beside the tables of many topics,
// through deaths between any two commits: each record is in its table, or a letter,
// once. One topic has nothing but poison, and no table.
func TestRoutesLetters(t *testing.T) {
	t.Parallel()
	r := newRouting(t, "ev.a", "ev-B", "evil")
	spec := r.lettered(12)
	var letters []string
	for n := 1; n <= 12; n++ {
		r.produce("ev.a", "raw.ev_a", 3)
		letters = append(letters, r.poison("evil")...)
		if n > 2 {
			letters = append(letters, r.poison("ev.a")...)
			r.produce("ev-B", "raw.ev_b", 1)
		}
		at, left := "commit applied", 1+n%4
		if n%3 == 0 {
			at = "commit sent"
		}
		if err := r.run(spec, at, left); !errors.Is(err, errDied) && !errors.Is(err, context.Canceled) && err != nil {
			t.Fatalf("it ends with %v", err)
		}
	}
	if err := r.run(spec, "", 0); err != nil {
		t.Fatal(err)
	}
	r.check(spec)
	p, err := New(t.Context(), spec, Options{ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	slices.Sort(letters)
	got := lines(t, p, `SELECT concat_ws('|', topic, "offset", coalesce(sink, '')) FROM dead_letters`)
	if slices.Sort(got); !slices.Equal(got, letters) {
		t.Errorf("the dead letters are\n%v\nnot\n%v", got, letters)
	}
}

// TestRoutesRecover: the checkpoint is lost while a batch is in one of its tables.
func TestRoutesRecover(t *testing.T) {
	t.Parallel()
	for n := 1; n <= 3; n++ {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			t.Parallel()
			r := newRouting(t, "ev.a", "ev-B", "evc")
			spec := r.spec(100, "")
			r.produce("ev.a", "raw.ev_a", 3)
			if err := r.run(spec, "", 0); err != nil {
				t.Fatal(err)
			}
			r.produce("ev.a", "raw.ev_a", 4)
			r.produce("ev-B", "raw.ev_b", 5)
			r.produce("evc", "raw.evc", 6)
			at, in, names := "commit sent", 3, []string{"raw.ev_a", "raw.ev_b", "raw.evc"}
			if n > 1 { // it is in n-1 of its tables
				at, in, names = "commit applied", n-1, names[n-1:]
			}
			if err := r.run(spec, at, in, names...); !errors.Is(err, errDied) {
				t.Fatalf("it ends with %v", err)
			}
			if err := os.RemoveAll(filepath.Join(r.dir, "checkpoint")); err != nil {
				t.Fatal(err)
			}
			r.produce("ev-B", "raw.ev_b", 2)
			if err := r.run(spec, "", 0); err != nil {
				t.Fatal(err)
			}
			r.check(spec)
		})
	}
}

// TestRoutesLimits: what a row may not choose.
func TestRoutesLimits(t *testing.T) {
	t.Parallel()
	r := newRouting(t, "ev1", "ev2", "ev3")
	for i, topic := range []string{"ev1", "ev2", "ev3"} {
		r.produce(topic, "raw."+topic, i+1)
	}
	spec := r.spec(100, ", max_tables: 2")
	if err := r.run(spec, "", 0); !errors.Is(err, batch.ErrInvalid) || !strings.Contains(err.Error(), "max_tables") {
		t.Fatalf("it ends with %v", err)
	}
	spec = r.spec(100, ", max_tables: 3")
	if err := r.run(spec, "", 0); err != nil {
		t.Fatal(err)
	}
	r.check(spec)
}

// TestRoutesReplay: another spec's rows differ in the tables where they do, and a
// table that the plan does not name is named. A branch of each table takes them.
func TestRoutesReplay(t *testing.T) {
	t.Parallel()
	r := newRouting(t, "ev1", "ev2")
	r.produce("ev1", "raw.ev1", 3)
	r.produce("ev2", "raw.ev2", 4)
	if err := r.run(r.spec(100, ""), "", 0); err != nil {
		t.Fatal(err)
	}
	other := r.spec(100, "")
	raw := other.Sinks.By["raw"]
	raw.SQL = "SELECT id, CASE WHEN id = 2 THEN 'ev9' ELSE _topic END AS _topic FROM events"
	other.Sinks.By["raw"] = raw
	p, err := New(t.Context(), other, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if _, err := p.Replay(t.Context(), ReplayOptions{}); !errors.Is(err, batch.ErrInvalid) {
		t.Fatalf("it ends with %v", err)
	}
	again, err := p.Replay(t.Context(), ReplayOptions{Today: true, Branch: "again"})
	if err != nil {
		t.Fatal(err)
	}
	got := ""
	for _, d := range again.Diffs {
		got += fmt.Sprintf("%s %d/%d +%d -%d\n", d.Sink, d.Replayed, d.Committed, d.OnlyReplayed, d.OnlyCommitted)
	}
	if want := "raw/raw.ev1 2/3 +0 -1\nraw/raw.ev2 4/4 +0 -0\nraw/raw.ev9 1/0 +1 -0\n"; got != want || again.Equal() {
		t.Errorf("the replay says\n%snot\n%s", got, want)
	}
	if len(again.Branches) != 2 || again.Branches["raw/raw.ev1"] == 0 {
		t.Errorf("branches %v", again.Branches)
	}
}

// TestRoutesWait: a record is there when its batch is in all of its tables, and the
// tables say so where the batch has no record.
func TestRoutesWait(t *testing.T) {
	t.Parallel()
	r := newRouting(t, "ev1", "ev2")
	r.produce("ev1", "raw.ev1", 2)
	r.produce("ev2", "raw.ev2", 2)
	spec := r.spec(100, "")
	p, err := New(t.Context(), spec, Options{ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	until, err := p.UntilOffset(t.Context(), "ev1", 1, 1)
	if err != nil {
		t.Fatal(err)
	}
	look := func() Waited {
		t.Helper()
		all, err := p.waited(t.Context(), until)
		if err != nil {
			t.Fatal(err)
		}
		return all[0]
	}
	if w := look(); w.Done {
		t.Fatalf("before it runs: %+v", w)
	}
	if err := r.run(spec, "", 0); err != nil {
		t.Fatal(err)
	}
	r.produce("ev1", "raw.ev1", 2)
	r.produce("ev2", "raw.ev2", 2)
	if err := r.run(spec, "commit applied", 1, "raw.ev2"); err == nil {
		t.Fatal("it was not killed")
	}
	if w := look(); w.Done || !strings.Contains(w.State, "stands at offset 1 of") {
		t.Fatalf("with one table of two: %+v", w)
	}
	if err := r.run(spec, "", 0); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if w := look(); !w.Done || w.Batch == nil || *w.Batch != 1 || !strings.Contains(w.State, "raw.ev1, raw.ev2") {
			t.Fatalf("at the end: %+v", w)
		}
		if err := os.RemoveAll(filepath.Join(r.dir, "checkpoint", "routes", "commits")); err != nil {
			t.Fatal(err)
		}
	}
}

// TestRoutesOddNames: whatever a value is, its row is in the one table that the value
// names, or its record is a dead letter that says why.
func TestRoutesOddNames(t *testing.T) {
	t.Parallel()
	r := newRouting(t, "ev")
	spec, err := config.Parse("spec.yaml", fmt.Appendf(nil, `
name: routes
checkpoint: "%[1]s/checkpoint"
catalogs: {lake: {type: sql, uri: "%[1]s/catalog.db", warehouse: "%[1]s/warehouse"}}
sources: {events: {kafka: {brokers: [%[2]q], topics: [ev], start: earliest}, format: json, columns: "id BIGINT, kind VARCHAR"}}
sinks: {raw: {sql: "SELECT * FROM events", iceberg: {catalog: lake, table: "raw.of_${kind}"}}}
trigger: {available_now: true}
limits: {max_records: 7}
dead_letter: {iceberg: {catalog: lake, table: dead.letters}, max_fraction: 1}
`, r.dir, r.broker), func(string) (string, bool) { return "", false })
	if err != nil {
		t.Fatal(err)
	}
	long := strings.Repeat("x", 125)
	letters := 0
	for _, value := range []struct{ json, table string }{
		{`"orders"`, "orders"},
		{`"Orders"`, "orders"},
		{`null`, ""},
		{`""`, ""},
		{`"../../etc/passwd"`, "______etc_passwd"},
		{`".."`, "__"},
		{`"."`, "_"},
		{`"a/b"`, "a_b"},
		{`"a.b"`, "a_b"},
		{`"a\\b"`, "a_b"},
		{`"\u0000"`, "_"},
		{`"\"; DROP TABLE t; --"`, "___drop_table_t____"},
		{`"été"`, "_t_"},
		{`"日本"`, "__"},
		{`"👩‍👩‍👧"`, "_____"},
		{`" "`, "_"},
		{`"${kind}"`, "__kind_"},
		{`"CON"`, "con"},
		{`"tables"`, "tables"},
		{`"` + long + `"`, long},
		{`"` + long + `y"`, ""},
		{`"` + strings.Repeat("é", 125) + `"`, strings.Repeat("_", 125)},
		{`"` + strings.Repeat("é", 126) + `"`, ""},
		{`"` + strings.Repeat("z", 300) + `"`, ""},
		{`"2024"`, "2024"},
	} {
		r.next++
		rec := &kgo.Record{Topic: "ev", Partition: int32(r.next % 2), Value: fmt.Appendf(nil, `{"id":%d,"kind":%s}`, r.next, value.json)}
		if err := r.client.ProduceSync(t.Context(), rec).FirstErr(); err != nil {
			t.Fatal(err)
		}
		if value.table == "" {
			letters++
		} else {
			r.want["raw.of_"+value.table] = append(r.want["raw.of_"+value.table], r.next)
		}
	}
	for n := 1; n < 4; n++ {
		if err := r.run(spec, "commit applied", n); err != nil && !errors.Is(err, errDied) && !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
	}
	if err := r.run(spec, "", 0); err != nil {
		t.Fatal(err)
	}
	r.check(spec)
	p, err := New(t.Context(), spec, Options{ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	got := lines(t, p, "SELECT concat_ws(' ', code, reason) FROM dead_letters")
	if len(got) != letters || !strings.HasPrefix(got[0], `constraint rule chooses_table failed: "kind"::VARCHAR <> ''`) {
		t.Errorf("%d dead letters, not %d: %s", len(got), letters, got)
	}
}
