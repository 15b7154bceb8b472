package source

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/frazil-io/frazil/internal/batch"
)

func TestListManyPartitions(t *testing.T) {
	const partitions = 1000
	c := cluster(t, partitions)
	cl := client(t, c)
	var records []*kgo.Record
	for p := range int32(partitions) {
		records = append(records, ids(p, int64(p), int64(p)+1)...)
	}
	send(t, cl, records...)
	s := open(t, c, nil)
	ranges := all(t, s)
	if len(ranges) != partitions {
		t.Fatalf("%d partitions", len(ranges))
	}
	got := newReading()
	if tally := read(t, s, ranges, got); tally.Rows != partitions {
		t.Fatalf("%+v", tally)
	}
}

// TestListIsCheap: it is called at every trigger.
func TestListIsCheap(t *testing.T) {
	c := cluster(t, 8)
	produce(t, c, `{"id":1}`)
	s := open(t, c, nil)
	all(t, s)
	observe := func(key kmsg.Key) *kfake.FaultHandle {
		return c.Fault(kfake.Fault{Keys: []kmsg.Key{key}, Topic: topicName, Observe: true, Count: -1})
	}
	lists, others := observe(kmsg.ListOffsets), observe(kmsg.Metadata)
	for range 10 {
		all(t, s)
	}
	brokers := map[int32]bool{}
	for p := range int32(8) {
		brokers[c.LeaderFor(topicName, p)] = true
	}
	if lists.Hits() != 10*2*len(brokers) || others.Hits() != 0 { // starts and ends
		t.Fatalf("%d listings, %d requests for metadata", lists.Hits(), others.Hits())
	}
}

func TestListFindsWhatIsNew(t *testing.T) {
	c := cluster(t, 1)
	s := open(t, c, func(o *Options) { o.Topics, o.Pattern = nil, "^clicks" })
	if ranges := all(t, s); len(ranges) != 1 {
		t.Fatalf("%v", ranges)
	}
	admin := kadm.NewClient(client(t, c))
	if _, err := admin.CreatePartitions(t.Context(), 2, topicName); err != nil {
		t.Fatal(err)
	}
	if err := c.CreateTopic("clicks-eu", 1, nil); err != nil {
		t.Fatal(err)
	}
	if err := c.CreateTopic("orders", 1, nil); err != nil {
		t.Fatal(err)
	}
	s.clock.Sleep(t.Context(), topicsEvery)
	ranges := all(t, s)
	if len(ranges) != 4 || ranges[0].Topic != "clicks" || ranges[3].Topic != "clicks-eu" {
		t.Fatalf("%v", ranges)
	}
	s = open(t, c, func(o *Options) { o.Topics, o.Pattern = nil, "^weather" })
	if _, err := s.List(t.Context(), nil); !errors.Is(err, batch.ErrUnavailable) || !strings.Contains(err.Error(), `"^weather"`) {
		t.Fatalf("error %v", err)
	}
}

// TestTopicsThatComeAndGo: nothing is remembered of the partitions of those that are gone.
func TestTopicsThatComeAndGo(t *testing.T) {
	c := cluster(t, 1)
	s := open(t, c, func(o *Options) { o.Topics, o.Pattern = nil, "^clicks" })
	cl := client(t, c)
	for i := range 5 {
		name := fmt.Sprint("clicks-", i)
		if err := c.CreateTopic(name, 1, nil); err != nil {
			t.Fatal(err)
		}
		send(t, cl, &kgo.Record{Topic: name, Value: []byte(`{"id":1}`)})
		s.clock.Sleep(t.Context(), topicsEvery)
		ranges := all(t, s)
		if len(ranges) != 2 {
			t.Fatalf("%v", ranges)
		}
		read(t, s, ranges, newReading())
		r := s.relations[0]
		if _, err := r.policyOf(t.Context(), name, ranges[1].TopicID); err != nil {
			t.Fatal(err)
		}
		r.policies[ranges[1].TopicID+name] = policyUnknown
		r.noteSound(ranges[1], 0)
		if len(r.sizes) == 0 || len(r.sizes) > 2 || len(r.probed) != 2 && len(r.probed) != 1 || len(r.sound) > 2 || len(r.policies) > 2 {
			t.Fatalf("after %d topics: sizes %d, probed %d, sound %d, policies %d", i+1, len(r.sizes), len(r.probed), len(r.sound), len(r.policies))
		}
		if err := c.DeleteTopic(name); err != nil {
			t.Fatal(err)
		}
		s.clock.Sleep(t.Context(), topicsEvery)
		if ranges := all(t, s); len(ranges) != 1 {
			t.Fatalf("%v", ranges)
		}
		if len(r.sizes)+len(r.sound)+len(r.policies) > 0 || len(r.probed) > 1 {
			t.Fatalf("without the topic: sizes %d, probed %d, sound %d, policies %d", len(r.sizes), len(r.probed), len(r.sound), len(r.policies))
		}
	}
}

