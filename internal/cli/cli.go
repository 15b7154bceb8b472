// Package cli is the command line: flags, output, exit codes. Each command has a
// file of its own.
package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/frazil-io/frazil/internal/batch"
	"github.com/frazil-io/frazil/internal/config"
)

// Exit codes, stable and documented in docs/operations.md.
const (
	exitDone    = 0
	exitFailed  = 1 // anything that is not below: a server that never answered
	exitInvalid = 2 // the use, the spec, the SQL, a schema, a credential, a record
	exitLost    = 3 // records are lost, or histories disagree: an operator decides
	exitFenced  = 4 // another driver owns the pipeline
)

// app is what all commands share.
type app struct {
	out       *output
	err       io.Writer
	output    string
	logLevel  string
	logFormat string
	live      *liveLine // that is shown now, nil if none is
	mask      config.Mask
}

// Main runs a command line and returns the exit code.
func Main(args []string, out, errOut io.Writer) int {
	a := &app{out: &output{to: out}, err: errOut}
	root := a.root()
	root.SetArgs(args)
	root.SetOut(a.out)
	root.SetErr(errOut)
	stop, cancel := stopping()
	defer cancel()
	err := root.ExecuteContext(stop)
	if err == nil {
		err = a.out.err()
	}
	if err == nil {
		return exitDone
	}
	if stop.Err() != nil && errors.Is(err, context.Canceled) {
		fmt.Fprintln(errOut, "frazil: interrupted")
		return exitFailed
	}
	for _, line := range lines(err) {
		fmt.Fprintf(errOut, "%s %s\n", a.paint(errOut, red, "frazil:"), visible(a.mask.Hide(line)))
	}
	return code(err)
}

// lines are the mistakes of an error that joins several.
func lines(err error) []string {
	var all []string
	for l := range strings.SplitSeq(err.Error(), "\n") {
		if strings.TrimSpace(l) != "" {
			all = append(all, strings.ReplaceAll(l, "\t", "    ")) // DuckDB and PostgreSQL indent
		}
	}
	return all
}

// errUsage marks a wrong use of the command line.
var errUsage = errors.New("usage")

func code(err error) int {
	var spec *config.Error
	switch {
	case errors.Is(err, batch.ErrFenced):
		return exitFenced
	case errors.Is(err, batch.ErrDataLost):
		return exitLost
	case errors.Is(err, batch.ErrUnavailable):
		return exitFailed
	case errors.Is(err, batch.ErrInvalid), errors.Is(err, errUsage), errors.As(err, &spec):
		return exitInvalid
	}
	return exitFailed
}

func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use: "frazil", Short: "Kafka to Iceberg in small exact batches",
		Long: `Frazil turns Kafka topics into Apache Iceberg tables, one small exact batch at a
time: one binary, one YAML file, SQL.

Output is for people on a terminal and for programs elsewhere; --output decides
otherwise. NO_COLOR is respected.

Exit codes: 0 done, 1 failed (a server that did not answer), 2 invalid (use,
spec, SQL, schema, credentials, a bad record), 3 records are lost or histories
disagree: an operator decides, 4 another driver owns the pipeline.`,
		Example: `  frazil demo etl
  frazil init --brokers localhost:9092 --topic clicks --file clicks.yaml
  frazil preview clicks.yaml
  frazil run clicks.yaml`,
		SilenceErrors: true, SilenceUsage: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				hint := ""
				if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
					hint = fmt.Sprintf("; did you mean %q?", near[0])
				}
				return fmt.Errorf("%w: unknown command %q; `frazil help` lists them%s", errUsage, args[0], hint)
			}
			return cmd.Help()
		},
		Args: cobra.ArbitraryArgs,
	}
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return fmt.Errorf("%w: %w; `%s --help` lists the flags", errUsage, err, cmd.CommandPath())
	})
	flags := root.PersistentFlags()
	flags.StringVar(&a.output, "output", "", "text, table, csv or json, as the command has it; for people on a terminal and json elsewhere if not said")
	flags.StringVar(&a.logLevel, "log-level", "info", "debug, info, warn or error")
	flags.StringVar(&a.logFormat, "log-format", "", "text or json; text on a terminal and json elsewhere if not said")
	completes(root, "output", "text", "table", "csv", "json")
	completes(root, "log-level", "debug", "info", "warn", "error")
	completes(root, "log-format", "text", "json")
	root.SuggestionsMinimumDistance = 2
	root.AddCommand(a.versionCommand(), a.validateCommand(), a.explainCommand(), a.runCommand(), a.schemaCommand(), a.statusCommand(),
		a.checkpointCommand(), a.queryCommand(), a.previewCommand(), a.testCommand(), a.initCommand(), a.demoCommand(),
		a.verifyCommand(), a.waitCommand(), a.replayCommand(), a.planCommand(), a.lettersCommand())
	return root
}

