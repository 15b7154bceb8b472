package source

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/frazil-io/frazil/internal/batch"
)

func TestRetentionIsDataLost(t *testing.T) {
	c := cluster(t, 1)
	produce(t, c, `{"id":1}`, `{"id":2}`, `{"id":3}`)
	s := open(t, c, nil)
	ranges := all(t, s)
	if err := c.DeleteRecords(topicName, 0, 2); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Read(t.Context(), ranges, discard, nil); !errors.Is(err, batch.ErrDataLost) || !strings.Contains(err.Error(), "starts at 2") {
		t.Fatalf("error %v, want data lost", err)
	}
	if now := all(t, s)[0]; now.Start != 2 || now.End != 3 {
		t.Fatalf("listed %v", now)
	}
	ranges[0].Lost = 2
	got := newReading()
	if tally := read(t, s, ranges, got); len(got.ids) != 1 || tally.Lost != 2 || tally.Offsets != 3 {
		t.Fatalf("%v %+v", got.ids, tally)
	}
}

func TestRemadeTopicIsDataLost(t *testing.T) {
	c := cluster(t, 1)
	produce(t, c, `{"id":1}`)
	s := open(t, c, nil)
	ranges := all(t, s)
	remake(t, c)
	produce(t, c, `{"id":2}`)
	before := s.clock.Now()
	if _, err := s.Read(t.Context(), ranges, discard, nil); !errors.Is(err, batch.ErrDataLost) || !strings.Contains(err.Error(), "made again") {
		t.Fatalf("error %v, want data lost", err)
	}
	if s.clock.Now().Sub(before) < confirmAfter {
		t.Error("it did not wait for a second answer")
	}
	now := all(t, s)
	if now[0].TopicID == ranges[0].TopicID {
		t.Fatal("the topic's id did not change")
	}
	got := newReading()
	if read(t, s, now, got); got.ids[2] == "" {
		t.Fatalf("of the new topic: %v", got.ids)
	}
}

func remake(t *testing.T, c *kfake.Cluster) {
	t.Helper()
	if err := c.DeleteTopic(topicName); err != nil {
		t.Fatal(err)
	}
	if err := c.CreateTopic(topicName, 1, nil); err != nil {
		t.Fatal(err)
	}
}

// TestCarriedRecordsOfARemadeTopic: what was fetched of the old topic is not
// emitted as the new one's.
func TestCarriedRecordsOfARemadeTopic(t *testing.T) {
	c := cluster(t, 1)
	send(t, client(t, c), ids(0, 0, 10)...)
	s := open(t, c, nil)
	first := all(t, s)
	first[0].End = 5
	read(t, s, first, newReading())
	if s.Stats().Buffered == 0 {
		t.Fatal("nothing was carried over")
	}
	remake(t, c)
	send(t, client(t, c), ids(0, 100, 110)...)
	s.clock.Sleep(t.Context(), topicsEvery)
	second := all(t, s)
	second[0].Start = 5
	got := newReading()
	read(t, s, second, got)
	if len(got.ids) != 5 || got.ids[105] == "" {
		t.Fatalf("%v", got.ids)
	}
	if buffered := s.Stats().Buffered; buffered != 0 {
		t.Errorf("%d bytes of the old topic are kept", buffered)
	}
}

