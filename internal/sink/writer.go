package sink

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/apache/iceberg-go"
	"github.com/apache/iceberg-go/table"
	"github.com/google/uuid"
	"golang.org/x/sync/errgroup"

	"github.com/frazil-io/frazil/internal/batch"
)

// openMax is how many files a writer holds open. A batch that touches more
// partitions closes the one that was written longest ago, and later opens
// another file for it.
const openMax = 64

// Writer takes the rows of one attempt.
type Writer struct {
	t      *Table
	ctx    context.Context //nolint:containedctx // of one attempt; Write has none
	meta   table.Metadata
	layout *layout
	parts  *partitioner // nil: the table is not partitioned
	sort   *sorter      // nil: it is not sorted
	folder string

	mu     sync.Mutex
	open   map[string]*dataFile // by partition
	order  []string             // of open, the longest unused first
	files  []iceberg.DataFile
	rows   int64
	number int
}

// Files are finished data files of one attempt.
type Files struct {
	files        []iceberg.DataFile
	table        uuid.UUID // they were written for
	schema, spec int
	rows         int64
}

// Rows is how many rows the files hold, as their own footers count them.
func (f *Files) Rows() int64 {
	if f == nil {
		return 0
	}
	return f.rows
}

// Writer opens data files under the attempt's own folder.
func (t *Table) Writer(ctx context.Context, attempt string) (*Writer, error) {
	tbl, err := t.load(ctx)
	if err != nil {
		return nil, err
	}
	meta := tbl.Metadata()
	w := &Writer{t: t, ctx: ctx, meta: meta, folder: t.attemptFolder(meta, attempt), open: map[string]*dataFile{}}
	if w.layout, err = t.layout(meta.CurrentSchema()); err != nil {
		return nil, err
	}
	if w.parts, err = newPartitioner(meta, w.layout); err != nil {
		return nil, err
	}
	w.sort = newSorter(meta, w.layout)
	return w, nil
}

// attemptFolder is where the files of an attempt lie, and nothing else.
func (t *Table) attemptFolder(meta table.Metadata, attempt string) string {
	folder := meta.Properties()["write.data.path"]
	if folder == "" {
		folder = strings.TrimRight(meta.Location(), "/") + "/data"
	}
	return strings.TrimRight(folder, "/") + "/frazil-" + attempt
}

// Write adds rows. It may be called from several goroutines.
func (w *Writer) Write(rows arrow.RecordBatch) error {
	stored, err := w.layout.conform(w.ctx, rows)
	if err != nil {
		return fmt.Errorf("table %s: %w", w.t.opts.Table, err)
	}
	defer stored.Release()
	pieces := []piece{{rows: stored}}
	if w.parts != nil {
		if pieces, err = w.parts.split(w.ctx, stored); err != nil {
			return fmt.Errorf("table %s: %w", w.t.opts.Table, err)
		}
		defer releasePieces(pieces)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, p := range pieces {
		if err := w.add(p); err != nil {
			return err
		}
	}
	return nil
}

func releasePieces(pieces []piece) {
	for _, p := range pieces {
		p.rows.Release()
	}
}

func (w *Writer) add(p piece) error {
	f, ok := w.open[p.key]
	if !ok {
		if len(w.open) >= openMax {
			if err := w.finish(w.order[0]); err != nil {
				return err
			}
		}
		w.number++
		f = &dataFile{w: w, name: fmt.Sprintf("%s/%05d.parquet", w.folder, w.number), partition: p.values}
		w.open[p.key] = f
	} else {
		w.forget(p.key)
	}
	w.order = append(w.order, p.key)
	if err := f.add(p.rows); err != nil {
		return err
	}
	if f.full() {
		return w.finish(p.key)
	}
	return nil
}

func (w *Writer) forget(key string) {
	for i, k := range w.order {
		if k == key {
			w.order = append(w.order[:i], w.order[i+1:]...)
			return
		}
	}
}

// finish closes one partition's open file.
func (w *Writer) finish(key string) error {
	f := w.open[key]
	delete(w.open, key)
	w.forget(key)
	d, err := f.close()
	if err != nil {
		return err
	}
	w.files = append(w.files, d)
	w.rows += d.Count()
	return nil
}

// closers is how many files are finished at once: closing one waits for the disk
// or the object store.
const closers = 4

// Close finishes the files, which are durable then.
func (w *Writer) Close(context.Context) (*Files, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	var group errgroup.Group
	group.SetLimit(closers)
	done := make([]iceberg.DataFile, len(w.order))
	for i, key := range w.order {
		f := w.open[key]
		delete(w.open, key)
		group.Go(func() (err error) {
			done[i], err = f.close()
			return err
		})
	}
	w.order = nil
	if err := group.Wait(); err != nil {
		return nil, err
	}
	for _, d := range done {
		w.files = append(w.files, d)
		w.rows += d.Count()
	}
	return &Files{files: w.files, table: w.meta.TableUUID(), schema: w.meta.CurrentSchema().ID, spec: w.meta.DefaultPartitionSpec(), rows: w.rows}, nil
}

// Abort drops what is open. The attempt's folder is swept later.
func (w *Writer) Abort() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, f := range w.open {
		f.abort()
	}
	clear(w.open)
	w.order = nil
}

// join copies record batches into one.
func join(schema *arrow.Schema, parts []arrow.RecordBatch) (arrow.RecordBatch, error) {
	if len(parts) == 1 {
		parts[0].Retain()
		return parts[0], nil
	}
	var rows int64
	for _, p := range parts {
		rows += p.NumRows()
	}
	columns := make([]arrow.Array, schema.NumFields())
	defer func() {
		for _, c := range columns {
			if c != nil {
				c.Release()
			}
		}
	}()
	for i := range columns {
		pieces := make([]arrow.Array, len(parts))
		for k, p := range parts {
			pieces[k] = p.Column(i)
		}
		var err error
		if columns[i], err = array.Concatenate(pieces, memory.DefaultAllocator); err != nil {
			return nil, fmt.Errorf("join column %s: %w", schema.Field(i).Name, err)
		}
	}
	return array.NewRecordBatch(schema, columns, rows), nil
}

var errMiscount = errors.New("a data file's footer counts other rows than were written to it; nothing was committed; please report this")

func (w *Writer) invalid(what string, err error) error {
	return fmt.Errorf("%w: %s of table %s: %w", batch.ErrInvalid, what, w.t.opts.Table, err)
}
