package cli

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/frazil-io/frazil/internal/config"
)

func (a *app) schemaCommand() *cobra.Command {
	return &cobra.Command{
		Use: "spec-schema", Short: "Print the JSON Schema of the spec, for editors", Args: exactly(0, "nothing"),
		Long: `Prints a JSON Schema with which editors complete and check a spec. For the YAML
language server, write the schema to a file and begin a spec with
  # yaml-language-server: $schema=frazil.schema.json`,
		Example: "  frazil spec-schema > frazil.schema.json", ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(*cobra.Command, []string) error {
			data, err := config.JSONSchema()
			if err != nil {
				return err
			}
			_, err = fmt.Fprintln(a.out, string(data))
			return err
		},
	}
}
