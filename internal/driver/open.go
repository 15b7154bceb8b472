package driver

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/frazil-io/frazil/internal/batch"
)

// open finds the pipeline's incarnation or makes one, anchors it, waits for
// another owner to be gone, and returns the newest log entry, whose outcome is
// not known; nil where nothing was logged yet.
func (d *Driver) open(ctx context.Context) (*batch.Plan, error) {
	if err := d.identify(ctx); err != nil {
		return nil, err
	}
	if err := d.standby(ctx); err != nil {
		return nil, err
	}
	if err := d.anchorAll(ctx); err != nil {
		return nil, err
	}
	plan, err := d.newest(ctx)
	if err != nil {
		return nil, err
	}
	d.orphaned() // of processes before this one
	if plan != nil {
		d.log.Info("going on with the newest plan", "batch", plan.Batch, "revision", plan.Revision, "entry", plan.Entry)
		return plan, d.adoptPlan(ctx, plan)
	}
	return nil, d.adoptTags(ctx)
}

// recordsServer names the checkpoint where it does not take a pipeline's first
// record: it may well answer everything else.
const recordsServer = "the checkpoint, to write the pipeline's record,"

// identify decides which incarnation this driver works for. It reads the tags
// first and pipeline/ second: a record is created before its first anchor, so a
// stamp that the later listing does not explain is of a record that was lost.
func (d *Driver) identify(ctx context.Context) error {
	if d.rooms.Replay != nil {
		return d.identifyRun(ctx)
	}
	records := d.patient(recordsServer)
	search := false
	for {
		stamped, err := d.newestStamp(ctx, search)
		if err != nil {
			return err
		}
		all, err := d.incarnations(ctx)
		if err != nil {
			return err
		}
		if d.routes() && !search {
			if search, err = d.search(ctx, all); err != nil {
				return err
			}
			if search { // look again, at all that could be ours
				continue
			}
		}
		next := batch.Incarnation{UUID: d.rooms.NewID(), Name: d.opts.Name, ID: d.rooms.NewID(), Kind: batch.First}
		if len(all) > 0 {
			d.inc = all[len(all)-1]
			usable, err := d.explains(ctx, stamped)
			if usable || err != nil {
				records.settled()
				return err
			}
			next.Number = d.inc.Number + 1 // made by someone who had not seen the tags
		}
		if stamped != nil {
			next.UUID, next.Kind, next.Number = stamped.UUID, batch.Recover, max(stamped.Incarnation+1, next.Number)
			d.log.Warn("the checkpoint does not know what the tables carry: it was lost or replaced; going on from the tables' own stamps",
				"pipeline", d.opts.Name, "uuid", stamped.UUID, "incarnation", next.Number, "stamp", stamped.String())
		}
		// Whatever the answer, the next round looks whose record is there.
		err = d.rooms.Checkpoint.CreateIncarnation(ctx, next)
		if fatal(err) {
			return fmt.Errorf("create the pipeline's record: %w", err)
		}
		if err != nil {
			if err := records.wait(ctx, err); err != nil {
				return err
			}
		}
	}
}

// explains says whether the newest record accounts for the newest stamp.
func (d *Driver) explains(ctx context.Context, stamped *batch.Stamp) (bool, error) {
	if stamped == nil {
		return true, nil
	}
	if stamped.UUID == d.inc.UUID {
		return !d.inc.Newer(stamped.Incarnation, stamped.IncarnationID), nil
	}
	newest, err := d.newest(ctx)
	if err != nil || newest == nil {
		return false, err
	}
	return false, fmt.Errorf("%w: the checkpoint is of pipeline %s, but a table's tag carries another one: %s. "+
		"If the table is right, run `frazil checkpoint recover`; if the checkpoint is right, give this pipeline another name or table", batch.ErrDataLost, d.inc.UUID, stamped)
}

