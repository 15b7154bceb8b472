package sink

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/extensions"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/apache/iceberg-go"
	"github.com/apache/iceberg-go/catalog"
	"github.com/apache/iceberg-go/table"

	"github.com/frazil-io/frazil/internal/batch"
	"github.com/frazil-io/frazil/internal/lake"
	"github.com/frazil-io/frazil/test/fakes"
)

// newRESTFixture is a table in a directory, behind a REST server.
func newRESTFixture(t *testing.T) *fixture {
	t.Helper()
	dir := t.TempDir()
	server := fakes.NewREST(t, "file://"+dir, "", nil)
	c, err := lake.Open(context.Background(), lake.Options{Name: "lake", Type: "rest", URI: server.URL})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return &fixture{T: t, catalog: c, dir: dir, now: time.Now()}
}

// columns are those of a SQL's result, with DuckDB's types for short.
func columns(fields ...arrow.Field) *arrow.Schema {
	for i := range fields {
		fields[i].Nullable = true
	}
	return arrow.NewSchema(fields, nil)
}

func is(name string, t arrow.DataType) arrow.Field {
	return arrow.Field{Name: name, Type: t, Nullable: true}
}

func listOf(t arrow.DataType) arrow.DataType { return arrow.ListOfField(is("element", t)) }

// like gives any rows of a schema from JSON.
func (f *fixture) like(schema *arrow.Schema, text string) arrow.RecordBatch {
	f.Helper()
	rows, _, err := array.RecordFromJSON(memory.DefaultAllocator, schema, strings.NewReader(text))
	if err != nil {
		f.Fatal(err)
	}
	return rows
}

// reads is what the table has, as JSON rows in order.
func (f *fixture) reads() []string {
	f.Helper()
	loaded, err := f.catalog.Load(context.Background(), table.Identifier{"ns", "t"})
	if err != nil {
		f.Fatal(err)
	}
	out, err := loaded.Scan().ToArrowTable(context.Background())
	if err != nil {
		f.Fatal(err)
	}
	defer out.Release()
	reader := array.NewTableReader(out, -1)
	defer reader.Release()
	var rows []string
	for reader.Next() {
		text, err := json.Marshal(reader.RecordBatch())
		if err != nil {
			f.Fatal(err)
		}
		var each []json.RawMessage
		if err := json.Unmarshal(text, &each); err != nil {
			f.Fatal(err)
		}
		for _, r := range each {
			rows = append(rows, string(r))
		}
	}
	slices.Sort(rows)
	return rows
}

// schema is the table's, a field a line: id, path, type, whether it is required.
func (f *fixture) schema() []string {
	f.Helper()
	loaded, err := f.catalog.Load(context.Background(), table.Identifier{"ns", "t"})
	if err != nil {
		f.Fatal(err)
	}
	return described("", loaded.Schema().Fields())
}

func described(path string, fields []iceberg.NestedField) (lines []string) {
	for _, one := range fields {
		need := ""
		if one.Required {
			need = " required"
		}
		if nested, ok := one.Type.(iceberg.NestedType); ok {
			lines = append(lines, fmt.Sprintf("%d %s %s%s", one.ID, path+one.Name, one.Type.Type(), need))
			lines = append(lines, described(path+one.Name+".", nested.Fields())...)
			continue
		}
		lines = append(lines, fmt.Sprintf("%d %s %s%s", one.ID, path+one.Name, one.Type, need))
	}
	return lines
}

var (
	integer = arrow.PrimitiveTypes.Int32
	bigint  = arrow.PrimitiveTypes.Int64
	varchar = arrow.BinaryTypes.String
	double  = arrow.PrimitiveTypes.Float64
	float   = arrow.PrimitiveTypes.Float32
	date    = arrow.FixedWidthTypes.Date32
	moment  = &arrow.TimestampType{Unit: arrow.Microsecond}
)

func decimal(p, s int32) arrow.DataType { return &arrow.Decimal128Type{Precision: p, Scale: s} }

