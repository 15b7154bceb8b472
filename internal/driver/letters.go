package driver

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/frazil-io/frazil/internal/batch"
)

// Dead letters are one more sink, the last one, without SQL of its own: its rows
// are what the source and the SQL of all sinks reject. So they are a function of
// the plan's records and of the spec as any sink's are. Where only their table
// lacks a batch, the SQL of all sinks runs again for what it rejects.

// late says whether a sink without a stamp joins where the pipeline stands.
// Records that were skipped before there were dead letters do not become some.
// In a recovery it joins like any other: whether there were some is not known.
func (d *Driver) late(s *sink) bool { return s.Name == d.opts.DeadLetters }

// hasLetterTable says whether dead letters are a table's rows.
func (d *Driver) hasLetterTable() bool { return d.opts.DeadLetters != "" && d.rooms.Letters == nil }

// letterBox adds dead letters that have no table to a job.
func (d *Driver) letterBox(ctx context.Context, job *batch.Job, writers map[string]rowWriter) (Writer, error) {
	if d.rooms.Letters == nil || job.Plan.CatchesUp() {
		return nil, nil
	}
	w, err := d.rooms.Letters(ctx, job.Attempt)
	if err != nil {
		return nil, fmt.Errorf("open the dead letters: %w", err)
	}
	job.Sinks = append(job.Sinks, d.opts.DeadLetters)
	writers[d.opts.DeadLetters] = w
	return w, nil
}

// judgeLetters compares what was rejected with what the dead letters were given,
// closes those that have no table, and stops where there are too many.
func (d *Driver) judgeLetters(ctx context.Context, p *batch.Plan, r *prepared, sinks []*sink, results map[string]batch.Result, box Writer) error {
	given, ok := results[d.opts.DeadLetters]
	if d.opts.DeadLetters == "" || !ok {
		return nil
	}
	letters := int64(0)
	if r.letters.Source {
		letters = r.tally.DeadLettered
	}
	for name, res := range results {
		if name == d.opts.DeadLetters {
			continue
		}
		if letters += res.Letters; res.SourceLetters != given.SourceLetters {
			return fmt.Errorf("%w: a rule of a source rejected %d records; sink %s counted %d", errMiscount, given.SourceLetters, name, res.SourceLetters)
		}
	}
	letters += given.SourceLetters
	given.SourceLetters = 0 // they are among its Letters
	results[d.opts.DeadLetters] = given
	if given.Letters != letters || given.Rows != letters {
		return fmt.Errorf("%w: %d records were rejected, the dead letters were given %d and returned %d", errMiscount, letters, given.Letters, given.Rows)
	}
	r.rejected, r.judged, r.share = letters, true, batch.Fraction{Records: r.tally.Data, Bad: r.tally.DeadLettered + given.Failed}
	if d.isWhole(p, sinks) {
		if err := d.tooMany(p, r.recent(p), given.Reasons); err != nil {
			return err
		}
	}
	if box == nil {
		return nil
	}
	files, err := box.Close(ctx)
	if err != nil {
		return fmt.Errorf("send the dead letters: %w", err)
	}
	if files.Rows() != letters {
		return fmt.Errorf("%w: %d dead letters were sent, %d were acknowledged", errMiscount, letters, files.Rows())
	}
	return nil
}

// isWhole says whether no table has the batch yet: a batch that is half committed
// is always finished.
func (d *Driver) isWhole(p *batch.Plan, lacking []*sink) bool {
	return !slices.ContainsFunc(d.parts(p), func(s *sink) bool { return !slices.Contains(lacking, s) })
}

// judgedFrom is how many records must have been seen before the fraction of bad
// ones means something.
const judgedFrom = 1000

// tooMany stops a batch before it is committed.
func (d *Driver) tooMany(p *batch.Plan, recent batch.Fraction, reasons []string) error {
	if recent.Records < judgedFrom || float64(recent.Bad) <= d.opts.MaxFraction*float64(recent.Records) {
		return nil
	}
	return fmt.Errorf("%w: %d of the last %d records became dead letters, and dead_letter.max_fraction is %g. Nothing of batch %d is committed. In this batch:\n  %s\n"+
		"Correct the spec, or raise dead_letter.max_fraction, and start again: the batch goes on", batch.ErrInvalid, recent.Bad, recent.Records, d.opts.MaxFraction, p.Batch, strings.Join(reasons, "\n  "))
}

// lettersFollow says whether the batch has dead letters, or their table gets an
// empty stamp.
func (r *prepared) lettersFollow(d *Driver, p *batch.Plan) bool {
	sp := p.Sink(d.opts.DeadLetters)
	return r.rejected > 0 || sp != nil && sp.Active && sp.Due
}

// overtaken says whether a table for which the batch was prepared has it from
// another driver, under another plan.
func (r *prepared) overtaken(p *batch.Plan, all []*outcome) bool {
	return slices.ContainsFunc(all, func(o *outcome) bool {
		return r.sinks[o.sink.Name] != nil && o.landed != nil && o.landed.Attempt != r.attempt && o.landed.Plan != p.Hash()
	})
}

// recent is the fraction behind p.
func (r *prepared) recent(p *batch.Plan) batch.Fraction {
	if !r.judged {
		return p.Recent
	}
	return p.Recent.Then(r.share)
}

