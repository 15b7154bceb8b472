package fakes

import (
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/johannesboyne/gofakes3"
	"github.com/johannesboyne/gofakes3/backend/s3mem"
)

// Bucket is the one that an S3 server has.
const Bucket = "warehouse"

// Keys are what a client of S3 signs with. The secret is not looked at.
type Keys struct{ ID, Secret, Token string }

// S3 is an object store in memory.
type S3 struct {
	URL  string
	real http.Handler

	mu    sync.Mutex
	good  map[Keys]bool // nil: all are
	seen  []Keys        // of the requests, as they came
	conns map[net.Conn]bool
}

// NewS3 starts an object store that takes all keys.
func NewS3(t testing.TB) *S3 {
	t.Helper()
	backend := s3mem.New()
	if err := backend.CreateBucket(Bucket); err != nil {
		t.Fatal(err)
	}
	s := &S3{real: gofakes3.New(backend, gofakes3.WithLogger(gofakes3.DiscardLog())).Server(), conns: map[net.Conn]bool{}}
	server := httptest.NewUnstartedServer(s)
	server.Config.ConnState = func(c net.Conn, state http.ConnState) {
		s.mu.Lock()
		defer s.mu.Unlock()
		if state == http.StateNew {
			s.conns[c] = true
		}
	}
	server.Start()
	t.Cleanup(server.Close)
	s.URL = server.URL
	return s
}

// Accept makes keys the only good ones.
func (s *S3) Accept(keys ...Keys) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.good = map[Keys]bool{}
	for _, k := range keys {
		s.good[Keys{ID: k.ID, Token: k.Token}] = true
	}
}

// Connections is how many connections clients have opened so far.
func (s *S3) Connections() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.conns)
}

// Seen returns the keys of the requests since the last time, without secrets.
func (s *S3) Seen() []Keys {
	s.mu.Lock()
	defer s.mu.Unlock()
	seen := s.seen
	s.seen = nil
	return seen
}

// ServeHTTP implements http.Handler.
func (s *S3) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	k := Keys{Token: r.Header.Get("X-Amz-Security-Token")}
	if _, rest, ok := strings.Cut(r.Header.Get("Authorization"), "Credential="); ok {
		k.ID, _, _ = strings.Cut(rest, "/")
	}
	s.mu.Lock()
	s.seen = append(s.seen, k)
	good := s.good == nil || s.good[k]
	s.mu.Unlock()
	if !good {
		w.Header().Set("Content-Type", "application/xml")
		w.WriteHeader(http.StatusBadRequest) // as S3 does with a session that has ended
		fmt.Fprint(w, "<Error><Code>ExpiredToken</Code><Message>The provided token has expired.</Message></Error>")
		return
	}
	s.real.ServeHTTP(w, r)
}
