package driver_test

import (
	"context"
	"fmt"
	"slices"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"

	"github.com/frazil-io/frazil/internal/batch"
	"github.com/frazil-io/frazil/internal/driver"
)

// simRouter is driver.Tables of sink 1 as one process sees it.
type simRouter struct{ p *proc }

func (r simRouter) Table(name string) driver.Table { return simSink{r.p, int(name[1] - '0')} }

func (r simRouter) Find(context.Context) (found []string, err error) {
	r.p.io("find the tables of s1")
	if err := r.p.flaky("find"); err != nil {
		return nil, err
	}
	for ti, t := range r.p.w.tables {
		if st := t.stamp(r.p.pipe); r.p.w.routed(ti) && !t.missing && (st == nil && t.claimed[r.p.claims()] || st != nil && st.Route.Sink == sinkName(1)) {
			found = append(found, tableName(ti))
		}
	}
	return found, nil
}

// claims says as which pipeline a process claims tables: that of its name.
func (p *proc) claims() int { return p.pipe % simReplays }

// claim makes and claims a table where that was not done.
func (r simRouter) claim(name string) *simTable {
	ti := int(name[1] - '0')
	if t := r.p.w.tables[ti]; t.missing || !t.claimed[r.p.claims()] {
		r.p.io("make and claim %s", name)
		t = r.p.w.tables[ti]
		t.missing, t.claimed[r.p.claims()] = false, true
	}
	return r.p.w.tables[ti]
}

func (r simRouter) Claim(_ context.Context, name string) error {
	r.claim(name)
	return r.p.flaky("claim")
}

func (r simRouter) Writer(_ context.Context, attempt string, open func([]string) ([]string, error)) (driver.RoutedWriter, error) {
	return &simRoutedWriter{r: r, attempt: attempt, open: open, known: map[string]bool{}, writers: map[string]*simWriter{}}, nil
}

type simRoutedWriter struct {
	r       simRouter
	attempt string
	open    func([]string) ([]string, error)
	known   map[string]bool
	writers map[string]*simWriter
	dropped int64
}

func (w *simRoutedWriter) Write(rows arrow.RecordBatch) error {
	names := make([]string, rows.NumRows())
	var fresh []string
	for i := range names {
		names[i] = tableName(int(rows.Column(1).(*array.Int64).Value(i)))
		if !w.known[names[i]] && !slices.Contains(fresh, names[i]) {
			fresh = append(fresh, names[i])
		}
	}
	if err := w.make(fresh); err != nil {
		return err
	}
	for i, name := range names {
		to := w.writers[name]
		if to == nil {
			w.dropped++
			continue
		}
		row := rows.NewSlice(int64(i), int64(i)+1)
		if err := to.Write(row); err != nil {
			return err
		}
	}
	return nil
}

// make makes and claims the tables that are new here.
func (w *simRoutedWriter) make(fresh []string) error {
	if len(fresh) == 0 {
		return nil
	}
	write, err := w.open(fresh)
	if err != nil {
		return err
	}
	for _, name := range fresh {
		w.known[name] = true
	}
	for _, name := range write {
		s := simSink{w.r.p, int(name[1] - '0')}
		t := w.r.claim(name)
		w.writers[name] = &simWriter{s: s, attempt: w.attempt, uuid: t.uuid, schema: t.schema}
	}
	return nil
}

func (w *simRoutedWriter) Close(ctx context.Context) (map[string]driver.Files, int64, error) {
	files := map[string]driver.Files{}
	for ti := range w.r.p.w.tables {
		one := w.writers[tableName(ti)]
		if one == nil {
			continue
		}
		f, err := one.Close(ctx)
		if err != nil {
			return nil, 0, err
		}
		files[tableName(ti)] = f
	}
	return files, w.dropped, nil
}

func (w *simRoutedWriter) Abort() {}

// contents are the records of a pipeline in its routed tables: how often, by id.
func (w *world) contents(pipe int) map[int64]int {
	count := map[int64]int{}
	for ti, t := range w.tables {
		if !w.routed(ti) {
			continue
		}
		for _, f := range t.newest(pipe).files {
			for _, r := range w.files[f].rows {
				if r > 0 && r/simOther == int64(pipe) {
					count[r%simOther]++
				}
			}
		}
	}
	return count
}

// whole says whether nobody took a routed table away.
func (w *world) whole(pipe int) bool {
	for ti, t := range w.tables {
		if w.routed(ti) && (!t.truly() || t.remade() || t.taken[pipe] || t.bare) {
			return false
		}
	}
	return w.cfg.routed && w.drops == 0
}

// checkOnce: no record is in two tables of one sink.
func (w *world) checkOnce(pipe int) {
	if !w.whole(pipe) {
		return
	}
	for r, n := range w.contents(pipe) {
		if n > 1 {
			w.fail("exactly once", "record %d is in %d tables", r, n)
		}
	}
}

// checkWitness: where the dead letters have a batch, the tables of sink 1 say that
// it was in that batch, though none of them had a row of it. A revision for other
// sinks touches no more tables than the plan did.
func (w *world) checkWitness(pipe, ti int, st *batch.Stamp) {
	p := w.plans[st.Plan]
	if !w.isLetters(ti) || !w.whole(pipe) || p == nil || p.Revision > 0 {
		return
	}
	newest := batch.None
	for i, t := range w.tables {
		if s := t.stamp(pipe); w.routed(i) && s != nil {
			newest = max(newest, s.Last)
		}
	}
	if sp := p.Sink(sinkName(1)); sp != nil && sp.Active && newest != batch.None && newest < st.Last {
		w.fail("no witness", "the dead letters have batch %d, the tables of s1 end at batch %d", st.Last, newest)
	}
}

// checkAllThere: each record that sink 1 lets through, and that Kafka still has,
// is in one of its tables, and the totals of all of them say so.
func (w *world) checkAllThere(pipe int) {
	if !w.whole(pipe) || w.out[1] {
		return
	}
	var newest *batch.Stamp
	var written int64
	torn := 0
	for ti, t := range w.tables {
		st := t.stamp(pipe)
		if !w.routed(ti) || st == nil {
			continue
		}
		written += st.Total.Written
		if newest == nil || st.Last > newest.Last {
			newest, torn = st, 0
		}
		if st.Last == newest.Last {
			torn++
		}
	}
	count := w.contents(pipe)
	for p := range int32(simPartitions) {
		part := w.part(w.tp(p))
		for o, r := range part.records {
			if int64(o) < part.start || r.hole || r.refused() || r.poison[1] || r.narrow || !r.to[1] || w.latest {
				continue
			}
			if count[r.id] == 0 {
				w.fail("left out", "record %d, offset %d of partition %d, is in no table of s1", r.id, o, p)
			}
		}
	}
	if newest != nil && !w.cfg.retention && w.topicID == 1 {
		if torn < newest.Route.Tables {
			w.fail("torn", "%d tables of %d have batch %d", torn, newest.Route.Tables, newest.Last)
		}
		if sum := newest.Route.Before.Plus(newest.Route.Counts).Written; sum != written {
			w.fail("accounting", "the tables of s1 have %d rows, their newest stamp says %d: %s", written, sum, fmt.Sprint(newest))
		}
	}
}
