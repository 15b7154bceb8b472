//go:build integration

package integration

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/frazil-io/frazil/test/servers"
)

// lab is a set of servers, and a pipeline.
type lab struct {
	*testing.T
	kafka    *servers.Kafka
	s3, rest string // rest is what frazil talks to
	direct   string // the catalog without a proxy
	topic    string
	spec     string
}

var shared *lab

// open starts the servers once for all tests.
func open(t *testing.T) *lab {
	t.Helper()
	l := &lab{T: t}
	l.kafka = servers.StartKafka(t, "testdata")
	l.s3 = servers.StartS3(t)
	l.rest = servers.StartREST(t, "testdata", l.s3)
	l.direct = l.rest
	return l
}

func TestIntegration(t *testing.T) {
	shared = open(t)
	for name, run := range map[string]func(*lab){
		"kills": kills, "two drivers": twoDrivers, "answers cut": answersCut, "frozen driver": frozenDriver, "compacted topic": compacted,
		"avro": avroTrips, "protobuf": protobufTrips, "json": jsonTrips, "poison": poison, "ten_schemas": tenSchemas, "routed": routedKills,
	} {
		t.Run(name, func(t *testing.T) {
			l := *shared
			l.T = t
			l.topic = strings.ReplaceAll(name, " ", "-")
			run(&l)
		})
	}
}

// write makes the pipeline's spec.
func (l *lab) write(limits string) {
	l.Helper()
	l.spec = filepath.Join(l.TempDir(), "pipeline.yaml")
	text := fmt.Sprintf(`name: %[1]s
trigger: {interval: 0s}
limits: {%[2]s}
checkpoint: s3://warehouse/checkpoints
memory: 512MiB
catalogs:
  lake:
    type: rest
    uri: %[3]s
    properties: {s3.endpoint: %[4]s, s3.access-key-id: admin, s3.secret-access-key: password123, s3.region: us-east-1}
sources:
  records:
    kafka: {brokers: ["%[5]s"], topics: [%[1]s], start: earliest}
    format: json
    columns: id BIGINT, key VARCHAR
sinks:
  rows:
    sql: SELECT id, key FROM records
    iceberg: {catalog: lake, table: "t.%[6]s"}
`, l.topic, limits, l.rest, l.s3, l.kafka.Addr(), l.table())
	if err := os.WriteFile(l.spec, []byte(text), 0o644); err != nil {
		l.Fatal(err)
	}
}

func (l *lab) table() string { return strings.ReplaceAll(l.topic, "-", "_") }

func (l *lab) binary() string {
	path, err := filepath.Abs("../../bin/frazil")
	if err != nil {
		l.Fatal(err)
	}
	if _, err := os.Stat(path); err != nil {
		l.Fatalf("%v: run make integration, which builds it", err)
	}
	return path
}

// driver is a running process of frazil.
type driver struct {
	cmd    *exec.Cmd
	events chan string // messages of its log, as they come
	log    bytes.Buffer
	done   chan struct{}
	err    error
}

func (l *lab) start(args ...string) *driver {
	l.Helper()
	return l.launch(append([]string{"run", l.spec}, args...)...)
}

// launch starts a command of the binary.
func (l *lab) launch(args ...string) *driver {
	l.Helper()
	d := &driver{events: make(chan string, 100000), done: make(chan struct{})}
	d.cmd = exec.Command(l.binary(), append(args, "--log-level", "debug", "--log-format", "json")...)
	d.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	pipe, err := d.cmd.StderrPipe()
	if err != nil {
		l.Fatal(err)
	}
	if err := d.cmd.Start(); err != nil {
		l.Fatal(err)
	}
	go func() {
		lines := bufio.NewScanner(pipe)
		lines.Buffer(nil, 16<<20)
		for lines.Scan() {
			d.log.Write(append(lines.Bytes(), '\n'))
			var line struct{ Msg string }
			if json.Unmarshal(lines.Bytes(), &line) == nil {
				select {
				case d.events <- line.Msg:
				default:
				}
			}
		}
		d.err = d.cmd.Wait()
		close(d.done)
	}()
	l.Cleanup(func() {
		_ = d.cmd.Process.Kill()
		<-d.done
	})
	return d
}