// letters says whose dead letters a plan has for the tables that lack it. A sink
// that has the batch already, under another spec than it has now, is not asked
// again: it had none, or the former spec must finish the batch.
func (d *Driver) letters(ctx context.Context, p *batch.Plan, lacking []*sink) (of batch.Letters, err error) {
	of.Source = true
	if d.opts.DeadLetters == "" || d.rooms.Letters == nil && !slices.ContainsFunc(lacking, d.late) {
		return of, nil
	}
	if of.Sinks = d.names(); d.rooms.Letters != nil {
		return of, nil
	}
	others := 0
	for _, sp := range p.Sinks {
		i := slices.IndexFunc(d.sinks, func(s *sink) bool { return s.Name == sp.Name })
		switch {
		case !sp.Active:
			continue
		case i < 0:
			return of, fmt.Errorf("%w: sink %s left the spec while batch %d is not complete: records that its SQL rejected may be missing in the dead letters. "+
				"Put it back until that batch is done", batch.ErrInvalid, sp.Name, p.Batch)
		case slices.ContainsFunc(lacking, func(s *sink) bool { return s.whole() == d.sinks[i] }):
			others++
			continue
		}
		same, err := d.sameSpec(ctx, p, d.sinks[i], &sp)
		if err != nil {
			return of, err
		}
		if !same {
			of.Sinks = slices.DeleteFunc(of.Sinks, func(name string) bool { return name == sp.Name })
			of.Source = false
		}
	}
	of.Source = of.Source || others > 1
	return of, nil
}

// allLetters are those of a batch that is executed for every sink.
func (d *Driver) allLetters() batch.Letters { return batch.Letters{Source: true, Sinks: d.names()} }

// names are those of the sinks that have SQL.
func (d *Driver) names() []string {
	var names []string
	for _, s := range d.sinks {
		if !d.late(s) {
			names = append(names, s.Name)
		}
	}
	return names
}

// sameSpec says whether a sink has the batch under the spec that it has now. With
// another one it must have had no dead letters.
func (d *Driver) sameSpec(ctx context.Context, p *batch.Plan, s *sink, sp *batch.SinkPlan) (bool, error) {
	if s.route != nil { // no revision changes its spec, nor what it is read with while a table lacks it
		logged, err := d.revisions(ctx, p)
		if err != nil {
			return false, err
		}
		return s.sameLetters(p, logged[0], lettersOf(sp.Route.Counts))
	}
	q, st, err := d.madeBy(ctx, p, s, sp)
	if err != nil || q == nil {
		return true, err
	}
	return s.sameLetters(p, q, lettersOf(st.Counts)-lettersOf(sp.Carried))
}

// madeBy returns the revision of p by which a table has the batch, and its stamp; nil
// where it has it no more.
func (d *Driver) madeBy(ctx context.Context, p *batch.Plan, s *sink, sp *batch.SinkPlan) (*batch.Plan, *batch.Stamp, error) {
	logged, err := d.revisions(ctx, p)
	if err != nil {
		return nil, nil, err
	}
	_, st, err := d.look(ctx, p, s, sp)
	if err != nil || st == nil {
		return nil, nil, err
	}
	for _, q := range logged {
		if q.Hash() == st.Plan {
			return q, st, nil
		}
	}
	if err := d.checkIncarnation(ctx); err != nil { // the log is gone
		return nil, nil, err
	}
	return nil, nil, fmt.Errorf("%w: the log does not have the plan by which sink %s has batch %d, so which of its records became dead letters cannot be told", batch.ErrDataLost, s.Name, p.Batch)
}

// owesLetters says whether dead letters are still to be made of what a table rejected
// that has the batch already, by the spec that it has it with.
func (d *Driver) owesLetters(p *batch.Plan, lacking []*sink) bool {
	return d.hasLetterTable() && slices.ContainsFunc(lacking, d.late) && slices.ContainsFunc(d.parts(p), func(s *sink) bool {
		return !slices.Contains(lacking, s) && p.Sink(s.Name).Hash == s.Hash
	})
}

// sameLetters says whether a sink gives the dead letters that it had, n of them,
// when it took the batch as q has it.
func (s *sink) sameLetters(p, q *batch.Plan, n int64) (bool, error) {
	same := q.Sink(s.Name).Hash == s.Hash
	switch {
	case same && maps.Equal(q.Readers, p.Readers):
		return true, nil
	case n == 0:
		return false, nil
	case same:
		return false, &otherReaders{q.Readers}
	}
	return false, fmt.Errorf("%w: sink %s has batch %d under another spec, and the dead letters lack the %d records that were rejected then. "+
		"Run the former spec until that batch is done, then this one", batch.ErrInvalid, s.Name, p.Batch, n)
}

// lettersAhead says whether the table of the dead letters, the last one of a batch,
// seems to have it before another: one that was looked at before another driver
// committed to both. Executed without the letters, it would not be known that an
// empty stamp is in that table.
func (d *Driver) lettersAhead(p *batch.Plan, lacking []*sink) bool {
	return d.hasLetterTable() && len(lacking) > 0 && !slices.ContainsFunc(lacking, d.late) && slices.ContainsFunc(d.parts(p), d.late)
}

// lettersOf counts the dead letters of one sink and of its sources.
func lettersOf(c batch.Counts) int64 { return c.Letters + c.SourceLetters + c.DeadLettered }
