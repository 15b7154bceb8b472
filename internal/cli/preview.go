package cli

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/spf13/cobra"

	"github.com/frazil-io/frazil/internal/config"
)

func (a *app) previewCommand() *cobra.Command {
	var sink string
	var limit int64
	var records int64
	cmd := &cobra.Command{
		Use: "preview SPEC", Short: "Run the SQL on live records and print rows; commits nothing", Args: exactly(1, "a spec"), ValidArgsFunction: specFiles,
		Long: `Reads the newest records of each partition, runs a sink's SQL over them and prints
its rows. It leaves nothing behind: no checkpoint, no table, no group offsets.`,
		Example: `  frazil preview clicks.yaml
  frazil preview clicks.yaml --sink errors --records 100000 --limit 50 --output csv`,
		RunE: func(cmd *cobra.Command, args []string) error {
			format, err := a.format("table", "csv", "json")
			if err != nil {
				return err
			}
			if limit < 1 || records < 1 {
				return fmt.Errorf("%w: --limit and --records are at least 1", errUsage)
			}
			spec, p, err := a.open(cmd.Context(), args[0], true)
			if err != nil {
				return err
			}
			defer p.Close()
			if err := knownSink(spec, sink); err != nil {
				return err
			}
			if sink == "" {
				sink = spec.Queries()[0]
			}
			w := newRowWriter(a.out, format, widthOf(a.out))
			if err := w.header(p.Schema(sink)); err != nil {
				return err
			}
			left := limit
			var failed error
			err = p.Preview(cmd.Context(), []string{sink}, records, func(_ string, rows arrow.RecordBatch) bool {
				part := rows.NewSlice(0, min(left, rows.NumRows()))
				defer part.Release()
				failed = w.rows(part)
				left -= part.NumRows()
				return left > 0 && failed == nil
			})
			if err := errors.Join(failed, err); err != nil {
				return err
			}
			return w.end()
		},
	}
	cmd.Flags().StringVar(&sink, "sink", "", "the sink to look at; the first one if not said")
	cmd.Flags().Int64Var(&limit, "limit", 20, "how many rows to print")
	cmd.Flags().Int64Var(&records, "records", 1000, "how many of the newest offsets of each partition to read")
	completesSinks(cmd, "sink")
	return cmd
}

// knownSink refuses a sink that the spec does not have.
func knownSink(spec *config.Spec, name string) error {
	if name != "" && !slices.Contains(spec.Queries(), name) {
		return fmt.Errorf("%w: the spec has no sink %q, but %s", errUsage, name, strings.Join(spec.Queries(), ", "))
	}
	return nil
}
