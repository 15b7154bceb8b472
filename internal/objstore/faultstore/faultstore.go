// Package faultstore is an object store that fails on request, for tests of
// whoever uses one. What goes wrong is said beforehand for each operation and
// key, so a test that fails does so every time.
package faultstore

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/frazil-io/frazil/internal/batch"
	"github.com/frazil-io/frazil/internal/objstore"
)

// Op is an operation of a store.
type Op string

// The operations. A listing's key is its prefix.
const (
	Create Op = "create"
	Put    Op = "put"
	Get    Op = "get"
	List   Op = "list"
	Delete Op = "delete"
)

// Fault is what happens to one call.
type Fault int

// The faults.
const (
	// None: the call goes through.
	None Fault = iota
	// Before: the call fails with batch.ErrUnavailable and does nothing.
	Before
	// After: the call is applied, but fails with batch.ErrUnavailable: its
	// answer is lost.
	After
	// Late: the call fails with batch.ErrUnavailable, and is applied when the
	// test calls Land.
	Late
	// Held: the call waits until the test calls Release, or its context ends.
	Held
	// Half: a write stores the first half of the object and fails with
	// batch.ErrUnavailable, as no store that keeps its promises does.
	Half
	// Stale: a listing shows what was there at the last Mark, or nothing
	// before the first one.
	Stale
	// Denied: the call fails with batch.ErrInvalid and does nothing.
	Denied
)

// Call is a call that was made.
type Call struct {
	Op  Op
	Key string
}

func (c Call) String() string { return string(c.Op) + " " + c.Key }

// Store is an objstore.Store over another one. It may be used by several
// goroutines.
type Store struct {
	inner objstore.Store

	mu      sync.Mutex
	planned []plan
	calls   []Call
	late    []func() error
	held    chan struct{}
	waiting int
	changed chan struct{} // closed when waiting changes
	marked  []string
}

type plan struct {
	op     Op
	prefix string
	faults []Fault
}

var _ objstore.Store = (*Store)(nil)

// New returns a store that passes everything on to inner.
func New(inner objstore.Store) *Store {
	return &Store{inner: inner, held: make(chan struct{}), changed: make(chan struct{})}
}

// On says what happens to the next calls of an operation on keys that begin with
// prefix, one fault for each call. Later calls go through. Of several that
// match, the first one that is not used up applies.
func (s *Store) On(op Op, prefix string, faults ...Fault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.planned = append(s.planned, plan{op, prefix, faults})
}

// Calls returns the calls since the last time it was asked.
func (s *Store) Calls() []Call {
	s.mu.Lock()
	defer s.mu.Unlock()
	calls := s.calls
	s.calls = nil
	return calls
}

// Pending returns the number of planned faults that no call has met yet.
func (s *Store) Pending() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for _, p := range s.planned {
		n += len(p.faults)
	}
	return n
}

// Land applies the late calls in their order, and returns what each one came to.
func (s *Store) Land() []error {
	s.mu.Lock()
	late := s.late
	s.late = nil
	s.mu.Unlock()
	var all []error
	for _, apply := range late {
		all = append(all, apply())
	}
	return all
}

// Mark remembers the keys that are there now for stale listings.
func (s *Store) Mark(ctx context.Context) error {
	keys, err := s.inner.List(ctx, "", "")
	s.mu.Lock()
	defer s.mu.Unlock()
	s.marked = keys
	return err
}

// AwaitHeld returns when n calls are held, or with the context's cause.
func (s *Store) AwaitHeld(ctx context.Context, n int) error {
	for {
		s.mu.Lock()
		waiting, changed := s.waiting, s.changed
		s.mu.Unlock()
		if waiting >= n {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// Release lets every held call go on.
func (s *Store) Release() {
	s.mu.Lock()
	defer s.mu.Unlock()
	close(s.held)
	s.held = make(chan struct{})
}

// Create implements objstore.Store.
func (s *Store) Create(ctx context.Context, key string, data []byte) error {
	return s.write(ctx, Create, key, data, s.inner.Create)
}

// Put implements objstore.Store.
func (s *Store) Put(ctx context.Context, key string, data []byte) error {
	return s.write(ctx, Put, key, data, s.inner.Put)
}

// Get implements objstore.Store.
func (s *Store) Get(ctx context.Context, key string) (data []byte, err error) {
	_, err = s.call(ctx, Get, key, func(ctx context.Context) (err error) {
		data, err = s.inner.Get(ctx, key)
		return err
	})
	if err != nil {
		return nil, err
	}
	return data, nil
}

// List implements objstore.Store.
func (s *Store) List(ctx context.Context, prefix, after string) (keys []string, err error) {
	fault, err := s.call(ctx, List, prefix, func(ctx context.Context) (err error) {
		keys, err = s.inner.List(ctx, prefix, after)
		return err
	})
	if err != nil {
		return nil, err
	}
	if fault == Stale {
		s.mu.Lock()
		defer s.mu.Unlock()
		keys = slices.DeleteFunc(slices.Clone(s.marked), func(k string) bool { return !strings.HasPrefix(k, prefix) || k <= after })
	}
	return keys, nil
}

// Delete implements objstore.Store.
func (s *Store) Delete(ctx context.Context, key string) error {
	_, err := s.call(ctx, Delete, key, func(ctx context.Context) error { return s.inner.Delete(ctx, key) })
	return err
}

func (s *Store) write(ctx context.Context, op Op, key string, data []byte, to func(context.Context, string, []byte) error) error {
	data = slices.Clone(data) // a late write must not see what the caller does next
	fault, err := s.call(ctx, op, key, func(ctx context.Context) error { return to(ctx, key, data) })
	if fault == Half {
		if put := s.inner.Put(ctx, key, data[:len(data)/2]); put != nil {
			return put
		}
	}
	return err
}

// call meets the next planned fault, and applies the call where that says so.
func (s *Store) call(ctx context.Context, op Op, key string, apply func(context.Context) error) (Fault, error) {
	s.mu.Lock()
	s.calls = append(s.calls, Call{op, key})
	fault, held := s.next(op, key), s.held
	if fault == Late {
		s.late = append(s.late, func() error { return apply(context.WithoutCancel(ctx)) })
	}
	s.mu.Unlock()
	lost := fmt.Errorf("%s %s: %w: planned", op, key, batch.ErrUnavailable)
	switch fault {
	case None, Stale:
	case Before, Late, Half:
		return fault, lost
	case Denied:
		return fault, fmt.Errorf("%w: %s %s: planned", batch.ErrInvalid, op, key)
	case After:
		_ = apply(ctx) // nobody hears of it
		return fault, lost
	case Held:
		if err := s.hold(ctx, held); err != nil {
			return fault, fmt.Errorf("%s %s: %w: %w", op, key, batch.ErrUnavailable, err)
		}
	}
	return fault, apply(ctx)
}

func (s *Store) next(op Op, key string) Fault {
	for i := range s.planned {
		p := &s.planned[i]
		if p.op == op && strings.HasPrefix(key, p.prefix) && len(p.faults) > 0 {
			fault := p.faults[0]
			p.faults = p.faults[1:]
			return fault
		}
	}
	return None
}

func (s *Store) hold(ctx context.Context, held <-chan struct{}) error {
	s.count(1)
	defer s.count(-1)
	select {
	case <-held:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (s *Store) count(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.waiting += n
	close(s.changed)
	s.changed = make(chan struct{})
}
