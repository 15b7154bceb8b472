package sink

// What iceberg-go v0.7.0 does, and the test that fails where the way around it
// is removed:
//
//   - A commit's metadata keeps every generation before it alive:
//     lake.TestCommitKeepsNoBuilder.
//   - A new S3 client, never closed, for each commit: TestOneS3Client.
//   - A conflict of a SQL catalog is no ErrCommitFailed: lake.TestConflict,
//     TestStaleWriterIsRefused.
//   - Retries rebase a stale commit, armed by a property: TestStaleWriterIsRefused.
//   - A property-only commit moves no head: TestStaleWriterIsRefused.
//   - NULL in a required column is stored as zero: TestRequiredColumns,
//     TestNestedRequiredFields.
//   - NULL and the text "null" are one partition: TestPartitionsAndOrder.
//   - A created table's field ids are others than proposed: TestFieldIDs.
//   - A writer for each partition at once, without bound: TestManyPartitions.
//   - hour(date) is accepted and writes NULLs: TestHourOfDate.
//   - Each merge of manifests leaves an orphan: TestExpiredFilesGo.
//   - Rewritten manifests are a snapshot without properties, which would hide the
//     stamp: TestMergesCarryTheStamp.
//   - Format 3 wants first_row_id: TestRowIDs, TestRowIDsSurviveMerging.
//   - Local files are not synced: lake.TestLocalFilesAreDurable.
//   - SQLite says busy: lake.TestTwoProcessesOneSQLite.
//   - A token server that is away is a refused login: lake.TestOAuthRefused.
//   - A server may leave snapshots out: lake.TestServerThatLeavesSnapshotsOut.
//   - The bound "" of a partition's summary is written as none:
//     TestEmptyTextIsABound.
//   - A scan filtered by starts_with fails: TestNoStartsWith.

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/apache/iceberg-go"
	"github.com/twmb/avro/ocf"

	"github.com/frazil-io/frazil/internal/batch"
)

func TestFieldIDs(t *testing.T) {
	f := newFixture(t)
	f.make(iceberg.NewSchema(0, field(1, "b", iceberg.PrimitiveTypes.Int64, false), field(2, "a", iceberg.PrimitiveTypes.Int64, false)))
	rows := arrow.NewSchema([]arrow.Field{
		{Name: "a", Type: arrow.PrimitiveTypes.Int64, Nullable: true, Metadata: arrow.MetadataFrom(map[string]string{"PARQUET:field_id": "1"})},
		{Name: "b", Type: arrow.PrimitiveTypes.Int64, Nullable: true, Metadata: arrow.MetadataFrom(map[string]string{"PARQUET:field_id": "2"})},
	}, nil)
	tbl, err := f.open(nil, rows)
	if err != nil {
		t.Fatal(err)
	}
	b := array.NewRecordBuilder(memory.DefaultAllocator, rows)
	defer b.Release()
	b.Field(0).(*array.Int64Builder).Append(1)
	b.Field(1).(*array.Int64Builder).Append(2)
	f.commit(tbl, "x", b.NewRecordBatch())
	if got := f.ids(iceberg.NewAnd(iceberg.EqualTo(iceberg.Reference("a"), int64(1)), iceberg.EqualTo(iceberg.Reference("b"), int64(2)))); len(got) != 1 {
		t.Fatal("the columns changed places")
	}
}

// TestManyPartitions: however many partitions a batch touches, few files are
// open at once, and no row is lost when one is opened again.
func TestManyPartitions(t *testing.T) {
	f := newFixture(t)
	tbl := f.mustOpen(func(o *Options) { o.PartitionBy = []string{"small"} })
	w, err := tbl.Writer(context.Background(), "a")
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		for at := 0; at < 3*openMax; at += openMax / 2 {
			rows := makeRows(at, at+openMax/2)
			if err := w.Write(rows); err != nil {
				t.Fatal(err)
			}
			rows.Release()
			if n := len(w.open); n > openMax {
				t.Fatalf("%d files are open", n)
			}
		}
	}
	files, err := w.Close(context.Background())
	if err != nil || files.Rows() != 2*3*openMax {
		t.Fatalf("%d rows, %v", files.Rows(), err)
	}
	if _, err := f.load(tbl).Commit(context.Background(), f.stamp("a"), files); err != nil {
		t.Fatal(err)
	}
	if got := slices.Compact(f.ids(nil)); !slices.Equal(got, count(3*openMax)) {
		t.Fatalf("%d rows", len(got))
	}
}

