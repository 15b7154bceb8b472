package decode

import (
	"fmt"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// wireMessage is how a message of the writer's schema is read into a node of the
// reader's.
type wireMessage struct {
	node   *protoNode
	dense  []*wireField // by number
	sparse map[protowire.Number]*wireField
	fields []*wireField // in the order of the slots
	maps   []*wireField
}

// denseMax bounds the numbers of fields that are found by an index.
const denseMax = 1024

func (m *wireMessage) add(f *wireField) {
	m.fields = append(m.fields, f)
	if f.number >= denseMax {
		if m.sparse == nil {
			m.sparse = map[protowire.Number]*wireField{}
		}
		m.sparse[f.number] = f
		return
	}
	for int(f.number) >= len(m.dense) {
		m.dense = append(m.dense, nil)
	}
	m.dense[f.number] = f
}

// wireForm is how a value is made of what is on the wire.
type wireForm uint8

const (
	formPlain  wireForm = iota
	formZigzag          // of a varint
	formSigned          // of 32 fixed bits
	formWiden           // of a FLOAT into a DOUBLE
)

// wireField is how a field is read.
type wireField struct {
	number   protowire.Number
	slot     int
	wire     protowire.Type // of one value
	form     wireForm
	unsigned bool
	repeated bool       // in the reader's schema
	message  bool       // in the reader's schema: a STRUCT, or one of the well-known
	plain    bool       // neither of them, nor of a oneof
	cell     *protoCell // of values that are no messages, or one of the well-known
	names    *enumNames // of an enum: the reader's, then the writer's
	sub      *wireMessage
}

// planMessage makes the plan to read messages of the writer's schema into a node.
// Its errors say what does not fit, and wrap nothing.
func planMessage(n *protoNode, m protoreflect.MessageDescriptor) (*wireMessage, error) {
	plan := &wireMessage{node: n}
	for i := range n.slots {
		f := m.Fields().ByNumber(n.slots[i].number)
		if f == nil {
			continue
		}
		field, err := planField(&n.slots[i], f)
		if err != nil {
			return nil, fmt.Errorf("field %q (number %d) of %s: %w", n.slots[i].name, n.slots[i].number, n.name, err)
		}
		field.slot = i
		plan.add(field)
		if field.repeated && n.slots[i].keys != nil {
			plan.maps = append(plan.maps, field)
		}
	}
	return plan, nil
}

// planField makes the plan for a field. Types fit that Protobuf calls compatible,
// and beyond them, because the writer's type is known, all integers with each other,
// and a float with a double. A value still has to fit.
func planField(s *protoSlot, f protoreflect.FieldDescriptor) (*wireField, error) {
	out := &wireField{number: f.Number(), repeated: s.list != nil, message: s.node != nil || s.cell.kind.message(), cell: s.cell}
	out.plain = !out.repeated && !out.message && s.oneof < 0
	out.wire, out.form, out.unsigned = onWire(f)
	wrong := func() (*wireField, error) {
		return nil, fmt.Errorf("it was written as %s, which does not become %s", kindOf(f), s.wants())
	}
	if (s.keys != nil) != f.IsMap() || f.IsList() && s.list == nil {
		return wrong()
	}
	message := f.Message()
	switch {
	case s.node != nil:
		if message == nil || knownCell(message.FullName()) != 0 || isWrapper(message) != (s.node.column == nil && s.node.flag == nil) {
			return wrong()
		}
		var err error
		out.sub, err = planMessage(s.node, message)
		return out, err
	case s.cell.kind.message():
		if message == nil || knownCell(message.FullName()) != s.cell.kind {
			return wrong()
		}
		return out, nil
	case message != nil:
		return wrong()
	}
	switch s.cell.kind {
	case cellText, cellBytes:
		if f.Kind() != protoreflect.StringKind && f.Kind() != protoreflect.BytesKind {
			return wrong()
		}
	case cellDouble:
		switch f.Kind() {
		case protoreflect.DoubleKind:
		case protoreflect.FloatKind:
			out.form = formWiden
		default:
			return wrong()
		}
	case cellFloat:
		if f.Kind() != protoreflect.FloatKind {
			return wrong()
		}
	default:
		switch f.Kind() {
		case protoreflect.StringKind, protoreflect.BytesKind, protoreflect.FloatKind, protoreflect.DoubleKind:
			return wrong()
		default:
		}
		if s.cell.kind == cellEnum && f.Kind() == protoreflect.EnumKind {
			out.names = s.cell.names.with(f.Enum())
		}
	}
	return out, nil
}

// onWire is how a field's values are written.
func onWire(f protoreflect.FieldDescriptor) (wire protowire.Type, how wireForm, unsigned bool) {
	switch f.Kind() {
	case protoreflect.Sint32Kind, protoreflect.Sint64Kind:
		return protowire.VarintType, formZigzag, false
	case protoreflect.Uint32Kind, protoreflect.Uint64Kind, protoreflect.BoolKind:
		return protowire.VarintType, formPlain, true
	case protoreflect.Int32Kind, protoreflect.Int64Kind, protoreflect.EnumKind:
		return protowire.VarintType, formPlain, false
	case protoreflect.Fixed32Kind:
		return protowire.Fixed32Type, formPlain, true
	case protoreflect.FloatKind:
		return protowire.Fixed32Type, formPlain, false
	case protoreflect.Sfixed32Kind:
		return protowire.Fixed32Type, formSigned, false
	case protoreflect.Fixed64Kind:
		return protowire.Fixed64Type, formPlain, true
	case protoreflect.Sfixed64Kind, protoreflect.DoubleKind:
		return protowire.Fixed64Type, formPlain, false
	case protoreflect.GroupKind:
		return protowire.StartGroupType, formPlain, false
	case protoreflect.StringKind, protoreflect.BytesKind, protoreflect.MessageKind:
	}
	return protowire.BytesType, formPlain, false
}

// kindOf describes the writer's field.
func kindOf(f protoreflect.FieldDescriptor) string {
	if f.IsMap() {
		return "a map"
	}
	kind := f.Kind().String()
	switch {
	case f.Message() != nil:
		kind = "message " + string(f.Message().FullName())
	case f.Enum() != nil:
		kind = "enum " + string(f.Enum().FullName())
	}
	if f.IsList() {
		return "repeated " + kind
	}
	return kind
}

// wants describes the reader's field.
func (s *protoSlot) wants() string {
	var kind string
	switch {
	case s.keys != nil:
		return "a map"
	case s.node != nil:
		kind = "message " + string(s.node.name)
	default:
		kind = map[cellKind]string{
			cellInt32: "int32", cellInt64: "int64", cellUint32: "uint32", cellUint64: "uint64", cellFloat: "float", cellDouble: "double", cellBool: "bool",
			cellEnum: "an enum", cellText: "string", cellBytes: "bytes", cellTimestamp: "message google.protobuf.Timestamp", cellDuration: "message google.protobuf.Duration",
			cellFieldMask: "message google.protobuf.FieldMask", cellStruct: "message google.protobuf.Struct", cellValue: "message google.protobuf.Value",
			cellListValue: "message google.protobuf.ListValue",
		}[s.cell.kind]
	}
	if s.list != nil {
		return "repeated " + kind
	}
	return kind
}
