package lake

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/apache/iceberg-go"
	"github.com/apache/iceberg-go/catalog"
	"github.com/apache/iceberg-go/table"
	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/aws/smithy-go"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/frazil-io/frazil/internal/batch"
	"github.com/frazil-io/frazil/test/fakes"
)

const secret = "TOPSECRET"

var ident = table.Identifier{"ns", "t"}

// server is a catalog over a directory, with a table in it.
func server(t *testing.T, prefix string) *fakes.REST {
	t.Helper()
	return fakes.NewREST(t, "file://"+t.TempDir(), prefix, nil)
}

func fill(t *testing.T, c *Catalog) {
	t.Helper()
	if err := c.CreateNamespace(t.Context(), ident[:1], nil); err != nil {
		t.Fatal(err)
	}
	schema := iceberg.NewSchema(0, iceberg.NestedField{ID: 1, Name: "id", Type: iceberg.PrimitiveTypes.Int64})
	if _, err := c.CreateTable(c.Context(t.Context()), ident, schema); err != nil {
		t.Fatal(err)
	}
}

func open(t *testing.T, o Options) (*Catalog, error) {
	t.Helper()
	o.Name = "lake"
	if o.Type == "" {
		o.Type = "rest"
	}
	c, err := Open(t.Context(), o)
	if err == nil {
		t.Cleanup(c.Close)
	}
	return c, err
}

// wants checks an error's kind and text, and that it keeps the secret.
func wants(t *testing.T, err, kind error, text string) {
	t.Helper()
	if !errors.Is(err, kind) || !strings.Contains(fmt.Sprint(err), text) {
		t.Errorf("error %v, want %v with %q", err, kind, text)
	}
	if strings.Contains(fmt.Sprint(err), secret) {
		t.Errorf("the secret is printed: %v", err)
	}
}

// idp is an OAuth2 server: it takes one secret, and its tokens are numbered.
type idp struct {
	url string

	mu      sync.Mutex
	forms   []url.Values
	good    string // the one token that a catalog takes
	expires int    // seconds that it says a token holds; 0: it does not say
	status  int    // to answer instead
}

func newIDP(t *testing.T) *idp {
	t.Helper()
	p := &idp{expires: 3600}
	s := httptest.NewServer(p)
	t.Cleanup(s.Close)
	p.url = s.URL + "/token"
	return p
}

func (p *idp) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	defer p.mu.Unlock()
	_ = r.ParseForm()
	w.Header().Set("Content-Type", "application/json")
	switch {
	case p.status != 0:
		w.WriteHeader(p.status)
		fmt.Fprintf(w, `{"error":"nothing of %s"}`, secret)
	case r.PostForm.Get("client_id") != "id" || r.PostForm.Get("client_secret") != secret:
		w.WriteHeader(http.StatusUnauthorized)
		fmt.Fprintf(w, `{"error":"invalid_client","error_description":"not %s"}`, r.PostForm.Get("client_secret"))
	default:
		p.forms = append(p.forms, r.PostForm)
		p.good = fmt.Sprint("token-", len(p.forms))
		out := map[string]any{"access_token": p.good, "token_type": "bearer"}
		if p.expires > 0 {
			out["expires_in"] = p.expires
		}
		_ = json.NewEncoder(w).Encode(out)
	}
}

// guard lets a catalog take the newest token alone.
func (p *idp) guard(w http.ResponseWriter, r *http.Request) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if r.Header.Get("Authorization") == "Bearer "+p.good {
		return false
	}
	fakes.Refuse(w, http.StatusUnauthorized, "NotAuthorizedException", "who are you?")
	return true
}

func (p *idp) revoke() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.good = "none"
}

func (p *idp) asked() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.forms)
}

