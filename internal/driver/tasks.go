package driver

import (
	"context"
	"sync/atomic"
)

// Tasks starts work beside the driver: goroutines, or a simulation's coroutines.
type Tasks interface {
	// Go runs f and returns a function that waits for its end.
	Go(f func()) (wait func())
	// After runs f when ctx has ended, unless cancel is called before.
	After(ctx context.Context, f func()) (cancel func() bool)
}

// task is work that was started.
type task struct {
	done atomic.Bool
	wait func()
}

// Goroutines is Tasks as every program wants them.
type Goroutines struct{}

// Go runs f in a goroutine.
func (Goroutines) Go(f func()) (wait func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		f()
	}()
	return func() { <-done }
}

// After implements Tasks.
func (Goroutines) After(ctx context.Context, f func()) (cancel func() bool) {
	return context.AfterFunc(ctx, f)
}