// TestListKeepsWhatItKnows: an answer that lacks what was there before is not
// believed, and a new id is told as it is.
func TestListKeepsWhatItKnows(t *testing.T) {
	c := cluster(t, 2)
	s := open(t, c, nil)
	all(t, s)
	c.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Metadata}, Topic: topicName, Err: kerr.UnknownTopicOrPartition, Count: 1})
	s.clock.Sleep(t.Context(), topicsEvery)
	if now := all(t, s); len(now) != 2 || s.Stats().Retries != 1 { // the second try
		t.Fatalf("%v %+v", now, s.Stats())
	}
	c.ControlKey(int16(kmsg.Metadata), func(req kmsg.Request) (kmsg.Response, error, bool) {
		c.KeepControl()
		return halfAnswer(c, req), nil, true
	})
	s.clock.Sleep(t.Context(), topicsEvery)
	if _, err := s.List(t.Context(), nil); !errors.Is(err, batch.ErrUnavailable) || !strings.Contains(err.Error(), "clicks/1 is missing") {
		t.Fatalf("half an answer: %v", err)
	}
	c2 := cluster(t, 2)
	s = open(t, c2, nil)
	before := all(t, s)
	if err := c2.DeleteTopic(topicName); err != nil {
		t.Fatal(err)
	}
	s.clock.Sleep(t.Context(), topicsEvery)
	if now, err := s.List(t.Context(), nil); err != nil || len(now) != 0 { // the planner judges
		t.Fatalf("a deleted topic: %v", err)
	}
	if err := c2.CreateTopic(topicName, 1, nil); err != nil {
		t.Fatal(err)
	}
	s.clock.Sleep(t.Context(), topicsEvery)
	if now := all(t, s); len(now) != 1 || now[0].TopicID == before[0].TopicID || now[0].TopicID == "" {
		t.Fatalf("made again with one partition: %v", now)
	}
}

// halfAnswer names one of two partitions.
func halfAnswer(c *kfake.Cluster, req kmsg.Request) *kmsg.MetadataResponse {
	resp := req.ResponseKind().(*kmsg.MetadataResponse)
	for i, address := range c.ListenAddrs() {
		b := kmsg.NewMetadataResponseBroker()
		b.NodeID, b.Host = int32(i), "127.0.0.1"
		fmt.Sscanf(address, "127.0.0.1:%d", &b.Port)
		resp.Brokers = append(resp.Brokers, b)
	}
	info := c.TopicInfo(topicName)
	rt := kmsg.NewMetadataResponseTopic()
	name := topicName
	rt.Topic, rt.TopicID = &name, info.TopicID
	rp := kmsg.NewMetadataResponseTopicPartition()
	rp.Leader = c.LeaderFor(topicName, 0)
	rt.Partitions = append(rt.Partitions, rp)
	resp.Topics = append(resp.Topics, rt)
	return resp
}

func TestListThroughLeaderChanges(t *testing.T) {
	c := cluster(t, 4)
	s := open(t, c, nil)
	for range 20 {
		c.ShufflePartitionLeaders()
		if ranges := all(t, s); len(ranges) != 4 {
			t.Fatalf("%v", ranges)
		}
	}
	c.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.ListOffsets}, Err: kerr.LeaderNotAvailable, Count: -1})
	if _, err := s.List(t.Context(), nil); !errors.Is(err, batch.ErrUnavailable) {
		t.Fatalf("error %v", err)
	}
}

