package driver

import (
	"context"
	"fmt"

	"github.com/frazil-io/frazil/internal/batch"
)

// Rewind takes the pipeline and its tables back to the end of batch to. It
// moves no ref back and truncates nothing: it pins the snapshots to go back to,
// records the intent as a new incarnation, and commits in each table a new
// snapshot with the old contents. A running driver is fenced. If this process
// dies, the next driver completes what is missing.
//
// A table whose newest snapshot within to is older than the others' goes back
// further and catches up. batch.ErrInvalid: there is no such batch, or a table
// keeps no snapshot that old.
// batch.ErrDataLost: other writers have committed since, and dropForeign is
// false. Dead letters that were run again it never takes out of the tables.
func (d *Driver) Rewind(ctx context.Context, to batch.ID, dropForeign bool) error {
	if d.routes() {
		return fmt.Errorf("%w: a pipeline with a sink that feeds many tables cannot be rewound: its tables come and go. "+
			"Roll single tables back with another engine while no pipeline writes them, or begin again under another name", batch.ErrInvalid)
	}
	if err := d.identify(ctx); err != nil {
		return err
	}
	if err := d.knows(ctx, to); err != nil {
		return err
	}
	next := batch.Incarnation{
		UUID: d.inc.UUID, Name: d.inc.Name, Number: d.inc.Number + 1, ID: d.rooms.NewID(), Kind: batch.Rewind,
		Batch: to, Targets: map[string]int64{}, DropForeign: dropForeign, Checked: map[string]int64{},
	}
	for _, s := range d.sinks {
		target, head, err := d.target(ctx, s, to, dropForeign)
		if err != nil {
			return err
		}
		next.Targets[s.Name], next.Checked[s.Name] = target, head
	}
	d.inc = next
	for _, s := range d.sinks {
		target := next.Targets[s.Name]
		if err := d.retry(ctx, "the catalog", func() error { return s.Table.Pin(ctx, d.pinTag(), target) }); err != nil {
			return fmt.Errorf("pin snapshot %d of sink %s: %w", target, s.Name, err)
		}
	}
	if err := d.become(ctx, next); err != nil {
		return err
	}
	return d.anchorAll(ctx)
}

// Recover makes the stamp in the table of one sink the truth for the pipeline,
// after its checkpoint and its tables disagree: a new incarnation with that
// stamp's identity is recorded and anchored in every table.
func (d *Driver) Recover(ctx context.Context, from string) error {
	var chosen *batch.Stamp
	var number int64
	tables, err := d.tables(ctx, true)
	if err != nil {
		return err
	}
	for _, s := range tables {
		view, err := d.load(ctx, s)
		if err != nil {
			return err
		}
		if err := d.checkUntagged(s, view); err != nil {
			return err
		}
		st := view.Stamp()
		if st == nil {
			continue
		}
		number = max(number, st.Incarnation+1)
		if s.Name == from || s.whole().Name == from && (chosen == nil || st.Last > chosen.Last) || from == "" && (chosen == nil || st.Incarnation > chosen.Incarnation) {
			chosen = st
		}
	}
	if chosen == nil {
		return fmt.Errorf("%w: no table of sink %q carries a stamp of this pipeline: there is nothing to recover from", batch.ErrInvalid, from)
	}
	all, err := d.incarnations(ctx)
	if err != nil {
		return err
	}
	if len(all) > 0 {
		number = max(number, all[len(all)-1].Number+1)
	}
	next := batch.Incarnation{UUID: chosen.UUID, Name: d.opts.Name, Number: number, ID: d.rooms.NewID(), Kind: batch.Recover}
	if err := d.become(ctx, next); err != nil {
		return err
	}
	return d.anchorAll(ctx)
}

// become records an incarnation and makes sure that the record is this one.
func (d *Driver) become(ctx context.Context, next batch.Incarnation) error {
	d.inc = next
	records := d.patient(recordsServer)
	for {
		created := d.rooms.Checkpoint.CreateIncarnation(ctx, next)
		if fatal(created) {
			return fmt.Errorf("create the pipeline's record: %w", created)
		}
		all, err := d.incarnations(ctx)
		if err != nil {
			return err
		}
		for _, i := range all {
			if i.Same(next) {
				records.over()
				return nil
			}
			if i.Number >= next.Number {
				return fmt.Errorf("%w: incarnation %d was made by another process at the same time; look again with `frazil status`", batch.ErrFenced, i.Number)
			}
		}
		if created == nil {
			return fmt.Errorf("%w: the checkpoint lost the record that it acknowledged", batch.ErrDataLost)
		}
		if err := records.wait(ctx, created); err != nil {
			return err
		}
	}
}

