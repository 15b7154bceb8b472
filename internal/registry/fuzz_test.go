package registry

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"runtime/metrics"
	"testing"

	"github.com/twmb/franz-go/pkg/sr"

	"github.com/frazil-io/frazil/internal/batch"
)

// canned gives every question the same answer.
type canned struct {
	status int
	body   []byte
	asked  int
}

// RoundTrip implements http.RoundTripper.
func (c *canned) RoundTrip(r *http.Request) (*http.Response, error) {
	c.asked++
	return &http.Response{
		StatusCode: c.status, Status: http.StatusText(c.status), Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Request: r,
		Header: http.Header{"Content-Type": {"application/json"}}, Body: io.NopCloser(bytes.NewReader(c.body)), ContentLength: int64(len(c.body)),
	}, nil
}

// answered returns a client whose registry is that.
func answered(t *testing.T, c *canned) *Client {
	t.Helper()
	cl, err := New(Options{URLs: []string{"http://registry"}}, &clock{})
	if err != nil {
		t.Fatal(err)
	}
	client, err := sr.NewClient(sr.URLs("http://registry"), sr.LogLevel(sr.LogLevelNone), sr.HTTPClient(&http.Client{Transport: bounded{c}}))
	if err != nil {
		t.Fatal(err)
	}
	cl.asks = []ask{{"http://registry", client}}
	return cl
}

// FuzzAnswers: whatever a registry answers, it is a schema or an error of one kind,
// after a bounded number of questions, and costs what its length tells.
func FuzzAnswers(f *testing.F) {
	for _, body := range []string{
		`{"schema":"\"long\""}`, `{"id":7,"version":1,"subject":"s","schema":"{}","schemaType":"JSON","references":[{"name":"a","subject":"s","version":1}]}`,
		`[1,2,3]`, `[{"context":".","id":7}]`, `{"error_code":40403,"message":"Schema not found"}`, `{"error_code":50001,"message":"x"}`, `<html>`, ``, `{"schemaType":"X"}`, `{"schema":`,
		`{"references":[{"name":"a","subject":"a","version":1},{"name":"b","subject":"b","version":2}]}`, `[]`, `null`,
	} {
		for _, status := range []uint16{200, 404, 401, 503, 302} {
			f.Add(status, []byte(body))
		}
	}
	sample := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}}
	allocated := func() uint64 {
		metrics.Read(sample)
		return sample[0].Value.Uint64()
	}
	// Of one question; each may lead to as many as a schema may have references.
	const questions, most = attempts * (referencesMax + 2), 256 << 20
	f.Fuzz(func(t *testing.T, status uint16, body []byte) {
		if status < 200 || status > 599 || len(body) > 1<<20 {
			return
		}
		for name, question := range map[string]func(c *Client) error{
			"id":       func(c *Client) error { _, err := c.ByID(t.Context(), 7); return err },
			"guid":     func(c *Client) error { _, err := c.IDByGUID(t.Context(), "g"); return err },
			"version":  func(c *Client) error { _, err := c.Version(t.Context(), "s", Latest); return err },
			"versions": func(c *Client) error { _, err := c.Versions(t.Context(), "s"); return err },
		} {
			answer := &canned{status: int(status), body: body}
			c := answered(t, answer)
			before := allocated()
			err := question(c)
			if took := allocated() - before; took > most {
				t.Fatalf("%s: %d %q: %d bytes were allocated", name, status, body, took)
			}
			if answer.asked > questions {
				t.Fatalf("%s: %d %q: %d questions", name, status, body, answer.asked)
			}
			kinds := 0
			for _, kind := range []error{ErrUnknown, batch.ErrUnavailable, batch.ErrInvalid} {
				if errors.Is(err, kind) {
					kinds++
				}
			}
			if err != nil && kinds != 1 {
				t.Fatalf("%s: %d %q: %d kinds: %v", name, status, body, kinds, err)
			}
		}
	})
}
