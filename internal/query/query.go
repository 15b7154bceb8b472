//go:build cgo

// Package query looks at a pipeline's tables with DuckDB's SQL.
//
// DuckDB itself says what a query needs: it plans the query over empty stand-ins
// of the tables, and the filters that reach each of them are read off that plan.
// The statistics in Iceberg's manifests then tell which data files cannot match,
// and DuckDB reads the rest as Parquet, by field id, only the columns and row
// groups that it needs. Files of an object
// store are copied to a cache first. A filter that is not understood drops no
// file; it is applied by DuckDB as ever, so it costs time, never rows.
package query

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/iceberg-go"
	"github.com/apache/iceberg-go/catalog"
	iceio "github.com/apache/iceberg-go/io"
	"github.com/apache/iceberg-go/table"
	"github.com/duckdb/duckdb-go/v2"

	"github.com/frazil-io/frazil/internal/batch"
	embedded "github.com/frazil-io/frazil/internal/exec/duckdb"
	"github.com/frazil-io/frazil/internal/lake"
)

// Table is a table that SQL may name, as its alias and as namespace.table.
type Table struct {
	Alias   string // "": none
	Ident   table.Identifier
	Branch  string
	Catalog *lake.Catalog
	// Added leaves only the rows that the branch's newest snapshot added. They are
	// named by Alias alone.
	Added bool
}

func (t Table) String() string { return strings.Join(t.Ident, ".") }

// Options are settings of an engine.
type Options struct {
	Cache       string // folder for copies of remote files
	CacheBytes  int64  // how much it may hold; 0: 10 GiB
	MemoryBytes int64  // what DuckDB may use before it spills; 0: 1 GiB
	SpillDir    string // where it spills to; "": below Cache
	Threads     int    // of DuckDB, each with a part of a file in memory; 0: one a core
	// AsWritten keeps the right side of a join in memory, whichever DuckDB takes for
	// the smaller one.
	AsWritten bool
	Log       *slog.Logger
}

func (o Options) withDefaults() Options {
	if o.CacheBytes <= 0 {
		o.CacheBytes = 10 << 30
	}
	if o.MemoryBytes <= 0 {
		o.MemoryBytes = 1 << 30
	}
	if o.SpillDir == "" {
		o.SpillDir = o.Cache + "/spill"
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return o
}

// Engine answers queries over the newest snapshots. It is used by one goroutine.
type Engine struct {
	tables []Table
	opts   Options
	files  *cache
	db     *sql.DB
	conn   *sql.Conn
	// standIns counts the stand-ins that were registered: DuckDB cannot replace
	// a function, so a table whose schema changed gets a new one.
	standIns int
	known    map[string]*standIn // by table
}

// Open starts an engine. Its tables are looked up when a query names them.
func Open(ctx context.Context, tables []Table, o Options) (*Engine, error) {
	o = o.withDefaults()
	// DuckDB makes the last folder of that path alone. Where it cannot be made, a query
	// that needs it says so.
	_ = os.MkdirAll(filepath.Dir(o.SpillDir), 0o755)
	db, err := sql.Open("duckdb", embedded.InMemory)
	if err != nil {
		return nil, fmt.Errorf("start DuckDB: %w", err)
	}
	e := &Engine{tables: tables, opts: o, files: &cache{folder: o.Cache, max: o.CacheBytes}, db: db, known: map[string]*standIn{}}
	if e.conn, err = db.Conn(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("start DuckDB: %w", err), db.Close())
	}
	var some []string
	if o.Threads > 0 {
		some = append(some, fmt.Sprintf("SET threads=%d", o.Threads))
	}
	if o.AsWritten {
		some = append(some, "SET disabled_optimizers='build_side_probe_side,common_subplan'")
	}
	for _, s := range append(some,
		"SET TimeZone='UTC'", "SET preserve_insertion_order=true", fmt.Sprintf("SET memory_limit='%dB'", o.MemoryBytes), "SET temp_directory="+literal(o.SpillDir),
	) {
		if err := e.exec(ctx, s); err != nil {
			e.Close()
			return nil, err
		}
	}
	return e, nil
}

// Close frees the engine.
func (e *Engine) Close() {
	if e.conn != nil {
		_ = e.conn.Close()
	}
	_ = e.db.Close()
}

func (e *Engine) exec(ctx context.Context, statement string) error {
	if _, err := e.conn.ExecContext(ctx, statement); err != nil {
		return fmt.Errorf("DuckDB: %w", err)
	}
	return nil
}

func quoted(name string) string { return `"` + strings.ReplaceAll(name, `"`, `""`) + `"` }
func literal(s string) string   { return "'" + strings.ReplaceAll(s, "'", "''") + "'" }

