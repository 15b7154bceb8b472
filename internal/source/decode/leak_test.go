package decode

import (
	"testing"

	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/twmb/avro"
)

// TestTakenColumnsAreFreed: what is put together when columns are taken, rows of
// before and after, and keys that complete rows, is freed with them.
func TestTakenColumnsAreFreed(t *testing.T) {
	was := memory.DefaultAllocator
	mem := memory.NewCheckedAllocator(was)
	memory.DefaultAllocator = mem
	defer func() { memory.DefaultAllocator = was }()
	schema := avro.MustParse(avroEnvelope)
	event := func(op string, before, after any) []byte {
		b, err := schema.Encode(map[string]any{"before": before, "after": after, "op": op, "source": map[string]any{"ts_ms": int64(1), "lsn": int64(5), "ts_us": nil}, "transaction": nil})
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	d, err := New("avro", nil, Options{Reader: Schema{Type: "AVRO", Text: avroEnvelope}, Envelope: "debezium", Include: []string{IncludeBefore, IncludeSource}})
	if err != nil {
		t.Fatal(err)
	}
	j := joinedOf(t, d, keyOf(t, "json", "id INTEGER, more VARCHAR", Options{Envelope: "debezium"}))
	for range 2 {
		for i := range 100 {
			for _, v := range [][]byte{event("c", nil, avroRow(i, "a")), event("d", avroRow(i, nil), nil), event("d", nil, nil)} {
				if err := j.Append(Record{Key: []byte(`{"id":7,"more":"x"}`), Value: v}); err != nil {
					t.Fatal(err)
				}
			}
		}
		for _, a := range j.Take() {
			a.Release()
		}
	}
	mem.AssertSize(t, 0)
}
