//go:build integration

package integration

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net/url"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/extensions"
	arrowmemory "github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/apache/iceberg-go/table"
	"github.com/google/uuid"

	"github.com/frazil-io/frazil/internal/batch"
	"github.com/frazil-io/frazil/internal/lake"
	"github.com/frazil-io/frazil/internal/sink"
	"github.com/frazil-io/frazil/test/servers"
)

// every is a column of each type that may partition a table.
var every = arrow.NewSchema([]arrow.Field{
	{Name: "id", Type: arrow.PrimitiveTypes.Int64, Nullable: true},
	{Name: "yes", Type: arrow.FixedWidthTypes.Boolean, Nullable: true},
	{Name: "small", Type: arrow.PrimitiveTypes.Int32, Nullable: true},
	{Name: "single", Type: arrow.PrimitiveTypes.Float32, Nullable: true},
	{Name: "double", Type: arrow.PrimitiveTypes.Float64, Nullable: true},
	{Name: "price", Type: &arrow.Decimal128Type{Precision: 9, Scale: 2}, Nullable: true},
	{Name: "wide", Type: &arrow.Decimal128Type{Precision: 38, Scale: 10}, Nullable: true},
	{Name: "text", Type: arrow.BinaryTypes.String, Nullable: true},
	{Name: "bytes", Type: arrow.BinaryTypes.Binary, Nullable: true},
	{Name: "day", Type: arrow.FixedWidthTypes.Date32, Nullable: true},
	{Name: "clock", Type: arrow.FixedWidthTypes.Time64us, Nullable: true},
	{Name: "local", Type: &arrow.TimestampType{Unit: arrow.Microsecond}, Nullable: true},
	{Name: "at", Type: &arrow.TimestampType{Unit: arrow.Microsecond, TimeZone: "UTC"}, Nullable: true},
	{Name: "key", Type: extensions.NewUUIDType(), Nullable: true},
}, nil)

// everyRows gives ids [from, to): values on both sides of zero and of 1970, and
// NULL in every fifth row.
func everyRows(t *testing.T, from, to int) arrow.RecordBatch {
	t.Helper()
	var rows []string
	keys := extensions.NewUUIDBuilder(arrowmemory.DefaultAllocator)
	defer keys.Release()
	for i := from; i < to; i++ {
		n := i%9 - 4
		at := time.Date(1970, 1, 1, 0, 0, 0, 0, time.UTC).Add(time.Duration(n)*37*24*time.Hour + time.Duration(n)*time.Minute)
		if i%5 == 0 {
			rows = append(rows, fmt.Sprintf(`{"id":%d}`, i))
			keys.AppendNull()
			continue
		}
		keys.Append(uuid.NewSHA1(uuid.NameSpaceOID, fmt.Append(nil, n)))
		text := []string{"null", "", "ä/ö=?", "a b", "plain"}[i%5]
		rows = append(rows, fmt.Sprintf(`{"id":%d,"yes":%t,"small":%d,"single":%g,"double":%g,"price":"%d.25","wide":"%d.0000000001","text":%q,"bytes":%q,"day":%q,"clock":%q,"local":%q,"at":%q}`,
			i, n > 0, n, float32(n)/4, float64(n)/8, n, n*1_000_000_000_000, text, []string{"AA==", "/w==", "YWJj"}[i%3],
			at.Format(time.DateOnly), at.Add(time.Duration(i%9)*time.Hour).Format("15:04:05.000000"), at.Format("2006-01-02 15:04:05"), at.Format("2006-01-02 15:04:05Z")))
	}
	plain := arrow.NewSchema(every.Fields()[:every.NumFields()-1], nil)
	r, _, err := array.RecordFromJSON(arrowmemory.DefaultAllocator, plain, strings.NewReader("["+strings.Join(rows, ",")+"]"))
	if err != nil {
		t.Fatal(err)
	}
	defer r.Release()
	columns := append([]arrow.Array{}, r.Columns()...)
	for i, name := range map[int]string{3: "single", 4: "double"} { // NaN is not in JSON
		columns[i] = withNaN(t, name, columns[i])
	}
	return array.NewRecordBatch(every, append(columns, keys.NewArray()), r.NumRows())
}

