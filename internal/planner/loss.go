package planner

import "github.com/frazil-io/frazil/internal/batch"

// Cut says whether a log ends before a range does: the broker lost its end, and
// what comes there next will be other records. No gap can stand for that.
func Cut(ranges []batch.Range, available []batch.Available) bool {
	listed, _ := listing(available)
	for _, r := range ranges {
		if a, ok := listed[r.TopicPartition]; ok && a.End < r.End {
			return true
		}
	}
	return false
}

// GiveUp marks as lost what a listing says is no longer there, for a revision
// of a plan: the ranges themselves never change. It says whether it marked
// anything.
func GiveUp(ranges []batch.Range, available []batch.Available) bool {
	listed, remade := listing(available)
	marked := false
	for i := range ranges {
		r := &ranges[i]
		was := *r
		a, ok := listed[r.TopicPartition]
		switch {
		case ok:
			r.Lost = max(r.Lost, min(r.End, a.Start)-r.Start)
		case remade[anonymous(r.TopicPartition)] != "":
			r.Lost, r.Closed = r.Len(), true
		}
		marked = marked || *r != was
	}
	return marked
}
