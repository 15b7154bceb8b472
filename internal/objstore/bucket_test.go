package objstore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/johannesboyne/gofakes3"
	"github.com/johannesboyne/gofakes3/backend/s3mem"

	"github.com/frazil-io/frazil/internal/batch"
)

// fakeS3 is an S3 server in this process, with a hand on the wire.
type fakeS3 struct {
	url  string
	real http.Handler

	mu   sync.Mutex
	seen []string // method and path of each request
	// meet may answer a request itself, by returning true.
	meet func(http.ResponseWriter, *http.Request) bool
}

func newFakeS3(t *testing.T) *fakeS3 {
	t.Helper()
	backend := s3mem.New()
	if err := backend.CreateBucket("bucket"); err != nil {
		t.Fatal(err)
	}
	f := &fakeS3{real: gofakes3.New(backend, gofakes3.WithLogger(gofakes3.DiscardLog())).Server()}
	server := httptest.NewServer(f)
	t.Cleanup(server.Close)
	f.url = server.URL
	return f
}

func (f *fakeS3) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	f.seen = append(f.seen, r.Method+" "+r.URL.Path)
	meet := f.meet
	f.mu.Unlock()
	if meet == nil || !meet(w, r) {
		f.real.ServeHTTP(w, r)
	}
}

func (f *fakeS3) intercept(meet func(http.ResponseWriter, *http.Request) bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.meet = meet
}

// requests returns what came since the last time.
func (f *fakeS3) requests() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	seen := f.seen
	f.seen = nil
	return seen
}

func (f *fakeS3) properties() map[string]string {
	return map[string]string{propEndpoint: f.url, propRegion: "us-east-1", propKeyID: "key", propSecret: "TOPSECRET"}
}

