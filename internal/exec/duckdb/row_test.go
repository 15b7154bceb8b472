//go:build duckdb_arrow && cgo

package duckdb

import (
	"fmt"
	"strings"
	"testing"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"
)

// TestNumber: under its other name a relation has the place of each row, also
// beyond DuckDB's vector size; under its own name nothing sees that.
func TestNumber(t *testing.T) {
	i, err := Open(t.Context(), Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer i.Close()
	fields := []arrow.Field{{Name: "id", Type: arrow.PrimitiveTypes.Int64, Nullable: true}}
	src, err := i.AddSource("src", fields, Stream)
	if err != nil {
		t.Fatal(err)
	}
	i.Number(src, "Numbered_src", "place")
	b := array.NewRecordBuilder(memory.DefaultAllocator, arrow.NewSchema(fields, nil))
	defer b.Release()
	for k := range 5000 {
		b.Field(0).(*array.Int64Builder).Append(int64(k) * 10)
	}
	rows := b.NewRecordBatch()
	defer rows.Release()
	src.Set(rows)
	for sql, want := range map[string]string{
		"SELECT c.place, id FROM numbered_src c WHERE id % 12000 = 0":                            "[0 1200 2400 3600 4800] [0 12000 24000 36000 48000]",
		"SELECT sum(place)::BIGINT AS s, count(*) AS n FROM numbered_src":                        "[12497500] [5000]",
		"SELECT * FROM src WHERE id = 7000":                                                      "[7000]",
		"SELECT count(DISTINCT place) AS n FROM (FROM numbered_src UNION ALL FROM numbered_src)": "[5000]",
	} {
		s, err := i.Prepare(sql)
		if err != nil {
			t.Errorf("%s: %v", sql, err)
			continue
		}
		var got []string
		err = s.Run(t.Context(), func(r arrow.RecordBatch) error {
			defer r.Release()
			for _, c := range r.Columns() {
				got = append(got, fmt.Sprint(c.(*array.Int64).Int64Values()))
			}
			return nil
		})
		if s.Close(); err != nil || strings.Join(got, " ") != want {
			t.Errorf("%s: %v, want %s (%v)", sql, got, want, err)
		}
	}
}
