package faultstore_test

import (
	"context"
	"errors"
	"slices"
	"testing"

	"github.com/frazil-io/frazil/internal/batch"
	"github.com/frazil-io/frazil/internal/objstore"
	"github.com/frazil-io/frazil/internal/objstore/faultstore"
)

func newStore(t *testing.T) (*faultstore.Store, objstore.Store) {
	t.Helper()
	inner := faultstore.NewMemory()
	return faultstore.New(inner), inner
}

func want(t *testing.T, s objstore.Store, key, text string) {
	t.Helper()
	switch data, err := s.Get(t.Context(), key); {
	case text == "" && !errors.Is(err, objstore.ErrNotFound):
		t.Errorf("%s holds %q, %v; want nothing", key, data, err)
	case text != "" && (err != nil || string(data) != text):
		t.Errorf("%s holds %q, %v; want %q", key, data, err, text)
	}
}

func TestFaultsOfWrites(t *testing.T) {
	for _, c := range []struct {
		fault faultstore.Fault
		err   error
		there string
	}{
		{faultstore.None, nil, "text"},
		{faultstore.Before, batch.ErrUnavailable, ""},
		{faultstore.After, batch.ErrUnavailable, "text"},
		{faultstore.Late, batch.ErrUnavailable, ""},
		{faultstore.Half, batch.ErrUnavailable, "te"},
		{faultstore.Denied, batch.ErrInvalid, ""},
	} {
		s, inner := newStore(t)
		for op, write := range map[faultstore.Op]func(context.Context, string, []byte) error{faultstore.Create: s.Create, faultstore.Put: s.Put} {
			key := "a/" + string(op)
			s.On(op, "a/", c.fault)
			if err := write(t.Context(), key, []byte("text")); !errors.Is(err, c.err) {
				t.Errorf("%s with fault %d returned %v", op, c.fault, err)
			}
			want(t, inner, key, c.there)
			if err := write(t.Context(), key+"2", []byte("text")); err != nil {
				t.Errorf("the %s after fault %d returned %v", op, c.fault, err)
			}
		}
	}
}

func TestFaultsMeetTheirKeysInOrder(t *testing.T) {
	s, _ := newStore(t)
	s.On(faultstore.Get, "a/", faultstore.None, faultstore.Before)
	s.On(faultstore.Get, "a/1", faultstore.Before)
	var unavailable []bool
	for _, key := range []string{"b", "a/1", "a/2", "a/1", "a/1"} {
		_, err := s.Get(t.Context(), key)
		unavailable = append(unavailable, errors.Is(err, batch.ErrUnavailable))
	}
	if want := []bool{false, false, true, true, false}; !slices.Equal(unavailable, want) || s.Pending() != 0 {
		t.Errorf("unavailable: %v, want %v; %d pending", unavailable, want, s.Pending())
	}
	calls := s.Calls()
	if len(calls) != 5 || calls[2].String() != "get a/2" || len(s.Calls()) != 0 {
		t.Errorf("calls: %v", calls)
	}
}

// A late create lands after another writer's, and comes to nothing.
func TestLateWritesLandInOrder(t *testing.T) {
	s, inner := newStore(t)
	s.On(faultstore.Create, "", faultstore.Late, faultstore.Late)
	data := []byte("late")
	_ = s.Create(t.Context(), "a", data)
	_ = s.Create(t.Context(), "b", data)
	copy(data, "lost")
	if err := s.Create(t.Context(), "a", []byte("other")); err != nil {
		t.Fatal(err)
	}
	landed := s.Land()
	if len(landed) != 2 || !errors.Is(landed[0], objstore.ErrExists) || landed[1] != nil {
		t.Errorf("landed: %v", landed)
	}
	want(t, inner, "a", "other")
	want(t, inner, "b", "late")
	if again := s.Land(); len(again) > 0 {
		t.Errorf("landed twice: %v", again)
	}
}

func TestStaleListing(t *testing.T) {
	s, _ := newStore(t)
	s.On(faultstore.List, "", faultstore.Stale, faultstore.None, faultstore.Stale)
	var seen [][]string
	for i := range 3 {
		for _, key := range []string{"a/0", "a/1", "a/2", "b/1"} {
			if err := s.Put(t.Context(), key, nil); err != nil {
				t.Fatal(err)
			}
		}
		keys, err := s.List(t.Context(), "a/", "a/0")
		if err != nil {
			t.Fatal(err)
		}
		seen = append(seen, keys)
		if i == 0 {
			if err := errors.Join(s.Delete(t.Context(), "a/2"), s.Mark(t.Context())); err != nil {
				t.Fatal(err)
			}
		}
	}
	for i, want := range [][]string{nil, {"a/1", "a/2"}, {"a/1"}} {
		if !slices.Equal(seen[i], want) {
			t.Errorf("listing %d: %v, want %v", i, seen[i], want)
		}
	}
}

func TestHeldCalls(t *testing.T) {
	s, inner := newStore(t)
	s.On(faultstore.Put, "", faultstore.Held, faultstore.Held)
	done := make(chan error, 2)
	cancelled, cancel := context.WithCancelCause(t.Context())
	go func() { done <- s.Put(t.Context(), "a", []byte("text")) }()
	if err := s.AwaitHeld(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	go func() { done <- s.Put(cancelled, "b", []byte("text")) }()
	if err := s.AwaitHeld(t.Context(), 2); err != nil {
		t.Fatal(err)
	}
	want(t, inner, "a", "")
	cause := errors.New("because")
	cancel(cause)
	if err := <-done; !errors.Is(err, cause) || !errors.Is(err, batch.ErrUnavailable) {
		t.Errorf("the cancelled call returned %v", err)
	}
	s.Release()
	if err := <-done; err != nil {
		t.Errorf("the released call returned %v", err)
	}
	want(t, inner, "a", "text")
	want(t, inner, "b", "")
	if err := s.AwaitHeld(cancelled, 1); !errors.Is(err, cause) {
		t.Errorf("waiting for a call that does not come returned %v", err)
	}
}
