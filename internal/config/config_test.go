package config

import (
	"encoding/json"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

const good = `name: clicks
trigger: {interval: 1s}
catalogs:
  lake: {type: sql, uri: ./c.db, warehouse: ./wh, token: "${TOKEN}"}
sources:
  clicks:
    kafka: {brokers: [localhost:9092, 127.0.0.1:9093], topics: [clicks], start: earliest}
    format: json
    columns: id BIGINT
sinks:
  a: {sql: SELECT id FROM clicks, iceberg: {catalog: lake, table: w.a}}
  b: {sql: SELECT id FROM clicks, iceberg: {catalog: lake, table: w.b}}
`

func env(name string) (string, bool) {
	v, ok := map[string]string{"TOKEN": "s3cret: [", "EMPTY": ""}[name]
	return v, ok
}

func parseGood(t *testing.T, text string) *Spec {
	t.Helper()
	s, err := Parse("good.yaml", []byte(text), env)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestDefaultsAndVariables(t *testing.T) {
	s := parseGood(t, good)
	k := s.Sources.By["clicks"].Kafka
	switch {
	case s.Memory != 512<<20, s.Limits.MaxBytes != 256<<20, s.Maintenance.KeepBatches != 1000, time.Duration(s.Maintenance.KeepHourly) != 7*24*time.Hour:
		t.Errorf("defaults: %+v", s)
	case s.Catalogs["lake"].Token != "s3cret: [":
		t.Errorf("a variable changed the structure: %+v", s.Catalogs)
	case *k.Group != "frazil-clicks", k.Isolation != "read_committed", k.OnDataLoss != "fail":
		t.Errorf("kafka: %+v", k)
	case !slices.Equal(k.Brokers, []string{"localhost:9092", "127.0.0.1:9093"}):
		t.Errorf("brokers: %v", k.Brokers)
	case !slices.Equal(s.Sinks.Names, []string{"a", "b"}):
		t.Errorf("the order of sinks: %v", s.Sinks.Names)
	}
}

// TestNotANumber: NaN is below no limit and above none.
func TestNotANumber(t *testing.T) {
	_, err := Parse("bad.yaml", []byte(good+"dead_letter: {kafka: {brokers: [\"b:9092\"], topic: bad}, max_fraction: .nan}\n"), env)
	if err == nil || !strings.Contains(err.Error(), "NaN is not between 0 and 1") {
		t.Errorf("max_fraction: %v", err)
	}
	if b, err := ParseBytes("nanMiB"); err == nil {
		t.Errorf("a size: %d", b)
	}
}

// TestSinkHash: what rows depend on changes the hash; nothing else does.
func TestSinkHash(t *testing.T) {
	before := parseGood(t, good).SinkHash("a")
	for _, c := range []struct {
		old, new string
		same     bool
	}{
		{"trigger: {interval: 1s}", "trigger: {interval: 9s}", true},
		{"name: clicks\n", "name: clicks\nmemory: 1GiB\ncheckpoint: s3://b/p\nlimits: {max_records: 5}\nmaintenance: {keep_snapshots: 5}\n", true},
		{"[localhost:9092, 127.0.0.1:9093]", "[other:9092]", true},
		{"start: earliest", "start: latest", true},
		{"start: earliest", "start: earliest, group: x, on_data_loss: record, sasl: {mechanism: plain, username: u, password: p}, tls: {ca: f}", true},
		{"uri: ./c.db", "uri: ./d.db", true},
		{"table: w.b", "table: w.c", true},
		{"  b: {sql: SELECT id FROM", "  b: {sql: SELECT id + 1 AS id FROM", true},
		{"name: clicks\n", "# a comment\nname:   clicks\n", true},
		{"name: clicks\n", "name: other\n", false},
		{"topics: [clicks]", "topics: [others]", false},
		{"start: earliest", "start: earliest, isolation: read_uncommitted", false},
		{"columns: id BIGINT", "columns: id INTEGER", false},
		{"columns: id BIGINT", "columns: id BIGINT\n    metadata: true", false},
		{"columns: id BIGINT", "columns: id BIGINT\n    on_bad_record: skip", false},
		{"  a: {sql: SELECT id FROM", "  a: {sql: SELECT id + 1 AS id FROM", false},
		{"table: w.a", "table: w.z", false},
		{"type: sql", "type: rest", false},
		{"sinks:", "views: {v: SELECT 1}\nsinks:", false},
		{"sinks:", "tables: {d: {csv: {path: d.csv}}}\nsinks:", false},
		{"sinks:", "macros: {unused(a): a + 1}\nsinks:", true},
		{"sinks:", "macros:\n  id(a): a + 1\nsinks:", false}, // a word of the SQL
		{"sinks:", "macros:\n  inner(a): a\n  other(a): inner(a)\nsinks:", true},
		{"sinks:", "views: {v: SELECT outer_one(id) FROM clicks}\nmacros:\n  inner(a): a\n  outer_one(a): inner(a)\nsinks:", false},
	} {
		if !strings.Contains(good, c.old) {
			t.Fatalf("no %q", c.old)
		}
		after := parseGood(t, strings.Replace(good, c.old, c.new, 1)).SinkHash("a")
		if (after == before) != c.same {
			t.Errorf("%q → %q: same hash is %v, want %v", c.old, c.new, after == before, c.same)
		}
	}
}

func TestJSONSchemaNamesEveryKey(t *testing.T) {
	data, err := JSONSchema()
	if err != nil {
		t.Fatal(err)
	}
	var schema map[string]any
	if err := json.Unmarshal(data, &schema); err != nil {
		t.Fatal(err)
	}
	properties := schema["properties"].(map[string]any)
	for _, key := range []string{"name", "trigger", "limits", "checkpoint", "memory", "catalogs", "sources", "tables", "macros", "views", "sinks", "maintenance"} {
		if properties[key] == nil {
			t.Errorf("the schema has no %q", key)
		}
	}
}

func TestSecretsFromFiles(t *testing.T) {
	path := t.TempDir() + "/token"
	if err := os.WriteFile(path, []byte("from a file\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s := parseGood(t, strings.Replace(good, "${TOKEN}", "${file:"+path+"}", 1))
	if got := s.Catalogs["lake"].Token; got != "from a file" {
		t.Errorf("token %q", got)
	}
	s = parseGood(t, strings.Replace(good, "${TOKEN}", "$${TOKEN} ${NONE:-x} ${EMPTY:-y}", 1))
	if got := s.Catalogs["lake"].Token; got != "${TOKEN} x y" {
		t.Errorf("token %q", got)
	}
}

// TestMacrosInTheHash: what a macro that a sink uses says, counts, by way of
// others, too.
func TestMacrosInTheHash(t *testing.T) {
	spec := func(inner, unused string) *Spec {
		text := strings.Replace(good, "a: {sql: SELECT id FROM", "a: {sql: SELECT \"Outer_One\"(id) AS id FROM", 1)
		return parseGood(t, strings.Replace(text, "sinks:", "macros:\n  inner(a): a + "+inner+"\n  outer_one(a, b := 2): inner(a)\n  unused(a): a + "+unused+"\nsinks:", 1))
	}
	before := spec("1", "1")
	if before.SinkHash("a") == spec("2", "1").SinkHash("a") {
		t.Error("a changed macro has the same hash")
	}
	if before.SinkHash("a") != spec("1", "2").SinkHash("a") || before.SinkHash("b") != spec("2", "2").SinkHash("b") {
		t.Error("a macro that is not used counts")
	}
}

// TestTables: defaults of dimension tables, and what their hash depends on.
func TestTables(t *testing.T) {
	with := func(tables string) *Spec {
		return parseGood(t, strings.Replace(good, "sinks:", "tables:\n"+tables+"\nsinks:", 1))
	}
	s := with("  d: {csv: {path: d.csv, delimiter: tab, null_string: NA}}\n  p: {postgres: {uri: \"postgres://u:${TOKEN}@h/db\", table: t}}\n  q: {parquet: d.parquet, refresh: 5s}")
	d, p, q := s.Tables.By["d"], s.Tables.By["p"], s.Tables.By["q"]
	if !*d.CSV.Header || d.CSV.Delimiter != "\t" || d.CSV.Null != "NA" || *d.Refresh != 0 || time.Duration(*p.Refresh) != time.Minute || time.Duration(*q.Refresh) != 5*time.Second {
		t.Errorf("%+v %+v %+v", d.CSV, p.Postgres, q)
	}
	before := with("  p: {postgres: {uri: a, table: t}}").SinkHash("a")
	if before != with("  p: {postgres: {uri: b, table: t}, refresh: 7s}").SinkHash("a") {
		t.Error("the server, the password or how often it is read is in the hash")
	}
	if before == with("  p: {postgres: {uri: a, table: u}}").SinkHash("a") {
		t.Error("the table is not in the hash")
	}
}

// TestTheGuide: the YAML of docs/sql.md is that of a spec.
func TestTheGuide(t *testing.T) {
	data, err := os.ReadFile("../../docs/sql.md")
	if err != nil {
		t.Fatal(err)
	}
	text, blocks := string(data), 0
	for {
		_, rest, ok := strings.Cut(text, "\n```yaml\n")
		if !ok {
			break
		}
		block, after, _ := strings.Cut(rest, "```")
		text = after
		blocks++
		spec := strings.Replace(good, "sinks:", block+"sinks:", 1)
		if _, err := Parse("guide.yaml", []byte(spec), func(name string) (string, bool) { return "value", name == "PG_PASSWORD" || name == "TOKEN" }); err != nil {
			t.Errorf("%s: %v", block, err)
		}
	}
	if blocks != 2 {
		t.Errorf("%d blocks", blocks)
	}
}

// TestTheReadme: the spec that the README shows is one.
func TestTheReadme(t *testing.T) {
	data, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(data), "\n```yaml\n")
	spec, _, ok := strings.Cut(rest, "```")
	if !ok {
		t.Fatal("it shows none")
	}
	if _, err := Parse("README.md", []byte(spec), func(name string) (string, bool) { return "value", name == "CATALOG_CREDENTIAL" }); err != nil {
		t.Error(err)
	}
}

// TestRulesAndTheHash: a rule of a source is in the hash of every sink, that of a
// sink in its own and in that of the dead letters.
func TestRulesAndTheHash(t *testing.T) {
	spec := func(source, sink string) *Spec {
		rule := func(sql string) Ordered[Rule] {
			return Ordered[Rule]{Names: []string{"r"}, By: map[string]Rule{"r": {SQL: sql, OnFail: "drop"}}}
		}
		return &Spec{
			Sources: Ordered[Source]{Names: []string{"s"}, By: map[string]Source{"s": {Expect: rule(source)}}},
			Sinks:   Ordered[Sink]{Names: []string{"a", "b", DeadLetters}, By: map[string]Sink{"a": {Expect: rule(sink)}, "b": {}, DeadLetters: {}}},
		}
	}
	was := spec("x", "y")
	for sink, changes := range map[string][2]bool{"a": {true, true}, "b": {true, false}, DeadLetters: {true, true}} {
		for i, now := range []*Spec{spec("z", "y"), spec("x", "z")} {
			if (now.SinkHash(sink) != was.SinkHash(sink)) != changes[i] {
				t.Errorf("sink %s, change %d", sink, i)
			}
		}
	}
}
