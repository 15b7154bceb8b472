package spectest

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
)

const spec = `name: numbers
trigger: {interval: 1s}
catalogs: {lake: {type: rest, uri: "http://nobody.invalid", warehouse: w, token: "${TOKEN}"}}
sources:
  numbers:
    kafka: {brokers: ["nobody.invalid:9092"], topics: [numbers], start: latest}
    format: json
    columns: id BIGINT, name VARCHAR
tables:
  names: {iceberg: {catalog: lake, table: dim.names}}
sinks:
  named:
    sql: SELECT id, name, long, now() AS seen FROM numbers JOIN names USING (name)
    iceberg: {catalog: lake, table: raw.named}
`

// folder writes a suite with one case; files are by path below the case.
func folder(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	write := func(path, text string) {
		path = filepath.Join(dir, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("pipeline.yaml", spec)
	for path, text := range files {
		write(filepath.Join(casesFolder, "one", path), text)
	}
	return dir
}

// good is a case that passes.
func good() map[string]string {
	var input, want strings.Builder
	for i := range 40 {
		name := []string{"a", "b", "nobody"}[i%3]
		input.WriteString(`{"partition":` + string('0'+rune(i%2)) + `,"value":{"id":` + string('0'+rune(i%10)) + `,"name":"` + name + `"}}` + "\n")
		if name != "nobody" {
			want.WriteString(`{"seen":"2026-02-03T04:05:06Z","name":"` + name + `","long":"` + map[string]string{"a": "Anna", "b": "Berta"}[name] + `","id":` + string('0'+rune(i%10)) + ".0}\n")
		}
	}
	return map[string]string{
		"case.yaml": "now: 2026-02-03T04:05:06Z\nenv: {TOKEN: x}\n", "input/numbers.records": input.String(),
		"tables/names.csv": "name,long\na,Anna\nb,Berta\n", "expect/named.jsonl": want.String(),
	}
}

func runCase(t *testing.T, dir string, change func(*Options)) Result {
	t.Helper()
	var result Result
	o := Options{
		Seed: rand.Uint64N(1000), Now: time.Now, Env: func(string) (string, bool) { return "", false }, Log: slog.New(slog.DiscardHandler),
		Begin: func(string) {}, Done: func(r Result) { result = r }, Encode: encode,
	}
	if change != nil {
		change(&o)
	}
	if err := Run(context.Background(), []string{dir}, o); err != nil {
		t.Fatal(err)
	}
	return result
}

// encode is enough for the types of these tests.
func encode(b []byte, rows arrow.RecordBatch, row int) []byte {
	r := rows.NewSlice(int64(row), int64(row)+1)
	defer r.Release()
	var out strings.Builder
	if err := array.RecordToJSON(r, &out); err != nil {
		panic(err)
	}
	return append(b, strings.ReplaceAll(strings.ReplaceAll(strings.TrimSpace(out.String()), "2026-02-03 04:05:06Z", "2026-02-03T04:05:06Z"), "2026-01-01 00:00:00Z", "2026-01-01T00:00:00Z")...)
}

func TestCase(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(files map[string]string)
		want   string // part of the failure; "": it passes
	}{
		{"good", func(map[string]string) {}, ""},
		{"a row is missing", func(f map[string]string) {
			f["expect/named.jsonl"] += f["expect/named.jsonl"][:strings.Index(f["expect/named.jsonl"], "\n")]
		}, "\n- {"},
		{"a row too many", func(f map[string]string) {
			f["expect/named.jsonl"] = f["expect/named.jsonl"][strings.Index(f["expect/named.jsonl"], "\n")+1:]
		}, "\n+ {"},
		{"another value", func(f map[string]string) {
			f["expect/named.jsonl"] = strings.Replace(f["expect/named.jsonl"], "Anna", "Hanna", 1)
		}, `- {"id":0,"long":"Hanna"`},
		{"no such sink", func(f map[string]string) { f["expect/nobody.jsonl"] = "" }, "there is no such sink or table; there are named"},
		{"an error that does not come", func(f map[string]string) { delete(f, "expect/named.jsonl"); f["expect/error.txt"] = "bad" }, "it went well"},
		{"another error", func(f map[string]string) {
			delete(f, "expect/named.jsonl")
			f["expect/error.txt"] = "something else"
			f["input/numbers.records"] += `{"value":"no json"}`
		}, `the error should say "something else"`},
		{"the right error", func(f map[string]string) {
			delete(f, "expect/named.jsonl")
			f["expect/error.txt"] = "bad record at offset 20 of numbers/0"
			f["input/numbers.records"] += `{"value":"no json"}`
		}, ""},
		{"moments of another zone", func(f map[string]string) {
			f["expect/named.jsonl"] = strings.ReplaceAll(f["expect/named.jsonl"], "2026-02-03T04:05:06Z", "2026-02-03T05:05:06.000+01:00")
		}, ""},
		{"another moment", func(f map[string]string) {
			f["expect/named.jsonl"] = strings.Replace(f["expect/named.jsonl"], "2026-02-03T04:05:06Z", "2026-02-03T04:05:06+01:00", 1)
		}, "\n- {"},
		{"files from Windows", func(f map[string]string) {
			for _, name := range []string{"expect/named.jsonl", "input/numbers.records"} {
				f[name] = byteOrderMark + strings.ReplaceAll(f[name], "\n", "\r\n") + "\r\n"
			}
		}, ""},
		{"a topic that nobody reads", func(f map[string]string) { f["input/numbrs.jsonl"] = "{}" }, `has records of topic "numbrs", which no source reads; they read numbers`},
		{"a table that is not there", func(f map[string]string) { f["expect/raw.other.jsonl"] = "{}" }, "there is no such sink or table"},
		{"a partition too far", func(f map[string]string) { f["input/numbers.records"] = `{"partition":2147483647}` }, "it is one from 0 to 999"},
		{"no input", func(f map[string]string) { delete(f, "input/numbers.records") }, "has no input"},
		{"nothing expected", func(f map[string]string) { delete(f, "expect/named.jsonl") }, "says nothing of what is expected"},
		{"no fixture", func(f map[string]string) { delete(f, "tables/names.csv") }, "write its rows to"},
		{"a wrong record", func(f map[string]string) { f["input/numbers.records"] = `{"valeu": 1}` }, "numbers.records:1"},
		{"a wrong row", func(f map[string]string) { f["expect/named.jsonl"] = "[1]" }, "a row is a JSON object"},
		{"a wrong setting", func(f map[string]string) { f["case.yaml"] = "nwo: 2026-02-03T04:05:06Z" }, "its keys are now (a time), env"},
		{"a variable is missing", func(f map[string]string) { f["case.yaml"] = "now: 2026-02-03T04:05:06Z" }, "TOKEN"},
	} {
		t.Run(c.name, func(t *testing.T) {
			files := good()
			c.change(files)
			got := runCase(t, folder(t, files), nil).Failure
			if (c.want == "") != (got == "") || !strings.Contains(got, c.want) {
				t.Fatalf("want %q, got:\n%s", c.want, got)
			}
		})
	}
}

func TestUpdate(t *testing.T) {
	files := good()
	delete(files, "expect/named.jsonl")
	dir := folder(t, files)
	if r := runCase(t, dir, func(o *Options) { o.Update = true }); !r.Updated {
		t.Fatal(r.Failure)
	}
	if r := runCase(t, dir, nil); r.Failure != "" {
		t.Fatal(r.Failure)
	}
}

// TestLoss: a row that is lost only where the case crashes, and one that comes
// twice only there, are seen.
func TestLoss(t *testing.T) {
	dir := folder(t, good())
	c, err := load(filepath.Join(dir, casesFolder, "one"), false)
	if err != nil {
		t.Fatal(err)
	}
	s, err := newSuite(dir)
	if err != nil {
		t.Fatal(err)
	}
	x := trial{suite: s, c: c, o: Options{Env: func(string) (string, bool) { return "", false }, Log: slog.New(slog.DiscardHandler), Encode: encode}}
	crashed := 0
	for at := int64(1); at < 60; at += 7 {
		got, err := x.in(t.Context(), func(ctx context.Context, w *world) error {
			one := &crasher{at: at}
			// How many moments a run has depends on what runs ahead: it may be done
			// before this one, or be letting go of the pipeline, which cannot fail.
			if err := w.run(ctx, 7, one); !one.crashed() {
				return err
			}
			crashed++
			return w.run(ctx, 7, nil)
		})
		if err := c.check(got, err); err != nil {
			t.Fatal(err)
		}
		got[0].rows = got[0].rows[1:]
		if err := c.check(got, nil); err == nil {
			t.Fatal("a lost row was not seen")
		}
		got[0].rows = append(got[0].rows, got[0].rows[0], got[0].rows[0])
		if err := c.check(got, nil); err == nil {
			t.Fatal("a row that came twice was not seen")
		}
	}
	if crashed < 5 {
		t.Fatalf("only %d runs crashed", crashed)
	}
}

func TestCanonical(t *testing.T) {
	for _, same := range [][]string{
		{`{"a":1.50,"b":null}`, `{"a":1.5}`, ` { "a" : 15e-1 } `},
		{`{"a":{"y":[1,{"z":2.0}],"x":"<"}}`, `{"a":{"x":"<","y":[1.0,{"z":2}]}}`},
		{`{"a":1e300}`, `{"a":1e+300}`, `{"a":10E299}`},
		{`{"a":-1.5e-200}`, `{"a":-15e-201}`},
		{`{"a":0e5}`, `{"a":0}`},
		{`{"a":123456789012345678901234567890.10}`, `{"a":123456789012345678901234567890.1}`},
	} {
		for _, line := range same[1:] {
			one, err := canonical(same[0])
			if err != nil {
				t.Fatal(err)
			}
			if two, err := canonical(line); err != nil || one != two {
				t.Errorf("%s is %s, %s is %s (%v)", same[0], one, line, two, err)
			}
		}
	}
	for _, line := range []string{`{"a":1} {"a":2}`, `[1]`, `{"a":`, `x`} {
		if _, err := canonical(line); err == nil {
			t.Errorf("%s was taken for a row", line)
		}
	}
	if one, err := canonical(`{"a":1e999999999}`); err != nil || one != `{"a":1e999999999}` {
		t.Error(one, err)
	}
}

// TestLetters: a case may say which dead letters it expects, with their reasons or
// without, also where they go to a topic.
func TestLetters(t *testing.T) {
	const table, topic = "dead_letter: {iceberg: {catalog: lake, table: raw.bad}, max_fraction: 1}\n", "dead_letter: {kafka: {brokers: ['nobody.invalid:9092'], topic: bad}, max_fraction: 1}\n"
	var input strings.Builder
	for i := range 30 {
		input.WriteString([]string{`{"id": 1, "name": "a"}`, `no json`, `{"id": -1, "name": "b"}`}[i%3] + "\n")
	}
	letters := func(decode, reason string) string {
		var all strings.Builder
		for i := range 30 {
			at := `{"topic":"numbers","partition":0,"source":"numbers","offset":` + fmt.Sprint(i)
			switch i % 3 {
			case 1:
				all.WriteString(at + `,"code":"` + decode + `"` + strings.ReplaceAll(reason, "?", "expected an object, found 'n', at byte 0 of the value") + "}\n")
			case 2:
				all.WriteString(at + `,"sink":"named","code":"constraint"` + strings.ReplaceAll(reason, "?", "rule positive failed: id > 0") + "}\n")
			}
		}
		return all.String()
	}
	for _, c := range []struct{ name, to, letters, want string }{
		{"a table", table, letters("decode", ""), ""},
		{"a topic", topic, letters("decode", ""), ""},
		{"another code", table, letters("schema", ""), `- {"code":"schema","offset":1,`},
		{"one is missing", table, letters("decode", "")[strings.Index(letters("decode", ""), "\n")+1:], `+ {"code":"decode","offset":1,`},
		{"their reasons", table, letters("decode", `,"reason":"?"`), ""},
		{"other reasons", table, letters("decode", `,"reason":"? "`), `- {"code":"constraint","offset":11,"partition":0,"reason":"rule positive failed: id > 0 "`},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := folder(t, map[string]string{
				"case.yaml": "env: {TOKEN: x}\n", "input/numbers.jsonl": input.String(), "tables/names.csv": "name,long\na,Anna\nb,Berta\n",
				"expect/dead_letters.jsonl": c.letters, "expect/named.jsonl": strings.Repeat(`{"id":1,"name":"a","long":"Anna","seen":"2026-01-01T00:00:00Z"}`+"\n", 10),
			})
			ruled := strings.Replace(spec, "    iceberg: {catalog: lake, table: raw.named}\n", "    expect: {positive: {sql: id > 0}}\n    iceberg: {catalog: lake, table: raw.named}\n", 1) + c.to
			if err := os.WriteFile(filepath.Join(dir, "pipeline.yaml"), []byte(ruled), 0o644); err != nil {
				t.Fatal(err)
			}
			got := runCase(t, dir, nil).Failure
			if (c.want == "") != (got == "") || !strings.Contains(got, c.want) {
				t.Fatalf("want %q, got:\n%s", c.want, got)
			}
		})
	}
}

