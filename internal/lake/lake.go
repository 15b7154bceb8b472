// Package lake opens Iceberg catalogs and tables and their file systems, with
// what iceberg-go v0.7.0 needs around it: files that are durable when a commit
// names them, one shared S3 client, and errors that say what to do. It is a tool
// that rooms share, not a room.
package lake

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/url"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"syscall"

	"github.com/apache/iceberg-go"
	"github.com/apache/iceberg-go/catalog"
	"github.com/apache/iceberg-go/catalog/rest"
	sqlcat "github.com/apache/iceberg-go/catalog/sql"
	_ "github.com/apache/iceberg-go/io/gocloud/s3" // the s3 scheme
	"github.com/apache/iceberg-go/table"
	"github.com/apache/iceberg-go/utils"
	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	awsconfig "github.com/aws/aws-sdk-go-v2/config"
	_ "github.com/jackc/pgx/v5/stdlib" // the pgx driver
	"modernc.org/sqlite"

	"github.com/frazil-io/frazil/internal/batch"
)

// Options describe a catalog of the spec.
type Options struct {
	Name      string
	Type      string // rest or sql
	URI       string // rest: the server; sql: a file of SQLite, or postgres://…
	Warehouse string // rest: its name or location; sql: a directory or s3://…
	// Credential is "client-id:secret" for OAuth2, Token a bearer token.
	Credential, Token string
	// Properties are Iceberg's own: s3.endpoint, s3.access-key-id, scope,
	// oauth2-server-uri, rest.sigv4-enabled, rest.signing-region …
	Properties map[string]string
}

// Catalog is an open catalog.
type Catalog struct {
	catalog.Catalog
	opts Options
	aws  *aws.Config
	db   *sql.DB
}

// Open opens a catalog. A SQLite file is made if it is missing.
func Open(ctx context.Context, o Options) (*Catalog, error) {
	durable()
	c := &Catalog{opts: o}
	props := iceberg.Properties{}
	maps.Copy(props, o.Properties)
	if err := c.openAWS(ctx); err != nil {
		return nil, err
	}
	var err error
	switch o.Type {
	case "sql":
		err = c.openSQL(props)
	case "rest":
		err = c.openREST(c.Context(ctx), props)
	default:
		return nil, fmt.Errorf("%w: catalog %s: type %q is not rest or sql", batch.ErrInvalid, o.Name, o.Type)
	}
	if err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

// openAWS prepares the one HTTP client that all of the catalog's file systems
// share: iceberg-go would open a new one, and never close it, for every commit.
func (c *Catalog) openAWS(ctx context.Context) error {
	var opts []func(*awsconfig.LoadOptions) error
	if region := c.opts.Properties["s3.region"]; region != "" {
		opts = append(opts, awsconfig.WithRegion(region))
	}
	cfg, err := awsconfig.LoadDefaultConfig(ctx, opts...)
	if err != nil {
		return fmt.Errorf("%w: catalog %s: AWS configuration: %w", batch.ErrInvalid, c.opts.Name, err)
	}
	cfg.HTTPClient = awshttp.NewBuildableClient()
	c.aws = &cfg
	return nil
}

// Context returns ctx for calls that open file systems.
func (c *Catalog) Context(ctx context.Context) context.Context {
	return utils.WithAwsConfig(ctx, c.aws)
}

func (c *Catalog) openSQL(props iceberg.Properties) error {
	warehouse := c.opts.Warehouse
	if !strings.Contains(warehouse, "://") {
		abs, err := filepath.Abs(warehouse)
		if err != nil {
			return fmt.Errorf("%w: catalog %s: warehouse %q: %w", batch.ErrInvalid, c.opts.Name, warehouse, err)
		}
		warehouse = "file://" + abs
	}
	props["warehouse"] = warehouse
	driver, dsn, dialect := "pgx", c.opts.URI, sqlcat.Postgres
	if !strings.HasPrefix(dsn, "postgres://") && !strings.HasPrefix(dsn, "postgresql://") {
		path := strings.TrimPrefix(strings.TrimPrefix(dsn, "sqlite://"), "file:")
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return Classify("catalog "+c.opts.Name, err)
		}
		// synchronous=FULL: a commit that was acknowledged survives a power cut.
		driver, dialect = "sqlite", sqlcat.SQLite
		dsn = "file:" + path + "?_pragma=journal_mode(WAL)&_pragma=busy_timeout(10000)&_pragma=synchronous(FULL)"
	}
	db, err := sql.Open(driver, dsn)
	if err != nil {
		return fmt.Errorf("%w: catalog %s: its uri cannot be opened as %s", batch.ErrInvalid, c.opts.Name, driver)
	}
	c.db = db
	if driver == "sqlite" {
		db.SetMaxOpenConns(1) // one process writes; a second connection would only meet locks
	}
	if c.Catalog, err = sqlcat.NewCatalog(c.opts.Name, db, dialect, props); err != nil {
		return Classify("open catalog "+c.opts.Name, err)
	}
	return nil
}

