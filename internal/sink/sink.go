// Package sink writes the rows of one sink into an Iceberg table: it makes the
// table, writes data files, and commits them as snapshots that carry a stamp and
// move a tag.
//
// The commit is built here, not by iceberg-go's transactions: one new manifest,
// one manifest list, the branch, the tag and the expiry of old snapshots in one
// request that asserts all that was seen. So its cost does not grow with the
// number of batches, and nothing is ever rebased without a look at the table.
package sink

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/iceberg-go"
	iceio "github.com/apache/iceberg-go/io"
	"github.com/apache/iceberg-go/table"

	"github.com/frazil-io/frazil/internal/batch"
	"github.com/frazil-io/frazil/internal/lake"
)

// Options describe a sink's table.
type Options struct {
	Pipeline string // its name, for the tag
	Stream   string // "": main
	Table    string // namespace.table
	Branch   string // "": main
	Create   bool   // namespace and table, when missing
	// Committed says that the pipeline has committed to the table: a missing one
	// is batch.ErrDataLost and is never made again.
	Committed     bool
	PartitionBy   []string
	SortBy        []string
	FormatVersion int    // of a table that is made: 2 (0) or 3
	Evolve        Evolve // "": EvolveNone
	Properties    map[string]string
	// KeepSnapshots is how many snapshots of the branch stay, KeepHourly for how
	// long the newest of each hour stays besides.
	KeepSnapshots int
	KeepHourly    time.Duration
	// FileBytes is the size at which a data file is finished. 0: 256 MiB.
	FileBytes int64
	// MemoryBytes bounds what the files in the making take. 0: 128 MiB.
	MemoryBytes int64
}

// Defaults of Options.
const (
	keepSnapshots = 100
	keepHourly    = 7 * 24 * time.Hour
	fileBytes     = 256 << 20
	memoryBytes   = 128 << 20
)

func (o Options) withDefaults() Options {
	if o.Stream == "" {
		o.Stream = batch.StreamMain
	}
	if o.Branch == "" {
		o.Branch = table.MainBranch
	}
	if o.KeepSnapshots <= 0 {
		o.KeepSnapshots = keepSnapshots
	}
	if o.KeepHourly <= 0 {
		o.KeepHourly = keepHourly
	}
	if o.FileBytes <= 0 {
		o.FileBytes = fileBytes
	}
	if o.MemoryBytes <= 0 {
		o.MemoryBytes = memoryBytes
	}
	if o.FormatVersion == 0 {
		o.FormatVersion = 2
	}
	if o.Evolve == "" {
		o.Evolve = EvolveNone
	}
	return o
}

// Table is the table of one sink.
type Table struct {
	opts    Options
	catalog *lake.Catalog
	ident   table.Identifier
	now     func() time.Time
	log     *slog.Logger
	tag     string
	fs      files
	openFS  func(*table.Table) (iceio.IO, error) // with the context of Open

	shape   sync.Mutex    // guards rows and changes
	rows    *arrow.Schema // of the SQL
	changes []Change      // to the table as it was when rows came

	mu        sync.Mutex
	manifests map[int64][]iceberg.ManifestFile // of snapshots that were committed here
	small     map[string][]byte                // manifests of few files that were written here, for merging
	copies    map[int64][]batch.Copy           // by other writers' snapshots that were looked at
	trash     trash
}

// Open opens the table of a sink, and makes it where that is allowed. rows are
// the columns of the sink's SQL. batch.ErrInvalid: the table does not fit them,
// with both said side by side.
func Open(ctx context.Context, c *lake.Catalog, o Options, rows *arrow.Schema, now func() time.Time, log *slog.Logger) (*Table, error) {
	t := &Table{
		opts: o.withDefaults(), catalog: c, rows: rows, now: now, log: log,
		manifests: map[int64][]iceberg.ManifestFile{}, small: map[string][]byte{}, copies: map[int64][]batch.Copy{},
		trash: trash{since: map[string]time.Time{}, lists: map[int64][]string{}},
	}
	t.ident = strings.Split(o.Table, ".")
	if len(t.ident) < 2 {
		return nil, fmt.Errorf("%w: table %q has no namespace; write namespace.table", batch.ErrInvalid, o.Table)
	}
	t.openFS = func(tbl *table.Table) (iceio.IO, error) { return tbl.FS(c.Context(ctx)) }
	t.tag = batch.Tag(t.opts.Pipeline, t.opts.Stream)
	tbl, err := t.openOrCreate(ctx)
	if err != nil {
		return nil, err
	}
	if t.changes, err = t.check(tbl, rows); err != nil {
		return nil, err
	}
	return t, t.openFiles(tbl)
}

