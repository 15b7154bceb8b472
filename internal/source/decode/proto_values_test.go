package decode

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/frazil-io/frazil/internal/batch"

	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/dynamicpb"
)

// text is a schema without references.
func text(s string) Schema { return Schema{Type: TypeProtobuf, Text: s} }

// written returns a message in the wire format, from its text format.
func written(t testing.TB, md protoreflect.MessageDescriptor, value string) []byte {
	t.Helper()
	m := dynamicpb.NewMessage(md)
	if err := (prototext.UnmarshalOptions{AllowPartial: true}).Unmarshal([]byte(value), m); err != nil {
		t.Fatalf("%s: %v", value, err)
	}
	out, err := proto.MarshalOptions{Deterministic: true, AllowPartial: true}.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

const imports = `import "google/protobuf/any.proto"; import "google/protobuf/duration.proto"; import "google/protobuf/empty.proto"; import "google/protobuf/field_mask.proto";
import "google/protobuf/struct.proto"; import "google/protobuf/timestamp.proto"; import "google/protobuf/wrappers.proto"; `

const (
	proto3 = `syntax = "proto3"; ` + imports + `message M { %s } enum E { ZERO = 0; ONE = 1; ALSO_ONE = 1 [deprecated = true]; option allow_alias = true; FAR = 5000; } message In { int32 a = 1; string b = 2; } message None {}`
	proto2 = `syntax = "proto2"; ` + imports + `message M { %s } enum E { LOW = 1; HIGH = 5; } message In { required int32 a = 1; optional string b = 2; }`
)

// TestProtobufValues: what each type becomes, there and absent. A value that
// begins with # is in hexadecimal digits.
func TestProtobufValues(t *testing.T) {
	for _, c := range []struct{ schema, field, value, want string }{
		{proto3, "int32 v = 1;", "v: -2147483648", "-2147483648"},
		{proto3, "int32 v = 1;", "", "0"},
		{proto3, "optional int32 v = 1;", "", "null"},
		{proto3, "optional int32 v = 1;", "v: 0", "0"},
		{proto3, "int64 v = 1;", "v: -9223372036854775808", "-9223372036854775808"},
		{proto3, "uint32 v = 1;", "v: 4294967295", "4294967295"},
		{proto3, "uint64 v = 1;", "v: 18446744073709551615", "18446744073709551615"},
		{proto3, "sint32 v = 1;", "v: -2147483648", "-2147483648"},
		{proto3, "sint64 v = 1;", "v: -9223372036854775808", "-9223372036854775808"},
		{proto3, "fixed32 v = 1;", "v: 4294967295", "4294967295"},
		{proto3, "fixed64 v = 1;", "v: 18446744073709551615", "18446744073709551615"},
		{proto3, "sfixed32 v = 1;", "v: -1", "-1"},
		{proto3, "sfixed64 v = 1;", "v: -1", "-1"},
		{proto3, "float v = 1;", "v: 0.5", "3fe0000000000000"},
		{proto3, "double v = 1;", "v: -0", "8000000000000000"},
		{proto3, "double v = 1;", "v: inf", "7ff0000000000000"},
		{proto3, "bool v = 1;", "v: true", "true"},
		{proto3, "bool v = 1;", "", "false"},
		{proto3, "string v = 1;", `v: "é😀"`, `"é😀"`},
		{proto3, "string v = 1;", "", `""`},
		{proto3, "bytes v = 1;", `v: "\x00\xff"`, "x'00ff'"},
		{proto3, "E v = 1;", "v: ALSO_ONE", `"ONE"`},
		{proto3, "E v = 1;", "v: 5000", `"FAR"`},
		{proto3, "E v = 1;", "v: 7", `"7"`},
		{proto3, "E v = 1;", "v: -1", `"-1"`},
		{proto3, "E v = 1;", "", `"ZERO"`},
		{proto3, "optional E v = 1;", "", "null"},
		{proto3, "In v = 1;", "v {}", `{a: 0, b: ""}`},
		{proto3, "In v = 1;", "", "null"},
		{proto3, "None v = 1;", "v {}", "true"},
		{proto3, "None v = 1;", "", "null"},
		{proto3, "repeated int32 v = 1;", "v: [1, -1]", "[1, -1]"},
		{proto3, "repeated int32 v = 1;", "", "[]"},
		{proto3, "repeated In v = 1;", "v {a: 1} v {}", `[{a: 1, b: ""}, {a: 0, b: ""}]`},
		{proto3, "repeated None v = 1;", "v {} v {}", "[true, true]"},
		{proto3, "map<string, int32> v = 1;", `v {key: "a" value: 1} v {}`, `map{"": 0, "a": 1}`},
		{proto3, "map<bool, In> v = 1;", `v {key: true} v {}`, `map{false: {a: 0, b: ""}, true: {a: 0, b: ""}}`},
		{proto3, "map<int64, google.protobuf.Timestamp> v = 1;", `v {}`, `map{0: 0us}`},
		{proto3, "oneof o { int32 v = 1; int32 w = 2; }", "v: 0", "0"},
		{proto3, "oneof o { int32 v = 1; int32 w = 2; }", "w: 0", "null"},
		{proto3, "google.protobuf.Timestamp v = 1;", "v {seconds: -1 nanos: 999999999}", "-1us"},
		{proto3, "google.protobuf.Timestamp v = 1;", "v {}", "0us"},
		{proto3, "google.protobuf.Timestamp v = 1;", "v {seconds: 253402300799}", "253402300799000000us"},
		{proto3, "google.protobuf.Timestamp v = 1;", "v {seconds: 253402300800}", `!field "v": a timestamp of 253402300800 seconds and 0 nanoseconds is out of range`},
		{proto3, "google.protobuf.Timestamp v = 1;", "v {nanos: -1}", "!out of range"},
		{proto3, "google.protobuf.Duration v = 1;", "v {seconds: -1 nanos: -500000999}", "-1500000"},
		{proto3, "google.protobuf.Duration v = 1;", "v {seconds: 1 nanos: -1}", "!out of range"},
		{proto3, "google.protobuf.Int64Value v = 1;", "v {}", "0"},
		{proto3, "google.protobuf.Int64Value v = 1;", "", "null"},
		{proto3, "google.protobuf.StringValue v = 1;", `v {value: "x"}`, `"x"`},
		{proto3, "google.protobuf.BytesValue v = 1;", `v {value: "x"}`, `x'78'`},
		{proto3, "google.protobuf.BoolValue v = 1;", `v {value: true}`, `true`},
		{proto3, "repeated google.protobuf.UInt64Value v = 1;", `v {value: 18446744073709551615} v {}`, `[18446744073709551615, 0]`},
		{proto3, "google.protobuf.Any v = 1;", `v {type_url: "a/b" value: "\x01"}`, `{type_url: "a/b", value: x'01'}`},
		{proto3, "google.protobuf.FieldMask v = 1;", `v {paths: "a.b" paths: "c"}`, `"a.b,c"`},
		{proto3, "google.protobuf.Empty v = 1;", `v {}`, `true`},
		{
			proto3, "google.protobuf.Struct v = 1;", `v {fields {key: "b" value {list_value {values {number_value: 1.5} values {null_value: NULL_VALUE} values {}}}} fields {key: "a\"\n" value {struct_value {fields {key: "x" value {bool_value: true}}}}}}`,
			`"{\"a\\\"\\n\":{\"x\":true},\"b\":[1.5,null,null]}"`,
		},
		{proto3, "google.protobuf.Struct v = 1;", "v {}", `"{}"`},
		{proto3, "google.protobuf.Struct v = 1;", "", `null`},
		{proto3, "google.protobuf.Value v = 1;", "v {null_value: NULL_VALUE}", `"null"`},
		{proto3, "google.protobuf.Value v = 1;", `v {string_value: "\x01é"}`, `"\"\\u0001é\""`},
		{proto3, "google.protobuf.Value v = 1;", `v {number_value: 1e21}`, `"1e+21"`},
		{proto3, "google.protobuf.Value v = 1;", `v {number_value: -0.000001}`, `"-0.000001"`},
		{proto3, "google.protobuf.Value v = 1;", `v {number_value: nan}`, `!NaN is no number of JSON`},
		{proto3, "google.protobuf.ListValue v = 1;", `v {values {string_value: "x"}}`, `"[\"x\"]"`},
		{proto2, "required int32 v = 1;", "v: 0", "0"},
		{proto2, "required int32 v = 1;", "", `!field "v" is required, and missing, at byte 0`},
		{proto2, "optional int32 v = 1;", "", "null"},
		{proto2, "optional int32 v = 1 [default = 7];", "", "7"},
		{proto2, "optional string v = 1 [default = 'x'];", "", `"x"`},
		{proto2, "optional E v = 1;", "", "null"},
		{proto2, "optional E v = 1 [default = HIGH];", "", `"HIGH"`},
		{proto2, "oneof o { int32 v = 1 [default = 3]; int32 w = 2; }", "w: 1", "null"},
		{proto2, "optional In v = 1;", "v {b: 'x'}", `!field "v": field "a" is required, and missing`},
		{proto2, "optional group V = 1 { optional int32 a = 1; optional group W = 2 { optional int32 b = 1; } }", "V {a: 3 W {b: 4}}", "{a: 3, w: {b: 4}}"},
		{proto2, "repeated group V = 1 { optional int32 a = 1; }", "V {a: 3} V {}", "[{a: 3}, {a: null}]"},
		// The wire format.
		{proto2, "optional E v = 1;", "#0807", `"7"`}, // closed, and yet not lost
		{proto2, "repeated E v = 1;", "#080708010805", `["7", "LOW", "HIGH"]`},
		{proto2, "required int32 v = 1;", "#080108ffffffffffffffffff01", "-1"}, // the last one
		{proto2, "optional In v = 1;", "#0a0308960a0a03120178", `{a: 1302, b: "x"}`},
		{proto3, "In v = 1;", "#0a0208010a03120178", `{a: 1, b: "x"}`}, // in parts
		{proto3, "repeated int32 v = 1;", "#0801" + "0a020203" + "0804", "[1, 2, 3, 4]"},
		{proto2, "repeated int32 v = 1;", "#0801" + "0a020203" + "0804", "[1, 2, 3, 4]"},
		{proto3, "repeated string v = 1;", "#0a016110010a0162", `["a", "b"]`},
		{proto3, "map<string, int32> v = 1;", "#0a050a016110010a050a016110020a050a01621003", `map{"a": 2, "b": 3}`},
		{proto3, "map<int32, In> v = 1;", "#0a0608011202080a" + "0a06080112020814", `map{1: {a: 20, b: ""}}`}, // replaced, not merged
		{proto3, "oneof o { In v = 1; int32 w = 2; }", "#0a020801" + "1003" + "0a03120178", `{a: 0, b: "x"}`},
		{proto3, "oneof o { In v = 1; int32 w = 2; }", "#0a020801" + "0a03120178", `{a: 1, b: "x"}`},
		{proto3, "oneof o { In v = 1; int32 w = 2; }", "#0a020801" + "1003", `null`},
		{proto3, "int32 v = 1;", "#880001", "1"},                               // a tag longer than needed
		{proto3, "int32 v = 1;", "#13" + "08051b1c" + "14" + "0803", "3"},      // unknown groups
		{proto3, "int32 v = 1;", "#10011d000000002100000000000000000801", "1"}, // unknown fields of each type
		{proto3, "google.protobuf.Struct v = 1;", "#0a0b0a090a016b12041a026162", `"{\"k\":\"ab\"}"`},
		{proto3, "google.protobuf.Struct v = 1;", "#0a12" + "0a070a016b12022001" + "0a070a016b12022000", `"{\"k\":false}"`}, // one key
		{proto3, "google.protobuf.Value v = 1;", "#0a06" + "2000" + "1a0161" + "00", "!0 is no number of a field"},
		{proto3, "google.protobuf.Value v = 1;", "#0a05" + "2001" + "1a0161", `"\"a\""`},
		{proto3, "int32 v = 1;", "#", "0"},
		// What it cannot be.
		{proto3, "int32 v = 1;", "#08", `!field "v": the message ends inside a varint, at byte 1`},
		{proto3, "int32 v = 1;", "#0880", `!the message ends inside a varint`},
		{proto3, "int32 v = 1;", "#08ffffffffffffffffff02", `!a varint of more than 64 bits, at byte 1`},
		{proto3, "int32 v = 1;", "#08ffffffffffffffffffff01", `!a varint of more than 64 bits`},
		{proto3, "int32 v = 1;", "#088080808008", `!field "v": 2147483648 is out of range, at byte 1`},
		{proto3, "uint32 v = 1;", "#088080808010", `!4294967296 is out of range`},
		{proto3, "sint32 v = 1;", "#088080808010", `!2147483648 is out of range`},
		{proto3, "E v = 1;", "#088080808010", `!4294967296 is out of range`},
		{proto3, "int32 v = 1;", "#0d00000000", `!field "v": field 1 has wire type 5, and its type has 0; it was written with another schema, at byte 1`},
		{proto3, "string v = 1;", "#0801", `!field 1 has wire type 0, and its type has 2`},
		{proto3, "repeated string v = 1;", "#0801", `!field 1 has wire type 0, and its type has 2`},
		{proto3, "repeated In v = 1;", "#0801", `!field 1 has wire type 0, and its type has 2`},
		{proto3, "repeated int32 v = 1;", "#0d00000000", `!field 1 has wire type 5`},
		{proto3, "string v = 1;", "#0a05616263", `!a length of 5, where 3 bytes are left, at byte 1`},
		{proto3, "string v = 1;", "#0affffffffffffffffff0161", `!a length of 18446744073709551615, where 1 bytes are left`},
		{proto3, "string v = 1;", "#0a0361ff62", `!the string is not valid UTF-8, at byte 3`},
		{proto2, "optional string v = 1;", "#0a0361ff62", `!the string is not valid UTF-8, at byte 3`},
		{proto3, "fixed32 v = 1;", "#0d000000", `!ends inside of four bytes`},
		{proto3, "double v = 1;", "#0900000000000000", `!ends inside of eight bytes`},
		{proto3, "int32 v = 1;", "#15000000", `!the message ends inside field 2`},
		{proto3, "int32 v = 1;", "#00", `!0 is no number of a field, at byte 0`},
		{proto3, "int32 v = 1;", "#8080808010", `!536870912 is no number of a field`},
		{proto3, "int32 v = 1;", "#0e", `!field 1 has wire type 6, which there is not`},
		{proto3, "int32 v = 1;", "#17", `!field 2 has wire type 7, which there is not`},
		{proto3, "int32 v = 1;", "#14", `!the end of group 2, which did not begin`},
		{proto3, "int32 v = 1;", "#0c", `!the end of group 1, which did not begin`},
		{proto3, "int32 v = 1;", "#13", `!group 2 does not end`},
		{proto3, "int32 v = 1;", "#131c", `!the end of group 3 inside of group 2`},
		{proto3, "int32 v = 1;", "#" + strings.Repeat("13", 200) + strings.Repeat("14", 200), `!messages are nested more than 100 deep`},
		{proto3, "google.protobuf.Value v = 1;", "#" + hex.EncodeToString(nestedValue(300)), `!messages are nested more than 100 deep`},
		{proto3, "In v = 1;", "#0a020801" + "0a020880", `!field "v": field "a": the message ends inside a varint, at byte 6`},
		{proto3, "In v = 1;", "#0a03120278" + "1001", `!field "v": field "b": a length of 2, where 1 bytes are left, at byte 3`}, // of the inner message
		{proto3, "In v = 1;", "#0a020880" + "01", `!field "v": field "a": the message ends inside a varint, at byte 3`},
		{proto3, "google.protobuf.Timestamp v = 1;", "#0a050d00000000", `!field 1 has wire type 5, and its type has 0`},
	} {
		o := Options{Reader: text(fmt.Sprintf(c.schema, c.field)), Message: "M"}
		d, md := protobuf(t, o)
		value, err := hex.DecodeString(strings.TrimPrefix(c.value, "#"))
		if !strings.HasPrefix(c.value, "#") {
			value, err = written(t, md, c.value), nil
		}
		if err != nil {
			t.Fatal(c.value, err)
		}
		err = d.Append(Record{Value: value})
		if want, bad := strings.CutPrefix(c.want, "!"); bad {
			var e *Error
			if !errors.As(err, &e) || !strings.Contains(err.Error(), want) || e.Code != batch.CodeDecode || d.Rows() != 0 {
				t.Errorf("%s %s: error %v, want %q", c.field, c.value, err, want)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s %s: %v", c.field, c.value, err)
			continue
		}
		arrays := d.Take()
		if got := shown(arrays[0], 0); got != c.want {
			t.Errorf("%s %s: got %s, want %s", c.field, c.value, got, c.want)
		}
	}
}

// nestedValue is a google.protobuf.Value of lists in lists, as field 1.
func nestedValue(depth int) []byte {
	inner := []byte{}
	block := func(tag byte) {
		n := len(inner)
		head := []byte{tag}
		for ; n >= 0x80; n >>= 7 {
			head = append(head, byte(n)|0x80)
		}
		inner = append(append(head, byte(n)), inner...)
	}
	for range depth {
		block(0x0a)     // ListValue.values
		block(6<<3 | 2) // Value.list_value
	}
	block(0x0a)
	return inner
}

// TestProtobufTypes: the columns of each type.
func TestProtobufTypes(t *testing.T) {
	d, _ := protobuf(t, Options{Reader: allProto(t)})
	for _, f := range d.Fields() {
		want := map[string]string{
			"i32": "int32", "i64": "int64", "u32": "int64", "u64": "uint64", "s32": "int32", "s64": "int64", "f32": "int64", "f64": "uint64", "sf32": "int32", "sf64": "int64",
			"float": "float32", "double": "float64", "bool": "bool", "string": "utf8", "bytes": "binary", "color": "utf8", "rcolor": "list<element: utf8, nullable>",
			"rempty": "list<element: bool, nullable>", "time": "timestamp[us, tz=UTC]", "duration": "int64", "wu32": "int64", "any": "struct<type_url: utf8 nullable, value: binary nullable>",
			"mu64": "map<uint64, timestamp[us, tz=UTC], items_nullable>", "mask": "utf8", "empty": "bool", "cempty": "bool",
		}[f.Name]
		if got := f.Type.String(); want != "" && got != want || !f.Nullable {
			t.Errorf("%s is %s, want %s", f.Name, got, want)
		}
	}
}

// TestProtobufSchemas: what cannot be a source's schema.
func TestProtobufSchemas(t *testing.T) {
	set := func(name string, edit func(*descriptorpb.FileDescriptorSet)) Schema {
		files, err := protoFiles(allProto(t))
		if err != nil {
			t.Fatal(err)
		}
		s := &descriptorpb.FileDescriptorSet{}
		for i := range files[0].Imports().Len() {
			s.File = append(s.File, protodesc.ToFileDescriptorProto(files[0].Imports().Get(i).FileDescriptor))
		}
		main := protodesc.ToFileDescriptorProto(files[0])
		main.Name = proto.String("all.proto")
		s.File = append(s.File, main)
		edit(s)
		b, err := proto.Marshal(s)
		if err != nil {
			t.Fatal(name, err)
		}
		return Schema{Type: TypeDescriptors, Text: string(b)}
	}
	whole := set("whole", func(*descriptorpb.FileDescriptorSet) {})
	noKnown := set("no well-known", func(s *descriptorpb.FileDescriptorSet) {
		var left []*descriptorpb.FileDescriptorProto
		for _, f := range s.GetFile() {
			if !strings.HasPrefix(f.GetName(), "google/") {
				left = append(left, f)
			}
		}
		s.File = left
	})
	noOld := set("no old.proto", func(s *descriptorpb.FileDescriptorSet) { s.File = s.GetFile()[len(s.GetFile())-1:] })
	wide := "message M { int32 a = 1; "
	for i := range 14 {
		wide += fmt.Sprintf("L0 f%d = %d; ", i, i+2)
	}
	wide += "}"
	for l := range 12 {
		wide += fmt.Sprintf("message L%d { int32 a = 1; L%d b = 2; L%d c = 3; }", l, l+1, l+1)
	}
	wide += "message L12 { int32 a = 1; }"
	for name, c := range map[string]struct {
		reader  Schema
		message string
		want    string
	}{
		"a descriptor set":                {whole, "", ""},
		"without the well-known files":    {noKnown, "test.All", ""},
		"a message inside":                {allProto(t), "test.All.Inner", ""},
		"a message of an import":          {allProto(t), "test.Old", ""},
		"built-in imports":                {text(`syntax = "proto3"; import "confluent/meta.proto"; import "confluent/type/decimal.proto"; import "google/type/datetime.proto"; message M { confluent.type.Decimal d = 1 [(confluent.field_meta) = {params: [{key: "scale", value: "2"}]}]; google.type.DateTime t = 2; }`), "", ""},
		"editions":                        {text(`edition = "2023"; message M { string a = 1 [features.field_presence = IMPLICIT]; M2 m = 2 [features.message_encoding = DELIMITED]; } message M2 { int32 x = 1; }`), "", ""},
		"without an import":               {noOld, "", `the descriptor set lacks "old.proto", which "all.proto" imports`},
		"no descriptor set":               {Schema{Type: TypeDescriptors, Text: "syntax = \"proto3\";"}, "", "it is no descriptor set"},
		"an empty descriptor set":         {Schema{Type: TypeDescriptors}, "", "has no files"},
		"no text":                         {text("message M {"), "", "syntax error"},
		"an import that is not there":     {text(`import "x.proto"; message M { optional int32 a = 1; }`), "", "x.proto"},
		"no message":                      {text(`syntax = "proto3"; enum E { A = 0; }`), "", "it has no message"},
		"another message":                 {allProto(t), "test.Any", `it has no message "test.Any", but ["test.All" "test.All.Inner" "test.All.Outer" "test.Json"`},
		"no fields":                       {text(`syntax = "proto3"; message M {}`), "", "message M has no fields"},
		"a value":                         {text(`syntax = "proto3"; import "google/protobuf/wrappers.proto"; message M { google.protobuf.Int32Value v = 1; }`), "google.protobuf.Int32Value", "is a value, and no record"},
		"a message in itself":             {text(`syntax = "proto3"; message Node { int32 a = 1; repeated Node children = 2; }`), "", "message Node contains itself (Node > Node)"},
		"a message in itself, by a map":   {text(`syntax = "proto3"; message A { map<string, B> b = 1; } message B { A a = 1; }`), "", "message A contains itself (A > B > A)"},
		"fields that differ by case":      {text(`syntax = "proto2"; message M { optional int32 a = 1; optional int32 A = 2; }`), "", `fields "a" and "A"`},
		"a reserved name":                 {text(`syntax = "proto2"; message M { optional int32 __a = 1; }`), "", "are Frazil's own"},
		"more columns than a table holds": {text(`syntax = "proto3"; ` + wide), "", "more than 5000 columns"},
		"another type":                    {Schema{Type: "AVRO"}, "", "it is of type AVRO"},
	} {
		d, err := New("protobuf", nil, Options{Reader: c.reader, Message: c.message})
		if c.want == "" {
			if err != nil {
				t.Errorf("%s: %v", name, err)
			} else if len(d.Fields()) == 0 {
				t.Errorf("%s: no columns", name)
			}
			continue
		}
		if !errors.Is(err, batch.ErrInvalid) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}

// TestProtobufTextsOfTheSchema: what the schema has and a record only points at, names
// of symbols and defaults, does not fill the memory.
func TestProtobufTextsOfTheSchema(t *testing.T) {
	long := strings.Repeat("S", 1000)
	for of, c := range map[string]struct {
		fields string
		value  []byte
	}{
		"symbols":  {`repeated E e = 1 [packed = true];`, protowire.AppendBytes(protowire.AppendTag(nil, 1, protowire.BytesType), make([]byte, 20_000))},
		"defaults": {`repeated D d = 1;`, bytes.Repeat([]byte{0x0a, 0x00}, 20_000)},
	} {
		d, _ := protobuf(t, Options{Message: "R", Reader: Schema{Type: TypeProtobuf, Text: `syntax = "proto2";
			enum E { ` + long + ` = 0; }
			message D { optional string s = 1 [default = "` + long + `"]; }
			message R { ` + c.fields + ` }`}})
		var e *Error
		if err := d.Append(Record{Value: c.value}); !errors.As(err, &e) || e.Code != batch.CodeOversize {
			t.Errorf("%s: got %v, and columns of %d bytes", of, err, d.Bytes())
		}
	}
}
