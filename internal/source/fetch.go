package source

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
	"golang.org/x/sync/errgroup"

	"github.com/frazil-io/frazil/internal/batch"
	"github.com/frazil-io/frazil/internal/kafka"
)

// Sizes of a fetch. A broker sends one whole batch even if it is larger, so a
// record of any size comes through (KIP-74).
const (
	fetchMax          = 4 << 20 // a response
	fetchPartitionMax = 1 << 20
	fetchWait         = 500 * time.Millisecond
	// emptyMax is how many answers without progress end a read: the caller
	// looks again whether its plan still holds.
	emptyMax = 40
)

// share is one range that is being read.
type share struct {
	batch.Range
	index int32 // into the ranges of the plan
	next  int64 // first offset that was not fetched yet
}

// fetched is what came for one share.
type fetched struct {
	*share
	from    int64 // offsets before it were there already
	batches []fetchedBatch
}

type fetchedBatch struct {
	recordBatch
	aborted bool  // of an aborted transaction
	from    int64 // offsets before it were there already, though the batch may hold them
}

// fetchAll fetches the shares to their ends and hands over what comes. It keeps
// no more than one answer of each broker.
func (r *relation) fetchAll(ctx context.Context, shares []*share, now func() time.Time, to func([]fetched) error) error {
	empty := 0
	for {
		open := shares[:0:0]
		for _, s := range shares {
			if s.next < s.End {
				open = append(open, s)
			}
		}
		if len(open) == 0 {
			return nil
		}
		got, err := r.round(ctx, open, now())
		if err != nil {
			return err
		}
		if len(got) == 0 {
			if empty++; empty > emptyMax {
				return fmt.Errorf("%w: %s does not serve offset %d, which it listed", batch.ErrUnavailable, open[0].TopicPartition, open[0].next)
			}
			continue
		}
		empty = 0
		if err := to(got); err != nil {
			return err
		}
	}
}

