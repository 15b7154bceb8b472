package decode

import (
	"cmp"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"math"
	"math/big"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/extensions"
	"github.com/twmb/avro"
)

var seedFlag = flag.Uint64("seed", 0, "of the random tests; 0: a new one")

// avroWorld makes random schemas, newer versions of them, and values.
type avroWorld struct {
	*rand.Rand
	names int
}

type object = map[string]any

func (w *avroWorld) name(prefix string) string {
	w.names++
	return prefix + strconv.Itoa(w.names)
}

var scalarSchemas = []any{
	"boolean", "int", "long", "float", "double", "bytes", "string",
	object{"type": "int", "logicalType": "date"},
	object{"type": "int", "logicalType": "time-millis"},
	object{"type": "long", "logicalType": "time-micros"},
	object{"type": "long", "logicalType": "timestamp-millis"},
	object{"type": "long", "logicalType": "timestamp-micros"},
	object{"type": "long", "logicalType": "timestamp-nanos"},
	object{"type": "long", "logicalType": "local-timestamp-millis"},
	object{"type": "bytes", "logicalType": "decimal", "precision": 12, "scale": 3},
}

func (w *avroWorld) schema(depth int) any {
	n := w.IntN(20)
	if depth <= 0 {
		n = w.IntN(13)
	}
	switch {
	case n < 9:
		return scalarSchemas[w.IntN(len(scalarSchemas))]
	case n < 10:
		return object{"type": "fixed", "name": w.name("F"), "size": 1 + w.IntN(5)}
	case n < 11:
		return object{"type": "enum", "name": w.name("E"), "symbols": []any{"a", "b", "c"}[:1+w.IntN(3)], "default": "a"}
	case n < 13:
		return []any{"null", w.branch(depth - 1)}
	case n < 15:
		return object{"type": "array", "items": w.schema(depth - 1)}
	case n < 16:
		return object{"type": "map", "values": w.schema(depth - 1)}
	case n < 17:
		return []any{"null", "long", "string", w.record(depth - 1)}
	}
	return w.record(depth - 1)
}

// branch is a type that may be one of a union.
func (w *avroWorld) branch(depth int) any {
	for {
		s := w.schema(depth)
		if _, union := s.([]any); !union {
			return s
		}
	}
}

func (w *avroWorld) record(depth int) any {
	fields := make([]any, 1+w.IntN(5))
	for i := range fields {
		fields[i] = object{"name": w.name("f"), "type": w.schema(depth)}
	}
	return object{"type": "record", "name": w.name("R"), "fields": fields}
}

// newer is a schema that reads what s wrote: fields are renamed, dropped, added
// and in another order, types are wider.
func (w *avroWorld) newer(s any) any {
	switch s := s.(type) {
	case string:
		wider := map[string][]string{"int": {"int", "long", "float", "double"}, "long": {"long", "double"}, "float": {"float", "double"}, "string": {"string", "bytes"}}
		if to := wider[s]; to != nil {
			return to[w.IntN(len(to))]
		}
		return s
	case []any:
		if len(s) == 2 {
			return []any{"null", w.newer(s[1])}
		}
		return s
	case object:
		out := object{}
		for k, v := range s {
			out[k] = v
		}
		switch s["type"] {
		case "array":
			out["items"] = w.newer(s["items"])
		case "map":
			out["values"] = w.newer(s["values"])
		case "record":
			out["fields"] = w.newerFields(s["fields"].([]any))
		}
		return out
	}
	panic(s)
}

func (w *avroWorld) newerFields(fields []any) []any {
	var out []any
	for _, f := range fields {
		old := f.(object)
		f := object{"name": old["name"], "type": w.newer(old["type"])}
		switch w.IntN(6) {
		case 0:
			continue
		case 1:
			f["name"], f["aliases"] = w.name("renamed"), []any{old["name"]}
		case 2:
			if _, union := f["type"].([]any); !union {
				f["type"] = []any{f["type"], "null"}
			}
		}
		out = append(out, f)
	}
	out = append(out, object{"name": w.name("added"), "type": "string", "default": "né"},
		object{"name": w.name("added"), "type": object{"type": "array", "items": []any{"null", "int"}}, "default": []any{}})
	w.Shuffle(len(out), func(i, j int) { out[i], out[j] = out[j], out[i] })
	return out
}

