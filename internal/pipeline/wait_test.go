package pipeline

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/frazil-io/frazil/internal/batch"
	"github.com/frazil-io/frazil/internal/driver"
)

var waitedPartition = batch.TopicPartition{Source: "s", Topic: "clicks", TopicID: "t"}

// TestStands: where a sink is, by its stamp and by the log.
func TestStands(t *testing.T) {
	inc := batch.Incarnation{UUID: "u", ID: "i", Kind: batch.First}
	tp := waitedPartition
	stamp := func(first, last batch.ID, start, end, written int64) batch.Stamped {
		st := &batch.Stamp{UUID: "u", IncarnationID: "i", Stream: batch.StreamMain, First: first, Last: last, Start: batch.Offsets{tp: start}, End: batch.Offsets{tp: end}, Previous: "x"}
		if start == 0 {
			st.Previous = ""
		}
		st.Counts.Written = written
		return batch.Stamped{Snapshot: 100 + int64(last), Stamp: st}
	}
	two := []batch.Stamped{stamp(3, 4, 20, 30, 5), stamp(0, 2, 0, 20, 0)}
	plan := func(id batch.ID, start, end int64, sp batch.SinkPlan) *batch.Plan {
		sp.Name = "x"
		return &batch.Plan{Incarnation: inc, Batch: id, Ranges: []batch.Range{{TopicPartition: tp, Start: start, End: end}}, Sinks: []batch.SinkPlan{sp}}
	}
	active := batch.SinkPlan{Active: true, Before: batch.Ref{Hash: "h"}}
	open := plan(7, 45, 50, active)
	catch := plan(7, 30, 35, batch.SinkPlan{Active: true, CatchUp: true, Before: batch.Ref{Hash: "h"}})
	level := plan(7, 10, 15, batch.SinkPlan{})
	level.Ahead = batch.Offsets{tp: 60}
	lags := plan(7, 45, 50, batch.SinkPlan{Lags: true, Before: batch.Ref{Hash: "h"}, From: batch.Offsets{tp: 30}})
	next := inc
	next.Number, next.ID, next.Kind = 1, "j", batch.Rewind
	tests := []struct {
		name    string
		plan    *batch.Plan
		commits []batch.Commit
		inc     batch.Incarnation
		stamps  []batch.Stamped
		offset  int64
		done    bool
		says    string
	}{
		{"in the newest stamp", open, nil, inc, two, 29, true, "batches 3..4 in snapshot 104"},
		{"in an older stamp without rows", open, nil, inc, two, 19, true, "no rows"},
		{"before the first stamp known", open, nil, inc, two[:1], 3, true, "expired"},
		{"before the pipeline's start", open, nil, inc, []batch.Stamped{{Snapshot: 1, Stamp: &batch.Stamp{UUID: "u", IncarnationID: "i", Stream: batch.StreamMain, Start: batch.Offsets{tp: 50}, End: batch.Offsets{tp: 60}}}}, 3, true, "is in no batch"},
		{"went by without rows", open, nil, inc, two, 44, true, "without a row"},
		{"in the open plan", open, nil, inc, two, 45, false, "stands at offset 45"},
		{"in the open plan, which is done without rows", open, []batch.Commit{{Batch: 7, Plan: open.Hash()}}, inc, two, 49, true, "without a row"},
		{"in the open plan, another revision is done", open, []batch.Commit{{Batch: 7, Plan: "other"}}, inc, two, 49, false, "stands"},
		{"behind everything", open, []batch.Commit{{Batch: 7, Plan: open.Hash()}}, inc, two, 50, false, "stands at offset 50"},
		{"behind what is caught up", catch, nil, inc, two, 30, false, "stands at offset 30"},
		{"level while others catch up", level, nil, inc, two, 59, true, "without a row"},
		{"of a table that lags", lags, nil, inc, two, 44, false, "stands at offset 30"},
		{"while a rewind is under way", open, nil, next, two, 3, false, "stands at offset 0"},
		{"before anything", nil, nil, inc, nil, 0, false, "stands at offset 0"},
	}
	for _, tt := range tests {
		w := stands("x", &tt.inc, tt.plan, tt.commits, tt.stamps, Until{tp: tt.offset + 1})
		if w.Done != tt.done || !strings.Contains(w.State, tt.says) {
			t.Errorf("%s: done %v: %q, want %v: %q", tt.name, w.Done, w.State, tt.done, tt.says)
		}
	}
}

// TestWaitBesideDriver: who waits for a record returns when a driver has committed
// it, and not before it was produced.
func TestWaitBesideDriver(t *testing.T) {
	p := newProof(t)
	w := watcher{make(chan driver.Progress, 1000), make(chan string, 1)}
	running := p.open(Options{Observer: w, Grace: time.Hour})
	stop, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- running.Run(t.Context(), stop) }()
	<-w.batches
	looking := p.open(Options{ReadOnly: true})
	until, err := looking.UntilOffset(t.Context(), "clicks", 1, 2)
	if err != nil {
		t.Fatal(err)
	}
	gone, expired := context.WithCancel(t.Context())
	expired()
	if all, err := looking.Wait(gone, until); !errors.Is(err, context.Canceled) || everyDone(all) && len(all) > 0 {
		t.Fatalf("%v %+v", err, all)
	}
	waited := make(chan []Waited, 1)
	go func() {
		all, err := looking.Wait(t.Context(), until)
		if err != nil {
			t.Error(err)
		}
		waited <- all
	}()
	p.produce(6)
	all := <-waited
	if len(all) != 3 || all[0].Snapshot == 0 || all[1].Snapshot == 0 || all[2].Snapshot != 0 || !strings.Contains(all[2].State, "without a row") {
		t.Errorf("%+v", all)
	}
	if until, err = looking.UntilTime(t.Context(), time.Now()); err != nil {
		t.Fatal(err)
	}
	if all, err = looking.Wait(t.Context(), until); err != nil || len(until) != 2 || !everyDone(all) {
		t.Errorf("%v %v %+v", until, err, all)
	}
	if until, err = looking.UntilTime(t.Context(), time.Now().Add(-time.Hour)); err != nil || until[batch.Offsets(until).Partitions()[0]] != 0 {
		t.Errorf("%v %v", until, err)
	}
	for _, bad := range []struct {
		topic     string
		partition int32
	}{{"nothing", 0}, {"clicks", 7}} {
		if _, err := looking.UntilOffset(t.Context(), bad.topic, bad.partition, 0); !errors.Is(err, batch.ErrInvalid) {
			t.Errorf("%v: %v", bad, err)
		}
	}
	cancel()
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
}
