package cli

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/frazil-io/frazil/internal/pipeline"
)

func (a *app) explainCommand() *cobra.Command {
	return &cobra.Command{
		Use: "explain SPEC", Short: "Show how each sink's SQL runs", Args: exactly(1, "a spec"), ValidArgsFunction: specFiles,
		Long:    "Shows for each sink what its SQL reads, what runs, its rules, and the columns of its table.",
		Example: "  frazil explain clicks.yaml",
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx := cmd.Context()
			spec, err := a.load(args[0])
			if err != nil {
				return err
			}
			p, err := pipeline.New(ctx, spec, pipeline.Options{ReadOnly: true})
			if err != nil {
				return inSpec(args[0], err)
			}
			defer p.Close()
			for _, name := range spec.Queries() {
				e, err := p.Explain(ctx, name)
				if err != nil {
					return err
				}
				fmt.Fprint(a.masked(), e)
			}
			return nil
		},
	}
}
