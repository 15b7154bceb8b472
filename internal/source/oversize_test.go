package source

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/klauspost/compress/s2"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/frazil-io/frazil/internal/batch"
	"github.com/frazil-io/frazil/internal/deadletter"
	"github.com/frazil-io/frazil/internal/source/decode"
)

// TestOversize: a record of one byte more than the limit is bad, whatever makes it so
// large, and its letter has all of it.
func TestOversize(t *testing.T) {
	const most = 1000
	c := cluster(t, 1)
	cl := client(t, c)
	// A null key takes a byte, the value's length two, no headers one.
	id := 0
	value := func(n int) []byte {
		id++
		return fmt.Appendf(nil, `{"id":%d}%*s`, id, n-4-len(`{"id":1}`), "")
	}
	header := kgo.RecordHeader{Key: "h", Value: make([]byte, 10)} // with both lengths
	send(t, cl,
		&kgo.Record{Value: value(most)}, &kgo.Record{Value: value(most + 1)},
		&kgo.Record{Key: make([]byte, 20), Value: value(most - 20)}, &kgo.Record{Key: make([]byte, 21), Value: value(most - 20)},
		&kgo.Record{Value: value(most - 13), Headers: []kgo.RecordHeader{header}}, &kgo.Record{Value: value(most - 12), Headers: []kgo.RecordHeader{header}},
		&kgo.Record{Key: make([]byte, most)}, // a tombstone of no good
	)
	open := func(set func(*Options)) opened {
		return open(t, c, func(o *Options) {
			o.MaxRecordBytes = most
			set(o)
		})
	}
	s := open(func(o *Options) { o.DeadLetters = true })
	var lines []string
	var largest int64
	tally, err := s.Read(t.Context(), all(t, s), newReading().emit(all(t, s)), lettersOf(&lines, &largest))
	if err != nil {
		t.Fatal(err)
	}
	balanced(t, tally)
	if tally.Rows != 3 || tally.DeadLettered != 4 || tally.Bad.Oversize != 4 || len(lines) != 4 {
		t.Fatalf("%+v, %d letters", tally, len(lines))
	}
	if !strings.Contains(lines[0], "code=oversize reason=the record has 1001 bytes, max_record_bytes is 1000") || !strings.Contains(lines[0], "offset=1 ") {
		t.Errorf("letter %.300s", lines[0])
	}
	if strings.Contains(strings.Join(lines, ""), deadletter.Truncated) {
		t.Errorf("a letter is cut: %.300s", lines)
	}
	s = open(func(o *Options) { o.SkipBad = true })
	if tally := read(t, s, all(t, s), newReading()); tally.Skipped != 4 || tally.Bad.Oversize != 4 || tally.Rows != 3 {
		t.Errorf("%+v", tally)
	}
	s = open(func(*Options) {})
	_, err = s.Read(t.Context(), all(t, s), func(arrow.RecordBatch) error { return nil }, nil)
	if !errors.Is(err, batch.ErrInvalid) || !strings.Contains(err.Error(), "offset 1 of") || !strings.Contains(err.Error(), "raise max_record_bytes of source") {
		t.Errorf("error %v", err)
	}
}

// compressed is a batch of records in a codec.
func compressed(t *testing.T, codec uint16, base int64, records ...kmsg.Record) fetchedBatch {
	t.Helper()
	raw := encode(base, int16(codec), -1, records...)
	body := raw[batchHeader:]
	switch codec {
	case codecSnappy:
		framed := append(bytes.Clone(xerialMagic), make([]byte, xerialHeader-len(xerialMagic))...)
		for part := range slices.Chunk(body, 32<<10) {
			block := s2.EncodeSnappy(nil, part)
			framed = append(binary.BigEndian.AppendUint32(framed, uint32(len(block))), block...)
		}
		body = framed
	default:
		compressor, err := kgo.DefaultCompressor(map[uint16]kgo.CompressionCodec{codecGzip: kgo.GzipCompression(), codecLZ4: kgo.Lz4Compression(), codecZstd: kgo.ZstdCompression()}[codec])
		if err != nil {
			t.Fatal(err)
		}
		body, _ = compressor.Compress(&bytes.Buffer{}, body)
	}
	raw = append(bytes.Clone(raw[:batchHeader]), body...)
	binary.BigEndian.PutUint32(raw[posLength:], uint32(len(raw)-posLength-4))
	b, _, err := nextBatch(sealed(raw))
	if err != nil {
		t.Fatal(err)
	}
	return fetchedBatch{recordBatch: b}
}