// value is a random value of a schema, as the library takes it.
func (w *avroWorld) value(s any) any {
	switch s := s.(type) {
	case string:
		return w.scalar(s)
	case []any:
		b := s[w.IntN(len(s))]
		if b == "null" {
			return nil
		}
		return object{branchName(b): w.value(b)}
	case object:
		switch s["type"] {
		case "array":
			out := []any{}
			for range w.IntN(4) {
				out = append(out, w.value(s["items"]))
			}
			return out
		case "map":
			out := object{}
			for i := range w.IntN(4) {
				out[fmt.Sprint("k", i)] = w.value(s["values"])
			}
			return out
		case "record":
			out := object{}
			for _, f := range s["fields"].([]any) {
				out[f.(object)["name"].(string)] = w.value(f.(object)["type"])
			}
			return out
		case "enum":
			symbols := s["symbols"].([]any)
			return symbols[w.IntN(len(symbols))]
		case "fixed":
			return w.bytes(s["size"].(int))
		}
		return w.logical(s)
	}
	panic(s)
}

func branchName(s any) string {
	if o, ok := s.(object); ok {
		if n, ok := o["name"].(string); ok {
			return n
		}
		return o["type"].(string)
	}
	return s.(string)
}

func (w *avroWorld) logical(s object) any {
	switch s["logicalType"] {
	case "date":
		return int32(w.IntN(40_000) - 20_000)
	case "time-millis":
		return int32(w.IntN(86_400_000))
	case "time-micros":
		return w.Int64N(86_400_000_000)
	case "decimal":
		b := w.bytes(1 + w.IntN(5))
		b[0] = byte(int8(w.IntN(10) - 5))
		return b
	}
	return w.Int64N(1<<50) - 1<<49
}

func (w *avroWorld) scalar(s string) any {
	switch s {
	case "boolean":
		return w.IntN(2) == 1
	case "int":
		return int32(w.Uint32() >> w.IntN(32))
	case "long":
		return int64(w.Uint64() >> w.IntN(64))
	case "float":
		return math.Float32frombits(w.Uint32()&^0x7f80_0000 | 0x3f80_0000)
	case "double":
		return w.NormFloat64()
	case "bytes":
		return w.bytes(w.IntN(20))
	}
	text := []rune("aä€😀z\x00")
	var out strings.Builder
	for range w.IntN(12) {
		out.WriteRune(text[w.IntN(len(text))])
	}
	return out.String()
}

func (w *avroWorld) bytes(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(w.Uint32())
	}
	return b
}

// rawLogical has the library give numbers and bytes for logical types.
func rawLogical() []avro.SchemaOpt {
	var opts []avro.SchemaOpt
	for _, l := range []string{"date", "time-millis", "time-micros", "timestamp-millis", "timestamp-micros", "timestamp-nanos", "local-timestamp-millis", "decimal"} {
		opts = append(opts, avro.CustomType{LogicalType: l})
	}
	return opts
}

// expected renders a value that the library decoded, as cell renders a column's.
func expected(v any, t *avroType) string {
	t = t.nullable()
	if v == nil {
		return "null"
	}
	if t.kind == avroUnion {
		for tag, inner := range v.(object) {
			var parts []string
			for _, m := range t.members() {
				if m.typ.branchName() == short(tag) {
					parts = append(parts, expected(inner, m.typ))
				} else {
					parts = append(parts, "null")
				}
			}
			return "{" + strings.Join(parts, " ") + "}"
		}
	}
	if o, ok := v.(object); ok && t.kind != avroRecord && t.kind != avroMap { // the tag of a union's type
		for _, inner := range o {
			return expected(inner, t)
		}
	}
	switch t.kind {
	case avroRecord:
		o := v.(object)
		if inner, tagged := o[t.name].(object); tagged && len(o) == 1 {
			o = inner
		}
		var parts []string
		for _, f := range t.fields {
			parts = append(parts, expected(o[f.name], f.typ))
		}
		return "{" + strings.Join(parts, " ") + "}"
	case avroMap:
		o := v.(object)
		if inner, tagged := o["map"].(object); tagged && len(o) == 1 {
			o = inner
		}
		var parts []string
		for k, v := range o {
			parts = append(parts, k+"="+expected(v, t.items))
		}
		slices.Sort(parts)
		return "(" + strings.Join(parts, " ") + ")"
	case avroArray:
		var parts []string
		for _, v := range v.([]any) {
			parts = append(parts, expected(v, t.items))
		}
		return "[" + strings.Join(parts, " ") + "]"
	default:
	}
	return expectedScalar(v, t)
}

