package registry

import (
	"context"
	"crypto/tls"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/sr"
	"github.com/twmb/franz-go/pkg/sr/srfake"

	"github.com/frazil-io/frazil/internal/batch"
	"github.com/frazil-io/frazil/internal/certs"
)

// clock is time that passes only in Sleep and where a test says so.
type clock struct {
	mu     sync.Mutex
	now    time.Time
	sleeps []time.Duration
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) Sleep(ctx context.Context, d time.Duration) error {
	c.pass(d)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.sleeps = append(c.sleeps, d)
	return context.Cause(ctx)
}

func (c *clock) pass(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// fake is a registry that counts requests.
func fake(t *testing.T, opts ...srfake.Option) (*srfake.Registry, *atomic.Int64) {
	t.Helper()
	r := srfake.New(opts...)
	t.Cleanup(r.Close)
	var asked atomic.Int64
	r.Intercept(func(http.ResponseWriter, *http.Request) bool {
		asked.Add(1)
		return false
	})
	return r, &asked
}

func open(t *testing.T, o Options) (*Client, *clock) {
	t.Helper()
	k := &clock{now: time.Unix(1e9, 0)}
	c, err := New(o, k)
	if err != nil {
		t.Fatal(err)
	}
	return c, k
}

func TestSchemasAreKept(t *testing.T) {
	r, asked := fake(t)
	r.SeedSchema("id-type", 1, 3, sr.Schema{Schema: `{"type":"fixed","name":"Id","size":4}`})
	r.SeedSchema("line", 2, 5, sr.Schema{
		Schema:     `{"type":"record","name":"Line","fields":[{"name":"id","type":"Id"}]}`,
		References: []sr.SchemaReference{{Name: "Id", Subject: "id-type", Version: 1}},
	})
	r.SeedSchema("order-value", 1, 7, sr.Schema{
		Schema:     `{"type":"record","name":"Order","fields":[{"name":"id","type":"Id"},{"name":"line","type":"Line"}]}`,
		References: []sr.SchemaReference{{Name: "Id", Subject: "id-type", Version: 1}, {Name: "Line", Subject: "line", Version: 2}},
	})
	c, _ := open(t, Options{URLs: []string{r.URL()}})
	for range 3 {
		s, err := c.ByID(t.Context(), 7)
		if err != nil {
			t.Fatal(err)
		}
		if s.ID != 7 || s.Type != "AVRO" || !strings.Contains(s.Text, "Order") {
			t.Errorf("got %+v", s)
		}
		if got := s.References["Line"].References["Id"]; got.ID != 3 || !strings.Contains(got.Text, "fixed") {
			t.Errorf("reference of a reference: %+v", got)
		}
		if s.References["Id"].ID != 3 {
			t.Errorf("reference: %+v", s.References["Id"])
		}
	}
	if n := asked.Load(); n != 3 {
		t.Errorf("asked %d times for three schemas", n)
	}
	s, err := c.Version(t.Context(), "order-value", Latest)
	if err != nil || s.ID != 7 || len(s.References) != 2 {
		t.Errorf("latest: %+v, %v", s, err)
	}
	if s, err := c.Version(t.Context(), "line", 2); err != nil || s.ID != 5 {
		t.Errorf("version 2: %+v, %v", s, err)
	}
}

func TestUnknownIsRememberedBriefly(t *testing.T) {
	r, asked := fake(t)
	c, k := open(t, Options{URLs: []string{r.URL()}})
	for range 5 {
		if _, err := c.ByID(t.Context(), 9); !errors.Is(err, ErrUnknown) {
			t.Fatalf("got %v", err)
		}
	}
	if n := asked.Load(); n != 1 {
		t.Errorf("asked %d times", n)
	}
	r.SeedSchema("late", 1, 9, sr.Schema{Schema: `"string"`}) // the registry lagged
	if _, err := c.ByID(t.Context(), 9); !errors.Is(err, ErrUnknown) {
		t.Errorf("it was asked again at once: %v", err)
	}
	k.pass(unknownFor)
	if s, err := c.ByID(t.Context(), 9); err != nil || s.Text != `"string"` {
		t.Errorf("after a while: %+v, %v", s, err)
	}
	if _, err := c.Version(t.Context(), "nobody", Latest); !errors.Is(err, ErrUnknown) || !strings.Contains(err.Error(), `subject "nobody"`) {
		t.Errorf("unknown subject: %v", err)
	}
}

// TestKinds: what an answer means.
func TestKinds(t *testing.T) {
	for _, test := range []struct {
		status int
		body   string
		kind   error
		says   string
	}{
		{404, `{"error_code":40403,"message":"Schema 1 not found"}`, ErrUnknown, "Schema 1 not found"},
		{404, `<html>no such page</html>`, batch.ErrInvalid, "no answer of a schema registry; check the path"},
		{404, `{"error_code":404,"message":"HTTP 404 Not Found"}`, batch.ErrInvalid, "no answer of a schema registry; check the path"},
		{200, `{"status":"up"}`, batch.ErrInvalid, "not a schema registry"},
		{200, `null`, batch.ErrInvalid, "not a schema registry"},
		{200, `{"schema":""}`, batch.ErrInvalid, "not a schema registry"},
		{401, `{"error_code":401,"message":"Unauthorized"}`, batch.ErrInvalid, "check username and password, or token, of registry"},
		{403, `{"error_code":40301,"message":"Forbidden"}`, batch.ErrInvalid, "check username and password, or token, of registry"},
		{429, `{"error_code":42900,"message":"slow down"}`, batch.ErrUnavailable, "slow down"},
		{500, `{"error_code":50001,"message":"Kafka store"}`, batch.ErrUnavailable, "Kafka store"},
		{503, ``, batch.ErrUnavailable, "503"},
		{422, `{"error_code":42202,"message":"Invalid version"}`, batch.ErrInvalid, "Invalid version"},
		{200, `<html>Please log in</html>`, batch.ErrInvalid, "not a schema registry"},
		{200, `{"schema":"` + strings.Repeat("x", answerMax) + `"}`, batch.ErrInvalid, "larger than 16 MiB"},
	} {
		t.Run(fmt.Sprint(test.status, " ", test.body[:min(len(test.body), 20)]), func(t *testing.T) {
			s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.WriteHeader(test.status)
				w.Write([]byte(test.body))
			}))
			defer s.Close()
			c, _ := open(t, Options{URLs: []string{s.URL}, Username: "jane", Password: "s3cret"})
			_, err := c.ByID(t.Context(), 1)
			if !errors.Is(err, test.kind) || !strings.Contains(err.Error(), test.says) || !strings.Contains(err.Error(), s.URL) {
				t.Errorf("got %v", err)
			}
			for _, kind := range []error{ErrUnknown, batch.ErrInvalid, batch.ErrUnavailable} {
				if kind != test.kind && errors.Is(err, kind) {
					t.Errorf("it is %v, too: %v", kind, err)
				}
			}
			if strings.Contains(err.Error(), "s3cret") {
				t.Errorf("a secret is printed: %v", err)
			}
		})
	}
}

