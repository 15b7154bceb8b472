package exec

import (
	"fmt"
	"math/bits"
	"slices"

	"github.com/apache/arrow-go/v18/arrow"

	"github.com/frazil-io/frazil/internal/batch"
	"github.com/frazil-io/frazil/internal/exec/stream"
)

// A batch that an audit holds back for good is executed again: each record that has
// rows in it is a dead letter, and no row is written.

// AuditPrefix stands before the name of an audit among the rules of counts. A rule of
// `expect` has no space in its name.
const AuditPrefix = "audit "

// holdable refuses audits that make dead letters of what keeps no records for them,
// or of SQL whose rows cannot be told from which record they come.
func (e *Executor) holdable(sink string, q *stream.Query) error {
	for _, s := range e.opts.Sources {
		if slices.Contains(q.Streams, s.Name) && !s.DeadLetters {
			return fmt.Errorf("%w: sink %s has an audit with on_fail: dead_letter, which needs on_bad_record: dead_letter of source %s; write that, or on_fail: stop", batch.ErrInvalid, sink, s.Name)
		}
	}
	if q.Numbered == "" || !e.carries(sink, q) {
		return fmt.Errorf("%w: sink %s has an audit with on_fail: dead_letter, and by its SQL it cannot be told from which record a row comes: it has COLUMNS, a column by its place, or a relation as a value. "+
			"Write the columns out, or on_fail: stop", batch.ErrInvalid, sink)
	}
	return nil
}

// withhold makes dead letters of the records of a piece that left output. They do not
// count among the failures of which there may be too many: the audit has judged them.
func (f *feed) withhold(rows arrow.RecordBatch) error {
	if f.counts[f.sink] != byOrdinal {
		return fmt.Errorf("%w: the plan holds back the rows of sink %s for audit %s, and by the spec as it is now no audit of it has on_fail: dead_letter; take the spec of that time", batch.ErrInvalid, f.sink, f.withheld.Rule)
	}
	for i, word := range f.left {
		for ; word != 0; word &= word - 1 {
			at := int64(i*wordBits + bits.TrailingZeros64(word))
			if err := f.withholdRow(rows, at); err != nil {
				return err
			}
		}
		f.left[i] = 0
	}
	return nil
}

func (f *feed) withholdRow(rows arrow.RecordBatch, at int64) error {
	one := rows.NewSlice(at, at+1)
	defer one.Release()
	f.gone++
	f.inputs.Rejected++
	f.inputs.RejectedBy.Add(batch.CodeConstraint)
	f.countRule(AuditPrefix + f.withheld.Rule)
	if !f.toLetters() {
		return nil
	}
	from := f.job.Ranges[rangesOf(one).Value(0)].TopicPartition
	return f.keep(one, batch.Reject{TopicPartition: from, Offset: offsetsOf(one).Value(0), Code: batch.CodeConstraint, Reason: f.withheld.Reason})
}