// TestEvolution: how a table follows a SQL that changes. The second rows are
// written with the schema that they need, in one commit, and older rows read as
// Iceberg says.
func TestEvolution(t *testing.T) {
	for name, c := range map[string]struct {
		before, after *arrow.Schema
		how           Evolve
		rows          [2]string // before and after
		schema        []string
		reads         []string
	}{
		"a column": {
			columns(is("id", bigint)), columns(is("id", bigint), is("more", varchar)), EvolveAdd,
			[2]string{`{"id":1}`, `{"id":2,"more":"x"}`},
			[]string{"1 id long", "2 more string"},
			[]string{`{"id":1,"more":null}`, `{"id":2,"more":"x"}`},
		},
		"columns between others, in another order": {
			columns(is("id", bigint), is("z", varchar)), columns(is("b", bigint), is("z", varchar), is("a", bigint), is("id", bigint)), EvolveAdd,
			[2]string{`{"id":1,"z":"y"}`, `{"id":2,"z":"y","a":3,"b":4}`},
			[]string{"1 id long", "2 z string", "3 b long", "4 a long"},
			[]string{`{"a":3,"b":4,"id":2,"z":"y"}`, `{"a":null,"b":null,"id":1,"z":"y"}`},
		},
		"nested ones": {
			columns(is("id", bigint)),
			columns(is("id", bigint), is("s", arrow.StructOf(is("x", bigint), is("l", listOf(arrow.StructOf(is("y", varchar)))))), is("n", integer)), EvolveAdd,
			[2]string{`{"id":1}`, `{"id":2,"s":{"x":3,"l":[{"y":"q"}]},"n":4}`},
			[]string{"1 id long", "2 s struct", "3 s.x long", "4 s.l list", "5 s.l.element struct", "6 s.l.element.y string", "7 n int"},
			[]string{`{"id":1,"n":null,"s":null}`, `{"id":2,"n":4,"s":{"l":[{"y":"q"}],"x":3}}`},
		},
		"fields of structs, in lists and maps": {
			columns(is("id", bigint), is("s", arrow.StructOf(is("a", bigint))), is("l", listOf(arrow.StructOf(is("a", bigint)))), is("m", arrow.MapOf(varchar, arrow.StructOf(is("a", bigint))))),
			columns(is("id", bigint), is("s", arrow.StructOf(is("b", varchar), is("a", bigint))), is("l", listOf(arrow.StructOf(is("c", bigint), is("a", bigint)))),
				is("m", arrow.MapOf(varchar, arrow.StructOf(is("d", bigint), is("a", bigint))))), EvolveAdd,
			[2]string{
				`{"id":1,"s":{"a":1},"l":[{"a":2},null],"m":[{"key":"k","value":{"a":3}}]}`,
				`{"id":2,"s":{"b":"x","a":1},"l":[{"c":5,"a":2},null],"m":[{"key":"k","value":{"d":6,"a":3}}]}`,
			},
			[]string{
				"1 id long", "2 s struct", "3 s.a long", "11 s.b string", "4 l list", "5 l.element struct", "6 l.element.a long", "12 l.element.c long",
				"7 m map", "8 m.key string required", "9 m.value struct", "10 m.value.a long", "13 m.value.d long",
			},
			[]string{
				`{"id":1,"l":[{"a":2,"c":null},null],"m":[{"key":"k","value":{"a":3,"d":null}}],"s":{"a":1,"b":null}}`,
				`{"id":2,"l":[{"a":2,"c":5},null],"m":[{"key":"k","value":{"a":3,"d":6}}],"s":{"a":1,"b":"x"}}`,
			},
		},
		"a field of a struct that comes no more": {
			columns(is("id", bigint), is("s", arrow.StructOf(is("a", bigint), is("b", varchar)))), columns(is("id", bigint), is("s", arrow.StructOf(is("b", varchar)))), EvolveNone,
			[2]string{`{"id":1,"s":{"a":1,"b":"x"}}`, `{"id":2,"s":{"b":"y"}}`},
			[]string{"1 id long", "2 s struct", "3 s.a long", "4 s.b string"},
			[]string{`{"id":1,"s":{"a":1,"b":"x"}}`, `{"id":2,"s":{"a":null,"b":"y"}}`},
		},
		"wider types": {
			columns(is("id", integer), is("f", float), is("d", decimal(5, 2)), is("s", arrow.StructOf(is("a", integer))), is("l", listOf(float)), is("m", arrow.MapOf(varchar, integer))),
			columns(is("id", bigint), is("f", double), is("d", decimal(9, 2)), is("s", arrow.StructOf(is("a", bigint))), is("l", listOf(double)), is("m", arrow.MapOf(varchar, bigint))),
			EvolveWiden,
			[2]string{
				`{"id":1,"f":1.5,"d":"1.25","s":{"a":1},"l":[0.5],"m":[{"key":"k","value":1}]}`,
				`{"id":8589934592,"f":1e300,"d":"1234567.25","s":{"a":8589934592},"l":[1e300],"m":[{"key":"k","value":8589934592}]}`,
			},
			[]string{
				"1 id long", "2 f double", "3 d decimal(9, 2)", "4 s struct", "5 s.a long", "6 l list", "7 l.element double",
				"8 m map", "9 m.key string required", "10 m.value long",
			},
			[]string{
				`{"d":"1.25","f":1.5,"id":1,"l":[0.5],"m":[{"key":"k","value":1}],"s":{"a":1}}`,
				`{"d":"1234567.25","f":1e+300,"id":8589934592,"l":[1e+300],"m":[{"key":"k","value":8589934592}],"s":{"a":8589934592}}`,
			},
		},
		"a narrower SQL": {
			columns(is("id", bigint), is("f", double), is("d", decimal(9, 2))), columns(is("id", arrow.PrimitiveTypes.Int8), is("f", float), is("d", decimal(5, 2))), EvolveNone,
			[2]string{`{"id":8589934592,"f":1e300,"d":"1234567.25"}`, `{"id":1,"f":0.5,"d":"1.25"}`},
			[]string{"1 id long", "2 f double", "3 d decimal(9, 2)"},
			[]string{`{"d":"1.25","f":0.5,"id":1}`, `{"d":"1234567.25","f":1e+300,"id":8589934592}`},
		},
		"another case is no other column": {
			columns(is("Id", bigint), is("S", arrow.StructOf(is("Inner", bigint)))), columns(is("ID", bigint), is("s", arrow.StructOf(is("INNER", bigint))), is("more", bigint)), EvolveAdd,
			[2]string{`{"Id":1,"S":{"Inner":2}}`, `{"ID":3,"s":{"INNER":4},"more":5}`},
			[]string{"1 Id long", "2 S struct", "3 S.Inner long", "4 more long"},
			[]string{`{"Id":1,"S":{"Inner":2},"more":null}`, `{"Id":3,"S":{"Inner":4},"more":5}`},
		},
		"a new UUID and a small integer": {
			columns(is("id", bigint)), columns(is("id", bigint), is("u", extensions.NewUUIDType()), is("n", arrow.PrimitiveTypes.Uint8)), EvolveAdd,
			[2]string{`{"id":1}`, `{"id":2,"u":"f79c3e09-677c-4bbd-a479-3f349cb785e7","n":200}`},
			[]string{"1 id long", "2 u uuid", "3 n int"},
			[]string{`{"id":1,"n":null,"u":null}`, `{"id":2,"n":200,"u":"f79c3e09-677c-4bbd-a479-3f349cb785e7"}`},
		},
	} {
		for kind, make := range map[string]func(*testing.T) *fixture{"sql": newFixture, "rest": newRESTFixture} {
			for _, version := range []int{2, 3} {
				t.Run(fmt.Sprintf("%s/%s/%d", name, kind, version), func(t *testing.T) {
					f := make(t)
					set := func(o *Options) { o.Evolve, o.FormatVersion = c.how, version }
					first, err := f.open(set, c.before)
					if err != nil {
						t.Fatal(err)
					}
					f.commit(first, "a0", f.like(c.before, "["+c.rows[0]+"]"))
					second, err := f.open(set, c.after)
					if err != nil {
						t.Fatal(err)
					}
					was := f.schema()
					f.commit(second, "a1") // nothing needs the new schema yet
					if got := f.schema(); !slices.Equal(got, was) {
						t.Errorf("a batch without rows changed the schema to %q", got)
					}
					f.commit(second, "a2", f.like(c.after, "["+c.rows[1]+"]"))
					if got := f.schema(); !slices.Equal(got, c.schema) {
						t.Errorf("the schema is %q, want %q", got, c.schema)
					}
					if got := f.reads(); !slices.Equal(got, c.reads) {
						t.Errorf("the table has %s, want %s", got, c.reads)
					}
					f.ofItsSchema()
					f.commit(second, "a3", f.like(c.after, "["+c.rows[1]+"]")) // it is as it should be now
					if got := f.schema(); !slices.Equal(got, c.schema) {
						t.Errorf("the schema is %q after one more batch", got)
					}
				})
			}
		}
	}
}

