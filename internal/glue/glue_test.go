package glue

import (
	"fmt"
	"testing"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"
)

var schema = arrow.NewSchema([]arrow.Field{
	{Name: "id", Type: arrow.PrimitiveTypes.Int64},
	{Name: "at", Type: arrow.StructOf(arrow.Field{Name: "x", Type: arrow.BinaryTypes.String, Nullable: true}), Nullable: true},
}, nil)

func made(mem memory.Allocator, from, to int) arrow.RecordBatch {
	b := array.NewRecordBuilder(mem, schema)
	defer b.Release()
	for i := from; i < to; i++ {
		b.Field(0).(*array.Int64Builder).Append(int64(i))
		s := b.Field(1).(*array.StructBuilder)
		if s.Append(i%3 != 0); i%3 == 0 {
			s.FieldBuilder(0).AppendNull()
			continue
		}
		s.FieldBuilder(0).(*array.StringBuilder).Append(fmt.Sprint("x", i))
	}
	return b.NewRecordBatch()
}

// TestJoinAndCopy: the rows are those that went in, in their order, also of
// slices, and nothing of what they came from is kept.
func TestJoinAndCopy(t *testing.T) {
	mem := memory.NewCheckedAllocator(memory.DefaultAllocator)
	all := made(mem, 0, 20)
	a, b := all.NewSlice(0, 7), all.NewSlice(7, 20)
	for name, do := range map[string]func() (arrow.RecordBatch, error){
		"join": func() (arrow.RecordBatch, error) { return Join(schema, []arrow.RecordBatch{a, b}) },
		"copy": func() (arrow.RecordBatch, error) { return Copy(all, 0, 20) },
	} {
		got, err := do()
		if err != nil || !array.RecordEqual(got, all) {
			t.Errorf("%s: %v %v", name, got, err)
		}
	}
	part, err := Copy(all, 5, 9)
	want := all.NewSlice(5, 9)
	if err != nil || !array.RecordEqual(part, want) {
		t.Errorf("%v %v, want %v", part, err, want)
	}
	for _, c := range part.Columns() {
		if c.Data().Offset() != 0 {
			t.Errorf("%v is a slice", c)
		}
	}
	if none, err := Copy(all, 4, 4); err != nil || none.NumRows() != 0 {
		t.Errorf("%v %v", none, err)
	}
	for _, r := range []arrow.RecordBatch{want, a, b, all} {
		r.Release()
	}
	mem.AssertSize(t, 0)
}
