package sink

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/extensions"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/apache/iceberg-go"
	"github.com/apache/iceberg-go/catalog"
	"github.com/apache/iceberg-go/table"

	"github.com/frazil-io/frazil/internal/batch"
)

// make makes the table ns.t as another engine would.
func (f *fixture) make(schema *iceberg.Schema, opts ...catalog.CreateTableOpt) {
	f.Helper()
	ctx := context.Background()
	if err := f.catalog.CreateNamespace(ctx, table.Identifier{"ns"}, nil); err != nil && !errors.Is(err, catalog.ErrNamespaceAlreadyExists) {
		f.Fatal(err)
	}
	if _, err := f.catalog.CreateTable(ctx, table.Identifier{"ns", "t"}, schema, opts...); err != nil {
		f.Fatal(err)
	}
}

func field(id int, name string, t iceberg.Type, required bool) iceberg.NestedField {
	return iceberg.NestedField{ID: id, Name: name, Type: t, Required: required}
}

func TestTableWithAnotherLayout(t *testing.T) {
	f := newFixture(t)
	f.mustOpen(func(o *Options) {
		o.PartitionBy, o.SortBy = []string{"kind", "bucket(4, id)", "day(at)"}, []string{"id desc", "kind"}
	})
	for name, c := range map[string]struct {
		change func(*Options)
		want   []string // of the error; nil for none
	}{
		"the same": {func(o *Options) {
			o.PartitionBy, o.SortBy = []string{"KIND", "bucket(4,id)", "day(at)"}, []string{"id desc", "kind"}
		}, nil},
		"nothing said":     {func(*Options) {}, nil},
		"another order":    {func(o *Options) { o.PartitionBy = []string{"day(at)", "kind", "bucket(4, id)"} }, []string{"partitioned by [kind, bucket(4, id), day(at)]", "says [day(at), kind, bucket(4, id)]"}},
		"another width":    {func(o *Options) { o.PartitionBy = []string{"kind", "bucket(8, id)", "day(at)"} }, []string{"says [kind, bucket(8, id), day(at)]"}},
		"another way":      {func(o *Options) { o.SortBy = []string{"id", "kind"} }, []string{"sorted by [id desc, kind]", "sort_by says [id, kind]"}},
		"both are another": {func(o *Options) { o.PartitionBy, o.SortBy = []string{"kind"}, []string{"at"} }, []string{"says [kind]", "says [at]"}},
	} {
		_, err := f.open(c.change, rowSchema)
		if c.want == nil && err != nil {
			t.Errorf("%s: %v", name, err)
		}
		for _, text := range c.want {
			if !errors.Is(err, batch.ErrInvalid) || !strings.Contains(err.Error(), text) {
				t.Errorf("%s: %v, want %q", name, err, text)
			}
		}
	}
}

// TestCompatibleTable: case, nullability and wider types are no difference, and
// columns that the SQL lacks are NULL.
func TestCompatibleTable(t *testing.T) {
	f := newFixture(t)
	f.make(iceberg.NewSchema(0,
		field(1, "ID", iceberg.PrimitiveTypes.Int64, true), field(2, "Kind", iceberg.PrimitiveTypes.String, false),
		field(3, "small", iceberg.PrimitiveTypes.Int64, false), field(4, "at", iceberg.PrimitiveTypes.TimestampTz, false),
		field(5, "more", iceberg.PrimitiveTypes.Float64, false),
		field(6, "tags", &iceberg.ListType{ElementID: 7, Element: iceberg.PrimitiveTypes.String}, false),
	))
	tbl, err := f.open(func(o *Options) { o.Create = false }, rowSchema)
	if err != nil {
		t.Fatal(err)
	}
	f.commit(tbl, "a", makeRows(0, 8))
	if got := f.ids(iceberg.EqualTo(iceberg.Reference("small"), int64(-3))); !slices.Equal(got, []int64{3}) {
		t.Fatalf("%v", got)
	}
	if got := f.ids(iceberg.IsNull(iceberg.Reference("more"))); !slices.Equal(got, count(8)) {
		t.Fatalf("%v", got)
	}
}

