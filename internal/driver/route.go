package driver

import (
	"context"
	"errors"
	"fmt"
	"maps"
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
// their tags.
func (d *Driver) note(ctx context.Context, s *sink, tables []string) error {
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

// routed executes a plan that is not logged yet, where only that tells which
// tables it touches; nil where the plan has no such sink. The plan may get gaps
// of what Kafka lost meanwhile.
func (d *Driver) routed(ctx context.Context, p *batch.Plan) (*prepared, error) {
	if !d.unbound(p) {
		return nil, nil
	}
	kafka, begun := d.executing(p), d.rooms.Clock.Now()
	defer kafka.settled()
	for {
		r, err := d.prepareAs(ctx, p, d.working(p), d.allLetters())
		switch {
		case err == nil:
			kafka.over()
			r.begun = begun
			return r, nil
		case d.outgrew(p, d.newestReaders(p, d.sinks), err):
			d.log.Warn("the batch needs newer reader schemas", "batch", p.Batch, "error", err)
			p.Readers = maps.Clone(d.newestReaders(p, d.sinks))
		case errors.Is(err, batch.ErrUnavailable):
			if d.arrived.Load() {
				d.contacted[kafka.server] = true
			}
			d.log.Warn("the batch is executed again", "batch", p.Batch, "error", err)
			if err := kafka.wait(ctx, err); err != nil {
				return nil, err
			}
		case errors.Is(err, batch.ErrDataLost) && d.opts.Sources.RecordLoss():
			d.log.Warn("records of a batch are lost before it is logged", "batch", p.Batch, "error", err)
			q := *p
			if err := d.gaps(ctx, p, &q, err); err != nil {
				return nil, err
			}
			*p = q
		default:
			return nil, err
		}
	}
}

// unbound says whether a plan must be executed before it is logged.
func (d *Driver) unbound(p *batch.Plan) bool {
	return slices.ContainsFunc(d.working(p), func(s *sink) bool { return s.route != nil })
}

// working are the sinks of the spec that take part in a plan.
func (d *Driver) working(p *batch.Plan) []*sink {
	var all []*sink
	for _, s := range d.sinks {
		if sp := p.Sink(s.Name); sp != nil && sp.Active {
			all = append(all, s)
		}
	}
	return all
}

// bind writes into a plan that was executed what it came to: which tables it
// touches, and the stamps that their tags must carry. Every batch before it is
// done, so no request is under way that could move one of them.
func (d *Driver) bind(ctx context.Context, p *batch.Plan, r *prepared) error {
	for _, s := range d.sinks {
		sp := p.Sink(s.Name)
		if s.route == nil || sp == nil || sp.Route != nil {
			continue
		}
		rp := &batch.RoutePlan{Origin: s.route.origin, Total: s.route.total}
		if sp.Active {
			rp.Origin = s.origin(p)
			share := r.routes[s.Name]
			rp.Counts = share.counts
			if len(share.tables) == 0 && r.lettersFollow(d, p) {
				r.witness(s, share)
			}
			names := slices.Sorted(maps.Keys(share.tables))
			before, err := d.carries(ctx, p, s, names)
			if err != nil {
				return err
			}
			for i, name := range names {
				rp.Tables = append(rp.Tables, batch.RoutedTable{Table: name, Before: before[i], Has: share.tables[name]})
			}
			if err := s.sameTables(p, rp); err != nil {
				return err
			}
			if err := d.note(ctx, s, rp.Names()); err != nil {
				return err
			}
		}
		sp.Route, sp.Due = rp, false
	}
	return nil
}

// witness gives one table of a sink an empty stamp, that with the newest one. The
// batch touches none of them but has dead letters: where the sink stands must then
// be known from its tables, as with any other sink.
func (r *prepared) witness(s *sink, share *share) {
	table := ""
	for name, ref := range s.route.stamps {
		if was := s.route.stamps[table]; ref.Hash != "" && (table == "" || ref.Last > was.Last || ref.Last == was.Last && name < table) {
			table = name
		}
	}
	if table != "" {
		share.tables[table] = false
		r.sinks[batch.RouteName(s.Name, table)] = &result{}
	}
}

// origin is where the sink began in each partition of a plan.
func (s *sink) origin(p *batch.Plan) batch.Offsets {
	origin := batch.Offsets{}
	for _, r := range p.Ranges {
		at, ok := s.route.origin[r.TopicPartition]
		if !ok {
			at = r.Start
		}
		origin[r.TopicPartition] = at
	}
	return origin
}

// carries are the stamps of tables that the next plan touches. One that this driver
// does not know has none: it is new.
func (d *Driver) carries(ctx context.Context, p *batch.Plan, s *sink, tables []string) ([]batch.Ref, error) {
	refs := make([]batch.Ref, len(tables))
	var fresh []*sink
	for i, name := range tables {
		if refs[i] = s.route.stamps[name]; refs[i].Hash == "" {
			refs[i] = batch.Ref{}
			fresh = append(fresh, s.part(name))
		}
	}
	views, err := d.views(ctx, fresh)
	if err != nil {
		return nil, err
	}
	for i, part := range fresh {
		if err := d.checkUntagged(part, views[i]); err != nil {
			return nil, err
		}
		if st := views[i].Stamp(); st != nil {
			before := p.Entry - 1 // whoever has logged this entry has overtaken this driver
			return nil, d.disagree(ctx, &batch.Plan{Entry: before, Batch: p.Batch}, part, &batch.SinkPlan{Name: part.Name}, st)
		}
	}
	return refs, nil
}

// sameTables makes sure that the rest of a torn batch is the rest of that batch.
func (s *sink) sameTables(p *batch.Plan, rp *batch.RoutePlan) error {
	r := s.route
	if !r.torn || p.Lossy() {
		return nil
	}
	if was := r.newest.Route; was.Spec != s.Hash || was.Names != rp.Hash() {
		return fmt.Errorf("%w: the checkpoint was lost, or the sink was taken out of the spec, while batch %d of sink %s was in some of its tables only, and with this spec its rows do not go to the same tables. "+
			"Run it with the spec that the pipeline had then until the batch is in all of them, and change the spec after that", batch.ErrInvalid, r.newest.Last, s.Name)
	}
	return nil
}

// share is what an execution came to in a sink that feeds many tables.
type share struct {
	counts batch.Counts
	tables map[string]bool // that it touches: whether the table had the rows before
	// lacking are, of a logged plan, the tables that it was executed for.
	lacking map[string]bool
}

// opener decides about the tables of a sink that a piece of a batch touches,
// before their first file, each of them once. A batch that is logged touches no
// other ones than its plan names.
func (d *Driver) opener(ctx context.Context, p *batch.Plan, r *prepared, s *sink, lacking map[string]bool, basis basis) func([]string) ([]string, error) {
	sp := p.Sink(s.Name)
	touched := map[string]bool{}
	r.routes[s.Name] = &share{tables: touched, lacking: lacking}
	known := basis.known[s.Name]
	return func(tables []string) (write []string, err error) {
		for _, name := range tables {
			before := basis.before(batch.RouteName(s.Name, name))
			has := false
			switch {
			case sp.Route != nil && sp.Route.Table(name) == nil:
				return nil, fmt.Errorf("%w: batch %d of sink %s gives rows for table %s, which its logged plan does not name: its SQL gives other rows than it gave at first. "+
					"Does it depend on something outside of the batch, such as random() or a file?", batch.ErrInvalid, p.Batch, s.Name, name)
			case sp.Route != nil:
				before = sp.Route.Table(name).Before.Hash
				has = !lacking[name]
			case sp.CatchUp:
				if has, err = holds(p, s, name); err != nil {
					return nil, err
				}
			}
			touched[name] = has
			if _, old := basis.tags[batch.RouteName(s.Name, name)]; !old {
				known++
			}
			if sp.Route == nil && s.TablesMax > 0 && known > s.TablesMax {
				return nil, fmt.Errorf("%w: with table %s sink %s has %d tables; more than %d are not made. If they are meant, raise iceberg.max_tables; "+
					"else choose a column with fewer values", batch.ErrInvalid, name, s.Name, known, s.TablesMax)
			}
			if !has {
				write = append(write, name)
				r.waits(s.part(name), basis.tag(batch.RouteName(s.Name, name)), before)
			}
		}
		if len(write) == 0 {
			return nil, nil
		}
		return write, d.register(ctx, p, r)
	}
}

// holds says whether a table has the rows of the ranges of a plan for a torn batch.
func holds(p *batch.Plan, s *sink, table string) (bool, error) {
	ref := s.route.stamps[table]
	has, lacks := false, false
	for _, r := range p.Ranges {
		at, ok := ref.End[r.TopicPartition]
		switch {
		case r.First() >= r.End:
		case ok && at >= r.End:
			has = true
		default:
			lacks = true
		}
	}
	if has && lacks {
		return false, fmt.Errorf("%w: table %s of sink %s has a part of batch %d, and of that batch a table has all or nothing: %v lies between the ends of its ranges",
			batch.ErrDataLost, table, s.Name, p.Batch, ref.End)
	}
	return has, nil
}

// basis is what the tables carry when an execution begins, and what they will
// carry before its own commit, where it runs ahead of another one.
type basis struct {
	tags, next map[string]string
	known      map[string]int // tables of a sink that feeds many
}

func (b basis) tag(name string) string { return b.tags[name] }

func (b basis) before(name string) string {
	if next, ok := b.next[name]; ok {
		return next
	}
	return b.tags[name]
}

func basisOf(tags, next map[string]string) basis {
	b := basis{tags: tags, next: next, known: map[string]int{}}
	for name := range tags {
		sink, _ := batch.SplitRoute(name)
		b.known[sink]++
	}
	return b
}

// wholes groups tables by their sink, where that feeds many. A sink itself stands
// for all tables that it will turn out to have.
func wholes(sinks []*sink) (whole []*sink, tables map[*sink]map[string]bool) {
	tables = map[*sink]map[string]bool{}
	for _, s := range sinks {
		of := s.whole()
		if !slices.Contains(whole, of) {
			whole = append(whole, of)
			tables[of] = map[string]bool{}
		}
		if s.of != nil {
			tables[of][s.table] = true
		}
	}
	return whole, tables
}

// closeAll finishes the files of a sink that feeds many tables. A logged batch
// has a share for each table that lacks it, rows or not.
func (r *prepared) closeAll(ctx context.Context, s *sink, out *result, w RoutedWriter) error {
	files, dropped, err := w.Close(ctx)
	if err != nil {
		return fmt.Errorf("finish files of sink %s: %w", s.Name, err)
	}
	rows := dropped
	for _, f := range files {
		rows += f.Rows()
	}
	if err := out.check(s.Name, out.counts.Tally, rows); err != nil {
		return err
	}
	out.counts.Written = rows
	share := r.routes[s.Name]
	share.counts = out.counts
	for name, has := range share.tables {
		if !has {
			res := &result{files: files[name]}
			res.counts.Written = res.rows()
			r.sinks[batch.RouteName(s.Name, name)] = res
		}
	}
	for name := range share.lacking {
		if _, touched := share.tables[name]; !touched {
			r.sinks[batch.RouteName(s.Name, name)] = &result{}
		}
	}
	return nil
}
