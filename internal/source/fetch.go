package source

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
	"golang.org/x/sync/errgroup"

	"github.com/frazil-io/frazil/internal/batch"
	"github.com/frazil-io/frazil/internal/kafka"
)

// fetchWait is how long a broker may wait for data that it listed already: a
// leader that has just been elected may not know yet that it may serve it.
const fetchWait = 100 * time.Millisecond

// fetchSize bounds one request. A broker sends one whole batch even if it is
// larger, so a record of any size comes through (KIP-74).
type fetchSize struct {
	wait                time.Duration
	response, partition int64
}

// share is one range that is being read.
type share struct {
	batch.Range
	index int   // into the ranges of the plan
	next  int64 // first offset that was not fetched yet; beyond End when done
	short time.Time
}

// piece is what came for one share in one answer.
type piece struct {
	*share        // the decoder reads only what never changes
	epoch   int32 // of the leader that sent it
	from    int64
	batches []fetchedBatch
	size    int64 // bytes
	held    int64 // of the gate
}

// fetchedBatch is a batch of which the offsets from `from` on are new.
type fetchedBatch struct {
	recordBatch
	aborted bool // of an aborted transaction
	from    int64
}

// fetcher fetches the shares of one Read, or ahead of it.
type fetcher struct {
	*relation
	shares []*share
	gate   *gate
	carry  *carry
	turn   int // of the rounds: who is first in a request gets most
	// partition bounds what one answer has of one partition, in bytes.
	partition int64
	// deliver takes a piece that holds at least one batch.
	deliver func(context.Context, piece) error
	// choose, if not nil, says which of the open shares to go on with; none ends
	// the run.
	choose func(open []*share) []*share

	sent    atomic.Int64 // batches
	mu      sync.Mutex
	room    int64 // for more surplus
	surplus map[batch.TopicPartition]surplus
}

// run fetches the shares to their ends. A share is done when the next fetch
// would be at its end or behind it. What is beyond goes to f.surplus.
func (f *fetcher) run(ctx context.Context) error {
	for try := 0; ; {
		open := f.open()
		if len(open) == 0 {
			return nil
		}
		before := missing(open)
		err := f.round(ctx, open)
		if err == nil && missing(open) == before {
			err = f.settle(ctx, open)
		}
		if err != nil {
			if !errors.Is(err, batch.ErrUnavailable) {
				return err
			}
			f.stale()
			f.stats.retries.Add(1)
		}
		if missing(open) < before {
			try = 0
			continue
		}
		if try++; try > triesMax {
			return err
		}
		if err := f.pause(ctx, try); err != nil {
			return err
		}
	}
}

// open returns the shares that are not done, each round another one first.
func (f *fetcher) open() []*share {
	var open []*share
	for _, s := range f.shares {
		if s.next < s.End {
			open = append(open, s)
		}
	}
	if len(open) > 0 {
		f.turn++
		k := f.turn % len(open)
		open = slices.Concat(open[k:], open[:k])
	}
	if f.choose != nil {
		open = f.choose(open)
	}
	return open
}

// missing counts the offsets that were not fetched yet.
func missing(shares []*share) (n int64) {
	for _, s := range shares {
		n += max(0, s.End-s.next)
	}
	return n
}

// resume serves the shares from what the last Read fetched beyond its end.
func (f *fetcher) resume(ctx context.Context) error {
	topics, err := f.metadata(ctx, anyAge)
	if errors.Is(err, batch.ErrUnavailable) {
		return nil // the first round tries again
	}
	if err != nil {
		return err
	}
	for _, s := range f.shares {
		t := topics[s.Topic]
		epoch := t.leaders[s.Partition].epoch
		kept, ok := f.carry.take(s.TopicPartition, s.next, epoch)
		if !ok || t.id != s.TopicID || s.Epoch >= 0 && s.Epoch != epoch {
			continue
		}
		for rest := kept.batches; len(rest) > 0; {
			n := firstPiece(rest, s.End)
			p := f.take(s, rest[:n], kept.epoch)
			rest = rest[n:]
			f.stats.carried.Add(p.size)
			if err := f.send(ctx, p); err != nil {
				return err
			}
		}
		s.next = max(s.next, kept.next) // behind the last batch there may be a hole
	}
	return nil
}