// TestCarryIsUsedOnce: the second Read needs no fetch, a Read from elsewhere and
// one under another leader do.
func TestCarryIsUsedOnce(t *testing.T) {
	c := cluster(t, 1)
	send(t, client(t, c), ids(0, 0, 30)...)
	s := open(t, c, nil)
	whole := all(t, s)[0]
	requests := s.Stats().Requests
	part := func(from, to int64) []batch.Range {
		r := whole
		r.Start, r.End = from, to
		return []batch.Range{r}
	}
	expect := func(from, to, more int64) {
		t.Helper()
		got := newReading()
		if tally := read(t, s, part(from, to), got); tally.Rows != to-from || got.ids[from] == "" || got.ids[to-1] == "" {
			t.Fatalf("[%d,%d): %+v %v", from, to, tally, got.ids)
		}
		if requests += more; s.Stats().Requests != requests {
			t.Fatalf("[%d,%d): %d requests, want %d", from, to, s.Stats().Requests, requests)
		}
	}
	expect(0, 10, 1)
	expect(10, 20, 0)
	expect(20, 30, 0)
	expect(0, 10, 1)  // again, after everything was used
	expect(5, 15, 1)  // before what is kept
	expect(20, 30, 0) // further on
	expect(0, 10, 1)
	whole.Epoch++ // there was an election
	if _, err := s.Read(t.Context(), part(10, 20), discard, nil); err != nil {
		t.Fatal(err)
	}
	if s.Stats().Requests == requests {
		t.Error("what an old leader sent was used, though the plan knows a newer one")
	}
	whole.Epoch = -1 // the plan does not know, but metadata does
	requests = s.Stats().Requests
	expect(0, 10, 1)
	bounce(t, c)
	s.relations[0].stale()
	expect(10, 20, 1)
}

// bounce gives the partition to the other broker and back: a newer epoch of the
// same leader.
func bounce(t *testing.T, c *kfake.Cluster) {
	t.Helper()
	leader := c.LeaderFor(topicName, 0)
	for _, node := range []int32{1 - leader, leader} {
		if err := c.MoveTopicPartition(topicName, 0, node); err != nil {
			t.Fatal(err)
		}
	}
}

// TestOldEpochIsFenced: a fetch says under which leader epoch it believes to be,
// so that an election is noticed even if it had no other effect.
func TestOldEpochIsFenced(t *testing.T) {
	c := cluster(t, 1)
	produce(t, c, `{"id":1}`)
	s := open(t, c, nil)
	ranges := all(t, s)
	bounce(t, c)
	if tally := read(t, s, ranges, newReading()); tally.Rows != 1 || s.Stats().Retries == 0 {
		t.Fatalf("%+v %+v", tally, s.Stats())
	}
}

// TestCutLogIsDataLost: a leader that has less than was listed, and still has
// less ten seconds later.
func TestCutLogIsDataLost(t *testing.T) {
	for name, code := range map[string]int16{"position behind the end": kerr.OffsetOutOfRange.Code, "end behind the end": 0} {
		t.Run(name, func(t *testing.T) {
			c := cluster(t, 1)
			produce(t, c, `{"id":1}`)
			s := open(t, c, nil)
			ranges := all(t, s)
			ranges[0].Start, ranges[0].End = 1, 5
			if code != 0 {
				ranges[0].Start = 2
			}
			before := s.clock.Now()
			_, err := s.Read(t.Context(), ranges, discard, nil)
			if !errors.Is(err, batch.ErrDataLost) || !strings.Contains(err.Error(), "ends at offset 1") {
				t.Fatalf("error %v, want data lost", err)
			}
			if took := s.clock.Now().Sub(before); took < confirmAfter {
				t.Errorf("it was sure after %s", took)
			}
		})
	}
}

// TestLaggingLeader serves after a while what it does not have at first.
func TestLaggingLeader(t *testing.T) {
	c := cluster(t, 1)
	produce(t, c, `{"id":1}`, `{"id":2}`)
	s := open(t, c, nil)
	ranges := all(t, s)
	empty := 5
	c.ControlKey(int16(kmsg.Fetch), func(req kmsg.Request) (kmsg.Response, error, bool) {
		if c.KeepControl(); empty == 0 {
			c.DropControl()
			return nil, nil, false
		}
		empty--
		return emptyAnswer(req, 1), nil, true
	})
	got := newReading()
	if tally := read(t, s, ranges, got); tally.Rows != 2 {
		t.Fatalf("%+v", tally)
	}
}

func compacted(t *testing.T) *kfake.Cluster {
	t.Helper()
	c := cluster(t, 1)
	if err := c.CreateTopic("users", 1, map[string]string{"cleanup.policy": "compact", "delete.retention.ms": "0", "min.cleanable.dirty.ratio": "0", "segment.bytes": "200"}); err != nil {
		t.Fatal(err)
	}
	return c
}

