//go:build integration

package bench

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/frazil-io/frazil/internal/demo"
	"github.com/frazil-io/frazil/test/servers"
)

// records of the workload etl: FRAZIL_BENCH_RECORDS, or five million.
func records(t *testing.T) int64 {
	if v := os.Getenv("FRAZIL_BENCH_RECORDS"); v != "" {
		n, err := strconv.ParseInt(v, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	return 5_000_000
}

const poms = "../integration/testdata"

// measured is what one run of the binary came to.
type measured struct {
	CPUPerMillion    float64 `json:"cpu_seconds_per_million"`
	RecordsPerSecond float64 `json:"records_per_second"`
	PeakMiB          int64   `json:"peak_rss_mib"`
	FirstCommit      float64 `json:"start_to_first_commit_seconds"`
	Records          int64   `json:"records"`
	CommitMillis     []int64 `json:"-"`
}

// rssMax is how much the process may take at `memory: 512MiB`: a budget is kept
// whatever the machine does, so it is asserted.
const rssMax = 600

// stack is a broker, a store and a catalog.
type stack struct{ kafka, s3, rest string }

func startStack(t *testing.T) stack {
	s3 := servers.StartS3(t)
	return stack{servers.StartKafka(t, poms).Addr(), s3, servers.StartREST(t, poms, s3)}
}

func (s stack) job(name string) job {
	return job{
		name: name, kafka: s.kafka, topic: demo.Topic, limits: "max_records: 1000000, max_bytes: 1GiB", checkpoint: "s3://warehouse/checkpoints",
		catalog: fmt.Sprintf(`{type: rest, uri: "%s", properties: {s3.endpoint: "%s", s3.access-key-id: %s, s3.secret-access-key: %s, s3.region: us-east-1}}`, s.rest, s.s3, servers.S3Key, servers.S3Secret),
		columns: clickColumns, sql: "SELECT * FROM input WHERE event <> 'scroll'",
	}
}

// warm runs a pipeline over a few records first: a catalog server that has just
// started takes seconds for its first table, and a pipeline seldom meets one.
func (s stack) warm(t *testing.T) {
	j := s.job("warm")
	j.topic = "warm"
	produce(t, s.kafka, j.topic, 1000, 0, func(i int64) []byte { value, _ := demo.Record(i); return value })
	t.Logf("with a catalog server that has just started: start to first commit %.2f s", run(t, j).FirstCommit)
}

func (m measured) log(t *testing.T, what string) {
	t.Logf("%s, %d records, REST + S3, memory: 512MiB:\n  CPU seconds per million  %.2f\n  records/s                %.0f\n  peak RSS MiB             %d\n  start to first commit s  %.2f",
		what, m.Records, m.CPUPerMillion, m.RecordsPerSecond, m.PeakMiB, m.FirstCommit)
	line, _ := json.Marshal(m)
	t.Logf("%s", line)
	if m.PeakMiB > rssMax {
		t.Errorf("peak RSS is %d MiB; the most is %d", m.PeakMiB, rssMax)
	}
}

func TestBenchETL(t *testing.T) {
	s := startStack(t)
	s.warm(t)
	n := records(t)
	produce(t, s.kafka, demo.Topic, n, 0, func(i int64) []byte { value, _ := demo.Record(i); return value })
	m := run(t, s.job("etl"))
	m.log(t, "etl")
	if m.Records != n {
		t.Errorf("%d records were read, %d were produced", m.Records, n)
	}
}

// TestBenchPartitions is the same into a table of 200 partitions.
func TestBenchPartitions(t *testing.T) {
	s := startStack(t)
	s.warm(t)
	n := min(records(t), 2_000_000)
	produce(t, s.kafka, demo.Topic, n, 0, func(i int64) []byte { value, _ := demo.Record(i); return value })
	j := s.job("partitions")
	j.partitionBy = `"bucket(200, user_id)"`
	m := run(t, j)
	m.log(t, "200 partitions")
	if m.Records != n {
		t.Errorf("%d records were read, %d were produced", m.Records, n)
	}
}

// TestBenchLargeRecords drains 1,500 records of a megabyte each, which hardly
// compress.
func TestBenchLargeRecords(t *testing.T) {
	const n, size = 1500, 1_000_000
	s := startStack(t)
	s.warm(t)
	random := rand.NewChaCha8([32]byte{1})
	produce(t, s.kafka, "large", n, 4*size, func(i int64) []byte {
		body := make([]byte, size/2)
		_, _ = random.Read(body)
		return fmt.Appendf(nil, `{"id":%d,"body":"%x"}`, i, body)
	})
	j := s.job("large")
	j.topic, j.columns, j.sql = "large", "id BIGINT, body VARCHAR", "SELECT id, length(body) AS size, body FROM input"
	m := run(t, j)
	m.log(t, "large records")
	if m.Records != n {
		t.Errorf("%d records were read, %d were produced", m.Records, n)
	}
}

// TestBenchCommits commits small batches one after the other and compares the
// commit time at the end with that near the beginning.
func TestBenchCommits(t *testing.T) {
	kafka := servers.StartKafka(t, poms).Addr()
	batches := int64(3000)
	produce(t, kafka, demo.Topic, 40*batches, 0, func(i int64) []byte { value, _ := demo.Record(i); return value })
	dir := t.TempDir()
	m := run(t, job{
		name: "commits", kafka: kafka, topic: demo.Topic, limits: "max_records: 40", checkpoint: dir + "/checkpoints",
		catalog: fmt.Sprintf(`{type: sql, uri: "%s/catalog.db", warehouse: "%s/wh"}`, dir, dir),
		columns: clickColumns, sql: "SELECT * FROM input WHERE event <> 'scroll'",
	})
	if len(m.CommitMillis) < int(batches) {
		t.Fatalf("%d batches", len(m.CommitMillis))
	}
	early, late := median(m.CommitMillis[80:180]), median(m.CommitMillis[2850:2990])
	t.Logf("commit, median ms: %.1f around batch 100, %.1f around batch 3000, ratio %.2f", early, late, late/early)
}

func median(v []int64) float64 {
	counts := map[int64]int{}
	for _, x := range v {
		counts[x]++
	}
	seen := 0
	for x := int64(0); ; x++ {
		if seen += counts[x]; seen > len(v)/2 {
			return max(float64(x), 0.5)
		}
	}
}

// produce fills a topic, four partitions, lz4. largest is the size of the
// largest batch, 0: the usual one.
func produce(t *testing.T, broker, topic string, n int64, largest int32, value func(i int64) []byte) {
	t.Helper()
	opts := []kgo.Opt{
		kgo.SeedBrokers(broker), kgo.DefaultProduceTopic(topic), kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.ProducerBatchCompression(kgo.Lz4Compression()), kgo.MaxBufferedRecords(200000), kgo.MaxBufferedBytes(256 << 20), kgo.ProducerLinger(5 * time.Millisecond),
	}
	config := map[string]*string{}
	if largest > 0 {
		opts = append(opts, kgo.ProducerBatchMaxBytes(largest))
		config["max.message.bytes"] = kadm.StringPtr(strconv.Itoa(int(largest) + 1000))
	}
	client, err := kgo.NewClient(opts...)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	if _, err := kadm.NewClient(client).CreateTopic(t.Context(), demo.Partitions, 1, config, topic); err != nil {
		t.Fatal(err)
	}
	var failed atomic.Pointer[error]
	for i := range n {
		client.Produce(t.Context(), &kgo.Record{Partition: int32(i % demo.Partitions), Value: value(i)}, func(_ *kgo.Record, err error) {
			if err != nil {
				failed.Store(&err)
			}
		})
	}
	if err := client.Flush(context.WithoutCancel(t.Context())); err != nil {
		t.Fatal(err)
	}
	if err := failed.Load(); err != nil {
		t.Fatal(*err)
	}
}

const clickColumns = `user_id BIGINT, event VARCHAR, event_time TIMESTAMPTZ, page VARCHAR,
      session VARCHAR, duration_ms INTEGER, price DOUBLE, referrer VARCHAR`

// job is what the binary is run with.
type job struct {
	name, kafka, topic, limits, checkpoint, catalog, columns, sql, partitionBy string
}

// run drains a topic with the binary.
func run(t *testing.T, j job) measured {
	t.Helper()
	spec := filepath.Join(t.TempDir(), "pipeline.yaml")
	text := fmt.Sprintf(`name: %s
memory: 512MiB
trigger: {interval: 0s}
limits: {%s}
checkpoint: "%s"
catalogs:
  lake: %s
sources:
  input:
    kafka: {brokers: ["%s"], topics: [%s], start: earliest}
    format: json
    columns: |
      %s
sinks:
  events:
    sql: %s
    iceberg: {catalog: lake, table: web.%s, partition_by: [%s]}
`, j.name, j.limits, j.checkpoint, j.catalog, j.kafka, j.topic, j.columns, j.sql, j.name, j.partitionBy)
	if err := os.WriteFile(spec, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("../../bin/frazil", "run", spec, "--available-now", "--output", "json", "--log-level", "warn")
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	begun := time.Now()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	peak := watchMemory(cmd.Process.Pid)
	var m measured
	var first, last time.Time
	var before int64
	lines := bufio.NewScanner(out)
	lines.Buffer(nil, 16<<20)
	for lines.Scan() {
		var line struct {
			NumInputRows int64            `json:"numInputRows"`
			DurationMs   map[string]int64 `json:"durationMs"`
		}
		if err := json.Unmarshal(lines.Bytes(), &line); err != nil {
			t.Fatalf("%v: %s", err, lines.Text())
		}
		last = time.Now()
		m.Records += line.NumInputRows
		if first.IsZero() {
			first, before = last, line.NumInputRows
		}
		m.CommitMillis = append(m.CommitMillis, line.DurationMs["commitBatch"])
	}
	m.PeakMiB = peak()
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	m.FirstCommit = first.Sub(begun).Seconds()
	m.CPUPerMillion = (cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()).Seconds() / (float64(m.Records) / 1e6)
	if d := last.Sub(first).Seconds(); d > 0 {
		m.RecordsPerSecond = float64(m.Records-before) / d
	}
	return m
}

// watchMemory reads a process's high-water mark until the function that it
// returns is called, which gives it in MiB. What the kernel says at the process's
// end counts the memory of its parent, too, from before it became the binary.
func watchMemory(pid int) (peakMiB func() int64) {
	stop, done := make(chan struct{}), make(chan int64)
	go func() {
		var peak int64
		tick := time.NewTicker(50 * time.Millisecond)
		defer tick.Stop()
		for {
			status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
			if _, after, ok := strings.Cut(string(status), "VmHWM:"); err == nil && ok {
				kib, _ := strconv.ParseInt(strings.Fields(after)[0], 10, 64)
				peak = max(peak, kib/1024)
			}
			select {
			case <-stop:
				done <- peak
				return
			case <-tick.C:
			}
		}
	}()
	return func() int64 {
		close(stop)
		return <-done
	}
}
