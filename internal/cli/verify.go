package cli

import (
	"fmt"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/frazil-io/frazil/internal/batch"
	"github.com/frazil-io/frazil/internal/verify"
)

func (a *app) verifyCommand() *cobra.Command {
	var deep bool
	cmd := &cobra.Command{
		Use: "verify SPEC", Short: "Prove that nothing was lost or doubled: stamps, data files and checkpoint", Args: exactly(1, "a spec"), ValidArgsFunction: specFiles,
		Long: `Reads every live stamp of the pipeline's tables, each data file's footer and the
checkpoint, and changes nothing; the pipeline may run meanwhile. Offsets must tile
per partition, counts must add up, hashes must chain, also over snapshots that have
expired; each data file must be there with its rows; checkpoint and tables must agree.

--deep reads again what Kafka still has of each batch in the log, counts it, and where
the spec is that of the batch runs its SQL and compares the rows with those in its data
files. Of a compacted topic, what is still there must be in the table.

What does not fit is named: what, where, and what to do. Snapshots of other writers
are listed, and are no fault unless they remove rows of the pipeline.

Exit codes: 0 clean, 1 a server did not answer, 2 wrong use, 3 there are findings.`,
		Example: `  frazil verify clicks.yaml
  frazil verify clicks.yaml --deep
  frazil verify clicks.yaml --output json | jq .tables[].findings`,
		RunE: func(cmd *cobra.Command, args []string) error {
			format, err := a.format("text", "json")
			if err != nil {
				return err
			}
			_, p, err := a.open(cmd.Context(), args[0], true)
			if err != nil {
				return err
			}
			defer p.Close()
			r, err := p.Verify(cmd.Context(), time.Now(), deep)
			if err != nil {
				return err
			}
			err = a.answer(format, r, func() error { return a.printReport(r) })
			if err == nil && !r.Clean {
				err = fmt.Errorf("%w: verify has %d findings", batch.ErrDataLost, r.Findings())
			}
			return err
		},
	}
	cmd.Flags().BoolVar(&deep, "deep", false, "read again what Kafka still has of the logged batches, run them again and compare the rows")
	return cmd
}

func (a *app) printReport(r *verify.Report) error {
	w := a.masked()
	fmt.Fprintf(w, "pipeline %s\n", visible(r.Name))
	for i := range r.Tables {
		t := &r.Tables[i]
		fmt.Fprintf(w, "\nsink %s, table %s\n", visible(t.Sink), visible(t.Table))
		if t.Stamp != "" {
			fmt.Fprintf(w, "  %s\n  %d rows written\n", visible(t.Stamp), t.Rows)
		}
		if err := a.printSection(&t.Section); err != nil {
			return err
		}
	}
	fmt.Fprintf(w, "\ncheckpoint\n")
	if err := a.printSection(&r.Checkpoint); err != nil {
		return err
	}
	verdict := "nothing was lost or doubled"
	if !r.Clean {
		verdict = fmt.Sprintf("%d findings", r.Findings())
	}
	_, err := fmt.Fprintf(w, "\n%s\n", verdict)
	return err
}

func (a *app) printSection(s *verify.Section) error {
	w := tabwriter.NewWriter(a.masked(), 0, 8, 2, ' ', 0)
	for _, c := range s.Checks {
		fmt.Fprintf(w, "  checked\t%d %s\n", c.Count, c.What)
	}
	for _, n := range s.Notes {
		fmt.Fprintf(w, "  note\t%s\n", visible(n))
	}
	for _, f := range s.Findings {
		fmt.Fprintf(w, "  FOUND\t%s: %s: %s\n\t→ %s\n", f.Code, visible(f.Where), visible(f.What), visible(f.Todo))
	}
	return w.Flush()
}
