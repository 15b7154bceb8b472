package exec

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"

	"github.com/frazil-io/frazil/internal/batch"
	"github.com/frazil-io/frazil/internal/exec/duckdb"
	"github.com/frazil-io/frazil/internal/exec/stream"
	"github.com/frazil-io/frazil/internal/glue"
)

// Rule is a condition that must be true of each row: NULL is not.
type Rule struct {
	Name, SQL string
	OnFail    OnFail
}

// OnFail says what becomes of a row that fails a rule.
type OnFail string

// What becomes of it.
const (
	FailLetter OnFail = "dead_letter"
	FailDrop   OnFail = "drop"
	FailStop   OnFail = "stop"
)

// expectation are the rules of one source or sink, bound.
type expectation struct {
	rules  []Rule
	prefix string // of the rules' names in counts
	sql    string // what runs
	timed  bool
}

// ruleColumn is the last column where rules run: the place of the first rule that a
// row fails, NULL where it fails none.
const ruleColumn = "__frazil_rule"

// sourcePrefix stands before the name of a source among the names of statements.
const sourcePrefix = "source "

// expectSource binds the rules of a source. They run once for all sinks.
func (e *Executor) expectSource(ctx context.Context, a *stream.Analyzer, s Source) error {
	if len(s.Expect) == 0 {
		return nil
	}
	from := stream.Numbered + s.Name
	failed, err := e.bindRules(ctx, a, "source "+s.Name, s.Expect, quoted(from)+" AS "+quoted(s.Name))
	if err != nil {
		return err
	}
	if err := e.needLetters(s.Expect, "source "+s.Name, []string{s.Name}); err != nil {
		return err
	}
	x := &expectation{rules: s.Expect, prefix: s.Name + "."}
	x.sql = fmt.Sprintf("SELECT %[1]s, %[2]s FROM (SELECT %[1]s, %[3]s AS %[2]s FROM %[4]s AS %[5]s) WHERE %[2]s IS NOT NULL", stream.Ordinal, ruleColumn, failed, quoted(from), quoted(s.Name))
	x.timed = strings.Contains(x.sql, stream.BatchTime)
	e.expected[sourcePrefix+s.Name] = x
	for _, w := range e.workers {
		if err := w.bind(sourcePrefix+s.Name, x.sql, x.timed, time.Unix(0, 0)); err != nil {
			return fmt.Errorf("the rules of source %s: %w", s.Name, err)
		}
	}
	return ctx.Err()
}

// expectSink makes the rules of a sink run with its SQL, over its rows.
func (e *Executor) expectSink(ctx context.Context, a *stream.Analyzer, s Sink, q *stream.Query, narrow bool) error {
	failed, err := e.bindRules(ctx, a, "sink "+s.Name, s.Expect, "("+q.SQL+") AS "+quoted(s.Name))
	if err != nil {
		return err
	}
	if err := e.needLetters(s.Expect, "sink "+s.Name, q.Streams); err != nil {
		return err
	}
	if q.Numbered == "" || !e.carries(s.Name, q) {
		return fmt.Errorf("%w: sink %s has rules, and by its SQL it cannot be told from which record a row comes: it has COLUMNS, a column by its place, or a relation as a value. "+
			"Write the columns out, or give the rules to the source", batch.ErrInvalid, s.Name)
	}
	x := &expectation{rules: s.Expect}
	x.sql = fmt.Sprintf("SELECT *, %s AS %s FROM (%s) AS %s", failed, ruleColumn, q.Numbered, quoted(s.Name))
	x.timed = strings.Contains(x.sql, stream.BatchTime)
	e.expected[s.Name], e.counts[s.Name], e.narrow[s.Name] = x, byOrdinal, narrow
	return e.rebind(s.Name)
}

// implies says whether the implied rules of a sink can hold, with dead letters for
// what fails them.
func (e *Executor) implies(ctx context.Context, a *stream.Analyzer, s Sink, q *stream.Query, narrow bool) bool {
	if len(s.Implied) == 0 || !narrow || q.Numbered == "" || !e.carries(s.Name, q) || e.needLetters(s.Implied, s.Name, q.Streams) != nil {
		return false
	}
	_, err := e.bindRules(ctx, a, "sink "+s.Name, s.Implied, "("+q.SQL+") AS "+quoted(s.Name))
	return err == nil
}

