package sink

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/apache/iceberg-go"
	"github.com/apache/iceberg-go/table"

	"github.com/frazil-io/frazil/internal/batch"
	"github.com/frazil-io/frazil/internal/lake"
)

var rowSchema = arrow.NewSchema([]arrow.Field{
	{Name: "id", Type: arrow.PrimitiveTypes.Int64, Nullable: true},
	{Name: "kind", Type: arrow.BinaryTypes.String, Nullable: true},
	{Name: "small", Type: arrow.PrimitiveTypes.Int16, Nullable: true},
	{Name: "at", Type: &arrow.TimestampType{Unit: arrow.Millisecond, TimeZone: "UTC"}, Nullable: true},
	{Name: "tags", Type: arrow.ListOfField(arrow.Field{Name: "element", Type: arrow.BinaryTypes.String, Nullable: true}), Nullable: true},
}, nil)

// makeRows gives ids [from, to); kind is "null", NULL, or a letter.
func makeRows(from, to int) arrow.RecordBatch {
	b := array.NewRecordBuilder(memory.DefaultAllocator, rowSchema)
	defer b.Release()
	for i := from; i < to; i++ {
		b.Field(0).(*array.Int64Builder).Append(int64(i))
		switch i % 4 {
		case 0:
			b.Field(1).AppendNull()
		case 1:
			b.Field(1).(*array.StringBuilder).Append("null")
		default:
			b.Field(1).(*array.StringBuilder).Append(string(rune('a' + i%3)))
		}
		b.Field(2).(*array.Int16Builder).Append(int16(-i))
		b.Field(3).(*array.TimestampBuilder).Append(arrow.Timestamp(i * 3600_000))
		l := b.Field(4).(*array.ListBuilder)
		l.Append(true)
		l.ValueBuilder().(*array.StringBuilder).Append(fmt.Sprint("t", i))
	}
	return b.NewRecordBatch()
}

// fixture is a table in a directory, with a clock.
type fixture struct {
	*testing.T
	catalog *lake.Catalog
	dir     string
	now     time.Time
	last    *batch.Stamp
}

