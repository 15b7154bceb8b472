package pipeline

import (
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/twmb/avro"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sr"
	"github.com/twmb/franz-go/pkg/sr/srfake"
)

const (
	changeKey   = `{"type":"record","name":"Key","fields":[{"name":"id","type":"int"},{"name":"shop","type":"string"}]}`
	changeEvent = `{"type":"record","name":"Envelope","fields":[
		{"name":"before","type":["null",{"type":"record","name":"Value","fields":[{"name":"id","type":"int"},{"name":"name","type":["null","string"],"default":null}]}],"default":null},
		{"name":"after","type":["null","Value"],"default":null},{"name":"source","type":{"type":"record","name":"Source","fields":[{"name":"ts_ms","type":"long"}]}},{"name":"op","type":"string"}]}`
)

// TestAvroChanges: change events and keys in Avro, whose schemas are in one
// registry, from Kafka to the table.
func TestAvroChanges(t *testing.T) {
	c, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(1, "people"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	r := srfake.New()
	t.Cleanup(r.Close)
	r.SeedSchema("people-key", 1, 7, sr.Schema{Schema: changeKey})
	r.SeedSchema("people-value", 1, 8, sr.Schema{Schema: changeEvent})
	client, err := kgo.NewClient(kgo.SeedBrokers(c.ListenAddrs()...), kgo.DefaultProduceTopic("people"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	framed := func(id uint32, schema string, value map[string]any) []byte {
		b, err := avro.MustParse(schema).AppendEncode(binary.BigEndian.AppendUint32([]byte{0}, id), value)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	key := framed(7, changeKey, map[string]any{"id": 1, "shop": "x"})
	event := func(op string, before, after any) []byte {
		return framed(8, changeEvent, map[string]any{"before": before, "after": after, "source": map[string]any{"ts_ms": int64(1700000000123)}, "op": op})
	}
	ann, bob := map[string]any{"id": 1, "name": "ann"}, map[string]any{"id": 1, "name": "bob"}
	for _, k := range []*kgo.Record{
		{Key: key, Value: event("c", nil, ann)},
		{Key: key, Value: event("u", ann, bob)},
		{Key: key, Value: event("d", bob, nil)},
		{Key: key},
		{Key: key, Value: event("d", nil, nil)},
		{Key: []byte("no key"), Value: event("c", nil, ann)},
		{Key: key, Value: event("x", nil, ann)}, // bad, both
	} {
		if err := client.ProduceSync(t.Context(), k).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	spec := avroSpec(t, "{available_now: true}", c.ListenAddrs()[0], fmt.Sprintf("envelope: debezium, key: {format: avro}, metadata: true, tombstones: keep, on_bad_record: skip, registry: {url: %q}", r.URL()))
	if got := spec.Sources.By["people"].Key.Registry.Subject; got != "people-key" {
		t.Fatalf("the key's subject is %q", got)
	}
	p, err := New(t.Context(), spec, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if err := p.Run(t.Context(), t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := p.current(); got["people"] != 8 || got["people"+keyPart] != 7 {
		t.Errorf("the plan's schemas are %v", got)
	}
	want := []string{
		"0|1|ann|x|c|2023-11-14 22:13:20.123+00", "1|1|bob|x|u|2023-11-14 22:13:20.123+00", "2|1|bob|x|d|2023-11-14 22:13:20.123+00",
		"3|1|NULL|x|NULL|NULL", "4|1|NULL|x|d|2023-11-14 22:13:20.123+00",
	}
	got := lines(t, p, `SELECT array_to_string([coalesce(x, 'NULL') FOR x IN [_offset::VARCHAR, id::VARCHAR, name, shop, _op, _source_ts::VARCHAR]], '|') FROM everyone ORDER BY _offset`)
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s", strings.Join(got, "\n"))
	}
}
