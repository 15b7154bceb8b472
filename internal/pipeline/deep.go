package pipeline

import (
	"context"
	"errors"
	"fmt"

	"github.com/apache/arrow-go/v18/arrow"

	"github.com/frazil-io/frazil/internal/batch"
	"github.com/frazil-io/frazil/internal/verify"
)

// deep reads again what Kafka still has of each logged batch, and compares.
type deep struct {
	p        *Pipeline
	log      *logged
	commits  map[batch.ID]*batch.Commit
	contents map[string]*verify.Contents
	tables   map[string]verify.Table
	gone     map[string]int64 // batches by sink of which Kafka has not all records any more
	changed  map[string]int64 // batches by sink that another spec made
}

// deepen runs every logged batch again that Kafka still has.
func (p *Pipeline) deepen(ctx context.Context, report *verify.Report) error {
	report.Deep = true
	d := &deep{p: p, contents: map[string]*verify.Contents{}, tables: map[string]verify.Table{}, gone: map[string]int64{}, changed: map[string]int64{}}
	var err error
	if d.log, err = p.loggedPlans(ctx); err != nil {
		if errors.Is(err, batch.ErrUnavailable) {
			return err
		}
		return nil // the report says already what is wrong with the checkpoint
	}
	if d.commits, err = p.commits(ctx, d.log.inc); err != nil {
		return err
	}
	tables, err := p.auditedTables(ctx)
	if err != nil {
		return err
	}
	for _, t := range tables {
		d.tables[t.Sink], d.contents[t.Sink] = t, verify.NewContents(t, p.spec.Name)
	}
	for i, plan := range d.log.plans {
		if i+1 < len(d.log.plans) && d.log.plans[i+1].Batch == plan.Batch {
			continue // it was revised
		}
		if err := d.batch(ctx, report, plan, d.log.plans[i+1:]); err != nil {
			return fmt.Errorf("batch %d: %w", plan.Batch, err)
		}
	}
	for sink, n := range d.gone {
		report.Note(sink, "%d logged batches were not read again: Kafka has not all of their records any more", n)
	}
	for sink, n := range d.changed {
		report.Note(sink, "%d logged batches were made with another spec; their records were counted, and not run again", n)
	}
	return nil
}

// commits are the commit records of an incarnation.
func (p *Pipeline) commits(ctx context.Context, inc batch.Incarnation) (map[batch.ID]*batch.Commit, error) {
	cp, err := p.Checkpoint(ctx)
	if err != nil {
		return nil, err
	}
	files, err := cp.AuditCommits(ctx, inc)
	if err != nil {
		return nil, err
	}
	all := map[batch.ID]*batch.Commit{}
	for _, f := range files {
		if f.Value != nil {
			all[f.Value.Batch] = f.Value
		}
	}
	return all, nil
}

// counted is what a batch came to in a sink when it was committed, without what went
// by before it.
func (d *deep) counted(plan *batch.Plan, later []*batch.Plan, sink string) (batch.Tally, bool) {
	var outcomes []batch.Outcome
	if c := d.commits[plan.Batch]; c != nil {
		outcomes = c.Outcome
	} else if len(later) > 0 {
		outcomes = later[0].Outcome
	}
	for _, o := range outcomes {
		if o.Sink != sink {
			continue
		}
		then := o.Counts.Tally
		if o.Snapshot != 0 { // the stamp's counts
			carried := plan.Sink(sink).Carried.Tally
			then.Data, then.Absent = then.Data-carried.Data, then.Absent-carried.Absent
		}
		return then, true
	}
	return batch.Tally{}, false
}

// batch reads one batch again.
func (d *deep) batch(ctx context.Context, report *verify.Report, plan *batch.Plan, later []*batch.Plan) error {
	then := map[string]batch.Tally{}
	var run, parts []string
	for _, sp := range plan.Sinks {
		if !d.known(sp.Name) || !sp.Active {
			continue
		}
		tally, ok := d.counted(plan, later, sp.Name)
		if !ok {
			continue // it is not known to be committed yet
		}
		of := d.p.partsOf(&sp)
		for _, part := range of {
			then[part] = tally
		}
		if sp.Hash == d.p.sinkHash(sp.Name) {
			run, parts = append(run, sp.Name), append(parts, of...)
			continue
		}
		for _, part := range of {
			d.changed[part]++
		}
	}
	if len(then) == 0 {
		return nil
	}
	err := d.p.retained(ctx, plan)
	if errors.Is(err, batch.ErrDataLost) || errors.Is(err, batch.ErrInvalid) {
		for name := range then {
			d.gone[name]++
		}
		return nil
	}
	if err != nil {
		return err
	}
	return d.again(ctx, report, plan, later, then, run, parts)
}

// known says whether the spec has a sink.
func (d *deep) known(sink string) bool {
	_, ok := d.p.spec.Sinks.By[sink]
	return ok
}

func (d *deep) again(ctx context.Context, report *verify.Report, plan *batch.Plan, later []*batch.Plan, then map[string]batch.Tally, run, parts []string) error {
	err := d.p.readAs(ctx, plan)
	if errors.Is(err, batch.ErrInvalid) {
		for name := range then {
			report.Note(name, "batch %d could not be run again: %v", plan.Batch, err)
		}
		return nil
	}
	if err != nil {
		return err
	}
	sides, stray := map[string]*compared{}, map[string]int64{}
	for _, name := range parts {
		c, err := d.side(ctx, plan, later, name)
		if err != nil {
			if errors.Is(err, batch.ErrUnavailable) {
				return err
			}
			report.Note(name, "batch %d was not compared: %v", plan.Batch, err)
			continue
		}
		sides[name] = c
	}
	now, err := d.p.execute(ctx, plan, run, func(sink string, rows arrow.RecordBatch) error {
		return d.p.divided(ctx, sink, rows, func(part string, rows arrow.RecordBatch) error {
			if c := sides[part]; c != nil {
				c.Replayed(rows)
			}
			if chooses(plan.Sink(sink), part) {
				stray[part] += rows.NumRows()
			}
			return nil
		})
	})
	if errors.Is(err, batch.ErrInvalid) || errors.Is(err, batch.ErrDataLost) {
		for name := range then {
			report.Note(name, "batch %d could not be run again: %v", plan.Batch, err)
		}
		return nil
	}
	if err != nil {
		return err
	}
	for part, rows := range stray {
		report.Stray(part, plan.Batch, rows)
	}
	for name, tally := range then {
		read := verify.Read{Sink: name, Batch: plan.Batch, Then: tally, Now: now}
		if c := sides[name]; c != nil {
			diff, err := c.End(ctx, c.table.FS, c.has.Files)
			if err != nil {
				return err
			}
			read.Diff = &diff
		}
		report.Compare(read)
	}
	return nil
}

// side takes the committed rows of a batch.
func (d *deep) side(ctx context.Context, plan *batch.Plan, later []*batch.Plan, name string) (*compared, error) {
	t, found := d.tables[name]
	if !found {
		return nil, fmt.Errorf("%w: the checkpoint does not list the table", batch.ErrInvalid)
	}
	has, ok, err := d.contents[name].BatchOf(d.log.inc, plan.Batch, later)
	if err != nil {
		return nil, err
	}
	if !ok && t.Metadata == nil {
		return nil, fmt.Errorf("%w: there is no table", batch.ErrInvalid)
	}
	c := &compared{table: t, has: has, Comparison: verify.NewComparison(name, t.Metadata.CurrentSchema(), has.Rows)}
	for _, file := range has.Files {
		if err := c.Committed(ctx, t.FS, file); err != nil {
			return nil, err
		}
	}
	return c, nil
}