func users(o *Options) { o.Topics = []string{"users"} }

// keyed writes one record a batch, with ids from 0 on; "" is for a tombstone of
// the key before.
func keyed(t *testing.T, cl *kgo.Client, keys ...string) {
	t.Helper()
	for i, key := range keys {
		r := ids(0, int64(i), int64(i)+1)[0]
		if key == "" {
			key, r.Value = keys[i-1], nil
		}
		r.Key = []byte(key)
		send(t, cl, r)
	}
}

// TestCompactionLeavesHoles, at the end of what can be read too: a tombstone
// that compaction removed, and behind it a transaction that stays open.
func TestCompactionLeavesHoles(t *testing.T) {
	c := compacted(t)
	cl := client(t, c, kgo.DefaultProduceTopic("users"))
	keyed(t, cl, "first", "a", "b", "a", "a", "b", "c", "")
	open1 := client(t, c, kgo.DefaultProduceTopic("users"), kgo.TransactionalID("tx"))
	if err := open1.BeginTransaction(); err != nil {
		t.Fatal(err)
	}
	keyed(t, open1, "d")
	c.Compact()
	s := open(t, c, users)
	whole := all(t, s)[0]
	if whole.Start != 0 || whole.End != 8 {
		t.Fatalf("listed %v", whole)
	}
	for cut := range whole.End + 1 {
		got := newReading()
		var total batch.Tally
		for _, r := range []batch.Range{{Start: 0, End: cut}, {Start: cut, End: whole.End}} {
			r.TopicPartition, r.Epoch = whole.TopicPartition, -1
			total = total.Plus(read(t, s, []batch.Range{r}, got))
		}
		if len(got.ids) != 3 || got.ids[0] == "" || got.ids[4] == "" || got.ids[5] == "" || total.Absent != 5 {
			t.Fatalf("cut at %d: %v, %+v", cut, got.ids, total)
		}
	}
	// The quota may withhold what is there: an empty answer then says nothing.
	throttled := 3
	c.ControlKey(int16(kmsg.Fetch), func(req kmsg.Request) (kmsg.Response, error, bool) {
		if c.KeepControl(); throttled == 0 {
			c.DropControl()
			return nil, nil, false
		}
		throttled--
		resp := emptyAnswer(req, 8)
		resp.ThrottleMillis = 10
		return resp, nil, true
	})
	s = open(t, c, users)
	if tally := read(t, s, []batch.Range{{TopicPartition: whole.TopicPartition, End: 8, Epoch: -1}}, newReading()); tally.Rows != 3 {
		t.Fatalf("%+v", tally)
	}
}

// emptyAnswer has no records, though the log can be read up to end.
func emptyAnswer(req kmsg.Request, end int64) *kmsg.FetchResponse {
	f := req.(*kmsg.FetchRequest)
	resp := f.ResponseKind().(*kmsg.FetchResponse)
	rt := kmsg.NewFetchResponseTopic()
	rt.Topic, rt.TopicID = f.Topics[0].Topic, f.Topics[0].TopicID
	rp := kmsg.NewFetchResponseTopicPartition()
	rp.HighWatermark, rp.LastStableOffset = end, end
	rt.Partitions = append(rt.Partitions, rp)
	resp.Topics = append(resp.Topics, rt)
	return resp
}

// TestHandOversAreCounted: a piece that gets lost between the fetcher and the
// decoders is noticed, also on a compacted topic, where missing offsets alone are
// no reason to stop.
func TestHandOversAreCounted(t *testing.T) {
	c := compacted(t)
	keyed(t, client(t, c, kgo.DefaultProduceTopic("users")), "a", "b", "c", "d", "e")
	s := open(t, c, users)
	r := s.relations[0]
	shares, _ := sharesOf("clicks", all(t, s))
	lost := 0
	for _, lose := range []bool{false, true} {
		pieces := make(chan piece)
		f := &fetcher{relation: r, shares: shares, gate: newGate(s.limits.queueBytes()), carry: s.carry, partition: partitionBytes, surplus: map[batch.TopicPartition]surplus{}}
		queue := r.queue(pieces)
		f.deliver = func(ctx context.Context, p piece) error {
			if lose && lost == 0 {
				lost++
				return nil
			}
			return queue(ctx, p)
		}
		shares[0].next = 0
		workers, err := r.hire(1)
		if err != nil {
			t.Fatal(err)
		}
		workers[0].start(1, s.limits.chunkBytes(), func(batch.Reject) {})
		if err := decodeAll(t.Context(), f, workers, pieces, discard, nil); errors.Is(err, errMiscount) != lose {
			t.Errorf("lose %t: %v", lose, err)
		}
	}
}

