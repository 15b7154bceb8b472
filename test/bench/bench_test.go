//go:build integration

package bench

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
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

func TestBenchETL(t *testing.T) {
	kafka := servers.StartKafka(t, poms)
	s3 := servers.StartS3(t)
	rest := servers.StartREST(t, poms, s3)
	n := records(t)
	produce(t, kafka.Addr(), n)
	catalog := fmt.Sprintf(`{type: rest, uri: "%s", properties: {s3.endpoint: "%s", s3.access-key-id: admin, s3.secret-access-key: password123, s3.region: us-east-1}}`, rest, s3)
	m := run(t, "etl", kafka.Addr(), catalog, "s3://warehouse/checkpoints", "max_records: 1000000, max_bytes: 1GiB")
	t.Logf("etl, %d records, REST + S3:\n  CPU seconds per million  %.2f\n  records/s                %.0f\n  peak RSS MiB             %d\n  start to first commit s  %.2f",
		m.Records, m.CPUPerMillion, m.RecordsPerSecond, m.PeakMiB, m.FirstCommit)
	line, _ := json.Marshal(m)
	t.Logf("%s", line)
	if m.Records != n {
		t.Errorf("%d records were read, %d were produced", m.Records, n)
	}
}

// TestBenchCommits commits small batches one after the other and compares the
// commit time at the end with that near the beginning.
func TestBenchCommits(t *testing.T) {
	kafka := servers.StartKafka(t, poms)
	batches := int64(3000)
	produce(t, kafka.Addr(), 40*batches)
	dir := t.TempDir()
	catalog := fmt.Sprintf(`{type: sql, uri: "%s/catalog.db", warehouse: "%s/wh"}`, dir, dir)
	m := run(t, "commits", kafka.Addr(), catalog, dir+"/checkpoints", "max_records: 40")
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

// produce fills the topic clicks, four partitions, lz4.
func produce(t *testing.T, broker string, n int64) {
	t.Helper()
	client, err := kgo.NewClient(kgo.SeedBrokers(broker), kgo.DefaultProduceTopic(demo.Topic), kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.ProducerBatchCompression(kgo.Lz4Compression()), kgo.MaxBufferedRecords(200000), kgo.ProducerLinger(5*time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	if _, err := kadm.NewClient(client).CreateTopic(t.Context(), demo.Partitions, 1, nil, demo.Topic); err != nil {
		t.Fatal(err)
	}
	for i := range n {
		value, _ := demo.Record(i)
		client.Produce(t.Context(), &kgo.Record{Partition: int32(i % demo.Partitions), Value: value}, nil)
	}
	if err := client.Flush(context.WithoutCancel(t.Context())); err != nil {
		t.Fatal(err)
	}
}

// run drains the topic with the binary.
func run(t *testing.T, name, broker, catalog, checkpoint, limits string) measured {
	t.Helper()
	spec := filepath.Join(t.TempDir(), "pipeline.yaml")
	text := fmt.Sprintf(`name: %s
trigger: {interval: 0s}
limits: {%s}
checkpoint: "%s"
catalogs:
  lake: %s
sources:
  clicks:
    kafka: {brokers: ["%s"], topics: [clicks], start: earliest}
    format: json
    columns: |
      user_id BIGINT, event VARCHAR, event_time TIMESTAMPTZ, page VARCHAR,
      session VARCHAR, duration_ms INTEGER, price DOUBLE, referrer VARCHAR
sinks:
  events:
    sql: SELECT * FROM clicks WHERE event <> 'scroll'
    iceberg: {catalog: lake, table: web.events}
`, name, limits, checkpoint, catalog, broker)
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
		m.CommitMillis = append(m.CommitMillis, line.DurationMs["commit"])
	}
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	usage := cmd.ProcessState.SysUsage().(*syscall.Rusage)
	m.PeakMiB = usage.Maxrss / 1024
	m.FirstCommit = first.Sub(begun).Seconds()
	m.CPUPerMillion = (cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()).Seconds() / (float64(m.Records) / 1e6)
	if d := last.Sub(first).Seconds(); d > 0 {
		m.RecordsPerSecond = float64(m.Records-before) / d
	}
	return m
}