func TestHourOfDate(t *testing.T) {
	f := newFixture(t)
	_, err := f.open(func(o *Options) { o.PartitionBy = []string{"hour(d)"} }, arrow.NewSchema([]arrow.Field{{Name: "d", Type: arrow.FixedWidthTypes.Date32, Nullable: true}}, nil))
	if !errors.Is(err, batch.ErrInvalid) || !strings.Contains(err.Error(), "hour cannot be applied to a column of type date") {
		t.Fatalf("error %v", err)
	}
}

func TestMergesCarryTheStamp(t *testing.T) {
	f := newFixture(t)
	tbl := f.mustOpen(nil)
	for i := range mergeWidth + 1 {
		f.commit(tbl, fmt.Sprint("a", i), makeRows(i, i+1))
	}
	v := f.load(tbl)
	if manifests, err := v.head.Manifests(&tbl.fs); err != nil || len(manifests) > 2 {
		t.Fatalf("%d manifests, %v: nothing was merged", len(manifests), err)
	}
	history := v.History()
	for _, h := range history {
		if h.Stamp == nil {
			t.Fatalf("snapshot %d has no stamp", h.Snapshot)
		}
	}
	if len(history) != mergeWidth+1 {
		t.Fatalf("%d snapshots for %d commits", len(history), mergeWidth+1)
	}
}

// TestRowIDs: in format 3 every row has a number, also those that a foreign
// append puts between.
func TestRowIDs(t *testing.T) {
	f := newFixture(t)
	tbl := f.mustOpen(func(o *Options) { o.FormatVersion = 3 })
	f.commit(tbl, "a", makeRows(0, 5))
	f.foreign(2)
	f.commit(tbl, "b", makeRows(5, 9), makeRows(9, 10))
	v := f.load(tbl)
	if v.meta.NextRowID() != 12 || v.head.FirstRowID == nil || *v.head.FirstRowID != 7 || *v.head.AddedRows != 5 {
		t.Fatalf("next row %d, first of the head %v", v.meta.NextRowID(), v.head.FirstRowID)
	}
	manifests, err := v.head.Manifests(&tbl.fs)
	if err != nil {
		t.Fatal(err)
	}
	var first []int64
	for _, m := range manifests {
		if m.FirstRowID() == nil {
			t.Fatal("a manifest has no first row id")
		}
		first = append(first, *m.FirstRowID())
	}
	slices.Sort(first)
	if !slices.Equal(first, []int64{0, 5, 7}) {
		t.Fatalf("manifests begin at rows %v", first)
	}
}

// rowIDs returns, by data file, the numbers of its first row and of the one behind
// its last, as a reader of the head has them.
func (f *fixture) rowIDs(tbl *Table) map[string][2]int64 {
	f.Helper()
	v := f.load(tbl)
	manifests, err := v.head.Manifests(&tbl.fs)
	if err != nil {
		f.Fatal(err)
	}
	all := map[string][2]int64{}
	for _, m := range manifests {
		for e, err := range m.Entries(&tbl.fs, true) {
			if err != nil {
				f.Fatal(err)
			}
			d := e.DataFile()
			if d.FirstRowID() == nil {
				f.Fatalf("the rows of %s have no numbers", d.FilePath())
			}
			all[d.FilePath()] = [2]int64{*d.FirstRowID(), *d.FirstRowID() + d.Count()}
		}
	}
	return all
}