// TestTriesAgain: a registry that comes back within the time is asked until it
// answers, the other address first.
func TestTriesAgain(t *testing.T) {
	r, _ := fake(t)
	r.SeedSchema("a", 1, 1, sr.Schema{Schema: `"int"`})
	var failing atomic.Int64
	failing.Store(3)
	r.Intercept(func(w http.ResponseWriter, _ *http.Request) bool {
		if failing.Add(-1) < 0 {
			return false
		}
		w.WriteHeader(http.StatusServiceUnavailable)
		return true
	})
	c, k := open(t, Options{URLs: []string{r.URL()}})
	if _, err := c.ByID(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	if fmt.Sprint(k.sleeps) != "[100ms 200ms 400ms]" {
		t.Errorf("pauses %v", k.sleeps)
	}

	gone := httptest.NewServer(nil)
	gone.Close()
	c, k = open(t, Options{URLs: []string{gone.URL, r.URL()}})
	if _, err := c.ByID(t.Context(), 1); err != nil || len(k.sleeps) != 0 {
		t.Errorf("the other address: %v after %v", err, k.sleeps)
	}
	c, k = open(t, Options{URLs: []string{gone.URL}})
	_, err := c.ByID(t.Context(), 1)
	if !errors.Is(err, batch.ErrUnavailable) || !strings.Contains(err.Error(), gone.URL) || len(k.sleeps) != attempts-1 {
		t.Errorf("gone: %v after %v", err, k.sleeps)
	}
	stopped, stop := context.WithCancelCause(t.Context())
	cause := errors.New("stop")
	stop(cause)
	if _, err := c.ByID(stopped, 2); !errors.Is(err, cause) {
		t.Errorf("stopped: %v", err)
	}
}

func TestLogins(t *testing.T) {
	for _, test := range []struct {
		o     Options
		wants string
	}{
		{Options{Username: "jane", Password: "s3cret"}, "Basic amFuZTpzM2NyZXQ="},
		{Options{Token: "t0ken"}, "Bearer t0ken"},
	} {
		r, _ := fake(t, srfake.WithAuth(test.wants))
		r.SeedSchema("a", 1, 1, sr.Schema{Schema: `"int"`})
		test.o.URLs = []string{r.URL()}
		c, _ := open(t, test.o)
		if _, err := c.ByID(t.Context(), 1); err != nil {
			t.Errorf("%s: %v", test.wants, err)
		}
		c, _ = open(t, Options{URLs: test.o.URLs})
		if _, err := c.ByID(t.Context(), 1); !errors.Is(err, batch.ErrInvalid) {
			t.Errorf("without a login: %v", err)
		}
	}
}

func TestTLS(t *testing.T) {
	r := srfake.NewRegistry()
	r.SeedSchema("a", 1, 1, sr.Schema{Schema: `"int"`})
	s := httptest.NewUnstartedServer(r.Handler())
	s.Config.ErrorLog = nil
	s.StartTLS()
	defer s.Close()
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	c, _ := open(t, Options{URLs: []string{s.URL}, TLS: certs.TLS{CA: ca}})
	if _, err := c.ByID(t.Context(), 1); err != nil {
		t.Error(err)
	}
	c, _ = open(t, Options{URLs: []string{s.URL}})
	if _, err := c.ByID(t.Context(), 1); !errors.Is(err, batch.ErrInvalid) || !strings.Contains(err.Error(), "tls ca") {
		t.Errorf("not trusted: %v", err)
	}
	c, _ = open(t, Options{URLs: []string{s.URL}, TLS: certs.TLS{CA: ca, ServerName: "registry.test"}})
	if _, err := c.ByID(t.Context(), 1); !errors.Is(err, batch.ErrInvalid) || !strings.Contains(err.Error(), "server_name") {
		t.Errorf("another name: %v", err)
	}
	s.TLS.ClientAuth = tls.RequireAnyClientCert
	c, _ = open(t, Options{URLs: []string{s.URL}, TLS: certs.TLS{CA: ca}})
	if _, err := c.ByID(t.Context(), 1); !errors.Is(err, batch.ErrInvalid) || !strings.Contains(err.Error(), "tls cert and key") {
		t.Errorf("without a certificate: %v", err)
	}
	for _, bad := range []certs.TLS{{CA: "nowhere.pem"}, {Cert: "nowhere.pem"}} {
		if _, err := New(Options{URLs: []string{s.URL}, TLS: bad}, &clock{}); !errors.Is(err, batch.ErrInvalid) {
			t.Errorf("%+v: %v", bad, err)
		}
	}
}

// TestCircleOfReferences ends.
func TestCircleOfReferences(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Write([]byte(`{"id":1,"subject":"a","version":1,"schema":"x","references":[{"name":"a","subject":"a","version":1}]}`))
	}))
	defer s.Close()
	c, _ := open(t, Options{URLs: []string{s.URL}})
	if _, err := c.ByID(t.Context(), 1); !errors.Is(err, batch.ErrInvalid) || !strings.Contains(err.Error(), "circle") {
		t.Errorf("got %v", err)
	}
}