// knows says whether there is a batch to go back to: in the log, or in a table.
func (d *Driver) knows(ctx context.Context, to batch.ID) error {
	last := batch.None
	p, err := d.newest(ctx)
	if err != nil {
		return err
	}
	if p != nil {
		last = p.Batch
	}
	for _, s := range d.sinks {
		view, err := d.load(ctx, s)
		if err != nil {
			return err
		}
		if st := view.Stamp(); st != nil {
			last = max(last, st.Last)
		}
	}
	switch {
	case last == batch.None:
		return fmt.Errorf("%w: there is no batch to go back to: the pipeline has not run", batch.ErrInvalid)
	case to > last:
		return fmt.Errorf("%w: there is no batch %d to go back to: the newest one is %d", batch.ErrInvalid, to, last)
	}
	return nil
}

// target finds the newest snapshot of a table that holds nothing behind a batch,
// from the head that it returns, too.
func (d *Driver) target(ctx context.Context, s *sink, to batch.ID, dropForeign bool) (target, head int64, err error) {
	view, err := d.load(ctx, s)
	if err != nil {
		return 0, 0, err
	}
	if streams := view.Streams(); len(streams) > 0 {
		return 0, 0, fmt.Errorf("%w: stream %s is at work in the table of sink %s: let it end first, with `frazil dead-letters SPEC --replay`; if it was given up long ago, remove its tag %s from all tables",
			batch.ErrInvalid, streams[0], s.Name, batch.Tag(d.opts.Name, streams[0]))
	}
	// Whether the tag is an ancestor of the head does not matter: from the head
	// back to the target is what the rewind undoes, and the way out of a rollback.
	oldest := batch.None
	for _, h := range view.History() {
		switch {
		case d.foreign(h):
			if d.another(h) && h.Stamp.Kind == "" {
				return 0, 0, fmt.Errorf("%w: letters were run again in the table of sink %s behind batch %d (stream %s, snapshot %d): going back would take them out of the tables, and not out of all at the same place. "+
					"Go back to a later batch", batch.ErrInvalid, s.Name, to, h.Stamp.Stream, h.Snapshot)
			}
			if !dropForeign && !d.another(h) {
				return 0, 0, fmt.Errorf("%w: snapshot %d of the table of sink %s was committed by another writer behind batch %d; going back would drop it (--drop-foreign)",
					batch.ErrDataLost, h.Snapshot, s.Name, to)
			}
		case h.Stamp.Last <= to:
			return h.Snapshot, view.Head(), nil
		default:
			oldest = h.Stamp.Last
		}
	}
	return 0, 0, fmt.Errorf("%w: the table of sink %s keeps no snapshot at or before batch %d; the oldest one is of batch %d", batch.ErrInvalid, s.Name, to, oldest)
}

// foreign says whether another writer made a snapshot.
func (d *Driver) foreign(h batch.Stamped) bool {
	return h.Stamp == nil || h.Stamp.UUID != d.inc.UUID || h.Stamp.Stream != d.opts.Stream
}

// another says whether another stream of this pipeline made a snapshot.
func (d *Driver) another(h batch.Stamped) bool {
	return h.Stamp != nil && h.Stamp.UUID == d.inc.UUID && h.Stamp.Stream != d.opts.Stream
}

// vouched says whether a rewind drops nothing of another writer: what lies
// behind the head that it checked it knew, though that may have expired since.
func (d *Driver) vouched(s *sink, view View) bool {
	for _, h := range view.History() {
		if h.Snapshot == d.inc.Checked[s.Name] {
			return true
		}
		if d.foreign(h) && !d.another(h) {
			return false
		}
	}
	return false
}

// replayedSince says whether dead letters were run again behind the head that a
// rewind checked, or may have been: then it would take them out of some tables only.
func (d *Driver) replayedSince(s *sink, view View) bool {
	checked, ok := d.inc.Checked[s.Name]
	if !ok {
		return false // of a version without them
	}
	for _, h := range view.History() {
		if h.Snapshot == checked {
			return false
		}
		if d.another(h) {
			return true
		}
	}
	return len(view.Streams()) > 0
}

// pinTag keeps the targets of a rewind from expiring. A dot cannot occur in a
// pipeline's name.
func (d *Driver) pinTag() string {
	return fmt.Sprintf("%s.rewind-%d", batch.Tag(d.opts.Name, d.opts.Stream), d.inc.Number)
}
