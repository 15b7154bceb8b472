package pipeline

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/twmb/avro"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sr"
	"github.com/twmb/franz-go/pkg/sr/srfake"

	"github.com/frazil-io/frazil/internal/batch"
	"github.com/frazil-io/frazil/internal/config"
	"github.com/frazil-io/frazil/internal/driver"
)

func avroRecord(fields ...string) string {
	return `{"type":"record","name":"Person","namespace":"org.example","fields":[` + strings.Join(fields, ",") + `]}`
}

// tenSchemas are the history of a topic: fields are promoted, renamed, added and
// removed. The last one gives the columns.
var tenSchemas = []struct {
	schema string
	value  map[string]any
	row    string
}{
	{avroRecord(`{"name":"id","type":"int"}`, `{"name":"name","type":"string"}`), map[string]any{"id": 1, "name": "ann"}, "1|ann|NULL|[]|new|0.5|NULL|??"},
	{avroRecord(`{"name":"id","type":"int"}`, `{"name":"name","type":"string"}`, `{"name":"email","type":["null","string"],"default":null}`), map[string]any{"id": 2, "name": "bob", "email": "b@x"}, "2|bob|b@x|[]|new|0.5|NULL|??"},
	{avroRecord(`{"name":"id","type":"long"}`, `{"name":"name","type":"string"}`, `{"name":"email","type":["null","string"],"default":null}`), map[string]any{"id": int64(3 << 40), "name": "cid", "email": nil}, "3298534883328|cid|NULL|[]|new|0.5|NULL|??"},
	{avroRecord(`{"name":"email","type":["null","string"],"default":null}`, `{"name":"id","type":"long"}`, `{"name":"name","type":"bytes"}`), map[string]any{"id": 4, "name": []byte("dee"), "email": "d@x"}, "4|dee|d@x|[]|new|0.5|NULL|??"},
	{avroRecord(`{"name":"id","type":"long"}`, `{"name":"full_name","type":"string","aliases":["name"]}`), map[string]any{"id": 5, "full_name": "eve"}, "5|eve|NULL|[]|new|0.5|NULL|??"},
	{avroRecord(`{"name":"id","type":"long"}`, `{"name":"full_name","type":"string"}`, `{"name":"tags","type":{"type":"array","items":"string"},"default":[]}`), map[string]any{"id": 6, "full_name": "fay", "tags": []any{"a", "b"}}, "6|fay|NULL|[a, b]|new|0.5|NULL|??"},
	{avroRecord(`{"name":"id","type":"long"}`, `{"name":"full_name","type":"string"}`, `{"name":"status","type":{"type":"enum","name":"Status","symbols":["gone","new","ok"]}}`), map[string]any{"id": 7, "full_name": "gus", "status": "gone"}, "7|gus|NULL|[]|other|0.5|NULL|??"},
	{avroRecord(`{"name":"id","type":"long"}`, `{"name":"full_name","type":"string"}`, `{"name":"score","type":"float"}`, `{"name":"since","type":{"type":"long","logicalType":"timestamp-millis"}}`), map[string]any{"id": 8, "full_name": "hal", "score": 2.5, "since": int64(1)}, "8|hal|NULL|[]|new|2.5|1970-01-01 00:00:00.001+00|??"},
	{avroRecord(`{"name":"id","type":"long"}`, `{"name":"gone","type":{"type":"map","values":"string"}}`, `{"name":"full_name","type":"string"}`), map[string]any{"id": 9, "full_name": "ida", "gone": map[string]any{"k": "v"}}, "9|ida|NULL|[]|new|0.5|NULL|??"},
	{
		avroRecord(`{"name":"id","type":"long"}`, `{"name":"full_name","type":"string","aliases":["name"]}`, `{"name":"email","type":["null","string"],"default":null}`, `{"name":"tags","type":{"type":"array","items":"string"},"default":[]}`,
			`{"name":"status","type":{"type":"enum","name":"Status","symbols":["new","ok","other"],"default":"other"},"default":"new"}`, `{"name":"score","type":"double","default":0.5}`,
			`{"name":"since","type":["null",{"type":"long","logicalType":"timestamp-micros"}],"default":null}`, `{"name":"country","type":"string","default":"??"}`),
		map[string]any{"id": 10, "full_name": "jon", "email": nil, "tags": []any{}, "status": "ok", "score": 9.5, "since": int64(2), "country": "de"},
		"10|jon|NULL|[]|ok|9.5|1970-01-01 00:00:00.000002+00|de",
	},
}