// newestStamp returns the stamp of the highest incarnation among the tables'
// tags, nil if none carries one. Stamps of two pipelines contradict each other.
// A table that lost its tag does, too.
func (d *Driver) newestStamp(ctx context.Context, search bool) (*batch.Stamp, error) {
	var newest *batch.Stamp
	var states []string
	contradiction := false
	tables, err := d.tables(ctx, search)
	if err != nil {
		return nil, err
	}
	views, err := d.views(ctx, tables)
	if err != nil {
		return nil, err
	}
	for i, s := range tables {
		view := views[i]
		if err := d.checkUntagged(s, view); err != nil {
			return nil, err
		}
		st := view.Stamp()
		if st == nil {
			continue
		}
		states = append(states, fmt.Sprintf("sink %s: %s", s.Name, st))
		contradiction = contradiction || newest != nil && st.UUID != newest.UUID
		if newest == nil || st.Incarnation > newest.Incarnation {
			newest = st
		}
	}
	if contradiction {
		return nil, fmt.Errorf("%w: the tables of this pipeline carry stamps of different pipelines: %s. "+
			"Choose which one is right with `frazil checkpoint recover`", batch.ErrDataLost, strings.Join(states, "; "))
	}
	return newest, nil
}

func (d *Driver) load(ctx context.Context, s *sink) (view View, err error) {
	err = d.retry(ctx, "the catalog", func() error { view, err = s.Table.Load(ctx); return err })
	if err != nil {
		return nil, fmt.Errorf("load the table of sink %s: %w", s.Name, err)
	}
	s.see(view)
	return view, nil
}

// see notes what this process saw first in a table.
func (s *sink) see(view View) {
	if s.found == nil {
		found := view.Stamp().Hash()
		s.found = &found
	}
}

// views loads tables. Where a sink feeds many, several are loaded beside each other;
// what comes to nothing there is tried again in turn, with patience.
func (d *Driver) views(ctx context.Context, tables []*sink) ([]View, error) {
	views := make([]View, len(tables))
	if d.routes() && len(tables) > 1 {
		d.beside(len(tables), func(i int) bool {
			view, err := tables[i].Table.Load(ctx)
			if err != nil {
				return false
			}
			views[i] = view
			return true
		})
	}
	for i, s := range tables {
		if views[i] != nil {
			s.see(views[i])
			continue
		}
		var err error
		if views[i], err = d.load(ctx, s); err != nil {
			return nil, err
		}
	}
	return views, nil
}

func (d *Driver) incarnations(ctx context.Context) (all []batch.Incarnation, err error) {
	err = d.retry(ctx, "the checkpoint", func() error { all, err = d.rooms.Checkpoint.Incarnations(ctx); return err })
	return all, err
}

func (d *Driver) newest(ctx context.Context) (p *batch.Plan, err error) {
	err = d.retry(ctx, "the checkpoint", func() error { p, err = d.rooms.Checkpoint.Newest(ctx, d.inc); return err })
	if err != nil {
		return nil, fmt.Errorf("read the log: %w", err)
	}
	return p, nil
}

// anchorAll brings every table into an incarnation that recovers or rewinds: a
// snapshot with the same contents, or with those to go back to. Only then no
// request of an older incarnation can land any more. Any driver that finds the
// record completes what is missing. The log begins when that is done: sinks of a
// logged plan have their anchors, and only a sink that came later may lack one.
func (d *Driver) anchorAll(ctx context.Context) error {
	if d.inc.Kind == batch.First {
		return nil
	}
	newest, err := d.newest(ctx)
	if err != nil {
		return err
	}
	known, err := d.reached(ctx, newest)
	if err != nil {
		return err
	}
	tables, err := d.newcomers(ctx, newest)
	if err != nil {
		return err
	}
	if d.rooms.Replay != nil { // it may be over by now
		if err := d.checkIncarnation(ctx); err != nil {
			return err
		}
	}
	for _, s := range tables {
		if err := d.anchor(ctx, s, known); err != nil {
			return fmt.Errorf("anchor incarnation %d in the table of sink %s: %w", d.inc.Number, s.Name, err)
		}
	}
	if d.rooms.Replay != nil {
		return nil
	}
	// A rewind that died before its record may have left pins of this number, too.
	for _, s := range d.sinks {
		if s.route != nil {
			continue // it cannot be rewound
		}
		if err := d.retry(ctx, "the catalog", func() error { return s.Table.Unpin(ctx, d.pinTag()) }); err != nil {
			return err
		}
	}
	return nil
}

