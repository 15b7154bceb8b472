package cli

import (
	"os"

	"github.com/spf13/cobra"

	"github.com/frazil-io/frazil/examples/etl"
	"github.com/frazil-io/frazil/internal/config"
)

// examples are what `frazil demo` can run.
var examples = map[string][]byte{"etl": etl.Spec}

// completes names the values of a flag for the shell.
func completes(cmd *cobra.Command, flag string, values ...string) {
	err := cmd.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions(values, cobra.ShellCompDirectiveNoFileComp))
	if err != nil {
		panic("cli: " + err.Error()) // the flag is not there: a mistake of ours
	}
}

// specFiles completes a spec, and nothing behind it.
func specFiles(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return anySpecFiles(nil, nil, "")
}

// anySpecFiles completes any number of specs.
func anySpecFiles(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	return []string{"yaml", "yml"}, cobra.ShellCompDirectiveFilterFileExt
}

// sinkNames completes a flag with the sinks of the spec that is on the line.
func sinkNames(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) == 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	spec, err := config.Load(args[0], os.LookupEnv)
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return spec.Queries(), cobra.ShellCompDirectiveNoFileComp
}

func completesSinks(cmd *cobra.Command, flag string) {
	if err := cmd.RegisterFlagCompletionFunc(flag, sinkNames); err != nil {
		panic("cli: " + err.Error())
	}
}
