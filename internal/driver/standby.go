package driver

import (
	"context"
	"fmt"
	"time"

	"github.com/frazil-io/frazil/internal/batch"
)

// leaseMin is the least time for which another writer's newest plan keeps this
// driver waiting.
const leaseMin = 5 * time.Second

// standby waits while another driver seems to own the pipeline, so that two
// replicas do not fence each other in turn. Correctness never depends on it: a
// driver that goes on too early, or too late, is fenced at the log.
func (d *Driver) standby(ctx context.Context) error {
	if d.opts.Takeover {
		return nil
	}
	lease := max(leaseMin, 3*d.opts.Trigger.Interval)
	var seen *batch.Plan
	var since time.Time
	waiting := false
	for {
		p, err := d.newest(ctx)
		if err != nil {
			return err
		}
		now := d.rooms.Clock.Now()
		if seen == nil || p == nil || p.Entry != seen.Entry {
			seen, since = p, now
		}
		free, err := d.free(ctx, p, now, since, lease)
		if err != nil {
			return err
		}
		if free {
			if waiting {
				d.watch.Standby("")
				return d.identify(ctx) // it may be another incarnation by now
			}
			return nil
		}
		if !waiting {
			d.log.Info("another driver owns the pipeline; standing by", "host", p.Writer.Host, "pid", p.Writer.PID, "batch", p.Batch, "takes_over_after", lease)
		}
		waiting = true
		d.watch.Standby(fmt.Sprintf("process %d on %s owns the pipeline", p.Writer.PID, p.Writer.Host))
		if err := d.rest(ctx, min(time.Second, lease/5)); err != nil {
			return err
		}
	}
}

// free says whether nobody stands behind plan p any more: it was released, its
// process on this host is gone, or nothing came after it for a lease, by the
// plan's time or as this driver watched it.
func (d *Driver) free(ctx context.Context, p *batch.Plan, now, since time.Time, lease time.Duration) (bool, error) {
	if p == nil || p.Writer.ID == d.opts.Writer.ID || now.Sub(p.Time) >= lease || now.Sub(since) >= lease {
		return true, nil
	}
	if p.Writer.Host == d.opts.Writer.Host && !d.rooms.Alive(p.Writer) {
		return true, nil
	}
	var released bool
	err := d.retry(ctx, "the checkpoint", func() (err error) {
		released, err = d.rooms.Checkpoint.Released(ctx, p.Writer)
		return err
	})
	return released, err
}