// firstPiece returns how many batches are as large as an answer's, so that more
// than one worker has something to do; what is beyond the end stays together.
func firstPiece(batches []fetchedBatch, end int64) int {
	size := 0
	for i, b := range batches {
		if b.last+1 >= end {
			break
		}
		if size += len(b.raw); size >= partitionBytes {
			return i + 1
		}
	}
	return len(batches)
}

// round sends one request to each broker that leads a share.
func (f *fetcher) round(ctx context.Context, open []*share) error {
	topics, err := f.metadata(ctx, anyAge)
	if err != nil {
		return err
	}
	led := map[int32][]*share{}
	var leaderless error
	for _, s := range open {
		t, ok := topics[s.Topic]
		if !ok || t.id != s.TopicID {
			return f.remade(ctx, s)
		}
		l, ok := t.leaders[s.Partition]
		if !ok || l.broker < 0 {
			leaderless = fmt.Errorf("%w: %s has no leader", batch.ErrUnavailable, s.TopicPartition)
			continue
		}
		led[l.broker] = append(led[l.broker], s)
	}
	if err := f.verify(ctx, open, topics); err != nil {
		return err
	}
	var group errgroup.Group
	for broker, shares := range led {
		size := fetchSize{fetchWait, min(requestBytes, f.gate.size/requestShare/int64(len(led))), f.partition}
		size.response = max(size.response, min(requestMin, f.gate.size))
		group.Go(func() error { return f.fetch(ctx, broker, shares, topics, size) })
	}
	if err := group.Wait(); err != nil {
		return err
	}
	return leaderless
}

// fetch asks one broker for its shares and hands over what came.
func (f *fetcher) fetch(ctx context.Context, broker int32, shares []*share, topics map[string]topic, size fetchSize) error {
	if err := f.gate.enter(ctx, size.response); err != nil {
		return err
	}
	held := size.response
	defer func() { f.gate.leave(held) }()
	resp, err := f.request(ctx, broker, shares, topics, size)
	if err != nil {
		return err
	}
	var failed error // of one partition, while others have an answer
	for _, t := range resp.Topics {
		for i := range t.Partitions {
			p := &t.Partitions[i]
			s := findShare(shares, topics, t, p.Partition)
			if s == nil {
				continue
			}
			piece, err := f.answer(ctx, s, p, topics[s.Topic].leaders[s.Partition].epoch)
			if err != nil {
				failed = cmp.Or(failed, err)
				continue
			}
			piece.held = min(held, piece.size)
			held -= piece.held
			if err := f.send(ctx, piece); err != nil {
				return err
			}
		}
	}
	return failed
}

// send delivers a piece.
func (f *fetcher) send(ctx context.Context, p piece) error {
	if len(p.batches) == 0 {
		f.gate.leave(p.held)
		return nil
	}
	f.sent.Add(int64(len(p.batches)))
	return f.deliver(ctx, p)
}

// queue hands pieces to the decoders.
func (r *relation) queue(pieces chan<- piece) func(context.Context, piece) error {
	return func(ctx context.Context, p piece) error {
		r.stats.hold(p.size)
		select {
		case pieces <- p:
			return nil
		case <-ctx.Done():
			r.stats.release(p.size)
			return context.Cause(ctx)
		}
	}
}

