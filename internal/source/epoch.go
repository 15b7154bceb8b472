package source

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/frazil-io/frazil/internal/batch"
	"github.com/frazil-io/frazil/internal/kafka"
)

// An unclean election makes a replica the leader that lacks records which were
// served before. It soon has others at their offsets, so the end of the log does
// not show it. The leader knows where each epoch ended (KIP-101, KIP-320): if that
// is before an offset that was listed under the epoch, the log is another one.

// part lowers the end of partitions whose log parted from what was planned.
func (r *relation) part(ctx context.Context, topics map[string]topic, since []batch.Range, all []batch.Available) error {
	planned := map[batch.TopicPartition]batch.Range{}
	for _, rg := range since {
		if rg.Source == r.Name && rg.Epoch >= 0 {
			planned[rg.TopicPartition] = rg
		}
	}
	asked := map[spot]int32{}
	for _, a := range all {
		if rg, ok := planned[a.TopicPartition]; ok && a.Epoch > rg.Epoch && a.Start < rg.End && !r.isSound(rg, a.Epoch) {
			asked[spot{a.Topic, a.Partition}] = rg.Epoch
		}
	}
	if len(asked) == 0 {
		return nil
	}
	ends, err := r.epochEnds(ctx, topics, asked)
	if err != nil {
		return err
	}
	for i, a := range all {
		end, ok := ends[spot{a.Topic, a.Partition}]
		rg := planned[a.TopicPartition]
		switch {
		case !ok:
		case end >= 0 && end < rg.End && end >= a.Start:
			all[i].End = min(a.End, end)
			r.log.Warn("the log was replaced by another one, as an unclean leader election does", "topic", a.Topic, "partition", a.Partition,
				"parted_at", end, "listed", rg.End, "epoch", rg.Epoch, "epoch_now", a.Epoch)
		default:
			r.noteSound(rg, a.Epoch)
		}
	}
	return nil
}

// verdict is that what a range holds was found in the log of a later epoch.
type verdict struct {
	end        int64
	was, epoch int32
}

func (r *relation) isSound(rg batch.Range, epoch int32) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.sound[rg.TopicPartition] == verdict{rg.End, rg.Epoch, epoch}
}

func (r *relation) noteSound(rg batch.Range, epoch int32) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.sound[rg.TopicPartition] = verdict{rg.End, rg.Epoch, epoch}
}

// verify makes sure, before shares are fetched from the leaders of now, that they
// have what the plan's leaders listed.
func (f *fetcher) verify(ctx context.Context, open []*share, topics map[string]topic) error {
	asked := map[spot]int32{}
	for _, s := range open {
		l := topics[s.Topic].leaders[s.Partition]
		if l.broker >= 0 && s.Epoch >= 0 && l.epoch > s.Epoch && !f.isSound(s.Range, l.epoch) {
			asked[spot{s.Topic, s.Partition}] = s.Epoch
		}
	}
	if len(asked) == 0 {
		return nil
	}
	ends, err := f.epochEnds(ctx, topics, asked)
	if err != nil {
		return err
	}
	for _, s := range open {
		end, ok := ends[spot{s.Topic, s.Partition}]
		switch {
		case !ok:
		case end >= 0 && end < s.End && end >= s.next:
			return f.cut(s, end)
		default:
			f.noteSound(s.Range, topics[s.Topic].leaders[s.Partition].epoch)
		}
	}
	return nil
}

// epochEnds asks the leaders of partitions where an epoch ended; -1 where they do
// not know.
func (r *relation) epochEnds(ctx context.Context, topics map[string]topic, asked map[spot]int32) (map[spot]int64, error) {
	ends, err := ofLeaders(ctx, topics, slices.Collect(maps.Keys(asked)), func(ctx context.Context, broker int32, led []spot) (map[spot]int64, error) {
		return r.ledEpochEnds(ctx, broker, led, topics, asked)
	})
	if err != nil && !r.knowEpochs(ctx) {
		r.log.Warn("brokers do not tell where an epoch ended, so an unclean election may go unseen", "error", err)
		return map[spot]int64{}, nil
	}
	return ends, err
}

// knowEpochs says whether all brokers know the request: services that speak
// Kafka's protocol may lack it, and the client's error for that has no name.
func (r *relation) knowEpochs(ctx context.Context) bool {
	all, err := r.admin.ApiVersions(ctx)
	if err != nil {
		return true
	}
	for _, broker := range all {
		if most, ok := broker.KeyMaxVersion(kmsg.OffsetForLeaderEpoch.Int16()); (!ok || most < 0) && broker.Err == nil {
			return false
		}
	}
	return true
}

func (r *relation) ledEpochEnds(ctx context.Context, broker int32, led []spot, topics map[string]topic, asked map[spot]int32) (map[spot]int64, error) {
	req := kmsg.NewPtrOffsetForLeaderEpochRequest()
	req.ReplicaID = -1
	for _, p := range led {
		t := kmsg.NewOffsetForLeaderEpochRequestTopic()
		t.Topic = p.topic
		rp := kmsg.NewOffsetForLeaderEpochRequestTopicPartition()
		rp.Partition, rp.LeaderEpoch, rp.CurrentLeaderEpoch = p.partition, asked[p], topics[p.topic].leaders[p.partition].epoch
		t.Partitions = append(t.Partitions, rp)
		req.Topics = append(req.Topics, t)
	}
	doing := fmt.Sprintf("ask broker %d where an epoch ended", broker)
	resp, err := req.RequestWith(ctx, r.client.Broker(int(broker)))
	if err != nil {
		return nil, kafka.Classify(ctx, doing, err)
	}
	got := map[spot]int64{}
	for _, t := range resp.Topics {
		for _, p := range t.Partitions {
			if err := kerr.ErrorForCode(p.ErrorCode); err != nil {
				return nil, kafka.Classify(ctx, doing+" of "+t.Topic, err)
			}
			got[spot{t.Topic, p.Partition}] = p.EndOffset
		}
	}
	return got, nil
}
