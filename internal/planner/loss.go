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
// anything. batch.ErrDataLost: something is lost of a source that does not record
// losses; batch.ErrInvalid: or the spec does not read it any more.
func GiveUp(ranges []batch.Range, available []batch.Available, gone map[Topic]bool, sources Sources) (marked bool, err error) {
	listed, remade := listing(available)
	for i := range ranges {
		r := &ranges[i]
		was := *r
		a, ok := listed[r.TopicPartition]
		id := remade[anonymous(r.TopicPartition)]
		switch {
		case !sources.Reads(r.TopicPartition):
			r.Lost = r.Len()
			err = unreadError(r.TopicPartition, was.First(), r.End)
		case ok:
			r.Lost = max(r.Lost, min(r.End, a.Start)-r.Start)
			err = retentionError(r.TopicPartition, was.First(), a.Start)
		case id != "":
			r.Lost, r.Closed = r.Len(), true
			err = remadeError(r.TopicPartition, id, was.First())
		case gone[topicOf(r.TopicPartition)]:
			r.Lost, r.Closed = r.Len(), true
			err = goneError(r.TopicPartition, was.First())
		}
		if *r != was && !sources.record(r.TopicPartition) {
			return false, err
		}
		marked = marked || *r != was
	}
	return marked, nil
}
