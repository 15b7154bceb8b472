package pipeline

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"

	"github.com/frazil-io/frazil/internal/driver"
)

// meeting is the tables of a sink, of which no load ends alone while it waits for
// another one.
type meeting struct {
	driver.Tables
	met chan struct{}
	n   *atomic.Int64 // loads that have met another one
}

// Table implements driver.Tables.
func (m meeting) Table(name string) driver.Table { return meetingTable{m.Tables.Table(name), m} }

type meetingTable struct {
	driver.Table
	m meeting
}

// Load implements driver.Table.
func (t meetingTable) Load(ctx context.Context) (driver.View, error) {
	if t.m.n.Load() < 6 {
		select {
		case t.m.met <- struct{}{}:
		case <-t.m.met:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
		t.m.n.Add(1)
	}
	return t.Table.Load(ctx)
}

// TestRoutesOpenAtOnce: the tables of a sink are loaded beside each other when the
// pipeline is opened; in turn, each would wait for the next one forever.
func TestRoutesOpenAtOnce(t *testing.T) {
	t.Parallel()
	var topics []string
	for n := range 6 {
		topics = append(topics, fmt.Sprint("ev", n))
	}
	r := newRouting(t, topics...)
	for _, topic := range topics {
		r.produce(topic, "raw."+topic, 1)
	}
	spec := r.spec(100, "")
	if err := r.run(spec, "", 0); err != nil {
		t.Fatal(err)
	}
	m := meeting{met: make(chan struct{}), n: &atomic.Int64{}}
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
	if m.n.Load() < 6 {
		t.Errorf("%d loads met another one", m.n.Load())
	}
}
