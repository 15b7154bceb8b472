package decode

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/apache/arrow-go/v18/arrow/array"

	"github.com/frazil-io/frazil/internal/batch"
)

func envelope(t testing.TB, ddl string, o Options) Decoder {
	t.Helper()
	o.Envelope = "debezium"
	return decoder(t, ddl, o)
}

const customers = "id INTEGER NOT NULL, name VARCHAR, vip BOOLEAN"

// TestDebezium: what each kind of event becomes.
func TestDebezium(t *testing.T) {
	const source = `"source":{"version":"3.0","connector":"postgresql","ts_ms":1700000000123,"snapshot":"false","sequence":"[\"1\",\"2\"]","lsn":24023128,"xmin":null}`
	for _, c := range []struct{ name, value, want string }{
		{"create", `{"before":null,"after":{"id":1,"name":"a","vip":true},` + source + `,"transaction":null,"op":"c","ts_ms":1700000000200}`, `1 | "a" | true | "c" | "2023-11-14T22:13:20.123Z"`},
		{"read", `{"before":null,"after":{"id":1,"name":"a","vip":null},` + source + `,"op":"r"}`, `1 | "a" | null | "r" | "2023-11-14T22:13:20.123Z"`},
		{"update", `{"before":{"id":1,"name":"a"},"after":{"id":1,"name":"b"},` + source + `,"op":"u"}`, `1 | "b" | null | "u" | "2023-11-14T22:13:20.123Z"`},
		{"members in another order", `{"op":"u","after":{"name":"b","id":1},"before":null,"source":null}`, `1 | "b" | null | "u" | null`},
		{"delete with the whole row", `{"before":{"id":1,"name":"a","vip":false},"after":null,` + source + `,"op":"d"}`, `1 | "a" | false | "d" | "2023-11-14T22:13:20.123Z"`},
		{"delete with the key alone", `{"op":"d","before":{"id":1},"ts_ms":1}`, `1 | null | null | "d" | null`},
		{"microseconds", `{"after":{"id":1},"op":"c","source":{"ts_ms":1700000000123,"ts_us":1700000000123456,"ts_ns":1700000000123456000}}`, `1 | null | null | "c" | "2023-11-14T22:13:20.123456Z"`},
		{"nanoseconds", `{"after":{"id":1},"op":"c","source":{"ts_ns":1700000000123456789,"ts_ms":1700000000123}}`, `1 | null | null | "c" | "2023-11-14T22:13:20.123456Z"`},
		{"no times", `{"after":{"id":1},"op":"c","source":{"ts_ms":null}}`, `1 | null | null | "c" | null`},
		{"unknown members", `{"after":{"id":1,"x":[1]},"op":"c","extra":{"y":1}}`, `1 | null | null | "c" | null`},
		{"spaces", " { \"after\" : { \"id\" : 1 } , \"op\" : \"c\" } ", `1 | null | null | "c" | null`},
		{"in a converter's object", `{"schema":{"type":"struct","fields":[]},"payload":{"after":{"id":1},"op":"c"}}`, `1 | null | null | "c" | null`},
		{"payload first", ` { "payload":{"after":{"id":1},"op":"c"},"schema":{"type":"struct"}}`, `1 | null | null | "c" | null`},
		{"payload alone", `{"payload":{"before":{"id":2},"op":"d"}}`, `2 | null | null | "d" | null`},
		{"null schema", `{"schema":null,"payload":{"after":{"id":1},"op":"c"}}`, `1 | null | null | "c" | null`},

		{"no op", `{"before":null,"after":{"id":1}}`, `!schema there is no op: it is a heartbeat, or no change event`},
		{"null op", `{"after":{"id":1},"op":null}`, `!schema there is no op`},
		{"heartbeat", `{"ts_ms":1700000000123}`, `!schema it is a heartbeat`},
		{"schema change", `{"source":{"ts_ms":1},"ts_ms":1,"databaseName":"d","ddl":"ALTER TABLE t","tableChanges":[]}`, `!schema it is a change of a table's schema`},
		{"transaction", `{"status":"BEGIN","id":"571:1","ts_ms":1,"event_count":null,"data_collections":null}`, `!schema the begin or the end of a transaction`},
		{"message", `{"op":"m","ts_ms":1,"source":{"ts_ms":1},"message":{"prefix":"p","content":"aGk="}}`, `!schema pg_logical_emit_message`},
		{"unknown op", `{"op":"x","after":{"id":1}}`, `!schema op "x" is not c, u, d, r or t, at byte 6`},
		{"op of two letters", `{"op":"cu","after":{"id":1}}`, `!schema op "cu" is not`},
		{"op that is no text", `{"op":1,"after":{"id":1}}`, `!decode expected an operation as text`},
		{"create without after", `{"op":"c","before":null,"after":null}`, `!schema op is c, and after is null`},
		{"update without after", `{"op":"u","before":{"id":1}}`, `!schema op is u, and after is null`},
		{"delete without before", `{"op":"d","before":null,"after":null}`, `!schema op is d, and before is null: nothing says which row it was; set key:`},
		{"delete with after", `{"op":"d","before":{"id":1},"after":{"id":1}}`, `!schema op is d, and after is not null`},
		{"NOT NULL before", `{"op":"d","before":{"name":"a"}}`, `!decode field "before": field "id" is missing`},
		{"NOT NULL after", `{"op":"c","after":{"name":"a"}}`, `!decode field "after": field "id" is missing, at byte`},
		{"wrong type", `{"op":"c","after":{"id":"1"}}`, `!decode field "after": field "id": expected a number, found '"', at byte 24`},
		{"truncate where a column is NOT NULL", `{"op":"t","source":{"ts_ms":1}}`, `!decode op is t (truncate), and field "id" is NOT NULL`},
		{"truncate with a row", `{"op":"t","after":{"id":1}}`, `!schema op is t (truncate), and there is a row`},
		{"MongoDB", `{"op":"c","after":"{\"_id\":1}"}`, `!schema MongoDB`},
		{"after is a number", `{"op":"c","after":1}`, `!decode expected a row`},
		{"source is a text", `{"op":"c","after":{"id":1},"source":"x"}`, `!decode expected the source`},
		{"a time that is a text", `{"op":"c","after":{"id":1},"source":{"ts_ms":"x"}}`, `!decode field "source": expected a number`},
		{"after twice", `{"op":"c","after":{"id":1},"after":{"id":1}}`, `!decode field "after" is there twice`},
		{"op twice", `{"op":"c","after":{"id":1},"op":"u"}`, `!decode field "op" is there twice`},
		{"null twice", `{"op":"c","after":null,"after":{"id":1}}`, `!decode field "after" is there twice`},
		{"payload twice", `{"schema":null,"payload":{"op":"c","after":{"id":1}},"payload":{"op":"c","after":{"id":1}}}`, `!decode field "payload" is there twice`},
		{"no payload", `{"schema":{"type":"struct"}}`, `!schema there is a schema, and no "payload"`},
		{"null payload", `{"schema":null,"payload":null}`, `!decode expected an envelope`},
		{"schema that is none", `{"schema":{"type":1},"payload":{"op":"c","after":{"id":1}}}`, `!schema not one of Kafka Connect's`},
		{"more behind it", `{"op":"c","after":{"id":1}}x`, `!decode expected the end`},
		{"more behind the payload", `{"schema":null,"payload":{"op":"c","after":{"id":1}}}x`, `!decode expected the end`},
		{"cut off", `{"op":"c","after":{"id":1}`, `!decode the JSON ends`},
		{"no object", `[]`, `!decode expected an envelope`},
	} {
		d := envelope(t, customers, Options{Include: []string{IncludeBefore, IncludeSource, IncludeTransaction}})
		plain := envelope(t, customers, Options{})
		err := d.Append(Record{Value: []byte(c.value)})
		if again := plain.Append(Record{Value: []byte(c.value)}); fmt.Sprint(again) != fmt.Sprint(err) {
			t.Errorf("%s: with more columns %v, without %v", c.name, err, again)
		}
		if want, bad := strings.CutPrefix(c.want, "!"); bad {
			code, want, _ := strings.Cut(want, " ")
			var e *Error
			if !errors.As(err, &e) || !strings.Contains(err.Error(), want) || d.Rows() != 0 || string(e.Code) != strings.TrimPrefix(code, "decode") {
				t.Errorf("%s: error %v, want %q; %d rows", c.name, err, want, d.Rows())
			}
			for i, a := range d.Take() {
				if a.Len() != 0 {
					t.Errorf("%s: it left something in %s", c.name, d.Fields()[i].Name)
				}
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
		} else if got := taken(plain); got != c.want+"\n" {
			t.Errorf("%s: got %q, want %q", c.name, got, c.want)
		}
	}
}

// TestDebeziumTruncate: it is a row of NULLs with its op.
func TestDebeziumTruncate(t *testing.T) {
	d := envelope(t, "id INTEGER", Options{})
	if err := d.Append(Record{Value: []byte(`{"op":"t","source":{"ts_ms":1000},"before":null,"after":null}`)}); err != nil {
		t.Fatal(err)
	}
	if got := taken(d); got != "null | \"t\" | \"1970-01-01T00:00:01Z\"\n" {
		t.Error(got)
	}
}

// TestDebeziumInclude: the row before, and where the change comes from.
func TestDebeziumInclude(t *testing.T) {
	d := envelope(t, customers, Options{Include: []string{IncludeTransaction, IncludeBefore, IncludeSource}, Unknown: Column})
	for _, v := range []string{
		`{"before":{"id":1,"name":"a","z":1},"after":{"id":1,"name":"b","z":2},"source":{"lsn":5,"table":"t"},"transaction":{"id":"7:1","total_order":1},"op":"u"}`,
		`{"before":{"id":1},"after":null,"source":null,"op":"d"}`,
		`{"after":{"id":2},"source":{"lsn":6},"transaction":null,"op":"c"}`,
	} {
		if err := d.Append(Record{Value: []byte(v)}); err != nil {
			t.Fatal(err)
		}
	}
	var names []string
	for _, f := range d.Fields() {
		names = append(names, f.Name)
	}
	if got := strings.Join(names, " "); got != "id name vip _unknown _op _source_ts _before _source _transaction" {
		t.Error(got)
	}
	want := `1 | "b" | null | "{\"z\":2}" | "u" | null | {"id":1,"name":"a","vip":null} | "{\"lsn\":5,\"table\":\"t\"}" | "{\"id\":\"7:1\",\"total_order\":1}"
1 | null | null | null | "d" | null | {"id":1,"name":null,"vip":null} | null | null
2 | null | null | null | "c" | null | null | "{\"lsn\":6}" | null
`
	if got := taken(d); got != want {
		t.Errorf("got\n%s", got)
	}
	if _, err := New("json", nil, Options{Envelope: "maxwell"}); !errors.Is(err, batch.ErrInvalid) {
		t.Error(err)
	}
	fields, err := ParseColumns("id INTEGER, _OP VARCHAR")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := New("json", fields, Options{Envelope: "debezium"}); !errors.Is(err, batch.ErrInvalid) || !strings.Contains(err.Error(), `"_op" is there twice`) {
		t.Error(err)
	}
	if _, err := New("json", fields[:1], Options{Envelope: "debezium", Include: []string{"lsn"}}); !errors.Is(err, batch.ErrInvalid) {
		t.Error(err)
	}
}

// TestDebeziumKey: the key's column is the row's where it has the same name, and
// says which row was deleted where the envelope does not.
func TestDebeziumKey(t *testing.T) {
	both := func(key string) Decoder {
		return joinedOf(t, envelope(t, customers, Options{}), keyOf(t, "json", key, Options{Envelope: "debezium"}))
	}
	for _, c := range []struct{ columns, key, value, want string }{
		{"id INTEGER", `{"id":1}`, `{"op":"c","after":{"id":1,"name":"a"}}`, `1 | "a" | null | "c" | null`},
		{"id INTEGER", `{"id":1}`, `{"op":"d","before":null}`, `1 | null | null | "d" | null`},
		{"id INTEGER", `{"id":1}`, ``, `1 | null | null | null | null`},
		{"id INTEGER", `{"schema":{"type":"struct","fields":[{"type":"int32","field":"id"}]},"payload":{"id":1}}`, ``, `1 | null | null | null | null`},
		{"id INTEGER", `{"schema":{"type":"int32"},"payload":1}`, ``, `1 | null | null | null | null`},
		{"id INTEGER, shop INTEGER", `{"id":1,"shop":7}`, `{"op":"d"}`, `1 | null | null | "d" | null | 7`},
		{"shop INTEGER", `{"shop":7}`, `{"op":"c","after":{"id":1}}`, `1 | null | null | "c" | null | 7`},
		{"id INTEGER", ``, `{"op":"c","after":{"id":1}}`, `1 | null | null | "c" | null`},
		{"id INTEGER", ``, `{"op":"d"}`, `!op is d, and both before and the key are null`},
		{"shop INTEGER", `{"shop":7}`, `{"op":"d"}`, `!op is d, and before is null, and field "id" is NOT NULL`},
		{"id INTEGER", `{}`, ``, `!the value is null (a tombstone), and field "id" is NOT NULL`},
		{"id INTEGER", `{"id":"x"}`, `{"op":"c","after":{"id":1}}`, `!key: field "id": expected a number`},
	} {
		d := both(c.columns)
		r := Record{}
		if c.key != "" {
			r.Key = []byte(c.key)
		}
		if c.value != "" {
			r.Value = []byte(c.value)
		}
		err := d.Append(r)
		if want, bad := strings.CutPrefix(c.want, "!"); bad {
			if err == nil || !strings.Contains(err.Error(), want) || d.Rows() != 0 {
				t.Errorf("%s %s: error %v, want %q", c.key, c.value, err, want)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s %s: %v", c.key, c.value, err)
		} else if got := taken(d); got != c.want+"\n" {
			t.Errorf("%s %s: got %q, want %q", c.key, c.value, got, c.want)
		}
	}
	_, err := WithKey(envelope(t, customers, Options{}), keyOf(t, "json", "id BIGINT", Options{Envelope: "debezium"}))
	if !errors.Is(err, batch.ErrInvalid) || !strings.Contains(err.Error(), `column "id" is int32 in columns and int64 in key.columns`) {
		t.Error(err)
	}
}

// TestCoalesce: every type of column is completed from the key.
func TestCoalesce(t *testing.T) {
	columns := "a BIGINT, b VARCHAR, c UUID, d DECIMAL(9,2), e BIGINT[], f STRUCT(x INTEGER), g BOOLEAN, h DATE, i TIMESTAMPTZ, j BLOB, k MAP(VARCHAR, INTEGER)"
	row := `{"a":1,"b":"x","c":"01234567-89ab-cdef-0123-456789abcdef","d":1.25,"e":[1,2],"f":{"x":1},"g":true,"h":"2026-01-02","i":"2026-01-02T00:00:00Z","j":"aGk=","k":{"y":1}}`
	d := joinedOf(t, envelope(t, columns, Options{}), keyOf(t, "json", columns, Options{Envelope: "debezium"}))
	for i := range 9 {
		r := Record{Key: []byte(row)}
		if i%3 != 0 {
			r.Value = []byte(`{"op":"c","after":` + row + `}`)
		}
		if err := d.Append(r); err != nil {
			t.Fatal(err)
		}
	}
	arrays := d.Take()
	for i, a := range arrays[:11] {
		if a.NullN() != 0 || a.Len() != 9 {
			t.Errorf("column %d: %v", i, a)
		}
		for k := 1; k < 9; k++ {
			if !array.SliceEqual(a, int64(k), int64(k+1), a, 0, 1) {
				t.Errorf("column %d: %v", i, a)
			}
		}
	}
}

// TestDebeziumTypes: what Debezium makes of types, with and without a schema.
func TestDebeziumTypes(t *testing.T) {
	for _, c := range []struct{ column, form, schema, value, want string }{
		{"DATE", "", "", `19675`, `"2023-11-14"`},
		{"DATE", "", "", `-1`, `"1969-12-31"`},
		{"DATE", "", "", `"2023-11-14"`, `"2023-11-14"`},
		{"DATE", "", "", `"2023-11-14Z"`, `"2023-11-14"`},
		{"DATE", "ms", "", `19675`, `"2023-11-14"`},
		{"DATE", "", "", `1700000000000`, `!out of range for a DATE`},
		{"DATE", "", "", `1.5`, `!not an integer`},
		{"DATE", "", `"type":"int32","name":"io.debezium.time.Date"`, `19675`, `"2023-11-14"`},
		{"DATE", "", `"type":"int64","name":"io.debezium.time.Timestamp"`, `19675`, `!its schema is io.debezium.time.Timestamp, which no DATE is`},
		{"TIMESTAMP", "", "", `1700000000000`, `!nothing says in which unit; set timestamps:`},
		{"TIMESTAMP", "ms", "", `1700000000123`, `"2023-11-14T22:13:20.123"`},
		{"TIMESTAMP", "us", "", `1700000000123456`, `"2023-11-14T22:13:20.123456"`},
		{"TIMESTAMP", "ns", "", `1700000000123456789`, `"2023-11-14T22:13:20.123456"`},
		{"TIMESTAMP", "ms", `"type":"int64","name":"io.debezium.time.MicroTimestamp"`, `1700000000123456`, `"2023-11-14T22:13:20.123456"`},
		{"TIMESTAMP", "", `"type":"int64","name":"io.debezium.time.Timestamp"`, `1700000000123`, `"2023-11-14T22:13:20.123"`},
		{"TIMESTAMP", "", `"type":"int64","name":"io.debezium.time.NanoTimestamp"`, `1700000000123456789`, `"2023-11-14T22:13:20.123456"`},
		{"TIMESTAMP", "", `"type":"int64","name":"org.apache.kafka.connect.data.Timestamp"`, `1700000000123`, `"2023-11-14T22:13:20.123"`},
		{"TIMESTAMP", "", `"type":"int32","name":"io.debezium.time.Date"`, `19675`, `"2023-11-14T00:00:00"`},
		{"TIMESTAMP", "us", "", `"2023-11-14T22:13:20.123Z"`, `"2023-11-14T22:13:20.123"`},
		{"TIMESTAMP", "us", "", `"2023-11-14T22:13:20.123"`, `"2023-11-14T22:13:20.123"`},
		{"TIMESTAMP", "us", "", `"2023-11-14T22:13:20.123+01:00"`, `!it has a zone`},
		{"TIMESTAMPTZ", "us", "", `"2023-11-14T22:13:20.123Z"`, `"2023-11-14T22:13:20.123Z"`},
		{"TIMESTAMPTZ", "us", "", `"2023-11-14T22:13:20.123"`, `!it has no zone`},
		{"TIMESTAMPTZ", "us", "", `1700000000123456`, `"2023-11-14T22:13:20.123456Z"`},
		{"TIME", "ms", "", `3600000`, `"01:00:00"`},
		{"TIME", "", `"type":"int64","name":"io.debezium.time.MicroTime"`, `3600000000`, `"01:00:00"`},
		{"TIME", "", `"type":"int64","name":"io.debezium.time.NanoTime"`, `3600000000000`, `"01:00:00"`},
		{"TIME", "", "", `"01:00:00Z"`, `"01:00:00"`},
		{"TIME", "", "", `"01:00:00"`, `"01:00:00"`},
		{"TIME", "", "", `"01:00:00+01:00"`, `!not a time`},
		{"TIME", "ms", "", `-3600000`, `!not within a day`},
		{"TIME", "ms", "", `86400000`, `!not within a day`},
		{"TIME", "", "", `1`, `!nothing says in which unit`},
		{"DECIMAL(9,2)", "", "", `12.5`, `"12.5"`},
		{"DECIMAL(9,2)", "", "", `"12.50"`, `"12.5"`},
		{"DECIMAL(9,2)", "", `"type":"bytes","name":"org.apache.kafka.connect.data.Decimal","parameters":{"scale":"2","connect.decimal.precision":"9"}`, `"BOI="`, `"12.5"`},
		{"DECIMAL(9,2)", "", `"type":"bytes","name":"org.apache.kafka.connect.data.Decimal","parameters":{"scale":"2"}`, `"+x4="`, `"-12.5"`},
		{"DECIMAL(9,2)", "", `"type":"bytes","name":"org.apache.kafka.connect.data.Decimal","parameters":{"scale":"2"}`, `12.5`, `"12.5"`},
		{"DECIMAL(9,1)", "", `"type":"bytes","name":"org.apache.kafka.connect.data.Decimal","parameters":{"scale":"2"}`, `"BOI="`, `"12.5"`},
		{"DECIMAL(9,0)", "", `"type":"bytes","name":"org.apache.kafka.connect.data.Decimal","parameters":{"scale":"2"}`, `"BOI="`, `!more than 0 digits behind the point`},
		{"DECIMAL(9,4)", "", `"type":"bytes","name":"org.apache.kafka.connect.data.Decimal","parameters":{"scale":"2"}`, `"BOI="`, `"12.5"`},
		{"DECIMAL(3,2)", "", `"type":"bytes","name":"org.apache.kafka.connect.data.Decimal","parameters":{"scale":"2"}`, `"BOI="`, `!out of range`},
		{"DECIMAL(9,2)", "", `"type":"bytes","name":"org.apache.kafka.connect.data.Decimal","parameters":{"scale":"2"}`, `"12.50"`, `!not the base64 of a decimal's bytes`},
		{"DECIMAL(9,2)", "", `"type":"bytes","name":"org.apache.kafka.connect.data.Decimal","parameters":{"scale":"2"}`, `""`, `!not the base64`},
		{"DECIMAL(9,2)", "", `"type":"bytes","name":"org.apache.kafka.connect.data.Decimal","parameters":{"scale":"2"}`, `"` + strings.Repeat("AAAA", 50) + `"`, `!out of range`},
		{"DECIMAL(9,2)", "", `"type":"bytes","name":"org.apache.kafka.connect.data.Decimal"`, `"BOI="`, `!the scale of the decimal "v" is ""`},
		{"DECIMAL(9,2)", "", "", `{"scale":1,"value":"fQ=="}`, `"12.5"`},
		{"DECIMAL(9,2)", "", "", `{"value":"fQ==","scale":1}`, `"12.5"`},
		{"DECIMAL(9,2)", "", "", `{"value":"fQ=="}`, `!not a decimal with scale and value`},
		{"DECIMAL(9,2)", "", "", `{"value":1,"scale":1}`, `!expected a text in base64`},
		{"DECIMAL(9,2)", "", "", `{"value":"fQ==","scale":4}`, `!more than 2 digits`},
		{
			"STRUCT(d DATE, l DECIMAL(9,2)[])", "", `"type":"struct","fields":[{"field":"d","type":"int32","name":"io.debezium.time.Date"},{"field":"l","type":"array","items":{"type":"bytes","name":"org.apache.kafka.connect.data.Decimal","parameters":{"scale":"2"}}}]`,
			`{"d":19675,"l":["BOI=",null]}`, `{"d":"2023-11-14","l":["12.5",null]}`,
		},
		{"MAP(VARCHAR, DATE)", "", "", `{"a":19675}`, `[{"key":"a","value":"2023-11-14"}]`},
	} {
		d := envelope(t, "v "+c.column, Options{Timestamps: c.form, Include: []string{IncludeBefore}})
		value := fmt.Sprintf(`{"before":{"v":%[1]s},"after":{"v":%[1]s},"op":"c"}`, c.value)
		if c.schema != "" {
			value = fmt.Sprintf(`{"schema":{"type":"struct","fields":[{"type":"struct","field":"before","fields":[]},{"type":"struct","field":"after","fields":[{"field":"v",%s}]}]},"payload":%s}`, c.schema, value)
		}
		err := d.Append(Record{Value: []byte(value)})
		if want, bad := strings.CutPrefix(c.want, "!"); bad {
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%s %s %s: error %v, want %q", c.column, c.schema, c.value, err, want)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s %s %s: %v", c.column, c.schema, c.value, err)
		} else if got, want := taken(d), c.want+` | "c" | null | {"v":`+c.want+"}\n"; got != want {
			t.Errorf("%s %s %s: got %q, want %q", c.column, c.schema, c.value, got, want)
		}
	}
}

// TestSchemasInTurn: each record is read by its own schema, also when schemas
// come in turn, and one without a schema by none.
func TestSchemasInTurn(t *testing.T) {
	d := envelope(t, "at TIMESTAMP", Options{Timestamps: "s"})
	schema := func(name string) string {
		return `{"type":"struct","fields":[{"type":"struct","field":"after","fields":[{"type":"int64","field":"at","name":"io.debezium.time.` + name + `"}]}]}`
	}
	for range 3 {
		for _, v := range []string{
			`{"schema":` + schema("Timestamp") + `,"payload":{"op":"c","after":{"at":1700000000000}}}`,
			`{"schema":` + schema("MicroTimestamp") + `,"payload":{"op":"c","after":{"at":1700000000000000}}}`,
			`{"schema":` + schema("MicroTimestamp") + `,"payload":{"op":"c","after":{"at":1700000000000000}}}`,
			`{"payload":{"op":"c","after":{"at":1700000000000}},"schema":` + schema("Timestamp") + `}`,
			`{"payload":{"op":"c","after":{"at":1700000000}}}`,
			`{"op":"c","after":{"at":1700000000}}`,
			`{"schema":` + schema("NanoTimestamp") + `,"payload":{"op":"c","after":{"at":1700000000000000000}}}`,
			`{"schema":null,"payload":{"op":"c","after":{"at":1700000000}}}`,
		} {
			if err := d.Append(Record{Value: []byte(v)}); err != nil {
				t.Fatal(v, err)
			}
		}
	}
	if got := taken(d); got != strings.Repeat("\"2023-11-14T22:13:20\" | \"c\" | null\n", 24) {
		t.Error(got)
	}
}

// TestSchemasAreBounded: a topic in which no schema comes twice does not fill the
// memory.
func TestSchemasAreBounded(t *testing.T) {
	d := envelope(t, "id INTEGER", Options{})
	filler := strings.Repeat("x", 64<<10)
	for i := range 200 {
		v := fmt.Sprintf(`{"schema":{"type":"struct","name":"%s%d"},"payload":{"op":"c","after":{"id":1}}}`, filler, i)
		if err := d.Append(Record{Value: []byte(v)}); err != nil {
			t.Fatal(err)
		}
	}
	held := 0
	for text := range d.(*debezium).connect.known {
		held += len(text)
	}
	if held > knownMax {
		t.Errorf("%d bytes of schemas are held", held)
	}
}

// FuzzDebezium holds the envelope against its parts: what after gives is what
// the decoder of plain JSON gives for it.
func FuzzDebezium(f *testing.F) {
	for _, s := range []string{
		`{"before":null,"after":{"id":1,"s":"x","t":5},"source":{"ts_ms":1},"op":"c"}`, `{"before":{"id":1},"after":null,"op":"d"}`,
		`{"schema":{"type":"struct","fields":[{"field":"after","type":"struct","fields":[{"field":"d","name":"org.apache.kafka.connect.data.Decimal","parameters":{"scale":"2"}}]}]},"payload":{"op":"u","after":{"d":"BOI="}}}`,
		`{"payload":{"op":"c","after":{"d":{"scale":1,"value":"fQ=="}}},"schema":null}`, `{"op":"t"}`, `{"op":"c","after":{},"after":{}}`, `{"schema":null}`,
	} {
		f.Add([]byte(s))
	}
	const ddl = "id INTEGER, s VARCHAR, t TIMESTAMP, d DECIMAL(9,2), l DATE[]"
	m := newMeter()
	f.Fuzz(func(t *testing.T, value []byte) {
		bare := envelope(t, ddl, Options{Timestamps: "ms"})
		full := joinedOf(t, envelope(t, ddl, Options{Timestamps: "ms", Unknown: Column, Include: []string{IncludeBefore, IncludeSource, IncludeTransaction}}), keyOf(t, "json", "id INTEGER, k VARCHAR", Options{Envelope: "debezium"}))
		for range 2 { // the second time with what the first one left
			var err error
			m.within(t, perByte*len(value), func() { err = full.Append(Record{Key: value, Value: value}) })
			if err != nil && full.Rows() != 0 {
				t.Fatalf("%q: %v, %d rows", value, err, full.Rows())
			}
			for _, a := range full.Take() {
				if a.Len() > 1 {
					t.Fatalf("%q: a column has %d rows", value, a.Len())
				}
				if a.Len() == 1 {
					if err := check(a); err != nil {
						t.Fatal(err)
					}
				}
			}
		}
		err := bare.Append(Record{Value: value})
		var e *Error
		if err != nil && (!errors.As(err, &e) || e.Pos > len(value) || bare.Rows() != 0) || err == nil && bare.Rows() != 1 {
			t.Fatalf("%q: %v, %d rows", value, err, bare.Rows())
		}
		for _, op := range []string{`{"op":"c","after":%s}`, `{"after":%s,"op":"r","before":null}`, `{"schema":null,"payload":{"op":"u","after":%s}}`} {
			one, other := decoder(t, "id INTEGER, s VARCHAR, l BIGINT[]", Options{}), envelope(t, "id INTEGER, s VARCHAR, l BIGINT[]", Options{})
			inner, outer := one.Append(Record{Value: value}), other.Append(Record{Value: fmt.Appendf(nil, op, value)})
			if inner == nil && outer != nil && !strings.Contains(outer.Error(), "nested") {
				t.Fatalf("%q: alone it is a row, in an envelope %v", value, outer)
			}
			if inner == nil && outer == nil {
				a, b := one.Take(), other.Take()
				for i := range a {
					if !array.Equal(a[i], b[i]) {
						t.Fatalf("%q: %v and %v", value, a[i], b[i])
					}
				}
			}
		}
	})
}

func BenchmarkDebezium(b *testing.B) {
	const row = `{"id":123456,"name":"Anne Kretchmar","email":"annek@noanswer.org","created":1700000000123456,"balance":"1234.56","vip":true}`
	const event = `{"before":null,"after":` + row + `,"source":{"version":"3.0.0.Final","connector":"postgresql","name":"fulfillment","ts_ms":1700000000123,"snapshot":"false","db":"postgres","sequence":"[\"24023119\",\"24023128\"]","ts_us":1700000000123456,"ts_ns":1700000000123456000,"schema":"public","table":"customers","txId":555,"lsn":24023128,"xmin":null},"transaction":null,"op":"c","ts_ms":1700000000223,"ts_us":1700000000223456,"ts_ns":1700000000223456000}`
	image := `"type":"struct","optional":true,"name":"fulfillment.public.customers.Value","fields":[{"type":"int32","optional":false,"field":"id"},{"type":"string","optional":true,"field":"name"},{"type":"string","optional":true,"field":"email"},{"type":"int64","optional":true,"name":"io.debezium.time.MicroTimestamp","version":1,"field":"created"},{"type":"string","optional":true,"field":"balance"},{"type":"boolean","optional":true,"field":"vip"}]`
	schema := `{"type":"struct","fields":[{` + image + `,"field":"before"},{` + image + `,"field":"after"},{"type":"string","optional":false,"field":"op"}],"optional":false,"name":"fulfillment.public.customers.Envelope"}`
	const ddl = "id INTEGER NOT NULL, name VARCHAR, email VARCHAR, created TIMESTAMP, balance VARCHAR, vip BOOLEAN"
	for _, c := range []struct {
		name, key, value string
		d                Decoder
	}{
		{"bare", "", event, envelope(b, ddl, Options{Timestamps: "us"})},
		{"schema", "", `{"schema":` + schema + `,"payload":` + event + `}`, envelope(b, ddl, Options{})},
		{"key", `{"id":123456}`, event, joinedOf(b, envelope(b, ddl, Options{Timestamps: "us"}), keyOf(b, "json", "id INTEGER", Options{Envelope: "debezium"}))},
	} {
		b.Run(c.name, func(b *testing.B) {
			r := Record{Value: []byte(c.value)}
			if c.key != "" {
				r.Key = []byte(c.key)
			}
			decodes(b, c.d, r)
		})
	}
}