func TestURLs(t *testing.T) {
	for _, bad := range []string{"", "localhost:8081", "ftp://x", "http://", "http://u:s3cret@x", "http://x?a=b", "http://u:s3cret@ x"} {
		_, err := New(Options{URLs: []string{bad}}, &clock{})
		if !errors.Is(err, batch.ErrInvalid) || strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%q: %v", bad, err)
		}
	}
	if _, err := New(Options{}, &clock{}); !errors.Is(err, batch.ErrInvalid) {
		t.Errorf("no address: %v", err)
	}
}

// TestVersions: all of a subject, asked again after a while.
func TestVersions(t *testing.T) {
	r, asked := fake(t)
	r.SeedSchema("a", 1, 1, sr.Schema{Schema: `"int"`})
	r.SeedSchema("a", 2, 5, sr.Schema{Schema: `"long"`})
	c, k := open(t, Options{URLs: []string{r.URL()}})
	for range 3 {
		all, err := c.Versions(t.Context(), "a")
		if err != nil || len(all) != 2 || all[1].ID != 5 {
			t.Errorf("%+v, %v", all, err)
		}
	}
	if n := asked.Load(); n != 3 {
		t.Errorf("asked %d times", n)
	}
	r.SeedSchema("a", 3, 9, sr.Schema{Schema: `"string"`})
	k.pass(unknownFor)
	if all, err := c.Versions(t.Context(), "a"); err != nil || len(all) != 3 || asked.Load() != 5 {
		t.Errorf("after a while: %+v, %v, asked %d times", all, err, asked.Load())
	}
	if _, err := c.Versions(t.Context(), "nobody"); !errors.Is(err, ErrUnknown) {
		t.Errorf("unknown: %v", err)
	}
}

