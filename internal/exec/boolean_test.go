package exec

import (
	"context"
	"slices"
	"strings"
	"testing"

	"github.com/apache/arrow-go/v18/arrow"

	"github.com/frazil-io/frazil/internal/batch"
)

// TestBooleans: DuckDB hands a BOOLEAN over in a byte; a table's column is a
// BOOLEAN all the same, also inside of lists and structs.
func TestBooleans(t *testing.T) {
	e, err := open(t, nil, "SELECT id % 2 = 0 AS b, nullif(id > 1, false) AS n, [id > 2, NULL] AS l, {'x': id = 0} AS s FROM clicks")
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []string{"bool", "bool", "list<element: bool, nullable>", "struct<x: bool nullable>"} {
		if got := e.Schema("s0").Field(i).Type.String(); got != want {
			t.Errorf("column %d is a %s, want %s", i, got, want)
		}
	}
	var lines []string
	job := batch.Job{Plan: &batch.Plan{}, Ranges: []batch.Range{{TopicPartition: batch.TopicPartition{Source: "clicks", Topic: "clicks"}, End: 4}}, Sinks: []string{"s0"}}
	_, err = e.Execute(context.Background(), job, func(emit, _ func(arrow.RecordBatch) error) error {
		r := rows(0, 4)
		defer r.Release()
		return emit(r)
	}, func(_ string, r arrow.RecordBatch) error {
		lines = append(lines, jsonLines(r)...)
		return nil
	})
	want := []string{
		`true|null|[false,null]|{"x":true}|`, `false|null|[false,null]|{"x":false}|`, `true|true|[false,null]|{"x":false}|`, `false|true|[true,null]|{"x":false}|`,
	}
	if err != nil || !slices.Equal(lines, want) {
		t.Errorf("%v\n got %q\nwant %q", err, lines, want)
	}
}

// TestMapsOf: what a BOOLEAN or a UUID is in a MAP is known, as key and as value, at
// any depth, with NULLs and behind an offset.
func TestMapsOf(t *testing.T) {
	const one = "'01234567-89ab-cdef-0123-456789abcdef'::UUID"
	for _, c := range []struct{ sql, kind, want string }{
		{"MAP {id: id > 1}", "map<int64, bool, items_nullable>", `[{"key":0,"value":false}] [{"key":1,"value":false}] [{"key":2,"value":true}] [{"key":3,"value":true}]`},
		{"MAP {id > 1: id}", "map<bool, int64, items_nullable>", `[{"key":false,"value":0}] [{"key":false,"value":1}] [{"key":true,"value":2}] [{"key":true,"value":3}]`},
		{"MAP {'k': nullif(id > 1, false), 'l': true}", "map<utf8, bool, items_nullable>", `[{"key":"k","value":null},{"key":"l","value":true}] [{"key":"k","value":null},{"key":"l","value":true}] [{"key":"k","value":true},{"key":"l","value":true}] [{"key":"k","value":true},{"key":"l","value":true}]`},
		{"[{'x': MAP {'k': id > 2}}]", "list<element: struct<x: map<utf8, bool, items_nullable> nullable>, nullable>", `[{"x":[{"key":"k","value":false}]}] [{"x":[{"key":"k","value":false}]}] [{"x":[{"key":"k","value":false}]}] [{"x":[{"key":"k","value":true}]}]`},
		{"MAP {'m': MAP {id = 0: [id = 0]}}", "map<utf8, map<bool, list<element: bool, nullable>, items_nullable>, items_nullable>", `[{"key":"m","value":[{"key":true,"value":[true]}]}] [{"key":"m","value":[{"key":false,"value":[false]}]}] [{"key":"m","value":[{"key":false,"value":[false]}]}] [{"key":"m","value":[{"key":false,"value":[false]}]}]`},
		{
			"MAP {" + one + ": if(id = 0, NULL, " + one + ")}", "map<extension<arrow.uuid>, extension<arrow.uuid>, items_nullable>",
			`[{"key":"U","value":null}] [{"key":"U","value":"U"}] [{"key":"U","value":"U"}] [{"key":"U","value":"U"}]`,
		},
		{"CASE WHEN id = 1 THEN MAP {true: false} WHEN id = 2 THEN MAP {} END", "map<bool, bool, items_nullable>", `null [{"key":true,"value":false}] [] null`},
	} {
		e, err := open(t, nil, "SELECT "+c.sql+" AS m FROM clicks")
		if err != nil {
			t.Errorf("%s: %v", c.sql, err)
			continue
		}
		if got := e.Schema("s0").Field(0).Type.String(); got != c.kind {
			t.Errorf("%s is a %s, want %s", c.sql, got, c.kind)
		}
		var lines []string
		job := batch.Job{Plan: &batch.Plan{}, Ranges: []batch.Range{{TopicPartition: batch.TopicPartition{Source: "clicks", Topic: "clicks"}, End: 4}}, Sinks: []string{"s0"}}
		_, err = e.Execute(context.Background(), job, func(emit, _ func(arrow.RecordBatch) error) error {
			r := rows(0, 4)
			defer r.Release()
			return emit(r)
		}, func(_ string, r arrow.RecordBatch) error {
			lines = append(lines, jsonLines(r)...)
			return nil
		})
		got := strings.ReplaceAll(strings.Join(lines, " "), "01234567-89ab-cdef-0123-456789abcdef", "U")
		if got = strings.ReplaceAll(got, "|", ""); err != nil || got != c.want {
			t.Errorf("%s: %v\n got %s\nwant %s", c.sql, err, got, c.want)
		}
	}
}