// workerOf is a worker of JSON with dead letters.
func workerOf(t *testing.T, set func(*Options)) *worker {
	t.Helper()
	o := Options{Name: "s", DeadLetters: true, MaxRecordBytes: recordBytesDefault}
	withPad(&o)
	if set != nil {
		set(&o)
	}
	d, err := o.Decoder()
	if err != nil {
		t.Fatal(err)
	}
	w, err := newWorker(&relation{
		Options: o, stats: &stats{}, log: slog.New(slog.DiscardHandler), sizes: map[batch.TopicPartition]size{},
		schema: arrow.NewSchema(slices.Concat(d.Fields(), decode.PayloadFields(), []arrow.Field{
			{Name: batch.RangeColumn, Type: arrow.PrimitiveTypes.Int32}, {Name: batch.OffsetColumn, Type: arrow.PrimitiveTypes.Int64},
		}), nil),
	})
	if err != nil {
		t.Fatal(err)
	}
	w.start(1, chunkBytesMax, func(batch.Reject) {})
	return w
}

// drained runs a worker over batches and returns the ids of its rows and its letters.
func drained(ctx context.Context, w *worker, end int64, batches ...fetchedBatch) (ids []int64, letters []arrow.RecordBatch, err error) {
	chunks := make(chan chunk)
	done := make(chan error)
	go func() {
		defer close(chunks)
		err := w.piece(ctx, piece{share: &share{Range: batch.Range{End: end}}, batches: batches}, chunks)
		if err == nil {
			err = w.flush(ctx, chunks)
		}
		done <- err
	}()
	for {
		select {
		case c, ok := <-chunks:
			switch {
			case !ok:
				chunks = nil
			case c.letters:
				letters = append(letters, c.rows)
			default:
				ids = append(ids, c.rows.Column(0).(*array.Int64).Int64Values()...)
			}
		case err := <-done:
			return ids, letters, err
		}
	}
}

// TestLargeBatches are read record by record where they do not fit in memory: a
// record that is too large is a letter that says that it is cut, and the others of
// its batch are rows.
func TestLargeBatches(t *testing.T) {
	large := append([]byte(`{"id":2,"pad":"`), make([]byte, payloadMax)...)
	records := []kmsg.Record{
		{Value: []byte(`{"id":1}`)},
		{Key: []byte("key"), Value: large, Headers: []kmsg.Header{{Key: "h", Value: []byte("v")}, {Key: "n"}}, TimestampDelta64: 7},
		{Value: []byte(`{"id":3`)},
		{Key: []byte("k4"), Value: []byte(`{"id":4}`)},
	}
	for codec, name := range map[uint16]string{codecGzip: "gzip", codecSnappy: "snappy", codecLZ4: "lz4", codecZstd: "zstd"} {
		w := workerOf(t, nil)
		ids, letters, err := drained(t.Context(), w, 100, compressed(t, codec, 10, records...), compressed(t, codec, 14, records[0]))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if !slices.Equal(ids, []int64{1, 4, 1}) || w.tally.Data != 5 || w.tally.Bad.Oversize != 1 || w.tally.Bad.Decode != 1 || w.tally.DeadLettered != 2 {
			t.Errorf("%s: ids %v, %+v", name, ids, w.tally)
		}
		if want := int64(3*8 + 7 + 2 + 3 + len(large)); w.tally.Bytes != want {
			t.Errorf("%s: %d bytes, want %d", name, w.tally.Bytes, want)
		}
		l := letters[0]
		text := func(column string) string { return l.Column(l.Schema().FieldIndices(column)[0]).ValueStr(0) }
		value := l.Column(5).(*array.Binary).Value(0)
		whole := len(large) + len("key") + 1 + 4 + 1 + 4 + 3 // the lengths of key and value, how many headers there are, and the headers with theirs
		if text("offset") != "11" || text("code") != "oversize" || !bytes.Equal(value, large[:payloadKept]) || text("timestamp") != "1970-01-01T00:00:01.007Z" {
			t.Errorf("%s: letter %.300s", name, l.Column(6))
		}
		if want := fmt.Sprintf(`[{"key":%q,"value":%q}]`, deadletter.Truncated, base64of(whole)); text("headers") != want {
			t.Errorf("%s: headers %s, want %s", name, text("headers"), want)
		}
		if !strings.Contains(text("reason"), fmt.Sprintf("the record has %d bytes", whole)) || !strings.Contains(text("reason"), "the first 65536 bytes") {
			t.Errorf("%s: %s", name, text("reason"))
		}
	}
}

