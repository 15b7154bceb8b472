package verify

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/frazil-io/frazil/internal/batch"
	"github.com/frazil-io/frazil/internal/checkpoint"
)

// Log is what the checkpoint keeps of one incarnation.
type Log struct {
	Incarnation batch.Incarnation
	Plans       []checkpoint.File[batch.Plan]
	Commits     []checkpoint.File[batch.Commit]
}

// Records are a pipeline's own records, as they were read behind the tables.
type Records struct {
	Incarnations []checkpoint.File[batch.Incarnation]
	Logs         []Log // by number
	// Entry is the newest log entry of the newest incarnation before the tables
	// were read, -1 if there was none: a driver may have gone on meanwhile.
	Entry int64
	// Dropped is, by sink, how many of the tables that its rows chose were dropped on
	// purpose.
	Dropped map[string]int
	// KeepBatches is the spec's maintenance.keep_batches.
	KeepBatches int64
}

const (
	todoRecords = "restore the checkpoint from a backup; or move it away: the next run goes on from the tables' stamps (docs/operations.md)"
	todoDecide  = "find out which one was restored or replaced; `frazil checkpoint recover SPEC` takes what the tables say"
)

// newest is the newest incarnation that can be read, nil if there is none.
func (r *Records) newest() *batch.Incarnation {
	for _, f := range slices.Backward(r.Incarnations) {
		if f.Value != nil {
			return f.Value
		}
	}
	return nil
}

func (r *Records) log(number int64, id string) *Log {
	for i := range r.Logs {
		if inc := r.Logs[i].Incarnation; inc.Number == number && inc.ID == id {
			return &r.Logs[i]
		}
	}
	return nil
}

// damage says whether an error is about a file's contents.
func damage(s *Section, key string, err error) {
	code, todo := DamagedRecord, todoRecords
	if errors.Is(err, batch.ErrInvalid) {
		todo = "run a newer frazil"
	}
	s.find(code, key, err.Error(), todo)
}

// audit looks at the checkpoint alone.
func (r *Records) audit(s *Section) {
	r.incarnations(s)
	for i := range r.Logs {
		r.Logs[i].audit(s, r.KeepBatches, i == len(r.Logs)-1)
	}
}

// incarnations have numbers without gaps, except before one that recovered: the
// records before it may have been lost with the checkpoint.
func (r *Records) incarnations(s *Section) {
	next := int64(0)
	for i, f := range r.Incarnations {
		s.count("incarnations", 1)
		if f.Damage != nil {
			damage(s, f.Key, f.Damage)
			next = f.Number + 1
			continue
		}
		v := f.Value
		if v.Number != f.Number {
			s.find(WrongRecord, f.Key, fmt.Sprintf("says that it is incarnation %d", v.Number), todoRecords)
		}
		if f.Number > next {
			text := fmt.Sprintf("the records of incarnations %d..%d are not there", next, f.Number-1)
			if v.Kind == batch.Recover {
				s.note("%s: incarnation %d began when the checkpoint had been lost or replaced", text, f.Number)
			} else {
				s.find(MissingIncarnation, f.Key, text, todoRecords)
			}
		}
		if i > 0 && r.Incarnations[i-1].Value != nil && r.Incarnations[i-1].Value.UUID != v.UUID {
			s.find(WrongRecord, f.Key, fmt.Sprintf("is of pipeline %s, the one before of %s", v.UUID, r.Incarnations[i-1].Value.UUID), todoRecords)
		}
		next = f.Number + 1
	}
}

// audit looks at one log: its entries have numbers without gaps, and each batch
// begins where the one before it ends.
func (l *Log) audit(s *Section, keep int64, current bool) {
	var last *batch.Plan
	var at batch.Offsets // where the pipeline stands
	for i, f := range l.Plans {
		s.count("log entries", 1)
		if i > 0 && f.Number != l.Plans[i-1].Number+1 {
			s.find(MissingLogEntry, f.Key, fmt.Sprintf("log entries %d..%d before it are not there", l.Plans[i-1].Number+1, f.Number-1), todoRecords)
			last, at = nil, nil
		}
		if f.Damage != nil {
			damage(s, f.Key, f.Damage)
			last, at = nil, nil
			continue
		}
		l.entry(s, f, last, at)
		last, at = f.Value, f.Value.Position()
	}
	l.begins(s, keep, last, current)
	for _, f := range l.Commits {
		s.count("commit records", 1)
		if f.Damage != nil {
			damage(s, f.Key, f.Damage)
		}
	}
	l.outcomes(s)
}

