package sink

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/apache/arrow-go/v18/arrow"
	"golang.org/x/sync/errgroup"

	"github.com/frazil-io/frazil/internal/batch"
	"github.com/frazil-io/frazil/internal/glue"
)

// A batch may touch many tables. Each of the first ones that come has a Writer of
// its own, which stays open to the batch's end. There are writersMax of them, and
// fewer where memory gives a Writer less than writerBytes: the encoder of one open
// file takes about that much. Rows for any other table are kept, up to half of the
// memory, and then written table by table, with one Writer at a time.
const (
	writersMin, writersMax = 2, 64
	writerBytes            = 4 << 20
)

func writersOf(memory int64) int {
	return int(min(writersMax, max(writersMin, memory/2/writerBytes)))
}

// RoutedWriter takes the rows of one attempt and divides them among tables.
type RoutedWriter struct {
	r       *Routed
	ctx     context.Context //nolint:containedctx // of one attempt; Write has none
	attempt string
	open    func(tables []string) ([]string, error)
	writers int
	memory  int64

	mu      sync.Mutex
	routes  map[string]*written // by table
	direct  int
	kept    map[string][]arrow.RecordBatch
	size    int64
	dropped int64
}

// written is one table's share.
type written struct {
	name   string
	table  *Table  // nil: it gets no rows
	writer *Writer // of one that is open to the end
	files  *Files
	number int // files so far
	nulls  map[int]bool
}

// Writer divides rows. open is asked about tables before they are made.
func (r *Routed) Writer(ctx context.Context, attempt string, open func(tables []string) ([]string, error)) *RoutedWriter {
	memory := r.opts.withDefaults().MemoryBytes
	return &RoutedWriter{
		r: r, ctx: ctx, attempt: attempt, open: open, writers: writersOf(memory), memory: memory / 2,
		routes: map[string]*written{}, kept: map[string][]arrow.RecordBatch{},
	}
}

// Write adds rows. It may be called from several goroutines.
func (w *RoutedWriter) Write(rows arrow.RecordBatch) error {
	d, err := w.r.divide(w.ctx, rows)
	if err != nil {
		return err
	}
	defer d.rows.Release()
	to, err := w.routesOf(d.names)
	if err != nil {
		return err
	}
	var from int64
	for i, route := range to {
		slice := d.rows.NewSlice(from, from+d.counts[i])
		from += d.counts[i]
		err := w.add(route, slice)
		slice.Release()
		if err != nil {
			return err
		}
	}
	return nil
}

// add hands rows to a table's Writer, or keeps a copy of them: a slice would keep
// the whole record batch in memory, most of which may be for other tables.
func (w *RoutedWriter) add(to *written, rows arrow.RecordBatch) error {
	if to.writer != nil {
		return to.writer.Write(rows)
	}
	if to.table == nil {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.dropped += rows.NumRows()
		return nil
	}
	own, err := glue.Copy(rows, 0, rows.NumRows())
	if err != nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.kept[to.name] = append(w.kept[to.name], own)
	if w.size += sizeOf(own); w.size < w.memory {
		return nil
	}
	return w.spill()
}

// divided are rows of which those for one table lie together.
type divided struct {
	rows   arrow.RecordBatch
	names  []string
	counts []int64
}

// divide brings the rows for each table together; they keep their order.
func (r *Routed) divide(ctx context.Context, rows arrow.RecordBatch) (divided, error) {
	var d divided
	byValue, byName := map[string]int{}, map[string]int{}
	of := make([]int, rows.NumRows())
	for i := range of {
		value := r.valueOf(rows, i)
		g, ok := byValue[value]
		if !ok {
			name, err := r.nameOf(rows, i)
			if err != nil {
				return d, err
			}
			if g, ok = byName[name]; !ok {
				g = len(d.names)
				byName[name] = g
				d.names, d.counts = append(d.names, name), append(d.counts, 0)
			}
			byValue[strings.Clone(value)] = g
		}
		of[i] = g
		d.counts[g]++
	}
	if len(d.names) == 1 {
		rows.Retain()
		d.rows = rows
		return d, nil
	}
	next := make([]int64, len(d.names))
	for g := 1; g < len(next); g++ {
		next[g] = next[g-1] + d.counts[g-1]
	}
	at := make([]int64, len(of))
	for i, g := range of {
		at[next[g]] = int64(i)
		next[g]++
	}
	var err error
	d.rows, err = take(ctx, rows, at)
	return d, err
}