// needLetters refuses dead letters of sources that keep no records for them.
func (e *Executor) needLetters(rules []Rule, of string, sources []string) error {
	i := slices.IndexFunc(rules, func(r Rule) bool { return r.OnFail == FailLetter })
	if i < 0 {
		return nil
	}
	for _, s := range e.opts.Sources {
		if slices.Contains(sources, s.Name) && !s.DeadLetters {
			return fmt.Errorf("%w: rule %s of %s: on_fail: dead_letter needs on_bad_record: dead_letter of source %s; write that, or on_fail: drop or stop", batch.ErrInvalid, rules[i].Name, of, s.Name)
		}
	}
	return nil
}

// bindRules checks rules over the rows of a relation, and returns the expression
// that is the place of the first one that fails.
func (e *Executor) bindRules(ctx context.Context, a *stream.Analyzer, of string, rules []Rule, from string) (string, error) {
	out := &strings.Builder{}
	out.WriteString("CASE")
	for i, r := range rules {
		what := "rule " + r.Name + " of " + of
		sql, err := a.Check(stream.Rule{What: what, SQL: r.SQL})
		if err != nil {
			return "", err
		}
		s, err := e.workers[0].instance.Prepare(atTime("SELECT "+sql+" AS "+quoted(r.Name)+" FROM "+from, time.Unix(0, 0)))
		if err != nil {
			return "", e.placed(ctx, what, "SELECT ", r.SQL, " FROM "+from, err)
		}
		fields := s.Schema().Fields()
		s.Close()
		if t, err := storable(fields[0]); len(fields) != 1 || err != nil || t.ID() != arrow.BOOL {
			return "", stream.At(what, r.SQL, 0, r.SQL+" is not true or false; write a condition, such as user_id IS NOT NULL")
		}
		fmt.Fprintf(out, " WHEN (%s) IS NOT TRUE THEN %d", sql, i)
	}
	out.WriteString(" END::INTEGER")
	return out.String(), nil
}

// placed says where in a piece of SQL of the spec a mistake is that DuckDB finds in
// what was made of it, where it finds the same in the piece itself.
func (e *Executor) placed(ctx context.Context, what, before, sql, behind string, found error) error {
	message, at := e.workers[0].instance.Mistake(ctx, atTime(before+sql+"\n"+behind, time.Unix(0, 0)))
	if message == "" || !strings.Contains(found.Error(), message) || at < len(before) {
		return fmt.Errorf("%s: %w", what, found)
	}
	return stream.At(what, sql, at-len(before), message)
}

func quoted(name string) string { return `"` + strings.ReplaceAll(name, `"`, `""`) + `"` }

// failures are rows that fail a rule: by their place, the place of the rule. Of
// several rows that come from one, the first rule counts.
type failures map[int64]int

// note reads the two columns from first on: ordinal and rule.
func (f failures) note(rows arrow.RecordBatch, first int, base int64) {
	ordinals, rules := rows.Column(first).(*array.Int64), rows.Column(first+1).(*array.Int32)
	if rules.NullN() == rules.Len() {
		return
	}
	for i := range rules.Len() {
		if rules.IsNull(i) {
			continue
		}
		at, rule := base+ordinals.Value(i), int(rules.Value(i))
		if was, ok := f[at]; !ok || rule < was {
			f[at] = rule
		}
	}
}

// sift takes out of a record batch the rows that fail a rule of their source. kept is
// what the sinks get, the record batch itself where it has no such row; out is what
// became of the others.
func (x *execution) sift(w *worker, source string, rows arrow.RecordBatch, failed rejected) (kept arrow.RecordBatch, out batch.Inputs, err error) {
	e := x.expected[sourcePrefix+source]
	if e == nil {
		rows.Retain()
		return rows, out, nil
	}
	if err := w.bind(sourcePrefix+source, e.sql, e.timed, x.job.Plan.Time); err != nil {
		return nil, out, fmt.Errorf("the rules of source %s: %w", source, err)
	}
	f := &feed{execution: x, w: w, source: source, all: failed}
	s := &sieve{feed: f, fails: failures{}, errors: map[int64]error{}}
	if err := s.run(rows, 0); err != nil {
		return nil, out, err
	}
	gone := slices.Sorted(maps.Keys(s.fails))
	for at := range s.errors {
		gone = append(gone, at)
	}
	slices.Sort(gone)
	for _, at := range gone {
		if err := f.refuse(e, rows, at, failure{rule: s.fails[at], cause: s.errors[at], row: rows, place: at}); err != nil {
			return nil, out, err
		}
	}
	if err := f.post(); err != nil {
		return nil, out, err
	}
	out = f.inputs
	out.Scanned, out.Letters, out.SourceLetters = int64(len(gone)), 0, out.Letters
	if len(gone) == 0 {
		rows.Retain()
		return rows, out, nil
	}
	kept, err = glue.Without(rows, gone)
	return kept, out, err
}

