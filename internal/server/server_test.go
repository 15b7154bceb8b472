package server

import (
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/frazil-io/frazil/internal/batch"
	"github.com/frazil-io/frazil/internal/driver"
)

// fixture is a status with a clock that stands still, and its server.
type fixture struct {
	*Status
	t      *testing.T
	at     time.Time
	server *Server
}

func newFixture(t *testing.T, memory Memory) *fixture {
	t.Helper()
	f := &fixture{t: t, at: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)}
	f.Status = NewStatus("clicks", time.Second, func() time.Time { return f.at }, memory)
	var err error
	if f.server, err = Listen("127.0.0.1:0", f.Status, false); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(f.server.Close)
	return f
}

func (f *fixture) get(path string) (int, string) {
	f.t.Helper()
	resp, err := http.Get("http://" + f.server.Addr() + path)
	if err != nil {
		f.t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		f.t.Fatal(err)
	}
	return resp.StatusCode, string(body)
}

func (f *fixture) metric(line string) {
	f.t.Helper()
	_, body := f.get("/metrics")
	if !strings.Contains(body, line+"\n") {
		name, _, _ := strings.Cut(line, "{")
		var found []string
		for l := range strings.Lines(body) {
			if strings.HasPrefix(l, name) {
				found = append(found, l)
			}
		}
		f.t.Errorf("no %q, but %q", line, found)
	}
}

func (f *fixture) ready(why string) {
	f.t.Helper()
	status, body := f.get("/readyz")
	want := http.StatusServiceUnavailable
	if why == "" {
		why, want = "ok", http.StatusOK
	}
	if status != want || !strings.Contains(body, why) {
		f.t.Errorf("ready: %d %q, want %d %q", status, body, want, why)
	}
}

func (f *fixture) batch(lag int64, planned time.Time) {
	f.Batch(driver.Progress{
		Batch: 7, Plan: &batch.Plan{Time: planned}, Lag: lag, Tries: 3, Retries: 2, Prepare: 200 * time.Millisecond, Commit: time.Second, Total: 2 * time.Second,
		Tally:   batch.Tally{Offsets: 10, Data: 7, Rows: 4, Tombstones: 1, Skipped: 2, Aborted: 1, Control: 1, Absent: 1, Bytes: 100},
		Outcome: []batch.Outcome{{Sink: "rows", Counts: batch.Counts{Written: 3, Inputs: batch.Inputs{Rejected: 1}}}},
	})
}

// TestReady: ready means committing on time, and every other state says why.
func TestReady(t *testing.T) {
	f := newFixture(t, nil)
	f.ready("starting: Kafka was not asked yet")
	f.Listed(f.at, 5)
	f.ready("")
	f.at = f.at.Add(62 * time.Second)
	f.ready("")
	f.at = f.at.Add(2 * time.Second) // a minute and three intervals are over
	f.ready("nothing was committed for 1m4s, with 5 offsets waiting")
	f.metric(`frazil_ready{pipeline="clicks"} 0`)
	f.batch(5, f.at)
	f.ready("")
	f.Waiting("the catalog: connection refused")
	f.ready("waiting: the catalog: connection refused")
	f.Waiting("")
	f.Standby("process 1 on a owns the pipeline")
	f.ready("standing by: process 1 on a owns the pipeline")
	f.Standby("")
	f.at = f.at.Add(time.Hour)
	f.Listed(f.at, 0) // idle is on time
	f.ready("")
	f.metric(`frazil_ready{pipeline="clicks"} 1`)
	if status, body := f.get("/livez"); status != http.StatusOK || body != "ok\n" {
		t.Errorf("livez: %d %q", status, body)
	}
	if status, _ := f.get("/debug/pprof/"); status != http.StatusNotFound {
		t.Errorf("pprof without being asked for: %d", status)
	}
}

