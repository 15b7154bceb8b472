package pipeline

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/frazil-io/frazil/internal/batch"
	"github.com/frazil-io/frazil/internal/config"
	"github.com/frazil-io/frazil/internal/driver"
	"github.com/frazil-io/frazil/internal/query"
)

// poison are records that cannot be used: their value, the sinks that reject it,
// "" for the source, and the code.
var poison = []struct{ value, sinks, code string }{
	{`{"id":%d,`, "", "decode"},
	{`not json %d`, "", "decode"},
	{`[%d]`, "", "decode"},
	{`{"id":"%d","n":"1"}`, "", "decode"},
	{`{"id":%d99999999999999999999,"n":"1"}`, "", "decode"},
	{`{"id":%d,"n":1}`, "", "decode"},
	{`{"id":%d,"id":2,"n":"1"}`, "", "decode"},
	{"{\"id\":%d,\"n\":\"\xff\"}", "", "decode"},
	{`{"id":%d,"n":"1"} x`, "", "decode"},
	{`{"id":%d.5,"n":"1"}`, "", "decode"},
	{`{"id":%d,"n":"x"}`, "numbers", "cast"},
	{`{"id":%d,"n":"99999999999"}`, "numbers", "cast"},
	{`{"id":%d,"n":"-1"}`, "roots", "cast"},
	{`{"id":%d,"n":"y"}`, "numbers", "cast"},
}

// poisoned is a topic of which every 50th record is bad.
type poisoned struct {
	brokers []string
	client  *kgo.Client
	letters []string            // offset|sink|code|value
	rows    map[string][]string // ids, by sink
}

const poisonedRecords = 3000

func newPoisoned(t *testing.T) *poisoned {
	t.Helper()
	c, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(1, "things", "bad"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	p := &poisoned{brokers: c.ListenAddrs(), rows: map[string][]string{}}
	if p.client, err = kgo.NewClient(kgo.SeedBrokers(p.brokers...), kgo.ConsumeTopics("bad"), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart())); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.client.Close)
	var records []*kgo.Record
	for i := range poisonedRecords {
		value, bad := fmt.Sprintf(`{"id":%d,"n":"%d"}`, i, i), ""
		if i%50 == 49 {
			one := poison[i/50%len(poison)]
			value, bad = fmt.Sprintf(one.value, i), one.sinks
			p.letters = append(p.letters, fmt.Sprintf("%d|%s|%s|%x", i, one.sinks, one.code, value))
			if one.sinks == "" {
				bad = "numbers roots"
			}
		}
		for _, sink := range []string{"numbers", "roots"} {
			if !strings.Contains(bad, sink) {
				p.rows[sink] = append(p.rows[sink], fmt.Sprint(i))
			}
		}
		records = append(records, &kgo.Record{Topic: "things", Value: []byte(value), Key: fmt.Append(nil, "key", i), Headers: []kgo.RecordHeader{{Key: "h", Value: fmt.Append(nil, i)}}})
	}
	if err := p.client.ProduceSync(t.Context(), records...).FirstErr(); err != nil {
		t.Fatal(err)
	}
	return p
}

// spec reads the topic into two tables. more are further keys.
func (p *poisoned) spec(t *testing.T, dir, more string) *config.Spec {
	t.Helper()
	spec, err := config.Parse("spec.yaml", fmt.Appendf(nil, `
name: things
trigger: {available_now: true}
limits: {max_records: 400}
checkpoint: %[1]q
catalogs: {lake: {type: sql, uri: "%[1]s/catalog.db", warehouse: "%[1]s/warehouse"}}
sources: {things: {kafka: {brokers: [%[2]q], topics: [things], start: earliest}, format: json, columns: "id BIGINT, n VARCHAR"}}
sinks:
  numbers: {sql: "SELECT id, n::INTEGER AS n FROM things", iceberg: {catalog: lake, table: t.numbers}}
  roots: {sql: "SELECT id, sqrt(TRY_CAST(n AS DOUBLE)) AS root FROM things", iceberg: {catalog: lake, table: t.roots}}
%[3]s`, dir, p.brokers[0], more), func(string) (string, bool) { return "", false })
	if err != nil {
		t.Fatal(err)
	}
	return spec
}

