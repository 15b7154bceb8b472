package source

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
	"golang.org/x/sync/errgroup"

	"github.com/frazil-io/frazil/internal/batch"
	"github.com/frazil-io/frazil/internal/kafka"
)

// Kafka's names for the ends of a log, where a ListOffsets request takes a time.
const (
	atEnd   int64 = -1
	atStart int64 = -2
)

// listTries bounds the tries of one listing, which is made at each trigger.
const listTries = 4

// listed is one answer: an offset, -1 where no record is as young as the time
// asked for, and the leader's epoch.
type listed struct {
	offset int64
	epoch  int32
}

// list asks for the start and end of every partition.
func (r *relation) list(ctx context.Context, since []batch.Range) (all []batch.Available, err error) {
	err = r.again(ctx, func() error {
		all, err = r.listOnce(ctx, since)
		return err
	})
	if errors.Is(err, errNoTopic) {
		if err = r.doubt(ctx); err == nil {
			all, err = r.listOnce(ctx, since)
		}
	}
	if err == nil && since != nil {
		r.await(all, since)
	}
	return all, err
}

func (r *relation) listOnce(ctx context.Context, since []batch.Range) ([]batch.Available, error) {
	topics, err := r.metadata(ctx, topicsEvery)
	if err != nil {
		return nil, err
	}
	var starts, ends map[spot]listed
	var group errgroup.Group
	group.Go(func() (err error) { starts, err = r.offsets(ctx, topics, atStart); return err })
	group.Go(func() (err error) { ends, err = r.offsets(ctx, topics, atEnd); return err })
	if err := group.Wait(); err != nil {
		return nil, err
	}
	var all []batch.Available
	for _, p := range spots(topics) {
		tp := batch.TopicPartition{Source: r.Name, Topic: p.topic, TopicID: topics[p.topic].id, Partition: p.partition}
		start, end := starts[p], ends[p]
		// The two answers are not of one moment: retention may pass between them.
		all = append(all, batch.Available{TopicPartition: tp, Start: start.offset, End: max(start.offset, end.offset), Epoch: end.epoch})
	}
	if err := r.part(ctx, topics, since, all); err != nil {
		return nil, err
	}
	r.forget(all)
	r.probe(ctx, topics, all)
	r.estimate(all)
	return all, nil
}