func (f *fakeS3) open(t *testing.T, prefix string) *Bucket {
	t.Helper()
	b, err := OpenBucket(t.Context(), "bucket", prefix, f.properties())
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// impatient lets the SDK try the same request at once, twice in all.
func impatient(b *Bucket) *Bucket {
	b.client = s3.New(b.client.Options(), func(o *s3.Options) {
		o.Retryer = retry.NewStandard(func(o *retry.StandardOptions) { o.MaxAttempts, o.MaxBackoff = 2, time.Millisecond })
	})
	return b
}

// refuse writes an error as S3 does.
func refuse(w http.ResponseWriter, status int, code string) {
	w.Header().Set("Content-Type", "application/xml")
	w.WriteHeader(status)
	fmt.Fprintf(w, "<Error><Code>%s</Code><Message>planned</Message></Error>", code)
}

func TestBucketKeepsThePromises(t *testing.T) {
	for _, prefix := range []string{"", "some/where"} {
		t.Run(prefix, func(t *testing.T) { testStore(t, newFakeS3(t).open(t, prefix)) })
	}
}

// Two prefixes of one bucket are two stores.
func TestBucketStaysBelowItsPrefix(t *testing.T) {
	f := newFakeS3(t)
	a, ab := f.open(t, "a"), f.open(t, "a/b")
	if err := ab.Put(t.Context(), "x", []byte("text")); err != nil {
		t.Fatal(err)
	}
	wantObject(t, a, "b/x", "text")
	if keys, err := f.open(t, "other").List(t.Context(), "", ""); err != nil || len(keys) > 0 {
		t.Errorf("the other prefix shows %v, %v", keys, err)
	}
}

func TestBucketListsInPages(t *testing.T) {
	f := newFakeS3(t)
	b := f.open(t, "p")
	var want []string
	for i := range 25 {
		want = append(want, fmt.Sprintf("l/%03d", i))
		if err := b.Put(t.Context(), want[i], nil); err != nil {
			t.Fatal(err)
		}
	}
	b.page = 10
	f.requests()
	for after, pages := range map[int]int{-1: 3, 9: 2, 22: 1, 24: 1} {
		marker := ""
		if after >= 0 {
			marker = want[after]
		}
		got, err := b.List(t.Context(), "l/", marker)
		if err != nil || !slices.Equal(got, want[after+1:]) {
			t.Errorf("after %q: %v, %v", marker, got, err)
		}
		if n := len(f.requests()); n != pages {
			t.Errorf("after %q: %d requests, want %d", marker, n, pages)
		}
	}
}

// A store that ignores start-after returns too much; List does not.
func TestBucketListsWithoutStartAfter(t *testing.T) {
	f := newFakeS3(t)
	b := f.open(t, "")
	for _, key := range []string{"l/1", "l/2", "l/3"} {
		if err := b.Put(t.Context(), key, nil); err != nil {
			t.Fatal(err)
		}
	}
	f.intercept(func(_ http.ResponseWriter, r *http.Request) bool {
		q := r.URL.Query()
		q.Del("start-after")
		r.URL.RawQuery = q.Encode()
		return false
	})
	if got, err := b.List(t.Context(), "l/", "l/2"); err != nil || !slices.Equal(got, []string{"l/3"}) {
		t.Errorf("listed %v, %v", got, err)
	}
}

func TestBucketProvesConditionalWrites(t *testing.T) {
	f := newFakeS3(t)
	first := f.open(t, "p")
	if seen := f.requests(); len(seen) > 0 {
		t.Errorf("opening sent %v", seen)
	}
	probe, object := "PUT /bucket/p/"+probeKey, "PUT /bucket/p/"
	steps := []struct {
		by   *Bucket
		key  string
		want []string
	}{
		{first, "1", []string{probe, probe, object + "1"}}, // the first start of all
		{first, "2", []string{object + "2"}},
		{f.open(t, "p"), "3", []string{probe, object + "3"}}, // the next process
	}
	for _, s := range steps {
		if err := s.by.Create(t.Context(), s.key, nil); err != nil {
			t.Fatal(err)
		}
		if seen := f.requests(); !slices.Equal(seen, s.want) {
			t.Errorf("create %s sent %v, want %v", s.key, seen, s.want)
		}
	}
}

// No object is created in a store that ignores the condition, or does not know
// it, not even when the store once knew it.
func TestBucketRefusesStoresWithoutConditionalWrites(t *testing.T) {
	ignores := func(_ http.ResponseWriter, r *http.Request) bool {
		r.Header.Del("If-None-Match")
		return false
	}
	unknown := func(w http.ResponseWriter, r *http.Request) bool {
		if r.Header.Get("If-None-Match") == "" {
			return false
		}
		_, _ = io.Copy(io.Discard, r.Body)
		refuse(w, http.StatusNotImplemented, "NotImplemented")
		return true
	}
	for name, meet := range map[string]func(http.ResponseWriter, *http.Request) bool{"ignored": ignores, "unknown": unknown} {
		for _, before := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, known before: %t", name, before), func(t *testing.T) {
				f := newFakeS3(t)
				if before {
					if err := f.open(t, "").Create(t.Context(), "old", nil); err != nil {
						t.Fatal(err)
					}
				}
				f.intercept(meet)
				b := f.open(t, "")
				for range 2 {
					err := b.Create(t.Context(), "new", nil)
					if !errors.Is(err, batch.ErrInvalid) || !strings.Contains(err.Error(), "conditional writes") {
						t.Errorf("create returned %v", err)
					}
				}
				if _, err := b.Get(t.Context(), "new"); !errors.Is(err, ErrNotFound) {
					t.Errorf("the object was created: %v", err)
				}
				if err := b.Put(t.Context(), "new", nil); err != nil {
					t.Errorf("an unconditional write is refused: %v", err)
				}
			})
		}
	}
}

// While the store is away nothing is proven, and nothing is refused for good.
func TestBucketProvesLater(t *testing.T) {
	f := newFakeS3(t)
	b := f.open(t, "")
	f.intercept(func(w http.ResponseWriter, r *http.Request) bool {
		_, _ = io.Copy(io.Discard, r.Body)
		refuse(w, http.StatusConflict, "ConditionalRequestConflict")
		return true
	})
	if err := b.Create(t.Context(), "a", nil); !errors.Is(err, batch.ErrUnavailable) {
		t.Fatalf("create returned %v", err)
	}
	f.intercept(nil)
	if err := b.Create(t.Context(), "a", nil); err != nil {
		t.Fatal(err)
	}
}

