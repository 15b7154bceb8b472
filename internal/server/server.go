// Package server answers on a pipeline's HTTP address: metrics for Prometheus,
// and whether the pipeline lives and commits on time.
package server

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/pprof"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/frazil-io/frazil/internal/driver"
)

// Status is what is known of a running pipeline. It is a driver.Observer.
type Status struct {
	now      func() time.Time
	interval time.Duration
	registry *prometheus.Registry
	m        metrics

	mu     sync.Mutex
	listed time.Time // when Kafka answered last
	lag    int64
	done   time.Time // when the newest batch's outcome was known, or nothing waited
	// caught is the time up to which everything that Kafka had is in the tables;
	// candidate is a listing that will be that time when the batch that may be
	// open is done.
	caught, candidate time.Time
	waiting           string
	standby           string
}

type metrics struct {
	batches, tries, retries, bytes prometheus.Counter
	records                        *prometheus.CounterVec // by fate
	rows                           *prometheus.CounterVec // by sink
	duration                       *prometheus.HistogramVec
	lag, batch, committed          prometheus.Gauge
}

// readyAfter is how long a pipeline may be behind its trigger and still count as
// committing on time.
const readyAfter = time.Minute

// Memory is how many bytes each part of a process holds, by the part's name, and
// how many the whole may hold.
type Memory func() (parts map[string]int64, budget int64)

// NewStatus returns the status of a pipeline that has not begun. memory may be
// nil.
func NewStatus(name string, interval time.Duration, now func() time.Time, memory Memory) *Status {
	s := &Status{now: now, interval: interval, registry: prometheus.NewRegistry(), done: now(), caught: now()}
	labels := prometheus.Labels{"pipeline": name}
	counter := func(name, help string) prometheus.Counter {
		c := prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help, ConstLabels: labels})
		s.registry.MustRegister(c)
		return c
	}
	gauge := func(name, help string) prometheus.Gauge {
		g := prometheus.NewGauge(prometheus.GaugeOpts{Name: name, Help: help, ConstLabels: labels})
		s.registry.MustRegister(g)
		return g
	}
	s.m = metrics{
		batches:   counter("frazil_batches_total", "Batches whose outcome is known."),
		tries:     counter("frazil_commit_requests_total", "Commits sent to catalogs."),
		retries:   counter("frazil_commit_retries_total", "Commits sent again because the one before failed, or its answer did not come."),
		bytes:     counter("frazil_source_bytes_total", "Key and value bytes of the records that were read."),
		lag:       gauge("frazil_lag_offsets", "Offsets that Kafka has beyond the newest plan."),
		batch:     gauge("frazil_batch", "Number of the newest batch whose outcome is known."),
		committed: gauge("frazil_last_batch_timestamp_seconds", "When the newest batch's outcome was known, in seconds since 1970."),
		records:   prometheus.NewCounterVec(prometheus.CounterOpts{Name: "frazil_records_total", Help: "Offsets by fate: emitted, tombstone, skipped, dead_lettered, aborted, control, lost, absent.", ConstLabels: labels}, []string{"fate"}),
		rows:      prometheus.NewCounterVec(prometheus.CounterOpts{Name: "frazil_rows_total", Help: "Rows by sink and fate: written, rejected, dead_lettered.", ConstLabels: labels}, []string{"sink", "fate"}),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "frazil_batch_seconds", Help: "Duration of a batch by phase: prepare, commit, total.", ConstLabels: labels,
			Buckets: prometheus.ExponentialBuckets(0.005, 2, 14),
		}, []string{"phase"}),
	}
	ready := func() float64 {
		if s.unready() == "" {
			return 1
		}
		return 0
	}
	s.registry.MustRegister(
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "frazil_freshness_seconds", Help: "Time since everything that Kafka had was in the tables.", ConstLabels: labels}, s.freshness),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "frazil_ready", Help: "1 while the pipeline commits on time, as /readyz says.", ConstLabels: labels}, ready),
		s.m.records, s.m.rows, s.m.duration, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	if memory != nil {
		s.registry.MustRegister(&memoryCollector{
			read:   memory,
			parts:  prometheus.NewDesc("frazil_memory_bytes", "Bytes in memory by part of the process: go, duckdb, other.", []string{"part"}, labels),
			budget: prometheus.NewDesc("frazil_memory_budget_bytes", "What the spec allows the pipeline.", nil, labels),
		})
	}
	return s
}

// memoryCollector reads the parts when it is asked.
type memoryCollector struct {
	read          Memory
	parts, budget *prometheus.Desc
}

// Describe implements prometheus.Collector.
func (c *memoryCollector) Describe(to chan<- *prometheus.Desc) {
	to <- c.parts
	to <- c.budget
}

