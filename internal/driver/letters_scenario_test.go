package driver_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/apache/arrow-go/v18/arrow"

	"github.com/frazil-io/frazil/internal/batch"
	"github.com/frazil-io/frazil/internal/driver"
)

// lossy loses something at one hand-over.
type lossy struct {
	driver.Source
	driver.Executor
	rows, letters, bad, scanned, read, unread, rejected, code, handed, written, rule, ruled bool
}

func (l *lossy) Read(ctx context.Context, ranges []batch.Range, emit, letters func(arrow.RecordBatch) error) (batch.Tally, error) {
	lost := func(arrow.RecordBatch) error { return nil }
	if l.rows {
		emit = lost
	}
	if l.letters {
		letters = lost
	}
	t, err := l.Source.Read(ctx, ranges, emit, letters)
	if l.bad {
		t.Bad.Decode--
	}
	if l.read {
		t.Data--
	}
	return t, err
}

func (l *lossy) Execute(ctx context.Context, job batch.Job, read func(emit, letters func(arrow.RecordBatch) error) error, write func(string, arrow.RecordBatch) error) (map[string]batch.Result, error) {
	out := write
	if l.written {
		out = func(sink string, rows arrow.RecordBatch) error {
			if sink == sinkName(0) {
				return nil
			}
			return write(sink, rows)
		}
	}
	if l.handed {
		out = func(sink string, rows arrow.RecordBatch) error {
			if sink == sinkName(1) {
				return nil
			}
			return write(sink, rows)
		}
	}
	results, err := l.Executor.Execute(ctx, job, read, out)
	one := results[sinkName(0)]
	if l.scanned {
		one.Scanned--
	}
	if l.unread {
		one.Without++
	}
	if l.rejected {
		one.Letters--
	}
	if l.rule {
		one.SourceLetters--
	}
	if l.ruled {
		one.Rules = map[string]int64{"rule1": 2, "rule2": 1}
	}
	if l.code {
		one.RejectedBy.Cast--
	}
	if err == nil {
		results[sinkName(0)] = one
	}
	return results, err
}

// TestLossIsCaught: what gets lost at a hand-over is noticed before anything of
// the batch is committed.
func TestLossIsCaught(t *testing.T) {
	for name, l := range map[string]*lossy{
		"nothing": {}, "rows of the source": {rows: true}, "letters of the source": {letters: true}, "a code": {bad: true}, "a record": {read: true},
		"a row before SQL": {scanned: true}, "a row within SQL": {unread: true}, "a letter of SQL": {rejected: true}, "a code of SQL": {code: true},
		"letters before their table": {handed: true}, "rows before their files": {written: true},
		"a letter of a rule of the source": {rule: true}, "a rule counted twice": {ruled: true},
	} {
		t.Run(name, func(t *testing.T) {
			s := newScenario(t, simConfig{tables: 1, drivers: 1, letters: true})
			s.add(0, record{id: 100, bad: true})
			s.add(0, record{id: 102, rule: toLetter})
			s.add(0, record{id: 103, rule: toNobody})
			poison := record{id: 101, to: [simSinks]bool{true}}
			poison.poison[0] = true
			s.add(1, poison)
			s.between = func(r *driver.Rooms) {
				own := *l
				own.Source, own.Executor = r.Source, r.Executor
				r.Source, r.Executor = &own, &own
			}
			if name == "nothing" {
				s.idle(0)
				s.settles()
				return
			}
			for range 2 { // a small first batch may have nothing to lose
				s.procs[0].start()
				for range 20000 {
					if !s.procs[0].alive {
						break
					}
					s.procs[0].step()
				}
				if err := s.procs[0].err; err == nil || !strings.Contains(err.Error(), "miscounted") {
					s.die("it ends with %v", err)
				}
			}
			for ti, table := range s.tables {
				if st := table.stamp(0); st != nil && st.Last > 0 {
					t.Errorf("table %d has %s", ti, st)
				}
			}
		})
	}
}

// TestLettersJoinLate: dead letters that join begin where the pipeline stands.
func TestLettersJoinLate(t *testing.T) {
	s := newScenario(t, simConfig{tables: 1, drivers: 1})
	s.rows(0, 2)
	s.idle(0)
	s.procs[0].kill()
	s.cfg.letters = true
	s.tables = append(s.tables, newSimTable(1))
	s.idle(0)
	st := s.tables[1].snaps[1].stamp
	for tp, at := range st.End {
		if st.Start[tp] != at || at != int64(len(s.part(tp).records)) {
			t.Errorf("the dead letters begin at %d of %s, which ends at %d", st.Start[tp], tp, len(s.part(tp).records))
		}
	}
	s.add(0, record{id: 50, bad: true})
	s.idle(0)
	if got := s.tables[1].stamp(0); got.Counts.Letters != 1 || got.Counts.Written != 1 {
		t.Errorf("%+v", got.Counts)
	}
}