// Divide gives the rows for each table to each, as a RoutedWriter would.
func Divide(ctx context.Context, o RouteOptions, rows arrow.RecordBatch, each func(table string, rows arrow.RecordBatch) error) error {
	columns, err := routeColumns(o, rows.Schema())
	if err != nil {
		return err
	}
	d, err := (&Routed{opts: o, columns: columns}).divide(ctx, rows)
	if err != nil {
		return err
	}
	defer d.rows.Release()
	var from int64
	for i, table := range d.names {
		part := d.rows.NewSlice(from, from+d.counts[i])
		from += d.counts[i]
		err := each(table, part)
		part.Release()
		if err != nil {
			return err
		}
	}
	return nil
}

func sizeOf(rows arrow.RecordBatch) (size int64) {
	for _, c := range rows.Columns() {
		size += int64(c.Data().SizeInBytes())
	}
	return size
}

// routesOf returns the shares of tables. Those that are new here are asked about,
// made and claimed first.
func (w *RoutedWriter) routesOf(names []string) ([]*written, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	var fresh []string
	for _, name := range names {
		if w.routes[name] == nil {
			fresh = append(fresh, name)
		}
	}
	if len(fresh) > 0 {
		if err := w.begin(fresh); err != nil {
			return nil, err
		}
	}
	all := make([]*written, len(names))
	for i, name := range names {
		all[i] = w.routes[name]
	}
	return all, nil
}

// claims is how many tables are made at once: each takes a few calls to the
// catalog.
const claims = 4

func (w *RoutedWriter) begin(fresh []string) error {
	write, err := w.open(fresh)
	if err != nil {
		return err
	}
	begun := make([]*written, len(write))
	direct := w.writers - w.direct
	group, ctx := errgroup.WithContext(w.ctx)
	group.SetLimit(claims)
	for i, name := range write {
		group.Go(func() (err error) {
			one := &written{name: name}
			if one.table, err = w.r.claim(ctx, name); err != nil {
				return err
			}
			if i < direct {
				one.writer, err = one.table.Writer(w.ctx, w.attempt)
			}
			begun[i] = one
			return err
		})
	}
	err = group.Wait()
	for _, one := range begun {
		if one != nil && one.table != nil {
			w.routes[one.name] = one
			if one.writer != nil {
				w.direct++
			}
		}
	}
	if err != nil {
		return err
	}
	for _, name := range fresh {
		if w.routes[name] == nil {
			w.routes[name] = &written{name: name}
		}
	}
	return nil
}

// spill writes the rows that are kept, table by table.
func (w *RoutedWriter) spill() error {
	for _, name := range slices.Sorted(maps.Keys(w.kept)) {
		if err := w.spillOne(w.routes[name], w.kept[name]); err != nil {
			return err
		}
		release(w.kept[name])
		delete(w.kept, name)
	}
	w.size = 0
	return nil
}

func (w *RoutedWriter) spillOne(to *written, rows []arrow.RecordBatch) error {
	one, err := to.table.Writer(w.ctx, w.attempt)
	if err != nil {
		return err
	}
	one.number = to.number
	maps.Copy(one.nulls, to.nulls) // the schema that all files together need
	for _, r := range rows {
		if err := one.Write(r); err != nil {
			one.Abort()
			return err
		}
	}
	files, err := one.Close(w.ctx)
	if err != nil {
		one.Abort()
		return err
	}
	to.number, to.nulls = one.number, one.nulls
	return to.join(files)
}

// join adds files of the same attempt.
func (to *written) join(files *Files) error {
	if to.files == nil {
		to.files = files
		return nil
	}
	if was := to.files; was.table != files.table || was.schema != files.schema || was.spec != files.spec || was.lastID != files.lastID {
		return fmt.Errorf("%w: table %s was changed while the batch was written", batch.ErrUnavailable, to.name)
	}
	files.files = append(to.files.files, files.files...)
	files.rows += to.files.rows
	to.files = files
	return nil
}

// Close finishes the files, which are durable then, and counts the rows for tables
// that got none.
func (w *RoutedWriter) Close(ctx context.Context) (map[string]*Files, int64, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.spill(); err != nil {
		return nil, 0, err
	}
	var group errgroup.Group
	group.SetLimit(closers)
	for _, one := range w.routes {
		if one.writer != nil {
			group.Go(func() (err error) {
				one.files, err = one.writer.Close(ctx)
				return err
			})
		}
	}
	if err := group.Wait(); err != nil {
		return nil, 0, err
	}
	files := map[string]*Files{}
	for name, one := range w.routes {
		if one.files != nil {
			files[name] = one.files
		}
	}
	return files, w.dropped, nil
}

// Abort drops what is open. The attempt's folders are swept later.
func (w *RoutedWriter) Abort() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for name, rows := range w.kept {
		release(rows)
		delete(w.kept, name)
	}
	w.size = 0
	for _, one := range w.routes {
		if one.writer != nil {
			one.writer.Abort()
		}
	}
}
