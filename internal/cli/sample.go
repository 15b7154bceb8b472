package cli

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/frazil-io/frazil/internal/batch"
	"github.com/frazil-io/frazil/internal/kafka"
)

// How much init looks at: this many of the oldest and of the newest records of
// each partition, and no more bytes than fit easily.
const (
	sampleEach  = 250
	sampleBytes = 64 << 20
)

// sampleWait is how long a partition may give nothing before it is left: its last
// offsets may be markers of transactions, which nobody sees.
const sampleWait = 2 * time.Second

// sampled are the values of some records of a topic.
type sampled struct {
	values     [][]byte
	tombstones int
	bytes      int
}

// takeSample reads the ends of each partition of a topic.
func takeSample(ctx context.Context, o kafka.Options, topic string) (*sampled, error) {
	if err := kafka.Check(ctx, o, []string{topic}); err != nil {
		return nil, err
	}
	plain, err := kafka.NewClient(o)
	if err != nil {
		return nil, err
	}
	defer plain.Close()
	admin := kadm.NewClient(plain)
	starts, err := admin.ListStartOffsets(ctx, topic)
	if err != nil {
		return nil, kafka.Classify(ctx, "list offsets", err)
	}
	ends, err := admin.ListCommittedOffsets(ctx, topic)
	if err != nil {
		return nil, kafka.Classify(ctx, "list offsets", err)
	}
	oldest, newest := map[int32]part{}, map[int32]part{}
	ends.Each(func(l kadm.ListedOffset) {
		first, _ := starts.Lookup(topic, l.Partition)
		split := max(first.Offset, l.Offset-sampleEach)
		if first.Offset < split {
			oldest[l.Partition] = part{first.Offset, min(split, first.Offset+sampleEach)}
		}
		if split < l.Offset {
			newest[l.Partition] = part{split, l.Offset}
		}
	})
	s := &sampled{}
	if len(newest) == 0 {
		return nil, fmt.Errorf("%w: topic %q holds no records to learn columns from; produce some first", batch.ErrInvalid, topic)
	}
	for _, parts := range []map[int32]part{newest, oldest} {
		if err := s.read(ctx, o, topic, parts); err != nil {
			return nil, err
		}
	}
	if len(s.values)+s.tombstones == 0 {
		return nil, fmt.Errorf("%w: the ends of topic %q hold no records that can be seen, only aborted ones or markers; produce some first", batch.ErrInvalid, topic)
	}
	return s, nil
}

// part is a range of offsets of one partition.
type part struct{ start, end int64 }

func (s *sampled) read(ctx context.Context, o kafka.Options, topic string, parts map[int32]part) error {
	if len(parts) == 0 {
		return nil
	}
	from := map[int32]kgo.Offset{}
	for partition, p := range parts {
		from[partition] = kgo.NewOffset().At(p.start)
	}
	reader, err := kafka.NewClient(o, kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: from}),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.KeepControlRecords())
	if err != nil {
		return err
	}
	defer reader.Close()
	for len(parts) > 0 && s.bytes < sampleBytes {
		waiting, cancel := context.WithTimeout(ctx, sampleWait)
		fetches := reader.PollFetches(waiting)
		cancel()
		if err := ctx.Err(); err != nil {
			return err
		}
		for _, e := range fetches.Errors() {
			if !errors.Is(e.Err, context.DeadlineExceeded) {
				return kafka.Classify(ctx, fmt.Sprintf("read %s/%d", topic, e.Partition), e.Err)
			}
		}
		if fetches.NumRecords() == 0 {
			return nil
		}
		fetches.EachRecord(func(r *kgo.Record) {
			p, wanted := parts[r.Partition]
			if wanted && r.Offset < p.end && !r.Attrs.IsControl() {
				s.add(r.Value)
			}
			if r.Offset+1 >= p.end {
				delete(parts, r.Partition)
			}
		})
	}
	return nil
}

func (s *sampled) add(value []byte) {
	if value == nil {
		s.tombstones++
		return
	}
	if s.bytes < sampleBytes {
		s.bytes += len(value)
		s.values = append(s.values, value)
	}
}