// TestAbsentWithoutCompaction: nothing but compaction may leave holes.
func TestAbsentWithoutCompaction(t *testing.T) {
	c := compacted(t)
	cl := client(t, c, kgo.DefaultProduceTopic("users"))
	keyed(t, cl, "first", "a", "a", "a")
	c.Compact()
	setPolicy(t, cl, "delete")

	s := open(t, c, users)
	ranges := all(t, s)
	if _, err := s.Read(t.Context(), ranges, discard, nil); !errors.Is(err, batch.ErrDataLost) || !strings.Contains(err.Error(), "on_data_loss: record") {
		t.Fatalf("error %v, want data lost", err)
	}
	logged := &bytes.Buffer{}
	s = openWith(t, c, func(o *Options) { users(o); o.RecordLoss = true }, Limits{}, slog.New(slog.NewTextHandler(logged, nil)), nil)
	if tally := read(t, s, ranges, newReading()); tally.Absent == 0 || !strings.Contains(logged.String(), "level=WARN") {
		t.Fatalf("%+v %s", tally, logged)
	}
	// Where the user may not see the setting, it may be a compacted topic.
	logged.Reset()
	c.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.DescribeConfigs}, Resource: "users", Err: kerr.TopicAuthorizationFailed, Count: -1})
	s = openWith(t, c, users, Limits{}, slog.New(slog.NewTextHandler(logged, nil)), nil)
	for range 2 {
		if tally := read(t, s, ranges, newReading()); tally.Absent == 0 {
			t.Fatalf("%+v", tally)
		}
	}
	if n := strings.Count(logged.String(), "DESCRIBE_CONFIGS"); n != 1 {
		t.Fatalf("warned %d times: %s", n, logged)
	}
}

func setPolicy(t *testing.T, cl *kgo.Client, policy string) {
	t.Helper()
	answers, err := kadm.NewClient(cl).AlterTopicConfigs(context.Background(), []kadm.AlterConfig{{Name: cleanupPolicy, Value: &policy}}, "users")
	if err != nil || answers[0].Err != nil {
		t.Fatal(err, answers)
	}
}

func TestPersistentErrors(t *testing.T) {
	for _, test := range []struct {
		err  *kerr.Error
		kind error
	}{
		{kerr.NotLeaderForPartition, batch.ErrUnavailable},
		{kerr.KafkaStorageError, batch.ErrUnavailable},
		{kerr.OffsetOutOfRange, batch.ErrUnavailable}, // though the listing says that it is there
		{kerr.TopicAuthorizationFailed, batch.ErrInvalid},
	} {
		c := cluster(t, 1)
		produce(t, c, `{"id":1}`)
		s := open(t, c, nil)
		ranges := all(t, s)
		before := s.clock.Now()
		fault := c.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Fetch}, Topic: topicName, Err: test.err, Count: -1})
		_, err := s.Read(t.Context(), ranges, discard, nil)
		if !errors.Is(err, test.kind) || !errors.Is(err, test.err) {
			t.Errorf("%v: %v", test.err, err)
		}
		if took := s.clock.Now().Sub(before); errors.Is(test.kind, batch.ErrUnavailable) && took < confirmAfter {
			t.Errorf("%v: given up after %s", test.err, took)
		}
		fault.Remove()
		if tally := read(t, s, ranges, newReading()); tally.Rows != 1 {
			t.Errorf("%v: afterwards %+v", test.err, tally)
		}
	}
}