// lines runs SQL over the tables.
func lines(t *testing.T, p *Pipeline, sql string) []string {
	t.Helper()
	var open []query.Table
	for _, name := range p.spec.Sinks.Names {
		i := p.spec.Sinks.By[name].Iceberg
		c, err := p.Catalog(t.Context(), i.Catalog)
		if err != nil {
			t.Fatal(err)
		}
		open = append(open, query.Table{Alias: name, Ident: strings.Split(i.Table, "."), Branch: "main", Catalog: c})
	}
	e, err := query.Open(t.Context(), open, query.Options{Cache: t.TempDir(), MemoryBytes: 128 << 20, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	var all []string
	err = e.Query(t.Context(), sql, func(*arrow.Schema) error { return nil }, func(rows arrow.RecordBatch) error {
		for i := range int(rows.NumRows()) {
			all = append(all, strings.Clone(rows.Column(0).(*array.String).Value(i)))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// check compares the tables with what was produced.
func (p *poisoned) check(t *testing.T, pl *Pipeline) {
	t.Helper()
	for sink, want := range p.rows {
		if got := lines(t, pl, "SELECT id::VARCHAR FROM "+sink+" ORDER BY id"); !slices.Equal(got, want) {
			t.Errorf("table %s has %d rows, want %d", sink, len(got), len(want))
		}
	}
	got := lines(t, pl, `SELECT concat_ws('|', "offset", coalesce(sink, ''), code, lower(hex(value))) FROM dead_letters
		WHERE topic = 'things' AND partition = 0 AND source = 'things' AND pipeline = 'things' AND batch >= 0 AND length(reason) > 5
		AND key = encode('key' || "offset") AND headers[1].key = 'h' AND headers[1].value = encode(("offset")::VARCHAR) AND "timestamp" <= now() ORDER BY "offset"`)
	if !slices.Equal(got, p.letters) {
		t.Errorf("dead letters\n  %s\nwant\n  %s", strings.Join(got, "\n  "), strings.Join(p.letters, "\n  "))
	}
}

const toTable = `dead_letter: {iceberg: {catalog: lake, table: t.bad}, max_fraction: 0.5}`

// TestDeadLetters: every good row is in its table, and every bad record a letter
// with its reason, wherever the process dies.
func TestDeadLetters(t *testing.T) {
	p := newPoisoned(t)
	seed := rand.Uint64()
	r := rand.New(rand.NewPCG(seed, 1))
	dir := t.TempDir()
	deaths := 0
	for ; ; deaths++ {
		if deaths > 500 {
			t.Fatalf("seed %d: it never ends", seed)
		}
		c := &killer{left: 2 + r.IntN(20)}
		pl, err := New(t.Context(), p.spec(t, dir, toTable), Options{Rooms: c.rooms})
		if err != nil {
			t.Fatal(err)
		}
		err = pl.Run(t.Context(), t.Context())
		if err != nil && !errors.Is(err, errKilled) {
			t.Fatalf("seed %d: %v", seed, err)
		}
		if err == nil {
			p.check(t, pl)
			p.audit(t, pl)
			p.deep(t, pl)
			pl.Close()
			break
		}
		pl.Close()
	}
	if t.Failed() || deaths < 5 {
		t.Errorf("seed %d, %d deaths", seed, deaths)
	}
}

// deep runs all batches again: they give the same rows and the same dead letters.
func (p *poisoned) deep(t *testing.T, pl *Pipeline) {
	t.Helper()
	report, err := pl.Verify(t.Context(), time.Now(), true)
	if err != nil {
		t.Fatal(err)
	}
	for _, table := range report.Tables {
		for _, f := range table.Findings {
			t.Errorf("%s: %s: %.300s", table.Table, f.Where, f.What)
		}
	}
}

// audit holds the stamps' totals together.
func (p *poisoned) audit(t *testing.T, pl *Pipeline) {
	t.Helper()
	totals := map[string]batch.Counts{}
	for _, s := range pl.spec.Sinks.Names {
		table, err := pl.Table(t.Context(), s)
		if err != nil {
			t.Fatal(err)
		}
		v, err := table.Load(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		totals[s] = v.Stamp().Total
		if c := totals[s]; !c.Balanced() || c.Data != poisonedRecords {
			t.Errorf("%s: %+v", s, c)
		}
	}
	n, d := totals["numbers"], totals["dead_letters"]
	if n.DeadLettered != n.Bad.Decode || n.Letters != n.Rejected || n.With != n.Written || d.Letters != int64(len(p.letters)) || d.Written != d.Letters ||
		d.Letters != n.DeadLettered+n.Letters+totals["roots"].Letters {
		t.Errorf("%+v", totals)
	}
}

// TestOnBadRecord: skip counts, fail stops, and neither makes a letter.
func TestOnBadRecord(t *testing.T) {
	p := newPoisoned(t)
	for mode, want := range map[string]error{"skip": nil, "fail": batch.ErrInvalid} {
		spec := p.spec(t, t.TempDir(), toTable)
		src := spec.Sources.By["things"]
		src.OnBadRecord = mode
		spec.Sources.By["things"] = src
		pl, err := New(t.Context(), spec, Options{})
		if err != nil {
			t.Fatal(err)
		}
		defer pl.Close()
		if err := pl.Run(t.Context(), t.Context()); !errors.Is(err, want) {
			t.Fatalf("%s: %v", mode, err)
		} else if want != nil {
			continue
		}
		for sink, rows := range p.rows {
			if got := lines(t, pl, "SELECT id::VARCHAR FROM "+sink+" ORDER BY id"); !slices.Equal(got, rows) {
				t.Errorf("skip: table %s has %d rows, want %d", sink, len(got), len(rows))
			}
		}
		if got := lines(t, pl, "SELECT reason FROM dead_letters"); len(got) > 0 {
			t.Errorf("skip: %d dead letters", len(got))
		}
	}
}

// TestMaxFraction: too many bad records stop before any table has the batch, with
// the commonest reasons; with a higher limit the batch goes on.
func TestMaxFraction(t *testing.T) {
	p := newPoisoned(t)
	dir := t.TempDir()
	run := func(fraction string) (*Pipeline, error) {
		pl, err := New(t.Context(), p.spec(t, dir, strings.Replace(toTable, "0.5", fraction, 1)), Options{})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(pl.Close)
		return pl, pl.Run(t.Context(), t.Context())
	}
	for range 2 { // a start without a change stops again
		pl, err := run("0.01")
		if !errors.Is(err, batch.ErrInvalid) {
			t.Fatal(err)
		}
		for _, want := range []string{
			"24 of the last 1200 records became dead letters, and dead_letter.max_fraction is 0.01. Nothing of batch 2 is committed.",
			" × decode in source things, such as offset 1049 of things/0: field \"id\" is there twice", "3 × other reasons", "; its value is \"",
		} {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%v\nlacks %q", err, want)
			}
		}
		if got := lines(t, pl, "SELECT count(*)::VARCHAR || ' ' || max(id) FROM roots"); !slices.Equal(got, []string{"787 798"}) {
			t.Errorf("table roots: %v", got)
		}
	}
	pl, err := run("0.03")
	if err != nil {
		t.Fatal(err)
	}
	p.check(t, pl)
}

// TestDeadLetterTopic: a topic has every letter at least once.
func TestDeadLetterTopic(t *testing.T) {
	p := newPoisoned(t)
	pl, err := New(t.Context(), p.spec(t, t.TempDir(), fmt.Sprintf("dead_letter: {kafka: {brokers: [%q], topic: bad}, max_fraction: 0.5}", p.brokers[0])), Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer pl.Close()
	if err := pl.Run(t.Context(), t.Context()); err != nil {
		t.Fatal(err)
	}
	for sink, rows := range p.rows {
		if got := lines(t, pl, "SELECT id::VARCHAR FROM "+sink+" ORDER BY id"); !slices.Equal(got, rows) {
			t.Errorf("table %s has %d rows, want %d", sink, len(got), len(rows))
		}
	}
	got := map[string]bool{}
	for len(got) < len(p.letters) {
		f := p.client.PollFetches(t.Context())
		if err := f.Err(); err != nil {
			t.Fatal(err)
		}
		f.EachRecord(func(r *kgo.Record) {
			h := map[string]string{}
			for _, one := range r.Headers {
				h[one.Key] = string(one.Value)
			}
			if string(r.Key) != "key"+h["h"] || h["frazil.topic"] != "things" || h["frazil.partition"] != "0" || h["frazil.pipeline"] != "things" || h["frazil.reason"] == "" || h["frazil.batch"] == "" {
				t.Errorf("letter %s: %v", r.Value, h)
			}
			got[fmt.Sprintf("%s|%s|%s|%x", h["frazil.offset"], h["frazil.sink"], h["frazil.code"], r.Value)] = true
		})
	}
	for _, l := range p.letters {
		if !got[l] {
			t.Errorf("no letter %s", l)
		}
	}
}

var errKilled = errors.New("killed")

// killer ends a process at one of its calls: from then on nothing is answered.
type killer struct {
	left   int
	before string // the sink before whose commit it ends
}

func (k *killer) step() error {
	if k.left--; k.left <= 0 {
		return errKilled
	}
	return nil
}

// do makes a call that changes something: the end may come before it, or before
// its answer.
func (k *killer) do(call func() error) error {
	if err := k.step(); err != nil {
		return err
	}
	if err := call(); err != nil {
		return err
	}
	return k.step()
}

func (k *killer) rooms(r driver.Rooms) driver.Rooms {
	r.Checkpoint = killedCheckpoint{r.Checkpoint, k}
	r.Executor = killedExecutor{r.Executor, k}
	r.Tasks = inTurn{}
	for i := range r.Sinks {
		r.Sinks[i].Table = killedTable{r.Sinks[i].Table, r.Sinks[i].Name, k}
	}
	return r
}

// inTurn runs what would run beside the driver when it is waited for.
type inTurn struct{ driver.Goroutines }

// Go implements driver.Tasks.
func (inTurn) Go(f func()) (wait func()) {
	f()
	return func() {}
}

type killedCheckpoint struct {
	driver.Checkpoint
	k *killer
}

// Append implements driver.Checkpoint.
func (c killedCheckpoint) Append(ctx context.Context, p *batch.Plan) error {
	return c.k.do(func() error { return c.Checkpoint.Append(ctx, p) })
}

// Release implements driver.Checkpoint: who dies releases nothing.
func (c killedCheckpoint) Release(ctx context.Context, w batch.Writer) error {
	if c.k.left <= 0 {
		return errKilled
	}
	return c.Checkpoint.Release(ctx, w)
}

type killedExecutor struct {
	driver.Executor
	k *killer
}

// Execute implements driver.Executor.
func (e killedExecutor) Execute(ctx context.Context, job batch.Job, read func(emit, letters func(arrow.RecordBatch) error) error, write func(string, arrow.RecordBatch) error) (r map[string]batch.Result, err error) {
	err = e.k.do(func() error { r, err = e.Executor.Execute(ctx, job, read, write); return err })
	return r, err
}

type killedTable struct {
	driver.Table
	sink string
	k    *killer
}

// Load implements driver.Table.
func (t killedTable) Load(ctx context.Context) (driver.View, error) {
	if t.k.left <= 0 {
		return nil, errKilled
	}
	v, err := t.Table.Load(ctx)
	return killedView{v, t.sink, t.k}, err
}

type killedView struct {
	driver.View
	sink string
	k    *killer
}

// Commit implements driver.View.
func (v killedView) Commit(ctx context.Context, s *batch.Stamp, f driver.Files) (id int64, err error) {
	if v.sink == v.k.before {
		v.k.left = 0
	}
	err = v.k.do(func() error { id, err = v.View.Commit(ctx, s, f); return err })
	return id, err
}

// Stage implements driver.View.
func (v killedView) Stage(ctx context.Context, s *batch.Stamp, f driver.Files) (id int64, err error) {
	err = v.k.do(func() error { id, err = v.View.Stage(ctx, s, f); return err })
	return id, err
}
