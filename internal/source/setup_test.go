package source

import (
	"context"
	"fmt"
	"log/slog"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/frazil-io/frazil/internal/batch"
	"github.com/frazil-io/frazil/internal/kafka"
	"github.com/frazil-io/frazil/internal/source/decode"
)

const topicName = "clicks"

func cluster(t testing.TB, partitions int32, opts ...kfake.Opt) *kfake.Cluster {
	t.Helper()
	c, err := kfake.NewCluster(append([]kfake.Opt{
		kfake.NumBrokers(2), kfake.SeedTopics(partitions, topicName),
		kfake.BrokerConfigs(map[string]string{"group.initial.rebalance.delay.ms": "0", "message.max.bytes": "67108864"}),
	}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// client produces with batches of any size.
func client(t testing.TB, c *kfake.Cluster, opts ...kgo.Opt) *kgo.Client {
	t.Helper()
	cl, err := kgo.NewClient(append([]kgo.Opt{
		kgo.SeedBrokers(c.ListenAddrs()...), kgo.DefaultProduceTopic(topicName), kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.ProducerBatchMaxBytes(64 << 20), kgo.ProducerLinger(0), kgo.ProducerBatchCompression(kgo.NoCompression()),
	}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cl.Close)
	return cl
}

// clock is time that passes only where somebody sleeps, and then at once.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func newClock() *clock { return &clock{now: time.Unix(1_700_000_000, 0)} }

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) Sleep(ctx context.Context, d time.Duration) error {
	runtime.Gosched()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
	return context.Cause(ctx)
}

// opened is a Source and its clock.
type opened struct {
	*Source
	clock *clock
}

// options reads topicName as JSON with one column, id.
func options(t testing.TB, c *kfake.Cluster) Options {
	t.Helper()
	fields, err := decode.ParseColumns("id BIGINT")
	if err != nil {
		t.Fatal(err)
	}
	return Options{
		Name: "clicks", Kafka: kafka.Options{Brokers: c.ListenAddrs()}, Topics: []string{topicName},
		Decoder: func() (decode.Decoder, error) { return decode.New("json", fields, decode.Options{}) },
	}
}

func open(t testing.TB, c *kfake.Cluster, change func(*Options)) opened {
	t.Helper()
	return openWith(t, c, change, Limits{}, slog.New(slog.DiscardHandler), nil)
}

func openWith(t testing.TB, c *kfake.Cluster, change func(*Options), limits Limits, log *slog.Logger, onSkip func(batch.Reject)) opened {
	t.Helper()
	o := options(t, c)
	if change != nil {
		change(&o)
	}
	clock := newClock()
	s, err := New([]Options{o}, limits, clock, log, onSkip)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return opened{s, clock}
}

// reading collects ids, and where they came from. It fails where one comes twice
// or from outside of its range.
type reading struct {
	mu  sync.Mutex
	ids map[int64]string
}

func newReading() *reading { return &reading{ids: map[int64]string{}} }

func (r *reading) emit(ranges []batch.Range) func(arrow.RecordBatch) error {
	return func(rows arrow.RecordBatch) error {
		r.mu.Lock()
		defer r.mu.Unlock()
		n := int(rows.NumCols())
		if rows.NumRows() == 0 || rows.ColumnName(n-2) != batch.RangeColumn || rows.ColumnName(n-1) != batch.OffsetColumn {
			return fmt.Errorf("unexpected rows %v", rows)
		}
		for i := range int(rows.NumRows()) {
			id := rows.Column(0).(*array.Int64).Value(i)
			rg := ranges[rows.Column(n-2).(*array.Int32).Value(i)]
			at := rows.Column(n - 1).(*array.Int64).Value(i)
			if was, ok := r.ids[id]; ok {
				return fmt.Errorf("id %d was read twice, at %s and %s@%d", id, was, rg.TopicPartition, at)
			}
			if at < rg.First() || at >= rg.End {
				return fmt.Errorf("offset %d is outside of %s", at, rg)
			}
			r.ids[id] = fmt.Sprintf("%s@%d", rg.TopicPartition, at)
		}
		return nil
	}
}

// discard takes rows and forgets them.
func discard(arrow.RecordBatch) error { return nil }

func balanced(t testing.TB, tally batch.Tally) {
	t.Helper()
	if !tally.Balanced() {
		t.Fatalf("the tally does not add up: %+v", tally)
	}
}

// read reads ranges that must succeed.
func read(t testing.TB, s opened, ranges []batch.Range, got *reading) batch.Tally {
	t.Helper()
	tally, err := s.Read(t.Context(), ranges, got.emit(ranges), nil)
	if err != nil {
		t.Fatal(err)
	}
	balanced(t, tally)
	return tally
}

// all returns a range for everything that is listed.
func all(t testing.TB, s opened) []batch.Range {
	t.Helper()
	available, err := s.List(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	var ranges []batch.Range
	for _, a := range available {
		ranges = append(ranges, batch.Range{TopicPartition: a.TopicPartition, Start: a.Start, End: a.End, Epoch: a.Epoch})
	}
	return ranges
}

// produce writes to partition 0; "tombstone" stands for a null value.
func produce(t testing.TB, c *kfake.Cluster, values ...string) {
	t.Helper()
	var records []*kgo.Record
	for _, v := range values {
		r := &kgo.Record{Value: []byte(v)}
		if v == "tombstone" {
			r.Value = nil
		}
		records = append(records, r)
	}
	send(t, client(t, c), records...)
}

func send(t testing.TB, cl *kgo.Client, records ...*kgo.Record) {
	t.Helper()
	if err := cl.ProduceSync(context.Background(), records...).FirstErr(); err != nil {
		t.Fatal(err)
	}
}

// ids makes records with the ids from..to-1.
func ids(partition int32, from, to int64) []*kgo.Record {
	var records []*kgo.Record
	for id := from; id < to; id++ {
		records = append(records, &kgo.Record{Partition: partition, Value: fmt.Appendf(nil, `{"id":%d}`, id)})
	}
	return records
}
