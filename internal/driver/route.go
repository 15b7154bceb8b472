package driver

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/frazil-io/frazil/internal/batch"
)

// A sink that feeds many tables is a sink whose tables come and go. Only the SQL
// of a batch says which ones it touches, so such a batch is executed before its
// plan is logged. From there on each of them is a sink of its own: it has its
// stamp and its tag, it is looked at and committed like any other. What they
// share, where the sink stands and what went through it, is in the plan, and in
// every stamp.

// route is what the driver knows of a sink that feeds many tables.
type route struct {
	origin batch.Offsets // batch.RoutePlan.Origin
	total  batch.Counts  // of all batches that are done
	// stamps are what the tables carry that are known, by name. Only the driver's
	// own goroutine uses them.
	stamps map[string]batch.Ref
	noted  map[string]bool // tables that the checkpoint lists
	// dropped are those that it lists as dropped on purpose: an open plan may name
	// one, which takes no part any more.
	dropped map[string]bool
	// newest is, where the stamps say where the sink stands, the newest of them,
	// and torn says that not all tables have its batch.
	newest *batch.Stamp
	torn   bool

	mu    sync.Mutex
	parts map[string]*sink // by table
}

func newRoute() *route {
	return &route{stamps: map[string]batch.Ref{}, noted: map[string]bool{}, dropped: map[string]bool{}, parts: map[string]*sink{}}
}

// part is one table of a sink that feeds many, as a sink of its own.
func (s *sink) part(table string) *sink {
	s.route.mu.Lock()
	defer s.route.mu.Unlock()
	p := s.route.parts[table]
	if p == nil {
		p = &sink{Sink: Sink{Name: batch.RouteName(s.Name, table), Hash: s.Hash, Table: s.Tables.Table(table)}, of: s, table: table}
		s.route.parts[table] = p
	}
	return p
}

// named returns the sink with this name, or the table of one, nil where the spec
// has none.
func (d *Driver) named(name string) *sink {
	of, table := batch.SplitRoute(name)
	for _, s := range d.sinks {
		switch {
		case s.Name != of || (table == "") != (s.route == nil):
		case s.route == nil:
			return s
		default:
			return s.part(table)
		}
	}
	return nil
}

// whole is the sink that the spec names: that of a table which is one of many, or
// the sink itself.
func (s *sink) whole() *sink {
	if s.of != nil {
		return s.of
	}
	return s
}

// parts are the tables that take part in a logged plan, in the order of their
// commits.
func (d *Driver) parts(p *batch.Plan) []*sink {
	var all []*sink
	for _, s := range d.sinks {
		sp := p.Sink(s.Name)
		switch {
		case sp == nil || !sp.Active:
		case s.route == nil:
			all = append(all, s)
		case sp.Route != nil:
			for _, t := range sp.Route.Tables {
				if !t.Has && (s.route.noted[t.Table] || !s.route.dropped[t.Table]) {
					all = append(all, s.part(t.Table))
				}
			}
		}
	}
	return all
}

// tables are all tables of the spec's sinks: of those that feed many, the ones
// that the checkpoint lists, and with search whatever of the namespace is theirs.
func (d *Driver) tables(ctx context.Context, search bool) ([]*sink, error) {
	var all []*sink
	for _, s := range d.sinks {
		if s.route == nil {
			all = append(all, s)
			continue
		}
		parts, err := d.tablesOf(ctx, s, search)
		if err != nil {
			return nil, err
		}
		all = append(all, parts...)
	}
	return all, nil
}

