package verify

import (
	"fmt"
	"time"

	"github.com/apache/iceberg-go/table"

	"github.com/frazil-io/frazil/internal/batch"
)

// What an operator can do about a table that is not what its stamps say.
const (
	todoHistory = "find out who changed the table; `frazil checkpoint rewind SPEC --batch N` goes back to a batch before it and reads Kafka again, while that still has the records"
	todoTag     = "put the tag back on the newest stamped snapshot with another engine (ALTER TABLE … CREATE OR REPLACE TAG)"
)

// chain audits the stamps of one pipeline in one table, in the order in which
// its tag was on them. Each stamp must continue the one before it: that is known by
// the hash that it names, and, where that one expired, by the totals.
type chain struct {
	*history
	*Section
	name    string // of the pipeline
	stream  string
	stamps  []*snapshot
	byHash  map[string]*snapshot
	reached batch.Offsets // as far as the chain came in each partition, closed ones, too
	expired int64         // links over snapshots that have expired
	keep    int           // maintenance.keep_snapshots
	// past is where runs of the stream ended of which a later one entered the table.
	past batch.Offsets
}

// ours takes the stamps of the pipeline out of the history; what only claims to be
// one of them is a finding.
func (c *chain) ours(uuid string) {
	c.byHash = map[string]*snapshot{}
	for _, s := range c.all {
		switch {
		case s.bad != nil && c.stream != batch.StreamMain: // the other chain tells
			continue
		case s.bad != nil:
			c.note("%s carries a stamp that this version cannot read: %v", s.where(), s.bad)
			continue
		case s.stamp == nil || s.stamp.Stream != c.stream || s.stamp.Name != c.name:
			continue
		case s.stamp.UUID != uuid:
			c.note("%s carries the stamp of another pipeline of this name, %s", s.where(), s.stamp.UUID)
			continue
		}
		if twin := c.byHash[s.hash]; twin != nil {
			owner, claim := twin, s
			if s == c.tagged || twin != c.tagged && c.onBranch[s.SnapshotID] && !c.onBranch[twin.SnapshotID] {
				owner, claim = s, twin
			}
			c.find(DoubledBatch, claim.where(), fmt.Sprintf("carries the same stamp as %s, batches %d..%d: one of them was committed by somebody else, and its rows may be in the table twice",
				owner.where(), s.stamp.First, s.stamp.Last), todoHistory)
			c.byHash[s.hash] = owner
			if owner == s {
				c.stamps[indexOf(c.stamps, twin)] = s
			}
			continue
		}
		c.byHash[s.hash] = s
		c.stamps = append(c.stamps, s)
	}
}

func indexOf(all []*snapshot, s *snapshot) int {
	for i := range all {
		if all[i] == s {
			return i
		}
	}
	return -1
}

// audit looks at each stamp and at each link between two of them.
func (c *chain) audit() {
	var last *snapshot // of the chain so far
	for i, s := range c.stamps {
		c.count("stamps", 1)
		c.alone(s)
		if last == nil {
			c.first(s)
			c.take(s.stamp)
			last = s
			continue
		}
		if c.stranger(i, last) {
			continue // the next one does not follow it, but the one before it
		}
		c.link(last, s)
		c.take(s.stamp)
		last = s
	}
	if c.expired > 0 {
		c.note("%d links between stamps lie over expired snapshots; they are covered by totals, which close", c.expired)
	}
	c.tag()
}

// stranger says whether stamp i is none of the chain: what comes later follows the
// one before it, and does not know it.
func (c *chain) stranger(i int, last *snapshot) bool {
	s := c.stamps[i]
	for _, later := range c.stamps[i+1:] {
		switch later.stamp.Previous {
		case s.hash:
			return false
		case last.hash:
			switch {
			case later.stamp.Kind != "":
				c.note("batches %d..%d of %s were left behind when incarnation %d began", s.stamp.First, s.stamp.Last, s.where(), later.stamp.Incarnation)
			case c.beside(s):
				c.note("%s has batches %d..%d and is on no branch: it was staged for an audit, and the branch was dropped; its rows are not in the table",
					s.where(), s.stamp.First, s.stamp.Last)
			default:
				c.find(ForeignClaim, s.where(), fmt.Sprintf("claims batches %d..%d of this pipeline, but the next stamp (%s) follows %s and does not know it: its rows are in the table besides those of the pipeline",
					s.stamp.First, s.stamp.Last, later.where(), last.where()), todoHistory)
			}
			return true
		}
	}
	return false
}