// round sends one request to each broker that leads a share.
func (r *relation) round(ctx context.Context, shares []*share, now time.Time) ([]fetched, error) {
	topics, err := r.metadata(ctx, now)
	if err != nil {
		return nil, err
	}
	brokers := map[int32][]*share{}
	for _, s := range shares {
		t, ok := topics[s.Topic]
		if !ok || t.id != s.TopicID {
			return nil, fmt.Errorf("%w: topic %s was deleted and made again: offset %d of %s is gone", batch.ErrDataLost, s.Topic, s.next, s.TopicPartition)
		}
		l, ok := t.partitions[s.Partition]
		if !ok || l.broker < 0 {
			r.stale()
			return nil, fmt.Errorf("%w: %s has no leader", batch.ErrUnavailable, s.TopicPartition)
		}
		brokers[l.broker] = append(brokers[l.broker], s)
	}
	var group errgroup.Group
	answers := make(chan []fetched, len(brokers))
	for broker, led := range brokers {
		group.Go(func() error {
			got, err := r.fetch(ctx, broker, led, topics)
			answers <- got
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	close(answers)
	var all []fetched
	for got := range answers {
		all = append(all, got...)
	}
	return all, nil
}

func (r *relation) fetch(ctx context.Context, broker int32, shares []*share, topics map[string]topic) ([]fetched, error) {
	req := kmsg.NewPtrFetchRequest()
	req.MaxWaitMillis, req.MinBytes, req.MaxBytes = int32(fetchWait.Milliseconds()), 1, fetchMax
	if !r.Uncommitted {
		req.IsolationLevel = 1
	}
	for _, s := range shares {
		p := kmsg.NewFetchRequestTopicPartition()
		p.Partition, p.FetchOffset, p.PartitionMaxBytes = s.Partition, s.next, fetchPartitionMax
		p.CurrentLeaderEpoch = -1
		i := len(req.Topics) - 1
		if i < 0 || req.Topics[i].Topic != s.Topic {
			t := kmsg.NewFetchRequestTopic()
			t.Topic, t.TopicID = s.Topic, topics[s.Topic].rawID
			req.Topics = append(req.Topics, t)
			i++
		}
		req.Topics[i].Partitions = append(req.Topics[i].Partitions, p)
	}
	resp, err := req.RequestWith(ctx, r.client.Broker(int(broker)))
	if err == nil {
		err = kerr.ErrorForCode(resp.ErrorCode)
	}
	if err != nil {
		r.stale()
		return nil, kafka.Classify(fmt.Sprintf("fetch from broker %d", broker), err)
	}
	return r.answer(ctx, resp, shares)
}

// answer splits a response into the shares that it serves.
func (r *relation) answer(ctx context.Context, resp *kmsg.FetchResponse, shares []*share) ([]fetched, error) {
	var all []fetched
	for _, t := range resp.Topics {
		for i := range t.Partitions {
			p := &t.Partitions[i]
			s := r.find(shares, t, p.Partition)
			if s == nil {
				continue
			}
			if err := kerr.ErrorForCode(p.ErrorCode); err != nil {
				return nil, r.judge(ctx, s, err)
			}
			got, err := r.take(s, p)
			if err != nil {
				return nil, err
			}
			if len(got.batches) > 0 {
				all = append(all, got)
			}
		}
	}
	return all, nil
}

func (r *relation) find(shares []*share, t kmsg.FetchResponseTopic, partition int32) *share {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, s := range shares {
		if s.Partition == partition && (t.Topic == s.Topic || t.Topic == "" && r.topics[s.Topic].rawID == t.TopicID) {
			return s
		}
	}
	return nil
}

// judge says what an error of one partition means. A position out of range is
// never moved: it is lost if the log begins behind it.
func (r *relation) judge(ctx context.Context, s *share, cause error) error {
	r.stale()
	if !errors.Is(cause, kerr.OffsetOutOfRange) {
		return kafka.Classify("fetch "+s.TopicPartition.String(), cause)
	}
	starts, err := r.admin.ListStartOffsets(ctx, s.Topic)
	if err != nil {
		return kafka.Classify("list start offsets", err)
	}
	if l, ok := starts.Lookup(s.Topic, s.Partition); ok && l.Err == nil && l.Offset > s.next {
		return fmt.Errorf("%w: offset %d of %s is no longer retained: the log starts at %d now", batch.ErrDataLost, s.next, s.TopicPartition, l.Offset)
	}
	return fmt.Errorf("%w: %s does not have offset %d, which it listed: %w", batch.ErrUnavailable, s.TopicPartition, s.next, cause)
}

// take cuts a partition's bytes into batches and moves the share's position
// behind the last one.
func (r *relation) take(s *share, p *kmsg.FetchResponseTopicPartition) (fetched, error) {
	got := fetched{share: s, from: s.next}
	open := newTransactions(p.AbortedTransactions)
	for in := p.RecordBatches; len(in) > 0 && s.next < s.End; {
		b, rest, err := nextBatch(in)
		if errors.Is(err, errTruncated) {
			break
		}
		if err != nil {
			return got, fmt.Errorf("%w: %s at offset %d: %w", batch.ErrUnavailable, s.TopicPartition, s.next, err)
		}
		in = rest
		aborted, err := open.passes(b)
		if err != nil {
			return got, fmt.Errorf("%w: %s: %w", batch.ErrUnavailable, s.TopicPartition, err)
		}
		if b.last < s.next {
			continue
		}
		got.batches = append(got.batches, fetchedBatch{b, aborted && !r.Uncommitted, s.next})
		s.next = b.last + 1
	}
	return got, nil
}

// transactions follows which producers' open transactions were aborted, as the
// broker lists them beside the records (KIP-98).
type transactions struct {
	ahead []kmsg.FetchResponseTopicPartitionAbortedTransaction
	open  map[int64]bool
}

func newTransactions(aborted []kmsg.FetchResponseTopicPartitionAbortedTransaction) *transactions {
	return &transactions{ahead: aborted, open: map[int64]bool{}}
}

// passes says whether a batch belongs to an aborted transaction.
func (t *transactions) passes(b recordBatch) (bool, error) {
	rest := t.ahead[:0:0]
	for _, a := range t.ahead {
		if a.FirstOffset <= b.last {
			t.open[a.ProducerID] = true
		} else {
			rest = append(rest, a)
		}
	}
	t.ahead = rest
	if b.control() {
		if len(t.open) == 0 {
			return false, nil
		}
		abort, err := b.aborts(b.raw[batchHeader:])
		if abort {
			delete(t.open, b.producer)
		}
		return false, err
	}
	return b.transactional() && t.open[b.producer], nil
}
