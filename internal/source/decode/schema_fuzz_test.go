package decode

import (
	"bytes"
	"errors"
	"testing"

	"github.com/twmb/avro"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/types/descriptorpb"

	"github.com/frazil-io/frazil/internal/batch"
)

// schemaBytes is what the columns of a schema may allocate, whatever its text is:
// there are 5,000 at most.
const schemaBytes = 128 << 20

// fuzzSchema holds a format to its word for any schema: it is refused as
// batch.ErrInvalid, or any value is a row of its columns or an *Error.
func fuzzSchema(t *testing.T, m *meter, format string, o Options, value []byte) {
	t.Helper()
	var d Decoder
	var err error
	m.within(t, schemaBytes+4096*len(o.Reader.Text), func() { d, err = New(format, nil, o) })
	if err != nil {
		if !errors.Is(err, batch.ErrInvalid) {
			t.Fatalf("%q: %v", o.Reader.Text, err)
		}
		return
	}
	for _, v := range [][]byte{nil, value} {
		n := d.Rows()
		m.within(t, schemaBytes+valueBytes*(spareFree+budgetPerByte*len(value)), func() { err = d.Append(Record{Value: v}) })
		var e *Error
		if err != nil && (!errors.As(err, &e) || d.Rows() != n || v == nil) || err == nil && d.Rows() != n+1 {
			t.Fatalf("%q: %q: %v, %d rows", o.Reader.Text, v, err, d.Rows()-n)
		}
	}
	n := d.Rows()
	arrays := d.Take()
	if len(arrays) != len(d.Fields()) {
		t.Fatalf("%q: %d columns for %d fields", o.Reader.Text, len(arrays), len(d.Fields()))
	}
	for _, a := range arrays {
		if a.Len() != n {
			t.Fatalf("%q: a column of %d in %d rows", o.Reader.Text, a.Len(), n)
		}
		for i := range n {
			cell(a, i)
		}
		a.Release()
	}
}

// FuzzAvroSchema reads any Avro schema, and any value with it.
func FuzzAvroSchema(f *testing.F) {
	_, value, _ := everything(f)
	f.Add([]byte(everythingSchema), value)
	f.Add([]byte(avroEnvelope), []byte{0, 0})
	for _, s := range []string{
		`"long"`, `["null","string"]`, `{"type":"record","name":"R","fields":[{"name":"r","type":["null","R"]}]}`,
		`{"type":"array","items":{"type":"record","name":"E","fields":[]}}`, `{"type":"record","name":"a.R","fields":[{"name":"x","type":{"type":"fixed","name":"F","size":1000000000},"default":"\u0000"}]}`,
		`{"type":"bytes","logicalType":"decimal","precision":400,"scale":4}`, `{"type":"enum","name":"E","symbols":["A","A"],"default":"B"}`, `{"type":"map","values":["int","long"]}`,
	} {
		f.Add([]byte(s), []byte{2, 2, 0})
	}
	m := newMeter()
	f.Fuzz(func(t *testing.T, schema, value []byte) {
		fuzzSchema(t, m, "avro", Options{Reader: Schema{Text: string(schema)}}, value)
	})
}

// FuzzProtobufSchema reads any .proto text, and any value with it.
func FuzzProtobufSchema(f *testing.F) {
	for _, s := range []string{
		clickProto, allProto(f).Text, `syntax = "proto3"; message M { M m = 1; }`, `message M { repeated group G = 1 { required int32 x = 2; } extensions 100 to max; }`,
		`edition = "2023"; message M { map<string, bytes> m = 1; oneof o { int32 a = 2; } reserved 5; }`, `import "google/protobuf/any.proto"; message M { google.protobuf.Any a = 1; }`,
	} {
		f.Add([]byte(s), []byte("\x08\x01"))
	}
	m := newMeter()
	f.Fuzz(func(t *testing.T, schema, value []byte) {
		fuzzSchema(t, m, "protobuf", Options{Reader: Schema{Type: TypeProtobuf, Text: string(schema)}}, value)
	})
}

// FuzzProtobufDescriptors reads anything for a set of descriptors.
func FuzzProtobufDescriptors(f *testing.F) {
	f.Add([]byte("\n\x07\n\x01a\"\x02\n\x00"), []byte("\x08\x01"))
	files, err := protoFiles(Schema{Type: TypeProtobuf, Text: clickProto})
	if err != nil {
		f.Fatal(err)
	}
	set := &descriptorpb.FileDescriptorSet{File: []*descriptorpb.FileDescriptorProto{protodesc.ToFileDescriptorProto(files[0])}}
	whole, err := proto.Marshal(set)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(whole, []byte("\x08\x01"))
	m := newMeter()
	f.Fuzz(func(t *testing.T, set, value []byte) {
		fuzzSchema(t, m, "protobuf", Options{Reader: Schema{Type: TypeDescriptors, Text: string(set)}}, value)
	})
}