// TestListEstimatesSizes before anything was read, and better afterwards.
func TestListEstimatesSizes(t *testing.T) {
	c := cluster(t, 2)
	cl := client(t, c, kgo.ProducerBatchCompression(kgo.Lz4Compression()))
	value := `{"id":1,"pad":"` + strings.Repeat("x", 985) + `"}`
	for range 10 {
		send(t, cl, &kgo.Record{Value: []byte(value)})
	}
	s := open(t, c, nil)
	for range 3 {
		available, err := s.List(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		for _, a := range available { // the empty partition is taken to be like the other
			if want := float64(len(value)); a.Bytes < want*0.9 || a.Bytes > want*1.1 {
				t.Errorf("%s: %.0f bytes an offset, want about %.0f", a.TopicPartition, a.Bytes, want)
			}
		}
	}
	if n := s.Stats().Requests; n != 1 {
		t.Errorf("%d probes", n)
	}
	read(t, s, func() []batch.Range { r := all(t, s); r[0].Start = 9; return r }(), newReading())
}

func TestStart(t *testing.T) {
	c := cluster(t, 2)
	at := time.UnixMilli(1_700_000_000_000)
	cl := client(t, c)
	for i, r := range ids(0, 0, 3) {
		r.Timestamp = at.Add(time.Duration(i) * time.Minute)
		send(t, cl, r)
	}
	offsets := func(topic string, partition int32, at int64) Start {
		return Start{Offsets: map[string]map[int32]int64{topic: {partition: at}}}
	}
	for name, test := range map[string]struct {
		start Start
		at    int64
		text  string
	}{
		"earliest":        {Start{}, 0, ""},
		"latest":          {Start{Latest: true}, 3, ""},
		"offsets":         {offsets(topicName, 0, 1), 1, ""},
		"the end":         {offsets(topicName, 0, 3), 3, ""},
		"other partition": {offsets(topicName, 1, 0), 0, ""},
		"time":            {Start{Time: at.Add(time.Second)}, 1, ""},
		"time before":     {Start{Time: at.Add(-time.Hour)}, 0, ""},
		"time after":      {Start{Time: at.Add(time.Hour)}, 3, ""},
		"beyond":          {offsets(topicName, 0, 9), 0, "offset 9 of clicks/0 is outside of what Kafka has, which is 0 to 3"},
		"no partition":    {offsets(topicName, 2, 0), 0, "clicks/2"},
		"no topic":        {offsets("orders", 0, 0), 0, "orders/0"},
	} {
		s := open(t, c, func(o *Options) { o.Start = test.start })
		starts, err := s.Start(t.Context(), nil)
		if test.text != "" {
			if !errors.Is(err, batch.ErrInvalid) || !strings.Contains(err.Error(), test.text) {
				t.Errorf("%s: error %v", name, err)
			}
			continue
		}
		if err != nil || len(starts) != 2 {
			t.Fatalf("%s: %v %v", name, starts, err)
		}
		for tp, at := range starts {
			if tp.Partition == 0 && at != test.at || tp.Partition == 1 && at != 0 {
				t.Errorf("%s: %s starts at %d", name, tp, at)
			}
		}
	}
}

func TestMissingTopic(t *testing.T) {
	c := cluster(t, 1)
	s := open(t, c, func(o *Options) { o.Topics = []string{topicName, "clikcs"} })
	for range 2 {
		if _, err := s.Start(t.Context(), nil); !errors.Is(err, batch.ErrInvalid) || !strings.Contains(err.Error(), `topic "clikcs" does not exist`) ||
			!strings.Contains(err.Error(), `did you mean "clicks"?`) {
			t.Fatalf("error %v", err)
		}
	}
	// One that was just made is not known to every broker yet.
	c.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Metadata}, Topic: topicName, Err: kerr.UnknownTopicOrPartition, Count: 2})
	if _, err := open(t, c, nil).Start(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	c.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Metadata}, Topic: topicName, Err: kerr.TopicAuthorizationFailed, Count: -1})
	if _, err := open(t, c, nil).Start(t.Context(), nil); !errors.Is(err, batch.ErrInvalid) || !strings.Contains(err.Error(), "grant READ and DESCRIBE") {
		t.Fatalf("error %v", err)
	}
}

