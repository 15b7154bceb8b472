package driver_test

import "testing"

// TestCatchUpInSteps: a sink that joins over a backlog catches up within the
// limits, goes on where it was when the driver is started again, and holds the
// others up for no more than a batch.
func TestCatchUpInSteps(t *testing.T) {
	s := newScenario(t, simConfig{tables: 2, drivers: 1})
	s.out[1] = true
	s.rows(0, 40)
	s.idle(0)
	s.procs[0].kill()
	s.out[1] = false
	s.rows(0, 8)
	var reached int64
	for range 3 {
		was := s.tables[0].stamp(0).End[s.tp(0)]
		s.through(0, "commit t1")
		s.until(0, "commit t1")
		at := s.tables[1].stamp(0).End[s.tp(0)]
		if at <= reached || at > reached+4 {
			s.die("the table that joins went from %d to %d", reached, at)
		}
		if now := s.tables[0].stamp(0).End[s.tp(0)]; now <= was && was < 48 {
			s.die("the other table stays at %d", was)
		}
		reached = at
		s.procs[0].kill()
	}
	s.rows(0, 8)
	s.until(0, "commit t0") // in the others' turn
	s.procs[0].kill()
	s.settles()
	if at := s.tables[1].stamp(0).End[s.tp(0)]; at != 58 {
		s.die("the table that joined is at %d", at)
	}
}

// TestJoinAhead: the checkpoint is lost while the sink whose table is ahead of the
// others is not in the spec. When it joins it goes on where it is, record by
// record, after the others have come there.
func TestJoinAhead(t *testing.T) {
	s := newScenario(t, simConfig{tables: 2, drivers: 1})
	s.idle(0)
	s.procs[0].kill()
	s.out[0] = true
	s.rows(0, 3)
	s.idle(0)
	s.procs[0].kill()
	s.loseCheckpoint()
	s.out[0], s.out[1] = false, true
	s.rows(1, 3)
	s.until(0, "create sim/offsets/1-")
	s.through(0, "create sim/offsets/1-")
	s.procs[0].kill()
	s.out[1] = false
	s.settles()
}
