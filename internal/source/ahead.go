package source

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"

	"github.com/frazil-io/frazil/internal/batch"
)

// marksPerLimit bounds the marks of a partition that fills a whole batch: two of
// them are less than this part of the limit apart, or one record.
const marksPerLimit = 4096

// AheadMax is the largest limit in bytes that Ahead makes exact. Nothing is
// decoded while it reads, so it takes what Read has for its queue and its carry.
func (l Limits) AheadMax() int64 {
	l = l.withDefaults()
	return l.queueBytes() + l.Memory/carryShare
}

// Ahead reads ahead of a plan that begins at the offsets `from`, or at the start
// of a partition that they lack, and returns the listing with the exact sizes of
// what it read: at least enough for a batch of bytesMax that is fair between the
// partitions, unless memory is full before that. What it read is kept for the
// Read of that plan. A limit above Limits.AheadMax is left alone.
//
// It may be called again and again for the same plan, and reads only what is new.
// It must not be called while Read is under way. batch.ErrDataLost: what was
// listed is gone.
func (s *Source) Ahead(ctx context.Context, from batch.Offsets, available []batch.Available, bytesMax int64) ([]batch.Available, error) {
	if bytesMax <= 0 || bytesMax > s.limits.AheadMax() {
		return available, nil
	}
	available = slices.Clone(available)
	s.ahead.begin(s.carry, from, available, bytesMax)
	for more := true; more; {
		more = false
		for _, r := range s.relations {
			n, err := s.readAhead(ctx, r)
			if err != nil {
				if ctx.Err() != nil {
					err = context.Cause(ctx)
				}
				return nil, fmt.Errorf("read ahead of source %s: %w", r.Name, err)
			}
			more = more || n > 0
		}
	}
	for i, a := range available {
		if m := s.ahead.measured[a.TopicPartition]; m != nil && m.from < a.End {
			available[i].Sizes = &batch.Sizes{From: m.from, Marks: slices.Clone(m.marks)}
		}
	}
	return available, nil
}

// readAhead fetches what the next batch can have of one source of the spec, and
// returns how many offsets it moved on.
func (s *Source) readAhead(ctx context.Context, r *relation) (moved int64, err error) {
	shares := s.ahead.shares(r.Name)
	if len(shares) == 0 {
		return 0, nil
	}
	gate := newGate(s.limits.queueBytes())
	f := &fetcher{relation: r, shares: shares, gate: gate, carry: s.carry, partition: s.ahead.partition}
	f.choose = func(open []*share) []*share { return s.ahead.short(open, s.carry) }
	f.deliver = func(_ context.Context, p piece) error {
		defer gate.leave(p.held)
		s.ahead.note(p)
		s.carry.extend(p)
		return nil
	}
	before := missing(shares)
	err = f.run(ctx)
	for _, sh := range shares {
		s.ahead.reach(sh.TopicPartition, min(sh.next, sh.End))
	}
	return before - missing(shares), err
}

// ahead is what is known of the records behind the newest plan.
type ahead struct {
	mu        sync.Mutex
	measured  map[batch.TopicPartition]*measured
	limit     int64
	turn      int   // counts pieces
	partition int64 // most of one partition in one answer
	unpack    *unpacker
}

// measured is the sizes of one partition's records, from one offset on.
type measured struct {
	epoch      int32 // of the leader that they were listed under
	from, next int64
	end        int64 // of the log, as listed
	marks      []batch.Mark
	turn       int // of the last piece
}

func newAhead() *ahead {
	return &ahead{measured: map[batch.TopicPartition]*measured{}, unpack: newUnpacker()}
}

// partitionMin is the least that is asked of a partition: below it an answer
// holds few batches of a usual producer.
const partitionMin = 32 << 10

// begin moves on to a listing and the position of the next plan: what was read
// before that is forgotten, and so is what was read under another leader epoch,
// because the log may have been cut.
func (a *ahead) begin(kept *carry, from batch.Offsets, available []batch.Available, limit int64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	was := a.measured
	a.measured, a.limit = map[batch.TopicPartition]*measured{}, limit
	waiting := int64(0)
	for _, v := range available {
		start := v.Start
		if at, ok := from[v.TopicPartition]; ok {
			start = max(start, at)
		}
		m := was[v.TopicPartition]
		if m == nil || m.epoch != v.Epoch || !m.rebase(start) {
			fresh := &measured{epoch: v.Epoch, from: start, next: start}
			if m != nil {
				fresh.turn = m.turn
			}
			m = fresh
		}
		m.end = v.End
		a.measured[v.TopicPartition] = m
		if m.next < m.end {
			waiting++
		}
	}
	a.partition = max(partitionMin, min(partitionBytes, limit/2/max(1, waiting)))
	kept.behind(a.measured)
}

