package objstore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"testing"

	"github.com/frazil-io/frazil/internal/batch"
)

// testStore checks what every Store promises.
func testStore(t *testing.T, s Store) {
	ctx := t.Context()
	t.Run("create happens once", func(t *testing.T) {
		if err := s.Create(ctx, "a/b/1", []byte("one")); err != nil {
			t.Fatal(err)
		}
		if err := s.Create(ctx, "a/b/1", []byte("two")); !errors.Is(err, ErrExists) {
			t.Fatalf("the second create returned %v", err)
		}
		wantObject(t, s, "a/b/1", "one")
	})
	t.Run("put writes over", func(t *testing.T) {
		for _, text := range []string{"one", "two", ""} {
			if err := s.Put(ctx, "a/put", []byte(text)); err != nil {
				t.Fatal(err)
			}
			wantObject(t, s, "a/put", text)
		}
	})
	t.Run("get of nothing", func(t *testing.T) {
		for _, key := range []string{"a/none", "none/at/all"} {
			if _, err := s.Get(ctx, key); !errors.Is(err, ErrNotFound) {
				t.Errorf("get %s returned %v", key, err)
			}
		}
	})
	t.Run("delete may be repeated", func(t *testing.T) {
		for range 2 {
			if err := s.Delete(ctx, "a/put"); err != nil {
				t.Fatal(err)
			}
		}
		if err := s.Delete(ctx, "none/at/all"); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Get(ctx, "a/put"); !errors.Is(err, ErrNotFound) {
			t.Errorf("the object is still there: %v", err)
		}
		if err := s.Create(ctx, "a/put", nil); err != nil {
			t.Errorf("create after a delete: %v", err)
		}
	})
	t.Run("keys that lead elsewhere", func(t *testing.T) {
		for _, key := range []string{"", ".", "../x", "a/../../x", "/a", "a/", "a//b", "a/./b", "a/" + temporaryPrefix + "1"} {
			_, get := s.Get(ctx, key)
			for _, err := range []error{get, s.Create(ctx, key, nil), s.Put(ctx, key, nil), s.Delete(ctx, key)} {
				if !errors.Is(err, batch.ErrInvalid) {
					t.Errorf("key %q: %v", key, err)
				}
			}
		}
		if _, err := s.List(ctx, "../", ""); !errors.Is(err, batch.ErrInvalid) {
			t.Errorf("list: %v", err)
		}
	})
	t.Run("an object that is too large", func(t *testing.T) {
		if err := s.Create(ctx, "large", make([]byte, objectMax+1)); !errors.Is(err, batch.ErrInvalid) {
			t.Errorf("create returned %v", err)
		}
	})
	t.Run("a cancelled call", func(t *testing.T) {
		cause := errors.New("because")
		cancelled, cancel := context.WithCancelCause(ctx)
		cancel(cause)
		_, get := s.Get(cancelled, "a/b/1")
		_, list := s.List(cancelled, "a/", "")
		for _, err := range []error{get, list, s.Create(cancelled, "a/c", nil), s.Put(cancelled, "a/c", nil), s.Delete(cancelled, "a/b/1")} {
			if !errors.Is(err, cause) || !errors.Is(err, batch.ErrUnavailable) {
				t.Errorf("returned %v", err)
			}
		}
		wantObject(t, s, "a/b/1", "one")
	})
	t.Run("listing", func(t *testing.T) { testList(t, s) })
	t.Run("creators at once", func(t *testing.T) { testRace(t, s) })
}

func testList(t *testing.T, s Store) {
	ctx := t.Context()
	for _, key := range []string{"l/x/3", "l/x/1", "l/x/2", "l/x-y/1", "l/xx", "l/x/deep/er"} {
		if err := s.Put(ctx, key, []byte(key)); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		prefix, after string
		want          []string
	}{
		{"l/", "", []string{"l/x-y/1", "l/x/1", "l/x/2", "l/x/3", "l/x/deep/er", "l/xx"}},
		{"l/x/", "", []string{"l/x/1", "l/x/2", "l/x/3", "l/x/deep/er"}},
		{"l/x/", "l/x/1", []string{"l/x/2", "l/x/3", "l/x/deep/er"}},
		{"l/x/", "l/x/15", []string{"l/x/2", "l/x/3", "l/x/deep/er"}},
		{"l/x/", "l/x/3", []string{"l/x/deep/er"}},
		{"l/x/", "l/y", nil},
		{"l/x", "l/x/9", []string{"l/x/deep/er", "l/xx"}},
		{"l/x/d", "", []string{"l/x/deep/er"}},
		{"none/", "", nil},
	} {
		got, err := s.List(ctx, c.prefix, c.after)
		if err != nil || !slices.Equal(got, c.want) {
			t.Errorf("list %q after %q: %v, %v; want %v", c.prefix, c.after, got, err, c.want)
		}
	}
	if all, err := s.List(ctx, "", ""); err != nil || !slices.Contains(all, "a/b/1") || !slices.Contains(all, "l/xx") {
		t.Errorf("list of everything: %v, %v", all, err)
	}
}

