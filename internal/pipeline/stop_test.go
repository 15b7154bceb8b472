package pipeline

import (
	"context"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"

	"github.com/frazil-io/frazil/internal/config"
	"github.com/frazil-io/frazil/internal/driver"
)

// watcher passes on what a test waits for.
type watcher struct {
	batches chan driver.Progress
	waits   chan string
}

func (w watcher) Batch(p driver.Progress) { w.batches <- p }
func (watcher) Listed(time.Time, int64)   {}
func (watcher) Standby(string)            {}
func (w watcher) Waiting(reason string) {
	select {
	case w.waits <- reason:
	default:
	}
}

// TestStopsWhileKafkaIsAway: when the end is asked for and no batch is under way,
// nobody waits out the grace for a broker that does not answer.
func TestStopsWhileKafkaIsAway(t *testing.T) {
	c, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(1, "clicks"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	spec, err := config.Parse("spec.yaml", fmt.Appendf(nil, `
name: stops
trigger: {interval: 0s}
checkpoint: %[1]q
catalogs: {lake: {type: sql, uri: "%[1]s/catalog.db", warehouse: "%[1]s/warehouse"}}
sources: {clicks: {kafka: {brokers: [%[2]q], topics: [clicks], start: earliest}, format: json, columns: id BIGINT}}
sinks: {ids: {sql: SELECT id FROM clicks, iceberg: {catalog: lake, table: a.ids, create: true}}}
`, t.TempDir(), c.ListenAddrs()[0]), func(string) (string, bool) { return "", false })
	if err != nil {
		t.Fatal(err)
	}
	w := watcher{make(chan driver.Progress, 10), make(chan string, 1)}
	p, err := New(t.Context(), spec, Options{Observer: w, Log: slog.New(slog.DiscardHandler), Grace: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	stop, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- p.Run(t.Context(), stop) }()
	<-w.batches // the anchor
	c.Close()
	for reason := ""; reason == ""; {
		reason = <-w.waits
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
