package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/spf13/cobra"
)

func (a *app) previewCommand() *cobra.Command {
	var sinks []string
	var limit int
	var records int64
	cmd := &cobra.Command{
		Use: "preview SPEC", Short: "Run the SQL on live records and print rows; commits nothing", Args: exactly(1, "a spec"),
		RunE: func(_ *cobra.Command, args []string) error {
			ctx := context.Background()
			format, err := a.format("table", "csv", "json")
			if err != nil {
				return err
			}
			spec, p, err := a.open(ctx, args[0])
			if err != nil {
				return err
			}
			defer p.Close()
			for _, s := range sinks {
				if !slices.Contains(spec.Sinks.Names, s) {
					return fmt.Errorf("%w: the spec has no sink %q", errUsage, s)
				}
			}
			if len(sinks) == 0 {
				sinks = spec.Sinks.Names[:1]
			}
			return printRows(a.out, format, func(header func([]string) error, row func([]any) error) error {
				var names []string
				for _, f := range p.Schema(sinks[0]).Fields() {
					names = append(names, f.Name)
				}
				if err := header(names); err != nil {
					return err
				}
				left := limit
				var failed error
				err := p.Preview(ctx, sinks[:1], records, func(_ string, rows arrow.RecordBatch) bool {
					for i := 0; i < int(rows.NumRows()) && left > 0 && failed == nil; i++ {
						left--
						failed = row(rowOf(rows, i))
					}
					return left > 0 && failed == nil
				})
				if failed != nil {
					return failed
				}
				return err
			})
		},
	}
	cmd.Flags().StringSliceVar(&sinks, "sink", nil, "the sink to look at; the first one if not said")
	cmd.Flags().IntVar(&limit, "limit", 20, "how many rows to print")
	cmd.Flags().Int64Var(&records, "records", 1000, "how many of the newest offsets of each partition to read")
	return cmd
}

// rowOf takes one row out of Arrow, as JSON would show it.
func rowOf(rows arrow.RecordBatch, i int) []any {
	values := make([]any, rows.NumCols())
	for c := range values {
		v := rows.Column(c).GetOneForMarshal(i)
		if raw, ok := v.(json.RawMessage); ok {
			v = string(raw)
		}
		values[c] = v
	}
	return values
}