// forget lets go of what was learned of partitions that are not there any more: with a
// pattern topics come and go for ever. All of it is learned again where it is needed.
func (r *relation) forget(all []batch.Available) {
	partitions, topics := map[batch.TopicPartition]bool{}, map[string]bool{}
	for _, a := range all {
		partitions[a.TopicPartition], topics[a.TopicID+a.Topic] = true, true
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	maps.DeleteFunc(r.sizes, func(tp batch.TopicPartition, _ size) bool { return !partitions[tp] })
	maps.DeleteFunc(r.sound, func(tp batch.TopicPartition, _ verdict) bool { return !partitions[tp] })
	maps.DeleteFunc(r.probed, func(id string, _ bool) bool { return !topics[id] })
	maps.DeleteFunc(r.policies, func(id string, _ policy) bool { return !topics[id] })
}

// offsets asks every leader, in one request each, where the log of each of its
// partitions starts or ends, or reaches a time in milliseconds since 1970.
func (r *relation) offsets(ctx context.Context, topics map[string]topic, at int64) (map[spot]listed, error) {
	return ofLeaders(ctx, topics, spots(topics), func(ctx context.Context, broker int32, led []spot) (map[spot]listed, error) {
		return r.ledOffsets(ctx, broker, led, topics, at)
	})
}

// ofLeaders asks every leader for those of the partitions that it leads, all leaders
// at once.
func ofLeaders[T any](ctx context.Context, topics map[string]topic, of []spot, ask func(ctx context.Context, broker int32, led []spot) (map[spot]T, error)) (map[spot]T, error) {
	led := map[int32][]spot{}
	for _, p := range of {
		l, ok := topics[p.topic].leaders[p.partition]
		if !ok || l.broker < 0 {
			return nil, fmt.Errorf("%w: partition %s/%d has no leader", batch.ErrUnavailable, p.topic, p.partition)
		}
		led[l.broker] = append(led[l.broker], p)
	}
	var mu sync.Mutex
	all := map[spot]T{}
	group, ctx := errgroup.WithContext(ctx)
	for broker, led := range led {
		group.Go(func() error {
			got, err := ask(ctx, broker, led)
			mu.Lock()
			defer mu.Unlock()
			maps.Copy(all, got)
			return err
		})
	}
	return all, group.Wait()
}

func (r *relation) ledOffsets(ctx context.Context, broker int32, led []spot, topics map[string]topic, at int64) (map[spot]listed, error) {
	req := kmsg.NewPtrListOffsetsRequest()
	req.ReplicaID = -1
	if !r.Uncommitted {
		req.IsolationLevel = 1
	}
	for _, p := range led {
		i := len(req.Topics) - 1
		if i < 0 || req.Topics[i].Topic != p.topic {
			t := kmsg.NewListOffsetsRequestTopic()
			t.Topic = p.topic
			req.Topics = append(req.Topics, t)
			i++
		}
		rp := kmsg.NewListOffsetsRequestTopicPartition()
		rp.Partition, rp.Timestamp = p.partition, at
		rp.CurrentLeaderEpoch = topics[p.topic].leaders[p.partition].epoch
		req.Topics[i].Partitions = append(req.Topics[i].Partitions, rp)
	}
	resp, err := req.RequestWith(ctx, r.client.Broker(int(broker)))
	if err != nil {
		return nil, kafka.Classify(ctx, fmt.Sprintf("list offsets of broker %d", broker), err)
	}
	got := map[spot]listed{}
	for _, t := range resp.Topics {
		for _, p := range t.Partitions {
			if err := kerr.ErrorForCode(p.ErrorCode); err != nil {
				return nil, kafka.Classify(ctx, fmt.Sprintf("list offsets of %s/%d", t.Topic, p.Partition), err)
			}
			got[spot{t.Topic, p.Partition}] = listed{p.Offset, p.LeaderEpoch}
		}
	}
	for _, p := range led {
		if _, ok := got[p]; !ok {
			return nil, fmt.Errorf("%w: partition %s/%d is missing from Kafka's answer", batch.ErrUnavailable, p.topic, p.partition)
		}
	}
	return got, nil
}

// resolve adds the source's starts.
func (r *relation) resolve(ctx context.Context, starts batch.Offsets) error {
	available, err := r.list(ctx, nil)
	if err != nil {
		return err
	}
	if err := r.names(available); err != nil {
		return err
	}
	var young map[spot]listed
	if at := r.Start.Time; !at.IsZero() {
		err := r.again(ctx, func() error {
			topics, err := r.metadata(ctx, topicsEvery)
			if err == nil {
				young, err = r.offsets(ctx, topics, at.UnixMilli())
			}
			return err
		})
		if err != nil {
			return err
		}
	}
	for _, a := range available {
		start, err := r.Start.of(a, young)
		if err != nil {
			return err
		}
		starts[a.TopicPartition] = start
	}
	return nil
}

// names makes sure that every partition which Start.Offsets names is there, unless
// its topic is one that was deleted.
func (r *relation) names(available []batch.Available) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	there, topics := map[spot]bool{}, map[string]bool{}
	for _, a := range available {
		there[spot{a.Topic, a.Partition}], topics[a.Topic] = true, true
	}
	for topic, partitions := range r.Start.Offsets {
		if !topics[topic] && (r.doubted[topic] || r.begun) {
			continue
		}
		for number := range partitions {
			if !there[spot{topic, number}] {
				return fmt.Errorf("%w: start names partition %s/%d, which is not there; correct it or take it out", batch.ErrInvalid, topic, number)
			}
		}
	}
	return nil
}

// of returns the start of one partition.
func (s Start) of(a batch.Available, young map[spot]listed) (int64, error) {
	if s.Latest {
		return a.End, nil
	}
	if !s.Time.IsZero() {
		l, ok := young[spot{a.Topic, a.Partition}]
		if !ok || l.offset < 0 {
			return a.End, nil // all records are older
		}
		return min(max(l.offset, a.Start), a.End), nil
	}
	want, ok := s.Offsets[a.Topic][a.Partition]
	if !ok {
		return a.Start, nil
	}
	if want < a.Start || want > a.End {
		return 0, fmt.Errorf("%w: start offset %d of %s is outside of what Kafka has, which is %d to %d; correct it",
			batch.ErrInvalid, want, a.TopicPartition, a.Start, a.End)
	}
	return want, nil
}