// ofItsSchema checks that the newest snapshot says the table's current schema,
// and that every column of its files has the id of the table's.
func (f *fixture) ofItsSchema() {
	f.Helper()
	loaded, err := f.catalog.Load(context.Background(), table.Identifier{"ns", "t"})
	if err != nil {
		f.Fatal(err)
	}
	if got, want := *loaded.CurrentSnapshot().SchemaID, loaded.Schema().ID; got != want {
		f.Errorf("the snapshot says schema %d, the table has %d", got, want)
	}
	if last := loaded.Metadata().LastColumnID(); last != loaded.Schema().HighestFieldID() {
		f.Errorf("the last id is %d, of the schema %d", last, loaded.Schema().HighestFieldID())
	}
}

// TestMisfits: what evolution does not do is said column by column, with what to
// do instead.
func TestMisfits(t *testing.T) {
	has := iceberg.NewSchemaWithIdentifiers(0, []int{9},
		field(1, "n", iceberg.PrimitiveTypes.Int32, false), field(2, "t", iceberg.PrimitiveTypes.String, false), field(3, "d", iceberg.PrimitiveTypes.Date, false),
		field(4, "s", &iceberg.StructType{FieldList: []iceberg.NestedField{field(5, "x", iceberg.PrimitiveTypes.Int32, false)}}, false),
		field(6, "m", &iceberg.MapType{KeyID: 7, KeyType: iceberg.PrimitiveTypes.Int32, ValueID: 8, ValueType: iceberg.PrimitiveTypes.Int32}, false),
		field(9, "key", iceberg.PrimitiveTypes.Int32, true), field(10, "part", iceberg.PrimitiveTypes.Int32, false), field(11, "must", iceberg.PrimitiveTypes.Int32, true),
		field(12, "dec", iceberg.DecimalTypeOf(5, 2), false),
	)
	spec := iceberg.NewPartitionSpec(iceberg.PartitionField{SourceIDs: []int{10}, FieldID: 1000, Name: "part_bucket", Transform: iceberg.BucketTransform{NumBuckets: 4}})
	all := func(change func(by map[string]arrow.DataType)) *arrow.Schema {
		by := map[string]arrow.DataType{
			"n": integer, "t": varchar, "d": date, "s": arrow.StructOf(is("x", integer)), "m": arrow.MapOf(integer, integer), "key": integer, "part": integer, "must": integer, "dec": decimal(5, 2),
		}
		change(by)
		var out []arrow.Field
		for name, t := range by {
			out = append(out, is(name, t))
		}
		return columns(out...)
	}
	for name, c := range map[string]struct {
		how    Evolve
		change func(by map[string]arrow.DataType)
		want   []string // none: it fits
	}{
		"nothing":                    {EvolveNone, func(map[string]arrow.DataType) {}, nil},
		"a new column under none":    {EvolveNone, func(by map[string]arrow.DataType) { by["new"] = varchar }, []string{`column "new": the table has no such column, the SQL gives VARCHAR; set evolve: add, add it to the table, or leave it out`}},
		"a new field under none":     {EvolveNone, func(by map[string]arrow.DataType) { by["s"] = arrow.StructOf(is("x", integer), is("y", bigint)) }, []string{`column "s.y": the table has no such column, the SQL gives BIGINT; set evolve: add`}},
		"a wider one under add":      {EvolveAdd, func(by map[string]arrow.DataType) { by["n"] = bigint }, []string{`column "n": the table has INTEGER, the SQL gives BIGINT; set evolve: widen, or cast it to INTEGER`}},
		"a wider field under add":    {EvolveAdd, func(by map[string]arrow.DataType) { by["s"] = arrow.StructOf(is("x", bigint)) }, []string{`column "s.x": the table has INTEGER, the SQL gives BIGINT; set evolve: widen`}},
		"another type":               {EvolveWiden, func(by map[string]arrow.DataType) { by["t"] = bigint }, []string{`column "t": the table has VARCHAR, the SQL gives BIGINT; cast it to VARCHAR, or give it another name with AS`}},
		"a struct":                   {EvolveWiden, func(by map[string]arrow.DataType) { by["t"] = arrow.StructOf(is("x", bigint)) }, []string{`column "t": the table has VARCHAR, the SQL gives STRUCT(x BIGINT); cast it to VARCHAR`}},
		"no struct":                  {EvolveWiden, func(by map[string]arrow.DataType) { by["s"] = varchar }, []string{`column "s": the table has STRUCT(x INTEGER), the SQL gives VARCHAR; give it the table's type`}},
		"an integer of a number":     {EvolveWiden, func(by map[string]arrow.DataType) { by["n"] = double }, []string{`the table has INTEGER, the SQL gives DOUBLE; cast it to INTEGER`}},
		"other decimals":             {EvolveWiden, func(by map[string]arrow.DataType) { by["dec"] = decimal(9, 3) }, []string{`the table has DECIMAL(5,2), the SQL gives DECIMAL(9,3); cast it to DECIMAL(5,2)`}},
		"a date":                     {EvolveWiden, func(by map[string]arrow.DataType) { by["d"] = moment }, []string{`column "d": the table has DATE, the SQL gives TIMESTAMP; cast it to DATE, or give it another name with AS: engines read older files wrongly`}},
		"the key of a map":           {EvolveWiden, func(by map[string]arrow.DataType) { by["m"] = arrow.MapOf(bigint, integer) }, []string{`column "m.key": the table has INTEGER, the SQL gives BIGINT; the key of a map is not changed: cast it to INTEGER`}},
		"what identifies rows":       {EvolveWiden, func(by map[string]arrow.DataType) { by["key"] = bigint }, []string{`column "key": the table has INTEGER, the SQL gives BIGINT; it identifies the table's rows, so its type stays: cast it to INTEGER`}},
		"no more what identifies":    {EvolveWiden, func(by map[string]arrow.DataType) { delete(by, "key") }, []string{`column "key": the table has INTEGER NOT NULL, the SQL gives none; it identifies the table's rows: give it`}},
		"what partitions it":         {EvolveWiden, func(by map[string]arrow.DataType) { by["part"] = bigint }, []string{`column "part": the table has INTEGER, the SQL gives BIGINT; the table is partitioned by it, so its type stays: cast it to INTEGER`}},
		"a required one under none":  {EvolveNone, func(by map[string]arrow.DataType) { delete(by, "must") }, []string{`column "must": the table has INTEGER NOT NULL, the SQL gives none; give it; or set evolve: add`}},
		"an engine's own name":       {EvolveAdd, func(by map[string]arrow.DataType) { by["_POS"] = bigint }, []string{`column "_POS": the table has no such column, the SQL gives BIGINT; Iceberg's engines have a column of this name`}},
		"a dot":                      {EvolveAdd, func(by map[string]arrow.DataType) { by["s.x"] = bigint }, []string{`column "s.x": the table has no such column, the SQL gives BIGINT; a dot in a name`}},
		"all of it, a line for each": {EvolveAdd, func(by map[string]arrow.DataType) { by["t"], by["n"], by["part"] = bigint, bigint, varchar }, []string{"\n  column \"n\"", "\n  column \"t\"", "\n  column \"part\""}},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t)
			f.make(has, catalog.WithPartitionSpec(&spec), catalog.WithProperties(iceberg.Properties{"format-version": "3"}))
			_, err := f.open(func(o *Options) { o.Evolve = c.how }, all(c.change))
			if c.want == nil && err != nil || c.want != nil && !errors.Is(err, batch.ErrInvalid) {
				t.Fatal(err)
			}
			for _, want := range c.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%v\nlacks %s", err, want)
				}
			}
		})
	}
}

