package cli

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/frazil-io/frazil/internal/batch"
	"github.com/frazil-io/frazil/internal/pipeline"
)

// waitFlags are those of wait.
type waitFlags struct {
	offsets   []string
	timestamp string
	timeout   time.Duration
}

func (a *app) waitCommand() *cobra.Command {
	var f waitFlags
	cmd := &cobra.Command{
		Use: "wait SPEC (--offset TOPIC:PARTITION:OFFSET | --timestamp TIME)", Short: "Wait until records are in every sink's table, or accounted for",
		Args: exactly(1, "a spec"), ValidArgsFunction: specFiles,
		Long: `Returns when every row that the records contribute to is committed, in every sink's
table, or they are accounted for as filtered, rejected, dropped or lost. It runs no
pipeline: it looks at the tables and the checkpoint again and again, with growing
pauses, and leaves a running driver alone.

--timestamp waits for every record up to that time that is in the topics now: in each
partition for those before the first later record.

Exit codes: 0 there, 1 not within --timeout, 2 no such topic or partition.`,
		Example: `  frazil wait clicks.yaml --offset clicks:0:41 --timeout 1m
  frazil wait clicks.yaml --timestamp 2026-05-01T12:00:00Z`,
		RunE: func(cmd *cobra.Command, args []string) error {
			format, err := a.format("text", "json")
			if err != nil {
				return err
			}
			if (len(f.offsets) == 0) == (f.timestamp == "") || f.timeout < 0 {
				return fmt.Errorf("%w: say what to wait for, by --offset or by --timestamp; --timeout is not negative", errUsage)
			}
			_, p, err := a.open(cmd.Context(), args[0], true)
			if err != nil {
				return err
			}
			defer p.Close()
			until, records, err := f.until(cmd.Context(), p)
			if err != nil {
				return err
			}
			return a.wait(cmd.Context(), p, until, records, f.timeout, format)
		},
	}
	cmd.Flags().StringSliceVar(&f.offsets, "offset", nil, "topic:partition:offset of a record; may be repeated")
	cmd.Flags().StringVar(&f.timestamp, "timestamp", "", "time of the last records, as 2026-05-01T12:00:00Z")
	cmd.Flags().DurationVar(&f.timeout, "timeout", 0, "how long to wait; 0: for ever")
	return cmd
}

// recordAt is where a record is in Kafka.
type recordAt struct {
	topic     string
	partition int32
	offset    int64
}

// until asks Kafka what the flags mean, and says which records they name.
func (f *waitFlags) until(ctx context.Context, p *pipeline.Pipeline) (pipeline.Until, []recordAt, error) {
	if f.timestamp != "" {
		at, err := time.Parse(time.RFC3339, f.timestamp)
		if err != nil {
			return nil, nil, fmt.Errorf("%w: --timestamp %q is not a time such as 2026-05-01T12:00:00Z", errUsage, f.timestamp)
		}
		until, err := p.UntilTime(ctx, at)
		return until, nil, err
	}
	until := pipeline.Until{}
	var records []recordAt
	for _, text := range f.offsets {
		parts := strings.Split(text, ":")
		wrong := fmt.Errorf("%w: --offset %q is not topic:partition:offset", errUsage, text)
		if len(parts) != 3 || parts[0] == "" {
			return nil, nil, wrong
		}
		partition, err := strconv.ParseInt(parts[1], 10, 32)
		if err != nil || partition < 0 {
			return nil, nil, wrong
		}
		offset, err := strconv.ParseInt(parts[2], 10, 64)
		if err != nil || offset < 0 {
			return nil, nil, wrong
		}
		one, err := p.UntilOffset(ctx, parts[0], int32(partition), offset)
		if err != nil {
			return nil, nil, fmt.Errorf("--offset %s: %w", text, err)
		}
		for tp, to := range one {
			one[tp] = max(to, until[tp])
		}
		maps.Copy(until, one)
		records = append(records, recordAt{parts[0], int32(partition), offset})
	}
	return until, records, nil
}

func (a *app) wait(ctx context.Context, p *pipeline.Pipeline, until pipeline.Until, records []recordAt, timeout time.Duration, format string) error {
	limited := ctx
	if timeout > 0 {
		var cancel context.CancelFunc
		limited, cancel = context.WithTimeout(ctx, timeout)
		defer cancel()
	}
	all, failed := p.Wait(limited, until)
	if failed != nil && all == nil {
		return failed
	}
	if failed == nil {
		for _, r := range records {
			letters, err := p.LetterOf(ctx, r.topic, r.partition, r.offset)
			if err != nil {
				return err
			}
			for i := range all {
				if text, ok := letters[all[i].Sink]; ok {
					all[i].State += "; " + text
				}
			}
		}
	}
	if err := a.answer(format, map[string]any{"sinks": all}, func() error { return a.printWaited(all) }); err != nil {
		return err
	}
	if failed != nil && ctx.Err() == nil && errors.Is(failed, context.DeadlineExceeded) {
		return fmt.Errorf("%w: not there within %s", batch.ErrUnavailable, timeout)
	}
	return failed
}

func (a *app) printWaited(all []pipeline.Waited) error {
	w := tabwriter.NewWriter(a.masked(), 0, 8, 2, ' ', 0)
	for _, one := range all {
		fmt.Fprintf(w, "sink %s\t%s: %s\n", visible(one.Sink), visible(one.Table), visible(one.State))
	}
	return w.Flush()
}
