//go:build integration

package integration

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sr/srfake"

	"github.com/frazil-io/frazil/test/servers"
)

// registry starts a schema registry.
func (l *lab) registry() string {
	l.Helper()
	r := srfake.New()
	l.Cleanup(r.Close)
	return r.URL()
}

// pipeline writes a spec: its sources, sinks and what else is not the same for all.
func (l *lab) pipeline(name, rest string) {
	l.Helper()
	l.spec = filepath.Join(l.TempDir(), name+".yaml")
	text := fmt.Sprintf(`name: %s
trigger: {interval: 0s}
checkpoint: s3://warehouse/checkpoints
memory: 512MiB
catalogs:
  lake:
    type: rest
    uri: %s
    properties: {s3.endpoint: %s, s3.access-key-id: admin, s3.secret-access-key: password123, s3.region: us-east-1}
`, name, l.rest, l.s3) + rest
	if err := os.WriteFile(l.spec, []byte(text), 0o644); err != nil {
		l.Fatal(err)
	}
}

// python runs a script of testdata and returns the last line that it prints.
func (l *lab) python(script string, args ...string) []byte {
	l.Helper()
	cmd := exec.Command(servers.Python(l), append([]string{"-B", "testdata/" + script}, args...)...)
	var out, log bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &log
	if err := cmd.Run(); err != nil {
		l.Fatalf("%s: %v\n%s%s", script, err, tail(out.Bytes()), tail(log.Bytes()))
	}
	lines := bytes.Split(bytes.TrimSpace(out.Bytes()), []byte("\n"))
	return lines[len(lines)-1]
}

// answer is the same for a script that says what it found.
func (l *lab) answer(into any, script string, args ...string) {
	l.Helper()
	if line := l.python(script, args...); json.Unmarshal(line, into) != nil {
		l.Fatalf("%s says %s", script, line)
	}
}

// compare holds tables of the namespace t against what a producer wrote down.
func (l *lab) compare(expected string) {
	l.Helper()
	var got struct {
		Values map[string]int
		Wrong  []string
		More   int
	}
	l.answer(&got, "compare.py", l.direct, l.s3, "t", expected)
	for _, w := range got.Wrong {
		l.Error(w)
	}
	if got.More > 0 {
		l.Errorf("and %d more", got.More)
	}
	if len(got.Values) == 0 {
		l.Error("nothing was compared")
	}
	l.Logf("values that were produced, and found by another reader: %v", got.Values)
}

// verify audits the tables; flags are those of frazil verify.
func (l *lab) verify(flags ...string) {
	l.Helper()
	out, err := exec.Command(l.binary(), append([]string{"verify", l.spec}, flags...)...).CombinedOutput()
	if err != nil {
		l.Errorf("frazil verify %s: %v\n%s", strings.Join(flags, " "), err, out)
	}
}

// trip is one topic that goes into one table of the same name.
type trip struct {
	topic, source, sql string
}

// avroTrips, protobufTrips and jsonTrips write topics with Confluent's serializers,
// let frazil run, and read the tables with pyiceberg: each value is the one that
// was produced.
func avroTrips(l *lab) {
	roundTrip(l, "avro", []trip{
		{topic: "avro-every", sql: "SELECT * REPLACE (epoch_ns(at_ns) AS at_ns, epoch_ns(local_ns) AS local_ns) FROM %s"}, // exact in any table
		{topic: "avro-numbers"},
		{topic: "avro-either", sql: `SELECT coalesce("Order".id, Refund.id) AS id, * FROM %s`},
	})
}

func protobufTrips(l *lab) {
	roundTrip(l, "protobuf", []trip{{topic: "proto-every"}, {topic: "proto-nested", source: "options: {message: shop.Outer.Nested}"}, {topic: "proto-past"}})
}

func jsonTrips(l *lab) {
	columns := l.python("produce_json.py", "columns") // the list is the producer's
	roundTrip(l, "json", []trip{{topic: "json-schema"}, {
		topic: "json-columns", source: fmt.Sprintf("columns: %q", columns),
		sql: "SELECT * REPLACE (at_s::TIMESTAMP AS at_s, at_ms::TIMESTAMP AS at_ms, epoch_ns(at_ns) AS at_ns) FROM %s",
	}})
}

func roundTrip(l *lab, format string, trips []trip) {
	registry := l.registry()
	var sources, sinks strings.Builder
	for _, trip := range trips {
		l.topic = trip.topic
		l.create(2, nil)
		name := l.table()
		if trip.sql == "" {
			trip.sql = "SELECT * FROM %s"
		}
		fmt.Fprintf(&sources, `  %s:
    kafka: {brokers: ["%s"], topics: [%s], start: earliest}
    format: %s
    registry: {url: "%s"}
    %s
`, name, l.kafka.Addr(), trip.topic, format, registry, trip.source)
		fmt.Fprintf(&sinks, `  %[1]s:
    sql: %[2]q
    iceberg: {catalog: lake, table: t.%[1]s}
`, name, fmt.Sprintf(trip.sql, name))
	}
	expected := filepath.Join(l.TempDir(), "expected.json")
	l.python("produce_"+format+".py", l.kafka.Addr(), registry, expected)
	l.pipeline("trip-"+format, "limits: {max_records: 200}\nsources:\n"+sources.String()+"sinks:\n"+sinks.String())
	l.drain()
	l.compare(expected)
	l.verify()
}

