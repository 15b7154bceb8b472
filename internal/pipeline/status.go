package pipeline

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/apache/iceberg-go/table"

	"github.com/frazil-io/frazil/internal/batch"
	"github.com/frazil-io/frazil/internal/config"
	"github.com/frazil-io/frazil/internal/sink"
)

// SinkStatus is what a table's tag says.
type SinkStatus struct {
	Sink     string        `json:"sink"`
	Table    string        `json:"table"`
	Missing  bool          `json:"missing,omitempty"` // the table does not exist yet
	Error    string        `json:"error,omitempty"`   // why the rest is not known
	Stamp    string        `json:"stamp,omitempty"`
	Batch    batch.ID      `json:"batch"`
	Time     time.Time     `json:"time,omitzero"` // of the plan that was committed last
	Rows     int64         `json:"rows"`
	End      batch.Offsets `json:"offsets,omitempty"`
	Ancestry string        `json:"ancestry,omitempty"`
	Head     int64         `json:"head,omitempty"`
	// Tables is how many tables a sink has whose rows choose theirs; the rest is
	// of all of them together.
	Tables int `json:"tables,omitempty"`
	// Held is a batch that waits on its branch; nil if none does.
	Held *HeldStatus `json:"held,omitempty"`
}

// StaleTag is a tag of a pipeline that has not moved for as long as snapshots are
// kept.
type StaleTag struct {
	Table string    `json:"table"`
	Tag   string    `json:"tag"`
	Moved time.Time `json:"moved"`
}

// Status is what checkpoint, tables and Kafka say of a pipeline. What could not
// be asked is said in its place.
type Status struct {
	Name            string             `json:"name"`
	Now             time.Time          `json:"now"`
	Incarnation     *batch.Incarnation `json:"incarnation,omitempty"`
	Plan            *batch.Plan        `json:"plan,omitempty"`
	Open            bool               `json:"open"` // the newest plan is not known to be committed
	Commits         []batch.Commit     `json:"commits"`
	CheckpointError string             `json:"checkpoint_error,omitempty"`
	Sinks           []SinkStatus       `json:"sinks"`
	Stale           []StaleTag         `json:"stale_tags"`
	// LettersWait is how many dead letters in a table were not run again, as the stamps
	// count them: letters that somebody deleted are among them. nil: not known.
	LettersWait *int64 `json:"letters_wait,omitempty"`
	Lag         *int64 `json:"lag"` // null: see lag_error
	LagError    string `json:"lag_error,omitempty"`
	// FreshnessSeconds is the age of the newest plan that every table has, 0 if
	// Kafka has nothing behind it.
	FreshnessSeconds *float64 `json:"freshness_seconds"`
	// RunStops is the error with which a run would stop before its first batch,
	// and RunNote what it does by itself about a checkpoint that was lost.
	RunStops string `json:"run_stops,omitempty"`
	RunNote  string `json:"run_note,omitempty"`

	failed error
}

// Err joins what could not be asked, nil if everything was.
func (s *Status) Err() error { return s.failed }

func (s *Status) fail(where string, err error) string {
	text, named := strings.CutPrefix(err.Error(), where+": ")
	if !named {
		err = fmt.Errorf("%s: %w", where, err)
	}
	s.failed = errors.Join(s.failed, err)
	return strings.ReplaceAll(text, "\n", " ")
}

// askTimeout bounds each part of a status: a server that is away must not hide
// what the others say.
const askTimeout = 10 * time.Second

// Status looks at checkpoint, tables and Kafka.
func (p *Pipeline) Status(ctx context.Context, now time.Time) *Status {
	s := &Status{Name: p.spec.Name, Now: now.UTC()}
	if err := s.checkpoint(ctx, p); err != nil {
		s.CheckpointError = s.fail("checkpoint", err)
	}
	tables := map[string]*sink.Table{}
	for _, name := range p.spec.Sinks.Names {
		one, t := s.sink(ctx, p, name)
		s.Sinks = append(s.Sinks, one)
		tables[name] = t
	}
	if err := s.letters(ctx, p); err != nil {
		s.fail("dead letters", err)
	}
	s.Open = s.isOpen()
	s.check(ctx, p, tables)
	lag, err := s.lag(ctx, p)
	if err != nil {
		s.LagError = s.fail("Kafka", err)
	} else {
		s.Lag = &lag
	}
	s.freshness()
	s.Commits, s.Stale = listed(s.Commits), listed(s.Stale)
	return s
}

// recent is how many commits a status shows.
const recent = 5

