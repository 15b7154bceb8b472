package batch

import (
	"reflect"
	"testing"
	"time"
)

// TestCountsMinus: no term is forgotten in a difference.
func TestCountsMinus(t *testing.T) {
	t.Parallel()
	var c Counts
	var n int64
	fill(reflect.ValueOf(&c).Elem(), &n)
	if d := c.Plus(c).Minus(c); !reflect.DeepEqual(d, c) {
		t.Errorf("%+v, not %+v", d, c)
	}
	if d := c.Minus(c); !reflect.DeepEqual(d, Counts{}) {
		t.Errorf("%+v is left", d)
	}
}

// routePlan is a plan for a sink that feeds many tables: one of them rested, one
// is new, one has its rows already.
func routePlan() *Plan {
	a, b := TopicPartition{Source: "s", Topic: "t", TopicID: "i"}, TopicPartition{Source: "s", Topic: "t", TopicID: "i", Partition: 1}
	total := Counts{Tally: Tally{Offsets: 10, Data: 10, Rows: 10}, Written: 9}
	return &Plan{
		Batch: 7, Ranges: []Range{{TopicPartition: a, Start: 6, End: 8}, {TopicPartition: b, Start: 4, End: 5}},
		Sinks: []SinkPlan{{
			Name: "k", Hash: "h", Active: true, From: Offsets{a: 6, b: 4},
			Route: &RoutePlan{
				Origin: Offsets{a: 1, b: 0}, Total: total, Counts: Counts{Tally: Tally{Offsets: 3, Data: 3, Rows: 3}, Written: 3},
				Tables: []RoutedTable{
					{Table: "n.has", Before: Ref{Hash: "x", Last: 6, End: Offsets{a: 8, b: 5}}, Has: true},
					{Table: "n.new"},
					{Table: "n.old", Before: Ref{Hash: "y", Last: 2, End: Offsets{a: 3}, Total: Counts{Tally: Tally{Offsets: 2, Data: 2, Rows: 2}, Written: 1}}},
				},
			},
		}},
	}
}

// TestRoutedPart: what a plan says of one table follows from what it says of all.
func TestRoutedPart(t *testing.T) {
	t.Parallel()
	p := routePlan()
	a, b := p.Ranges[0].TopicPartition, p.Ranges[1].TopicPartition
	fresh, old, has := p.Sink("k/n.new"), p.Sink("k/n.old"), p.Sink("k/n.has")
	if !fresh.From.Equal(Offsets{a: 1, b: 0}) || fresh.Carried.Offsets != 10 || fresh.Carried.Written != 0 || !fresh.Active || !fresh.Due {
		t.Errorf("a new table: %+v", fresh)
	}
	if !old.From.Equal(Offsets{a: 3, b: 0}) || old.Carried.Offsets != 8 || old.Carried.Written != 0 || old.Before.Hash != "y" || old.Hash != "h" {
		t.Errorf("a table that rested: %+v", old)
	}
	if has.Active {
		t.Error("a table that has the batch takes part")
	}
	if p.Sink("k/n.other") != nil || p.Sink("other/n.new") != nil || p.Sink("k") != &p.Sinks[0] {
		t.Error("the plan names what it does not")
	}
	if st := p.Sinks[0].Route.Stamp(&p.Sinks[0]); st.Tables != 2 || st.Names != p.Sinks[0].Route.Hash() || st.Spec != "h" || !st.From.Equal(Offsets{a: 6, b: 4}) {
		t.Errorf("%+v", st)
	}
}

// TestRouteStamp: what a stamp says of its sink is read as it was written, and is
// part of its hash; a stamp of another table has no such key.
func TestRouteStamp(t *testing.T) {
	t.Parallel()
	p := routePlan()
	s := &Stamp{UUID: "u", Name: "p", IncarnationID: "i", Stream: StreamMain, Plan: "h", Attempt: "a", Start: Offsets{}, End: Offsets{}, Time: time.Unix(1, 0).UTC()}
	bare := s.Hash()
	if _, ok := s.Properties()[keyRoute]; ok {
		t.Error("a stamp without a route has one")
	}
	s.Route = p.Sinks[0].Route.Stamp(&p.Sinks[0])
	read, err := ParseStamp(s.Properties())
	if err != nil || !reflect.DeepEqual(read, s) || read.Hash() != s.Hash() || s.Hash() == bare {
		t.Errorf("%+v became %+v: %v", s.Route, read.Route, err)
	}
}
