package sink

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/iceberg-go"
	"github.com/apache/iceberg-go/catalog"
	"github.com/apache/iceberg-go/table"
	"golang.org/x/sync/errgroup"

	"github.com/frazil-io/frazil/internal/batch"
	"github.com/frazil-io/frazil/internal/lake"
)

// RouteOptions describe the tables of a sink whose rows choose theirs.
type RouteOptions struct {
	Options // of each; Table is for people
	Sink    string
	// Namespace has all tables. Their names are Texts with the values of Columns
	// between them.
	Namespace []string
	Texts     []string
	Columns   []string
}

// Routed are the tables of a sink whose rows choose theirs.
type Routed struct {
	opts    RouteOptions
	catalog *lake.Catalog
	open    func(o Options, rows *arrow.Schema) (*Table, error)

	mu     sync.Mutex
	tables map[string]*Table
	// opening are held by whoever opens the table of that name: it takes a few calls
	// to the catalog, and others do not wait for them.
	opening map[string]*sync.Mutex
	rows    *arrow.Schema
	// columns are those that choose. They change while no writer is open only.
	columns []int
}

// NewRouted checks that the columns are there. No table is opened before it is
// needed.
func NewRouted(ctx context.Context, c *lake.Catalog, o RouteOptions, rows *arrow.Schema, now func() time.Time, log *slog.Logger) (*Routed, error) {
	columns, err := routeColumns(o, rows)
	if err != nil {
		return nil, err
	}
	memory := o.withDefaults().MemoryBytes
	r := &Routed{opts: o, catalog: c, rows: rows, columns: columns, tables: map[string]*Table{}, opening: map[string]*sync.Mutex{}}
	r.open = func(t Options, rows *arrow.Schema) (*Table, error) {
		t.MemoryBytes = memory / 2 / int64(writersOf(memory))
		return Open(ctx, c, t, rows, now, log)
	}
	return r, nil
}

// Fit checks the tables that were opened against other rows of the sink's SQL.
// adopt makes them their rows; no writer may be open then.
func (r *Routed) Fit(ctx context.Context, rows *arrow.Schema) (adopt func(), err error) {
	columns, err := routeColumns(r.opts, rows)
	if err != nil {
		return nil, err
	}
	r.mu.Lock()
	opened := maps.Clone(r.tables)
	r.mu.Unlock()
	var all []func()
	for _, t := range opened {
		f, err := t.Fit(ctx, rows)
		if err != nil {
			return nil, err
		}
		all = append(all, f)
	}
	return func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.rows, r.columns = rows, columns
		for _, f := range all {
			f()
		}
	}, nil
}

// CheckRoute says whether the columns that choose a table can: they must be in
// the rows, as texts, whole numbers, booleans or dates.
func CheckRoute(o RouteOptions, rows *arrow.Schema) error {
	_, err := routeColumns(o, rows)
	return err
}

func routeColumns(o RouteOptions, rows *arrow.Schema) (columns []int, err error) {
	for _, name := range o.Columns {
		at := slices.IndexFunc(rows.Fields(), func(f arrow.Field) bool { return strings.EqualFold(f.Name, name) })
		if at < 0 {
			return nil, fmt.Errorf("%w: table %s: the SELECT has no column %q; it has %s", batch.ErrInvalid, o.Table, name, fieldNames(rows))
		}
		switch t := rows.Field(at).Type; t.ID() {
		case arrow.STRING, arrow.LARGE_STRING, arrow.STRING_VIEW, arrow.BOOL, arrow.DATE32,
			arrow.INT8, arrow.INT16, arrow.INT32, arrow.INT64, arrow.UINT8, arrow.UINT16, arrow.UINT32, arrow.UINT64:
		default:
			return nil, fmt.Errorf("%w: table %s: column %q is %s; a text, a whole number, a boolean or a date chooses a table: cast it to VARCHAR", batch.ErrInvalid, o.Table, name, t)
		}
		columns = append(columns, at)
	}
	return columns, nil
}

func fieldNames(rows *arrow.Schema) string {
	names := make([]string, 0, rows.NumFields())
	for _, f := range rows.Fields() {
		names = append(names, f.Name)
	}
	return strings.Join(names, ", ")
}

// nameMax is the longest name that every catalog takes: Glue's limit is 255 with
// the namespace, and file systems' 255 with what is put behind it.
const nameMax = 128

