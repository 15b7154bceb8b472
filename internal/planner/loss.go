package planner

import "github.com/frazil-io/frazil/internal/batch"

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
