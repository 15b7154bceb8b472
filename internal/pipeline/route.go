package pipeline

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/apache/arrow-go/v18/arrow"

	"github.com/frazil-io/frazil/internal/batch"
	"github.com/frazil-io/frazil/internal/driver"
	"github.com/frazil-io/frazil/internal/exec"
	"github.com/frazil-io/frazil/internal/sink"
)

// routeOptions are what a sink whose rows choose their table needs to know; ok is
// false for one that has a single table.
func (p *Pipeline) routeOptions(name string) (o sink.RouteOptions, ok bool) {
	t, ok := p.spec.Sinks.By[name].Iceberg.Template()
	one := p.sinkOptions(name)
	if p.Routes(name) { // a replay of dead letters makes the tables that its rows choose, too
		one.Create = *p.spec.Sinks.By[name].Iceberg.Create && !p.opts.ReadOnly
	}
	return sink.RouteOptions{Options: one, Sink: name, Namespace: t.Namespace, Texts: t.Texts, Columns: t.Columns}, ok
}

// routeRule is the rule that a row must have what chooses its table.
const routeRule = "chooses_table"

// routeRules make a record whose row can choose no table a dead letter, where there
// are some. Without it such a row stops the pipeline: sink.Routed refuses it.
func (p *Pipeline) routeRules(name string) []exec.Rule {
	o, many := p.routeOptions(name)
	if !many || p.spec.DeadLetter == nil || slices.Contains(p.spec.Sinks.By[name].Expect.Names, routeRule) {
		return nil
	}
	return []exec.Rule{{Name: routeRule, SQL: sink.RouteCondition(o), OnFail: exec.FailLetter}}
}

// Routes says whether a sink's rows choose their table.
func (p *Pipeline) Routes(name string) bool {
	_, ok := p.spec.Sinks.By[name].Iceberg.Template()
	return ok
}