// beside says whether a snapshot is surely no part of the branch: the walk from
// the head has come by the time at which it was made, and did not meet it.
func (c *chain) beside(s *snapshot) bool {
	return !c.onBranch[s.SnapshotID] && c.end != nil && c.end.SequenceNumber < s.SequenceNumber
}

// alone audits what one stamp says of itself.
func (c *chain) alone(s *snapshot) {
	st := s.stamp
	if wrong := termsOf(st.Counts).imbalance(); wrong != "" {
		c.find(Unbalanced, s.where(), "its counts do not add up: "+wrong, todoHistory)
	}
	if wrong := termsOf(st.Total).imbalance(); wrong != "" {
		c.find(Unbalanced, s.where(), "its totals do not add up: "+wrong, todoHistory)
	}
	offsets, exact, wrong := span(st.Start, st.End)
	if c.stream != batch.StreamMain { // they are batches, each of any number of records
		offsets, exact = 0, false
	}
	switch {
	case wrong != "":
		c.find(BrokenLink, s.where(), "its offsets make no sense: "+wrong, todoHistory)
	case exact && offsets != st.Counts.Offsets, offsets > st.Counts.Offsets:
		c.find(Unbalanced, s.where(), fmt.Sprintf("covers %d offsets and counts %d", offsets, st.Counts.Offsets), todoHistory)
	}
	switch {
	case st.Kind == "" && st.First > st.Last, st.Kind != "" && st.First != st.Last+1:
		c.find(BrokenLink, s.where(), fmt.Sprintf("says batches %d..%d", st.First, st.Last), todoHistory)
	case st.Kind != "" && (!equal(st.Counts, batch.Counts{}) || !st.Start.Equal(st.End)):
		c.find(Unbalanced, s.where(), "anchors an incarnation and counts records all the same", todoHistory)
	}
	if wrong := termsOf(st.Total).minus(termsOf(st.Counts)).imbalance(); wrong != "" {
		c.find(Unbalanced, s.where(), "its totals are less than its counts: "+wrong, todoHistory)
	}
	c.summary(s)
}

// summary compares a stamp with what Iceberg's own summary says of the snapshot.
func (c *chain) summary(s *snapshot) {
	added, _ := s.number("added-records")
	if added != s.stamp.Counts.Written {
		c.find(WrongRows, s.where(), fmt.Sprintf("added %d rows, as its summary says, and its stamp says %d", added, s.stamp.Counts.Written), todoHistory)
	}
	before := c.before(s)
	total, ok := s.number("total-records")
	if !ok || s.operation() != table.OpAppend || before == nil {
		return
	}
	if was, ok := before.number("total-records"); ok && total != was+added {
		c.find(WrongRows, s.where(), fmt.Sprintf("says that the table has %d rows, but %d were there before it and it added %d", total, was, added), todoHistory)
	}
}

// first audits the oldest live stamp: what came before has expired, or nothing did.
func (c *chain) first(s *snapshot) {
	st := s.stamp
	before := termsOf(st.Total).minus(termsOf(st.Counts))
	switch {
	case st.Previous != "":
		c.note("everything before batch %d has expired; it is covered by totals: %d offsets, %d rows written", st.First, before["offsets"], before["written"])
	case len(before) > 0 && st.Kind != batch.Replay:
		c.find(BrokenLink, s.where(), "is the first stamp of the pipeline, but its totals say that records came before it", todoHistory)
	}
	if st.Previous != "" && st.Kind == "" && c.rooted(s) {
		c.find(RemovedSnapshot, s.where(), "follows a stamp that is not in the table, though no snapshot before it has expired", todoHistory)
	}
}

// rooted says whether the live parents of a snapshot lead to the table's first one.
func (c *chain) rooted(s *snapshot) bool {
	for {
		if _, has := s.parent(); !has {
			return !s.cut()
		}
		if s = c.before(s); s == nil {
			return false
		}
	}
}