// Fit checks the table against other rows of the sink's SQL, as Open does. adopt
// makes them its rows; no writer may be open then.
func (t *Table) Fit(ctx context.Context, rows *arrow.Schema) (adopt func(), err error) {
	tbl, err := t.load(ctx)
	if err != nil {
		return nil, err
	}
	changes, err := t.check(tbl, rows)
	if err != nil {
		return nil, err
	}
	return func() {
		t.shape.Lock()
		defer t.shape.Unlock()
		t.rows, t.changes = rows, changes
	}, nil
}

// sqlRows are the columns of the SQL.
func (t *Table) sqlRows() *arrow.Schema {
	t.shape.Lock()
	defer t.shape.Unlock()
	return t.rows
}

// Changes are the differences between the table, as it was opened, and the rows of
// the sink's SQL. The first commit with rows makes those that change the table.
func (t *Table) Changes() []Change {
	t.shape.Lock()
	defer t.shape.Unlock()
	return t.changes
}

// openFiles opens the table's file system. iceberg-go would do it for each use.
func (t *Table) openFiles(tbl *table.Table) error {
	opened, err := t.openFS(tbl)
	if err != nil {
		return lake.Classify("open the files of table "+t.opts.Table, err)
	}
	w, ok := opened.(iceio.WriteFileIO)
	if !ok {
		return fmt.Errorf("%w: the files of table %s, at %s, cannot be written", batch.ErrInvalid, t.opts.Table, tbl.Location())
	}
	t.fs.exchange(w)
	return nil
}

// load loads the table afresh, with the keys that come with it.
func (t *Table) load(ctx context.Context) (*table.Table, error) {
	tbl, err := t.catalog.Load(ctx, t.ident)
	if err != nil || !t.catalog.Vends() {
		return tbl, err
	}
	return tbl, t.openFiles(tbl)
}

// Load reads the table's metadata afresh.
func (t *Table) Load(ctx context.Context) (*View, error) {
	tbl, err := t.load(ctx)
	if err != nil {
		return nil, err
	}
	return t.view(tbl.Metadata())
}

// Pin tags a snapshot, so that it cannot expire.
func (t *Table) Pin(ctx context.Context, tag string, snapshot int64) error {
	tbl, err := t.load(ctx)
	if err != nil {
		return err
	}
	if tbl.Metadata().SnapshotByID(snapshot) == nil {
		return fmt.Errorf("%w: snapshot %d of table %s has expired", batch.ErrInvalid, snapshot, t.opts.Table)
	}
	_, err = t.catalog.Commit(ctx, t.ident, []table.Requirement{table.AssertTableUUID(tbl.Metadata().TableUUID())},
		[]table.Update{table.NewSetSnapshotRefUpdate(tag, snapshot, table.TagRef, 0, 0, 0)})
	return err
}

// Unpin removes a tag; there may be none.
func (t *Table) Unpin(ctx context.Context, tag string) error {
	tbl, err := t.load(ctx)
	if err != nil {
		return err
	}
	if tbl.Metadata().SnapshotByName(tag) == nil {
		return nil
	}
	_, err = t.catalog.Commit(ctx, t.ident, []table.Requirement{table.AssertTableUUID(tbl.Metadata().TableUUID())},
		[]table.Update{table.NewRemoveSnapshotRefUpdate(tag)})
	return err
}