// TestRowIDsSurviveMerging: manifests of format 3 are merged, too, and each row
// keeps the number that it had before. No number is given twice, and the table
// never hands out one that is taken.
func TestRowIDsSurviveMerging(t *testing.T) {
	for name, reopen := range map[string]bool{"one process": false, "one for each batch": true} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t)
			format3 := func(o *Options) { o.FormatVersion, o.KeepSnapshots = 3, 4 }
			tbl := f.mustOpen(format3)
			before := map[string][2]int64{}
			merges, rows := 0, 0
			for i := range 2*mergeWidth + 5 {
				if i == 3 {
					f.foreign(2)
				}
				if reopen {
					tbl = f.mustOpen(format3)
				}
				f.commit(tbl, fmt.Sprint("a", i), makeRows(rows, rows+1+i%3), makeRows(rows+1+i%3, rows+3+i%3))
				rows += 3 + i%3
				v := f.load(tbl)
				manifests, err := v.head.Manifests(&tbl.fs)
				if err != nil || len(manifests) > mergeWidth+1 {
					t.Fatalf("%d manifests, %v", len(manifests), err)
				}
				for _, m := range manifests {
					if m.SnapshotID() == v.head.SnapshotID && m.ExistingDataFiles() > 0 {
						merges++
					}
				}
				now := f.rowIDs(tbl)
				for file, ids := range before {
					if now[file] != ids {
						t.Fatalf("commit %d: the rows of %s were %v, and are %v", i, file, ids, now[file])
					}
				}
				stretches := slices.SortedFunc(maps.Values(now), func(a, b [2]int64) int { return cmp.Compare(a[0], b[0]) })
				for k, s := range stretches {
					if k > 0 && s[0] < stretches[k-1][1] || s[1] > v.meta.NextRowID() {
						t.Fatalf("commit %d: numbers %v behind %v, the next one is %d", i, s, stretches[max(0, k-1)], v.meta.NextRowID())
					}
				}
				before = now
			}
			if merges != 2 {
				t.Fatalf("%d merges", merges)
			}
		})
	}
}

// TestRowIDsOfARaisedTable: rows that were there before the format had numbers get
// theirs with the next snapshot, and keep them.
func TestRowIDsOfARaisedTable(t *testing.T) {
	f := newFixture(t)
	tbl := f.mustOpen(nil)
	for i := range mergeWidth {
		f.commit(tbl, fmt.Sprint("a", i), makeRows(i, i+1))
	}
	loaded, err := f.catalog.Load(context.Background(), tbl.ident)
	if err != nil {
		t.Fatal(err)
	}
	tx := loaded.NewTransaction()
	if err := tx.UpgradeFormatVersion(3); err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Commit(context.Background()); err != nil {
		t.Fatal(err)
	}
	before := map[string][2]int64{}
	for i := range 6 {
		f.commit(tbl, fmt.Sprint("b", i), makeRows(100+i, 101+i))
		now := f.rowIDs(tbl)
		seen := map[int64]bool{}
		for file, ids := range now {
			if was, ok := before[file]; ok && was != ids || seen[ids[0]] || ids[1] > f.load(tbl).meta.NextRowID() {
				t.Fatalf("commit %d: the rows of %s were %v and are %v; the next one is %d", i, file, was, ids, f.load(tbl).meta.NextRowID())
			}
			seen[ids[0]] = true
		}
		before = now
	}
	if manifests, err := f.load(tbl).head.Manifests(&tbl.fs); err != nil || len(manifests) > 7 {
		t.Fatalf("%d manifests, %v: nothing was merged", len(manifests), err)
	}
}

func TestNoStartsWith(t *testing.T) {
	seen := 0
	err := filepath.WalkDir("..", func(name string, e os.DirEntry, err error) error {
		if err != nil || e.IsDir() || !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go") {
			return err
		}
		seen++
		text, err := os.ReadFile(name)
		if strings.Contains(string(text), "iceberg.StartsWith(") {
			t.Errorf("%s gives a scan a filter that iceberg-go cannot read by", name)
		}
		return err
	})
	if err != nil || seen < 50 {
		t.Fatalf("%d files, %v", seen, err)
	}
}