// link audits that b continues a, the stamp before it as far as snapshots live.
func (c *chain) link(a, b *snapshot) {
	c.count("links", 1)
	switch prev := c.byHash[b.stamp.Previous]; {
	case prev == a:
		c.follow(a, b)
	case prev != nil:
		// The tag was on prev again when b was committed.
		if b.stamp.Kind == "" {
			c.find(ForeignClaim, a.where(), fmt.Sprintf("carries batches %d..%d, but %s, which came later, follows %s", a.stamp.First, a.stamp.Last, b.where(), prev.where()), todoHistory)
		}
		c.follow(prev, b)
	case b.stamp.Previous == "" && c.enters(b):
		c.entered(a, b)
	case b.stamp.Previous == "" && b.stamp.Kind == batch.Replay:
		c.begun(a, b)
	case b.stamp.Previous == "":
		c.find(BrokenLink, b.where(), fmt.Sprintf("begins the pipeline again at batch %d, though %s carries batches %d..%d: what they have may be in the table twice",
			b.stamp.First, a.where(), a.stamp.First, a.stamp.Last), todoHistory)
	default:
		c.hidden(a, b)
	}
}

// hidden audits a link whose stamp before b is not live.
func (c *chain) hidden(a, b *snapshot) {
	reaches, expired := c.leads(b, a)
	switch {
	case reaches && b.stamp.Kind != "":
		c.note("the stamp that the anchor of incarnation %d follows is in the table no more: it was left behind by a rollback", b.stamp.Incarnation)
		return
	case reaches && a.stamp.Last+1 == b.stamp.First:
		c.find(EditedStamp, a.where(), fmt.Sprintf("its stamp is not the one that %s follows: the hash of what it says is %.12s, and %.12s is expected; it was edited, or the snapshot replaced",
			b.where(), a.hash, b.stamp.Previous), todoHistory)
		c.follow(a, b)
		return
	case reaches:
		c.find(RemovedSnapshot, b.where(), fmt.Sprintf("was built upon %s, but its stamp follows another one (%.12s) that is in the table no more", a.where(), b.stamp.Previous), todoHistory)
	case !expired:
		c.find(BrokenLink, b.where(), fmt.Sprintf("does not descend from %s, which carries the stamp before it", a.where()), todoHistory)
	case !c.byExpiry(a, b):
		c.find(RemovedSnapshot, b.where(), fmt.Sprintf("between it (batches %d..%d) and %s (batches %d..%d) a snapshot was removed that expiry would have kept longer than %s: batches %d..%d",
			b.stamp.First, b.stamp.Last, a.where(), a.stamp.First, a.stamp.Last, a.where(), a.stamp.Last+1, b.stamp.First-1), todoHistory)
	default:
		c.expired++
	}
	c.closes(a, b)
}

// byExpiry says whether what lay between a and b can have expired while a stayed.
// Expiry goes from old to new, and spares the newest snapshot of each hour, those
// that other refs name, and those that a tag of another pipeline needs: so a is the
// newest of its hour, or was kept by a ref.
func (c *chain) byExpiry(a, b *snapshot) bool {
	if c.named[a.SnapshotID] || a == c.tagged {
		return true
	}
	if b.TimestampMs/time.Hour.Milliseconds() == a.TimestampMs/time.Hour.Milliseconds() {
		return false
	}
	newer := 0
	for _, s := range c.all {
		if c.onBranch[s.SnapshotID] && s.SequenceNumber >= b.SequenceNumber {
			newer++
		}
	}
	if newer < c.keep {
		c.note("only %d snapshots are kept behind an expired one; keep_snapshots is %d: it was raised, or another engine expired snapshots", newer, c.keep)
	}
	return true
}

// closes audits the totals over expired snapshots between a and b.
func (c *chain) closes(a, b *snapshot) {
	if a.stamp.Incarnation != b.stamp.Incarnation {
		c.note("the link from batch %d to batch %d lies over the anchor of an incarnation, which has expired", a.stamp.Last, b.stamp.First)
		return
	}
	if b.stamp.First <= a.stamp.Last {
		c.find(BrokenLink, b.where(), fmt.Sprintf("begins with batch %d, but batch %d is in %s already", b.stamp.First, a.stamp.Last, a.where()), todoHistory)
	}
	gone := termsOf(b.stamp.Total).minus(termsOf(b.stamp.Counts)).minus(termsOf(a.stamp.Total))
	if wrong := gone.imbalance(); wrong != "" {
		c.find(Unbalanced, b.where(), fmt.Sprintf("the totals of %s and its own do not close: between them %s", a.where(), wrong), todoHistory)
		return
	}
	offsets, exact, wrong := between(a.stamp.End, b.stamp.Start)
	if c.stream != batch.StreamMain {
		offsets, exact = 0, false
	}
	switch {
	case wrong != "":
		c.find(BrokenLink, b.where(), wrong, todoHistory)
	case exact && offsets != gone["offsets"], offsets > gone["offsets"]:
		c.find(Unbalanced, b.where(), fmt.Sprintf("%d offsets lie between %s and it, but the totals count %d", offsets, a.where(), gone["offsets"]), todoHistory)
	}
}