// TestColumnsThatDifferByCase: an exact name goes first, and no column is
// written twice.
func TestColumnsThatDifferByCase(t *testing.T) {
	f := newFixture(t)
	f.make(iceberg.NewSchema(0, field(1, "A", iceberg.PrimitiveTypes.Int64, false), field(2, "a", iceberg.PrimitiveTypes.Int64, false)))
	rows := arrow.NewSchema([]arrow.Field{{Name: "a", Type: arrow.PrimitiveTypes.Int64, Nullable: true}}, nil)
	tbl, err := f.open(nil, rows)
	if err != nil {
		t.Fatal(err)
	}
	b := array.NewRecordBuilder(memory.DefaultAllocator, rows)
	defer b.Release()
	b.Field(0).(*array.Int64Builder).Append(7)
	f.commit(tbl, "x", b.NewRecordBatch())
	if got := f.ids(iceberg.NewAnd(iceberg.IsNull(iceberg.Reference("A")), iceberg.EqualTo(iceberg.Reference("a"), int64(7)))); len(got) != 1 {
		t.Fatalf("%v", got)
	}
}

// TestNestedRequiredFields: NULL where the table requires a value is refused at
// every depth, unless what would hold it is NULL itself.
func TestNestedRequiredFields(t *testing.T) {
	inner := &iceberg.StructType{FieldList: []iceberg.NestedField{field(10, "x", iceberg.PrimitiveTypes.Int64, true), field(11, "y", iceberg.PrimitiveTypes.Int64, false)}}
	tableOf := map[string]iceberg.Type{
		"s":  inner,
		"l":  &iceberg.ListType{ElementID: 12, Element: iceberg.PrimitiveTypes.Int64, ElementRequired: true},
		"ls": &iceberg.ListType{ElementID: 13, Element: &iceberg.StructType{FieldList: []iceberg.NestedField{field(14, "x", iceberg.PrimitiveTypes.Int64, true)}}},
		"m":  &iceberg.MapType{KeyID: 15, KeyType: iceberg.PrimitiveTypes.String, ValueID: 16, ValueType: iceberg.PrimitiveTypes.Int64, ValueRequired: true},
	}
	number := arrow.Field{Name: "x", Type: arrow.PrimitiveTypes.Int64, Nullable: true}
	struct1 := arrow.StructOf(number)
	rowsOf := map[string]arrow.DataType{
		"s": arrow.StructOf(number, arrow.Field{Name: "y", Type: arrow.PrimitiveTypes.Int64, Nullable: true}),
		"l": arrow.ListOf(arrow.PrimitiveTypes.Int64), "ls": arrow.ListOf(struct1), "m": arrow.MapOf(arrow.BinaryTypes.String, arrow.PrimitiveTypes.Int64),
	}
	for _, c := range []struct{ column, json, want string }{
		{"s", `[{"v":{"x":1}},{"v":{"y":2}}]`, `"v.x" is required`},
		{"s", `[{"v":{"x":1}},{"v":null}]`, ""},
		{"l", `[{"v":[1,2]},{"v":[1,null]}]`, `"v.element" is required`},
		{"l", `[{"v":[1,2]},{"v":[]},{"v":null}]`, ""},
		{"ls", `[{"v":[{"x":1},null]},{"v":[{"x":null}]}]`, `"v.element.x" is required`},
		{"ls", `[{"v":[{"x":1},null]},{"v":[]}]`, ""},
		{"m", `[{"v":[{"key":"a","value":1}]},{"v":[{"key":"b","value":null}]}]`, `is required`},
		{"m", `[{"v":[{"key":"a","value":1}]},{"v":null}]`, ""},
	} {
		f := newFixture(t)
		f.make(iceberg.NewSchema(0, field(1, "v", tableOf[c.column], false)))
		schema := arrow.NewSchema([]arrow.Field{{Name: "v", Type: rowsOf[c.column], Nullable: true}}, nil)
		tbl, err := f.open(nil, schema)
		if err != nil {
			t.Fatal(c.column, err)
		}
		rows, _, err := array.RecordFromJSON(memory.DefaultAllocator, schema, strings.NewReader(c.json))
		if err != nil {
			t.Fatal(err)
		}
		w, err := tbl.Writer(context.Background(), "a")
		if err != nil {
			t.Fatal(err)
		}
		err = w.Write(rows)
		switch {
		case c.want == "" && err != nil:
			t.Errorf("%s: %s: %v", c.column, c.json, err)
		case c.want != "" && (!errors.Is(err, batch.ErrInvalid) || !strings.Contains(err.Error(), c.want)):
			t.Errorf("%s: %s: %v, want %q", c.column, c.json, err, c.want)
		}
		// A slice of the rows looks at its own alone.
		if err = w.Write(rows.NewSlice(0, 1)); c.column != "ls" && err != nil {
			t.Errorf("%s: the first row alone: %v", c.column, err)
		}
		w.Abort()
	}
}