// TestIDByGUID: the id of a GUID is asked for once, that of the default context where
// there are several, and an unknown one is asked for again later.
func TestIDByGUID(t *testing.T) {
	r, asked := fake(t)
	c, k := open(t, Options{URLs: []string{r.URL()}})
	for _, subject := range []string{":.a:s", "s", ":.b:s"} {
		r.SeedSchema(subject, 1, map[string]int{":.a:s": 3, "s": 7, ":.b:s": 4}[subject], sr.Schema{Schema: `"long"`})
	}
	seeded, err := c.asks[0].SchemaByVersion(t.Context(), "s", 1)
	if err != nil || seeded.GUID == "" {
		t.Fatalf("%+v: %v", seeded, err)
	}
	asked.Store(0)
	for range 3 {
		if id, err := c.IDByGUID(t.Context(), seeded.GUID); err != nil || id != 7 {
			t.Errorf("id %d, %v", id, err)
		}
	}
	const other = "00000000-0000-0000-0000-000000000001"
	for range 2 {
		if _, err := c.IDByGUID(t.Context(), other); !errors.Is(err, ErrUnknown) {
			t.Errorf("an unknown one: %v", err)
		}
	}
	if n := asked.Load(); n != 2 {
		t.Errorf("%d questions, want 2", n)
	}
	k.pass(unknownFor)
	if _, err := c.IDByGUID(t.Context(), other); !errors.Is(err, ErrUnknown) || asked.Load() != 3 {
		t.Errorf("later: %v after %d questions", err, asked.Load())
	}
}

// TestGUIDsThatAreNotThere: a registry that knows no GUIDs has no such schema.
func TestGUIDsThatAreNotThere(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusNotFound)
		w.Write([]byte(`{"error_code":404,"message":"HTTP 404 Not Found"}`))
	}))
	defer s.Close()
	c, _ := open(t, Options{URLs: []string{s.URL}})
	if _, err := c.IDByGUID(t.Context(), "00000000-0000-0000-0000-000000000001"); !errors.Is(err, ErrUnknown) {
		t.Errorf("it says %v", err)
	}
}

// TestTooManyVersions: nobody asks for each of a list that has no end.
func TestTooManyVersions(t *testing.T) {
	numbers := strings.TrimSuffix(strings.Repeat("1,", versionsMax+1), ",")
	c := answered(t, &canned{status: http.StatusOK, body: []byte("[" + numbers + "]")})
	if _, err := c.Versions(t.Context(), "s"); !errors.Is(err, batch.ErrInvalid) || !strings.Contains(err.Error(), "10001 versions") {
		t.Errorf("error %v", err)
	}
}
