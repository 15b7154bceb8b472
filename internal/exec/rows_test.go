package exec

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"

	"github.com/frazil-io/frazil/internal/batch"
)

// failing are statements that fail on the records whose number ends in 007, each
// in another way, and how many rows each of the others gives.
var failing = []string{
	`SELECT id, CASE WHEN id % 1000 = 7 THEN page::INTEGER ELSE 0 END AS n FROM clicks`,
	`SELECT id, (9223372036854775807 - (id % 1000 - 7)) + CASE WHEN id % 1000 = 7 THEN 1 ELSE 0 END AS n FROM clicks WHERE id % 1000 >= 7`,
	`SELECT id, CASE WHEN id % 1000 = 7 THEN error('no ' || id) END AS e FROM clicks`,
	`SELECT c.id, p.section, CASE WHEN c.id % 1000 = 7 THEN p.section::INTEGER END AS n FROM clicks c JOIN pages p ON p.n = c.id % 3`,
	`SELECT c.id, p.section FROM clicks c LEFT JOIN pages p ON p.n = CASE WHEN c.id % 1000 = 7 THEN c.page::BIGINT ELSE c.id % 4 END`,
	`SELECT id, unnest(list_transform([id, id + 1], x -> CASE WHEN id % 1000 = 7 THEN page::BIGINT ELSE x END)) AS u FROM clicks`,
	`SELECT c.id, u.tag, CASE WHEN c.id % 1000 = 7 THEN error('x') END AS e FROM clicks c, unnest(['a', 'b']) u(tag)`,
	`SELECT id, {'a': CASE WHEN id % 1000 = 7 THEN geo.y::INTEGER END, 'b': geo} AS s, list_transform(tags, x -> x || '!') AS l FROM clicks`,
	`SELECT id FROM clicks WHERE id % 1000 <> 7 OR page::INTEGER = 1`,
	`SELECT id, CASE WHEN id % 1000 = 7 THEN page::INTEGER END AS n FROM clicks UNION ALL SELECT id, 1 FROM clicks`,
}

// TestRowErrors: the records that SQL fails on are found one by one, in each sink
// for itself, and every other row comes out once.
func TestRowErrors(t *testing.T) {
	var mu sync.Mutex
	rejects := map[string][]int64{}
	e, err := open(t, func(o *Options) {
		o.Workers = 2
		o.Sources[0].SkipBad = true
		o.OnReject = func(sink string, r batch.Reject) {
			mu.Lock()
			defer mu.Unlock()
			rejects[sink] = append(rejects[sink], r.Offset)
			if r.Topic != "clicks" || r.Reason == "" {
				t.Errorf("%+v", r)
			}
		}
	}, append(slices.Clone(failing), "SELECT id FROM clicks")...)
	if err != nil {
		t.Fatal(err)
	}
	n := 3500
	got, results, err := execute(t, e, n, 3)
	if err != nil {
		t.Fatal(err)
	}
	for i, sql := range append(failing, "SELECT id FROM clicks") {
		sink := fmt.Sprint("s", i)
		want := []int64{7, 1007, 2007, 3007}
		if sql == "SELECT id FROM clicks" {
			want = nil
		}
		if sql == failing[0] || strings.Contains(sql, "page::") {
			want = slices.DeleteFunc(slices.Clone(want), func(id int64) bool { return id%7 == 0 }) // its page is NULL
		}
		slices.Sort(rejects[sink])
		if !slices.Equal(rejects[sink], want) || results[sink].Rejected != int64(len(want)) || results[sink].Scanned != int64(n) {
			t.Errorf("%s:\n  rejects %v, want %v; counted %+v", sql, rejects[sink], want, results[sink])
		}
		if int64(len(got[sink])) != results[sink].Rows {
			t.Errorf("%s: %d rows, counted %d", sql, len(got[sink]), results[sink].Rows)
		}
		// The same records without the bad ones, in one piece.
		clean, err := open(t, nil, "SELECT * FROM ("+sql+") WHERE id NOT IN (7, 1007, 2007, 3007)")
		if err != nil {
			t.Fatal(err)
		}
		skip := map[int64]bool{}
		for _, id := range want {
			skip[id] = true
		}
		rows := cleanRows(t, clean, n, skip)
		left := slices.DeleteFunc(slices.Clone(got[sink]), func(l string) bool {
			return slices.ContainsFunc([]string{"7|", "1007|", "2007|", "3007|"}, func(p string) bool { return strings.HasPrefix(l, p) })
		})
		if !slices.Equal(rows, left) {
			t.Errorf("%s: %d rows beside the rejected ones, want %d", sql, len(left), len(rows))
		}
	}
}

// cleanRows runs a sink over the records without those to skip.
func cleanRows(t *testing.T, e *Executor, n int, skip map[int64]bool) []string {
	t.Helper()
	job := batch.Job{Plan: &batch.Plan{Versions: map[string]string{"pages": "v1"}}, Sinks: []string{"s0"}, Ranges: []batch.Range{{TopicPartition: batch.TopicPartition{Source: "clicks"}}}}
	var out []string
	_, err := e.Execute(context.Background(), job, func(emit, _ func(arrow.RecordBatch) error) error {
		bad := slices.Sorted(maps.Keys(skip))
		at := 0
		for _, b := range append(bad, int64(n)) {
			if int(b) > at {
				r := rows(at, int(b))
				err := emit(r)
				r.Release()
				if err != nil {
					return err
				}
			}
			at = int(b) + 1
		}
		return nil
	}, func(_ string, b arrow.RecordBatch) error { out = append(out, jsonLines(b)...); return nil })
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(out)
	return out
}