// TestRelaxed: a column that the table requires becomes optional with the first
// rows that have NULL there, or that do not give it, at any depth; not before.
func TestRelaxed(t *testing.T) {
	has := iceberg.NewSchema(0,
		iceberg.NestedField{ID: 1, Name: "id", Type: iceberg.PrimitiveTypes.Int64, Required: true, Doc: "who"}, field(2, "must", iceberg.PrimitiveTypes.String, true),
		field(3, "s", &iceberg.StructType{FieldList: []iceberg.NestedField{field(4, "x", iceberg.PrimitiveTypes.Int64, true)}}, false),
		field(5, "l", &iceberg.ListType{ElementID: 6, Element: iceberg.PrimitiveTypes.Int64, ElementRequired: true}, true),
	)
	was := []string{"1 id long required", "2 must string required", "3 s struct", "4 s.x long required", "5 l list required", "6 l.element long required"}
	whole := columns(is("id", bigint), is("must", varchar), is("s", arrow.StructOf(is("x", bigint))), is("l", listOf(bigint)))
	less := columns(is("id", bigint), is("s", arrow.StructOf(is("x", bigint))), is("l", listOf(bigint)))
	for name, c := range map[string]struct {
		rows *arrow.Schema
		json string
		want []string // of the schema that differs
	}{
		"no NULL":       {whole, `{"id":1,"must":"a","s":{"x":1},"l":[1]}`, nil},
		"no struct":     {whole, `{"id":1,"must":"a","s":null,"l":[]}`, nil},
		"a column":      {whole, `{"id":1,"must":null,"s":{"x":1},"l":[1]}`, []string{"2 must string"}},
		"inside":        {whole, `{"id":1,"must":"a","s":{"x":null},"l":[1,null]}`, []string{"4 s.x long", "6 l.element long"}},
		"all of it":     {whole, `{"id":null,"must":null,"s":{"x":null},"l":null}`, []string{"1 id long", "2 must string", "4 s.x long", "5 l list"}},
		"it is missing": {less, `{"id":1,"s":{"x":1},"l":[1]}`, []string{"2 must string"}},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t)
			f.make(has)
			tbl, err := f.open(func(o *Options) { o.Evolve = EvolveAdd }, c.rows)
			if err != nil {
				t.Fatal(err)
			}
			f.commit(tbl, "a0")
			if got := f.schema(); !slices.Equal(got, was) {
				t.Errorf("a batch without rows changed the schema to %q", got)
			}
			f.commit(tbl, "a1", f.like(c.rows, "["+c.json+"]"))
			want := slices.Clone(was)
			for _, line := range c.want {
				i := slices.Index(was, line+" required")
				want[i] = line
			}
			if got := f.schema(); !slices.Equal(got, want) {
				t.Errorf("the schema is %q, want %q", got, want)
			}
			if n := len(f.reads()); n != 1 {
				t.Errorf("%d rows", n)
			}
			loaded, err := f.catalog.Load(t.Context(), table.Identifier{"ns", "t"})
			if err != nil {
				t.Fatal(err)
			}
			if doc := loaded.Schema().Field(0).Doc; doc != "who" {
				t.Errorf("the comment of the first column is %q", doc)
			}
		})
	}
}

