package driver_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/frazil-io/frazil/internal/batch"
	"github.com/frazil-io/frazil/internal/checkpoint"
	"github.com/frazil-io/frazil/internal/driver"
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

// batches commits this many batches and ends the driver.
func (s *scenario) batches(n int) {
	s.Helper()
	for range n {
		s.rows(0, 1)
		s.idle(0)
	}
	s.procs[0].kill()
}

// rewinds starts the operator's command to go back to a batch.
func (s *scenario) rewinds(to batch.ID) int {
	s.operator(0, "rewind", func(ctx context.Context, d *driver.Driver) error { return d.Rewind(ctx, to, false) })
	return len(s.procs) - 1
}

// recovered is a world whose checkpoint was lost after batch 0, where driver i
// has begun a new incarnation and anchored it.
func recovered(t *testing.T, cfg simConfig, i int) *scenario {
	t.Helper()
	s := newScenario(t, cfg)
	s.idle(0)
	s.procs[0].kill()
	s.loseCheckpoint()
	s.through(i, "list sim/offsets/1-") // is it anchored already?
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
	// A driver gives up what retention took of the open batch, which leaves it
	// empty, while another one has its records in files already.
	t.Run("ReviseEmpty", func(t *testing.T) {
		s := newScenario(t, two)
		s.idle(0)
		s.rows(0, 1)
		s.until(0, "commit t0 batch 1")
		s.part(s.tp(0)).start = 3
		s.onLoss = true
		s.through(1, "create sim/offsets/0-") // the revision
		s.rows(0, 1)
		s.until(1, "create sim/offsets/0-")
		s.through(0, "commit t0 batch 1")
		s.settles()
	})

	// The log was purged behind a driver that slept before it created an entry:
	// the entry is free again.
	t.Run("NoGhostCheck", func(t *testing.T) {
		s := newScenario(t, two)
		s.idle(0)
		s.rows(0, 1)
		s.until(0, "create sim/offsets/0-")
		for range 6 {
			s.rows(0, 1)
			s.idle(1)
		}
		if s.reaches(0, "put sim/attempts/") || !errors.Is(s.procs[0].err, batch.ErrFenced) {
			s.die("process 0 works on a batch that was done long ago, or ends with %v", s.procs[0].err)
		}
		s.settles()
	})

	// A rewind dies between two tables. Whoever comes next completes it.
	t.Run("NoIntent", func(t *testing.T) {
		s := newScenario(t, two)
		s.batches(3)
		rewind := s.rewinds(0)
		s.until(rewind, "commit t1")
		s.procs[rewind].kill()
		s.settles()
		for i, table := range s.tables {
			if !slices.ContainsFunc(table.snaps, func(x *snapshot) bool { return x.restores }) {
				s.die("table %d was not taken back", i)
			}
		}
	})

	// Another engine expires what it can between the record of a rewind and its
	// first commit: what the rewind goes back to, and what lies between.
	t.Run("NoPin", func(t *testing.T) {
		s := newScenario(t, two)
		s.batches(3)
		rewind := s.rewinds(0)
		s.until(rewind, "commit t0")
		s.procs[rewind].kill()
		for i := range s.tables {
			s.expire(i)
		}
		s.through(0, "commit t1") // a driver completes it
		s.idle(0)
		for i, table := range s.tables {
			if len(table.pins) > 0 {
				s.die("table %d is still pinned: %v", i, table.pins)
			}
			if !slices.ContainsFunc(table.snaps, func(x *snapshot) bool { return x.restores }) {
				s.die("table %d was not taken back", i)
			}
		}
		s.settles()
	})
	// Another engine appends between the record of a rewind and its first commit:
	// its rows are not dropped.
	t.Run("ForeignAtTheSwap", func(t *testing.T) {
		s := newScenario(t, two)
		s.batches(3)
		rewind := s.rewinds(0)
		s.until(rewind, "commit t0") // it has looked
		s.foreignAppend(0)
		head := s.tables[0].head
		if s.reaches(rewind, "commit t1") || !errors.Is(s.procs[rewind].err, batch.ErrDataLost) || s.tables[0].head != head {
			s.die("the rewind ends with %v, the head is %d", s.procs[rewind].err, s.tables[0].head)
		}
	})
	// A topic is made again, and right after that a broker answers with the old
	// one once more.
	t.Run("StaleTopic", func(t *testing.T) {
		s := newScenario(t, two)
		s.onLoss = true
		s.idle(0)
		old := s.available()
		s.makeTopic()
		s.rows(0, 1)
		s.idle(0)
		s.rows(0, 1)
		s.stale = old
		s.idle(0)
		s.idle(0)
		s.settles()
	})
}