// TestEmptyTextIsABound: without a lower bound other engines take all values of
// the manifest for NULL, and find none of its rows. It must also survive being
// read back and written again.
func TestEmptyTextIsABound(t *testing.T) {
	for _, format := range []int{2, 3} {
		f := newFixture(t)
		schema := arrow.NewSchema([]arrow.Field{{Name: "v", Type: arrow.BinaryTypes.String, Nullable: true}}, nil)
		o := func(o *Options) { o.PartitionBy, o.FormatVersion = []string{"v"}, format }
		rows := func(values ...string) arrow.RecordBatch {
			b := array.NewRecordBuilder(memory.DefaultAllocator, schema)
			defer b.Release()
			b.Field(0).(*array.StringBuilder).AppendValues(values, nil)
			return b.NewRecordBatch()
		}
		for i, values := range [][]string{{"", "b"}, {""}, {"c"}} {
			tbl, err := f.open(o, schema) // a process of its own reads the list back
			if err != nil {
				t.Fatal(err)
			}
			f.commit(tbl, fmt.Sprint("a", i), rows(values...))
		}
		tbl, err := f.open(o, schema)
		if err != nil {
			t.Fatal(err)
		}
		// The reader of iceberg-go cannot tell "" from none, so the file is looked
		// at by the schema of its own.
		bounds := rawBounds(t, f.load(tbl).head.ManifestList)
		if want := []string{`"" to "b"`, `"" to ""`, `"c" to "c"`}; !slices.Equal(bounds, want) {
			t.Fatalf("format %d: the bounds are %v, want %v", format, bounds, want)
		}
	}
}

// rawBounds returns the bounds of each manifest in a list, the oldest first.
func rawBounds(t *testing.T, list string) []string {
	t.Helper()
	file, err := os.Open(strings.TrimPrefix(list, "file://"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	r, err := ocf.NewReader(file)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for {
		var m map[string]any
		if err := r.Decode(&m); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		p := m["partitions"].([]any)[0].(map[string]any)
		text := func(key string) string {
			if b, ok := p[key].([]byte); ok {
				return fmt.Sprintf("%q", b)
			}
			return fmt.Sprint(p[key])
		}
		out = append(out, text("lower_bound")+" to "+text("upper_bound"))
	}
	slices.Reverse(out)
	return out
}

// TestMergeBesideOthers: manifests that other engines wrote are merged with
// ours, and rows that they deleted stay deleted: a merged entry keeps its
// sequence number, and manifests of deletes are left alone.
func TestMergeBesideOthers(t *testing.T) {
	f := newFixture(t)
	tbl := f.mustOpen(func(o *Options) { o.Properties = map[string]string{"write.delete.mode": "merge-on-read"} })
	f.commit(tbl, "a", makeRows(0, 10))
	f.foreign(2)
	loaded, err := f.catalog.Load(context.Background(), tbl.ident)
	if err != nil {
		t.Fatal(err)
	}
	tx := loaded.NewTransaction()
	if err := tx.Delete(context.Background(), iceberg.NewAnd(iceberg.GreaterThanEqual(iceberg.Reference("id"), int64(3)), iceberg.LessThan(iceberg.Reference("id"), int64(6))), nil); err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Commit(context.Background()); err != nil {
		t.Fatal(err)
	}
	if manifests, err := f.load(tbl).head.Manifests(&tbl.fs); err != nil || !slices.ContainsFunc(manifests, func(m iceberg.ManifestFile) bool { return m.ManifestContent() == iceberg.ManifestContentDeletes }) {
		t.Fatalf("nothing was deleted by a delete file: %v", err)
	}
	want := append([]int64{-1, -1}, 0, 1, 2, 6, 7, 8, 9)
	for i := range mergeWidth {
		tbl = f.mustOpen(nil) // reads what others wrote
		f.commit(tbl, fmt.Sprint("b", i), makeRows(10+i, 11+i))
		want = append(want, int64(10+i))
	}
	f.foreign(1)
	want = append(want, -1)
	slices.Sort(want)
	v := f.load(tbl)
	manifests, err := v.head.Manifests(&tbl.fs)
	if err != nil || len(manifests) > mergeWidth {
		t.Fatalf("%d manifests, %v: nothing was merged", len(manifests), err)
	}
	if got := f.ids(nil); !slices.Equal(got, want) {
		t.Fatalf("%v, want %v", got, want)
	}
}
