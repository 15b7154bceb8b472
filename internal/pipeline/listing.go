package pipeline

import (
	"context"
	"fmt"
	"sync"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"

	"github.com/frazil-io/frazil/internal/batch"
	"github.com/frazil-io/frazil/internal/config"
	"github.com/frazil-io/frazil/internal/deadletter"
	"github.com/frazil-io/frazil/internal/deadletter/topic"
	"github.com/frazil-io/frazil/internal/driver"
	"github.com/frazil-io/frazil/internal/source"
	"github.com/frazil-io/frazil/internal/source/decode"
)

// HasLetters returns batch.ErrInvalid where the table of the dead letters is not
// there, or lacks one of their columns.
func (p *Pipeline) HasLetters(ctx context.Context) error {
	t, err := p.loadTable(ctx, config.DeadLetters)
	if err != nil {
		return err
	}
	name := p.spec.Sinks.By[config.DeadLetters].Iceberg.Table
	if t == nil {
		return fmt.Errorf("%w: there is no table %s: the first run makes it; if the pipeline has run, it was dropped or renamed, and frazil status says what to do", batch.ErrInvalid, name)
	}
	for _, f := range deadletter.Schema().Fields() {
		if _, err := column(t, f.Name); err != nil {
			return err
		}
	}
	return nil
}

// TopicLetters hands over the letters that the topic of the dead letters has now,
// as rows of a table of dead letters.
func (p *Pipeline) TopicLetters(ctx context.Context, write func(arrow.RecordBatch) error) error {
	k := p.spec.DeadLetter.Kafka
	src, err := source.New([]source.Options{{
		Name: config.DeadLetters, Kafka: kafkaOptions(&config.Kafka{Brokers: k.Brokers, SASL: k.SASL, TLS: k.TLS}), Topics: []string{k.Topic},
		Tombstones: source.Keep, RecordLoss: true, Decoder: func() (decode.Decoder, error) { return decode.New("raw", nil, decode.Options{}) },
	}}, source.Limits{}, driver.WallClock{}, p.log, nil)
	if err != nil {
		return err
	}
	defer src.Close()
	available, err := patient(ctx, func() ([]batch.Available, error) { return src.List(ctx, nil) })
	if err != nil {
		return err
	}
	var ranges []batch.Range
	for _, a := range available {
		ranges = append(ranges, batch.Range{TopicPartition: a.TopicPartition, Start: a.Start, End: a.End, Epoch: a.Epoch})
	}
	u := &unsealer{builder: deadletter.NewBuilder(), write: write}
	defer u.builder.Release()
	if _, err := src.Read(ctx, ranges, u.rows, nil); err != nil {
		return err
	}
	return u.flush()
}

// unsealer makes records of a topic of dead letters rows again.
type unsealer struct {
	mu      sync.Mutex
	builder *deadletter.Builder
	from    deadletter.Origin
	write   func(arrow.RecordBatch) error
}

// unsealedBytes is how much is kept before it is written.
const unsealedBytes = 1 << 20

func (u *unsealer) rows(rows arrow.RecordBatch) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	keys, values := rows.Column(0).(*array.Binary), rows.Column(1).(*array.Binary)
	for i := range int(rows.NumRows()) {
		l, from, ok := topic.Parse(valueOf(keys, i), valueOf(values, i), headersOf(rows.Column(2).(*array.List), i))
		if !ok {
			continue
		}
		if from.Pipeline != u.from.Pipeline || from.Stream != u.from.Stream || from.Batch != u.from.Batch || u.builder.Bytes() > unsealedBytes {
			if err := u.flush(); err != nil {
				return err
			}
			u.from = from
		}
		u.builder.Add(l)
	}
	return nil
}

func (u *unsealer) flush() error {
	if u.builder.Rows() == 0 {
		return nil
	}
	letters := u.builder.Take()
	defer letters.Release()
	rows := deadletter.Seal(letters, u.from)
	defer rows.Release()
	return u.write(rows)
}

// valueOf is a value that is nil only where it is NULL.
func valueOf(values *array.Binary, i int) []byte {
	if values.IsNull(i) {
		return nil
	}
	return append([]byte{}, values.Value(i)...)
}

func headersOf(list *array.List, i int) (headers []deadletter.Header) {
	pairs := list.ListValues().(*array.Struct)
	keys, values := pairs.Field(0).(*array.String), pairs.Field(1).(*array.Binary)
	for from, to := list.ValueOffsets(i); from < to; from++ {
		headers = append(headers, deadletter.Header{Key: []byte(keys.Value(int(from))), Value: valueOf(values, int(from))})
	}
	return headers
}