// poison runs over topics of which one record in fifty is bad, and is killed at
// random moments: good rows are in the tables, bad ones in the dead letters, each
// once, and every stamp adds up.
func poison(l *lab) {
	registry, expected := l.registry(), filepath.Join(l.TempDir(), "expected.json")
	for _, topic := range []string{"poison-json", "poison-avro"} {
		l.topic = topic
		l.create(3, nil)
	}
	l.python("produce_poison.py", l.kafka.Addr(), registry, expected, "10000")
	l.pipeline("poison", fmt.Sprintf(`limits: {max_records: 1000}
sources:
  orders:
    kafka: {brokers: ["%[1]s"], topics: [poison-json], start: earliest}
    format: json
    columns: id BIGINT NOT NULL, small SMALLINT, price DECIMAL(9,2), at TIMESTAMPTZ, tags VARCHAR[], geo STRUCT(lat DOUBLE), ok BOOLEAN, n VARCHAR
  clicks:
    kafka: {brokers: ["%[1]s"], topics: [poison-avro], start: earliest}
    format: avro
    registry: {url: "%[2]s"}
sinks:
  orders: {sql: "SELECT id, small, n::INTEGER AS n FROM orders", iceberg: {catalog: lake, table: t.poison_orders}}
  clicks: {sql: "SELECT * FROM clicks", iceberg: {catalog: lake, table: t.poison_clicks}}
dead_letter:
  iceberg: {catalog: lake, table: t.poison_letters}
  max_fraction: 0.1
`, l.kafka.Addr(), registry))
	seed := rand.Uint64()
	l.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	for range 6 {
		d := l.start("--takeover")
		if moment := moments[rnd.IntN(len(moments))]; !l.until(d, moment, 1+rnd.IntN(2)) {
			l.Fatalf("it ended by itself before %q:\n%s", moment, tail(d.log.Bytes()))
		}
		_ = d.cmd.Process.Kill()
		<-d.done
	}
	l.drain()
	l.compare(expected)
	var got struct {
		Letters, Stamps int
		Kinds           map[string]int
		Wrong           []string
	}
	l.answer(&got, "letters.py", l.direct, l.s3, expected+".letters", "t.poison_letters", "t.poison_orders", "t.poison_clicks")
	for _, w := range got.Wrong {
		l.Error(w)
	}
	if len(got.Kinds) < 20 || got.Stamps < 20 {
		l.Errorf("%d kinds, %d stamps", len(got.Kinds), got.Stamps)
	}
	l.Logf("%d letters of %d kinds; %d stamps add up", got.Letters, len(got.Kinds), got.Stamps)
	l.verify()
	l.verify("--deep")
	l.mend(registry, expected+".letters", rnd)
}

// mend corrects the spec as far as that helps, and runs the dead letters again while
// the pipeline's driver goes on: what can be taken is in the table once, the rest is
// a letter again. The replay is killed at random moments.
func (l *lab) mend(registry, letters string, rnd *rand.Rand) {
	l.pipeline("poison", fmt.Sprintf(`limits: {max_records: 1000, max_bytes: 32KiB}
sources:
  orders:
    kafka: {brokers: ["%[1]s"], topics: [poison-json], start: earliest}
    format: json
    columns: id BIGINT NOT NULL, n VARCHAR
  clicks:
    kafka: {brokers: ["%[1]s"], topics: [poison-avro], start: earliest}
    format: avro
    registry: {url: "%[2]s"}
sinks:
  orders: {sql: "SELECT id, NULL::SMALLINT AS small, TRY_CAST(n AS INTEGER) AS n FROM orders", iceberg: {catalog: lake, table: t.poison_orders}}
  clicks: {sql: "SELECT * FROM clicks", iceberg: {catalog: lake, table: t.poison_clicks}}
dead_letter:
  iceberg: {catalog: lake, table: t.poison_letters}
  max_fraction: 0.1
`, l.kafka.Addr(), registry))
	live := l.start("--takeover")
	client, err := kgo.NewClient(kgo.SeedBrokers(l.kafka.Addr()), kgo.DefaultProduceTopic("poison-json"))
	if err != nil {
		l.Fatal(err)
	}
	defer client.Close()
	const more, first = 500, 1_000_000
	killed := 0
	for i := range 12 {
		for k := range more {
			client.Produce(l.Context(), &kgo.Record{Value: fmt.Appendf(nil, `{"id": %d, "n": "1"}`, first+i*more+k)}, nil)
		}
		d := l.launch("dead-letters", l.spec, "--replay", "--takeover")
		if !l.until(d, moments[rnd.IntN(len(moments))], 1+rnd.IntN(3)) {
			break
		}
		_ = d.cmd.Process.Kill()
		<-d.done
		killed++
	}
	if killed < 3 {
		l.Fatalf("the replay was killed %d times before its end", killed)
	}
	if err := client.Flush(l.Context()); err != nil {
		l.Fatal(err)
	}
	d := l.launch("dead-letters", l.spec, "--replay", "--takeover")
	if code := l.end(d, 3*time.Minute); code != 2 && code != 0 {
		l.Fatalf("the replay ends with code %d:\n%s", code, tail(d.log.Bytes()))
	}
	select {
	case <-live.done:
		l.Fatalf("the live driver ended beside the replay:\n%s", tail(live.log.Bytes()))
	default:
	}
	_ = live.cmd.Process.Signal(syscall.SIGTERM)
	if code := l.end(live, time.Minute); code != 0 {
		l.Fatalf("the live driver ends with code %d:\n%s", code, tail(live.log.Bytes()))
	}
	l.drain()
	var got struct {
		Taken, Again, Tags int
		Wrong              []string
	}
	l.answer(&got, "replayed.py", l.direct, l.s3, letters, "t.poison_letters", "t.poison_orders", "t.poison_clicks")
	for _, w := range got.Wrong {
		l.Error(w)
	}
	if got.Taken < 20 || got.Again < 20 {
		l.Errorf("%+v", got)
	}
	l.Logf("the replay was killed %d times: %d letters are in the tables, %d wait again", killed, got.Taken, got.Again)
	l.verify()
}

