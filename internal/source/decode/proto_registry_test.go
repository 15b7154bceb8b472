package decode

import (
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"

	"github.com/frazil-io/frazil/internal/batch"
)

// shelf is a registry.
type shelf struct {
	schemas map[int32]Schema
	down    bool
	asked   int
}

func (s *shelf) IDOf(guid string) (int32, error) { return registryOf(s.schemas).IDOf(guid) }

func (s *shelf) ByID(id int32) (Schema, error) {
	s.asked++
	if s.down {
		return Schema{}, fmt.Errorf("%w: it does not answer", batch.ErrUnavailable)
	}
	found, ok := s.schemas[id]
	if !ok {
		return Schema{}, ErrUnknownSchema
	}
	return found, nil
}

// framed puts the registry's header before a message.
func framed(id int32, path []int, message []byte) []byte {
	out := []byte{0, byte(id >> 24), byte(id >> 16), byte(id >> 8), byte(id)}
	if path == nil {
		out = append(out, 0)
	} else {
		out = protowire.AppendVarint(out, protowire.EncodeZigZag(int64(len(path))))
		for _, i := range path {
			out = protowire.AppendVarint(out, protowire.EncodeZigZag(int64(i)))
		}
	}
	return append(out, message...)
}

// descriptor finds a message of a schema.
func descriptor(t testing.TB, s Schema, name string) protoreflect.MessageDescriptor {
	t.Helper()
	files, err := protoFiles(s)
	if err != nil {
		t.Fatal(err)
	}
	m, err := protoMessage(files, name)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// TestProtobufHeader: the message is the one that the header's indexes lead to.
func TestProtobufHeader(t *testing.T) {
	schema := text(`syntax = "proto3"; package p;
		message First { int32 a = 1; }
		enum E { NONE = 0; }
		message Second { map<string, int32> m = 1; message Deep { string b = 1; message Deeper { string c = 1; } } message Deep2 { string d = 1; } }`)
	first := Options{Reader: schema, Schemas: &shelf{schemas: map[int32]Schema{7: schema, 1 << 30: schema}}, Framing: "registry"}
	second, third, fourth, deep := first, first, first, first
	second.Message, third.Message, fourth.Message, deep.Message = "p.Second.Deep.Deeper", "p.Second.Deep2", "p.Second", "p.Second.Deep"
	for _, c := range []struct {
		o           Options
		value, want string
	}{
		{first, "\x00\x00\x00\x00\x07\x00\x08\x05", "{a: 5}"},
		{first, "\x00\x40\x00\x00\x00\x00\x08\x05", "{a: 5}"},
		{first, "\x00\x00\x00\x00\x07\x02\x00\x08\x05", "{a: 5}"}, // [0] at length
		{first, "\x00\x00\x00\x00\x07\x80\x00\x08\x05", "{a: 5}"},
		{first, "\x00\x00\x00\x00\x07\x00", "{a: 0}"},
		{second, "\x00\x00\x00\x00\x07\x06\x02\x00\x00\x0a\x01x", `{c: "x"}`},
		{third, "\x00\x00\x00\x00\x07\x04\x02\x02\x0a\x01x", `{d: "x"}`}, // the map's entry does not count
		{third, "\x00\x00\x00\x00\x07\x04\x02\x04\x0a\x01x", `{d: "x"}`}, // Python's client counts it
		{deep, "\x00\x00\x00\x00\x07\x04\x02\x00\x0a\x01x", `{b: "x"}`},
		{deep, "\x00\x00\x00\x00\x07\x04\x02\x02\x0a\x01x", "!schema the index [1 1] is a p.Second.Deep2 as Java's client counts, and a p.Second.Deep as Python's"},
		{third, "\x00\x00\x00\x00\x07\x04\x02\x00\x0a\x01x", "!schema the record is a p.Second.Deep, and"},
		{fourth, "\x00\x00\x00\x00\x07\x02\x02", `{m: map{}}`},
		{first, "", "!decode does not begin with the registry's header"},
		{first, "\x00\x00\x00\x00\x07", "!decode does not begin with the registry's header"},
		{first, "\x01\x00\x00\x00\x07\x00\x08\x05", "!decode does not begin with the registry's header"},
		{first, "{\"a\": 5}", "!decode does not begin with the registry's header"},
		{first, "\x00\x00\x00\x00\x08\x00\x08\x05", "!schema schema 8: the registry has no schema with this id, at byte 1"},
		{first, "\x00\x00\x00\x00\x07\x02\x02\x08\x05", "!schema the record is a p.Second, and the source reads p.First"},
		{first, "\x00\x00\x00\x00\x07\x02\x04\x08\x05", "!schema schema 7 has no message with the index [2], at byte 5"},
		{first, "\x00\x00\x00\x00\x07\x04\x00\x00\x08\x05", "!schema schema 7 has no message with the index [0 0]"},
		{first, "\x00\x00\x00\x00\x07\x01\x08\x05", "!decode the header's message index is not a list of numbers, at byte 5"},
		{first, "\x00\x00\x00\x00\x07\x02\x01\x05", "!decode the header's message index is not a list of numbers, at byte 6"},
		{first, "\x00\x00\x00\x00\x07\x02", "!decode the header's message index"},
		{first, "\x00\x00\x00\x00\x07\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01\x00", "!decode the header's message index"},
		{first, "\x00\x00\x00\x00\x07\x00\x08", `!decode field "a": the message ends inside a varint, at byte 7`},
	} {
		d, _ := protobuf(t, c.o)
		for range 2 { // the second time from what was kept
			err := d.Append(Record{Value: []byte(c.value)})
			if want, bad := strings.CutPrefix(c.want, "!"); bad {
				code, reason, _ := strings.Cut(want, " ")
				var e *Error
				if !errors.As(err, &e) || string(e.Code) != code || !strings.Contains(e.Error(), reason) || d.Rows() != 0 {
					t.Errorf("%q: %v, want %q", c.value, err, c.want)
				}
				continue
			}
			if err != nil {
				t.Errorf("%q: %v", c.value, err)
			} else if got := shownRows(d); got[0] != c.want {
				t.Errorf("%q: got %s, want %s", c.value, got, c.want)
			}
		}
	}
}

// TestProtobufSerialized: a registry may hand out files as they were registered by
// Confluent's client for Python: serialized, and without names for JSON.
func TestProtobufSerialized(t *testing.T) {
	serialized := func(name, source string, imports map[string]Schema) Schema {
		files, err := protoFiles(Schema{Type: TypeProtobuf, Text: source, References: imports})
		if err != nil {
			t.Fatal(err)
		}
		file := protodesc.ToFileDescriptorProto(files[0])
		file.Name = &name
		var forget func([]*descriptorpb.DescriptorProto)
		forget = func(messages []*descriptorpb.DescriptorProto) {
			for _, m := range messages {
				for _, f := range m.GetField() {
					f.JsonName = nil
				}
				forget(m.GetNestedType())
			}
		}
		forget(file.GetMessageType())
		data, err := proto.Marshal(file)
		if err != nil {
			t.Fatal(err)
		}
		return Schema{Type: TypeProtobuf, Text: base64.StdEncoding.EncodeToString(data), References: imports}
	}
	money := serialized("shop/money.proto", `syntax = "proto3"; package shop; message Money { string currency = 1; int64 units = 2; }`, nil)
	order := serialized("order.proto", `syntax = "proto3"; package shop; import "shop/money.proto"; import "google/protobuf/timestamp.proto";
		message Order { Money price = 1; google.protobuf.Timestamp at = 2; Inner inner = 3; message Inner { int32 a = 1; int32 b = 2; } }`, map[string]Schema{"shop/money.proto": money})
	d, m := protobuf(t, Options{Reader: order})
	if err := d.Append(Record{Value: written(t, m, `price {currency: "EUR" units: 5} at {seconds: 1} inner {b: 2}`)}); err != nil {
		t.Fatal(err)
	}
	if got, want := shownRows(d), []string{`{price: {currency: "EUR", units: 5}, at: 1000000us, inner: {a: 0, b: 2}}`}; !slices.Equal(got, want) {
		t.Errorf("got %s, want %s", got, want)
	}
}

// TestProtobufRegistry: a registry that does not answer is no fault of the record;
// what it said is not asked for again.
func TestProtobufRegistry(t *testing.T) {
	schema := text(`syntax = "proto3"; message M { int32 a = 1; }`)
	s := &shelf{schemas: map[int32]Schema{1: schema, 2: text("message {"), 3: {Type: "AVRO", Text: `"int"`}}, down: true}
	d, _ := protobuf(t, Options{Reader: schema, Schemas: s, Framing: "registry"})
	value := Record{Value: framed(1, nil, []byte{8, 5})}
	var bad *Error
	if err := d.Append(value); !errors.Is(err, batch.ErrUnavailable) || errors.As(err, &bad) || d.Rows() != 0 {
		t.Fatalf("a registry that does not answer: %v", err)
	}
	s.down, s.asked = false, 0
	for range 3 {
		if err := d.Append(value); err != nil {
			t.Fatal(err)
		}
	}
	if s.asked != 1 {
		t.Errorf("the registry was asked %d times", s.asked)
	}
	for id, want := range map[int32]string{2: "schema 2 cannot be used: ", 3: "schema 3 cannot be used: it is of type AVRO"} {
		err := d.Append(Record{Value: framed(id, nil, nil)})
		if !errors.As(err, &bad) || bad.Code != batch.CodeSchema || !strings.Contains(bad.Reason, want) {
			t.Errorf("schema %d: %v", id, err)
		}
	}
	if err := d.Append(Record{}); err != nil { // a tombstone
		t.Error(err)
	}
	if got := shownRows(d); !slices.Equal(got, []string{"{a: 5}", "{a: 5}", "{a: 5}", "{a: null}"}) {
		t.Errorf("got %s", got)
	}
}

// TestProtobufResolution: records of another schema become the reader's columns,
// field by field by its number.
func TestProtobufResolution(t *testing.T) {
	const types = ` message In { int32 a = 1; string b = 2; } message Other { int64 x = 1; } enum E { ZERO = 0; ONE = 1; TWO = 2; } enum F { NIL = 0; EIN = 1; DREI = 3; } `
	for _, c := range []struct{ writer, reader, value, want string }{
		{"int32 a = 1; string gone = 2;", "int32 a = 1;", "a: 1 gone: 'x'", "{a: 1}"},
		{"int32 a = 1;", "int32 a = 1; string more = 2; optional int32 maybe = 3; In in = 4; repeated int32 some = 5;", "a: 1", `{a: 1, more: "", maybe: null, in: null, some: []}`},
		{"int32 old_name = 1;", "int32 new_name = 1;", "old_name: 1", "{new_name: 1}"},
		{"int32 a = 1;", "string a = 2;", "a: 1", `{a: ""}`},
		{"In in = 1;", "Other in = 1;", "in {a: 3 b: 'x'}", "{in: {x: 3}}"},
		{"int32 a = 1;", "int64 a = 1;", "a: -3", "{a: -3}"},
		{"int64 a = 1;", "int32 a = 1;", "a: -3", "{a: -3}"},
		{"int64 a = 1;", "int32 a = 1;", "a: 2147483648", "!decode field \"a\": 2147483648 is out of range, at byte 7"},
		{"int32 a = 1;", "sint64 a = 1;", "a: -3", "{a: -3}"},
		{"sint32 a = 1;", "sfixed64 a = 1;", "a: -3", "{a: -3}"},
		{"fixed32 a = 1;", "int64 a = 1;", "a: 4294967295", "{a: 4294967295}"},
		{"sfixed32 a = 1;", "uint64 a = 1;", "a: -1", "!decode -1 is out of range"},
		{"uint64 a = 1;", "int64 a = 1;", "a: 18446744073709551615", "!decode 18446744073709551615 is out of range"},
		{"uint64 a = 1;", "int32 a = 1;", "a: 18446744073709551615", "!decode 18446744073709551615 is out of range"},
		{"uint64 a = 1;", "E a = 1;", "a: 18446744073709551615", "!decode 18446744073709551615 is out of range"},
		{"int64 a = 1;", "uint32 a = 1;", "a: 4294967295", "{a: 4294967295}"},
		{"int64 a = 1;", "uint32 a = 1;", "a: -1", "!decode -1 is out of range"},
		{"bool a = 1;", "int32 a = 1;", "a: true", "{a: 1}"},
		{"int64 a = 1;", "bool a = 1;", "a: -2", "{a: true}"},
		{"E a = 1;", "int32 a = 1;", "a: TWO", "{a: 2}"},
		{"int32 a = 1;", "E a = 1;", "a: 2", `{a: "TWO"}`},
		{"E a = 1;", "F a = 1;", "a: ONE", `{a: "EIN"}`}, // the reader's name
		{"E a = 1;", "F a = 1;", "a: TWO", `{a: "TWO"}`}, // which the reader has not
		{"repeated E a = 1;", "repeated F a = 1;", "a: [ZERO, TWO, 9]", `{a: ["NIL", "TWO", "9"]}`},
		{"float a = 1;", "double a = 1;", "a: 0.5", "{a: 3fe0000000000000}"},
		{"double a = 1;", "float a = 1;", "a: 0.5", `!schema schema 7 does not fit the source's schema: field "a" (number 1) of M: it was written as double, which does not become float`},
		{"string a = 1;", "bytes a = 1;", "a: 'x'", "{a: x'78'}"},
		{"bytes a = 1;", "string a = 1;", "a: 'x'", `{a: "x"}`},
		{"bytes a = 1;", "string a = 1;", `a: "\xff"`, `!decode not valid UTF-8`},
		{"int32 a = 1;", "repeated int32 a = 1;", "a: 3", "{a: [3]}"},
		{"In a = 1;", "repeated In a = 1;", "a {a: 3}", `{a: [{a: 3, b: ""}]}`},
		{"repeated int32 a = 1;", "int32 a = 1;", "a: 3", `!schema it was written as repeated int32, which does not become int32`},
		{"string a = 1;", "int32 a = 1;", "a: 'x'", "!schema it was written as string, which does not become int32"},
		{"int32 a = 1;", "string a = 1;", "a: 1", "!schema it was written as int32, which does not become string"},
		{"E a = 1;", "string a = 1;", "a: ONE", "!schema it was written as enum E, which does not become string"},
		{"string a = 1;", "E a = 1;", "a: 'ONE'", "!schema it was written as string, which does not become an enum"},
		{"int32 a = 1;", "double a = 1;", "a: 1", "!schema it was written as int32, which does not become double"},
		{"In a = 1;", "bytes a = 1;", "a {}", "!schema it was written as message In, which does not become bytes"},
		{"bytes a = 1;", "In a = 1;", "a: ''", "!schema it was written as bytes, which does not become message In"},
		{"map<string, int32> a = 1;", "map<string, int64> a = 1;", "a {key: 'x' value: 3}", `{a: map{"x": 3}}`},
		{"map<int32, int32> a = 1;", "map<string, int32> a = 1;", "a {}", `!schema field "key" (number 1)`},
		{"map<string, int32> a = 1;", "repeated In a = 1;", "", "!schema it was written as a map, which does not become repeated message In"},
		{"In a = 1;", "map<int32, string> a = 1;", "", "!schema it was written as message In, which does not become a map"},
		{"google.protobuf.Timestamp a = 1;", "In a = 1;", "", "!schema it was written as message google.protobuf.Timestamp, which does not become message In"},
		{"In a = 1;", "google.protobuf.Timestamp a = 1;", "", "!schema it was written as message In, which does not become message google.protobuf.Timestamp"},
		{"google.protobuf.Int32Value a = 1;", "google.protobuf.Int64Value a = 1;", "a {value: 3}", "{a: 3}"},
		{"google.protobuf.Int32Value a = 1;", "int32 a = 1;", "", "!schema which does not become int32"},
		{"int32 a = 1;", "google.protobuf.Int32Value a = 1;", "", "!schema which does not become message google.protobuf.Int32Value"},
		{"int32 a = 1; int32 b = 2;", "oneof o { int32 a = 1; int32 b = 2; }", "a: 1 b: 2", "{a: null, b: 2}"},
		{"oneof o { int32 a = 1; int32 b = 2; }", "int32 a = 1; int32 b = 2;", "b: 2", "{a: 0, b: 2}"},
	} {
		schema := func(fields string) Schema {
			return text(`syntax = "proto3"; ` + imports + "message M { " + fields + " }" + types)
		}
		d, _ := protobuf(t, Options{Reader: schema(c.reader), Schemas: &shelf{schemas: map[int32]Schema{7: schema(c.writer)}}, Framing: "registry"})
		err := d.Append(Record{Value: framed(7, nil, written(t, descriptor(t, schema(c.writer), ""), c.value))})
		if want, bad := strings.CutPrefix(c.want, "!"); bad {
			code, reason, _ := strings.Cut(want, " ")
			var e *Error
			if !errors.As(err, &e) || string(e.Code) != code && (e.Code != "" || code != "decode") || !strings.Contains(e.Error(), reason) || d.Rows() != 0 {
				t.Errorf("%s as %s, %s: %v, want %q", c.writer, c.reader, c.value, err, c.want)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s as %s, %s: %v", c.writer, c.reader, c.value, err)
		} else if got := shownRows(d)[0]; got != c.want {
			t.Errorf("%s as %s, %s: got %s, want %s", c.writer, c.reader, c.value, got, c.want)
		}
	}
}

// TestProtobufWriters: records of ten schemas in one topic, in any order.
func TestProtobufWriters(t *testing.T) {
	shelf := &shelf{schemas: map[int32]Schema{}}
	fields := "int32 id = 1;"
	var values [][]byte
	var want []string
	for v := range 10 {
		if v > 0 {
			fields += fmt.Sprintf(" string f%d = %d;", v, v+1)
		}
		shelf.schemas[int32(v)] = text(`syntax = "proto3"; message M { ` + fields + " }")
	}
	d, _ := protobuf(t, Options{Reader: shelf.schemas[6], Schemas: shelf, Framing: "registry"})
	for i := range 200 {
		v := i * 7 % 10
		value := fmt.Sprintf("id: %d", i)
		row := fmt.Sprintf("{id: %d", i)
		for f := 1; f < 10; f++ {
			if f <= v {
				value += fmt.Sprintf(" f%d: 'x%d'", f, i)
			}
			if f <= 6 && f <= v {
				row += fmt.Sprintf(", f%d: \"x%d\"", f, i)
			} else if f <= 6 {
				row += fmt.Sprintf(", f%d: \"\"", f)
			}
		}
		values = append(values, framed(int32(v), nil, written(t, descriptor(t, shelf.schemas[int32(v)], ""), value)))
		want = append(want, row+"}")
	}
	for _, v := range values {
		if err := d.Append(Record{Value: v}); err != nil {
			t.Fatal(err)
		}
	}
	if got := shownRows(d); !slices.Equal(got, want) {
		t.Errorf("got %s", got)
	}
}

// TestProtobufBombs: small records that would come to much memory or time are bad.
func TestProtobufBombs(t *testing.T) {
	wide := `syntax = "proto3"; message M { repeated W w = 1; N n = 2; } message W { `
	for i := range 100 {
		wide += fmt.Sprintf("int64 f%d = %d; ", i, i+1)
	}
	wide += "} "
	const deep = 40
	for l := range deep {
		wide += fmt.Sprintf("message N%d { N%d n = 1; } ", l, l+1)
	}
	wide += fmt.Sprintf("message N%d { int32 a = 1; } message N { N0 n = 1; }", deep)
	parts := []byte{}
	for range deep {
		again := protowire.AppendBytes([]byte{0x0a}, parts)
		parts = append(again, 0x0a, 0) // each message in two parts, the second one empty
	}
	parts = append(protowire.AppendBytes([]byte{0x12}, protowire.AppendBytes([]byte{0x0a}, parts)), 0x12, 0)
	for name, value := range map[string][]byte{
		"elements without fields": []byte(strings.Repeat("\x0a\x00", 1<<20)),
		"parts in parts":          parts,
	} {
		d, _ := protobuf(t, Options{Reader: text(wide)})
		var e *Error
		if err := d.Append(Record{Value: value}); !errors.As(err, &e) || e.Code != batch.CodeOversize {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, c := range map[string]struct{ message, value string }{ // many small parts take as long as one large one
		"parts of a message": {"In in = 1;", strings.Repeat("\x0a\x02\x08\x01", 1<<19)},
		"parts of a value":   {"google.protobuf.Value v = 1;", strings.Repeat("\x0a\x02\x2a\x00", 1<<19)},
		"entries of one key": {"map<string, int32> m = 1;", strings.Repeat("\x0a\x02\x10\x01", 1<<19)},
	} {
		d, _ := protobuf(t, Options{Reader: text(`syntax = "proto3"; ` + imports + "message M { " + c.message + " } message In { int32 a = 1; }")})
		if err := d.Append(Record{Value: []byte(c.value)}); err != nil || d.Rows() != 1 {
			t.Errorf("%s: %v", name, err)
		}
	}
}
