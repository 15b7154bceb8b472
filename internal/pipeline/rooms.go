package pipeline

import (
	"context"
	"errors"
	"os"
	"syscall"
	"time"

	"github.com/frazil-io/frazil/internal/batch"
	"github.com/frazil-io/frazil/internal/driver"
	"github.com/frazil-io/frazil/internal/sink"
)

// room is a sink's table as the driver sees it: the same methods with the
// driver's types.
type room struct{ *sink.Table }

// Load implements driver.Table.
func (r room) Load(ctx context.Context) (driver.View, error) {
	v, err := r.Table.Load(ctx)
	if err != nil {
		return nil, err
	}
	return view{v, r.Table}, nil
}

// Writer implements driver.Table.
func (r room) Writer(ctx context.Context, attempt string) (driver.Writer, error) {
	w, err := r.Table.Writer(ctx, attempt)
	if err != nil {
		return nil, err
	}
	return writer{w}, nil
}

type writer struct{ *sink.Writer }

// Close implements driver.Writer.
func (w writer) Close(ctx context.Context) (driver.Files, error) {
	f, err := w.Writer.Close(ctx)
	if err != nil {
		return nil, err
	}
	return f, nil
}

type view struct {
	*sink.View
	table *sink.Table
}

// Fits implements driver.View.
func (v view) Fits(files driver.Files) bool {
	f, _ := files.(*sink.Files)
	return v.View.Fits(f)
}

// Commit implements driver.View. What expired an hour ago is deleted behind it.
func (v view) Commit(ctx context.Context, stamp *batch.Stamp, files driver.Files) (int64, error) {
	f, _ := files.(*sink.Files) // none for an anchor
	id, err := v.View.Commit(ctx, stamp, f)
	if err == nil {
		v.table.Maintain(ctx)
	}
	return id, err
}

// Stage implements driver.View.
func (v view) Stage(ctx context.Context, stamp *batch.Stamp, files driver.Files) (int64, error) {
	f, _ := files.(*sink.Files)
	return v.View.Stage(ctx, stamp, f)
}

// Staged implements driver.View.
func (v view) Staged(ctx context.Context) (int64, *batch.Stamp, driver.Files, error) {
	id, stamp, files, err := v.View.Staged(ctx)
	if files == nil {
		return id, stamp, nil, err
	}
	return id, stamp, files, err
}

// alive says whether a process of this host runs. In a container every process
// has number 1: then it is this one, and the one before it is gone.
func alive(w batch.Writer) bool {
	if w.PID == os.Getpid() {
		return false
	}
	err := syscall.Kill(w.PID, 0)
	return err == nil || errors.Is(err, syscall.EPERM)
}

// retryEvery is the pause between tries while a server starts.
const retryEvery = 500 * time.Millisecond

// patient repeats what is unavailable for startTimeout, or until stop ends.
func patient[T any](stop context.Context, open func() (T, error)) (T, error) {
	clock := driver.WallClock{}
	begun := clock.Now()
	for {
		v, err := open()
		if !errors.Is(err, batch.ErrUnavailable) || clock.Now().Sub(begun) >= startTimeout {
			return v, err
		}
		if err := clock.Sleep(stop, retryEvery); err != nil {
			return v, err
		}
	}
}