// TestHeldColumnTakesNoNull: what identifies rows stays required.
func TestHeldColumnTakesNoNull(t *testing.T) {
	f := newFixture(t)
	f.make(iceberg.NewSchemaWithIdentifiers(0, []int{1}, field(1, "id", iceberg.PrimitiveTypes.Int64, true)))
	rows := columns(is("id", bigint))
	tbl, err := f.open(func(o *Options) { o.Evolve = EvolveWiden }, rows)
	if err != nil {
		t.Fatal(err)
	}
	w, err := tbl.Writer(t.Context(), "a")
	if err != nil {
		t.Fatal(err)
	}
	defer w.Abort()
	if err := w.Write(f.like(rows, `[{"id":null}]`)); !errors.Is(err, batch.ErrInvalid) || !strings.Contains(err.Error(), `column "id" is required`) {
		t.Errorf("%v", err)
	}
}

var (
	narrow = columns(is("id", bigint))
	broad  = columns(is("id", bigint), is("more", varchar))
)

// grows is a table of one column and one row, and a sink that gives one more.
func (f *fixture) grows() *Table {
	f.Helper()
	first, err := f.open(nil, narrow)
	if err != nil {
		f.Fatal(err)
	}
	f.commit(first, "a0", f.like(narrow, `[{"id":0}]`))
	tbl, err := f.open(func(o *Options) { o.Evolve = EvolveAdd }, broad)
	if err != nil {
		f.Fatal(err)
	}
	return tbl
}

