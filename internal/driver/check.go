package driver

import (
	"context"
	"errors"
	"fmt"

	"github.com/frazil-io/frazil/internal/batch"
)

// checkTries bounds how often Check looks again because a driver that runs was
// quicker.
const checkTries = 3

// Check says what Run would make of checkpoint and tables as they are, and writes
// nothing. The error is the one that Run would end with before its first batch.
// note tells what Run does by itself about a checkpoint that does not know what
// the tables carry; "" where there is nothing of the kind.
func (d *Driver) Check(ctx context.Context) (note string, err error) {
	for range checkTries {
		note, err = d.check(ctx)
		if !errors.Is(err, batch.ErrFenced) {
			return note, err
		}
	}
	return "", nil // somebody runs it, and so it is well
}

// check reads in the order in which a driver opens the pipeline.
func (d *Driver) check(ctx context.Context) (note string, err error) {
	stamped, err := d.newestStamp(ctx, false)
	if err != nil {
		return "", err
	}
	all, err := d.incarnations(ctx)
	if err != nil {
		return "", err
	}
	search := false
	if d.routes() {
		if search, err = d.search(ctx, all); err != nil {
			return "", err
		}
		if search {
			if stamped, err = d.newestStamp(ctx, true); err != nil {
				return "", err
			}
		}
	}
	var p *batch.Plan
	note = "the checkpoint has no record of the pipeline, but its tables carry its stamps"
	if len(all) > 0 {
		d.inc = all[len(all)-1]
		note = "the checkpoint is older than what the tables carry"
		usable, err := d.explains(ctx, stamped)
		if err != nil {
			return "", err
		}
		if usable {
			note = ""
			if p, err = d.newest(ctx); err != nil {
				return "", err
			}
		}
	}
	tables, err := d.tables(ctx, search)
	if err != nil {
		return "", err
	}
	for _, s := range tables {
		err := d.checkSink(ctx, p, s)
		if err != nil && !errors.Is(err, errAnchored) { // a revision names the anchor
			return "", err
		}
	}
	if note == "" || stamped == nil {
		return "", nil
	}
	return fmt.Sprintf("%s: it was lost or replaced; `frazil run` goes on from the tables, behind %s", note, stamped), nil
}

// checkSink makes sure that a table fits the newest plan, if there is one.
func (d *Driver) checkSink(ctx context.Context, p *batch.Plan, s *sink) error {
	if p != nil {
		if sp := p.Sink(s.Name); sp != nil && sp.Active {
			_, _, err := d.look(ctx, p, s, sp)
			return err
		}
	}
	view, err := d.load(ctx, s)
	if err != nil {
		return err
	}
	if _, back := d.inc.Targets[s.Name]; back && p == nil { // a rewind leads out of a rollback
		return nil
	}
	return d.checkAncestry(ctx, s, view)
}