func expectedScalar(v any, t *avroType) string {
	switch t.logical {
	case "time-millis", "timestamp-millis", "local-timestamp-millis":
		n, _ := strconv.ParseInt(fmt.Sprint(v), 10, 64)
		return fmt.Sprint(n * 1000)
	case "decimal":
		b := v.([]byte)
		n := new(big.Int).SetBytes(b)
		if b[0] >= 0x80 {
			n.Sub(n, new(big.Int).Lsh(big.NewInt(1), uint(8*len(b))))
		}
		return n.String()
	}
	switch v := v.(type) {
	case []byte:
		return hex.EncodeToString(v)
	case float32:
		return fmt.Sprintf("%08x", math.Float32bits(v))
	case float64:
		return fmt.Sprintf("%016x", math.Float64bits(v))
	case string:
		return strconv.Quote(v)
	}
	return fmt.Sprint(v)
}

// cell renders a value of a column.
func cell(a arrow.Array, i int) string {
	if a.IsNull(i) {
		return "null"
	}
	switch a := a.(type) {
	case *array.Boolean:
		return fmt.Sprint(a.Value(i))
	case *array.Int32:
		return fmt.Sprint(a.Value(i))
	case *array.Int64:
		return fmt.Sprint(a.Value(i))
	case *array.Float32:
		return fmt.Sprintf("%08x", math.Float32bits(a.Value(i)))
	case *array.Float64:
		return fmt.Sprintf("%016x", math.Float64bits(a.Value(i)))
	case *array.Binary:
		return hex.EncodeToString(a.Value(i))
	case *array.String:
		return strconv.Quote(a.Value(i))
	case *array.Date32:
		return fmt.Sprint(int32(a.Value(i)))
	case *array.Time64:
		return fmt.Sprint(int64(a.Value(i)))
	case *array.Timestamp:
		return fmt.Sprint(int64(a.Value(i)))
	case *array.Decimal128:
		return a.Value(i).BigInt().String()
	case *extensions.UUIDArray:
		return a.Value(i).String()
	case *array.Map:
		var parts []string
		from, to := a.ValueOffsets(i)
		for j := int(from); j < int(to); j++ {
			parts = append(parts, a.Keys().(*array.String).Value(j)+"="+cell(a.Items(), j))
		}
		slices.Sort(parts)
		return "(" + strings.Join(parts, " ") + ")"
	case *array.List:
		var parts []string
		from, to := a.ValueOffsets(i)
		for j := int(from); j < int(to); j++ {
			parts = append(parts, cell(a.ListValues(), j))
		}
		return "[" + strings.Join(parts, " ") + "]"
	case *array.Struct:
		var parts []string
		for j := range a.NumField() {
			parts = append(parts, cell(a.Field(j), i))
		}
		return "{" + strings.Join(parts, " ") + "}"
	}
	panic(a.DataType())
}