// The first answer to a create is lost, the SDK asks again: the caller must hear
// that there is an object, not that it made one, and look whose it is.
func TestBucketCreateThatWasAppliedUnheard(t *testing.T) {
	f := newFakeS3(t)
	b := impatient(f.open(t, ""))
	if err := b.Create(t.Context(), "warm", nil); err != nil {
		t.Fatal(err)
	}
	lost := 0
	f.intercept(func(w http.ResponseWriter, r *http.Request) bool {
		if lost++; lost > 1 {
			return false
		}
		f.real.ServeHTTP(httptest.NewRecorder(), r)
		refuse(w, http.StatusServiceUnavailable, "SlowDown")
		return true
	})
	if err := b.Create(t.Context(), "a", []byte("mine")); !errors.Is(err, ErrExists) {
		t.Errorf("create returned %v", err)
	}
	wantObject(t, b, "a", "mine")
}

func TestBucketSaysWhatToDo(t *testing.T) {
	f := newFakeS3(t)
	b := impatient(f.open(t, "p"))
	b.proven = true
	for _, c := range []struct {
		status int
		code   string
		want   error
		says   string
	}{
		{http.StatusConflict, "ConditionalRequestConflict", batch.ErrUnavailable, ""},
		{http.StatusBadRequest, "RequestTimeout", batch.ErrUnavailable, ""},
		{http.StatusTooManyRequests, "TooManyRequests", batch.ErrUnavailable, ""},
		{http.StatusForbidden, "AccessDenied", batch.ErrInvalid, "check the keys"},
		{http.StatusForbidden, "InvalidAccessKeyId", batch.ErrInvalid, "check the keys"},
		{http.StatusForbidden, "RequestTimeTooSkewed", batch.ErrInvalid, "clock"},
		{http.StatusBadRequest, "ExpiredToken", batch.ErrInvalid, "check the keys"},
		{http.StatusNotFound, "NoSuchBucket", batch.ErrInvalid, "create the bucket bucket"},
		{http.StatusNotFound, "", batch.ErrInvalid, propEndpoint}, // not a store at all
		{http.StatusMovedPermanently, "PermanentRedirect", batch.ErrInvalid, propRegion},
		{http.StatusBadRequest, "AuthorizationHeaderMalformed", batch.ErrInvalid, propRegion},
		{http.StatusNotImplemented, "NotImplemented", batch.ErrInvalid, "lacks"},
	} {
		f.intercept(func(w http.ResponseWriter, r *http.Request) bool {
			_, _ = io.Copy(io.Discard, r.Body)
			refuse(w, c.status, c.code)
			return true
		})
		_, get := b.Get(t.Context(), "a")
		_, list := b.List(t.Context(), "a/", "")
		for verb, err := range map[string]error{
			"create": b.Create(t.Context(), "a", nil), "put": b.Put(t.Context(), "a", nil), "get": get, "list": list, "delete": b.Delete(t.Context(), "a"),
		} {
			if !errors.Is(err, c.want) || errors.Is(err, ErrExists) || errors.Is(err, ErrNotFound) || !strings.Contains(err.Error(), "s3://bucket/p/a") || !strings.Contains(err.Error(), c.says) {
				t.Errorf("%s, %d %s: %v", verb, c.status, c.code, err)
			}
			if strings.Contains(err.Error(), "TOPSECRET") {
				t.Errorf("%s: the error tells the secret: %v", verb, err)
			}
		}
	}
}

func TestBucketOfAServerThatIsAway(t *testing.T) {
	f := newFakeS3(t)
	f.intercept(func(http.ResponseWriter, *http.Request) bool { panic(http.ErrAbortHandler) })
	b := impatient(f.open(t, ""))
	_, err := b.Get(t.Context(), "a")
	if !errors.Is(err, batch.ErrUnavailable) || errors.Is(err, ErrNotFound) {
		t.Errorf("get returned %v", err)
	}
	if err := b.Create(t.Context(), "a", nil); !errors.Is(err, batch.ErrUnavailable) {
		t.Errorf("create returned %v", err)
	}
}

