package verify

import (
	"fmt"
	"maps"
	"path"
	"slices"

	"github.com/frazil-io/frazil/internal/batch"
	"github.com/frazil-io/frazil/internal/deadletter"
)

const todoReplay = "find out who changed the table, and roll it forward again; the letters are marked, so no replay brings their rows"

// replays audits the stamps of dead letters that were run again. Where they have
// expired the checkpoint says what they counted.
func (o Options) replays(t Table, report *TableReport, uuid string, newest map[string]*batch.Stamp) {
	c := &chain{history: newHistory(t, batch.Tag(o.Pipeline, batch.StreamReplay)), Section: &report.Section, name: o.Pipeline, stream: batch.StreamReplay, keep: o.KeepSnapshots}
	c.ours(uuid)
	if len(c.stamps) > 0 {
		c.audit()
		c.over()
	}
	key := path.Join(uuid, batch.StreamReplay)
	total, ok := o.Replayed[t.Sink]
	switch _, table := batch.SplitRoute(t.Sink); {
	case !ok || equal(total, batch.Counts{}):
	case table != "":
		newest[key] = c.recordedRows(newest[key], total)
	default:
		newest[key] = c.recorded(newest[key], total)
	}
	if t.Sink == deadletter.Sink {
		o.marks(c, newest[key])
	}
}

// over audits that the newest stamp is in the branch when its run is over and has no
// tag any more.
func (c *chain) over() {
	last := c.stamps[len(c.stamps)-1]
	if c.tagged == nil && c.beside(last) {
		c.find(RolledBack, "branch", fmt.Sprintf("does not descend from %s, which has batches %d..%d of stream %s: the table was rolled back, and dead letters that were run again are in it no more",
			last.where(), last.stamp.First, last.stamp.Last, c.stream), todoReplay)
	}
}

// recorded compares the newest stamp in the branch, nil if there is none, with what
// the checkpoint says that the runs which are over have counted. It returns the one
// that is further.
func (c *chain) recorded(st *batch.Stamp, total batch.Counts) *batch.Stamp {
	c.count("replays that agree with the checkpoint", 1)
	var has batch.Counts
	if st != nil {
		has = st.Total
	}
	switch {
	case has.Offsets > total.Offsets: // of a run that is not over
		return st
	case has.Offsets == total.Offsets:
		if !equal(has, total) {
			c.find(EditedStamp, "stream "+c.stream, fmt.Sprintf("its newest stamp says that %+v were counted, and the checkpoint says %+v", has, total), todoReplay)
		}
		return st
	case c.unbroken(st):
		c.find(RemovedSnapshot, "stream "+c.stream, fmt.Sprintf("%d letters were run again, as the checkpoint says, and the table has stamps of %d, though no snapshot has expired since", total.Offsets, has.Offsets), todoReplay)
	}
	return &batch.Stamp{Name: c.name, Stream: c.stream, Total: total}
}

// recordedRows is recorded for one of many tables, of which the checkpoint keeps only
// how many rows the runs wrote.
func (c *chain) recordedRows(st *batch.Stamp, total batch.Counts) *batch.Stamp {
	c.count("replays that agree with the checkpoint", 1)
	if st != nil && st.Total.Written >= total.Written {
		return st
	}
	if c.unbroken(st) {
		var has int64
		if st != nil {
			has = st.Total.Written
		}
		c.find(RemovedSnapshot, "stream "+c.stream, fmt.Sprintf("%d rows of letters were written, as the checkpoint says, and the table has stamps of %d, though no snapshot has expired since", total.Written, has), todoReplay)
	}
	return &batch.Stamp{Name: c.name, Stream: c.stream, Total: total}
}

// enters says whether a snapshot is the anchor with which a run enters one of many
// tables when its first row for it comes: it says nothing of where the run stands.
func (c *chain) enters(s *snapshot) bool {
	return c.stream != batch.StreamMain && s.stamp.Kind != "" && s.stamp.Route != nil && s.stamp.Last == batch.None
}

// entered audits the anchor b of a run that enters the table after another one, whose
// newest stamp is a.
func (c *chain) entered(a, b *snapshot) {
	if c.past == nil {
		c.past = batch.Offsets{}
	}
	for tp, at := range a.stamp.End {
		c.past[tp] = max(c.past[tp], at)
	}
	if has, says := a.stamp.Total.Written, b.stamp.Total.Written; has != says {
		c.find(Unbalanced, b.where(), fmt.Sprintf("begins a run of stream %s with %d rows; the run before had written %d", c.stream, says, has), todoHistory)
	}
}

// behind audits that the first batch of a run in one of many tables begins where the
// runs before it ended, or later.
func (c *chain) behind(past batch.Offsets, b *snapshot) {
	for _, tp := range past.Partitions() {
		if at, ok := b.stamp.Start[tp]; ok && at < past[tp] {
			c.find(BrokenLink, b.where(), fmt.Sprintf("has letters of stream %s from batch %d on, but a run before it had them up to batch %d: they may be in the table twice", tp.Topic, at, past[tp]-1), todoHistory)
		}
	}
}

// unbroken says whether no snapshot has expired between the head and a stamp, nil for
// the table's first snapshot: so no other one was committed in between.
func (c *chain) unbroken(st *batch.Stamp) bool {
	for s := c.head; s != nil; s = c.before(s) {
		if st != nil && s.hash == st.Hash() {
			return true
		}
		if _, has := s.parent(); !has {
			return !s.cut()
		}
	}
	return c.head == nil
}

// marks compares the marks in the table of the dead letters with the newest stamp of
// the runs: a mark that no run made hides letters.
func (o Options) marks(c *chain, newest *batch.Stamp) {
	if newest != nil && newest.End == nil {
		return // it has expired: how far it came nobody knows
	}
	for _, stream := range slices.Sorted(maps.Keys(o.Marked)) {
		var upto int64
		if newest != nil {
			upto = newest.End[batch.TopicPartition{Source: deadletter.Sink, Topic: stream}]
		}
		c.count("marks", 1)
		if marked := o.Marked[stream]; marked > upto {
			c.find(ForeignClaim, "marks", fmt.Sprintf("say that letters of stream %s were run again up to batch %d, and the runs came to batch %d: somebody else wrote a mark, and letters do not wait that no table has", stream, marked-1, upto-1),
				"delete the rows with code 'replayed' whose replayed_to is beyond that from the table, and run the letters again")
		}
	}
}
