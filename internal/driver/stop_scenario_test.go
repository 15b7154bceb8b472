package driver_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/frazil-io/frazil/internal/batch"
)

const always = 1 << 30

// TestStopEndsWaiting: who is asked to end while it merely waits ends at once,
// with one more try. Only a batch whose files are there has a grace.
func TestStopEndsWaiting(t *testing.T) {
	for name, to := range map[string]func(s *scenario){
		"for Kafka, between batches": func(s *scenario) {
			s.idle(0)
			s.failing["list offsets"] = always
		},
		"for Kafka, at the start": func(s *scenario) {
			s.failing["resolve start"] = always
		},
		"for Kafka, in a batch": func(s *scenario) {
			s.idle(0)
			s.rows(0, 1)
			s.failing["the end of a read"] = always
		},
		"for the catalog, at the start": func(s *scenario) {
			s.failing["load"] = always
		},
		"for the checkpoint": func(s *scenario) {
			s.failing["create sim/pipeline/"] = always
		},
		"for a second listing": func(s *scenario) {
			s.idle(0)
			s.rows(0, 2)
			s.part(s.tp(0)).start = 4
			s.through(0, "sleep 10s")
			s.part(s.tp(0)).start = 0
		},
		"for the trigger": func(s *scenario) { s.idle(0) },
	} {
		t.Run(name, func(t *testing.T) {
			s := newScenario(t, simConfig{tables: 1, drivers: 1})
			s.failing = map[string]int{}
			p := s.procs[0]
			to(s)
			if !p.alive {
				p.start()
			}
			for range 200 {
				p.step()
			}
			for !strings.HasPrefix(p.ready()[0].call, "sleep ") {
				p.step()
			}
			began := s.now
			p.terminate()
			for range 30 {
				if p.alive {
					p.run(p.main) // and not the end of the grace
				}
			}
			if waited := s.now.Sub(began); p.alive || p.err != nil || waited > 0 {
				s.die("it lives: %v; it waited for %s; %v", p.alive, waited, p.err)
			}
			clear(s.failing)
			s.settles()
		})
	}
}

// TestStopBeginsNothing: no batch is logged after the end was asked for.
func TestStopBeginsNothing(t *testing.T) {
	s := newScenario(t, simConfig{tables: 1, drivers: 1})
	s.idle(0)
	s.rows(0, 1)
	s.until(0, "list offsets")
	s.procs[0].terminate()
	if s.reaches(0, "create ") {
		s.die("it logs a batch")
	}
	s.settles()
}

// TestStopDropsWorkAhead: what runs ahead when the end is asked for is not
// waited for.
func TestStopDropsWorkAhead(t *testing.T) {
	s := newScenario(t, simConfig{tables: 1, drivers: 1})
	s.idle(0)
	s.rows(0, 1)
	s.until(0, "read t/0")
	s.rows(0, 3)
	p := s.procs[0]
	for len(p.tasks) == 0 || !strings.HasPrefix(p.tasks[0].call, "read t/0") {
		p.step()
	}
	p.terminate()
	s.trace = nil
	if err := s.ends(0); err != nil {
		s.die("%v", err)
	}
	for _, l := range s.trace {
		if strings.HasPrefix(l, "d0: write ") {
			s.die("it goes on with what is thrown away: %s", l)
		}
	}
	if s.tables[0].stamp(0).Last != 1 {
		s.die("the batch under way was not committed")
	}
	s.settles()
}

// TestFencedDropsWorkAhead: nor is it after a commit that ends the driver.
func TestFencedDropsWorkAhead(t *testing.T) {
	s := newScenario(t, simConfig{tables: 1, drivers: 2})
	s.idle(0)
	s.rows(0, 1)
	s.until(0, "read t/0")
	s.rows(0, 3)
	p := s.procs[0]
	for len(p.tasks) == 0 || !strings.HasPrefix(p.tasks[0].call, "read t/0") {
		p.step()
	}
	s.idle(1)
	s.trace = nil
	for p.alive {
		if p.joining != nil && !p.joining.done {
			p.run(p.joining)
		} else {
			p.run(p.main)
		}
	}
	for _, l := range s.trace {
		if strings.HasPrefix(l, "d0: write ") {
			s.die("it goes on with what is thrown away: %s", l)
		}
	}
}

// TestAFinishedBatchIsRecorded: its record does not wait for what runs ahead.
func TestAFinishedBatchIsRecorded(t *testing.T) {
	s := newScenario(t, simConfig{tables: 1, drivers: 1})
	s.idle(0)
	s.rows(0, 1)
	s.until(0, "read t/0")
	s.rows(0, 3)
	p := s.procs[0]
	for len(p.tasks) == 0 || !strings.HasPrefix(p.tasks[0].call, "read t/0") {
		p.step()
	}
	stuck := p.tasks[0]
	for range 20 { // everything but the work that runs ahead
		for _, c := range append(p.tasks[:len(p.tasks):len(p.tasks)], p.main) {
			if c != stuck && !c.done && (c != p.main || p.joining == nil || p.joining.done) {
				p.run(c)
			}
		}
	}
	if s.store["sim/commits/0-p0.1.2/000000000001"] == nil {
		s.die("the batch is not recorded")
	}
}

// TestReadyAgain: readiness comes back when what failed has gone well in the end.
func TestReadyAgain(t *testing.T) {
	for name, fate := range map[string]int{"answer": answerLost, "request": requestLost} {
		t.Run("a commit whose "+name+" was lost", func(t *testing.T) {
			s := newScenario(t, simConfig{tables: 1, drivers: 1})
			s.idle(0)
			s.rows(0, 1)
			s.until(0, "commit t0 batch 1")
			s.fate = fate
			s.idle(0)
			if p := s.procs[0]; p.waiting != "" || p.outcome[0].Snapshot != s.tables[0].head {
				s.die("it waits: %q; the batch is recorded as %+v, the head is %d", p.waiting, p.outcome, s.tables[0].head)
			}
		})
	}
}

// TestPatienceBegins with the first failure: a batch that was worked on for long
// is not given up at its first glitch, whether rows have come or not.
func TestPatienceBegins(t *testing.T) {
	for name, produce := range map[string]func(*scenario){
		"rows have come": func(s *scenario) { s.rows(0, 1) },
		"none have come": func(s *scenario) { s.add(0, record{hole: true}) },
	} {
		t.Run(name, func(t *testing.T) {
			s := newScenario(t, simConfig{tables: 1, drivers: 1})
			s.failing = map[string]int{}
			s.idle(0)
			produce(s)
			s.until(0, "put sim/attempts/")
			s.procs[0].kill()
			s.until(0, "read t/1")
			s.now = s.now.Add(2 * time.Hour)
			s.failing["the end of a read"] = 1
			s.idle(0)
			s.settles()
		})
	}
}

// TestPatienceEnds: a checkpoint that never takes the pipeline's first record is
// given up after the start's timeout, with pauses and a word on why.
func TestPatienceEnds(t *testing.T) {
	s := newScenario(t, simConfig{tables: 1, drivers: 1})
	s.failing = map[string]int{"create sim/pipeline/": always}
	p := s.procs[0]
	p.start()
	for range 3000 {
		if p.alive {
			p.step()
		}
	}
	if p.alive || !errors.Is(p.err, batch.ErrUnavailable) || p.waiting == "" {
		s.die("it lives: %v; it waits for %q; %v", p.alive, p.waiting, p.err)
	}
}
