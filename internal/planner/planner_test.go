package planner

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/frazil-io/frazil/internal/batch"
)

func tp(n int32) batch.TopicPartition {
	return batch.TopicPartition{Source: "s", Topic: "t", TopicID: "id", Partition: n}
}

var recording = Sources{"s": {RecordLoss: true}}

func facts(position batch.Offsets, available ...batch.Available) Facts {
	return Facts{
		Batch: 7, Position: position, Available: available, Now: time.Unix(1000, 0), Last: time.Unix(2000, 0),
		Sinks: []Sink{{Name: "a", Before: batch.Ref{Hash: "h", Time: time.Unix(1999, 0), End: position}, From: position}},
	}
}

func TestNext(t *testing.T) {
	for name, c := range map[string]struct {
		facts  Facts
		policy Policy
		want   []batch.Range // nil: no plan
		err    error
	}{
		"nothing new": {facts: facts(batch.Offsets{tp(0): 5}, batch.Available{TopicPartition: tp(0), End: 5})},
		"new records": {
			facts: facts(batch.Offsets{tp(0): 5}, batch.Available{TopicPartition: tp(0), End: 9, Epoch: 2}),
			want:  []batch.Range{{TopicPartition: tp(0), Start: 5, End: 9, Epoch: 2}},
		},
		"a new partition starts at its beginning": {
			facts: facts(batch.Offsets{tp(0): 5}, batch.Available{TopicPartition: tp(0), End: 5}, batch.Available{TopicPartition: tp(1), Start: 3, End: 4}),
			want:  []batch.Range{{TopicPartition: tp(0), Start: 5, End: 5}, {TopicPartition: tp(1), Start: 3, End: 4}},
		},
		"a partition is missing": {facts: facts(batch.Offsets{tp(0): 5}), err: batch.ErrUnavailable},
		"retention passed by":    {facts: facts(batch.Offsets{tp(0): 5}, batch.Available{TopicPartition: tp(0), Start: 8, End: 9}), err: batch.ErrDataLost},
		"retention passed by, recorded": {
			facts:  facts(batch.Offsets{tp(0): 5}, batch.Available{TopicPartition: tp(0), Start: 8, End: 9}),
			policy: Policy{Sources: recording},
			want:   []batch.Range{{TopicPartition: tp(0), Start: 5, End: 9, Lost: 3}},
		},
		"the end was cut off": {facts: facts(batch.Offsets{tp(0): 5}, batch.Available{TopicPartition: tp(0), End: 4}), policy: Policy{Sources: recording}, err: batch.ErrDataLost},
		"minimum not reached": {
			facts:  facts(batch.Offsets{tp(0): 5}, batch.Available{TopicPartition: tp(0), End: 9}),
			policy: Policy{Limits: Limits{RecordsMin: 5}},
		},
		"minimum waited for long enough": {
			facts:  facts(batch.Offsets{tp(0): 5}, batch.Available{TopicPartition: tp(0), End: 9}),
			policy: Policy{Limits: Limits{RecordsMin: 5}, Full: true},
			want:   []batch.Range{{TopicPartition: tp(0), Start: 5, End: 9}},
		},
		"until": {
			facts:  facts(batch.Offsets{tp(0): 5}, batch.Available{TopicPartition: tp(0), End: 9}),
			policy: Policy{Until: batch.Offsets{tp(0): 6}},
			want:   []batch.Range{{TopicPartition: tp(0), Start: 5, End: 6}},
		},
	} {
		p, err := Next(c.facts, c.policy)
		if !errors.Is(err, c.err) || (p == nil) != (c.want == nil) {
			t.Errorf("%s: %v %v", name, p, err)
			continue
		}
		if p == nil {
			continue
		}
		for i, r := range p.Ranges {
			if len(p.Ranges) != len(c.want) || r != c.want[i] {
				t.Errorf("%s: %v, want %v", name, p.Ranges, c.want)
			}
		}
		if p.Time.Before(c.facts.Last) {
			t.Errorf("%s: plan time went back to %s", name, p.Time)
		}
	}
}