// TestPartitionValues: each transform against values worked out by hand from the
// specification (https://iceberg.apache.org/spec/#partition-transforms), before
// 1970 and NULL among them.
func TestPartitionValues(t *testing.T) {
	day := int64(86400_000_000)
	for _, c := range []struct {
		term string
		typ  arrow.DataType
		json string
		want any
	}{
		{"v", arrow.BinaryTypes.String, `"a"`, "a"},
		{"v", arrow.BinaryTypes.String, `null`, nil},
		{"v", arrow.BinaryTypes.String, `""`, ""},
		{"v", arrow.PrimitiveTypes.Int32, `-5`, int32(-5)},
		{"v", arrow.FixedWidthTypes.Boolean, `false`, false},
		{"bucket(16, v)", arrow.PrimitiveTypes.Int64, `34`, int32((2017239379 & math.MaxInt32) % 16)},
		{"bucket(16, v)", arrow.PrimitiveTypes.Int32, `34`, int32((2017239379 & math.MaxInt32) % 16)}, // an int hashes as a long
		{"bucket(100, v)", arrow.BinaryTypes.String, `"iceberg"`, int32((1210000089 & math.MaxInt32) % 100)},
		{"bucket(100, v)", arrow.FixedWidthTypes.Date32, `"2017-11-16"`, int32((-653330422 & math.MaxInt32) % 100)},
		{"bucket(100, v)", &arrow.TimestampType{Unit: arrow.Microsecond}, `"2017-11-16 22:31:08"`, int32((-2047944441 & math.MaxInt32) % 100)},
		{"bucket(100, v)", &arrow.Decimal128Type{Precision: 9, Scale: 2}, `"14.20"`, int32((-500754589 & math.MaxInt32) % 100)},
		{"bucket(100, v)", extensions.NewUUIDType(), `"f79c3e09-677c-4bbd-a479-3f349cb785e7"`, int32((1488055340 & math.MaxInt32) % 100)},
		{"bucket(16, v)", arrow.PrimitiveTypes.Int64, `null`, nil},
		{"truncate(10, v)", arrow.PrimitiveTypes.Int64, `-1`, int64(-10)},
		{"truncate(10, v)", arrow.PrimitiveTypes.Int64, `1`, int64(0)},
		{"truncate(3, v)", arrow.BinaryTypes.String, `"iceberg"`, "ice"},
		{"truncate(2, v)", arrow.BinaryTypes.String, `"äöü"`, "äö"},
		{"year(v)", arrow.FixedWidthTypes.Date32, `"1969-12-31"`, int32(-1)},
		{"year(v)", &arrow.TimestampType{Unit: arrow.Microsecond}, `"2017-11-16 22:31:08"`, int32(47)},
		{"month(v)", arrow.FixedWidthTypes.Date32, `"1969-12-31"`, int32(-1)},
		{"month(v)", &arrow.TimestampType{Unit: arrow.Microsecond}, `"2017-11-16 22:31:08"`, int32(574)},
		{"day(v)", &arrow.TimestampType{Unit: arrow.Microsecond}, `"1969-12-31 23:59:59"`, int32(-1)},
		{"day(v)", arrow.FixedWidthTypes.Date32, `"1969-12-31"`, int32(-1)},
		{"day(v)", &arrow.TimestampType{Unit: arrow.Microsecond}, fmt.Sprint(-day - 1), int32(-2)},
		{"hour(v)", &arrow.TimestampType{Unit: arrow.Microsecond}, `"1969-12-31 23:59:59"`, int32(-1)},
		{"hour(v)", &arrow.TimestampType{Unit: arrow.Microsecond}, `"2017-11-16 22:31:08"`, int32(17486*24 + 22)},
		{"hour(v)", &arrow.TimestampType{Unit: arrow.Microsecond}, `null`, nil},
	} {
		schema := arrow.NewSchema([]arrow.Field{{Name: "v", Type: c.typ, Nullable: true}}, nil)
		f := newFixture(t)
		tbl, err := f.open(func(o *Options) { o.PartitionBy = []string{c.term} }, schema)
		if err != nil {
			t.Fatal(c.term, err)
		}
		rows, _, err := array.RecordFromJSON(memory.DefaultAllocator, schema, strings.NewReader(`[{"v":`+c.json+`}]`))
		if err != nil {
			t.Fatal(c.term, c.json, err)
		}
		files := f.write(tbl, "a", rows)
		var got any
		for _, v := range files.files[0].Partition() {
			got = v
		}
		if plain(got) != plain(c.want) {
			t.Errorf("%s of %s %s is %v (%T), want %v", c.term, c.typ, c.json, got, got, c.want)
		}
	}
}

