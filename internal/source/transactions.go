package source

import (
	"encoding/binary"
	"fmt"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/frazil-io/frazil/internal/batch"
)

// transactions follows, through the batches of one answer, which producers' open
// transactions were aborted, as the broker lists them beside the records
// (KIP-98): from its first offset on, a producer's batches are of an aborted
// transaction until the marker that ends it.
type transactions struct {
	ahead []kmsg.FetchResponseTopicPartitionAbortedTransaction
	open  map[int64]bool // by producer
}

func newTransactions(aborted []kmsg.FetchResponseTopicPartitionAbortedTransaction) *transactions {
	return &transactions{ahead: aborted, open: map[int64]bool{}}
}

// passes says whether a batch is of an aborted transaction. It is called for
// every batch, in order.
func (t *transactions) passes(b recordBatch) (aborted bool, err error) {
	if len(t.ahead) > 0 {
		t.begin(b.last)
	}
	if !b.control() {
		return b.transactional() && t.open[b.producer], nil
	}
	if t.open[b.producer] {
		abort, err := b.aborts()
		if err != nil {
			return false, err
		}
		if abort {
			delete(t.open, b.producer)
		}
	}
	return false, nil
}

// begin opens what begins at or before an offset. The broker does not promise an
// order.
func (t *transactions) begin(offset int64) {
	rest := t.ahead[:0]
	for _, a := range t.ahead {
		if a.FirstOffset <= offset {
			t.open[a.ProducerID] = true
		} else {
			rest = append(rest, a)
		}
	}
	t.ahead = rest
}

// aborts reads a control batch: whether it ends its transaction by an abort. A
// marker's key is a version and a type, 0 for an abort (KIP-98). Markers are
// never compressed.
func (b recordBatch) aborts() (abort bool, err error) {
	w := b.walk(b.raw[batchHeader:], nil)
	for w.next() {
		if len(w.Key) < 4 {
			w.malformed()
			break
		}
		abort = binary.BigEndian.Uint16(w.Key[2:]) == 0
	}
	if w.err != nil {
		return false, fmt.Errorf("%w: the transaction marker at offset %d: %w", batch.ErrUnavailable, b.base, w.err)
	}
	return abort, nil
}
