package pipeline

import (
	"context"

	"github.com/apache/arrow-go/v18/arrow"

	"github.com/frazil-io/frazil/internal/batch"
	"github.com/frazil-io/frazil/internal/driver"
	"github.com/frazil-io/frazil/internal/sink"
)

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
