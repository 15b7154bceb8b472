package driver

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"time"

	"github.com/frazil-io/frazil/internal/batch"
)

// readersEvery is the pause before newer reader schemas are tried again, where
// something that they need did not answer. Meanwhile the pipeline goes on with
// those that it has.
const readersEvery = 5 * time.Second

// readers are the reader schemas that the rooms read with, for a plan.
func (d *Driver) readers() map[string]int32 {
	if d.rooms.Readers == nil {
		return nil
	}
	return maps.Clone(d.rooms.Readers.Current())
}

// differ says whether ids name another schema than has does. A source that they do
// not name, as in a plan that is older than its registry, has no other one.
func differ(has, ids map[string]int32) bool {
	for source, id := range has {
		if want, ok := ids[source]; ok && want != id {
			return true
		}
	}
	return false
}

// prepareAs prepares p for the sinks, with the schemas that it names.
func (d *Driver) prepareAs(ctx context.Context, p *batch.Plan, sinks []*sink, letters batch.Letters) (*prepared, error) {
	if len(sinks) > 0 {
		if err := d.use(ctx, p); err != nil {
			return nil, err
		}
	}
	return d.prepare(ctx, p, sinks, basisOf(d.tags(), nil), letters)
}

// outgrew says whether p failed for its reader schemas, or may have, and there are
// newer ones.
func (d *Driver) outgrew(p *batch.Plan, newest map[string]int32, err error) bool {
	return (errors.Is(err, batch.ErrOutdated) || errors.Is(err, batch.ErrInvalid)) && differ(newest, p.Readers)
}

// newestReaders are the reader schemas for a revision of p. A batch that is half
// committed keeps its own where its dead letters are to be what the tables that
// have it did not take.
func (d *Driver) newestReaders(p *batch.Plan, lacking []*sink) map[string]int32 {
	if d.rooms.Readers == nil || d.hasLetterTable() && !d.isWhole(p, lacking) {
		return p.Readers
	}
	return d.rooms.Readers.Newest()
}

// otherReaders says that a table has the batch as these reader schemas gave it.
type otherReaders struct{ ids map[string]int32 }

func (o *otherReaders) Error() string {
	return fmt.Sprintf("the batch was read with other schemas: %v", o.ids)
}

// use makes the rooms read with the schemas of a plan that is to be executed:
// whatever was registered since, it gives the rows that it gave before.
func (d *Driver) use(ctx context.Context, p *batch.Plan) error {
	if d.rooms.Readers == nil || !differ(d.rooms.Readers.Current(), p.Readers) {
		return nil
	}
	d.log.Info("the batch is read with the schemas that its plan names", "batch", p.Batch, "readers", p.Readers)
	err := d.retry(ctx, "the schema registry", func() error { return d.change(ctx, p.Readers) })
	if err != nil {
		return fmt.Errorf("read with the schemas of the plan: %w", err)
	}
	return nil
}

// refresh takes newer reader schemas for the next plan. Where something that they
// need does not answer the next plan goes without.
func (d *Driver) refresh(ctx context.Context) error {
	if !d.outdated() {
		return nil
	}
	newest := d.rooms.Readers.Newest()
	err := d.change(ctx, newest)
	switch {
	case errors.Is(err, batch.ErrUnavailable):
		d.log.Warn("there are newer reader schemas, which cannot be used yet", "readers", newest, "error", err)
		d.readersAfter = d.rooms.Clock.Now().Add(readersEvery)
		return nil
	case err != nil:
		return fmt.Errorf("take the newest reader schemas: %w", err)
	}
	d.log.Info("records are read with newer schemas from here", "readers", newest)
	return nil
}

// outdated says whether the next plan is to take newer reader schemas.
func (d *Driver) outdated() bool {
	return d.rooms.Readers != nil && !d.rooms.Clock.Now().Before(d.readersAfter) && differ(d.rooms.Readers.Current(), d.rooms.Readers.Newest())
}

// change makes the rooms read with other schemas. Nothing uses them meanwhile.
func (d *Driver) change(ctx context.Context, ids map[string]int32) error {
	for _, t := range d.behind {
		t.wait()
	}
	d.behind = nil
	return d.rooms.Readers.Use(ctx, ids)
}