// between is what lies between two stamps. exact is false where partitions came or
// went.
func between(end, start batch.Offsets) (offsets int64, exact bool, wrong string) {
	exact = len(end) == len(start)
	for _, tp := range end.Partitions() {
		at, ok := start[tp]
		switch {
		case !ok:
			exact = false
		case at < end[tp]:
			return 0, false, fmt.Sprintf("starts at offset %d of partition %s, before offset %d that is in the table already", at, tp, end[tp])
		default:
			offsets += at - end[tp]
		}
	}
	return offsets, exact, ""
}

// follow audits that b continues a without a gap or an overlap.
func (c *chain) follow(a, b *snapshot) {
	p, s := a.stamp, b.stamp
	if s.Kind != "" {
		c.anchored(a, b)
		return
	}
	if s.Incarnation != p.Incarnation || s.IncarnationID != p.IncarnationID {
		c.find(BrokenLink, b.where(), fmt.Sprintf("is of incarnation %d-%s, and follows one of %d-%s without an anchor", s.Incarnation, s.IncarnationID, p.Incarnation, p.IncarnationID), todoHistory)
	}
	if c.enters(a) {
		c.behind(c.past, b)
	}
	if s.First != p.Last+1 {
		c.find(BrokenLink, b.where(), fmt.Sprintf("begins with batch %d, and follows batch %d", s.First, p.Last), todoHistory)
	}
	if s.Time.Before(p.Time) {
		c.find(BrokenLink, b.where(), fmt.Sprintf("its batch was planned at %s, before that of the stamp before, %s", s.Time.Format(time.RFC3339), p.Time.Format(time.RFC3339)), todoHistory)
	}
	if want := p.Total.Plus(s.Counts); !equal(s.Total, want) {
		c.find(Unbalanced, b.where(), fmt.Sprintf("its totals are %+v; those before and its counts come to %+v", s.Total, want), todoHistory)
	}
	for _, tp := range p.End.Partitions() {
		at, ok := s.Start[tp]
		switch {
		case !ok:
			c.find(BrokenLink, b.where(), fmt.Sprintf("has no part in partition %s, which the stamp before has up to offset %d", tp, p.End[tp]), todoHistory)
		case at > p.End[tp]:
			c.find(BrokenLink, b.where(), fmt.Sprintf("starts partition %s at offset %d, but the stamp before ends at %d: offsets [%d,%d) are in no snapshot", tp, at, p.End[tp], p.End[tp], at), todoHistory)
		case at < p.End[tp]:
			c.find(BrokenLink, b.where(), fmt.Sprintf("starts partition %s at offset %d, but the stamp before ends at %d: offsets [%d,%d) are in two snapshots", tp, at, p.End[tp], at, p.End[tp]), todoHistory)
		}
	}
	for _, tp := range s.Start.Partitions() {
		_, had := p.End[tp]
		if was, known := c.reached[tp]; known && !had && s.Start[tp] < was {
			c.find(BrokenLink, b.where(), fmt.Sprintf("starts partition %s at offset %d, but the table had it up to %d when it was closed", tp, s.Start[tp], was), todoHistory)
		}
	}
}

// anchored audits the anchor b of an incarnation, which goes on from the stamp that
// the tag was on, or from that of an earlier snapshot.
func (c *chain) anchored(a, b *snapshot) {
	s := b.stamp
	if s.Incarnation <= a.stamp.Incarnation {
		c.find(BrokenLink, b.where(), fmt.Sprintf("anchors incarnation %d behind incarnation %d", s.Incarnation, a.stamp.Incarnation), todoHistory)
	}
	same := func(p *batch.Stamp) bool { return p.Last == s.Last && p.End.Equal(s.End) && equal(p.Total, s.Total) }
	if same(a.stamp) {
		return
	}
	if c.stream != batch.StreamMain && a.stamp.Last < s.Last && a.stamp.End.Equal(s.End) && equal(a.stamp.Total, s.Total) {
		return // the marks know of batches in which the others caught up, and this table had no part
	}
	if s.Kind == batch.Recover {
		c.find(BrokenLink, b.where(), fmt.Sprintf("anchors incarnation %d at batch %d, but the stamp before it is of batch %d or counts other records", s.Incarnation, s.Last, a.stamp.Last), todoHistory)
		return
	}
	for _, t := range c.stamps {
		if t.stamp.Incarnation < s.Incarnation && same(t.stamp) {
			return
		}
	}
	c.note("incarnation %d goes back to batch %d, whose snapshot has expired since", s.Incarnation, s.Last)
}

