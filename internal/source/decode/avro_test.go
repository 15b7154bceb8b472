package decode

import (
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"testing"

	"github.com/twmb/avro"

	"github.com/frazil-io/frazil/internal/batch"
)

func avroOf(t testing.TB, schema string) *avroDecoder {
	t.Helper()
	d, err := newAvro(Options{Reader: Schema{Type: "AVRO", Text: schema}})
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func fromHex(t testing.TB, text string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(text, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func oneField(typ string) string {
	return `{"type":"record","name":"R","fields":[{"name":"v","type":` + typ + `}]}`
}

const (
	fruit  = `{"type":"enum","name":"Fruit","symbols":["apple","fig"]}`
	point  = `{"type":"record","name":"Point","fields":[{"name":"x","type":"int"},{"name":"y","type":["null","string"]}]}`
	wide   = `["null","long","string",` + point + `,{"type":"fixed","name":"Id","size":2}]`
	longOf = `{"type":"long","logicalType":"%s"}`
	decOf  = `{"type":"bytes","logicalType":"decimal","precision":%d,"scale":%d}`
)

// TestAvroValues: bytes as the specification writes them, into columns.
func TestAvroValues(t *testing.T) {
	for _, c := range []struct {
		typ, bytes, column, want string // want begins with ! for an error
	}{
		{`"null"`, "", "int32", `null`},
		{`"boolean"`, "01", "bool", `true`},
		{`"boolean"`, "00", "bool", `false`},
		{`"boolean"`, "02", "bool", `!field "v": 2 is no boolean, at byte 0`},
		{`"boolean"`, "", "bool", `!field "v": the record ends inside of a boolean`},
		{`"int"`, "01", "int32", `-1`},
		{`"int"`, "ffffffff0f", "int32", `-2147483648`},
		{`"int"`, "feffffff0f", "int32", `2147483647`},
		{`"int"`, "8080808010", "int32", `!2147483648 is out of range for an int, at byte 0`},
		{`"int"`, "80", "int32", `!the record ends inside of a number, at byte 1`},
		{`"long"`, "ffffffffffffffffff01", "int64", `-9223372036854775808`},
		{`"long"`, "feffffffffffffffff01", "int64", `9223372036854775807`},
		{`"long"`, "ffffffffffffffffff7f", "int64", `!a number has more than 64 bits`},
		{`"long"`, "ffffffffffffffffffffff01", "int64", `!a number has more than 64 bits`},
		{`"float"`, "0000c03f", "float32", `1.5`},
		{`"float"`, "0000c0", "float32", `!the record ends inside of a float`},
		{`"double"`, "000000000000f83f", "float64", `1.5`},
		{`"bytes"`, "04 00ff", "binary", `"AP8="`},
		{`"bytes"`, "00", "binary", `""`},
		{`"bytes"`, "03", "binary", `!a length is negative: -2, at byte 0`},
		{`"bytes"`, "04 00", "binary", `!a length of 2, and only 1 bytes follow, at byte 0`},
		{`"bytes"`, "feffffffffffffffff01", "binary", `!a length of 9223372036854775807`},
		{`"string"`, "06 c3a4 62", "utf8", `"äb"`},
		{`"string"`, "06 62 ff 63", "utf8", `!the string is not valid UTF-8, at byte 2`},
		{`{"type":"fixed","name":"F","size":3}`, "010203", "binary", `"AQID"`},
		{`{"type":"fixed","name":"F","size":3}`, "0102", "binary", `!the record ends inside of a fixed`},
		{`{"type":"fixed","name":"F","size":0}`, "", "binary", `""`},
		{fruit, "02", "utf8", `"fig"`},
		{fruit, "04", "utf8", `!symbol 2 of an enum that has 2`},
		{fruit, "01", "utf8", `!symbol -1 of an enum`},
		{`{"type":"array","items":"int"}`, "04 02 04 00", "list<element: int32, nullable>", `[1,2]`},
		{`{"type":"array","items":"int"}`, "04 02 04 02 06 00", "list<element: int32, nullable>", `[1,2,3]`},
		{`{"type":"array","items":"int"}`, "03 04 02 04 00", "list<element: int32, nullable>", `[1,2]`},
		{`{"type":"array","items":"int"}`, "03 06 02 04 00", "list<element: int32, nullable>", `!a block ends at byte 4, not where it says, at byte 5`},
		{`{"type":"array","items":"int"}`, "03 03 02 04 00", "list<element: int32, nullable>", `!a length is negative: -2`},
		{`{"type":"array","items":"int"}`, "00", "list<element: int32, nullable>", `[]`},
		{`{"type":"array","items":"int"}`, "fe01 02", "list<element: int32, nullable>", `!a block of 127 elements, and only 1 bytes follow`},
		{`{"type":"array","items":"int"}`, "ffffffffffffffffff01 02", "list<element: int32, nullable>", `!a block has too many elements`},
		{`{"type":"array","items":"null"}`, "04 00", "list<element: int32, nullable>", `[null,null]`},
		{`{"type":"array","items":"null"}`, "80808080 10 00", "list<element: int32, nullable>", `!a block of 2147483648 elements is too large`},
		{`{"type":"array","items":["null","int"]}`, "04 00 02 06 00", "list<element: int32, nullable>", `[null,3]`},
		{`{"type":"map","values":"long"}`, "04 02 61 02 02 62 04 00", "map<utf8, int64, items_nullable>", `[{"key":"a","value":1},{"key":"b","value":2}]`},
		{`{"type":"map","values":"long"}`, "02 02 61 02 02 02 61 04 00", "map<utf8, int64, items_nullable>", `!key "a" of a map is there twice`},
		{`{"type":"map","values":"int"}`, "02 02 61 8080808010 00", "map<utf8, int32, items_nullable>", `!field "v": field "a": 2147483648 is out of range`},
		{`["null","int"]`, "00", "int32", `null`},
		{`["null","int"]`, "02 08", "int32", `4`},
		{`["int","null"]`, "02", "int32", `null`},
		{`["int","null"]`, "00 08", "int32", `4`},
		{`["null","int"]`, "8200 08", "int32", `4`},
		{`["null","int"]`, "04", "int32", `!type 2 of a union that has 2`},
		{`["null","int"]`, "01", "int32", `!type -1 of a union that has 2`},
		{`["int"]`, "00 08", "int32", `4`},
		{`["null"]`, "00", "int32", `null`},
		{point, "02 02 02 61", "struct<x: int32 nullable, y: utf8 nullable>", `{"x":1,"y":"a"}`},
		{wide, "00", "", `null`},
		{wide, "02 0a", "", `{"Id":null,"Point":null,"long":5,"string":null}`},
		{wide, "04 02 61", "", `{"Id":null,"Point":null,"long":null,"string":"a"}`},
		{wide, "06 02 00", "", `{"Id":null,"Point":{"x":1,"y":null},"long":null,"string":null}`},
		{wide, "08 0102", "", `{"Id":"AQI=","Point":null,"long":null,"string":null}`},
		{wide, "0a", "", `!type 5 of a union that has 5`},
		{`{"type":"int","logicalType":"date"}`, "a2e902", "date32", `"2033-04-21"`},
		{`{"type":"int","logicalType":"time-millis"}`, "02", "time64[us]", `"00:00:00.001"`},
		{`{"type":"int","logicalType":"time-millis"}`, "01", "time64[us]", `!-1 is no time of day`},
		{`{"type":"int","logicalType":"time-millis"}`, "80f0b252", "time64[us]", `!86400000 is no time of day`},
		{fmt.Sprintf(longOf, "time-micros"), "02", "time64[us]", `"00:00:00.000001"`},
		{fmt.Sprintf(longOf, "timestamp-millis"), "02", "timestamp[us, tz=UTC]", `"1970-01-01T00:00:00.001Z"`},
		{fmt.Sprintf(longOf, "timestamp-millis"), "feffffffffffffffff01", "timestamp[us, tz=UTC]", `!9223372036854775807 is out of range for a timestamp`},
		{fmt.Sprintf(longOf, "timestamp-micros"), "01", "timestamp[us, tz=UTC]", `"1969-12-31T23:59:59.999999Z"`},
		{fmt.Sprintf(longOf, "timestamp-nanos"), "02", "timestamp[ns]", `"1970-01-01T00:00:00.000000001"`},
		{fmt.Sprintf(longOf, "local-timestamp-millis"), "02", "timestamp[us]", `"1970-01-01T00:00:00.001"`},
		{fmt.Sprintf(longOf, "local-timestamp-micros"), "02", "timestamp[us]", `"1970-01-01T00:00:00.000001"`},
		{fmt.Sprintf(longOf, "local-timestamp-nanos"), "02", "timestamp[ns]", `"1970-01-01T00:00:00.000000001"`},
		{fmt.Sprintf(longOf, "unheard-of"), "02", "int64", `1`},
		{`{"type":"string","logicalType":"date"}`, "02 61", "utf8", `"a"`},
		{`{"type":"string","logicalType":"uuid"}`, "48 33306562386234322d303033322d346633332d383531612d383737366562623663393837", "extension<arrow.uuid>", `"30eb8b42-0032-4f33-851a-8776ebb6c987"`},
		{`{"type":"string","logicalType":"uuid"}`, "02 61", "extension<arrow.uuid>", `!the text "a" is not a UUID`},
		{`{"type":"fixed","name":"F","size":16,"logicalType":"uuid"}`, "30eb8b4200324f33851a8776ebb6c987", "extension<arrow.uuid>", `"30eb8b42-0032-4f33-851a-8776ebb6c987"`},
		{`{"type":"fixed","name":"F","size":12,"logicalType":"duration"}`, "01000000 02000000 ffffffff", "struct<months: int64 nullable, days: int64 nullable, millis: int64 nullable>", `{"days":2,"millis":4294967295,"months":1}`},
		{fmt.Sprintf(decOf, 4, 2), "04 04d2", "decimal(4, 2)", `"12.34"`},
		{fmt.Sprintf(decOf, 4, 2), "02 ff", "decimal(4, 2)", `"-0.01"`},
		{fmt.Sprintf(decOf, 4, 2), "00", "decimal(4, 2)", `"0"`},
		{fmt.Sprintf(decOf, 4, 2), "04 270f", "decimal(4, 2)", `"99.99"`},
		{fmt.Sprintf(decOf, 4, 2), "04 2710", "decimal(4, 2)", `!a decimal has more than 4 digits`},
		{fmt.Sprintf(decOf, 4, 2), "04 d8f0", "decimal(4, 2)", `!a decimal has more than 4 digits`},
		{fmt.Sprintf(decOf, 38, 0), "28 00000000 0000000000000000000000000000000a", "decimal(38, 0)", `"10"`},
		{fmt.Sprintf(decOf, 38, 0), "28 ffffffff fffffffffffffffffffffffffffffff6", "decimal(38, 0)", `"-10"`},
		{fmt.Sprintf(decOf, 38, 0), "28 00000001 00000000000000000000000000000000", "decimal(38, 0)", `!a decimal has more than 38 digits`},
		{fmt.Sprintf(decOf, 38, 0), "22 00 ffffffffffffffffffffffffffffffff", "decimal(38, 0)", `!a decimal has more than 38 digits`},
		{fmt.Sprintf(decOf, 40, 3), "04 fffe", "utf8", `"-0.002"`},
		{fmt.Sprintf(decOf, 40, 0), "04 00ff", "utf8", `"255"`},
		{`{"type":"fixed","name":"F","size":3,"logicalType":"decimal","precision":6,"scale":1}`, "fffffe", "decimal(6, 1)", `"-0.2"`},
		{`"int"`, "02 02", "int32", `!1 bytes follow the record; was it written with another schema?, at byte 1`},
	} {
		t.Run(c.typ+" "+c.bytes, func(t *testing.T) {
			d := avroOf(t, oneField(c.typ))
			if got := d.Fields()[0].Type.String(); c.column != "" && !strings.HasPrefix(got, c.column) {
				t.Errorf("column of type %s", got)
			}
			err := d.Append(Record{Value: fromHex(t, c.bytes)})
			if want, bad := strings.CutPrefix(c.want, "!"); bad {
				var e *Error
				if !errors.As(err, &e) || !strings.Contains(err.Error(), want) || d.Rows() != 0 || e.Pos < 0 || e.Code != "" {
					t.Fatalf("got %v, %d rows", err, d.Rows())
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if got := strings.TrimSuffix(taken(d), "\n"); got != c.want {
				t.Errorf("got %s, want %s", got, c.want)
			}
		})
	}
}

// TestAvroTop: what the columns are of a schema that is no record.
func TestAvroTop(t *testing.T) {
	for _, c := range []struct{ schema, columns, bytes, want string }{
		{`"long"`, "value int64", "0a", "5"},
		{`["null","string"]`, "value utf8", "00", "null"},
		{`{"type":"array","items":"int"}`, "value list<element: int32, nullable>", "02 02 00", "[1]"},
		{`["null",` + point + `]`, "x int32, y utf8", "02 02 00", "1 | null"},
		{`["null",` + point + `]`, "x int32, y utf8", "00", "null | null"},
		{`[` + point + `,` + fruit + `]`, "Point struct<x: int32 nullable, y: utf8 nullable>, Fruit utf8", "02 02", `null | "fig"`},
		{
			`[{"type":"record","name":"a.P","fields":[{"name":"x","type":"int"}]},{"type":"record","name":"b.P","fields":[{"name":"y","type":"int"}]}]`,
			"a_P struct<x: int32 nullable>, b_P struct<y: int32 nullable>", "02 04", `null | {"y":2}`,
		},
	} {
		d := avroOf(t, c.schema)
		var columns []string
		for _, f := range d.Fields() {
			columns = append(columns, f.Name+" "+f.Type.String())
		}
		if got := strings.Join(columns, ", "); got != c.columns {
			t.Errorf("%s: columns %s", c.schema, got)
		}
		if err := d.Append(Record{Value: fromHex(t, c.bytes)}); err != nil {
			t.Fatal(c.schema, err)
		}
		if got := strings.TrimSuffix(taken(d), "\n"); got != c.want {
			t.Errorf("%s: got %s", c.schema, got)
		}
	}
}

func TestAvroRefusesSchemas(t *testing.T) {
	for _, c := range []struct{ schema, want string }{
		{`{"type":"record","name":"Node","fields":[{"name":"v","type":"int"},{"name":"next","type":["null","Node"]}]}`, `field "next": type Node contains itself`},
		{`{"type":"record","name":"T","fields":[{"name":"a","type":{"type":"record","name":"N","fields":[{"name":"kids","type":{"type":"array","items":"N"}}]}}]}`, `field "a.kids": type N contains itself`},
		{`{"type":"record","name":"T","fields":[]}`, `record T has no fields`},
		{`{"type":"record","name":"T","fields":[{"name":"id","type":"int"},{"name":"ID","type":"int"}]}`, `field "ID" is there twice (as "id")`},
		{`{"type":"record","name":"T","fields":[{"name":"__offset","type":"int"}]}`, `"__offset" has a name of Frazil's own`},
		{`{"type":"record","name":"T","fields":[{"name":"a","type":"nothing"}]}`, `cannot be read`},
		{`not JSON`, `cannot be read`},
		{deep(70), `nested more than 64 deep`},
		{doubled(16), `more than 10000 columns`},
	} {
		_, err := newAvro(Options{Reader: Schema{Text: c.schema}})
		if !errors.Is(err, batch.ErrInvalid) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%.80s: %v, want %s", c.schema, err, c.want)
		}
	}
	if _, err := newAvro(Options{Reader: Schema{Text: `"int"`}, Framing: "registry"}); !errors.Is(err, batch.ErrInvalid) {
		t.Errorf("framing registry without one: %v", err)
	}
}

// deep is a record in a record, and so on.
func deep(n int) string {
	s := `"int"`
	for i := range n {
		s = fmt.Sprintf(`{"type":"record","name":"R%d","fields":[{"name":"f","type":%s}]}`, i, s)
	}
	return s
}

// doubled has 2^n columns in a short text.
func doubled(n int) string {
	s := `"int"`
	for i := range n {
		name := fmt.Sprintf(`"R%d"`, i-1)
		if i == 0 {
			name = `"int"`
		}
		s = fmt.Sprintf(`{"type":"record","name":"R%d","fields":[{"name":"a","type":%s},{"name":"b","type":%s}]}`, i, s, name)
	}
	return s
}

// registryOf answers with schemas by their ids.
type registryOf map[int32]Schema

// IDOf implements Schemas: the last digits of a GUID are its id.
func (r registryOf) IDOf(guid string) (int32, error) {
	id, err := strconv.Atoi(guid[24:])
	if err != nil || r[int32(id)].Type == "" {
		return 0, ErrUnknownSchema
	}
	return int32(id), nil
}

// ByID implements Schemas.
func (r registryOf) ByID(id int32) (Schema, error) {
	s, ok := r[id]
	switch {
	case !ok:
		return Schema{}, ErrUnknownSchema
	case s.Text == "":
		return Schema{}, fmt.Errorf("registry: %w", batch.ErrUnavailable)
	}
	return s, nil
}

func TestAvroFraming(t *testing.T) {
	reader := Schema{ID: 1, Type: "AVRO", Text: oneField(`"long"`)}
	registry := registryOf{
		2: {ID: 2, Type: "AVRO", Text: oneField(`"int"`)}, 3: {ID: 3, Type: "AVRO", Text: oneField(`"string"`)}, 4: {},
		5: {ID: 5, Type: "PROTOBUF", Text: "syntax"}, 6: {ID: 6, Type: "AVRO", Text: "{"},
	}
	d, err := newAvro(Options{Reader: reader, Schemas: registry, Framing: "registry"})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		bytes string
		code  batch.Code
		want  string
	}{
		{"00 00000001 02", "", ""},
		{"00 00000002 04", "", ""},
		{"00 00000001 06", "", ""},
		{"", "", "does not begin with a zero byte and the id"},
		{"00 000000", "", "does not begin with a zero byte and the id"},
		{"01 00000001 02", "", "does not begin with a zero byte and the id"},
		{"00 00000001", "", `the record ends inside of a number, at byte 5`},
		{"00 00000003 02 61", batch.CodeSchema, `schema 3 of the registry does not fit the columns: field "v": it was written as string, and the column is of long`},
		{"00 00000005 02", batch.CodeSchema, "it is of type PROTOBUF"},
		{"00 00000006 02", batch.CodeSchema, "schema 6 of the registry does not fit the columns: it cannot be read"},
		{"00 00000009 02", batch.CodeSchema, "the registry has no schema 9"},
		{"00 ffffffff 02", batch.CodeSchema, "the registry has no schema -1"},
	} {
		err := d.Append(Record{Value: fromHex(t, c.bytes)})
		if c.want == "" {
			if err != nil {
				t.Errorf("%s: %v", c.bytes, err)
			}
			continue
		}
		var e *Error
		if !errors.As(err, &e) || !strings.Contains(err.Error(), c.want) || e.Code != c.code {
			t.Errorf("%s: %v", c.bytes, err)
		}
	}
	var e *Error
	if err := d.Append(Record{Value: fromHex(t, "00 00000004 02")}); !errors.Is(err, batch.ErrUnavailable) || errors.As(err, &e) {
		t.Errorf("a registry that is away: %v", err)
	}
	registry[4] = registry[2] // it is back
	registry[9] = registry[2] // and has learnt
	for _, bytes := range []string{"00 00000004 08", "00 00000009 0a"} {
		if err := d.Append(Record{Value: fromHex(t, bytes)}); err != nil {
			t.Error(err)
		}
	}
	if err := d.Append(Record{}); err != nil {
		t.Error(err)
	}
	if got := taken(d); got != "1\n2\n3\n4\n5\nnull\n" {
		t.Errorf("got %q", got)
	}
}

func TestAvroSingleObject(t *testing.T) {
	s := avro.MustParse(oneField(`"long"`))
	value, err := s.AppendSingleObject(nil, map[string]any{"v": int64(7)})
	if err != nil {
		t.Fatal(err)
	}
	d, err := newAvro(Options{Reader: Schema{Text: oneField(`{"type":"long","doc":"another text of the same schema"}`)}, Framing: "single_object"})
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Append(Record{Value: value}); err != nil {
		t.Fatal(err)
	}
	var e *Error
	if err := d.Append(Record{Value: value[1:]}); !errors.As(err, &e) || !strings.Contains(err.Error(), "C3 01") {
		t.Errorf("no mark: %v", err)
	}
	value[4]++
	if err := d.Append(Record{Value: value}); !errors.As(err, &e) || e.Code != batch.CodeSchema || !strings.Contains(err.Error(), "fingerprint") {
		t.Errorf("another schema: %v", err)
	}
	if got := taken(d); got != "7\n" {
		t.Errorf("got %q", got)
	}
}

// TestAvroFingerprints: schemas of a subject are found by their fingerprints, also
// those that came later.
func TestAvroFingerprints(t *testing.T) {
	var known []Schema
	asked := 0
	d, err := newAvro(Options{Reader: Schema{Text: oneField(`"long"`)}, Framing: "single_object", Known: func() ([]Schema, error) {
		asked++
		if known == nil {
			return nil, batch.ErrUnavailable
		}
		return known, nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	of := func(typ string, v any) []byte {
		value, err := avro.MustParse(oneField(typ)).AppendSingleObject(nil, map[string]any{"v": v})
		if err != nil {
			t.Fatal(err)
		}
		return value
	}
	if err := d.Append(Record{Value: of(`"long"`, int64(1))}); err != nil || asked != 0 {
		t.Errorf("the reader's own: %v, asked %d times", err, asked)
	}
	if err := d.Append(Record{Value: of(`"int"`, int32(2))}); !errors.Is(err, batch.ErrUnavailable) {
		t.Errorf("away: %v", err)
	}
	known = []Schema{{Text: "{"}, {Text: oneField(`"int"`)}, {Text: oneField(`"string"`)}}
	for range 2 {
		if err := d.Append(Record{Value: of(`"int"`, int32(2))}); err != nil || asked != 2 {
			t.Errorf("another version: %v, asked %d times", err, asked)
		}
	}
	var e *Error
	if err := d.Append(Record{Value: of(`"string"`, "a")}); !errors.As(err, &e) || e.Code != batch.CodeSchema || !strings.Contains(err.Error(), "does not fit") {
		t.Errorf("one that does not fit: %v", err)
	}
	if err := d.Append(Record{Value: of(`"double"`, 1.5)}); !errors.As(err, &e) || e.Code != batch.CodeSchema || !strings.Contains(err.Error(), "no known schema") {
		t.Errorf("one that nobody knows: %v", err)
	}
	if got := taken(d); got != "1\n2\n2\n" {
		t.Errorf("got %q", got)
	}
}

// TestAvroReferences: types of other schemas, and of the schemas that these refer
// to, in their namespaces.
func TestAvroReferences(t *testing.T) {
	id := Schema{Text: `{"type":"fixed","name":"Id","namespace":"org.base","size":1}`}
	line := Schema{Text: `{"type":"record","name":"Line","namespace":"org.shop","fields":[{"name":"id","type":"org.base.Id"},{"name":"n","type":"int"}]}`, References: map[string]Schema{"org.base.Id": id}}
	order := Schema{
		Text:       `{"type":"record","name":"Order","namespace":"org.shop","fields":[{"name":"id","type":"org.base.Id"},{"name":"lines","type":{"type":"array","items":"Line"}}]}`,
		References: map[string]Schema{"org.shop.Line": line, "org.base.Id": id},
	}
	d, err := newAvro(Options{Reader: order})
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Append(Record{Value: fromHex(t, "07 02 08 04 00")}); err != nil {
		t.Fatal(err)
	}
	if got := taken(d); got != `"Bw==" | [{"id":"CA==","n":2}]`+"\n" {
		t.Errorf("got %s", got)
	}
}

// TestAvroResolution: what the rules of resolution make of a writer's record.
func TestAvroResolution(t *testing.T) {
	record := func(fields string) string { return `{"type":"record","name":"R","fields":[` + fields + `]}` }
	for _, c := range []struct {
		name, writer, reader string
		value                map[string]any
		want                 string // ! for an error of the record, !! for one of the schemas
	}{
		{"int to long", oneField(`"int"`), oneField(`"long"`), map[string]any{"v": -3}, "-3"},
		{"int to float", oneField(`"int"`), oneField(`"float"`), map[string]any{"v": -3}, "-3"},
		{"int to double", oneField(`"int"`), oneField(`"double"`), map[string]any{"v": -3}, "-3"},
		{"long to float", oneField(`"long"`), oneField(`"float"`), map[string]any{"v": 16777217}, "16777216"},
		{"long to double", oneField(`"long"`), oneField(`"double"`), map[string]any{"v": 16777217}, "16777217"},
		{"float to double", oneField(`"float"`), oneField(`"double"`), map[string]any{"v": 0.5}, "0.5"},
		{"string to bytes", oneField(`"string"`), oneField(`"bytes"`), map[string]any{"v": "ab"}, `"YWI="`},
		{"bytes to string", oneField(`"bytes"`), oneField(`"string"`), map[string]any{"v": []byte("ab")}, `"ab"`},
		{"bytes that are no string", oneField(`"bytes"`), oneField(`"string"`), map[string]any{"v": []byte{0xff}}, `!not valid UTF-8`},
		{"long to int", oneField(`"long"`), oneField(`"int"`), nil, `!!field "v": it was written as long, and the column is of int`},
		{"double to float", oneField(`"double"`), oneField(`"float"`), nil, `!!it was written as double`},
		{"string to int", oneField(`"string"`), oneField(`"int"`), nil, `!!it was written as string`},
		{
			"removed and reordered fields", record(`{"name":"a","type":"string"},{"name":"b","type":"int"},{"name":"c","type":"long"}`), record(`{"name":"c","type":"long"},{"name":"b","type":"int"}`),
			map[string]any{"a": "x", "b": 1, "c": 2},
			"2 | 1",
		},
		{"a new field with a default", record(`{"name":"a","type":"int"}`), record(`{"name":"n","type":"string","default":"none"},{"name":"a","type":"int"}`), map[string]any{"a": 1}, `"none" | 1`},
		{"a new field without one", record(`{"name":"a","type":"int"}`), record(`{"name":"a","type":"int"},{"name":"n","type":"string"}`), nil, `!!field "n": the record was written without it, and it has no default`},
		{
			"defaults of every kind", record(`{"name":"a","type":"int"}`), record(`{"name":"a","type":"int"},{"name":"u","type":["null","string"],"default":null},{"name":"l","type":{"type":"array","items":"int"},"default":[1,2]},` +
				`{"name":"m","type":{"type":"map","values":"string"},"default":{"k":"v"}},{"name":"r","type":` + point + `,"default":{"x":7,"y":null}},{"name":"e","type":` + fruit + `,"default":"fig"},` +
				`{"name":"b","type":"bytes","default":"\u00ff"},{"name":"f","type":{"type":"fixed","name":"F","size":0},"default":""},{"name":"d","type":{"type":"bytes","logicalType":"decimal","precision":4,"scale":2},"default":"\u0001"},` +
				`{"name":"t","type":{"type":"long","logicalType":"timestamp-millis"},"default":1},{"name":"o","type":"boolean","default":true},{"name":"z","type":"double","default":1.5}`),
			map[string]any{"a": 1},
			`1 | null | [1,2] | [{"key":"k","value":"v"}] | {"x":7,"y":null} | "fig" | "/w==" | "" | "0.01" | "1970-01-01T00:00:00.001Z" | true | 1.5`,
		},
		{"a field's alias", record(`{"name":"old","type":"int"}`), record(`{"name":"new","type":"long","aliases":["older","old"]}`), map[string]any{"old": 5}, "5"},
		{"an alias beside the name", record(`{"name":"old","type":"int"},{"name":"new","type":"int"}`), record(`{"name":"new","type":"long","aliases":["old"]}`), map[string]any{"old": 5, "new": 6}, "6"},
		{"two aliases", record(`{"name":"a","type":"int"},{"name":"b","type":"int"}`), record(`{"name":"c","type":"int","aliases":["a","b"]}`), nil, `!!two fields of the record are field "c"`},
		{"a record's alias", `{"type":"record","name":"Old","fields":[{"name":"v","type":"int"}]}`, `{"type":"record","name":"New","aliases":["Old"],"fields":[{"name":"v","type":"int"}]}`, map[string]any{"v": 1}, "1"},
		{"another namespace", `{"type":"record","name":"a.R","fields":[{"name":"v","type":"int"}]}`, `{"type":"record","name":"b.R","fields":[{"name":"v","type":"int"}]}`, map[string]any{"v": 1}, "1"},
		{"another record", `{"type":"record","name":"Other","fields":[{"name":"v","type":"int"}]}`, oneField(`"int"`), nil, `!!written as Other, and the columns are those of R`},
		{"an enum's symbols", oneField(`{"type":"enum","name":"E","symbols":["x","b","a"]}`), oneField(`{"type":"enum","name":"E","symbols":["a","b"]}`), map[string]any{"v": "a"}, `"a"`},
		{"a new symbol", oneField(`{"type":"enum","name":"E","symbols":["x","b","a"]}`), oneField(`{"type":"enum","name":"E","symbols":["a","b"]}`), map[string]any{"v": "x"}, `!the column's enum has no symbol "x", and no default`},
		{"a new symbol, a default", oneField(`{"type":"enum","name":"E","symbols":["x","b","a"]}`), oneField(`{"type":"enum","name":"E","symbols":["a","b"],"default":"b"}`), map[string]any{"v": "x"}, `"b"`},
		{"a fixed of another size", oneField(`{"type":"fixed","name":"F","size":2}`), oneField(`{"type":"fixed","name":"F","size":3}`), nil, `!!fixed F of 2 bytes`},
		{"null added", oneField(`"int"`), oneField(`["null","long"]`), map[string]any{"v": 4}, "4"},
		{"null removed", oneField(`["null","int"]`), oneField(`"int"`), map[string]any{"v": 4}, "4"},
		{"null removed, and there", oneField(`["null","int"]`), oneField(`"int"`), map[string]any{"v": nil}, `!it was written as null, and the column is of int`},
		{"unions in another order", oneField(`["null","int"]`), oneField(`["long","null"]`), map[string]any{"v": nil}, "null"},
		{"a union's type exactly", oneField(`"long"`), oneField(`["double","long"]`), map[string]any{"v": 4}, `{"double":null,"long":4}`},
		{"a union's first promotion", oneField(`"int"`), oneField(`["string","double","long"]`), map[string]any{"v": 4}, `{"double":4,"long":null,"string":null}`},
		{"a union's type that is not there", oneField(`"boolean"`), oneField(`["string","double"]`), nil, `!!written as boolean, and the column's union has no such type`},
		{"a wider union, a known type", oneField(`["string","boolean"]`), oneField(`["null","string"]`), map[string]any{"v": map[string]any{"string": "a"}}, `"a"`},
		{"a wider union, a new type", oneField(`["string","boolean"]`), oneField(`["null","string"]`), map[string]any{"v": map[string]any{"boolean": true}}, `!written as boolean`},
		{"elements", oneField(`{"type":"array","items":"int"}`), oneField(`{"type":"array","items":"double"}`), map[string]any{"v": []any{1, 2}}, "[1,2]"},
		{"values", oneField(`{"type":"map","values":"int"}`), oneField(`{"type":"map","values":["null","long"]}`), map[string]any{"v": map[string]any{"k": 2}}, `[{"key":"k","value":2}]`},
		{"millis to micros", oneField(fmt.Sprintf(longOf, "timestamp-millis")), oneField(fmt.Sprintf(longOf, "timestamp-micros")), map[string]any{"v": int64(1)}, `"1970-01-01T00:00:00.001Z"`},
		{"nanos to micros", oneField(fmt.Sprintf(longOf, "timestamp-nanos")), oneField(fmt.Sprintf(longOf, "timestamp-micros")), map[string]any{"v": int64(-1)}, `"1969-12-31T23:59:59.999999Z"`},
		{"micros to nanos", oneField(fmt.Sprintf(longOf, "timestamp-micros")), oneField(fmt.Sprintf(longOf, "timestamp-nanos")), map[string]any{"v": int64(1)}, `"1970-01-01T00:00:00.000001"`},
		{"a long to a time", oneField(`"long"`), oneField(fmt.Sprintf(longOf, "timestamp-millis")), map[string]any{"v": int64(1)}, `"1970-01-01T00:00:00.001Z"`},
		{"a time to a long", oneField(fmt.Sprintf(longOf, "timestamp-millis")), oneField(`"long"`), map[string]any{"v": int64(1)}, `1`},
		{"a decimal with more digits", oneField(fmt.Sprintf(decOf, 4, 2)), oneField(fmt.Sprintf(decOf, 9, 2)), map[string]any{"v": "12.34"}, `"12.34"`},
		{"a decimal of another scale", oneField(fmt.Sprintf(decOf, 4, 2)), oneField(fmt.Sprintf(decOf, 9, 3)), nil, `!!written as a decimal with 2 digits behind the point`},
		{
			"a recursive field that is left out", record(`{"name":"tree","type":{"type":"record","name":"T","fields":[{"name":"n","type":"int"},{"name":"kids","type":{"type":"array","items":"T"}}]}},{"name":"a","type":"int"}`),
			record(`{"name":"a","type":"int"}`),
			map[string]any{"a": 9, "tree": map[string]any{"n": 1, "kids": []any{map[string]any{"n": 2, "kids": []any{}}}}},
			"9",
		},
		{
			"everything left out", record(`{"name":"a","type":"null"},{"name":"b","type":"boolean"},{"name":"c","type":"float"},{"name":"d","type":"double"},{"name":"e","type":"bytes"},{"name":"f","type":` + fruit + `},` +
				`{"name":"g","type":` + wide + `},{"name":"h","type":{"type":"map","values":"string"}},{"name":"i","type":{"type":"array","items":"null"}},{"name":"z","type":"int"}`), record(`{"name":"z","type":"int"}`),
			map[string]any{"a": nil, "b": true, "c": 1.0, "d": 1.0, "e": []byte("abc"), "f": "fig", "g": map[string]any{"string": "xyz"}, "h": map[string]any{"k": "v"}, "i": []any{nil, nil}, "z": 9},
			"9",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			d, err := newAvro(Options{Reader: Schema{Text: c.reader}, Schemas: registryOf{2: {Type: "AVRO", Text: c.writer}}, Framing: "registry"})
			if err != nil {
				t.Fatal(err)
			}
			value := []byte{0, 0, 0, 0, 2}
			if c.value != nil {
				if value, err = avro.MustParse(c.writer).AppendEncode(value, c.value); err != nil {
					t.Fatal(err)
				}
			}
			err = d.Append(Record{Value: value})
			if want, bad := strings.CutPrefix(c.want, "!"); bad {
				want, schemas := strings.CutPrefix(want, "!")
				var e *Error
				if !errors.As(err, &e) || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "schema 2") != schemas || d.Rows() != 0 {
					t.Fatalf("got %v", err)
				}
				if code := e.Code; code != batch.CodeSchema && !strings.Contains(want, "UTF-8") {
					t.Errorf("code %q", code)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if got := strings.TrimSuffix(taken(d), "\n"); got != c.want {
				t.Errorf("got %s, want %s", got, c.want)
			}
		})
	}
}

// TestAvroBadRecordLeavesNothing cuts a record with everything in it at each
// byte, between two good ones.
func TestAvroBadRecordLeavesNothing(t *testing.T) {
	d, value, want := everything(t)
	if err := d.Append(Record{Value: value}); err != nil {
		t.Fatal(err)
	}
	for i := range value {
		if err := d.Append(Record{Value: value[:i]}); err == nil {
			t.Fatalf("the first %d of %d bytes are no error", i, len(value))
		}
	}
	if err := d.Append(Record{Value: value}); err != nil {
		t.Fatal(err)
	}
	if got := taken(d); got != want+want {
		t.Errorf("got %s\nwant %s twice", got, want)
	}
}

const everythingSchema = `{"type":"record","name":"R","fields":[{"name":"u","type":` + wide + `},{"name":"l","type":{"type":"array","items":{"type":"map","values":["null","Point"]}}},{"name":"b","type":"boolean"},{"name":"e","type":` + fruit + `},` +
	`{"name":"d","type":{"type":"bytes","logicalType":"decimal","precision":4,"scale":2}},{"name":"i","type":{"type":"string","logicalType":"uuid"}},{"name":"p","type":{"type":"fixed","name":"P","size":12,"logicalType":"duration"}},{"name":"f","type":"float"},{"name":"n","type":"long"},{"name":"s","type":"string"}]}`

// everything is a decoder with all kinds of columns, a record, and its row.
func everything(t testing.TB) (*avroDecoder, []byte, string) {
	t.Helper()
	value := fromHex(t, "06 02 02 02 79  04 02 02 6b 02 02 00 00 02 02 6b 00 00 00  01  02  04 04d2  48 33306562386234322d303033322d346633332d383531612d383737366562623663393837  010000000200000003000000  0000c03f  808001  04 7a7a")
	return avroOf(t, everythingSchema), value, `{"Id":null,"Point":{"x":1,"y":"y"},"long":null,"string":null} | [[{"key":"k","value":{"x":1,"y":null}}],[{"key":"k","value":null}]] | true | "fig" | "12.34" | "30eb8b42-0032-4f33-851a-8776ebb6c987" | {"days":2,"millis":3,"months":1} | 1.5 | 8192 | "zz"` + "\n"
}

// TestAvroBounds: a short record cannot fill the memory.
func TestAvroBounds(t *testing.T) {
	many := `{"type":"record","name":"W","fields":[`
	for i := range 1000 {
		many += fmt.Sprintf(`{"name":"c%d","type":"int"},`, i)
	}
	many = strings.TrimSuffix(many, ",") + `]}`
	d := avroOf(t, oneField(`{"type":"array","items":["null",`+many+`]}`))
	value := append(fromHex(t, "80fa01"), make([]byte, 16_001)...) // 16,000 nulls of 1,000 columns
	if err := d.Append(Record{Value: value}); err == nil || !strings.Contains(err.Error(), "too large for a record") {
		t.Errorf("got %v", err)
	}
	const items = `{"type":"array","items":{"type":"record","name":"I","fields":[{"name":"a","type":"int"}%s]}}`
	long := fmt.Sprintf(items, `,{"name":"b","type":"string","default":"`+strings.Repeat("x", 10_000)+`"}`)
	d, err := newAvro(Options{Reader: Schema{Text: oneField(long)}, Framing: "registry", Schemas: registryOf{2: {Type: "AVRO", Text: oneField(fmt.Sprintf(items, ""))}}})
	if err != nil {
		t.Fatal(err)
	}
	value = append(fromHex(t, "0000000002 d00f"), make([]byte, 1001)...) // 1,000 defaults of 10,000 bytes
	if err := d.Append(Record{Value: value}); err == nil || !strings.Contains(err.Error(), "too large for a record") {
		t.Errorf("got %v", err)
	}
	symbol := strings.Repeat("S", 1000)
	for of, item := range map[string]string{
		"enums":    `{"type":"enum","name":"E","symbols":["` + symbol + `"]}`,
		"decimals": `{"type":"bytes","logicalType":"decimal","precision":1000,"scale":999}`,
	} {
		d := avroOf(t, oneField(`{"type":"array","items":`+item+`}`))
		value := append(fromHex(t, "c0b802"), make([]byte, 20_001)...) // 20,000 of one byte each
		if err := d.Append(Record{Value: value}); err == nil || !strings.Contains(err.Error(), "too large for a record") {
			t.Errorf("%s: got %v, and columns of %d bytes", of, err, d.Bytes())
		}
	}
	tree := `{"type":"record","name":"T","fields":[{"name":"next","type":["null","T"]}]}`
	d, err = newAvro(Options{Reader: Schema{Text: oneField(`"int"`)}, Framing: "registry", Schemas: registryOf{2: {Type: "AVRO", Text: `{"type":"record","name":"R","fields":[{"name":"t","type":` + tree + `},{"name":"v","type":"int"}]}`}}})
	if err != nil {
		t.Fatal(err)
	}
	nested := []byte{0, 0, 0, 0, 2}
	for range 1 << 20 {
		nested = append(nested, 2)
	}
	if err := d.Append(Record{Value: nested}); err == nil || !strings.Contains(err.Error(), "nested more than 64 deep") {
		t.Errorf("got %v", err)
	}
}