// newcomers are the tables of sinks that a plan does not name.
func (d *Driver) newcomers(ctx context.Context, newest *batch.Plan) (tables []*sink, err error) {
	for _, s := range d.sinks {
		switch {
		case newest != nil && newest.Sink(s.Name) != nil:
		case s.route == nil:
			tables = append(tables, s)
		default:
			parts, err := d.tablesOf(ctx, s, true)
			if err != nil {
				return nil, err
			}
			tables = append(tables, parts...)
		}
	}
	return tables, nil
}

// reached is where the pipeline stands when it is anchored: where the newest
// plan ends, or without one as far as any table got; nil if none has a stamp.
func (d *Driver) reached(ctx context.Context, newest *batch.Plan) (batch.Offsets, error) {
	if newest != nil {
		return newest.Position(), nil
	}
	tables, err := d.newcomers(ctx, nil)
	if err != nil {
		return nil, err
	}
	views, err := d.views(ctx, tables)
	if err != nil {
		return nil, err
	}
	stamps := map[*sink][]*batch.Stamp{}
	for i, s := range tables {
		view := views[i]
		if err := d.checkUntagged(s, view); err != nil {
			return nil, err
		}
		st, err := d.basis(s, view)
		if err != nil {
			return nil, err
		}
		s.take(st)
		if s.of != nil && st != nil {
			stamps[s.of] = append(stamps[s.of], st)
		}
	}
	for _, s := range d.sinks {
		if s.route != nil {
			s.stand(stamps[s])
		}
	}
	return d.position(), nil
}

// basis is the stamp with whose contents a table goes on in this incarnation:
// that of its anchor, of the snapshot to go back to, or of its tag.
func (d *Driver) basis(s *sink, view View) (*batch.Stamp, error) {
	st := view.Stamp()
	if d.inc.Kind == batch.Replay && st != nil && !st.Of(d.inc, d.opts.Stream) {
		return nil, nil // of a run that is over
	}
	target, back := d.inc.Targets[s.Name]
	if !back || st != nil && st.Of(d.inc, d.opts.Stream) {
		return st, nil
	}
	if st, ok := view.Snapshot(target); ok && st != nil {
		return st, nil
	}
	return nil, fmt.Errorf("%w: snapshot %d, to which the pipeline should go back, has expired", batch.ErrDataLost, target)
}

func (d *Driver) anchor(ctx context.Context, s *sink, known batch.Offsets) error {
	catalog := d.patient("the catalog")
	for {
		view, err := d.load(ctx, s)
		if err != nil {
			return err
		}
		st := view.Stamp()
		if st != nil && st.Of(d.inc, d.opts.Stream) {
			catalog.over()
			return nil
		}
		if st != nil && st.UUID == d.inc.UUID && d.inc.Newer(st.Incarnation, st.IncarnationID) {
			return fmt.Errorf("%w: the table carries incarnation %d-%s", batch.ErrFenced, st.Incarnation, st.IncarnationID)
		}
		if _, back := d.inc.Targets[s.Name]; !back { // a rewind leads out of a rollback
			if err := d.checkAncestry(ctx, s, view); err != nil {
				return err
			}
		}
		if err := d.checkUntagged(s, view); err != nil {
			return err
		}
		sent, err := d.sendAnchor(ctx, s, view, known)
		if !sent || fatal(err) {
			return err
		}
		if err != nil { // whatever the answer, look again
			if err := catalog.wait(ctx, err); err != nil {
				return err
			}
		}
	}
}