// TestDifference: rows that are almost the same stand together, with what differs; long
// lists are cut.
func TestDifference(t *testing.T) {
	want := []string{`{"a":1,"b":"x","c":1}`, `{"a":2,"b":"y","c":2}`, `{"a":9}`}
	have := []string{`{"a":1,"b":"x","c":1}`, `{"a":7,"b":"z","d":7}`, `{"b":"y","a":2,"c":3,"d":4}`}
	if got, want := difference(want, have), `3 rows were expected, there are 3; - is missing, + should not be there
- {"a":2,"b":"y","c":2}
+ {"b":"y","a":2,"c":3,"d":4}
  in c, d
- {"a":9}
+ {"a":7,"b":"z","d":7}`; got != want {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
	if got := difference(want, want); got != "" {
		t.Error(got)
	}
	var many []string
	for i := range 50 {
		many = append(many, fmt.Sprintf(`{"n":%d}`, i+10))
	}
	for _, c := range []struct {
		want, have  []string
		minus, plus int
	}{{many, nil, 20, 0}, {nil, many, 0, 20}, {many[:25], many[25:], 10, 10}, {many[:2], many[2:], 2, 18}, {many[2:], many[:2], 18, 2}} {
		got := difference(c.want, c.have)
		if strings.Count(got, "\n- ") != c.minus || strings.Count(got, "\n+ ") != c.plus || !strings.HasSuffix(got, "… and 30 more") {
			t.Errorf("%d and %d:\n%s", c.minus, c.plus, got)
		}
	}
}

// TestSecretsOfCases: what a variable stands for is in no failure.
func TestSecretsOfCases(t *testing.T) {
	files := good()
	files["case.yaml"] = strings.Replace(files["case.yaml"], "TOKEN: x", "TOKEN: hunter2", 1)
	files["input/numbers.records"] += `{"value":"hunter2"}`
	if got := runCase(t, folder(t, files), nil).Failure; strings.Contains(got, "hunter2") || !strings.Contains(got, "${TOKEN}") {
		t.Error(got)
	}
}

// TestFoldersTwice: a folder that is named twice is run once.
func TestFoldersTwice(t *testing.T) {
	dir := folder(t, good())
	ran := 0
	o := Options{Now: time.Now, Begin: func(string) {}, Done: func(Result) { ran++ }}
	o.Env, o.Log, o.Encode = func(string) (string, bool) { return "", false }, slog.New(slog.DiscardHandler), encode
	if err := Run(t.Context(), []string{dir, dir + "/.", filepath.Join(dir, casesFolder)}, o); err != nil || ran != 1 {
		t.Errorf("%d cases ran, %v", ran, err)
	}
}
