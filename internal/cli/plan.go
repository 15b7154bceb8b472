package cli

import (
	"fmt"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/frazil-io/frazil/internal/pipeline"
)

func (a *app) planCommand() *cobra.Command {
	return &cobra.Command{
		Use: "plan SPEC", Short: "Say what a run of this spec would do now: tables, schemas, offsets, decisions", Args: exactly(1, "a spec"), ValidArgsFunction: specFiles,
		Long: `Compares the spec with the tables, the checkpoint and Kafka, and changes nothing: what
its SQL changes in the tables' schemas, properties that the tables keep, sinks and
sources that come and go, whether a logged batch is revised, where each partition is
read on, and how many commits and data files a day there were lately.

A spec that needs a decision is refused by ` + "`frazil run`" + ` until it is given the flag
that this names.

Exit codes: 0, also where a run would be refused; 1 a server did not answer; 2 the spec.`,
		Example: `  frazil plan clicks.yaml
  frazil plan clicks.yaml --output json | jq .decisions`,
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
			i, err := p.Intent(cmd.Context())
			if err != nil {
				return err
			}
			return a.answer(format, i, func() error { return a.printIntent(i) })
		},
	}
}

func (a *app) printIntent(i *pipeline.Intent) error {
	w := tabwriter.NewWriter(a.masked(), 0, 8, 2, ' ', 0)
	say := func(what, format string, args ...any) {
		fmt.Fprintf(w, "%s\t%s\n", what, visible(fmt.Sprintf(format, args...)))
	}
	say("pipeline", "%s, next batch %d", i.Name, i.Batch)
	for _, one := range i.Sinks {
		say("sink "+visible(one.Sink), "%s: %s", one.Table, one.State)
		for _, c := range one.Schema {
			say("", "~ %s", c)
		}
		for _, r := range one.Rules {
			say("", "%s", r)
		}
		for _, c := range one.Properties {
			say("", "= %s: it stays", c)
		}
		if one.CommitsPerDay != nil && one.FilesPerDay != nil {
			say("", "about %.0f commits and %.0f data files a day, as lately", *one.CommitsPerDay, *one.FilesPerDay)
		}
	}
	for _, name := range i.Removed {
		say("sink "+visible(name), "- not in the spec any more")
	}
	for _, o := range i.Offsets {
		say("partition "+visible(o.TopicPartition.String()), "source %s: from offset %d of %d, %d to read", o.Source, o.Next, o.End, o.Lag)
	}
	for _, s := range i.Steps {
		say("on start", "%s", s)
	}
	if refused := i.Refused(); len(refused) > 0 {
		say("refused", "%d decisions or corrections are needed before it runs", len(refused))
	}
	return w.Flush()
}
