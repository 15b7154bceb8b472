package pipeline

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/apache/iceberg-go"
	"github.com/apache/iceberg-go/table"

	"github.com/frazil-io/frazil/internal/batch"
	"github.com/frazil-io/frazil/internal/config"
	"github.com/frazil-io/frazil/internal/lake"
)

// with is the spec with another SELECT.
func (r *routing) with(sql, more string) *config.Spec {
	r.Helper()
	spec := r.spec(100, more)
	raw := spec.Sinks.By["raw"]
	raw.SQL = sql
	spec.Sinks.By["raw"] = raw
	return spec
}

// lake opens the catalog as anybody would.
func (r *routing) lake() *lake.Catalog {
	r.Helper()
	c, err := lake.Open(r.Context(), lake.Options{Name: "lake", Type: "sql", URI: filepath.Join(r.dir, "catalog.db"), Warehouse: filepath.Join(r.dir, "warehouse")})
	if err != nil {
		r.Fatal(err)
	}
	r.Cleanup(c.Close)
	return c
}

// holds finds what was produced in the tables, and what verify says: not --deep, which
// names the batches of a table from before it was made again.
func (r *routing) holds(spec *config.Spec) {
	r.Helper()
	p, err := New(r.Context(), spec, Options{ReadOnly: true, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		r.Fatal(err)
	}
	defer p.Close()
	report, err := p.Verify(r.Context(), time.Now(), false)
	if err != nil || !report.Clean {
		r.Errorf("the audit says %+v: %v", report, err)
	}
	for name, want := range r.want {
		if ids, _ := r.read(p, name); !slices.Equal(ids, slices.Sorted(slices.Values(want))) {
			r.Errorf("table %s has %v, not %v", name, ids, want)
		}
	}
}

// TestRoutesEvolve: each table takes a new column, and a wider one, with its first
// rows that need it, through deaths between the commits of a batch, and a table that
// rested meanwhile takes all at once.
func TestRoutesEvolve(t *testing.T) {
	t.Parallel()
	r := newRouting(t, "ev.a", "ev-B", "evc")
	const more = ", evolve: widen"
	specs := []*config.Spec{
		r.with("SELECT id, _topic, 1::INTEGER AS n FROM events", more),
		r.with("SELECT id, _topic, 1::INTEGER AS n, 'x' AS note FROM events", more),
		r.with("SELECT id, _topic, 1::BIGINT AS n, 'x' AS note, 1.5::DOUBLE AS extra FROM events", more),
	}
	run := func(spec *config.Spec, deaths ...string) {
		t.Helper()
		for _, at := range deaths {
			if err := r.run(spec, at, 1); !errors.Is(err, errDied) && err != nil {
				t.Fatalf("at %q: %v", at, err)
			}
		}
		if err := r.run(spec, "", 0); err != nil {
			t.Fatal(err)
		}
		r.holds(spec)
	}
	columns := func(name string) (names string) {
		t.Helper()
		tbl, err := r.lake().Load(t.Context(), table.Identifier{"raw", name})
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range tbl.Schema().Fields() {
			names += fmt.Sprintf("%d %s %s, ", f.ID, f.Name, f.Type)
		}
		return names
	}
	first := func() string { return columns("evc") }
	for _, topic := range [][2]string{{"ev.a", "raw.ev_a"}, {"ev-B", "raw.ev_b"}, {"evc", "raw.evc"}} {
		r.produce(topic[0], topic[1], 3)
	}
	run(specs[0], "commit sent", "files written")
	before := first()
	r.produce("ev.a", "raw.ev_a", 3)
	r.produce("ev-B", "raw.ev_b", 3)
	run(specs[1], "commit applied", "commit sent")
	if first() != before || !strings.HasSuffix(columns("ev_a"), "3 n int, 4 note string, ") {
		t.Errorf("evc has %s, ev_a has %s", first(), columns("ev_a"))
	}
	r.produce("ev.a", "raw.ev_a", 3)
	r.produce("evc", "raw.evc", 3)
	run(specs[2], "files written", "commit applied")
	if want := "1 id long, 2 _topic string, 3 n long, 4 note string, 5 extra double, "; columns("ev_a") != want || first() != want {
		t.Errorf("evc has %s, ev_a has %s", first(), columns("ev_a"))
	}
	r.produce("ev-B", "raw.ev_b", 3)
	run(specs[2], "commit applied")
}

// TestRoutesByHand: what others do to a table that rows choose stops the pipeline with
// a reason, and once it is undone the pipeline goes on.
func TestRoutesByHand(t *testing.T) {
	t.Parallel()
	b := table.Identifier{"raw", "ev_b"}
	for _, tt := range []struct {
		name     string
		do, undo func(r *routing, c *lake.Catalog)
		is       error
		says     string
	}{
		{"rolled back", func(r *routing, c *lake.Catalog) {
			tbl, err := c.Load(r.Context(), b)
			if err == nil {
				_, err = c.Commit(r.Context(), b, nil, []table.Update{table.NewSetSnapshotRefUpdate("main", tbl.Metadata().Snapshots()[0].SnapshotID, table.BranchRef, 0, 0, 0)})
			}
			if err != nil {
				r.Fatal(err)
			}
		}, func(r *routing, c *lake.Catalog) {
			tbl, err := c.Load(r.Context(), b)
			if err == nil {
				_, err = c.Commit(r.Context(), b, nil, []table.Update{table.NewSetSnapshotRefUpdate("main", tbl.SnapshotByName("frazil-routes").SnapshotID, table.BranchRef, 0, 0, 0)})
			}
			if err != nil {
				r.Fatal(err)
			}
		}, batch.ErrDataLost, "move its branch back to the snapshot of tag frazil-routes"},
		{"dropped", func(r *routing, c *lake.Catalog) {
			if err := c.DropTable(r.Context(), b); err != nil {
				r.Fatal(err)
			}
		}, func(r *routing, _ *lake.Catalog) { // it was on purpose; rows for it make it again
			checkpoint := filepath.Join(r.dir, "checkpoint", "routes")
			if err := os.MkdirAll(filepath.Join(checkpoint, "dropped", "raw"), 0o700); err != nil {
				r.Fatal(err)
			}
			if err := os.Rename(filepath.Join(checkpoint, "tables", "raw", "raw.ev_b"), filepath.Join(checkpoint, "dropped", "raw", "raw.ev_b")); err != nil {
				r.Fatal(err)
			}
			r.want["raw.ev_b"] = r.want["raw.ev_b"][4:]
		}, batch.ErrDataLost, "which rows of sink raw chose, does not exist any more"},
		{"somebody's, with other columns", func(r *routing, c *lake.Catalog) {
			schema := iceberg.NewSchema(0, iceberg.NestedField{ID: 1, Name: "id", Type: iceberg.PrimitiveTypes.String})
			if _, err := c.CreateTable(r.Context(), table.Identifier{"raw", "evc"}, schema); err != nil {
				r.Fatal(err)
			}
			r.produce("evc", "raw.evc", 2)
		}, func(r *routing, c *lake.Catalog) {
			if err := c.DropTable(r.Context(), table.Identifier{"raw", "evc"}); err != nil {
				r.Fatal(err)
			}
		}, batch.ErrInvalid, "raw.evc"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := newRouting(t, "ev.a", "ev-B", "evc")
			spec := r.spec(100, "")
			for range 2 {
				r.produce("ev.a", "raw.ev_a", 2)
				r.produce("ev-B", "raw.ev_b", 2)
				if err := r.run(spec, "", 0); err != nil {
					t.Fatal(err)
				}
			}
			c := r.lake()
			tt.do(r, c)
			r.produce("ev.a", "raw.ev_a", 2)
			r.produce("ev-B", "raw.ev_b", 2)
			for range 2 {
				if err := r.run(spec, "", 0); !errors.Is(err, tt.is) || !strings.Contains(err.Error(), tt.says) {
					t.Fatalf("it ends with %v", err)
				}
			}
			tt.undo(r, c)
			if err := r.run(spec, "", 0); err != nil {
				t.Fatal(err)
			}
			r.holds(spec)
		})
	}
}
