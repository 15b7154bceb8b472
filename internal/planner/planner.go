// Package planner decides which offsets the next batch takes. It is pure: facts
// and a policy go in, a plan comes out, and nothing is read or written. The
// same facts give the same plan.
package planner

import (
	"fmt"
	"slices"
	"time"

	"github.com/frazil-io/frazil/internal/batch"
)

// emptyStampAfter is how old a table's stamp may grow, in plan time, while
// offsets move on without rows for it. Then an empty stamp is due: without it a
// restart would read everything since the last stamp again.
const emptyStampAfter = 5 * time.Minute

// Facts is what is known when a batch is planned.
type Facts struct {
	Incarnation batch.Incarnation
	Entry       int64 // the log entry that the plan will be
	Batch       batch.ID
	// Position is where the pipeline stands; nil before the first plan, when
	// Starts counts.
	Position batch.Offsets
	// CaughtUp says that the last plan was for tables that lag.
	CaughtUp  bool
	Starts    batch.Offsets // resolved `start`, needed without a Position or with a sink that joins
	Available []batch.Available
	// Confirmed says that an earlier listing, long enough ago, already said that
	// records are gone: one listing can be stale.
	Confirmed bool
	// Gone are topics that no listing had for long enough to believe it.
	Gone     map[Topic]bool
	Now      time.Time
	Last     time.Time // the last plan's time, zero if there is none
	Versions map[string]string
	Readers  map[string]int32 // by source, the reader schema of the rooms
	Writer   batch.Writer
	Outcome  []batch.Outcome
	Recent   batch.Fraction
	Sinks    []Sink // in the order of the spec
}

// Sink is what is known of one sink's table.
type Sink struct {
	Name   string
	Hash   string
	Before batch.Ref
	// From is where its next stamp begins; nil for a table that has no stamp.
	From    batch.Offsets
	Carried batch.Counts
	// Lags says that its table may lack records before Position.
	Lags bool
	// Late says that without a stamp it joins at Position: what was before is not
	// its.
	Late bool
	// Upto is, where it lags by a batch that went to some of its tables only, the
	// end of that batch: a plan takes all of it.
	Upto batch.Offsets
}

// Policy is what the spec says about planning.
type Policy struct {
	Limits Limits
	// Sources are those of the spec, by name.
	Sources Sources
	// Until caps every range, nil for no cap: the end of an available-now run.
	Until batch.Offsets
	// Full says that minimums have waited long enough.
	Full bool
	// Early says that the trigger is not due yet: only tables that lag are worked
	// on.
	Early bool
}

// Next plans the next batch. It returns nil where there is nothing to do yet.
//
// batch.ErrUnavailable: the listing lacks a partition. batch.ErrDataLost: the
// offsets at the position are gone; the caller makes sure with a second listing,
// and says so with Facts.Confirmed, where a stale one could say the same.
func Next(f Facts, p Policy) (*batch.Plan, error) {
	if f.Position == nil {
		return first(f, p), nil
	}
	catching, err := catchUp(f, p)
	if err != nil || p.Early {
		return catching, err
	}
	// They take turns, so that tables that lag hold the others up for one batch at
	// most, which is within the limits.
	if catching != nil && (!f.CaughtUp || !slices.ContainsFunc(catching.Sinks, waitsNot)) {
		return catching, nil
	}
	plan, err := ordinary(f, p)
	if plan == nil && err == nil {
		return catching, nil
	}
	return plan, err
}

// waitsNot says whether a sink, as a plan for tables that lag has it, is level.
func waitsNot(s batch.SinkPlan) bool { return !s.CatchUp && !s.Lags }

// ordinary plans a batch for the sinks whose tables do not lag.
func ordinary(f Facts, p Policy) (*batch.Plan, error) {
	ranges, err := reach(f, p)
	if err != nil {
		return nil, err
	}
	size := sizesOf(f.Available)
	lossy := slices.ContainsFunc(ranges, func(r batch.Range) bool { return r.Lost > 0 || r.Closed })
	if !lossy && (empty(ranges) || !p.Full && !p.Limits.enough(ranges, size)) {
		return nil, nil
	}
	p.Limits.cut(ranges, size, int64(f.Batch))
	if !lossy && empty(ranges) {
		return nil, nil // what there is was not read ahead yet
	}
	plan := f.plan(ranges)
	for _, s := range f.Sinks {
		at, err := lagging(f, p, s)
		if err != nil {
			return nil, err
		}
		if at != nil {
			sp := s.waits()
			sp.Lags = true
			plan.Sinks = append(plan.Sinks, sp)
			continue
		}
		sp := s.plan(plan)
		sp.Due = sp.Before.Hash == "" || lossy || moved(sp.Before.End, plan.End()) && plan.Time.Sub(sp.Before.Time) > emptyStampAfter
		plan.Sinks = append(plan.Sinks, sp)
	}
	return plan, nil
}

// first plans batch 0, which freezes the resolved starts and anchors them in
// every table even if there is nothing to read yet.
func first(f Facts, p Policy) *batch.Plan {
	ranges := []batch.Range{}
	ends := map[batch.TopicPartition]batch.Available{}
	for _, a := range f.Available {
		ends[a.TopicPartition] = a
	}
	for tp, start := range f.Starts {
		r := batch.Range{TopicPartition: tp, Start: start, End: start, Epoch: -1}
		if a, ok := ends[tp]; ok {
			r.End, r.Epoch = max(start, p.until(tp, a.End)), a.Epoch
		}
		ranges = append(ranges, r)
	}
	batch.SortRanges(ranges)
	p.Limits.cut(ranges, sizesOf(f.Available), int64(f.Batch))
	plan := f.plan(ranges)
	for _, s := range f.Sinks {
		sp := s.plan(plan)
		sp.Due = true
		plan.Sinks = append(plan.Sinks, sp)
	}
	return plan
}

