package sink

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/iceberg-go"
	"github.com/apache/iceberg-go/table"
	"github.com/google/uuid"
	"golang.org/x/sync/errgroup"

	"github.com/frazil-io/frazil/internal/batch"
	"github.com/frazil-io/frazil/internal/glue"
)

// openMax is how many files a writer holds open: each is an open file of this
// process.
const openMax = 512

// Writer takes the rows of one attempt. Rows are kept until there are enough for
// the encoder, and files until they are full or Options.MemoryBytes is reached;
// then the largest ones go first.
type Writer struct {
	t      *Table
	ctx    context.Context //nolint:containedctx // of one attempt; Write has none
	meta   table.Metadata
	layout *layout
	parts  *partitioner // nil: the table is not partitioned
	sort   *sorter      // nil: it is not sorted
	folder string

	mu       sync.Mutex
	kept     []chunk // not encoded yet
	keptRows int64
	keptSize int64
	open     map[string]*dataFile // by partition
	size     int64                // memory of the open files
	files    []iceberg.DataFile
	rows     int64
	number   int
	nulls    map[int]bool // fields that the table requires, of which rows have NULL
}

// Files are finished data files of one attempt.
type Files struct {
	files        []iceberg.DataFile
	table        uuid.UUID // they were written for
	schema, spec int       // that the table had
	// target is the schema that they need, nil for the one that the table had. It
	// has new fields above the id lastID, the table's last one then.
	target  *iceberg.Schema
	lastID  int
	changes []Change
	rows    int64
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
	w := &Writer{t: t, ctx: ctx, meta: meta, folder: t.attemptFolder(meta, attempt), open: map[string]*dataFile{}, nulls: map[int]bool{}}
	if w.layout, err = t.layout(meta, t.sqlRows()); err != nil {
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
	stored, nulls, err := w.layout.conform(w.ctx, rows)
	if err != nil {
		return fmt.Errorf("table %s: %w", w.t.opts.Table, err)
	}
	defer stored.Release()
	var c chunk
	if w.parts == nil {
		c = whole(stored, "", nil)
	} else if c, err = w.parts.split(w.ctx, stored); err != nil {
		return fmt.Errorf("table %s: %w", w.t.opts.Table, err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	maps.Copy(w.nulls, nulls)
	w.kept = append(w.kept, c)
	w.keptRows += c.rows.NumRows()
	w.keptSize += c.bytes
	if !w.enough() {
		return nil
	}
	return w.encode()
}

// enough says whether the rows that are kept are worth encoding. Sorted ones are
// sorted as far as they are encoded together, and a table of many partitions
// gets few rows of each.
func (w *Writer) enough() bool {
	rows, bytes := int64(encodeRows), int64(encodeBytes)
	if w.sort != nil || w.parts != nil {
		rows, bytes = rowGroupRows, w.t.opts.MemoryBytes/keptShare
	}
	return w.keptRows >= rows || w.keptSize >= bytes
}

// gathered is what is kept of one partition.
type gathered struct {
	part
	rows   []arrow.RecordBatch
	size   int64 // where they are not sliced
	sliced bool  // of record batches that other partitions share
}

// encode moves the rows that are kept into the files of their partitions.
func (w *Writer) encode() error {
	var all []*gathered
	defer func() {
		for _, g := range all {
			release(g.rows)
		}
	}()
	by := map[string]*gathered{}
	for _, c := range w.kept {
		for _, p := range c.parts {
			g := by[p.key]
			if g == nil {
				g = &gathered{part: p}
				by[p.key], all = g, append(all, g)
			}
			g.rows = append(g.rows, c.rows.NewSlice(p.from, p.to))
			g.size += c.bytes
			g.sliced = g.sliced || len(c.parts) > 1
		}
	}
	w.drop()
	for _, g := range all {
		if err := w.addAll(g); err != nil {
			return err
		}
	}
	return nil
}

// addAll encodes what was gathered of a partition: large record batches one by
// one, so that they are not copied first, small ones together.
func (w *Writer) addAll(g *gathered) error {
	if w.sort == nil && !g.sliced && g.size >= largeBatch*int64(len(g.rows)) {
		for len(g.rows) > 0 {
			rows := g.rows[0]
			g.rows = g.rows[1:]
			if err := w.add(g.part, rows); err != nil {
				return err
			}
		}
		return nil
	}
	rows, err := join(w.layout.files, g.rows, g.sliced)
	release(g.rows)
	g.rows = nil
	if err != nil {
		return err
	}
	return w.add(g.part, rows)
}

// drop lets go of the rows that are kept.
func (w *Writer) drop() {
	for _, c := range w.kept {
		c.rows.Release()
	}
	w.kept, w.keptRows, w.keptSize = nil, 0, 0
}

func release(all []arrow.RecordBatch) {
	for _, rows := range all {
		rows.Release()
	}
}

// add encodes rows of one partition, and releases them.
func (w *Writer) add(p part, rows arrow.RecordBatch) error {
	f, ok := w.open[p.key]
	if !ok {
		w.number++
		f = &dataFile{w: w, key: p.key, name: fmt.Sprintf("%s/%05d.parquet", w.folder, w.number), number: w.number, partition: p.values}
		w.open[p.key] = f
	}
	was := f.memory()
	err := f.write(rows)
	w.size += f.memory() - was
	if err == nil && f.full() {
		err = w.finish(f)
	}
	for err == nil && len(w.open) > 0 && (w.size > w.t.opts.MemoryBytes/openShare || len(w.open) > openMax) {
		err = w.finish(w.largest())
	}
	return err
}

// largest returns the open file that takes most memory.
func (w *Writer) largest() *dataFile {
	var largest *dataFile
	for _, f := range w.open {
		if largest == nil || f.memory() > largest.memory() || f.memory() == largest.memory() && f.number < largest.number {
			largest = f
		}
	}
	return largest
}

// finish closes an open file.
func (w *Writer) finish(f *dataFile) error {
	delete(w.open, f.key)
	w.size -= f.memory()
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
	if err := w.encode(); err != nil {
		return nil, err
	}
	var group errgroup.Group
	group.SetLimit(closers)
	open := slices.SortedFunc(maps.Values(w.open), func(a, b *dataFile) int { return a.number - b.number })
	clear(w.open)
	w.size = 0
	done := make([]iceberg.DataFile, len(open))
	for i, f := range open {
		group.Go(func() (err error) {
			done[i], err = f.close()
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	for _, d := range done {
		w.files = append(w.files, d)
		w.rows += d.Count()
	}
	f := &Files{
		files: w.files, table: w.meta.TableUUID(), schema: w.meta.CurrentSchema().ID, spec: w.meta.DefaultPartitionSpec(),
		lastID: w.meta.LastColumnID(), rows: w.rows,
	}
	f.target, f.changes = w.target()
	return f, nil
}

// target is the schema that the files need, and how it differs from the table's;
// nil where that is the one that they need.
func (w *Writer) target() (*iceberg.Schema, []Change) {
	current, target, changes := w.meta.CurrentSchema(), w.layout.table, evolving(w.layout.changes)
	if len(w.nulls) > 0 {
		changes = append(changes, named(target, w.nulls)...)
		target = successor(w.meta, current, relaxed(target.Fields(), func(id int) bool { return w.nulls[id] }))
	}
	if len(changes) == 0 {
		return nil, nil
	}
	return target, changes
}

// Abort drops what is open. The attempt's folder is swept later.
func (w *Writer) Abort() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.drop()
	for _, f := range w.open {
		f.abort()
	}
	clear(w.open)
	w.size = 0
}

// join puts record batches together. They are copied where there are several, or
// where they are slices: encoders know whole arrays best.
func join(schema *arrow.Schema, parts []arrow.RecordBatch, sliced bool) (arrow.RecordBatch, error) {
	if len(parts) == 1 && !sliced {
		parts[0].Retain()
		return parts[0], nil
	}
	return glue.Join(schema, parts)
}

var errMiscount = errors.New("a data file's footer counts other rows than were written to it; nothing was committed; please report this")

func (w *Writer) invalid(what string, err error) error {
	return fmt.Errorf("%w: %s of table %s: %w", batch.ErrInvalid, what, w.t.opts.Table, err)
}
