package pipeline

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/apache/iceberg-go/table"

	"github.com/frazil-io/frazil/internal/batch"
	"github.com/frazil-io/frazil/internal/checkpoint"
	"github.com/frazil-io/frazil/internal/config"
	"github.com/frazil-io/frazil/internal/driver"
	"github.com/frazil-io/frazil/internal/planner"
	"github.com/frazil-io/frazil/internal/sink"
)

// Decision is something that `frazil run` does not do before somebody says so.
type Decision struct {
	What string `json:"what"`
	Flag string `json:"flag"` // that says so
}

// SinkIntent is what a start would do with one sink.
type SinkIntent struct {
	Sink  string `json:"sink"`
	Table string `json:"table"`
	// State is new (its table will be made), joins (the newest plan does not know it),
	// changed (its rows may be others than before) or same.
	State      string   `json:"state"`
	Schema     []string `json:"schema"`          // what will change in the table, and what new rows lack
	Properties []string `json:"properties"`      // that the table has otherwise, and keeps
	Error      string   `json:"error,omitempty"` // why the table would be refused
	// Rules are those of `expect` that concern it.
	Rules []RuleIntent `json:"rules"`
	// CommitsPerDay and FilesPerDay go by the newest stamps; null with fewer than two.
	CommitsPerDay *float64 `json:"commits_per_day"`
	FilesPerDay   *float64 `json:"files_per_day"`
	// Held is a batch that waits on its branch; nil if none does.
	Held *HeldStatus `json:"held,omitempty"`
}

// OffsetIntent is where a partition will be read on.
type OffsetIntent struct {
	batch.TopicPartition
	Next int64 `json:"next"`
	End  int64 `json:"end"`
	Lag  int64 `json:"lag"`
}

// Intent is what `frazil run` would do if it began now.
type Intent struct {
	Name      string         `json:"name"`
	Batch     batch.ID       `json:"next_batch"`
	Open      bool           `json:"open"` // the newest plan is run again first
	Revises   []string       `json:"revises"`
	Sinks     []SinkIntent   `json:"sinks"`
	Removed   []string       `json:"removed_sinks"`
	Added     []string       `json:"added_sources"`
	Dropped   []string       `json:"removed_sources"`
	Offsets   []OffsetIntent `json:"offsets"`
	Lag       int64          `json:"lag"`
	Steps     []string       `json:"on_start"`
	Decisions []Decision     `json:"decisions"`
	failed    []string
}

// Refused says whether a run would end before it began.
func (i *Intent) Refused() []string {
	refused := slices.Clone(i.failed)
	for _, d := range i.Decisions {
		refused = append(refused, fmt.Sprintf("%s (%s)", d.What, d.Flag))
	}
	return refused
}

// state is what the checkpoint says of a pipeline: nil parts where it has nothing.
type state struct {
	inc     *batch.Incarnation
	plan    *batch.Plan
	settled bool // the plan's outcome is recorded
}

// newestOf is the newest record of a pipeline; nil without one.
func newestOf(ctx context.Context, cp *checkpoint.Checkpoint) (*batch.Incarnation, error) {
	all, err := cp.Incarnations(ctx)
	if err != nil || len(all) == 0 {
		return nil, err
	}
	return &all[len(all)-1], nil
}

func stateOf(ctx context.Context, cp *checkpoint.Checkpoint) (s state, err error) {
	if s.inc, err = newestOf(ctx, cp); err != nil || s.inc == nil {
		return s, err
	}
	if s.plan, err = cp.Newest(ctx, *s.inc); err != nil || s.plan == nil {
		return s, err
	}
	commits, err := cp.Recorded(ctx, *s.inc, 1)
	s.settled = len(commits) > 0 && commits[0].Batch == s.plan.Batch
	return s, err
}

