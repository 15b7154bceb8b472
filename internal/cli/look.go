package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/frazil-io/frazil/internal/batch"
	"github.com/frazil-io/frazil/internal/config"
	"github.com/frazil-io/frazil/internal/pipeline"
	"github.com/frazil-io/frazil/internal/query"
)

// open checks a spec and opens its pipeline.
func (a *app) open(ctx context.Context, path string) (*config.Spec, *pipeline.Pipeline, error) {
	spec, err := load(path)
	if err != nil {
		return nil, nil, err
	}
	log, err := a.logger()
	if err != nil {
		return nil, nil, err
	}
	p, err := pipeline.New(ctx, spec, pipeline.Options{Log: log})
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", path, err)
	}
	return spec, p, nil
}

func (a *app) statusCommand() *cobra.Command {
	return &cobra.Command{
		Use: "status SPEC", Short: "Show batch, lag and last commits, from checkpoint, tables and Kafka", Args: exactly(1, "a spec"),
		RunE: func(_ *cobra.Command, args []string) error {
			ctx := context.Background()
			format, err := a.format("text", "json")
			if err != nil {
				return err
			}
			_, p, err := a.open(ctx, args[0])
			if err != nil {
				return err
			}
			defer p.Close()
			s, err := p.Status(ctx)
			if err != nil {
				return err
			}
			if format == "json" {
				return json.NewEncoder(a.out).Encode(s)
			}
			return a.printStatus(s)
		},
	}
}

func (a *app) printStatus(s *pipeline.Status) error {
	w := tabwriter.NewWriter(a.out, 0, 8, 2, ' ', 0)
	fmt.Fprintf(w, "pipeline\t%s\n", s.Name)
	if s.Incarnation == nil {
		fmt.Fprintf(w, "checkpoint\tempty: the pipeline has not run yet, or its checkpoint was lost\n")
	} else {
		fmt.Fprintf(w, "incarnation\t%d (%s)\n", s.Incarnation.Number, s.Incarnation.Kind)
	}
	if s.Plan != nil {
		fmt.Fprintf(w, "newest plan\tbatch %d, revision %d, %s, by process %d on %s\n", s.Plan.Batch, s.Plan.Revision, s.Plan.Time.Format(time.RFC3339), s.Plan.Writer.PID, s.Plan.Writer.Host)
	}
	if s.LagError != "" {
		fmt.Fprintf(w, "lag\tunknown: %s\n", s.LagError)
	} else {
		fmt.Fprintf(w, "lag\t%d offsets\n", s.Lag)
	}
	for _, one := range s.Sinks {
		fmt.Fprintf(w, "sink %s\t%s: batch %d, %d rows written, history %s\n", one.Sink, one.Table, one.Batch, one.Rows, one.Ancestry)
	}
	for _, c := range s.Commits {
		for _, o := range c.Outcome {
			fmt.Fprintf(w, "batch %d\t%s: %d records, %d rows, snapshot %d\n", c.Batch, o.Sink, o.Counts.Data, o.Counts.Written, o.Snapshot)
		}
	}
	return w.Flush()
}

