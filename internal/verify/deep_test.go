package verify

import (
	"math/big"
	"slices"
	"testing"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/decimal128"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/apache/iceberg-go"

	"github.com/frazil-io/frazil/internal/batch"
)

// TestCompare: more records than then are a finding, fewer only where they are not
// absent; rows must be the same, or on a compacted topic a part.
func TestCompare(t *testing.T) {
	for _, tt := range []struct {
		name      string
		then, now batch.Tally
		diff      *Diff
		codes     []Code
	}{
		{"the same", batch.Tally{Data: 5}, batch.Tally{Data: 5}, &Diff{Equal: true}, nil},
		{"more records", batch.Tally{Data: 5}, batch.Tally{Data: 6}, nil, []Code{TopicDiffers}},
		{"compacted", batch.Tally{Data: 5, Absent: 1}, batch.Tally{Data: 3, Absent: 3}, &Diff{Committed: 5, Replayed: 3, OnlyCommitted: 2}, nil},
		{"compacted, and other rows", batch.Tally{Data: 5}, batch.Tally{Data: 3, Absent: 2}, &Diff{OnlyReplayed: 1, OnlyCommitted: 3}, []Code{RowsDiffer}},
		{"fewer, and not absent", batch.Tally{Data: 5}, batch.Tally{Data: 3, Control: 2}, nil, []Code{TopicDiffers}},
		{"fewer rows of as many records", batch.Tally{Data: 5}, batch.Tally{Data: 5}, &Diff{OnlyCommitted: 1}, []Code{RowsDiffer}},
	} {
		r := &Report{Tables: []TableReport{{Sink: "s"}}}
		r.Compare(Read{Sink: "s", Then: tt.then, Now: tt.now, Diff: tt.diff})
		var codes []Code
		for _, f := range r.Tables[0].Findings {
			codes = append(codes, f.Code)
		}
		if !slices.Equal(codes, tt.codes) {
			t.Errorf("%s: %v, want %v", tt.name, codes, tt.codes)
		}
	}
}

// TestRowHash: a row is the same whatever types of one kind hold it, and another one
// as soon as a value is another, or in another column.
func TestRowHash(t *testing.T) {
	table := iceberg.NewSchema(0,
		iceberg.NestedField{ID: 1, Name: "n", Type: iceberg.PrimitiveTypes.Int64}, iceberg.NestedField{ID: 2, Name: "m", Type: iceberg.PrimitiveTypes.Int64},
		iceberg.NestedField{ID: 3, Name: "d", Type: iceberg.DecimalTypeOf(10, 4)}, iceberg.NestedField{ID: 4, Name: "at", Type: iceberg.PrimitiveTypes.TimestampTz},
		iceberg.NestedField{ID: 5, Name: "l", Type: iceberg.PrimitiveTypes.String})
	row := func(fields []arrow.Field, fill func(*array.RecordBuilder)) rowHash {
		b := array.NewRecordBuilder(memory.DefaultAllocator, arrow.NewSchema(fields, nil))
		defer b.Release()
		fill(b)
		r := b.NewRecordBatch()
		defer r.Release()
		return newEncoder(table, r.Schema()).hash(r, 0)
	}
	id := func(f arrow.Field, id string) arrow.Field {
		f.Metadata = arrow.MetadataFrom(map[string]string{fieldID: id})
		return f
	}
	number := func(t arrow.DataType, name string) arrow.Field {
		return arrow.Field{Name: name, Type: t, Nullable: true}
	}
	small := row([]arrow.Field{number(arrow.PrimitiveTypes.Int32, "N")}, func(b *array.RecordBuilder) { b.Field(0).(*array.Int32Builder).Append(7) })
	wide := row([]arrow.Field{id(number(arrow.PrimitiveTypes.Int64, "old name"), "1"), number(arrow.PrimitiveTypes.Int64, "m")}, func(b *array.RecordBuilder) {
		b.Field(0).(*array.Int64Builder).Append(7)
		b.Field(1).AppendNull()
	})
	other := row([]arrow.Field{number(arrow.PrimitiveTypes.Int64, "m")}, func(b *array.RecordBuilder) { b.Field(0).(*array.Int64Builder).Append(7) })
	if small != wide || small == other {
		t.Error("integers")
	}
	decimal := func(n int64, precision, scale int32) rowHash {
		return row([]arrow.Field{number(&arrow.Decimal128Type{Precision: precision, Scale: scale}, "d")}, func(b *array.RecordBuilder) {
			b.Field(0).(*array.Decimal128Builder).Append(decimal128.FromBigInt(big.NewInt(n)))
		})
	}
	if decimal(1250, 10, 3) != decimal(12500, 10, 4) || decimal(100, 10, 0) == decimal(1, 10, 0) || decimal(1250, 10, 3) == decimal(1251, 10, 3) {
		t.Error("decimals")
	}
	at := func(n int64, unit arrow.TimeUnit) rowHash {
		return row([]arrow.Field{number(&arrow.TimestampType{Unit: unit, TimeZone: "UTC"}, "at")}, func(b *array.RecordBuilder) {
			b.Field(0).(*array.TimestampBuilder).Append(arrow.Timestamp(n))
		})
	}
	if at(-1500, arrow.Millisecond) != at(-1500000, arrow.Microsecond) || at(1, arrow.Millisecond) == at(1, arrow.Microsecond) {
		t.Error("times")
	}
	list := func(parts ...string) rowHash {
		return row([]arrow.Field{{Name: "l", Type: arrow.ListOf(arrow.BinaryTypes.String), Nullable: true}}, func(b *array.RecordBuilder) {
			l := b.Field(0).(*array.ListBuilder)
			l.Append(true)
			for _, p := range parts {
				l.ValueBuilder().(*array.StringBuilder).Append(p)
			}
		})
	}
	one, again := list("x"), list("x")
	if list("ab", "c") == list("a", "bc") || list() == list("") || one != again {
		t.Error("lists")
	}
}