// entry compares an entry with the one before it.
func (l *Log) entry(s *Section, f checkpoint.File[batch.Plan], last *batch.Plan, at batch.Offsets) {
	p := f.Value
	if p.Entry != f.Number || !p.Incarnation.Same(l.Incarnation) {
		s.find(WrongRecord, f.Key, fmt.Sprintf("says that it is entry %d of incarnation %d-%s", p.Entry, p.Incarnation.Number, p.Incarnation.ID), todoRecords)
	}
	if last == nil {
		return
	}
	switch {
	case p.Batch == last.Batch && p.Revision == last.Revision+1:
		return // of the same ranges
	case p.Batch != last.Batch+1 || p.Revision != 0:
		s.find(WrongRecord, f.Key, fmt.Sprintf("plans batch %d, revision %d, behind batch %d, revision %d", p.Batch, p.Revision, last.Batch, last.Revision), todoRecords)
	}
	if p.CatchesUp() {
		return // its ranges are those of tables that lag
	}
	for _, r := range p.Ranges {
		if was, ok := at[r.TopicPartition]; ok && was != r.Start {
			s.find(WrongRecord, f.Key, fmt.Sprintf("starts partition %s at offset %d, but the pipeline stood at %d", r.TopicPartition, r.Start, was), todoRecords)
		}
	}
}

// begins audits that only purging removed the log's first entries.
func (l *Log) begins(s *Section, keep int64, newest *batch.Plan, current bool) {
	if len(l.Plans) == 0 || newest == nil || !current {
		return
	}
	first := l.Plans[0]
	if first.Number == 0 || first.Value == nil {
		return
	}
	switch kept := int64(newest.Batch - first.Value.Batch); {
	case first.Value.Revision > 0 && first.Value.Batch == 0, kept < 1:
		s.find(MissingLogEntry, first.Key, fmt.Sprintf("log entries 0..%d before it are not there", first.Number-1), todoRecords)
	case kept < keep:
		s.note("the log keeps %d batches back from batch %d; keep_batches is %d: it was raised, or log entries were removed", kept, newest.Batch, keep)
	}
}

// outcomes compares what each plan says of the batch before it with that batch's
// commit record.
func (l *Log) outcomes(s *Section) {
	commits := l.commits()
	for i, f := range l.Plans {
		p := f.Value
		if i == 0 || p == nil || p.Revision > 0 || l.Plans[i-1].Value == nil {
			continue
		}
		c, ok := commits[p.Batch-1]
		if !ok {
			continue // it is written behind the batch, and may be missing
		}
		for _, o := range p.Outcome {
			k := slices.IndexFunc(c.Outcome, func(q batch.Outcome) bool { return q.Sink == o.Sink })
			if k >= 0 && (c.Outcome[k].Snapshot != o.Snapshot || !equal(c.Outcome[k].Counts, o.Counts)) {
				s.find(WrongRecord, f.Key, fmt.Sprintf("says that batch %d came to %+v in sink %s, and its commit record says %+v", p.Batch-1, o, o.Sink, c.Outcome[k]), todoRecords)
			}
		}
	}
}

func (l *Log) commits() map[batch.ID]*batch.Commit {
	all := map[batch.ID]*batch.Commit{}
	for _, f := range l.Commits {
		if f.Value != nil {
			all[f.Value.Batch] = f.Value
		}
	}
	return all
}

// plan returns the logged plan with a hash.
func (l *Log) plan(hash string, of batch.ID) *batch.Plan {
	for _, f := range l.Plans {
		if f.Value != nil && f.Value.Batch == of && f.Value.Hash() == hash {
			return f.Value
		}
	}
	return nil
}

