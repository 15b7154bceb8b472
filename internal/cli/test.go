package cli

import (
	"encoding/xml"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"regexp"
	"strings"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/spf13/cobra"

	"github.com/frazil-io/frazil/internal/batch"
	"github.com/frazil-io/frazil/internal/spectest"
)

// testFlags are those of test.
type testFlags struct {
	only    string
	update  bool
	verbose bool
	seed    uint64
	junit   string
}

// errCases ends a run in which a case failed.
var errCases = errors.New("cases failed")

func (a *app) testCommand() *cobra.Command {
	var f testFlags
	cmd := &cobra.Command{
		Use: "test DIR…", Short: "Run a spec's test cases: records in, rows out",
		Long: `Runs the cases of every spec below the folders. A case is a folder beside a spec:

  pipeline.yaml
  tests/NAME/input/TOPIC.jsonl      a record's value a line
  tests/NAME/input/TOPIC.records    or {"key", "value", "headers", "partition", "timestamp"} a line
  tests/NAME/expect/SINK.jsonl      the rows of a sink's table, in any order
  tests/NAME/expect/error.txt       or what the error says
  tests/NAME/tables/TABLE.csv       instead of a dimension table; also .parquet
  tests/NAME/schemas/SUBJECT.avsc   instead of a registry; also .proto and .json
  tests/NAME/case.yaml              now, env, partitions

Broker, catalog and warehouse are embedded; nothing of the spec's own is touched.
Each case is run as one batch, in random batches, and in random batches with
crashes at random moments; its rows must be the same each time.`,
		Example: `  frazil test examples/etl
  frazil test . --run late --verbose
  frazil test pipelines --update
  frazil test pipelines --junit report.xml`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return fmt.Errorf("%w: %s takes at least one folder; write for instance `frazil test examples`", errUsage, cmd.CommandPath())
			}
			return nil
		},
		ValidArgsFunction: func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
			return nil, cobra.ShellCompDirectiveFilterDirs
		},
		RunE: func(cmd *cobra.Command, args []string) error { return a.test(cmd, args, f) },
	}
	cmd.Flags().StringVar(&f.only, "run", "", "a regular expression: only cases whose folder/name matches")
	cmd.Flags().BoolVar(&f.update, "update", false, "write the rows that come out as those that are expected")
	cmd.Flags().BoolVarP(&f.verbose, "verbose", "v", false, "name each case, and show the log")
	cmd.Flags().Uint64Var(&f.seed, "seed", 0, "of the random batches and crashes; a new one each time if not said")
	cmd.Flags().StringVar(&f.junit, "junit", "", "also write a report in JUnit's XML to this file")
	return cmd
}

func (a *app) test(cmd *cobra.Command, dirs []string, f testFlags) error {
	if _, err := a.format("text"); err != nil && a.output != "" {
		return err
	}
	o := spectest.Options{
		Update: f.update, Seed: f.seed, Now: time.Now, Env: os.LookupEnv, Log: slog.New(slog.DiscardHandler),
		Encode: func(b []byte, rows arrow.RecordBatch, row int) []byte {
			return appendRow(b, jsonKeys(rows.Schema()), rows, row)
		},
	}
	if !cmd.Flags().Changed("seed") {
		o.Seed = uint64(time.Now().UnixNano()) % 1_000_000
	}
	var err error
	if f.only != "" {
		if o.Only, err = regexp.Compile(f.only); err != nil {
			return fmt.Errorf("%w: --run %q is not a regular expression: %w", errUsage, f.only, err)
		}
	}
	if f.verbose {
		if o.Log, err = a.logger(); err != nil {
			return err
		}
	}
	r := &testReport{a: a, verbose: f.verbose}
	o.Begin, o.Done = r.begin, r.done
	if err := spectest.Run(cmd.Context(), dirs, o); err != nil {
		return err
	}
	r.suite()
	if f.junit != "" {
		if err := r.junit(f.junit); err != nil {
			return err
		}
	}
	if n := r.failures(); n > 0 {
		fmt.Fprintln(a.out, a.paint(a.out, red, "FAIL"))
		return fmt.Errorf("%w: %d of %d", errCases, n, len(r.results))
	}
	return nil
}

// testReport prints what `go test` would.
type testReport struct {
	a       *app
	verbose bool
	results []spectest.Result
}

