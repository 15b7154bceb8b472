package pipeline

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/apache/arrow-go/v18/arrow"

	"github.com/frazil-io/frazil/internal/config"
	"github.com/frazil-io/frazil/internal/exec/dimension"
)

// Explain describes how a sink's SQL runs: what it reads, what of the spec it
// uses, what DuckDB is given, and what comes out.
func (p *Pipeline) Explain(ctx context.Context, name string) (string, error) {
	q, s := p.exec.Query(name), p.spec
	b := &strings.Builder{}
	i := s.Sinks.By[name].Iceberg
	fmt.Fprintf(b, "sink %s → table %s of catalog %s\n", name, i.Table, i.Catalog)
	fmt.Fprintf(b, "  stateless: each piece of a batch runs alone; the rows do not depend on where the stream is cut\n")
	for _, source := range q.Streams {
		read, err := p.columns(ctx, name, source, p.fields[source])
		if err != nil {
			return "", err
		}
		fmt.Fprintf(b, "  reads source %s: %s\n", source, read)
	}
	for _, table := range q.Static {
		read, err := p.columns(ctx, name, table, p.fields[table])
		if err != nil {
			return "", err
		}
		fmt.Fprintf(b, "  joins table %s, %s: %s\n    pinned to one version for each batch; looked at %s\n", table, origin(s.Tables.By[table]), read, often(s.Tables.By[table]))
	}
	for _, view := range s.Views.Names {
		if slices.Contains(q.Views, view) {
			fmt.Fprintf(b, "  uses view %s\n", view)
		}
	}
	for _, macro := range s.Macros.Names {
		if called, _, _ := strings.Cut(macro, "("); slices.Contains(q.Macros, strings.ToLower(strings.TrimSpace(called))) {
			fmt.Fprintf(b, "  uses macro %s: %s\n", macro, strings.Join(strings.Fields(s.Macros.By[macro]), " "))
		}
	}
	if q.UsesTime {
		fmt.Fprintf(b, "  time: __frazil_batch_time() is the plan's time, in place of now() and its kin\n")
	}
	fmt.Fprintf(b, "  runs:\n    %s\n%s  gives:\n", strings.ReplaceAll(laidOut(q.SQL), "\n", "\n    "), p.explainRules(name))
	width := 0
	for _, f := range p.exec.Schema(name).Fields() {
		width = max(width, len(f.Name))
	}
	for _, f := range p.exec.Schema(name).Fields() {
		fmt.Fprintf(b, "    %-*s  %s\n", width, f.Name, dimension.TypeName(f.Type))
	}
	return b.String(), nil
}

// columns lists those that a sink reads, with their types.
func (p *Pipeline) columns(ctx context.Context, sink, relation string, fields []arrow.Field) (string, error) {
	read, err := p.exec.ColumnsRead(ctx, sink, relation)
	if err != nil {
		return "", err
	}
	var all []string
	for _, f := range fields {
		if slices.Contains(read, f.Name) {
			all = append(all, f.Name+" "+dimension.TypeName(f.Type))
		}
	}
	switch {
	case len(all) == 0:
		return "no column, its rows only", nil
	case len(all) == len(fields):
		return strings.Join(all, ", "), nil
	}
	return fmt.Sprintf("%s (%d of %d columns)", strings.Join(all, ", "), len(all), len(fields)), nil
}

func origin(d config.Dimension) string {
	switch {
	case d.Iceberg != nil:
		return "Iceberg table " + d.Iceberg.Table
	case d.CSV != nil:
		return "CSV file " + d.CSV.Path
	case d.Postgres != nil && d.Postgres.Table != "":
		return "PostgreSQL table " + d.Postgres.Table
	case d.Postgres != nil:
		return "PostgreSQL query"
	}
	return "Parquet file " + d.Parquet
}

func often(d config.Dimension) string {
	if every := time.Duration(*d.Refresh); every > 0 {
		text := every.String()
		for _, zero := range []string{"0s", "0m"} {
			if len(text) > 3 {
				text = strings.TrimSuffix(text, zero)
			}
		}
		return "every " + text + " at most"
	}
	return "before each batch"
}

// breaks are words of a statement that begin a line.
var breaks = []string{"FROM ", "WHERE ", "UNION ALL ", "LEFT JOIN ", "INNER JOIN ", "SEMI JOIN ", "ANTI JOIN ", "ASOF JOIN ", "CROSS JOIN ", "SELECT "}

// laidOut breaks the lines of a statement outside of parentheses and quotes.
func laidOut(sql string) string {
	var out strings.Builder
	depth := 0
	for i := 0; i < len(sql); i++ {
		switch c := sql[i]; c {
		case '\'', '"':
			end := i + 1
			for end < len(sql) && sql[end] != c {
				end++
			}
			end = min(end, len(sql)-1)
			out.WriteString(sql[i : end+1])
			i = end
			continue
		case '(':
			depth++
		case ')':
			depth--
		}
		if i > 0 && depth == 0 && (sql[i-1] == ' ' || sql[i-1] == ')') && slices.ContainsFunc(breaks, func(w string) bool { return strings.HasPrefix(sql[i:], w) }) &&
			!strings.HasSuffix(out.String(), "LEFT ") && !strings.HasSuffix(out.String(), "ASOF ") {
			text := strings.TrimRight(out.String(), " ")
			out.Reset()
			out.WriteString(text + "\n")
		}
		out.WriteByte(sql[i])
	}
	return out.String()
}
