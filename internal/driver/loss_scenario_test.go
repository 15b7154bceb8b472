package driver_test

import (
	"testing"

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
