package pipeline

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"

	"github.com/frazil-io/frazil/internal/batch"
	"github.com/frazil-io/frazil/internal/deadletter"
)

// LetterOf says of a record, by sink, that it was rejected, and whether its letter
// waits or a replay has taken it. A sink that took the record at once is not there, and
// without a table of dead letters nobody is.
func (p *Pipeline) LetterOf(ctx context.Context, topic string, partition int32, offset int64) (map[string]string, error) {
	if p.spec.DeadLetter == nil || p.spec.DeadLetter.Iceberg == nil {
		return nil, nil
	}
	if err := p.HasLetters(ctx); errors.Is(err, batch.ErrInvalid) {
		return nil, nil
	} else if err != nil {
		return nil, err
	}
	w := p.newWaiting()
	done, _, err := w.marked(ctx)
	if err != nil {
		return nil, err
	}
	by := map[string]string{}
	// The newest letter of each sink comes last: those of a replay are behind those of
	// the pipeline, whose letters they were.
	err = w.query(ctx, fmt.Sprintf(`SELECT unnest(sinks), code, stream, batch FROM letters WHERE %s AND code <> %s AND topic = %s AND partition = %d AND "offset" = %d
ORDER BY stream <> %s, batch`, w.ours(), sqlText(deadletter.CodeReplayed), sqlText(topic), partition, offset, sqlText(batch.StreamMain)), func(rows arrow.RecordBatch) error {
		for i := range int(rows.NumRows()) {
			text := func(c int) string { return strings.Clone(rows.Column(c).(*array.String).Value(i)) }
			sink, stream, id := text(0), text(2), rows.Column(3).(*array.Int64).Value(i)
			at := fmt.Sprintf("offset %d of %s/%d was rejected (%s) in batch %d", offset, topic, partition, text(1), id)
			if stream != batch.StreamMain {
				at += " of a replay"
			}
			if id < done[streamPartition(stream)] {
				by[sink] = at + ", and a replay of its dead letter has taken it"
			} else {
				by[sink] = at + ", and its dead letter waits"
			}
		}
		return nil
	})
	return by, err
}