// testRace has several writers create the same keys: each key has one winner,
// and holds what that one wrote, whole.
func testRace(t *testing.T, s Store) {
	const writers, keys, size = 8, 10, 10_000
	var wins [writers][keys]bool
	var all sync.WaitGroup
	for w := range writers {
		all.Go(func() {
			for k := range keys {
				err := s.Create(t.Context(), fmt.Sprintf("race/%02d", k), bytes.Repeat([]byte{byte('a' + w)}, size))
				if wins[w][k] = err == nil; err != nil && !errors.Is(err, ErrExists) && !errors.Is(err, batch.ErrUnavailable) {
					t.Errorf("writer %d, key %d: %v", w, k, err)
				}
			}
		})
	}
	all.Wait()
	for k := range keys {
		winners := 0
		data, err := s.Get(t.Context(), fmt.Sprintf("race/%02d", k))
		if err != nil {
			t.Fatal(err)
		}
		for w := range writers {
			if wins[w][k] {
				winners++
				if want := bytes.Repeat([]byte{byte('a' + w)}, size); !bytes.Equal(data, want) {
					t.Errorf("key %d: writer %d won, but %.10q… is there", k, w, data)
				}
			}
		}
		if winners != 1 {
			t.Errorf("key %d was created %d times", k, winners)
		}
	}
}

func wantObject(t *testing.T, s Store, key, want string) {
	t.Helper()
	if got, err := s.Get(t.Context(), key); err != nil || string(got) != want {
		t.Errorf("%s holds %q, %v; want %q", key, got, err, want)
	}
}

func TestOpen(t *testing.T) {
	t.Chdir(t.TempDir())
	t.Setenv("AWS_CONFIG_FILE", "none")
	t.Setenv("AWS_SHARED_CREDENTIALS_FILE", "none")
	props := map[string]string{propRegion: "eu-central-1"}
	for _, c := range []struct {
		location string
		want     string // type and place; "": invalid
	}{
		{"dir", "dir"},
		{"./dir/below", "dir/below"},
		{"file:///tmp/some%20where", "/tmp/some where"},
		{"file://localhost/tmp/x", "/tmp/x"},
		{"s3://bucket", "bucket:"},
		{"s3://bucket/a/b/", "bucket:a/b"},
		{"s3a://bucket/a", "bucket:a"},
		{"", ""},
		{"file://host/x", ""},
		{"file://", ""},
		{"s3://", ""},
		{"s3:///a", ""},
		{"s3://bucket/a//b", ""},
		{"s3://bucket/a/../b", ""},
		{"s3://key:TOPSECRET@bucket/a", ""},
		{"s3://bucket/a?secret=TOPSECRET", ""},
		{"s3://buck et/%zz-TOPSECRET", ""},
		{"gs://bucket/a", ""},
	} {
		s, err := Open(t.Context(), c.location, props)
		var got string
		switch s := s.(type) {
		case *Dir:
			got = s.root
			if want := absolute(t, c.want); c.want != "" && got == want {
				got = c.want
			}
		case *Bucket:
			got = s.bucket + ":" + s.prefix
		}
		if got != c.want || (c.want == "") != errors.Is(err, batch.ErrInvalid) {
			t.Errorf("%q: opened %q, %v; want %q", c.location, got, err, c.want)
		}
		if err != nil && bytes.Contains([]byte(err.Error()), []byte("TOPSECRET")) {
			t.Errorf("%q: the error tells the secret: %v", c.location, err)
		}
	}
	if left, err := os.ReadDir("."); err != nil || len(left) > 0 {
		t.Errorf("opening wrote %v, %v", left, err)
	}
}