// decisions are what a changed spec asks an operator: where going on by itself would
// read records into tables twice, or leave records out of one.
func decisions(spec *config.Spec, sources planner.Sources, s state) (all []Decision) {
	if s.plan == nil {
		return nil
	}
	for _, sp := range s.plan.Sinks {
		if slices.Contains(spec.Sinks.Names, sp.Name) || !sp.Lags && !sp.CatchUp && (!sp.Active || s.settled) {
			continue
		}
		all = append(all, Decision{
			What: fmt.Sprintf("sink %s is not in the spec any more, and its table lacks records that the others have: they will be missing there until the sink comes back while Kafka still has them", sp.Name),
			Flag: "--accept sink/" + sp.Name,
		})
	}
	known, gone := map[string]bool{}, map[string]string{} // the topics of sources that are gone
	for _, r := range s.plan.Ranges {
		known[r.Source] = true
		if _, ok := spec.Sources.By[r.Source]; !ok {
			gone[r.Topic] = r.Source
		}
	}
	for _, name := range spec.Sources.Names {
		if known[name] {
			continue
		}
		for topic, old := range gone {
			if sources.Reads(batch.TopicPartition{Source: name, Topic: topic}) {
				all = append(all, Decision{
					What: fmt.Sprintf("source %s reads topic %s, as source %s did, which is not in the spec any more: under a new name it is read from `start` on, so records may go into the tables twice, or not at all", name, topic, old),
					Flag: "--accept source/" + name,
				})
				break
			}
		}
	}
	return all
}

// decide refuses a start that needs a decision.
func (p *Pipeline) decide(ctx context.Context, cp *checkpoint.Checkpoint) error {
	sources, err := plannerSources(p.spec)
	if err != nil {
		return err
	}
	s, err := stateOf(ctx, cp)
	if err != nil {
		return err
	}
	var open []string
	for _, d := range decisions(p.spec, sources, s) {
		if !slices.Contains(p.opts.Accept, strings.TrimPrefix(d.Flag, "--accept ")) {
			open = append(open, fmt.Sprintf("%s; if that is meant, run with %s", d.What, d.Flag))
		}
	}
	if len(open) > 0 {
		return fmt.Errorf("%w: the spec was changed, and that needs a decision: %s", batch.ErrInvalid, strings.Join(open, "\n"))
	}
	return nil
}

// decided opens the rooms of a pipeline whose spec needs no decision.
func (p *Pipeline) decided(ctx, stop context.Context) (*driver.Driver, error) {
	_, err := patient(stop, func() (struct{}, error) {
		cp, err := p.Checkpoint(ctx)
		if err != nil {
			return struct{}{}, err
		}
		return struct{}{}, p.decide(ctx, cp)
	})
	if err != nil {
		return nil, err
	}
	return p.Driver(ctx, stop)
}

// Intent says what a run would do if it began now, and changes nothing.
func (p *Pipeline) Intent(ctx context.Context) (*Intent, error) {
	cp, err := p.Checkpoint(ctx)
	if err != nil {
		return nil, err
	}
	s, err := stateOf(ctx, cp)
	if err != nil {
		return nil, err
	}
	sources, err := plannerSources(p.spec)
	if err != nil {
		return nil, err
	}
	i := &Intent{Name: p.spec.Name, Sinks: []SinkIntent{}, Offsets: []OffsetIntent{}, Steps: []string{}, Decisions: decisions(p.spec, sources, s)}
	if i.Decisions == nil {
		i.Decisions = []Decision{}
	}
	stamped := false
	for _, name := range p.spec.Sinks.Names {
		one, has, err := p.sinkIntent(ctx, name, s)
		if err != nil {
			return nil, fmt.Errorf("sink %s: %w", name, err)
		}
		stamped = stamped || has
		i.Sinks = append(i.Sinks, one)
		if one.Error != "" {
			i.failed = append(i.failed, fmt.Sprintf("sink %s: %s", name, one.Error))
		}
	}
	i.sources(p.spec, s)
	i.steps(s, stamped)
	err = i.offsets(ctx, p, s)
	i.list()
	return i, err
}

