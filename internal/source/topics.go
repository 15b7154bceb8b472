package source

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/frazil-io/frazil/internal/batch"
	"github.com/frazil-io/frazil/internal/kafka"
)

// topicsEvery is how old metadata may be in a listing. It bounds how long new
// topics and partitions go unseen, and costs one small request.
const topicsEvery = time.Second

// anyAge is for reading: where metadata is too old, a broker says so.
const anyAge = time.Duration(1<<63 - 1)

// A topic that cannot be found is asked for again before it is an error of the
// spec: one that was just made is not known to every broker at once.
const (
	missingTries = 3
	missingPause = 250 * time.Millisecond
)

// view is one answer for metadata.
type view struct {
	topics map[string]topic
	asked  time.Time
}

// topic is what metadata says of one.
type topic struct {
	id      string // as in batch.TopicPartition
	rawID   [16]byte
	leaders map[int32]leader
}

// leader of a partition; broker is -1 where there is none now.
type leader struct{ broker, epoch int32 }

// metadata returns the topics of the source, asked at most age ago.
func (r *relation) metadata(ctx context.Context, age time.Duration) (map[string]topic, error) {
	r.mu.Lock()
	v := r.view
	r.mu.Unlock()
	if v != nil && r.clock.Now().Sub(v.asked) < age {
		return v.topics, nil
	}
	asked := r.clock.Now()
	topics, err := r.ask(ctx)
	if err != nil {
		return nil, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.complete(topics); err != nil {
		return nil, err
	}
	r.known = topics
	r.view = &view{topics, asked}
	return topics, nil
}

// stale makes the next request ask for leaders again.
func (r *relation) stale() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.view = nil
}

// errNoTopic says that a topic is missing that was there before.
var errNoTopic = errors.New("if it was deleted, make it again or take it out of the spec")

// complete makes sure that an answer has all that the last one had: the answer
// of a broker that starts, or lags, is not the last word.
func (r *relation) complete(topics map[string]topic) error {
	for name, before := range r.known {
		now, ok := topics[name]
		if !ok {
			return fmt.Errorf("%w: topic %s is missing from Kafka's answer; %w", batch.ErrUnavailable, name, errNoTopic)
		}
		if now.id != before.id {
			continue // made again: other partitions
		}
		for number := range before.leaders {
			if _, ok := now.leaders[number]; !ok {
				return fmt.Errorf("%w: partition %s/%d is missing from Kafka's answer", batch.ErrUnavailable, name, number)
			}
		}
	}
	return nil
}

// expect lets answers lack topics that the pipeline has begun to read: it may
// have stood still when they were deleted.
func (r *relation) expect(begun []batch.TopicPartition) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, tp := range begun {
		if tp.Source == r.Name {
			r.doubted[tp.Topic] = true
		}
	}
	r.begun = r.begun || r.RecordLoss
}

func partitionsOf(ranges []batch.Range) []batch.TopicPartition {
	all := make([]batch.TopicPartition, 0, len(ranges))
	for _, rg := range ranges {
		all = append(all, rg.TopicPartition)
	}
	return all
}

