package pipeline

import (
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/apache/iceberg-go/table"

	"github.com/frazil-io/frazil/internal/batch"
	"github.com/frazil-io/frazil/internal/lake"
	"github.com/frazil-io/frazil/internal/verify"
)

// tamperer changes one of the tables of a pipeline.
type tamperer struct {
	*routing
	catalog *lake.Catalog
}

var calm = table.Identifier{"raw", "ev_calm"}

func (r tamperer) load() table.Metadata {
	r.Helper()
	t, err := r.catalog.Load(r.Context(), calm)
	if err != nil {
		r.Fatal(err)
	}
	return t.Metadata()
}

func (r tamperer) commit(updates ...table.Update) {
	r.Helper()
	if _, err := r.catalog.Commit(r.Context(), calm, nil, updates); err != nil {
		r.Fatal(err)
	}
}

func (r tamperer) drop() {
	r.Helper()
	if err := r.catalog.DropTable(r.Context(), calm); err != nil {
		r.Fatal(err)
	}
}

// file is one of the checkpoint.
func (r tamperer) file(name string) string {
	return filepath.Join(r.dir, "checkpoint", "routes", name, "raw", "raw.ev_calm")
}

// again adds the newest snapshot once more, with another stamp, and moves the tag.
func (r tamperer) again(change func(*batch.Stamp)) {
	r.Helper()
	meta := r.load()
	s := *meta.CurrentSnapshot()
	head := s.SnapshotID
	st, err := batch.ParseStamp(s.Summary.Properties)
	if err != nil {
		r.Fatal(err)
	}
	change(st)
	props := maps.Clone(s.Summary.Properties)
	maps.Copy(props, st.Properties())
	s.SnapshotID, s.ParentSnapshotID, s.SequenceNumber, s.TimestampMs = 77, &head, meta.LastSequenceNumber()+1, max(time.Now().UnixMilli(), meta.LastUpdatedMillis())
	s.Summary = &table.Summary{Operation: s.Summary.Operation, Properties: props}
	r.commit(table.NewAddSnapshotUpdate(&s), table.NewSetSnapshotRefUpdate("main", 77, table.BranchRef, 0, 0, 0),
		table.NewSetSnapshotRefUpdate(batch.Tag("routes", batch.StreamMain), 77, table.TagRef, 0, 0, 0))
}

// first is the snapshot that a table began with.
func (r tamperer) first() int64 { return r.load().Snapshots()[0].SnapshotID }

// TestRoutesTampering: what is done to a table that rests is found and named; what
// is noted as meant is not.
func TestRoutesTampering(t *testing.T) {
	t.Parallel()
	refs := func(r tamperer, names ...string) {
		id := r.first()
		for _, name := range names {
			kind := table.TagRef
			if name == "main" {
				kind = table.BranchRef
			}
			r.commit(table.NewSetSnapshotRefUpdate(name, id, kind, 0, 0, 0))
		}
	}
	for _, tt := range []struct {
		name  string
		plant func(r tamperer)
		code  verify.Code
		text  string
	}{
		{"a dropped table", func(r tamperer) { r.drop() }, verify.MissingTable, "had committed batch 2 to it"},
		{"a dropped table that nothing lists", func(r tamperer) {
			r.drop()
			if err := os.Remove(r.file("tables")); err != nil {
				r.Fatal(err)
			}
		}, verify.MissingTable, "a table was dropped or rolled back"},
		{"a dropped table, on purpose", func(r tamperer) {
			r.drop()
			if err := os.MkdirAll(filepath.Dir(r.file("dropped")), 0o700); err != nil {
				r.Fatal(err)
			}
			if err := os.Rename(r.file("tables"), r.file("dropped")); err != nil {
				r.Fatal(err)
			}
		}, "", ""},
		{"a table rolled back together with its tag", func(r tamperer) { refs(r, "main", "frazil-routes") }, verify.TwoHistories, "says that it has batch 2"},
		{"a rolled back table", func(r tamperer) { refs(r, "main") }, verify.RolledBack, "does not descend from"},
		{"a moved tag", func(r tamperer) { refs(r, "frazil-routes") }, verify.MovedTag, "carries a newer stamp, batch 2"},
		{"a removed tag", func(r tamperer) { r.commit(table.NewRemoveSnapshotRefUpdate("frazil-routes")) }, verify.TwoHistories, "carries no stamp"},
		{"a removed snapshot", func(r tamperer) {
			r.commit(table.NewRemoveSnapshotsUpdate([]int64{r.load().Snapshots()[1].SnapshotID}, false))
		}, verify.RemovedSnapshot, "batches 1..1"},
		{"a doubled batch", func(r tamperer) { r.again(func(*batch.Stamp) {}) }, verify.DoubledBatch, "carries the same stamp"},
		{"a batch that nobody planned", func(r tamperer) {
			r.again(func(st *batch.Stamp) {
				st.Previous, st.First, st.Last, st.Start = st.Hash(), st.Last+1, st.Last+1, st.End
				st.Total = st.Total.Plus(st.Counts)
			})
		}, verify.WrongRows, "rows are in two of them"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := newRouting(t, "ev.calm", "ev.busy")
			spec := r.spec(100, "")
			for n := range 6 {
				if n < 3 {
					r.produce("ev.calm", "raw.ev_calm", 2)
				}
				r.produce("ev.busy", "raw.ev_busy", 2)
				if err := r.run(spec, "", 0); err != nil {
					t.Fatal(err)
				}
			}
			p, err := New(t.Context(), spec, Options{})
			if err != nil {
				t.Fatal(err)
			}
			defer p.Close()
			r.verified(p)
			c, err := p.Catalog(t.Context(), "lake")
			if err != nil {
				t.Fatal(err)
			}
			tt.plant(tamperer{r, c})
			report, err := p.Verify(t.Context(), time.Now(), false)
			if err != nil {
				t.Fatal(err)
			}
			found := tt.code == "" && report.Clean
			for _, table := range report.Tables {
				for _, f := range table.Findings {
					t.Logf("%s: %s: %s: %s", table.Table, f.Code, f.Where, f.What)
					found = found || f.Code == tt.code && strings.Contains(f.What, tt.text)
				}
			}
			if !found {
				t.Errorf("%s with %q was not found", tt.code, tt.text)
			}
		})
	}
}

// TestRoutesStray: rows that a batch gives for a table that its plan does not name,
// when it is run again, are found and named.
func TestRoutesStray(t *testing.T) {
	t.Parallel()
	r := newRouting(t, "ev.a")
	r.produce("ev.a", "raw.ev_a", 3)
	spec := r.spec(100, "")
	if err := r.run(spec, "", 0); err != nil {
		t.Fatal(err)
	}
	p, err := New(t.Context(), r.with("SELECT id, CASE WHEN id = 2 THEN 'ev9' ELSE _topic END AS _topic FROM events", ""), Options{ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	p.spec = spec // as if the same SQL gave something else
	report, err := p.Verify(t.Context(), time.Now(), true)
	if err != nil {
		t.Fatal(err)
	}
	stray := 0
	for _, table := range report.Tables {
		for _, f := range table.Findings {
			if f.Code == verify.RowsDiffer && strings.Contains(f.What, "gives 1 rows for table raw.ev9") && strings.Contains(f.What, "its plan does not name that table") {
				stray++
			}
		}
	}
	if stray != 1 || report.Clean {
		t.Errorf("%d tables are named that the plan does not: %+v", stray, report)
	}
}
