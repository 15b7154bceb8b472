package pipeline

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/google/uuid"

	"github.com/frazil-io/frazil/internal/batch"
	"github.com/frazil-io/frazil/internal/sink"
	"github.com/frazil-io/frazil/internal/verify"
)

// ReplayOptions say what to run again.
type ReplayOptions struct {
	Batch batch.ID
	Sinks []string // none: all
	// Today allows a spec that is another one than the batch was planned with.
	Today bool
	// Branch, if not "", is a new branch of each table with the replayed rows, from
	// the snapshot before the batch.
	Branch string
	// Row takes the rows; nil: nobody does.
	Row func(sink string, rows arrow.RecordBatch) error
}

// Replayed is what a batch came to when it was run again.
type Replayed struct {
	Batch    batch.ID      `json:"batch"`
	Revision int           `json:"revision"`
	Plan     string        `json:"plan"`
	Changed  []string      `json:"changed_sinks"` // whose spec is another one today
	Ranges   []batch.Range `json:"ranges"`
	Tally    batch.Tally   `json:"tally"`
	Diffs    []verify.Diff `json:"diffs"`
	// Branches are the snapshots that were made, by sink, or by sink/table.
	Branches map[string]int64 `json:"branches"`
	// Notes say what could not be compared.
	Notes []string `json:"notes"`
}

// Equal says whether every sink that was compared gave the same rows.
func (r *Replayed) Equal() bool {
	return !slices.ContainsFunc(r.Diffs, func(d verify.Diff) bool { return !d.Equal })
}

// logged is one incarnation's log, in order.
type logged struct {
	inc   batch.Incarnation
	plans []*batch.Plan
}

// loggedPlans reads the newest incarnation's log.
func (p *Pipeline) loggedPlans(ctx context.Context) (*logged, error) {
	cp, err := p.Checkpoint(ctx)
	if err != nil {
		return nil, err
	}
	inc, err := newestOf(ctx, cp)
	if err != nil {
		return nil, err
	}
	if inc == nil {
		return nil, fmt.Errorf("%w: the checkpoint is empty: the pipeline has not run yet, or its checkpoint was lost", batch.ErrInvalid)
	}
	l := &logged{inc: *inc}
	files, err := cp.AuditLog(ctx, l.inc)
	if err != nil {
		return nil, err
	}
	for _, f := range files {
		if f.Damage != nil {
			return nil, f.Damage
		}
		l.plans = append(l.plans, f.Value)
	}
	return l, nil
}

// of returns the newest revision of a batch and the plans of the batches behind it.
func (l *logged) of(id batch.ID) (p *batch.Plan, later []*batch.Plan) {
	for i, q := range l.plans {
		if q.Batch == id {
			p, later = q, l.plans[i+1:]
		}
	}
	return p, later
}

// Replay runs a batch again from its logged plan and compares its rows with those
// that were committed. It commits nothing, except to Options.Branch.
//
// batch.ErrInvalid: the plan is not kept any more, or the spec is another one.
// batch.ErrDataLost: Kafka has not all of its records any more.
func (p *Pipeline) Replay(ctx context.Context, o ReplayOptions) (*Replayed, error) {
	l, err := p.loggedPlans(ctx)
	if err != nil {
		return nil, err
	}
	plan, later := l.of(o.Batch)
	if plan == nil {
		kept := "the log is empty"
		if len(l.plans) > 0 {
			kept = fmt.Sprintf("the log keeps batches %d..%d of incarnation %d (maintenance.keep_batches)", l.plans[0].Batch, l.plans[len(l.plans)-1].Batch, l.inc.Number)
		}
		return nil, fmt.Errorf("%w: batch %d is not in the log: %s", batch.ErrInvalid, o.Batch, kept)
	}
	r := &Replayed{Batch: plan.Batch, Revision: plan.Revision, Plan: plan.Hash(), Ranges: plan.Ranges, Diffs: []verify.Diff{}, Changed: []string{}, Branches: map[string]int64{}, Notes: []string{}}
	if len(o.Sinks) == 0 {
		o.Sinks = p.spec.Sinks.Names
	}
	var sinks []string
	for _, name := range o.Sinks {
		sp := plan.Sink(name)
		switch {
		case sp == nil || !sp.Active:
			r.note("sink %s takes no part in batch %d", name, plan.Batch)
			continue
		case sp.Hash != p.sinkHash(name):
			r.Changed = append(r.Changed, name)
		}
		sinks = append(sinks, name)
	}
	if len(r.Changed) > 0 && !o.Today {
		return nil, fmt.Errorf("%w: batch %d was planned with another spec for sink %s: take the spec of that time, or run today's with --changed-spec and see the difference",
			batch.ErrInvalid, plan.Batch, strings.Join(r.Changed, ", "))
	}
	if len(sinks) == 0 {
		return r, nil
	}
	if err := p.readAs(ctx, plan); err != nil {
		return nil, err
	}
	if err := p.retained(ctx, plan); err != nil {
		return nil, err
	}
	return r, p.replay(ctx, r, l.inc, plan, later, sinks, o)
}

