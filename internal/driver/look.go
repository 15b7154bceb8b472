package driver

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/frazil-io/frazil/internal/batch"
)

// fatal says whether an error is the end of a driver, not of a try.
func fatal(err error) bool {
	return err != nil && !errors.Is(err, batch.ErrUnavailable)
}

func (d *Driver) load(ctx context.Context, s *sink) (view View, err error) {
	err = d.retry(ctx, "the catalog", func() error { view, err = s.Table.Load(ctx); return err })
	if err != nil {
		return nil, fmt.Errorf("load the table of sink %s: %w", s.Name, err)
	}
	s.see(view)
	return view, nil
}

// see notes what this process saw first in a table.
func (s *sink) see(view View) {
	if s.found == nil {
		found := view.Stamp().Hash()
		s.found = &found
	}
}

// views loads tables. Where a sink feeds many, several are loaded beside each other;
// what comes to nothing there is tried again in turn, with patience.
func (d *Driver) views(ctx context.Context, tables []*sink) ([]View, error) {
	views := make([]View, len(tables))
	if d.routes() && len(tables) > 1 {
		d.beside(len(tables), func(i int) bool {
			view, err := tables[i].Table.Load(ctx)
			if err != nil {
				return false
			}
			views[i] = view
			return true
		})
	}
	for i, s := range tables {
		if views[i] != nil {
			s.see(views[i])
			continue
		}
		var err error
		if views[i], err = d.load(ctx, s); err != nil {
			return nil, err
		}
	}
	return views, nil
}

// look loads the table of a sink and returns the stamp that p's commit left
// there; nil where the tag still carries the stamp before p. Anything else ends
// the driver: it is fenced, or two histories disagree.
func (d *Driver) look(ctx context.Context, p *batch.Plan, s *sink, sp *batch.SinkPlan) (View, *batch.Stamp, error) {
	return d.lookFrom(ctx, p, s, sp, nil)
}

// lookFrom is look, at a table that was loaded already where view is not nil.
func (d *Driver) lookFrom(ctx context.Context, p *batch.Plan, s *sink, sp *batch.SinkPlan, view View) (View, *batch.Stamp, error) {
	if view == nil {
		var err error
		if view, err = d.load(ctx, s); err != nil {
			return nil, nil, err
		}
	}
	if err := d.checkAncestry(ctx, s, view); err != nil {
		return nil, nil, err
	}
	if err := d.checkUntagged(s, view); err != nil {
		return nil, nil, err
	}
	st := view.Stamp()
	if st.Hash() == sp.Before.Hash {
		return view, nil, nil
	}
	if st != nil && st.Of(d.inc, d.opts.Stream) && st.First <= p.Batch && p.Batch <= st.Last {
		logged, err := d.isRevision(ctx, p, st.Plan)
		if err != nil {
			return nil, nil, err
		}
		if logged {
			return view, st, nil
		}
	}
	if s.of != nil && sp.Before.Hash == "" && d.emptyAnchor(st) {
		return nil, nil, errAnchored
	}
	return nil, nil, d.disagree(ctx, p, s, sp, st)
}

// errAnchored says that a driver that was slow to bring its tables into this
// incarnation found one there that another driver had just made for a batch: the
// batch's plan says that it has no tag.
var errAnchored = errors.New("the table was anchored after the batch was planned")

// emptyAnchor says whether a stamp is the anchor, in this incarnation, of a table
// that had none.
func (d *Driver) emptyAnchor(st *batch.Stamp) bool {
	return st != nil && st.Of(d.inc, d.opts.Stream) && st.Kind != "" && st.Last == batch.None
}

// revisions are the hashes of what is known to be logged of a batch.
type revisions struct {
	incarnation string
	batch       batch.ID
	hashes      []string
}

// isRevision says whether a plan is a logged revision of p's batch. What was found
// once is true for ever, and a batch may be in a thousand tables: the log, whose
// plans name them all, is not read again for each.
func (d *Driver) isRevision(ctx context.Context, p *batch.Plan, plan string) (bool, error) {
	if was := d.revised; was.incarnation == d.inc.ID && was.batch == p.Batch && slices.Contains(was.hashes, plan) {
		return true, nil
	}
	logged, err := d.revisions(ctx, p)
	if err != nil {
		return false, err
	}
	now := revisions{incarnation: d.inc.ID, batch: p.Batch}
	for _, q := range logged {
		now.hashes = append(now.hashes, q.Hash())
	}
	d.revised = now
	return slices.Contains(now.hashes, plan), nil
}

