package pipeline

import (
	"context"

	"github.com/frazil-io/frazil/internal/driver"
	"github.com/frazil-io/frazil/internal/sink"
)

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
