package pipeline

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/apache/iceberg-go/catalog"

	"github.com/frazil-io/frazil/internal/batch"
	"github.com/frazil-io/frazil/internal/config"
	"github.com/frazil-io/frazil/internal/lake"
)

// Catalog opens a catalog of the spec, once.
func (p *Pipeline) Catalog(ctx context.Context, name string) (*lake.Catalog, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if c := p.catalogs[name]; c != nil {
		return c, nil
	}
	c := p.spec.Catalogs[name]
	if file, ok := sqliteFile(c); ok && p.opts.ReadOnly {
		if _, err := os.Stat(file); errors.Is(err, fs.ErrNotExist) {
			return nil, noCatalog(file)
		}
	}
	opened, err := lake.Open(ctx, lake.Options{
		Name: name, Type: c.Type, URI: c.URI, Warehouse: c.Warehouse, Credential: c.Credential, Token: c.Token, Properties: c.Properties,
	})
	if err != nil {
		return nil, err
	}
	p.catalogs[name] = opened
	return opened, nil
}

// noCatalog is the file of an embedded catalog that nobody made yet: so there is
// no table either.
type noCatalog string

func (n noCatalog) Error() string {
	return fmt.Sprintf("the catalog's file %s does not exist yet; run the pipeline first", string(n))
}

// Is makes it what a missing table is.
func (noCatalog) Is(target error) bool {
	return target == batch.ErrInvalid || target == catalog.ErrNoSuchTable
}

// sqliteFile is the file of an embedded catalog.
func sqliteFile(c config.Catalog) (string, bool) {
	if c.Type != "sql" || strings.HasPrefix(c.URI, "postgres://") || strings.HasPrefix(c.URI, "postgresql://") {
		return "", false
	}
	return strings.TrimPrefix(strings.TrimPrefix(c.URI, "sqlite://"), "file:"), true
}

// storeProperties are those of the first catalog that has keys for S3: the
// checkpoint usually lies beside the warehouse.
func (p *Pipeline) storeProperties() map[string]string {
	for _, name := range p.spec.Sinks.Names {
		if i := p.spec.Sinks.By[name].Iceberg; i != nil {
			if props := p.spec.Catalogs[i.Catalog].Properties; props["s3.endpoint"] != "" || props["s3.region"] != "" {
				return props
			}
		}
	}
	return nil
}
