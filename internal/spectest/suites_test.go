package spectest

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
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
