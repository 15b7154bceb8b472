package driver

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/frazil-io/frazil/internal/batch"
)

// Attempts that cannot be swept yet are looked at again after sweepAgain. One of
// a process that may still live somewhere keeps its note, and is swept again and
// again, until it is older than attemptAge: no batch takes that long.
const (
	sweepAgain = 10 * time.Minute
	attemptAge = 24 * time.Hour
)

// sweeper is what the driver knows of attempts that may have left files.
type sweeper struct {
	mu      sync.Mutex
	due     bool            // attempts may be registered that nobody will commit
	next    time.Time       // when to look again at those that had to stay; zero: there are none
	busy    bool            // a sweep is under way
	writing map[string]bool // attempts that this process executes now
}

// orphaned notes that an attempt may be left.
func (d *Driver) orphaned() {
	d.sweeps.mu.Lock()
	defer d.sweeps.mu.Unlock()
	d.sweeps.due = true
}

// writes notes that this process begins to write files of an attempt, or ends.
func (d *Driver) writes(attempt string, now bool) {
	d.sweeps.mu.Lock()
	defer d.sweeps.mu.Unlock()
	if now {
		d.sweeps.writing[attempt] = true
	} else {
		delete(d.sweeps.writing, attempt)
	}
}

// beginSweep says whether there is something to sweep and nobody does it.
func (d *Driver) beginSweep() bool {
	d.sweeps.mu.Lock()
	defer d.sweeps.mu.Unlock()
	w := &d.sweeps
	if w.busy || !w.due && (w.next.IsZero() || d.rooms.Clock.Now().Before(w.next)) {
		return false
	}
	w.busy, w.due, w.next = true, false, time.Time{}
	return true
}

func (d *Driver) endSweep(stay bool) {
	d.sweeps.mu.Lock()
	defer d.sweeps.mu.Unlock()
	d.sweeps.busy = false
	if stay {
		d.sweeps.next = d.rooms.Clock.Now().Add(sweepAgain)
	}
}

// sweepOrphans deletes the files of attempts that can never land any more. It
// runs behind a batch. What cannot be swept now stays registered.
func (d *Driver) sweepOrphans(ctx context.Context) {
	if !d.beginSweep() {
		return
	}
	stay := true
	defer func() { d.endSweep(stay) }()
	attempts, err := d.rooms.Checkpoint.Attempts(ctx)
	if err != nil {
		d.log.Debug("attempts were not listed; they are swept later", "error", err)
		return
	}
	stay = false
	tags := map[string]string{}
	for _, a := range attempts {
		if ctx.Err() != nil {
			return
		}
		stay = !d.sweep(ctx, a, tags) || stay
	}
}

// sweep deletes an attempt's files in the tables where no request can name them
// any more: the tag carries a stamp that it does not wait for. A reload that
// merely shows no stamp of the attempt would prove nothing: its commit may still
// be on its way, and asserts the tag. Nor does a table without a tag: it may have
// been removed, and be put back. tags are those that this sweep has seen; they
// were loaded after the attempts were listed, so none is older than the attempt.
//
// It says whether nothing is left that this process could do later.
func (d *Driver) sweep(ctx context.Context, a batch.Attempt, tags map[string]string) (done bool) {
	d.sweeps.mu.Lock()
	writing := d.sweeps.writing[a.Name]
	d.sweeps.mu.Unlock()
	if writing {
		return false
	}
	done, whole := true, true
	for name, waits := range a.Waits {
		s := d.named(name)
		if s == nil {
			whole = false // its sink is not in the spec any more: a later spec may have it
			continue
		}
		if !d.sweepTable(ctx, s, a.Name, waits, tags) {
			done = false
		}
	}
	if !done || !whole {
		return done
	}
	if err := d.rooms.Executor.Sweep(ctx, a.Name); err != nil {
		return false
	}
	return d.silent(a) && d.rooms.Checkpoint.Forget(ctx, a.Name) == nil
}

func (d *Driver) sweepTable(ctx context.Context, s *sink, attempt string, waits []string, tags map[string]string) (done bool) {
	tag, ok := tags[s.Name]
	if !ok {
		view, err := s.Table.Load(ctx)
		if s.of != nil && errors.Is(err, batch.ErrDataLost) {
			return true // the attempt died before it made the table
		}
		if err != nil {
			return false
		}
		tag = view.Stamp().Hash()
		tags[s.Name] = tag
	}
	// What a run of dead letters sends to one of many tables waits for its anchor
	// there: it never waits for no tag.
	ended := tag == "" && s.of != nil && d.rooms.Replay != nil
	if tag == "" && !ended || slices.Contains(waits, tag) {
		return false
	}
	if err := s.Table.Sweep(ctx, attempt); err != nil {
		d.log.Debug("files were not swept; later", "attempt", attempt, "error", err)
		return false
	}
	return true
}

// silent says whether an attempt's process writes no more of its files: it is
// this one, it is gone, or the attempt began too long ago. An overtaken driver
// may write until it sees that it is.
func (d *Driver) silent(a batch.Attempt) bool {
	switch {
	case a.Writer.ID == d.opts.Writer.ID, d.rooms.Clock.Now().Sub(a.Time) >= attemptAge:
		return true
	default:
		return a.Writer.Host == d.opts.Writer.Host && !d.rooms.Alive(a.Writer)
	}
}

// discard deletes the files of an attempt that was never sent to a table, so that
// they do not pile up while a batch goes on failing. What cannot be deleted now
// stays registered.
func (d *Driver) discard(ctx context.Context, r *prepared) {
	if d.discarded(ctx, r) {
		return
	}
	d.log.Debug("an attempt was not swept; later", "attempt", r.attempt)
	d.orphaned()
}

func (d *Driver) discarded(ctx context.Context, r *prepared) bool {
	if ctx.Err() != nil {
		return false
	}
	r.mu.Lock()
	tables := r.tables
	r.mu.Unlock()
	for _, s := range tables {
		err := s.Table.Sweep(ctx, r.attempt)
		if s.of != nil && errors.Is(err, batch.ErrDataLost) {
			continue // it was never made
		}
		if err != nil {
			return false
		}
	}
	return d.rooms.Executor.Sweep(ctx, r.attempt) == nil && d.rooms.Checkpoint.Forget(ctx, r.attempt) == nil
}
