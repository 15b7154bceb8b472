package decode

import (
	"encoding/hex"
	"errors"
	"strings"
	"testing"

	"github.com/frazil-io/frazil/internal/batch"
)

const encodedAvro = `{"type":"record","name":"R","fields":[
 {"name":"id","type":"long"},
 {"name":"amount","type":{"type":"bytes","logicalType":"decimal","precision":9,"scale":2},"default":"\u0000"},
 {"name":"at","type":["null",{"type":"long","logicalType":"timestamp-millis"}],"default":null},
 {"name":"in","type":["null",{"type":"record","name":"A","fields":[{"name":"x","type":"int","default":7},{"name":"m","type":{"type":"map","values":"bytes"},"default":{}}]}],"default":null}]}`

const encodedProto = `syntax = "proto3"; package p; import "google/protobuf/timestamp.proto";
message First { map<string, int32> m = 1; }
message Outer { map<string, int32> m = 1; message Skipped {} message Row { int64 id = 1; google.protobuf.Timestamp at = 2; oneof o { string user_name = 3; bytes b = 4; } repeated Kind kinds = 5; } enum Kind { NEW = 0; OLD = 1; } }`

// TestEncodeJSON: JSON becomes what a producer's serializer writes; what is no field,
// or no value of one, is an error.
func TestEncodeJSON(t *testing.T) {
	avro, proto := Schema{ID: 3, Text: encodedAvro}, Schema{ID: 4, Type: TypeProtobuf, Text: encodedProto}
	for _, c := range []struct {
		format string
		s      Schema
		o      Options
		text   string
		want   string // hex; or what the error says
	}{
		{"avro", avro, Options{Framing: "registry"}, `{"id": 1, "amount": "12.34"}`, "0000000003" + "02" + "0404d2" + "00" + "00"},
		{"avro", avro, Options{Framing: "none"}, `{"id": -1, "amount": 1, "at": "1970-01-01T00:00:01+00:00", "in": {"x": 1, "m": {"k": {"base64": "/w=="}}}}`, "01" + "0264" + "02d00f" + "02" + "02" + "02026b02ff00"},
		{"avro", avro, Options{}, `{"id": 1, "at": {"long": 5}, "in": {"A": {"x": 1}}}`, "02" + "0200" + "020a" + "0202" + "00"},
		{"avro", avro, Options{Framing: "single_object"}, `{"id": 1}`, "c301"},
		{"avro", avro, Options{}, `{"id": 1, "att": 5}`, `no field "att"`},
		{"avro", avro, Options{}, `{"id": 1, "in": {"y": 5}}`, `no field "y"`},
		{"avro", avro, Options{}, `{"id": 1, "in": {"A": {"x": 1, "y": 5}}}`, `no field "y"`},
		{"avro", avro, Options{}, `{"id": "1"}`, "field id"},
		{"avro", avro, Options{}, `{"amount": 1}`, "missing key"},
		{"avro", avro, Options{}, `{"id": 1} {}`, "more behind"},
		{"avro", avro, Options{}, `{"id": 1, "amount": "0.001"}`, "without rounding"},
		{"protobuf", proto, Options{Framing: "registry"}, `{"m": {"b": 1, "a": 2}}`, "0000000004" + "00" + "0a050a01611002" + "0a050a01621001"},
		{"protobuf", proto, Options{Framing: "registry", Message: "p.Outer.Row"}, `{"id": "5", "at": "1970-01-01T00:00:01Z", "user_name": "x", "kinds": ["OLD", 0]}`, "0000000004" + "040202" + "0805" + "12020801" + "2a020100" + "1a0178"},
		{"protobuf", proto, Options{Message: "p.Outer.Row"}, `{"b": "/w=="}`, "2201ff"},
		{"protobuf", proto, Options{Message: "p.Outer.Row"}, `{"idd": 1}`, "unknown field"},
		{"protobuf", proto, Options{Message: "p.Outer.Row"}, `{"kinds": ["NO"]}`, "invalid value for enum"},
		{"json", Schema{ID: 9}, Options{Framing: "registry"}, `{"a":1}`, "0000000009" + "7b2261223a317d"},
		{"json", Schema{}, Options{}, `{"a":1}`, "7b2261223a317d"},
		{"raw", Schema{}, Options{Encoding: EncodingGzip}, "x", "1f8b"},
		{"csv", Schema{}, Options{Encoding: EncodingZstd}, "x", "28b52ffd"},
	} {
		encode, err := NewEncoder(c.format, c.s, c.o)
		if err != nil {
			t.Fatal(err)
		}
		data, err := encode([]byte(c.text))
		got := hex.EncodeToString(data)
		if err != nil {
			got = strings.ReplaceAll(err.Error(), "\u00a0", " ")
		}
		short := c.o.Framing == "single_object" || c.o.Encoding != ""
		if got != c.want && (err == nil && !short || !strings.Contains(got, c.want)) {
			t.Errorf("%s %s: got %s, want %s", c.format, c.text, got, c.want)
		}
	}
	for format, text := range map[string]string{"avro": "{", "protobuf": "nothing"} {
		if _, err := NewEncoder(format, Schema{Text: text}, Options{}); !errors.Is(err, batch.ErrInvalid) {
			t.Errorf("%s: %v", format, err)
		}
	}
}

// TestProtoMistakesAreReadable: what is wrong with a schema is told by line and column,
// and what it lacks by name.
func TestProtoMistakesAreReadable(t *testing.T) {
	for text, want := range map[string]string{
		`syntax = "proto3"; message A { int32 x 2; }`:                     "the Protobuf schema cannot be used: line 1:40: syntax error: expecting ';'",
		`syntax = "proto3"; import "not/there.proto"; message A {}`:       `line 1:27: there is no file "not/there.proto": it lies in the schema's folder`,
		`syntax = "proto3"; message A { google.protobuf.Timestamp a=1; }`: "line 1:32: field A.a: unknown type google.protobuf.Timestamp",
	} {
		_, err := New("protobuf", nil, Options{Reader: Schema{Type: TypeProtobuf, Text: text}})
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\x00") {
			t.Errorf("%s: %q, want %q", text, err, want)
		}
	}
}