func withNaN(t *testing.T, name string, c arrow.Array) arrow.Array {
	t.Helper()
	switch c := c.(type) {
	case *array.Float32:
		b := array.NewFloat32Builder(arrowmemory.DefaultAllocator)
		for i := range c.Len() {
			switch {
			case c.IsNull(i):
				b.AppendNull()
			case i%7 == 3:
				b.Append(float32(math.NaN()))
			default:
				b.Append(c.Value(i))
			}
		}
		return b.NewArray()
	case *array.Float64:
		b := array.NewFloat64Builder(arrowmemory.DefaultAllocator)
		for i := range c.Len() {
			switch {
			case c.IsNull(i):
				b.AppendNull()
			case i%7 == 3:
				b.Append(math.NaN())
			default:
				b.Append(c.Value(i))
			}
		}
		return b.NewArray()
	}
	t.Fatalf("%s is no float", name)
	return nil
}

// commit adds rows to a table.
func commit(t *testing.T, tbl *sink.Table, name, attempt string, rows arrow.RecordBatch) error {
	t.Helper()
	w, err := tbl.Writer(t.Context(), attempt)
	if err != nil {
		return err
	}
	if err := w.Write(rows); err != nil {
		return err
	}
	files, err := w.Close(t.Context())
	if err != nil {
		return err
	}
	v, err := tbl.Load(t.Context())
	if err != nil {
		return err
	}
	_, err = v.Commit(t.Context(), &batch.Stamp{Name: name, Attempt: attempt, Start: batch.Offsets{}, End: batch.Offsets{}, Time: time.Now()}, files)
	return err
}

// terms are the layouts that are tried, for each type what it can be.
var terms = []string{
	"", "yes", "small", "text", "bytes", "day", "clock", "local", "at", "price", "wide", "key",
	"bucket(4, id)", "bucket(4, small)", "bucket(4, price)", "bucket(4, wide)", "bucket(4, text)", "bucket(4, bytes)", "bucket(4, day)", "bucket(4, clock)",
	"bucket(4, local)", "bucket(4, at)", "bucket(4, key)",
	"truncate(10, id)", "truncate(3, small)", "truncate(2, text)", "truncate(100, price)",
	"year(day)", "month(day)", "day(day)", "year(at)", "month(at)", "day(at)", "hour(at)", "year(local)", "month(local)", "day(local)", "hour(local)",
}

// column is what a term is of.
func column(term string) string {
	_, inside, ok := strings.Cut(strings.TrimSuffix(term, ")"), "(")
	if !ok {
		return term
	}
	if _, after, ok := strings.Cut(inside, ", "); ok {
		return after
	}
	return inside
}

// TestTablesOnPostgres makes tables of every layout in a catalog in PostgreSQL,
// and lets pyiceberg read them.
func TestTablesOnPostgres(t *testing.T) {
	dsn, warehouse := servers.StartPostgres(t), t.TempDir()
	options := lake.Options{Name: "lake", Type: "sql", URI: dsn, Warehouse: warehouse}
	c, err := lake.Open(t.Context(), options)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	locations := map[string][2]string{} // of the metadata, and the column that divides
	for _, format := range []int{2, 3} {
		for i, term := range terms {
			if format == 3 && i%4 != 0 {
				continue
			}
			o := sink.Options{Pipeline: "p", Table: fmt.Sprintf("ns.t%d_%d", format, i), Create: true, FormatVersion: format, SortBy: []string{"double desc", "id"}}
			if term != "" {
				o.PartitionBy = []string{term}
			}
			tbl, err := sink.Open(t.Context(), c, o, every, time.Now, slog.New(slog.DiscardHandler))
			if err != nil {
				t.Fatal(term, err)
			}
			for k, attempt := range []string{"a", "b"} {
				if err := commit(t, tbl, "p", attempt, everyRows(t, 50*k, 50*(k+1))); err != nil {
					t.Fatal(term, err)
				}
			}
			loaded, err := c.Load(t.Context(), strings.Split(o.Table, "."))
			if err != nil {
				t.Fatal(err)
			}
			locations[fmt.Sprintf("format %d, [%s]", format, term)] = [2]string{loaded.MetadataLocation(), column(term)}
		}
	}
	arg, err := json.Marshal(locations)
	if err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(servers.Python(t), "testdata/filters.py", string(arg)).CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	lines := bytes.Split(bytes.TrimSpace(out), []byte("\n"))
	var got struct {
		Tables map[string][3]int
		Wrong  []string
	}
	if err := json.Unmarshal(lines[len(lines)-1], &got); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	scans := 0
	for name := range locations {
		r := got.Tables[name]
		scans += r[2]
		if r[0] != 100 || r[1] != 99*100/2 || r[2] < 2 && !strings.Contains(name, "key") { // pyarrow cannot compare UUIDs
			t.Errorf("%s: rows, sum of ids and scans are %v", name, r)
		}
	}
	for _, w := range got.Wrong {
		t.Error(w)
	}
	t.Logf("%d filtered scans of %d tables", scans, len(locations))
	t.Run("refusals", func(t *testing.T) { postgresRefuses(t, options) })
	t.Run("two writers", func(t *testing.T) { postgresWriters(t, options) })
}

