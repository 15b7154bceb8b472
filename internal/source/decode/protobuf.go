package decode

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/apache/arrow-go/v18/arrow"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/frazil-io/frazil/internal/batch"
)

// protoDecoder decodes one Protobuf message a record from its wire format into
// the columns of the reader's message. Fields are matched by number. For each
// message that records were written with there is a plan, made once.
//
// It keeps the rules of Protobuf: the last value of a singular field wins,
// messages that are there in parts are merged, repeated fields may be packed or
// not, unknown fields are skipped, an absent field without presence has its zero
// value, one with a default that was written down has that, and any other is NULL.
// Where the rules would lose something, the record is bad instead: a number that
// does not fit its field is not cut, a field of another wire type is not passed
// over, and text is UTF-8 in proto2, too. A number that an enum does not name, open
// or closed, is kept as the text of the number.
type protoDecoder struct {
	fields  []arrow.Field
	message protoreflect.MessageDescriptor
	root    *protoNode
	schemas Schemas
	bare    *wireMessage // without a registry

	writers map[int32]*protoWriter
	path    []int32 // of the record's header
	heading heading

	protoWire
}

// protoWriter is a schema of the registry that records were written with.
type protoWriter struct {
	file  protoreflect.FileDescriptor
	plans []protoPlan
	wrong *Error // the schema cannot be used
}

// protoPlan is how one of its messages is read.
type protoPlan struct {
	path  []int32
	plan  *wireMessage
	wrong *Error
}

func newProtobuf(o Options) (*protoDecoder, error) {
	wrong := func(err error) error {
		return fmt.Errorf("%w: the Protobuf schema cannot be used: %w", batch.ErrInvalid, err)
	}
	files, err := protoFiles(o.Reader)
	if err != nil {
		return nil, wrong(err)
	}
	m, err := protoMessage(files, o.Message)
	if err != nil {
		return nil, wrong(err)
	}
	root, err := newProtoRoot(m)
	if err != nil {
		return nil, wrong(err)
	}
	d := &protoDecoder{heading: newHeading(o), fields: root.column.kind.Fields(), message: m, root: root, schemas: o.Schemas, writers: map[int32]*protoWriter{}}
	switch o.Framing {
	case "registry":
		if o.Schemas == nil {
			return nil, fmt.Errorf("%w: framing: registry needs a registry", batch.ErrInvalid)
		}
	case "", "none":
		if d.bare, err = planMessage(root, m); err != nil {
			return nil, wrong(err)
		}
	default:
		return nil, fmt.Errorf("%w: framing: %q is not registry or none", batch.ErrInvalid, o.Framing)
	}
	return d, nil
}

func (d *protoDecoder) Fields() []arrow.Field { return d.fields }
func (d *protoDecoder) Rows() int             { return d.root.column.len() }
func (d *protoDecoder) Bytes() int            { return d.root.column.bytes() }
func (d *protoDecoder) cut(rows int)          { d.root.column.cut(rows) }
func (d *protoDecoder) given(i int) bool      { return d.root.column.memberGiven(i) }

func (d *protoDecoder) Take() []arrow.Array {
	return d.root.column.takeMembers()
}

func (d *protoDecoder) Append(r Record) error {
	if r.Value == nil {
		d.root.column.null()
		return nil
	}
	n := d.root.column.len()
	if err := d.record(r); err != nil {
		d.root.column.cut(n)
		return err
	}
	return nil
}

func (d *protoDecoder) record(r Record) error {
	value := r.Value
	plan, start := d.bare, 0
	if plan == nil {
		var err error
		if plan, start, err = d.header(r); err != nil {
			return err
		}
	}
	d.begin(value)
	return d.decode(plan, start, len(value), 0)
}

// The registry's wire format: a zero byte, the schema's id, and for Protobuf the
// path of indexes to the message, counted and in zigzag varints; a single zero
// stands for the path [0].
const (
	headerMagic = 0
	headerSize  = 5
	// pathMax bounds the nesting of a message in others.
	pathMax = 32
)

// header finds the plan for a record with the registry's header.
func (d *protoDecoder) header(r Record) (plan *wireMessage, start int, err error) {
	if held := d.heading.of(r); held != nil {
		id, path, err := d.heading.id(held)
		if err != nil {
			return nil, 0, err
		}
		plan, end, err := d.planAt(id, path, 0)
		if err == nil && end != len(path) {
			err = &Error{Code: batch.CodeDecode, Reason: fmt.Sprintf("there are %d bytes behind the message's index in the header %s", len(path)-end, d.heading.name)}
		}
		return plan, 0, placeless(err)
	}
	value := r.Value
	if len(value) < headerSize+1 || value[0] != headerMagic {
		return nil, 0, &Error{Code: batch.CodeDecode, Reason: "the value does not begin with the registry's header: a zero byte, the schema's id, and the message's index", Pos: 0}
	}
	return d.planAt(int32(binary.BigEndian.Uint32(value[1:headerSize])), value, headerSize)
}