// TestDeletedBeforeTheStart: a topic that the pipeline has read, and that is gone
// when a new process asks, is a loss. A name that was never right is a mistake, and
// the hint is for that alone.
func TestDeletedBeforeTheStart(t *testing.T) {
	for _, record := range []bool{false, true} {
		for name, topics := range map[string]func(o *Options){
			"named":   func(*Options) {},
			"matched": func(o *Options) { o.Topics, o.Pattern = nil, "^clicks$" },
		} {
			t.Run(name, func(t *testing.T) {
				c := cluster(t, 1)
				if err := c.CreateTopic("clicks2", 1, nil); err != nil { // as near as can be
					t.Fatal(err)
				}
				produce(t, c, `{"id":1}`)
				change := func(o *Options) { topics(o); o.RecordLoss = record }
				ranges := all(t, open(t, c, change))
				if err := c.DeleteTopic(topicName); err != nil {
					t.Fatal(err)
				}
				if _, err := open(t, c, change).List(t.Context(), nil); err == nil {
					t.Fatal("a pipeline that is new goes on without its topic")
				}
				s := open(t, c, change)
				if available, err := s.List(t.Context(), ranges); err != nil || len(available) != 0 {
					t.Fatalf("listed %v, %v", available, err)
				}
				s = open(t, c, func(o *Options) { change(o); o.Start = Start{Offsets: map[string]map[int32]int64{topicName: {0: 1}}} })
				if starts, err := s.Start(t.Context(), batch.Offsets{ranges[0].TopicPartition: 1}); err != nil || len(starts) != 0 {
					t.Fatalf("starts %v, %v", starts, err)
				}
				s = open(t, c, func(o *Options) {
					o.RecordLoss, o.Topics, o.Start = record, []string{"clicks2"}, Start{Offsets: map[string]map[int32]int64{"clicks2": {7: 1}}}
				})
				if _, err := s.Start(t.Context(), batch.Offsets{{Source: "clicks", Topic: "clicks2"}: 1}); !errors.Is(err, batch.ErrInvalid) {
					t.Fatalf("a partition that never was: %v", err)
				}
				s = open(t, c, change)
				before := s.clock.Now()
				if _, err := s.Read(t.Context(), ranges, discard, nil); !errors.Is(err, batch.ErrDataLost) || !strings.Contains(err.Error(), "topic clicks was deleted") ||
					strings.Contains(err.Error(), "did you mean") || s.clock.Now().Sub(before) < confirmAfter {
					t.Fatalf("after %s: %v", s.clock.Now().Sub(before), err)
				}
				// The gap was noted, and another process starts.
				log := &lines{}
				s = openWith(t, c, change, Limits{}, slog.New(slog.NewTextHandler(log, nil)), nil)
				for range 2 {
					_, err := s.List(t.Context(), []batch.Range{})
					s.clock.Sleep(t.Context(), topicsEvery)
					if record != (err == nil) || record && name == "named" && strings.Count(log.String(), "does not exist") != 1 {
						t.Fatalf("%v %s", err, log)
					}
				}
				if err := c.CreateTopic(topicName, 1, nil); err != nil {
					t.Fatal(err)
				}
				s.clock.Sleep(t.Context(), topicsEvery)
				if now := all(t, s); len(now) != 1 || now[0].TopicID == ranges[0].TopicID {
					t.Fatalf("made again: %v", now)
				}
			})
		}
	}
}

// TestMissingTopicOfABegunPipeline: one that joins the spec is a mistake there,
// too, where losses are not recorded.
func TestMissingTopicOfABegunPipeline(t *testing.T) {
	c := cluster(t, 1)
	ranges := all(t, open(t, c, nil))
	s := open(t, c, func(o *Options) { o.Topics = []string{topicName, "clikcs"} })
	if _, err := s.List(t.Context(), ranges); !errors.Is(err, batch.ErrInvalid) || !strings.Contains(err.Error(), `did you mean "clicks"?`) {
		t.Fatalf("error %v", err)
	}
}

func TestOptionsAreValidated(t *testing.T) {
	c := cluster(t, 1)
	for text, change := range map[string]func(*Options){
		"either topics or topic_pattern": func(o *Options) { o.Pattern = "x" },
		"not a regular expression":       func(o *Options) { o.Topics, o.Pattern = nil, "(" },
		`tombstones: "hide"`:             func(o *Options) { o.Tombstones = "hide" },
		"brokers":                        func(o *Options) { o.Kafka.Brokers = nil },
	} {
		o := options(t, c)
		change(&o)
		if _, err := New([]Options{o}, Limits{}, newClock(), slog.New(slog.DiscardHandler), nil); !errors.Is(err, batch.ErrInvalid) || !strings.Contains(err.Error(), text) {
			t.Errorf("error %v, want %q", err, text)
		}
	}
}

