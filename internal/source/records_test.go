package source

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/frazil-io/frazil/internal/batch"
)

// encode makes a batch of format 2 with the help of kmsg.
func encode(base int64, attr int16, producer int64, records ...kmsg.Record) []byte {
	var body []byte
	for i, r := range records {
		r.OffsetDelta = int32(i)
		r.Length = 0
		r.Length = int32(len(r.AppendTo(nil))) - 1 // without the length itself
		body = r.AppendTo(body)
	}
	b := kmsg.RecordBatch{
		FirstOffset: base, Magic: 2, Attributes: attr, LastOffsetDelta: int32(len(records)) - 1, FirstTimestamp: 1000, MaxTimestamp: 9000,
		ProducerID: producer, NumRecords: int32(len(records)), Records: body, Length: int32(batchHeader - posLength - 4 + len(body)),
	}
	return sealed(b.AppendTo(nil))
}

// sealed sets the checksum.
func sealed(raw []byte) []byte {
	binary.BigEndian.PutUint32(raw[posCRC:], crc32.Checksum(raw[posAttribute:], castagnoli))
	return raw
}

func changed(raw []byte, change func([]byte)) []byte {
	raw = bytes.Clone(raw)
	change(raw)
	return raw
}

func sample() []byte {
	return encode(100, 0, -1,
		kmsg.Record{Key: []byte("k"), Value: []byte("v"), Headers: []kmsg.Header{{Key: "h", Value: []byte("x")}, {Key: "null"}}, TimestampDelta64: 5},
		kmsg.Record{Value: []byte{}},
		kmsg.Record{Key: []byte(strings.Repeat("long", 100))},
	)
}

func TestWalk(t *testing.T) {
	b, rest, err := nextBatch(append(sample(), 1, 2, 3))
	if err != nil || b.base != 100 || b.last != 102 || len(rest) != 3 {
		t.Fatalf("%+v %v", b, err)
	}
	w := b.walk(b.raw[batchHeader:], nil)
	if !w.next() || w.offset != 100 || w.timestamp != 1005 || string(w.Key) != "k" || string(w.Value) != "v" ||
		len(w.Headers) != 2 || string(w.Headers[0].Key) != "h" || string(w.Headers[0].Value) != "x" || w.Headers[1].Value != nil {
		t.Fatalf("first: %+v", w)
	}
	if !w.next() || w.offset != 101 || w.Key != nil || w.Value == nil || len(w.Value) != 0 || len(w.Headers) != 0 {
		t.Fatalf("second, an empty value is not null: %+v", w)
	}
	if !w.next() || w.Value != nil || len(w.Key) != 400 {
		t.Fatalf("third, a null value: %+v", w)
	}
	if w.next() || w.err != nil {
		t.Fatalf("behind the last: %v", w.err)
	}
	b.attr = attrAppendTime
	if w = b.walk(b.raw[batchHeader:], nil); !w.next() || w.timestamp != 9000 {
		t.Fatalf("append time %d", w.timestamp)
	}
}

