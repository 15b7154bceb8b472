package driver_test

import (
	"strings"
	"testing"
)

// garbage lists data files that no live snapshot names and nobody deleted.
func (s *scenario) garbage() (names []string) {
	for name, f := range s.files {
		if !strings.Contains(name, "/data-") || f.deleted {
			continue
		}
		live := false
		for _, t := range s.tables {
			live = live || t.live(name)
		}
		if !live {
			names = append(names, name)
		}
	}
	return names
}

// attempts counts those that are registered.
func (s *scenario) attempts() (n int) {
	for key := range s.store {
		if strings.HasPrefix(key, "sim/attempts/") {
			n++
		}
	}
	return n
}

// called counts calls of process 0 since the last time.
func (s *scenario) called(call string) (n int) {
	for _, l := range s.trace {
		if strings.HasPrefix(l, "d0: "+call) {
			n++
		}
	}
	s.trace = nil
	return n
}

// TestFailedAttemptsAreSwept: what an execution wrote that failed was never sent
// to a table. It does not pile up while the batch goes on failing.
func TestFailedAttemptsAreSwept(t *testing.T) {
	s := newScenario(t, simConfig{tables: 2, drivers: 1})
	s.idle(0)
	s.rows(0, 2)
	s.failing = map[string]int{"finish a file": 20}
	s.until(0, "put sim/attempts/")
	for range 9 {
		s.through(0, "put sim/attempts/")
		s.until(0, "put sim/attempts/")
		if n := s.attempts(); n > 1 {
			s.die("%d attempts are registered, though one is at work", n)
		}
		if g := s.garbage(); len(g) > 1 {
			s.die("left over: %v", g)
		}
	}
	s.settles()
	if g := s.garbage(); len(g) > 0 || s.attempts() > 0 {
		s.die("left over: %d attempts, %v", s.attempts(), g)
	}
}

// TestOvertakenAttemptIsSwept: a driver that is overtaken while it writes files
// leaves none of them, though it writes one more after another driver's sweep;
// whether it goes on to its end or dies.
func TestOvertakenAttemptIsSwept(t *testing.T) {
	for name, dies := range map[string]bool{"goes on": false, "dies": true} {
		t.Run(name, func(t *testing.T) {
			s := newScenario(t, simConfig{tables: 2, drivers: 2})
			s.idle(0)
			s.rows(0, 2)
			s.until(0, "write p0.1") // its files
			s.idle(1)                // commits the batch, and sweeps
			s.rows(0, 1)
			s.idle(1)
			if dies {
				s.through(0, "write p0.1")
				s.procs[0].kill()
			} else if err := s.ends(0); err == nil {
				s.die("process 0 is not fenced")
			}
			for range 3 {
				s.rows(0, 1)
				s.idle(1)
				s.now = s.now.Add(3600e9)
			}
			if g := s.garbage(); len(g) > 0 || s.attempts() > 0 {
				s.die("left over: %d attempts, %v", s.attempts(), g)
			}
		})
	}
}

// TestAttemptsAreNotReadForEver: what cannot be swept, because its sink has left
// the spec, costs nothing in each batch.
func TestAttemptsAreNotReadForEver(t *testing.T) {
	s := newScenario(t, simConfig{tables: 2, drivers: 1})
	s.idle(0)
	s.rows(0, 2)
	s.until(0, "commit t0 batch 1")
	s.procs[0].kill()
	s.out[1] = true
	s.idle(0)
	s.called("")
	for range 10 {
		s.rows(0, 1)
		s.idle(0)
	}
	if n := s.called("list sim/attempts/"); n > 2 {
		s.die("attempts were listed %d times in 10 batches", n)
	}
	s.procs[0].kill()
	s.out[1] = false
	s.idle(0)
	s.now = s.now.Add(3600e9)
	s.rows(0, 1)
	s.idle(0)
	if g := s.garbage(); len(g) > 0 || s.attempts() > 0 {
		s.die("left over: %d attempts, %v", s.attempts(), g)
	}
}
