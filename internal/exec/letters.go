package exec

import (
	"cmp"
	"slices"
	"strings"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"

	"github.com/frazil-io/frazil/internal/batch"
	"github.com/frazil-io/frazil/internal/deadletter"
)

// rejected are the offsets in one record batch that the SQL of some sink failed
// on, by range.
type rejected map[origin]bool

type origin struct {
	rg     int32
	offset int64
}

// trayBytes is how many letters of one record batch are kept before they are
// written.
const trayBytes = 1 << 20

// toLetters says whether the dead letters take part in the job.
func (x *execution) toLetters() bool {
	return x.opts.DeadLetters != "" && slices.Contains(x.job.Sinks, x.opts.DeadLetters)
}

// letters takes the dead letters of the source. Where their table takes no part
// in the job, it has them.
func (x *execution) letters(rows arrow.RecordBatch) error {
	if !x.toLetters() {
		return nil
	}
	sealed := deadletter.Seal(rows, x.origin())
	defer sealed.Release()
	x.kinds.Add(rows)
	if err := x.write(x.opts.DeadLetters, sealed); err != nil {
		return err
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	res := x.results[x.opts.DeadLetters]
	res.Letters += rows.NumRows()
	res.Rows += sealed.NumRows()
	x.results[x.opts.DeadLetters] = res
	return nil
}

// origin is what the letters of the job come from.
func (x *execution) origin() deadletter.Origin {
	p := x.job.Plan
	return deadletter.Origin{Pipeline: p.Incarnation.Name, Stream: cmp.Or(x.job.Stream, batch.StreamMain), Batch: p.Batch, Time: p.Time, Sinks: x.job.Letters.Sinks}
}

// failed counts a record batch, and the records in it that SQL failed on or a rule,
// for the dead letters. They read no source. gone is what rules of the source took out.
func (x *execution) failed(rows arrow.RecordBatch, gone batch.Inputs, failed rejected) error {
	if !x.toLetters() {
		return nil
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	res := x.results[x.opts.DeadLetters]
	res.Scanned += rows.NumRows()
	res.Unread += rows.NumRows()
	res.Failed += int64(len(failed))
	res.SourceLetters += gone.SourceLetters
	x.results[x.opts.DeadLetters] = res
	return nil
}

// reasonsShown is how many reasons a result tells.
const reasonsShown = 5

// explain tells the commonest reasons.
func (x *execution) explain() {
	if x.toLetters() {
		res := x.results[x.opts.DeadLetters]
		res.Reasons = x.kinds.Commonest(reasonsShown)
		x.results[x.opts.DeadLetters] = res
	}
}

// letter makes the one row that SQL fails on a dead letter.
func (f *feed) letter(rows arrow.RecordBatch, r batch.Reject) error {
	if !f.toLetters() || f.sink == "" && !f.job.Letters.Source {
		return nil
	}
	f.all[origin{rangesOf(rows).Value(0), r.Offset}] = true
	return f.keep(rows, r)
}

// keep makes a dead letter of one row, with the payload that it carries.
func (f *feed) keep(rows arrow.RecordBatch, r batch.Reject) error {
	f.inputs.Letters++
	if f.tray == nil {
		f.tray = deadletter.NewBuilder()
	}
	first := int(rows.NumCols()) - 2 - len(batch.PayloadColumns())
	reason, _, _ := strings.Cut(r.Reason, "\n\nLINE ") // where it stands in SQL as frazil wrote it
	l := deadletter.Letter{
		Topic: r.Topic, Partition: r.Partition, Offset: r.Offset, Timestamp: deadletter.NoTimestamp,
		Key: bytesOf(rows.Column(first + 1)), Value: bytesOf(rows.Column(first + 2)), Headers: headersOf(rows.Column(first + 3)),
		Source: f.source, Sink: f.sink, Code: r.Code, Reason: reason,
	}
	if targets := f.job.Targets; targets != nil && f.sink == "" {
		l.Sinks = slices.DeleteFunc(slices.Clone(targets[rangesOf(rows).Value(0)]), func(sink string) bool { return !slices.Contains(f.job.Letters.Sinks, sink) })
	}
	if at := rows.Column(first).(*array.Timestamp); at.IsValid(0) {
		l.Timestamp = int64(at.Value(0))
	}
	f.tray.Add(l)
	if f.tray.Bytes() < trayBytes {
		return nil
	}
	return f.post()
}

// post hands the letters in the tray to the dead letters.
func (f *feed) post() error {
	if f.tray == nil || f.tray.Rows() == 0 {
		return nil
	}
	rows := f.tray.Take()
	defer rows.Release()
	return f.letters(rows)
}

func bytesOf(column arrow.Array) []byte {
	return valueOf(column.(*array.Binary), 0)
}

// valueOf is a value that is nil only where it is NULL.
func valueOf(values *array.Binary, i int) []byte {
	if values.IsNull(i) {
		return nil
	}
	return append([]byte{}, values.Value(i)...)
}

func headersOf(column arrow.Array) (headers []deadletter.Header) {
	list := column.(*array.List)
	pairs := list.ListValues().(*array.Struct)
	keys, values := pairs.Field(0).(*array.String), pairs.Field(1).(*array.Binary)
	for from, to := list.ValueOffsets(0); from < to; from++ {
		headers = append(headers, deadletter.Header{Key: []byte(keys.Value(int(from))), Value: valueOf(values, int(from))})
	}
	return headers
}
