package driver_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/frazil-io/frazil/internal/batch"
	"github.com/frazil-io/frazil/internal/driver"
)

// solo is one driver in real time, which a bubble of synctest makes pass at
// once, over the simulated rooms.
type solo struct {
	*testing.T
	*world
	rooms    driver.Rooms
	opts     driver.Options
	begun    time.Time
	starts   []time.Duration // of batches, from begun
	commit   func() error    // called before each commit; an error is its answer
	list     func() error    // called before each question to Kafka
	write    func() error    // called before files are begun
	waits    []string        // what the driver said it waits for
	stopping context.CancelFunc
	ended    chan error
	turn     atomic.Int64 // handed over where the test goes on to let time pass
}

func newSolo(t *testing.T, records int) *solo {
	t.Helper()
	w := newWorld(&chooser{}, simConfig{tables: 1, drivers: 1})
	p := w.procs[0]
	*p = proc{w: w, runs: 1, spec: w.spec, current: &coroutine{yield: func(struct{}) bool { return true }}}
	p.exec = &simExecutor{p: p, overlays: map[string]*overlay{}}
	s := &solo{T: t, world: w, begun: time.Now(), ended: make(chan error, 1)}
	s.commit = func() error { return nil }
	s.list, s.write = s.commit, s.commit
	s.rooms, s.opts = p.rooms()
	s.rooms.Clock, s.rooms.Tasks = soloClock{s: s}, inTurn{}
	s.rooms.Source = soloSource{s.rooms.Source, s}
	s.rooms.Sinks[0].Table = soloTable{s.rooms.Sinks[0].Table, s}
	s.opts.StartTimeout = 30 * time.Second
	s.produce(records)
	return s
}

func (s *solo) produce(n int) {
	for range n {
		s.ids++
		s.add(0, record{id: s.ids, to: [simSinks]bool{true, true}})
	}
}

// run starts the driver.
func (s *solo) run() {
	stop, cancel := context.WithCancel(s.Context())
	s.stopping = cancel
	d := driver.New(s.rooms, s.opts, slog.New(slog.DiscardHandler), s)
	go func() { s.ended <- d.Run(s.Context(), stop) }()
	synctest.Wait()
}

// after lets time pass, all of it for the driver.
func (s *solo) after(d time.Duration) {
	s.turn.Add(1)
	time.Sleep(d)
	synctest.Wait()
}

func (s *solo) end() error {
	s.Helper()
	s.stopping()
	return <-s.ended
}

func (s *solo) elapsed() time.Duration { return time.Since(s.begun) }

func (s *solo) Batch(p driver.Progress) { s.starts = append(s.starts, p.Start.Sub(s.begun)) }
func (s *solo) Listed(time.Time, int64) {}
func (s *solo) Waiting(reason string)   { s.waits = append(s.waits, reason) }
func (s *solo) Standby(string)          {}
func (s *solo) committed() int64        { return s.tables[0].stamp(0).Total.Written }
func (s *solo) expect(want ...time.Duration) {
	s.Helper()
	if !slices.Equal(s.starts, want) {
		s.Errorf("batches began at %v, want %v", s.starts, want)
	}
}

// inTurn runs a task when it is waited for: the simulated world is not for two
// goroutines.
type inTurn struct{}

func (inTurn) Go(f func()) (wait func()) { return f }

func (inTurn) After(ctx context.Context, f func()) (cancel func() bool) {
	return context.AfterFunc(ctx, f)
}

// soloClock is real time. That a driver woke up does not say in Go's memory model
// that it sees what the test did while it slept: the turn does.
type soloClock struct {
	driver.WallClock
	s *solo
}

func (c soloClock) Sleep(ctx context.Context, d time.Duration) error {
	err := c.WallClock.Sleep(ctx, d)
	c.s.turn.Load()
	return err
}

type soloSource struct {
	driver.Source
	s *solo
}

func (s soloSource) Start(ctx context.Context, known batch.Offsets) (batch.Offsets, error) {
	if err := s.s.list(); err != nil {
		return nil, err
	}
	return s.Source.Start(ctx, known)
}

func (s soloSource) List(ctx context.Context, since []batch.Range) ([]batch.Available, error) {
	if err := s.s.list(); err != nil {
		return nil, err
	}
	return s.Source.List(ctx, since)
}

type soloTable struct {
	driver.Table
	s *solo
}

func (t soloTable) Load(ctx context.Context) (driver.View, error) {
	v, err := t.Table.Load(ctx)
	return soloView{v, t.s}, err
}

func (t soloTable) Writer(ctx context.Context, attempt string) (driver.Writer, error) {
	if err := t.s.write(); err != nil {
		return nil, err
	}
	return t.Table.Writer(ctx, attempt)
}

type soloView struct {
	driver.View
	s *solo
}

func (v soloView) Commit(ctx context.Context, stamp *batch.Stamp, files driver.Files) (int64, error) {
	if err := v.s.commit(); err != nil {
		return 0, err
	}
	return v.View.Commit(ctx, stamp, files)
}

var errDown = fmt.Errorf("it is down: %w", batch.ErrUnavailable)

// down answers with an error for a while.
func down(d time.Duration) func() error {
	until := time.Now().Add(d)
	return func() error {
		if time.Now().Before(until) {
			return errDown
		}
		return nil
	}
}

