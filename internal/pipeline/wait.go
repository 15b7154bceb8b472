package pipeline

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/apache/iceberg-go/table"

	"github.com/frazil-io/frazil/internal/batch"
	"github.com/frazil-io/frazil/internal/driver"
)

// Until are offsets that someone waits for: everything before them.
type Until batch.Offsets

// Waited is what became of what someone waited for in one sink's table.
type Waited struct {
	Sink  string `json:"sink"`
	Table string `json:"table"`
	Done  bool   `json:"done"`
	// Batch and Snapshot are those that the last of the records went into, where
	// that can be told still: Snapshot is 0 where nothing was committed.
	Batch    *batch.ID `json:"batch,omitempty"`
	Snapshot int64     `json:"snapshot,omitempty"`
	// State says it for people.
	State string `json:"state"`
}

// UntilOffset waits for one record: topic, partition and its offset. It is
// batch.ErrInvalid where no source of the spec reads that partition.
func (p *Pipeline) UntilOffset(ctx context.Context, topic string, partition int32, offset int64) (Until, error) {
	src, err := p.Source()
	if err != nil {
		return nil, err
	}
	available, err := patient(ctx, func() ([]batch.Available, error) { return src.List(ctx, nil) })
	if err != nil {
		return nil, err
	}
	until, topics := Until{}, map[string]int{}
	for _, a := range available {
		topics[a.Topic]++
		if a.Topic == topic && a.Partition == partition {
			until[a.TopicPartition] = offset + 1
		}
	}
	switch {
	case len(until) > 0:
		return until, nil
	case topics[topic] > 0:
		return nil, fmt.Errorf("%w: topic %q has %d partitions, and no partition %d", batch.ErrInvalid, topic, topics[topic], partition)
	}
	return nil, fmt.Errorf("%w: no source of the spec reads topic %q", batch.ErrInvalid, topic)
}

// UntilTime waits for every record up to a time that is in the topics now.
func (p *Pipeline) UntilTime(ctx context.Context, at time.Time) (Until, error) {
	src, err := p.Source()
	if err != nil {
		return nil, err
	}
	behind, err := patient(ctx, func() (batch.Offsets, error) { return src.Behind(ctx, at) })
	return Until(behind), err
}

// Pauses between two looks while someone waits.
const (
	lookFirst = 100 * time.Millisecond
	lookMax   = 2 * time.Second
)

// Wait looks at checkpoint and tables until everything before some offsets is
// accounted for in every sink, or ctx ends: then it returns where they stand, and
// the context's error. It touches nothing, and a driver runs beside it.
func (p *Pipeline) Wait(ctx context.Context, until Until) ([]Waited, error) {
	var last []Waited
	var failed error
	for pause := lookFirst; ; pause = min(2*pause, lookMax) {
		all, err := p.waited(ctx, until)
		switch {
		case err == nil:
			last, failed = all, nil
		case ctx.Err() == nil && !errors.Is(err, batch.ErrUnavailable):
			return nil, err
		case ctx.Err() == nil:
			failed = err // a server may come back
		}
		if err == nil && everyDone(all) {
			return all, nil
		}
		if err := (driver.WallClock{}).Sleep(ctx, pause); err != nil {
			return last, errors.Join(err, failed)
		}
	}
}

func everyDone(all []Waited) bool {
	for _, w := range all {
		if !w.Done {
			return false
		}
	}
	return true
}

