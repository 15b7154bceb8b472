package driver

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/cenkalti/backoff/v5"

	"github.com/frazil-io/frazil/internal/batch"
)

// Backoff of a step that is tried again: from 100 ms, doubling with jitter, to
// 15 s. The cap keeps a pipeline fresh soon after a long outage.
const (
	backoffFirst = 100 * time.Millisecond
	backoffMax   = 15 * time.Second
)

func newBackoff() *backoff.ExponentialBackOff {
	b := backoff.NewExponentialBackOff()
	b.InitialInterval, b.MaxInterval = backoffFirst, backoffMax
	b.Multiplier, b.RandomizationFactor = 2, 0.3
	b.Reset()
	return b
}

// A Run has two ends: the one that is asked for, after which nothing begins and
// nobody waits any more, and that of its context, which cuts everything off. The
// first travels within the second.
type stopKey struct{}

// withStop returns ctx with its stop, which ends when ctx does, too.
func withStop(ctx, stop context.Context) (context.Context, context.CancelFunc) {
	stop, cancel := context.WithCancel(stop)
	unhook := context.AfterFunc(ctx, cancel)
	return context.WithValue(ctx, stopKey{}, stop), func() { unhook(); cancel() }
}

// stopOf returns the context of whoever merely waits; ctx itself where there is
// no other end.
func stopOf(ctx context.Context) context.Context {
	if stop, ok := ctx.Value(stopKey{}).(context.Context); ok {
		return stop
	}
	return ctx
}

// toTheEnd returns ctx without its stop, for a batch whose files are there: it has
// Options.Grace to be committed.
func toTheEnd(ctx context.Context) context.Context {
	return context.WithValue(ctx, stopKey{}, ctx)
}

// rest sleeps, unless the end is asked for.
func (d *Driver) rest(ctx context.Context, pause time.Duration) error {
	if d.rooms.Clock.Sleep(stopOf(ctx), pause) == nil {
		return nil
	}
	if err := context.Cause(ctx); err != nil {
		return err
	}
	return errDone
}

// patience is the wait for a server that does not answer. One that has never
// answered gets Options.StartTimeout; one that has may be away for ever, and the
// observer says why nothing moves.
type patience struct {
	d      *Driver
	server string
	what   string // that is waited for, in words
	pause  *backoff.ExponentialBackOff
	since  time.Time // the first failure; zero: none yet
	last   bool      // the end was asked for: one more try
}

func (d *Driver) patient(server string) *patience {
	return &patience{d: d, server: server, what: server, pause: newBackoff()}
}

// executing is the patience of a batch's execution. It needs Kafka, and a registry and
// room for files beside: which of them is missing is in the error.
func (d *Driver) executing(p *batch.Plan) *patience {
	w := d.patient("Kafka")
	w.what = fmt.Sprintf("what batch %d needs", p.Batch)
	return w
}

// wait returns nil when the step, which failed with this error, is to be tried
// again. When the end is asked for, that is at once, and once.
func (w *patience) wait(ctx context.Context, cause error) error {
	if err := context.Cause(ctx); err != nil {
		return err
	}
	if w.last {
		return fmt.Errorf("%w: %s is not there: %w", errDone, w.what, cause)
	}
	d := w.d
	now := d.rooms.Clock.Now()
	if w.since.IsZero() {
		w.since = now
		d.log.Warn("waiting", "for", w.what, "error", cause)
	}
	if away := now.Sub(w.since); !d.contacted[w.server] && away >= d.opts.StartTimeout {
		return fmt.Errorf("%s did not answer for %s; is it running, and is its address right? %w", w.server, away.Round(time.Second), cause)
	}
	d.watch.Waiting(fmt.Sprintf("%s: %v", w.what, cause))
	err := d.rest(ctx, w.pause.NextBackOff())
	w.last = errors.Is(err, errDone)
	if w.last {
		return nil
	}
	return err
}

// over says that the server has answered.
func (w *patience) over() {
	w.d.contacted[w.server] = true
	w.settled()
}

// settled says that there is nothing to wait for any more.
func (w *patience) settled() {
	if !w.since.IsZero() {
		w.d.watch.Waiting("")
		w.since = time.Time{}
	}
}

// retry repeats step while it is unavailable.
func (d *Driver) retry(ctx context.Context, server string, step func() error) error {
	w := d.patient(server)
	for {
		err := step()
		if err == nil {
			w.over()
			return nil
		}
		if !errors.Is(err, batch.ErrUnavailable) {
			w.settled()
			return err
		}
		if err := w.wait(ctx, err); err != nil {
			return err
		}
	}
}
