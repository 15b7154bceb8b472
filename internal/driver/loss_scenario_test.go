package driver_test

import (
	"strings"
	"testing"
	"time"

	"github.com/frazil-io/frazil/internal/batch"
)

// TestLostThoughListed: Kafka goes on listing what it does not serve, as it does
// with records that vanished from the middle of a log. That is no gap: the
// pipeline says so and stops.
func TestLostThoughListed(t *testing.T) {
	s := newScenario(t, simConfig{tables: 1, drivers: 1})
	s.onLoss = true
	s.idle(0)
	s.rows(0, 2)
	s.vanished = true
	s.stops(0, batch.ErrDataLost, "vanished")
	s.vanished = false
	s.settles()
}

// TestDeletedTopic: a topic is deleted, while the pipeline waits or while it
// reads. With on_data_loss: fail it stops, with record it goes on without it.
func TestDeletedTopic(t *testing.T) {
	for name, reading := range map[string]bool{"while it waits": false, "while it reads": true} {
		for _, record := range []bool{false, true} {
			t.Run(name, func(t *testing.T) {
				s := newScenario(t, simConfig{tables: 2, drivers: 1})
				s.onLoss = record
				s.idle(0)
				if reading {
					s.rows(0, 2)
					s.until(0, "read t/0")
				}
				s.deleted = true
				if record {
					s.idle(0)
					if end := s.tables[1].stamp(0).End; len(end) > 0 {
						s.die("the topic is not closed: %v", end)
					}
				} else {
					s.stops(0, batch.ErrDataLost, map[bool]string{true: "offset 2 of t/0", false: "was deleted"}[reading])
				}
				s.makeTopic()
				s.rows(0, 2)
				s.settles()
			})
		}
	}
}

// TestDeletedBeforeTheStart: a topic is deleted while the pipeline stands still,
// wherever it stood. What was there is a loss then, and no mistake in the spec,
// also for the driver that starts after the gap was noted; the topic that is made
// later is read from its beginning.
func TestDeletedBeforeTheStart(t *testing.T) {
	for name, stand := range map[string]func(s *scenario){
		"between batches": func(*scenario) {},
		"with an open plan": func(s *scenario) {
			s.rows(0, 2)
			s.until(0, "read t/0")
		},
		"with a batch in one table": func(s *scenario) {
			s.rows(0, 2)
			s.through(0, "commit t0 batch 1")
		},
		"without its checkpoint": func(s *scenario) { s.loseCheckpoint() },
		"with a sink that is new": func(s *scenario) {
			s.tables = append(s.tables, newSimTable(1))
		},
		"with a new sink and no checkpoint": func(s *scenario) {
			s.tables = append(s.tables, newSimTable(1))
			s.loseCheckpoint()
		},
	} {
		for _, record := range []bool{false, true} {
			t.Run(name, func(t *testing.T) {
				cfg := simConfig{tables: 2, drivers: 1}
				if strings.Contains(name, "new") {
					cfg.tables = 1
				}
				s := newScenario(t, cfg)
				s.onLoss = record
				s.idle(0)
				stand(s)
				s.procs[0].kill()
				s.deleted = true
				began := s.now
				words := "was deleted"
				if strings.Contains(name, "open plan") || strings.Contains(name, "one table") {
					words, began = "of t/0", time.Time{} // the source has asked twice
				}
				if record {
					s.closes()
					s.procs[0].kill()
					s.idle(0)
					s.procs[0].kill()
					s.loseCheckpoint()
					s.idle(0)
				} else {
					s.procs[0].start()
					s.stops(0, batch.ErrDataLost, words)
				}
				if s.now.Sub(began) < 10*time.Second {
					s.die("it is sure after %s", s.now.Sub(began))
				}
				s.makeTopic()
				s.rows(0, 2)
				s.settles()
			})
		}
	}
}

// closes runs process 0 until the last table has noted that the topic is gone: one
// that had the batch whose revision notes it learns it with the next one.
func (s *scenario) closes() {
	s.Helper()
	for range 100 {
		s.idle(0)
		if st := s.tables[len(s.tables)-1].stamp(0); st != nil && len(st.End) == 0 {
			return
		}
	}
	s.die("the topic is never closed")
}

// TestMissingTopic: a pipeline that has read nothing yet is told to correct its
// spec.
func TestMissingTopic(t *testing.T) {
	s := newScenario(t, simConfig{tables: 1, drivers: 1})
	s.onLoss, s.deleted = true, true
	s.procs[0].start()
	s.stops(0, batch.ErrInvalid, "does not exist")
	s.makeTopic()
	s.rows(0, 2)
	s.settles()
}
