// Package demo is what `frazil demo` embeds: a Kafka broker that keeps its data
// in a directory, and a generator whose every record can be told from its index.
package demo

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/frazil-io/frazil/internal/batch"
)

// Topic is where the generator's clicks go, Partitions how many it has.
const (
	Topic      = "clicks"
	Partitions = 4
)

// Broker is an embedded Kafka broker. Its data outlives it.
type Broker struct {
	cluster *kfake.Cluster
	lock    *os.File
}

// StartBroker starts a broker on a port of the loopback interface; 0 picks one.
func StartBroker(dir string, port int) (*Broker, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("%w: %w", batch.ErrInvalid, err)
	}
	lock, err := lockFolder(dir)
	if err != nil {
		return nil, err
	}
	b, err := startBroker(dir, port)
	if err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	b.lock = lock
	return b, nil
}

// lockFolder makes sure that one broker alone writes a folder: two would damage
// its topics for good. The lock ends with the process, however that ends.
func lockFolder(dir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", batch.ErrInvalid, err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return nil, errors.Join(fmt.Errorf("%w: another demo uses %s; end it, or give this one another folder with --data", batch.ErrInvalid, dir), f.Close())
	}
	return f, nil
}

func startBroker(dir string, port int) (*Broker, error) {
	// The stored topics carry the broker's address: it keeps its port.
	portFile := filepath.Join(dir, "port")
	if data, err := os.ReadFile(portFile); err == nil && port == 0 {
		port, _ = strconv.Atoi(string(data))
	}
	if port == 0 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		port = l.Addr().(*net.TCPAddr).Port
		if err := l.Close(); err != nil {
			return nil, err
		}
	}
	c, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.Ports(port), kfake.DataDir(filepath.Join(dir, "data")), kfake.SyncWrites(), kfake.SeedTopics(Partitions, Topic))
	if err != nil {
		return nil, fmt.Errorf("start the embedded broker on port %d: %w: %w", port, batch.ErrUnavailable, err)
	}
	if err := os.WriteFile(portFile, []byte(strconv.Itoa(port)), 0o644); err != nil {
		c.Close()
		return nil, err
	}
	return &Broker{cluster: c}, nil
}

// Addr is the broker's host:port.
func (b *Broker) Addr() string { return b.cluster.ListenAddrs()[0] }

// Close ends the broker; its data stays.
func (b *Broker) Close() {
	b.cluster.Close()
	_ = b.lock.Close() // which lets go of the folder
}

var (
	events    = []string{"click", "view", "scroll", "buy"}
	referrers = []string{"https://www.example.com/search?q=ice", "https://news.example.org/", "direct", "https://social.example.net/feed"}
	epoch     = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
)

// Record is click i, always the same, and whether the example's SQL keeps it:
// scrolls are left out.
func Record(i int64) (value []byte, kept bool) {
	r := rand.New(rand.NewPCG(uint64(i), 7))
	event := events[r.IntN(len(events))]
	at := epoch.Add(time.Duration(i) * 100 * time.Microsecond)
	value = fmt.Appendf(make([]byte, 0, 256), `{"user_id":%d,"event":"%s","event_time":"%s","page":"/products/%d/details","session":"%016x","duration_ms":%d,"price":%.2f,"referrer":"%s"}`,
		r.IntN(1000000), event, at.Format("2006-01-02T15:04:05.000Z"), r.IntN(5000), r.Uint64(), r.IntN(60000), r.Float64()*500, referrers[r.IntN(len(referrers))])
	return value, event != "scroll"
}

// Account counts what the topic holds up to these ends of its partitions, by
// making every record again: how many there are and how many the example's SQL
// keeps.
func Account(ends []int64) (records, kept int64) {
	for p, end := range ends {
		for k := range end {
			if _, keeps := Record(k*Partitions + int64(p)); keeps {
				kept++
			}
		}
		records += end
	}
	return records, kept
}

// Generate produces records from where the topic ends up to total, rate a second
// (0: as fast as it goes). Record i is in partition i modulo Partitions, so the
// topic's ends say which one is next.
func Generate(ctx context.Context, broker string, total int64, rate int) error {
	client, err := kgo.NewClient(kgo.SeedBrokers(broker), kgo.DefaultProduceTopic(Topic), kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.ProducerBatchCompression(kgo.Lz4Compression()), kgo.MaxBufferedRecords(50000), kgo.ProducerLinger(5*time.Millisecond))
	if err != nil {
		return err
	}
	defer client.Close()
	have, err := ends(ctx, client)
	if err != nil {
		return err
	}
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	per := int64(max(1, rate/20))
	var failed error
	sent := int64(0)
	for i := int64(0); i < total && ctx.Err() == nil; i++ {
		p := int32(i % Partitions)
		if i/Partitions < have[p] {
			continue // there from an earlier run
		}
		value, _ := Record(i)
		client.Produce(ctx, &kgo.Record{Partition: p, Value: value}, func(_ *kgo.Record, err error) {
			if err != nil && !errors.Is(err, context.Canceled) {
				failed = err
			}
		})
		if sent++; rate > 0 && sent%per == 0 {
			select {
			case <-tick.C:
			case <-ctx.Done():
			}
		}
	}
	if err := client.Flush(context.WithoutCancel(ctx)); err != nil {
		return err
	}
	return failed
}

// Ends are how many records each partition of the topic holds.
func Ends(ctx context.Context, broker string) ([]int64, error) {
	client, err := kgo.NewClient(kgo.SeedBrokers(broker))
	if err != nil {
		return nil, err
	}
	defer client.Close()
	return ends(ctx, client)
}

func ends(ctx context.Context, client *kgo.Client) ([]int64, error) {
	listed, err := kadm.NewClient(client).ListEndOffsets(ctx, Topic)
	if err == nil {
		err = listed.Error()
	}
	if err != nil {
		return nil, err
	}
	all := make([]int64, Partitions)
	listed.Each(func(l kadm.ListedOffset) {
		if int(l.Partition) < len(all) {
			all[l.Partition] = l.Offset
		}
	})
	return all, nil
}