// waited looks once. The tables are read first: what the checkpoint says later can
// only be further.
func (p *Pipeline) waited(ctx context.Context, until Until) ([]Waited, error) {
	stamps := map[string][]batch.Stamped{}
	for _, name := range p.spec.Sinks.Names {
		if p.Routes(name) {
			continue // which tables count the plan says
		}
		var err error
		if stamps[name], err = p.stamped(ctx, name); err != nil {
			return nil, fmt.Errorf("sink %s: %w", name, err)
		}
	}
	cp, err := p.Checkpoint(ctx)
	if err != nil {
		return nil, err
	}
	inc, err := newestOf(ctx, cp)
	if err != nil {
		return nil, err
	}
	var newest *batch.Plan
	var commits []batch.Commit
	if inc != nil {
		if newest, err = cp.Newest(ctx, *inc); err != nil {
			return nil, err
		}
		if commits, err = cp.Recorded(ctx, *inc, 1); err != nil {
			return nil, err
		}
	}
	var waits []Waited
	for _, name := range p.spec.Sinks.Names {
		var w Waited
		if p.Routes(name) {
			if w, err = p.standsRouted(ctx, name, inc, newest, commits, until); err != nil {
				return nil, err
			}
		} else {
			w = stands(name, inc, newest, commits, stamps[name], until)
		}
		w.Table = p.spec.Sinks.By[name].Iceberg.Table
		waits = append(waits, w)
	}
	return waits, nil
}

// loadTable loads the table of a sink, whether or not it fits the spec; nil where
// there is none yet.
func (p *Pipeline) loadTable(ctx context.Context, name string) (*table.Table, error) {
	i := p.spec.Sinks.By[name].Iceberg
	return p.loadNamed(ctx, i.Catalog, i.Table)
}

// loadNamed loads a table, nil if there is none.
func (p *Pipeline) loadNamed(ctx context.Context, catalog, name string) (*table.Table, error) {
	c, err := p.Catalog(ctx, catalog)
	if err == nil {
		var t *table.Table
		if t, err = c.Load(ctx, strings.Split(name, ".")); err == nil {
			return t, nil
		}
	}
	if missing(err) {
		return nil, nil
	}
	return nil, err
}

// stamped are the live stamps of the pipeline in a sink's table, that of its tag
// first, then the others from new to old.
func (p *Pipeline) stamped(ctx context.Context, name string) ([]batch.Stamped, error) {
	t, err := p.loadTable(ctx, name)
	if err != nil || t == nil {
		return nil, err
	}
	meta := t.Metadata()
	tagged := meta.SnapshotByName(batch.Tag(p.spec.Name, batch.StreamMain))
	if tagged == nil {
		return nil, nil
	}
	var all []batch.Stamped
	for s := tagged; s != nil; {
		if s.Summary != nil {
			st, err := batch.ParseStamp(s.Summary.Properties)
			if err != nil {
				return nil, err
			}
			if st != nil && st.Name == p.spec.Name && st.Stream == batch.StreamMain {
				all = append(all, batch.Stamped{Snapshot: s.SnapshotID, Stamp: st})
			}
		}
		if s.ParentSnapshotID == nil {
			break
		}
		s = meta.SnapshotByID(*s.ParentSnapshotID)
	}
	return all, nil
}

// stands says how far a sink is on the way to some offsets. stamps begin with the
// one that its table's tag is on.
func stands(sink string, inc *batch.Incarnation, newest *batch.Plan, commits []batch.Commit, stamps []batch.Stamped, until Until) Waited {
	w := Waited{Sink: sink}
	at, closed := reached(sink, inc, newest, commits, stamps)
	if w.done(at, closed, until) && len(until) > 0 {
		w.found(stamps, newest, until, closed)
	}
	return w
}

// done says whether a sink that stands there has everything before some offsets.
func (w *Waited) done(at batch.Offsets, closed map[batch.TopicPartition]bool, until Until) bool {
	var missing []string
	for _, tp := range batch.Offsets(until).Partitions() {
		if at[tp] < until[tp] && !closed[tp] {
			missing = append(missing, fmt.Sprintf("offset %d of %s, which should reach %d", at[tp], tp, until[tp]))
		}
	}
	if len(missing) > 0 {
		w.State = "stands at " + strings.Join(missing, ", ")
		return false
	}
	w.Done, w.State = true, "nothing to wait for"
	return true
}