// TestTakeOver: who owns a pipeline while two drivers run.
func TestTakeOver(t *testing.T) {
	standby := simConfig{tables: 1, drivers: 2, standby: true}
	frozen := func(*scenario) {}
	killed := func(s *scenario) { s.procs[0].kill() }
	released := func(s *scenario) {
		s.procs[0].kill()
		s.operator(0, "release", func(ctx context.Context, _ *driver.Driver) error {
			p := s.procs[len(s.procs)-1]
			return checkpoint.New(simStore{p}, "sim").Release(ctx, batch.Writer{ID: "w0.1"})
		})
		s.through(2, "put sim/released/")
	}
	for name, c := range map[string]struct {
		host        string
		leave       func(*scenario)
		least, most time.Duration
	}{
		"another host, frozen":   {"other", frozen, 5 * time.Second, 7 * time.Second},
		"another host, killed":   {"other", killed, 5 * time.Second, 7 * time.Second},
		"another host, released": {"other", released, 0, 0},
		"this host, killed":      {"", killed, 0, 0},
		"this host, frozen":      {"", frozen, 5 * time.Second, 7 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			s := newScenario(t, standby)
			s.procs[1].host = c.host
			s.idle(0)
			s.rows(0, 1)
			s.until(0, "commit t0 batch 1")
			c.leave(s)
			begun := s.now
			s.until(1, "put sim/attempts/")
			if waited := s.now.Sub(begun); waited < c.least || waited > c.most || s.procs[1].stands {
				t.Errorf("it waited for %s, want %s to %s; says that it stands by: %v", waited, c.least, c.most, s.procs[1].stands)
			}
			s.settles()
		})
	}

	// While the owner goes on, nobody takes over, however long it lasts.
	t.Run("busy owner", func(t *testing.T) {
		s := newScenario(t, standby)
		s.procs[1].host = "other"
		s.idle(0)
		for range 10 {
			s.rows(0, 1)
			s.idle(0)
			s.through(1, "sleep ")
			s.through(1, "sleep ")
			if !s.procs[1].stands {
				s.die("it does not stand by")
			}
		}
		s.settles()
	})

	// Two start at once. One logs batch 0, and the other stands by until that one
	// is gone; then it is the one that runs, and it is fenced like any other.
	t.Run("two starters", func(t *testing.T) {
		s := newScenario(t, standby)
		s.procs[1].host = "other"
		for _, i := range []int{0, 1} {
			s.until(i, "create sim/offsets/")
		}
		s.through(0, "create sim/offsets/")
		s.idle(0)
		for range 10 {
			s.through(1, "sleep ")
			s.rows(0, 1)
			s.idle(0)
		}
		if !s.procs[1].stands {
			s.die("it does not stand by: %v", s.procs[1].err)
		}
		s.rows(0, 1)
		s.until(0, "create sim/offsets/")
		begun := s.now
		for s.procs[1].alive && !strings.HasPrefix(s.procs[1].ready()[0].call, "create sim/offsets/") {
			s.procs[1].step()
		}
		if waited := s.now.Sub(begun); waited < 5*time.Second || waited > 7*time.Second {
			s.die("it takes over after %s", waited)
		}
		s.through(1, "create sim/offsets/")
		s.stops(0, batch.ErrFenced, "another driver")
		s.settles()
	})

	// Two stand by, and both find the plan of a driver that is gone free at once.
	t.Run("two standbys", func(t *testing.T) {
		s := newScenario(t, simConfig{tables: 1, drivers: 3, standby: true})
		s.procs[1].host, s.procs[2].host = "other", "third"
		s.idle(0)
		for _, i := range []int{1, 2} {
			s.through(i, "sleep ")
		}
		s.procs[0].kill()
		s.rows(0, 1)
		for _, i := range []int{1, 2} {
			s.until(i, "create sim/offsets/")
		}
		s.through(1, "create sim/offsets/")
		s.idle(1)
		s.through(2, "sleep ")
		s.through(2, "sleep ")
		if !s.procs[2].stands {
			s.die("it does not stand by: %v", s.procs[2].err)
		}
		s.settles()
	})

	// The owner is quicker to log the next batch: --takeover goes on until it
	// owns one, and the owner is fenced.
	t.Run("told to", func(t *testing.T) {
		s := newScenario(t, simConfig{tables: 1, drivers: 2})
		s.idle(0)
		s.rows(0, 1)
		s.until(0, "commit t0 batch 1")
		s.until(1, "commit t0 batch 1")
		s.rows(0, 1)
		s.until(0, "create sim/offsets/")
		s.until(1, "create sim/offsets/")
		s.through(0, "create sim/offsets/") // batch 2
		s.until(1, "put sim/attempts/")     // which it carries on
		s.rows(0, 1)
		s.through(1, "create sim/offsets/") // batch 3
		if s.reaches(0, "put sim/attempts/") || !errors.Is(s.procs[0].err, batch.ErrFenced) {
			s.die("the owner before ends with %v", s.procs[0].err)
		}
		s.settles()
	})
}