// sieve is one record batch under the rules of its source.
type sieve struct {
	*feed
	fails  failures
	errors map[int64]error // rows on which a rule itself fails
}

// run finds the rows that fail, of rows that stand at base in the record batch.
func (s *sieve) run(rows arrow.RecordBatch, base int64) error {
	src := s.w.sources[s.source]
	src.Set(rows)
	err := s.w.statements[sourcePrefix+s.source].Run(s.ctx, func(out arrow.RecordBatch) error {
		defer out.Release()
		s.fails.note(out, 0, base)
		return nil
	})
	src.Set(s.w.empty[s.source])
	switch {
	case err == nil:
		return nil
	case !duckdb.IsRowError(err) && !duckdb.IsMemoryError(err):
		if context.Cause(s.ctx) != nil {
			return context.Cause(s.ctx)
		}
		return fmt.Errorf("the rules of source %s: DuckDB failed: %w", s.source, err)
	case rows.NumRows() == 1:
		s.errors[base] = err
		return nil
	}
	half := rows.NumRows() / 2
	for _, part := range [][2]int64{{0, half}, {half, rows.NumRows()}} {
		piece, err := glue.Copy(rows, part[0], part[1])
		if err != nil {
			return err
		}
		err = s.run(piece, base+part[0])
		piece.Release()
		if err != nil {
			return err
		}
	}
	return nil
}

// failure is why a record is refused.
type failure struct {
	rule  int
	cause error // not nil: a rule failed with an error on it
	// row, at place, is what failed the rule: the record, or what SQL made of it.
	row   arrow.RecordBatch
	place int64
}

// refuse handles the input row at a place that fails a rule, or on which a rule
// fails with an error.
func (f *feed) refuse(e *expectation, rows arrow.RecordBatch, at int64, why failure) error {
	one := rows.NewSlice(at, at+1)
	defer one.Release()
	if why.cause != nil {
		return f.reject(one, duckdb.IsMemoryError(why.cause), why.cause)
	}
	r := e.rules[why.rule]
	name := e.prefix + r.Name
	f.countRule(name)
	if r.OnFail == FailDrop {
		f.inputs.Dropped++
		return nil
	}
	from := f.job.Ranges[rangesOf(one).Value(0)].TopicPartition
	reason := fmt.Sprintf("rule %s failed: %s", r.Name, strings.Join(strings.Fields(r.SQL), " "))
	if r.OnFail == FailStop {
		return fmt.Errorf("%w: %s: %s, on the record at offset %d of %s: %s. Nothing of the batch is committed. Correct the rule, or set its on_fail to dead_letter or drop, and start again: the batch goes on",
			batch.ErrInvalid, f.whose(), reason, offsetsOf(one).Value(0), from, visible(why.row, why.place))
	}
	f.inputs.Rejected++
	f.inputs.RejectedBy.Add(batch.CodeConstraint)
	return f.letter(one, batch.Reject{TopicPartition: from, Offset: offsetsOf(one).Value(0), Code: batch.CodeConstraint, Reason: reason})
}

// countRule counts a row under a rule.
func (f *feed) countRule(name string) {
	if f.inputs.Rules == nil {
		f.inputs.Rules = map[string]int64{}
	}
	f.inputs.Rules[name]++
}

// whose names the sink, or the source whose rules run.
func (f *feed) whose() string {
	if f.sink == "" {
		return "source " + f.source
	}
	return "sink " + f.sink
}

// rowShown is how much of a row a message shows.
const rowShown = 500

