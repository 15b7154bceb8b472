package cli

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/spf13/cobra"

	"github.com/frazil-io/frazil/internal/batch"
	"github.com/frazil-io/frazil/internal/config"
	"github.com/frazil-io/frazil/internal/demo"
	"github.com/frazil-io/frazil/internal/pipeline"
	"github.com/frazil-io/frazil/internal/query"
)

// demoFlags are those of demo.
type demoFlags struct {
	dir     string
	records int64
	rate    int
	port    int
	serve   bool
}

// demoData is where a demo keeps its data unless it is told otherwise.
const demoData = "frazil-data/demo"

func (a *app) demoCommand() *cobra.Command {
	var f demoFlags
	names := strings.Join(slices.Sorted(maps.Keys(examples)), ", ")
	cmd := &cobra.Command{
		Use: "demo [example]", Short: "Run an example with everything embedded: broker, catalog, warehouse, generator",
		Long: `Starts a Kafka broker inside of this process, produces clicks, runs the example's
pipeline over them and shows the table. Interrupt it when you like, also with
kill -9: started again, it goes on exactly where it was.

Examples: ` + names,
		Example: `  frazil demo etl
  frazil demo etl --records 1000000 --rate 0
  frazil demo etl --serve --port 9092`,
		ValidArgsFunction: cobra.FixedCompletions(slices.Sorted(maps.Keys(examples)), cobra.ShellCompDirectiveNoFileComp),
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 1 {
				return fmt.Errorf("%w: frazil demo takes one example, not %d arguments", errUsage, len(args))
			}
			if len(args) == 1 && examples[args[0]] == nil {
				return fmt.Errorf("%w: there is no example %q, but %s; write for instance: frazil demo etl", errUsage, args[0], names)
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if f.records < 1 || f.rate < 0 || f.port < 0 || f.port > 65535 {
				return fmt.Errorf("%w: --records is at least 1, --rate at least 0 (as fast as it goes), --port from 0 to 65535", errUsage)
			}
			if _, err := a.format("text"); err != nil {
				return err
			}
			return a.demo(cmd.Context(), append(args, "etl")[0], f)
		},
	}
	cmd.Flags().StringVar(&f.dir, "data", demoData, "folder for broker, catalog and warehouse")
	cmd.Flags().Int64Var(&f.records, "records", 200_000, "how many clicks the topic shall hold at the end")
	cmd.Flags().IntVar(&f.rate, "rate", 50_000, "clicks a second; 0: as fast as it goes")
	cmd.Flags().IntVar(&f.port, "port", 0, "port of the broker; a free one if not said")
	cmd.Flags().BoolVar(&f.serve, "serve", false, "keep the broker up for any Kafka client when the demo is over")
	return cmd
}

func (a *app) demo(stop context.Context, example string, f demoFlags) error {
	dir, err := filepath.Abs(f.dir)
	if err != nil {
		return err
	}
	broker, err := demo.StartBroker(filepath.Join(dir, "broker"), f.port)
	if err != nil {
		return err
	}
	defer broker.Close()
	// The spec as it is run, so that every command works on it, without variables.
	text := strings.NewReplacer("${FRAZIL_DATA:-./frazil-data}", dir, "${FRAZIL_BROKER:-localhost:9092}", broker.Addr()).Replace(string(examples[example]))
	file := filepath.Join(dir, "pipeline.yaml")
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		return fmt.Errorf("%w: %w", batch.ErrInvalid, err)
	}
	spec, err := config.Parse(file, []byte(text), os.LookupEnv)
	if err != nil {
		return err
	}
	fmt.Fprintf(a.out, "An embedded Kafka broker listens on %s; data is in %s.\nThis pipeline runs (%s):\n\n%s\n\n", broker.Addr(), dir, file, indented(text))
	if err := a.demoRun(stop, file, spec, broker.Addr(), f); err != nil {
		return err
	}
	if err := a.demoShow(stop, spec, broker.Addr()); err != nil {
		return err
	}
	frazil := called()
	again := frazil + " demo " + example
	if f.dir != demoData {
		again += " --data " + shellQuoted(f.dir)
	}
	fmt.Fprintf(a.out, "\nTry next:\n  %s query %s 'SELECT event, count(*) AS n FROM events GROUP BY ALL'\n  %s explain %s\n"+
		"  %s --records %d     goes on from here\n  %s --serve              keeps the broker up for any Kafka client\n",
		frazil, shellQuoted(file), frazil, shellQuoted(file), again, 2*f.records, again)
	if f.serve && stop.Err() == nil {
		fmt.Fprintf(a.out, "\nThe broker stays on %s until you interrupt it. In another terminal:\n  %s status %s\n  kcat -b %s -t %s -C -c 3\n",
			broker.Addr(), frazil, shellQuoted(file), broker.Addr(), demo.Topic)
		<-stop.Done()
	}
	return nil
}