// until waits for a message of the log, the nth one.
func (l *lab) until(d *driver, message string, nth int) bool {
	l.Helper()
	deadline := time.NewTimer(2 * time.Minute)
	defer deadline.Stop()
	for {
		select {
		case m := <-d.events:
			if m == message {
				if nth--; nth <= 0 {
					return true
				}
			}
		case <-d.done:
			return false
		case <-deadline.C:
			l.Fatalf("no %q in two minutes:\n%s", message, tail(d.log.Bytes()))
		}
	}
}

func tail(b []byte) []byte { return b[max(0, len(b)-10000):] }

// end waits for a process and returns its exit code.
func (l *lab) end(d *driver, within time.Duration) int {
	l.Helper()
	select {
	case <-d.done:
	case <-time.After(within):
		l.Fatalf("it did not end within %s:\n%s", within, tail(d.log.Bytes()))
	}
	return d.cmd.ProcessState.ExitCode()
}

// drain runs until everything is in the table.
func (l *lab) drain() {
	l.Helper()
	d := l.start("--available-now", "--takeover")
	if code := l.end(d, 5*time.Minute); code != 0 {
		l.Fatalf("exit code %d:\n%s", code, tail(d.log.Bytes()))
	}
}

// check reads the table with other engines.
func (l *lab) check(ids map[int64]bool) {
	l.Helper()
	var sum int64
	for id := range ids {
		sum += id
	}
	out, err := exec.Command(servers.Python(l), "testdata/read.py", l.direct, l.s3, "t."+l.table()).CombinedOutput()
	if err != nil {
		l.Fatalf("read back: %v\n%s", err, out)
	}
	lines := bytes.Split(bytes.TrimSpace(out), []byte("\n"))
	var got map[string][3]int64
	if err := json.Unmarshal(lines[len(lines)-1], &got); err != nil {
		l.Fatalf("%v\n%s", err, out)
	}
	for _, engine := range []string{"pyiceberg", "duckdb"} {
		if want := [3]int64{int64(len(ids)), int64(len(ids)), sum}; got[engine] != want {
			l.Errorf("%s finds count, distinct ids and their sum %v, want %v", engine, got[engine], want)
		}
	}
	l.Logf("%d records, each once, say %v", len(ids), got)
}

// create makes the topic.
func (l *lab) create(partitions int32, configs map[string]*string) {
	l.Helper()
	client, err := kgo.NewClient(kgo.SeedBrokers(l.kafka.Addr()))
	if err != nil {
		l.Fatal(err)
	}
	defer client.Close()
	if _, err := kadm.NewClient(client).CreateTopic(l.Context(), partitions, 1, configs, l.topic); err != nil {
		l.Fatal(err)
	}
}

// produce makes records with transactions, a tenth of them aborted, and returns
// the ids that were committed.
func (l *lab) produce(first, n int64, perTransaction int) map[int64]bool {
	l.Helper()
	client, err := kgo.NewClient(kgo.SeedBrokers(l.kafka.Addr()), kgo.DefaultProduceTopic(l.topic), kgo.TransactionalID(fmt.Sprint(l.topic, first)),
		kgo.ProducerBatchCompression(kgo.Lz4Compression()), kgo.MaxBufferedRecords(100000))
	if err != nil {
		l.Fatal(err)
	}
	defer client.Close()
	ids := map[int64]bool{}
	rnd := rand.New(rand.NewPCG(uint64(first), 1))
	for id := first; id < first+n; {
		if err := client.BeginTransaction(); err != nil {
			l.Fatal(err)
		}
		commit := rnd.IntN(10) > 0
		for range perTransaction {
			if id >= first+n {
				break
			}
			client.Produce(l.Context(), &kgo.Record{Key: fmt.Append(nil, id%1000), Value: fmt.Appendf(nil, `{"id":%d,"key":"%d"}`, id, id%1000)}, nil)
			if commit {
				ids[id] = true
			}
			id++
		}
		if err := client.Flush(l.Context()); err != nil {
			l.Fatal(err)
		}
		if err := client.EndTransaction(l.Context(), kgo.TransactionEndTry(commit)); err != nil {
			l.Fatal(err)
		}
	}
	return ids
}

