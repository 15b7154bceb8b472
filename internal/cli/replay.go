package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/spf13/cobra"

	"github.com/frazil-io/frazil/internal/batch"
	"github.com/frazil-io/frazil/internal/pipeline"
	"github.com/frazil-io/frazil/internal/verify"
)

// replayFlags are those of replay.
type replayFlags struct {
	batch   int64
	sink    string
	print   bool
	branch  string
	changed bool
}

func (a *app) replayCommand() *cobra.Command {
	var f replayFlags
	cmd := &cobra.Command{
		Use: "replay SPEC --batch N", Short: "Run a past batch again from its logged plan, and compare it with what was committed",
		Args: exactly(1, "a spec"), ValidArgsFunction: specFiles,
		Long: `Reads the same offsets, with the same time and the same versions of dimension tables,
runs the SQL and compares the rows with those in the batch's data files: whatever their
order, each as often. Nothing is committed and a driver may run meanwhile.

--print writes the rows of one sink to the standard output, and the comparison to the
standard error. --branch makes a new branch of each table with the rows, from the
snapshot before the batch; main and tags stay where they are.

Exit codes: 0 the same rows, 1 a server did not answer, 2 the plan is not kept any more
or the spec is another one (--changed-spec runs it all the same), 3 other rows, or Kafka
has not all of the records any more.`,
		Example: `  frazil replay clicks.yaml --batch 41
  frazil replay clicks.yaml --batch 41 --print --output csv
  frazil replay clicks.yaml --batch 41 --branch fixed --changed-spec`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if !cmd.Flags().Changed("batch") || f.batch < 0 {
				return fmt.Errorf("%w: say which batch with --batch N, N from 0", errUsage)
			}
			return a.replay(cmd.Context(), args[0], f)
		},
	}
	cmd.Flags().Int64Var(&f.batch, "batch", 0, "the batch to run again")
	cmd.Flags().StringVar(&f.sink, "sink", "", "only this sink; all if not said, with --print the first one")
	cmd.Flags().BoolVar(&f.print, "print", false, "print the rows, as --output says: table, csv or json")
	cmd.Flags().StringVar(&f.branch, "branch", "", "a new branch of each table for the rows")
	cmd.Flags().BoolVar(&f.changed, "changed-spec", false, "run today's spec where the batch was planned with another one")
	completesSinks(cmd, "sink")
	return cmd
}

func (a *app) replay(ctx context.Context, path string, f replayFlags) error {
	allowed := []string{"text", "json"}
	if f.print {
		allowed = []string{"table", "csv", "json"}
	}
	format, err := a.format(allowed...)
	if err != nil {
		return err
	}
	spec, p, err := a.open(ctx, path, true)
	if err != nil {
		return err
	}
	defer p.Close()
	if err := knownSink(spec, f.sink); err != nil {
		return err
	}
	o := pipeline.ReplayOptions{Batch: batch.ID(f.batch), Branch: f.branch, Today: f.changed}
	if f.print && f.sink == "" {
		f.sink = spec.Sinks.Names[0]
	}
	if f.sink != "" {
		o.Sinks = []string{f.sink}
	}
	var w rowWriter
	if f.print {
		w = newRowWriter(a.out, format, widthOf(a.out))
		if err := w.header(p.Schema(f.sink)); err != nil {
			return err
		}
		o.Row = func(_ string, rows arrow.RecordBatch) error { return w.rows(rows) }
	}
	r, err := p.Replay(ctx, o)
	if err != nil {
		return err
	}
	if w != nil {
		err = w.end()
	}
	if err != nil {
		return err
	}
	if err := a.printReplayed(r, f.print, format); err != nil {
		return err
	}
	if !r.Equal() {
		return fmt.Errorf("%w: batch %d gives other rows than were committed", batch.ErrDataLost, r.Batch)
	}
	return nil
}

func (a *app) printReplayed(r *pipeline.Replayed, printed bool, format string) error {
	out := a.masked()
	if printed {
		out = a.err
	} else if format == "json" {
		return json.NewEncoder(out).Encode(r)
	}
	fmt.Fprintf(out, "batch %d, revision %d: %d offsets, %d records, %d rows read\n", r.Batch, r.Revision, r.Tally.Offsets, r.Tally.Data, r.Tally.Rows)
	if len(r.Changed) > 0 {
		fmt.Fprintf(out, "the spec is another one than the batch was planned with: sink %s\n", visible(strings.Join(r.Changed, ", ")))
	}
	for _, d := range r.Diffs {
		printDiff(out, d)
	}
	for sink, snapshot := range r.Branches {
		fmt.Fprintf(out, "sink %s: branch made, snapshot %d\n", visible(sink), snapshot)
	}
	for _, n := range r.Notes {
		fmt.Fprintf(out, "%s\n", visible(n))
	}
	return nil
}

func printDiff(out io.Writer, d verify.Diff) {
	name := visible(d.Sink)
	if d.Equal {
		fmt.Fprintf(out, "sink %s: the same %d rows\n", name, d.Committed)
		return
	}
	fmt.Fprintf(out, "sink %s: %d rows replayed, %d committed; only replayed: %d, only committed: %d", name, d.Replayed, d.Committed, d.OnlyReplayed, d.OnlyCommitted)
	if d.Share > 1 {
		fmt.Fprintf(out, " (1 of %d rows was compared one by one)", d.Share)
	}
	fmt.Fprintln(out)
	for _, row := range d.ExamplesReplayed {
		fmt.Fprintf(out, "  + %s\n", visible(string(row)))
	}
	for _, row := range d.ExamplesCommitted {
		fmt.Fprintf(out, "  - %s\n", visible(string(row)))
	}
}