// request asks one broker for the shares that it leads, from their positions on.
func (r *relation) request(ctx context.Context, broker int32, shares []*share, topics map[string]topic, size fetchSize) (*kmsg.FetchResponse, error) {
	req := kmsg.NewPtrFetchRequest()
	req.MaxWaitMillis, req.MinBytes, req.MaxBytes = int32(size.wait.Milliseconds()), 1, int32(size.response)
	if !r.Uncommitted {
		req.IsolationLevel = 1
	}
	at := map[string]int{}
	for _, s := range shares {
		i, ok := at[s.Topic]
		if !ok {
			i = len(req.Topics)
			at[s.Topic] = i
			t := kmsg.NewFetchRequestTopic()
			t.Topic, t.TopicID = s.Topic, topics[s.Topic].rawID
			req.Topics = append(req.Topics, t)
		}
		p := kmsg.NewFetchRequestTopicPartition()
		p.Partition, p.FetchOffset, p.PartitionMaxBytes = s.Partition, s.next, int32(size.partition)
		p.CurrentLeaderEpoch = topics[s.Topic].leaders[s.Partition].epoch
		req.Topics[i].Partitions = append(req.Topics[i].Partitions, p)
	}
	r.stats.requests.Add(1)
	resp, err := req.RequestWith(ctx, r.client.Broker(int(broker)))
	if err == nil {
		err = kerr.ErrorForCode(resp.ErrorCode)
	}
	if err != nil {
		return nil, kafka.Classify(ctx, fmt.Sprintf("fetch from broker %d", broker), err)
	}
	for _, t := range resp.Topics {
		for i := range t.Partitions {
			r.stats.fetched.Add(int64(len(t.Partitions[i].RecordBatches)))
		}
	}
	return resp, nil
}

// findShare returns the share that a part of an answer is for. From Kafka 3.1 on
// answers name topics by their ids.
func findShare(shares []*share, topics map[string]topic, t kmsg.FetchResponseTopic, partition int32) *share {
	for _, s := range shares {
		if s.Partition == partition && (t.Topic == s.Topic || t.Topic == "" && topics[s.Topic].rawID == t.TopicID) {
			return s
		}
	}
	return nil
}

// answer cuts a partition's bytes into batches and moves the share's position
// behind the last one.
func (f *fetcher) answer(ctx context.Context, s *share, p *kmsg.FetchResponseTopicPartition, epoch int32) (piece, error) {
	if err := kerr.ErrorForCode(p.ErrorCode); err != nil {
		return piece{}, f.judge(ctx, s, err)
	}
	if s.next >= s.End {
		return piece{}, nil
	}
	var batches []fetchedBatch
	open := newTransactions(p.AbortedTransactions)
	last := int64(-1)
	for in := p.RecordBatches; len(in) > 0; {
		b, rest, err := nextBatch(in)
		if errors.Is(err, errTruncated) {
			break
		}
		if err == nil && b.base <= last {
			err = fmt.Errorf("%w: a record batch begins at offset %d, the one before ends at %d", batch.ErrUnavailable, b.base, last)
		}
		var aborted bool
		if err == nil {
			aborted, err = open.passes(b)
		}
		if err != nil {
			return piece{}, fmt.Errorf("fetch %s at offset %d: %w", s.TopicPartition, s.next, err)
		}
		in, last = rest, b.last
		batches = append(batches, fetchedBatch{recordBatch: b, aborted: aborted && !f.Uncommitted})
	}
	return f.take(s, batches, epoch), nil
}

// take splits batches into what is of the range and what is beyond its end, and
// moves the position of the share behind the last one.
func (f *fetcher) take(s *share, batches []fetchedBatch, epoch int32) piece {
	p := piece{share: s, epoch: epoch, from: s.next}
	more := surplus{epoch: epoch, from: s.End, next: s.End}
	full := false
	for _, b := range batches {
		if b.last < s.next {
			continue
		}
		if b.base < s.End {
			b.from = s.next
			p.batches = append(p.batches, b)
			p.size += int64(len(b.raw))
		}
		if b.last >= s.End && !full {
			if full = !f.spare(int64(len(b.raw))); !full {
				more.batches = append(more.batches, b.own())
				more.bytes += int64(len(b.raw))
				more.next = b.last + 1
			}
		}
		s.next = b.last + 1
	}
	if len(p.batches) > 0 || s.next >= s.End {
		s.short = time.Time{}
	}
	if len(more.batches) > 0 {
		f.mu.Lock()
		f.surplus[s.TopicPartition] = more
		f.mu.Unlock()
	}
	return p
}

// spare takes room for surplus, if there is any.
func (f *fetcher) spare(n int64) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.room < n {
		return false
	}
	f.room -= n
	return true
}