// postgresRefuses opens the catalog with what is wrong.
func postgresRefuses(t *testing.T, o lake.Options) {
	u, err := url.Parse(o.URI)
	if err != nil {
		t.Fatal(err)
	}
	for text, change := range map[string]func(*url.URL){
		"check user and password":              func(u *url.URL) { u.User = url.UserPassword("frazil", "wrong-word") },
		"database does not exist; create it":   func(u *url.URL) { u.Path = "/none" },
		"check user and password in uri: ":     func(u *url.URL) { u.User = url.UserPassword("nobody", "wrong-word") },
		"is it running, and is the address ri": func(u *url.URL) { u.Host = "127.0.0.1:1" },
	} {
		bad := *u
		change(&bad)
		o.URI = bad.String()
		_, err := lake.Open(t.Context(), o)
		kind := batch.ErrInvalid
		if strings.Contains(text, "running") {
			kind = batch.ErrUnavailable
		}
		t.Log(err)
		if !errors.Is(err, kind) || !strings.Contains(err.Error(), text) || strings.Contains(err.Error(), "wrong-word") || strings.Contains(err.Error(), servers.PostgresPassword) {
			t.Errorf("%v, want %v with %q", err, kind, text)
		}
	}
}

// postgresWriters lets pipelines, each with its own connections, race for one
// table: whoever loses loads again, and no row is lost or doubled.
func postgresWriters(t *testing.T, o lake.Options) {
	const writers, batches, rows = 4, 8, 5
	var group sync.WaitGroup
	conflicts := make(chan error, writers*batches*100)
	for n := range writers {
		group.Go(func() {
			c, err := lake.Open(t.Context(), o)
			if err != nil {
				t.Error(err)
				return
			}
			defer c.Close()
			name := fmt.Sprint("w", n)
			var tbl *sink.Table
			for tbl == nil { // all of them make it
				tbl, err = sink.Open(t.Context(), c, sink.Options{Pipeline: name, Table: "race.t", Create: true}, every, time.Now, slog.New(slog.DiscardHandler))
				if err != nil && !errors.Is(err, batch.ErrUnavailable) {
					t.Error(err)
					return
				}
			}
			for k := range batches {
				from := (n*batches + k) * rows
				for try := 0; ; try++ {
					err := commit(t, tbl, name, fmt.Sprintf("%s-%d-%d", name, k, try), everyRows(t, from, from+rows))
					if err == nil {
						break
					}
					if !errors.Is(err, batch.ErrUnavailable) || try > 200 {
						t.Error(err)
						return
					}
					conflicts <- err
				}
			}
		})
	}
	group.Wait()
	c, err := lake.Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	tbl, err := c.Load(t.Context(), table.Identifier{"race", "t"})
	if err != nil {
		t.Fatal(err)
	}
	all, err := tbl.Scan(table.WithSelectedFields("id")).ToArrowTable(c.Context(t.Context()))
	if err != nil {
		t.Fatal(err)
	}
	defer all.Release()
	seen := map[int64]bool{}
	for _, chunk := range all.Column(0).Data().Chunks() {
		for _, id := range chunk.(*array.Int64).Int64Values() {
			if seen[id] {
				t.Fatalf("row %d is there twice", id)
			}
			seen[id] = true
		}
	}
	if len(seen) != writers*batches*rows {
		t.Fatalf("%d rows, want %d", len(seen), writers*batches*rows)
	}
	t.Logf("%d commits, %d of them lost a race first", writers*batches, len(conflicts))
	if files, _ := filepath.Glob(filepath.Join(o.Warehouse, "race.db", "t", "metadata", "*.json")); len(files) == 0 {
		t.Error("the table lies somewhere else")
	}
}
