package verify

import (
	"strings"
	"testing"
	"time"

	"github.com/frazil-io/frazil/internal/batch"
	"github.com/frazil-io/frazil/internal/checkpoint"
)

func TestHealthy(t *testing.T) {
	t.Parallel()
	w := sqlWorld(t, 100)
	w.clean() // nothing has run
	w.runs(3)
	w.clean()
	w.runs(3) // with another topic
	w.run(0)  // nothing to commit
	w.run(0)
	w.runs(2)
	r := w.clean()
	if len(r.Tables[0].Checks) < 5 || r.Tables[0].Rows == 0 {
		t.Fatalf("%+v", r.Tables[0])
	}
	back := w.history()[3].SnapshotID
	w.begin(batch.Rewind, back)
	w.clean()
	w.runs(3)
	w.clean()
	w.begin(batch.Recover, 0)
	w.clean()
	w.runs(2)
	w.clean()
	w.planNext(10) // logged, and not committed yet
	w.clean()
}

// TestManyBatches: expiry removes snapshots and purging removes plans, and totals
// close over them; in seconds.
func TestManyBatches(t *testing.T) {
	t.Parallel()
	w := sqlWorld(t, 20)
	w.keep = 100
	w.cp = checkpoint.New(&memoryStore{objects: map[string][]byte{}}, "p")
	w.must(w.cp.CreateIncarnation(w.ctx, w.inc))
	for i := range 2000 {
		w.run(int64(i%4) / 3)
		if i%50 == 0 {
			w.must(w.cp.Purge(w.ctx, w.inc, w.batch-batch.ID(w.keep)))
		}
	}
	begun := time.Now()
	r := w.clean()
	t.Logf("%v for %+v\n%s", time.Since(begun), r.Tables[0].Checks, strings.Join(r.Tables[0].Notes, "\n"))
	if live := len(w.history()); live < 30 || live > 60 {
		t.Fatalf("%d snapshots are live: expiry did not run, or hourly ones are gone", live)
	}
	if !strings.Contains(strings.Join(r.Tables[0].Notes, "\n"), "covered by totals") {
		t.Error("nothing expired")
	}
}