// RouteCondition is what SQL says of a row that can choose a table.
func RouteCondition(o RouteOptions) string {
	left := nameMax
	for _, text := range o.Texts {
		left -= len(text)
	}
	conditions := make([]string, 0, len(o.Columns)+1)
	lengths := make([]string, 0, len(o.Columns))
	for _, c := range o.Columns {
		text := `"` + strings.ReplaceAll(c, `"`, `""`) + `"::VARCHAR`
		conditions = append(conditions, text+" <> ''")
		lengths = append(lengths, "length("+text+")")
	}
	return fmt.Sprintf("%s AND %s <= %d", strings.Join(conditions, " AND "), strings.Join(lengths, " + "), left)
}

// valueOf tells rows apart that may be for different tables. The text is the row's.
func (r *Routed) valueOf(rows arrow.RecordBatch, row int) string {
	if len(r.columns) == 1 && rows.Column(r.columns[0]).IsValid(row) {
		return rows.Column(r.columns[0]).ValueStr(row)
	}
	values := &strings.Builder{}
	for _, at := range r.columns {
		c := rows.Column(at)
		fmt.Fprintf(values, "%t:%d:%s", c.IsNull(row), len(c.ValueStr(row)), c.ValueStr(row))
	}
	return values.String()
}

// nameOf is the table for one row.
func (r *Routed) nameOf(rows arrow.RecordBatch, row int) (string, error) {
	name := &strings.Builder{}
	for i, at := range r.columns {
		name.WriteString(r.opts.Texts[i])
		c := rows.Column(at)
		value := ""
		if !c.IsNull(row) {
			value = c.ValueStr(row)
		}
		if value == "" {
			what := "empty"
			if c.IsNull(row) {
				what = "NULL"
			}
			return "", fmt.Errorf("%w: sink %s: column %q, which chooses the table, is %s in a row; put the rows without one elsewhere: among the dead letters, with dead_letter in the spec and, where the SQL makes several rows of a record, a rule of expect; in a table, as with coalesce(nullif(%s, ''), 'none') AS %s; or nowhere, with WHERE",
				batch.ErrInvalid, r.opts.Sink, r.opts.Columns[i], what, r.opts.Columns[i], r.opts.Columns[i])
		}
		name.WriteString(plainName(value))
	}
	name.WriteString(r.opts.Texts[len(r.columns)])
	if name.Len() > nameMax {
		return "", fmt.Errorf("%w: sink %s: the name of table %q has %d characters; at most %d are allowed: shorten the column in the SELECT, or give the pipeline dead_letter and a rule of expect", batch.ErrInvalid, r.opts.Sink, name, name.Len(), nameMax)
	}
	return strings.Join(append(slices.Clone(r.opts.Namespace), name.String()), "."), nil
}

// plainName makes a value part of a name that every catalog and engine takes:
// letters become small, and what is no letter a to z, digit or underscore becomes
// an underscore. Values that differ in nothing else share a table.
func plainName(value string) string {
	return strings.Map(func(c rune) rune {
		switch {
		case c >= 'A' && c <= 'Z':
			return c + 'a' - 'A'
		case c >= 'a' && c <= 'z', c >= '0' && c <= '9', c == '_':
			return c
		}
		return '_'
	}, value)
}

// claimKey is the property of a table that says which sink of a pipeline feeds
// it, before any snapshot says so.
func (r *Routed) claimKey() string { return "frazil.route." + r.opts.Pipeline }

// Table opens one of the tables. batch.ErrDataLost: there is none.
func (r *Routed) Table(ctx context.Context, name string) (*Table, error) {
	return r.table(ctx, name, false)
}

