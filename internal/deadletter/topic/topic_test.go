package topic

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/frazil-io/frazil/internal/batch"
	"github.com/frazil-io/frazil/internal/deadletter"
	"github.com/frazil-io/frazil/internal/kafka"
)

// noise is not made smaller by compression.
func noise(n int) []byte {
	out, x := make([]byte, n), uint64(88172645463325252)
	for i := range out {
		x ^= x << 13
		x ^= x >> 7
		x ^= x << 17
		out[i] = byte(x)
	}
	return out
}

// TestLargeLetters reach a topic that takes them, each alone, however many there are
// and beside small ones; one that it does not take is an error that names it.
func TestLargeLetters(t *testing.T) {
	to := opened(t, "4000000")
	// Two of three million would not fit into one batch, nor all of 500 kB each.
	sizes := []int{10, 3_000_000, 3_000_000, 500_000, 500_000, 500_000, 500_000, 500_000, 500_000, 500_000, 500_000, 500_000, 950_000, 899_000, 3_990_000, 10}
	if sent, err := to.send(t, sizes...); err != nil || int(sent) != len(sizes) {
		t.Fatalf("%d sent: %v", sent, err)
	}
	to.refuses(t, []int{10, 4_100_000}, "offset 1 of clicks/2", "max.message.bytes", "topic bad")
}

// TestSmallTopic: a topic that takes less than a batch of the client gets letters one
// by one, and only the one that is too large itself is named.
func TestSmallTopic(t *testing.T) {
	to := opened(t, "20000")
	sizes := slices.Repeat([]int{1500}, 400)
	if sent, err := to.send(t, sizes...); err != nil || int(sent) != len(sizes) {
		t.Fatalf("%d sent: %v", sent, err)
	}
	if got := len(to.letters(t)); got != len(sizes) {
		t.Errorf("the topic has %d letters, want %d", got, len(sizes))
	}
	sizes[222] = 21_000
	to.refuses(t, sizes, "offset 222 of clicks/2", "max.message.bytes")
}

// TestRefusedForGood: what a topic will not take the next time either ends the batch
// rather than repeating it.
func TestRefusedForGood(t *testing.T) {
	for _, c := range []struct {
		code *kerr.Error
		want string
	}{{kerr.InvalidRecord, "cleanup.policy"}, {kerr.RecordListTooLarge, "segment.bytes"}, {kerr.TopicAuthorizationFailed, "grant WRITE"}, {kerr.ClusterAuthorizationFailed, "grant WRITE"}} {
		to := opened(t, "1000000")
		to.cluster.ControlKey(int16(kmsg.Produce), func(req kmsg.Request) (kmsg.Response, error, bool) {
			to.cluster.KeepControl()
			in := req.(*kmsg.ProduceRequest)
			out := in.ResponseKind().(*kmsg.ProduceResponse)
			for _, topic := range in.Topics {
				one := kmsg.NewProduceResponseTopic()
				one.Topic, one.TopicID = topic.Topic, topic.TopicID
				for _, p := range topic.Partitions {
					part := kmsg.NewProduceResponseTopicPartition()
					part.Partition, part.ErrorCode = p.Partition, c.code.Code
					one.Partitions = append(one.Partitions, part)
				}
				out.Topics = append(out.Topics, one)
			}
			return out, nil, true
		})
		to.refuses(t, []int{10, 10}, c.want, "topic bad")
	}
}

// small is a topic that takes messages up to a size.
type small struct {
	*Topic
	cluster *kfake.Cluster
}

func opened(t *testing.T, most string) small {
	t.Helper()
	c, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(1, "bad"), kfake.BrokerConfigs(map[string]string{"message.max.bytes": most}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	o := kafka.Options{Brokers: c.ListenAddrs()}
	open := func(opts []kgo.Opt) *kgo.Client {
		cl, err := kafka.NewClient(o, opts...)
		if err != nil {
			t.Fatal(err)
		}
		return cl
	}
	to := New(open(ClientOptions()), open(LargeOptions()), o, "bad")
	t.Cleanup(to.Close)
	return small{to, c}
}

// send sends letters with values of these sizes.
func (s small) send(t *testing.T, sizes ...int) (Sent, error) {
	t.Helper()
	w, err := s.Writer(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	b := deadletter.NewBuilder()
	defer b.Release()
	for i, n := range sizes {
		b.Add(deadletter.Letter{Topic: "clicks", Partition: 2, Offset: int64(i), Value: noise(n), Source: "s", Code: batch.CodeOversize, Reason: "large"})
	}
	rows := b.Take()
	defer rows.Release()
	sealed := deadletter.Seal(rows, deadletter.Origin{Pipeline: "p", Stream: batch.StreamMain, Batch: 7, Time: time.Unix(0, 0)})
	defer sealed.Release()
	if err := w.Write(sealed); err != nil {
		return 0, err
	}
	return w.Close(t.Context())
}

// refuses checks that letters of these sizes end the batch with an error that says
// what to do.
func (s small) refuses(t *testing.T, sizes []int, wants ...string) {
	t.Helper()
	_, err := s.send(t, sizes...)
	if !errors.Is(err, batch.ErrInvalid) {
		t.Fatalf("error %v", err)
	}
	for _, want := range wants {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %q", err, want)
		}
	}
}

// letters are the offsets that the topic has letters of, each once.
func (s small) letters(t *testing.T) map[string]bool {
	t.Helper()
	cl, err := kgo.NewClient(kgo.SeedBrokers(s.cluster.ListenAddrs()...), kgo.ConsumeTopics("bad"), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	ends, err := kadm.NewClient(cl).ListEndOffsets(t.Context(), "bad")
	if err != nil {
		t.Fatal(err)
	}
	end, _ := ends.Lookup("bad", 0)
	found := map[string]bool{}
	for read := int64(0); read < end.Offset; {
		for _, r := range cl.PollFetches(t.Context()).Records() {
			found[header(r, "offset")] = true
			read = r.Offset + 1
		}
	}
	return found
}
