package driver_test

import "testing"

// TestSchemaChange: a table is altered while a batch is written for it. The batch
// is written again, and nothing stops.
func TestSchemaChange(t *testing.T) {
	for _, call := range []string{"read t/0", "commit t0 batch 1", "load t1", "commit t1 batch 1"} {
		t.Run(call, func(t *testing.T) {
			s := newScenario(t, simConfig{tables: 2, drivers: 1})
			s.idle(0)
			s.rows(0, 2)
			s.until(0, call)
			s.tables[0].schema++
			s.tables[1].schema++
			s.idle(0)
			s.settles()
			if g := s.garbage(); len(g) > 0 || s.attempts() > 0 {
				s.die("left over: %d attempts, %v", s.attempts(), g)
			}
		})
	}
}