func (s *Status) checkpoint(ctx context.Context, p *Pipeline) error {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	cp, err := p.Checkpoint(ctx)
	if err != nil {
		return err
	}
	if s.Incarnation, err = newestOf(ctx, cp); err != nil || s.Incarnation == nil {
		return err
	}
	plan, err := cp.Newest(ctx, *s.Incarnation)
	if err != nil {
		return err
	}
	s.Plan = plan
	if p.committed, err = committed(ctx, cp); err != nil {
		return err
	}
	s.Commits, err = cp.Recorded(ctx, *s.Incarnation, recent)
	return err
}

// letters counts those that wait by stamps alone: no row is read.
func (s *Status) letters(ctx context.Context, p *Pipeline) error {
	d := p.spec.DeadLetter
	if d == nil || d.Iceberg == nil || s.failed != nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	over, err := p.replayed(ctx) // before the table: what it counts is there
	if err != nil {
		return err
	}
	t, err := p.loadTable(ctx, config.DeadLetters)
	if err != nil || t == nil {
		return err
	}
	main, err := taggedStamp(t.Metadata(), batch.Tag(p.spec.Name, batch.StreamMain))
	if err != nil || main == nil {
		return err
	}
	again := over[config.DeadLetters]
	if run, err := taggedStamp(t.Metadata(), batch.Tag(p.spec.Name, batch.StreamReplay)); err != nil {
		return err
	} else if run != nil {
		again = run.Total
	}
	n := main.Total.Written + again.Written - again.Marks - again.Data
	s.LettersWait = &n
	return nil
}

// taggedStamp is the stamp that a tag is on, nil for none.
func taggedStamp(meta table.Metadata, tag string) (*batch.Stamp, error) {
	if s := meta.SnapshotByName(tag); s != nil && s.Summary != nil {
		return batch.ParseStamp(s.Summary.Properties)
	}
	return nil, nil
}

// ancestries says of a table's history whether the tag is in it.
var ancestries = map[batch.Ancestry]string{batch.IsAncestor: "ok", batch.NotAncestor: "rolled back", batch.UnknownAncestor: "unknown"}

func (s *Status) sink(ctx context.Context, p *Pipeline, name string) (SinkStatus, *sink.Table) {
	whole := ctx
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	one := SinkStatus{Sink: name, Table: p.spec.Sinks.By[name].Iceberg.Table, Batch: batch.None}
	if p.Routes(name) {
		_, err := p.Catalog(ctx, p.spec.Sinks.By[name].Iceberg.Catalog)
		var r *sink.Routed
		if err == nil {
			r, err = p.Routed(whole, name) // its tables are opened when they are used
		}
		return s.routed(ctx, p, r, err, name, one), nil
	}
	t, err := p.Table(ctx, name)
	if missing(err) && !errors.Is(err, batch.ErrDataLost) { // the pipeline has made none yet
		one.Missing = true
		return one, nil
	}
	if err != nil {
		one.Error = s.fail("sink "+name, err)
		return one, nil
	}
	v, err := t.Load(ctx)
	if err != nil {
		one.Error = s.fail("sink "+name, err)
		return one, nil
	}
	one.Head = v.Head()
	one.Ancestry = ancestries[v.Ancestry()]
	if st := v.Stamp(); st != nil {
		one.Stamp, one.Batch, one.Rows, one.End, one.Time = st.String(), st.Last, st.Total.Written, st.End, st.Time
	}
	if one.Held, err = p.held(ctx, name, s.Plan); err != nil {
		one.Error = s.fail("sink "+name, err)
	}
	s.stale(v.Metadata(), one.Table, batch.Tag(p.spec.Name, batch.StreamMain), time.Duration(p.spec.Maintenance.KeepHourly))
	return one, t
}

// check asks what a run would do, unless something is away: then nobody knows.
func (s *Status) check(ctx context.Context, p *Pipeline, tables map[string]*sink.Table) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	switch {
	case errors.Is(s.failed, batch.ErrUnavailable):
	case s.failed != nil:
		s.RunStops = strings.ReplaceAll(s.failed.Error(), "\n", "; ")
	default:
		note, err := p.check(ctx, tables)
		if err != nil {
			s.RunStops = s.fail("run", err)
		}
		s.RunNote = note
	}
}

func (p *Pipeline) check(ctx context.Context, tables map[string]*sink.Table) (note string, err error) {
	cp, err := p.Checkpoint(ctx)
	if err != nil {
		return "", err
	}
	d, err := p.driver(cp, tables, askTimeout)
	if err != nil {
		return "", err
	}
	return d.Check(ctx)
}

