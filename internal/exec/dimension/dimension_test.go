package dimension

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/extensions"
	"github.com/apache/arrow-go/v18/arrow/memory"

	"github.com/frazil-io/frazil/internal/batch"
	"github.com/frazil-io/frazil/internal/exec/duckdb"
)

// shelf is a keeper in memory.
type shelf struct {
	kept   map[string][]byte
	pinned string
	err    error
	times  int
}

func (s *shelf) KeepDimension(_ context.Context, version string, data []byte) error {
	s.times++
	s.kept[version] = data
	return s.err
}

func (s *shelf) Dimension(_ context.Context, version string) ([]byte, error) {
	if s.err != nil {
		return nil, s.err
	}
	if data, ok := s.kept[version]; ok {
		return data, nil
	}
	return nil, fmt.Errorf("%w: not kept", batch.ErrInvalid)
}

// world is a clock and a keeper.
type world struct {
	shelf
	now     time.Time
	refresh time.Duration
}

func (w *world) options() Options {
	return Options{
		Refresh: w.refresh, BytesMax: 1 << 20, Now: func() time.Time { return w.now },
		Keeper: func(context.Context) (Keeper, error) { return &w.shelf, nil },
		Pinned: func(context.Context) (string, error) { return w.pinned, nil },
	}
}

