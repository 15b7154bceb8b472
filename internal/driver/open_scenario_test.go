package driver_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/frazil-io/frazil/internal/batch"
	"github.com/frazil-io/frazil/internal/driver"
)

// ends runs a process to its end, whatever that is.
func (s *scenario) ends(i int) error {
	s.Helper()
	for range 5000 {
		if !s.procs[i].alive {
			return s.procs[i].err
		}
		s.procs[i].step()
		s.checkFiles()
	}
	s.die("process %d does not end", i)
	return nil
}

// stops runs a process to its end, which must be an error of this kind that says
// these words.
func (s *scenario) stops(i int, kind error, words string) {
	s.Helper()
	err := s.ends(i)
	if s.bad != nil {
		s.die("%s: %s", s.bad.kind, s.bad.text)
	}
	if !errors.Is(err, kind) || !strings.Contains(err.Error(), words) {
		s.die("process %d ends with %v, not with %v that says %q", i, err, kind, words)
	}
}

// TestTagRemoved: somebody cleans up and removes the tag of a table. Wherever
// the pipeline is, it says so and stops, and goes on when the tag is back.
func TestTagRemoved(t *testing.T) {
	two := simConfig{tables: 2, drivers: 2}
	again := func(s *scenario, i int) {
		s.Helper()
		if !s.procs[i].alive {
			s.procs[i].start()
		}
		s.stops(i, batch.ErrDataLost, "put the tag back")
		s.putTagsBack()
		s.settles()
	}
	t.Run("while it runs", func(t *testing.T) {
		s := newScenario(t, two)
		s.idle(0)
		s.removeTag(1)
		s.rows(0, 1)
		again(s, 0)
	})
	t.Run("between runs", func(t *testing.T) {
		s := newScenario(t, two)
		s.idle(0)
		s.procs[0].kill()
		s.removeTag(1)
		again(s, 0)
	})
	t.Run("after a recovery", func(t *testing.T) {
		s := recovered(t, two, 1)
		s.idle(1)
		s.procs[1].kill()
		s.removeTag(1)
		again(s, 1)
	})
	t.Run("after a rewind whose target has expired", func(t *testing.T) {
		s := newScenario(t, two)
		s.idle(0)
		s.rows(0, 1)
		s.idle(0)
		s.procs[0].kill()
		s.operator(0, "rewind", func(ctx context.Context, d *driver.Driver) error { return d.Rewind(ctx, 0, false) })
		if err := s.ends(2); err != nil {
			s.die("%v", err)
		}
		s.expire(1)
		s.until(0, "list sim/offsets/1-") // it has seen the tags
		s.removeTag(1)
		again(s, 0)
	})
	t.Run("with the checkpoint", func(t *testing.T) {
		s := newScenario(t, two)
		s.idle(0)
		s.procs[0].kill()
		s.removeTag(1)
		s.loseCheckpoint()
		again(s, 0)
	})
	t.Run("all of them, with the checkpoint", func(t *testing.T) {
		s := newScenario(t, two)
		s.idle(0)
		s.procs[0].kill()
		s.removeTag(0)
		s.removeTag(1)
		s.loseCheckpoint()
		again(s, 0)
	})
	t.Run("when an operator recovers", func(t *testing.T) {
		s := newScenario(t, two)
		s.idle(0)
		s.procs[0].kill()
		s.removeTag(1)
		s.operator(0, "recover", func(ctx context.Context, d *driver.Driver) error { return d.Recover(ctx, "") })
		again(s, 2)
	})
}