// TestEvolutionByAnother: between the files and their commit another writer gave
// the field ids that the files have to other columns. The files do not fit, a
// request that is on its way does not land, and the batch is written anew.
func TestEvolutionByAnother(t *testing.T) {
	for kind, make := range map[string]func(*testing.T) *fixture{"sql": newFixture, "rest": newRESTFixture} {
		for name, c := range map[string]struct {
			by     func(u *table.UpdateSchema) *table.UpdateSchema
			schema []string
		}{
			"another column": {func(u *table.UpdateSchema) *table.UpdateSchema {
				return u.AddColumn([]string{"other"}, iceberg.PrimitiveTypes.String, "", false, nil)
			}, []string{"1 id long", "2 other string", "3 more string"}},
			"the same column": {func(u *table.UpdateSchema) *table.UpdateSchema {
				return u.AddColumn([]string{"more"}, iceberg.PrimitiveTypes.String, "", false, nil)
			}, []string{"1 id long", "2 more string"}},
			"the same with a comment": {func(u *table.UpdateSchema) *table.UpdateSchema {
				return u.AddColumn([]string{"MORE"}, iceberg.PrimitiveTypes.String, "mine", false, nil)
			}, []string{"1 id long", "2 MORE string"}},
		} {
			t.Run(kind+"/"+name, func(t *testing.T) {
				f := make(t)
				tbl := f.grows()
				stale := f.load(tbl)
				files := f.write(tbl, "a1", f.like(broad, `[{"id":1,"more":"x"}]`))
				if !stale.Fits(files) {
					t.Fatal("the files do not fit before anything changed")
				}
				f.change(func(tx *table.Transaction) error { return c.by(tx.UpdateSchema(true, false)).Commit() })
				f.refused(stale, f.stamp("a1"), files)
				fits := f.load(tbl).Fits(files)
				if want := name == "the same column"; fits != want {
					t.Fatalf("the files fit: %t, want %t", fits, want)
				}
				f.commit(tbl, "a2", f.like(broad, `[{"id":1,"more":"x"}]`))
				if got := f.schema(); !slices.Equal(got, c.schema) {
					t.Errorf("the schema is %q, want %q", got, c.schema)
				}
				if rows := strings.ToLower(strings.Join(f.reads(), " ")); !strings.Contains(rows, `"more":"x"`) || !strings.Contains(rows, `"more":null`) || strings.Contains(rows, `"other":"x"`) {
					t.Errorf("the table has %s", rows)
				}
			})
		}
	}
}

