package verify

import (
	"context"
	"fmt"

	"github.com/frazil-io/frazil/internal/batch"
)

// Options of an audit.
type Options struct {
	Pipeline string
	// KeepSnapshots is the spec's maintenance.keep_snapshots.
	KeepSnapshots int
	// Replayed is, by sink, what the runs of dead letters that are over have counted,
	// as the checkpoint said before the tables were loaded.
	Replayed map[string]batch.Counts
	// Marked is, by stream, up to which batch its letters were run again, as the rows of
	// the table of the dead letters said before that.
	Marked map[string]int64
}

// Incarnations are the ids of those that live stamps of the tables name.
func Incarnations(tables []Table) map[string]bool {
	ids := map[string]bool{}
	for _, t := range tables {
		if t.Metadata == nil {
			continue
		}
		for _, s := range t.Metadata.Snapshots() {
			if s.Summary == nil {
				continue
			}
			if st, err := batch.ParseStamp(s.Summary.Properties); err == nil && st != nil {
				ids[st.IncarnationID] = true
			}
		}
	}
	return ids
}

// Tables audits tables, of which the metadata were loaded before the records, and
// the records with them. An error is one of reading: batch.ErrUnavailable, or
// batch.ErrInvalid for credentials.
func Tables(ctx context.Context, o Options, tables []Table, r *Records) (*Report, error) {
	report := &Report{Name: o.Pipeline}
	r.audit(&report.Checkpoint)
	report.Tables = make([]TableReport, len(tables))
	routed := map[string][]*chain{}
	for i, t := range tables {
		c, err := auditTable(ctx, o, t, r, &report.Tables[i])
		if err != nil {
			return nil, fmt.Errorf("sink %s: table %s: %w", t.Sink, t.Name, err)
		}
		if sink, table := batch.SplitRoute(t.Sink); table != "" && c != nil {
			routed[sink] = append(routed[sink], c)
		}
	}
	for sink, all := range routed {
		report.together(all, sink, r.Dropped[sink])
	}
	report.Finish()
	return report, nil
}

// Finish sorts the findings and says whether there are any.
func (r *Report) Finish() {
	r.Checkpoint.finish()
	for i := range r.Tables {
		r.Tables[i].finish()
	}
	r.Clean = r.Findings() == 0
}

// auditTable audits one table, and returns its chain of stamps, nil where there is no
// table.
func auditTable(ctx context.Context, o Options, t Table, r *Records, report *TableReport) (*chain, error) {
	report.Sink, report.Table = t.Sink, t.Name
	if t.Metadata == nil {
		r.missing(&report.Section, t.Sink)
		return nil, nil
	}
	c := &chain{history: newHistory(t, batch.Tag(o.Pipeline, batch.StreamMain)), Section: &report.Section, name: o.Pipeline, stream: batch.StreamMain, keep: o.KeepSnapshots}
	c.ours(r.uuid(c.tagged))
	c.audit()
	if c.tagged != nil && c.tagged.stamp != nil {
		report.Stamp, report.Rows = c.tagged.stamp.String(), c.tagged.stamp.Total.Written
	}
	r.agree(&report.Section, t.Sink, c)
	f, err := auditFiles(ctx, c.history, &report.Section, t.FS)
	if err != nil {
		return nil, err
	}
	newest := c.newestOf()
	o.replays(t, report, r.uuid(c.tagged), newest)
	f.total(newest)
	return c, nil
}

// uuid is the identity whose stamps are the pipeline's: what the tag carries, else
// what the checkpoint says.
func (r *Records) uuid(tagged *snapshot) string {
	if tagged != nil && tagged.stamp != nil {
		return tagged.stamp.UUID
	}
	if inc := r.newest(); inc != nil {
		return inc.UUID
	}
	return ""
}

// missing says of a table that does not exist whether it should.
func (r *Records) missing(s *Section, sink string) {
	inc := r.newest()
	if inc == nil {
		s.note("the table does not exist yet")
		return
	}
	if l := r.log(inc.Number, inc.ID); l != nil {
		if _, table := batch.SplitRoute(sink); table != "" {
			if must, _ := l.touches(sink, r.Entry); must != nil {
				s.find(MissingTable, "table", fmt.Sprintf("does not exist, though the pipeline had committed batch %d to it", must.Batch), "bring it back; if it was dropped on purpose, note that in the checkpoint as docs/routing.md says")
				return
			}
		}
		for _, f := range l.Plans {
			if f.Value == nil {
				continue
			}
			if sp := f.Value.Sink(sink); sp != nil && sp.Before.Hash != "" {
				s.find(MissingTable, "table", fmt.Sprintf("does not exist, though the pipeline had committed batch %d to it", sp.Before.Last), "bring it back; or, to begin again with an empty one, give the pipeline another name")
				return
			}
		}
	}
	s.note("the table does not exist yet")
}
