package decode

import (
	"errors"
	"strings"
	"testing"

	"github.com/twmb/avro"

	"github.com/frazil-io/frazil/internal/batch"
)

const avroEnvelope = `{"type":"record","name":"Envelope","namespace":"shop.customers","fields":[
	{"name":"before","type":["null",{"type":"record","name":"Value","fields":[
		{"name":"id","type":"int"},{"name":"name","type":["null","string"],"default":null},{"name":"tags","type":{"type":"array","items":"string"},"default":[]}]}],"default":null},
	{"name":"after","type":["null","Value"],"default":null},
	{"name":"source","type":{"type":"record","name":"Source","fields":[{"name":"ts_ms","type":"long"},{"name":"lsn","type":["null","long"],"default":null},{"name":"ts_us","type":["null","long"],"default":null}]}},
	{"name":"op","type":"string"},
	{"name":"transaction","type":["null",{"type":"record","name":"Block","fields":[{"name":"id","type":"string"}]}],"default":null}]}`

func avroRow(id int, name any) map[string]any {
	return map[string]any{"id": id, "name": name, "tags": []any{"x"}}
}

// TestAvroDebezium: an envelope in Avro is what it is in JSON.
func TestAvroDebezium(t *testing.T) {
	schema, err := avro.Parse(avroEnvelope)
	if err != nil {
		t.Fatal(err)
	}
	event := func(op string, before, after, us any) []byte {
		b, err := schema.Encode(map[string]any{
			"before": before, "after": after, "op": op, "source": map[string]any{"ts_ms": int64(1700000000123), "lsn": int64(5), "ts_us": us}, "transaction": nil,
		})
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	o := Options{Reader: Schema{Type: "AVRO", Text: avroEnvelope}, Envelope: "debezium", Include: []string{IncludeBefore, IncludeSource}}
	open := func() Decoder {
		d, err := New("avro", nil, o)
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	d := open()
	for _, v := range [][]byte{
		event("c", nil, avroRow(1, "a"), nil),
		event("u", avroRow(1, "a"), avroRow(1, nil), int64(1700000000123456)),
		event("d", avroRow(1, "b"), nil, nil),
		event("t", nil, nil, nil),
		nil,
		event("r", nil, avroRow(2, "c"), nil),
	} {
		if err := d.Append(Record{Value: v}); err != nil {
			t.Fatal(err)
		}
	}
	want := `1 | "a" | ["x"] | "c" | "2023-11-14T22:13:20.123Z" | null | {"lsn":5,"ts_ms":1700000000123,"ts_us":null}
1 | null | ["x"] | "u" | "2023-11-14T22:13:20.123456Z" | {"id":1,"name":"a","tags":["x"]} | {"lsn":5,"ts_ms":1700000000123,"ts_us":1700000000123456}
1 | "b" | ["x"] | "d" | "2023-11-14T22:13:20.123Z" | {"id":1,"name":"b","tags":["x"]} | {"lsn":5,"ts_ms":1700000000123,"ts_us":null}
null | null | null | "t" | "2023-11-14T22:13:20.123Z" | null | {"lsn":5,"ts_ms":1700000000123,"ts_us":null}
null | null | null | null | null | null | null
2 | "c" | ["x"] | "r" | "2023-11-14T22:13:20.123Z" | null | {"lsn":5,"ts_ms":1700000000123,"ts_us":null}
`
	if got := taken(d); got != want {
		t.Errorf("got\n%s", got)
	}
	for _, c := range []struct {
		value []byte
		want  string
	}{
		{event("x", nil, avroRow(1, nil), nil), `op "x" is not`},
		{event("m", nil, nil, nil), "pg_logical_emit_message"},
		{event("c", nil, nil, nil), "op is c, and after is null"},
		{event("d", nil, nil, nil), "op is d, and before is null"},
		{event("d", nil, avroRow(1, nil), nil), "after is not null"},
		{event("t", nil, avroRow(1, nil), nil), "there is a row"},
		{event("c", nil, avroRow(1, nil), nil)[:4], "ends inside"},
	} {
		var e *Error
		if err := d.Append(Record{Value: c.value}); !errors.As(err, &e) || !strings.Contains(err.Error(), c.want) || d.Rows() != 0 {
			t.Errorf("%v, want %q; %d rows", err, c.want, d.Rows())
		}
	}
	key := keyOf(t, "json", "id INTEGER", Options{Envelope: "debezium"})
	j := joinedOf(t, open(), key)
	if err := j.Append(Record{Key: []byte(`{"id":7}`), Value: event("d", nil, nil, nil)}); err != nil {
		t.Fatal(err)
	}
	if got := taken(j); !strings.HasPrefix(got, `7 | null | null | "d"`) {
		t.Error(got)
	}
}

func TestAvroDebeziumRefuses(t *testing.T) {
	for _, c := range []struct {
		schema  string
		include []string
		want    string
	}{
		{oneField(`"int"`), nil, "not an envelope of Debezium"},
		{avroEnvelope, []string{"lsn"}, `no "lsn"`},
		{strings.Replace(avroEnvelope, `"name":"name"`, `"name":"_op"`, 1), nil, `"_op" is there twice`},
	} {
		_, err := New("avro", nil, Options{Reader: Schema{Type: "AVRO", Text: c.schema}, Envelope: "debezium", Include: c.include})
		if !errors.Is(err, batch.ErrInvalid) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v, want %q", err, c.want)
		}
	}
}

// TestAvroKeys: records, and values that are none.
func TestAvroKeys(t *testing.T) {
	for _, c := range []struct{ schema, key, want string }{
		{`{"type":"record","name":"K","fields":[{"name":"id","type":"long"}]}`, "\x02", "1 | 1\n"},
		{`"long"`, "\x03", "1 | -2\n"},
		{`"string"`, "\x02a", "1 | \"a\"\n"},
	} {
		k, err := NewKey("avro", nil, Options{Reader: Schema{Type: "AVRO", Text: c.schema}})
		if err != nil {
			t.Fatal(err)
		}
		j := joinedOf(t, decoder(t, "v INTEGER", Options{}), k)
		if err := j.Append(Record{Key: []byte(c.key + "x"), Value: []byte(`{"v":1}`)}); err == nil || j.Rows() != 0 {
			t.Errorf("more behind a key: %v", err)
		}
		if err := j.Append(Record{Key: []byte(c.key), Value: []byte(`{"v":`)}); err == nil || j.Rows() != 0 {
			t.Error(err)
		}
		if err := j.Append(Record{Key: []byte(c.key), Value: []byte(`{"v":1}`)}); err != nil {
			t.Fatal(err)
		}
		if name := j.Fields()[1].Name; name != KeyColumn && name != "id" {
			t.Error(name)
		}
		if got := taken(j); got != c.want {
			t.Errorf("got %q, want %q", got, c.want)
		}
	}
}
