package pipeline

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/frazil-io/frazil/internal/batch"
	"github.com/frazil-io/frazil/internal/checkpoint"
	"github.com/frazil-io/frazil/internal/verify"
)

// verifyTries is how often an audit is repeated that found something while a driver
// went on: what was read may have been of two moments.
const verifyTries = 3

// Verify audits the pipeline's tables and its checkpoint, and if it is to be deep
// runs every logged batch again that Kafka still has. It writes nothing, and a driver
// may run beside it.
func (p *Pipeline) Verify(ctx context.Context, now time.Time, deep bool) (*verify.Report, error) {
	report, err := p.verify(ctx, now)
	if err != nil || !deep {
		return report, err
	}
	err = p.deepen(ctx, report)
	report.Finish()
	return report, err
}

func (p *Pipeline) verify(ctx context.Context, now time.Time) (*verify.Report, error) {
	for try := 1; ; try++ {
		report, moved, err := p.verifyOnce(ctx)
		if err != nil {
			return nil, err
		}
		report.Time = now.UTC()
		if report.Clean || !moved || try == verifyTries {
			return report, nil
		}
	}
}

// verifyOnce makes one audit. moved says that a driver logged a plan meanwhile.
func (p *Pipeline) verifyOnce(ctx context.Context) (report *verify.Report, moved bool, err error) {
	cp, err := p.Checkpoint(ctx)
	if err != nil {
		return nil, false, err
	}
	before, err := p.newestEntry(ctx, cp)
	if err != nil {
		return nil, false, err
	}
	o := verify.Options{Pipeline: p.spec.Name, KeepSnapshots: p.spec.Maintenance.KeepSnapshots}
	if o.Marked, err = p.marked(ctx); err != nil {
		return nil, false, err
	}
	if o.Replayed, err = p.replayed(ctx); err != nil {
		return nil, false, err
	}
	tables, err := p.auditedTables(ctx)
	if err != nil {
		return nil, false, err
	}
	records, err := p.auditedRecords(ctx, cp, tables)
	if err != nil {
		return nil, false, err
	}
	records.Entry = before
	report, err = verify.Tables(ctx, o, tables, records)
	if err != nil {
		return nil, false, err
	}
	after, err := p.newestEntry(ctx, cp)
	return report, after != before, err
}

// marked is up to where the marks in the table of the dead letters say that letters
// were run again, by stream; nil where there is no such table.
func (p *Pipeline) marked(ctx context.Context) (map[string]int64, error) {
	if p.spec.DeadLetter == nil || p.spec.DeadLetter.Iceberg == nil {
		return nil, nil
	}
	if err := p.HasLetters(ctx); errors.Is(err, batch.ErrInvalid) {
		return nil, nil // there is none yet, or one that knows no marks
	} else if err != nil {
		return nil, err
	}
	upto, _, err := p.newWaiting().marked(ctx)
	if err != nil {
		return nil, err
	}
	by := map[string]int64{}
	for tp, at := range upto {
		by[tp.Topic] = at
	}
	return by, nil
}

// replayed is what the runs of dead letters have counted, by sink.
func (p *Pipeline) replayed(ctx context.Context) (map[string]batch.Counts, error) {
	cp, err := p.streamRecords(ctx, batch.StreamReplay)
	if err != nil {
		return nil, err
	}
	inc, err := newestOf(ctx, cp)
	if err != nil || inc == nil {
		return nil, err
	}
	return inc.Totals, nil
}

// newestEntry is the number of the newest log entry, -1 if there is none or it
// cannot be read: the audit says why.
func (p *Pipeline) newestEntry(ctx context.Context, cp *checkpoint.Checkpoint) (int64, error) {
	all, err := cp.AuditIncarnations(ctx)
	if err != nil || len(all) == 0 || all[len(all)-1].Value == nil {
		return -1, err
	}
	return cp.NewestEntry(ctx, *all[len(all)-1].Value)
}

// auditedTables loads the tables of the spec's sinks, whether or not they fit them.
func (p *Pipeline) auditedTables(ctx context.Context) ([]verify.Table, error) {
	var parts []string
	for _, name := range p.spec.Sinks.Names {
		if !p.Routes(name) {
			parts = append(parts, name)
			continue
		}
		chosen, err := p.chosen(ctx, name)
		if err != nil {
			return nil, err
		}
		for _, table := range chosen {
			parts = append(parts, batch.RouteName(name, table))
		}
	}
	return p.auditedParts(ctx, parts)
}

// chosen are the tables of a sink whose rows choose theirs: those that the checkpoint
// lists, and where dead letters may have been run again those that only a replay has
// made, which no list names.
func (p *Pipeline) chosen(ctx context.Context, name string) ([]string, error) {
	all, err := p.TablesOf(ctx, name)
	if err != nil || p.spec.DeadLetter == nil || p.spec.DeadLetter.Iceberg == nil {
		return all, err
	}
	r, err := p.Routed(ctx, name)
	if err != nil {
		return nil, err
	}
	found, err := r.Find(ctx)
	if err != nil {
		return nil, err
	}
	all = append(all, found...)
	slices.Sort(all)
	return slices.Compact(all), nil
}

