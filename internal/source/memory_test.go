package source

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/klauspost/compress/gzip"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/frazil-io/frazil/internal/batch"
	"github.com/frazil-io/frazil/internal/source/decode"
)

func withPad(o *Options) {
	o.Decoder = func() (decode.Decoder, error) {
		fields, err := decode.ParseColumns("id BIGINT, pad VARCHAR")
		if err != nil {
			return nil, err
		}
		return decode.New("json", fields, decode.Options{})
	}
}

func padded(partition int32, id, size int) *kgo.Record {
	return &kgo.Record{Partition: partition, Value: fmt.Appendf(nil, `{"id":%d,"pad":%q}`, id, strings.Repeat("x", size))}
}

// TestLargeRecords come through whole, alone and among small ones.
func TestLargeRecords(t *testing.T) {
	c := cluster(t, 2)
	cl := client(t, c)
	sizes := []int{10, 1 << 20, 20 << 20, 10, 1 << 20, 1 << 20, 5 << 20, 10}
	for i, size := range sizes {
		send(t, cl, padded(int32(i%2), i, size))
	}
	s := openWith(t, c, withPad, Limits{Memory: memoryMin}, slog.New(slog.DiscardHandler), nil)
	got := newReading()
	if tally := read(t, s, all(t, s), got); int(tally.Rows) != len(sizes) || tally.Bytes < 28<<20 {
		t.Fatalf("%+v", tally)
	}
}

// TestMemoryIsBounded: a reader that is slower than the brokers does not pile up
// what they send, and record batches stay small.
func TestMemoryIsBounded(t *testing.T) {
	const partitions, records, size = 8, 100, 64 << 10
	c := cluster(t, partitions)
	cl := client(t, c)
	for p := range int32(partitions) {
		for i := range records { // one batch each
			send(t, cl, padded(p, int(p)*records+i, size))
		}
	}
	limits := Limits{Memory: 16 << 20, Workers: 2}
	s := openWith(t, c, withPad, limits, slog.New(slog.DiscardHandler), nil)
	whole := all(t, s)
	var emitted, largest atomic.Int64
	for _, part := range [][2]int64{{0, 33}, {33, 34}, {34, 100}} {
		ranges := append([]batch.Range{}, whole...)
		for i := range ranges {
			ranges[i].Start, ranges[i].End = part[0], part[1]
		}
		_, err := s.Read(t.Context(), ranges, func(rows arrow.RecordBatch) error {
			// Let the fetcher go as far as it can.
			for last := int64(-1); last != s.Stats().FetchedBytes; last = s.Stats().FetchedBytes {
				for range 100 {
					s.clock.Sleep(t.Context(), 0)
				}
			}
			emitted.Add(rows.NumRows())
			bytes := rows.NumRows() * size
			for was := largest.Load(); bytes > was && !largest.CompareAndSwap(was, bytes); was = largest.Load() {
			}
			return nil
		}, nil)
		if err != nil {
			t.Fatal(err)
		}
	}
	if n := emitted.Load(); n != partitions*records {
		t.Fatalf("%d rows", n)
	}
	// What is queued and carried over, and one batch that a broker sends beyond
	// what was asked for.
	bound := limits.Memory/queueShare + limits.Memory/carryShare + 2*size
	if stats := s.Stats(); stats.BufferedPeak > bound || stats.Buffered > limits.Memory/carryShare {
		t.Errorf("%+v, want at most %d", stats, bound)
	}
	if most := int64(limits.chunkBytes() + 2*size); largest.Load() > most {
		t.Errorf("a record batch has %d bytes, want at most %d", largest.Load(), most)
	}
}

