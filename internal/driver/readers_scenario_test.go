package driver_test

import (
	"fmt"
	"slices"
	"testing"

	"github.com/frazil-io/frazil/internal/batch"
)

// readings are the schemas with which a batch was executed, in order.
func (s *scenario) readings(id batch.ID) (schemas []int32) {
	for _, r := range s.read {
		if r.batch == id {
			schemas = append(schemas, r.schema)
		}
	}
	return schemas
}

func (s *scenario) readWith(id batch.ID, want ...int32) {
	s.Helper()
	if got := s.readings(id); !slices.Equal(got, want) {
		s.die("batch %d was read with the schemas %d, want %d", id, got, want)
	}
}

// TestReplayKeepsItsSchema: the process dies with a batch that is logged, and a
// newer schema is registered. The batch is read as it was before; the next one is
// read with the newer schema. So is the batch of a driver that takes over.
func TestReplayKeepsItsSchema(t *testing.T) {
	for _, call := range []string{"read t/0", "commit t0 batch 1", "commit t1 batch 1"} {
		for name, successor := range map[string]int{"a restart": 0, "another driver": 1} {
			t.Run(call+"/"+name, func(t *testing.T) {
				s := newScenario(t, simConfig{tables: 2, drivers: 2})
				s.idle(0)
				s.rows(0, 1)
				s.until(0, "create sim/offsets")
				s.until(0, call)
				s.procs[0].kill()
				s.register()
				s.failing = map[string]int{"the end of a read": 1} // is no reason to read it otherwise
				s.idle(successor)
				s.rows(0, 1)
				s.idle(successor)
				if got := s.readings(1); slices.ContainsFunc(got, func(id int32) bool { return id != 1 }) || len(got) < 2 {
					s.die("batch 1 was read with the schemas %d, want 1 each time", got)
				}
				s.readWith(2, 2)
				s.settles()
			})
		}
	}
}

// TestNewerSchemaWhileRunning: the batch after it was noticed is the first one
// that is read with it; the batch under way, though it is executed again for
// another reason, is not.
func TestNewerSchemaWhileRunning(t *testing.T) {
	s := newScenario(t, simConfig{tables: 1, drivers: 1})
	s.idle(0)
	s.rows(0, 1)
	s.until(0, "commit t0 batch 1")
	s.register()
	s.tables[0].schema++ // so that it is executed again
	s.idle(0)
	s.readWith(1, 1, 1)
	s.rows(0, 1)
	s.idle(0)
	s.readWith(2, 2)
	s.settles()
}

// TestWorkAheadIsDroppedForANewerSchema: what was read ahead with the older schema
// is thrown away, and its files are swept.
func TestWorkAheadIsDroppedForANewerSchema(t *testing.T) {
	s := newScenario(t, simConfig{tables: 1, drivers: 1})
	s.idle(0)
	s.rows(0, 6)
	s.until(0, "commit t0 batch 1")
	for len(s.readings(2)) == 0 { // which runs ahead of that commit
		s.procs[0].run(s.procs[0].ready()[0])
	}
	s.register()
	s.idle(0)
	s.readWith(2, 1, 2)
	s.settles()
	if g := s.garbage(); len(g) > 0 {
		s.die("left over: %v", g)
	}
}

// TestNewerSchemaThatCannotBeHad: a registry that is away stops nothing.
func TestNewerSchemaThatCannotBeHad(t *testing.T) {
	s := newScenario(t, simConfig{tables: 1, drivers: 1})
	s.idle(0)
	s.failing = map[string]int{"use a schema": 1}
	s.register()
	s.through(0, "use schema 2")
	s.rows(0, 1)
	s.until(0, "commit t0 batch 1")
	s.readWith(1, 1)
	s.settles()
}

// TestRevisionTakesTheNewestSchema: the user changed the SQL of a batch that is
// open, perhaps to use what a newer schema has.
func TestRevisionTakesTheNewestSchema(t *testing.T) {
	s := newScenario(t, simConfig{tables: 1, drivers: 1})
	s.idle(0)
	s.rows(0, 1)
	s.until(0, "commit t0 batch 1")
	s.procs[0].kill()
	s.register()
	s.spec[0] = 2
	s.idle(0)
	s.readWith(1, 1, 2)
	s.settles()
}

// TestFirstRecordsOfANewerSchema: records of a schema that was registered after
// their batch was planned are not read with the older one, which would lose what
// is new in them: the batch is revised. Its replay is not, whatever comes later.
func TestFirstRecordsOfANewerSchema(t *testing.T) {
	for _, ahead := range []bool{false, true} {
		t.Run(fmt.Sprintf("ahead %t", ahead), func(t *testing.T) {
			s := newScenario(t, simConfig{tables: 2, drivers: 1})
			s.idle(0)
			s.rows(0, 1)
			if ahead { // of the commit of the batch before
				s.until(0, "commit t0 batch 1")
			} else {
				s.until(0, "list offsets")
			}
			s.register()
			s.ids++
			s.add(0, record{id: s.ids, to: [simSinks]bool{true, true}, schema: s.schema})
			s.until(0, "commit t1 batch "+map[bool]string{false: "1", true: "2"}[ahead])
			s.procs[0].kill()
			s.register()
			s.idle(0)
			id := batch.ID(1)
			if ahead {
				id = 2
			}
			got := s.readings(id)
			if len(got) < 2 || got[len(got)-1] != 2 || slices.Contains(got, 3) {
				s.die("batch %d was read with the schemas %d, want 2 in the end and never 3", id, got)
			}
			s.rows(0, 1)
			s.idle(0)
			s.readWith(id+1, 3)
			s.settles()
		})
	}
}
