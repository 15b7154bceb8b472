package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/frazil-io/frazil/examples/etl"
	"github.com/frazil-io/frazil/internal/batch"
	"github.com/frazil-io/frazil/internal/config"
	"github.com/frazil-io/frazil/internal/demo"
	"github.com/frazil-io/frazil/internal/pipeline"
	"github.com/frazil-io/frazil/internal/query"
)

func (a *app) demoCommand() *cobra.Command {
	var dir string
	var records int64
	var rate, port int
	var serve bool
	cmd := &cobra.Command{
		Use: "demo [example]", Short: "Run an example with everything embedded: broker, catalog, warehouse, generator",
		Long: `Starts a Kafka broker inside of this process, produces clicks, runs the example's
pipeline over them and shows the table. Interrupt it when you like: started
again, it goes on exactly where it was.

Examples: etl`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 1 || len(args) == 1 && args[0] != "etl" {
				return fmt.Errorf("%w: there is no example %q; write: frazil demo etl", errUsage, args[0])
			}
			return nil
		},
		RunE: func(*cobra.Command, []string) error { return a.demo(dir, records, rate, port, serve) },
	}
	cmd.Flags().StringVar(&dir, "data", "frazil-data/demo", "folder for broker, catalog and warehouse")
	cmd.Flags().Int64Var(&records, "records", 200_000, "how many clicks the topic shall hold at the end")
	cmd.Flags().IntVar(&rate, "rate", 50_000, "clicks a second")
	cmd.Flags().IntVar(&port, "port", 0, "port of the broker; a free one if not said")
	cmd.Flags().BoolVar(&serve, "serve", false, "keep the broker up for any Kafka client when the demo is over")
	return cmd
}

func (a *app) demo(dir string, records int64, rate, port int, serve bool) error {
	stop, cancel := stopping()
	defer cancel()
	dir, err := filepath.Abs(dir)
	if err != nil {
		return err
	}
	broker, err := demo.StartBroker(filepath.Join(dir, "broker"), port)
	if err != nil {
		return err
	}
	defer broker.Close()
	env := map[string]string{"FRAZIL_DATA": dir, "FRAZIL_BROKER": broker.Addr()}
	spec, err := config.Parse("examples/etl/pipeline.yaml", etl.Spec, func(name string) (string, bool) { v, ok := env[name]; return v, ok })
	if err != nil {
		return err
	}
	file := filepath.Join(dir, "pipeline.yaml")
	if err := os.WriteFile(file, etl.Spec, 0o644); err != nil {
		return err
	}
	fmt.Fprintf(a.out, "An embedded Kafka broker listens on %s; data is in %s.\nThis pipeline runs (examples/etl/pipeline.yaml):\n\n%s\n", broker.Addr(), dir, etl.Spec)
	if err := a.demoRun(stop, spec, broker.Addr(), records, rate); err != nil {
		return err
	}
	if err := a.demoShow(stop, spec, broker.Addr()); err != nil {
		return err
	}
	fmt.Fprintf(a.out, "\nTry next, with FRAZIL_DATA=%s FRAZIL_BROKER=%s in the environment:\n"+
		"  frazil query %s 'SELECT event, count(*) AS n FROM events GROUP BY ALL'\n  frazil explain %s\n  frazil demo etl --records %d     goes on from here\n",
		dir, broker.Addr(), file, file, 2*records)
	if serve && stop.Err() == nil {
		fmt.Fprintf(a.out, "The broker stays on %s until you interrupt it.\n", broker.Addr())
		<-stop.Done()
	}
	return nil
}

// demoRun produces and runs until everything produced is in the table.
func (a *app) demoRun(stop context.Context, spec *config.Spec, broker string, records int64, rate int) error {
	generating, done := context.WithCancel(stop)
	defer done()
	produced := make(chan error, 1)
	go func() { produced <- demo.Generate(generating, broker, records, rate) }()
	running, finish := context.WithCancel(stop)
	defer finish()
	ended := make(chan error, 1)
	go func() {
		ended <- a.runSpec(running, "examples/etl/pipeline.yaml", spec, runFlags{takeover: true, grace: 20 * time.Second})
	}()
	select {
	case err := <-ended:
		return err // failed, or interrupted
	case err := <-produced:
		if err != nil && !errors.Is(err, context.Canceled) {
			finish()
			return errors.Join(err, <-ended)
		}
	}
	finish()
	if err := <-ended; err != nil || stop.Err() != nil {
		return err
	}
	return a.runSpec(stop, "examples/etl/pipeline.yaml", spec, runFlags{availableNow: true, takeover: true, grace: 20 * time.Second})
}

// demoShow prints rows of the table and an account that does not come from the
// engine: the generator makes every record again and counts.
func (a *app) demoShow(stop context.Context, spec *config.Spec, broker string) error {
	ctx := context.WithoutCancel(stop)
	log, err := a.logger()
	if err != nil {
		return err
	}
	p, err := pipeline.New(ctx, spec, pipeline.Options{Log: log})
	if err != nil {
		return err
	}
	defer p.Close()
	tables, err := tablesOf(ctx, spec, p)
	if err != nil {
		return err
	}
	e, err := query.Open(tables, os.TempDir())
	if err != nil {
		return err
	}
	defer e.Close()
	if err := e.Refresh(ctx); err != nil {
		return err
	}
	show := func(text string) error {
		fmt.Fprintf(a.out, "\n%s\n\n", text)
		return printRows(a.out, "table", func(header func([]string) error, row func([]any) error) error { return e.Query(ctx, text, header, row) })
	}
	if err := show("SELECT * FROM web.events ORDER BY event_time LIMIT 8"); err != nil {
		return err
	}
	if err := show("SELECT event, count(*) AS rows, count(DISTINCT visitor) AS visitors, sum(price) AS price FROM web.events GROUP BY ALL ORDER BY ALL"); err != nil {
		return err
	}
	if stop.Err() != nil {
		fmt.Fprintln(a.out, "\nInterrupted: the next start goes on from here.")
		return nil
	}
	var inTable int64
	if err := e.Query(ctx, "SELECT count(*) FROM web.events", func([]string) error { return nil }, func(v []any) error {
		inTable, err = strconv.ParseInt(fmt.Sprint(v[0]), 10, 64)
		return err
	}); err != nil {
		return err
	}
	n, err := demo.Produced(ctx, broker)
	if err != nil {
		return err
	}
	total, kept := demo.Account(n)
	fmt.Fprintf(a.out, "\nAccount: the topic holds %d records; made again and counted, %d of them pass the filter; the table has %d rows.\n", total, kept, inTable)
	if kept != inTable {
		return fmt.Errorf("%w: the table should have %d rows", batch.ErrDataLost, kept)
	}
	fmt.Fprintln(a.out, "Each went in once.")
	return nil
}
