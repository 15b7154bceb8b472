package decode

import (
	"cmp"
	"errors"
	"strings"
	"testing"

	"github.com/frazil-io/frazil/internal/batch"
)

// guid is the header of the schema with an id, as registryOf knows it.
func guid(id byte) string { return "\x01" + strings.Repeat("\x00", 15) + string([]byte{id}) }

// TestHeaderIDs: the id of a schema may stand in a header of the record, as a GUID or
// a number; the record then begins at once. The last such header counts.
func TestHeaderIDs(t *testing.T) {
	const avroText = `{"type":"record","name":"R","fields":[{"name":"a","type":"long"}]}`
	proto := text(`syntax = "proto3"; message A { int64 a = 1; } message B { int64 b = 1; message C { int64 a = 1; } }`)
	json := Schema{Type: TypeJSON, Text: `{"type":"object","properties":{"a":{"type":"integer"}}}`}
	schemas := registryOf{7: {Type: "AVRO", Text: avroText}, 8: proto, 9: json}
	options := func(s Schema, message string) Options {
		return Options{Reader: s, Schemas: schemas, Framing: "registry", Message: message}
	}
	avro := options(schemas[7], "")
	for _, c := range []struct {
		format  string
		o       Options
		headers []string // of __value_schema_id
		value   string
		want    string
	}{
		{"avro", avro, []string{guid(7)}, "\x0a", "{a: 5}"},
		{"avro", avro, []string{"\x00\x00\x00\x00\x07"}, "\x0a", "{a: 5}"},
		{"avro", avro, []string{guid(8), guid(7)}, "\x0a", "{a: 5}"},
		{"avro", avro, nil, "\x00\x00\x00\x00\x07\x0a", "{a: 5}"},
		{"avro", avro, []string{guid(7)}, "\x00\x00\x00\x00\x07\x0a", "!decode 5 bytes follow the record"},
		{"avro", avro, []string{guid(3)}, "\x0a", "!schema the registry has no schema with the GUID 00000000-0000-0000-0000-000000000003 of the header __value_schema_id"},
		{"avro", avro, []string{"\x00\x00\x00\x00\x06"}, "\x0a", "!schema the registry has no schema 6"},
		{"avro", avro, []string{guid(8)}, "\x0a", "!schema schema 8 of the registry does not fit the columns: it is of type PROTOBUF"},
		{"avro", avro, []string{guid(7) + "x"}, "\x0a", "!decode there are 1 bytes behind the id"},
		{"avro", avro, []string{"\x01abc"}, "\x0a", "!decode the header __value_schema_id holds neither"},
		{"avro", avro, []string{"\x02" + guid(7)[1:]}, "\x0a", "!decode the header __value_schema_id holds neither"},
		{"avro", avro, []string{""}, "\x0a", "!decode the header __value_schema_id holds neither"},
		{"protobuf", options(proto, "A"), []string{guid(8) + "\x00"}, "\x08\x05", "{a: 5}"},
		{"protobuf", options(proto, "B.C"), []string{guid(8) + "\x04\x02\x00"}, "\x08\x05", "{a: 5}"},
		{"protobuf", options(proto, "B.C"), []string{"\x00\x00\x00\x00\x08\x04\x02\x00"}, "", "{a: 0}"},
		{"protobuf", options(proto, "A"), []string{guid(8)}, "\x08\x05", "!decode the header's message index"},
		{"protobuf", options(proto, "A"), []string{guid(8) + "\x00\x00"}, "\x08\x05", "!decode there are 1 bytes behind the message's index"},
		{"protobuf", options(proto, "A"), []string{guid(8) + "\x02\x02"}, "\x08\x05", "!schema the record is a B"},
		{"protobuf", options(proto, "A"), []string{guid(3) + "\x00"}, "\x08\x05", "!schema the registry has no schema with the GUID"},
		{"json", options(json, ""), []string{guid(9)}, `{"a":5}`, "{a: 5}"},
		{"json", options(json, ""), []string{guid(7)}, `{"a":5}`, "!schema schema 7 is of type AVRO"},
		{"json", options(json, ""), []string{guid(9)}, "\x00\x00\x00\x00\x09{\"a\":5}", "!decode expected an object"},
	} {
		for name, open := range map[string]func() (Decoder, error){
			valueIDHeader: func() (Decoder, error) { return New(c.format, nil, c.o) },
			keyIDHeader:   func() (Decoder, error) { return NewKey(c.format, nil, c.o) },
		} {
			d, err := open()
			if err != nil {
				t.Fatal(err)
			}
			r := Record{Value: nonNil([]byte(c.value)), Headers: []Header{{Key: []byte("other"), Value: []byte("x")}}}
			for _, h := range c.headers {
				r.Headers = append(r.Headers, Header{Key: []byte(name), Value: nonNil([]byte(h))})
			}
			r.Headers = append(r.Headers, Header{Key: []byte(name)}, Header{Key: []byte(map[string]string{valueIDHeader: keyIDHeader, keyIDHeader: valueIDHeader}[name]), Value: []byte("of the other part")})
			for range 2 { // the second time from what was kept
				err := d.Append(r)
				if want, bad := strings.CutPrefix(c.want, "!"); bad {
					code, reason, _ := strings.Cut(strings.ReplaceAll(want, valueIDHeader, name), " ")
					var e *Error
					if !errors.As(err, &e) || string(cmp.Or(e.Code, batch.CodeDecode)) != code || !strings.Contains(e.Error(), reason) || d.Rows() != 0 || e.Pos > len(c.value) {
						t.Errorf("%s %s %q %q: %v, want %q", c.format, name, c.headers, c.value, err, c.want)
					}
					continue
				}
				if err != nil {
					t.Errorf("%s %s %q %q: %v", c.format, name, c.headers, c.value, err)
				} else if got := shownRows(d); got[0] != c.want {
					t.Errorf("%s %s %q %q: got %s, want %s", c.format, name, c.headers, c.value, got, c.want)
				}
			}
		}
	}
	// A key's header reaches the key's decoder.
	key, err := NewKey("avro", nil, avro)
	if err != nil {
		t.Fatal(err)
	}
	j := joinedOf(t, decoder(t, "v INTEGER", Options{}), key)
	if err := j.Append(Record{Key: []byte("\x0a"), Value: []byte(`{"v":1}`), Headers: []Header{{Key: []byte(keyIDHeader), Value: []byte(guid(7))}}}); err != nil {
		t.Error(err)
	} else if got := taken(j); got != "1 | 5\n" {
		t.Error(got)
	}
	// Without schemas that matter, the header is only a sign.
	d := decoder(t, "a BIGINT", Options{Framing: "registry"})
	if err := d.Append(Record{Value: []byte(`{"a":5}`), Headers: []Header{{Key: []byte(valueIDHeader), Value: []byte("x")}}}); err != nil {
		t.Error(err)
	}
	// A registry that is away is no record's fault.
	away := avro
	away.Schemas = silent{}
	if d, err = New("avro", nil, away); err != nil {
		t.Fatal(err)
	}
	if err := d.Append(Record{Value: []byte("\x0a"), Headers: []Header{{Key: []byte(valueIDHeader), Value: []byte(guid(7))}}}); !errors.Is(err, batch.ErrUnavailable) {
		t.Errorf("a registry that does not answer: %v", err)
	}
}

// silent is a registry that does not answer.
type silent struct{}

func (silent) ByID(int32) (Schema, error) { return Schema{}, batch.ErrUnavailable }
func (silent) IDOf(string) (int32, error) { return 0, batch.ErrUnavailable }