// FuzzJSONSchema reads any JSON Schema, and any value with it.
func FuzzJSONSchema(f *testing.F) {
	for _, s := range []string{
		`{"type":"object","properties":{"a":{"type":"integer"},"b":{"type":["string","null"],"format":"date-time"},"c":{"type":"array","items":{"type":"number"}}}}`,
		`{"properties":{"a":{"$ref":"#/$defs/x"}},"$defs":{"x":{"allOf":[{"properties":{"y":{"enum":[1,2]}}},{"$ref":"#/$defs/x"}]}}}`,
		`{"type":"object","properties":{"m":{"type":"object","additionalProperties":{"type":"string","contentEncoding":"base64"}},"o":{"oneOf":[{"type":"null"},{"type":"boolean"}]}}}`, `{"$ref":"#"}`, `{"properties":{"a":{},"A":{}}}`,
	} {
		f.Add([]byte(s), []byte(`{"a":1,"b":"2026-01-02T03:04:05Z","c":[1.5],"m":{"k":"eA=="},"o":true}`))
	}
	m := newMeter()
	f.Fuzz(func(t *testing.T, schema, value []byte) {
		fuzzSchema(t, m, "json", Options{Reader: Schema{Type: TypeJSON, Text: string(schema)}}, value)
	})
}

// FuzzAvroDebezium: whatever an envelope in Avro is, it is a row, or an *Error and
// no row; with its key it is a row of both.
func FuzzAvroDebezium(f *testing.F) {
	schema := avro.MustParse(avroEnvelope)
	event := func(op string, before, after any) {
		b, err := schema.Encode(map[string]any{"before": before, "after": after, "op": op, "source": map[string]any{"ts_ms": int64(1700000000123), "lsn": int64(5), "ts_us": nil}, "transaction": nil})
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	event("c", nil, avroRow(1, "a"))
	event("u", avroRow(1, "a"), avroRow(1, nil))
	event("d", avroRow(1, "b"), nil)
	event("d", nil, nil)
	event("t", nil, nil)
	event("m", nil, avroRow(1, nil))
	m := newMeter()
	f.Fuzz(func(t *testing.T, value []byte) {
		for _, include := range [][]string{nil, {IncludeBefore, IncludeSource, IncludeTransaction}} {
			d, err := New("avro", nil, Options{Reader: Schema{Type: "AVRO", Text: avroEnvelope}, Envelope: "debezium", Include: include})
			if err != nil {
				t.Fatal(err)
			}
			if include != nil {
				d = joinedOf(t, d, keyOf(t, "json", "id INTEGER", Options{Envelope: "debezium"}))
			}
			rows := 0
			for range 3 { // the later ones with what the first one left
				m.within(t, perByte*len(value)+valueBytes*(budgetMin+budgetPerByte*len(value)), func() {
					err = d.Append(Record{Key: []byte(`{"id":7}`), Value: nonNil(bytes.Clone(value))})
				})
				var e *Error
				if err == nil {
					rows++
				}
				if err != nil && (!errors.As(err, &e) || e.Pos > len(value)) || d.Rows() != rows {
					t.Fatalf("%x: %v, %d rows", value, err, d.Rows())
				}
				if err == nil && rows == 2 { // what is taken is gone
					for _, a := range d.Take() {
						if a.Len() != rows {
							t.Fatalf("%x: a column of %d in %d rows", value, a.Len(), rows)
						}
						for i := range a.Len() {
							cell(a, i)
						}
						a.Release()
					}
					rows = 0
				}
			}
		}
	})
}

// FuzzEncoding: what is decompressed is what the library gives, bounded, or an *Error.
func FuzzEncoding(f *testing.F) {
	const most = 1 << 20
	for _, text := range [][]byte{nil, []byte("x"), make([]byte, most), make([]byte, most+1), bytes.Repeat([]byte("abc "), 1000)} {
		f.Add(false, packed(f, EncodingGzip, text))
		f.Add(true, packed(f, EncodingZstd, text))
		f.Add(false, append(packed(f, EncodingGzip, text), packed(f, EncodingGzip, text)...))
		f.Add(true, append(packed(f, EncodingZstd, text), packed(f, EncodingZstd, text)...))
	}
	m := newMeter()
	decoders := map[bool]Decoder{}
	for zstd, encoding := range map[bool]string{false: EncodingGzip, true: EncodingZstd} {
		d, err := newEncoded(newRaw(), encoding, most)
		if err != nil {
			f.Fatal(err)
		}
		decoders[zstd] = d
	}
	f.Fuzz(func(t *testing.T, zstd bool, value []byte) {
		d := decoders[zstd]
		var err error
		m.within(t, 16*most+perByte*len(value), func() { err = d.Append(Record{Value: nonNil(value)}) })
		var e *Error
		switch {
		case err != nil && (!errors.As(err, &e) || d.Rows() != 0):
			t.Fatalf("%x: %v, %d rows", value, err, d.Rows())
		case err == nil && (d.Rows() != 1 || d.(Unpacked).Unpacked() > most):
			t.Fatalf("%x: %d rows, %d bytes", value, d.Rows(), d.(Unpacked).Unpacked())
		}
		for _, a := range d.Take() {
			a.Release()
		}
	})
}