// reach returns, for every known partition, the range from the position to as
// far as could be read now.
func reach(f Facts, p Policy) ([]batch.Range, error) {
	listed, remade := listing(f.Available)
	ranges := []batch.Range{}
	for _, tp := range f.Position.Partitions() {
		at := f.Position[tp]
		r := batch.Range{TopicPartition: tp, Start: at, End: at, Epoch: -1}
		a, ok := listed[tp]
		delete(listed, tp)
		switch id := remade[anonymous(tp)]; {
		case !p.Sources.Reads(tp): // its position is kept
		case !ok && id == "" && !f.Gone[topicOf(tp)]:
			return nil, missing(tp)
		case !ok && id == "" && !p.Sources.record(tp):
			return nil, goneError(tp, at)
		case !ok && id == "":
			r.Closed = true
		case !ok && (!p.Sources.record(tp) || !f.Confirmed):
			return nil, remadeError(tp, id, at)
		case !ok:
			r.Closed = true
		case a.End < at:
			return nil, fmt.Errorf("%w: partition %s ends at offset %d, before offset %d that was read already: the broker lost records, or it is another cluster",
				batch.ErrDataLost, tp, a.End, at)
		case a.Start > at && !p.Sources.record(tp):
			return nil, retentionError(tp, at, a.Start)
		default:
			r.Lost = max(0, a.Start-at)
			r.End, r.Epoch = max(r.First(), p.until(tp, a.End)), a.Epoch
		}
		ranges = append(ranges, r)
	}
	for tp, a := range listed { // partitions that appeared since start at their beginning
		ranges = append(ranges, batch.Range{TopicPartition: tp, Start: a.Start, End: max(a.Start, p.until(tp, a.End)), Epoch: a.Epoch})
	}
	batch.SortRanges(ranges)
	return ranges, nil
}

// listing indexes an answer of Kafka: by partition, and the topic's id by
// partition without it.
func listing(available []batch.Available) (listed map[batch.TopicPartition]batch.Available, ids map[batch.TopicPartition]string) {
	listed, ids = map[batch.TopicPartition]batch.Available{}, map[batch.TopicPartition]string{}
	for _, a := range available {
		listed[a.TopicPartition] = a
		ids[anonymous(a.TopicPartition)] = a.TopicID
	}
	return listed, ids
}

func missing(tp batch.TopicPartition) error {
	return fmt.Errorf("%w: partition %s is missing from Kafka's answer", batch.ErrUnavailable, tp)
}

func remadeError(tp batch.TopicPartition, id string, at int64) error {
	return fmt.Errorf("%w: topic %s was deleted and made again (id %s is now %s): records from offset %d of partition %d on may be lost; "+
		"with on_data_loss: record in source %s frazil notes the gap and goes on with the new topic", batch.ErrDataLost, tp.Topic, tp.TopicID, id, at, tp.Partition, tp.Source)
}

func retentionError(tp batch.TopicPartition, at, start int64) error {
	return fmt.Errorf("%w: offsets [%d,%d) of partition %s are no longer retained; with on_data_loss: record in source %s frazil notes the gap and goes on",
		batch.ErrDataLost, at, start, tp, tp.Source)
}

// anonymous is the partition whatever the topic's id.
func anonymous(tp batch.TopicPartition) batch.TopicPartition {
	tp.TopicID = ""
	return tp
}

// until caps an end by the policy. A partition that Until does not name is new
// since the run began and is left for the next one.
func (p Policy) until(tp batch.TopicPartition, end int64) int64 {
	if p.Until == nil {
		return end
	}
	return min(end, p.Until[tp])
}

func (f Facts) plan(ranges []batch.Range) *batch.Plan {
	// Of the clock's readings only the wall's counts: the other one would say that
	// time has passed where the wall clock was set back.
	now := f.Now.UTC().Round(0)
	if now.Before(f.Last) {
		now = f.Last // clocks of two hosts differ; plan time never goes back
	}
	return &batch.Plan{
		Incarnation: f.Incarnation, Entry: f.Entry, Batch: f.Batch, Ranges: ranges, Time: now,
		Versions: f.Versions, Readers: f.Readers, Writer: f.Writer, Outcome: f.Outcome, Recent: f.Recent,
	}
}

// plan is the sink's part of an ordinary plan.
func (s Sink) plan(p *batch.Plan) batch.SinkPlan {
	from := s.From.Clone()
	if from == nil {
		from = batch.Offsets{}
	}
	for _, r := range p.Ranges {
		// A table that closed a partition before another one did has no part in
		// its end any more: it would begin again where that one stood.
		if _, ok := from[r.TopicPartition]; !ok && (!r.Closed || r.Len() > 0) {
			from[r.TopicPartition] = r.Start
		}
	}
	return batch.SinkPlan{Name: s.Name, Hash: s.Hash, Active: true, Before: s.Before, From: from, Carried: s.Carried}
}

func moved(from, to batch.Offsets) bool { return !from.Equal(to) }

func empty(ranges []batch.Range) bool {
	return !slices.ContainsFunc(ranges, func(r batch.Range) bool { return r.Len() > 0 })
}
