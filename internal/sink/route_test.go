package sink

import (
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"golang.org/x/sync/errgroup"

	"github.com/frazil-io/frazil/internal/batch"
)

func (f *fixture) routed(change func(*RouteOptions)) *Routed {
	f.Helper()
	o := RouteOptions{
		Options: Options{Pipeline: "p", Table: "ns.${kind}", Create: true}, Sink: "s",
		Namespace: []string{"ns"}, Texts: []string{"of_", ""}, Columns: []string{"KIND"},
	}
	if change != nil {
		change(&o)
	}
	r, err := NewRouted(f.Context(), f.catalog, o, rowSchema, func() time.Time { return f.now }, slog.New(slog.DiscardHandler))
	if err != nil {
		f.Fatal(err)
	}
	return r
}

// rowsOfKinds gives ids [from, to), of kinds in turn; "" is NULL.
func rowsOfKinds(from, to int, kinds ...string) arrow.RecordBatch {
	b := array.NewRecordBuilder(memory.DefaultAllocator, rowSchema)
	defer b.Release()
	for i := from; i < to; i++ {
		b.Field(0).(*array.Int64Builder).Append(int64(i))
		if kind := kinds[i%len(kinds)]; kind == "" {
			b.Field(1).AppendNull()
		} else {
			b.Field(1).(*array.StringBuilder).Append(kind)
		}
		for k := 2; k < 5; k++ {
			b.Field(k).AppendNull()
		}
	}
	return b.NewRecordBatch()
}

// idsOf reads the files of one table that are not committed yet.
func (f *fixture) idsOf(r *Routed, name string, files *Files) (ids []int64) {
	f.Helper()
	t, err := r.Table(f.Context(), name)
	if err != nil {
		f.Fatal(err)
	}
	s := f.stamp("a")
	s.Route = &batch.Route{Sink: "s"}
	if _, err := f.load(t).Commit(f.Context(), s, files); err != nil {
		f.Fatal(err)
	}
	tbl, err := f.catalog.Load(f.Context(), t.ident)
	if err != nil {
		f.Fatal(err)
	}
	out, err := tbl.Scan().ToArrowTable(f.Context())
	if err != nil {
		f.Fatal(err)
	}
	defer out.Release()
	for _, c := range out.Column(0).Data().Chunks() {
		ids = append(ids, c.(*array.Int64).Int64Values()...)
	}
	slices.Sort(ids)
	return ids
}