func newFixture(t *testing.T) *fixture {
	t.Helper()
	dir := t.TempDir()
	c, err := lake.Open(context.Background(), lake.Options{Name: "lake", Type: "sql", URI: filepath.Join(dir, "catalog.db"), Warehouse: filepath.Join(dir, "wh")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return &fixture{T: t, catalog: c, dir: dir, now: time.Now()}
}

func (f *fixture) open(change func(*Options), schema *arrow.Schema) (*Table, error) {
	f.Helper()
	o := Options{Pipeline: "p", Table: "ns.t", Create: true}
	if change != nil {
		change(&o)
	}
	return Open(context.Background(), f.catalog, o, schema, func() time.Time { return f.now }, slog.New(slog.DiscardHandler))
}

func (f *fixture) mustOpen(change func(*Options)) *Table {
	f.Helper()
	t, err := f.open(change, rowSchema)
	if err != nil {
		f.Fatal(err)
	}
	return t
}

// stamp follows the last one.
func (f *fixture) stamp(attempt string) *batch.Stamp {
	s := &batch.Stamp{UUID: "u", Name: "p", IncarnationID: "i", Stream: batch.StreamMain, Plan: "plan", Attempt: attempt, Start: batch.Offsets{}, End: batch.Offsets{}, Time: f.now}
	if f.last != nil {
		s.First, s.Last, s.Previous = f.last.Last+1, f.last.Last+1, f.last.Hash()
	}
	return s
}

func (f *fixture) write(t *Table, attempt string, rows ...arrow.RecordBatch) *Files {
	f.Helper()
	w, err := t.Writer(context.Background(), attempt)
	if err != nil {
		f.Fatal(err)
	}
	for _, r := range rows {
		if err := w.Write(r); err != nil {
			f.Fatal(err)
		}
		r.Release()
	}
	files, err := w.Close(context.Background())
	if err != nil {
		f.Fatal(err)
	}
	return files
}

func (f *fixture) load(t *Table) *View {
	f.Helper()
	v, err := t.Load(context.Background())
	if err != nil {
		f.Fatal(err)
	}
	return v
}

func (f *fixture) commit(t *Table, attempt string, rows ...arrow.RecordBatch) int64 {
	f.Helper()
	files := f.write(t, attempt, rows...)
	s := f.stamp(attempt)
	id, err := f.load(t).Commit(context.Background(), s, files)
	if err != nil {
		f.Fatal(err)
	}
	f.last = s
	return id
}

// ids reads the table back through iceberg-go's scan.
func (f *fixture) ids(filter iceberg.BooleanExpression) []int64 {
	f.Helper()
	tbl, err := f.catalog.Load(context.Background(), table.Identifier{"ns", "t"})
	if err != nil {
		f.Fatal(err)
	}
	opts := []table.ScanOption{}
	if filter != nil {
		opts = append(opts, table.WithRowFilter(filter))
	}
	out, err := tbl.Scan(opts...).ToArrowTable(context.Background())
	if err != nil {
		f.Fatal(err)
	}
	defer out.Release()
	var ids []int64
	for _, c := range out.Column(0).Data().Chunks() {
		ids = append(ids, c.(*array.Int64).Int64Values()...)
	}
	slices.Sort(ids)
	return ids
}

func count(n int) []int64 {
	ids := make([]int64, n)
	for i := range ids {
		ids[i] = int64(i)
	}
	return ids
}

func TestCommitReadsBack(t *testing.T) {
	f := newFixture(t)
	tbl := f.mustOpen(nil)
	if v := f.load(tbl); v.Stamp() != nil || v.Head() != 0 || v.Ancestry() != batch.IsAncestor {
		t.Fatal("a new table has a stamp")
	}
	f.commit(tbl, "a0") // empty
	f.commit(tbl, "a1", makeRows(0, 1000), makeRows(1000, 1500))
	v := f.load(tbl)
	if v.Stamp().Hash() != f.last.Hash() || len(v.History()) != 2 || v.Ancestry() != batch.IsAncestor {
		t.Fatalf("stamp %s, history %v", v.Stamp(), v.History())
	}
	if got := f.ids(nil); !slices.Equal(got, count(1500)) {
		t.Fatalf("%d rows", len(got))
	}
	if s := v.head.Summary.Properties; s[totalRecords] != "1500" || s[addedRecords] != "1500" {
		t.Fatalf("summary %v", s)
	}
	if left, _ := filepath.Glob(filepath.Join(f.dir, "wh", "*", "*", "*", ".frazil-tmp-*")); len(left) > 0 {
		t.Fatalf("temporary files are left: %v", left)
	}
}

// TestStaleWriterIsRefused: whoever loaded before another commit cannot land,
// even an empty one, and even where a property asks for blind retries.
func TestStaleWriterIsRefused(t *testing.T) {
	f := newFixture(t)
	tbl := f.mustOpen(func(o *Options) { o.Properties = map[string]string{"commit.retry.num-retries": "20"} })
	f.commit(tbl, "a0")
	stale := f.load(tbl)
	f.commit(tbl, "a1")
	other := f.mustOpen(nil)
	files := f.write(other, "late", makeRows(0, 10))
	_, err := stale.Commit(context.Background(), f.stamp("late"), files)
	if !errors.Is(err, batch.ErrUnavailable) {
		t.Fatalf("error %v", err)
	}
	if len(f.ids(nil)) != 0 {
		t.Fatal("the stale commit landed")
	}
	if _, err := f.load(tbl).Commit(context.Background(), f.stamp("late"), files); err != nil { // the same files on the new head
		t.Fatal(err)
	}
	if got := f.ids(nil); !slices.Equal(got, count(10)) {
		t.Fatalf("%v", got)
	}
}

// foreign appends as another engine does.
func (f *fixture) foreign(n int) {
	f.Helper()
	tbl, err := f.catalog.Load(context.Background(), table.Identifier{"ns", "t"})
	if err != nil {
		f.Fatal(err)
	}
	schema, err := table.SchemaToArrowSchema(tbl.Schema(), nil, true, false)
	if err != nil {
		f.Fatal(err)
	}
	b := array.NewRecordBuilder(memory.DefaultAllocator, schema)
	defer b.Release()
	for range n {
		b.Field(0).(*array.Int64Builder).Append(-1)
		for i := 1; i < schema.NumFields(); i++ {
			b.Field(i).AppendNull()
		}
	}
	rows := b.NewRecordBatch()
	r, err := array.NewRecordReader(schema, []arrow.RecordBatch{rows})
	if err != nil {
		f.Fatal(err)
	}
	tx := tbl.NewTransaction()
	if err := tx.Append(context.Background(), r, nil); err != nil {
		f.Fatal(err)
	}
	if _, err := tx.Commit(context.Background()); err != nil {
		f.Fatal(err)
	}
}

func TestForeignWriters(t *testing.T) {
	f := newFixture(t)
	tbl := f.mustOpen(nil)
	before := f.commit(tbl, "a0", makeRows(0, 5))
	stale := f.load(tbl)
	f.foreign(1)
	if _, err := stale.Commit(context.Background(), f.stamp("x"), nil); !errors.Is(err, batch.ErrUnavailable) {
		t.Fatalf("an append between load and commit: %v", err)
	}
	f.commit(tbl, "a1", makeRows(5, 8))
	if got := f.ids(nil); !slices.Equal(got, append([]int64{-1}, count(8)...)) {
		t.Fatalf("%v", got)
	}
	// A foreign expiry leaves the tag, and what lies between is unknown then.
	f.foreign(1)
	f.foreign(1)
	loaded, _ := f.catalog.Load(context.Background(), table.Identifier{"ns", "t"})
	tx := loaded.NewTransaction()
	if err := tx.ExpireSnapshots(table.WithRetainLast(1), table.WithOlderThan(0), table.WithPostCommit(false)); err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Commit(context.Background()); err != nil {
		t.Fatal(err)
	}
	v := f.load(tbl)
	if v.Stamp().Hash() != f.last.Hash() || v.Ancestry() != batch.UnknownAncestor {
		t.Fatalf("after expiry: %v, ancestry %d", v.Stamp(), v.Ancestry())
	}
	if v.meta.SnapshotByID(before) != nil {
		t.Fatal("nothing expired")
	}
	f.withoutParents()
	if v := f.load(tbl); v.Ancestry() != batch.UnknownAncestor {
		t.Fatalf("after an expiry by pyiceberg: ancestry %d", v.Ancestry())
	}
}

// withoutParents takes the ids of parents from all snapshots, as pyiceberg's expiry
// does.
func (f *fixture) withoutParents() {
	f.Helper()
	path := strings.TrimPrefix(f.state(), "file://")
	text, err := os.ReadFile(path)
	if err != nil {
		f.Fatal(err)
	}
	text = regexp.MustCompile(`"parent-snapshot-id":\s*\d+,`).ReplaceAll(text, nil)
	if err := os.WriteFile(path, text, 0o600); err != nil {
		f.Fatal(err)
	}
}

func TestRollbackIsSeen(t *testing.T) {
	f := newFixture(t)
	tbl := f.mustOpen(nil)
	first := f.commit(tbl, "a0", makeRows(0, 5))
	f.commit(tbl, "a1", makeRows(5, 8))
	loaded, _ := f.catalog.Load(context.Background(), table.Identifier{"ns", "t"})
	tx := loaded.NewTransaction()
	if err := tx.RollbackToSnapshot(first); err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Commit(context.Background()); err != nil {
		t.Fatal(err)
	}
	if v := f.load(tbl); v.Ancestry() != batch.NotAncestor {
		t.Fatalf("ancestry %d", v.Ancestry())
	}
}

// TestFits: files are for one schema and one partitioning, if there are any.
func TestFits(t *testing.T) {
	f := newFixture(t)
	tbl := f.mustOpen(nil)
	f.commit(tbl, "a0", makeRows(0, 5))
	v := f.load(tbl)
	fresh := func() *Files {
		return &Files{table: v.meta.TableUUID(), schema: v.meta.CurrentSchema().ID, spec: v.meta.DefaultPartitionSpec(), files: make([]iceberg.DataFile, 1)}
	}
	for name, c := range map[string]struct {
		change func(*Files)
		fits   bool
	}{
		"as they were written":          {func(*Files) {}, true},
		"another schema":                {func(f *Files) { f.schema++ }, false},
		"another partitioning":          {func(f *Files) { f.spec++ }, false},
		"no files":                      {func(f *Files) { f.schema++; f.files = nil }, true},
		"another table is not for this": {func(f *Files) { f.table[0]++; f.schema++ }, true},
	} {
		files := fresh()
		c.change(files)
		if v.Fits(files) != c.fits {
			t.Errorf("%s: %v", name, !c.fits)
		}
	}
	if !v.Fits(nil) {
		t.Error("nothing does not fit")
	}
}

// TestRollbackBehindExpiredSnapshots: that what lay before the head has expired
// does not hide that the tagged snapshot was built upon it.
func TestRollbackBehindExpiredSnapshots(t *testing.T) {
	f := newFixture(t)
	tbl := f.mustOpen(nil)
	f.commit(tbl, "a0", makeRows(0, 5))
	second := f.commit(tbl, "a1", makeRows(5, 8))
	f.commit(tbl, "a2", makeRows(8, 9))
	change := func(do func(*table.Transaction) error) {
		loaded, err := f.catalog.Load(context.Background(), table.Identifier{"ns", "t"})
		if err != nil {
			t.Fatal(err)
		}
		tx := loaded.NewTransaction()
		if err := do(tx); err != nil {
			t.Fatal(err)
		}
		if _, err := tx.Commit(context.Background()); err != nil {
			t.Fatal(err)
		}
	}
	change(func(tx *table.Transaction) error {
		return tx.ExpireSnapshots(table.WithRetainLast(2), table.WithOlderThan(0), table.WithPostCommit(false))
	})
	change(func(tx *table.Transaction) error { return tx.RollbackToSnapshot(second) })
	if v := f.load(tbl); v.Ancestry() != batch.NotAncestor {
		t.Fatalf("ancestry %d", v.Ancestry())
	}
}

func TestPartitionsAndOrder(t *testing.T) {
	f := newFixture(t)
	tbl := f.mustOpen(func(o *Options) {
		o.PartitionBy, o.SortBy = []string{"kind", "day(at)", "bucket(4, id)"}, []string{"id desc"}
	})
	f.commit(tbl, "a0", makeRows(0, 300))
	if got := f.ids(nil); !slices.Equal(got, count(300)) {
		t.Fatalf("%d rows", len(got))
	}
	nulls := 0
	for _, id := range f.ids(iceberg.IsNull(iceberg.Reference("kind"))) {
		if id%4 != 0 {
			t.Fatalf("row %d is not NULL", id)
		}
		nulls++
	}
	if nulls != 75 {
		t.Fatalf("%d rows with NULL, want 75: NULL and the text null share a partition", nulls)
	}
	if got := f.ids(iceberg.EqualTo(iceberg.Reference("kind"), "null")); len(got) != 75 {
		t.Fatalf(`%d rows with the text "null"`, len(got))
	}
}

func TestRequiredColumns(t *testing.T) {
	f := newFixture(t)
	required := slices.Clone(rowSchema.Fields())
	required[1].Nullable = false
	tbl, err := f.open(nil, arrow.NewSchema(required, nil))
	if err != nil {
		t.Fatal(err)
	}
	w, err := tbl.Writer(context.Background(), "a")
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Write(makeRows(0, 5)); !errors.Is(err, batch.ErrInvalid) || !strings.Contains(err.Error(), `column "kind" is required in the table, but 2 rows have NULL`) {
		t.Fatalf("error %v", err)
	}
}

func TestTableWithAnotherSchema(t *testing.T) {
	f := newFixture(t)
	f.mustOpen(nil)
	_, err := f.open(nil, arrow.NewSchema([]arrow.Field{
		{Name: "ID", Type: arrow.BinaryTypes.String, Nullable: true}, {Name: "extra", Type: arrow.PrimitiveTypes.Int64, Nullable: true},
	}, nil))
	if !errors.Is(err, batch.ErrInvalid) || !strings.Contains(err.Error(), `column "id": the table has BIGINT, the SQL gives VARCHAR; cast it to BIGINT`) || !strings.Contains(err.Error(), `column "extra": the table has no such column, the SQL gives BIGINT; set evolve: add`) {
		t.Fatalf("error %v", err)
	}
	for terms, want := range map[string]string{"hour(x)": `no column "x"`, "week(at)": "is not identity", "day(kind)": "cannot be applied", "day(": "write a column"} {
		_, err := f.open(func(o *Options) { o.Table, o.PartitionBy = "ns.other", []string{terms} }, rowSchema)
		if !errors.Is(err, batch.ErrInvalid) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", terms, err)
		}
	}
	if _, err := f.open(func(o *Options) { o.Table, o.Create = "ns.none", false }, rowSchema); !errors.Is(err, batch.ErrInvalid) || !strings.Contains(err.Error(), "does not exist") {
		t.Errorf("missing table: %v", err)
	}
}

// TestExpiryKeepsTheWalk: our own expiry never cuts the way from the head to a
// living tag, of any pipeline.
func TestExpiryKeepsTheWalk(t *testing.T) {
	f := newFixture(t)
	tbl := f.mustOpen(func(o *Options) { o.KeepSnapshots, o.KeepHourly = 3, time.Hour })
	other, err := f.open(func(o *Options) { o.Pipeline = "q" }, rowSchema)
	if err != nil {
		t.Fatal(err)
	}
	f.commit(tbl, "a0")
	if _, err := f.load(other).Commit(context.Background(), &batch.Stamp{Name: "q", Start: batch.Offsets{}, End: batch.Offsets{}}, nil); err != nil {
		t.Fatal(err)
	}
	for i := range 20 {
		f.commit(tbl, fmt.Sprint("b", i), makeRows(i, i+1))
	}
	if v := f.load(other); v.Ancestry() != batch.IsAncestor || len(v.History()) < 20 {
		t.Fatalf("the walk to q's tag was cut: ancestry %d, %d snapshots", v.Ancestry(), len(v.History()))
	}
	f.now = f.now.Add(3 * time.Hour) // q has not moved for keep_hourly
	for i := range 6 {
		f.commit(tbl, fmt.Sprint("c", i))
	}
	if n := len(f.load(tbl).meta.Snapshots()); n > 6 {
		t.Fatalf("%d snapshots are kept", n)
	}
	if got := f.ids(nil); !slices.Equal(got, count(20)) {
		t.Fatalf("%v", got)
	}
	f.now = f.now.Add(2 * time.Hour)
	tbl.Maintain(context.Background())
	if got := f.ids(nil); !slices.Equal(got, count(20)) {
		t.Fatalf("after maintenance: %v", got)
	}
}

// TestExpiryLeavesRefsOfOthers: a tag that somebody put on the snapshot of our
// own tag stays, whatever was committed on top.
func TestExpiryLeavesRefsOfOthers(t *testing.T) {
	f := newFixture(t)
	tbl := f.mustOpen(func(o *Options) { o.KeepSnapshots, o.KeepHourly = 2, time.Nanosecond })
	kept := f.commit(tbl, "a0", makeRows(0, 1))
	f.moveRef("audited", kept, table.TagRef)
	f.foreign(3)
	f.now = f.now.Add(2 * time.Hour)
	for i := range 3 {
		f.commit(tbl, fmt.Sprint("b", i))
	}
	meta := f.load(tbl).meta
	if s := meta.SnapshotByName("audited"); s == nil || s.SnapshotID != kept {
		t.Fatalf("the tag of another is on %v", s)
	}
	if n := len(meta.Snapshots()); n > 4 {
		t.Fatalf("%d snapshots are kept", n)
	}
}

// TestExpiryOnTwoBranches: the tag of a pipeline that writes to another branch
// holds back what leads to it, and nothing else.
func TestExpiryOnTwoBranches(t *testing.T) {
	f := newFixture(t)
	keep := func(o *Options) { o.KeepSnapshots, o.KeepHourly = 3, time.Hour }
	tbl := f.mustOpen(keep)
	base := f.commit(tbl, "a0", makeRows(0, 1))
	f.moveRef("side", base, table.BranchRef)
	other, err := f.open(func(o *Options) { keep(o); o.Pipeline, o.Branch = "q", "side" }, rowSchema)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.load(other).Commit(context.Background(), &batch.Stamp{Name: "q", Start: batch.Offsets{}, End: batch.Offsets{}}, nil); err != nil {
		t.Fatal(err)
	}
	for i := range 12 {
		f.commit(tbl, fmt.Sprint("b", i), makeRows(i+1, i+2))
	}
	if n := len(f.load(tbl).History()); n > 6 {
		t.Fatalf("%d snapshots of main are kept for a tag that is not on it", n)
	}
	if v := f.load(other); v.Ancestry() != batch.IsAncestor {
		t.Fatalf("q's own: %d", v.Ancestry())
	}
}

// TestCommitsStayFlat: what a commit reads and writes is bounded, however many
// came before.
func TestCommitsStayFlat(t *testing.T) {
	f := newFixture(t)
	tbl := f.mustOpen(func(o *Options) { o.KeepSnapshots, o.KeepHourly = 10, time.Nanosecond })
	for i := range 300 {
		f.now = f.now.Add(time.Minute)
		f.commit(tbl, fmt.Sprint("a", i), makeRows(i, i+1))
		tbl.Maintain(context.Background())
	}
	v := f.load(tbl)
	manifests, err := v.head.Manifests(&tbl.fs)
	if err != nil || len(manifests) > 2*mergeWidth || len(v.meta.Snapshots()) > 11 {
		t.Fatalf("%d manifests, %d snapshots, %v", len(manifests), len(v.meta.Snapshots()), err)
	}
	if got := f.ids(nil); !slices.Equal(got, count(300)) {
		t.Fatalf("%d rows", len(got))
	}
	files, err := os.ReadDir(strings.TrimPrefix(v.meta.Location(), "file://") + "/metadata")
	if err != nil || len(files) > 400 {
		t.Fatalf("%d metadata files, %v: old ones are not deleted", len(files), err)
	}
}

func TestRestore(t *testing.T) {
	f := newFixture(t)
	tbl := f.mustOpen(nil)
	f.commit(tbl, "a0", makeRows(0, 5))
	back := f.commit(tbl, "a1", makeRows(5, 8))
	f.commit(tbl, "a2", makeRows(8, 20))
	s := f.stamp("r")
	if _, err := f.load(tbl).Restore(context.Background(), s, back, false); err != nil {
		t.Fatal(err)
	}
	f.last = s
	if got := f.ids(nil); !slices.Equal(got, count(8)) {
		t.Fatalf("%v", got)
	}
	f.commit(tbl, "a3", makeRows(8, 9))
	f.foreign(1)
	if _, err := f.load(tbl).Restore(context.Background(), f.stamp("r2"), back, false); !errors.Is(err, batch.ErrDataLost) {
		t.Fatalf("foreign rows would be dropped: %v", err)
	}
	if _, err := f.load(tbl).Restore(context.Background(), f.stamp("r2"), back, true); err != nil {
		t.Fatal(err)
	}
	if got := f.ids(nil); !slices.Equal(got, count(8)) {
		t.Fatalf("%v", got)
	}
}

func TestSweep(t *testing.T) {
	f := newFixture(t)
	tbl := f.mustOpen(nil)
	f.commit(tbl, "kept", makeRows(0, 5))
	f.write(tbl, "lost", makeRows(5, 9))
	parquet := func() int {
		n := 0
		_ = filepath.WalkDir(f.dir, func(name string, _ os.DirEntry, _ error) error {
			if strings.HasSuffix(name, ".parquet") {
				n++
			}
			return nil
		})
		return n
	}
	if parquet() != 2 {
		t.Fatalf("%d data files", parquet())
	}
	for _, attempt := range []string{"kept", "lost", "never"} {
		if err := tbl.Sweep(context.Background(), attempt); err != nil {
			t.Fatal(err)
		}
	}
	if got := f.ids(nil); !slices.Equal(got, count(5)) || parquet() != 1 {
		t.Fatalf("%v, %d data files", got, parquet())
	}
}

func TestBranchAndFormat3(t *testing.T) {
	f := newFixture(t)
	tbl := f.mustOpen(func(o *Options) { o.FormatVersion = 3 })
	f.commit(tbl, "a0", makeRows(0, 5))
	f.commit(tbl, "a1", makeRows(5, 9))
	if got := f.ids(nil); !slices.Equal(got, count(9)) {
		t.Fatalf("%v", got)
	}
	branch, err := f.open(func(o *Options) { o.Table, o.Branch = "ns.b", "audit" }, rowSchema)
	if err != nil {
		t.Fatal(err)
	}
	f.last = nil
	f.commit(branch, "b0", makeRows(0, 3))
	v := f.load(branch)
	if v.meta.SnapshotByName("audit") == nil || v.Head() == 0 || v.meta.CurrentSnapshot() != nil {
		t.Fatal("the rows are not on the branch alone")
	}
	// A branch of a table that has rows begins with them, and leaves main alone.
	main := f.load(tbl).Head()
	onto, err := f.open(func(o *Options) { o.Pipeline, o.Branch = "w", "audit" }, rowSchema)
	if err != nil {
		t.Fatal(err)
	}
	stale := f.load(onto)
	f.last = nil
	f.commit(onto, "c0", makeRows(9, 12))
	if v = f.load(onto); v.branch.ParentSnapshotID == nil || *v.branch.ParentSnapshotID != main || v.meta.CurrentSnapshot().SnapshotID != main {
		t.Fatal("the branch does not begin at main, or main moved")
	}
	if v.branch.Summary.Properties[totalRecords] != "12" || len(f.ids(nil)) != 9 {
		t.Fatalf("%v on the branch, %d rows on main", v.branch.Summary.Properties[totalRecords], len(f.ids(nil)))
	}
	if _, err := stale.Commit(context.Background(), f.stamp("late"), nil); !errors.Is(err, batch.ErrUnavailable) {
		t.Fatalf("a branch was made twice: %v", err)
	}
}

func TestReadOnlyWarehouse(t *testing.T) {
	if os.Geteuid() == 0 {
		// Permissions do not stop root; a file in the way does.
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "file"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := lake.Open(context.Background(), lake.Options{Name: "lake", Type: "sql", URI: filepath.Join(dir, "file", "catalog.db"), Warehouse: dir})
		if err == nil {
			t.Fatal("opened")
		}
		return
	}
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o500); err != nil {
		t.Fatal(err)
	}
	_, err := lake.Open(context.Background(), lake.Options{Name: "lake", Type: "sql", URI: filepath.Join(dir, "x", "catalog.db"), Warehouse: dir})
	if !errors.Is(err, batch.ErrInvalid) {
		t.Fatalf("error %v", err)
	}
}

func BenchmarkCommit(b *testing.B) {
	dir := b.TempDir()
	ctx := context.Background()
	c, err := lake.Open(ctx, lake.Options{Name: "lake", Type: "sql", URI: filepath.Join(dir, "catalog.db"), Warehouse: dir})
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	t, err := Open(ctx, c, Options{Pipeline: "p", Table: "ns.t", Create: true}, rowSchema, time.Now, slog.New(slog.DiscardHandler))
	if err != nil {
		b.Fatal(err)
	}
	rows := makeRows(0, 1000)
	for i := range b.N {
		w, err := t.Writer(ctx, fmt.Sprint(i))
		if err != nil {
			b.Fatal(err)
		}
		if err := w.Write(rows); err != nil {
			b.Fatal(err)
		}
		files, err := w.Close(ctx)
		if err != nil {
			b.Fatal(err)
		}
		v, err := t.Load(ctx)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := v.Commit(ctx, &batch.Stamp{Name: "p", Start: batch.Offsets{}, End: batch.Offsets{}, Time: time.Now()}, files); err != nil {
			b.Fatal(err)
		}
	}
}
