package driver_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/frazil-io/frazil/internal/batch"
)

// audited begins a scenario in which sink 1's batches are audited, and the first
// one is in the tables.
func audited(t *testing.T) *scenario {
	s := newScenario(t, simConfig{tables: 2, drivers: 1, audits: true})
	s.idle(0)
	s.rows(0, 2)
	s.trace = nil
	return s
}

// count counts calls of process 0 since the trace was last cleared.
func (s *scenario) count(call string) (n int) {
	for _, l := range s.trace {
		if strings.HasPrefix(l, "d0: "+call) {
			n++
		}
	}
	return n
}

// TestAuditPublishes: the staged snapshot itself becomes the head.
func TestAuditPublishes(t *testing.T) {
	s := audited(t)
	s.through(0, "stage t1")
	if head, staged := s.tables[1].head, s.tables[1].staged[0]; staged == 0 || head == staged {
		s.die("staged %d, head %d", staged, head)
	}
	s.through(0, "publish t1")
	if s.tables[1].staged[0] != 0 {
		s.die("something is still staged")
	}
	s.settles()
	if n := s.count("commit t1"); n != 0 {
		s.die("%d commits beside what was staged", n)
	}
}

// TestStagedIsUsedAgain: a crash between staging and publishing costs nothing.
func TestStagedIsUsedAgain(t *testing.T) {
	for _, at := range []string{"audit t1", "publish t1"} {
		t.Run(at, func(t *testing.T) {
			s := audited(t)
			s.until(0, at)
			s.procs[0].kill()
			s.trace = nil
			s.settles()
			if s.count("write p0.2") != 0 || s.count("stage t1") != 0 || s.count("publish t1") != 1 {
				s.die("it was written %d times again, staged %d times and published %d times", s.count("write p0.2"), s.count("stage t1"), s.count("publish t1"))
			}
		})
	}
}

// TestStagedOnANewHead: where the branch has moved on, the same files are
// committed on the new head; and what was staged is gone.
func TestStagedOnANewHead(t *testing.T) {
	for name, crash := range map[string]bool{"at once": false, "after a crash": true} {
		t.Run(name, func(t *testing.T) {
			s := audited(t)
			s.until(0, "publish t1")
			s.foreignAppend(1)
			staged := s.tables[1].staged[0]
			if crash {
				s.procs[0].kill()
			}
			s.trace = nil
			s.through(0, "commit t1")
			if s.count("write ") != 0 {
				s.die("the batch was written again")
			}
			if !s.tables[1].snaps[staged].expired || s.tables[1].staged[0] != 0 {
				s.die("what was staged is still there")
			}
			s.settles()
		})
	}
}

// TestStagedOfAnotherSpec: what was staged for a plan that was revised since is
// not published.
func TestStagedOfAnotherSpec(t *testing.T) {
	s := audited(t)
	s.until(0, "audit t1")
	s.procs[0].kill()
	staged := s.tables[1].staged[0]
	s.spec[1] = 2
	s.trace = nil
	s.through(0, "stage t1")
	if s.tables[1].staged[0] == staged || !s.tables[1].snaps[staged].expired {
		s.die("what was staged under the other spec is still there")
	}
	s.settles()
	if s.count("publish t1") == 0 {
		s.die("nothing was published")
	}
}

// TestHeldBackStays: a batch that a rule holds back stays staged while the driver
// is down, and no file of it is deleted.
func TestHeldBackStays(t *testing.T) {
	s := audited(t)
	s.until(0, "audit t1")
	s.script, s.taken = []int{0, 0, 1}, nil // the main coroutine, an answer, and a rule that holds the batch back
	s.ends(0)
	if s.bad != nil || s.procs[0].err == nil || !strings.Contains(s.procs[0].err.Error(), "a rule holds") {
		s.die("it ended with %v", s.procs[0].err)
	}
	if staged := s.tables[1].staged[0]; staged == 0 || s.files[s.tables[1].snaps[staged].added.name].deleted {
		s.die("what was held back is gone")
	}
	s.settles()
}

