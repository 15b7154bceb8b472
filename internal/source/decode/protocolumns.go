package decode

import (
	"fmt"
	"math"
	"strings"

	"github.com/apache/arrow-go/v18/arrow"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// protoNode is a message of the reader's schema and the columns of its fields: a
// STRUCT, the record itself, a wrapper, whose column is that of its value, or a
// message without fields, which is a BOOLEAN. As no message contains itself, a node
// is never read twice at once, and notes of the message being read lie in it.
type protoNode struct {
	name   protoreflect.FullName
	column *structure // nil for a wrapper and a message without fields
	flag   *boolean   // of a message without fields
	slots  []protoSlot
	cells  int // columns of values below it, and bytes of defaults: what one message takes, if it is empty
	// whole: a field below is required, so that a part of it cannot be read alone.
	whole bool
	empty *wireMessage // reads a message that is not there

	object  uint64 // counts messages
	oneofs  []protoOneof
	pending int // slots whose messages were put off
	there   int // slots with one value that have it

	lists   []*list // of its repeated fields and maps
	singles int     // slots with one value
}

// protoOneof is which slot a oneof has, in the message being read.
type protoOneof struct {
	slot   int
	object uint64
}

// absence is what a field becomes that is not there.
type absence uint8

const (
	absentNull absence = iota
	absentDefault
	absentEmpty // the message without fields: the value of a map's entry
	absentError // required
	absentList  // a list or map: it ends with the message
)

// protoSlot is a field of a node.
type protoSlot struct {
	seen   uint64 // the object in which it was seen last
	oneof  int    // -1: none
	name   string
	number protoreflect.FieldNumber
	column column
	// Of the values: of the column itself, or of a list's elements. One of them.
	cell *protoCell
	node *protoNode
	list *list // of a repeated field or a map
	keys column
	// Of a field that is absent.
	absent absence
	zero   uint64
	text   []byte

	// Of the message being read, where they are its object's.
	deferred   uint64 // the value is at start, and was put off
	merging    uint64 // the value is in merged, in parts
	start, end int
	merged     []byte
}

// rows is the number of messages that the node has.
func (n *protoNode) rows() int {
	switch {
	case n.column != nil:
		return n.column.n
	case n.flag != nil:
		return n.flag.len()
	}
	return n.slots[0].column.len()
}

// own is the node's column.
func (n *protoNode) own() (column, arrow.DataType) {
	switch {
	case n.column != nil:
		return n.column, n.column.kind
	case n.flag != nil:
		return n.flag, arrow.FixedWidthTypes.Boolean
	}
	return n.slots[0].column, n.slots[0].cell.kind.arrow()
}

// columnsMax bounds the columns of a source, nested ones included: messages that
// contain each other can spread to any number of them.
const columnsMax = 5000

// protoTree builds nodes.
type protoTree struct {
	within  []protoreflect.FullName // the messages around the one being built
	columns int
}

func newProtoRoot(m protoreflect.MessageDescriptor) (*protoNode, error) {
	if m.Fields().Len() == 0 {
		return nil, fmt.Errorf("message %s has no fields", m.FullName())
	}
	if known := knownCell(m.FullName()); known != 0 || isWrapper(m) {
		return nil, fmt.Errorf("message %s is a value, and no record of fields", m.FullName())
	}
	return (&protoTree{}).node(m)
}

func (t *protoTree) node(m protoreflect.MessageDescriptor) (*protoNode, error) {
	for _, name := range t.within {
		if name == m.FullName() {
			return nil, fmt.Errorf("message %s contains itself (%s), and columns have an end; read it with a schema file that leaves such a field out, or with format raw", name, chain(append(t.within, name)))
		}
	}
	t.within = append(t.within, m.FullName())
	defer func() { t.within = t.within[:len(t.within)-1] }()
	n := &protoNode{name: m.FullName(), oneofs: make([]protoOneof, m.Oneofs().Len())}
	n.empty = &wireMessage{node: n}
	if m.Fields().Len() == 0 {
		n.flag, n.cells = &boolean{}, 1
		return n, t.count()
	}
	names := map[string]string{}
	var fields []arrow.Field
	var members []column
	n.slots = make([]protoSlot, m.Fields().Len())
	for i := range n.slots {
		f := m.Fields().Get(i)
		name := string(f.Name())
		if was, ok := names[strings.ToLower(name)]; ok {
			return nil, fmt.Errorf("message %s has fields %q and %q: SQL does not tell upper from lower case", m.FullName(), was, name)
		}
		if strings.HasPrefix(name, "__") {
			return nil, fmt.Errorf("message %s has a field %q: names that begin with two underscores are Frazil's own", m.FullName(), name)
		}
		names[strings.ToLower(name)] = name
		kind, err := t.slot(&n.slots[i], f)
		if err != nil {
			return nil, err
		}
		s := &n.slots[i]
		n.whole = n.whole || s.absent == absentError || s.list == nil && s.node != nil && s.node.whole
		n.cells += 1 + len(s.text)
		if s.list == nil && s.node != nil {
			n.cells += s.node.cells
		}
		fields = append(fields, arrow.Field{Name: name, Type: kind, Nullable: true})
		members = append(members, s.column)
	}
	n.arrange()
	if !isWrapper(m) {
		n.column = &structure{kind: arrow.StructOf(fields...), members: members}
	}
	return n, nil
}

// arrange tells slots with one value from those with many.
func (n *protoNode) arrange() {
	for i := range n.slots {
		if l := n.slots[i].list; l != nil {
			n.lists = append(n.lists, l)
		} else {
			n.singles++
		}
	}
}

func chain(names []protoreflect.FullName) string {
	out := &strings.Builder{}
	for i, name := range names {
		if i > 0 {
			out.WriteString(" > ")
		}
		out.WriteString(string(name))
	}
	return out.String()
}

func (t *protoTree) count() error {
	if t.columns++; t.columns > columnsMax {
		return fmt.Errorf("message %s comes to more than %d columns; read it with a schema file that leaves some out", t.within[0], columnsMax)
	}
	return nil
}

// slot builds the column of a field.
func (t *protoTree) slot(s *protoSlot, f protoreflect.FieldDescriptor) (arrow.DataType, error) {
	s.name, s.number, s.oneof = string(f.Name()), f.Number(), -1
	if f.IsMap() {
		return t.mapSlot(s, f)
	}
	values, kind, err := t.values(s, f)
	if err != nil {
		return nil, err
	}
	if f.IsList() {
		kind = arrow.ListOfField(arrow.Field{Name: elementName, Type: kind, Nullable: true})
		s.list = &list{kind: kind, offsets: []int32{0}, elements: values}
		s.column, s.absent = s.list, absentList
		return kind, nil
	}
	s.column = values
	if o := f.ContainingOneof(); o != nil && !o.IsSynthetic() {
		s.oneof = o.Index()
		return kind, nil
	}
	switch {
	case f.Cardinality() == protoreflect.Required:
		s.absent = absentError
	case s.node != nil || s.cell.kind.message():
	case f.HasDefault() || !f.HasPresence():
		s.absent = absentDefault
		s.zero, s.text = defaultOf(f)
	}
	return kind, nil
}

// values builds the column of a field's values.
func (t *protoTree) values(s *protoSlot, f protoreflect.FieldDescriptor) (column, arrow.DataType, error) {
	if m := f.Message(); m != nil && knownCell(m.FullName()) == 0 {
		node, err := t.node(m)
		if err != nil {
			return nil, nil, err
		}
		s.node = node
		c, kind := node.own()
		return c, kind, nil
	}
	if err := t.count(); err != nil {
		return nil, nil, err
	}
	s.cell = newProtoCell(f)
	return s.cell.column(), s.cell.kind.arrow(), nil
}

// mapSlot builds a MAP. An entry is a message, whose fields have their zero values
// where they are absent; of entries with the same key the last one counts.
func (t *protoTree) mapSlot(s *protoSlot, f protoreflect.FieldDescriptor) (arrow.DataType, error) {
	entry := &protoNode{name: f.Message().FullName(), slots: make([]protoSlot, 2)}
	var kinds [2]arrow.DataType
	for i, member := range []protoreflect.FieldDescriptor{f.MapKey(), f.MapValue()} {
		e := &entry.slots[i]
		e.name, e.number, e.oneof = string(member.Name()), member.Number(), -1
		var err error
		if e.column, kinds[i], err = t.values(e, member); err != nil {
			return nil, err
		}
		if e.node != nil || e.cell.kind.message() {
			e.absent = absentEmpty
		} else {
			e.absent = absentDefault
			e.zero, e.text = defaultOf(member)
		}
		if entry.cells++; e.node != nil {
			entry.cells += e.node.cells
			entry.whole = e.node.whole
		}
	}
	entry.arrange()
	kind := arrow.MapOf(kinds[0], kinds[1])
	kind.SetItemNullable(true)
	entry.column = &structure{kind: kind.Elem().(*arrow.StructType), members: []column{entry.slots[0].column, entry.slots[1].column}}
	s.node = entry
	s.list = &list{kind: kind, offsets: []int32{0}, elements: entry.column}
	s.column, s.absent, s.keys = s.list, absentList, entry.slots[0].column
	return kind, nil
}

// defaultOf is the value of a field that is absent.
func defaultOf(f protoreflect.FieldDescriptor) (bits uint64, text []byte) {
	v := f.Default()
	switch f.Kind() {
	case protoreflect.BoolKind:
		if v.Bool() {
			return 1, nil
		}
		return 0, nil
	case protoreflect.EnumKind:
		return uint64(int64(v.Enum())), nil
	case protoreflect.StringKind:
		return 0, []byte(v.String())
	case protoreflect.BytesKind:
		return 0, v.Bytes()
	case protoreflect.FloatKind:
		return uint64(math.Float32bits(float32(v.Float()))), nil
	case protoreflect.DoubleKind:
		return math.Float64bits(v.Float()), nil
	case protoreflect.Uint32Kind, protoreflect.Fixed32Kind, protoreflect.Uint64Kind, protoreflect.Fixed64Kind:
		return v.Uint(), nil
	default:
		return uint64(v.Int()), nil
	}
}
