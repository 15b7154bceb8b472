package spectest

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/apache/arrow-go/v18/arrow"
)

// files writes a folder of files and returns it.
func writeFiles(t *testing.T, all map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for path, text := range all {
		path = filepath.Join(dir, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// specOf is a spec with one source of topic "in" and one sink "out".
func specOf(source, table string) string {
	return `name: one
trigger: {interval: 1s}
catalogs: {lake: {type: sql, uri: c.db, warehouse: w}}
sources:
  src:
    kafka: {brokers: ["nobody.invalid:9092"], topics: [in], start: latest}
    ` + strings.ReplaceAll(source, "\n", "\n    ") + `
sinks:
  out:
    sql: SELECT * FROM src
    iceberg: {catalog: lake, table: "` + table + `"}
`
}

// TestTablesThatRowsChoose: each of them is expected by its full name.
func TestTablesThatRowsChoose(t *testing.T) {
	files := map[string]string{
		"pipeline.yaml":                    specOf("format: json\ncolumns: id BIGINT, kind VARCHAR", "raw.${kind}"),
		"tests/one/input/in.jsonl":         "{\"id\":1,\"kind\":\"a\"}\n{\"id\":2,\"kind\":\"B\"}\n{\"id\":3,\"kind\":\"a\"}\n",
		"tests/one/expect/raw.a.jsonl":     "{\"id\":1,\"kind\":\"a\"}\n{\"id\":3,\"kind\":\"a\"}\n",
		"tests/one/expect/raw.b.jsonl":     "{\"id\":2,\"kind\":\"B\"}\n",
		"tests/one/expect/raw.never.jsonl": "",
	}
	if r := runCase(t, writeFiles(t, files), nil); r.Failure != "" {
		t.Fatal(r.Failure)
	}
	files["tests/one/expect/raw.b.jsonl"] = ""
	if r := runCase(t, writeFiles(t, files), nil); !strings.Contains(r.Failure, "raw.b: 0 rows were expected, there are 1") {
		t.Fatalf("a row too many: %q", r.Failure)
	}
	for name := range files {
		if strings.Contains(name, "expect") {
			delete(files, name)
		}
	}
	dir := writeFiles(t, files)
	if r := runCase(t, dir, func(o *Options) { o.Update = true }); !r.Updated {
		t.Fatal(r.Failure)
	}
	for _, name := range []string{"raw.a.jsonl", "raw.b.jsonl"} {
		if _, err := os.Stat(filepath.Join(dir, "tests/one/expect", name)); err != nil {
			t.Error(err)
		}
	}
}

const (
	orderV1 = `{"type":"record","name":"Order","fields":[{"name":"id","type":"long"},{"name":"at","type":{"type":"long","logicalType":"timestamp-millis"}}]}`
	orderV2 = `{"type":"record","name":"Order","fields":[{"name":"id","type":"long"},{"name":"at","type":{"type":"long","logicalType":"timestamp-millis"}},{"name":"note","type":["null","string"],"default":null}]}`
	money   = `syntax = "proto3"; package shop; message Money { string currency = 1; int64 units = 2; }`
	priced  = `syntax = "proto3"; package shop; import "shop/money.proto"; message Other {} message Priced { int64 id = 1; Money price = 2; }`
)

// TestInputsThatAreEncoded: JSON becomes what the source reads, by the schemas of the
// case in place of a registry's, or by the spec's own file.
func TestInputsThatAreEncoded(t *testing.T) {
	for name, c := range map[string]struct {
		source string
		files  map[string]string
		want   string // rows; or what the failure says
	}{
		"avro of two versions, with keys": {
			"format: avro\nregistry: {url: \"http://nobody.invalid\", username: u, password: \"${P:-x}\"}\nkey: {format: avro}\non_bad_record: skip",
			map[string]string{
				"schemas/in-key.avsc": `{"type":"record","name":"Key","fields":[{"name":"k","type":"string"}]}`, "tests/one/schemas/in-value.1.avsc": orderV1, "tests/one/schemas/in-value.2.avsc": orderV2,
				"schemas/in-value.avsc": `"the case's goes first"`,
				"tests/one/input/in.records": `{"schema":1,"key":{"k":"a"},"value":{"id":1,"at":"2026-01-01T00:00:00Z"}}
{"key":{"k":"b"},"value":{"id":2,"at":1767225600000,"note":"x"}}
{"key":{"k":"c"},"value":"bad"}
{"key":{"k":"d"},"value":{"base64":"AAAAAGMC"}}
`,
			},
			`{"id":1,"at":"2026-01-01T00:00:00Z","k":"a"}` + "\n" + `{"id":2,"at":"2026-01-01T00:00:00Z","note":"x","k":"b"}`,
		},
		"protobuf with an import": {
			"format: protobuf\noptions: {message: shop.Priced}\nregistry: {url: \"http://nobody.invalid\"}",
			map[string]string{"schemas/in-value.proto": priced, "schemas/shop/money.proto": money, "tests/one/input/in.jsonl": `{"id":"7","price":{"currency":"EUR","units":5}}`},
			`{"id":7,"price":{"currency":"EUR","units":5}}`,
		},
		"a schema file, beside the spec": {
			"format: avro\nschema_file: order.avsc",
			map[string]string{"order.avsc": orderV1, "tests/one/input/in.jsonl": `{"id":1,"at":0}`},
			`{"id":1,"at":"1970-01-01T00:00:00Z"}`,
		},
		"a json schema, compressed": {
			"format: json\noptions: {encoding: gzip}\nregistry: {url: \"http://nobody.invalid\"}",
			map[string]string{"schemas/in-value.json": `{"type":"object","properties":{"id":{"type":"integer"}}}`, "tests/one/input/in.jsonl": "{\"id\":1}\n{\"id\":2}\n"},
			"{\"id\":1}\n{\"id\":2}",
		},
		"columns beside a registry": {
			"format: json\ncolumns: id BIGINT\nregistry: {url: \"http://nobody.invalid\"}",
			map[string]string{"tests/one/input/in.jsonl": `{"id":1}`},
			`{"id":1}`,
		},
		"no schema": {
			"format: protobuf\nregistry: {url: \"http://nobody.invalid\"}",
			map[string]string{"tests/one/input/in.jsonl": `{"id":1}`},
			`in-value.proto, or to `,
		},
		"no such field": {
			"format: avro\nregistry: {url: \"http://nobody.invalid\"}",
			map[string]string{"schemas/in-value.avsc": orderV1, "tests/one/input/in.jsonl": "{\"id\":1,\"at\":0}\n{\"id\":1,\"at\":0,\"x\":1}"},
			`in.jsonl:2: the value cannot be encoded as avro: the schema has no field "x" there`,
		},
		"no such version": {
			"format: avro\nregistry: {url: \"http://nobody.invalid\"}",
			map[string]string{"schemas/in-value.avsc": orderV1, "tests/one/input/in.records": `{"schema":2,"value":{"id":1}}`},
			`has no version 2 here, but 1`,
		},
		"a version is missing": {
			"format: avro\nregistry: {url: \"http://nobody.invalid\"}",
			map[string]string{"schemas/in-value.2.avsc": orderV1, "tests/one/input/in.jsonl": `{}`},
			`versions are 1, 2, 3`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			c.files["pipeline.yaml"], c.files["tests/one/expect/out.jsonl"] = specOf(c.source, "raw.out"), c.want
			if !strings.HasPrefix(c.want, "{") {
				c.files["tests/one/expect/out.jsonl"] = "{}"
			}
			got := runCase(t, writeFiles(t, c.files), func(o *Options) { o.Encode = encodeTimes }).Failure
			if strings.HasPrefix(c.want, "{") && got != "" || !strings.HasPrefix(c.want, "{") && !strings.Contains(got, c.want) {
				t.Fatal(got)
			}
		})
	}
}

// encodeTimes spells times of these cases as the command does.
func encodeTimes(b []byte, rows arrow.RecordBatch, row int) []byte {
	return []byte(strings.NewReplacer("1970-01-01 00:00:00Z", "1970-01-01T00:00:00Z", "2026-01-01 00:00:00Z", "2026-01-01T00:00:00Z").Replace(string(encode(b, rows, row))))
}

// TestOtherFoldersOfTests: those of other languages are nobody's cases; the folder may
// have any name.
func TestOtherFoldersOfTests(t *testing.T) {
	dir := writeFiles(t, map[string]string{
		"a[1]*/pipeline.yaml": specOf("format: json\ncolumns: id BIGINT", "raw.out"), "a[1]*/tests/one/input/in.jsonl": "{}", "a[1]*/tests/one/expect/out.jsonl": "{}",
		"python/tests/test_a.py": "", "go/compose.yaml": "", "go/tests/unit/a_test.go": "",
	})
	suites, err := find(dir)
	if err != nil || len(suites) != 1 || len(suites[0].cases) != 1 {
		t.Fatalf("found %+v, %v", suites, err)
	}
	if _, err := find(filepath.Join(dir, "python")); err == nil || !strings.Contains(err.Error(), "there are no cases below") {
		t.Fatal(err)
	}
}
