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
	"net/http"
	"reflect"
	"strings"
	"time"

	"github.com/apache/iceberg-go/catalog"
	_ "github.com/apache/iceberg-go/io/gocloud/s3" // the s3 scheme
	"github.com/apache/iceberg-go/table"
	"github.com/apache/iceberg-go/utils"
	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	awsconfig "github.com/aws/aws-sdk-go-v2/config"

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
	// docs/catalogs.md lists them.
	Properties map[string]string
}

// Catalog is an open catalog.
type Catalog struct {
	catalog.Catalog
	opts Options
	aws  *aws.Config
	db   *sql.DB
	file *sqliteFile // nil: the database is no file
}

// Open opens a catalog. A SQLite file is made if it is missing.
func Open(ctx context.Context, o Options) (*Catalog, error) {
	durable()
	c := &Catalog{opts: o}
	props := o.properties()
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

// regionDefault is what compatible stores expect where nothing is said.
const regionDefault = "us-east-1"

// openAWS prepares the one HTTP client that all of the catalog's file systems
// share: iceberg-go would open a new one, and never close it, for every commit.
func (c *Catalog) openAWS(ctx context.Context) error {
	client := awshttp.NewBuildableClient().WithTransportOptions(func(t *http.Transport) { t.ResponseHeaderTimeout = answerMax })
	opts := []func(*awsconfig.LoadOptions) error{awsconfig.WithHTTPClient(client)}
	if region := c.opts.Properties["s3.region"]; region != "" {
		opts = append(opts, awsconfig.WithRegion(region))
	}
	cfg, err := awsconfig.LoadDefaultConfig(ctx, opts...)
	if err != nil {
		return fmt.Errorf("%w: catalog %s: AWS configuration: %w", batch.ErrInvalid, c.opts.Name, err)
	}
	if cfg.Region == "" {
		cfg.Region = regionDefault
	}
	if b, ok := cfg.HTTPClient.(*awshttp.BuildableClient); ok { // with AWS_CA_BUNDLE, where that is set
		cfg.HTTPClient = b.Freeze() // the SDK would copy it for each of its clients, where AWS_DEFAULTS_MODE is set
	}
	c.aws = &cfg
	return nil
}

// Context returns ctx for calls that open file systems.
func (c *Catalog) Context(ctx context.Context) context.Context {
	return utils.WithAwsConfig(ctx, c.aws)
}

// Close lets go of the catalog's database.
func (c *Catalog) Close() {
	if c.db != nil {
		_ = c.db.Close()
	}
}

// callMax bounds a load or a commit, so that a database or a server that hangs
// does not hang the driver: it says what it waits for, and tries again.
const callMax = 2 * time.Minute

// Load loads a table afresh. batch.ErrInvalid: there is none.
func (c *Catalog) Load(ctx context.Context, ident table.Identifier) (*table.Table, error) {
	limited, cancel := context.WithTimeout(ctx, callMax)
	defer cancel()
	doing := "load table " + strings.Join(ident, ".")
	t, err := c.LoadTable(c.Context(limited), ident)
	switch {
	case errors.Is(err, table.ErrInvalidMetadataFormatVersion):
		return nil, fmt.Errorf("%s: %w: its metadata is of a format that this version cannot read, or damaged: %w", doing, batch.ErrInvalid, err)
	case errors.Is(err, table.ErrInvalidMetadata):
		return nil, fmt.Errorf("%s: %w: its metadata file is damaged; restore it from a backup: %w", doing, batch.ErrDataLost, err)
	case err != nil:
		return nil, Classify(doing, err)
	}
	return t, c.same(doing)
}

// Commit sends a commit that asserts requirements. Whatever it returns, the
// commit may have been applied.
func (c *Catalog) Commit(ctx context.Context, ident table.Identifier, reqs []table.Requirement, updates []table.Update) (table.Metadata, error) {
	unpin(updates)
	ctx, cancel := context.WithTimeout(ctx, callMax)
	defer cancel()
	meta, _, err := c.CommitTable(c.Context(ctx), ident, reqs, updates)
	if err != nil {
		return nil, Classify("commit table "+strings.Join(ident, "."), err)
	}
	return meta, c.same("commit table " + strings.Join(ident, "."))
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

// WritesMetadata says whether this process writes the tables' metadata files,
// and so has to delete old ones; a REST server does it itself.
func (c *Catalog) WritesMetadata() bool { return c.opts.Type == "sql" }

// Vends says whether a load of a table may bring keys for its files, which hold
// for a while only.
func (c *Catalog) Vends() bool { return c.opts.Type == "rest" }