// TestCarryHasABound over many partitions.
func TestCarryHasABound(t *testing.T) {
	st := &stats{}
	c := newCarry(100, 100, st)
	more := map[batch.TopicPartition]surplus{}
	for p := range int32(10) {
		more[batch.TopicPartition{Source: "a", Partition: p}] = surplus{from: 5, next: 9, bytes: 30, batches: make([]fetchedBatch, 1)}
	}
	c.put(more)
	if len(c.kept) != 3 || st.buffered.Load() != 90 {
		t.Fatalf("%d kept, %d bytes", len(c.kept), st.buffered.Load())
	}
	c.only("b", nil)
	if len(c.kept) != 3 {
		t.Fatal("another source's was dropped")
	}
	c.only("a", nil)
	if len(c.kept) != 0 || st.buffered.Load() != 0 || c.held != 0 {
		t.Fatalf("%d kept, %d bytes", len(c.kept), st.buffered.Load())
	}
}

// TestSurplusHasABound while it is gathered, and never has a gap.
func TestSurplusHasABound(t *testing.T) {
	var batches []fetchedBatch
	for base := range int64(10) {
		b, _, err := nextBatch(encode(base, 0, -1, kmsg.Record{Value: []byte("v")}))
		if err != nil {
			t.Fatal(err)
		}
		batches = append(batches, fetchedBatch{recordBatch: b})
	}
	one := int64(len(batches[0].raw))
	f := &fetcher{room: 3*one + 1, surplus: map[batch.TopicPartition]surplus{}}
	p := f.take(&share{Range: batch.Range{End: 2}}, batches, 7)
	more := f.surplus[batch.TopicPartition{}]
	if len(p.batches) != 2 || len(more.batches) != 3 || more.from != 2 || more.next != 5 || more.bytes != 3*one || more.epoch != 7 {
		t.Fatalf("%d batches, %+v", len(p.batches), more)
	}
}

// TestFailedReadDropsTheCarry of all partitions, so that the next one reads
// everything anew.
func TestFailedReadDropsTheCarry(t *testing.T) {
	c := cluster(t, 2)
	cl := client(t, c)
	send(t, cl, ids(0, 0, 10)...)
	send(t, cl, ids(1, 10, 20)...)
	s := open(t, c, nil)
	ranges := all(t, s)
	ranges[0].End, ranges[1].End = 5, 5
	read(t, s, ranges, newReading())
	if s.Stats().Buffered == 0 {
		t.Fatal("nothing was carried over")
	}
	ranges[0].Start, ranges[0].End = 5, 8
	if _, err := s.Read(t.Context(), ranges[:1], func(arrow.RecordBatch) error { return errors.New("no") }, nil); err == nil {
		t.Fatal("no error")
	}
	if s.Stats().Buffered != 0 {
		t.Fatalf("%+v", s.Stats())
	}
	got := newReading()
	if read(t, s, ranges[:1], got); len(got.ids) != 3 {
		t.Fatalf("%v", got.ids)
	}
}

// TestCompressedValuesCountInFull: record batches stay small though a few bytes of
// each record become many.
func TestCompressedValuesCountInFull(t *testing.T) {
	const records, size = 200, 256 << 10
	c := cluster(t, 1)
	cl := client(t, c)
	zeros := &bytes.Buffer{}
	w := gzip.NewWriter(zeros)
	w.Write(make([]byte, size))
	w.Close()
	for range records {
		send(t, cl, &kgo.Record{Value: zeros.Bytes()})
	}
	limits := Limits{Memory: 16 << 20, Workers: 1}
	s := openWith(t, c, func(o *Options) {
		o.Decoder = func() (decode.Decoder, error) {
			return decode.New("raw", nil, decode.Options{Encoding: decode.EncodingGzip})
		}
	}, limits, slog.New(slog.DiscardHandler), nil)
	rows, largest := int64(0), int64(0)
	_, err := s.Read(t.Context(), all(t, s), func(b arrow.RecordBatch) error {
		rows, largest = rows+b.NumRows(), max(largest, b.NumRows())
		return nil
	}, nil)
	if most := int64(limits.chunkBytes()/size + 1); err != nil || rows != records || largest > most {
		t.Errorf("%d rows, up to %d in one batch, want %d at most: %v", rows, largest, most, err)
	}
}
