package pipeline

import (
	"fmt"
	"log/slog"
	"runtime"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/frazil-io/frazil/internal/config"
)

// BenchmarkRoutes is a batch with a row for each of many tables, in the embedded
// catalog and on a local disk: their first one, which makes them, one more, and
// opening the pipeline without a new record.
func BenchmarkRoutes(b *testing.B) {
	for _, tables := range []int{100, 1000} {
		b.Run(fmt.Sprint(tables), func(b *testing.B) {
			c, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(2, "events"))
			if err != nil {
				b.Fatal(err)
			}
			defer c.Close()
			client, err := kgo.NewClient(kgo.SeedBrokers(c.ListenAddrs()...), kgo.DefaultProduceTopic("events"))
			if err != nil {
				b.Fatal(err)
			}
			defer client.Close()
			spec, err := config.Parse("spec.yaml", fmt.Appendf(nil, `
name: many
trigger: {available_now: true}
checkpoint: "%[1]s/checkpoint"
memory: 512MiB
catalogs: {lake: {type: sql, uri: "%[1]s/catalog.db", warehouse: "%[1]s/warehouse"}}
sources: {events: {kafka: {brokers: [%[2]q], topics: [events], start: earliest}, format: json, columns: "id BIGINT, kind BIGINT"}}
sinks: {raw: {sql: SELECT * FROM events, iceberg: {catalog: lake, table: "raw.t${kind}", max_tables: 10000}}}
`, b.TempDir(), c.ListenAddrs()[0]), func(string) (string, bool) { return "", false })
			if err != nil {
				b.Fatal(err)
			}
			run := func(produce bool) time.Duration {
				if produce {
					for i := range tables {
						client.Produce(b.Context(), &kgo.Record{Value: fmt.Appendf(nil, `{"id":1,"kind":%d}`, i)}, nil)
					}
					if err := client.Flush(b.Context()); err != nil {
						b.Fatal(err)
					}
				}
				begun := time.Now()
				p, err := New(b.Context(), spec, Options{Log: slog.New(slog.DiscardHandler)})
				if err != nil {
					b.Fatal(err)
				}
				defer p.Close()
				if err := p.Run(b.Context(), b.Context()); err != nil {
					b.Fatal(err)
				}
				return time.Since(begun)
			}
			made := run(true)
			var open, batch time.Duration
			for b.Loop() {
				open += run(false)
				batch += run(true)
			}
			n := float64(b.N)
			b.ReportMetric(0, "ns/op")
			b.ReportMetric(made.Seconds(), "s-to-make")
			b.ReportMetric(open.Seconds()/n, "s-to-open")
			b.ReportMetric((batch-open).Seconds()/n, "s/batch")
			var m runtime.MemStats
			runtime.ReadMemStats(&m)
			b.ReportMetric(float64(m.Sys>>20), "MiB")
		})
	}
}
