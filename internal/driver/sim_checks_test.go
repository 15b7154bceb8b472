package driver_test

import (
	"fmt"
	"maps"
	"reflect"
	"slices"

	"github.com/frazil-io/frazil/internal/batch"
)

// checkStamp holds a new stamped snapshot against the invariants.
func (w *world) checkStamp(pipe, ti int, old *batch.Stamp, s *snapshot) {
	st := s.stamp
	if st.Previous != old.Hash() {
		w.fail("tag order", "t%d: stamp %d..%d does not follow the tag's", ti, st.First, st.Last)
	}
	if old != nil && st.Incarnation < old.Incarnation {
		w.fail("zombie", "t%d: incarnation %d commits over %d", ti, st.Incarnation, old.Incarnation)
	}
	if old != nil && !s.restores {
		w.checkTiling(pipe, ti, old, st)
		w.checkClosed(ti, s)
	}
	if pipe == simReplays {
		w.checkReplayed(ti)
		return
	}
	if w.tables[ti].remade() || w.tables[ti].taken[pipe] {
		return // what it held is gone with the table before it
	}
	w.checkContents(pipe, ti, s)
	w.checkOnce(pipe)
	w.checkWitness(pipe, ti, st)
	if st.Kind == "" {
		w.checkCounts(ti, s)
	}
}

// audits says whether a sink's batches are looked at before they are published.
func (w *world) audits(ti int) bool { return w.cfg.audits && ti == w.cfg.tables-1 && !w.routed(ti) }

// checkAudited: no row is published that the rules have not passed.
func (w *world) checkAudited(ti int, s *snapshot) {
	if !w.audits(ti) || s.restores {
		return
	}
	for _, f := range s.files {
		if !slices.Contains(w.tables[ti].snaps[s.parent].files, f) && !w.audited[f] {
			w.fail("not audited", "t%d: snapshot %d publishes %s, which was not audited", ti, s.id, f)
		}
	}
}

// checkOthers: a rewind drops rows of others only where it was told to.
func (w *world) checkOthers(pipe, ti int, s *snapshot) {
	t := w.tables[ti]
	if !s.restores {
		return
	}
	if was, is := w.others(pipe, t.snaps[s.parent]), w.others(pipe, s); was != is && !w.drop {
		w.fail("dropped", "t%d: snapshot %d has %d rows of other writers, the one before had %d", ti, s.id, is, was)
	}
	for other, tag := range t.tags {
		if other != pipe && !t.holds(s.prev.id, tag) {
			t.taken[other] = true
		}
	}
}

// others counts the rows in a snapshot that are not a pipeline's own.
func (w *world) others(pipe int, s *snapshot) (n int) {
	for _, f := range s.files {
		for _, r := range w.files[f].rows {
			if r < 0 || r/simOther != int64(pipe) {
				n++
			}
		}
	}
	return n
}

// checkTiling: a stamp begins where the last one ended, in every partition that
// the last one knew, and follows its batch. Where a replay was recovered, the numbers
// of its batches go on behind the marks: of batches in which other tables caught up
// this one has no stamp.
func (w *world) checkTiling(pipe, ti int, old, st *batch.Stamp) {
	for tp, end := range old.End {
		if start, ok := st.Start[tp]; !ok || start != end {
			w.fail("tiling", "t%d: stamp %d..%d starts at %d in %s, the last ended at %d", ti, st.First, st.Last, start, tp, end)
		}
	}
	skips := pipe == simReplays && st.Kind == batch.Recover && st.First > old.Last
	if st.First != old.Last+1 && !skips {
		w.fail("tiling", "t%d: stamp %d..%d follows batch %d", ti, st.First, st.Last, old.Last)
	}
}

// checkClosed: a partition that was given up does not begin again.
func (w *world) checkClosed(ti int, s *snapshot) {
	for x := s.prev; x != nil && x.stamp != nil; x = x.prev {
		for tp, end := range x.stamp.End {
			if start, ok := s.stamp.Start[tp]; ok && start < end {
				w.fail("tiling", "t%d: stamp %d..%d starts at %d in %s, which stamp %d..%d had up to %d", ti, s.stamp.First, s.stamp.Last, start, tp, x.stamp.First, x.stamp.Last, end)
			}
		}
	}
}