func (r *Replayed) note(format string, args ...any) {
	r.Notes = append(r.Notes, fmt.Sprintf(format, args...))
}

// readAs makes the pipeline read with the schemas that a plan names.
func (p *Pipeline) readAs(ctx context.Context, plan *batch.Plan) error {
	if len(plan.Readers) == 0 || maps.Equal(plan.Readers, p.current()) {
		return nil
	}
	return p.ReadWith(ctx, plan.Readers)
}

// retained says which of a plan's ranges Kafka has no more.
func (p *Pipeline) retained(ctx context.Context, plan *batch.Plan) error {
	src, err := p.Source()
	if err != nil {
		return err
	}
	available, err := patient(ctx, func() ([]batch.Available, error) { return src.List(ctx, plan.Ranges) })
	if err != nil {
		return err
	}
	if gone := goneRanges(plan.Ranges, available); len(gone) > 0 {
		return fmt.Errorf("%w: batch %d cannot be run again: Kafka has %s no more", batch.ErrDataLost, plan.Batch, strings.Join(gone, ", "))
	}
	return nil
}

// goneRanges are what cannot be read any more of the ranges.
func goneRanges(ranges []batch.Range, available []batch.Available) (gone []string) {
	starts := map[batch.TopicPartition]int64{}
	for _, a := range available {
		starts[a.TopicPartition] = a.Start
	}
	for _, r := range ranges {
		start, ok := starts[r.TopicPartition]
		switch {
		case r.First() >= r.End:
		case !ok:
			gone = append(gone, fmt.Sprintf("%s[%d,%d)", r.TopicPartition, r.First(), r.End))
		case start > r.First():
			gone = append(gone, fmt.Sprintf("%s[%d,%d)", r.TopicPartition, r.First(), min(start, r.End)))
		}
	}
	return gone
}

// compared is one sink's share of a replay.
type compared struct {
	table verify.Table
	has   verify.Batch
	*verify.Comparison
}

// execute runs a plan for some of its sinks; row takes its rows, one after the other.
func (p *Pipeline) execute(ctx context.Context, plan *batch.Plan, sinks []string, row func(sink string, rows arrow.RecordBatch) error) (tally batch.Tally, err error) {
	src, err := p.Source()
	if err != nil {
		return tally, err
	}
	var one sync.Mutex // rows come from several workers
	job := batch.Job{Plan: plan, Ranges: plan.Ranges, Sinks: sinks, Attempt: "replay", State: map[string]string{}, Letters: p.lettersOf(plan)}
	_, err = p.executor().Execute(ctx, job, func(emit, letters func(arrow.RecordBatch) error) (err error) {
		tally, err = src.Read(ctx, plan.Ranges, emit, letters)
		return err
	}, func(sink string, rows arrow.RecordBatch) error {
		one.Lock()
		defer one.Unlock()
		return row(sink, rows)
	})
	return tally, err
}

// lettersOf are the dead letters of a plan: those of its source, and of the sinks
// that it names and that the spec still has, also those that lag.
func (p *Pipeline) lettersOf(plan *batch.Plan) batch.Letters {
	of := batch.Letters{Source: true}
	for _, name := range p.spec.Queries() {
		if plan.Sink(name) != nil {
			of.Sinks = append(of.Sinks, name)
		}
	}
	return of
}