func TestPublish(t *testing.T) {
	c := cluster(t, 1)
	produce(t, c, `{"id":1}`, `{"id":2}`)
	s := open(t, c, func(o *Options) { o.Group = "lag" })
	tp := all(t, s)[0].TopicPartition
	s.Publish(batch.Offsets{tp: 1})
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	admin := kadm.NewClient(client(t, c))
	for published(ctx, t, admin) != 1 {
	}
	// Close commits what was not yet.
	s.Publish(batch.Offsets{tp: 2})
	s.Close()
	if at := published(ctx, t, admin); at != 2 {
		t.Fatalf("after Close the group is at %d", at)
	}
}

// TestAuthorisation: what this user may not do is for the spec or the ACLs to
// mend, and the error names the ACL.
func TestAuthorisation(t *testing.T) {
	for _, key := range []kmsg.Key{kmsg.Metadata, kmsg.ListOffsets, kmsg.Fetch, kmsg.OffsetForLeaderEpoch} {
		c := cluster(t, 1)
		produce(t, c, `{"id":1}`)
		s := open(t, c, nil)
		ranges := all(t, s)
		if key == kmsg.OffsetForLeaderEpoch {
			bounce(t, c)
		}
		c.Fault(kfake.Fault{Keys: []kmsg.Key{key}, Topic: topicName, Err: kerr.TopicAuthorizationFailed, Count: -1})
		s.clock.Sleep(t.Context(), topicsEvery)
		_, err := s.List(t.Context(), ranges)
		if err == nil {
			_, err = s.Read(t.Context(), ranges, discard, nil)
		}
		if !errors.Is(err, batch.ErrInvalid) || !strings.Contains(err.Error(), "grant READ and DESCRIBE") {
			t.Errorf("%v: %v", key, err)
		}
	}
}

// TestPublishIsForLagToolsOnly: without a group nothing is committed; a group that
// is in use by others refuses and that stops nothing; and the publisher is never a
// member.
func TestPublishIsForLagToolsOnly(t *testing.T) {
	c := cluster(t, 1)
	produce(t, c, `{"id":1}`, `{"id":2}`)
	admin := kadm.NewClient(client(t, c))
	s := open(t, c, nil)
	s.Publish(batch.Offsets{all(t, s)[0].TopicPartition: 1})
	s.Close()
	if groups, err := admin.ListGroups(t.Context()); err != nil || len(groups) != 0 {
		t.Errorf("a group without a name: %v %v", groups, err)
	}

	member := client(t, c, kgo.ConsumerGroup("lag"), kgo.ConsumeTopics(topicName), kgo.DisableAutoCommit())
	if member.PollFetches(t.Context()).NumRecords() == 0 {
		t.Fatal("the other consumer reads nothing")
	}
	log := &lines{}
	s = openWith(t, c, func(o *Options) { o.Group = "lag" }, Limits{}, slog.New(slog.NewTextHandler(log, nil)), nil)
	ranges := all(t, s)
	s.Publish(batch.Offsets{ranges[0].TopicPartition: 1})
	if tally := read(t, s, ranges, newReading()); tally.Rows != 2 {
		t.Errorf("%+v", tally)
	}
	groups, err := admin.DescribeGroups(t.Context(), "lag")
	if err != nil || len(groups["lag"].Members) != 1 {
		t.Errorf("members %+v %v", groups["lag"].Members, err)
	}
	s.Close()
	if at := published(t.Context(), t, admin); at != -1 || !strings.Contains(log.String(), "not published") {
		t.Errorf("another's group is at %d; the log says %q", at, log.String())
	}
	member.Close()
	s = open(t, c, func(o *Options) { o.Group = "lag" })
	s.Publish(batch.Offsets{all(t, s)[0].TopicPartition: 2})
	s.Close()
	if at := published(t.Context(), t, admin); at != 2 {
		t.Errorf("after the other one left the group is at %d", at)
	}
	lag, err := admin.Lag(t.Context(), "lag")
	if err != nil || lag["lag"].Lag.Total() != 0 {
		t.Errorf("the lag is %d, %v", lag["lag"].Lag.Total(), err)
	}
}

// lines is a log that several goroutines write.
type lines struct {
	mu sync.Mutex
	b  strings.Builder
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func published(ctx context.Context, t *testing.T, admin *kadm.Client) int64 {
	t.Helper()
	offsets, err := admin.FetchOffsets(ctx, "lag")
	if ctx.Err() != nil {
		t.Fatal("the group's offset was not published")
	}
	if o, ok := offsets.Lookup(topicName, 0); err == nil && ok {
		return o.At
	}
	return -1
}