func (r *testReport) begin(name string) {
	if r.verbose {
		fmt.Fprintf(r.a.out, "=== RUN   %s\n", name)
	}
}

func (r *testReport) done(one spectest.Result) {
	if n := len(r.results); n > 0 && r.results[n-1].Suite != one.Suite {
		r.suite()
	}
	r.results = append(r.results, one)
	switch {
	case one.Failure != "":
		fmt.Fprintf(r.a.out, "%s %s (%.2fs)\n%s\n", r.a.paint(r.a.out, red, "--- FAIL:"), one.Name(), one.Took.Seconds(), indentedBy("    ", visibleLines(one.Failure)))
	case one.Updated:
		fmt.Fprintf(r.a.out, "--- UPDATED: %s (%.2fs)\n", one.Name(), one.Took.Seconds())
	case r.verbose:
		fmt.Fprintf(r.a.out, "--- PASS: %s (%.2fs)\n", one.Name(), one.Took.Seconds())
	}
}

// suite ends the newest spec's cases.
func (r *testReport) suite() {
	var took time.Duration
	cases, failed := 0, 0
	name := r.results[len(r.results)-1].Suite
	for _, one := range r.results {
		if one.Suite == name {
			cases++
			took += one.Took
			if one.Failure != "" {
				failed++
			}
		}
	}
	state := "ok  "
	if failed > 0 {
		state = "FAIL"
	}
	fmt.Fprintf(r.a.out, "%s  %s  %.2fs  %d of %d cases\n", state, name, took.Seconds(), cases-failed, cases)
}

func (r *testReport) failures() (n int) {
	for _, one := range r.results {
		if one.Failure != "" {
			n++
		}
	}
	return n
}

// The elements of JUnit's report that its readers agree on.
type (
	junitSuites struct {
		XMLName  xml.Name     `xml:"testsuites"`
		Tests    int          `xml:"tests,attr"`
		Failures int          `xml:"failures,attr"`
		Time     string       `xml:"time,attr"`
		Suites   []junitSuite `xml:"testsuite"`
	}
	junitSuite struct {
		Name     string      `xml:"name,attr"`
		Tests    int         `xml:"tests,attr"`
		Failures int         `xml:"failures,attr"`
		Time     string      `xml:"time,attr"`
		Cases    []junitCase `xml:"testcase"`
		took     time.Duration
	}
	junitCase struct {
		Suite   string        `xml:"classname,attr"`
		Name    string        `xml:"name,attr"`
		Time    string        `xml:"time,attr"`
		Failure *junitFailure `xml:"failure,omitempty"`
	}
	junitFailure struct {
		Message string `xml:"message,attr"`
		Text    string `xml:",chardata"`
	}
)

func (r *testReport) junit(path string) error {
	seconds := func(d time.Duration) string { return fmt.Sprintf("%.3f", d.Seconds()) }
	all := junitSuites{Tests: len(r.results), Failures: r.failures()}
	var took time.Duration
	for _, one := range r.results {
		if n := len(all.Suites); n == 0 || all.Suites[n-1].Name != one.Suite {
			all.Suites = append(all.Suites, junitSuite{Name: one.Suite})
		}
		s := &all.Suites[len(all.Suites)-1]
		c := junitCase{Suite: one.Suite, Name: one.Case, Time: seconds(one.Took)}
		if one.Failure != "" {
			s.Failures++
			first, _, _ := strings.Cut(one.Failure, "\n")
			c.Failure = &junitFailure{Message: first, Text: one.Failure}
		}
		s.Tests++
		s.took += one.Took
		s.Time = seconds(s.took)
		took += one.Took
		s.Cases = append(s.Cases, c)
	}
	all.Time = seconds(took)
	data, err := xml.MarshalIndent(all, "", "  ")
	if err == nil {
		err = os.WriteFile(path, append([]byte(xml.Header), append(data, '\n')...), 0o644)
	}
	if err != nil {
		return fmt.Errorf("%w: --junit: %w", batch.ErrInvalid, err)
	}
	return nil
}

func indentedBy(prefix, text string) string {
	return prefix + strings.ReplaceAll(text, "\n", "\n"+prefix)
}

// visibleLines is visible for a text of several lines.
func visibleLines(text string) string {
	lines := strings.Split(text, "\n")
	for i, line := range lines {
		lines[i] = visible(line)
	}
	return strings.Join(lines, "\n")
}
