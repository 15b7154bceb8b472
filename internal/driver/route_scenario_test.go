package driver_test

import (
	"testing"

	"github.com/frazil-io/frazil/internal/batch"
)

// routedRows produces records for one table of the sink that feeds many.
func (s *scenario) routedRows(p int32, table, n int) {
	for range n {
		s.ids++
		r := record{id: s.ids, route: table - 1}
		r.to[0], r.to[1] = true, true
		s.add(p, r)
	}
}

// rowsOf is how many rows a table has.
func (s *scenario) rowsOf(ti int) (n int) {
	for _, f := range s.headFiles(ti) {
		n += len(s.files[f].rows)
	}
	return n
}

func TestRoutes(t *testing.T) {
	alone := simConfig{tables: 1, routed: true, alone: true, drivers: 2}
	beside := simConfig{tables: 1, routed: true, drivers: 2}

	// The SQL of a logged batch gives other rows than it gave at first.
	t.Run("OtherTable", func(t *testing.T) {
		s := newScenario(t, alone)
		s.idle(0)
		s.routedRows(0, 2, 1)
		s.until(0, "commit t2 batch 0..1")
		s.procs[0].kill()
		s.fickle = 1
		s.procs[0].start()
		s.stops(0, batch.ErrInvalid, "does not name")
		if s.tables[2].head != 0 || s.tables[3].head != 0 {
			s.die("the batch is in a table")
		}
		s.fickle = 0
		s.settles()
	})

	// A table rests for some batches, of which the log knows no more.
	t.Run("Rests", func(t *testing.T) {
		s := newScenario(t, alone)
		s.routedRows(0, 3, 1)
		s.idle(0)
		was := s.tables[3].stamp(0)
		for range 8 {
			s.routedRows(0, 1, 1)
			s.idle(0)
		}
		if s.tables[3].stamp(0).Hash() != was.Hash() {
			s.die("a table without rows got a stamp")
		}
		s.procs[0].kill()
		s.routedRows(1, 3, 1)
		s.idle(1)
		st := s.tables[3].stamp(0)
		if st.First != was.Last+1 || !st.Start.Equal(was.End) || st.Counts.Offsets != 9 || st.Counts.Written != 1 || st.Total.Written != 2 {
			s.die("the stamp is %+v", st)
		}
		s.settles()
	})

	// The checkpoint is lost while a batch is in one of its two tables.
	for name, cfg := range map[string]simConfig{"Torn": alone, "TornBeside": beside} {
		t.Run(name, func(t *testing.T) {
			s := newScenario(t, cfg)
			s.idle(0)
			s.routedRows(0, 1, 1)
			s.routedRows(0, 2, 1)
			s.until(0, "commit t2 batch 0..1")
			s.procs[0].kill()
			s.loseCheckpoint()
			s.idle(1)
			if s.rowsOf(1) != 5 || s.rowsOf(2) != 1 {
				s.die("the tables have %d and %d rows", s.rowsOf(1), s.rowsOf(2))
			}
			s.settles()
		})
	}

	// The same, and the spec was changed meanwhile: its rows would go elsewhere.
	t.Run("TornSpec", func(t *testing.T) {
		s := newScenario(t, simConfig{tables: 1, routed: true, alone: true, drivers: 2, deploy: true})
		s.idle(0)
		s.routedRows(0, 1, 1)
		s.routedRows(0, 2, 1)
		s.until(0, "commit t2 batch 0..1")
		s.procs[0].kill()
		s.loseCheckpoint()
		s.spec[1] = 2
		s.procs[1].start()
		s.stops(1, batch.ErrInvalid, "in some of its tables only")
		s.spec[1] = 1
		s.idle(1)
		s.spec[1] = 2
		s.settles()
	})

	// The spec is changed while a batch is in one of its two tables.
	t.Run("OpenSpec", func(t *testing.T) {
		s := newScenario(t, simConfig{tables: 1, routed: true, alone: true, drivers: 2, deploy: true})
		s.idle(0)
		s.routedRows(0, 1, 1)
		s.routedRows(0, 2, 1)
		s.until(0, "commit t2 batch 0..1")
		s.procs[0].kill()
		s.spec[1] = 2
		s.procs[1].start()
		s.stops(1, batch.ErrInvalid, "was planned with another spec")
		s.spec[1] = 1
		s.settles()
	})

	// The checkpoint is lost while the first commit to a new table is on its way.
	t.Run("Claims", func(t *testing.T) {
		s := newScenario(t, alone)
		s.idle(0)
		s.routedRows(0, 2, 1)
		s.until(0, "commit t2 batch 0..1")
		s.loseCheckpoint()
		s.until(1, "create sim/offsets/1-")
		s.through(0, "commit t2 batch 0..1")
		if st := s.tables[2].stamp(0); st == nil || st.Kind == "" {
			s.die("the late commit landed: %v", st)
		}
		s.settles()
	})

	// A driver is slow to anchor what it found, while another one has made a table
	// for its first batch.
	t.Run("LateAnchor", func(t *testing.T) {
		s := newScenario(t, alone)
		s.idle(0)
		s.procs[0].kill()
		s.loseCheckpoint()
		s.routedRows(0, 2, 1)
		s.through(0, "find the tables") // is there a pipeline?
		s.until(0, "find the tables")   // which are to be anchored?
		s.until(1, "create sim/offsets/1-")
		s.until(0, "commit t2 batch 0..-1")
		s.until(1, "commit t2 batch 0..")
		s.through(0, "commit t2 batch 0..-1")
		s.idle(1)
		s.settles()
	})

	// A driver dies after it made a table, before any plan named it.
	t.Run("MadeOnly", func(t *testing.T) {
		s := newScenario(t, alone)
		s.idle(0)
		s.routedRows(0, 2, 1)
		s.until(0, "put sim/tables/s1/t2")
		s.procs[0].kill()
		s.idle(1)
		s.settles()
	})

	// There is no table yet, and the checkpoint is lost: the pipeline is new.
	t.Run("NoTable", func(t *testing.T) {
		s := newScenario(t, alone)
		s.until(0, "commit t1 batch 0")
		s.procs[0].kill()
		s.loseCheckpoint()
		s.idle(1)
		s.settles()
	})

	// What is lost of an open batch, of which one table has its part.
	t.Run("LostRest", func(t *testing.T) {
		s := newScenario(t, simConfig{tables: 1, routed: true, alone: true, drivers: 2, retention: true})
		s.idle(0)
		s.routedRows(0, 1, 1)
		s.routedRows(0, 2, 1)
		s.until(0, "commit t2 batch 0..1")
		s.procs[0].kill()
		s.part(s.tp(0)).start = 4
		s.onLoss = true
		s.idle(1)
		if s.rowsOf(1) != 5 || s.rowsOf(2) != 0 {
			s.die("the tables have %d and %d rows", s.rowsOf(1), s.rowsOf(2))
		}
		s.settles()
	})
}