// sendAnchor commits the anchor of one table. sent is false where nothing can
// have been sent.
func (d *Driver) sendAnchor(ctx context.Context, s *sink, view View, known batch.Offsets) (sent bool, err error) {
	from, err := d.basis(s, view)
	if err != nil {
		return false, err
	}
	a, err := d.anchorStamp(ctx, s, from, view, known)
	if err != nil {
		return false, err
	}
	if target, back := d.inc.Targets[s.Name]; back {
		if d.replayedSince(s, view) {
			return false, fmt.Errorf("%w: dead letters were run again in the table of sink %s while the pipeline goes back to batch %d, which would take them out of it. Let the replay end; then go back to a later batch, or stay with `frazil checkpoint recover`",
				batch.ErrDataLost, s.Name, d.inc.Batch)
		}
		_, err = view.Restore(ctx, a, target, d.inc.DropForeign || d.vouched(s, view))
	} else {
		_, err = view.Commit(ctx, a, nil)
	}
	return true, err
}

// anchorStamp continues from, and follows what the tag carries.
func (d *Driver) anchorStamp(ctx context.Context, s *sink, from *batch.Stamp, view View, known batch.Offsets) (*batch.Stamp, error) {
	a := &batch.Stamp{
		UUID: d.inc.UUID, Name: d.inc.Name, Incarnation: d.inc.Number, IncarnationID: d.inc.ID, Stream: d.opts.Stream,
		Kind: d.inc.Kind, Plan: "anchor-" + d.inc.ID, Last: batch.None, Start: batch.Offsets{}, End: batch.Offsets{},
		Time: d.rooms.Clock.Now().Round(0), Previous: view.Stamp().Hash(),
	}
	if d.rooms.Replay != nil {
		return d.runAnchor(ctx, s, a, from, view.History())
	}
	if from != nil {
		a.First, a.Last, a.Start, a.End = from.Last+1, from.Last, from.End, from.End
		a.State, a.Total, a.Attempt, a.Route = from.State, from.Total, from.Attempt, from.Route
		if a.Time.Before(from.Time) {
			a.Time = from.Time
		}
		return a, nil
	}
	if s.of != nil { // it was made for a batch that never came: it has no rows
		a.Route = &batch.Route{Sink: s.of.Name}
		return a, nil
	}
	// A table without a stamp joins where `start` says, but never behind what
	// the others have read: what lies between would be missing in it.
	var starts batch.Offsets
	err := d.retry(ctx, "Kafka", func() (err error) { starts, err = d.rooms.Source.Start(ctx, known); return err })
	if err != nil {
		return nil, err
	}
	for tp, at := range starts {
		end, ok := known[tp]
		switch {
		case known == nil: // it is the first one
			a.Start[tp], a.End[tp] = at, at
		case ok:
			a.Start[tp], a.End[tp] = min(at, end), min(at, end)
		default: // a partition that appeared since
		}
	}
	return a, nil
}

// adoptPlan takes what the newest plan says of each sink. Its outcome is not
// known: it is the next batch. A sink that the plan does not name joins later.
func (d *Driver) adoptPlan(ctx context.Context, p *batch.Plan) error {
	d.found(p)
	d.recent = p.Recent
	for _, s := range d.sinks {
		sp := p.Sink(s.Name)
		if sp != nil && (sp.Route != nil) != (s.route != nil) {
			return fmt.Errorf("%w: sink %s fed one table and shall feed many now, or the other way round: give it another name", batch.ErrInvalid, s.Name)
		}
		if s.route != nil {
			if err := d.adoptRoute(ctx, p, s, sp); err != nil {
				return err
			}
			continue
		}
		if sp != nil {
			s.before, s.from, s.carried, s.lags = sp.Before, sp.From, sp.Carried, sp.Lags
			if s.lags && s.before.Hash == "" {
				s.from = nil // it joins where `start` says, when its turn comes
			}
			continue
		}
		view, err := d.load(ctx, s)
		if err != nil {
			return err
		}
		if err := d.join(ctx, s, view); err != nil {
			return err
		}
	}
	return nil
}

