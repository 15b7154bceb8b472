package verify

import (
	"strings"
	"testing"

	"github.com/google/uuid"

	"github.com/frazil-io/frazil/internal/batch"
	"github.com/frazil-io/frazil/internal/sink"
)

// stage leaves a batch of 10 offsets in each partition on the branch for audits,
// as a rule that holds it back does. finish commits it, as after a correction.
func (w *world) stage() (staged int64, finish func()) {
	w.Helper()
	w.now = w.now.Add(w.step)
	p := w.planNext(10)
	written := func() (*batch.Stamp, *sink.Files) {
		attempt, counts := uuid.NewString(), counted(p)
		return w.stamp(p, attempt, counts), w.write(attempt, counts.Written)
	}
	st, files := written()
	staged, err := w.view().Stage(w.Context(), st, files)
	w.must(err)
	return staged, func() {
		st, files := written()
		id, err := w.view().Commit(w.Context(), st, files)
		w.must(err)
		w.done(p, st, id, st.Counts)
	}
}

// TestStagedBranchDropped: what was staged and lost its branch to another engine
// is in the table's metadata for a while, and is no part of the table.
func TestStagedBranchDropped(t *testing.T) {
	w := sqlWorld(t, 100)
	w.runs(3)
	staged, finish := w.stage()
	w.clean()
	w.refs(-1, batch.AuditBranch("frazil-p"))
	finish()
	w.runs(1)
	if r := w.clean(); !strings.Contains(strings.Join(r.Tables[0].Notes, "\n"), "it was staged for an audit, and the branch was dropped") || w.load().Metadata().SnapshotByID(staged) == nil {
		t.Errorf("nothing is said of what was staged: %q", r.Tables[0].Notes)
	}
}

// TestPublishedByHand: the branch was moved to what an audit held back. The rows
// are in the table, and the tag does not say so.
func TestPublishedByHand(t *testing.T) {
	w := sqlWorld(t, 100)
	w.runs(3)
	w.stage()
	w.refs(len(w.history())-1, "main")
	w.finds(MovedTag, "carries a newer stamp")
	for _, f := range all(w.verify()) {
		if f.Code != MovedTag {
			t.Errorf("found %s: %s: %s", f.Code, f.Where, f.What)
		}
	}
}