// reached is up to where everything is accounted for in a sink's table, by its
// stamp and by the log: what a batch left no rows of is in no stamp yet. closed are
// partitions whose topic is gone.
func reached(sink string, inc *batch.Incarnation, p *batch.Plan, commits []batch.Commit, stamps []batch.Stamped) (at batch.Offsets, closed map[batch.TopicPartition]bool) {
	at, closed = batch.Offsets{}, map[batch.TopicPartition]bool{}
	further := func(tp batch.TopicPartition, to int64) { at[tp] = max(at[tp], to) }
	if len(stamps) > 0 {
		tag := stamps[0].Stamp
		if inc != nil && !tag.Of(*inc, batch.StreamMain) {
			return at, closed // the pipeline goes back, or recovers: nobody knows yet where to
		}
		for tp, to := range tag.End {
			further(tp, to)
		}
		for tp := range tag.Start {
			_, open := tag.End[tp]
			closed[tp] = !open
		}
	}
	if p == nil {
		return at, closed
	}
	switch sp := p.Sink(sink); {
	case sp == nil: // it joins
	case sp.Active:
		done := false
		for _, c := range commits {
			done = done || c.Batch == p.Batch && c.Plan == p.Hash()
		}
		for _, r := range p.Ranges {
			further(r.TopicPartition, r.Start) // the log never runs ahead of the commit
			if done {
				further(r.TopicPartition, r.End)
				closed[r.TopicPartition] = closed[r.TopicPartition] || r.Closed
			}
		}
	case sp.Lags:
		if sp.Before.Hash != "" {
			for tp, to := range sp.From {
				further(tp, to)
			}
		}
	default:
		for tp, to := range p.Ahead {
			further(tp, to)
		}
	}
	return at, closed
}

// found tells which batch the last of the records went into.
func (w *Waited) found(stamps []batch.Stamped, newest *batch.Plan, until Until, closed map[batch.TopicPartition]bool) {
	for _, s := range stamps { // from new to old: the first one that has one of the records has the last of them
		st := s.Stamp
		for _, tp := range batch.Offsets(until).Partitions() {
			start, ok := st.Start[tp]
			end, open := st.End[tp]
			switch {
			case !ok || until[tp] <= start || st.Kind != "":
			case open && until[tp] > end:
				w.without(newest)
				return
			default:
				w.in(s, closed[tp])
				return
			}
		}
	}
	oldest := (*batch.Stamp)(nil)
	if len(stamps) > 0 {
		oldest = stamps[len(stamps)-1].Stamp
	}
	switch {
	case oldest == nil:
		w.without(newest)
	case oldest.Previous == "":
		w.State = "is before the offset at which the pipeline began to read: it is in no batch"
	default:
		w.State = "committed in a batch whose snapshot has expired"
	}
}

// in says that the records went into a snapshot, or which of its batches have them
// without a row.
func (w *Waited) in(s batch.Stamped, closed bool) {
	st := s.Stamp
	w.Batch, w.Snapshot = &st.Last, s.Snapshot
	w.State = fmt.Sprintf("committed with batches %d..%d in snapshot %d", st.First, st.Last, s.Snapshot)
	if st.Counts.Written == 0 {
		w.State = fmt.Sprintf("accounted for in batches %d..%d, snapshot %d, which have no rows: filtered, rejected, dropped or lost", st.First, st.Last, s.Snapshot)
	}
	for _, part := range []struct {
		n    int64
		what string
	}{{st.Counts.Skipped, "records were skipped"}, {st.Counts.Rejected, "were rejected by SQL"}, {st.Counts.Lost, "offsets were lost"}} {
		if part.n > 0 {
			w.State += fmt.Sprintf("; %d %s there", part.n, part.what)
		}
	}
	if closed {
		w.State += "; the topic is gone, and what was behind its end is noted as lost"
	}
}

// without says that the records left no rows, as the log tells.
func (w *Waited) without(newest *batch.Plan) {
	w.State = "accounted for, without a row in the table: filtered, rejected, dropped or lost"
	if newest != nil {
		w.State += fmt.Sprintf(", before or in batch %d", newest.Batch)
	}
}
