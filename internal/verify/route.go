package verify

import (
	"fmt"
	"slices"

	"github.com/frazil-io/frazil/internal/batch"
)

// rests compares a table of a sink that feeds many with the log: a plan names every
// table that its batch touches, so a table that the newest ones do not name rests
// with the last batch that did. The tables were read before the checkpoint: of the
// batches from that of the newest entry then on, the table may have any.
func (r *Records) rests(s *Section, part string, tag *batch.Stamp) {
	inc := r.newest()
	if inc == nil {
		return
	}
	l := r.log(inc.Number, inc.ID)
	if l == nil {
		return
	}
	must, later := l.touches(part, r.Entry)
	switch {
	case must != nil && tag == nil:
		s.find(TwoHistories, "table", fmt.Sprintf("carries no stamp, though batch %d was committed to it: it was emptied, or dropped and made again", must.Batch), todoDecide)
	case tag != nil && (must == nil || tag.Last >= must.Batch) && l.plan(tag.Plan, tag.Last) != nil,
		must == nil && len(later) == 0, must == nil && slices.ContainsFunc(later, func(p *batch.Plan) bool { return p.Sink(part).Before.Hash == tag.Hash() }):
		s.count("tables that agree with the last batch that touched them", 1)
	case must != nil:
		s.find(TwoHistories, "table", fmt.Sprintf("carries %s, and the checkpoint says that it has batch %d: one of them was restored, or the stamp was edited", tag, must.Batch), todoDecide)
	default:
		s.find(TwoHistories, "table", fmt.Sprintf("carries %s (%.12s), and the plan of batch %d expects stamp %.12q there: one of them was restored, or the stamp was edited",
			tag, tag.Hash(), later[0].Batch, later[0].Sink(part).Before.Hash), todoDecide)
	}
}

// touches returns the newest plan for a table that was done when the log had this
// entry, nil if none is kept, and those of the first batch for it that may have been
// done since.
func (l *Log) touches(part string, entry int64) (must *batch.Plan, later []*batch.Plan) {
	open := batch.ID(0)
	for _, f := range l.Plans {
		if f.Value != nil && f.Number <= entry {
			open = f.Value.Batch
		}
	}
	for _, f := range l.Plans {
		p := f.Value
		if p == nil {
			continue
		}
		sp := p.Sink(part)
		switch {
		case sp == nil || !sp.Active:
		case p.Batch < open:
			must = p
		case len(later) == 0 || later[0].Batch == p.Batch:
			later = append(later, p)
		}
	}
	return must, later
}

// together audits what the tables of one sink have in all: each stamp says how many
// rows the sink had written, whatever the table. dropped is how many of its tables
// were dropped on purpose.
func (r *Report) together(tables []*chain, sink string, dropped int) {
	var newest *snapshot
	var at *chain
	var written int64
	have := 0
	for _, c := range tables {
		s := c.tagged
		if s == nil || s.stamp == nil || s.stamp.Route == nil {
			continue
		}
		written += s.stamp.Total.Written
		switch {
		case newest == nil || s.stamp.Last > newest.stamp.Last:
			newest, at, have = s, c, 1
		case s.stamp.Last == newest.stamp.Last:
			have++
		}
	}
	if newest == nil || newest.stamp.Last == batch.None || have < newest.stamp.Route.Tables {
		return // the batch is not in all of its tables yet
	}
	total := newest.stamp.Route.Before.Plus(newest.stamp.Route.Counts)
	at.count("sinks whose tables have what the sink wrote", 1)
	what := fmt.Sprintf("its %d tables have %d rows by their stamps, and by the newest of them, %s, the sink wrote %d", len(tables), written, newest.where(), total.Written)
	switch {
	case written == total.Written:
	case total.Lost > 0:
		at.note("%s; records of a batch that was in some of its tables already were lost in Kafka", what)
	case written < total.Written && dropped > 0:
		at.note("%s; %d of its tables were dropped", what, dropped)
	case written < total.Written:
		at.find(MissingTable, "sink "+sink, what+": a table was dropped or rolled back", "bring it back; if it was dropped on purpose, note that in the checkpoint as docs/routing.md says")
	default:
		at.find(WrongRows, "sink "+sink, what+": rows are in two of them, or a table was replaced", todoHistory)
	}
}
