package config

import (
	"fmt"
	"strings"
	"testing"
)

// TestMistake: a place in a text is told as the place in the file, however the text
// is written there.
func TestMistake(t *testing.T) {
	const before = `name: a
trigger: {available_now: true}
catalogs: {lake: {type: sql, uri: /tmp/x, warehouse: /tmp/y}}
sources: {s: {kafka: {brokers: ["b:1"], topics: [s], start: earliest}, format: json, columns: id BIGINT}}
macros: {"one(x, y)": x + HERE}
sinks:
  rows:
    iceberg: {catalog: lake, table: a.b}
`
	for _, sql := range []string{
		"sql: SELECT id + HERE FROM s",
		"'sql' : SELECT id + HERE FROM s",
		"sql: \"SELECT id + HERE FROM s\"",
		"sql: 'SELECT id + HERE FROM s'",
		"sql: SELECT id\n      + HERE\n      FROM s",
		"sql: |\n      SELECT 'ü', id\n        + HERE\n\n      FROM s",
		"sql: |2-\n        SELECT 'ü', id\n\n          + HERE\n      FROM s",
		"sql: >\n      SELECT id\n      + HERE\n      FROM s",
		"sql: \"SELECT id +\n      HERE FROM s\"",
		"sql:\n      SELECT id + HERE FROM s",
		// What is not there as it was written is at its key.
		"HEREsql: SELECT ${NOT_SET:-3} + id FROM s",
		"HEREsql: 'SELECT ''x'' + id FROM s'",
	} {
		file := before + "    " + sql + "\n"
		want := "?"
		for i, line := range strings.Split(file, "\n") {
			if at := strings.Index(strings.ReplaceAll(line, "ü", "u"), "HERE"); at >= 0 && i > 5 {
				want = fmt.Sprintf("%d:%d", i+1, at+1)
			}
		}
		atKey := strings.HasPrefix(sql, "HERE")
		spec, err := Parse("f", []byte(strings.Replace(file, "HEREsql", "sql", 1)), func(string) (string, bool) { return "", false })
		if err != nil {
			t.Fatal(sql, err)
		}
		text := spec.Sinks.By["rows"].SQL
		mark := "HERE"
		if atKey {
			mark = "id"
		}
		at := position{1 + strings.Count(text[:strings.Index(text, mark)], "\n"), 0}
		line := strings.Split(text, "\n")[at.line-1]
		at.column = 1 + len([]rune(line[:strings.Index(line, mark)]))
		e := spec.Mistake("sinks.rows.sql", text, at.line, at.column, "no")
		if got := fmt.Sprintf("%d:%d", e.Line, e.Column); got != want || e.Error() != "f:"+want+": sinks.rows.sql: no" {
			t.Errorf("%s: %s, want %s", sql, e, want)
		}
	}
	spec, err := Parse("f", []byte(before+"    sql: SELECT id FROM s\n"), nil)
	if err != nil {
		t.Fatal(err)
	}
	if e := spec.Mistake("macros.one(x, y)", "x + HERE", 1, 5, "no"); e.Line != 5 || e.Column != 27 {
		t.Error(e)
	}
	if e := spec.Mistake("sinks.rows.sql", "SELECT id FROM s", 0, 0, "no"); e.Line != 9 || e.Column != 5 {
		t.Error(e)
	}
}