// await says once which topics of the spec are away without a gap to come: of
// what was planned the planner says it.
func (r *relation) await(available []batch.Available, since []batch.Range) {
	there := map[string]bool{}
	for _, a := range available {
		there[a.Topic] = true
	}
	for _, rg := range since {
		there[rg.Topic] = there[rg.Topic] || rg.Source == r.Name
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, name := range r.Topics {
		if !there[name] && !r.awaited[name] {
			r.log.Warn("this topic of the spec does not exist; once it is made it is read from its beginning", "topic", name)
		}
		r.awaited[name] = !there[name]
	}
}

// doubt lets the next answer lack the topics that the last one lacked. Whether
// they were deleted the caller judges, who knows since when they are missing.
func (r *relation) doubt(ctx context.Context) error {
	topics, err := r.ask(ctx)
	if err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for name := range r.known {
		if _, ok := topics[name]; !ok {
			delete(r.known, name)
			r.doubted[name] = true
		}
	}
	return nil
}

// ask asks for the topics of the source.
func (r *relation) ask(ctx context.Context) (map[string]topic, error) {
	for try := 1; ; try++ {
		all, err := r.described(ctx)
		if err != nil {
			return nil, err
		}
		if r.pattern != nil {
			return r.matching(all)
		}
		topics, missing, err := r.named(ctx, all)
		if err != nil || missing == "" {
			return topics, err
		}
		if try == missingTries {
			return nil, kafka.NoTopic(ctx, r.client, r.Kafka, missing)
		}
		if err := r.clock.Sleep(ctx, missingPause); err != nil {
			return nil, err
		}
	}
}

// described sends the request for metadata. It does not go through kadm, which
// may answer from memory.
func (r *relation) described(ctx context.Context) ([]kmsg.MetadataResponseTopic, error) {
	req := kmsg.NewPtrMetadataRequest()
	req.AllowAutoTopicCreation = false
	for _, name := range r.Topics { // none: all of them
		t := kmsg.NewMetadataRequestTopic()
		t.Topic = &name
		req.Topics = append(req.Topics, t)
	}
	resp, err := req.RequestWith(ctx, r.client)
	if err != nil {
		return nil, kafka.Classify(ctx, "ask for topics", err)
	}
	return slices.DeleteFunc(resp.Topics, func(t kmsg.MetadataResponseTopic) bool { return t.Topic == nil }), nil
}

func newTopic(d kmsg.MetadataResponseTopic) topic {
	t := topic{rawID: d.TopicID, leaders: map[int32]leader{}}
	if d.TopicID != [16]byte{} {
		t.id = uuid.UUID(d.TopicID).String()
	}
	for _, p := range d.Partitions {
		t.leaders[p.Partition] = leader{p.Leader, p.LeaderEpoch}
	}
	return t
}

// named returns the topics that the spec names, or the name of one that does not
// exist and never did. One that was there before is for complete to judge, or for
// the planner.
func (r *relation) named(ctx context.Context, all []kmsg.MetadataResponseTopic) (topics map[string]topic, missing string, err error) {
	topics = map[string]topic{}
	for _, d := range all {
		err := kerr.ErrorForCode(d.ErrorCode)
		if err == nil {
			topics[*d.Topic] = newTopic(d)
		} else if !kafka.Unknown(err) {
			return nil, "", kafka.Classify(ctx, fmt.Sprintf("ask for topic %q", *d.Topic), err)
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, name := range r.Topics {
		_, now := topics[name]
		_, before := r.known[name]
		if !now && !before && !r.doubted[name] && !r.begun {
			return nil, name, nil
		}
	}
	return topics, "", nil
}

// matching returns the topics that the pattern matches.
func (r *relation) matching(all []kmsg.MetadataResponseTopic) (map[string]topic, error) {
	topics := map[string]topic{}
	for _, d := range all {
		if !d.IsInternal && d.ErrorCode == 0 && r.pattern.MatchString(*d.Topic) {
			topics[*d.Topic] = newTopic(d)
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(topics) == 0 && len(r.known) == 0 && len(r.doubted) == 0 && !r.begun {
		return nil, fmt.Errorf("%w: no topic matches topic_pattern %q; correct it, or wait until there is one", batch.ErrUnavailable, r.Pattern)
	}
	return topics, nil
}

// spot is a partition of this source's topics, as metadata has them now.
type spot struct {
	topic     string
	partition int32
}

// spots returns all partitions in order.
func spots(topics map[string]topic) []spot {
	var all []spot
	for _, name := range slices.Sorted(maps.Keys(topics)) {
		for _, number := range slices.Sorted(maps.Keys(topics[name].leaders)) {
			all = append(all, spot{name, number})
		}
	}
	return all
}

// Waits between tries grow to pauseMax. With triesMax, an operation is given up
// after 15 s, and its caller looks again whether it still wants it.
const (
	pauseMin = 50 * time.Millisecond
	pauseMax = 2 * time.Second
	triesMax = 12
)

// pause waits before the next try; the first one has number 1.
func (r *relation) pause(ctx context.Context, try int) error {
	return r.clock.Sleep(ctx, min(pauseMin<<min(try-1, 10), pauseMax))
}

// again repeats f while it is unavailable, with fresh metadata, a few times: a
// leader that moved is no matter for the caller.
func (r *relation) again(ctx context.Context, f func() error) error {
	for try := 1; ; try++ {
		err := f()
		if err == nil || try == listTries || !errors.Is(err, batch.ErrUnavailable) {
			return err
		}
		r.stale()
		r.stats.retries.Add(1)
		if err := r.pause(ctx, try); err != nil {
			return err
		}
	}
}
