package exec

import (
	"errors"
	"fmt"
	"math/bits"
	"slices"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"

	"github.com/frazil-io/frazil/internal/batch"
	"github.com/frazil-io/frazil/internal/exec/stream"
)

// counting is how it is told which of a sink's input rows left output.
type counting int

const (
	// byRows: SQL only filters and projects, so each row that comes out is the one
	// of another row that went in.
	byRows counting = iota
	// byOrdinal: each row that comes out carries the place of the one that went in.
	byOrdinal
	// notAtAll: SQL has something that would see the ordinal.
	notAtAll
)

// count decides how a sink's inputs are counted, and lets its statement carry the
// ordinal where that is needed.
func (e *Executor) count(sink string, q *stream.Query, narrow bool) error {
	switch {
	case narrow:
		e.counts[sink] = byRows
		return nil
	case q.Numbered == "" || !e.carries(sink, q):
		e.counts[sink] = notAtAll
		return nil
	}
	e.counts[sink] = byOrdinal
	return e.rebind(sink)
}

// text is the SQL that runs for a sink, and whether it uses the plan's time.
func (e *Executor) text(sink string) (sql string, timed bool) {
	q := e.queries[sink]
	switch x := e.expected[sink]; {
	case x != nil:
		return x.sql, x.timed
	case e.counts[sink] == byOrdinal:
		return q.Numbered, q.UsesTime
	}
	return q.SQL, q.UsesTime
}

// rebind binds a sink's SQL after that has become another one.
func (e *Executor) rebind(sink string) error {
	sql, timed := e.text(sink)
	for _, w := range e.workers {
		if s := w.statements[sink]; s != nil {
			s.Close()
			delete(w.statements, sink)
		}
		if err := w.bind(sink, sql, timed, time.Unix(0, 0)); err != nil {
			return fmt.Errorf("the sql of sink %s: %w", sink, err)
		}
	}
	return nil
}

// carries says whether the query with the ordinal binds, and has the same columns
// before it.
func (e *Executor) carries(sink string, q *stream.Query) bool {
	w := e.workers[0]
	s, err := w.instance.Prepare(atTime(q.Numbered, time.Unix(0, 0)))
	if err != nil {
		return false
	}
	defer s.Close()
	plain, more := w.statements[sink].Schema().Fields(), s.Schema().Fields()
	if len(more) != len(plain)+1 || more[len(plain)].Type.ID() != arrow.INT64 {
		return false
	}
	for i, f := range plain {
		if f.Name != more[i].Name || !arrow.TypeEqual(f.Type, more[i].Type) {
			return false
		}
	}
	return true
}

// errMiscount is a hand-over whose two sides counted differently: a bug, and never
// a reason to go on.
var errMiscount = errors.New("rows were miscounted; nothing was committed; please report this")

const wordBits = 64

// begin prepares to count a piece.
func (f *feed) begin(rows arrow.RecordBatch) {
	f.out, f.gone = 0, 0
	if f.counts[f.sink] != byOrdinal {
		return
	}
	n := int(rows.NumRows()+wordBits-1) / wordBits
	if cap(f.left) < n {
		f.left = make([]uint64, n)
	}
	f.left = f.left[:n]
	clear(f.left)
}

// mark notes what came out of a piece.
func (f *feed) mark(rows arrow.RecordBatch) error {
	f.out += rows.NumRows()
	if f.counts[f.sink] != byOrdinal {
		return nil
	}
	for _, at := range f.ordinals(rows).Int64Values() {
		if at < 0 || at >= int64(len(f.left))*wordBits {
			return fmt.Errorf("%w: sink %s: a row of its SQL comes from input row %d of at most %d", errMiscount, f.sink, at, len(f.left)*wordBits)
		}
		f.left[at/wordBits] |= 1 << (at % wordBits)
	}
	return nil
}

// ordinals are the input rows that rows come from.
func (f *feed) ordinals(rows arrow.RecordBatch) *array.Int64 {
	last := int(rows.NumCols()) - 1
	if f.held != nil { // behind it is the rule
		last--
	}
	return rows.Column(last).(*array.Int64)
}

// settle counts a piece that went through, and judges it where the sink has rules.
func (f *feed) settle(rows arrow.RecordBatch) error {
	if f.held != nil {
		if err := f.judge(rows); err != nil {
			return err
		}
	}
	if f.withheld != nil {
		if err := f.withhold(rows); err != nil {
			return err
		}
	}
	n := rows.NumRows()
	with := f.out
	switch f.counts[f.sink] {
	case notAtAll:
		f.inputs.Uncounted += n
		return nil
	case byOrdinal:
		with = 0
		for _, word := range f.left {
			with += int64(bits.OnesCount64(word))
		}
	case byRows:
	}
	if with+f.gone > n {
		return fmt.Errorf("%w: sink %s: %d rows went into its SQL, %d left output", errMiscount, f.sink, n, with)
	}
	f.inputs.With += with
	f.inputs.Without += n - with - f.gone
	return nil
}

// choose names the sinks whose SQL runs: those of the job, and those whose rejects
// are dead letters.
func (x *execution) choose() {
	for _, s := range x.job.Sinks {
		x.results[s] = batch.Result{State: x.job.State[s]}
	}
	for _, s := range x.opts.Sinks {
		if _, ok := x.results[s.Name]; ok || x.toLetters() && slices.Contains(x.job.Letters.Sinks, s.Name) {
			x.sinks = append(x.sinks, s.Name)
		}
	}
}

// wanted says whether the job wants the rows of the sink, not only what it
// rejects.
func (f *feed) wanted() bool {
	return slices.Contains(f.job.Sinks, f.sink)
}
