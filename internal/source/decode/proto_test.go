package decode

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/dynamicpb"
)

func readTestdata(t testing.TB, name string) string {
	t.Helper()
	b, err := os.ReadFile("testdata/proto/" + name)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func allProto(t testing.TB) Schema {
	t.Helper()
	return Schema{Type: TypeProtobuf, Text: readTestdata(t, "all.proto"), References: map[string]Schema{"old.proto": {Type: TypeProtobuf, Text: readTestdata(t, "old.proto")}}}
}

// protobuf returns a decoder and the descriptor of its message.
func protobuf(t testing.TB, o Options) (*protoDecoder, protoreflect.MessageDescriptor) {
	t.Helper()
	d, err := New("protobuf", nil, o)
	if err != nil {
		t.Fatal(err)
	}
	return d.(*protoDecoder), d.(*protoDecoder).message
}

// shown renders a value of a column, floats by their bits.
func shown(a arrow.Array, i int) string {
	if a.IsNull(i) {
		return "null"
	}
	switch a := a.(type) {
	case *array.Float32:
		return floatShown(float64(a.Value(i)))
	case *array.Float64:
		return floatShown(a.Value(i))
	case *array.String:
		return fmt.Sprintf("%q", a.Value(i))
	case *array.Binary:
		return fmt.Sprintf("x'%x'", a.Value(i))
	case *array.Timestamp:
		return fmt.Sprint(int64(a.Value(i)), "us")
	case *array.Map:
		from, to := a.ValueOffsets(i)
		var entries []string
		for k := from; k < to; k++ {
			entries = append(entries, shown(a.Keys(), int(k))+": "+shown(a.Items(), int(k)))
		}
		slices.Sort(entries)
		return "map{" + strings.Join(entries, ", ") + "}"
	case *array.List:
		from, to := a.ValueOffsets(i)
		var elements []string
		for k := from; k < to; k++ {
			elements = append(elements, shown(a.ListValues(), int(k)))
		}
		return "[" + strings.Join(elements, ", ") + "]"
	case *array.Struct:
		var members []string
		for k := range a.NumField() {
			members = append(members, a.DataType().(*arrow.StructType).Field(k).Name+": "+shown(a.Field(k), i))
		}
		return "{" + strings.Join(members, ", ") + "}"
	}
	return a.ValueStr(i)
}

func floatShown(v float64) string {
	if math.IsNaN(v) {
		return "NaN"
	}
	return fmt.Sprintf("%x", math.Float64bits(v))
}

// shownRows takes the rows and renders each as a struct.
func shownRows(d Decoder) []string {
	out := make([]string, d.Rows())
	fields := d.Fields()
	for k, a := range d.Take() {
		for i := range out {
			if k > 0 {
				out[i] += ", "
			}
			out[i] += fields[k].Name + ": " + shown(a, i)
		}
		a.Release()
	}
	for i := range out {
		out[i] = "{" + out[i] + "}"
	}
	return out
}

// messageShown renders a message, as Protobuf's own library read it, in the way
// that the decoder's columns are.
func messageShown(m protoreflect.Message) string {
	md := m.Descriptor()
	field := func(name protoreflect.Name) protoreflect.Value { return m.Get(md.Fields().ByName(name)) }
	switch md.FullName() {
	case "google.protobuf.Timestamp":
		return fmt.Sprint(field("seconds").Int()*1e6+field("nanos").Int()/1e3, "us")
	case "google.protobuf.Duration":
		return fmt.Sprint(field("seconds").Int()*1e6 + field("nanos").Int()/1e3)
	case "google.protobuf.FieldMask":
		var paths []string
		for i := range field("paths").List().Len() {
			paths = append(paths, field("paths").List().Get(i).String())
		}
		return fmt.Sprintf("%q", strings.Join(paths, ","))
	}
	if strings.HasPrefix(string(md.FullName()), "google.protobuf.") && strings.HasSuffix(string(md.Name()), "Value") && md.Fields().Len() == 1 {
		return valueShown1(md.Fields().Get(0), m.Get(md.Fields().Get(0)))
	}
	if md.Fields().Len() == 0 {
		return "true"
	}
	var members []string
	for i := range md.Fields().Len() {
		f := md.Fields().Get(i)
		members = append(members, string(f.Name())+": "+fieldShown(m, f))
	}
	return "{" + strings.Join(members, ", ") + "}"
}

func fieldShown(m protoreflect.Message, f protoreflect.FieldDescriptor) string {
	switch {
	case f.IsMap():
		var entries []string
		m.Get(f).Map().Range(func(k protoreflect.MapKey, v protoreflect.Value) bool {
			entries = append(entries, valueShown1(f.MapKey(), k.Value())+": "+valueShown1(f.MapValue(), v))
			return true
		})
		slices.Sort(entries)
		return "map{" + strings.Join(entries, ", ") + "}"
	case f.IsList():
		var elements []string
		for i := range m.Get(f).List().Len() {
			elements = append(elements, valueShown1(f, m.Get(f).List().Get(i)))
		}
		return "[" + strings.Join(elements, ", ") + "]"
	case f.HasPresence() && !m.Has(f) && (!f.HasDefault() || f.ContainingOneof() != nil):
		return "null"
	}
	return valueShown1(f, m.Get(f))
}

func valueShown1(f protoreflect.FieldDescriptor, v protoreflect.Value) string {
	switch f.Kind() {
	case protoreflect.MessageKind, protoreflect.GroupKind:
		return messageShown(v.Message())
	case protoreflect.EnumKind:
		if name := f.Enum().Values().ByNumber(v.Enum()); name != nil {
			return fmt.Sprintf("%q", name.Name())
		}
		return fmt.Sprintf("\"%d\"", v.Enum())
	case protoreflect.StringKind:
		return fmt.Sprintf("%q", v.String())
	case protoreflect.BytesKind:
		return fmt.Sprintf("x'%x'", v.Bytes())
	case protoreflect.FloatKind, protoreflect.DoubleKind:
		return floatShown(v.Float())
	default:
		return fmt.Sprint(v.Interface())
	}
}

// randomMessage fills a message. Numbers are small, large and extreme.
func randomMessage(r *rand.Rand, m protoreflect.Message, depth int) {
	md := m.Descriptor()
	switch md.FullName() {
	case "google.protobuf.Timestamp":
		m.Set(md.Fields().ByName("seconds"), protoreflect.ValueOfInt64(timestampLeast+r.Int64N(timestampMost-timestampLeast)))
		m.Set(md.Fields().ByName("nanos"), protoreflect.ValueOfInt32(r.Int32N(1e9)))
		return
	case "google.protobuf.Duration":
		sign := int64(1 - 2*r.IntN(2))
		m.Set(md.Fields().ByName("seconds"), protoreflect.ValueOfInt64(sign*r.Int64N(durationMost)))
		m.Set(md.Fields().ByName("nanos"), protoreflect.ValueOfInt32(int32(sign)*r.Int32N(1e9)))
		return
	}
	for i := range md.Fields().Len() {
		f := md.Fields().Get(i)
		if f.Cardinality() != protoreflect.Required && r.IntN(2) == 0 || f.Message() != nil && depth > 4 {
			continue
		}
		switch {
		case f.IsMap():
			for range r.IntN(12) {
				v := m.Mutable(f).Map().NewValue()
				if f.MapValue().Message() != nil {
					randomMessage(r, v.Message(), depth+1)
				} else {
					v = randomValue(r, f.MapValue())
				}
				m.Mutable(f).Map().Set(randomValue(r, f.MapKey()).MapKey(), v)
			}
		case f.IsList():
			for range r.IntN(4) {
				if f.Message() != nil {
					randomMessage(r, m.Mutable(f).List().AppendMutable().Message(), depth+1)
				} else {
					m.Mutable(f).List().Append(randomValue(r, f))
				}
			}
		case f.Message() != nil:
			randomMessage(r, m.Mutable(f).Message(), depth+1)
		default:
			m.Set(f, randomValue(r, f))
		}
	}
}

func randomValue(r *rand.Rand, f protoreflect.FieldDescriptor) protoreflect.Value {
	bits := r.Uint64() >> r.IntN(64)
	if r.IntN(2) == 0 {
		bits = -bits
	}
	switch f.Kind() {
	case protoreflect.BoolKind:
		return protoreflect.ValueOfBool(bits%2 == 0)
	case protoreflect.EnumKind:
		if r.IntN(4) == 0 && !f.Enum().IsClosed() {
			return protoreflect.ValueOfEnum(protoreflect.EnumNumber(int32(bits)))
		}
		return protoreflect.ValueOfEnum(f.Enum().Values().Get(r.IntN(f.Enum().Values().Len())).Number())
	case protoreflect.Int32Kind, protoreflect.Sint32Kind, protoreflect.Sfixed32Kind:
		return protoreflect.ValueOfInt32(int32(bits))
	case protoreflect.Int64Kind, protoreflect.Sint64Kind, protoreflect.Sfixed64Kind:
		return protoreflect.ValueOfInt64(int64(bits))
	case protoreflect.Uint32Kind, protoreflect.Fixed32Kind:
		return protoreflect.ValueOfUint32(uint32(bits))
	case protoreflect.Uint64Kind, protoreflect.Fixed64Kind:
		return protoreflect.ValueOfUint64(bits)
	case protoreflect.FloatKind:
		return protoreflect.ValueOfFloat32(math.Float32frombits(uint32(bits)))
	case protoreflect.DoubleKind:
		return protoreflect.ValueOfFloat64(math.Float64frombits(bits))
	case protoreflect.StringKind:
		return protoreflect.ValueOfString([]string{"", "a", "é😀", "a longer text, of more than 16 bytes"}[r.IntN(4)])
	default:
		return protoreflect.ValueOfBytes([]byte{byte(bits), 0, 0xff}[:r.IntN(4)])
	}
}

// restless writes a message otherwise: fields in any order, some twice, messages in
// parts, packed and unpacked in any mix, varints longer than needed, unknown fields
// between.
func restless(r *rand.Rand, md protoreflect.MessageDescriptor, in []byte) []byte {
	var fields [][]byte
	for len(in) > 0 {
		num, wire, tagged := protowire.ConsumeTag(in)
		n := protowire.ConsumeFieldValue(num, wire, in[tagged:])
		whole, value := in[:tagged+n], in[tagged:tagged+n]
		in = in[tagged+n:]
		fields = append(fields, rewritten(r, md.Fields().ByNumber(num), num, wire, value)...)
		if r.IntN(8) == 0 {
			fields = append(fields, whole) // again, as it was
		}
		if r.IntN(8) == 0 {
			fields = append(fields, protowire.AppendFixed32(protowire.AppendTag(nil, 7777, protowire.Fixed32Type), r.Uint32()))
		}
	}
	if r.IntN(2) == 0 { // repeated fields keep their order for the eye only: the oracle reads the same bytes
		r.Shuffle(len(fields), func(i, j int) { fields[i], fields[j] = fields[j], fields[i] })
	}
	return slices.Concat(fields...)
}

func rewritten(r *rand.Rand, f protoreflect.FieldDescriptor, num protowire.Number, wire protowire.Type, value []byte) [][]byte {
	tag := func(w protowire.Type) []byte { return protowire.AppendTag(nil, num, w) }
	if wire == protowire.VarintType && r.IntN(4) == 0 { // longer than needed
		v, _ := protowire.ConsumeVarint(value)
		long := protowire.AppendVarint(nil, v)
		if len(long) < 9 {
			long[len(long)-1] |= 0x80
			long = append(long, 0)
		}
		value = long
	}
	if wire == protowire.BytesType {
		inner, _ := protowire.ConsumeBytes(value)
		switch {
		case f.Message() != nil:
			inner = restless(r, f.Message(), inner)
			if !f.IsList() && !f.IsMap() && r.IntN(2) == 0 { // in parts
				at := 0
				for at < len(inner) {
					_, _, n := protowire.ConsumeField(inner[at:])
					if at += n; r.IntN(2) == 0 {
						break
					}
				}
				return [][]byte{protowire.AppendBytes(tag(wire), inner[:at]), protowire.AppendBytes(tag(wire), inner[at:])}
			}
			value = protowire.AppendBytes(nil, inner)
		case f.IsList() && f.Kind() != protoreflect.StringKind && f.Kind() != protoreflect.BytesKind: // packed
			single, _, _ := onWire(f)
			var out [][]byte
			for len(inner) > 0 {
				n := protowire.ConsumeFieldValue(num, single, inner)
				out = append(out, append(tag(single), inner[:n]...))
				inner = inner[n:]
			}
			if r.IntN(2) == 0 {
				return out
			}
		}
	}
	return [][]byte{append(tag(wire), value...)}
}

// TestProtobufLikeTheLibrary: random messages, written in odd ways, are read as
// Protobuf's own library reads them.
func TestProtobufLikeTheLibrary(t *testing.T) {
	for _, name := range []string{"test.All", "test.Old"} {
		d, md := protobuf(t, Options{Reader: allProto(t), Message: name})
		seed := rand.Uint64()
		r := rand.New(rand.NewPCG(seed, 1))
		var want []string
		for range 3000 {
			m := dynamicpb.NewMessage(md)
			randomMessage(r, m, 0)
			value, err := proto.Marshal(m)
			if err != nil {
				t.Fatal(err)
			}
			if r.IntN(4) > 0 {
				value = restless(r, md, value)
			}
			again := dynamicpb.NewMessage(md)
			if err := proto.Unmarshal(value, again); err != nil {
				t.Fatalf("seed %d: the library cannot read %x: %v", seed, value, err)
			}
			if r.IntN(4) == 0 { // a part of it does no harm to the others
				n := d.Rows()
				if cut := value[:r.IntN(len(value)+1)]; d.Append(Record{Value: cut}) == nil {
					d.root.column.cut(n)
				}
			}
			if err := d.Append(Record{Value: value}); err != nil {
				t.Fatalf("seed %d: %x: %v", seed, value, err)
			}
			want = append(want, messageShown(again))
		}
		for i, got := range shownRows(d) {
			if got != want[i] {
				t.Fatalf("seed %d, message %d of %s:\n got %s\nwant %s", seed, i, name, got, want[i])
			}
		}
	}
}

// stricter are the reasons for which the decoder refuses what Protobuf's library
// takes: that cuts numbers, passes fields over, and so on.
var stricter = regexp.MustCompile(`out of range|has wire type \d, and its type has|not valid UTF-8|nested more than|the record takes too much`)

// FuzzProtobuf holds the decoder against Protobuf's own library: what it takes the
// library takes, with the same values; what it refuses the library refuses, or it
// says one of the reasons for which it may.
func FuzzProtobuf(f *testing.F) {
	r := rand.New(rand.NewPCG(1, 2))
	for old, name := range []string{"test.All", "test.Old"} {
		_, md := protobuf(f, Options{Reader: allProto(f), Message: name})
		for range 20 {
			m := dynamicpb.NewMessage(md)
			randomMessage(r, m, 3)
			value, err := proto.Marshal(m)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(old == 1, value)
			f.Add(old == 1, restless(r, md, value))
		}
	}
	f.Add(true, []byte("\x08\x01\x28\x07"))
	all, allMessage := protobuf(f, Options{Reader: allProto(f), Message: "test.All"})
	old, oldMessage := protobuf(f, Options{Reader: allProto(f), Message: "test.Old"})
	mem := newMeter()
	f.Fuzz(func(t *testing.T, proto2 bool, value []byte) {
		d, m := all, dynamicpb.NewMessage(allMessage)
		if proto2 {
			d, m = old, dynamicpb.NewMessage(oldMessage)
		}
		var err error
		mem.within(t, perByte*len(value)+valueBytes*(spareFree+sparePerByte*len(value)), func() { err = d.Append(Record{Value: bytes.Clone(value)}) })
		wrong := library(value, m)
		if err != nil {
			var e *Error
			if !errors.As(err, &e) || e.Pos < 0 || e.Pos > len(value) || d.Rows() != 0 {
				t.Fatalf("%x: an error without a place, or a row left: %v, %d rows", value, err, d.Rows())
			}
			if wrong == nil && !stricter.MatchString(e.Reason) {
				t.Fatalf("%x: the decoder says %v", value, err)
			}
			return
		}
		got := shownRows(d)[0]
		if wrong != nil {
			t.Fatalf("%x: the decoder reads %s, the library says %v", value, got, wrong)
		}
		if proto2 && unnamed.MatchString(got) { // the library hides what a closed enum does not name
			return
		}
		if want := messageShown(m); got != want {
			t.Fatalf("%x:\n got %s\nwant %s", value, got, want)
		}
	})
}

// library reads a message. Where an entry of a map has a key of another type behind
// its key, the library panics.
func library(value []byte, m proto.Message) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("it panics: %v", p)
		}
	}()
	return proto.Unmarshal(value, m)
}