func TestRemadeTopic(t *testing.T) {
	other := tp(0)
	other.TopicID = "new"
	f := facts(batch.Offsets{tp(0): 5}, batch.Available{TopicPartition: other, End: 2})
	if _, err := Next(f, Policy{}); !errors.Is(err, batch.ErrDataLost) {
		t.Errorf("a topic made again: %v", err)
	}
	if _, err := Next(f, Policy{Sources: recording}); !errors.Is(err, batch.ErrDataLost) {
		t.Errorf("a topic made again, as one listing has it: %v", err)
	}
	f.Confirmed = true
	p, err := Next(f, Policy{Sources: recording})
	if err != nil || len(p.Ranges) != 2 || !p.Ranges[0].Closed || p.Ranges[1].TopicID != "new" || p.Ranges[1].Start != 0 || !p.Sinks[0].Due {
		t.Errorf("%+v %v", p, err)
	}
	if _, ok := p.End()[tp(0)]; ok {
		t.Error("a closed partition goes on")
	}
}

// TestFair: no partition gets more than another one that still wants more, and
// the limit is kept but for one record that is larger.
func TestFair(t *testing.T) {
	ranges := []batch.Range{{TopicPartition: tp(0), End: 1000}, {TopicPartition: tp(1), End: 10}, {TopicPartition: tp(2), End: 500}}
	Limits{RecordsMax: 100}.cut(ranges, nil, 0)
	if a, b, c := ranges[0].Len(), ranges[1].Len(), ranges[2].Len(); a+b+c != 100 || b != 10 || a-c > 1 || c-a > 1 {
		t.Errorf("%d %d %d", a, b, c)
	}
	ranges = []batch.Range{{TopicPartition: tp(0), End: 5}, {TopicPartition: tp(1), End: 5}}
	Limits{BytesMax: 10}.cut(ranges, sizesOf([]batch.Available{{TopicPartition: tp(0), Bytes: 100}, {TopicPartition: tp(1), Bytes: 100}}), 1)
	if ranges[0].Len() != 0 || ranges[1].Len() != 1 {
		t.Errorf("a record above the limit: %v", ranges)
	}
}

func lags(name string, from batch.Offsets) Sink {
	return Sink{Name: name, Before: batch.Ref{Hash: name}, From: from, Lags: true}
}