// moments at which a driver is killed: what its log says just before.
var moments = []string{"plan logged", "attempt registered", "files written", "commit sent", "commit applied", "batch done"}

// kills drains a million records with transactions, and is killed at twenty aimed
// moments on the way; the broker is restarted, too.
func kills(l *lab) {
	l.create(4, nil)
	ids := l.produce(0, 1_000_000, 5000)
	l.write("max_records: 25000")
	histogram := map[string]int{}
	for i := range 20 {
		d := l.start("--takeover")
		moment := moments[i%len(moments)]
		if !l.until(d, moment, 1+i%2) {
			l.Fatalf("it ended by itself:\n%s", tail(d.log.Bytes()))
		}
		_ = d.cmd.Process.Kill()
		<-d.done
		histogram[moment]++
		if i == 10 {
			l.kafka.Restart(shared) // it must outlive this test
		}
	}
	l.Logf("killed at %v", histogram)
	l.drain()
	l.check(ids)
	l.verify("--deep")
}

// twoDrivers runs two at once: one of them is fenced, whichever logs second; a
// third one stands by.
func twoDrivers(l *lab) {
	l.create(2, nil)
	ids := l.produce(0, 150_000, 1000)
	l.write("max_records: 500")
	first := l.start()
	l.until(first, "batch done", 2)
	second := l.start("--takeover")
	var fenced, owner *driver
	select {
	case <-first.done:
		fenced, owner = first, second
	case <-second.done:
		fenced, owner = second, first
	case <-time.After(time.Minute):
		l.Fatalf("nobody was fenced:\n%s", tail(second.log.Bytes()))
	}
	if code := fenced.cmd.ProcessState.ExitCode(); code != 4 {
		l.Fatalf("it ended with %d, want 4 (fenced):\n%s", code, tail(fenced.log.Bytes()))
	}
	third := l.start()
	if !l.until(third, "another driver owns the pipeline; standing by", 1) {
		l.Fatalf("the third driver does not stand by:\n%s", tail(third.log.Bytes()))
	}
	_ = third.cmd.Process.Kill()
	_ = owner.cmd.Process.Signal(syscall.SIGTERM)
	if code := l.end(owner, time.Minute); code != 0 {
		l.Fatalf("the owner ended with %d at SIGTERM:\n%s", code, tail(owner.log.Bytes()))
	}
	l.drain()
	l.check(ids)
	l.verify()
}

// proxy passes requests on to the catalog. Where that does not answer, the connection
// is cut.
func (l *lab) proxy() *httputil.ReverseProxy {
	l.Helper()
	target, err := url.Parse(l.direct)
	if err != nil {
		l.Fatal(err)
	}
	proxy := httputil.NewSingleHostReverseProxy(target)
	proxy.ErrorHandler = func(http.ResponseWriter, *http.Request, error) { panic(http.ErrAbortHandler) }
	return proxy
}

// behind puts what serves before the catalog of the pipeline.
func (l *lab) behind(serves http.Handler) {
	server := &http.Server{Addr: fmt.Sprintf("127.0.0.1:%d", servers.Port(l)), Handler: serves}
	go func() { _ = server.ListenAndServe() }()
	l.Cleanup(func() { _ = server.Close() })
	l.rest = "http://" + server.Addr
}

// answersCut puts a proxy before the catalog that loses the answers to commits
// that were applied.
func answersCut(l *lab) {
	l.create(2, nil)
	ids := l.produce(0, 20_000, 500)
	var commits, cut atomic.Int64
	proxy := l.proxy()
	proxy.ModifyResponse = func(r *http.Response) error {
		if r.Request.Method == http.MethodPost && strings.Contains(r.Request.URL.Path, "/tables/") && r.StatusCode == http.StatusOK {
			switch n := commits.Add(1); {
			case n%3 == 0:
				cut.Add(1)
				return errors.New("the answer is lost")
			case n%5 == 0: // applied, and said to have failed
				cut.Add(1)
				r.StatusCode, r.Status = http.StatusBadGateway, "502 Bad Gateway"
			}
		}
		return nil
	}
	l.behind(proxy)
	l.write("max_records: 1000")
	l.drain()
	if cut.Load() < 3 {
		l.Fatalf("%d answers were cut", cut.Load())
	}
	l.Logf("%d of %d answers to applied commits were lost", cut.Load(), commits.Load())
	l.check(ids)
	l.verify()
}

