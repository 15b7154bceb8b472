package driver_test

import (
	"slices"
	"strings"
	"testing"
)

// A scenario plays one way, step by step, in which a rule of the protocol keeps
// something from going wrong: the ways that chance finds seldom. Each is named
// after the fault of test/faults that it catches.
type scenario struct {
	*testing.T
	*world
}

func newScenario(t *testing.T, cfg simConfig) *scenario {
	t.Helper()
	t.Parallel()
	w := newWorld(&chooser{}, cfg)
	w.tracing, w.scripted = true, true
	s := &scenario{t, w}
	t.Cleanup(func() {
		for _, p := range w.procs {
			if p.alive {
				p.end()
			}
		}
	})
	for p := range int32(simPartitions) {
		s.rows(p, 2)
	}
	return s
}

// rows produces records that both sinks want.
func (s *scenario) rows(p int32, n int) {
	for range n {
		s.ids++
		s.add(p, record{id: s.ids, to: [simSinks]bool{true, true}})
	}
}

// rowsFor produces a record that one sink wants. It changes the state of sink 0.
func (s *scenario) rowsFor(p int32, sink int) {
	s.ids++
	r := record{id: s.ids}
	r.to[sink] = true
	s.add(p, r)
}

// hole produces an offset without data.
func (s *scenario) hole(p int32) { s.add(p, record{hole: true}) }

// until runs a process, from its start if it is not running, to the point before
// a call.
func (s *scenario) until(i int, call string) {
	s.Helper()
	if !s.reaches(i, call) {
		s.die("process %d ended before it called %q: %v", i, call, s.procs[i].err)
	}
}

// reaches is until, and says whether the process lived to make the call.
func (s *scenario) reaches(i int, call string) bool {
	s.Helper()
	p := s.procs[i]
	if !p.alive {
		p.start()
	}
	for range 5000 {
		if strings.HasPrefix(p.ready()[0].call, call) {
			return true
		}
		p.step()
		s.checkFiles()
		if !p.alive {
			return false
		}
	}
	s.die("process %d never calls %q", i, call)
	return false
}

// through runs a process until it has made a call.
func (s *scenario) through(i int, call string) {
	s.Helper()
	s.until(i, call)
	s.procs[i].step()
}

// commit lets the commit that a process is about to send come to this.
func (s *scenario) sends(i int, call string, fate int) {
	s.Helper()
	s.until(i, call)
	s.fate = fate
	s.procs[i].step()
}

// idle runs a process until Kafka has nothing new for it.
func (s *scenario) idle(i int) {
	s.Helper()
	if !s.procs[i].alive {
		s.procs[i].start()
	}
	s.procs[i].rests = 0
	for range 20000 {
		if !s.procs[i].alive {
			s.die("process %d ended: %v", i, s.procs[i].err)
		}
		if s.procs[i].rests > 3 {
			return
		}
		s.procs[i].step()
		s.checkFiles()
	}
	s.die("process %d has always something to do", i)
}

// ends runs a process to its end, whatever that is.
func (s *scenario) ends(i int) error {
	s.Helper()
	for range 5000 {
		if !s.procs[i].alive {
			return s.procs[i].err
		}
		s.procs[i].step()
		s.checkFiles()
	}
	s.die("process %d does not end", i)
	return nil
}

// settles lets everything go on without faults, and says whether nothing was
// lost, repeated or stopped without need.
func (s *scenario) settles() {
	s.Helper()
	if s.bad == nil {
		s.settle()
	}
	if s.bad != nil {
		s.die("%s: %s", s.bad.kind, s.bad.text)
	}
}

func (s *scenario) die(format string, args ...any) {
	s.Helper()
	lines := slices.DeleteFunc(s.trace, func(l string) bool { return strings.Contains(l, ": sleep ") })
	s.Logf("the last steps:\n%s", strings.Join(lines[max(0, len(lines)-60):], "\n"))
	s.Fatalf(format, args...)
}

// recovered is a world whose checkpoint was lost after batch 0, where driver i
// has begun a new incarnation and anchored it.
func recovered(t *testing.T, cfg simConfig, i int) *scenario {
	t.Helper()
	s := newScenario(t, cfg)
	s.idle(0)
	s.procs[0].kill()
	s.loseCheckpoint()
	s.until(i, "list sim/offsets/1-")
	return s
}

func TestScenario(t *testing.T) {
	two := simConfig{tables: 2, drivers: 2}

	// Two drivers find the empty log of a new incarnation. One of them logs and
	// commits for a while before the other makes its first plan.
	t.Run("FirstByNumber", func(t *testing.T) {
		s := recovered(t, two, 1)
		s.through(0, "list sim/offsets/1-")
		s.rows(0, 1)
		s.through(1, "commit t1 batch 1..1")
		s.rows(0, 1)
		s.until(1, "commit t1 batch 2..2")
		s.until(0, "create sim/offsets/1-")
		s.through(1, "commit t1 batch 2..2")
		s.settles()
	})

	// The checkpoint is lost while one table has batch 0 and the other has no
	// tag yet, and a commit to it is on its way.
	t.Run("AnchorTaggedOnly", func(t *testing.T) {
		s := newScenario(t, two)
		s.until(0, "commit t1")
		s.loseCheckpoint()
		s.until(1, "create sim/offsets/1-")
		s.through(0, "commit t1")
		s.settles()
	})

	// The checkpoint is lost while a commit is on its way.
	t.Run("NoAnchor", func(t *testing.T) {
		s := newScenario(t, two)
		s.idle(0)
		s.rows(0, 1)
		s.until(0, "commit t0 batch 1")
		s.loseCheckpoint()
		s.until(1, "create sim/offsets/1-")
		s.through(0, "commit t0 batch 1")
		s.settles()
	})

	// A driver revises the open batch, whose table s1 has no rows, while another
	// one holds it for done and plans the next.
	t.Run("RevisionNames", func(t *testing.T) {
		s := newScenario(t, two)
		s.idle(0)
		s.rowsFor(0, 0)
		s.through(0, "commit t0 batch 1")
		s.spec[1] = 2
		s.through(1, "create sim/offsets/0-") // its revision
		s.until(1, "load t0")
		s.rows(0, 1)
		s.through(0, "create sim/offsets/0-")
		s.reaches(0, "load t0") // it should be fenced before
		s.through(1, "commit t1 batch 1")
		s.settles()
	})
}
