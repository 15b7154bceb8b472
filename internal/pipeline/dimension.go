package pipeline

import (
	"context"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/frazil-io/frazil/internal/config"
	"github.com/frazil-io/frazil/internal/exec"
	"github.com/frazil-io/frazil/internal/exec/dimension"
	"github.com/frazil-io/frazil/internal/lake"
	"github.com/frazil-io/frazil/internal/source/decode"
)

// dimension opens a table to join with. Its columns are read now.
func (p *Pipeline) dimension(ctx context.Context, name string, d config.Dimension) (exec.Dimension, error) {
	o := dimension.Options{
		Refresh: time.Duration(*d.Refresh), BytesMax: int64(p.spec.Memory) / shareOfTables, Now: time.Now,
		Keeper: func(ctx context.Context) (dimension.Keeper, error) { return p.Checkpoint(ctx) },
		Pinned: func(ctx context.Context) (string, error) { return p.pinned(ctx, name) },
	}
	switch {
	case d.Parquet != "":
		return patient(ctx, func() (*dimension.Copied, error) { return dimension.Parquet(ctx, d.Parquet, p.storeProperties(), o) })
	case d.CSV != nil:
		c := dimension.CSVOptions{Path: d.CSV.Path, Properties: p.storeProperties(), NoHeader: !*d.CSV.Header, Null: d.CSV.Null}
		c.Delimiter, _ = utf8.DecodeRuneInString(d.CSV.Delimiter)
		if d.CSV.Columns != "" {
			var err error
			if c.Columns, err = decode.ParseColumns(d.CSV.Columns); err != nil {
				return nil, fmt.Errorf("csv: %w", err)
			}
		}
		return patient(ctx, func() (*dimension.Copied, error) { return dimension.CSV(ctx, c, o) })
	case d.Postgres != nil:
		pg := dimension.PostgresOptions{URI: d.Postgres.URI, Table: d.Postgres.Table, Query: d.Postgres.Query}
		return patient(ctx, func() (*dimension.Copied, error) { return dimension.Postgres(ctx, pg, o) })
	}
	c, err := patient(ctx, func() (*lake.Catalog, error) { return p.Catalog(ctx, d.Iceberg.Catalog) })
	if err != nil {
		return nil, err
	}
	return patient(ctx, func() (*dimension.Iceberg, error) {
		return dimension.OpenIceberg(ctx, c, strings.Split(d.Iceberg.Table, "."), o.Refresh, o.BytesMax, o.Now)
	})
}

// pinned is the version of a table that the newest plan names.
func (p *Pipeline) pinned(ctx context.Context, name string) (string, error) {
	cp, err := p.Checkpoint(ctx)
	if err != nil {
		return "", err
	}
	inc, err := newestOf(ctx, cp)
	if err != nil || inc == nil {
		return "", err
	}
	newest, err := cp.Newest(ctx, *inc)
	if err != nil || newest == nil {
		return "", err
	}
	return newest.Versions[name], nil
}