func (d *Driver) revisions(ctx context.Context, p *batch.Plan) (logged []*batch.Plan, err error) {
	err = d.retry(ctx, "the checkpoint", func() error {
		logged, err = d.rooms.Checkpoint.Revisions(ctx, d.inc, p.Batch)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read the log: %w", err)
	}
	return append(logged, p), nil
}

// disagree finds out why a table carries neither the stamp before p nor p's.
func (d *Driver) disagree(ctx context.Context, p *batch.Plan, s *sink, sp *batch.SinkPlan, st *batch.Stamp) error {
	if st != nil && st.UUID == d.inc.UUID && d.inc.Newer(st.Incarnation, st.IncarnationID) {
		return fmt.Errorf("%w: the table of sink %s carries incarnation %d-%s, this driver is of %d-%s", batch.ErrFenced,
			s.Name, st.Incarnation, st.IncarnationID, d.inc.Number, d.inc.ID)
	}
	if err := d.checkIncarnation(ctx); err != nil {
		return err
	}
	if st != nil && st.UUID != d.inc.UUID {
		return fmt.Errorf("%w: the table of sink %s carries the stamp of another pipeline: %s. If the checkpoint was lost, `frazil checkpoint recover` takes the table's; "+
			"else give this pipeline another name or table", batch.ErrDataLost, s.Name, st)
	}
	newest, err := d.newest(ctx)
	if err != nil {
		return err
	}
	if newest == nil || newest.Entry > p.Entry {
		return fmt.Errorf("%w: another driver has logged a newer plan", batch.ErrFenced)
	}
	return fmt.Errorf("%w: two histories: batch %d of sink %s expects the stamp of batch %d (%.12s) in the table, but its tag %s carries %s. "+
		"The table or the checkpoint was restored, or another pipeline writes here; `frazil status` shows both, `frazil checkpoint recover` takes the table's",
		batch.ErrDataLost, p.Batch, s.Name, sp.Before.Last, sp.Before.Hash, batch.Tag(d.opts.Name, d.opts.Stream), st)
}

// checkUntagged stops where a table without our tag has snapshots with our
// stamps: somebody removed the tag, and batches could go in twice. The stamps
// are known by the pipeline's name, as the tag is: its UUID may be lost with the
// checkpoint.
func (d *Driver) checkUntagged(s *sink, view View) error {
	if view.Stamp() != nil || d.rooms.Replay != nil { // what a run has done is marked
		return nil
	}
	for _, h := range view.History() {
		if h.Stamp != nil && h.Stamp.Name == d.opts.Name && h.Stamp.Stream == d.opts.Stream {
			return fmt.Errorf("%w: the tag %s of the table of sink %s is gone, but snapshot %d carries %s: put the tag back on the newest stamped snapshot; "+
				"to begin again beside what is there, give the pipeline another name", batch.ErrDataLost,
				batch.Tag(d.opts.Name, d.opts.Stream), s.Name, h.Snapshot, h.Stamp)
		}
	}
	return nil
}

// checkAncestry stops when the tagged snapshot is not part of the table any more, or
// when the branch has behind it what is a batch's of this pipeline.
func (d *Driver) checkAncestry(ctx context.Context, s *sink, view View) error {
	if err := d.checkTag(s, view); err != nil {
		return err
	}
	return d.checkCopied(ctx, s, view)
}

// checkTag is what of checkAncestry the table's metadata alone says.
func (d *Driver) checkTag(s *sink, view View) error {
	switch view.Ancestry() {
	case batch.NotAncestor:
		if s.of != nil {
			return fmt.Errorf("%w: table %s of sink %s was rolled back behind what this pipeline committed (%s). "+
				"Roll it forward again: move its branch back to the snapshot of tag %s", batch.ErrDataLost, s.table, s.of.Name, view.Stamp(), batch.Tag(d.opts.Name, d.opts.Stream))
		}
		return fmt.Errorf("%w: the table of sink %s was rolled back behind what this pipeline committed (%s). "+
			"Roll it forward again, or go back with it: `frazil checkpoint rewind`", batch.ErrDataLost, s.Name, view.Stamp())
	case batch.UnknownAncestor:
		if !d.adopts(s, view) {
			return fmt.Errorf("%w: whether the table of sink %s was rolled back cannot be told: snapshots of other writers between its head and tag %s have expired. "+
				"If nobody rolled it back, go on with `--adopt %s@%d`", batch.ErrDataLost, s.Name, batch.Tag(d.opts.Name, d.opts.Stream), s.Name, view.Head())
		}
	case batch.IsAncestor:
	}
	return d.checkClaimed(s, view)
}

// checkClaimed stops where the branch has snapshots with our stamps behind the
// tag. A commit moves both, so somebody else put them there, as one does who
// publishes a batch that an audit held back by moving the branch: the pipeline
// would commit its rows once more.
func (d *Driver) checkClaimed(s *sink, view View) error {
	if view.Stamp() == nil || view.Head() == view.Tagged() {
		return nil
	}
	tag := batch.Tag(d.opts.Name, d.opts.Stream)
	for _, h := range view.History() {
		if h.Snapshot == view.Tagged() {
			return nil
		}
		if h.Stamp != nil && h.Stamp.Name == d.opts.Name && h.Stamp.Stream == d.opts.Stream {
			return fmt.Errorf("%w: the branch of the table of sink %s has snapshot %d with batches %d..%d of this pipeline, but tag %s is still on snapshot %d: another engine moved the branch, or the tag. "+
				"If these rows shall stay, put the tag on snapshot %d; else roll the branch back to snapshot %d. Then start again",
				batch.ErrDataLost, s.Name, h.Snapshot, h.Stamp.First, h.Stamp.Last, tag, view.Tagged(), h.Snapshot, view.Tagged())
		}
	}
	return nil
}

// checkCopied stops where another writer put files of a batch on the branch that is
// not committed, as one does who cherry-picks what an audit held back: the copy has
// no stamp, so the pipeline would commit the rows once more.
func (d *Driver) checkCopied(ctx context.Context, s *sink, view View) error {
	if d.rooms.Replay != nil { // the tag of a run says nothing of the pipeline's batches
		return nil
	}
	var copies []batch.Copy
	err := d.retry(ctx, "the catalog", func() (err error) { copies, err = view.Copied(ctx); return err })
	if err != nil || len(copies) == 0 {
		return err
	}
	var attempts []batch.Attempt // those of another pipeline that writes here are not ours to judge
	err = d.retry(ctx, "the checkpoint", func() (err error) { attempts, err = d.rooms.Checkpoint.Attempts(ctx); return err })
	if err != nil {
		return err
	}
	for _, c := range copies {
		if !c.Staged && !slices.ContainsFunc(attempts, func(a batch.Attempt) bool { return a.Name == c.Attempt }) {
			continue
		}
		return fmt.Errorf("%w: snapshot %d of the table of sink %s has %d rows of a batch that this pipeline has not committed (attempt %s): another writer put them there, as cherrypick_snapshot does with a batch that an audit held back, and the batch would go in twice. "+
			"Roll the branch back to snapshot %d, or delete these rows; where others have committed since, `frazil checkpoint rewind --drop-foreign` takes out theirs, too. Then start again: the pipeline commits the batch itself; to publish it as it is, take the rule out",
			batch.ErrDataLost, c.Snapshot, s.Name, c.Rows, c.Attempt, c.Parent)
	}
	return nil
}

// adopts says whether the operator vouched for this table as it is: for a head
// by its number, and what was built on it, while the tag is where this process
// found it. A rollback that comes later is another matter.
func (d *Driver) adopts(s *sink, view View) bool {
	return view.Stamp().Hash() == *s.found && slices.ContainsFunc(view.History(), func(h batch.Stamped) bool {
		return slices.Contains(d.opts.Adopt, fmt.Sprintf("%s@%d", s.Name, h.Snapshot))
	})
}
