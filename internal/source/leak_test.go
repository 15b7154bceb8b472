package source

import (
	"errors"
	"fmt"
	"testing"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/frazil-io/frazil/internal/source/decode"
)

// checked counts what is allocated and not freed until the end of the test, of all that
// does not bring an allocator of its own. The test must not be parallel.
func checked(t *testing.T) {
	t.Helper()
	was := memory.DefaultAllocator
	mem := memory.NewCheckedAllocator(was)
	memory.DefaultAllocator = mem
	t.Cleanup(func() {
		memory.DefaultAllocator = was
		mem.AssertSize(t, 0)
	})
}

// TestReadFreesAll: rows, their payload, keys that complete rows, and letters are
// freed by whom they are handed to, also where that fails.
func TestReadFreesAll(t *testing.T) {
	checked(t)
	c := cluster(t, 2)
	cl := client(t, c)
	for i := range 300 {
		r := &kgo.Record{Partition: int32(i % 2), Key: fmt.Appendf(nil, `{"id":%d}`, i), Headers: []kgo.RecordHeader{{Key: "h", Value: []byte("v")}}}
		switch i % 3 {
		case 0:
			r.Value = fmt.Appendf(nil, `{"op":"c","after":{"id":%d}}`, i)
		case 1:
			r.Value = []byte(`{"op":"d","before":null,"after":null}`) // the row is its key
		default:
			r.Value = []byte(`{"op":`)
		}
		send(t, cl, r)
	}
	s := open(t, c, func(o *Options) {
		o.DeadLetters, o.Metadata = true, true
		o.Decoder = func() (decode.Decoder, error) {
			fields, err := decode.ParseColumns("id BIGINT")
			if err != nil {
				return nil, err
			}
			envelope := decode.Options{Envelope: "debezium"}
			value, err := decode.New("json", fields, envelope)
			if err != nil {
				return nil, err
			}
			key, err := decode.NewKey("json", fields, envelope)
			if err != nil {
				return nil, err
			}
			return decode.WithKey(value, key)
		}
	})
	ranges := all(t, s)
	rows, letters := int64(0), int64(0)
	count := func(n *int64) func(arrow.RecordBatch) error {
		return func(r arrow.RecordBatch) error {
			*n += r.NumRows()
			return nil
		}
	}
	if _, err := s.Read(t.Context(), ranges, count(&rows), count(&letters)); err != nil || rows != 200 || letters != 100 {
		t.Fatalf("%d rows, %d letters: %v", rows, letters, err)
	}
	failed := errors.New("no")
	for _, refuses := range [][2]error{{failed, nil}, {nil, failed}} {
		fail := func(err error) func(arrow.RecordBatch) error { return func(arrow.RecordBatch) error { return err } }
		if _, err := s.Read(t.Context(), ranges, fail(refuses[0]), fail(refuses[1])); !errors.Is(err, failed) {
			t.Fatalf("error %v", err)
		}
	}
}
