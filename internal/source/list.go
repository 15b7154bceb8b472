package source

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/frazil-io/frazil/internal/batch"
	"github.com/frazil-io/frazil/internal/kafka"
)

// topicsEvery is how often metadata is asked for new topics and partitions
// while nothing else makes it stale.
const topicsEvery = 5 * time.Second

// metadata returns the topics of the source, asked at most topicsEvery ago.
func (r *relation) metadata(ctx context.Context, now time.Time) (map[string]topic, error) {
	r.mu.Lock()
	topics, fresh := r.topics, now.Sub(r.asked) < topicsEvery
	r.mu.Unlock()
	if topics != nil && fresh {
		return topics, nil
	}
	details, err := r.ask(ctx)
	if err != nil {
		return nil, err
	}
	topics = map[string]topic{}
	for _, d := range details.Sorted() {
		t := topic{rawID: d.ID, partitions: map[int32]leader{}}
		if d.ID != (kadm.TopicID{}) {
			t.id = uuid.UUID(d.ID).String()
		}
		for _, p := range d.Partitions.Sorted() {
			t.partitions[p.Partition] = leader{p.Leader, p.LeaderEpoch}
		}
		topics[d.Topic] = t
	}
	r.mu.Lock()
	r.topics, r.asked = topics, now
	r.mu.Unlock()
	return topics, nil
}

// stale makes the next request ask for leaders again.
func (r *relation) stale() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.topics = nil
}

func (r *relation) ask(ctx context.Context) (kadm.TopicDetails, error) {
	if r.pattern == nil {
		details, err := r.admin.ListTopics(ctx, r.Topics...)
		if err != nil {
			return nil, kafka.Classify("ask for topics", err)
		}
		for _, name := range r.Topics {
			if d, ok := details[name]; !ok || d.Err != nil {
				return nil, r.noTopic(ctx, name, d.Err)
			}
		}
		return details, nil
	}
	all, err := r.admin.ListTopics(ctx)
	if err != nil {
		return nil, kafka.Classify("ask for topics", err)
	}
	maps.DeleteFunc(all, func(name string, d kadm.TopicDetail) bool {
		return d.IsInternal || d.Err != nil || !r.pattern.MatchString(name)
	})
	if len(all) == 0 {
		return nil, fmt.Errorf("%w: no topic matches topic_pattern %q yet", batch.ErrUnavailable, r.Pattern)
	}
	return all, nil
}

// noTopic says that a topic is missing. One that was there before may come
// back: the answer of a broker that starts is not the last word.
func (r *relation) noTopic(ctx context.Context, name string, cause error) error {
	r.mu.Lock()
	known := !r.asked.IsZero()
	r.mu.Unlock()
	if known {
		return fmt.Errorf("%w: topic %s is missing from Kafka's answer: %w", batch.ErrUnavailable, name, cause)
	}
	if err := kafka.Classify("topic "+name, cause); cause != nil && !isUnknownTopic(cause) {
		return err
	}
	hint := "create it, or check the name"
	if all, err := r.admin.ListTopics(ctx); err == nil {
		for _, other := range all.Names() {
			if strings.EqualFold(other, name) || strings.Contains(other, name) || strings.Contains(name, other) {
				hint = fmt.Sprintf("did you mean %q?", other)
				break
			}
		}
	}
	return fmt.Errorf("%w: topic %q does not exist on %s; %s", batch.ErrInvalid, name, strings.Join(r.Kafka.Brokers, ", "), hint)
}

// list asks for the start and end of every partition.
func (r *relation) list(ctx context.Context, now time.Time) ([]batch.Available, error) {
	topics, err := r.metadata(ctx, now)
	if err != nil {
		return nil, err
	}
	names := slices.Sorted(maps.Keys(topics))
	starts, err := r.admin.ListStartOffsets(ctx, names...)
	if err != nil {
		return nil, kafka.Classify("list start offsets", err)
	}
	ends, err := r.listEnds(ctx, names)
	if err != nil {
		return nil, kafka.Classify("list end offsets", err)
	}
	var all []batch.Available
	for _, name := range names {
		for _, number := range slices.Sorted(maps.Keys(topics[name].partitions)) {
			start, ok1 := starts.Lookup(name, number)
			end, ok2 := ends.Lookup(name, number)
			if err := listed(name, number, start, end, ok1 && ok2); err != nil {
				r.stale()
				return nil, err
			}
			tp := batch.TopicPartition{Source: r.Name, Topic: name, TopicID: topics[name].id, Partition: number}
			all = append(all, batch.Available{TopicPartition: tp, Start: start.Offset, End: end.Offset, Epoch: end.LeaderEpoch, Bytes: r.perOffset(tp)})
		}
	}
	return all, nil
}

func listed(name string, number int32, start, end kadm.ListedOffset, ok bool) error {
	for _, err := range []error{start.Err, end.Err} {
		if err != nil {
			return kafka.Classify(fmt.Sprintf("list offsets of %s/%d", name, number), err)
		}
	}
	if !ok {
		return fmt.Errorf("%w: partition %s/%d is missing from Kafka's answer", batch.ErrUnavailable, name, number)
	}
	return nil
}

func (r *relation) listEnds(ctx context.Context, names []string) (kadm.ListedOffsets, error) {
	if r.Uncommitted {
		return r.admin.ListEndOffsets(ctx, names...)
	}
	return r.admin.ListCommittedOffsets(ctx, names...)
}

// resolve adds the source's starts.
func (r *relation) resolve(ctx context.Context, starts batch.Offsets, now time.Time) error {
	available, err := r.list(ctx, now)
	if err != nil {
		return err
	}
	var at kadm.ListedOffsets
	if !r.Options.Start.Time.IsZero() {
		names := map[string]bool{}
		for _, a := range available {
			names[a.Topic] = true
		}
		if at, err = r.admin.ListOffsetsAfterMilli(ctx, r.Options.Start.Time.UnixMilli(), slices.Sorted(maps.Keys(names))...); err != nil {
			return kafka.Classify("list offsets by time", err)
		}
	}
	for _, a := range available {
		start := a.Start
		switch o := r.Options.Start; {
		case o.Latest:
			start = a.End
		case at != nil:
			l, ok := at.Lookup(a.Topic, a.Partition)
			if err := listed(a.Topic, a.Partition, l, l, ok); err != nil {
				return err
			}
			start = min(max(l.Offset, a.Start), a.End)
		case o.Offsets != nil:
			if want, ok := o.Offsets[a.Topic][a.Partition]; ok {
				if want < a.Start || want > a.End {
					return fmt.Errorf("%w: start offset %d of %s is outside of what Kafka has, [%d,%d)", batch.ErrInvalid, want, a.TopicPartition, a.Start, a.End)
				}
				start = want
			}
		}
		starts[a.TopicPartition] = start
	}
	return nil
}

// densityDecay is how much of the past counts after another fetch.
const densityDecay = 0.9

// learn notes the size of what was fetched of a partition.
func (r *relation) learn(tp batch.TopicPartition, bytes, offsets int64) {
	if offsets <= 0 {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	d := r.density[tp]
	r.density[tp] = density{d.bytes*densityDecay + float64(bytes), d.offsets*densityDecay + float64(offsets)}
}

func (r *relation) perOffset(tp batch.TopicPartition) float64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	if d := r.density[tp]; d.offsets > 0 {
		return d.bytes / d.offsets
	}
	return 0
}

func isUnknownTopic(err error) bool {
	return errors.Is(err, kerr.UnknownTopicOrPartition) || errors.Is(err, kerr.UnknownTopicID)
}
