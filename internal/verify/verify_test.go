package verify

import (
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/apache/iceberg-go/table"

	"github.com/frazil-io/frazil/internal/batch"
	"github.com/frazil-io/frazil/internal/checkpoint"
	"github.com/frazil-io/frazil/internal/lake"
	"github.com/frazil-io/frazil/test/fakes"
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
	w.must(w.cp.CreateIncarnation(w.Context(), w.inc))
	for i := range 2000 {
		w.run(int64(i%4) / 3)
		if i%50 == 0 {
			w.must(w.cp.Purge(w.Context(), w.inc, w.batch-batch.ID(w.keep)))
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

// TestOrphansOfExpiry: an expiry by pyiceberg leaves no parent to the snapshots whose
// parents it removed. Nothing is wrong then; and where it removed what was between the
// head and the tag, nobody can say whether the table was rolled back.
func TestOrphansOfExpiry(t *testing.T) {
	t.Parallel()
	w := sqlWorld(t, 100)
	w.now, w.step = time.Now().UTC(), time.Millisecond
	w.runs(6)
	w.orphaned(4)
	r := w.clean()
	if !strings.Contains(strings.Join(r.Tables[0].Notes, "\n"), "covered by totals") {
		t.Errorf("notes %q", r.Tables[0].Notes)
	}
	w.runs(1)
	w.clean()
	w.foreign(1)
	w.foreign(1)
	w.removed(3)
	w.metadata(func(meta map[string]any) { delete(meta["snapshots"].([]any)[3].(map[string]any), "parent-snapshot-id") })
	w.finds(RolledBack, "cannot be told")
}

// TestREST: the same through a REST catalog, whose tables are loaded over HTTP.
func TestREST(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	server := fakes.NewREST(t, "file://"+filepath.Join(dir, "wh"), "", nil)
	c, err := lake.Open(t.Context(), lake.Options{Name: "lake", Type: "rest", URI: server.URL})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	w := newWorld(t, c, dir, 100)
	w.now, w.step = time.Now().UTC(), time.Millisecond
	w.runs(5)
	w.clean()
	w.remove(w.dataFiles(w.history()[2])[0])
	w.finds(MissingFile, "the data file")
	head := w.history()[1].SnapshotID
	w.commit(table.NewSetSnapshotRefUpdate("main", head, table.BranchRef, 0, 0, 0))
	w.finds(RolledBack, "does not descend from")
}