// TestIDsAreNotGivenTwice: another engine added a column and dropped it again.
// The schema is the one that was seen, by its id, too; its last field id is not.
func TestIDsAreNotGivenTwice(t *testing.T) {
	f := newFixture(t)
	tbl := f.grows()
	stale := f.load(tbl)
	files := f.write(tbl, "a1", f.like(broad, `[{"id":1,"more":"x"}]`))
	f.change(func(tx *table.Transaction) error {
		return tx.UpdateSchema(true, false).AddColumn([]string{"brief"}, iceberg.PrimitiveTypes.Int64, "", false, nil).Commit()
	})
	_, err := f.catalog.Commit(t.Context(), table.Identifier{"ns", "t"}, nil, []table.Update{table.NewSetCurrentSchemaUpdate(stale.meta.CurrentSchema().ID)})
	if err != nil {
		t.Fatal(err)
	}
	v := f.load(tbl)
	if v.meta.CurrentSchema().ID != stale.meta.CurrentSchema().ID {
		t.Fatal("the schema is another one")
	}
	if v.Fits(files) {
		t.Error("files with a field id that another column had fit")
	}
	f.refused(stale, f.stamp("a1"), files)
	f.commit(tbl, "a2", f.like(broad, `[{"id":1,"more":"x"}]`))
	if got, want := f.schema(), []string{"1 id long", "3 more string"}; !slices.Equal(got, want) {
		t.Errorf("the schema is %q, want %q", got, want)
	}
}

// TestDroppedColumnComesBack: a column that another engine dropped is another one
// when the SQL brings its name again: what it held before stays gone.
func TestDroppedColumnComesBack(t *testing.T) {
	f := newFixture(t)
	tbl := f.grows()
	f.commit(tbl, "a1", f.like(broad, `[{"id":1,"more":"x"}]`))
	f.change(func(tx *table.Transaction) error {
		return tx.UpdateSchema(true, false).DeleteColumn([]string{"more"}).Commit()
	})
	f.commit(tbl, "a2", f.like(broad, `[{"id":2,"more":"y"}]`))
	if got, want := f.schema(), []string{"1 id long", "3 more string"}; !slices.Equal(got, want) {
		t.Errorf("the schema is %q, want %q", got, want)
	}
	if got, want := f.reads(), []string{`{"id":0,"more":null}`, `{"id":1,"more":null}`, `{"id":2,"more":"y"}`}; !slices.Equal(got, want) {
		t.Errorf("the table has %s, want %s", got, want)
	}
}

// TestFilesAhead: the files of the next batch were written while the table was
// still to get its new schema. They fit when it has it.
func TestFilesAhead(t *testing.T) {
	f := newFixture(t)
	tbl := f.grows()
	first := f.write(tbl, "a1", f.like(broad, `[{"id":1,"more":"x"}]`))
	second := f.write(tbl, "a2", f.like(broad, `[{"id":2,"more":"y"}]`))
	for i, files := range []*Files{first, second} {
		v, s := f.load(tbl), f.stamp(fmt.Sprint("a", i+1))
		if !v.Fits(files) {
			t.Fatalf("the files of batch %d do not fit", i)
		}
		if _, err := v.Commit(t.Context(), s, files); err != nil {
			t.Fatal(err)
		}
		f.last = s
	}
	if got, want := f.schema(), []string{"1 id long", "2 more string"}; !slices.Equal(got, want) {
		t.Errorf("the schema is %q, want %q", got, want)
	}
	if got := f.reads(); len(got) != 3 {
		t.Errorf("the table has %s", got)
	}
}