// TestOpening: what a driver makes of what it finds.
func TestOpening(t *testing.T) {
	two := simConfig{tables: 2, drivers: 1}

	// A sink is added to the spec.
	t.Run("new sink", func(t *testing.T) {
		s := newScenario(t, simConfig{tables: 1, drivers: 1})
		s.batches(2)
		s.tables = append(s.tables, newSimTable(1))
		s.rows(1, 1)
		s.idle(0)
		s.settles()
	})

	// A sink is taken out of the spec and comes back.
	t.Run("sink comes back", func(t *testing.T) {
		s := newScenario(t, two)
		s.batches(2)
		all := s.tables
		s.tables = all[:1]
		s.batches(2)
		s.tables = all
		s.rows(1, 1)
		s.idle(0)
		s.settles()
	})

	// Both sinks get another spec while one table has the open batch: it keeps
	// what it was made with, and only the other one takes the revision.
	t.Run("revision", func(t *testing.T) {
		s := newScenario(t, two)
		s.idle(0)
		s.rows(0, 1)
		s.through(0, "commit t0 batch 1")
		s.procs[0].kill()
		s.spec = [simSinks]int{2, 2}
		s.idle(0)
		var plan, revision *batch.Plan
		for _, p := range s.plans {
			switch {
			case p.Batch != 1:
			case p.Revision == 0:
				plan = p
			default:
				revision = p
			}
		}
		if revision == nil || revision.Sink("s0").Hash != specHash(1) || revision.Sink("s1").Hash != specHash(2) || !slices.Equal(plan.Ranges, revision.Ranges) {
			s.die("the revision is %+v", revision)
		}
		s.settles()
	})

	// The tables are of two pipelines with one name. Nobody chooses but the
	// operator.
	t.Run("contradiction", func(t *testing.T) {
		s := newScenario(t, two)
		s.idle(0)
		s.procs[0].kill()
		first := s.tables[1]
		s.loseCheckpoint()
		s.tables[0], s.tables[1] = newSimTable(simRemade), newSimTable(simRemade)
		s.idle(0)
		s.procs[0].kill()
		s.loseCheckpoint()
		s.tables[1] = first
		if s.reaches(0, "create ") {
			s.die("it goes on")
		}
		err := s.procs[0].err
		if !errors.Is(err, batch.ErrDataLost) || !strings.Contains(err.Error(), "sink s0: ") || !strings.Contains(err.Error(), "sink s1: ") || !strings.Contains(err.Error(), "frazil checkpoint recover") {
			s.die("it says: %v", err)
		}
	})

	// A rewind dies before its record is made. What it pinned does not stay.
	t.Run("pins", func(t *testing.T) {
		s := newScenario(t, two)
		s.batches(3)
		rewind := s.rewinds(0)
		s.until(rewind, "create sim/pipeline/")
		s.procs[rewind].kill()
		s.idle(0)
		s.procs[0].kill()
		s.loseCheckpoint()
		s.idle(0) // the next incarnation has the number that the rewind had
		for i, table := range s.tables {
			if len(table.pins) > 0 {
				s.die("table %d is still pinned: %v", i, table.pins)
			}
		}
		s.settles()
	})

	// Snapshots of others between head and tag have expired: only an operator
	// can tell whether the table was rolled back, for the head that he saw.
	t.Run("adopt", func(t *testing.T) {
		s := newScenario(t, two)
		s.idle(0)
		s.procs[0].kill()
		s.foreignAppend(0)
		s.foreignAppend(0)
		s.expire(0)
		for _, adopt := range []int64{0, s.tables[0].head - 1} {
			s.adopt[0] = adopt
			s.rows(0, 1)
			if s.reaches(0, "commit t0 batch 1") || !errors.Is(s.procs[0].err, batch.ErrDataLost) || !strings.Contains(s.procs[0].err.Error(), "--adopt s0@3") {
				s.die("adopting %d it ends with %v", adopt, s.procs[0].err)
			}
		}
		s.adopt[0] = s.tables[0].head
		s.idle(0)
		s.settles()
	})
}
