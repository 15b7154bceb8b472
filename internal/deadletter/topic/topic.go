// Package topic sends dead letters to a Kafka topic, at least once.
package topic

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/frazil-io/frazil/internal/batch"
	"github.com/frazil-io/frazil/internal/kafka"
)

// Topic is a Kafka topic for dead letters. A letter is the record as it was, with
// headers behind its own that say where it was and why it was rejected.
type Topic struct {
	client *kgo.Client
	opts   kafka.Options
	name   string

	// large sends letters alone that are larger than a batch of the client, one at a
	// time.
	large   *kgo.Client
	sending sync.Mutex
}

const (
	// bufferedMax bounds the letters that are on their way, in bytes.
	bufferedMax = 8 << 20
	// deliveryTimeout is how long a letter is tried before the batch is.
	deliveryTimeout = 30 * time.Second
	// batchBytes is what a topic takes as one batch if nobody configured it.
	batchBytes = 1_000_012
	// largeMax is above any record: what the broker takes is the limit.
	largeMax = 1 << 29
)

// ClientOptions are those of a client for a Topic: every letter is acknowledged by
// all replicas in sync, and sent once for each try of a batch.
func ClientOptions() []kgo.Opt {
	return []kgo.Opt{kgo.RequiredAcks(kgo.AllISRAcks()), kgo.MaxBufferedBytes(bufferedMax), kgo.ProducerBatchMaxBytes(batchBytes), kgo.RecordDeliveryTimeout(deliveryTimeout)}
}

// LargeOptions are those of a client for letters that are larger than a batch of the
// other one. Its own batches would be larger than a broker takes, so each is of one
// letter.
func LargeOptions() []kgo.Opt {
	return []kgo.Opt{kgo.RequiredAcks(kgo.AllISRAcks()), kgo.ProducerBatchMaxBytes(largeMax), kgo.BrokerMaxWriteBytes(2*largeMax - 1), kgo.RecordDeliveryTimeout(deliveryTimeout)}
}

// New returns a topic, by a client with ClientOptions and one with LargeOptions. They
// are closed with it.
func New(client, large *kgo.Client, o kafka.Options, name string) *Topic {
	return &Topic{client: client, large: large, opts: o, name: name}
}

// Close closes the clients.
func (t *Topic) Close() {
	t.client.Close()
	t.large.Close()
}

// Writer sends the letters of one attempt.
type Writer struct {
	t   *Topic
	ctx context.Context //nolint:containedctx // of one attempt; Write has none

	mu      sync.Mutex
	acked   int64
	failed  error
	refused []*kgo.Record // too large for a batch of the client, or with others in one that is for the topic
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
		if err := w.again(); err != nil {
			return err
		}
		w.t.client.Produce(w.ctx, w.t.record(rows, i), w.sentTogether)
	}
	return nil
}

// sentTogether notes what became of a letter that was in a batch with others, or was
// too large for any. A topic that takes less than a batch of the client refuses all
// of it, also the letters that it takes alone.
func (w *Writer) sentTogether(r *kgo.Record, err error) {
	if !tooLarge(err) {
		w.sent(r, err)
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.refused = append(w.refused, r)
}

// again sends alone what was refused together.
func (w *Writer) again() error {
	w.mu.Lock()
	refused := w.refused
	w.refused = nil
	w.mu.Unlock()
	for _, r := range refused {
		if w.err() == nil {
			w.alone(r)
		}
	}
	return w.err()
}

// tooLarge says whether a topic takes no batches of that size.
func tooLarge(err error) bool {
	return errors.Is(err, kerr.MessageTooLarge) || errors.Is(err, kerr.RecordListTooLarge)
}

// alone sends one letter and waits for it.
func (w *Writer) alone(r *kgo.Record) {
	w.t.sending.Lock()
	defer w.t.sending.Unlock()
	w.sent(w.t.large.ProduceSync(w.ctx, r).First())
}

// sent notes what became of a letter.
func (w *Writer) sent(r *kgo.Record, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case err == nil:
		w.acked++
	case w.failed != nil:
	case tooLarge(err):
		limit := "max.message.bytes"
		if errors.Is(err, kerr.RecordListTooLarge) {
			limit = "segment.bytes"
		}
		w.failed = w.refuses(r, "raise "+limit+" of the topic, or set dead_letter to a table, which takes any size", err)
	case errors.Is(err, kerr.InvalidRecord), errors.Is(err, kerr.PolicyViolation):
		w.failed = w.refuses(r, "a topic that is compacted takes no record without a key; set its cleanup.policy to delete, or take another topic", err)
	case errors.Is(err, kerr.TopicAuthorizationFailed), errors.Is(err, kerr.ClusterAuthorizationFailed):
		w.failed = fmt.Errorf("%w: this user may not write to topic %s, to which dead letters go; grant WRITE and DESCRIBE on it: %w", batch.ErrInvalid, w.t.name, err)
	default:
		w.failed = kafka.Classify(w.ctx, "send a dead letter to topic "+w.t.name, err)
	}
}

// refuses is the batch.ErrInvalid for a letter that the topic will not take the next
// time, either.
func (w *Writer) refuses(r *kgo.Record, todo string, err error) error {
	return fmt.Errorf("%w: topic %s refuses a dead letter of %d bytes, the record at offset %s of %s/%s: %s: %w",
		batch.ErrInvalid, w.t.name, size(r), header(r, "offset"), header(r, "topic"), header(r, "partition"), todo, err)
}

// size is what a record takes in a batch without compression, about.
func size(r *kgo.Record) int {
	n := len(r.Key) + len(r.Value)
	for _, h := range r.Headers {
		n += len(h.Key) + len(h.Value) + headerBytes
	}
	return n
}

// headerBytes is the most that a header takes beside key and value.
const headerBytes = 10

// header is one of frazil's headers.
func header(r *kgo.Record, name string) string {
	for _, h := range slices.Backward(r.Headers) {
		if h.Key == prefix+name {
			return string(h.Value)
		}
	}
	return "?"
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
	err := w.again()
	w.mu.Lock()
	defer w.mu.Unlock()
	return Sent(w.acked), err
}

// Abort does nothing: letters go at least once, and those on their way may arrive.
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