// keeps returns the first and the newest batch of the log; ok is false where it is
// empty.
func (l *Log) keeps() (first, newest batch.ID, ok bool) {
	for _, f := range l.Plans {
		if f.Value == nil {
			continue
		}
		if !ok {
			first, ok = f.Value.Batch, true
		}
		newest = f.Value.Batch
	}
	return first, newest, ok
}

// agree compares a table's stamps with the checkpoint.
func (r *Records) agree(s *Section, sink string, c *chain) {
	for _, snap := range c.stamps {
		r.stamp(s, sink, snap)
	}
	r.committed(s, sink, c)
	if _, table := batch.SplitRoute(sink); table == "" {
		r.stands(s, sink, c)
		return
	}
	var tag *batch.Stamp
	if c.tagged != nil {
		tag = c.tagged.stamp
	}
	r.rests(s, sink, tag)
}

// stamp compares one stamp with its incarnation's record and its logged plan.
func (r *Records) stamp(s *Section, sink string, snap *snapshot) {
	st := snap.stamp
	newest := r.newest()
	known := slices.ContainsFunc(r.Incarnations, func(f checkpoint.File[batch.Incarnation]) bool {
		return f.Number == st.Incarnation && (f.Value == nil || f.Value.ID == st.IncarnationID)
	})
	if !known {
		recovered := slices.ContainsFunc(r.Incarnations, func(f checkpoint.File[batch.Incarnation]) bool {
			return f.Number > st.Incarnation && f.Value != nil && f.Value.Kind == batch.Recover
		})
		if !recovered {
			text := "there is no record of any incarnation"
			if newest != nil {
				text = fmt.Sprintf("the newest record is of incarnation %d-%s", newest.Number, newest.ID)
			}
			s.find(MissingIncarnation, fmt.Sprintf("incarnation %d-%s", st.Incarnation, st.IncarnationID), "has stamps in the table, and no record in the checkpoint: "+text, todoRecords)
		}
		return
	}
	l := r.log(st.Incarnation, st.IncarnationID)
	if l == nil || st.Kind != "" {
		return
	}
	p := l.plan(st.Plan, st.Last)
	first, last, ok := l.keeps()
	switch {
	case p != nil:
		s.count("plans", 1)
		for _, wrong := range differs(p, p.Sink(sink), st) {
			s.find(EditedStamp, snap.where(), fmt.Sprintf("is not what the plan of batch %d, revision %d, says: %s", p.Batch, p.Revision, wrong), todoHistory)
		}
	case !ok || st.Last > last:
		s.find(MissingLogEntry, snap.where(), fmt.Sprintf("has batch %d, but the newest log entry of its incarnation is of batch %d", st.Last, last), todoRecords)
	case st.Last > first:
		s.find(ForeignClaim, snap.where(), fmt.Sprintf("claims to be batch %d, but no logged plan of that batch has the hash %.12s: a log entry was removed or changed, or the snapshot is none of the pipeline", st.Last, st.Plan), todoHistory)
	}
}

// differs says in what a stamp is another one than its plan leads to.
func differs(p *batch.Plan, sp *batch.SinkPlan, st *batch.Stamp) (wrong []string) {
	if sp == nil || !sp.Active {
		return []string{"this table has no part in it"}
	}
	differ := func(what string, has, want any) {
		wrong = append(wrong, fmt.Sprintf("%s is %v in the stamp and %v by the plan", what, has, want))
	}
	if st.Previous != sp.Before.Hash {
		differ("the stamp before", fmt.Sprintf("%.12q", st.Previous), fmt.Sprintf("%.12q", sp.Before.Hash))
	}
	if first := sp.Before.Last + 1; sp.Before.Hash != "" && st.First != first {
		differ("its first batch", st.First, first)
	}
	if !st.Time.Equal(p.Time) {
		differ("its time", st.Time.Format(time.RFC3339Nano), p.Time.Format(time.RFC3339Nano))
	}
	for what, pair := range map[string][2]batch.Offsets{"start": {st.Start, sp.From}, "end": {st.End, p.End()}} {
		if !pair[0].Equal(pair[1]) {
			differ("its "+what, offsets(pair[0], pair[1]), offsets(pair[1], pair[0]))
		}
	}
	var length int64
	for _, r := range p.Ranges {
		length += r.Len()
	}
	if want := sp.Carried.Offsets + length; st.Counts.Offsets != want {
		differ("the number of offsets", st.Counts.Offsets, want)
	}
	if want := sp.Before.Total.Plus(st.Counts); !equal(st.Total, want) {
		differ("the total", fmt.Sprintf("%+v", st.Total), fmt.Sprintf("%+v", want))
	}
	return wrong
}