// routed is the status of a sink whose rows choose their table. Of its tables those
// are looked at that the newest plan touches: no other one can lack anything.
func (s *Status) routed(ctx context.Context, p *Pipeline, r *sink.Routed, err error, name string, one SinkStatus) SinkStatus {
	if missing(err) {
		one.Missing = true
		return one
	}
	var names []string
	if err == nil {
		names, err = p.TablesOf(ctx, name)
	}
	if err != nil {
		one.Error = s.fail("sink "+name, err)
		return one
	}
	one.Tables, one.Missing = len(names), len(names) == 0
	if s.Plan == nil || s.Plan.Sink(name) == nil || s.Plan.Sink(name).Route == nil {
		return one
	}
	sp := s.Plan.Sink(name)
	one.Rows, one.End = sp.Route.Total.Written, sp.From
	one.Batch, one.Time, one.Ancestry = s.Plan.Batch-1, s.Plan.Time, "ok"
	if !sp.Active {
		return one
	}
	for _, table := range sp.Route.Tables {
		t, err := r.Table(ctx, table.Table)
		if err != nil {
			one.Error = s.fail("sink "+name, err)
			return one
		}
		v, err := t.Load(ctx)
		if err != nil {
			one.Error = s.fail("sink "+name, err)
			return one
		}
		s.stale(v.Metadata(), table.Table, batch.Tag(p.spec.Name, batch.StreamMain), time.Duration(p.spec.Maintenance.KeepHourly))
		if a := ancestries[v.Ancestry()]; a != "ok" {
			one.Ancestry = a
		}
		if st := v.Stamp(); !table.Has && (st == nil || st.Last < s.Plan.Batch) {
			return one
		}
	}
	one.Rows, one.End, one.Batch = one.Rows+sp.Route.Counts.Written, s.Plan.End(), s.Plan.Batch
	return one
}

// stale finds tags of other pipelines, or streams, that hold back no snapshot any
// more because they stand still.
func (s *Status) stale(meta table.Metadata, name, ours string, after time.Duration) {
	for tag, ref := range meta.Refs() {
		if tag == ours || !strings.HasPrefix(tag, "frazil-") || ref.SnapshotRefType != table.TagRef {
			continue
		}
		snapshot := meta.SnapshotByID(ref.SnapshotID)
		if snapshot == nil {
			continue
		}
		if moved := time.UnixMilli(snapshot.TimestampMs).UTC(); s.Now.Sub(moved) > after {
			s.Stale = append(s.Stale, StaleTag{Table: name, Tag: tag, Moved: moved})
		}
	}
}

// isOpen says that a table is not known to have the newest plan.
func (s *Status) isOpen() bool {
	if s.Plan == nil || len(s.Commits) > 0 && s.newestCommit().Batch >= s.Plan.Batch {
		return false
	}
	for _, one := range s.Sinks {
		if one.Batch < s.Plan.Batch {
			return true
		}
	}
	return false
}

func (s *Status) newestCommit() batch.Commit {
	newest := s.Commits[0]
	for _, c := range s.Commits {
		if c.Batch > newest.Batch {
			newest = c
		}
	}
	return newest
}

// position is where the pipeline stands: behind its newest plan, or where no plan
// can be read, as far as any table has got; nil where nothing is known.
func (s *Status) position() batch.Offsets {
	if s.Plan != nil {
		return s.Plan.Position()
	}
	var position batch.Offsets
	for _, one := range s.Sinks {
		for tp, at := range one.End {
			if position == nil {
				position = batch.Offsets{}
			}
			position[tp] = max(position[tp], at)
		}
	}
	return position
}

// rangesAt are empty ranges at a position, nil for none.
func rangesAt(position batch.Offsets) []batch.Range {
	if position == nil {
		return nil
	}
	ranges := []batch.Range{}
	for _, tp := range position.Partitions() {
		ranges = append(ranges, batch.Range{TopicPartition: tp, Start: position[tp], End: position[tp], Epoch: -1})
	}
	return ranges
}

// lag counts what Kafka has beyond the position.
func (s *Status) lag(ctx context.Context, p *Pipeline) (lag int64, err error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	src, err := p.Source()
	if err != nil {
		return 0, err
	}
	end := s.position()
	available, err := src.List(ctx, rangesAt(end))
	if err != nil {
		return 0, err
	}
	for _, a := range available {
		lag += max(0, a.End-max(a.Start, end[a.TopicPartition]))
	}
	return lag, nil
}

func (s *Status) freshness() {
	if s.Lag != nil && *s.Lag == 0 && s.Plan != nil && !s.Open {
		zero := 0.0
		s.FreshnessSeconds = &zero
		return
	}
	var at time.Time
	for i, one := range s.Sinks {
		if one.Time.IsZero() {
			return
		}
		if i == 0 || one.Time.Before(at) {
			at = one.Time
		}
	}
	if len(s.Commits) > 0 && s.newestCommit().Time.After(at) {
		at = s.newestCommit().Time // it committed nothing: there was nothing to commit
	}
	seconds := s.Now.Sub(at).Seconds()
	s.FreshnessSeconds = &seconds
}