func (r *Routed) table(ctx context.Context, name string, create bool) (*Table, error) {
	if err := context.Cause(ctx); err != nil {
		return nil, err
	}
	t, _, one := r.opened(name)
	if t != nil {
		return t, nil
	}
	one.Lock()
	defer one.Unlock()
	t, rows, _ := r.opened(name)
	if t != nil {
		return t, nil
	}
	o := r.opts.Options
	o.Table, o.Create = name, create && o.Create
	o.Properties = maps.Clone(o.Properties)
	if o.Properties == nil {
		o.Properties = map[string]string{}
	}
	o.Properties[r.claimKey()] = r.opts.Sink
	t, err := r.open(o, rows)
	if !create {
		err = r.gone(name, err)
	}
	if err != nil {
		return nil, fmt.Errorf("sink %s: %w", r.opts.Sink, err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.tables[name] = t
	return t, nil
}

// opened returns a table if it is open, the rows to open it for, and what whoever
// opens it holds.
func (r *Routed) opened(name string) (*Table, *arrow.Schema, *sync.Mutex) {
	r.mu.Lock()
	defer r.mu.Unlock()
	one := r.opening[name]
	if one == nil {
		one = &sync.Mutex{}
		r.opening[name] = one
	}
	return r.tables[name], r.rows, one
}

// gone says of a table that is not there any more what that means.
func (r *Routed) gone(name string, err error) error {
	sink := r.opts.Sink
	if !errors.Is(err, catalog.ErrNoSuchTable) && !errors.Is(err, catalog.ErrNoSuchNamespace) {
		return err
	}
	if stream := r.opts.withDefaults().Stream; stream != batch.StreamMain {
		return fmt.Errorf("%w: table %s, which rows of sink %s chose, does not exist any more: its catalog was lost or replaced, or it was dropped. Bring it back; "+
			"or, if it was dropped on purpose, remove the folder %s.%s of the checkpoint while no replay runs: the next one makes the table again for the batch that was not done", batch.ErrDataLost, name, sink, r.opts.Pipeline, stream)
	}
	return fmt.Errorf("%[3]w: table %[1]s, which rows of sink %[2]s chose, does not exist any more: its catalog was lost or replaced, or it was dropped. Bring it back; "+
		"or, if it was dropped on purpose, move tables/%[2]s/%[1]s to dropped/%[2]s/%[1]s in the pipeline's folder of the checkpoint while the pipeline stands still", name, sink, batch.ErrDataLost)
}

// claim makes a table where that is allowed, and marks it as the sink's, before it
// gets its first file. From then on whoever recovers the pipeline finds it, though
// it may have no snapshot yet.
func (r *Routed) claim(ctx context.Context, name string) (*Table, error) {
	t, err := r.table(ctx, name, true)
	if err != nil {
		return nil, err
	}
	tbl, err := t.load(ctx)
	if err != nil {
		return nil, r.gone(name, err)
	}
	switch was := tbl.Properties()[r.claimKey()]; was {
	case r.opts.Sink:
		return t, nil
	case "":
	default:
		return nil, fmt.Errorf("%w: table %s is one of sink %s of this pipeline; a row of sink %s cannot go there: give each a namespace of its own", batch.ErrInvalid, name, was, r.opts.Sink)
	}
	_, err = r.catalog.Commit(ctx, t.ident, []table.Requirement{table.AssertTableUUID(tbl.Metadata().TableUUID())},
		[]table.Update{table.NewSetPropertiesUpdate(iceberg.Properties{r.claimKey(): r.opts.Sink})})
	return t, err
}

// Claim makes a table where there is none and that is allowed, and marks it as the
// sink's.
func (r *Routed) Claim(ctx context.Context, name string) error {
	_, err := r.claim(ctx, name)
	return err
}

// Find returns the tables of the namespace that are the sink's: by the stamp on
// the pipeline's tag, or by their claim.
func (r *Routed) Find(ctx context.Context) (found []string, err error) {
	var all []table.Identifier
	for ident, err := range r.catalog.ListTables(ctx, r.opts.Namespace) {
		if errors.Is(err, catalog.ErrNoSuchNamespace) {
			return nil, nil
		}
		if err != nil {
			return nil, lake.Classify("list the tables of "+strings.Join(r.opts.Namespace, "."), err)
		}
		all = append(all, ident)
	}
	tag := batch.Tag(r.opts.Pipeline, r.opts.withDefaults().Stream)
	ours := make([]bool, len(all))
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(findsAtOnce)
	for i, ident := range all {
		group.Go(func() error {
			tbl, err := r.catalog.Load(ctx, ident)
			if errors.Is(err, catalog.ErrNoSuchTable) {
				return nil // dropped meanwhile, or no Iceberg table
			}
			if err == nil {
				ours[i], err = r.ours(tbl, tag)
			}
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	for i, ident := range all {
		if ours[i] {
			found = append(found, strings.Join(ident, "."))
		}
	}
	slices.Sort(found)
	return found, nil
}

// findsAtOnce is how many tables of a namespace are loaded at once.
const findsAtOnce = 16

func (r *Routed) ours(tbl *table.Table, tag string) (bool, error) {
	if tagged := tbl.Metadata().SnapshotByName(tag); tagged != nil {
		st, err := stampOf(tagged)
		if err != nil {
			return false, fmt.Errorf("table %s: %w", strings.Join(tbl.Identifier(), "."), err)
		}
		return st != nil && st.Route != nil && st.Route.Sink == r.opts.Sink, nil
	}
	return tbl.Properties()[r.claimKey()] == r.opts.Sink, nil
}
