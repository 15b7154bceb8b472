package driver_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/frazil-io/frazil/internal/batch"
	"github.com/frazil-io/frazil/internal/driver"
)

// checks asks what a run would do, and makes sure that asking changes nothing.
func (s *scenario) checks() (note string, err error) {
	s.Helper()
	s.operator(0, "check", func(ctx context.Context, d *driver.Driver) error {
		note, err = d.Check(ctx)
		return nil
	})
	s.trace = nil
	if err := s.ends(len(s.procs) - 1); err != nil {
		s.die("%v", err)
	}
	for _, line := range s.trace {
		for _, call := range []string{"create ", "put ", "delete ", "commit "} {
			if strings.Contains(line, ": "+call) {
				s.die("it writes: %s", line)
			}
		}
	}
	return note, err
}

// TestCheck: what a status says of a run is what the run then does.
func TestCheck(t *testing.T) {
	two := simConfig{tables: 2, drivers: 1}
	for name, c := range map[string]struct {
		make func(s *scenario)
		note string
		stop string // in the error of a run
	}{
		"new":                         {func(*scenario) {}, "", ""},
		"well":                        {func(s *scenario) { s.batches(2) }, "", ""},
		"an open plan":                {func(s *scenario) { s.until(0, "commit t1"); s.procs[0].kill() }, "", ""},
		"a lost record":               {func(s *scenario) { s.batches(2); s.loseCheckpoint() }, "no record of the pipeline", ""},
		"a removed tag":               {func(s *scenario) { s.batches(2); s.removeTag(1) }, "", "put the tag back"},
		"a tag removed too":           {func(s *scenario) { s.batches(2); s.removeTag(1); s.loseCheckpoint() }, "", "put the tag back"},
		"a rollback":                  {func(s *scenario) { s.batches(2); s.rollback(0) }, "", "was rolled back"},
		"a rollback without a record": {func(s *scenario) { s.batches(2); s.rollback(0); s.loseCheckpoint() }, "", "was rolled back"},
		"an older checkpoint": {func(s *scenario) {
			s.batches(1)
			old := map[string][]byte{}
			for k, v := range s.store {
				old[k] = v
			}
			s.batches(1)
			s.store = old
		}, "", "two histories"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newScenario(t, two)
			c.make(s)
			note, err := s.checks()
			if !strings.Contains(note, c.note) || (note == "") != (c.note == "") {
				s.die("it notes %q, not %q", note, c.note)
			}
			s.procs[0].start()
			if c.stop == "" {
				if err != nil {
					s.die("it says %v", err)
				}
				s.settles()
				return
			}
			run := s.ends(0)
			if !errors.Is(err, batch.ErrDataLost) || !strings.Contains(err.Error(), c.stop) || !errors.Is(run, batch.ErrDataLost) || !strings.Contains(run.Error(), c.stop) {
				s.die("it says %v, and the run ends with %v", err, run)
			}
		})
	}
}

// TestCheckWhileItRuns: a driver that is quicker than the look is no trouble.
func TestCheckWhileItRuns(t *testing.T) {
	s := newScenario(t, simConfig{tables: 2, drivers: 1})
	s.idle(0)
	var err error
	s.operator(0, "check", func(ctx context.Context, d *driver.Driver) error {
		_, err = d.Check(ctx)
		return nil
	})
	for range 6 {
		last := len(s.procs) - 1
		if !s.procs[last].alive || !s.reaches(last, "load t1") {
			break
		}
		s.rows(0, 1)
		s.idle(0)
		s.procs[last].step()
	}
	if err := errors.Join(s.ends(len(s.procs)-1), err); err != nil {
		s.die("%v", err)
	}
	s.settles()
}