// TestFailNames: on_bad_record: fail names topic, partition, offset, reason and
// what to do.
func TestFailNames(t *testing.T) {
	for _, sql := range failing {
		e, err := open(t, nil, sql)
		if err != nil {
			t.Fatal(err)
		}
		_, _, err = execute(t, e, 1500, 3)
		if !errors.Is(err, batch.ErrInvalid) {
			t.Errorf("%s: %v", sql, err)
			continue
		}
		for _, want := range []string{"sink s0: its SQL fails on the record at offset ", "007 of clicks/0: ", "Error: ", "on_bad_record: skip on source clicks"} {
			if !strings.Contains(strings.Replace(err.Error(), "offset 7 ", "offset 007 ", 1), want) {
				t.Errorf("%s: %v, want %q", sql, err, want)
			}
		}
	}
}

// TestTableErrors: SQL that fails whatever the records are is not blamed on
// them.
func TestTableErrors(t *testing.T) {
	for _, sql := range []string{
		"SELECT id FROM clicks JOIN pages ON id = section::BIGINT",
		"SELECT id, (SELECT n FROM pages) AS n FROM clicks",
		"SELECT id, (SELECT max(section)::INTEGER FROM pages) AS n FROM clicks",
	} {
		e, err := open(t, func(o *Options) { o.Sources[0].SkipBad = true }, sql)
		if err != nil {
			t.Fatal(err)
		}
		if _, _, err = execute(t, e, 100, 3); !errors.Is(err, batch.ErrInvalid) || !strings.Contains(err.Error(), "fails whatever the record is, so a dimension table has what it cannot take") {
			t.Errorf("%s: %v", sql, err)
		}
	}
}

// wide is a dimension table of one text for each of n rows.
type wide struct{ rows, bytes int }

func (wide) Fields() []arrow.Field {
	return []arrow.Field{{Name: "n", Type: arrow.PrimitiveTypes.Int64, Nullable: true}, {Name: "section", Type: arrow.BinaryTypes.String, Nullable: true}}
}
func (wide) Version(context.Context) (string, error) { return "v1", nil }
func (w wide) Load(context.Context, string) (arrow.RecordBatch, error) {
	b := array.NewRecordBuilder(memory.DefaultAllocator, arrow.NewSchema(w.Fields(), nil))
	defer b.Release()
	for i := range w.rows {
		b.Field(0).(*array.Int64Builder).Append(int64(i))
		b.Field(1).(*array.StringBuilder).Append(strings.Repeat(fmt.Sprint(i%10), w.bytes))
	}
	return b.NewRecordBatch(), nil
}

// TestMemory: an executor spills into a folder of its own, which goes with it; a
// join that fits the disk only gives the same rows; what is too large is said.
func TestMemory(t *testing.T) {
	dir := t.TempDir()
	left := filepath.Join(dir, "spill.999999999.x") // of a process that is gone
	if err := os.Mkdir(left, 0o700); err != nil {
		t.Fatal(err)
	}
	small := func(bytes int64) func(o *Options) {
		return func(o *Options) {
			o.MemoryBytes, o.SpillDir, o.Workers = bytes, filepath.Join(dir, "spill"), 2
			o.Tables = []Table{{Name: "pages", Dimension: wide{60_000, 500}}}
		}
	}
	sql := "SELECT id, length(section) AS l FROM clicks JOIN pages ON n = id % 50000"
	e, err := New(t.Context(), options(small(48<<20), sql))
	if err != nil {
		t.Fatal(err)
	}
	folders, _ := filepath.Glob(filepath.Join(dir, "*"))
	if len(folders) != 1 || !strings.Contains(folders[0], fmt.Sprint("spill.", os.Getpid(), ".")) {
		t.Errorf("folders %v", folders)
	}
	other, err := New(t.Context(), options(small(48<<20), sql))
	if err != nil {
		t.Fatal(err)
	}
	got, _, err := execute(t, e, 5000, 5)
	if err != nil {
		t.Fatal(err)
	}
	if len(got["s0"]) != 5000 || got["s0"][0] != "0|500|" {
		t.Errorf("%d rows", len(got["s0"]))
	}
	e.Close()
	if folders, _ = filepath.Glob(filepath.Join(dir, "*")); len(folders) != 1 {
		t.Errorf("folders %v", folders)
	}
	other.Close()
	if folders, _ = filepath.Glob(filepath.Join(dir, "*")); len(folders) != 0 {
		t.Errorf("folders %v", folders)
	}
	e, err = open(t, func(o *Options) { small(48 << 20)(o); o.TableBytes = 10 << 20 }, sql)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := execute(t, e, 10, 5); !errors.Is(err, batch.ErrInvalid) || !strings.Contains(err.Error(), "the dimension tables take 29 MB together (pages 29 MB), the most is 10 MB") {
		t.Error(err)
	}
}
