package spectest

import (
	"context"
	"errors"
	"sync/atomic"

	"github.com/apache/arrow-go/v18/arrow"

	"github.com/frazil-io/frazil/internal/batch"
	"github.com/frazil-io/frazil/internal/driver"
)

// errCrashed is what every call meets after the crash.
var errCrashed = errors.New("crashed")

// crasher counts the moments before and behind each call of the driver, and is
// gone at one of them: from then on nothing that the process does has an effect.
type crasher struct {
	steps  atomic.Int64
	at     int64 // 0: never
	cancel context.CancelFunc
}

// step is one moment.
func (c *crasher) step() error {
	if n := c.steps.Add(1); c.at > 0 && n >= c.at {
		c.cancel()
		return errCrashed
	}
	return nil
}

func (c *crasher) crashed() bool { return c.at > 0 && c.steps.Load() >= c.at }

// do makes a call between two moments. One that fell on the moment behind it has
// had its effect, and nobody learned of it.
func (c *crasher) do(call func() error) error {
	if err := c.step(); err != nil {
		return err
	}
	if err := call(); err != nil {
		return err
	}
	return c.step()
}

// rooms stands between the driver and its rooms.
func (c *crasher) rooms(r driver.Rooms) driver.Rooms {
	r.Source = crashingSource{r.Source, c}
	r.Executor = crashingExecutor{r.Executor, c}
	r.Checkpoint = crashingCheckpoint{r.Checkpoint, c}
	for i := range r.Sinks {
		r.Sinks[i].Table = crashingTable{r.Sinks[i].Table, c}
	}
	return r
}

type crashingSource struct {
	driver.Source
	c *crasher
}

// Read implements driver.Source.
func (s crashingSource) Read(ctx context.Context, ranges []batch.Range, emit, letters func(arrow.RecordBatch) error) (t batch.Tally, err error) {
	err = s.c.do(func() error {
		t, err = s.Source.Read(ctx, ranges, func(rows arrow.RecordBatch) error {
			if err := s.c.step(); err != nil {
				return err
			}
			return emit(rows)
		}, letters)
		return err
	})
	return t, err
}

type crashingExecutor struct {
	driver.Executor
	c *crasher
}

// Execute implements driver.Executor.
func (e crashingExecutor) Execute(ctx context.Context, job batch.Job, read func(emit, letters func(arrow.RecordBatch) error) error, write func(string, arrow.RecordBatch) error) (r map[string]batch.Result, err error) {
	err = e.c.do(func() error { r, err = e.Executor.Execute(ctx, job, read, write); return err })
	return r, err
}

type crashingCheckpoint struct {
	driver.Checkpoint
	c *crasher
}

// CreateIncarnation implements driver.Checkpoint.
func (p crashingCheckpoint) CreateIncarnation(ctx context.Context, i batch.Incarnation) error {
	return p.c.do(func() error { return p.Checkpoint.CreateIncarnation(ctx, i) })
}

// Append implements driver.Checkpoint.
func (p crashingCheckpoint) Append(ctx context.Context, plan *batch.Plan) error {
	return p.c.do(func() error { return p.Checkpoint.Append(ctx, plan) })
}

// Record implements driver.Checkpoint.
func (p crashingCheckpoint) Record(ctx context.Context, i batch.Incarnation, c batch.Commit) error {
	return p.c.do(func() error { return p.Checkpoint.Record(ctx, i, c) })
}

// Purge implements driver.Checkpoint.
func (p crashingCheckpoint) Purge(ctx context.Context, i batch.Incarnation, keep batch.ID) error {
	return p.c.do(func() error { return p.Checkpoint.Purge(ctx, i, keep) })
}

// Register implements driver.Checkpoint.
func (p crashingCheckpoint) Register(ctx context.Context, a batch.Attempt) error {
	return p.c.do(func() error { return p.Checkpoint.Register(ctx, a) })
}

// Forget implements driver.Checkpoint.
func (p crashingCheckpoint) Forget(ctx context.Context, attempt string) error {
	return p.c.do(func() error { return p.Checkpoint.Forget(ctx, attempt) })
}

// Release implements driver.Checkpoint.
func (p crashingCheckpoint) Release(ctx context.Context, w batch.Writer) error {
	return p.c.do(func() error { return p.Checkpoint.Release(ctx, w) })
}

type crashingTable struct {
	driver.Table
	c *crasher
}

// Load implements driver.Table.
func (t crashingTable) Load(ctx context.Context) (v driver.View, err error) {
	err = t.c.do(func() error { v, err = t.Table.Load(ctx); return err })
	return crashingView{v, t.c}, err
}

// Writer implements driver.Table.
func (t crashingTable) Writer(ctx context.Context, attempt string) (w driver.Writer, err error) {
	err = t.c.do(func() error { w, err = t.Table.Writer(ctx, attempt); return err })
	return crashingWriter{w, t.c}, err
}

// Sweep implements driver.Table.
func (t crashingTable) Sweep(ctx context.Context, attempt string) error {
	return t.c.do(func() error { return t.Table.Sweep(ctx, attempt) })
}

type crashingWriter struct {
	driver.Writer
	c *crasher
}

// Write implements driver.Writer.
func (w crashingWriter) Write(rows arrow.RecordBatch) error {
	return w.c.do(func() error { return w.Writer.Write(rows) })
}

// Close implements driver.Writer.
func (w crashingWriter) Close(ctx context.Context) (f driver.Files, err error) {
	err = w.c.do(func() error { f, err = w.Writer.Close(ctx); return err })
	return f, err
}

// Abort implements driver.Writer. A process that is gone cleans up nothing.
func (w crashingWriter) Abort() {
	if !w.c.crashed() {
		w.Writer.Abort()
	}
}

type crashingView struct {
	driver.View
	c *crasher
}

// Commit implements driver.View.
func (v crashingView) Commit(ctx context.Context, stamp *batch.Stamp, files driver.Files) (id int64, err error) {
	err = v.c.do(func() error { id, err = v.View.Commit(ctx, stamp, files); return err })
	return id, err
}

// Stage implements driver.View.
func (v crashingView) Stage(ctx context.Context, stamp *batch.Stamp, files driver.Files) (id int64, err error) {
	err = v.c.do(func() error { id, err = v.View.Stage(ctx, stamp, files); return err })
	return id, err
}