// TestRoutedWriter: more tables than writers, rows from several goroutines, little
// memory. Every row is in the table of its kind, those that get none are counted,
// and no table is made before it was asked about.
func TestRoutedWriter(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	r := f.routed(func(o *RouteOptions) { o.MemoryBytes = 64 << 10 })
	kinds := []string{"A", "b.c", "B-C", "d", "e", "f", "g", "none"}
	want := map[string][]int64{}
	const n, step = 8000, 500
	for i := range n {
		kind := strings.NewReplacer(".", "_", "-", "_").Replace(strings.ToLower(kinds[i%len(kinds)]))
		want["ns.of_"+kind] = append(want["ns.of_"+kind], int64(i))
	}
	var mu sync.Mutex
	asked := map[string]int{}
	w := r.Writer(t.Context(), "a", func(tables []string) (write []string, err error) {
		mu.Lock()
		defer mu.Unlock()
		for _, name := range tables {
			if asked[name]++; name != "ns.of_none" {
				write = append(write, name)
			}
			if found, err := r.Find(t.Context()); err != nil || slices.Contains(found, name) {
				t.Errorf("%s is there before it was asked about: %v %v", name, found, err)
			}
		}
		return write, nil
	})
	var group errgroup.Group
	group.SetLimit(3)
	for from := 0; from < n; from += step {
		group.Go(func() error {
			rows := rowsOfKinds(from, from+step, kinds...)
			defer rows.Release()
			return w.Write(rows)
		})
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	if w.size > w.memory || w.direct != writersMin {
		t.Errorf("%d bytes of %d are kept, %d writers are open", w.size, w.memory, w.direct)
	}
	files, dropped, err := w.Close(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if dropped != int64(len(want["ns.of_none"])) || len(files) != len(want)-1 {
		t.Errorf("%d rows were dropped, %d tables have files", dropped, len(files))
	}
	several := 0
	for name, file := range files {
		if got := f.idsOf(r, name, file); !slices.Equal(got, want[name]) || asked[name] != 1 {
			t.Errorf("%s has %d rows, not %d; it was asked about %d times", name, len(got), len(want[name]), asked[name])
		}
		if len(file.files) > 1 {
			several++
		}
	}
	if several == 0 {
		t.Error("no table was written in several steps")
	}
	found, err := r.Find(t.Context())
	if err != nil || len(found) != len(want)-1 {
		t.Errorf("the sink's tables are %v: %v", found, err)
	}
}

// TestKeptRows: the rows that wait for a Writer take no more memory than is counted,
// though each record batch has few of them.
func TestKeptRows(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	r := f.routed(func(o *RouteOptions) { o.MemoryBytes = 64 << 10 })
	w := r.Writer(t.Context(), "a", func(tables []string) ([]string, error) { return tables, nil })
	defer w.Abort()
	kinds := slices.Repeat([]string{"a", "b"}, 50)
	kinds[99] = "rare"
	for from := 0; from < 10_000; from += 500 {
		rows := rowsOfKinds(from, from+500, kinds...)
		err := w.Write(rows)
		rows.Release()
		if err != nil {
			t.Fatal(err)
		}
		var alive int64
		for _, kept := range w.kept {
			for _, rows := range kept {
				alive += sizeOf(rows) // of its buffers, whatever part of them is its own
			}
		}
		if alive > w.memory || alive != w.size {
			t.Fatalf("after %d rows, what is kept takes %d bytes, counted are %d; the most is %d", from+500, alive, w.size, w.memory)
		}
	}
	if len(w.kept["ns.of_rare"]) == 0 {
		t.Error("nothing is kept")
	}
}

// TestClaims: who feeds a table is known before it has a snapshot, and two sinks do
// not share one.
func TestClaims(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	r := f.routed(nil)
	if _, err := r.claim(t.Context(), "ns.of_a"); err != nil {
		t.Fatal(err)
	}
	if _, err := f.open(func(o *Options) { o.Table = "ns.of_b" }, rowSchema); err != nil { // somebody's, without a claim
		t.Fatal(err)
	}
	if found, err := r.Find(t.Context()); err != nil || !slices.Equal(found, []string{"ns.of_a"}) {
		t.Fatalf("the sink's tables are %v: %v", found, err)
	}
	if _, err := r.claim(t.Context(), "ns.of_b"); err != nil {
		t.Fatal(err)
	}
	if found, err := r.Find(t.Context()); err != nil || !slices.Equal(found, []string{"ns.of_a", "ns.of_b"}) {
		t.Fatalf("the sink's tables are %v: %v", found, err)
	}
	other := f.routed(func(o *RouteOptions) { o.Sink = "other" })
	if _, err := other.claim(t.Context(), "ns.of_a"); !errors.Is(err, batch.ErrInvalid) || !strings.Contains(err.Error(), "one of sink s") {
		t.Errorf("another sink's claim: %v", err)
	}
	beside := f.routed(func(o *RouteOptions) { o.Pipeline = "q" })
	if found, err := beside.Find(t.Context()); err != nil || len(found) > 0 {
		t.Errorf("another pipeline's tables are %v: %v", found, err)
	}
	if _, err := r.Table(t.Context(), "ns.of_c"); !errors.Is(err, batch.ErrDataLost) || errors.Is(err, batch.ErrInvalid) {
		t.Errorf("a table that is not there: %v", err)
	}
}

// TestRouteNames: what a value makes of a table's name, and which values make none.
func TestRouteNames(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	r := f.routed(nil)
	for value, want := range map[string]string{
		"orders": "ns.of_orders", "App.Orders-v2": "ns.of_app_orders_v2", "été ": "ns.of__t__", "日本": "ns.of___", "_": "ns.of__",
		"": "is NULL", strings.Repeat("x", 125): "ns.of_" + strings.Repeat("x", 125), strings.Repeat("x", 126): "has 129 characters",
	} {
		rows := rowsOfKinds(0, 1, value)
		got, err := r.nameOf(rows, 0)
		if err != nil {
			got = err.Error()
		}
		if got != want && !(errors.Is(err, batch.ErrInvalid) && strings.Contains(got, want)) {
			t.Errorf("%q gives %s, not %s", value, got, want)
		}
		rows.Release()
	}
	two := f.routed(func(o *RouteOptions) { o.Texts, o.Columns = []string{"", "_", ""}, []string{"kind", "id"} })
	if got, err := two.nameOf(rowsOfKinds(7, 8, "a"), 0); got != "ns.a_7" {
		t.Errorf("%s, %v", got, err)
	}
	empty := rowsOfKinds(0, 1, "\x00")
	if got, _ := r.nameOf(empty, 0); got != "ns.of__" {
		t.Error(got)
	}
	for column, want := range map[string]string{"at": "timestamp", "tags": "list", "nothing": fmt.Sprintf("no column %q", "nothing")} {
		err := CheckRoute(RouteOptions{Columns: []string{column}}, rowSchema)
		if !errors.Is(err, batch.ErrInvalid) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", column, err)
		}
	}
}

// TestTablesAtOnce: a table that is slow to open holds up nobody but those who need
// it, and is opened once.
func TestTablesAtOnce(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	r := f.routed(nil)
	slow, opened := make(chan struct{}), make(chan string, 8)
	open := r.open
	r.open = func(o Options, rows *arrow.Schema) (*Table, error) {
		opened <- o.Table
		if o.Table == "ns.of_slow" {
			<-slow
		}
		return open(o, rows)
	}
	var group errgroup.Group
	for range 2 {
		group.Go(func() error { _, err := r.claim(t.Context(), "ns.of_slow"); return err })
	}
	if first := <-opened; first != "ns.of_slow" {
		t.Fatal(first)
	}
	if _, err := r.claim(t.Context(), "ns.of_a"); err != nil { // it would wait forever
		t.Fatal(err)
	}
	close(slow)
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	if n := len(opened); n != 1 {
		t.Errorf("%d tables were opened besides", n)
	}
}