func TestOAuth(t *testing.T) {
	p := newIDP(t)
	r := server(t, "")
	r.Intercept(p.guard)
	o := Options{URI: r.URL, Credential: "id:" + secret, Properties: map[string]string{
		"oauth2-server-uri": p.url, "scope": "PRINCIPAL_ROLE:ALL", "audience": "lake", "resource": "urn:x",
	}}
	c, err := open(t, o)
	if err != nil {
		t.Fatal(err)
	}
	fill(t, c)
	if p.asked() != 1 {
		t.Fatalf("%d tokens were fetched for a few requests, want 1", p.asked())
	}
	for key, want := range map[string]string{"grant_type": "client_credentials", "scope": "PRINCIPAL_ROLE:ALL", "audience": "lake", "resource": "urn:x"} {
		if got := p.forms[0].Get(key); got != want {
			t.Errorf("%s is %q, want %q", key, got, want)
		}
	}
	// Revoked, or expired sooner than it said: the refused request is sent again
	// with a new token. A commit has a body, which has to be sent again, too.
	p.revoke()
	if _, err := c.Load(t.Context(), ident); err != nil {
		t.Fatalf("after the token was revoked: %v", err)
	}
	p.revoke()
	if _, err := c.Commit(t.Context(), ident, nil, []table.Update{table.NewSetPropertiesUpdate(iceberg.Properties{"a": "b"})}); err != nil {
		t.Fatalf("a commit after the token was revoked: %v", err)
	}
	if tbl, err := c.Load(t.Context(), ident); err != nil || tbl.Properties()["a"] != "b" {
		t.Fatalf("the commit is lost: %v", err)
	}
	if p.asked() != 3 {
		t.Fatalf("%d tokens, want 3", p.asked())
	}
}

func TestOAuthTokenThatEnds(t *testing.T) {
	p := newIDP(t)
	p.expires = 1 // below what is kept as a margin: each request needs a new one
	r := server(t, "")
	r.Intercept(p.guard)
	c, err := open(t, Options{URI: r.URL, Credential: "id:" + secret, Properties: map[string]string{"oauth2-server-uri": p.url}})
	if err != nil {
		t.Fatal(err)
	}
	before := p.asked()
	fill(t, c)
	if p.asked() <= before {
		t.Fatal("a token that has ended is used on")
	}
	if got := p.forms[0].Get("scope"); got != "catalog" {
		t.Errorf("scope is %q by default, want catalog", got)
	}
}

// TestOAuthOfTheCatalog: without a server of its own it is the catalog's.
func TestOAuthOfTheCatalog(t *testing.T) {
	p := newIDP(t)
	r := server(t, "")
	r.Intercept(func(w http.ResponseWriter, q *http.Request) bool {
		if q.URL.Path == "/v1/oauth/tokens" {
			p.ServeHTTP(w, q)
			return true
		}
		return p.guard(w, q)
	})
	if _, err := open(t, Options{URI: r.URL, Credential: "id:" + secret}); err != nil {
		t.Fatal(err)
	}
}

func TestOAuthRefused(t *testing.T) {
	p := newIDP(t)
	r := server(t, "")
	r.Intercept(p.guard)
	o := Options{URI: r.URL, Credential: "id:" + secret + "x", Properties: map[string]string{"oauth2-server-uri": p.url}}
	_, err := open(t, o)
	wants(t, err, batch.ErrInvalid, "401 Unauthorized; check credential")
	o.Credential = "id:" + secret
	for status, kind := range map[int]error{400: batch.ErrInvalid, 403: batch.ErrInvalid, 429: batch.ErrUnavailable, 500: batch.ErrUnavailable, 503: batch.ErrUnavailable} {
		p.status = status
		_, err := open(t, o)
		wants(t, err, kind, p.url)
	}
	o.Properties["oauth2-server-uri"] = "http://127.0.0.1:1/token" // away, which is no refusal
	_, err = open(t, o)
	wants(t, err, batch.ErrUnavailable, "127.0.0.1:1")
	o.Properties["oauth2-server-uri"] = "token"
	_, err = open(t, o)
	wants(t, err, batch.ErrInvalid, "oauth2-server-uri")
}

