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

// retry repeats step while it is unavailable. A server that has never answered
// gets Options.StartTimeout; one that has may be away for ever, and the
// observer says why nothing moves.
func (d *Driver) retry(ctx context.Context, server string, step func() error) error {
	pause := newBackoff()
	begun := d.rooms.Clock.Now()
	waiting := false
	for {
		err := step()
		if err == nil {
			d.contacted[server] = true
		}
		if !errors.Is(err, batch.ErrUnavailable) {
			if waiting {
				d.watch.Waiting("")
			}
			return err
		}
		if context.Cause(ctx) != nil {
			return context.Cause(ctx)
		}
		away := d.rooms.Clock.Now().Sub(begun)
		if !d.contacted[server] && away >= d.opts.StartTimeout {
			return fmt.Errorf("%s did not answer for %s; is it running, and is its address right? %w", server, away.Round(time.Second), err)
		}
		if !waiting {
			d.log.Warn("waiting for a server", "server", server, "error", err)
		}
		waiting = true
		d.watch.Waiting(fmt.Sprintf("%s: %v", server, err))
		if err := d.rooms.Clock.Sleep(ctx, pause.NextBackOff()); err != nil {
			return err
		}
	}
}