// adoptRoute takes what the newest plan says of a sink that feeds many tables,
// or where their stamps say that it stands.
func (d *Driver) adoptRoute(ctx context.Context, p *batch.Plan, s *sink, sp *batch.SinkPlan) error {
	if sp != nil {
		s.from, s.lags = sp.From, sp.Lags
		s.follow(sp)
	} else {
		s.lags = true
	}
	return d.learn(ctx, s, p)
}

// join takes what the table of a new sink carries: nothing, or the stamp of the
// time when the sink was in the spec before.
func (d *Driver) join(ctx context.Context, s *sink, view View) error {
	if err := d.checkAncestry(ctx, s, view); err != nil {
		return err
	}
	st := view.Stamp()
	if st != nil && !st.Of(d.inc, d.opts.Stream) {
		if err := d.checkIncarnation(ctx); err != nil {
			return err
		}
		return fmt.Errorf("%w: the table of sink %s joins, but carries the stamp of another incarnation: %s. "+
			"Use another table, or remove its tag %s if its rows are to stay as they are", batch.ErrDataLost, s.Name, st, batch.Tag(d.opts.Name, d.opts.Stream))
	}
	s.lags = true
	s.take(st)
	return nil
}

// take is what a table's stamp says of the sink.
func (s *sink) take(st *batch.Stamp) {
	s.before, s.from, s.carried = batch.RefTo(st), nil, batch.Counts{}
	if st != nil {
		s.from = st.End.Clone()
	}
}

// adoptTags begins a log that is empty: batch 0 of a new pipeline, or what the
// stamps of an incarnation that recovers or rewinds say.
func (d *Driver) adoptTags(ctx context.Context) error {
	d.last, d.ordinary = nil, nil
	for _, s := range d.sinks {
		s.take(nil)
		if s.route != nil {
			s.stand(nil)
			clear(s.route.stamps)
		}
		if d.inc.Kind == batch.First {
			continue // a tag that is there already is not ours
		}
		if s.route != nil {
			s.lags = true
			if err := d.learn(ctx, s, nil); err != nil {
				return err
			}
			continue
		}
		view, err := d.load(ctx, s)
		if err != nil {
			return err
		}
		if err := d.checkUntagged(s, view); err != nil {
			return err
		}
		st := view.Stamp()
		if st != nil && st.UUID == d.inc.UUID && d.inc.Newer(st.Incarnation, st.IncarnationID) {
			return fmt.Errorf("%w: the table of sink %s carries incarnation %d-%s", batch.ErrFenced, s.Name, st.Incarnation, st.IncarnationID)
		}
		if st != nil && !st.Of(d.inc, d.opts.Stream) {
			if err := d.checkIncarnation(ctx); err != nil {
				return err
			}
			return fmt.Errorf("%w: the table of sink %s was anchored in incarnation %d-%s, but its tag carries %s now: another pipeline of this name writes there. "+
				"Stop one of them and run `frazil checkpoint recover` for the other", batch.ErrDataLost, s.Name, d.inc.Number, d.inc.ID, st)
		}
		s.take(st)
		s.lags = true
	}
	return nil
}

// position is where the pipeline stands when it has no plan: the furthest end
// of any table's stamp, per partition; nil where no table has one.
func (d *Driver) position() batch.Offsets {
	var position batch.Offsets
	for _, s := range d.sinks {
		_, _, end, ok := s.stood()
		if !ok {
			continue
		}
		if position == nil {
			position = batch.Offsets{}
		}
		for tp, at := range end {
			if was, ok := position[tp]; !ok || at > was {
				position[tp] = at
			}
		}
	}
	return position
}

// adopts says whether the operator vouched for this table as it is: for a head
// by its number, and what was built on it, while the tag is where this process
// found it. A rollback that comes later is another matter.
func (d *Driver) adopts(s *sink, view View) bool {
	return view.Stamp().Hash() == *s.found && slices.ContainsFunc(view.History(), func(h batch.Stamped) bool {
		return slices.Contains(d.opts.Adopt, fmt.Sprintf("%s@%d", s.Name, h.Snapshot))
	})
}