// TestFreshness: it is the age of the newest moment of which everything is in the
// tables, counted when it is asked.
func TestFreshness(t *testing.T) {
	f := newFixture(t, nil)
	second := func() { f.at = f.at.Add(time.Second) }
	second()
	f.metric(`frazil_freshness_seconds{pipeline="clicks"} 1`)
	f.Listed(f.at, 0) // everything is planned
	planned := f.at
	second()
	f.metric(`frazil_freshness_seconds{pipeline="clicks"} 2`)
	f.batch(0, planned)
	f.metric(`frazil_freshness_seconds{pipeline="clicks"} 1`)
	second()
	f.Listed(f.at, 90) // a batch that takes a part of what waits
	f.batch(90, f.at)
	f.metric(`frazil_freshness_seconds{pipeline="clicks"} 2`)
	f.metric(`frazil_lag_offsets{pipeline="clicks"} 90`)
	second()
	f.Listed(f.at, 0) // nothing new: two listings in a row without a batch
	second()
	f.Listed(f.at, 0)
	f.metric(`frazil_freshness_seconds{pipeline="clicks"} 1`)
	second()
	f.metric(`frazil_freshness_seconds{pipeline="clicks"} 2`)
	f.batch(-1, f.at.Add(-time.Hour)) // a plan that was found says nothing of the lag
	f.metric(`frazil_freshness_seconds{pipeline="clicks"} 2`)
	f.metric(`frazil_lag_offsets{pipeline="clicks"} 0`)
}

func TestMetrics(t *testing.T) {
	f := newFixture(t, func() (map[string]int64, int64) { return map[string]int64{"go": 5, "duckdb": 6}, 100 })
	f.batch(0, f.at)
	f.Batch(driver.Progress{Batch: 8, Plan: &batch.Plan{}, Lag: -1, Outcome: []batch.Outcome{{Sink: "rows", Counts: batch.Counts{Written: 1000}}}}) // committed by an earlier process
	for _, line := range []string{
		`frazil_batches_total{pipeline="clicks"} 2`,
		`frazil_batch{pipeline="clicks"} 8`,
		`frazil_last_batch_timestamp_seconds{pipeline="clicks"} 1.767323045e+09`,
		`frazil_commit_requests_total{pipeline="clicks"} 3`,
		`frazil_commit_retries_total{pipeline="clicks"} 2`,
		`frazil_source_bytes_total{pipeline="clicks"} 100`,
		`frazil_records_total{fate="emitted",pipeline="clicks"} 4`,
		`frazil_records_total{fate="tombstone",pipeline="clicks"} 1`,
		`frazil_records_total{fate="skipped",pipeline="clicks"} 2`,
		`frazil_records_total{fate="aborted",pipeline="clicks"} 1`,
		`frazil_records_total{fate="control",pipeline="clicks"} 1`,
		`frazil_records_total{fate="absent",pipeline="clicks"} 1`,
		`frazil_records_total{fate="lost",pipeline="clicks"} 0`,
		`frazil_rows_total{fate="written",pipeline="clicks",sink="rows"} 3`,
		`frazil_rows_total{fate="rejected",pipeline="clicks",sink="rows"} 1`,
		`frazil_batch_seconds_sum{phase="total",pipeline="clicks"} 2`,
		`frazil_batch_seconds_sum{phase="commit",pipeline="clicks"} 1`,
		`frazil_batch_seconds_sum{phase="prepare",pipeline="clicks"} 0.2`,
		`frazil_memory_bytes{part="go",pipeline="clicks"} 5`,
		`frazil_memory_bytes{part="duckdb",pipeline="clicks"} 6`,
		`frazil_memory_budget_bytes{pipeline="clicks"} 100`,
	} {
		f.metric(line)
	}
}

// TestPortInUse: the caller can tell.
func TestPortInUse(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if _, err := Listen(l.Addr().String(), NewStatus("x", 0, time.Now, nil), false); !errors.Is(err, syscall.EADDRINUSE) {
		t.Error(err)
	}
}

func TestPprof(t *testing.T) {
	s, err := Listen("127.0.0.1:0", NewStatus("x", 0, time.Now, nil), true)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	resp, err := http.Get("http://" + s.Addr() + "/debug/pprof/")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		t.Error(resp.Status)
	}
}