func (c *Catalog) openREST(ctx context.Context, props iceberg.Properties) error {
	opts := []rest.Option{rest.WithAdditionalProps(props)}
	if c.opts.Warehouse != "" {
		opts = append(opts, rest.WithWarehouseLocation(c.opts.Warehouse))
	}
	if c.opts.Credential != "" {
		opts = append(opts, rest.WithCredential(c.opts.Credential))
	}
	if c.opts.Token != "" {
		opts = append(opts, rest.WithOAuthToken(c.opts.Token))
	}
	if scope := props["scope"]; scope != "" {
		opts = append(opts, rest.WithScope(scope))
	}
	if server := props["oauth2-server-uri"]; server != "" {
		u, err := url.Parse(server)
		if err != nil {
			return fmt.Errorf("%w: catalog %s: oauth2-server-uri: %w", batch.ErrInvalid, c.opts.Name, err)
		}
		opts = append(opts, rest.WithAuthURI(u))
	}
	if props["rest.sigv4-enabled"] == "true" {
		opts = append(opts, rest.WithSigV4RegionSvc(props["rest.signing-region"], props["rest.signing-name"]), rest.WithAwsConfig(*c.aws))
	}
	cat, err := rest.NewCatalog(ctx, c.opts.Name, c.opts.URI, opts...)
	if err != nil {
		return Classify("open catalog "+c.opts.Name+" at "+c.opts.URI, err)
	}
	c.Catalog = cat
	return nil
}

// Close lets go of the catalog's database.
func (c *Catalog) Close() {
	if c.db != nil {
		_ = c.db.Close()
	}
}

// Load loads a table afresh. batch.ErrInvalid: there is none.
func (c *Catalog) Load(ctx context.Context, ident table.Identifier) (*table.Table, error) {
	t, err := c.LoadTable(c.Context(ctx), ident)
	if err != nil {
		return nil, Classify("load table "+strings.Join(ident, "."), err)
	}
	return t, nil
}

// Commit sends a commit that asserts requirements. Whatever it returns, the
// commit may have been applied.
func (c *Catalog) Commit(ctx context.Context, ident table.Identifier, reqs []table.Requirement, updates []table.Update) (table.Metadata, error) {
	unpin(updates)
	meta, _, err := c.CommitTable(c.Context(ctx), ident, reqs, updates)
	if err != nil {
		return nil, Classify("commit table "+strings.Join(ident, "."), err)
	}
	return meta, nil
}

// unpin copies the numbers that a new snapshot points to. They may lie inside
// of the structures that made it, which every later generation of the table's
// metadata would keep alive.
func unpin(updates []table.Update) {
	for _, u := range updates {
		if u.Action() != table.UpdateAddSnapshot {
			continue
		}
		s, ok := reflect.ValueOf(u).Elem().FieldByName("Snapshot").Interface().(*table.Snapshot)
		if !ok {
			continue
		}
		for _, p := range []**int64{&s.ParentSnapshotID, &s.FirstRowID, &s.AddedRows} {
			if *p != nil {
				v := **p
				*p = &v
			}
		}
		if s.SchemaID != nil {
			v := *s.SchemaID
			s.SchemaID = &v
		}
	}
}

var makeDurable sync.Once

// Classify says what the caller must do about an error of a catalog or a file
// system. It judges by type and code, never by text.
func Classify(doing string, err error) error {
	var lite *sqlite.Error
	switch {
	case err == nil:
		return nil
	case errors.Is(err, context.Canceled):
		return err
	case errors.Is(err, batch.ErrInvalid), errors.Is(err, batch.ErrUnavailable):
		return err
	case errors.Is(err, table.ErrCommitFailed):
		return fmt.Errorf("%s: %w: another commit came first: %w", doing, batch.ErrUnavailable, err)
	case errors.Is(err, catalog.ErrNoSuchTable), errors.Is(err, catalog.ErrNoSuchNamespace):
		return fmt.Errorf("%s: %w: %w", doing, batch.ErrInvalid, err)
	case errors.Is(err, rest.ErrUnauthorized), errors.Is(err, rest.ErrForbidden), errors.Is(err, rest.ErrOAuthError):
		return fmt.Errorf("%s: %w: the catalog refused the credentials: check credential and token: %w", doing, batch.ErrInvalid, err)
	case errors.Is(err, rest.ErrBadRequest):
		return fmt.Errorf("%s: %w: the catalog refused the request: %w", doing, batch.ErrInvalid, err)
	case errors.Is(err, fs.ErrPermission), errors.Is(err, syscall.EROFS):
		return fmt.Errorf("%s: %w: the warehouse or the catalog's file cannot be written by this user: %w", doing, batch.ErrInvalid, err)
	case errors.As(err, &lite) && (lite.Code()&0xff == sqliteReadOnly || lite.Code()&0xff == sqliteCantOpen):
		return fmt.Errorf("%s: %w: the catalog's file cannot be written by this user: %w", doing, batch.ErrInvalid, err)
	default:
		return fmt.Errorf("%s: %w: %w", doing, batch.ErrUnavailable, err)
	}
}

// Result codes of SQLite: https://sqlite.org/rescode.html
const (
	sqliteReadOnly = 8
	sqliteCantOpen = 14
)

// WritesMetadata says whether this process writes the tables' metadata files,
// and so has to delete old ones; a REST server does it itself.
func (c *Catalog) WritesMetadata() bool { return c.opts.Type == "sql" }