func newWorld() *world {
	return &world{shelf: shelf{kept: map[string][]byte{}}, now: time.Unix(1e9, 0)}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// content is a table as text, one line for each row.
func content(t *testing.T, c interface {
	Load(context.Context, string) (arrow.RecordBatch, error)
}, version string,
) string {
	t.Helper()
	rows, err := c.Load(t.Context(), version)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Release()
	var lines []string
	for i := range int(rows.NumRows()) {
		var values []string
		for c := range int(rows.NumCols()) {
			values = append(values, rows.Column(c).ValueStr(i))
		}
		lines = append(lines, strings.Join(values, "|"))
	}
	return strings.Join(lines, "\n")
}

func types(fields []arrow.Field) string {
	var all []string
	for _, f := range fields {
		all = append(all, f.Name+" "+TypeName(f.Type))
	}
	return strings.Join(all, ", ")
}

const mixed = "\ufeffid,zip,price,open,since,seen,at,note,none\n" +
	"1,01234,1.5,true,2024-02-29,2024-02-29 10:11:12.5,2024-02-29T10:11:12+01:00,\"a \"\"quoted\"\", text\",\n" +
	"-2,99999,2,FALSE,1969-12-31,1969-12-31T23:59,1969-12-31 23:59:59.999999Z,,\n"

// TestCSVSniffed: types are the narrowest that lose nothing.
func TestCSVSniffed(t *testing.T) {
	w, path := newWorld(), filepath.Join(t.TempDir(), "d.csv")
	write(t, path, mixed)
	c, err := CSV(t.Context(), CSVOptions{Path: path}, w.options())
	if err != nil {
		t.Fatal(err)
	}
	if got, want := types(c.Fields()), "id BIGINT, zip VARCHAR, price DOUBLE, open BOOLEAN, since DATE, seen TIMESTAMP, at TIMESTAMPTZ, note VARCHAR, none VARCHAR"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	v, err := c.Version(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	want := `1|01234|1.5|true|2024-02-29|2024-02-29T10:11:12.5|2024-02-29T09:11:12Z|a "quoted", text|(null)
-2|99999|2|false|1969-12-31|1969-12-31T23:59:00|1969-12-31T23:59:59.999999Z|(null)|(null)`
	if got := content(t, c, v); got != want {
		t.Errorf("%s\nwant\n%s", got, want)
	}
}

// TestCSVOptions: declared types, no header, another delimiter, another NULL.
func TestCSVOptions(t *testing.T) {
	w, path := newWorld(), filepath.Join(t.TempDir(), "d.csv")
	write(t, path, "7\t12.340\tNA\t01234567-89ab-cdef-0123-456789abcdef\taGk=\n8\t-0.05\t10:11:12.000001\tNA\tNA\n")
	c, err := CSV(t.Context(), CSVOptions{Path: path, NoHeader: true, Delimiter: '\t', Null: "NA", Columns: []arrow.Field{
		{Name: "a", Type: arrow.PrimitiveTypes.Uint8},
		{Name: "b", Type: &arrow.Decimal128Type{Precision: 5, Scale: 2}},
		{Name: "c", Type: arrow.FixedWidthTypes.Time64us},
		{Name: "d", Type: extensions.NewUUIDType()},
		{Name: "e", Type: arrow.BinaryTypes.Binary},
	}}, w.options())
	if err != nil {
		t.Fatal(err)
	}
	v, err := c.Version(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if got, want := content(t, c, v), "7|12.34|(null)|01234567-89ab-cdef-0123-456789abcdef|aGk=\n8|-0.05|10:11:12.000001|(null)|(null)"; got != want {
		t.Errorf("%s\nwant\n%s", got, want)
	}
}

// TestCSVMistakes: each says the line and what to do.
func TestCSVMistakes(t *testing.T) {
	number := []arrow.Field{{Name: "a", Type: arrow.PrimitiveTypes.Int8, Nullable: true}}
	for _, c := range []struct {
		text    string
		columns []arrow.Field
		want    string
	}{
		{"", nil, "the file is empty"},
		{"a,a\n1,2\n", nil, `line 1: the header has "a" twice`},
		{"a,\n1,2\n", nil, "line 1: column 2 of the header has no name"},
		{"a,b\n1,2\n1\n", nil, "line 3: it has another number of values"},
		{"a,b\n1,\"2\n", nil, "line 2 column 6"},
		{"a\n1\n\"\n\n300\"\n", number, `line 3: column "a": "\n\n300" is not TINYINT`},
		{"a\n1\n300\n", number, `line 3: column "a": "300" is not TINYINT; correct it`},
		{"b\n1\n", number, `the header has no column "a"; it has b`},
		{"a\n" + strings.Repeat("1\n", 600_000), number, "the table takes 2 MB or more, the most is 1 MB"},
		{"a\n1\n", []arrow.Field{{Name: "a", Type: arrow.StructOf()}}, "cannot be read here; declare it as VARCHAR"},
		{"a\n\xff\n", nil, `is not VARCHAR`},
	} {
		w, path := newWorld(), filepath.Join(t.TempDir(), "d.csv")
		write(t, path, c.text)
		d, err := CSV(t.Context(), CSVOptions{Path: path, Columns: c.columns}, w.options())
		if err == nil {
			_, err = d.Version(t.Context())
		}
		if !errors.Is(err, batch.ErrInvalid) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%.40q: %v, want %q", c.text, err, c.want)
		}
	}
}

// TestVersions: the contents make the version, the clock says when they are
// looked at, and a batch that is run again reads the copy.
func TestVersions(t *testing.T) {
	w, path := newWorld(), filepath.Join(t.TempDir(), "d.csv")
	w.refresh = time.Minute
	write(t, path, "a\n1\n")
	open := func() *Copied {
		c, err := CSV(t.Context(), CSVOptions{Path: path}, w.options())
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	c := open()
	version := func() string {
		t.Helper()
		v, err := c.Version(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	first := version()
	write(t, path, "a\n2\n")
	w.now = w.now.Add(59 * time.Second)
	if version() != first {
		t.Error("it was looked at before its time")
	}
	w.now = w.now.Add(time.Second)
	second := version()
	if second == first || w.times != 2 {
		t.Errorf("%s, then %s, kept %d times", first, second, w.times)
	}
	write(t, path, "a\n1\n")
	if other := open(); content(t, other, first) != "1" || content(t, other, second) != "2" {
		t.Error("the copies are not those of the versions")
	}
	w.now = w.now.Add(time.Hour)
	if version() != first {
		t.Error("equal contents have another version")
	}
	// Gone, and only the copy is left.
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if _, err := CSV(t.Context(), CSVOptions{Path: path}, w.options()); !errors.Is(err, batch.ErrInvalid) {
		t.Errorf("no file and no plan: %v", err)
	}
	w.pinned = second
	c = open()
	if content(t, c, second) != "2" {
		t.Error("the copy was not read")
	}
	if _, err := c.Version(t.Context()); !errors.Is(err, batch.ErrUnavailable) {
		t.Errorf("a file that is away: %v", err)
	}
	w.kept[second] = append([]byte{}, w.kept[first]...)
	if _, err := c.Load(t.Context(), second); !errors.Is(err, batch.ErrDataLost) {
		t.Errorf("a copy of other contents: %v", err)
	}
	// A copy that is gone is made again while the table still has the contents.
	delete(w.kept, first)
	if _, err := c.Load(t.Context(), first); !errors.Is(err, batch.ErrInvalid) || !strings.Contains(err.Error(), "revise the batch") {
		t.Errorf("nothing is left: %v", err)
	}
	write(t, path, "a\n1\n")
	if content(t, c, first) != "1" || w.kept[first] == nil {
		t.Error("it was not kept again")
	}
	w.err = fmt.Errorf("%w: away", batch.ErrUnavailable)
	if _, err := c.Load(t.Context(), first); !errors.Is(err, batch.ErrUnavailable) {
		t.Errorf("the checkpoint is away: %v", err)
	}
}

// TestTypesStay: what was found once is what later contents must be, in another
// process, too.
func TestTypesStay(t *testing.T) {
	w, path := newWorld(), filepath.Join(t.TempDir(), "d.csv")
	write(t, path, "a,b\n1,x\n")
	c, err := CSV(t.Context(), CSVOptions{Path: path}, w.options())
	if err != nil {
		t.Fatal(err)
	}
	if w.pinned, err = c.Version(t.Context()); err != nil {
		t.Fatal(err)
	}
	write(t, path, "a,b\n1,x\nmany,y\n")
	again, err := CSV(t.Context(), CSVOptions{Path: path}, w.options())
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []*Copied{c, again} {
		if _, err := c.Version(t.Context()); !errors.Is(err, batch.ErrInvalid) || !strings.Contains(err.Error(), `line 3: column "a": "many" is not BIGINT; correct it, or declare columns`) {
			t.Error(err)
		}
	}
}

// TestParquetChanges: a file whose columns are others than at the start is
// refused, never read into the wrong columns.
func TestParquetChanges(t *testing.T) {
	w, path := newWorld(), filepath.Join(t.TempDir(), "d.parquet")
	save := func(fields ...arrow.Field) {
		t.Helper()
		b := array.NewRecordBuilder(memory.DefaultAllocator, arrow.NewSchema(fields, nil))
		defer b.Release()
		for i := range fields {
			if err := b.Field(i).AppendValueFromString(fmt.Sprint(i)); err != nil {
				t.Fatal(err)
			}
		}
		rows := b.NewRecordBatch()
		defer rows.Release()
		data, err := encode(rows)
		if err != nil {
			t.Fatal(err)
		}
		write(t, path, string(data))
	}
	a, b := arrow.Field{Name: "a", Type: arrow.PrimitiveTypes.Int64}, arrow.Field{Name: "b", Type: arrow.BinaryTypes.String}
	save(a, b)
	c, err := Parquet(t.Context(), path, nil, w.options())
	if err != nil {
		t.Fatal(err)
	}
	save(b, arrow.Field{Name: "more", Type: arrow.PrimitiveTypes.Int8}, a)
	v, err := c.Version(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if got := content(t, c, v); got != "2|0" {
		t.Errorf("columns are not found by name: %s", got)
	}
	for want, fields := range map[string][]arrow.Field{
		`it has no column "b" any more`:                                    {a},
		`column "b" is INTEGER, and was VARCHAR when the pipeline started`: {a, {Name: "b", Type: arrow.PrimitiveTypes.Int32}},
	} {
		save(fields...)
		if _, err := c.Version(t.Context()); !errors.Is(err, batch.ErrInvalid) || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
	write(t, path, "hello")
	if _, err := c.Version(t.Context()); !errors.Is(err, batch.ErrInvalid) || !strings.Contains(err.Error(), "d.parquet: invalid: it is not Parquet") {
		t.Error(err)
	}
	if _, err := Parquet(t.Context(), "s3://bucket/x.parquet", map[string]string{"s3.endpoint": "nowhere"}, w.options()); !errors.Is(err, batch.ErrInvalid) {
		t.Error(err)
	}
}

// TestValues: exactly, or not at all.
func TestValues(t *testing.T) {
	list := arrow.ListOf(arrow.BinaryTypes.String)
	for _, c := range []struct {
		kind       arrow.DataType
		text, want string // "": refused
	}{
		{arrow.PrimitiveTypes.Int64, "9223372036854775807", "9223372036854775807"},
		{arrow.PrimitiveTypes.Int64, "9223372036854775808", ""},
		{arrow.PrimitiveTypes.Int64, "1.0", ""},
		{arrow.PrimitiveTypes.Uint8, "-1", ""},
		{arrow.PrimitiveTypes.Float32, "1e39", ""},
		{arrow.PrimitiveTypes.Float64, "NaN", "NaN"},
		{&arrow.Decimal128Type{Precision: 4, Scale: 2}, "-12.3400", "-12.34"},
		{&arrow.Decimal128Type{Precision: 4, Scale: 2}, "12.345", ""},
		{&arrow.Decimal128Type{Precision: 4, Scale: 2}, "123.45", ""},
		{&arrow.Decimal128Type{Precision: 38, Scale: 0}, "99999999999999999999999999999999999999", "99999999999999999999999999999999999999"},
		{&arrow.Decimal128Type{Precision: 4, Scale: 2}, "NaN", ""},
		{&arrow.Decimal128Type{Precision: 4, Scale: 2}, ".", ""},
		{arrow.FixedWidthTypes.Date32, "0001-01-01", "0001-01-01"},
		{arrow.FixedWidthTypes.Date32, "infinity", ""},
		{arrow.FixedWidthTypes.Date32, "2023-02-29", ""},
		{arrow.FixedWidthTypes.Time64us, "24:00:00", ""},
		{&arrow.TimestampType{Unit: arrow.Microsecond}, "2024-01-01 00:00:00.1234567", ""},
		{&arrow.TimestampType{Unit: arrow.Microsecond}, "2024-01-01 00:00:00+00", ""},
		{&arrow.TimestampType{Unit: arrow.Microsecond, TimeZone: "UTC"}, "2024-01-01 00:00:00", ""},
		{&arrow.TimestampType{Unit: arrow.Microsecond, TimeZone: "UTC"}, "2024-01-01 00:00:00+05:30", "2023-12-31T18:30:00Z"},
		{&arrow.TimestampType{Unit: arrow.Microsecond, TimeZone: "UTC"}, "0044-03-15 00:00:00+00 BC", ""},
		{&arrow.TimestampType{Unit: arrow.Nanosecond}, "9999-01-01 00:00:00", ""},
		{arrow.BinaryTypes.Binary, `\x00ff`, "AP8="},
		{arrow.BinaryTypes.Binary, "no base64!", ""},
		{list, `{}`, "[]"},
		{list, `{a,"b,\"c\\",NULL,"NULL",""}`, `["a","b,\"c\\",null,"NULL",""]`},
		{list, `{{a},{b}}`, ""},
		{list, `[0:1]={a,b}`, ""},
		{arrow.ListOf(arrow.PrimitiveTypes.Int16), `{1,NULL,-3}`, "[1,null,-3]"},
	} {
		b, err := newBuilder([]arrow.Field{{Name: "x", Type: c.kind}}, 0)
		if err != nil {
			t.Fatal(err)
		}
		err = b.text(0, c.text)
		if (err != nil) != (c.want == "") {
			t.Errorf("%s as %s: %v, want %q", c.text, TypeName(c.kind), err, c.want)
		}
		rows := b.NewRecordBatch()
		if err == nil && rows.Column(0).ValueStr(0) != c.want {
			t.Errorf("%s as %s is %s, want %s", c.text, TypeName(c.kind), rows.Column(0).ValueStr(0), c.want)
		}
		rows.Release()
		b.Release()
	}
}

// TestDuckDBTakesThem: every type of a copy is one that SQL can read.
func TestDuckDBTakesThem(t *testing.T) {
	i, err := duckdb.Open(t.Context(), duckdb.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer i.Close()
	var fields []arrow.Field
	for oid, kind := range simpleTypes {
		fields = append(fields, arrow.Field{Name: fmt.Sprint("c", oid), Type: kind, Nullable: true},
			arrow.Field{Name: fmt.Sprint("l", oid), Type: arrow.ListOfField(arrow.Field{Name: "element", Type: kind, Nullable: true}), Nullable: true})
	}
	fields = append(fields, arrow.Field{Name: "d", Type: &arrow.Decimal128Type{Precision: 38, Scale: 10}, Nullable: true})
	b, err := newBuilder(fields, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Release()
	for c := range fields {
		b.null(c)
	}
	rows := b.NewRecordBatch()
	defer rows.Release()
	data, err := encode(rows)
	if err != nil {
		t.Fatal(err)
	}
	back, err := decode(t.Context(), data, fields, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer back.Release()
	if was, err := fieldsOf(data); err != nil || !strings.EqualFold(types(was), types(fields)) {
		t.Errorf("read back as %s %v\nwant %s", types(was), err, types(fields))
	}
	s, err := i.AddSource("d", fields, duckdb.Table)
	if err != nil {
		t.Fatal(err)
	}
	s.Set(back)
	q, err := i.Prepare("SELECT * FROM d")
	if err != nil {
		t.Fatal(err)
	}
	defer q.Close()
	err = q.Run(t.Context(), func(rows arrow.RecordBatch) error { rows.Release(); return nil })
	if err != nil {
		t.Fatal(err)
	}
}