// checkContents: the snapshot's files hold exactly what its chain of stamps
// owes, and so does the state.
func (w *world) checkContents(pipe, ti int, s *snapshot) {
	count := map[int64]int{}
	for _, f := range s.files {
		for _, r := range w.files[f].rows {
			if r > 0 && r/simOther == int64(pipe) {
				count[r%simOther]++
			}
		}
	}
	var sum [simKeys]int
	for x := s; x != nil && x.stamp != nil; x = x.prev {
		if x.restores {
			continue // it owns nothing; what it goes back to follows
		}
		rows, d := w.want(ti, x.stamp)
		for _, r := range rows {
			count[r]--
		}
		for k := range d {
			sum[k] += d[k]
		}
	}
	for r, n := range count {
		if n != 0 {
			w.fail("exactly once", "t%d snapshot %d: record %d is there %+d times too often", ti, s.id, r, n)
		}
	}
	if ti != 0 {
		return
	}
	if got, ok := w.restore(s.stamp.State); !ok {
		w.fail("state lost", "t0 snapshot %d names changelog %q, which is gone", s.id, s.stamp.State)
	} else if got != sum {
		w.fail("state", "t0 snapshot %d: state %v, records give %v", s.id, got, sum)
	}
}

// checkCounts: the stamp's accounting is that of its offsets.
func (w *world) checkCounts(ti int, s *snapshot) {
	st := s.stamp
	p := w.plans[st.Plan]
	if p == nil {
		w.fail("unknown plan", "t%d: the stamp of batch %d names a plan that nobody made", ti, st.Last)
		return
	}
	if slices.ContainsFunc(p.Ranges, func(r batch.Range) bool { return r.Closed }) || w.routed(ti) && w.topicID > 1 {
		return // a gap of unknown length
	}
	var offsets int64
	for tp, end := range st.End {
		offsets += end - st.Start[tp]
	}
	rows, _ := w.want(ti, st)
	if c := st.Counts; c.Offsets != offsets || c.Written != int64(len(rows)) || c.Offsets != c.Data+c.Control+c.Lost {
		w.fail("accounting", "t%d: batches %d..%d have %d offsets and %d rows, the stamp says %+v", ti, st.First, st.Last, offsets, len(rows), c)
	}
	if c := st.Counts; !c.Balanced() || w.isLetters(ti) && c.Letters+c.Marks != c.Written {
		w.fail("accounting", "t%d: the counts of batches %d..%d do not add up: %+v", ti, st.First, st.Last, c)
	}
	var total batch.Counts
	for x := s; x != nil && x.stamp != nil; x = x.prev {
		if !x.restores {
			total = total.Plus(x.stamp.Counts)
		}
	}
	if !reflect.DeepEqual(total, st.Total) {
		w.fail("accounting", "t%d: the stamps up to batch %d add up to %+v, the stamp says %+v", ti, st.Last, total, st.Total)
	}
}

// checkFiles: nothing that is live names a deleted file.
func (w *world) checkFiles() {
	for ti, t := range w.tables {
		for _, s := range t.snaps[1:] {
			if s.expired {
				continue
			}
			for _, f := range s.files {
				if w.files[f].deleted {
					w.fail("deleted file", "t%d snapshot %d names %s", ti, s.id, f)
				}
			}
		}
		for pipe := range simPipelines {
			if st := t.stamp(pipe); st != nil && ti == 0 {
				if _, ok := w.restore(st.State); !ok {
					w.fail("state lost", "t0: the tag's stamp names changelog %q, which is gone", st.State)
				}
			}
		}
	}
}

// checkRanges: the ranges of a batch never change once they are logged.
// Whoever logs under an incarnation whose record was lost does not count: the
// listing after the create stops it.
func (w *world) checkRanges(p *batch.Plan) {
	name := fmt.Sprintf("%s/%d/%d-%s/%d", p.Incarnation.Name, w.losses, p.Incarnation.Number, p.Incarnation.ID, p.Batch)
	was := w.ranges[name]
	text := ""
	for _, r := range p.Ranges {
		r.Lost, r.Closed = 0, false
		text += r.String() + " "
	}
	if was != "" && was != text {
		w.fail("ranges changed", "batch %d: %s became %s", p.Batch, was, text)
	}
	w.ranges[name] = text
}

// checkKnown: a driver holds batch p's outcome for known; is it?
func (w *world) checkKnown(d *proc, p *batch.Plan) {
	if d.pipe == simReplays {
		return
	}
	for ti, t := range w.tables {
		sp := p.Sink(w.sinkOf(ti))
		tag := t.stamp(d.pipe)
		if sp == nil || !sp.Active || tag != nil && d.newer(tag) || !t.truly() || t.remade() || t.bare || w.out[w.sinkIndexOf(ti)] {
			continue
		}
		if w.covered(t.newest(d.pipe), p, w.routed(ti)) {
			continue
		}
		var rows []int64
		var deltas [simKeys]int
		for _, r := range p.Ranges {
			w.wantRange(ti, p, r.TopicPartition, r.Start, r.End, &rows, &deltas)
		}
		if len(rows) > 0 {
			w.fail("wrong done", "driver %d: batch %d is not in t%d, rows %v", d.id, p.Batch, ti, rows)
		}
	}
}

