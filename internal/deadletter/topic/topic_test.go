package topic

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

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
	c, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(1, "bad"), kfake.BrokerConfigs(map[string]string{"message.max.bytes": "4000000"}))
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
	send := func(sizes ...int) (Sent, error) {
		w, err := to.Writer(t.Context())
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
	// Two of three million would not fit into one batch, nor all of 500 kB each.
	sizes := []int{10, 3_000_000, 3_000_000, 500_000, 500_000, 500_000, 500_000, 500_000, 500_000, 500_000, 500_000, 500_000, 950_000, 899_000, 3_990_000, 10}
	if sent, err := send(sizes...); err != nil || int(sent) != len(sizes) {
		t.Fatalf("%d sent: %v", sent, err)
	}
	_, err = send(10, 4_100_000)
	if !errors.Is(err, batch.ErrInvalid) {
		t.Fatalf("error %v", err)
	}
	for _, want := range []string{"offset 1 of clicks/2", "max.message.bytes", "topic bad"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %q", err, want)
		}
	}
}