func indented(text string) string {
	return "    " + strings.ReplaceAll(strings.TrimRight(text, "\n"), "\n", "\n    ")
}

// shellQuoted is a path as it can be pasted into a shell.
func shellQuoted(path string) string {
	if strings.ContainsAny(path, " \t'\"$&;()*?[]<>|\\`!#~") {
		return "'" + strings.ReplaceAll(path, "'", `'\''`) + "'"
	}
	return path
}

// demoRun produces and runs until everything produced is in the table.
func (a *app) demoRun(stop context.Context, file string, spec *config.Spec, broker string, f demoFlags) error {
	flags := runFlags{takeover: true, grace: 20 * time.Second, text: true}
	generating, done := context.WithCancel(stop)
	defer done()
	produced := make(chan error, 1)
	go func() { produced <- demo.Generate(generating, broker, f.records, f.rate) }()
	running, finish := context.WithCancel(stop)
	defer finish()
	ended := make(chan error, 1)
	go func() { ended <- a.runSpec(running, file, spec, flags) }()
	select {
	case err := <-ended:
		done()
		return errors.Join(err, notCancelled(<-produced)) // failed, or interrupted
	case err := <-produced:
		finish()
		if err := errors.Join(notCancelled(err), <-ended); err != nil || stop.Err() != nil {
			return err
		}
	}
	flags.availableNow = true
	return a.runSpec(stop, file, spec, flags)
}

func notCancelled(err error) error {
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// demoShow prints rows of the table and an account that does not come from the
// engine: the generator makes every record again and counts.
func (a *app) demoShow(stop context.Context, spec *config.Spec, broker string) error {
	ctx := context.WithoutCancel(stop)
	p, err := pipeline.New(ctx, spec, pipeline.Options{ReadOnly: true})
	if err != nil {
		return err
	}
	defer p.Close()
	e, err := a.engine(ctx, spec, p, queryFlags{})
	if err != nil {
		if stop.Err() != nil {
			return nil // interrupted before there was a table
		}
		return err
	}
	defer e.Close()
	for _, text := range []string{
		"SELECT * FROM web.events ORDER BY event_time LIMIT 8",
		"SELECT event, count(*) AS rows, count(DISTINCT visitor) AS visitors, sum(price) AS price FROM web.events GROUP BY ALL ORDER BY ALL",
	} {
		fmt.Fprintf(a.out, "\n%s\n\n", text)
		if err := a.printQuery(ctx, e, "table", text); err != nil {
			return err
		}
	}
	if stop.Err() != nil {
		fmt.Fprintln(a.out, "\nInterrupted: the next start goes on from here.")
		return nil
	}
	return a.account(ctx, e, broker)
}

func (a *app) account(ctx context.Context, e *query.Engine, broker string) error {
	var inTable int64
	err := e.Query(ctx, "SELECT count(*) FROM web.events", func(*arrow.Schema) error { return nil }, func(rows arrow.RecordBatch) (err error) {
		inTable, err = strconv.ParseInt(rows.Column(0).ValueStr(0), 10, 64)
		return err
	})
	if err != nil {
		return err
	}
	ends, err := demo.Ends(ctx, broker)
	if err != nil {
		return err
	}
	total, kept := demo.Account(ends)
	fmt.Fprintf(a.out, "\nAccount: the topic holds %d records; made again and counted, %d of them pass the filter; the table has %d rows.\n", total, kept, inTable)
	if kept != inTable {
		return fmt.Errorf("%w: the table should have %d rows", batch.ErrDataLost, kept)
	}
	fmt.Fprintln(a.out, "Each went in once.")
	return nil
}
