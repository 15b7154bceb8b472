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
