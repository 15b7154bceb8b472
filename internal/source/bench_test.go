package source

import (
	"fmt"
	"log/slog"
	"testing"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/frazil-io/frazil/internal/batch"
	"github.com/frazil-io/frazil/internal/source/decode"
)

func raw(o *Options) {
	o.Decoder = func() (decode.Decoder, error) { return decode.New("raw", nil, decode.Options{}) }
}

// clickRecord is as long as the workload's, 207 bytes.
func clickRecord(i int) *kgo.Record {
	return &kgo.Record{Partition: int32(i % 4), Value: fmt.Appendf(nil,
		`{"user_id":%d,"session":"%032x","event":"click","page":"/products/%04d","referrer":"https://example.org/","event_time":"2026-01-02T03:04:05.678901Z","duration_ms":%d,"price":%d.25}`,
		i*7919%100_000, i*104_729, i%5000, i%977, i%90)}
}

// BenchmarkRead fetches and decodes everything; the broker is in the same
// process.
func BenchmarkRead(b *testing.B) {
	const records = 200_000
	c := cluster(b, 4)
	cl := client(b, c, kgo.ProducerBatchCompression(kgo.Lz4Compression()), kgo.ProducerBatchMaxBytes(1<<20))
	for i := 0; i < records; i += 10_000 {
		var some []*kgo.Record
		for j := range 10_000 {
			some = append(some, clickRecord(i+j))
		}
		send(b, cl, some...)
	}
	s := openWith(b, c, raw, Limits{}, slog.New(slog.DiscardHandler), nil)
	ranges := all(b, s)
	b.ReportAllocs()
	b.ResetTimer()
	for b.Loop() {
		tally, err := s.Read(b.Context(), ranges, func(arrow.RecordBatch) error { return nil }, nil)
		if err != nil || tally.Rows != records {
			b.Fatal(tally, err)
		}
	}
	b.ReportMetric(float64(b.N)*records/b.Elapsed().Seconds(), "records/s")
}

// BenchmarkWorker is the CPU of one worker alone: checksum, decompression, walk
// and the raw decoder.
func BenchmarkWorker(b *testing.B) {
	codecs := map[string]kgo.CompressionCodec{"none": kgo.NoCompression(), "lz4": kgo.Lz4Compression(), "snappy": kgo.SnappyCompression(), "zstd": kgo.ZstdCompression(), "gzip": kgo.GzipCompression()}
	for name, codec := range codecs {
		b.Run(name, func(b *testing.B) {
			const records = 20_000
			c := cluster(b, 4)
			cl := client(b, c, kgo.ProducerBatchCompression(codec), kgo.ProducerBatchMaxBytes(1<<20))
			var some []*kgo.Record
			for i := range records {
				r := clickRecord(i)
				r.Partition = 0
				some = append(some, r)
			}
			send(b, cl, some...)
			s := openWith(b, c, raw, Limits{}, slog.New(slog.DiscardHandler), nil)
			r := s.relations[0]
			in := fetched(b, s)
			w, err := newWorker(r)
			if err != nil {
				b.Fatal(err)
			}
			chunks := make(chan chunk, 1)
			b.ReportAllocs()
			b.ResetTimer()
			for b.Loop() {
				w.start(1, chunkBytesMax, s.onSkip)
				sh := &share{Range: batch.Range{Start: 0, End: records}}
				p := piece{share: sh}
				for rest := in; len(rest) > 0; {
					var rb recordBatch
					if rb, rest, err = nextBatch(rest); err != nil {
						b.Fatal(err)
					}
					p.batches = append(p.batches, fetchedBatch{recordBatch: rb})
				}
				if err := w.piece(b.Context(), p, chunks); err != nil {
					b.Fatal(err)
				}
				if err := w.flush(b.Context(), chunks); err != nil {
					b.Fatal(err)
				}
				(<-chunks).rows.Release()
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/records, "ns/record")
		})
	}
}

// fetched returns a partition's bytes as its broker sends them.
func fetched(b *testing.B, s opened) []byte {
	b.Helper()
	ranges := all(b, s)
	r := s.relations[0]
	topics, err := r.metadata(b.Context(), anyAge)
	if err != nil {
		b.Fatal(err)
	}
	size := fetchSize{fetchWait, 64 << 20, 64 << 20}
	sh := &share{Range: ranges[0]}
	resp, err := r.request(b.Context(), topics[topicName].leaders[0].broker, []*share{sh}, topics, size)
	if err != nil {
		b.Fatal(err)
	}
	return resp.Topics[0].Partitions[0].RecordBatches
}
