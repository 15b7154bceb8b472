package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/spf13/cobra"

	"github.com/frazil-io/frazil/internal/batch"
	"github.com/frazil-io/frazil/internal/config"
	"github.com/frazil-io/frazil/internal/pipeline"
	"github.com/frazil-io/frazil/internal/query"
)

// queryFlags are those of query.
type queryFlags struct {
	watch     time.Duration
	cache     string
	cacheSize string
	asWritten bool // joins
}

func (a *app) queryCommand() *cobra.Command {
	var f queryFlags
	cmd := &cobra.Command{
		Use: "query SPEC SQL", Short: "Run DuckDB SQL over the pipeline's tables", Args: exactly(2, "a spec and SQL"),
		Long: `Runs one SELECT over the tables as they are now. Tables are named by their sink,
or as namespace.table. Filters on partitions, and on columns whose statistics
tell, keep files from being read; only the columns that the SQL names are read.
Files of an object store are copied to a cache.

The memory is that of the spec; what does not fit is spilled. In CSV, NULL is an
empty field and an empty text is "". BLOB is base64 in CSV and JSON.`,
		Example: `  frazil query clicks.yaml 'SELECT kind, count(*) FROM clicks_rows GROUP BY ALL' --watch 2s
  frazil query clicks.yaml "FROM raw.clicks WHERE seen >= '2026-01-01'" --output csv > day.csv`,
		ValidArgsFunction: specFiles,
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx := cmd.Context()
			format, err := a.format("table", "csv", "json")
			if err != nil {
				return err
			}
			if f.watch < 0 || cmd.Flags().Changed("watch") && f.watch == 0 {
				return fmt.Errorf("%w: --watch %s is no time to wait; write for instance 2s", errUsage, f.watch)
			}
			spec, p, err := a.open(ctx, args[0], true)
			if err != nil {
				return err
			}
			defer p.Close()
			e, err := a.engine(ctx, spec, p, f)
			if err != nil {
				return err
			}
			defer e.Close()
			return a.query(ctx, e, format, args[1], f.watch)
		},
	}
	cmd.Flags().DurationVar(&f.watch, "watch", 0, "run the query again and again, so often")
	cmd.Flags().StringVar(&f.cache, "cache", "", "folder for copies of remote files; below the user's cache folder if not said")
	cmd.Flags().StringVar(&f.cacheSize, "cache-size", "10GiB", "how much the cache may hold")
	return cmd
}

// engine opens DuckDB over the tables of a spec's sinks.
func (a *app) engine(ctx context.Context, spec *config.Spec, p *pipeline.Pipeline, f queryFlags) (*query.Engine, error) {
	var tables []query.Table
	for _, name := range spec.Sinks.Names {
		i := spec.Sinks.By[name].Iceberg
		c, err := p.Catalog(ctx, i.Catalog)
		if err != nil {
			return nil, err
		}
		if !p.Routes(name) {
			tables = append(tables, query.Table{Alias: name, Ident: strings.Split(i.Table, "."), Branch: i.Branch, Catalog: c})
			continue
		}
		chosen, err := p.TablesOf(ctx, name)
		if err != nil {
			return nil, err
		}
		for _, table := range chosen {
			ident := strings.Split(table, ".")
			tables = append(tables, query.Table{Alias: ident[len(ident)-1], Ident: ident, Branch: i.Branch, Catalog: c})
		}
	}
	log, err := a.logger()
	if err != nil {
		return nil, err
	}
	o := query.Options{Cache: f.cache, MemoryBytes: int64(spec.Memory), AsWritten: f.asWritten, Log: log}
	if o.Cache == "" {
		folder, err := os.UserCacheDir()
		if err != nil {
			folder = os.TempDir()
		}
		o.Cache = filepath.Join(folder, "frazil", "files")
	}
	if f.cacheSize != "" {
		size, err := config.ParseBytes(f.cacheSize)
		if err != nil || size == 0 {
			return nil, fmt.Errorf("%w: --cache-size: %q is not a size; write for instance 10GiB", errUsage, f.cacheSize)
		}
		o.CacheBytes = int64(size)
	}
	return query.Open(ctx, tables, o)
}

func (a *app) query(ctx context.Context, e *query.Engine, format, text string, watch time.Duration) error {
	for {
		if watch > 0 && isTerminal(a.out) {
			fmt.Fprintf(a.out, "\x1b[H\x1b[2J%s, every %s\n\n", time.Now().Format("15:04:05"), watch)
		}
		err := a.printQuery(ctx, e, format, text)
		switch {
		case watch <= 0:
			return err
		case errors.Is(err, batch.ErrUnavailable): // a server may come back
			fmt.Fprintln(a.err, visible(err.Error()))
		case err != nil:
			return stopped(ctx, err)
		}
		timer := time.NewTimer(watch)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return nil
		}
	}
}

// stopped forgets the error of a loop that was ended by a signal.
func stopped(ctx context.Context, err error) error {
	if ctx.Err() == nil {
		return err
	}
	return nil
}

// printQuery prints what queries return, one behind the other. They have the same columns.
func (a *app) printQuery(ctx context.Context, e *query.Engine, format string, texts ...string) error {
	w := newRowWriter(a.out, format, widthOf(a.out))
	header := w.header
	for _, text := range texts {
		if err := e.Query(ctx, text, header, func(rows arrow.RecordBatch) error { return w.rows(rows) }); err != nil {
			return err
		}
		header = func(*arrow.Schema) error { return nil }
	}
	return w.end()
}