// rebase drops what lies before an offset. Inside of what a mark covers, the
// offset keeps the bytes of all of it: an upper bound.
func (m *measured) rebase(from int64) bool {
	if from < m.from || from > m.next {
		return false
	}
	drop, bytes := 0, int64(0)
	for drop < len(m.marks) && m.marks[drop].Next <= from {
		bytes = m.marks[drop].Bytes
		drop++
	}
	m.marks = slices.Delete(m.marks, 0, drop)
	for i := range m.marks {
		m.marks[i].Bytes -= bytes
	}
	m.from = from
	return true
}

func (m *measured) bytes() int64 {
	if len(m.marks) == 0 {
		return 0
	}
	return m.marks[len(m.marks)-1].Bytes
}

// add notes a record of so many bytes before the offset next. Marks less than
// step apart become one.
func (m *measured) add(next, bytes, step int64) {
	sum := m.bytes() + bytes
	n := len(m.marks)
	before := int64(0)
	if n > 1 {
		before = m.marks[n-2].Bytes
	}
	if n > 0 && sum-before <= step {
		m.marks[n-1] = batch.Mark{Next: next, Bytes: sum}
		return
	}
	m.marks = append(m.marks, batch.Mark{Next: next, Bytes: sum})
}

// shares returns what is not read ahead yet of one source of the spec.
func (a *ahead) shares(source string) (shares []*share) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, tp := range slices.SortedFunc(maps.Keys(a.measured), batch.TopicPartition.Compare) {
		m := a.measured[tp]
		if tp.Source == source && m.next < m.end {
			shares = append(shares, &share{Range: batch.Range{TopicPartition: tp, Start: m.next, End: m.end, Epoch: m.epoch}, next: m.next})
		}
	}
	return shares
}

// short returns the shares of which a fair batch could have more than was read,
// first those with least, and of those the one that waited longest; none when memory is full. What fills it was measured
// and not planned yet, so there is something to plan with.
func (a *ahead) short(open []*share, kept *carry) []*share {
	a.mu.Lock()
	defer a.mu.Unlock()
	if kept.full() {
		return nil
	}
	level := a.level()
	open = slices.DeleteFunc(open, func(s *share) bool { return float64(a.measured[s.TopicPartition].bytes()) >= level })
	slices.SortStableFunc(open, func(s, t *share) int {
		m, n := a.measured[s.TopicPartition], a.measured[t.TopicPartition]
		return cmp.Or(cmp.Compare(m.bytes(), n.bytes()), cmp.Compare(m.turn, n.turn))
	})
	return open
}

// level is how many bytes a fair batch gives to a partition that has more than
// was read: those that are read to their end leave the rest to the others.
func (a *ahead) level() float64 {
	var whole []int64
	for _, m := range a.measured {
		if m.next >= m.end {
			whole = append(whole, m.bytes())
		}
	}
	slices.Sort(whole)
	rest, sharers := float64(a.limit), len(a.measured)
	for _, bytes := range whole {
		if float64(bytes) > rest/float64(sharers) {
			break
		}
		rest -= float64(bytes)
		sharers--
	}
	return rest / float64(max(1, sharers))
}

// note measures the records of a piece. A batch that cannot be read counts as it
// is: the Read that meets it says what is wrong.
func (a *ahead) note(p piece) {
	a.mu.Lock()
	defer a.mu.Unlock()
	m := a.measured[p.TopicPartition]
	a.turn++
	m.turn = a.turn
	step := a.limit / marksPerLimit
	for _, b := range p.batches {
		data, err := a.unpack.records(b.recordBatch)
		if err != nil {
			m.add(min(b.last+1, p.End), int64(len(b.raw)), step)
			continue
		}
		if b.control() || b.aborted {
			m.add(min(b.last+1, p.End), 0, step)
			continue
		}
		for it := b.walk(data, nil); it.next(); {
			if it.offset >= b.from && it.offset < p.End {
				m.add(it.offset+1, int64(len(it.Key)+len(it.Value)), step)
			}
		}
		m.add(min(b.last+1, p.End), 0, step)
	}
	m.next = max(m.next, min(p.batches[len(p.batches)-1].last+1, p.End))
}

// reach notes that everything before an offset is read: there may be a hole at
// the end.
func (a *ahead) reach(tp batch.TopicPartition, next int64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	m := a.measured[tp]
	if m.next = max(m.next, next); len(m.marks) == 0 || m.marks[len(m.marks)-1].Next < m.next {
		m.add(m.next, 0, 0)
	}
}
