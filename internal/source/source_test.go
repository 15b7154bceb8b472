package source

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/frazil-io/frazil/internal/batch"
	"github.com/frazil-io/frazil/internal/kafka"
	"github.com/frazil-io/frazil/internal/source/decode"
)

const topicName = "clicks"

func cluster(t testing.TB, partitions int32) *kfake.Cluster {
	t.Helper()
	c, err := kfake.NewCluster(kfake.NumBrokers(2), kfake.SeedTopics(partitions, topicName), kfake.BrokerConfigs(map[string]string{"group.initial.rebalance.delay.ms": "0"}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func client(t testing.TB, c *kfake.Cluster, opts ...kgo.Opt) *kgo.Client {
	t.Helper()
	cl, err := kgo.NewClient(append([]kgo.Opt{kgo.SeedBrokers(c.ListenAddrs()...), kgo.DefaultProduceTopic(topicName), kgo.RecordPartitioner(kgo.ManualPartitioner())}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cl.Close)
	return cl
}

func open(t testing.TB, c *kfake.Cluster, change func(*Options)) *Source {
	t.Helper()
	fields, err := decode.ParseColumns("id BIGINT")
	if err != nil {
		t.Fatal(err)
	}
	o := Options{
		Name: "clicks", Kafka: kafka.Options{Brokers: c.ListenAddrs()}, Topics: []string{topicName},
		Decoder: func() (decode.Decoder, error) { return decode.New("json", fields, decode.Options{}) },
	}
	if change != nil {
		change(&o)
	}
	s, err := New([]Options{o}, slog.New(slog.NewTextHandler(io.Discard, nil)), time.Now, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

// reading collects ids, and where they came from.
type reading struct {
	mu  sync.Mutex
	ids map[int64]string
}

func (r *reading) emit(ranges []batch.Range) func(arrow.RecordBatch) error {
	return func(rows arrow.RecordBatch) error {
		r.mu.Lock()
		defer r.mu.Unlock()
		n := int(rows.NumCols())
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

func balanced(t testing.TB, tally batch.Tally) {
	t.Helper()
	if tally.Offsets != tally.Data+tally.Control+tally.Aborted+tally.Lost+tally.Absent || tally.Data != tally.Rows+tally.Tombstones+tally.Skipped {
		t.Fatalf("the tally does not add up: %+v", tally)
	}
}

// TestReadsExactly cuts what was produced, with transactions, aborts and all
// codecs, into random ranges: together they give each committed record once.
func TestReadsExactly(t *testing.T) {
	seed := rand.Uint64()
	rnd := rand.New(rand.NewPCG(seed, 1))
	t.Logf("seed %d", seed)
	c := cluster(t, 3)
	ctx := context.Background()
	want := map[int64]bool{}
	codecs := []kgo.CompressionCodec{kgo.NoCompression(), kgo.GzipCompression(), kgo.SnappyCompression(), kgo.Lz4Compression(), kgo.ZstdCompression()}
	id := int64(0)
	aborted := int64(0)
	for i, codec := range codecs {
		cl := client(t, c, kgo.TransactionalID(fmt.Sprint("tx", i)), kgo.ProducerBatchCompression(codec))
		for range 12 {
			if err := cl.BeginTransaction(); err != nil {
				t.Fatal(err)
			}
			commit := rnd.IntN(3) > 0
			for range 1 + rnd.IntN(40) {
				id++
				r := &kgo.Record{Partition: int32(rnd.IntN(3)), Value: fmt.Appendf(nil, `{"id":%d}`, id), Headers: []kgo.RecordHeader{{Key: "h", Value: []byte("v")}}}
				if err := cl.ProduceSync(ctx, r).FirstErr(); err != nil {
					t.Fatal(err)
				}
				if commit {
					want[id] = true
				} else {
					aborted++
				}
			}
			if err := cl.EndTransaction(ctx, kgo.TransactionEndTry(commit)); err != nil {
				t.Fatal(err)
			}
		}
	}
	s := open(t, c, nil)
	available, err := s.List(ctx)
	if err != nil {
		t.Fatal(err)
	}
	got := &reading{ids: map[int64]string{}}
	var total batch.Tally
	position := map[batch.TopicPartition]int64{}
	for done := false; !done; {
		done = true
		var ranges []batch.Range
		for _, a := range available {
			r := batch.Range{TopicPartition: a.TopicPartition, Start: position[a.TopicPartition]}
			r.End = min(a.End, r.Start+int64(rnd.IntN(60)))
			done = done && r.End == a.End
			position[a.TopicPartition] = r.End
			ranges = append(ranges, r)
		}
		tally, err := s.Read(ctx, ranges, got.emit(ranges))
		if err != nil {
			t.Fatal(err)
		}
		balanced(t, tally)
		total = total.Plus(tally)
	}
	if len(got.ids) != len(want) || total.Aborted != aborted || total.Absent != 0 {
		t.Fatalf("%d of %d records, tally %+v, %d were aborted", len(got.ids), len(want), total, aborted)
	}
	for id := range want {
		if got.ids[id] == "" {
			t.Fatalf("record %d is missing", id)
		}
	}
}

func produce(t testing.TB, c *kfake.Cluster, partition int32, values ...string) {
	t.Helper()
	cl := client(t, c, kgo.ProducerBatchMaxBytes(64<<20), kgo.MaxProduceRequestsInflightPerBroker(1))
	for _, v := range values {
		r := &kgo.Record{Partition: partition, Value: []byte(v)}
		if v == "tombstone" {
			r.Value = nil
		}
		if err := cl.ProduceSync(context.Background(), r).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
}

func all(t testing.TB, s *Source) []batch.Range {
	t.Helper()
	available, err := s.List(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	var ranges []batch.Range
	for _, a := range available {
		ranges = append(ranges, batch.Range{TopicPartition: a.TopicPartition, Start: a.Start, End: a.End})
	}
	return ranges
}

func TestBadRecordsAndTombstones(t *testing.T) {
	c := cluster(t, 1)
	produce(t, c, 0, `{"id":1}`, `{"id":"x"}`, "tombstone", `{"id":2}`)
	ctx := context.Background()

	s := open(t, c, nil)
	ranges := all(t, s)
	_, err := s.Read(ctx, ranges, (&reading{ids: map[int64]string{}}).emit(ranges))
	if !errors.Is(err, batch.ErrInvalid) || !strings.Contains(err.Error(), "offset 1 of clicks/0") || !strings.Contains(err.Error(), `field \"id\"`) && !strings.Contains(err.Error(), `field "id"`) {
		t.Fatalf("error %v", err)
	}
	s = open(t, c, func(o *Options) { o.SkipBad = true })
	tally, err := s.Read(ctx, ranges, (&reading{ids: map[int64]string{}}).emit(ranges))
	if err != nil || tally.Skipped != 1 || tally.Tombstones != 1 || tally.Rows != 2 {
		t.Fatalf("%+v %v", tally, err)
	}
	balanced(t, tally)
	s = open(t, c, func(o *Options) { o.SkipBad, o.Tombstones, o.Metadata = true, Keep, true })
	rows := int64(0)
	tally, err = s.Read(ctx, ranges, func(b arrow.RecordBatch) error {
		rows += b.NumRows()
		if b.ColumnName(1) != "_topic" || b.Column(3).(*array.Int64).Value(1) != 2 || !b.Column(0).IsNull(1) {
			return fmt.Errorf("unexpected rows %v", b)
		}
		return nil
	})
	if err != nil || rows != 3 || tally.Tombstones != 0 {
		t.Fatalf("%d rows, %+v %v", rows, tally, err)
	}
}

func TestLostRecords(t *testing.T) {
	c := cluster(t, 1)
	produce(t, c, 0, `{"id":1}`, `{"id":2}`, `{"id":3}`)
	s := open(t, c, nil)
	ranges := all(t, s)
	admin := kadm.NewClient(client(t, c))
	offsets := kadm.Offsets{}
	offsets.AddOffset(topicName, 0, 2, -1)
	if _, err := admin.DeleteRecords(context.Background(), offsets); err != nil {
		t.Fatal(err)
	}
	_, err := s.Read(context.Background(), ranges, func(arrow.RecordBatch) error { return nil })
	if !errors.Is(err, batch.ErrDataLost) {
		t.Fatalf("error %v, want data lost", err)
	}
	ranges[0].Lost = 2
	got := &reading{ids: map[int64]string{}}
	tally, err := s.Read(context.Background(), ranges, got.emit(ranges))
	if err != nil || len(got.ids) != 1 || tally.Lost != 2 || tally.Offsets != 3 {
		t.Fatalf("%v %+v %v", got.ids, tally, err)
	}
}

func TestRemadeTopic(t *testing.T) {
	c := cluster(t, 1)
	produce(t, c, 0, `{"id":1}`)
	s := open(t, c, nil)
	ranges := all(t, s)
	admin := kadm.NewClient(client(t, c))
	if _, err := admin.DeleteTopics(context.Background(), topicName); err != nil {
		t.Fatal(err)
	}
	if _, err := admin.CreateTopic(context.Background(), 1, 1, nil, topicName); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	err := batch.ErrUnavailable
	for errors.Is(err, batch.ErrUnavailable) && ctx.Err() == nil { // metadata is cached for a second
		_, err = s.Read(ctx, ranges, func(arrow.RecordBatch) error { return nil })
	}
	if !errors.Is(err, batch.ErrDataLost) {
		t.Fatalf("error %v, want data lost", err)
	}
	if now := all(t, s); now[0].TopicID == ranges[0].TopicID {
		t.Fatal("the topic's id did not change")
	}
}

func TestFetchErrorsAreUnavailable(t *testing.T) {
	c := cluster(t, 1)
	produce(t, c, 0, `{"id":1}`)
	s := open(t, c, nil)
	ranges := all(t, s)
	c.ControlKey(int16(kmsg.Fetch), func(req kmsg.Request) (kmsg.Response, error, bool) {
		resp := req.ResponseKind().(*kmsg.FetchResponse)
		for _, t := range req.(*kmsg.FetchRequest).Topics {
			rt := kmsg.NewFetchResponseTopic()
			rt.Topic, rt.TopicID = t.Topic, t.TopicID
			rp := kmsg.NewFetchResponseTopicPartition()
			rp.Partition, rp.ErrorCode = t.Partitions[0].Partition, kerr.NotLeaderForPartition.Code
			rt.Partitions = append(rt.Partitions, rp)
			resp.Topics = append(resp.Topics, rt)
		}
		return resp, nil, true
	})
	_, err := s.Read(context.Background(), ranges, func(arrow.RecordBatch) error { return nil })
	if !errors.Is(err, batch.ErrUnavailable) {
		t.Fatalf("error %v, want unavailable", err)
	}
	got := &reading{ids: map[int64]string{}}
	if _, err := s.Read(context.Background(), ranges, got.emit(ranges)); err != nil || len(got.ids) != 1 {
		t.Fatalf("%v %v", got.ids, err)
	}
}

func TestLargeRecords(t *testing.T) {
	c := cluster(t, 1)
	large := fmt.Sprintf(`{"id":1,"pad":%q}`, strings.Repeat("x", 6<<20))
	produce(t, c, 0, large, `{"id":2}`)
	s := open(t, c, nil)
	ranges := all(t, s)
	got := &reading{ids: map[int64]string{}}
	if _, err := s.Read(context.Background(), ranges, got.emit(ranges)); err != nil || len(got.ids) != 2 {
		t.Fatalf("%v %v", got.ids, err)
	}
}

func TestStart(t *testing.T) {
	c := cluster(t, 2)
	produce(t, c, 0, `{"id":1}`, `{"id":2}`)
	ctx := context.Background()
	for name, want := range map[string]struct {
		start Start
		at    int64
	}{
		"earliest": {Start{}, 0},
		"latest":   {Start{Latest: true}, 2},
		"offsets":  {Start{Offsets: map[string]map[int32]int64{topicName: {0: 1}}}, 1},
		"time":     {Start{Time: time.Now().Add(time.Hour)}, 2},
	} {
		s := open(t, c, func(o *Options) { o.Start = want.start })
		starts, err := s.Start(ctx)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		for tp, at := range starts {
			if tp.Partition == 0 && at != want.at {
				t.Errorf("%s: starts at %d, want %d", name, at, want.at)
			}
		}
	}
	s := open(t, c, func(o *Options) { o.Start = Start{Offsets: map[string]map[int32]int64{topicName: {0: 9}}} })
	if _, err := s.Start(ctx); !errors.Is(err, batch.ErrInvalid) {
		t.Errorf("offset 9: %v", err)
	}
	s = open(t, c, func(o *Options) { o.Topics = []string{"click"} })
	if _, err := s.List(ctx); !errors.Is(err, batch.ErrInvalid) || !strings.Contains(err.Error(), `did you mean "clicks"`) {
		t.Errorf("missing topic: %v", err)
	}
}

func TestPublish(t *testing.T) {
	c := cluster(t, 1)
	produce(t, c, 0, `{"id":1}`)
	s := open(t, c, func(o *Options) { o.Group = "lag" })
	r := all(t, s)[0]
	s.Publish(batch.Offsets{r.TopicPartition: 1})
	admin := kadm.NewClient(client(t, c))
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	for ctx.Err() == nil {
		offsets, err := admin.FetchOffsets(ctx, "lag")
		if o, ok := offsets.Lookup(topicName, 0); err == nil && ok && o.At == 1 {
			return
		}
	}
	t.Fatal("the group's offset was not published")
}