func (d *Driver) tablesOf(ctx context.Context, s *sink, search bool) (parts []*sink, err error) {
	if d.rooms.Replay != nil {
		return d.claimed(ctx, s)
	}
	var names, dropped []string
	err = d.retry(ctx, "the checkpoint", func() error {
		if names, err = d.rooms.Checkpoint.Tables(ctx, s.Name); err == nil {
			dropped, err = d.rooms.Checkpoint.Dropped(ctx, s.Name)
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("list the tables of sink %s: %w", s.Name, err)
	}
	clear(s.route.noted)
	clear(s.route.dropped)
	for _, name := range dropped {
		s.route.dropped[name] = true
	}
	for _, name := range names {
		s.route.noted[name] = true
	}
	if search {
		var found []string
		err := d.retry(ctx, "the catalog", func() error { found, err = s.Tables.Find(ctx); return err })
		if err != nil {
			return nil, fmt.Errorf("look for the tables of sink %s: %w", s.Name, err)
		}
		names = append(names, found...)
		slices.Sort(names)
		names = slices.Compact(names)
	}
	for _, name := range names {
		parts = append(parts, s.part(name))
	}
	return parts, nil
}

// routes says whether a sink of the spec feeds many tables.
func (d *Driver) routes() bool {
	return slices.ContainsFunc(d.sinks, func(s *sink) bool { return s.route != nil })
}

// search says whether the checkpoint's list of tables cannot be trusted: it has
// no record, or one whose log is empty, which may have been made after a loss.
func (d *Driver) search(ctx context.Context, all []batch.Incarnation) (bool, error) {
	if len(all) == 0 {
		return true, nil
	}
	d.inc = all[len(all)-1]
	newest, err := d.newest(ctx)
	return newest == nil, err
}

// note lists tables in the checkpoint, so that whoever opens the pipeline reads
// their tags. A run of dead letters has no list: it looks through the namespace.
func (d *Driver) note(ctx context.Context, s *sink, tables []string) error {
	if d.rooms.Replay != nil {
		return nil
	}
	fresh := slices.DeleteFunc(slices.Clone(tables), func(name string) bool { return s.route.noted[name] })
	if len(fresh) > 1 { // what does not go through is tried again below
		noted := make([]bool, len(fresh))
		d.beside(len(fresh), func(i int) bool {
			noted[i] = d.rooms.Checkpoint.NoteTable(ctx, s.Name, fresh[i]) == nil
			return noted[i]
		})
		for i, name := range fresh {
			s.route.noted[name] = noted[i]
		}
	}
	for _, name := range fresh {
		if s.route.noted[name] {
			continue
		}
		err := d.retry(ctx, "the checkpoint", func() error { return d.rooms.Checkpoint.NoteTable(ctx, s.Name, name) })
		if err != nil {
			return fmt.Errorf("list table %s of sink %s in the checkpoint: %w", name, s.Name, err)
		}
		s.route.noted[name] = true
	}
	return nil
}

// learn reads what the tables of a sink carry, all of this incarnation, and
// whence the sink goes on.
func (d *Driver) learn(ctx context.Context, s *sink, p *batch.Plan) error {
	known := p != nil && p.Sink(s.Name) != nil
	parts, err := d.tablesOf(ctx, s, !known)
	if err != nil {
		return err
	}
	clear(s.route.stamps)
	var stamps []*batch.Stamp
	var rest []*sink
	names := make([]string, 0, len(parts))
	for _, part := range parts {
		names = append(names, part.table)
	}
	if err := d.note(ctx, s, names); err != nil {
		return err
	}
	for _, part := range parts {
		if known {
			if sp := p.Sink(part.Name); sp != nil { // the look at this batch judges it
				s.route.stamps[part.table] = sp.Before
				continue
			}
		}
		rest = append(rest, part)
	}
	views, err := d.views(ctx, rest)
	if err != nil {
		return err
	}
	for i, part := range rest {
		st, err := d.taken(ctx, part, views[i])
		if err != nil {
			return err
		}
		if st != nil {
			stamps = append(stamps, st)
		}
		s.route.stamps[part.table] = batch.RefTo(st)
	}
	if known && !p.Sink(s.Name).Lags {
		return nil
	}
	s.stand(stamps)
	if known && !s.route.torn { // it may have read on since, without a row
		s.from = p.Sink(s.Name).From
		s.follow(p.Sink(s.Name))
	}
	if d.rooms.Replay != nil && !known {
		return d.beginAtMarks(ctx, s)
	}
	return nil
}

// taken is the stamp of a table which nobody commits to while this driver opens
// the pipeline.
func (d *Driver) taken(ctx context.Context, s *sink, view View) (*batch.Stamp, error) {
	if err := d.checkAncestry(ctx, s, view); err != nil {
		return nil, err
	}
	if err := d.checkUntagged(s, view); err != nil {
		return nil, err
	}
	st := view.Stamp()
	if st == nil || st.Of(d.inc, d.opts.Stream) {
		return st, nil
	}
	if st.UUID == d.inc.UUID && d.inc.Newer(st.Incarnation, st.IncarnationID) {
		return nil, fmt.Errorf("%w: table %s carries incarnation %d-%s", batch.ErrFenced, s.Name, st.Incarnation, st.IncarnationID)
	}
	if err := d.checkIncarnation(ctx); err != nil {
		return nil, err
	}
	if d.rooms.Replay != nil { // of a run that is over: a batch that touches the table enters it
		return nil, nil
	}
	return nil, fmt.Errorf("%w: table %s carries the stamp of another incarnation or pipeline: %s. If the checkpoint was lost, `frazil checkpoint recover` takes the table's; "+
		"else give this pipeline another name or table", batch.ErrDataLost, s.Name, st)
}

// stand is where the sink is by the stamps of its tables. Batches are committed
// one after the other: of the newest one tables may lack their part, of an older
// one none does. Where one lacks it, the sink stands before that batch.
func (s *sink) stand(stamps []*batch.Stamp) {
	r := s.route
	r.newest, r.torn, r.origin, r.total = nil, false, nil, batch.Counts{}
	s.from = nil
	have := 0
	for _, st := range stamps {
		switch {
		case st.Last == batch.None || r.newest != nil && st.Last < r.newest.Last:
			continue
		case r.newest == nil || st.Last > r.newest.Last:
			r.newest, have, s.from = st, 0, st.End.Clone()
		}
		have++
		for tp := range s.from { // a revision may have closed a partition
			if _, open := st.End[tp]; !open {
				delete(s.from, tp)
			}
		}
	}
	if r.newest == nil {
		return
	}
	r.origin, r.total = r.newest.Route.Origin, r.newest.Route.Before.Plus(r.newest.Route.Counts)
	if have < r.newest.Route.Tables {
		r.torn, r.total = true, r.newest.Route.Before
		s.from = r.newest.Route.From.Clone()
	}
}

// upto is where a batch ends that tables lack, nil where none does.
func (s *sink) upto() batch.Offsets {
	if s.route == nil || !s.route.torn {
		return nil
	}
	return s.route.newest.End
}

// stood is the batch, the time and the end of the newest stamp in a table of the
// sink, as far as the stamps say where it stands.
func (s *sink) stood() (last batch.ID, at time.Time, end batch.Offsets, ok bool) {
	switch {
	case s.route == nil:
		return s.before.Last, s.before.Time, s.before.End, s.before.Hash != ""
	case s.route.newest == nil:
		return 0, time.Time{}, nil, false
	}
	return s.route.newest.Last, s.route.newest.Time, s.route.newest.End, true
}

// follow takes over what a plan says of a sink that feeds many tables: where it
// stands before the plan.
func (s *sink) follow(sp *batch.SinkPlan) {
	s.route.newest, s.route.torn = nil, false
	s.route.origin, s.route.total = sp.Route.Origin, sp.Route.Total
}

// passed is where the sink stands when all its tables have p.
func (s *sink) passed(p *batch.Plan) {
	sp := p.Sink(s.Name)
	if s.route == nil || sp == nil || !sp.Active {
		return
	}
	s.follow(sp)
	s.route.total = sp.Route.Total.Plus(sp.Route.Counts)
	s.from, s.lags = p.End(), sp.CatchUp
}
