package driver_test

import (
	"slices"
	"strings"
	"testing"
	"time"
)

// TestAheadWaitsForTheTrigger: a trigger that falls due while a batch is committed
// begins the next one then, not behind the commit. One that does not leaves the
// next batch alone.
func TestAheadWaitsForTheTrigger(t *testing.T) {
	s := newScenario(t, simConfig{tables: 1, drivers: 1, interval: time.Minute})
	s.idle(0)
	s.rows(0, 1)
	s.through(0, "create sim/offsets/0-")
	s.rows(0, 1)
	before := len(s.trace)
	s.until(0, "commit t0 batch 1")
	ahead := s.trace[before:]
	waits := slices.IndexFunc(ahead, func(l string) bool { return strings.Contains(l, "d0: sleep ") })
	lists := slices.IndexFunc(ahead, func(l string) bool { return strings.HasSuffix(l, "d0: list offsets") })
	if waits < 0 || lists < waits {
		t.Errorf("while batch 1 is committed the driver does this:\n%s", strings.Join(ahead, "\n"))
	}
	s.settles()
}