// TestPartitionsByText: texts are told apart whatever is in them, also where one holds
// what stands between two.
func TestPartitionsByText(t *testing.T) {
	f := newFixture(t)
	schema := arrow.NewSchema([]arrow.Field{{Name: "a", Type: arrow.BinaryTypes.String, Nullable: true}, {Name: "b", Type: arrow.BinaryTypes.String, Nullable: true}}, nil)
	tbl, err := f.open(func(o *Options) { o.PartitionBy = []string{"a", "b"} }, schema)
	if err != nil {
		t.Fatal(err)
	}
	rows, _, err := array.RecordFromJSON(memory.DefaultAllocator, schema, strings.NewReader(`[
		{"a": "x", "b": "y\u0000string:z"}, {"a": "x\u0000string:y", "b": "z"}, {"a": "x", "b": null}, {"a": "x", "b": "<nil>"}]`))
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for _, file := range f.write(tbl, "a", rows).files {
		seen[fmt.Sprintf("%#v", file.Partition())] = true
	}
	if len(seen) != 4 {
		t.Errorf("4 rows of 4 partitions are in the files of %v", seen)
	}
}

// plain drops Iceberg's own names of numbers.
func plain(v any) any {
	if v == nil {
		return nil
	}
	return fmt.Sprint(v)
}

// TestStatistics: every data file says its bounds and NULLs, also where it is
// sorted in several row groups, and NaN is no bound.
func TestStatistics(t *testing.T) {
	schema := arrow.NewSchema([]arrow.Field{
		{Name: "id", Type: arrow.PrimitiveTypes.Int64, Nullable: true}, {Name: "x", Type: arrow.PrimitiveTypes.Float64, Nullable: true},
	}, nil)
	for _, sorted := range [][]string{nil, {"id"}} {
		f := newFixture(t)
		tbl, err := f.open(func(o *Options) { o.SortBy = sorted }, schema)
		if err != nil {
			t.Fatal(err)
		}
		b := array.NewRecordBuilder(memory.DefaultAllocator, schema)
		defer b.Release()
		for i := range 100 {
			b.Field(0).(*array.Int64Builder).Append(int64(i - 50))
			switch i % 10 {
			case 0:
				b.Field(1).AppendNull()
			case 1:
				b.Field(1).(*array.Float64Builder).Append(math.NaN())
			default:
				b.Field(1).(*array.Float64Builder).Append(float64(i))
			}
		}
		d := f.write(tbl, "a", b.NewRecordBatch()).files[0]
		bound := func(values map[int][]byte, id int) any {
			l, err := iceberg.LiteralFromBytes(schemaType(id), values[id])
			if err != nil {
				t.Fatalf("column %d has no bound: %v", id, err)
			}
			return l.Any()
		}
		if lo, hi := bound(d.LowerBoundValues(), 1), bound(d.UpperBoundValues(), 1); lo != int64(-50) || hi != int64(49) {
			t.Errorf("id is from %v to %v", lo, hi)
		}
		if lo, hi := bound(d.LowerBoundValues(), 2), bound(d.UpperBoundValues(), 2); lo != float64(2) || hi != float64(99) {
			t.Errorf("x is from %v to %v", lo, hi)
		}
		if n := d.NullValueCounts(); n[1] != 0 || n[2] != 10 || d.ValueCounts()[2] != 100 {
			t.Errorf("%v NULLs of %v values", n, d.ValueCounts())
		}
		if id := d.SortOrderID(); sorted != nil && (id == nil || *id != 1) {
			t.Errorf("the sort order is %v", id)
		}
	}
}

func schemaType(id int) iceberg.Type {
	if id == 1 {
		return iceberg.PrimitiveTypes.Int64
	}
	return iceberg.PrimitiveTypes.Float64
}