func TestDamagedBatches(t *testing.T) {
	raw := sample()
	for name, test := range map[string]struct {
		in   []byte
		want error
	}{
		"nothing":          {nil, errTruncated},
		"cut in header":    {raw[:40], errTruncated},
		"cut before magic": {raw[:10], errTruncated},
		"cut at the end":   {raw[:len(raw)-1], errTruncated},
		"a flipped bit":    {changed(raw, func(b []byte) { b[len(b)-1] ^= 1 }), batch.ErrUnavailable},
		"format 1":         {changed(raw, func(b []byte) { b[posMagic] = 1 }), batch.ErrInvalid},
		"format 1, short":  {changed(raw, func(b []byte) { b[posMagic] = 1 })[:20], batch.ErrInvalid},
		"small size":       {changed(raw, func(b []byte) { binary.BigEndian.PutUint32(b[posLength:], 10) }), batch.ErrUnavailable},
		"negative size":    {changed(raw, func(b []byte) { binary.BigEndian.PutUint32(b[posLength:], 1<<31) }), batch.ErrUnavailable},
		"negative delta":   {sealed(changed(raw, func(b []byte) { binary.BigEndian.PutUint32(b[posLastDelta:], 1<<31) })), batch.ErrUnavailable},
	} {
		if _, _, err := nextBatch(test.in); !errors.Is(err, test.want) {
			t.Errorf("%s: error %v, want %v", name, err, test.want)
		}
	}
	for name, change := range map[string]func([]byte){
		"more records than there are": func(b []byte) { b[posCount+3]++ },
		"fewer records":               func(b []byte) { b[posCount+3]-- },
		"size beyond the end":         func(b []byte) { b[batchHeader]++ },
		"offset beyond the last":      func(b []byte) { b[posLastDelta+3] = 0 },
		"size of the key":             func(b []byte) { b[batchHeader+4] = 0x7e },
	} {
		b, _, err := nextBatch(sealed(changed(raw, change)))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		w := b.walk(b.raw[batchHeader:], nil)
		for w.next() {
		}
		if w.err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

// FuzzWalk: whatever the bytes, no panic, no endless loop, and no slice from
// outside.
func FuzzWalk(f *testing.F) {
	f.Add(sample())
	f.Add(encode(7, attrControl|attrTransactional, 3, kmsg.Record{Key: []byte{0, 0, 0, 1}, Value: []byte("x")}))
	f.Add(encode(7, 4, -1, kmsg.Record{Value: []byte("not zstd")}))
	f.Fuzz(func(t *testing.T, raw []byte) {
		if len(raw) >= batchHeader {
			raw = sealed(bytes.Clone(raw))
			binary.BigEndian.PutUint32(raw[posLength:], uint32(len(raw)-posLength-4))
		}
		open := newTransactions([]kmsg.FetchResponseTopicPartitionAbortedTransaction{{ProducerID: 3, FirstOffset: 0}})
		u := newUnpacker()
		for in := raw; ; {
			b, rest, err := nextBatch(in)
			if err != nil {
				return
			}
			in = rest
			if _, err := open.passes(b); err != nil {
				return
			}
			data, err := u.records(b)
			if err != nil {
				return
			}
			n := 0
			w := b.walk(data, nil)
			for w.next() {
				if n++; n > b.count || len(w.Key)+len(w.Value) > len(data) || w.offset < b.base || w.offset > b.last {
					t.Fatalf("record %d of %d: %+v", n, b.count, w)
				}
			}
			if w.err == nil && n != max(b.count, 0) {
				t.Fatalf("%d of %d records without an error", n, b.count)
			}
		}
	})
}

// TestOffsetsMustRise inside a batch and from batch to batch.
func TestOffsetsMustRise(t *testing.T) {
	c := cluster(t, 1)
	s := open(t, c, nil)
	value := kmsg.Record{Value: []byte(`{"id":1}`)}
	twice := encode(0, 0, -1, value, value, value)
	twice = sealed(changed(twice, func(b []byte) { b[len(b)-len(value.Value)-4] = 2 })) // the third delta: 1 again
	f := &fetcher{relation: s.relations[0]}
	sh := &share{Range: batch.Range{End: 10}}
	p, err := f.answer(t.Context(), sh, &kmsg.FetchResponseTopicPartition{RecordBatches: twice}, 0)
	if err != nil {
		t.Fatal(err)
	}
	w, err := newWorker(s.relations[0])
	if err != nil {
		t.Fatal(err)
	}
	w.start(1, chunkBytesMax, s.onSkip)
	if err := w.piece(t.Context(), p, nil); !errors.Is(err, batch.ErrInvalid) || !strings.Contains(err.Error(), "offset 1 comes behind offset 1") {
		t.Errorf("error %v", err)
	}
	overlap := append(encode(0, 0, -1, value, value), encode(1, 0, -1, value)...)
	_, err = f.answer(t.Context(), &share{Range: batch.Range{End: 10}}, &kmsg.FetchResponseTopicPartition{RecordBatches: overlap}, 0)
	if !errors.Is(err, batch.ErrUnavailable) || !strings.Contains(err.Error(), "begins at offset 1") {
		t.Errorf("error %v", err)
	}
}

// TestTransactions follows KIP-98 through one answer.
func TestTransactions(t *testing.T) {
	record := kmsg.Record{Value: []byte("v")}
	marker := func(base, producer int64, kind byte) []byte {
		return encode(base, attrControl|attrTransactional, producer, kmsg.Record{Key: []byte{0, 0, 0, kind}})
	}
	data := func(base, producer int64) []byte { return encode(base, attrTransactional, producer, record) }
	open := newTransactions([]kmsg.FetchResponseTopicPartitionAbortedTransaction{{ProducerID: 2, FirstOffset: 6}, {ProducerID: 1, FirstOffset: 0}})
	for i, test := range []struct {
		raw     []byte
		aborted bool
	}{
		{data(1, 1), true},               // began before the answer
		{data(2, 2), false},              // another producer's, committed
		{encode(3, 0, 1, record), false}, // not of a transaction
		{marker(4, 2, 1), false},         // commits 2
		{marker(5, 1, 0), false},         // aborts 1
		{data(6, 2), true},
		{data(7, 1), false}, // the next one of 1
		{marker(8, 2, 0), false},
		{data(9, 2), false},
	} {
		b, _, err := nextBatch(test.raw)
		if err != nil {
			t.Fatal(err)
		}
		if aborted, err := open.passes(b); err != nil || aborted != test.aborted {
			t.Errorf("batch %d: aborted %t %v", i, aborted, err)
		}
	}
}