// offsets shows where one map of offsets differs from another.
func offsets(o, than batch.Offsets) string {
	only := batch.Offsets{}
	maps.Copy(only, o)
	maps.DeleteFunc(only, func(tp batch.TopicPartition, at int64) bool {
		other, ok := than[tp]
		return ok && other == at
	})
	text, err := only.MarshalJSON()
	if err != nil {
		return err.Error()
	}
	return string(text)
}

// committed compares the outcomes that the checkpoint knows with the snapshots that
// are live, and names those that are not where none may have expired.
func (r *Records) committed(s *Section, sink string, c *chain) {
	for i := range r.Logs {
		l := &r.Logs[i]
		for id, commit := range l.commits() {
			for _, o := range commit.Outcome {
				if o.Sink != sink || o.Snapshot == 0 {
					continue
				}
				r.outcome(s, c, l, id, o)
			}
		}
	}
}

func (r *Records) outcome(s *Section, c *chain, l *Log, id batch.ID, o batch.Outcome) {
	snap := c.byID[o.Snapshot]
	if snap == nil {
		return // expired, or removed: the chain tells
	}
	s.count("outcomes", 1)
	st := snap.stamp
	switch {
	case st == nil || !st.Of(l.Incarnation, batch.StreamMain) || id < st.First || st.Last < id:
		s.find(WrongRecord, snap.where(), fmt.Sprintf("is said to have batch %d in the commit records, and carries %s", id, st), todoDecide)
	case st.Last == id && !equal(st.Counts, o.Counts):
		s.find(EditedStamp, snap.where(), fmt.Sprintf("counts %+v, and the commit record of batch %d says %+v", st.Counts, id, o.Counts), todoHistory)
	}
}

// stands compares where the table stands with what the newest plan expects there:
// the stamp before it, or its own. The tables were read before the checkpoint, so a
// running driver may have logged newer plans meanwhile; none of them can expect a
// stamp that is older than that of the newest plan then.
func (r *Records) stands(s *Section, sink string, c *chain) {
	inc := r.newest()
	if inc == nil {
		return
	}
	var tag *batch.Stamp
	if c.tagged != nil {
		tag = c.tagged.stamp
	}
	l := r.log(inc.Number, inc.ID)
	if l == nil || len(l.Plans) == 0 {
		if inc.Kind == batch.First && tag != nil && tag.Of(*inc, batch.StreamMain) {
			s.find(MissingLogEntry, "the log", fmt.Sprintf("is empty, though the table has batch %d", tag.Last), todoRecords)
		}
		return
	}
	expected := ""
	for _, f := range l.Plans {
		p := f.Value
		if p == nil || f.Number < r.Entry && f.Number != l.Plans[len(l.Plans)-1].Number {
			continue
		}
		sp := p.Sink(sink)
		if sp == nil {
			return // the sink joins
		}
		if tag.Hash() == sp.Before.Hash || sp.Active && tag != nil && tag.Last == p.Batch && tag.Plan == p.Hash() {
			s.count("tables that agree with the newest plan", 1)
			return
		}
		if sp.Active && tag != nil && tag.Of(*inc, batch.StreamMain) && tag.Last == p.Batch && l.plan(tag.Plan, tag.Last) != nil {
			s.count("tables that agree with the newest plan", 1) // a revision before this one
			return
		}
		expected = fmt.Sprintf("batch %d (stamp %.12s) or batch %d", sp.Before.Last, sp.Before.Hash, p.Batch)
	}
	if expected != "" {
		s.find(TwoHistories, "table", fmt.Sprintf("carries %s (%.12s), and the checkpoint expects %s there: one of them was restored, or the stamp was edited", tag, tag.Hash(), expected), todoDecide)
	}
}
