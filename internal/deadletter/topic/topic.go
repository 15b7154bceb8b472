// Package topic sends dead letters to a Kafka topic, at least once.
package topic

import (
	"context"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/frazil-io/frazil/internal/kafka"
)

// Topic is a Kafka topic for dead letters. A letter is the record as it was, with
// headers behind its own that say where it was and why it was rejected.
type Topic struct {
	client *kgo.Client
	opts   kafka.Options
	name   string
}

const (
	// bufferedMax bounds the letters that are on their way, in bytes.
	bufferedMax = 8 << 20
	// deliveryTimeout is how long a letter is tried before the batch is.
	deliveryTimeout = 30 * time.Second
)

// ClientOptions are those of a client for a Topic: every letter is acknowledged by
// all replicas in sync, and sent once for each try of a batch.
func ClientOptions() []kgo.Opt {
	return []kgo.Opt{kgo.RequiredAcks(kgo.AllISRAcks()), kgo.MaxBufferedBytes(bufferedMax), kgo.RecordDeliveryTimeout(deliveryTimeout)}
}

// New returns a topic. The client is closed with it.
func New(client *kgo.Client, o kafka.Options, name string) *Topic {
	return &Topic{client: client, opts: o, name: name}
}

// Close closes the client.
func (t *Topic) Close() { t.client.Close() }

// Writer sends the letters of one attempt.
type Writer struct {
	t   *Topic
	ctx context.Context //nolint:containedctx // of one attempt; Write has none

	mu     sync.Mutex
	acked  int64
	failed error
}

// Sent counts letters that were acknowledged.
type Sent int64

// Rows implements driver.Files.
func (s Sent) Rows() int64 { return int64(s) }

// Writer begins to send. batch.ErrInvalid: there is no such topic.
func (t *Topic) Writer(ctx context.Context) (*Writer, error) {
	if err := kafka.Check(ctx, t.opts, []string{t.name}); err != nil {
		return nil, fmt.Errorf("the topic of the dead letters: %w", err)
	}
	return &Writer{t: t, ctx: ctx}, nil
}

// Write sends sealed letters. It waits where too many are on their way, and may
// be called from several goroutines.
func (w *Writer) Write(rows arrow.RecordBatch) error {
	for i := range int(rows.NumRows()) {
		if err := w.err(); err != nil {
			return err
		}
		w.t.client.Produce(w.ctx, w.t.record(rows, i), func(_ *kgo.Record, err error) {
			w.mu.Lock()
			defer w.mu.Unlock()
			if err == nil {
				w.acked++
			} else if w.failed == nil {
				w.failed = kafka.Classify(w.ctx, "send a dead letter to topic "+w.t.name, err)
			}
		})
	}
	return nil
}

func (w *Writer) err() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.failed
}

// Close waits until every letter is acknowledged.
func (w *Writer) Close(ctx context.Context) (Sent, error) {
	if err := w.t.client.Flush(ctx); err != nil {
		return 0, kafka.Classify(ctx, "send dead letters to topic "+w.t.name, err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	return Sent(w.acked), w.failed
}

// Abort lets go of what was not sent yet; what was stays.
func (w *Writer) Abort() {}

// prefix is that of the headers that are frazil's.
const prefix = "frazil."

// record is a letter as a Kafka record.
func (t *Topic) record(rows arrow.RecordBatch, i int) *kgo.Record {
	column := func(name string) arrow.Array { return rows.Column(rows.Schema().FieldIndices(name)[0]) }
	r := &kgo.Record{Topic: t.name, Key: blob(column("key"), i), Value: blob(column("value"), i)}
	list := column("headers").(*array.List)
	pairs := list.ListValues().(*array.Struct)
	for from, to := list.ValueOffsets(i); from < to; from++ {
		r.Headers = append(r.Headers, kgo.RecordHeader{Key: pairs.Field(0).(*array.String).Value(int(from)), Value: blob(pairs.Field(1), int(from))})
	}
	for c, f := range rows.Schema().Fields() {
		if f.Name != "key" && f.Name != "value" && f.Name != "headers" && rows.Column(c).IsValid(i) {
			r.Headers = append(r.Headers, kgo.RecordHeader{Key: prefix + f.Name, Value: []byte(text(rows.Column(c), i))})
		}
	}
	return r
}

func text(column arrow.Array, i int) string {
	switch c := column.(type) {
	case *array.String:
		return c.Value(i)
	case *array.Int32:
		return strconv.Itoa(int(c.Value(i)))
	case *array.Int64:
		return strconv.FormatInt(c.Value(i), 10)
	case *array.Timestamp:
		return c.Value(i).ToTime(arrow.Microsecond).Format(instants)
	}
	return column.ValueStr(i)
}

func blob(column arrow.Array, i int) []byte {
	c := column.(*array.Binary)
	if c.IsNull(i) {
		return nil
	}
	return append([]byte{}, c.Value(i)...) // never nil
}