// visible is a row as JSON, without the columns that are frazil's own.
func visible(rows arrow.RecordBatch, at int64) string {
	var pairs []string
	for i, f := range rows.Schema().Fields() {
		if strings.HasPrefix(f.Name, "__") {
			continue
		}
		v, err := json.Marshal(rows.Column(i).GetOneForMarshal(int(at)))
		if err != nil {
			v = []byte(`"…"`)
		}
		pairs = append(pairs, fmt.Sprintf("%q: %s", f.Name, v))
	}
	out := "{" + strings.Join(pairs, ", ") + "}"
	if len(out) > rowShown {
		out = strings.ToValidUTF8(out[:rowShown], "") + " …"
	}
	return out
}

// held are the rows of one piece of a sink with rules, while it is not known which
// of its records fail one.
type held struct {
	fails failures
	first map[int64]arrow.RecordBatch // of a record that fails and stops: the row, alone
	rows  arrow.RecordBatch           // the whole result, where it is small enough
	more  bool                        // it is not
}

// release frees what is held.
func (h *held) release() {
	if h.rows != nil {
		h.rows.Release()
		h.rows = nil
	}
	for _, row := range h.first {
		row.Release()
	}
}

// hold takes a part of the result of a sink with rules. Of SQL that gives one row for
// a record at most, the rows that pass go on at once.
func (f *feed) hold(rows arrow.RecordBatch) error {
	if err := f.mark(rows); err != nil {
		rows.Release()
		return err
	}
	h, e := f.held, f.expected[f.sink]
	columns := f.schemas[f.sink].NumFields()
	h.fails.note(rows, columns, 0)
	if err := h.keepStops(e, rows, columns); err != nil {
		rows.Release()
		return err
	}
	switch {
	case f.narrow[f.sink]:
		return f.pass(rows)
	case h.rows == nil && !h.more:
		h.rows = rows
		return nil
	}
	rows.Release()
	if h.more = true; h.rows != nil {
		h.rows.Release()
		h.rows = nil
	}
	return nil
}

// keepStops keeps one row that stops the pipeline, for the message.
func (h *held) keepStops(e *expectation, rows arrow.RecordBatch, columns int) error {
	if len(h.fails) == 0 || len(h.first) > 0 {
		return nil
	}
	ordinals, rules := rows.Column(columns).(*array.Int64), rows.Column(columns+1).(*array.Int32)
	for i := range rules.Len() {
		if rules.IsNull(i) || e.rules[rules.Value(i)].OnFail != FailStop {
			continue
		}
		one, err := glue.Copy(rows, int64(i), int64(i)+1)
		if err != nil {
			return err
		}
		h.first = map[int64]arrow.RecordBatch{ordinals.Value(i): one}
		return nil
	}
	return nil
}

// pass hands on the rows whose records fail no rule.
func (f *feed) pass(rows arrow.RecordBatch) error {
	defer rows.Release()
	var gone []int64
	if len(f.held.fails) > 0 {
		for i, at := range f.ordinals(rows).Int64Values() {
			if _, ok := f.held.fails[at]; ok {
				gone = append(gone, int64(i))
			}
		}
	}
	if len(gone) == 0 {
		return f.hand(rows)
	}
	kept, err := glue.Without(rows, gone)
	if err != nil {
		return err
	}
	defer kept.Release()
	return f.hand(kept)
}

// judge hands on what was held of a piece, and handles the records that fail a rule:
// none of their rows are written, so that a record that comes again later doubles
// none. A result that was too large to be held is made again.
func (f *feed) judge(rows arrow.RecordBatch) error {
	h := f.held
	if h.more {
		src := f.w.sources[f.source]
		src.Set(rows)
		err := f.w.statements[f.sink].Run(f.ctx, f.pass)
		src.Set(f.w.empty[f.source])
		var own *duckdb.Error
		switch {
		case errors.As(err, &own):
			return fmt.Errorf("sink %s: DuckDB failed on rows that it had passed: %w", f.sink, err)
		case err != nil:
			return err
		}
	}
	if whole := h.rows; whole != nil {
		h.rows = nil
		if err := f.pass(whole); err != nil {
			return err
		}
	}
	e := f.expected[f.sink]
	for _, at := range slices.Sorted(maps.Keys(h.fails)) {
		why := failure{rule: h.fails[at], row: rows, place: at}
		if one := h.first[at]; one != nil {
			why.row, why.place = one, 0
		}
		if err := f.refuse(e, rows, at, why); err != nil {
			return err
		}
		f.gone++
		f.left[at/wordBits] &^= 1 << (at % wordBits)
	}
	return nil
}