// TestCatchUp: tables that lag go on from where each stands, within the limits and
// in turn with the others, until all are level.
func TestCatchUp(t *testing.T) {
	f := facts(batch.Offsets{tp(0): 9}, batch.Available{TopicPartition: tp(0), End: 20})
	f.Sinks = []Sink{lags("a", batch.Offsets{tp(0): 9}), lags("b", batch.Offsets{tp(0): 4}), {Name: "c", Lags: true}, lags("d", batch.Offsets{tp(0): 2})}
	f.Starts = batch.Offsets{tp(0): 2}
	policy := Policy{Limits: Limits{RecordsMax: 3}}
	var got []string
	for range 20 {
		p, err := Next(f, policy)
		if err != nil {
			t.Fatal(err)
		}
		if p == nil {
			break
		}
		text := p.Ranges[0].String()
		for i, sp := range p.Sinks {
			if sp.Active {
				if sp.CatchUp != p.CatchesUp() || sp.CatchUp && sp.From[tp(0)] != p.Ranges[0].Start {
					t.Fatalf("%+v", p)
				}
				text += " " + sp.Name
				f.Sinks[i].From, f.Sinks[i].Before.Hash, f.Sinks[i].Lags = p.End(), "h", sp.CatchUp
			}
		}
		got = append(got, text)
		f.Position, f.CaughtUp, f.Batch = p.Position(), p.CatchesUp(), f.Batch+1
	}
	want := []string{
		"t/0[4,7) b", "t/0[9,12) a", "t/0[7,10) b", "t/0[12,15) a", "t/0[10,13) b", "t/0[15,18) a", "t/0[13,16) b", "t/0[18,20) a",
		"t/0[16,19) b", "t/0[19,20) b", "t/0[2,5) c d", "t/0[5,8) c d", "t/0[8,11) c d", "t/0[11,14) c d", "t/0[14,17) c d", "t/0[17,20) c d",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}

// TestCatchUpAlone: before the trigger is due, and where no table is level, only
// those that lag are worked on.
func TestCatchUpAlone(t *testing.T) {
	f := facts(batch.Offsets{tp(0): 9}, batch.Available{TopicPartition: tp(0), End: 20})
	f.CaughtUp = true
	if p, err := Next(f, Policy{Early: true}); p != nil || err != nil {
		t.Errorf("none lags: %+v %v", p, err)
	}
	f.Sinks = append(f.Sinks, lags("b", batch.Offsets{tp(0): 4}))
	if p, err := Next(f, Policy{Early: true}); err != nil || !p.CatchesUp() {
		t.Errorf("early: %+v %v", p, err)
	}
	if p, err := Next(f, Policy{}); err != nil || p.CatchesUp() || !p.Sinks[1].Lags {
		t.Errorf("in turn: %+v %v", p, err)
	}
	f.Sinks = f.Sinks[1:]
	if p, err := Next(f, Policy{}); err != nil || !p.CatchesUp() {
		t.Errorf("all lag: %+v %v", p, err)
	}
}

// TestCatchUpOfATornBatch: a batch that some tables of a sink lack is planned again
// as it was, whatever the limits, and nobody else takes part.
func TestCatchUpOfATornBatch(t *testing.T) {
	f := facts(batch.Offsets{tp(0): 20, tp(1): 9}, batch.Available{TopicPartition: tp(0), End: 30}, batch.Available{TopicPartition: tp(1), End: 9})
	torn := lags("b", batch.Offsets{tp(0): 4, tp(1): 9})
	torn.Upto = batch.Offsets{tp(0): 15, tp(1): 9}
	f.Sinks = append(f.Sinks, torn, lags("c", batch.Offsets{tp(0): 4, tp(1): 9}))
	p, err := Next(f, Policy{Limits: Limits{RecordsMax: 3}})
	if err != nil || !p.CatchesUp() || !p.End().Equal(torn.Upto) || !p.Sinks[1].Active || p.Sinks[0].Active || p.Sinks[2].Active || !p.Sinks[2].Lags {
		t.Errorf("%+v %v", p, err)
	}
}

// TestCatchUpOfATableAhead: it goes on where it is, in each partition, when the
// others have come there.
func TestCatchUpOfATableAhead(t *testing.T) {
	f := facts(batch.Offsets{tp(0): 9, tp(1): 5}, batch.Available{TopicPartition: tp(0), End: 20}, batch.Available{TopicPartition: tp(1), End: 20})
	f.Sinks = append(f.Sinks, lags("b", batch.Offsets{tp(0): 7, tp(1): 8}))
	p, err := Next(f, Policy{})
	if err != nil || !p.CatchesUp() || p.End()[tp(0)] != 9 || p.End()[tp(1)] != 8 || p.Position()[tp(1)] != 5 {
		t.Fatalf("%+v %v", p, err)
	}
	f.Sinks[1].From = p.End()
	p, err = Next(f, Policy{Limits: Limits{RecordsMax: 2}})
	if err != nil || p.CatchesUp() || p.Sinks[1].Active || !p.Sinks[1].Lags {
		t.Fatalf("behind only: %+v %v", p, err)
	}
	f.Position, f.CaughtUp = batch.Offsets{tp(0): 9, tp(1): 12}, false
	p, err = Next(f, Policy{})
	if err != nil || !p.CatchesUp() || p.Ranges[1].Start != 8 || p.Ranges[1].End != 12 {
		t.Fatalf("passed by: %+v %v", p, err)
	}
}

// TestClosedByOneTableBefore: where one table closed a partition and another did
// not, because the checkpoint was lost in between, the first has no part in its
// end. Its stamp would begin where the other one stood (found by the simulation).
func TestClosedByOneTableBefore(t *testing.T) {
	made := tp(0)
	made.TopicID = "new"
	f := facts(batch.Offsets{tp(0): 2, made: 0}, batch.Available{TopicPartition: made, End: 1})
	f.Sinks[0].From, f.Confirmed = batch.Offsets{made: 0}, true
	p, err := Next(f, Policy{Sources: recording})
	if err != nil || len(p.Ranges) != 2 || !p.Ranges[0].Closed {
		t.Fatalf("%+v, %v", p, err)
	}
	if from := p.Sinks[0].From; len(from) != 1 || from[made] != 0 {
		t.Errorf("the next stamp begins at %v", from)
	}
}

// TestCatchUpOfAClosedPartition: what the others closed meanwhile is closed in a
// table that lags, too.
func TestCatchUpOfAClosedPartition(t *testing.T) {
	f := facts(batch.Offsets{tp(0): 9}, batch.Available{TopicPartition: tp(0), End: 9})
	f.Sinks = []Sink{lags("a", batch.Offsets{tp(0): 4, tp(1): 5})}
	p, err := Next(f, Policy{})
	if err != nil || len(p.Ranges) != 2 || !p.Ranges[1].Closed || p.Ranges[1].Start != 5 || p.Sinks[0].From[tp(1)] != 5 || len(p.End()) != 1 {
		t.Errorf("%+v %v", p, err)
	}
}

// TestCatchUpOfARemadeTopic: a table that has not got the topic's second
// partition takes it for gone after two listings only.
func TestCatchUpOfARemadeTopic(t *testing.T) {
	other, old := tp(1), tp(1)
	other.TopicID = "new"
	f := facts(batch.Offsets{old: 9}, batch.Available{TopicPartition: other, End: 2})
	f.Sinks = []Sink{{Name: "a", Lags: true}}
	if p, err := Next(f, Policy{Sources: recording}); !errors.Is(err, batch.ErrDataLost) {
		t.Errorf("as one listing has it: %+v %v", p, err)
	}
}

// TestEmptyStampIsDue: a table that has no rows gets an empty stamp where it has
// none, where records are lost, and when its last one is older than five minutes
// of plan time.
func TestEmptyStampIsDue(t *testing.T) {
	last := time.Unix(1999, 0)
	for name, c := range map[string]struct {
		now  time.Time
		lost int64
		none bool
		want bool
	}{
		"soon after":          {now: last.Add(time.Minute)},
		"at five minutes":     {now: last.Add(emptyStampAfter)},
		"after five minutes":  {now: last.Add(emptyStampAfter + time.Nanosecond), want: true},
		"a gap":               {now: last.Add(time.Minute), lost: 2, want: true},
		"no stamp":            {now: last.Add(time.Minute), none: true, want: true},
		"the clock went back": {now: last.Add(-time.Hour)},
	} {
		f := facts(batch.Offsets{tp(0): 5}, batch.Available{TopicPartition: tp(0), Start: 5 + c.lost, End: 9})
		f.Now = c.now
		if c.none {
			f.Sinks[0].Before = batch.Ref{}
		}
		p, err := Next(f, Policy{Sources: recording})
		if err != nil || p.Sinks[0].Due != c.want {
			t.Errorf("%s: due %v, %v", name, p.Sinks[0].Due, err)
		}
	}
}

// TestLossBySource: what is lost of a source that does not record losses is an
// error, though another source does.
func TestLossBySource(t *testing.T) {
	other := tp(0)
	other.Source = "fails"
	remade := other
	remade.TopicID = "new"
	for name, c := range map[string]struct {
		listed []batch.Available
		err    error
		marked bool
	}{
		"of the one that records": {
			listed: []batch.Available{{TopicPartition: tp(0), Start: 3, End: 9}, {TopicPartition: other, End: 9}}, marked: true,
		},
		"of the other": {
			listed: []batch.Available{{TopicPartition: tp(0), End: 9}, {TopicPartition: other, Start: 3, End: 9}}, err: batch.ErrDataLost,
		},
		"of the other, which was made again": {
			listed: []batch.Available{{TopicPartition: tp(0), End: 9}, {TopicPartition: remade, End: 9}}, err: batch.ErrDataLost,
		},
		"nothing": {listed: []batch.Available{{TopicPartition: tp(0), End: 9}, {TopicPartition: other, End: 9}}},
	} {
		f := facts(batch.Offsets{tp(0): 1, other: 1}, c.listed...)
		f.Confirmed = true
		sources := Sources{"s": {RecordLoss: true}, "fails": {}}
		p, err := Next(f, Policy{Sources: sources})
		if !errors.Is(err, c.err) || err == nil && p.Lossy() != c.marked {
			t.Errorf("%s: %+v %v", name, p, err)
		}
		ranges := []batch.Range{{TopicPartition: tp(0), Start: 1, End: 5}, {TopicPartition: other, Start: 1, End: 5}}
		if marked, err := GiveUp(ranges, c.listed, nil, sources); !errors.Is(err, c.err) || marked != c.marked {
			t.Errorf("%s, of a logged batch: %v %v %v", name, ranges, marked, err)
		}
	}
}

// TestPlanTimeIsWallTime: two plans of one process are compared as any two are,
// by the wall clock, which can be set back.
func TestPlanTimeIsWallTime(t *testing.T) {
	f := facts(batch.Offsets{tp(0): 5}, batch.Available{TopicPartition: tp(0), End: 9})
	f.Last, f.Now = time.Time{}, time.Now()
	p, err := Next(f, Policy{})
	if err != nil || p.Time != p.Time.Round(0) {
		t.Errorf("the plan's time has a monotonic reading: %v %v", p, err)
	}
}
