package cli

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/frazil-io/frazil/internal/batch"
	"github.com/frazil-io/frazil/internal/config"
	"github.com/frazil-io/frazil/internal/pipeline"
)

func (a *app) validateCommand() *cobra.Command {
	var connect bool
	cmd := &cobra.Command{
		Use: "validate SPEC…", Short: "Check everything that can be checked without running",
		Long: `Checks YAML, keys, columns, SQL and types, and asks the schema registry where a
source has one. With --connect it also asks the brokers, the catalogs, the tables and
the checkpoint. It changes nothing.`,
		Example: `  frazil validate clicks.yaml
  frazil validate --connect pipelines/*.yaml`,
		ValidArgsFunction: anySpecFiles,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return fmt.Errorf("%w: %s takes at least one spec", errUsage, cmd.CommandPath())
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			var failed []string
			var last error
			for _, path := range args {
				if err := a.validate(cmd.Context(), path, connect); err != nil {
					failed = append(failed, err.Error())
					last = err
					continue
				}
				fmt.Fprintf(a.out, "%s: valid\n", path)
			}
			if len(failed) == 1 {
				return last
			}
			if len(failed) > 1 {
				return fmt.Errorf("%w: %s", batch.ErrInvalid, strings.Join(failed, "\n"))
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&connect, "connect", false, "ask the brokers, catalogs and the checkpoint, too")
	return cmd
}

func (a *app) validate(ctx context.Context, path string, connect bool) error {
	spec, p, err := a.open(ctx, path, true)
	if err != nil {
		return err
	}
	defer p.Close()
	if connect {
		if err := p.Connect(ctx); err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		if err := a.tellChanges(ctx, path, spec, p); err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
	}
	return nil
}

// tellChanges says how the tables differ from their sinks' SQL.
func (a *app) tellChanges(ctx context.Context, path string, spec *config.Spec, p *pipeline.Pipeline) error {
	for _, name := range spec.Sinks.Names {
		changes, err := p.Changes(ctx, name)
		if err != nil {
			return err
		}
		for _, c := range changes {
			fmt.Fprintf(a.out, "%s: sink %s: table %s: %s\n", path, name, spec.Sinks.By[name].Iceberg.Table, c)
		}
	}
	return nil
}