// TestLargeBatchesAreWhole: records of a batch that is not held are the same as those
// of one that is, and what is behind the last one is an error.
func TestLargeBatchesAreWhole(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	var records []kmsg.Record
	for i := range 300 {
		k := kmsg.Record{Value: fmt.Appendf(nil, `{"id":%d,"pad":"%s"}`, i, strings.Repeat("y", r.IntN(1000))), TimestampDelta64: int64(i)}
		if i%3 == 0 {
			k.Key, k.Headers = []byte{byte(i)}, []kmsg.Header{{Key: "a"}, {Key: "b", Value: []byte{}}}
		}
		records = append(records, k)
	}
	for _, codec := range []uint16{codecGzip, codecSnappy, codecLZ4, codecZstd} {
		b := compressed(t, codec, 5, records...).recordBatch
		data, err := newUnpacker().records(b)
		if err != nil {
			t.Fatal(err)
		}
		held, streamed := b.walk(data, nil), b.walk(nil, nil)
		if streamed.flow, err = newFlow(t.Context(), b, payloadMax); err != nil {
			t.Fatal(err)
		}
		for n := 0; ; n++ {
			more := held.next()
			if got := streamed.next(); got != more {
				t.Fatalf("codec %d: record %d: %t, want %t: %v", codec, n, got, more, streamed.err)
			}
			if !more {
				break
			}
			if got, want := fmt.Sprintf("%d %d %d %+q", streamed.offset, streamed.timestamp, streamed.bytes, streamed.Record), fmt.Sprintf("%d %d %d %+q", held.offset, held.timestamp, held.bytes, held.Record); got != want {
				t.Fatalf("codec %d: got %s, want %s", codec, got, want)
			}
		}
		if streamed.err != nil {
			t.Fatalf("codec %d: %v", codec, streamed.err)
		}
		for change, count := range map[string]int{"a record more": 301, "a record less": 299} {
			b := b
			b.count = count
			w := b.walk(nil, nil)
			if w.flow, err = newFlow(t.Context(), b, payloadMax); err != nil {
				t.Fatal(err)
			}
			for w.next() {
			}
			if w.err == nil {
				t.Errorf("codec %d: %s in the header, and no error", codec, change)
			}
			w.close()
		}
		ctx, cancel := context.WithCancelCause(t.Context())
		stop := errors.New("stop")
		cancel(stop)
		f, err := newFlow(ctx, b, payloadMax)
		if err != nil {
			t.Fatal(err)
		}
		w := b.walk(nil, nil)
		if w.flow = f; w.next() || !errors.Is(w.err, stop) {
			t.Errorf("codec %d: a context that ended: %v", codec, w.err)
		}
	}
}

func base64of(n int) string { return base64.StdEncoding.EncodeToString([]byte(strconv.Itoa(n))) }

// FuzzFlow: whatever the bytes of a batch are, what is read record by record is what
// is read from memory, or both are wrong.
func FuzzFlow(f *testing.F) {
	raw := sample()
	f.Add(raw[batchHeader:], uint8(3))
	long := encode(100, 0, -1, kmsg.Record{Value: make([]byte, 2*payloadKept)}, kmsg.Record{Value: []byte("short")})
	f.Add(long[batchHeader:], uint8(2))
	f.Add([]byte{2, 0}, uint8(1))
	f.Fuzz(func(t *testing.T, body []byte, count uint8) {
		block := s2.EncodeSnappy(nil, body)
		b := recordBatch{raw: append(make([]byte, batchHeader), block...), attr: codecSnappy, base: 100, last: 110, count: int(count)}
		for _, most := range []int{0, 20, payloadMax} {
			held, streamed := b.walk(body, nil), b.walk(nil, nil)
			flow, err := newFlow(t.Context(), b, most)
			if err != nil {
				t.Fatal(err)
			}
			streamed.flow = flow
			for held.next() {
				if !streamed.next() {
					t.Fatalf("%x: one record less: %v", body, streamed.err)
				}
				if streamed.offset != held.offset || streamed.bytes != held.bytes || streamed.timestamp != held.timestamp || !bytes.HasPrefix(held.Value, streamed.Value) || (held.Value == nil) != (streamed.Value == nil) ||
					int64(len(streamed.Value)+len(streamed.Key))+streamed.missing != int64(len(held.Value)+len(held.Key)) {
					t.Fatalf("%x: %+v, want %+v", body, streamed, held)
				}
			}
			if streamed.next() || (streamed.err == nil) != (held.err == nil) {
				t.Fatalf("%x: %v, want %v", body, streamed.err, held.err)
			}
		}
	})
}