// TestAvroAgreesWithLibrary writes random values of random schemas with an
// independent encoder, and reads them by their own and by a newer schema as that
// library's decoder and resolver do.
func TestAvroAgreesWithLibrary(t *testing.T) {
	seed := cmp.Or(*seedFlag, rand.Uint64())
	t.Logf("seed %d", seed)
	w := &avroWorld{Rand: rand.New(rand.NewPCG(seed, 0))}
	rows := 0
	for range 300 {
		written := w.record(3)
		readers := []any{written, w.newer(written), w.newer(written)}
		writerText, _ := json.Marshal(written)
		writer, err := avro.Parse(string(writerText), rawLogical()...)
		if err != nil {
			t.Fatalf("%s: %v", writerText, err)
		}
		for _, r := range readers {
			readerText, _ := json.Marshal(r)
			reader, err := avro.Parse(string(readerText), rawLogical()...)
			if err != nil {
				t.Fatalf("%s: %v", readerText, err)
			}
			resolved, err := avro.Resolve(writer, reader)
			if err != nil {
				t.Fatalf("%s to %s: %v", writerText, readerText, err)
			}
			d, err := newAvro(Options{Reader: Schema{Text: string(readerText)}, Framing: "registry", Schemas: registryOf{1: {Type: "AVRO", Text: string(writerText)}}})
			if err != nil {
				t.Fatalf("%s: %v", readerText, err)
			}
			var want []string
			for range 5 {
				v := w.value(written)
				value, err := writer.AppendEncode([]byte{0, 0, 0, 0, 1}, v)
				if err != nil {
					t.Fatalf("%s: %v: %v", writerText, v, err)
				}
				var decoded any
				if _, err := resolved.Decode(value[5:], &decoded, avro.TaggedUnions()); err != nil {
					t.Fatal(err)
				}
				if err := d.Append(Record{Value: value}); err != nil {
					t.Fatalf("written by %s\nread by %s\n%x: %v", writerText, readerText, value, err)
				}
				want = append(want, expected(decoded, d.reader))
				rows++
			}
			arrays := d.Take()
			for i, row := range want {
				var parts []string
				for _, a := range arrays {
					parts = append(parts, cell(a, i))
				}
				if got := "{" + strings.Join(parts, " ") + "}"; got != row {
					t.Fatalf("written by %s\nread by %s\ngot  %s\nwant %s", writerText, readerText, got, row)
				}
			}
			for _, a := range arrays {
				a.Release()
			}
		}
	}
	if rows < 4000 {
		t.Errorf("only %d rows", rows)
	}
}

// FuzzAvro: whatever the bytes are, the decoder takes them or says where they are
// wrong, leaves nothing of a bad record, and takes what the library takes.
func FuzzAvro(f *testing.F) {
	d, value, _ := everything(f)
	newer := `{"type":"record","name":"R","fields":[{"name":"n","type":"double"},{"name":"u","type":["null","string","double",` + point + `]},{"name":"more","type":{"type":"array","items":"string"},"default":["a","b"]}]}`
	f.Add(value)
	for i := range value {
		if i%7 == 0 {
			f.Add(value[:i])
		}
		other := slices.Clone(value)
		other[i] ^= 0x81
		f.Add(other)
	}
	f.Add(append(slices.Clone(value), 0))
	schema := everythingSchema
	lib := avro.MustParse(schema, rawLogical()...)
	resolving, err := newAvro(Options{Reader: Schema{Text: newer}, Framing: "registry", Schemas: registryOf{1: {Type: "AVRO", Text: schema}}})
	if err != nil {
		f.Fatal(err)
	}
	single, err := newAvro(Options{Reader: Schema{Text: schema}, Framing: "single_object"})
	if err != nil {
		f.Fatal(err)
	}
	own := fingerprint(avro.MustParse(schema))
	m := newMeter()
	f.Fuzz(func(t *testing.T, value []byte) {
		heads := [][]byte{nil, {0, 0, 0, 0, 1}, append([]byte{0xc3, 1}, own[:]...)}
		for i, d := range []*avroDecoder{d, resolving, single} {
			in := append(heads[i], value...)
			var err error
			m.within(t, perByte*len(in)+valueBytes*(budgetMin+budgetPerByte*len(in)), func() { err = d.Append(Record{Value: nonNil(in)}) })
			var e *Error
			switch {
			case err == nil && d.Rows() != 1:
				t.Fatalf("%x: %d rows", value, d.Rows())
			case err != nil && (!errors.As(err, &e) || e.Pos < 0 || e.Pos > len(in) || d.Rows() != 0):
				t.Fatalf("%x: an error without a place, or a row left: %v, %d rows", value, err, d.Rows())
			}
			size := d.Bytes()
			for _, a := range d.Take() {
				if err == nil {
					cell(a, 0)
				}
				a.Release()
			}
			if most := 1<<20 + 64*(budgetMin+budgetPerByte*len(in)); size > most {
				t.Fatalf("%x: %d bytes of columns", value, size)
			}
			if i == 0 {
				var decoded any
				rest, wrong := lib.Decode(value, &decoded)
				if err == nil && (wrong != nil || len(rest) > 0) {
					t.Fatalf("%x: the decoder takes it, the library says %v", value, wrong)
				}
			}
		}
	})
}