// Routed returns the tables of a sink whose rows choose theirs.
func (p *Pipeline) Routed(ctx context.Context, name string) (*sink.Routed, error) {
	c, err := p.Catalog(ctx, p.spec.Sinks.By[name].Iceberg.Catalog)
	if err != nil {
		return nil, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if r := p.routed[name]; r != nil {
		return r, nil
	}
	o, _ := p.routeOptions(name)
	r, err := sink.NewRouted(ctx, c, o, p.exec.Schema(name), time.Now, p.log)
	if err != nil {
		return nil, fmt.Errorf("sink %s: %w", name, err)
	}
	p.routed[name] = r
	return r, nil
}

// routedBy are the tables of such a sink if they were opened, nil if not.
func (p *Pipeline) routedBy(name string) *sink.Routed {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.routed[name]
}

// TablesOf lists the tables of a sink whose rows choose theirs, as far as the
// checkpoint knows them.
func (p *Pipeline) TablesOf(ctx context.Context, name string) ([]string, error) {
	cp, err := p.Checkpoint(ctx)
	if err != nil {
		return nil, err
	}
	return cp.Tables(ctx, name)
}

// divided gives rows of a sink to each of its tables that they are for; part is the
// sink's name, or, of one whose rows choose their table, a batch.RouteName.
func (p *Pipeline) divided(ctx context.Context, name string, rows arrow.RecordBatch, each func(part string, rows arrow.RecordBatch) error) error {
	o, many := p.routeOptions(name)
	if !many {
		return each(name, rows)
	}
	return sink.Divide(ctx, o, rows, func(table string, rows arrow.RecordBatch) error { return each(batch.RouteName(name, table), rows) })
}

// partsOf are the tables that take part in a plan, of one sink.
func (p *Pipeline) partsOf(sp *batch.SinkPlan) (parts []string) {
	if !p.Routes(sp.Name) {
		return []string{sp.Name}
	}
	if sp.Route == nil {
		return nil
	}
	for _, t := range sp.Route.Tables {
		if !t.Has { // else it had the rows before the checkpoint was lost
			parts = append(parts, batch.RouteName(sp.Name, t.Table))
		}
	}
	return parts
}

// partTable opens the table of a part.
func (p *Pipeline) partTable(ctx context.Context, part string) (*sink.Table, error) {
	name, table := batch.SplitRoute(part)
	if table == "" {
		return p.Table(ctx, name)
	}
	r, err := p.Routed(ctx, name)
	if err != nil {
		return nil, err
	}
	return r.Table(ctx, table)
}

// standsRouted says how far a sink whose rows choose their table is on the way to
// some offsets. A table says nothing of records that were not for it, so the log
// does; whether its newest batch is done, its commit record, or all of its tables.
func (p *Pipeline) standsRouted(ctx context.Context, name string, inc *batch.Incarnation, newest *batch.Plan, commits []batch.Commit, until Until) (Waited, error) {
	w := Waited{Sink: name}
	var sp *batch.SinkPlan
	if newest != nil {
		sp = newest.Sink(name)
	}
	if sp != nil && sp.Active {
		all, err := p.everywhere(ctx, *inc, newest, sp)
		if err != nil {
			return w, err
		}
		if all {
			commits = []batch.Commit{{Batch: newest.Batch, Plan: newest.Hash()}}
		}
	}
	at, closed := reached(name, inc, newest, commits, nil)
	if sp != nil && sp.Lags && sp.From != nil { // no stamp of one of its tables says it
		at = sp.From
	}
	if !w.done(at, closed, until) || len(until) == 0 || newest == nil {
		return w, nil
	}
	w.State = fmt.Sprintf("accounted for, before batch %d: in the table that its row chose, or without a row", newest.Batch)
	if sp == nil || !sp.Active || sp.Route == nil {
		return w, nil
	}
	for _, r := range newest.Ranges {
		if to, ok := until[r.TopicPartition]; ok && to > r.Start && to <= r.End {
			w.Batch = &newest.Batch
			w.State = fmt.Sprintf("committed with batch %d to the table that its row chose, or without a row; that batch went to %s", newest.Batch, cmp.Or(strings.Join(sp.Route.Names(), ", "), "no table"))
		}
	}
	return w, nil
}

// everywhere says whether all tables that take part in a plan have its batch.
func (p *Pipeline) everywhere(ctx context.Context, inc batch.Incarnation, plan *batch.Plan, sp *batch.SinkPlan) (bool, error) {
	catalog, tag := p.spec.Sinks.By[sp.Name].Iceberg.Catalog, batch.Tag(p.spec.Name, batch.StreamMain)
	for _, part := range p.partsOf(sp) {
		_, table := batch.SplitRoute(part)
		t, err := p.loadNamed(ctx, catalog, table)
		if err != nil || t == nil {
			return false, err
		}
		tagged := t.Metadata().SnapshotByName(tag)
		if tagged == nil || tagged.Summary == nil {
			return false, nil
		}
		st, err := batch.ParseStamp(tagged.Summary.Properties)
		if err != nil || st == nil || !st.Of(inc, batch.StreamMain) || st.Last < plan.Batch {
			return false, err
		}
	}
	return true, nil
}

// routes are the tables of a sink whose rows choose theirs, as the driver sees
// them.
type routes struct{ *sink.Routed }

// Table implements driver.Tables. It is opened when it is used.
func (r routes) Table(name string) driver.Table { return lazy{r.Routed, name} }

// Writer implements driver.Tables.
func (r routes) Writer(ctx context.Context, attempt string, open func([]string) ([]string, error)) (driver.RoutedWriter, error) {
	return routedWriter{r.Routed.Writer(ctx, attempt, open)}, nil
}

type routedWriter struct{ *sink.RoutedWriter }

// Close implements driver.RoutedWriter.
func (w routedWriter) Close(ctx context.Context) (map[string]driver.Files, int64, error) {
	all, dropped, err := w.RoutedWriter.Close(ctx)
	files := make(map[string]driver.Files, len(all))
	for name, f := range all {
		files[name] = f
	}
	return files, dropped, err
}

// lazy is a table that is opened when it is used.
type lazy struct {
	routed *sink.Routed
	name   string
}

func (l lazy) open(ctx context.Context) (room, error) {
	t, err := l.routed.Table(ctx, l.name)
	return room{t}, err
}

// Load implements driver.Table.
func (l lazy) Load(ctx context.Context) (driver.View, error) {
	r, err := l.open(ctx)
	if err != nil {
		return nil, err
	}
	return r.Load(ctx)
}

// Writer implements driver.Table.
func (l lazy) Writer(ctx context.Context, attempt string) (driver.Writer, error) {
	r, err := l.open(ctx)
	if err != nil {
		return nil, err
	}
	return r.Writer(ctx, attempt)
}

// Sweep implements driver.Table.
func (l lazy) Sweep(ctx context.Context, attempt string) error {
	r, err := l.open(ctx)
	if err != nil {
		return err
	}
	return r.Sweep(ctx, attempt)
}

// Pin implements driver.Table.
func (l lazy) Pin(ctx context.Context, tag string, snapshot int64) error {
	r, err := l.open(ctx)
	if err != nil {
		return err
	}
	return r.Pin(ctx, tag, snapshot)
}

// Unpin implements driver.Table.
func (l lazy) Unpin(ctx context.Context, tag string) error {
	r, err := l.open(ctx)
	if err != nil {
		return err
	}
	return r.Unpin(ctx, tag)
}