func TestBearerToken(t *testing.T) {
	r := server(t, "")
	var refuse int
	r.Intercept(func(w http.ResponseWriter, q *http.Request) bool {
		if q.Header.Get("Authorization") != "Bearer "+secret {
			fakes.Refuse(w, http.StatusUnauthorized, "NotAuthorizedException", "who are you?")
			return true
		}
		if refuse > 0 {
			fakes.Refuse(w, refuse, "X", "refused")
		}
		return refuse > 0
	})
	c, err := open(t, Options{URI: r.URL, Token: secret})
	if err != nil {
		t.Fatal(err)
	}
	fill(t, c)
	_, err = open(t, Options{URI: r.URL, Token: "another"})
	wants(t, err, batch.ErrInvalid, "check credential and token")
	// What each status means, by what really comes out of the client.
	for status, kind := range map[int]error{
		400: batch.ErrInvalid, 401: batch.ErrInvalid, 403: batch.ErrInvalid, 404: batch.ErrInvalid, 419: batch.ErrInvalid,
		408: batch.ErrUnavailable, 409: batch.ErrUnavailable, 429: batch.ErrUnavailable,
		500: batch.ErrUnavailable, 502: batch.ErrUnavailable, 503: batch.ErrUnavailable, 504: batch.ErrUnavailable,
	} {
		refuse = status
		if _, err := c.Load(t.Context(), ident); !errors.Is(err, kind) {
			t.Errorf("%d of a load: %v, want %v", status, err, kind)
		}
		if _, err := c.Commit(t.Context(), ident, nil, []table.Update{table.NewSetPropertiesUpdate(iceberg.Properties{"a": "b"})}); !errors.Is(err, kind) {
			t.Errorf("%d of a commit: %v, want %v", status, err, kind)
		}
	}
}

// TestPrefixAndHeaders: a server may put its tables below a prefix, and want
// headers of its own.
func TestPrefixAndHeaders(t *testing.T) {
	for name, from := range map[string]func(*fakes.REST, map[string]string){
		"by the spec": func(_ *fakes.REST, p map[string]string) { p["prefix"] = "main" },
		"by the server": func(r *fakes.REST, _ map[string]string) {
			r.Config(map[string]any{"overrides": map[string]string{"prefix": "main"}})
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := server(t, "main")
			r.Intercept(func(w http.ResponseWriter, q *http.Request) bool {
				if q.Header.Get("X-Tenant") == "blue" && q.Header.Get("X-Iceberg-Access-Delegation") == "vended-credentials" {
					return false
				}
				fakes.Refuse(w, http.StatusForbidden, "ForbiddenException", "which tenant?")
				return true
			})
			props := map[string]string{"header.X-Tenant": "blue"}
			from(r, props)
			c, err := open(t, Options{URI: r.URL, Properties: props})
			if err != nil {
				t.Fatal(err)
			}
			fill(t, c)
			_, err = open(t, Options{URI: r.URL})
			wants(t, err, batch.ErrInvalid, "forbids this")
		})
	}
}

// TestSigV4: every request carries a signature that AWS would compute, too.
func TestSigV4(t *testing.T) {
	t.Setenv("AWS_ACCESS_KEY_ID", "env")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "of the environment")
	t.Setenv("AWS_SESSION_TOKEN", "")
	r := server(t, "")
	var keys aws.Credentials
	service := "execute-api"
	signed := 0
	r.Intercept(func(w http.ResponseWriter, q *http.Request) bool {
		if problem := verify(q, keys, service, "eu-west-1"); problem != "" {
			fakes.Refuse(w, http.StatusForbidden, "ForbiddenException", problem)
			return true
		}
		signed++
		return false
	})
	props := map[string]string{"rest.sigv4-enabled": "true", "rest.signing-region": "eu-west-1"}
	keys = aws.Credentials{AccessKeyID: "env", SecretAccessKey: "of the environment"}
	c, err := open(t, Options{URI: r.URL, Properties: props})
	if err != nil {
		t.Fatal(err)
	}
	fill(t, c)
	if _, err := c.Load(t.Context(), ident); err != nil || signed < 4 {
		t.Fatalf("%d requests were signed, %v", signed, err)
	}
	keys = aws.Credentials{AccessKeyID: "AK", SecretAccessKey: secret, SessionToken: "session"}
	service = "s3tables"
	props["rest.signing-name"], props["rest.access-key-id"], props["rest.secret-access-key"], props["rest.session-token"] = "s3tables", "AK", secret, "session"
	if c, err = open(t, Options{URI: r.URL, Properties: props}); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Load(t.Context(), ident); err != nil {
		t.Fatal(err)
	}
	keys.SecretAccessKey = "another"
	_, err = c.Load(t.Context(), ident)
	wants(t, err, batch.ErrInvalid, "forbids this")
	delete(props, "rest.secret-access-key")
	_, err = open(t, Options{URI: r.URL, Properties: props})
	wants(t, err, batch.ErrInvalid, "go together")
}

