package sink

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"

	"github.com/frazil-io/frazil/internal/lake"
)

var clickSchema = arrow.NewSchema([]arrow.Field{
	{Name: "user_id", Type: arrow.PrimitiveTypes.Int64, Nullable: true},
	{Name: "event", Type: arrow.BinaryTypes.String, Nullable: true},
	{Name: "event_time", Type: &arrow.TimestampType{Unit: arrow.Microsecond, TimeZone: "UTC"}, Nullable: true},
	{Name: "page", Type: arrow.BinaryTypes.String, Nullable: true},
	{Name: "session", Type: arrow.BinaryTypes.String, Nullable: true},
	{Name: "duration_ms", Type: arrow.PrimitiveTypes.Int32, Nullable: true},
	{Name: "price", Type: arrow.PrimitiveTypes.Float64, Nullable: true},
	{Name: "referrer", Type: arrow.BinaryTypes.String, Nullable: true},
}, nil)

// clicks are like the records of the workload etl. They lie in as many hours as
// there are partitions.
func clicks(seed uint64, n, partitions int) arrow.RecordBatch {
	b := array.NewRecordBuilder(memory.DefaultAllocator, clickSchema)
	defer b.Release()
	r := rand.New(rand.NewPCG(seed, 7))
	events := []string{"click", "view", "purchase"}
	referrers := []string{"https://www.google.com/", "https://duckduckgo.com/", "https://news.ycombinator.com/", "direct"}
	for i := range n {
		b.Field(0).(*array.Int64Builder).Append(int64(r.IntN(1000000)))
		b.Field(1).(*array.StringBuilder).Append(events[r.IntN(len(events))])
		at := 1_700_000_000_000_000 + int64(i)*100
		if partitions > 1 {
			at += int64(r.IntN(partitions)) * 3_600_000_000
		}
		b.Field(2).(*array.TimestampBuilder).Append(arrow.Timestamp(at))
		b.Field(3).(*array.StringBuilder).Append(fmt.Sprintf("/products/%d/details", r.IntN(5000)))
		b.Field(4).(*array.StringBuilder).Append(fmt.Sprintf("%016x", r.Uint64()))
		b.Field(5).(*array.Int32Builder).Append(int32(r.IntN(60000)))
		b.Field(6).(*array.Float64Builder).Append(float64(r.IntN(50000)) / 100)
		b.Field(7).(*array.StringBuilder).Append(referrers[r.IntN(len(referrers))])
	}
	return b.NewRecordBatch()
}

// BenchmarkWriter writes 750,000 rows an operation, what is left of a million
// records of the workload etl.
func BenchmarkWriter(b *testing.B) {
	for _, partitions := range []int{1, 200} {
		b.Run(fmt.Sprint("partitions=", partitions), func(b *testing.B) {
			dir := b.TempDir()
			c, err := lake.Open(context.Background(), lake.Options{Name: "lake", Type: "sql", URI: filepath.Join(dir, "catalog.db"), Warehouse: filepath.Join(dir, "wh")})
			if err != nil {
				b.Fatal(err)
			}
			defer c.Close()
			o := Options{Pipeline: "p", Table: "ns.t", Create: true}
			if partitions > 1 {
				o.PartitionBy = []string{"hour(event_time)"}
			}
			t, err := Open(context.Background(), c, o, clickSchema, time.Now, slog.New(slog.DiscardHandler))
			if err != nil {
				b.Fatal(err)
			}
			var rows []arrow.RecordBatch
			for k := range uint64(15) {
				rows = append(rows, clicks(k, 50_000, partitions))
			}
			var size, files int64
			begun := cpu()
			var peak uint64
			for n := 0; b.Loop(); n++ {
				w, err := t.Writer(context.Background(), fmt.Sprint("a", n))
				if err != nil {
					b.Fatal(err)
				}
				for k := range rows {
					if err := w.Write(rows[k]); err != nil {
						b.Fatal(err)
					}
					if k == 14 {
						var m runtime.MemStats
						runtime.ReadMemStats(&m)
						peak = max(peak, m.HeapAlloc)
					}
				}
				f, err := w.Close(context.Background())
				if err != nil {
					b.Fatal(err)
				}
				size, files = 0, int64(len(f.files))
				for _, d := range f.files {
					size += d.FileSizeBytes()
				}
			}
			b.ReportMetric((cpu()-begun).Seconds()/float64(b.N), "cpu-s/op")
			b.ReportMetric(float64(size)/750_000, "B/row")
			b.ReportMetric(float64(files), "files")
			b.ReportMetric(float64(peak)/(1<<20), "heap-MiB")
		})
	}
}

// cpu is what the process has used: on a busy machine it says more than time.
func cpu() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