// TestNameMappingGrows: where the table maps names to ids for files without any,
// new columns are in it, too.
func TestNameMappingGrows(t *testing.T) {
	f := newFixture(t)
	had := iceberg.NewSchema(0, field(1, "id", iceberg.PrimitiveTypes.Int64, false), field(2, "s", &iceberg.StructType{FieldList: []iceberg.NestedField{field(3, "a", iceberg.PrimitiveTypes.Int64, false)}}, false))
	mapping, err := json.Marshal(had.NameMapping())
	if err != nil {
		t.Fatal(err)
	}
	f.make(had, catalog.WithProperties(iceberg.Properties{table.DefaultNameMappingKey: string(mapping)}))
	rows := columns(is("id", bigint), is("s", arrow.StructOf(is("a", bigint), is("b", bigint))), is("more", arrow.StructOf(is("c", varchar))))
	tbl, err := f.open(func(o *Options) { o.Evolve = EvolveAdd }, rows)
	if err != nil {
		t.Fatal(err)
	}
	f.commit(tbl, "a0", f.like(rows, `[{"id":1,"s":{"a":1,"b":2},"more":{"c":"x"}}]`))
	loaded, err := f.catalog.Load(t.Context(), table.Identifier{"ns", "t"})
	if err != nil {
		t.Fatal(err)
	}
	got, err := json.Marshal(loaded.Metadata().NameMapping())
	if err != nil {
		t.Fatal(err)
	}
	want, err := json.Marshal(loaded.Schema().NameMapping())
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != string(want) {
		t.Errorf("the mapping is %s, want %s", got, want)
	}
}

// TestCrashBeforeEvolution: what was written for a new schema and never committed
// leaves the table as it is, and its files can be swept.
func TestCrashBeforeEvolution(t *testing.T) {
	f := newFixture(t)
	tbl := f.grows()
	f.write(tbl, "a1", f.like(broad, `[{"id":1,"more":"x"}]`))
	if got, want := f.schema(), []string{"1 id long"}; !slices.Equal(got, want) {
		t.Fatalf("files that were not committed changed the schema to %q", got)
	}
	again, err := f.open(func(o *Options) { o.Evolve = EvolveAdd }, broad)
	if err != nil {
		t.Fatal(err)
	}
	f.commit(again, "a2", f.like(broad, `[{"id":1,"more":"x"}]`))
	if err := again.Sweep(t.Context(), "a1"); err != nil {
		t.Fatal(err)
	}
	if got, want := f.schema(), []string{"1 id long", "2 more string"}; !slices.Equal(got, want) || len(f.reads()) != 2 || f.dataFiles() != 2 {
		t.Errorf("the schema is %q, the rows %s, %d files", got, f.reads(), f.dataFiles())
	}
}

// TestChangesAreTold: what the first rows will change, and what they leave NULL.
func TestChangesAreTold(t *testing.T) {
	f := newFixture(t)
	f.make(iceberg.NewSchema(0, field(1, "id", iceberg.PrimitiveTypes.Int32, false), field(2, "old", iceberg.PrimitiveTypes.String, true)))
	tbl, err := f.open(func(o *Options) { o.Evolve = EvolveWiden }, broad)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, c := range tbl.Changes() {
		got = append(got, c.String())
	}
	want := []string{
		`column "id" is widened from INTEGER to BIGINT`, `column "old" (VARCHAR) is not required any more`,
		`column "old" (VARCHAR) is not in the SQL: new rows have NULL there`, `column "more" (VARCHAR) is added`,
	}
	if !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}

// TestReservedNames: no table is made with a name that engines use themselves.
func TestReservedNames(t *testing.T) {
	f := newFixture(t)
	if _, err := f.open(nil, columns(is("id", bigint), is("_File", bigint))); !errors.Is(err, batch.ErrInvalid) || !strings.Contains(err.Error(), `column "_File": Iceberg's engines have a column of this name`) {
		t.Errorf("%v", err)
	}
	nested := columns(is("id", bigint), is("s", arrow.StructOf(is("_file", bigint)))) // only columns are
	if _, err := f.open(nil, nested); err != nil {
		t.Error(err)
	}
}

// TestFit: the rows of a SQL change while the pipeline runs.
func TestFit(t *testing.T) {
	f := newFixture(t)
	tbl := f.grows()
	if _, err := tbl.Fit(t.Context(), columns(is("id", varchar))); !errors.Is(err, batch.ErrInvalid) {
		t.Fatalf("rows that do not fit: %v", err)
	}
	more := columns(is("id", bigint), is("other", bigint))
	adopt, err := tbl.Fit(t.Context(), more)
	if err != nil {
		t.Fatal(err)
	}
	f.commit(tbl, "a1", f.like(broad, `[{"id":1,"more":"x"}]`)) // nothing was adopted yet
	adopt()
	f.commit(tbl, "a2", f.like(more, `[{"id":2,"other":5}]`))
	if got, want := f.reads(), []string{`{"id":0,"more":null,"other":null}`, `{"id":1,"more":"x","other":null}`, `{"id":2,"more":null,"other":5}`}; !slices.Equal(got, want) {
		t.Errorf("the table has %s, want %s", got, want)
	}
}
