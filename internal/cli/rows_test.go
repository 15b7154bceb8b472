package cli

import (
	"bytes"
	"context"
	"strings"
	"testing"

	"github.com/apache/arrow-go/v18/arrow"

	"github.com/frazil-io/frazil/internal/query"
)

// printed is what DuckDB's answer looks like.
func printed(t *testing.T, format string, width int, sql string) string {
	t.Helper()
	e, err := query.Open(t.Context(), nil, query.Options{Cache: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	var out bytes.Buffer
	w := newRowWriter(&out, format, width)
	if err := e.Query(context.Background(), sql, w.header, func(r arrow.RecordBatch) error { return w.rows(r) }); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	if err := w.end(); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

// TestEveryTypeIsPrinted: exactly, in each of the three forms.
func TestEveryTypeIsPrinted(t *testing.T) {
	for _, c := range []struct{ sql, json, csv, table string }{
		{"NULL", `null`, ``, `NULL`},
		{"''", `""`, `""`, ``},
		{"'NULL'", `"NULL"`, `NULL`, `NULL`},
		{`'a"b,c'`, `"a\"b,c"`, `"a""b,c"`, `a"b,c`},
		{"' x '", `" x "`, `" x "`, ` x `},
		{"E'a\\nb\\t\\x1b[31m'", `"a\nb\t\u001b[31m"`, "\"a\nb\t\x1b[31m\"", `a\nb\t\u001b[31m`},
		{"'<&>'", `"<&>"`, `<&>`, `<&>`},
		{"true", `true`, `true`, `true`},
		{"127::TINYINT", `127`, `127`, `127`},
		{"9223372036854775807", `9223372036854775807`, `9223372036854775807`, `9223372036854775807`},
		{"18446744073709551615::UBIGINT", `18446744073709551615`, `18446744073709551615`, `18446744073709551615`},
		{"170141183460469231731687303715884105727::HUGEINT // 10", `17014118346046923173168730371588410572`, `17014118346046923173168730371588410572`, `17014118346046923173168730371588410572`},
		{"234::DECIMAL(9,2)", `234.00`, `234.00`, `234.00`},
		{"-0.05::DECIMAL(3,2)", `-0.05`, `-0.05`, `-0.05`},
		{"1.5::FLOAT", `1.5`, `1.5`, `1.5`},
		{"0.1::FLOAT", `0.1`, `0.1`, `0.1`},
		{"1e300", `1e+300`, `1e+300`, `1e+300`},
		{"'nan'::DOUBLE", `"NaN"`, `NaN`, `NaN`},
		{"'-inf'::DOUBLE", `"-Infinity"`, `-Infinity`, `-Infinity`},
		{"DATE '0001-02-03'", `"0001-02-03"`, `0001-02-03`, `0001-02-03`},
		{"TIME '01:02:03.5'", `"01:02:03.5"`, `01:02:03.5`, `01:02:03.5`},
		{"TIMESTAMP '2026-01-02 03:04:05'", `"2026-01-02T03:04:05"`, `2026-01-02T03:04:05`, `2026-01-02T03:04:05`},
		{"TIMESTAMPTZ '2026-01-02 03:04:05.000001+02'", `"2026-01-02T01:04:05.000001Z"`, `2026-01-02T01:04:05.000001Z`, `2026-01-02T01:04:05.000001Z`},
		{"TIMESTAMP_NS '2026-01-02 03:04:05.123456789'", `"2026-01-02T03:04:05.123456789"`, `2026-01-02T03:04:05.123456789`, `2026-01-02T03:04:05.123456789`},
		{"INTERVAL 14 MONTH + INTERVAL 3 DAY", `"14 months 3 days"`, `14 months 3 days`, `14 months 3 days`},
		{"'8a2c9e1e-9f0a-4d6e-8a4b-0123456789ab'::UUID", `"8a2c9e1e-9f0a-4d6e-8a4b-0123456789ab"`, `8a2c9e1e-9f0a-4d6e-8a4b-0123456789ab`, `8a2c9e1e-9f0a-4d6e-8a4b-0123456789ab`},
		{`'a\xFF\x00'::BLOB`, `"Yf8A"`, `Yf8A`, `a\xff\u0000`},
		{"'x'::ENUM('y', 'x')", `"x"`, `x`, `x`},
		{"[1, NULL, 3]", `[1,null,3]`, `"[1,null,3]"`, `[1,null,3]`},
		{"[]::INTEGER[]", `[]`, `[]`, `[]`},
		{"[[1.50], NULL]", `[[1.50],null]`, `"[[1.50],null]"`, `[[1.50],null]`},
		{"{'z': 1, 'a': 'x', 'n': NULL, 't': true}", `{"z":1,"a":"x","n":null,"t":true}`, `"{""z"":1,""a"":""x"",""n"":null,""t"":true}"`, `{"z":1,"a":"x","n":null,"t":true}`},
		{"MAP {'b': 1, 'a': NULL}", `{"b":1,"a":null}`, `"{""b"":1,""a"":null}"`, `{"b":1,"a":null}`},
		{"MAP {1: DATE '2026-01-01'}", `[{"key":1,"value":"2026-01-01"}]`, `"[{""key"":1,""value"":""2026-01-01""}]"`, `[{"key":1,"value":"2026-01-01"}]`},
		{"'日本'", `"日本"`, `日本`, `日本`},
	} {
		sql := "SELECT " + c.sql + " AS v"
		if got, want := printed(t, "json", 0, sql), `{"v":`+c.json+"}\n"; got != want {
			t.Errorf("%s as JSON: %q, want %q", c.sql, got, want)
		}
		if got, want := printed(t, "csv", 0, sql), "v\n"+c.csv+"\n"; got != want {
			t.Errorf("%s as CSV: %q, want %q", c.sql, got, want)
		}
		got := strings.Split(printed(t, "table", 0, sql), "\n")
		if len(got) != 4 || strings.TrimLeft(got[1], " ") != strings.TrimLeft(c.table, " ") || got[2] != "(1 row)" {
			t.Errorf("%s in a table: %q, want %q", c.sql, got, c.table)
		}
	}
}

// TestTables: columns line up, names are told apart, and a terminal's lines do
// not wrap because of one long value.
func TestTables(t *testing.T) {
	if got, want := printed(t, "table", 0, "SELECT * FROM (VALUES (1, 'a', NULL), (200, 'bcd', 1.5)) AS t(n, text, x)"), "  n  text     x\n  1  a     NULL\n200  bcd    1.5\n(2 rows)\n"; got != want {
		t.Errorf("%q\n%q", got, want)
	}
	if got, want := printed(t, "json", 0, "SELECT 1 AS a, 2 AS a, 3 AS a_1"), `{"a":1,"a_1":2,"a_1_1":3}`+"\n"; got != want {
		t.Error(got)
	}
	for line := range strings.Lines(printed(t, "table", 80, "SELECT repeat('x', 200) AS a, 1 AS b")) {
		if len([]rune(line)) > 80 {
			t.Errorf("%d columns: %q", len(line), line)
		}
	}
	if got := printed(t, "table", 0, "SELECT repeat('x', 200) AS a"); !strings.Contains(got, strings.Repeat("x", 200)) {
		t.Error("a value was cut where there is no terminal")
	}
	if got := printed(t, "table", 0, "SELECT range FROM range(5000)"); strings.Count(got, "\n") != 5002 || !strings.HasSuffix(got, "4999\n(5000 rows)\n") {
		t.Errorf("%d lines", strings.Count(got, "\n"))
	}
	if got := printed(t, "csv", 0, "SELECT 1 AS \"a,b\" WHERE false"); got != "\"a,b\"\n" {
		t.Errorf("%q", got)
	}
}