// auditedAtOnce is how many tables are loaded at once.
const auditedAtOnce = 8

// auditedParts loads the tables of sinks, or of those whose rows choose their table
// single ones. A catalog that does not answer for one of them is not asked for the
// others: each answer that does not come takes a minute.
func (p *Pipeline) auditedParts(ctx context.Context, parts []string) ([]verify.Table, error) {
	tables := make([]verify.Table, len(parts))
	catalogs := map[string]*asked{}
	var group errgroup.Group
	group.SetLimit(auditedAtOnce)
	for n, part := range parts {
		name, table := batch.SplitRoute(part)
		i := p.spec.Sinks.By[name].Iceberg
		tables[n] = verify.Table{Sink: part, Name: cmp.Or(table, i.Table), Branch: i.Branch}
		of := catalogs[i.Catalog]
		if of == nil {
			of = &asked{catalog: i.Catalog}
			catalogs[i.Catalog] = of
			of.ask(part, func() error { // alone: all would try to open it, one after the other
				_, err := p.Catalog(ctx, i.Catalog)
				if missing(err) {
					return nil
				}
				return err
			})
		}
		group.Go(func() error {
			of.ask(part, func() error { return p.audited(ctx, i.Catalog, &tables[n]) })
			return nil
		})
	}
	err := group.Wait()
	for _, name := range slices.Sorted(maps.Keys(catalogs)) {
		err = errors.Join(err, catalogs[name].failed())
	}
	return tables, err
}

// asked is a catalog that tables are asked of.
type asked struct {
	catalog string
	mu      sync.Mutex
	err     error    // the first
	at      string   // the sink that it is of
	rest    []string // sinks whose tables were not loaded, then
}

// ask asks for the table of a sink, unless the catalog has failed.
func (a *asked) ask(sink string, load func() error) {
	a.mu.Lock()
	gone := a.err != nil
	a.mu.Unlock()
	var err error
	if !gone {
		err = load()
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	switch {
	case !gone && err == nil:
	case a.err == nil:
		a.err, a.at = err, sink
	case sink != a.at:
		a.rest = append(a.rest, sink)
	}
}

// failed says what happened, nil for nothing.
func (a *asked) failed() error {
	switch {
	case a.err == nil:
		return nil
	case len(a.rest) == 0:
		return fmt.Errorf("sink %s: %w", a.at, a.err)
	case errors.Is(a.err, batch.ErrUnavailable):
		slices.Sort(a.rest)
		return fmt.Errorf("sink %s: %w; catalog %s was not asked further, so the tables of these sinks are not checked either: %s", a.at, a.err, a.catalog, strings.Join(a.rest, ", "))
	}
	slices.Sort(a.rest)
	return fmt.Errorf("sink %s: %w; not checked either: sinks %s", a.at, a.err, strings.Join(a.rest, ", "))
}

// audited loads one of them.
func (p *Pipeline) audited(ctx context.Context, catalog string, one *verify.Table) error {
	t, err := p.loadNamed(ctx, catalog, one.Name)
	if err != nil || t == nil {
		return err
	}
	c, err := p.Catalog(ctx, catalog)
	if err != nil {
		return err
	}
	one.Metadata = t.Metadata()
	one.FS, err = t.FS(c.Context(ctx))
	return err
}

// auditedRecords reads the records of the newest incarnation and of those that the
// tables' live stamps name.
func (p *Pipeline) auditedRecords(ctx context.Context, cp *checkpoint.Checkpoint, tables []verify.Table) (*verify.Records, error) {
	r := &verify.Records{KeepBatches: p.spec.Maintenance.KeepBatches, Dropped: map[string]int{}}
	var err error
	if r.Incarnations, err = cp.AuditIncarnations(ctx); err != nil {
		return nil, err
	}
	for _, name := range p.spec.Sinks.Names {
		if p.Routes(name) {
			dropped, err := cp.Dropped(ctx, name)
			if err != nil {
				return nil, err
			}
			r.Dropped[name] = len(dropped)
		}
	}
	named := verify.Incarnations(tables)
	for i, f := range r.Incarnations {
		if f.Value == nil || i < len(r.Incarnations)-1 && !named[f.Value.ID] {
			continue
		}
		l := verify.Log{Incarnation: *f.Value}
		if l.Plans, err = cp.AuditLog(ctx, *f.Value); err != nil {
			return nil, err
		}
		if l.Commits, err = cp.AuditCommits(ctx, *f.Value); err != nil {
			return nil, err
		}
		r.Logs = append(r.Logs, l)
	}
	return r, nil
}