// begun audits the anchor b of a run of a stream that comes and goes: it begins where
// the run before ended.
func (c *chain) begun(a, b *snapshot) {
	if b.stamp.Incarnation <= a.stamp.Incarnation {
		c.note("%s begins a run of stream %s after its checkpoint was lost", b.where(), c.stream)
	}
	for _, tp := range a.stamp.End.Partitions() {
		if at := b.stamp.Start[tp]; at < a.stamp.End[tp] {
			c.find(BrokenLink, b.where(), fmt.Sprintf("begins a run of stream %s at batch %d of %s, but %s has letters of that up to batch %d: they may be in the table twice", c.stream, at, tp.Topic, a.where(), a.stamp.End[tp]-1), todoHistory)
		}
	}
	if !equal(a.stamp.Total, b.stamp.Total) {
		c.find(Unbalanced, b.where(), fmt.Sprintf("begins a run of stream %s with totals of %+v; those of the run before are %+v", c.stream, b.stamp.Total, a.stamp.Total), todoHistory)
	}
}

// take notes how far the chain came.
func (c *chain) take(s *batch.Stamp) {
	if s.Kind != "" || c.reached == nil {
		c.reached = batch.Offsets{} // a rewind goes back
	}
	for tp, at := range s.Start {
		c.reached[tp] = max(c.reached[tp], at)
	}
	for tp, at := range s.End {
		c.reached[tp] = max(c.reached[tp], at)
	}
}

// tag audits where the tag is: on the newest stamp, in the branch.
func (c *chain) tag() {
	name := "tag " + batch.Tag(c.name, c.stream)
	if c.tagged == nil && c.stream != batch.StreamMain {
		return // its run is over
	}
	if len(c.stamps) == 0 {
		if c.tagged != nil {
			c.find(MovedTag, name, fmt.Sprintf("is on %s, which carries no stamp of this pipeline", c.tagged.where()), todoTag)
		}
		return
	}
	newest := c.stamps[len(c.stamps)-1]
	c.count("tags", 1)
	switch {
	case c.tagged == nil:
		c.find(MovedTag, name, fmt.Sprintf("is gone; it belongs on %s, batch %d", newest.where(), newest.stamp.Last), todoTag)
		return
	case c.tagged.stamp == nil:
		c.find(MovedTag, name, fmt.Sprintf("is on %s, which carries no stamp; it belongs on %s, batch %d", c.tagged.where(), newest.where(), newest.stamp.Last), todoTag)
		return
	case c.tagged != newest:
		c.find(MovedTag, name, fmt.Sprintf("is on %s, batch %d, but %s carries a newer stamp, batch %d", c.tagged.where(), c.tagged.stamp.Last, newest.where(), newest.stamp.Last),
			"if that snapshot is the pipeline's own, "+todoTag)
	}
	c.ancestry(name, newest)
}

func (c *chain) ancestry(name string, newest *snapshot) {
	if c.head == nil {
		c.find(RolledBack, "branch", "has no snapshot, though stamps are there", todoHistory)
		return
	}
	reaches, expired := c.leads(c.head, newest)
	switch {
	case reaches:
	case expired && c.end != nil && newest.SequenceNumber < c.end.SequenceNumber && !descends(c.history, newest, c.head):
		c.find(RolledBack, name, fmt.Sprintf("whether %s is part of the branch cannot be told: snapshots between it and the head %d have expired", newest.where(), c.head.SnapshotID),
			fmt.Sprintf("if nobody rolled the table back, `frazil run SPEC --adopt SINK@%d`", c.head.SnapshotID))
	default:
		c.find(RolledBack, "branch", fmt.Sprintf("its head is %s, which does not descend from %s, batch %d: the table was rolled back", c.head.where(), newest.where(), newest.stamp.Last),
			"roll the table forward again, or go back with it: `frazil checkpoint rewind SPEC --batch N`")
	}
}

// descends says whether a snapshot was built upon another one.
func descends(h *history, from, to *snapshot) bool {
	reaches, _ := h.leads(from, to)
	return reaches
}