// TestStageOnItsWay: a request to stage may land when its sender is gone; its
// files are still there.
func TestStageOnItsWay(t *testing.T) {
	s := audited(t)
	s.until(0, "stage t1")
	s.fate = onItsWay
	s.procs[0].step()
	s.until(0, "stage t1") // again
	s.fate = requestLost
	s.procs[0].step()
	s.procs[0].terminate()
	s.ends(0)
	s.deliver(0)
	s.checkFiles()
	s.settles()
}

// heldBack begins a scenario in which an audit of sink 1 makes dead letters of its
// second batch, and that is about to be logged.
func heldBack(t *testing.T) *scenario { return heldBackOf(t, 1) }

// heldBackOf is heldBack of the first one of so many drivers.
func heldBackOf(t *testing.T, drivers int) *scenario {
	t.Helper()
	s := newScenario(t, simConfig{tables: 2, drivers: drivers, audits: true, letters: true})
	s.idle(0)
	s.rows(0, 2)
	s.trace = nil
	s.until(0, "audit t1")
	s.script, s.taken = []int{0, 0, 2}, nil // the main coroutine, an answer, and the verdict
	s.procs[0].step()
	s.script = nil
	if n := s.count("audit t1"); n != 1 || s.bad != nil {
		s.die("%d audits", n)
	}
	s.trace = nil
	return s
}

// withheld checks that what was held back became dead letters, once, and that nothing
// of it is in the table.
func (s *scenario) withheld(n int64) {
	s.Helper()
	st := s.tables[1].stamp(0)
	c := st.Total
	if c.Rejected != n || c.RejectedBy.Constraint != n || c.Rules["audit small"] != n || c.Letters != n || s.tables[1].staged[0] != 0 {
		s.die("%+v, staged %d", c, s.tables[1].staged[0])
	}
	if c := s.tables[2].stamp(0).Total; c.Written != n {
		s.die("%d dead letters, want %d", c.Written, n)
	}
}

// TestHeldBackBecomesLetters: what an audit holds back for good is executed again as
// dead letters, and what was staged is gone.
func TestHeldBackBecomesLetters(t *testing.T) {
	s := heldBack(t)
	s.settles()
	s.withheld(2)
	if s.count("audit t1") != 0 {
		s.die("it was audited again")
	}
	s.rows(0, 1)
	s.settles()
	s.withheld(2) // the next batch is another one
}

// TestVerdictIsLogged: once it is logged, a crash does not change it; before, nothing
// came of it.
func TestVerdictIsLogged(t *testing.T) {
	for _, c := range []struct {
		at      string
		letters int64
	}{{"create", 0}, {"load t1", 2}, {"commit t1", 2}, {"commit t2", 2}} {
		t.Run(c.at, func(t *testing.T) {
			s := heldBack(t)
			s.until(0, c.at)
			if c.at == "load t1" {
				s.through(0, "create")
			}
			s.procs[0].kill()
			s.trace = nil
			s.settles()
			if audits := s.count("audit t1"); (audits == 0) != (c.letters > 0) {
				s.die("it was audited %d times after that", audits)
			}
			s.withheld(c.letters)
		})
	}
}

// TestVerdictIsOverruled: while a verdict is logged another driver, whose audit passed
// the batch, publishes it. Its rows are in the table, and no dead letters.
func TestVerdictIsOverruled(t *testing.T) {
	s := heldBackOf(t, 2)
	s.until(0, "create sim/offsets/0-")
	s.through(1, "publish t1")
	s.procs[1].kill()
	s.through(0, "create sim/offsets/0-")
	s.settles()
	s.withheld(0)
}

// TestVerdictOfAnotherSpec: where the SQL is another one before anything came of the
// verdict, the rows are other ones, and audited as such.
func TestVerdictOfAnotherSpec(t *testing.T) {
	s := heldBack(t)
	s.until(0, "commit t1")
	s.procs[0].kill()
	s.spec[1] = 2
	s.trace = nil
	s.settles()
	if s.count("audit t1") == 0 {
		s.die("it was not audited again")
	}
	s.withheld(0)
}

