package exec

import (
	"context"
	"fmt"
	"strings"

	"github.com/apache/arrow-go/v18/arrow"

	"github.com/frazil-io/frazil/internal/exec/duckdb"
	"github.com/frazil-io/frazil/internal/exec/stream"
)

// CheckAudit binds a rule of a sink's audit: a SELECT over the sink's rows, under
// the sink's name, and over its whole table. batch.ErrInvalid says what is wrong
// with it.
func CheckAudit(ctx context.Context, sink string, table []string, rows *arrow.Schema, rule, sql string) error {
	i, err := duckdb.Open(ctx, duckdb.Options{})
	if err != nil {
		return err
	}
	defer i.Close()
	const source = "frazil_rows" // not the sink's name, which the table may have, too
	if _, err := i.AddSource(source, rows.Fields(), duckdb.Table); err != nil {
		return err
	}
	schema := quoted(strings.Join(table[:len(table)-1], "."))
	for _, statement := range []string{
		"CREATE VIEW " + quoted(sink) + " AS FROM " + source,
		"CREATE SCHEMA IF NOT EXISTS " + schema,
		"CREATE VIEW " + schema + "." + quoted(table[len(table)-1]) + " AS FROM " + source,
	} {
		if err := i.Exec(ctx, statement); err != nil {
			return fmt.Errorf("audit %s: %w", rule, err)
		}
	}
	s, err := i.Prepare(sql)
	what := fmt.Sprintf("audit %s of sink %s", rule, sink)
	if err != nil {
		if message, at := i.Mistake(ctx, sql); message != "" {
			return stream.At(what, sql, at, message)
		}
		return fmt.Errorf("%s: %w", what, err)
	}
	s.Close()
	trimmed := strings.ToUpper(strings.TrimLeft(sql, " \t\n("))
	for _, word := range []string{"SELECT", "FROM", "WITH", "VALUES"} {
		if strings.HasPrefix(trimmed, word) {
			return nil
		}
	}
	return stream.At(what, sql, 0, "it is no SELECT; write one that returns the rows that are wrong")
}