func TestBucketProperties(t *testing.T) {
	for name := range map[string]bool{"AWS_REGION": true, "AWS_DEFAULT_REGION": true, "AWS_ACCESS_KEY_ID": true, "AWS_SECRET_ACCESS_KEY": true, "AWS_PROFILE": true} {
		t.Setenv(name, "")
	}
	t.Setenv("AWS_CONFIG_FILE", "none")
	t.Setenv("AWS_SHARED_CREDENTIALS_FILE", "none")
	t.Setenv("AWS_EC2_METADATA_DISABLED", "true")
	f := newFakeS3(t)
	with := func(changes ...string) map[string]string {
		p := maps.Clone(f.properties())
		for i := 0; i < len(changes); i += 2 {
			if p[changes[i]] = changes[i+1]; changes[i+1] == "" {
				delete(p, changes[i])
			}
		}
		return p
	}
	for name, c := range map[string]struct {
		properties map[string]string
		says       string // "": it works
	}{
		"all":                        {with(), ""},
		"path style said":            {with(propPathStyle, "true"), ""},
		"no region, but an endpoint": {with(propRegion, ""), ""},
		"a session token":            {with(propToken, "token"), ""},
		"path style misspelt":        {with(propPathStyle, "yes"), `"yes"; write true or false`},
		"no scheme":                  {with(propEndpoint, "127.0.0.1:9000"), "http://"},
		"half a key":                 {with(propSecret, ""), "go together"},
		"no region, no endpoint":     {with(propRegion, "", propEndpoint, ""), "no region"},
		"no keys anywhere":           {with(propKeyID, "", propSecret, ""), "set " + propKeyID},
	} {
		b, err := OpenBucket(t.Context(), "bucket", "", c.properties)
		if err == nil {
			_, err = b.List(t.Context(), "", "")
		}
		switch {
		case c.says == "" && err != nil:
			t.Errorf("%s: %v", name, err)
		case c.says != "" && (!errors.Is(err, batch.ErrInvalid) || !strings.Contains(err.Error(), c.says)):
			t.Errorf("%s: %v does not say %q", name, err, c.says)
		}
	}
	t.Setenv("AWS_ACCESS_KEY_ID", "key")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "secret")
	b, err := OpenBucket(t.Context(), "bucket", "", with(propKeyID, "", propSecret, ""))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.List(t.Context(), "", ""); err != nil {
		t.Errorf("keys of the environment: %v", err)
	}
}

// A call that is cancelled under way says why, and its outcome is not known.
func TestBucketCallIsCancelledUnderWay(t *testing.T) {
	f := newFakeS3(t)
	b := f.open(t, "")
	cause := errors.New("because")
	ctx, cancel := context.WithCancelCause(t.Context())
	f.intercept(func(_ http.ResponseWriter, r *http.Request) bool {
		cancel(cause)
		<-r.Context().Done()
		return true
	})
	if _, err := b.List(ctx, "a/", ""); !errors.Is(err, cause) || !errors.Is(err, batch.ErrUnavailable) {
		t.Errorf("list returned %v", err)
	}
}

// Keys that cannot be renewed for a while do not stop a pipeline for good; keys
// that were never there do.
func TestBucketKeysThatCannotBeRenewed(t *testing.T) {
	f := newFakeS3(t)
	b := impatient(f.open(t, ""))
	found := []error{nil, errors.New("the metadata service is away"), nil}
	source := aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
		err := found[0]
		found = found[1:]
		return aws.Credentials{AccessKeyID: "key", SecretAccessKey: "secret", CanExpire: true}, err // expired at once
	})
	b.client = s3.New(b.client.Options(), func(o *s3.Options) { o.Credentials = &chain{CredentialsProvider: source} })
	for _, want := range []error{nil, batch.ErrUnavailable, nil} {
		if _, err := b.List(t.Context(), "a/", ""); !errors.Is(err, want) {
			t.Errorf("list returned %v, want %v", err, want)
		}
	}
}
