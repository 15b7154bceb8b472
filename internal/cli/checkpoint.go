package cli

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/frazil-io/frazil/internal/batch"
)

func (a *app) checkpointCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "checkpoint", Short: "Look at a pipeline's records, go back to a batch, recover",
		Example: `  frazil checkpoint show clicks.yaml
  frazil checkpoint rewind clicks.yaml --batch 41
  frazil checkpoint recover clicks.yaml`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return fmt.Errorf("%w: unknown command %q; use show, rewind or recover", errUsage, args[0])
			}
			return cmd.Help()
		}, Args: cobra.ArbitraryArgs,
	}
	cmd.AddCommand(a.showCommand(), a.rewindCommand(), a.recoverCommand())
	return cmd
}

func (a *app) showCommand() *cobra.Command {
	return &cobra.Command{
		Use: "show SPEC", Short: "Print the newest plan and the commits as JSON", Args: exactly(1, "a spec"), ValidArgsFunction: specFiles,
		Example: "  frazil checkpoint show clicks.yaml | jq .plan.ranges",
		RunE: func(cmd *cobra.Command, args []string) error {
			if _, err := a.format("json"); err != nil {
				return err
			}
			_, p, err := a.open(cmd.Context(), args[0], true)
			if err != nil {
				return err
			}
			defer p.Close()
			s := p.Status(cmd.Context(), time.Now())
			e := json.NewEncoder(a.masked())
			e.SetIndent("", "  ")
			if err := e.Encode(s); err != nil {
				return err
			}
			return s.Err()
		},
	}
}

func (a *app) rewindCommand() *cobra.Command {
	var to int64
	var drop bool
	cmd := &cobra.Command{
		Use: "rewind SPEC --batch N", Short: "Go back to the end of a batch, together with the tables", Args: exactly(1, "a spec"), ValidArgsFunction: specFiles,
		Long: `Commits in each table a new snapshot with the contents it had after batch N. A
running driver is fenced; the next run goes on from there. No snapshot is removed.`,
		Example: "  frazil checkpoint rewind clicks.yaml --batch 41",
		RunE: func(cmd *cobra.Command, args []string) error {
			if !cmd.Flags().Changed("batch") || to < 0 {
				return fmt.Errorf("%w: say how far to go back with --batch N, N from 0", errUsage)
			}
			_, p, err := a.open(cmd.Context(), args[0], false)
			if err != nil {
				return err
			}
			defer p.Close()
			d, err := p.Driver(cmd.Context(), cmd.Context())
			if err != nil {
				return err
			}
			if err := d.Rewind(cmd.Context(), batch.ID(to), drop); err != nil {
				return err
			}
			fmt.Fprintf(a.out, "the pipeline and its tables are back at the end of batch %d\n", to)
			return nil
		},
	}
	cmd.Flags().Int64Var(&to, "batch", 0, "the batch to go back to")
	cmd.Flags().BoolVar(&drop, "drop-foreign", false, "drop what other writers committed since")
	return cmd
}

func (a *app) recoverCommand() *cobra.Command {
	var from string
	cmd := &cobra.Command{
		Use: "recover SPEC", Short: "Take over what the tables say, where the checkpoint is lost or disagrees", Args: exactly(1, "a spec"), ValidArgsFunction: specFiles,
		Long: `Begins a new incarnation of the pipeline from the stamps in its tables. A checkpoint
that is gone is recovered by the next run without this; it is for tables that
disagree, and for a checkpoint that says something else than they do.`,
		Example: "  frazil checkpoint recover clicks.yaml --sink clicks_rows",
		RunE: func(cmd *cobra.Command, args []string) error {
			spec, p, err := a.open(cmd.Context(), args[0], false)
			if err != nil {
				return err
			}
			defer p.Close()
			if err := knownSink(spec, from); err != nil {
				return err
			}
			d, err := p.Driver(cmd.Context(), cmd.Context())
			if err != nil {
				return err
			}
			if err := d.Recover(cmd.Context(), from); err != nil {
				return err
			}
			fmt.Fprintln(a.out, "the pipeline goes on from what its tables carry")
			return nil
		},
	}
	cmd.Flags().StringVar(&from, "sink", "", "the sink whose table is right, where tables disagree")
	completesSinks(cmd, "sink")
	return cmd
}
