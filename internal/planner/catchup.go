package planner

import (
	"github.com/frazil-io/frazil/internal/batch"
)

// catchUp plans a batch, within the limits, for a table that lags or joins, and
// for those that stand where it does: a step towards where the pipeline stands.
// Other tables take no part in it. It returns nil where none lags. Lost offsets
// are not judged here: reading them says so, and a revision names the gap.
func catchUp(f Facts, p Policy) (*batch.Plan, error) {
	var from, upto batch.Offsets // of the first one that lags
	sinks := make([]batch.SinkPlan, 0, len(f.Sinks))
	for _, s := range f.Sinks {
		sp := s.waits()
		at, err := lagging(f, p, s)
		if err != nil {
			return nil, err
		}
		works := at != nil && (s.From == nil || behind(at, f.Position))
		if works && from == nil {
			from, upto = at, s.Upto
		}
		switch {
		case works && at.Equal(from) && (s.Upto == nil) == (upto == nil):
			sp.Active, sp.Due, sp.CatchUp, sp.From = true, true, true, at
		case at != nil:
			sp.Lags = true
		}
		sinks = append(sinks, sp)
	}
	if from == nil {
		return nil, nil
	}
	ranges := []batch.Range{}
	for _, tp := range from.Partitions() {
		end, open := f.Position[tp]
		r := batch.Range{TopicPartition: tp, Start: from[tp], End: max(from[tp], end), Epoch: -1}
		switch {
		case !open: // a plan of the others has closed it
			r.End, r.Closed = r.Start, true
		case !p.Sources.Reads(tp):
			r.Lost = r.Len()
		}
		ranges = append(ranges, r)
	}
	if upto != nil {
		exactly(ranges, upto)
	} else {
		p.Limits.cut(ranges, sizesOf(f.Available), int64(f.Batch))
	}
	plan := f.plan(ranges)
	plan.Sinks, plan.Ahead = sinks, f.Position.Clone()
	return plan, nil
}

// exactly lets ranges end where a batch did.
func exactly(ranges []batch.Range, upto batch.Offsets) {
	for i := range ranges {
		r := &ranges[i]
		if end := max(r.Start, upto[r.TopicPartition]); end < r.End {
			r.End = end
			r.Lost = min(r.Lost, r.Len())
		}
	}
}

// lagging returns where a table stands that is not where the pipeline is, nil for
// one that is. It may be ahead, if the checkpoint was lost while its sink was not
// in the spec: then it waits for the others.
func lagging(f Facts, p Policy, s Sink) (batch.Offsets, error) {
	if !s.Lags {
		return nil, nil
	}
	from, err := own(f, p, s)
	if err != nil || s.From != nil && level(from, f.Position) {
		return nil, err
	}
	return from, nil
}

// waits is the sink's part of a plan in which it does not take part.
func (s Sink) waits() batch.SinkPlan {
	return batch.SinkPlan{Name: s.Name, Hash: s.Hash, Before: s.Before, From: s.From, Carried: s.Carried}
}

// own returns where a lagging table stands in every partition of the position:
// at its stamp's end; without a stamp where `start` says, or where the position is; at the beginning of a
// partition that appeared since. Of a topic that is gone it has what the others
// have, less a gap of unknown length. It also returns where the table stands in
// partitions that were closed since.
func own(f Facts, p Policy, s Sink) (batch.Offsets, error) {
	begin, remade := listing(f.Available)
	from := batch.Offsets{}
	for tp, at := range s.From {
		if _, open := f.Position[tp]; !open {
			from[tp] = at
		}
	}
	if s.Late && s.From == nil {
		return f.Position.Clone(), nil
	}
	for tp, end := range f.Position {
		at, ok := s.From[tp]
		if !ok && s.From == nil {
			at, ok = f.Starts[tp]
			at = min(at, end)
		}
		if a, listed := begin[tp]; !ok && listed {
			at, ok = min(a.Start, end), true
		}
		switch id := remade[anonymous(tp)]; {
		case ok && at < end && !p.Sources.Reads(tp) && !p.Sources.record(tp):
			return nil, unreadError(tp, at, end)
		case ok:
			from[tp] = at
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

// level says whether a table that stands at from is where the pipeline is.
func level(from, position batch.Offsets) bool {
	for tp, at := range position {
		if from[tp] != at {
			return false
		}
	}
	return true
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
