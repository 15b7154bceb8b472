package cli

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/frazil-io/frazil/internal/config"
	"github.com/frazil-io/frazil/internal/driver"
	"github.com/frazil-io/frazil/internal/pipeline"
	"github.com/frazil-io/frazil/internal/server"
)

// runFlags are those of run, and of the demo.
type runFlags struct {
	availableNow bool
	takeover     bool
	adopt        []string
	accept       []string
	grace        time.Duration
	listen       string
	pprof        bool
	text         bool // for people, also where there is no terminal
}

func (a *app) runCommand() *cobra.Command {
	var f runFlags
	cmd := &cobra.Command{
		Use: "run SPEC", Short: "Run a pipeline until it is stopped",
		Long: `Runs a pipeline as a long-lived job, or with --available-now until everything is
in the tables that was in Kafka when it began.

At SIGTERM or SIGINT the batch under way is finished, or abandoned when --grace
is over; a second signal ends at once. An abandoned batch is run again, exactly,
by the next start.

On a terminal it shows one line that changes; elsewhere it prints one JSON object
for each batch, with the names of Spark's StreamingQueryProgress.

Exit codes: 0 done, 1 failed, 2 invalid (spec, SQL, schema, credentials, a bad
record), 3 records lost or histories disagree, 4 another driver took over.`,
		Example: `  frazil run clicks.yaml --listen :8080
  frazil run clicks.yaml --available-now
  frazil run clicks.yaml --output json | jq .numInputRows`,
		Args: exactly(1, "a spec"), ValidArgsFunction: specFiles,
		RunE: func(cmd *cobra.Command, args []string) error { return a.run(cmd.Context(), args[0], f) },
	}
	cmd.Flags().BoolVar(&f.availableNow, "available-now", false, "end when everything is committed that is available now")
	cmd.Flags().BoolVar(&f.takeover, "takeover", false, "do not wait for another driver that seems to own the pipeline; it is fenced")
	cmd.Flags().StringSliceVar(&f.adopt, "adopt", nil, "sink@snapshot: the head of a table that is taken as it is, though expired snapshots hide whether it was rolled back")
	cmd.Flags().StringSliceVar(&f.accept, "accept", nil, "sink/NAME or source/NAME: a change of the spec that needs a decision, as frazil plan says")
	cmd.Flags().DurationVar(&f.grace, "grace", 20*time.Second, "how long a batch may go on after SIGTERM")
	cmd.Flags().StringVar(&f.listen, "listen", "", "address for /metrics, /livez and /readyz, such as :8080")
	cmd.Flags().BoolVar(&f.pprof, "pprof", false, "serve /debug/pprof on --listen, too")
	return cmd
}

func (a *app) run(stop context.Context, path string, f runFlags) error {
	if f.grace < 0 {
		return fmt.Errorf("%w: --grace %s is negative", errUsage, f.grace)
	}
	spec, err := a.load(path)
	if err != nil {
		return err
	}
	if err := f.fit(spec); err != nil {
		return err
	}
	return a.runSpec(stop, path, spec, f)
}

// fit makes sure that what the operator vouches for has the form in which it is
// compared: a slip would be no word at all.
func (f *runFlags) fit(spec *config.Spec) error {
	for _, x := range f.accept {
		if kind, name, _ := strings.Cut(x, "/"); kind != "sink" && kind != "source" || name == "" {
			return fmt.Errorf("%w: --accept %q is not sink/NAME or source/NAME; frazil plan says which", errUsage, x)
		}
	}
	for _, x := range f.adopt {
		sink, head, _ := strings.Cut(x, "@")
		if _, err := strconv.ParseInt(head, 10, 64); err != nil {
			return fmt.Errorf("%w: --adopt %q is not SINK@SNAPSHOT, as the error says that asks for it", errUsage, x)
		}
		if sink, _, _ = strings.Cut(sink, "/"); !slices.Contains(spec.Sinks.Names, sink) { // or one of its tables
			return fmt.Errorf("%w: --adopt %q: the spec has no sink %q, but %s", errUsage, x, sink, strings.Join(spec.Sinks.Names, ", "))
		}
	}
	return nil
}

// shareOfGo is the part of `memory` that Go's heap may take before the garbage
// collector works harder. It is a soft limit, which a machine without a core to
// spare overshoots; DuckDB and its Arrow buffers are not in it.
const shareOfGo = 0.5

func (a *app) runSpec(stop context.Context, path string, spec *config.Spec, f runFlags) error {
	log, err := a.logger()
	if err != nil {
		return err
	}
	format, err := a.format("text", "json")
	if err != nil {
		return err
	}
	a.out.tell(func(err error) { log.Warn("the output cannot be written; the pipeline goes on", "error", err) })
	debug.SetMemoryLimit(int64(float64(spec.Memory) * shareOfGo))
	var show progress = newJSONProgress(a.out, spec)
	if format == "text" || f.text {
		l := a.newLiveLine()
		if show = l; l.width() > 0 {
			a.live = l
			defer func() { a.live = nil }()
		}
	}
	ctx := context.Background()
	var p *pipeline.Pipeline // the status is made first, and asked later
	status := server.NewStatus(spec.Name, interval(spec), time.Now, func() (map[string]int64, int64) { return p.Memory(ctx) })
	p, err = pipeline.New(ctx, spec, pipeline.Options{
		AvailableNow: f.availableNow, Takeover: f.takeover, Adopt: f.adopt, Accept: f.accept, Grace: f.grace, Log: log, Observer: both{show, status, a.mask.Hide},
	})
	if err != nil {
		return inSpec(path, err)
	}
	defer p.Close()
	if f.listen != "" {
		s, err := server.Listen(f.listen, status, f.pprof)
		if errors.Is(err, syscall.EADDRINUSE) {
			return fmt.Errorf("--listen %s: another process listens there; stop it, or choose another port", f.listen)
		}
		if err != nil {
			return fmt.Errorf("%w: --listen %q: %w", errUsage, f.listen, err)
		}
		log.Info("listening", "address", s.Addr())
		defer s.Close()
	}
	show.begin()
	err = p.Run(ctx, stop)
	show.end()
	return err
}

func interval(spec *config.Spec) time.Duration {
	if spec.Trigger.Interval == nil {
		return 0
	}
	return time.Duration(*spec.Trigger.Interval)
}

// both tells two observers, and what the spec's variables stand for to neither:
// /readyz is read by others than those who may read the spec.
type both struct {
	a, b driver.Observer
	hide func(string) string
}

func (b both) Batch(p driver.Progress)        { b.a.Batch(p); b.b.Batch(p) }
func (b both) Listed(at time.Time, lag int64) { b.a.Listed(at, lag); b.b.Listed(at, lag) }
func (b both) Waiting(reason string) {
	reason = b.hide(reason)
	b.a.Waiting(reason)
	b.b.Waiting(reason)
}

func (b both) Standby(reason string) {
	reason = b.hide(reason)
	b.a.Standby(reason)
	b.b.Standby(reason)
}
