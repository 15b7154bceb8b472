package driver

import (
	"context"
	"fmt"
	"strings"

	"github.com/frazil-io/frazil/internal/batch"
)

// open finds the pipeline's incarnation or makes one, anchors it, waits for
// another owner to be gone, and returns the newest log entry, whose outcome is
// not known; nil where nothing was logged yet.
func (d *Driver) open(ctx context.Context) (*batch.Plan, error) {
	if err := d.identify(ctx); err != nil {
		return nil, err
	}
	if err := d.standby(ctx); err != nil {
		return nil, err
	}
	if err := d.anchorAll(ctx); err != nil {
		return nil, err
	}
	plan, err := d.newest(ctx)
	if err != nil {
		return nil, err
	}
	d.orphaned() // of processes before this one
	if plan != nil {
		d.log.Info("going on with the newest plan", "batch", plan.Batch, "revision", plan.Revision, "entry", plan.Entry)
		return plan, d.adoptPlan(ctx, plan)
	}
	return nil, d.adoptTags(ctx)
}

// recordsServer names the checkpoint where it does not take a pipeline's first
// record: it may well answer everything else.
const recordsServer = "the checkpoint, to write the pipeline's record,"

// identify decides which incarnation this driver works for. It reads the tags
// first and pipeline/ second: a record is created before its first anchor, so a
// stamp that the later listing does not explain is of a record that was lost.
func (d *Driver) identify(ctx context.Context) error {
	if d.rooms.Replay != nil {
		return d.identifyRun(ctx)
	}
	records := d.patient(recordsServer)
	search := false
	for {
		stamped, err := d.newestStamp(ctx, search)
		if err != nil {
			return err
		}
		all, err := d.incarnations(ctx)
		if err != nil {
			return err
		}
		if d.routes() && !search {
			if search, err = d.search(ctx, all); err != nil {
				return err
			}
			if search { // look again, at all that could be ours
				continue
			}
		}
		next := batch.Incarnation{UUID: d.rooms.NewID(), Name: d.opts.Name, ID: d.rooms.NewID(), Kind: batch.First}
		if len(all) > 0 {
			d.inc = all[len(all)-1]
			usable, err := d.explains(ctx, stamped)
			if usable || err != nil {
				records.settled()
				return err
			}
			next.Number = d.inc.Number + 1 // made by someone who had not seen the tags
		}
		if stamped != nil {
			next.UUID, next.Kind, next.Number = stamped.UUID, batch.Recover, max(stamped.Incarnation+1, next.Number)
			d.log.Warn("the checkpoint does not know what the tables carry: it was lost or replaced; going on from the tables' own stamps",
				"pipeline", d.opts.Name, "uuid", stamped.UUID, "incarnation", next.Number, "stamp", stamped.String())
		}
		// Whatever the answer, the next round looks whose record is there.
		err = d.rooms.Checkpoint.CreateIncarnation(ctx, next)
		if fatal(err) {
			return fmt.Errorf("create the pipeline's record: %w", err)
		}
		if err != nil {
			if err := records.wait(ctx, err); err != nil {
				return err
			}
		}
	}
}

// explains says whether the newest record accounts for the newest stamp.
func (d *Driver) explains(ctx context.Context, stamped *batch.Stamp) (bool, error) {
	if stamped == nil {
		return true, nil
	}
	if stamped.UUID == d.inc.UUID {
		return !d.inc.Newer(stamped.Incarnation, stamped.IncarnationID), nil
	}
	newest, err := d.newest(ctx)
	if err != nil || newest == nil {
		return false, err
	}
	return false, fmt.Errorf("%w: the checkpoint is of pipeline %s, but a table's tag carries another one: %s. "+
		"If the table is right, run `frazil checkpoint recover`; if the checkpoint is right, give this pipeline another name or table", batch.ErrDataLost, d.inc.UUID, stamped)
}

// newestStamp returns the stamp of the highest incarnation among the tables'
// tags, nil if none carries one. Stamps of two pipelines contradict each other.
// A table that lost its tag does, too.
func (d *Driver) newestStamp(ctx context.Context, search bool) (*batch.Stamp, error) {
	var newest *batch.Stamp
	var states []string
	contradiction := false
	tables, err := d.tables(ctx, search)
	if err != nil {
		return nil, err
	}
	views, err := d.views(ctx, tables)
	if err != nil {
		return nil, err
	}
	for i, s := range tables {
		view := views[i]
		if err := d.checkUntagged(s, view); err != nil {
			return nil, err
		}
		st := view.Stamp()
		if st == nil {
			continue
		}
		states = append(states, fmt.Sprintf("sink %s: %s", s.Name, st))
		contradiction = contradiction || newest != nil && st.UUID != newest.UUID
		if newest == nil || st.Incarnation > newest.Incarnation {
			newest = st
		}
	}
	if contradiction {
		return nil, fmt.Errorf("%w: the tables of this pipeline carry stamps of different pipelines: %s. "+
			"Choose which one is right with `frazil checkpoint recover`", batch.ErrDataLost, strings.Join(states, "; "))
	}
	return newest, nil
}

func (d *Driver) incarnations(ctx context.Context) (all []batch.Incarnation, err error) {
	err = d.retry(ctx, "the checkpoint", func() error { all, err = d.rooms.Checkpoint.Incarnations(ctx); return err })
	return all, err
}

func (d *Driver) newest(ctx context.Context) (p *batch.Plan, err error) {
	err = d.retry(ctx, "the checkpoint", func() error { p, err = d.rooms.Checkpoint.Newest(ctx, d.inc); return err })
	if err != nil {
		return nil, fmt.Errorf("read the log: %w", err)
	}
	return p, nil
}
