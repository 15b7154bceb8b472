package cli

import (
	"fmt"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/frazil-io/frazil/internal/config"
	"github.com/frazil-io/frazil/internal/pipeline"
)

func (a *app) statusCommand() *cobra.Command {
	return &cobra.Command{
		Use: "status SPEC", Short: "Show batch, lag, freshness and last commits, from checkpoint, tables and Kafka", Args: exactly(1, "a spec"),
		Long: `Reads the checkpoint, the tables and Kafka's offsets, and changes nothing. A server
that does not answer is named where its part would be; the rest is shown. Where a
run would stop, it says so and ends with the exit code of the run.`,
		Example: `  frazil status clicks.yaml
  frazil status clicks.yaml --output json | jq .lag`,
		ValidArgsFunction: specFiles,
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
			s := p.Status(cmd.Context(), time.Now())
			if err := cmd.Context().Err(); err != nil {
				return err
			}
			if err := a.answer(format, s, func() error { return a.printStatus(s) }); err != nil {
				return err
			}
			return s.Err()
		},
	}
}

func (a *app) printStatus(s *pipeline.Status) error {
	w := tabwriter.NewWriter(a.masked(), 0, 8, 2, ' ', 0)
	say := func(what, format string, args ...any) {
		fmt.Fprintf(w, "%s\t%s\n", what, visible(fmt.Sprintf(format, args...)))
	}
	say("pipeline", "%s", s.Name)
	switch {
	case s.CheckpointError != "":
		say("checkpoint", "%s", s.CheckpointError)
	case s.Incarnation == nil && s.RunNote != "":
		say("checkpoint", "empty: it was lost")
	case s.Incarnation == nil:
		say("checkpoint", "empty: the pipeline has not run yet")
	default:
		say("checkpoint", "%s, incarnation %d (%s)", s.Incarnation.UUID, s.Incarnation.Number, s.Incarnation.Kind)
	}
	if s.RunStops != "" {
		say("run", "would stop: %s", s.RunStops)
	}
	if s.RunNote != "" {
		say("run", "%s", s.RunNote)
	}
	if p := s.Plan; p != nil {
		state := "committed"
		if s.Open {
			state = "not committed yet"
		}
		say("newest plan", "batch %d, revision %d, %s ago, %s, by process %d on %s", p.Batch, p.Revision, age(s.Now.Sub(p.Time)), state, p.Writer.PID, p.Writer.Host)
	}
	if s.Lag == nil {
		say("lag", "unknown: %s", s.LagError)
	} else {
		say("lag", "%d offsets", *s.Lag)
	}
	for _, one := range s.Sinks {
		what := "sink " + one.Sink
		switch {
		case one.Error != "":
			say(what, "%s: %s", one.Table, one.Error)
		case one.Tables > 0:
			say(what, "%s: %d tables, batch %d, %d rows written, history %s", one.Table, one.Tables, one.Batch, one.Rows, one.Ancestry)
		case one.Missing:
			say(what, "%s: the table does not exist yet", one.Table)
		case one.Time.IsZero():
			say(what, "%s: no stamp of this pipeline", one.Table)
		default:
			say(what, "%s: batch %d, %d rows written, committed up to %s ago, history %s", one.Table, one.Batch, one.Rows, age(s.Now.Sub(one.Time)), one.Ancestry)
		}
		if one.Held != nil {
			say("", "%s", one.Held)
		}
	}
	if s.LettersWait != nil {
		say("dead letters", "%d wait", *s.LettersWait)
	}
	for _, c := range s.Commits {
		var parts []string
		for _, o := range c.Outcome {
			part := fmt.Sprintf("%s: %d records, %d rows", o.Sink, o.Counts.Data, o.Counts.Written)
			if o.Sink == config.DeadLetters {
				part = fmt.Sprintf("%s: %d", o.Sink, o.Counts.Written)
			} else if dead := o.Counts.DeadLettered + o.Counts.Letters + o.Counts.SourceLetters; dead > 0 {
				part += fmt.Sprintf(", %d rejected into the dead letters", dead)
			}
			if bad := o.Counts.Skipped + o.Counts.Rejected - o.Counts.Letters - o.Counts.SourceLetters; bad > 0 && o.Sink != config.DeadLetters {
				part += fmt.Sprintf(", %d bad ones skipped", bad)
			}
			if o.Counts.Lost > 0 {
				part += fmt.Sprintf(", %d offsets lost", o.Counts.Lost)
			}
			parts = append(parts, part)
		}
		say(fmt.Sprintf("batch %d", c.Batch), "%s", strings.Join(parts, "; "))
	}
	for _, t := range s.Stale {
		say("stale tag", "%s of %s has not moved for %s: it holds nothing back; remove it when its pipeline is gone", t.Tag, t.Table, age(s.Now.Sub(t.Moved)))
	}
	return w.Flush()
}