// TestPublishedByHand: somebody moves the branch to a batch that its audit held
// back. Its rows would go in twice; so the driver stops, before anything is
// committed, until the tag is there, too, or the branch where it was.
func TestPublishedByHand(t *testing.T) {
	for name, forward := range map[string]bool{"the rows stay": true, "the branch goes back": false} {
		t.Run(name, func(t *testing.T) {
			s := audited(t)
			s.until(0, "audit t1")
			s.procs[0].kill()
			before, staged := s.tables[1].head, s.tables[1].staged[0]
			s.tables[1].head, s.byHand = staged, true
			s.procs[0].start()
			s.stops(0, batch.ErrDataLost, "put the tag on snapshot")
			if forward {
				s.tables[1].snaps[staged].prev = s.tables[1].newest(0)
				s.tables[1].tags[0], s.tables[1].staged[0] = staged, 0
			} else {
				s.tables[1].head = before
			}
			s.settles()
		})
	}
}

// cherryPick makes a snapshot of another writer with the files of what is staged in
// table 1, on a head that has moved on: where it has not, engines move the branch.
func (s *scenario) cherryPick() (copied int64) {
	t := s.tables[1]
	s.foreignAppend(1)
	f := t.snaps[t.staged[0]].added
	s.foreignSnapshot(1, "cherry-pick", append(s.headFiles(1), f.name))
	t.snaps[t.head].added = f
	s.byHand = true
	return t.head
}

// TestCherryPicked: somebody copies a batch that its audit held back to the branch.
// The copy has no stamp, so its rows would go in twice; the driver stops, before
// anything is committed, until they are gone again, whether or not the staging is
// still there to compare with.
func TestCherryPicked(t *testing.T) {
	for name, change := range map[string]struct {
		also, mend func(s *scenario, copied int64)
	}{
		"the branch goes back":               {nil, func(s *scenario, copied int64) { s.tables[1].head = s.tables[1].snaps[copied].parent }},
		"others have committed since":        {func(s *scenario, _ int64) { s.foreignAppend(1) }, deleteCopied},
		"the branch of the audit is dropped": {func(s *scenario, _ int64) { s.tables[1].staged[0] = 0 }, deleteCopied},
	} {
		t.Run(name, func(t *testing.T) {
			s := audited(t)
			s.until(0, "audit t1")
			s.procs[0].kill()
			copied := s.cherryPick()
			if change.also != nil {
				change.also(s, copied)
			}
			s.procs[0].start()
			s.stops(0, batch.ErrDataLost, "rows of a batch that this pipeline has not committed")
			change.mend(s, copied)
			s.settles()
		})
	}
}

// deleteCopied removes the copied file from the branch with a later snapshot.
func deleteCopied(s *scenario, copied int64) {
	name := s.tables[1].snaps[copied].added.name
	s.foreignSnapshot(1, "delete", slices.DeleteFunc(s.headFiles(1), func(f string) bool { return f == name }))
}

// TestCherryPickedMeanwhile: the copy is made after the driver's last look.
func TestCherryPickedMeanwhile(t *testing.T) {
	s := audited(t)
	s.until(0, "publish t1")
	s.cherryPick()
	s.stops(0, batch.ErrDataLost, "rows of a batch that this pipeline has not committed")
}

// TestCopyOfAnother: what another pipeline wrote and somebody copied is none of the
// pipeline's business.
func TestCopyOfAnother(t *testing.T) {
	s := audited(t)
	s.until(0, "audit t1")
	s.procs[0].kill()
	s.foreignAppend(1)
	t1 := s.tables[1]
	t1.snaps[t1.head].added = simFiles{name: s.headFiles(1)[len(s.headFiles(1))-1], rows: 1}
	s.settles()
}
