package source

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/twmb/franz-go/pkg/kadm"

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
	details, err := r.ask(ctx)
	if err != nil {
		return nil, err
	}
	topics := map[string]topic{}
	for name, d := range details {
		t := topic{rawID: d.ID, leaders: map[int32]leader{}}
		if d.ID != (kadm.TopicID{}) {
			t.id = uuid.UUID(d.ID).String()
		}
		for _, p := range d.Partitions {
			t.leaders[p.Partition] = leader{p.Leader, p.LeaderEpoch}
		}
		topics[name] = t
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

// complete makes sure that an answer has all that the last one had: the answer
// of a broker that starts, or lags, is not the last word.
func (r *relation) complete(topics map[string]topic) error {
	for name, before := range r.known {
		now, ok := topics[name]
		if !ok {
			return fmt.Errorf("%w: topic %s is missing from Kafka's answer; if it was deleted, make it again or take it out of the spec", batch.ErrUnavailable, name)
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

// ask sends the request for metadata.
func (r *relation) ask(ctx context.Context) (kadm.TopicDetails, error) {
	if r.pattern != nil {
		return r.askAll(ctx)
	}
	for try := 1; ; try++ {
		details, err := r.admin.ListTopics(ctx, r.Topics...)
		if err != nil {
			return nil, kafka.Classify(ctx, "ask for topics", err)
		}
		missing, err := r.usable(ctx, details)
		if missing == "" || err != nil {
			return details, err
		}
		if try == missingTries {
			return nil, kafka.NoTopic(ctx, r.admin, r.Kafka, missing)
		}
		if err := r.clock.Sleep(ctx, missingPause); err != nil {
			return nil, err
		}
	}
}

// usable returns a topic that does not exist, and an error for one that cannot
// be used for another reason.
func (r *relation) usable(ctx context.Context, details kadm.TopicDetails) (missing string, err error) {
	for _, name := range r.Topics {
		d, ok := details[name]
		switch {
		case ok && d.Err == nil:
		case !ok || kafka.Unknown(d.Err):
			r.mu.Lock()
			_, before := r.known[name]
			r.mu.Unlock()
			if before {
				delete(details, name) // for complete to judge
				continue
			}
			missing = name
		default:
			return "", kafka.Classify(ctx, "ask for topic "+name, d.Err)
		}
	}
	return missing, nil
}

func (r *relation) askAll(ctx context.Context) (kadm.TopicDetails, error) {
	all, err := r.admin.ListTopics(ctx)
	if err != nil {
		return nil, kafka.Classify(ctx, "ask for topics", err)
	}
	maps.DeleteFunc(all, func(name string, d kadm.TopicDetail) bool {
		return d.IsInternal || d.Err != nil || !r.pattern.MatchString(name)
	})
	if len(all) == 0 {
		return nil, fmt.Errorf("%w: no topic matches topic_pattern %q; correct it, or wait until there is one", batch.ErrUnavailable, r.Pattern)
	}
	return all, nil
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
	r.stats.retries.Add(1)
	return r.clock.Sleep(ctx, min(pauseMin<<min(try-1, 10), pauseMax))
}

// again repeats f while it is unavailable, with fresh metadata, a few times: a
// leader that moved is no matter for the caller.
func (r *relation) again(ctx context.Context, tries int, f func() error) error {
	for try := 1; ; try++ {
		err := f()
		if err == nil || try == tries || !errors.Is(err, batch.ErrUnavailable) {
			return err
		}
		r.stale()
		if err := r.pause(ctx, try); err != nil {
			return err
		}
	}
}
