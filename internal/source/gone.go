package source

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/frazil-io/frazil/internal/batch"
	"github.com/frazil-io/frazil/internal/kafka"
)

// confirmAfter is how far apart two answers must be before records count as
// lost: one answer can be stale.
const confirmAfter = 10 * time.Second

// remade makes sure that a topic was deleted and made again: a broker may still
// have an old answer.
func (f *fetcher) remade(ctx context.Context, s *share) error {
	f.stale()
	if err := f.clock.Sleep(ctx, confirmAfter); err != nil {
		return err
	}
	topics, err := f.metadata(ctx, 0)
	if err != nil {
		return err
	}
	if topics[s.Topic].id == s.TopicID {
		return fmt.Errorf("%w: brokers do not agree on the id of topic %s", batch.ErrUnavailable, s.Topic)
	}
	return fmt.Errorf("%w: topic %s was deleted, and may have been made again: records from offset %d of partition %d on are gone; "+
		"with on_data_loss: record in source %s frazil notes the gap and goes on", batch.ErrDataLost, s.Topic, s.next, s.Partition, s.Source)
}

// judge says what an error of one partition means. A position out of range is
// never moved: it is lost if the log begins behind it, or if it stays shorter.
func (f *fetcher) judge(ctx context.Context, s *share, cause error) error {
	if !errors.Is(cause, kerr.OffsetOutOfRange) {
		return kafka.Classify(ctx, "fetch "+s.TopicPartition.String(), cause)
	}
	topics, err := f.metadata(ctx, 0)
	if err != nil {
		return err
	}
	one := map[string]topic{s.Topic: {
		id: topics[s.Topic].id, leaders: map[int32]leader{s.Partition: topics[s.Topic].leaders[s.Partition]},
	}}
	if one[s.Topic].id != s.TopicID {
		return f.remade(ctx, s)
	}
	here := spot{s.Topic, s.Partition}
	starts, err := f.offsets(ctx, one, atStart)
	if err != nil {
		return err
	}
	if start := starts[here].offset; start > s.next {
		return fmt.Errorf("%w: offset %d of %s is no longer retained: the log starts at %d now", batch.ErrDataLost, s.next, s.TopicPartition, start)
	}
	ends, err := f.offsets(ctx, one, atEnd)
	if err != nil {
		return err
	}
	if end := ends[here].offset; end < s.next {
		return f.cut(s, end)
	}
	return fmt.Errorf("fetch %s at offset %d: %w: %w", s.TopicPartition, s.next, batch.ErrUnavailable, cause)
}

// cut says that a log ends before what it listed. A leader that has just been
// elected may say so for a moment; one that still does later has lost records.
func (f *fetcher) cut(s *share, end int64) error {
	now := f.clock.Now()
	if s.short.IsZero() {
		s.short = now
	}
	kind := batch.ErrUnavailable
	if now.Sub(s.short) >= confirmAfter {
		kind = batch.ErrDataLost
	}
	return fmt.Errorf("%w: %s ends at offset %d, but had listed %d: its log was cut, as an unclean leader election does", kind, s.TopicPartition, end, s.End)
}

// settle asks for each share alone, after a round in which nothing came. A
// broker that then sends nothing, though it may serve what lies behind the end
// of the range, says that nothing is left in the range: compaction removed it.
func (f *fetcher) settle(ctx context.Context, open []*share) error {
	topics, err := f.metadata(ctx, anyAge)
	if err != nil {
		return err
	}
	size := fetchSize{0, min(requestBytes, f.gate.size), partitionBytes}
	for _, s := range open {
		if s.next >= s.End {
			continue
		}
		if err := f.settleOne(ctx, s, topics, size); err != nil {
			return err
		}
	}
	if missing(open) > 0 {
		return fmt.Errorf("%w: %s does not serve offset %d, which it listed", batch.ErrUnavailable, open[0].TopicPartition, open[0].next)
	}
	return nil
}

func (f *fetcher) settleOne(ctx context.Context, s *share, topics map[string]topic, size fetchSize) error {
	l := topics[s.Topic].leaders[s.Partition]
	resp, err := f.request(ctx, l.broker, []*share{s}, topics, size)
	if err != nil {
		return err
	}
	for _, t := range resp.Topics {
		for i := range t.Partitions {
			p := &t.Partitions[i]
			if findShare([]*share{s}, topics, t, p.Partition) == nil {
				continue
			}
			piece, err := f.answer(ctx, s, p, l.epoch)
			if err != nil {
				return err
			}
			end := p.LastStableOffset
			if f.Uncommitted {
				end = p.HighWatermark
			}
			switch {
			case len(p.RecordBatches) > 0:
				if err := f.send(ctx, piece); err != nil {
					return err
				}
			case resp.ThrottleMillis > 0: // the quota withheld them
			case end >= s.End:
				s.next = s.End
			default:
				return f.cut(s, end)
			}
		}
	}
	return nil
}
