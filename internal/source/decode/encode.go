package decode

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/twmb/avro"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/dynamicpb"

	"github.com/frazil-io/frazil/internal/batch"
)

// Encoder makes the bytes of a record from JSON, as a producer's serializer would: the
// test cases of a spec have their records in JSON.
type Encoder func(text []byte) ([]byte, error)

// NewEncoder returns the encoder of a format, for records that are written with a
// schema, where the format has one. Formats without are their own text. Of the options
// it takes Framing, Message and Encoding. batch.ErrInvalid: the schema is of no use.
func NewEncoder(format string, written Schema, o Options) (Encoder, error) {
	encode := Encoder(func(text []byte) ([]byte, error) { return withHeader(o.Framing, written.ID, nil, text) })
	var err error
	switch format {
	case "avro":
		encode, err = avroEncoder(written, o)
	case "protobuf":
		encode, err = protoEncoder(written, o)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: the %s schema cannot be written with: %w", batch.ErrInvalid, format, err)
	}
	switch o.Encoding {
	case EncodingGzip:
		return compressed(encode, func(w io.Writer) (io.WriteCloser, error) { return gzip.NewWriter(w), nil }), nil
	case EncodingZstd:
		return compressed(encode, func(w io.Writer) (io.WriteCloser, error) { return zstd.NewWriter(w) }), nil
	}
	return encode, nil
}

// compressed compresses what an encoder makes.
func compressed(encode Encoder, open func(io.Writer) (io.WriteCloser, error)) Encoder {
	return func(text []byte) ([]byte, error) {
		data, err := encode(text)
		if err != nil {
			return nil, err
		}
		var out bytes.Buffer
		w, err := open(&out)
		if err != nil {
			return nil, err
		}
		if _, err := w.Write(data); err != nil {
			return nil, err
		}
		if err := w.Close(); err != nil {
			return nil, err
		}
		return out.Bytes(), nil
	}
}

// withHeader puts before a record what its framing says.
func withHeader(framing string, id int32, index, data []byte) ([]byte, error) {
	switch framing {
	case "", "none":
		return data, nil
	case "registry":
		head := binary.BigEndian.AppendUint32([]byte{headerMagic}, uint32(id))
		return slices.Concat(head, index, data), nil
	}
	return nil, fmt.Errorf("records with framing %s cannot be written here; give their bytes as base64", framing)
}

func avroEncoder(written Schema, o Options) (Encoder, error) {
	var types avro.SchemaCache
	s, err := parseReferences(&types, written, map[string]bool{})
	if err != nil {
		return nil, err
	}
	return func(text []byte) ([]byte, error) {
		value, err := jsonValue(text)
		if err != nil {
			return nil, err
		}
		value = unspelled(value)
		data, err := s.Encode(value)
		if err != nil {
			return nil, err
		}
		// What was taken is read back: a member that is no field was passed over.
		var took any
		if _, err := s.Decode(data, &took); err != nil {
			return nil, err
		}
		if name := superfluous(value, took); name != "" {
			return nil, fmt.Errorf("the schema has no field %q there", name)
		}
		if o.Framing == "single_object" {
			return s.AppendSingleObject(nil, value)
		}
		return withHeader(o.Framing, written.ID, nil, data)
	}, nil
}

// jsonValue reads one value in JSON, with all digits of its numbers.
func jsonValue(text []byte) (value any, err error) {
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	if err := d.Decode(&value); err != nil {
		return nil, err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("there is more behind the JSON value")
	}
	return value, nil
}

// unspelled makes bytes of each {"base64": "…"}.
func unspelled(value any) any {
	switch v := value.(type) {
	case map[string]any:
		if text, ok := v["base64"].(string); ok && len(v) == 1 {
			if data, err := base64.StdEncoding.DecodeString(text); err == nil {
				return data
			}
		}
		for name, member := range v {
			v[name] = unspelled(member)
		}
	case []any:
		for i := range v {
			v[i] = unspelled(v[i])
		}
	}
	return value
}

// superfluous returns a member of an object that is not in what was taken of it. A
// member alone may name the type of a union.
func superfluous(given, took any) string {
	switch g := given.(type) {
	case map[string]any:
		t, ok := took.(map[string]any)
		for name, member := range g {
			switch at, there := t[name]; {
			case there:
				if name := superfluous(member, at); name != "" {
					return name
				}
			case len(g) == 1 && (!ok || isObject(member)):
				return superfluous(member, took)
			case ok:
				return name
			}
		}
	case []any:
		t, ok := took.([]any)
		for i := range g {
			if ok && i < len(t) {
				if name := superfluous(g[i], t[i]); name != "" {
					return name
				}
			}
		}
	}
	return ""
}

func isObject(value any) bool { _, ok := value.(map[string]any); return ok }

func protoEncoder(written Schema, o Options) (Encoder, error) {
	files, err := protoFiles(written)
	if err != nil {
		return nil, err
	}
	message, err := protoMessage(files, o.Message)
	if err != nil {
		return nil, err
	}
	var index []byte
	if o.Framing == "registry" {
		if message.ParentFile().Path() != files[0].Path() {
			return nil, fmt.Errorf("message %s is in %s, which the schema imports: its own messages only can be written", message.FullName(), message.ParentFile().Path())
		}
		index = messageIndex(message)
	}
	return func(text []byte) ([]byte, error) {
		m := dynamicpb.NewMessage(message)
		if err := protojson.Unmarshal(text, m); err != nil {
			return nil, err
		}
		data, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
		if err != nil {
			return nil, err
		}
		return withHeader(o.Framing, written.ID, index, data)
	}, nil
}

// messageIndex is where a message is in its file, as the registry's wire format and
// Java's client have it: the entries of maps do not count.
func messageIndex(m protoreflect.MessageDescriptor) []byte {
	var path []int64
	for at := protoreflect.Descriptor(m); ; at = at.Parent() {
		d, ok := at.(protoreflect.MessageDescriptor)
		if !ok {
			break
		}
		in := d.ParentFile().Messages()
		if outer, ok := d.Parent().(protoreflect.MessageDescriptor); ok {
			in = outer.Messages()
		}
		var before int64
		for i := range d.Index() {
			if !in.Get(i).IsMapEntry() {
				before++
			}
		}
		path = append(path, before)
	}
	if len(path) == 1 && path[0] == 0 {
		return []byte{0} // the first one is written so for short
	}
	index := binary.AppendVarint(nil, int64(len(path)))
	for _, n := range slices.Backward(path) {
		index = binary.AppendVarint(index, n)
	}
	return index
}
