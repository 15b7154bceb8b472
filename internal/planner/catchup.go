package planner

import (
	"github.com/frazil-io/frazil/internal/batch"
)

// catchUp plans one batch that brings every table which lags, or joins, to the
// pipeline's position, each from its own. It returns nil where none does. Lost
// offsets are not judged here: reading them says so, and a revision names the
// gap.
func catchUp(f Facts, p Policy) (*batch.Plan, error) {
	var lagging bool
	sinks := make([]batch.SinkPlan, 0, len(f.Sinks))
	starts := f.Position.Clone()
	for _, s := range f.Sinks {
		sp := batch.SinkPlan{Name: s.Name, Hash: s.Hash, Before: s.Before, From: s.From, Carried: s.Carried}
		if s.Lags {
			from, err := own(f, p, s)
			if err != nil {
				return nil, err
			}
			if s.From == nil || behind(from, f.Position) {
				lagging = true
				sp.Active, sp.Due, sp.CatchUp, sp.From = true, true, true, from
				for tp, at := range from {
					starts[tp] = min(starts[tp], at)
				}
			}
		}
		sinks = append(sinks, sp)
	}
	if !lagging {
		return nil, nil
	}
	ranges := []batch.Range{}
	for tp, end := range f.Position {
		r := batch.Range{TopicPartition: tp, Start: starts[tp], End: end, Epoch: -1}
		if !p.Sources.Reads(tp) {
			r.Lost = r.Len()
		}
		ranges = append(ranges, r)
	}
	batch.SortRanges(ranges)
	plan := f.plan(ranges)
	plan.Sinks = sinks
	return plan, nil
}

// own returns where a lagging table stands in every partition of the position:
// at its stamp's end; without a stamp where `start` says; at the beginning of a
// partition that appeared since. Of a topic that is gone it has what the others
// have, less a gap of unknown length.
func own(f Facts, p Policy, s Sink) (batch.Offsets, error) {
	begin, remade := listing(f.Available)
	from := batch.Offsets{}
	for tp, end := range f.Position {
		at, ok := s.From[tp]
		if !ok && s.From == nil {
			at, ok = f.Starts[tp]
		}
		if a, listed := begin[tp]; !ok && listed {
			at, ok = a.Start, true
		}
		switch id := remade[anonymous(tp)]; {
		case ok && at < end && !p.Sources.Reads(tp) && !p.Sources.record(tp):
			return nil, unreadError(tp, at, end)
		case ok:
			from[tp] = min(at, end)
		case !p.Sources.Reads(tp):
			from[tp] = end
		case id == "" && !f.Gone[topicOf(tp)]:
			return nil, missing(tp)
		case id == "" && !p.Sources.record(tp):
			return nil, goneError(tp, 0)
		case id == "":
			from[tp] = end
		case !p.Sources.record(tp) || !f.Confirmed:
			return nil, remadeError(tp, id, 0)
		default:
			from[tp] = end
		}
	}
	return from, nil
}

// behind says whether a table that stands at from lacks something.
func behind(from, position batch.Offsets) bool {
	for tp, at := range position {
		if from[tp] < at {
			return true
		}
	}
	return false
}