func (p *Pipeline) replay(ctx context.Context, r *Replayed, inc batch.Incarnation, plan *batch.Plan, later []*batch.Plan, sinks []string, o ReplayOptions) error {
	var parts []string
	for _, name := range sinks {
		parts = append(parts, p.partsOf(plan.Sink(name))...)
	}
	all, err := p.auditedParts(ctx, parts)
	if err != nil {
		return err
	}
	commits, err := p.commits(ctx, inc)
	if err != nil {
		return err
	}
	sides, stray := map[string]*compared{}, map[string]int64{}
	for _, t := range all {
		has, ok, err := verify.NewContents(t, p.spec.Name).BatchOf(inc, plan.Batch, later)
		if err != nil {
			return fmt.Errorf("sink %s: %w", t.Sink, err)
		}
		if !ok && (t.Metadata == nil || commits[plan.Batch] == nil) {
			r.note("sink %s has not committed batch %d: there is nothing to compare with", t.Sink, plan.Batch)
			continue
		}
		c := &compared{table: t, has: has, Comparison: verify.NewComparison(t.Sink, t.Metadata.CurrentSchema(), has.Rows)}
		for _, name := range has.Files {
			if err := c.Committed(ctx, t.FS, name); err != nil {
				return fmt.Errorf("sink %s: %w", t.Sink, err)
			}
		}
		sides[t.Sink] = c
	}
	staged, err := p.stage(ctx, o.Branch, parts)
	if err != nil {
		return err
	}
	r.Tally, err = p.execute(ctx, plan, sinks, func(sink string, rows arrow.RecordBatch) error {
		if o.Row != nil {
			if err := o.Row(sink, rows); err != nil {
				return err
			}
		}
		return p.divided(ctx, sink, rows, func(part string, rows arrow.RecordBatch) error {
			if c := sides[part]; c != nil {
				c.Replayed(rows)
			}
			if chooses(plan.Sink(sink), part) {
				stray[part] += rows.NumRows()
			}
			return staged.write(part, rows)
		})
	})
	if err != nil {
		return errors.Join(err, staged.drop(ctx))
	}
	for _, name := range parts {
		c := sides[name]
		if c == nil {
			continue
		}
		d, err := c.End(ctx, c.table.FS, c.has.Files)
		if err != nil {
			return fmt.Errorf("sink %s: %w", name, err)
		}
		d.Snapshot = c.has.Snapshot
		r.Diffs = append(r.Diffs, d)
	}
	for _, part := range slices.Sorted(maps.Keys(stray)) {
		r.Diffs = append(r.Diffs, verify.Diff{Sink: part, Replayed: stray[part], OnlyReplayed: stray[part], Share: 1, ExamplesReplayed: []json.RawMessage{}, ExamplesCommitted: []json.RawMessage{}})
	}
	r.Branches, err = staged.commit(ctx, plan, sides)
	return err
}

// chooses says whether a part is a table that the plan does not name.
func chooses(sp *batch.SinkPlan, part string) bool {
	_, table := batch.SplitRoute(part)
	return table != "" && (sp.Route == nil || sp.Route.Table(table) == nil)
}

// staged writes replayed rows for branches of the tables.
type staged struct {
	branch  string
	attempt string
	sinks   []string
	tables  map[string]stagedTable
}

type stagedTable struct {
	table  *sink.Table
	writer *sink.Writer
}

func (p *Pipeline) stage(ctx context.Context, branch string, sinks []string) (*staged, error) {
	s := &staged{branch: branch, attempt: uuid.NewString(), sinks: sinks, tables: map[string]stagedTable{}}
	if branch == "" {
		return s, nil
	}
	for _, name := range sinks {
		t, err := p.partTable(ctx, name)
		if err != nil {
			return nil, err
		}
		w, err := t.Writer(ctx, s.attempt)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("sink %s: %w", name, err), s.drop(ctx))
		}
		s.tables[name] = stagedTable{t, w}
	}
	return s, nil
}

func (s *staged) write(sink string, rows arrow.RecordBatch) error {
	if t, ok := s.tables[sink]; ok {
		return t.writer.Write(rows)
	}
	return nil
}

// drop deletes what was written and is in no snapshot.
func (s *staged) drop(ctx context.Context) (failed error) {
	for _, t := range s.tables {
		t.writer.Abort()
		failed = errors.Join(failed, t.table.Sweep(context.WithoutCancel(ctx), s.attempt))
	}
	return failed
}

// commit makes the branches, each from the snapshot before the batch.
func (s *staged) commit(ctx context.Context, plan *batch.Plan, sides map[string]*compared) (map[string]int64, error) {
	made := map[string]int64{}
	if s.branch == "" {
		return made, nil
	}
	for _, name := range s.sinks {
		t := s.tables[name]
		files, err := t.writer.Close(ctx)
		if err != nil {
			return made, errors.Join(fmt.Errorf("sink %s: %w", name, err), s.drop(ctx))
		}
		from, err := before(sides[name], plan)
		if err == nil {
			made[name], err = t.table.Stage(ctx, s.branch, from, files, map[string]string{verify.ReplayedBatch: fmt.Sprint(plan.Batch), verify.ReplayedPlan: plan.Hash()})
		}
		if err != nil {
			return made, errors.Join(fmt.Errorf("sink %s: %w", name, err), s.drop(ctx))
		}
	}
	return made, nil
}

// before is the snapshot that a table had before a batch.
func before(c *compared, plan *batch.Plan) (int64, error) {
	if c == nil {
		return 0, nil
	}
	id, ok := verify.SnapshotBefore(c.table, c.has)
	if !ok {
		return 0, fmt.Errorf("%w: the snapshot before batch %d has expired: a branch cannot begin there", batch.ErrInvalid, plan.Batch)
	}
	return id, nil
}