// unnamed is an enum of Old with a number.
var unnamed = regexp.MustCompile(`(level|bare): "-?\d+"|levels: \[[^]]*"-?\d+"`)

// FuzzProtobufJSON: whatever Struct, Value and ListValue hold becomes valid JSON,
// with the values that Protobuf's own library finds.
func FuzzProtobufJSON(f *testing.F) {
	d, md := protobuf(f, Options{Reader: allProto(f), Message: "test.Json"})
	for _, s := range []string{
		`{"object":{"a":1.5,"b":[true,null,{"c":"x\"\n"}]},"value":"x","list":[[],{}],"values":[1e300,-0.0,"\u0000"]}`, `{"value":{"x":{"x":{}}}}`,
	} {
		m := dynamicpb.NewMessage(md)
		if err := protojson.Unmarshal([]byte(s), m); err != nil {
			f.Fatal(err)
		}
		value, err := proto.Marshal(m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(value)
	}
	mem := newMeter()
	f.Fuzz(func(t *testing.T, value []byte) {
		m := dynamicpb.NewMessage(md)
		wrong := library(value, m)
		var err error
		mem.within(t, perByte*len(value)+valueBytes*spareFree, func() { err = d.Append(Record{Value: bytes.Clone(value)}) })
		if err != nil {
			var e *Error
			if !errors.As(err, &e) || e.Pos < 0 || e.Pos > len(value) || d.Rows() != 0 {
				t.Fatalf("%x: an error without a place, or a row left: %v, %d rows", value, err, d.Rows())
			}
			if wrong == nil && !stricter.MatchString(e.Reason) && !strings.Contains(e.Reason, "no number of JSON") {
				t.Fatalf("%x: the decoder says %v", value, err)
			}
			return
		}
		arrays := d.Take()
		for i, name := range []protoreflect.Name{"object", "value", "list"} {
			f := md.Fields().ByName(name)
			if arrays[i].IsNull(0) != !m.Has(f) {
				t.Fatalf("%x: %s is %s", value, name, shown(arrays[i], 0))
			}
			if arrays[i].IsNull(0) {
				continue
			}
			var got any
			if err := json.Unmarshal([]byte(arrays[i].(*array.String).Value(0)), &got); err != nil {
				t.Fatalf("%x: %s is %s: %v", value, name, shown(arrays[i], 0), err)
			}
			if want := jsonOf(m.Get(f).Message()); wrong == nil && !reflect.DeepEqual(got, want) {
				t.Fatalf("%x: %s is %v, want %v", value, name, got, want)
			}
		}
	})
}

// jsonOf returns a Struct, Value or ListValue as encoding/json would.
func jsonOf(m protoreflect.Message) any {
	md := m.Descriptor()
	switch md.Name() {
	case "Struct":
		out := map[string]any{}
		m.Get(md.Fields().ByName("fields")).Map().Range(func(k protoreflect.MapKey, v protoreflect.Value) bool {
			out[k.String()] = jsonOf(v.Message())
			return true
		})
		return out
	case "ListValue":
		out := []any{}
		for i := range m.Get(md.Fields().ByName("values")).List().Len() {
			out = append(out, jsonOf(m.Get(md.Fields().ByName("values")).List().Get(i).Message()))
		}
		return out
	}
	f := m.WhichOneof(md.Oneofs().Get(0))
	switch {
	case f == nil || f.Kind() == protoreflect.EnumKind:
		return nil
	case f.Message() != nil:
		return jsonOf(m.Get(f).Message())
	}
	return m.Get(f).Interface()
}