// TestJoinStart: a table without a stamp joins where `start` says, but not
// behind what the others have read, whatever the pipeline went through before.
func TestJoinStart(t *testing.T) {
	two := simConfig{tables: 2, drivers: 2}
	begins := func(s *scenario, ti int, want int64) {
		s.Helper()
		if st := s.tables[ti].snaps[1].stamp; st.Start[s.tp(0)] != want && len(st.Start) > 0 || st.End[s.tp(0)] < want {
			s.die("t%d begins with %v to %v, want %d", ti, st.Start, st.End, want)
		}
		s.settles()
	}
	for _, latest := range []bool{true, false} {
		// others is where the table that joins may begin at the latest.
		others := func(s *scenario) int64 {
			if latest {
				return s.tables[0].stamp(0).End[s.tp(0)]
			}
			return 0
		}
		t.Run("a new sink after a recovery", func(t *testing.T) {
			s := newScenario(t, two)
			s.out[1] = true
			s.idle(0)
			s.procs[0].kill()
			s.loseCheckpoint()
			s.rows(0, 1)
			s.idle(0)
			s.procs[0].kill()
			want := others(s)
			s.rows(0, 2)
			s.out[1], s.latest = false, latest
			s.idle(0)
			begins(s, 1, want)
		})
		t.Run("a new sink, in a new pipeline", func(t *testing.T) {
			s := newScenario(t, two)
			s.out[1] = true
			s.rows(0, 1)
			s.idle(0)
			s.procs[0].kill()
			want := others(s)
			s.rows(0, 2)
			s.out[1], s.latest = false, latest
			s.idle(0)
			begins(s, 1, want)
		})
		t.Run("a table that had no stamp when the checkpoint was lost", func(t *testing.T) {
			s := newScenario(t, two)
			s.rows(0, 1)
			s.until(0, "commit t1")
			s.procs[0].kill()
			s.loseCheckpoint()
			want := others(s)
			s.rows(0, 2)
			s.latest = latest
			s.idle(0)
			begins(s, 1, want)
		})
		t.Run("when an operator recovers", func(t *testing.T) {
			s := newScenario(t, two)
			s.rows(0, 1)
			s.until(0, "commit t1")
			s.procs[0].kill()
			want := others(s)
			s.latest = latest
			s.operator(0, "recover", func(ctx context.Context, d *driver.Driver) error { return d.Recover(ctx, "") })
			if err := s.ends(2); err != nil {
				s.die("%v", err)
			}
			s.rows(0, 2)
			s.idle(0)
			begins(s, 1, want)
		})
		t.Run("after a rewind", func(t *testing.T) {
			s := newScenario(t, two)
			s.out[1] = true
			s.rows(0, 1)
			s.idle(0)
			s.rows(0, 1)
			s.idle(0)
			s.procs[0].kill()
			s.operator(0, "rewind", func(ctx context.Context, d *driver.Driver) error { return d.Rewind(ctx, 0, false) })
			if err := s.ends(2); err != nil {
				s.die("%v", err)
			}
			want := others(s)
			s.out[1], s.latest = false, latest
			s.idle(0)
			begins(s, 1, want)
		})
	}
}

// TestRollback: another engine moves a table back behind what was committed. The
// pipeline stops, running or not, and goes on when the table is as it was.
func TestRollback(t *testing.T) {
	for name, runs := range map[string]bool{"while it runs": true, "between runs": false} {
		t.Run(name, func(t *testing.T) {
			s := newScenario(t, simConfig{tables: 2, drivers: 1})
			s.idle(0)
			s.rows(0, 1)
			s.idle(0)
			if !runs {
				s.procs[0].kill()
			}
			s.rollback(1)
			s.rows(0, 1)
			if !runs {
				s.procs[0].start()
			}
			s.stops(0, batch.ErrDataLost, "was rolled back")
			s.undo(1)
			s.settles()
		})
	}
}

// TestRewindOutOfARollback: where the table cannot be rolled forward again, the
// pipeline goes back with it.
func TestRewindOutOfARollback(t *testing.T) {
	s := newScenario(t, simConfig{tables: 2, drivers: 1})
	s.batches(3)
	s.rollback(1)
	s.rows(0, 1)
	s.procs[0].start()
	s.stops(0, batch.ErrDataLost, "was rolled back")
	if err := s.ends(s.rewinds(1)); err != nil {
		s.die("the rewind ends with %v", err)
	}
	s.procs[0].start()
	s.settles()
}
