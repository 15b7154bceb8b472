package planner

import (
	"errors"
	"regexp"
	"testing"
	"time"

	"github.com/frazil-io/frazil/internal/batch"
)

func named(source, topic string) batch.TopicPartition {
	return batch.TopicPartition{Source: source, Topic: topic, TopicID: topic}
}

// TestUnreadTopics: of a topic or source that leaves the spec the position is
// kept, whatever Kafka lists of it, and reading goes on there when it comes back.
func TestUnreadTopics(t *testing.T) {
	for name, sources := range map[string]Sources{
		"a topic":            {"s": {Topics: []string{"kept"}}},
		"a topic, a pattern": {"s": {Pattern: regexp.MustCompile("^kept$")}},
	} {
		kept, left := named("s", "kept"), named("s", "left")
		f := facts(batch.Offsets{kept: 5, left: 7}, batch.Available{TopicPartition: kept, End: 6})
		p, err := Next(f, Policy{Sources: sources})
		if err != nil || p.End()[left] != 7 || p.End()[kept] != 6 || p.Lossy() {
			t.Fatalf("%s: %+v %v", name, p, err)
		}
		f = facts(p.End(), batch.Available{TopicPartition: kept, End: 6}, batch.Available{TopicPartition: left, End: 9})
		p, err = Next(f, Policy{})
		if err != nil || p.Ranges[1].Start != 7 || p.Ranges[1].End != 9 {
			t.Errorf("%s, back again: %+v %v", name, p, err)
		}
	}
	f := facts(batch.Offsets{named("new", "t"): 5, named("old", "t"): 7}, batch.Available{TopicPartition: named("new", "t"), End: 6})
	if p, err := Next(f, Policy{Sources: Sources{"new": {}}}); err != nil || p.End()[named("old", "t")] != 7 {
		t.Errorf("a source: %+v %v", p, err)
	}
}

// TestUnreadTopicsWithWork: what a table still lacks of a topic that left the
// spec is not forgotten.
func TestUnreadTopicsWithWork(t *testing.T) {
	left := named("s", "left")
	sources := Sources{"s": {Topics: []string{"kept"}}}
	recording := Sources{"s": {Topics: []string{"kept"}, RecordLoss: true}}
	ranges := []batch.Range{{TopicPartition: left, Start: 3, End: 7}}
	if err := Unread(ranges, sources); !errors.Is(err, batch.ErrInvalid) {
		t.Errorf("a logged batch: %v", err)
	}
	if _, err := GiveUp(ranges, nil, nil, sources); !errors.Is(err, batch.ErrInvalid) {
		t.Errorf("a logged batch is revised: %v", err)
	}
	ranges[0].Lost, ranges[0].Closed = 0, false
	if ok, err := GiveUp(ranges, nil, nil, recording); err != nil || !ok || ranges[0].Lost != 4 || Unread(ranges, recording) != nil {
		t.Errorf("a logged batch is revised: %v %v", ranges, err)
	}
	f := facts(batch.Offsets{left: 7})
	f.Sinks = []Sink{{Name: "a", Before: batch.Ref{Hash: "h"}, From: batch.Offsets{left: 3}, Lags: true}}
	if p, err := Next(f, Policy{Sources: sources}); !errors.Is(err, batch.ErrInvalid) {
		t.Errorf("a table that lags: %+v %v", p, err)
	}
	if p, err := Next(f, Policy{Sources: recording}); err != nil || p.Ranges[0].Start != 3 || p.Ranges[0].Lost != 4 {
		t.Errorf("a table that lags, recorded: %+v %v", p, err)
	}
	f.Sinks = []Sink{{Name: "a", Lags: true}}
	if p, err := Next(f, Policy{Sources: sources}); err != nil || p.Sinks[0].From[left] != 7 {
		t.Errorf("a table that joins: %+v %v", p, err)
	}
}

// TestDeletedTopic: a topic counts as deleted after listings long enough apart;
// then it is an error, or a gap of unknown length.
func TestDeletedTopic(t *testing.T) {
	gone, here := named("s", "gone"), named("s", "here")
	known := batch.Offsets{gone: 5, here: 5}
	listed := []batch.Available{{TopicPartition: here, End: 5}}
	both := append(listed[:1:1], batch.Available{TopicPartition: gone, End: 5})
	now := time.Unix(1000, 0)
	absent := Absences{}
	absent.Note(known, listed, now)
	absent.Note(known, both, now.Add(9*time.Second)) // the first one was stale
	absent.Note(known, listed, now.Add(15*time.Second))
	if g := absent.Gone(now.Add(16*time.Second), 10*time.Second); len(g) != 0 {
		t.Errorf("after one second: %v", g)
	}
	f := facts(known, listed...)
	if _, err := Next(f, Policy{Sources: recording}); !errors.Is(err, batch.ErrUnavailable) {
		t.Errorf("after one second: %v", err)
	}
	f.Gone = absent.Gone(now.Add(25*time.Second), 10*time.Second)
	if _, err := Next(f, Policy{}); !errors.Is(err, batch.ErrDataLost) {
		t.Errorf("after ten seconds: %v", err)
	}
	p, err := Next(f, Policy{Sources: recording})
	if err != nil || !p.Ranges[0].Closed || p.Ranges[0].Len() != 0 || !p.Sinks[0].Due {
		t.Errorf("recorded: %+v %v", p, err)
	}
	ranges := []batch.Range{{TopicPartition: gone, Start: 5, End: 9}}
	if ok, err := GiveUp(ranges, listed, nil, recording); ok || err != nil {
		t.Errorf("a logged batch, after one second: %v %v", ranges, err)
	}
	if _, err := GiveUp(ranges, listed, f.Gone, nil); !errors.Is(err, batch.ErrDataLost) {
		t.Errorf("a logged batch: %v", err)
	}
	ranges[0].Lost, ranges[0].Closed = 0, false
	if ok, err := GiveUp(ranges, listed, f.Gone, recording); !ok || err != nil || ranges[0].Lost != 4 || !ranges[0].Closed {
		t.Errorf("a logged batch, recorded: %v %v", ranges, err)
	}
}