// Query runs one SELECT over the tables as they are now: header is told the
// columns, then rows each piece of the result as it comes; the record batch is
// the engine's again when it returns. batch.ErrInvalid: DuckDB refused the SQL,
// or a table cannot be read so.
func (e *Engine) Query(ctx context.Context, text string, header func(*arrow.Schema) error, rows func(arrow.RecordBatch) error) error {
	loaded, missing, err := e.load(ctx)
	if err != nil {
		return err
	}
	// One transaction: now() is the same in the plan and in the run.
	if err := e.exec(ctx, "BEGIN TRANSACTION"); err != nil {
		return err
	}
	defer func() { _ = e.exec(context.WithoutCancel(ctx), "ROLLBACK") }()
	for _, l := range loaded {
		if err := e.view(ctx, l.Table, l.standIn.relation()); err != nil {
			return err
		}
	}
	if err := e.onlySelect(text); err != nil {
		return e.refused(ctx, err, text, missing)
	}
	p, err := e.plan(ctx, text)
	if err != nil {
		return err
	}
	for _, l := range loaded {
		from := l.standIn.relation()
		if wanted, ok := p.scans[l.standIn.function]; ok {
			if from, err = e.relation(ctx, l, wanted); err != nil {
				return fmt.Errorf("table %s: %w", l.Table, err)
			}
			if p.distinct {
				from += noPushdown
			}
		}
		if err := e.view(ctx, l.Table, from); err != nil {
			return err
		}
	}
	return e.stream(ctx, text, header, rows)
}

// noPushdown keeps DuckDB from handing its filters to the reader of the files.
const noPushdown = " LIMIT 9223372036854775807"

// loadedTable is a table's metadata, loaded afresh.
type loadedTable struct {
	Table
	table   *table.Table
	standIn *standIn
}

// load reads the metadata of every table that exists.
func (e *Engine) load(ctx context.Context) (loaded []loadedTable, missing []Table, err error) {
	for _, t := range e.tables {
		tbl, err := t.Catalog.Load(ctx, t.Ident)
		if errors.Is(err, catalog.ErrNoSuchTable) || errors.Is(err, catalog.ErrNoSuchNamespace) {
			missing = append(missing, t)
			continue
		}
		if err != nil {
			return nil, nil, fmt.Errorf("table %s: %w", t, err)
		}
		in, err := e.standInFor(fmt.Sprint(t, t.Added), tbl.Schema())
		if err != nil {
			return nil, nil, fmt.Errorf("table %s: %w", t, err)
		}
		loaded = append(loaded, loadedTable{t, tbl, in})
	}
	return loaded, missing, nil
}

// view makes SQL see a relation under the table's names.
func (e *Engine) view(ctx context.Context, t Table, from string) error {
	schema, name := quoted(strings.Join(t.Ident[:len(t.Ident)-1], ".")), quoted(t.Ident[len(t.Ident)-1])
	var statements []string
	if t.Alias != "" {
		statements = append(statements, "CREATE OR REPLACE VIEW "+quoted(t.Alias)+" AS "+from)
	}
	if !t.Added {
		statements = append(statements, "CREATE SCHEMA IF NOT EXISTS "+schema, "CREATE OR REPLACE VIEW "+schema+"."+name+" AS "+from)
	}
	for _, statement := range statements {
		if err := e.exec(ctx, statement); err != nil {
			return fmt.Errorf("table %s: %w", t, err)
		}
	}
	return nil
}

// standIn is an empty table function with a table's columns, under names that no
// column of a user has.
type standIn struct {
	function string
	schema   *iceberg.Schema
	columns  map[string]iceberg.NestedField // by its name in the stand-in
}

func (s *standIn) name(i int) string { return s.function + "_" + strconv.Itoa(i) }

// relation gives the columns the names that the table has.
func (s *standIn) relation() string {
	var columns []string
	for i, f := range s.schema.Fields() {
		columns = append(columns, s.name(i)+" AS "+quoted(f.Name))
	}
	return "SELECT " + strings.Join(columns, ", ") + " FROM " + s.function + "()"
}

// noRows is the source behind a stand-in.
type noRows []duckdb.ColumnInfo

// ColumnInfos implements duckdb.RowTableSource.
func (n noRows) ColumnInfos() []duckdb.ColumnInfo { return n }

// Cardinality implements duckdb.RowTableSource.
func (noRows) Cardinality() *duckdb.CardinalityInfo { return nil }

// Init implements duckdb.RowTableSource.
func (noRows) Init() {}

// FillRow implements duckdb.RowTableSource.
func (noRows) FillRow(duckdb.Row) (bool, error) { return false, nil }

