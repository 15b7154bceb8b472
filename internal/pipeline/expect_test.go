package pipeline

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/frazil-io/frazil/internal/batch"
	"github.com/frazil-io/frazil/internal/config"
)

// ruled is a topic whose records fail the rules of a source and of its sinks.
type ruled struct {
	*testing.T
	brokers []string
	dir     string
	rows    map[string][]string         // by sink
	letters []string                    // offset|sink|code|rule
	rules   map[string]map[string]int64 // by sink
}

const (
	ruledRecords = 1200
	ruledBatch   = 350
)

func newRuled(t *testing.T) *ruled {
	t.Helper()
	c, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(1, "events"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	client, err := kgo.NewClient(kgo.SeedBrokers(c.ListenAddrs()...), kgo.DefaultProduceTopic("events"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	r := &ruled{T: t, brokers: c.ListenAddrs(), dir: t.TempDir(), rows: map[string][]string{}, rules: map[string]map[string]int64{"prices": {}, "labels": {}, "ids": {}}}
	// A kind that has a label, one with two of which one is missing, and one with none.
	kinds := "kind,label\na,A\nb,B\nb,\n"
	if err := os.WriteFile(filepath.Join(r.dir, "kinds.csv"), []byte(kinds), 0o600); err != nil {
		t.Fatal(err)
	}
	var records []*kgo.Record
	for i := range ruledRecords {
		records = append(records, &kgo.Record{Value: []byte(r.record(i)), Key: fmt.Append(nil, "key", i), Headers: []kgo.RecordHeader{{Key: "h", Value: fmt.Append(nil, i)}}})
	}
	if err := client.ProduceSync(t.Context(), records...).FirstErr(); err != nil {
		t.Fatal(err)
	}
	return r
}

// record is the record at an offset; what must become of it is noted.
func (r *ruled) record(i int) string {
	letter := func(sink, code, rule string) {
		r.letters = append(r.letters, fmt.Sprintf("%d|%s|%s|%s", i, sink, code, rule))
	}
	everywhere := func(rule string) {
		for sink := range r.rules {
			r.rules[sink]["events."+rule]++
		}
	}
	switch i % 30 {
	case 3:
		letter("", "constraint", "has_kind")
		everywhere("has_kind")
		return fmt.Sprintf(`{"id":%d,"prices":[1,-1]}`, i)
	case 7:
		everywhere("no_test")
		return fmt.Sprintf(`{"id":%d,"kind":"test","prices":[-1]}`, i)
	case 11:
		letter("", "cast", "")
		return fmt.Sprintf(`{"id":%d,"kind":"error","prices":[-1]}`, i)
	}
	kind, prices := string('a'+rune(i%3)), fmt.Sprintf("1,%d", i%500+1)
	switch i % 20 {
	case 4: // it makes no row
		prices = ""
	case 5: // its rows fail two rules, of which the first counts
		prices = "1,4000,2,-3"
		r.rules["prices"]["positive"]++
		letter("prices", "constraint", "positive")
	case 8:
		prices = "null,6"
		r.rules["prices"]["positive"]++
		letter("prices", "constraint", "positive")
	case 9:
		prices = "5,2000"
		r.rules["prices"]["small"]++
	default:
		r.rows["prices"] = append(r.rows["prices"], fmt.Sprintf("%d|1", i), fmt.Sprintf("%d|%d", i, i%500+1))
	}
	r.rows["ids"] = append(r.rows["ids"], fmt.Sprint(i))
	switch kind {
	case "a":
		r.rows["labels"] = append(r.rows["labels"], fmt.Sprintf("%d|A", i))
	case "b": // one of its two rows has no label
		r.rules["labels"]["labelled"]++
		letter("labels", "constraint", "labelled")
	}
	return fmt.Sprintf(`{"id":%d,"kind":%q,"prices":[%s]}`, i, kind, prices)
}

// ruledSpec has rules of source and sinks; change may replace parts of it.
const ruledSpec = `
name: ruled
trigger: {available_now: true}
limits: {max_records: 350}
checkpoint: %[1]q
catalogs: {lake: {type: sql, uri: "%[1]s/catalog.db", warehouse: "%[1]s/warehouse"}}
sources:
  events:
    kafka: {brokers: [%[2]q], topics: [events], start: earliest}
    format: json
    columns: "id BIGINT, kind VARCHAR, prices BIGINT[]"
    expect:
      has_kind: {sql: "kind IS NOT NULL"}
      no_test: {sql: "kind <> 'test'", on_fail: drop}
      no_error: {sql: "if(kind = 'error', error('as said'), true)"}
tables: {kinds: {csv: {path: "%[1]s/kinds.csv"}}}
sinks:
  prices:
    sql: SELECT id, unnest(prices) AS price FROM events
    expect: {positive: {sql: "price > 0"}, small: {sql: price < 1000, on_fail: drop}}
    iceberg: {catalog: lake, table: t.prices}
  labels:
    sql: SELECT id, label FROM events JOIN kinds USING (kind)
    expect: {labelled: {sql: "label IS NOT NULL"}}
    iceberg: {catalog: lake, table: t.labels}
  ids: {sql: SELECT id FROM events, iceberg: {catalog: lake, table: t.ids}}
dead_letter: {iceberg: {catalog: lake, table: t.bad}, max_fraction: 0.9}
`

// spec replaces each first text by the second.
func (r *ruled) spec(change ...string) *config.Spec {
	r.Helper()
	text := fmt.Sprintf(ruledSpec, r.dir, r.brokers[0])
	for i := 0; i < len(change); i += 2 {
		if !strings.Contains(text, change[i]) {
			r.Fatalf("%q is not in the spec", change[i])
		}
		text = strings.Replace(text, change[i], change[i+1], 1)
	}
	spec, err := config.Parse("spec.yaml", []byte(text), func(string) (string, bool) { return "", false })
	if err != nil {
		r.Fatal(err)
	}
	return spec
}

// open opens the pipeline; k, if not nil, ends it.
func (r *ruled) open(spec *config.Spec, k *killer) *Pipeline {
	r.Helper()
	o := Options{Takeover: true}
	if k != nil {
		o.Rooms = k.rooms
	}
	p, err := New(r.Context(), spec, o)
	if err != nil {
		r.Fatal(err)
	}
	r.Cleanup(p.Close)
	return p
}

func (r *ruled) run(spec *config.Spec, k *killer) (*Pipeline, error) {
	r.Helper()
	p := r.open(spec, k)
	return p, p.Run(r.Context(), r.Context())
}

// check compares tables, dead letters and stamps with what must be there.
func (r *ruled) check(p *Pipeline) {
	r.Helper()
	for sink, columns := range map[string]string{"prices": "id, price", "labels": "id, label", "ids": "id"} {
		got := lines(r.T, p, fmt.Sprintf("SELECT concat_ws('|', %s) FROM %s ORDER BY %s", columns, sink, columns))
		if !slices.Equal(got, r.rows[sink]) {
			r.Errorf("table %s has %d rows, want %d", sink, len(got), len(r.rows[sink]))
		}
	}
	got := lines(r.T, p, `SELECT concat_ws('|', "offset", coalesce(sink, ''), code, regexp_extract(reason, '^rule (\w+) failed: ', 1)) FROM dead_letters
		WHERE topic = 'events' AND key = encode('key' || "offset") AND headers[1].value = encode(("offset")::VARCHAR) AND json_extract(decode(value), '$.id') = "offset"
		AND (code = 'constraint' OR reason LIKE '%as said%') ORDER BY "offset", sink DESC`)
	if !slices.Equal(got, r.letters) {
		r.Errorf("dead letters\n  %s\nwant\n  %s", strings.Join(got, "\n  "), strings.Join(r.letters, "\n  "))
	}
	for sink, rules := range r.rules {
		c := r.total(p, sink)
		var failed int64
		for _, n := range rules {
			failed += n
		}
		if !maps.Equal(c.Rules, rules) || !c.Balanced() || c.Data != ruledRecords || c.Dropped+c.RejectedBy.Constraint != failed || c.Rejected != c.Letters+c.SourceLetters || c.RejectedBy.Cast != ruledRecords/30 {
			r.Errorf("%s: %+v, want rules %v", sink, c, rules)
		}
	}
	if c := r.total(p, "dead_letters"); c.Written != int64(len(r.letters)) || c.Letters != c.Written || len(c.Rules) > 0 {
		r.Errorf("dead letters: %+v", c)
	}
}

// total are the counts of a table since the beginning.
func (r *ruled) total(p *Pipeline, sink string) batch.Counts {
	r.Helper()
	table, err := p.Table(r.Context(), sink)
	if err != nil {
		r.Fatal(err)
	}
	v, err := table.Load(r.Context())
	if err != nil {
		r.Fatal(err)
	}
	return v.Stamp().Total
}

// proved runs each batch from one on again, and holds the rows and dead letters that it gives
// against the tables.
func (r *ruled) proved(spec *config.Spec, from batch.ID) {
	r.Helper()
	report, err := r.open(spec, nil).Verify(r.Context(), time.Now(), true)
	if err != nil {
		r.Fatal(err)
	}
	for _, table := range report.Tables {
		for _, f := range table.Findings {
			r.Errorf("%s: %s: %.300s", table.Table, f.Where, f.What)
		}
	}
	for id := from; id < 4; id++ {
		again, err := r.open(spec, nil).Replay(r.Context(), ReplayOptions{Batch: id})
		if err != nil {
			r.Fatal(err)
		}
		if !again.Equal() {
			r.Errorf("batch %d gives other rows: %+v", id, again.Diffs)
		}
	}
}

// TestExpect: of a record that fails a rule nothing is in the tables that the rule
// concerns, it is one dead letter or dropped, and counted under the rule, wherever
// the process dies. Later runs of a batch say the same.
func TestExpect(t *testing.T) {
	r := newRuled(t)
	seed := rand.Uint64()
	rnd := rand.New(rand.NewPCG(seed, 1))
	for deaths := 0; ; deaths++ {
		if deaths > 500 {
			t.Fatalf("seed %d: it never ends", seed)
		}
		p, err := r.run(r.spec(), &killer{left: 2 + rnd.IntN(12)})
		switch {
		case errors.Is(err, errKilled):
			continue
		case err != nil:
			t.Fatalf("seed %d: %v", seed, err)
		case deaths < 5:
			t.Errorf("seed %d: %d deaths", seed, deaths)
		}
		r.check(p)
		break
	}
	r.proved(r.spec(), 0)
	if t.Failed() {
		t.Logf("seed %d", seed)
	}
}

// TestExpectStops: a rule that stops names rule, record and row, and nothing of the
// batch is in any table; with another rule the batch goes on.
func TestExpectStops(t *testing.T) {
	for _, change := range [][]string{
		{"has_kind: {sql", "early: {sql: id < 600, on_fail: stop}\n      has_kind: {sql"},
		{"positive: {sql", "early: {sql: id < 600, on_fail: stop}, positive: {sql"},
	} {
		r := newRuled(t)
		for range 2 { // a start without a change stops again
			p, err := r.run(r.spec(change...), nil)
			for _, part := range []string{"rule early failed: id < 600, on the record at offset 600", " of events/0: {\"id\": 600", "Nothing of the batch is committed"} {
				if !errors.Is(err, batch.ErrInvalid) || !strings.Contains(err.Error(), part) {
					t.Fatalf("%v\nlacks %q", err, part)
				}
			}
			for _, sink := range []string{"prices", "labels", "ids", "dead_letters"} {
				if c := r.total(p, sink); c.Data != ruledBatch {
					t.Errorf("table %s has %d records, want %d", sink, c.Data, ruledBatch)
				}
			}
		}
		p, err := r.run(r.spec(), nil)
		if err != nil {
			t.Fatal(err)
		}
		for sink, rules := range r.rules { // the other rule was right of each record before
			if got := r.total(p, sink).Rules; !maps.Equal(got, rules) {
				t.Errorf("%s: rules %v, want %v", sink, got, rules)
			}
		}
		r.check(p)
		r.proved(r.spec(), 1) // the first one was made with the other rule
	}
}

// TestExpectMaxFraction: what rules make dead letters of counts as any other, and
// what they drop does not.
func TestExpectMaxFraction(t *testing.T) {
	r := newRuled(t)
	bad := map[string]bool{}
	for _, l := range r.letters {
		offset, _, _ := strings.Cut(l, "|")
		bad[offset] = true
	}
	share := func(over int) string { return fmt.Sprintf("max_fraction: %g", float64(len(bad)-over)/ruledRecords) }
	all := []string{"max_records: 350", "max_records: 2000", "max_fraction: 0.9"}
	p, err := r.run(r.spec(append(all, share(1))...), nil)
	if !errors.Is(err, batch.ErrInvalid) {
		t.Fatal(err)
	}
	for _, part := range []string{
		fmt.Sprintf("%d of the last %d records became dead letters", len(bad), ruledRecords), "constraint in sink labels, such as offset 1 of events/0: rule labelled failed: label IS NOT NULL",
		"40 × constraint in source events, such as offset 3 of events/0: rule has_kind failed", "Nothing of batch 0 is committed",
	} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("%v\nlacks %q", err, part)
		}
	}
	if got := lines(t, p, "SELECT count(*)::VARCHAR FROM ids"); !slices.Equal(got, []string{"0"}) {
		t.Errorf("%v rows", got)
	}
	if p, err = r.run(r.spec(append(all, share(-1))...), nil); err != nil {
		t.Fatal(err)
	}
	r.check(p)
}

// TestExpectChanged: where a table has a batch and its dead letters are not there yet,
// another rule would tell others: the former spec finishes the batch.
func TestExpectChanged(t *testing.T) {
	r := newRuled(t)
	if _, err := r.run(r.spec(), &killer{left: 1 << 20, before: config.DeadLetters}); !errors.Is(err, errKilled) {
		t.Fatal(err)
	}
	for _, change := range [][]string{{"price > 0", "price > 1"}, {"kind IS NOT NULL", "kind <> 'a'"}, {"label IS NOT NULL\"}", "label IS NOT NULL\", on_fail: drop}"}} {
		if _, err := r.run(r.spec(change...), nil); !errors.Is(err, batch.ErrInvalid) || !strings.Contains(err.Error(), "Run the former spec until that batch is done") {
			t.Errorf("%v: %v", change, err)
		}
	}
	p, err := r.run(r.spec(), nil)
	if err != nil {
		t.Fatal(err)
	}
	r.check(p)
	r.shown()
}

// shown: a look ahead says which rules there are, and what has failed them.
func (r *ruled) shown() {
	r.Helper()
	spec := r.spec(", small: {sql: price < 1000, on_fail: drop}", ", round: {sql: price % 10 = 0, on_fail: drop}")
	p := r.open(spec, nil)
	i, err := p.Intent(r.Context())
	if err != nil {
		r.Fatal(err)
	}
	var got []string
	for _, rule := range i.Sinks[0].Rules {
		got = append(got, rule.String())
	}
	want := []string{
		"rule events.has_kind: kind IS NOT NULL, else dead_letter; failed so far: 40", "rule events.no_test: kind <> 'test', else drop; failed so far: 40",
		"rule events.no_error: if(kind = 'error', error('as said'), true), else dead_letter", "rule positive: price > 0, else dead_letter; failed so far: 120",
		"rule round: price % 10 = 0, else drop", "rule small is not in the spec any more; failed so far: 60",
	}
	if !slices.Equal(got, want) || i.Sinks[0].State != "changed" || i.Sinks[2].State != "same" || len(i.Sinks[2].Rules) != 3 || len(i.Sinks[3].Rules) != 0 || !slices.ContainsFunc(i.Steps, func(s string) bool { return strings.Contains(s, "its rules") }) {
		r.Errorf("%+v\n%q", i, got)
	}
	text, err := p.Explain(r.Context(), "prices")
	if err != nil {
		r.Fatal(err)
	}
	if want := `
  expects of each record of source events:
    has_kind: kind IS NOT NULL, else dead_letter
    no_test: kind <> 'test', else drop
    no_error: if(kind = 'error', error('as said'), true), else dead_letter
  expects of each row, or nothing of its record is written:
    positive: price > 0, else dead_letter
    round: price % 10 = 0, else drop
`; !strings.Contains(text, want) {
		r.Error(text)
	}
}

// TestExpectMistakes: a mistake in a rule stands in the file.
func TestExpectMistakes(t *testing.T) {
	r := newRuled(t)
	for _, c := range [][3]string{
		{"kind IS NOT NULL", "knd IS NOT NULL", `spec.yaml:13:24: sources.events.expect.has_kind.sql: Binder Error: Referenced column "knd" not found`},
		{"price > 0", "price > 0 AND pric < 9", `spec.yaml:20:45: sinks.prices.expect.positive.sql: Binder Error: Referenced column "pric" not found`},
		{"price > 0", "price + 1", `spec.yaml:20:31: sinks.prices.expect.positive.sql: price + 1 is not true or false`},
		{"price > 0", "price > 0 AND count(*) > 1", `spec.yaml:20:45: sinks.prices.expect.positive.sql: aggregate count`},
		{"price > 0", "price > 0 OR OR", `spec.yaml:20:44: sinks.prices.expect.positive.sql: syntax error`},
		{"price > 0", "price > now()", `spec.yaml:20:37: sinks.prices.expect.positive.sql: Binder Error: Cannot compare values`},
		{"label IS NOT NULL\"}", "label IS NOT NULL\", on_fail: stop}, x: {sql: 'regexp_matches(label, 3)'}", `spec.yaml:24:77: sinks.labels.expect.x.sql: Binder Error: No function matches`},
		{"SELECT id FROM events", "'SELECT id, idd FROM events'", `spec.yaml:26:26: sinks.ids.sql: Binder Error: Referenced column "idd" not found`},
		{"ids: {sql", "ids: {audit: {some: SELECT idd FROM ids}, sql", `spec.yaml:26:30: sinks.ids.audit.some: Binder Error: Referenced column "idd" not found`},
	} {
		_, err := New(t.Context(), r.spec(c[0], c[1]), Options{ReadOnly: true})
		if !errors.Is(err, batch.ErrInvalid) || !strings.Contains(err.Error(), c[2]) {
			t.Errorf("%s: %v, want %s", c[1], err, c[2])
		}
	}
}
