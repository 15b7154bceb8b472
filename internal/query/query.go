//go:build cgo

// Package query looks at a pipeline's tables with DuckDB's SQL. DuckDB reads the
// tables' Parquet files itself, so it streams and reads only the columns and row
// groups that a query needs; files of an object store are copied to a cache
// first.
package query

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/apache/iceberg-go"
	"github.com/apache/iceberg-go/catalog"
	iceio "github.com/apache/iceberg-go/io"
	"github.com/apache/iceberg-go/table"
	_ "github.com/duckdb/duckdb-go/v2" // the driver

	"github.com/frazil-io/frazil/internal/batch"
	"github.com/frazil-io/frazil/internal/lake"
)

// Table is a table that SQL may name, as its alias and as namespace.table.
type Table struct {
	Alias   string
	Ident   table.Identifier
	Branch  string
	Catalog *lake.Catalog
}

// Engine answers queries over the newest snapshots.
type Engine struct {
	tables []Table
	cache  string // folder for copies of remote files
	db     *sql.DB
}

// Open starts an engine.
func Open(tables []Table, cache string) (*Engine, error) {
	db, err := sql.Open("duckdb", "?autoinstall_known_extensions=false&autoload_known_extensions=false&allow_community_extensions=false")
	if err != nil {
		return nil, fmt.Errorf("start DuckDB: %w", err)
	}
	db.SetMaxOpenConns(1)
	return &Engine{tables: tables, cache: cache, db: db}, nil
}

// Close frees the engine.
func (e *Engine) Close() { _ = e.db.Close() }

// Refresh makes SQL see the newest snapshots.
func (e *Engine) Refresh(ctx context.Context) error {
	if _, err := e.db.ExecContext(ctx, "SET TimeZone='UTC'"); err != nil {
		return err
	}
	for _, t := range e.tables {
		from, err := e.relation(ctx, t)
		if err != nil {
			return fmt.Errorf("table %s: %w", strings.Join(t.Ident, "."), err)
		}
		schema, name := quoted(t.Ident[0]), quoted(t.Ident[len(t.Ident)-1])
		for _, statement := range []string{
			"CREATE OR REPLACE VIEW " + quoted(t.Alias) + " AS " + from,
			"CREATE SCHEMA IF NOT EXISTS " + schema,
			"CREATE OR REPLACE VIEW " + schema + "." + name + " AS " + from,
		} {
			if _, err := e.db.ExecContext(ctx, statement); err != nil {
				return fmt.Errorf("table %s: %w", strings.Join(t.Ident, "."), err)
			}
		}
	}
	return nil
}

func quoted(name string) string { return `"` + strings.ReplaceAll(name, `"`, `""`) + `"` }
func literal(s string) string   { return "'" + strings.ReplaceAll(s, "'", "''") + "'" }

// relation is SQL that gives a table's rows.
func (e *Engine) relation(ctx context.Context, t Table) (string, error) {
	loaded, err := t.Catalog.Load(ctx, t.Ident)
	if errors.Is(err, catalog.ErrNoSuchTable) || errors.Is(err, catalog.ErrNoSuchNamespace) {
		return "", fmt.Errorf("%w: it does not exist yet; run the pipeline first", batch.ErrInvalid)
	}
	if err != nil {
		return "", err
	}
	var files []string
	if loaded.Metadata().SnapshotByName(t.Branch) != nil {
		scan := loaded.Scan()
		if t.Branch != "" && t.Branch != table.MainBranch {
			if scan, err = scan.UseRef(t.Branch); err != nil {
				return "", err
			}
		}
		tasks, err := scan.PlanFiles(t.Catalog.Context(ctx))
		if err != nil {
			return "", lake.Classify("plan the scan", err)
		}
		for _, task := range tasks {
			if len(task.DeleteFiles) > 0 {
				return "", fmt.Errorf("%w: another engine deleted rows from it, which this query cannot see; read it with an engine that applies deletes", batch.ErrInvalid)
			}
			local, err := e.local(ctx, loaded, t.Catalog, task.File.FilePath())
			if err != nil {
				return "", err
			}
			files = append(files, literal(local))
		}
	}
	if len(files) == 0 {
		return emptyRelation(loaded.Schema()), nil
	}
	return "SELECT * FROM read_parquet([" + strings.Join(files, ", ") + "], union_by_name = true)", nil
}

// emptyRelation has the table's columns and no rows.
func emptyRelation(s *iceberg.Schema) string {
	var columns []string
	for _, f := range s.Fields() {
		columns = append(columns, "NULL AS "+quoted(f.Name))
	}
	return "SELECT " + strings.Join(columns, ", ") + " WHERE false"
}

// local returns where a data file can be read: itself, or its copy. Data files
// never change.
func (e *Engine) local(ctx context.Context, t *table.Table, c *lake.Catalog, name string) (string, error) {
	if !strings.Contains(name, "://") {
		return name, nil
	}
	if path, ok := strings.CutPrefix(name, "file://"); ok {
		return path, nil
	}
	sum := sha256.Sum256([]byte(name))
	path := filepath.Join(e.cache, hex.EncodeToString(sum[:])+".parquet")
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	fs, err := t.FS(c.Context(ctx))
	if err != nil {
		return "", lake.Classify("open files", err)
	}
	return path, copyFile(fs, name, path)
}

func copyFile(fs iceio.IO, from, to string) (err error) {
	in, err := fs.Open(from)
	if err != nil {
		return lake.Classify("read "+from, err)
	}
	defer func() { err = errors.Join(err, in.Close()) }()
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	out, err := os.CreateTemp(filepath.Dir(to), "copy-")
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	if err = errors.Join(err, out.Close()); err != nil {
		return errors.Join(err, os.Remove(out.Name()))
	}
	return os.Rename(out.Name(), to)
}

// Query runs SQL and calls row for each row with its values. batch.ErrInvalid:
// DuckDB refused it.
func (e *Engine) Query(ctx context.Context, text string, header func([]string) error, row func([]any) error) error {
	rows, err := e.db.QueryContext(ctx, text)
	if err != nil {
		return fmt.Errorf("%w: %w", batch.ErrInvalid, err)
	}
	defer rows.Close() //nolint:errcheck // the last row was read, or the error is reported below
	names, err := rows.Columns()
	if err != nil {
		return err
	}
	if err := header(names); err != nil {
		return err
	}
	values := make([]any, len(names))
	to := make([]any, len(names))
	for i := range values {
		to[i] = &values[i]
	}
	for rows.Next() {
		if err := rows.Scan(to...); err != nil {
			return err
		}
		if err := row(values); err != nil {
			return err
		}
	}
	if err := rows.Err(); err != nil {
		return fmt.Errorf("%w: %w", batch.ErrInvalid, err)
	}
	return nil
}
