package driver

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/frazil-io/frazil/internal/batch"
)

// A batch of a sink that feeds many tables is executed, and then bound: its plan
// names the tables that it turned out to touch, and what each of them carries.
// Executed again, it may touch no others.

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
			before, err := d.carries(ctx, p, s, names, share)
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
func (d *Driver) carries(ctx context.Context, p *batch.Plan, s *sink, tables []string, share *share) ([]batch.Ref, error) {
	refs := make([]batch.Ref, len(tables))
	var fresh []*sink
	for i, name := range tables {
		refs[i] = s.route.stamps[name]
		if entered, ok := share.entered[name]; ok && refs[i].Hash == "" {
			refs[i] = entered
			s.route.stamps[name] = entered // the work on the batch behind this one begins with it
		}
		if refs[i].Hash == "" {
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
	// entered are the stamps of tables that a run of dead letters entered for it.
	entered map[string]batch.Ref
}

// opener decides about the tables of a sink that a piece of a batch touches,
// before their first file, each of them once. A batch that is logged touches no
// other ones than its plan names.
func (d *Driver) opener(ctx context.Context, p *batch.Plan, r *prepared, s *sink, lacking map[string]bool, basis basis) func([]string) ([]string, error) {
	sp := p.Sink(s.Name)
	touched := map[string]bool{}
	entered := map[string]batch.Ref{}
	r.routes[s.Name] = &share{tables: touched, lacking: lacking, entered: entered}
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
			if has {
				continue
			}
			tag := basis.tag(batch.RouteName(s.Name, name))
			if d.rooms.Replay != nil && before == "" {
				if entered[name], err = d.enter(ctx, p, s.part(name)); err != nil {
					return nil, fmt.Errorf("anchor the replay in table %s of sink %s: %w", name, s.Name, err)
				}
				before = entered[name].Hash
				tag = before
			}
			write = append(write, name)
			r.waits(s.part(name), tag, before)
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
