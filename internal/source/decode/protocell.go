package decode

import (
	"maps"
	"math"
	"slices"
	"strconv"
	"unicode/utf8"

	"github.com/apache/arrow-go/v18/arrow"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// cellKind is what a column of values holds.
type cellKind uint8

const (
	cellNone cellKind = iota
	cellInt32
	cellInt64
	cellUint32 // a BIGINT: Iceberg has no unsigned integers, and SQL would not go below zero
	cellUint64
	cellFloat
	cellDouble
	cellBool
	cellEnum
	cellText
	cellBytes
	// Messages that are one value.
	cellTimestamp
	cellDuration
	cellFieldMask
	cellStruct
	cellValue
	cellListValue
)

// message says whether it is written as one.
func (k cellKind) message() bool { return k >= cellTimestamp }

func (k cellKind) arrow() arrow.DataType {
	switch k {
	case cellInt32:
		return arrow.PrimitiveTypes.Int32
	case cellInt64, cellUint32, cellDuration:
		return arrow.PrimitiveTypes.Int64
	case cellUint64:
		return arrow.PrimitiveTypes.Uint64
	case cellFloat:
		return arrow.PrimitiveTypes.Float32
	case cellDouble:
		return arrow.PrimitiveTypes.Float64
	case cellBool:
		return arrow.FixedWidthTypes.Boolean
	case cellBytes:
		return arrow.BinaryTypes.Binary
	case cellTimestamp:
		return scalars["TIMESTAMPTZ"]
	case cellNone, cellEnum, cellText, cellFieldMask, cellStruct, cellValue, cellListValue:
	}
	return arrow.BinaryTypes.String
}

// knownCell returns the kind of a well-known message that is one value.
func knownCell(name protoreflect.FullName) cellKind {
	switch name {
	case "google.protobuf.Timestamp":
		return cellTimestamp
	case "google.protobuf.Duration":
		return cellDuration
	case "google.protobuf.FieldMask":
		return cellFieldMask
	case "google.protobuf.Struct":
		return cellStruct
	case "google.protobuf.Value":
		return cellValue
	case "google.protobuf.ListValue":
		return cellListValue
	}
	return cellNone
}

// isWrapper says whether a message stands for its value, which may be absent.
func isWrapper(m protoreflect.MessageDescriptor) bool {
	switch m.FullName() {
	case "google.protobuf.DoubleValue", "google.protobuf.FloatValue", "google.protobuf.Int64Value", "google.protobuf.UInt64Value", "google.protobuf.Int32Value",
		"google.protobuf.UInt32Value", "google.protobuf.BoolValue", "google.protobuf.StringValue", "google.protobuf.BytesValue":
		return m.Fields().Len() == 1
	}
	return false
}

// protoCell is a column of values of one kind. One of its columns is there.
type protoCell struct {
	kind  cellKind
	i32   *fixed[int32]
	i64   *fixed[int64]
	u64   *fixed[uint64]
	f32   *fixed[float32]
	f64   *fixed[float64]
	flag  *boolean
	bytes *varied
	names *enumNames
}

func newProtoCell(f protoreflect.FieldDescriptor) *protoCell {
	c := &protoCell{}
	switch f.Kind() {
	case protoreflect.BoolKind:
		c.kind = cellBool
	case protoreflect.EnumKind:
		c.kind, c.names = cellEnum, newEnumNames(f.Enum())
	case protoreflect.Int32Kind, protoreflect.Sint32Kind, protoreflect.Sfixed32Kind:
		c.kind = cellInt32
	case protoreflect.Uint32Kind, protoreflect.Fixed32Kind:
		c.kind = cellUint32
	case protoreflect.Int64Kind, protoreflect.Sint64Kind, protoreflect.Sfixed64Kind:
		c.kind = cellInt64
	case protoreflect.Uint64Kind, protoreflect.Fixed64Kind:
		c.kind = cellUint64
	case protoreflect.FloatKind:
		c.kind = cellFloat
	case protoreflect.DoubleKind:
		c.kind = cellDouble
	case protoreflect.StringKind:
		c.kind = cellText
	case protoreflect.BytesKind:
		c.kind = cellBytes
	case protoreflect.MessageKind, protoreflect.GroupKind:
		c.kind = knownCell(f.Message().FullName())
	}
	switch t := c.kind.arrow(); t.ID() {
	case arrow.INT32:
		c.i32 = &fixed[int32]{kind: t, cast: arrow.Int32Traits.CastToBytes}
	case arrow.INT64, arrow.TIMESTAMP:
		c.i64 = &fixed[int64]{kind: t, cast: arrow.Int64Traits.CastToBytes}
	case arrow.UINT64:
		c.u64 = &fixed[uint64]{kind: t, cast: arrow.Uint64Traits.CastToBytes}
	case arrow.FLOAT32:
		c.f32 = &fixed[float32]{kind: t, cast: arrow.Float32Traits.CastToBytes}
	case arrow.FLOAT64:
		c.f64 = &fixed[float64]{kind: t, cast: arrow.Float64Traits.CastToBytes}
	case arrow.BOOL:
		c.flag = &boolean{}
	default:
		c.bytes = newVaried(t, nil)
	}
	return c
}

func (c *protoCell) column() column {
	switch {
	case c.i32 != nil:
		return c.i32
	case c.i64 != nil:
		return c.i64
	case c.u64 != nil:
		return c.u64
	case c.f32 != nil:
		return c.f32
	case c.f64 != nil:
		return c.f64
	case c.flag != nil:
		return c.flag
	}
	return c.bytes
}

// number appends a value that is not bytes, given as its bits: an integer as 64
// bits, a float as its own. It returns false for an integer that does not fit.
func (c *protoCell) number(v uint64, unsigned bool) bool {
	switch c.kind {
	case cellInt64:
		if unsigned && v > math.MaxInt64 {
			return false
		}
		c.i64.add(int64(v))
	case cellInt32:
		if uint64(int64(int32(v))) != v || unsigned && v > math.MaxInt32 {
			return false
		}
		c.i32.add(int32(v))
	case cellUint32:
		if v > math.MaxUint32 {
			return false
		}
		c.i64.add(int64(v))
	case cellUint64:
		if !unsigned && v > math.MaxInt64 {
			return false
		}
		c.u64.add(v)
	case cellBool:
		bit := byte(0)
		if v != 0 {
			bit = 1
		}
		c.flag.values = append(c.flag.values, bit)
		c.flag.push(true)
	case cellEnum:
		if uint64(int64(int32(v))) != v || unsigned && v > math.MaxInt32 {
			return false
		}
		c.bytes.data = c.names.append(c.bytes.data, int32(v))
		c.bytes.end()
	case cellFloat:
		c.f32.add(math.Float32frombits(uint32(v)))
	case cellDouble:
		c.f64.add(math.Float64frombits(v))
	default:
		panic("decode: a number where bytes belong")
	}
	return true
}

// text appends bytes. It returns false for text that is not UTF-8.
func (c *protoCell) text(v []byte) bool {
	if c.kind == cellText && !utf8.Valid(v) {
		return false
	}
	c.bytes.data = append(c.bytes.data, v...)
	c.bytes.end()
	return true
}

// absent appends the value of a field that is not there.
func (c *protoCell) absent(bits uint64, text []byte) {
	if c.kind == cellText || c.kind == cellBytes {
		c.text(text)
		return
	}
	c.number(bits, c.kind == cellUint64)
}

// enumDense bounds the numbers whose names are found by an index.
const enumDense = 256

// enumNames are the names of an enum's numbers: the first one of each.
type enumNames struct {
	dense  [][]byte
	sparse map[int32][]byte
}

func newEnumNames(e protoreflect.EnumDescriptor) *enumNames {
	n := &enumNames{sparse: map[int32][]byte{}}
	for i := range e.Values().Len() {
		n.add(e.Values().Get(i))
	}
	return n
}

// with returns the names and, for numbers that have none, those of another enum.
func (n *enumNames) with(e protoreflect.EnumDescriptor) *enumNames {
	more := &enumNames{dense: slices.Clone(n.dense), sparse: maps.Clone(n.sparse)}
	for i := range e.Values().Len() {
		more.add(e.Values().Get(i))
	}
	return more
}

func (n *enumNames) add(v protoreflect.EnumValueDescriptor) {
	number := int32(v.Number())
	if n.name(number) != nil {
		return
	}
	name := []byte(v.Name())
	if number < 0 || number >= enumDense {
		n.sparse[number] = name
		return
	}
	for int(number) >= len(n.dense) {
		n.dense = append(n.dense, nil)
	}
	n.dense[number] = name
}

func (n *enumNames) name(number int32) []byte {
	if uint32(number) < uint32(len(n.dense)) {
		return n.dense[number]
	}
	return n.sparse[number]
}

// append appends the name of a number to a text, or the number.
func (n *enumNames) append(to []byte, number int32) []byte {
	if name := n.name(number); name != nil {
		return append(to, name...)
	}
	return strconv.AppendInt(to, int64(number), 10)
}