// frozenDriver stops a driver in the middle of a batch, lets another one
// overtake it, and wakes it up.
func frozenDriver(l *lab) {
	l.create(2, nil)
	ids := l.produce(0, 20_000, 500)
	l.write("max_records: 1000")
	for _, moment := range []string{"plan logged", "commit sent"} {
		first := l.start("--takeover")
		l.until(first, moment, 2)
		_ = first.cmd.Process.Signal(syscall.SIGSTOP)
		second := l.start("--takeover")
		l.until(second, "batch done", 3)
		_ = first.cmd.Process.Signal(syscall.SIGCONT)
		if code := l.end(first, time.Minute); code != 4 {
			l.Fatalf("frozen at %q it ended with %d, want 4 (fenced):\n%s", moment, code, tail(first.log.Bytes()))
		}
		_ = second.cmd.Process.Kill()
		<-second.done
	}
	l.drain()
	l.check(ids)
	l.verify()
}

// compacted reads a topic whose cleaner removed records: what is read is what is
// left.
func compacted(l *lab) {
	value := func(s string) *string { return &s }
	l.create(1, map[string]*string{
		"cleanup.policy": value("compact"), "segment.bytes": value("1048576"), "min.cleanable.dirty.ratio": value("0.01"),
		"max.compaction.lag.ms": value("100"), "segment.ms": value("200"), "delete.retention.ms": value("100"),
	})
	l.produce(0, 50_000, 1000)
	client, err := kgo.NewClient(kgo.SeedBrokers(l.kafka.Addr()))
	if err != nil {
		l.Fatal(err)
	}
	defer client.Close()
	var left map[int64]bool
	ctx, cancel := context.WithTimeout(l.Context(), 2*time.Minute)
	defer cancel()
	for tick := time.NewTicker(500 * time.Millisecond); ; <-tick.C {
		left = l.visible()
		if len(left) < 25_000 {
			tick.Stop()
			break
		}
		if ctx.Err() != nil {
			l.Fatalf("the cleaner did not run: %d records are left", len(left))
		}
	}
	l.write("max_records: 5000")
	// The cleaner may go on: only records that are there before and after count.
	l.drain()
	l.verify()
	after := l.visible()
	ids := l.inTable()
	for id := range after {
		if left[id] && !ids[id] {
			l.Fatalf("record %d is missing", id)
		}
	}
	for id := range ids {
		if !left[id] {
			l.Fatalf("record %d was compacted away before it was read", id)
		}
	}
	l.Logf("%d of 50000 records were left by the cleaner, %d are in the table", len(left), len(ids))
}

// visible reads the topic with another client.
func (l *lab) visible() map[int64]bool {
	l.Helper()
	client, err := kgo.NewClient(kgo.SeedBrokers(l.kafka.Addr()), kgo.ConsumeTopics(l.topic), kgo.FetchIsolationLevel(kgo.ReadCommitted()))
	if err != nil {
		l.Fatal(err)
	}
	defer client.Close()
	ids := map[int64]bool{}
	for quiet := 0; quiet < 3; {
		ctx, cancel := context.WithTimeout(l.Context(), time.Second)
		n := 0
		client.PollFetches(ctx).EachRecord(func(r *kgo.Record) {
			var v struct{ ID int64 }
			if json.Unmarshal(r.Value, &v) == nil {
				ids[v.ID] = true
				n++
			}
		})
		cancel()
		if n == 0 {
			quiet++
		}
	}
	return ids
}

// inTable asks frazil's own query for the ids.
func (l *lab) inTable() map[int64]bool {
	l.Helper()
	out, err := exec.Command(l.binary(), "query", l.spec, "SELECT id FROM rows", "--output", "csv").Output()
	if err != nil {
		l.Fatalf("query: %v", err)
	}
	ids := map[int64]bool{}
	for line := range strings.Lines(string(out)) {
		var id int64
		if _, err := fmt.Sscan(line, &id); err == nil {
			if ids[id] {
				l.Fatalf("record %d is there twice", id)
			}
			ids[id] = true
		}
	}
	return ids
}
