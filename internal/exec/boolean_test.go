package exec

import (
	"context"
	"errors"
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

// TestBooleansInMaps: there they would become numbers, so they are refused.
func TestBooleansInMaps(t *testing.T) {
	for sql, refused := range map[string]bool{
		"SELECT MAP {id: id > 1} AS m FROM clicks":                     true,
		"SELECT [{'x': MAP {'k': id > 1}}] AS m FROM clicks":           true,
		"SELECT MAP {id > 1: id} AS m FROM clicks":                     true,
		"SELECT MAP {id: (id > 1)::TINYINT} AS m FROM clicks":          false,
		"SELECT MAP {'in': {'b': id > 1}} AS m FROM clicks":            false,
		"SELECT MAP {'in': [id > 1]} AS m FROM clicks":                 false,
		"SELECT map_entries(MAP {id: id > 1}) AS m FROM clicks":        false,
		"SELECT {'b': id > 1, 'm': MAP {id: 'text'}} AS m FROM clicks": false,
	} {
		e, err := open(t, nil, sql)
		if refused != (err != nil) || refused && !errors.Is(err, batch.ErrInvalid) {
			t.Errorf("%s: %v", sql, err)
		}
		if inside := strings.Contains(sql, "'in'"); err == nil && inside && !strings.Contains(e.Schema("s0").Field(0).Type.String(), "bool") {
			t.Errorf("%s is a %s", sql, e.Schema("s0").Field(0).Type)
		}
	}
}