// list makes JSON show lists without elements as such.
func (i *Intent) list() {
	for _, l := range []*[]string{&i.Revises, &i.Removed, &i.Added, &i.Dropped} {
		*l = listed(*l)
	}
	for n := range i.Sinks {
		one := &i.Sinks[n]
		one.Schema, one.Properties, one.Rules = listed(one.Schema), listed(one.Properties), listed(one.Rules)
	}
}

// listed is a list that JSON shows as one, also without elements.
func listed[T any](list []T) []T {
	if list == nil {
		return []T{}
	}
	return list
}

// sinkIntent compares one sink with its table and with the newest plan. stamped says
// whether its table carries the pipeline's tag.
func (p *Pipeline) sinkIntent(ctx context.Context, name string, s state) (one SinkIntent, stamped bool, err error) {
	one = SinkIntent{Sink: name, Table: p.spec.Sinks.By[name].Iceberg.Table, State: "same"}
	var sp *batch.SinkPlan
	if s.plan != nil {
		sp = s.plan.Sink(name)
	}
	switch {
	case s.plan != nil && sp == nil:
		one.State = "joins"
	case sp != nil && sp.Hash != p.sinkHash(name):
		one.State = "changed"
	}
	one.Rules = p.rulesOf(name, nil)
	if p.Routes(name) { // its tables are made when rows choose them
		return one, sp != nil, nil
	}
	tbl, err := p.loadTable(ctx, name)
	if err != nil {
		return one, false, err
	}
	if tbl == nil {
		one.State = "new"
		switch {
		case sp != nil && sp.Before.Hash != "":
			one.Error = "its table does not exist, though the pipeline has committed to it"
		case !*p.spec.Sinks.By[name].Iceberg.Create:
			one.Error = "its table does not exist; create it, or set iceberg.create: true"
		}
		return one, false, nil
	}
	o := p.sinkOptions(name)
	changes, err := sink.Differences(o, tbl, p.Schema(name))
	if err != nil {
		one.Error = strings.ReplaceAll(err.Error(), "\n", " ")
	}
	for _, c := range changes {
		one.Schema = append(one.Schema, c.String())
	}
	one.Properties = sink.PropertyDifferences(o, tbl)
	one.Rules = p.rulesOf(name, tbl)
	one.rates(tbl)
	if one.Held, err = p.held(ctx, name, s.plan); err != nil {
		return one, false, err
	}
	return one, tbl.Metadata().SnapshotByName(batch.Tag(p.spec.Name, batch.StreamMain)) != nil, nil
}

// rates estimates from the newest stamped snapshots how many there are a day.
func (one *SinkIntent) rates(tbl *table.Table) {
	const newest = 50
	var commits, files float64
	var first, last int64
	for s := tbl.CurrentSnapshot(); s != nil && commits < newest; {
		if s.Summary != nil {
			if st, err := batch.ParseStamp(s.Summary.Properties); err == nil && st != nil && st.Kind == "" {
				if commits == 0 {
					last = s.TimestampMs
				}
				first = s.TimestampMs
				commits++
				if n, err := strconv.ParseFloat(s.Summary.Properties["added-data-files"], 64); err == nil {
					files += n
				}
			}
		}
		if s.ParentSnapshotID == nil {
			break
		}
		s = tbl.Metadata().SnapshotByID(*s.ParentSnapshotID)
	}
	if days := float64(last-first) / float64((24 * time.Hour).Milliseconds()); commits > 1 && days > 0 {
		perDay, filesPerDay := (commits-1)/days, files*(commits-1)/commits/days
		one.CommitsPerDay, one.FilesPerDay = &perDay, &filesPerDay
	}
}