// verify computes the signature of a request anew.
func verify(q *http.Request, keys aws.Credentials, service, region string) string {
	got := q.Header.Get("Authorization")
	at, err := time.Parse("20060102T150405Z", q.Header.Get("X-Amz-Date"))
	if err != nil || !strings.HasPrefix(got, "AWS4-HMAC-SHA256 ") {
		return "not signed"
	}
	_, rest, _ := strings.Cut(got, "SignedHeaders=")
	names, _, _ := strings.Cut(rest, ",")
	again, err := http.NewRequestWithContext(q.Context(), q.Method, "http://"+q.Host+q.URL.RequestURI(), nil)
	if err != nil {
		return err.Error()
	}
	for name := range strings.SplitSeq(names, ";") {
		if name != "host" && name != "content-length" {
			again.Header[http.CanonicalHeaderKey(name)] = q.Header.Values(name)
		}
	}
	again.Header.Del("X-Amz-Date")
	again.Header.Del("X-Amz-Security-Token")
	if strings.Contains(names, "content-length") {
		again.ContentLength = q.ContentLength
	}
	if err := v4.NewSigner().SignHTTP(q.Context(), keys, again, q.Header.Get("X-Amz-Content-Sha256"), service, region, at); err != nil {
		return err.Error()
	}
	if want := again.Header.Get("Authorization"); want != got {
		return "the signature is another: " + want + " not " + got
	}
	return ""
}

func TestCatalogThatIsAway(t *testing.T) {
	for name, c := range map[string]struct {
		uri, text string
		kind      error
	}{
		"nobody listens": {"http://127.0.0.1:1", "cannot be reached", batch.ErrUnavailable},
		"no such name":   {"http://catalog.invalid", "cannot be reached", batch.ErrUnavailable},
		"no TLS there":   {strings.Replace(server(t, "").URL, "http:", "https:", 1), "does not speak TLS", batch.ErrInvalid},
		"not trusted":    {httptestTLS(t), "not trusted", batch.ErrInvalid},
		"cut off":        {cutOff(t), "", batch.ErrUnavailable},
	} {
		_, err := open(t, Options{URI: c.uri, Token: secret})
		t.Log(name, err)
		wants(t, err, c.kind, c.text)
	}
	if _, err := open(t, Options{URI: httptestTLS(t), Properties: map[string]string{"rest.tls.skip-verify": "true"}}); err != nil {
		t.Errorf("skip-verify: %v", err)
	}
	if _, err := open(t, Options{Type: "hive", URI: "x"}); !errors.Is(err, batch.ErrInvalid) {
		t.Error(err)
	}
}

func httptestTLS(t *testing.T) string {
	t.Helper()
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprint(w, `{"defaults":{},"overrides":{}}`)
	}))
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.StartTLS()
	t.Cleanup(s.Close)
	return s.URL
}

// cutOff takes requests and says nothing.
func cutOff(t *testing.T) string {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }))
	t.Cleanup(s.Close)
	return s.URL
}

// TestServerThatLeavesSnapshotsOut: what is not in the metadata would be taken
// for expired, and its files for garbage, so all snapshots are asked for.
func TestServerThatLeavesSnapshotsOut(t *testing.T) {
	r := server(t, "")
	r.Config(map[string]any{"defaults": map[string]string{"snapshot-loading-mode": "refs"}})
	c, err := open(t, Options{URI: r.URL})
	if err != nil {
		t.Fatal(err)
	}
	fill(t, c)
	mode := ""
	r.Intercept(func(_ http.ResponseWriter, q *http.Request) bool {
		mode = q.URL.Query().Get("snapshots")
		return false
	})
	if _, err := c.Load(t.Context(), ident); err != nil || mode != "all" {
		t.Fatalf("snapshots=%q, %v", mode, err)
	}
}