func (a *app) checkpointCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "checkpoint", Short: "Look at a pipeline's records, go back to a batch, recover", RunE: func(cmd *cobra.Command, args []string) error {
		if len(args) > 0 {
			return fmt.Errorf("%w: unknown command %q; use show, rewind or recover", errUsage, args[0])
		}
		return cmd.Help()
	}, Args: cobra.ArbitraryArgs}
	show := &cobra.Command{
		Use: "show SPEC", Short: "Print the newest plan and the commits as JSON", Args: exactly(1, "a spec"),
		RunE: func(_ *cobra.Command, args []string) error {
			ctx := context.Background()
			_, p, err := a.open(ctx, args[0])
			if err != nil {
				return err
			}
			defer p.Close()
			s, err := p.Status(ctx)
			if err != nil {
				return err
			}
			e := json.NewEncoder(a.out)
			e.SetIndent("", "  ")
			return e.Encode(s)
		},
	}
	var to int64
	var drop bool
	rewind := &cobra.Command{
		Use: "rewind SPEC --batch N", Short: "Go back to the end of a batch, together with the tables", Args: exactly(1, "a spec"),
		Long: "Commits in each table a new snapshot with the contents it had after batch N. A running driver is fenced; the next run goes on from there. No snapshot is removed.",
		RunE: func(cmd *cobra.Command, args []string) error {
			if !cmd.Flags().Changed("batch") || to < 0 {
				return fmt.Errorf("%w: say how far to go back with --batch N", errUsage)
			}
			ctx := context.Background()
			_, p, err := a.open(ctx, args[0])
			if err != nil {
				return err
			}
			defer p.Close()
			d, err := p.Driver(ctx)
			if err != nil {
				return err
			}
			if err := d.Rewind(ctx, batch.ID(to), drop); err != nil {
				return err
			}
			fmt.Fprintf(a.out, "the pipeline and its tables are back at the end of batch %d\n", to)
			return nil
		},
	}
	rewind.Flags().Int64Var(&to, "batch", 0, "the batch to go back to")
	rewind.Flags().BoolVar(&drop, "drop-foreign", false, "drop what other writers committed since")
	var from string
	takeOver := &cobra.Command{
		Use: "recover SPEC", Short: "Take over what the tables say, where the checkpoint is lost or disagrees", Args: exactly(1, "a spec"),
		RunE: func(_ *cobra.Command, args []string) error {
			ctx := context.Background()
			_, p, err := a.open(ctx, args[0])
			if err != nil {
				return err
			}
			defer p.Close()
			d, err := p.Driver(ctx)
			if err != nil {
				return err
			}
			if err := d.Recover(ctx, from); err != nil {
				return err
			}
			fmt.Fprintln(a.out, "the pipeline goes on from what its tables carry")
			return nil
		},
	}
	takeOver.Flags().StringVar(&from, "sink", "", "the sink whose table is right, where tables disagree")
	cmd.AddCommand(show, rewind, takeOver)
	return cmd
}

func (a *app) queryCommand() *cobra.Command {
	var watch time.Duration
	cmd := &cobra.Command{
		Use: "query SPEC SQL", Short: "Run DuckDB SQL over the pipeline's tables", Args: exactly(2, "a spec and SQL"),
		Long:    "Tables are named by their sink, or as namespace.table. Data files of an object store are kept in a cache.",
		Example: "  frazil query pipeline.yaml 'SELECT event, count(*) FROM clicks GROUP BY ALL' --watch 2s",
		RunE: func(_ *cobra.Command, args []string) error {
			ctx := context.Background()
			spec, p, err := a.open(ctx, args[0])
			if err != nil {
				return err
			}
			defer p.Close()
			return a.query(ctx, spec, p, args[1], watch)
		},
	}
	cmd.Flags().DurationVar(&watch, "watch", 0, "run the query again and again, so often")
	return cmd
}

// tablesOf lists the sinks' tables for queries.
func tablesOf(ctx context.Context, spec *config.Spec, p *pipeline.Pipeline) ([]query.Table, error) {
	var tables []query.Table
	for _, name := range spec.Sinks.Names {
		i := spec.Sinks.By[name].Iceberg
		c, err := p.Catalog(ctx, i.Catalog)
		if err != nil {
			return nil, err
		}
		tables = append(tables, query.Table{Alias: name, Ident: splitName(i.Table), Branch: i.Branch, Catalog: c})
	}
	return tables, nil
}

func (a *app) query(ctx context.Context, spec *config.Spec, p *pipeline.Pipeline, text string, watch time.Duration) error {
	format, err := a.format("table", "csv", "json")
	if err != nil {
		return err
	}
	tables, err := tablesOf(ctx, spec, p)
	if err != nil {
		return err
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		cache = os.TempDir()
	}
	e, err := query.Open(tables, cache+"/frazil/files")
	if err != nil {
		return err
	}
	defer e.Close()
	for {
		if err := e.Refresh(ctx); err != nil {
			return err
		}
		if watch > 0 && isTerminal(a.out) {
			fmt.Fprint(a.out, "\x1b[H\x1b[2J")
		}
		if err := printRows(a.out, format, func(header func([]string) error, row func([]any) error) error {
			return e.Query(ctx, text, header, row)
		}); err != nil {
			return err
		}
		if watch <= 0 {
			return nil
		}
		time.Sleep(watch)
	}
}