func TestTriggers(t *testing.T) {
	// Four records make a batch.
	for name, test := range map[string]func(*solo){
		"interval": func(s *solo) {
			s.opts.Trigger.Interval = 10 * time.Second
			s.run()
			s.after(25 * time.Second)
			s.expect(0, 10*time.Second, 20*time.Second)
		},
		"a batch that overran is followed at once": func(s *solo) {
			s.opts.Trigger.Interval = 10 * time.Second
			s.run()
			s.commit = down(25 * time.Second)
			s.after(time.Minute)
			if len(s.starts) < 4 || s.starts[1] != 10*time.Second || s.starts[2] < 25*time.Second || s.starts[2] > 45*time.Second || s.starts[3] != s.starts[2]+10*time.Second {
				s.Errorf("batches began at %v", s.starts)
			}
		},
		"no interval": func(s *solo) {
			s.run()
			s.expect(0, 0, 0, 0)
			s.produce(1)
			s.after(time.Second)
			if len(s.starts) != 5 || s.starts[4] > 100*time.Millisecond {
				s.Errorf("batches began at %v", s.starts)
			}
		},
		"available now": func(s *solo) {
			s.opts.Trigger = driver.Trigger{Interval: time.Hour, AvailableNow: true}
			s.commit = func() error { s.produce(1); return nil }
			s.run()
			if err := <-s.ended; err != nil || s.committed() != 16 {
				s.Errorf("%d records were committed, %v", s.committed(), err)
			}
			s.ended <- nil
		},
		"a minimum holds records back for a while": func(s *solo) {
			s.opts.Limits.RecordsMin, s.opts.DelayMax = 3, 30*time.Second
			s.run()
			s.expect(0, 0, 0, 0)
			s.produce(1)
			s.after(29 * time.Second)
			s.expect(0, 0, 0, 0)
			s.after(2 * time.Second)
			if s.committed() != 17 {
				s.Errorf("%d records are committed", s.committed())
			}
			s.produce(3)
			s.after(time.Second)
			if s.committed() != 20 {
				s.Errorf("%d records are committed", s.committed())
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newSolo(t, 16)
				test(s)
				if err := s.end(); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

func TestStop(t *testing.T) {
	for name, test := range map[string]func(*solo){
		"idle": func(s *solo) {
			s.run()
			if err := s.end(); err != nil || s.elapsed() != 0 {
				s.Errorf("%v after %s", err, s.elapsed())
			}
		},
		"the batch finishes": func(s *solo) {
			s.commit = down(3 * time.Second)
			s.run()
			if err := s.end(); err != nil || s.elapsed() > 20*time.Second || s.tables[0].head != 1 {
				s.Errorf("%v after %s, head %d", err, s.elapsed(), s.tables[0].head)
			}
		},
		"the batch is abandoned": func(s *solo) {
			s.commit = down(time.Hour)
			s.run()
			if err := s.end(); err != nil || s.elapsed() != 20*time.Second || s.tables[0].head != 0 {
				s.Errorf("%v after %s, head %d", err, s.elapsed(), s.tables[0].head)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newSolo(t, 4)
				test(s)
				if s.store["sim/released/"+s.opts.Writer.ID] == nil {
					t.Error("the pipeline was not released")
				}
			})
		})
	}
}

// TestFullDisk: a warehouse without room is waited for as what the batch needs, not as
// Kafka, which is there.
func TestFullDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSolo(t, 4)
		s.write = down(time.Hour)
		s.run()
		s.after(59 * time.Minute)
		if s.tables[0].head != 0 || len(s.waits) == 0 {
			t.Fatalf("the head is %d, it waited for %q", s.tables[0].head, s.waits)
		}
		for _, reason := range s.waits {
			if !strings.HasPrefix(reason, "what batch 0 needs: ") || !strings.Contains(reason, "it is down") {
				t.Fatalf("it waits for %q", reason)
			}
		}
		s.after(2 * time.Minute)
		if s.committed() != 4 || s.waits[len(s.waits)-1] != "" {
			t.Errorf("%d records are committed after there is room, it waits for %q", s.committed(), s.waits[len(s.waits)-1])
		}
		if err := s.end(); err != nil {
			t.Error(err)
		}
	})
}

// TestServersThatAreAway: one that never answered is fatal after a while, one
// that did may be away for ever.
func TestServersThatAreAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSolo(t, 4)
		s.list = down(time.Hour)
		s.run()
		if err := <-s.ended; !errors.Is(err, batch.ErrUnavailable) || s.elapsed() < 30*time.Second || s.elapsed() > time.Minute {
			t.Errorf("never there: %v after %s", err, s.elapsed())
		}
	})
	synctest.Test(t, func(t *testing.T) {
		s := newSolo(t, 4)
		s.run()
		s.list = down(time.Hour)
		s.produce(1)
		s.after(59 * time.Minute)
		if s.committed() != 4 {
			t.Errorf("%d records are committed", s.committed())
		}
		s.after(2 * time.Minute)
		if s.committed() != 5 {
			t.Errorf("%d records are committed after Kafka is back", s.committed())
		}
		if err := s.end(); err != nil {
			t.Error(err)
		}
	})
}
