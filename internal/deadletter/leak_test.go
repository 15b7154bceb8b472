package deadletter

import (
	"testing"

	"github.com/apache/arrow-go/v18/arrow/memory"

	"github.com/frazil-io/frazil/internal/batch"
)

// TestLettersAreFreed: what a builder and a seal take is freed with what they give.
func TestLettersAreFreed(t *testing.T) {
	was := memory.DefaultAllocator
	mem := memory.NewCheckedAllocator(was)
	memory.DefaultAllocator = mem
	defer func() { memory.DefaultAllocator = was }()
	b := NewBuilder()
	for range 3 {
		for i := range 100 {
			b.Add(Letter{Topic: "t", Offset: int64(i), Timestamp: NoTimestamp, Value: make([]byte, 1000), Headers: []Header{{Key: []byte("h")}}, Source: "s", Code: batch.CodeCast, Reason: "no"})
		}
		rows := b.Take()
		sealed := Seal(rows, Origin{Pipeline: "p", Batch: 1})
		rows.Release()
		if sealed.NumRows() != 100 {
			t.Errorf("%d rows", sealed.NumRows())
		}
		sealed.Release()
	}
	b.Add(Letter{Value: []byte("never taken")})
	b.Release()
	mem.AssertSize(t, 0)
}