// tenSchemas lets a topic's schema change nine times while the pipeline runs; it
// is killed on the way. The table ends with every column, each under its first id,
// and with each row.
func tenSchemas(l *lab) {
	registry, expected := l.registry(), filepath.Join(l.TempDir(), "expected.json")
	l.create(1, nil)
	producer := exec.CommandContext(l.Context(), servers.Python(l), "-B", "testdata/produce_versions.py", l.kafka.Addr(), registry, expected, l.topic)
	var failed bytes.Buffer
	producer.Stderr = &failed
	next, err := producer.StdinPipe()
	if err != nil {
		l.Fatal(err)
	}
	out, err := producer.StdoutPipe()
	if err != nil {
		l.Fatal(err)
	}
	if err := producer.Start(); err != nil {
		l.Fatal(err)
	}
	l.pipeline("ten-schemas", fmt.Sprintf(`limits: {max_records: 60}
sources:
  orders:
    kafka: {brokers: ["%s"], topics: [%s], start: earliest}
    format: avro
    registry: {url: "%s"}
sinks:
  rows: {sql: SELECT * FROM orders, iceberg: {catalog: lake, table: t.%[2]s, evolve: widen, properties: {write.metadata.previous-versions-max: "200"}}}
`, l.kafka.Addr(), l.topic, registry))
	var d *driver
	step := 0
	for lines := bufio.NewScanner(out); lines.Scan(); step++ { // the number of records so far
		switch step {
		case 0:
			d = l.start()
		case 5:
			if !l.until(d, "commit sent", 1) {
				l.Fatalf("it ended by itself:\n%s", tail(d.log.Bytes()))
			}
			_ = d.cmd.Process.Kill()
			<-d.done
			d = l.start("--takeover")
		}
		var n int
		if _, err := fmt.Sscan(lines.Text(), &n); err != nil {
			l.Fatal(err)
		}
		if out, err := exec.Command(l.binary(), "wait", l.spec, "--offset", fmt.Sprintf("%s:0:%d", l.topic, n-1), "--timeout", "2m").CombinedOutput(); err != nil {
			l.Fatalf("step %d: %v\n%s\n%s", step, err, out, tail(d.log.Bytes()))
		}
		for len(d.events) > 0 { // what it said of this step
			<-d.events
		}
		if _, err := fmt.Fprintln(next); err != nil {
			l.Fatal(err)
		}
	}
	if err := producer.Wait(); err != nil {
		l.Fatalf("%v\n%s", err, tail(failed.Bytes()))
	}
	if step != 9 {
		l.Fatalf("%d steps", step)
	}
	_ = d.cmd.Process.Signal(syscall.SIGTERM)
	if code := l.end(d, time.Minute); code != 0 {
		l.Fatalf("exit code %d:\n%s", code, tail(d.log.Bytes()))
	}
	l.compare(expected)
	var got struct {
		Files, Schemas, Fields int
		Wrong                  []string
	}
	l.answer(&got, "fields.py", l.direct, l.s3, "t."+l.table())
	for _, w := range got.Wrong {
		l.Error(w)
	}
	if got.Files < 2*step-3 || got.Schemas < 9 {
		l.Errorf("%+v", got)
	}
	l.Logf("%d metadata files, %d schemas, %d fields", got.Files, got.Schemas, got.Fields)
	l.verify("--deep")
}
