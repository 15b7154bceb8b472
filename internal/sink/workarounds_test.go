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
//   - Format 3 wants first_row_id: TestRowIDs.
//   - Local files are not synced: lake.TestLocalFilesAreDurable.
//   - SQLite says busy: lake.TestTwoProcessesOneSQLite.
//   - A token server that is away is a refused login: lake.TestOAuthRefused.
//   - A server may leave snapshots out: lake.TestServerThatLeavesSnapshotsOut.
//   - A scan filtered by starts_with fails: TestNoStartsWith.

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/apache/iceberg-go"

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