// planAt finds the plan for a schema and the path of indexes at i, and where that
// ends.
func (d *protoDecoder) planAt(id int32, value []byte, i int) (plan *wireMessage, start int, err error) {
	d.path = append(d.path[:0], 0)
	if i < len(value) && value[i] == 0 {
		i++
	} else if i, err = d.indexes(value, i); err != nil {
		return nil, 0, err
	}
	w := d.writers[id]
	if w == nil {
		if w, err = d.writer(id); err != nil {
			return nil, 0, err
		}
		d.writers[id] = w
	}
	if w.wrong != nil {
		return nil, 0, w.wrong
	}
	for k := range w.plans {
		if p := &w.plans[k]; slices.Equal(p.path, d.path) {
			if p.wrong != nil {
				return nil, 0, p.wrong
			}
			return p.plan, i, nil
		}
	}
	p := d.planFor(id, w)
	if p.wrong != nil {
		return nil, 0, p.wrong
	}
	return p.plan, i, nil
}

// indexes reads a path that is not the single zero.
func (d *protoDecoder) indexes(value []byte, i int) (int, error) {
	bad := func(at int) error {
		return &Error{Code: batch.CodeDecode, Reason: "the header's message index is not a list of numbers", Pos: at}
	}
	count, next := longVarint(value, i, len(value))
	n := unzigzag(count)
	if next == 0 || n < 0 || n > pathMax {
		return 0, bad(i)
	}
	if n == 0 { // [0], at more length
		return next, nil
	}
	d.path = d.path[:0]
	for range n {
		i = next
		var index uint64
		if index, next = longVarint(value, i, len(value)); next == 0 || unzigzag(index) < 0 || unzigzag(index) > 1<<20 {
			return 0, bad(i)
		}
		d.path = append(d.path, int32(unzigzag(index)))
	}
	return next, nil
}

// writer fetches a schema. An unknown one is asked for again with the next record
// that names it: a registry may learn of it.
func (d *protoDecoder) writer(id int32) (*protoWriter, error) {
	s, err := d.schemas.ByID(id)
	if errors.Is(err, ErrUnknownSchema) {
		return nil, &Error{Code: batch.CodeSchema, Reason: fmt.Sprintf("schema %d: %v", id, err), Pos: 1}
	}
	if err != nil {
		return nil, err
	}
	unusable := func(err error) *protoWriter {
		return &protoWriter{wrong: &Error{Code: batch.CodeSchema, Reason: fmt.Sprintf("schema %d cannot be used: %v", id, err), Pos: 1}}
	}
	files, err := protoFiles(s)
	if err != nil {
		return unusable(err), nil
	}
	return &protoWriter{file: files[0]}, nil
}

// planFor makes the plan for the message at d.path, good or bad.
func (d *protoDecoder) planFor(id int32, w *protoWriter) protoPlan {
	p := protoPlan{path: slices.Clone(d.path)}
	wrong := func(format string, args ...any) {
		p.wrong = &Error{Code: batch.CodeSchema, Reason: fmt.Sprintf(format, args...), Pos: headerSize}
	}
	// Java's client, which made the format, does not count the entries of maps among
	// the messages of a message; Python's does.
	m, other := indexed(w.file, d.path, false), indexed(w.file, d.path, true)
	if m == nil {
		m = other
	}
	switch {
	case m == nil:
		wrong("schema %d has no message with the index %d", id, d.path)
		return p // not kept: there is no end of such paths
	case m.FullName() != d.message.FullName() && other != nil && other.FullName() == d.message.FullName():
		wrong("the index %d is a %s as Java's client counts, and a %s as Python's, which counts the entries of maps, too: it cannot be told which the record is; put nested messages before maps, or make them messages of the file", d.path, m.FullName(), other.FullName())
	case m.FullName() != d.message.FullName():
		wrong("the record is a %s, and the source reads %s (options: {message: …})", m.FullName(), d.message.FullName())
	default:
		var err error
		if p.plan, err = planMessage(d.root, m); err != nil {
			wrong("schema %d does not fit the source's schema: %v", id, err)
		}
	}
	w.plans = append(w.plans, p)
	return p
}
