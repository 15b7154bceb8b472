package pipeline

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"

	"github.com/frazil-io/frazil/internal/batch"
	"github.com/frazil-io/frazil/internal/driver"
)

// meeting is the tables of a sink, of which no load, or no commit, ends alone while
// it waits for another one.
type meeting struct {
	driver.Tables
	commits bool
	met     chan struct{}
	n       *atomic.Int64 // those that have met another one
}

// Table implements driver.Tables.
func (m meeting) Table(name string) driver.Table { return meetingTable{m.Tables.Table(name), m} }

type meetingTable struct {
	driver.Table
	m meeting
}

// meet returns when another one does the same.
func (m meeting) meet(ctx context.Context) error {
	if m.n.Load() < meetings {
		select {
		case m.met <- struct{}{}:
		case <-m.met:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		m.n.Add(1)
	}
	return nil
}

// meetings is how many have to meet, an even number.
const meetings = 6

// Load implements driver.Table.
func (t meetingTable) Load(ctx context.Context) (driver.View, error) {
	if !t.m.commits {
		if err := t.m.meet(ctx); err != nil {
			return nil, err
		}
	}
	v, err := t.Table.Load(ctx)
	return meetingView{v, t.m}, err
}

type meetingView struct {
	driver.View
	m meeting
}

// Commit implements driver.View.
func (v meetingView) Commit(ctx context.Context, stamp *batch.Stamp, files driver.Files) (int64, error) {
	if v.m.commits {
		if err := v.m.meet(ctx); err != nil {
			return 0, err
		}
	}
	return v.View.Commit(ctx, stamp, files)
}

// TestRoutesAtOnce: the tables of a sink are loaded beside each other when the
// pipeline is opened, and of a batch they are committed to beside each other; in turn,
// each would wait for the next one forever.
func TestRoutesAtOnce(t *testing.T) {
	t.Parallel()
	for _, commits := range []bool{false, true} {
		t.Run(fmt.Sprintf("commits: %t", commits), func(t *testing.T) {
			t.Parallel()
			var topics []string
			for n := range meetings {
				topics = append(topics, fmt.Sprint("ev", n))
			}
			r := newRouting(t, topics...)
			produce := func() {
				for _, topic := range topics {
					r.produce(topic, "raw."+topic, 1)
				}
			}
			produce()
			spec := r.spec(100, "")
			if err := r.run(spec, "", 0); err != nil {
				t.Fatal(err)
			}
			m := meeting{commits: commits, met: make(chan struct{}), n: &atomic.Int64{}}
			if commits {
				produce()
			}
			p, err := New(t.Context(), spec, Options{Rooms: func(rooms driver.Rooms) driver.Rooms {
				m.Tables = rooms.Sinks[0].Tables
				rooms.Sinks[0].Tables = m
				return rooms
			}})
			if err != nil {
				t.Fatal(err)
			}
			defer p.Close()
			if err := p.Run(t.Context(), t.Context()); err != nil {
				t.Fatal(err)
			}
			if m.n.Load() < meetings {
				t.Errorf("%d have met another one", m.n.Load())
			}
			r.check(spec)
		})
	}
}
