package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"runtime/debug"
	"sync"
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
	grace        time.Duration
	listen       string
	pprof        bool
}

func (a *app) runCommand() *cobra.Command {
	var f runFlags
	cmd := &cobra.Command{
		Use: "run SPEC", Short: "Run a pipeline until it is stopped",
		Long: `Runs a pipeline as a long-lived job, or with --available-now until everything is
in the tables that was in Kafka when it began.

At SIGTERM or SIGINT the batch under way is finished, or abandoned when --grace
is over; an abandoned batch is run again, exactly, by the next start.

Exit codes: 0 done, 1 failed, 2 invalid (spec, SQL, schema, credentials, a bad
record), 3 records lost or histories disagree, 4 another driver took over.`,
		Args: exactly(1, "a spec"),
		RunE: func(_ *cobra.Command, args []string) error { return a.run(args[0], f) },
	}
	cmd.Flags().BoolVar(&f.availableNow, "available-now", false, "end when everything is committed that is available now")
	cmd.Flags().BoolVar(&f.takeover, "takeover", false, "do not wait for another driver that seems to own the pipeline; it is fenced")
	cmd.Flags().StringSliceVar(&f.adopt, "adopt", nil, "sink@snapshot: the head of a table that is taken as it is, though expired snapshots hide whether it was rolled back")
	cmd.Flags().DurationVar(&f.grace, "grace", 20*time.Second, "how long a batch may go on after SIGTERM")
	cmd.Flags().StringVar(&f.listen, "listen", "", "address for /metrics, /livez and /readyz, such as :8080")
	cmd.Flags().BoolVar(&f.pprof, "pprof", false, "serve /debug/pprof on --listen, too")
	return cmd
}

func (a *app) run(path string, f runFlags) error {
	spec, err := load(path)
	if err != nil {
		return err
	}
	stop, cancel := stopping()
	defer cancel()
	return a.runSpec(stop, path, spec, f)
}

// shareOfGo is the part of `memory` that Go's heap may take before the garbage
// collector works harder.
const shareOfGo = 0.6

func (a *app) runSpec(stop context.Context, path string, spec *config.Spec, f runFlags) error {
	log, err := a.logger()
	if err != nil {
		return err
	}
	format, err := a.format("text", "json")
	if err != nil {
		return err
	}
	debug.SetMemoryLimit(int64(float64(spec.Memory) * shareOfGo))
	var show driver.Observer = &jsonProgress{out: a.out}
	if format == "text" {
		show = &liveLine{out: a.out, terminal: isTerminal(a.out)}
	}
	status := server.NewStatus(spec.Name, interval(spec), time.Now)
	ctx := context.Background()
	p, err := pipeline.New(ctx, spec, pipeline.Options{
		AvailableNow: f.availableNow, Takeover: f.takeover, Adopt: f.adopt, Grace: f.grace, Log: log, Observer: both{show, status},
	})
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	defer p.Close()
	if f.listen != "" {
		s, err := server.Listen(f.listen, status, f.pprof)
		if err != nil {
			return fmt.Errorf("%w: --listen %q: %w", errUsage, f.listen, err)
		}
		log.Info("listening", "address", s.Addr())
		defer s.Close()
	}
	err = p.Run(ctx, stop)
	if l, ok := show.(*liveLine); ok {
		l.end()
	}
	return err
}

func interval(spec *config.Spec) time.Duration {
	if spec.Trigger.Interval == nil {
		return 0
	}
	return time.Duration(*spec.Trigger.Interval)
}

// both tells two observers.
type both struct{ a, b driver.Observer }

func (b both) Batch(p driver.Progress)        { b.a.Batch(p); b.b.Batch(p) }
func (b both) Listed(at time.Time, lag int64) { b.a.Listed(at, lag); b.b.Listed(at, lag) }
func (b both) Waiting(reason string)          { b.a.Waiting(reason); b.b.Waiting(reason) }
func (b both) Standby(reason string)          { b.a.Standby(reason); b.b.Standby(reason) }

// jsonProgress prints one line a batch, with the names of Spark's streaming
// progress where the meaning is the same.
type jsonProgress struct {
	mu  sync.Mutex
	out io.Writer
	lag int64
}

func (j *jsonProgress) Listed(_ time.Time, lag int64) { j.lag = lag }
func (j *jsonProgress) Waiting(string)                {}
func (j *jsonProgress) Standby(string)                {}

func (j *jsonProgress) Batch(p driver.Progress) {
	j.mu.Lock()
	defer j.mu.Unlock()
	sinks := map[string]any{}
	for _, o := range p.Outcome {
		sinks[o.Sink] = map[string]any{"numOutputRows": o.Counts.Written, "snapshotId": o.Snapshot, "rejected": o.Counts.Rejected}
	}
	_ = json.NewEncoder(j.out).Encode(map[string]any{
		"batchId": p.Batch, "revision": p.Revision, "timestamp": p.Start.UTC().Format(time.RFC3339Nano),
		"numInputRows": p.Tally.Data, "inputBytes": p.Tally.Bytes, "skipped": p.Tally.Skipped,
		"processedRowsPerSecond": perSecond(p.Tally.Data, p.Total),
		"durationMs":             map[string]int64{"triggerExecution": p.Total.Milliseconds(), "addBatch": p.Prepare.Milliseconds(), "commit": p.Commit.Milliseconds()},
		"lag":                    j.lag, "sinks": sinks,
	})
}

func perSecond(n int64, d time.Duration) float64 {
	if d <= 0 {
		return 0
	}
	return math.Round(float64(n) / d.Seconds())
}

// liveLine shows one line that changes, or on no terminal one a batch.
type liveLine struct {
	out      io.Writer
	terminal bool
	mu       sync.Mutex
	lag      int64
	shown    bool
	first    time.Time
	records  int64
}

func (l *liveLine) Listed(_ time.Time, lag int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lag = lag
}

func (l *liveLine) Waiting(reason string) { l.say(reason) }
func (l *liveLine) Standby(reason string) { l.say(reason) }

func (l *liveLine) say(reason string) {
	if reason == "" {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.print("waiting: " + reason)
}

func (l *liveLine) Batch(p driver.Progress) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.first.IsZero() {
		l.first = p.Start
	}
	l.records += p.Tally.Data
	var rows int64
	for _, o := range p.Outcome {
		rows += o.Counts.Written
	}
	l.print(fmt.Sprintf("batch %d · %d records → %d rows · %s records/s · lag %d · %s (commit %s)",
		p.Batch, p.Tally.Data, rows, short(perSecond(p.Tally.Data, p.Total)), l.lag, p.Total.Round(time.Millisecond), p.Commit.Round(time.Millisecond)))
}

func (l *liveLine) print(text string) {
	if !l.terminal {
		fmt.Fprintln(l.out, text)
		return
	}
	fmt.Fprintf(l.out, "\r\x1b[2K%s", text)
	l.shown = true
}

func (l *liveLine) end() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.shown {
		fmt.Fprintln(l.out)
	}
}

func short(n float64) string {
	switch {
	case n >= 1e6:
		return fmt.Sprintf("%.1f M", n/1e6)
	case n >= 1e3:
		return fmt.Sprintf("%.0f k", n/1e3)
	}
	return fmt.Sprintf("%.0f", n)
}