// Collect implements prometheus.Collector.
func (c *memoryCollector) Collect(to chan<- prometheus.Metric) {
	parts, budget := c.read()
	for part, bytes := range parts {
		to <- prometheus.MustNewConstMetric(c.parts, prometheus.GaugeValue, float64(bytes), part)
	}
	to <- prometheus.MustNewConstMetric(c.budget, prometheus.GaugeValue, float64(budget))
}

func (s *Status) freshness() float64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return max(0, s.now().Sub(s.caught).Seconds())
}

// Batch implements driver.Observer.
func (s *Status) Batch(p driver.Progress) {
	s.m.batches.Inc()
	s.m.tries.Add(float64(p.Tries))
	s.m.bytes.Add(float64(p.Tally.Bytes))
	s.m.batch.Set(float64(p.Batch))
	t := p.Tally
	for fate, n := range map[string]int64{
		"emitted": t.Rows, "tombstone": t.Tombstones, "skipped": t.Skipped, "dead_lettered": t.DeadLettered, "aborted": t.Aborted, "control": t.Control, "lost": t.Lost, "absent": t.Absent,
	} {
		s.m.records.WithLabelValues(fate).Add(float64(n))
	}
	if t.Offsets > 0 { // else it was committed before, and counted there
		for _, o := range p.Outcome {
			s.m.rows.WithLabelValues(o.Sink, "written").Add(float64(o.Counts.Written))
			s.m.rows.WithLabelValues(o.Sink, "rejected").Add(float64(o.Counts.Rejected))
			s.m.rows.WithLabelValues(o.Sink, "dead_lettered").Add(float64(o.Counts.Letters + o.Counts.SourceLetters))
		}
	}
	s.m.retries.Add(float64(p.Retries))
	s.m.duration.WithLabelValues("prepare").Observe(p.Prepare.Seconds())
	s.m.duration.WithLabelValues("commit").Observe(p.Commit.Seconds())
	s.m.duration.WithLabelValues("total").Observe(p.Total.Seconds())
	s.mu.Lock()
	defer s.mu.Unlock()
	s.done = s.now()
	s.m.committed.Set(float64(s.done.UnixMilli()) / 1e3)
	if p.Lag >= 0 {
		s.lag = p.Lag
		s.m.lag.Set(float64(p.Lag))
	}
	if p.Lag == 0 && p.Plan != nil && p.Plan.Time.After(s.caught) {
		s.caught = p.Plan.Time
	}
}

// Listed implements driver.Observer. No batch is open when Kafka is asked, so
// what was listed before is in the tables.
func (s *Status) Listed(at time.Time, lag int64) {
	s.m.lag.Set(float64(lag))
	s.mu.Lock()
	defer s.mu.Unlock()
	s.listed, s.lag = at, lag
	if s.candidate.After(s.caught) {
		s.caught = s.candidate
	}
	s.candidate = time.Time{}
	if lag == 0 {
		s.done, s.candidate = s.now(), at
	}
}

// Waiting implements driver.Observer.
func (s *Status) Waiting(reason string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.waiting = reason
}

// Standby implements driver.Observer.
func (s *Status) Standby(reason string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.standby = reason
}

// unready says why the pipeline does not commit on time, "" if it does.
func (s *Status) unready() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	late := s.now().Sub(s.done)
	switch {
	case s.standby != "":
		return "standing by: " + s.standby
	case s.waiting != "":
		return "waiting: " + s.waiting
	case s.listed.IsZero():
		return "starting: Kafka was not asked yet"
	case late > readyAfter+3*s.interval:
		return fmt.Sprintf("nothing was committed for %s, with %d offsets waiting", late.Round(time.Second), s.lag)
	}
	return ""
}

// Server is an open address.
type Server struct {
	listener net.Listener
	http     *http.Server
	done     chan struct{}
}

// Listen serves a status.
func Listen(address string, s *Status, withPprof bool) (*Server, error) {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(s.registry, promhttp.HandlerOpts{}))
	mux.HandleFunc("GET /livez", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("ok\n")) })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if why := s.unready(); why != "" {
			http.Error(w, why, http.StatusServiceUnavailable)
			return
		}
		_, _ = w.Write([]byte("ok\n"))
	})
	if withPprof {
		mux.HandleFunc("GET /debug/pprof/", pprof.Index)
		mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	}
	server := &Server{listener: l, http: &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}, done: make(chan struct{})}
	go func() {
		defer close(server.done)
		_ = server.http.Serve(l)
	}()
	return server, nil
}

// Addr is where it listens.
func (s *Server) Addr() string {
	return strings.Replace(s.listener.Addr().String(), "[::]", "127.0.0.1", 1) // as it can be opened
}

// Close ends it.
func (s *Server) Close() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if err := s.http.Shutdown(ctx); err != nil {
		_ = s.http.Close()
	}
	<-s.done
}
