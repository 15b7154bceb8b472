//go:build cgo

package query

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/duckdb/duckdb-go/v2"

	"github.com/frazil-io/frazil/internal/batch"
	"github.com/frazil-io/frazil/internal/near"
)

// refused says more about SQL that DuckDB refused, where it names a table that is
// not there: DuckDB would suggest one of its own.
func (e *Engine) refused(ctx context.Context, err error, text string, missing []Table) error {
	if errors.Is(err, errNoSelect) {
		return err
	}
	names, failed := duckdb.GetTableNames(e.conn, text, true)
	if failed != nil {
		return err // it is no SQL
	}
	slices.Sort(names)
	for _, name := range names {
		if e.exists(ctx, name) {
			continue
		}
		for _, t := range missing {
			if slices.ContainsFunc(t.names(), func(known string) bool { return strings.EqualFold(known, plain(name)) }) {
				return fmt.Errorf("%w: table %s does not exist yet; run the pipeline first", batch.ErrInvalid, t)
			}
		}
		return fmt.Errorf("%w: there is no table %s; %s", batch.ErrInvalid, plain(name), e.hint(plain(name)))
	}
	return err
}

// exists says whether DuckDB finds a table, as GetTableNames writes it.
func (e *Engine) exists(ctx context.Context, name string) bool {
	rows, err := e.conn.QueryContext(ctx, "FROM "+name+" LIMIT 0")
	if err != nil {
		return !isCatalog(err)
	}
	defer func() { _ = rows.Close() }()
	return rows.Err() == nil
}

func isCatalog(err error) bool {
	var own *duckdb.Error
	return errors.As(err, &own) && own.Type == duckdb.ErrorTypeCatalog
}

// plain is a name as people write it.
func plain(name string) string { return strings.ReplaceAll(name, `"`, "") }

// hint lists the tables of the pipeline, the nearest one first where one is near.
func (e *Engine) hint(wanted string) string {
	var names, all []string
	for _, t := range e.tables {
		all = append(all, fmt.Sprintf("%s (%s)", t.Alias, t))
		for _, n := range t.names() {
			names = append(names, strings.ToLower(n))
		}
	}
	hint := "the pipeline has " + strings.Join(all, ", ")
	if name := near.Of(names, strings.ToLower(wanted), max(2, len(wanted)/3)); name != "" {
		hint = fmt.Sprintf("did you mean %s? %s", name, hint)
	}
	return hint
}

// names are those under which SQL knows a table.
func (t Table) names() []string { return []string{t.Alias, strings.Join(t.Ident, ".")} }