// pinning gives dimension tables another version each time.
type pinning struct {
	driver.Executor
	n *int
}

func (p pinning) Pin(context.Context) (map[string]string, error) {
	*p.n++
	return map[string]string{"dim": fmt.Sprint(*p.n)}, nil
}

// TestLettersKeepVersions: what a table has rejected by one version of a dimension
// table becomes dead letters by the same, though the batch is revised for another sink.
func TestLettersKeepVersions(t *testing.T) {
	s := newScenario(t, simConfig{tables: 2, drivers: 1, letters: true})
	n := 0
	s.between = func(r *driver.Rooms) { r.Executor = pinning{r.Executor, &n} }
	s.idle(0)
	poison := record{id: 101, to: [simSinks]bool{true, true}}
	poison.poison[0] = true
	s.add(1, poison)
	s.until(0, "commit t1")
	s.procs[0].kill()
	s.spec[1] = 2
	s.settles()
	rejected, letters := s.plans[s.tables[0].stamp(0).Plan], s.plans[s.tables[2].stamp(0).Plan]
	if rejected.Batch != letters.Batch || rejected.Revision == letters.Revision || rejected.Versions["dim"] != letters.Versions["dim"] {
		s.die("rejected by %v, letters by %v", rejected.Versions, letters.Versions)
	}
}

// TestLettersOfAnotherDriver: wherever between two looks at the tables another driver
// commits a batch that has dead letters and no row, it is seen in both of them.
func TestLettersOfAnotherDriver(t *testing.T) {
	for looks := range 3 {
		t.Run(fmt.Sprint(looks), func(t *testing.T) {
			s := newScenario(t, simConfig{tables: 1, drivers: 2, letters: true})
			s.idle(0)
			poison := record{id: 101, to: [simSinks]bool{true}}
			poison.poison[0] = true
			s.add(1, poison)
			s.until(0, "commit t0")
			for range looks {
				if !s.reaches(1, "load t1") {
					break
				}
				s.procs[1].step()
			}
			if s.procs[1].alive {
				s.reaches(1, "load t1")
			}
			s.through(0, "commit t1")
			s.procs[0].kill()
			s.rows(0, 1)
			s.settles()
			if c := s.tables[1].stamp(0).Total; c.Written != 1 {
				s.die("%d dead letters", c.Written)
			}
		})
	}
}

// TestLettersOfAGap: records of a batch are lost when a table has it already, by a spec
// that rejected nothing. What the spec of now would reject is in that table, and is no
// dead letter, though the batch is executed again for the tables that rows choose.
func TestLettersOfAGap(t *testing.T) {
	s := newScenario(t, simConfig{tables: 1, routed: true, drivers: 1, letters: true, retention: true})
	s.spec[0] = 2
	s.idle(0)
	s.routedRows(0, 1, 1)
	poison := record{id: 101, to: [simSinks]bool{true, true}}
	poison.poison[0] = true
	s.add(0, poison)
	s.until(0, "commit t1")
	s.procs[0].kill()
	s.spec[0] = 1
	s.part(s.tp(0)).start = 3
	s.onLoss = true
	s.settles()
	if n := s.rowsOf(4); n != 0 {
		s.die("%d dead letters", n)
	}
}

// TestLettersWithoutLog: the checkpoint is lost under a driver that must know by which
// spec a table has rejected what is no dead letter yet.
func TestLettersWithoutLog(t *testing.T) {
	s := newScenario(t, simConfig{tables: 2, drivers: 2, letters: true, loss: true})
	s.idle(0)
	poison := record{id: 101, to: [simSinks]bool{true, true}}
	poison.poison[0] = true
	s.add(0, poison)
	s.until(0, "commit t0 batch 1")
	s.spec[0] = 2
	s.until(1, "create sim/offsets/0-") // a revision: the table lacks the batch
	s.through(0, "commit t0 batch 1")
	s.procs[0].kill()
	s.through(1, "create sim/offsets/0-")
	s.through(1, "load t2")
	s.loseCheckpoint()
	s.stops(1, batch.ErrFenced, "its checkpoint is gone")
}
