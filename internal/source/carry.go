package source

import (
	"bytes"
	"context"
	"slices"
	"sync"

	"golang.org/x/sync/semaphore"

	"github.com/frazil-io/frazil/internal/batch"
)

// carry keeps what was fetched beyond the end of a range or ahead of a plan, as
// the broker sent it, for the Read that goes on there. It never changes what is read: it is used
// only where it begins no later than that Read, under the same leader epoch, so
// that a log which was cut meanwhile is fetched again; and a Read that fails
// drops it.
type carry struct {
	max      int64 // beyond the end of ranges
	aheadMax int64 // and ahead of a plan; one answer more is kept
	stats    *stats

	mu   sync.Mutex
	held int64
	kept map[batch.TopicPartition]surplus
}

// surplus is the batches of the offsets [from, next), without a gap.
type surplus struct {
	epoch      int32 // of the leader that sent them
	from, next int64
	batches    []fetchedBatch
	bytes      int64
}

func newCarry(maxBytes, aheadMax int64, s *stats) *carry {
	return &carry{max: maxBytes, aheadMax: aheadMax, stats: s, kept: map[batch.TopicPartition]surplus{}}
}

// full says whether there is no room for more that was read ahead.
func (c *carry) full() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.held >= c.aheadMax
}

// extend keeps a piece that was read ahead, behind what is kept of its partition
// where it goes on there, else in its place.
func (c *carry) extend(p piece) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s, ok := c.kept[p.TopicPartition]
	if !ok || s.epoch != p.epoch || p.from < s.from || p.from > s.next {
		c.forget(p.TopicPartition)
		s = surplus{epoch: p.epoch, from: p.from, next: p.from}
	}
	for _, b := range p.batches {
		if b.last < s.next {
			continue
		}
		s.batches = append(s.batches, b.own())
		s.next = b.last + 1
		n := int64(len(b.raw))
		s.bytes += n
		c.held += n
		c.stats.hold(n)
	}
	c.kept[p.TopicPartition] = s
}

// behind forgets what lies before the positions where reading goes on, and what
// was not measured there: it would take room until somebody reads it.
func (c *carry) behind(at map[batch.TopicPartition]*measured) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for tp, s := range c.kept {
		if m := at[tp]; m == nil || m.next == m.from || s.next <= m.from {
			c.forget(tp)
		}
	}
}

// forget drops what is kept of a partition.
func (c *carry) forget(tp batch.TopicPartition) {
	if s, ok := c.kept[tp]; ok {
		delete(c.kept, tp)
		c.held -= s.bytes
		c.stats.release(s.bytes)
	}
}

// take removes what is kept of a partition and returns it, if a Read from an
// offset under the leader epoch can use it.
func (c *carry) take(tp batch.TopicPartition, from int64, epoch int32) (surplus, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s, ok := c.kept[tp]
	c.forget(tp)
	return s, ok && s.epoch == epoch && s.from <= from && from < s.next
}

// only forgets the partitions of a source that are not in the ranges: they are
// read no more.
func (c *carry) only(source string, ranges []batch.Range) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for tp := range c.kept {
		if tp.Source == source && !slices.ContainsFunc(ranges, func(r batch.Range) bool { return r.TopicPartition == tp }) {
			c.forget(tp)
		}
	}
}

// put keeps what there is room for.
func (c *carry) put(more map[batch.TopicPartition]surplus) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for tp, s := range more {
		if _, ok := c.kept[tp]; !ok && c.held+s.bytes <= c.max && len(s.batches) > 0 {
			c.kept[tp] = s
			c.held += s.bytes
			c.stats.hold(s.bytes)
		}
	}
}

// drop forgets everything.
func (c *carry) drop() {
	c.mu.Lock()
	defer c.mu.Unlock()
	clear(c.kept)
	c.stats.release(c.held)
	c.held = 0
}

// own copies a batch out of the answer that it came in, so that it does not keep
// the whole answer in memory.
func (b fetchedBatch) own() fetchedBatch {
	b.raw = bytes.Clone(b.raw)
	return b
}

// gate bounds the bytes that one Read has fetched and not decoded yet.
type gate struct {
	room *semaphore.Weighted
	size int64
}

func newGate(size int64) *gate { return &gate{semaphore.NewWeighted(size), size} }

// enter waits for room for n bytes, which are at most the gate's size.
func (g *gate) enter(ctx context.Context, n int64) error {
	if err := g.room.Acquire(ctx, n); err != nil {
		return context.Cause(ctx)
	}
	return nil
}

func (g *gate) leave(n int64) {
	if n > 0 {
		g.room.Release(n)
	}
}
