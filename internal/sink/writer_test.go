package sink

import (
	"context"
	"fmt"
	"math"
	"net/url"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/apache/arrow-go/v18/parquet/file"
	"golang.org/x/sync/errgroup"
)

// TestManyPartitionsWithinMemory writes more than the writer may keep, over many
// partitions, and finds every row again.
func TestManyPartitionsWithinMemory(t *testing.T) {
	f := newFixture(t)
	tbl := f.mustOpen(func(o *Options) { o.PartitionBy, o.MemoryBytes = []string{"hour(at)"}, 4<<20 })
	w, err := tbl.Writer(t.Context(), "a")
	if err != nil {
		t.Fatal(err)
	}
	const n, step = 60_000, 3000
	for from := 0; from < n; from += step {
		rows := scattered(from, from+step, 300)
		if err := w.Write(rows); err != nil {
			t.Fatal(err)
		}
		rows.Release()
		var size int64
		for _, d := range w.open {
			size += d.memory()
		}
		if size != w.size {
			t.Fatalf("the open files take %d bytes, and the writer counts %d", size, w.size)
		}
		if most := tbl.opts.MemoryBytes / openShare; size > most {
			t.Fatalf("%d open files take %d bytes; the most is %d", len(w.open), size, most)
		}
		if most := tbl.opts.MemoryBytes/keptShare + 1<<20; w.keptSize > most {
			t.Fatalf("%d bytes are kept; the most is %d", w.keptSize, most)
		}
	}
	files, err := w.Close(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if files.Rows() != n || len(files.files) <= 300 {
		t.Fatalf("%d rows in %d files; want %d in more than 300: memory is short", files.Rows(), len(files.files), n)
	}
	s := f.stamp("a")
	if _, err := f.load(tbl).Commit(context.Background(), s, files); err != nil {
		t.Fatal(err)
	}
	if got := f.ids(nil); !slices.Equal(got, count(n)) {
		t.Fatalf("%d rows, or others than were written", len(got))
	}
}

// TestWriteFromSeveralGoroutines finds every row once.
func TestWriteFromSeveralGoroutines(t *testing.T) {
	f := newFixture(t)
	tbl := f.mustOpen(func(o *Options) { o.PartitionBy = []string{"bucket(8, id)"} })
	w, err := tbl.Writer(t.Context(), "a")
	if err != nil {
		t.Fatal(err)
	}
	const n, step = 20_000, 500
	var group errgroup.Group
	for from := 0; from < n; from += step {
		group.Go(func() error {
			rows := makeRows(from, from+step)
			defer rows.Release()
			return w.Write(rows)
		})
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	files, err := w.Close(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.load(tbl).Commit(context.Background(), f.stamp("a"), files); err != nil {
		t.Fatal(err)
	}
	if got := f.ids(nil); !slices.Equal(got, count(n)) {
		t.Fatalf("%d rows, or others than were written", len(got))
	}
}

// scattered gives ids [from, to) in as many hours as there are partitions.
func scattered(from, to, partitions int) arrow.RecordBatch {
	rows := makeRows(from, to)
	defer rows.Release()
	b := array.NewTimestampBuilder(memory.DefaultAllocator, rowSchema.Field(3).Type.(*arrow.TimestampType))
	defer b.Release()
	for i := from; i < to; i++ {
		b.Append(arrow.Timestamp(i*7%partitions) * 3600_000)
	}
	at := b.NewArray()
	defer at.Release()
	columns := slices.Clone(rows.Columns())
	columns[3] = at
	return array.NewRecordBatch(rowSchema, columns, rows.NumRows())
}

// TestNoEmptyRowGroups: Spark refuses them.
func TestNoEmptyRowGroups(t *testing.T) {
	f := newFixture(t)
	for name, c := range map[string]struct {
		change func(*Options)
		schema *arrow.Schema
		rows   func(k int) arrow.RecordBatch
	}{
		"sorted": {func(o *Options) { o.Table, o.SortBy = "ns.sorted", []string{"id"} }, rowSchema, func(k int) arrow.RecordBatch { return makeRows(k*50_000, (k+1)*50_000) }},
		"large":  {func(o *Options) { o.Table, o.MemoryBytes = "ns.large", 24<<20 }, clickSchema, func(k int) arrow.RecordBatch { return clicks(uint64(k), 50_000, 1) }},
	} {
		tbl, err := f.open(c.change, c.schema)
		if err != nil {
			t.Fatal(err)
		}
		var all []arrow.RecordBatch
		for k := range 8 {
			all = append(all, c.rows(k))
		}
		files := f.write(tbl, "a", all...)
		if len(files.files) != 1 || files.Rows() != 400_000 {
			t.Fatalf("%s: %d files, %d rows", name, len(files.files), files.Rows())
		}
		u, err := url.Parse(files.files[0].FilePath())
		if err != nil {
			t.Fatal(err)
		}
		data, err := os.Open(u.Path)
		if err != nil {
			t.Fatal(err)
		}
		r, err := file.NewParquetReader(data)
		if err != nil {
			t.Fatal(err)
		}
		for i := range r.NumRowGroups() {
			if r.MetaData().RowGroup(i).NumRows() == 0 {
				t.Errorf("%s: row group %d of %d is empty", name, i, r.NumRowGroups())
			}
		}
		if name == "large" && r.NumRowGroups() < 2 {
			t.Errorf("%s: one row group: what the encoder holds is not bounded", name)
		}
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// wideRows are rows of so many bytes, which compress well.
func wideRows(from, to, size int) arrow.RecordBatch {
	b := array.NewRecordBuilder(memory.DefaultAllocator, wideSchema)
	defer b.Release()
	for i := from; i < to; i++ {
		b.Field(0).(*array.Int64Builder).Append(int64(i))
		b.Field(1).(*array.StringBuilder).Append(fmt.Sprint(i, strings.Repeat("x", size)))
	}
	return b.NewRecordBatch()
}

var wideSchema = arrow.NewSchema([]arrow.Field{{Name: "id", Type: arrow.PrimitiveTypes.Int64, Nullable: true}, {Name: "payload", Type: arrow.BinaryTypes.String, Nullable: true}}, nil)

// TestRowGroupsOfWideRows: readers take thousands of rows at once, so a row group of
// large ones is small, however well they compress; one of small rows is as large as ever.
func TestRowGroupsOfWideRows(t *testing.T) {
	f := newFixture(t)
	for name, c := range map[string]struct {
		schema  *arrow.Schema
		batches int
		rows    func(k int) arrow.RecordBatch
		groups  func(n int) bool
	}{
		"wide": {wideSchema, 24, func(k int) arrow.RecordBatch { return wideRows(4*k, 4*k+4, 1<<20) }, func(n int) bool { return n >= 3 }},
		"wide behind narrow": {wideSchema, 24, func(k int) arrow.RecordBatch {
			if k == 0 {
				return wideRows(0, 100_000, 20)
			}
			return wideRows(100*k, 100*k+100, 64<<10)
		}, func(n int) bool { return n >= 4 }},
		"narrow": {clickSchema, 12, func(k int) arrow.RecordBatch { return clicks(uint64(k), 50_000, 1) }, func(n int) bool { return n == 1 }},
	} {
		tbl, err := f.open(func(o *Options) { o.Table, o.MemoryBytes = "ns."+strings.ReplaceAll(name, " ", "_"), 1<<30 }, c.schema)
		if err != nil {
			t.Fatal(err)
		}
		var all []arrow.RecordBatch
		for k := range c.batches {
			all = append(all, c.rows(k))
		}
		files := f.write(tbl, "a", all...)
		u, err := url.Parse(files.files[0].FilePath())
		if err != nil {
			t.Fatal(err)
		}
		r, err := file.OpenParquetFile(u.Path, false)
		if err != nil {
			t.Fatal(err)
		}
		if n := r.NumRowGroups(); len(files.files) != 1 || !c.groups(n) {
			t.Errorf("%s: %d row groups in %d files", name, n, len(files.files))
		}
		for i := range r.NumRowGroups() {
			g := r.MetaData().RowGroup(i)
			vector := g.TotalByteSize() * min(readerRows, g.NumRows()) / g.NumRows()
			if c.schema == wideSchema && vector > rowGroupWide+encodeBytes {
				t.Errorf("%s: row group %d of %d has %d rows of %d bytes: a reader takes %d MiB at once", name, i, r.NumRowGroups(), g.NumRows(), g.TotalByteSize()/g.NumRows(), vector>>20)
			}
		}
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestGroupsOfRows(t *testing.T) {
	of := make([]int32, 10)
	n := refine(of, []any{nil, "null", nil, math.NaN(), math.NaN(), []byte("x"), []byte("x"), "x", float32(math.NaN()), float32(math.NaN())})
	if want := []int32{0, 1, 0, 2, 2, 3, 3, 4, 2, 2}; !slices.Equal(of, want) || n != 5 {
		t.Errorf("groups %v of %d, want %v", of, n, want)
	}
	of = []int32{0, 1, 0, 2, 2, 3, 3, 4}
	n = refine(of, []any{int32(1), int32(1), int32(2), nil, nil, int64(1), int32(1), int32(1)})
	if want := []int32{0, 1, 2, 3, 3, 4, 5, 6}; !slices.Equal(of, want) || n != 7 {
		t.Errorf("groups %v of %d, want %v", of, n, want)
	}
}

// TestEstimateOfDistinctValues: a column that repeats its values after the
// sample gets a dictionary, one that never does gets none.
func TestEstimateOfDistinctValues(t *testing.T) {
	for _, c := range []struct {
		of       int // distinct values, in turn at random
		n        int
		from, to float64
	}{
		{3, 50_000, 3, 3},
		{5000, 50_000, 4000, 6000},
		{50_000, 50_000, 35_000, 70_000},
		{100_000_000, 50_000, 1_000_000, math.Inf(1)},
		{20_000, 10_000, math.Inf(1), math.Inf(1)}, // a small file of which most values are distinct
		{100, 10_000, 90, 110},
	} {
		b := array.NewStringBuilder(memory.DefaultAllocator)
		x := uint64(1)
		for range c.n {
			x = x*6364136223846793005 + 1442695040888963407
			b.Append(fmt.Sprintf("%010d", (x>>33)%uint64(c.of)))
		}
		a := b.NewArray()
		if got, size := estimate(a); got < c.from || got > c.to || size != 10 {
			t.Errorf("%d values of %d: estimated %.0f of %.1f bytes", c.n, c.of, got, size)
		}
		a.Release()
		b.Release()
	}
}

// TestColumnsWithoutBytes: a STRUCT without NULLs has no buffer, and text that is
// empty in every row none with values; they are written like others.
func TestColumnsWithoutBytes(t *testing.T) {
	group := arrow.StructOf(arrow.Field{Name: "n", Type: arrow.PrimitiveTypes.Int64, Nullable: true})
	for name, c := range map[string]arrow.Array{
		"struct": array.NewStructData(array.NewData(group, 2, []*memory.Buffer{nil}, []arrow.ArrayData{array.MakeArrayOfNull(memory.DefaultAllocator, arrow.PrimitiveTypes.Int64, 2).Data()}, 0, 0)),
		"text":   array.NewStringData(array.NewData(arrow.BinaryTypes.String, 2, []*memory.Buffer{nil, memory.NewBufferBytes(make([]byte, 12)), nil}, nil, 0, 0)),
	} {
		t.Run(name, func(t *testing.T) {
			if _, size := estimate(c); size != 0 {
				t.Errorf("the mean size is %v", size)
			}
		})
	}
}