// sources compares the spec's sources and sinks with those of the newest plan.
func (i *Intent) sources(spec *config.Spec, s state) {
	if s.plan == nil {
		return
	}
	known := map[string]bool{}
	for _, r := range s.plan.Ranges {
		if _, ok := spec.Sources.By[r.Source]; !ok && !known[r.Source] {
			i.Dropped = append(i.Dropped, r.Source)
		}
		known[r.Source] = true
	}
	for _, name := range spec.Sources.Names {
		if !known[name] {
			i.Added = append(i.Added, name)
		}
	}
	for _, sp := range s.plan.Sinks {
		if !slices.Contains(spec.Sinks.Names, sp.Name) {
			i.Removed = append(i.Removed, sp.Name)
		}
	}
}

// steps says in words what happens at the start.
func (i *Intent) steps(s state, stamped bool) {
	say := func(format string, args ...any) { i.Steps = append(i.Steps, fmt.Sprintf(format, args...)) }
	for _, one := range i.Sinks {
		switch {
		case one.Error != "":
			say("sink %s: the run ends: %s", one.Sink, one.Error)
		case one.State == "new":
			say("sink %s: table %s is made", one.Sink, one.Table)
		case one.State == "joins":
			say("sink %s joins, and catches up in batches of its own", one.Sink)
		case one.State == "changed":
			say("sink %s: its spec, which is its SQL, its rules and what they use, is another one than that of the newest plan; rows from the next batch on are made with it, those before stay", one.Sink)
		}
	}
	switch {
	case s.plan == nil && stamped:
		say("the checkpoint has no plan, but tables carry this pipeline's stamps: it goes on from those")
	case s.plan == nil:
		say("batch 0 freezes where each partition begins")
	case s.settled:
		i.Batch = s.plan.Batch + 1
		say("batch %d is planned from where batch %d ended", i.Batch, s.plan.Batch)
	default:
		i.Batch, i.Open = s.plan.Batch, true
		for _, one := range i.Sinks {
			if sp := s.plan.Sink(one.Sink); one.State == "changed" && sp.Active {
				i.Revises = append(i.Revises, one.Sink)
			}
		}
		say("batch %d is logged, and its outcome is not recorded: tables that lack it get it first", s.plan.Batch)
		if len(i.Revises) > 0 {
			say("where they lack it, it is revised for the spec as it is now: sink %s", strings.Join(i.Revises, ", "))
		}
	}
	for _, one := range i.Sinks {
		if one.Held != nil {
			say("sink %s: %s", one.Sink, one.Held)
		}
	}
	for _, name := range i.Dropped {
		say("source %s is not read any more; its position is kept", name)
	}
	for _, name := range i.Added {
		say("source %s is read from `start` on", name)
	}
	for _, d := range i.Decisions {
		say("the run ends, unless it has %s: %s", d.Flag, d.What)
	}
}

// offsets asks Kafka what lies before each partition.
func (i *Intent) offsets(ctx context.Context, p *Pipeline, s state) error {
	src, err := p.Source()
	if err != nil {
		return err
	}
	var at batch.Offsets
	var since []batch.Range
	if s.plan != nil {
		at = s.plan.Position()
		if i.Open && !s.plan.CatchesUp() {
			for _, r := range s.plan.Ranges {
				at[r.TopicPartition] = r.Start
			}
		}
		since = s.plan.Ranges
	}
	available, err := patient(ctx, func() ([]batch.Available, error) { return src.List(ctx, since) })
	if err != nil {
		return err
	}
	if at == nil {
		if at, err = patient(ctx, func() (batch.Offsets, error) { return src.Start(ctx, nil) }); err != nil {
			return err
		}
	}
	for _, a := range available {
		next, ok := at[a.TopicPartition]
		if !ok {
			next = a.Start
		}
		one := OffsetIntent{TopicPartition: a.TopicPartition, Next: next, End: a.End, Lag: max(0, a.End-max(a.Start, next))}
		i.Offsets = append(i.Offsets, one)
		i.Lag += one.Lag
	}
	slices.SortFunc(i.Offsets, func(a, b OffsetIntent) int { return a.Compare(b.TopicPartition) })
	return nil
}