// TestClassify judges error values as clients return them.
func TestClassify(t *testing.T) {
	api := func(code string) error { return &smithy.GenericAPIError{Code: code, Message: "m"} }
	pg := func(code string) error { return &pgconn.PgError{Code: code, Message: "m"} }
	for _, c := range []struct {
		err  error
		kind error
		text string
	}{
		{table.ErrCommitFailed, batch.ErrUnavailable, "another commit"},
		{catalog.ErrNoSuchTable, batch.ErrInvalid, "no such table"},
		{catalog.ErrNoSuchNamespace, batch.ErrInvalid, "no such namespace"},
		{context.DeadlineExceeded, batch.ErrUnavailable, ""},
		{io.EOF, batch.ErrUnavailable, ""},
		{io.ErrUnexpectedEOF, batch.ErrUnavailable, ""},
		{syscall.ECONNREFUSED, batch.ErrUnavailable, "cannot be reached"},
		{syscall.ECONNRESET, batch.ErrUnavailable, ""},
		{&net.DNSError{IsNotFound: true}, batch.ErrUnavailable, "cannot be reached"},
		{x509.UnknownAuthorityError{}, batch.ErrInvalid, "not trusted"},
		{x509.HostnameError{Certificate: &x509.Certificate{}, Host: "h"}, batch.ErrInvalid, "another name"},
		{&tls.CertificateVerificationError{Err: x509.UnknownAuthorityError{}}, batch.ErrInvalid, "not trusted"},
		{http.ErrSchemeMismatch, batch.ErrInvalid, "does not speak TLS"},
		{fs.ErrPermission, batch.ErrInvalid, "may not write"},
		{syscall.EROFS, batch.ErrInvalid, "may not write"},
		{syscall.ENOSPC, batch.ErrUnavailable, ""},
		{api("AccessDenied"), batch.ErrInvalid, "s3.access-key-id"},
		{api("SignatureDoesNotMatch"), batch.ErrInvalid, "s3.access-key-id"},
		{api("NoSuchBucket"), batch.ErrInvalid, "create it"},
		{api("ExpiredToken"), batch.ErrUnavailable, "expired"},
		{api("PermanentRedirect"), batch.ErrInvalid, "s3.region"},
		{api("SlowDown"), batch.ErrUnavailable, ""},
		{api("InternalError"), batch.ErrUnavailable, ""},
		{pg("28P01"), batch.ErrInvalid, "user and password"},
		{pg("3D000"), batch.ErrInvalid, "create it"},
		{pg("42501"), batch.ErrInvalid, "grant"},
		{pg("57P03"), batch.ErrUnavailable, ""},
		{pg("53300"), batch.ErrUnavailable, ""},
		{pg("40001"), batch.ErrUnavailable, ""},
		{batch.ErrDataLost, batch.ErrDataLost, ""},
	} {
		err := Classify("doing it", &url.Error{Op: "Get", URL: "http://h", Err: fmt.Errorf("more: %w", c.err)})
		if !errors.Is(err, c.kind) || !errors.Is(err, c.err) || !strings.Contains(err.Error(), "doing it: ") || !strings.Contains(err.Error(), c.text) {
			t.Errorf("%v becomes %v, want %v with %q", c.err, err, c.kind, c.text)
		}
		kinds := 0
		for _, k := range []error{batch.ErrInvalid, batch.ErrUnavailable, batch.ErrDataLost, batch.ErrFenced} {
			if errors.Is(err, k) {
				kinds++
			}
		}
		if kinds != 1 {
			t.Errorf("%v is of %d kinds", err, kinds)
		}
	}
	if err := Classify("x", context.Canceled); !errors.Is(err, context.Canceled) || errors.Is(err, batch.ErrUnavailable) {
		t.Errorf("cancelled: %v", err)
	}
	if Classify("x", nil) != nil {
		t.Error("nil is an error")
	}
}

func TestSQLiteThatCannotBeOpened(t *testing.T) {
	dir := t.TempDir()
	junk := filepath.Join(dir, "junk.db")
	if err := os.WriteFile(junk, []byte(strings.Repeat("this is no database ", 100)), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := open(t, Options{Type: "sql", URI: junk, Warehouse: dir})
	wants(t, err, batch.ErrInvalid, "not one of SQLite")
	_, err = open(t, Options{Type: "sql", URI: dir, Warehouse: dir}) // a directory
	wants(t, err, batch.ErrInvalid, "may not write")
	_, err = open(t, Options{Type: "sql", URI: "postgres://u:" + secret + "@h:notaport/db", Warehouse: dir})
	wants(t, err, batch.ErrInvalid, "not an address of PostgreSQL")
	_, err = open(t, Options{Type: "sql", URI: "postgres://u:" + secret + "@127.0.0.1:1/db?connect_timeout=2", Warehouse: dir})
	wants(t, err, batch.ErrUnavailable, "cannot be reached")
}