func (e *Engine) standInFor(name string, schema *iceberg.Schema) (*standIn, error) {
	if in := e.known[name]; in != nil && in.schema.Equals(schema) {
		return in, nil
	}
	e.standIns++
	in := &standIn{function: fmt.Sprintf("frazil_table_%d", e.standIns), schema: schema, columns: map[string]iceberg.NestedField{}}
	var source noRows
	for i, f := range schema.Fields() {
		info, err := typeInfo(f.Type)
		if err != nil {
			return nil, fmt.Errorf("%w: column %q: %w", batch.ErrInvalid, f.Name, err)
		}
		in.columns[in.name(i)] = f
		source = append(source, duckdb.ColumnInfo{Name: in.name(i), T: info})
	}
	err := duckdb.RegisterTableUDF(e.conn, in.function, duckdb.RowTableFunction{
		BindArguments: func(map[string]any, ...any) (duckdb.RowTableSource, error) { return source, nil },
	})
	if err != nil {
		return nil, fmt.Errorf("DuckDB: %w", err)
	}
	e.known[name] = in
	return in, nil
}

// relation is SQL that gives the table's rows that any of the filters can want.
func (e *Engine) relation(ctx context.Context, l loadedTable, wanted []mayMatch) (string, error) {
	if err := sameNames(l.table.Metadata().Schemas()); err != nil {
		return "", err
	}
	fs, err := l.table.FS(l.Catalog.Context(ctx))
	if err != nil {
		return "", lake.Classify("open files", err)
	}
	files, all, err := scanFiles(l, fs, wanted)
	if err != nil {
		return "", err
	}
	var bytes int64
	for _, f := range files {
		bytes += f.bytes
	}
	e.opts.Log.Debug("scan planned", "table", l.Table.String(), "files", len(files), "files_in_table", all, "bytes", bytes)
	if len(files) == 0 {
		return l.standIn.relation(), nil
	}
	paths, err := e.files.local(ctx, fs, files)
	if err != nil {
		return "", err
	}
	if err := e.haveIDs(ctx, l.table, paths); err != nil {
		return "", err
	}
	return parquetRelation(l.table.Schema(), paths)
}

// haveIDs refuses files that were imported without field ids: their columns
// would come as NULL.
func (e *Engine) haveIDs(ctx context.Context, t *table.Table, paths []string) error {
	if t.Properties()[table.DefaultNameMappingKey] == "" {
		return nil
	}
	for _, p := range paths {
		var n int64
		row := e.conn.QueryRowContext(ctx, "SELECT count(*) FROM parquet_schema("+literal(exactPath(p))+") WHERE field_id IS NOT NULL")
		if err := row.Scan(&n); err != nil {
			return fmt.Errorf("%w: read %s: %w", batch.ErrUnavailable, p, err)
		}
		if n == 0 {
			return fmt.Errorf("%w: %s was imported without field ids, which this query cannot read; use an engine that applies name mappings", batch.ErrInvalid, p)
		}
	}
	return nil
}

// dataFile is one file of a scan.
type dataFile struct {
	path  string
	bytes int64
}

// scanFiles lists the data files of the branch's newest snapshot that any of the
// tests lets pass, and counts all of them.
//
// It does not ask iceberg-go's scan: of v0.7.0, that drops manifests whose lowest
// partition value is an empty text, and lists a large file once for each part.
func scanFiles(l loadedTable, fs iceio.IO, wanted []mayMatch) (files []dataFile, all int, err error) {
	snapshot := l.table.Metadata().SnapshotByName(l.Branch)
	if snapshot == nil {
		return nil, 0, nil
	}
	manifests, err := snapshot.Manifests(fs)
	if err != nil {
		return nil, 0, lake.Classify("read the list of manifests", err)
	}
	test := anyOf(wanted)
	for _, m := range manifests {
		if !m.HasAddedFiles() && !m.HasExistingFiles() || l.Added && m.SnapshotID() != snapshot.SnapshotID {
			continue
		}
		if m.ManifestContent() == iceberg.ManifestContentDeletes {
			return nil, 0, fmt.Errorf("%w: another engine deleted rows from it, which this query cannot apply; read it with an engine that does", batch.ErrInvalid)
		}
		for entry, err := range m.Entries(fs, true) {
			if err != nil {
				return nil, 0, lake.Classify("read manifest "+m.FilePath(), err)
			}
			if l.Added && (entry.Status() != iceberg.EntryStatusADDED || entry.SnapshotID() != snapshot.SnapshotID) {
				continue
			}
			all++
			if d := entry.DataFile(); test(d) {
				files = append(files, dataFile{d.FilePath(), d.FileSizeBytes()})
			}
		}
	}
	slices.SortFunc(files, func(a, b dataFile) int { return strings.Compare(a.path, b.path) })
	return files, all, nil
}
