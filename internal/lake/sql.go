package lake

import (
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/apache/iceberg-go"
	sqlcat "github.com/apache/iceberg-go/catalog/sql"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
	_ "modernc.org/sqlite" // the sqlite driver

	"github.com/frazil-io/frazil/internal/batch"
)

// Of a PostgreSQL server: a pipeline needs a connection for each sink and a few
// for what runs beside them, and a proxy on the way may drop idle ones silently.
const (
	postgresConns = 8
	postgresIdle  = time.Minute
)

// openSQL opens a catalog that is a few tables of a database.
func (c *Catalog) openSQL(props iceberg.Properties) error {
	warehouse, err := location(c.opts.Warehouse)
	if err != nil {
		return fmt.Errorf("%w: catalog %s: warehouse %q: %w", batch.ErrInvalid, c.opts.Name, c.opts.Warehouse, err)
	}
	props["warehouse"] = warehouse
	dialect := sqlcat.SQLite
	if isPostgres(c.opts.URI) {
		dialect = sqlcat.Postgres
		err = c.openPostgres()
	} else {
		err = c.openSQLite()
	}
	if err != nil {
		return err
	}
	if c.Catalog, err = sqlcat.NewCatalog(c.opts.Name, c.db, dialect, props); err != nil {
		return Classify("open catalog "+c.opts.Name, err)
	}
	if c.file != nil {
		c.file.info, _ = os.Stat(c.file.path) // in memory there is none
	}
	return nil
}

// sqliteFile is a catalog's file as it was opened.
type sqliteFile struct {
	path string
	info os.FileInfo
}

// same makes sure that the catalog's file is still the one that was opened. SQLite
// goes on in a file that was deleted, and nobody else sees what it commits there. It
// is asked behind each load and commit: what is lost then was acknowledged to nobody.
func (c *Catalog) same(doing string) error {
	if c.file == nil || c.file.info == nil {
		return nil
	}
	now, err := os.Stat(c.file.path)
	switch {
	case err == nil && os.SameFile(now, c.file.info):
		return nil
	case err == nil || errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%s: %w: the file of catalog %s, %s, was deleted or replaced while it was open: what was committed since is in no catalog. "+
			"Put back the one that knows the tables, or a backup of it, and start again", doing, batch.ErrDataLost, c.opts.Name, c.file.path)
	}
	return Classify(doing, err)
}

// location makes a directory absolute, and leaves what names its scheme.
func location(warehouse string) (string, error) {
	if strings.Contains(warehouse, "://") {
		return warehouse, nil
	}
	abs, err := filepath.Abs(warehouse)
	return "file://" + abs, err
}

func isPostgres(uri string) bool {
	return strings.HasPrefix(uri, "postgres://") || strings.HasPrefix(uri, "postgresql://")
}

func (c *Catalog) openPostgres() error {
	config, err := pgx.ParseConfig(c.opts.URI)
	if err != nil { // which may repeat the address, and so the password
		return fmt.Errorf("%w: catalog %s: its uri is not an address of PostgreSQL; write postgres://user:password@host:5432/database", batch.ErrInvalid, c.opts.Name)
	}
	db := stdlib.OpenDB(*config)
	db.SetMaxOpenConns(postgresConns)
	db.SetConnMaxIdleTime(postgresIdle)
	c.db = db
	return nil
}

func (c *Catalog) openSQLite() error {
	path := strings.TrimPrefix(strings.TrimPrefix(c.opts.URI, "sqlite://"), "file:")
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return Classify("catalog "+c.opts.Name, err)
	}
	// synchronous=FULL: a commit that was acknowledged survives a power cut.
	db, err := sql.Open("sqlite", "file:"+path+"?_pragma=journal_mode(WAL)&_pragma=busy_timeout(10000)&_pragma=synchronous(FULL)")
	if err != nil {
		return fmt.Errorf("%w: catalog %s: its uri cannot be opened as a file of SQLite: %w", batch.ErrInvalid, c.opts.Name, err)
	}
	db.SetMaxOpenConns(1) // one process writes; a second connection would only meet locks
	c.db, c.file = db, &sqliteFile{path: path}
	return nil
}