// avroTopic is a topic with one record of each schema, and their registry.
func avroTopic(t *testing.T) (brokers []string, client *kgo.Client, r *srfake.Registry) {
	t.Helper()
	c, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(1, "people"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	r = srfake.New()
	t.Cleanup(r.Close)
	if client, err = kgo.NewClient(kgo.SeedBrokers(c.ListenAddrs()...), kgo.DefaultProduceTopic("people")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	for i, s := range tenSchemas {
		r.SeedSchema("people-value", i+1, 100+i, sr.Schema{Schema: s.schema})
		value, err := avro.MustParse(s.schema).AppendEncode(binary.BigEndian.AppendUint32([]byte{0}, uint32(100+i)), s.value)
		if err != nil {
			t.Fatal(err)
		}
		if err := client.ProduceSync(t.Context(), &kgo.Record{Value: value}).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	return c.ListenAddrs(), client, r
}

func avroSpec(t *testing.T, trigger, brokers, source string) *config.Spec {
	t.Helper()
	spec, err := config.Parse("spec.yaml", fmt.Appendf(nil, `
name: people
trigger: %s
checkpoint: %[2]q
catalogs: {lake: {type: sql, uri: "%[2]s/catalog.db", warehouse: "%[2]s/warehouse"}}
sources: {people: {kafka: {brokers: [%[3]q], topics: [people], start: earliest}, format: avro, %[4]s}}
sinks: {everyone: {sql: SELECT * FROM people, iceberg: {catalog: lake, table: a.people}}}
`, trigger, t.TempDir(), brokers, source), func(string) (string, bool) { return "", false })
	if err != nil {
		t.Fatal(err)
	}
	return spec
}

// everyone are the table's rows, sorted.
func everyone(t *testing.T, p *Pipeline) []string {
	t.Helper()
	return lines(t, p, `SELECT array_to_string([coalesce(x::VARCHAR, 'NULL') FOR x IN [id::VARCHAR, full_name, email, tags::VARCHAR, status, score::VARCHAR, since::VARCHAR, country]], '|') FROM everyone ORDER BY id`)
}

// TestAvroTenSchemas reads a topic's whole history, and counts what the registry
// does not know as bad.
func TestAvroTenSchemas(t *testing.T) {
	brokers, client, r := avroTopic(t)
	for _, bad := range [][]byte{{0, 0, 0, 3, 231, 2}, {0, 0, 0, 0, 100, 2}, []byte("{}")} { // an unknown id, a record cut off, JSON
		if err := client.ProduceSync(t.Context(), &kgo.Record{Value: bad}).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	w := watcher{make(chan driver.Progress, 10), make(chan string, 1)}
	p, err := New(t.Context(), avroSpec(t, "{available_now: true}", brokers[0], fmt.Sprintf("on_bad_record: skip, registry: {url: %q}", r.URL())), Options{Observer: w})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if err := p.Run(t.Context(), t.Context()); err != nil {
		t.Fatal(err)
	}
	var want []string
	for _, s := range tenSchemas {
		want = append(want, s.row)
	}
	got := everyone(t, p)
	slices.Sort(got)
	slices.Sort(want)
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	var tally batch.Tally
	for len(w.batches) > 0 {
		tally = tally.Plus((<-w.batches).Tally)
	}
	if tally.Rows != 10 || tally.Skipped != 3 || !tally.Balanced() {
		t.Errorf("tally %+v", tally)
	}
}

// TestAvroWaitsForRegistry: a batch whose schemas cannot be had is repeated until
// they can; no record is called bad meanwhile.
func TestAvroWaitsForRegistry(t *testing.T) {
	brokers, _, r := avroTopic(t)
	var away atomic.Bool
	away.Store(true)
	r.Intercept(func(w http.ResponseWriter, req *http.Request) bool {
		if !away.Load() || !strings.HasPrefix(req.URL.Path, "/schemas/") {
			return false
		}
		w.WriteHeader(http.StatusServiceUnavailable)
		return true
	})
	w := watcher{make(chan driver.Progress, 10), make(chan string, 1)}
	p, err := New(t.Context(), avroSpec(t, "{interval: 0s}", brokers[0], fmt.Sprintf("on_bad_record: skip, registry: {url: %q}", r.URL())), Options{Observer: w})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	stop, cancel := context.WithCancel(t.Context())
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- p.Run(t.Context(), stop) }()
	for reason := ""; !strings.Contains(reason, "schema registry "+r.URL()); {
		reason = <-w.waits
	}
	away.Store(false)
	for {
		b := <-w.batches
		if b.Tally.Skipped != 0 {
			t.Fatalf("records are skipped while the registry is away: %+v", b.Tally)
		}
		if b.Tally.Rows == 10 {
			break
		}
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// TestAvroSchemaIsFound: where the columns come from, and what is said where they
// cannot be had.
func TestAvroSchemaIsFound(t *testing.T) {
	_, _, r := avroTopic(t)
	r.SeedSchema("proto", 1, 7, sr.Schema{Schema: `syntax = "proto3"; message A {}`, Type: sr.TypeProtobuf})
	gone := srfake.New()
	gone.Close()
	file := filepath.Join(t.TempDir(), "person.avsc")
	if err := os.WriteFile(file, []byte(tenSchemas[0].schema), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		source, columns string
		kind            error
		says            string
	}{
		{fmt.Sprintf("registry: {url: %q}", r.URL()), "id full_name email tags status score since country", nil, ""},
		{fmt.Sprintf("registry: {url: [%q, %q], version: latest}", gone.URL(), r.URL()), "id full_name email tags status score since country", nil, ""},
		{fmt.Sprintf("registry: {url: %q, version: 2}", r.URL()), "id name email", nil, ""},
		{fmt.Sprintf("schema_file: %q", file), "id name", nil, ""},
		{fmt.Sprintf("registry: {url: %q, version: 11}", r.URL()), "", batch.ErrInvalid, "correct registry.subject and registry.version"},
		{fmt.Sprintf("registry: {url: %q, subject: nobody}", r.URL()), "", batch.ErrInvalid, `subject "nobody"`},
		{fmt.Sprintf("registry: {url: %q, subject: proto}", r.URL()), "", batch.ErrInvalid, "holds a schema of type PROTOBUF"},
		{fmt.Sprintf("registry: {url: %q}", gone.URL()), "", batch.ErrUnavailable, "does not answer; is it running"},
		{"schema_file: nowhere.avsc", "", batch.ErrInvalid, "source people: schema_file: open nowhere.avsc"},
	} {
		p, err := New(t.Context(), avroSpec(t, "{interval: 0s}", "localhost:9", c.source), Options{ReadOnly: true})
		if c.kind != nil {
			if !errors.Is(err, c.kind) || !strings.Contains(err.Error(), c.says) {
				t.Errorf("%s: %v", c.source, err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", c.source, err)
			continue
		}
		var columns []string
		for _, f := range p.Schema("everyone").Fields() {
			columns = append(columns, f.Name)
		}
		if got := strings.Join(columns, " "); got != c.columns {
			t.Errorf("%s: columns %s", c.source, got)
		}
		p.Close()
	}
}