// exactly is the number of arguments of a command.
func exactly(n int, what string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) != n {
			return fmt.Errorf("%w: %s takes %s, not %d arguments", errUsage, cmd.CommandPath(), what, len(args))
		}
		return nil
	}
}

// logger writes to the standard error.
func (a *app) logger() (*slog.Logger, error) {
	var level slog.Level
	if err := level.UnmarshalText([]byte(a.logLevel)); err != nil {
		return nil, fmt.Errorf("%w: --log-level %q is not debug, info, warn or error", errUsage, a.logLevel)
	}
	o := &slog.HandlerOptions{Level: level, ReplaceAttr: readable}
	switch {
	case a.logFormat == "json", a.logFormat == "" && !isTerminal(a.err):
		return slog.New(slog.NewJSONHandler(aboveLine{a}, o)), nil
	case a.logFormat == "text", a.logFormat == "":
		return slog.New(slog.NewTextHandler(aboveLine{a}, o)), nil
	}
	return nil, fmt.Errorf("%w: --log-format %q is not text or json", errUsage, a.logFormat)
}

// readable writes a duration as 10s in JSON, too, where it would be a number of
// nanoseconds that does not say so.
func readable(_ []string, a slog.Attr) slog.Attr {
	if a.Value.Kind() == slog.KindDuration {
		a.Value = slog.StringValue(a.Value.Duration().String())
	}
	return a
}

// aboveLine writes to the standard error, above a line that changes.
type aboveLine struct{ a *app }

// Write implements io.Writer.
func (w aboveLine) Write(p []byte) (int, error) {
	text := []byte(w.a.mask.Hide(string(p)))
	var err error
	if w.a.live == nil || !isTerminal(w.a.err) {
		_, err = w.a.err.Write(text)
	} else {
		_, err = w.a.live.above(w.a.err, text)
	}
	return len(p), err
}

// called is what a person types to call this program: its name where the PATH has it.
func called() string {
	const name = "frazil"
	if _, err := exec.LookPath(name); err == nil {
		return name
	}
	return shellQuoted(os.Args[0])
}

// format decides between output for people and for programs.
func (a *app) format(allowed ...string) (string, error) {
	if a.output == "" {
		if isTerminal(a.out) {
			return allowed[0], nil
		}
		return allowed[len(allowed)-1], nil
	}
	if a.output == "text" && allowed[0] == "table" {
		return allowed[0], nil // text is for people with every command
	}
	for _, f := range allowed {
		if a.output == f {
			return f, nil
		}
	}
	return "", fmt.Errorf("%w: --output %q is not %s", errUsage, a.output, strings.Join(allowed, " or "))
}

// Colours of a terminal.
const (
	red    = "31"
	yellow = "33"
	bold   = "1"
)

// paint colours text where that is wanted: https://no-color.org
func (a *app) paint(w io.Writer, colour, text string) string {
	if os.Getenv("NO_COLOR") != "" || os.Getenv("TERM") == "dumb" || !isTerminal(w) {
		return text
	}
	return "\x1b[" + colour + "m" + text + "\x1b[0m"
}

// masked is the standard output for what is told about a spec.
func (a *app) masked() io.Writer { return maskWriter{a} }

// answer tells v to programs, and to people what text prints.
func (a *app) answer(format string, v any, text func() error) error {
	if format == "json" {
		return json.NewEncoder(a.masked()).Encode(v)
	}
	return text()
}

type maskWriter struct{ a *app }

// Write implements io.Writer.
func (w maskWriter) Write(p []byte) (int, error) {
	if _, err := io.WriteString(w.a.out, w.a.mask.Hide(string(p))); err != nil {
		return 0, err
	}
	return len(p), nil
}

// stopping is cancelled by the first SIGINT or SIGTERM; a second one ends the
// process as it always does, and a batch under way is run again by the next
// start.
func stopping() (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(context.Background())
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	go func() {
		defer signal.Stop(signals)
		select {
		case <-signals:
			cancel()
		case <-ctx.Done():
		}
	}()
	return ctx, cancel
}