func (w *world) covered(newest *snapshot, p *batch.Plan, routed bool) bool {
	for x := newest; x != nil && x.stamp != nil; x = x.prev {
		all := !x.restores && (x.stamp.Last >= p.Batch || routed)
		for tp, end := range p.End() {
			at, ok := x.stamp.End[tp]
			all = all && (at >= end || !ok && (tp.TopicID != w.topic() || w.deleted)) // a topic that is gone may be closed by another revision
		}
		if all {
			return true
		}
	}
	return false
}

// checkEnd: a driver is idle and nothing fails any more; is everything where it
// belongs?
func (w *world) checkEnd(pipe int) {
	w.checkAllThere(pipe)
	for ti, t := range w.tables {
		if w.routed(ti) {
			w.checkGaps(ti, t.newest(pipe))
			continue
		}
		if !t.truly() || t.remade() || t.taken[pipe] || w.out[w.sinkIndexOf(ti)] {
			continue
		}
		st := t.stamp(pipe)
		if st == nil {
			w.fail("left out", "t%d has no stamp", ti)
			return
		}
		var rows []int64
		var deltas [simKeys]int
		for p := range int32(simPartitions) {
			tp := w.tp(p)
			from, ok := st.End[tp]
			if !ok {
				from = w.part(tp).start
			}
			w.wantRange(ti, nil, tp, from, int64(len(w.part(tp).records)), &rows, &deltas)
		}
		if len(rows) > 0 {
			w.fail("left out", "t%d ends at %v without records %v", ti, st.End, rows)
		}
		w.checkGaps(ti, t.newest(pipe))
	}
	w.checkLetters(pipe)
}

// checkLetters: what a sink's SQL was given is in its table or among the dead
// letters, and never in both.
func (w *world) checkLetters(pipe int) {
	if !w.cfg.letters || w.onLoss || w.losses+w.drops+w.untagged > 0 || w.cfg.joins || w.cfg.rewind || w.cfg.shared || w.topicID > 1 || !w.allTruly() {
		return
	}
	var has [simSinks]map[int64]bool
	for ti := range w.tables {
		s := w.sinkIndexOf(ti)
		if has[s] == nil {
			has[s] = map[int64]bool{}
		}
		for _, f := range w.headFiles(ti) {
			for _, r := range w.files[f].rows {
				has[s][r] = true
			}
		}
	}
	letters := has[w.letterSink()]
	for p := range int32(simPartitions) {
		start := w.tables[w.letterTable()].newest(pipe).first().Start[w.tp(p)]
		for _, r := range w.part(w.tp(p)).records[start:] {
			if (r.bad || r.rule == toLetter) && !letters[r.id*simLetters] {
				w.fail("letter lost", "record %d cannot be decoded, or fails a rule of the source, and is no dead letter", r.id)
			}
			for s := range w.sinks() {
				if !w.out[s] && (r.poison[s] || r.to[s] && !r.refused()) && !r.narrow && has[s][r.id] == letters[r.letter(s)] {
					w.fail("letter lost", "record %d of sink %d: in its table and among the dead letters: %v", r.id, s, has[s][r.id])
				}
			}
		}
	}
}

// first is the stamp with which a chain of snapshots begins.
func (s *snapshot) first() *batch.Stamp {
	for s.prev != nil && s.prev.stamp != nil {
		s = s.prev
	}
	return s.stamp
}

// checkGaps: what was given up is really gone, and nothing before the first
// stamp was left out.
func (w *world) checkGaps(ti int, newest *snapshot) {
	seen := map[batch.TopicPartition]bool{}
	var chain []*batch.Stamp
	for x := newest; x != nil && x.stamp != nil; x = x.prev {
		chain = append(chain, x.stamp)
	}
	for _, st := range slices.Backward(chain) {
		for _, tp := range slices.SortedFunc(maps.Keys(st.Start), batch.TopicPartition.Compare) {
			if !seen[tp] && !w.latest && st.Start[tp] > w.part(tp).start && tp.TopicID == w.topic() {
				w.fail("left out", "t%d begins at %d in %s, which starts at %d", ti, st.Start[tp], tp, w.part(tp).start)
			}
			seen[tp] = true
		}
		p := w.plans[st.Plan]
		if p == nil {
			continue
		}
		for _, r := range p.Ranges {
			if r.Lost > 0 && r.TopicID == w.topic() && r.First() > w.part(r.TopicPartition).start {
				w.fail("false gap", "t%d batch %d: gap %s, the log starts at %d", ti, st.Last, r, w.part(r.TopicPartition).start)
			}
		}
	}
}
