package decode

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/twmb/avro"

	"github.com/frazil-io/frazil/internal/batch"
)

// avroDecoder decodes Avro records by a plan for the schema that each one was
// written with. The columns are those of the reader's schema: the fields of a
// record, the types of a union, or one column "value" for any other type.
type avroDecoder struct {
	schemas Schemas
	framing string
	heading heading
	reader  *avroType
	fields  []arrow.Field
	root    *structure
	column  column // the root, or its only member
	input   avroInput

	plans map[int32]*avroPlan
	last  *avroPlan
	id    int32 // of last
	own   *avroPlan
	known map[[8]byte]*avroPlan // by fingerprint
	more  func() ([]Schema, error)
}

// valueColumn holds values that are no records.
const valueColumn = "value"

func newAvro(o Options) (*avroDecoder, error) {
	parsed, reader, err := parseAvro(o.Reader)
	if err != nil {
		return nil, fmt.Errorf("%w: the avro schema cannot be read: %w", batch.ErrInvalid, err)
	}
	d := &avroDecoder{schemas: o.Schemas, more: o.Known, framing: o.Framing, heading: newHeading(o), reader: reader, plans: map[int32]*avroPlan{}, known: map[[8]byte]*avroPlan{}}
	if err := d.columns(); err != nil {
		return nil, fmt.Errorf("%w: avro schema: %w", batch.ErrInvalid, err)
	}
	d.own = d.plan(reader)
	if d.own.err != nil {
		return nil, fmt.Errorf("%w: avro schema: %w", batch.ErrInvalid, d.own.err)
	}
	d.known[fingerprint(parsed)] = d.own
	if o.Reader.ID != 0 {
		d.plans[o.Reader.ID] = d.own
	}
	switch {
	case o.Framing == "registry" && o.Schemas == nil:
		return nil, fmt.Errorf("%w: framing registry needs a schema registry", batch.ErrInvalid)
	case o.Framing != "" && o.Framing != "none" && o.Framing != "registry" && o.Framing != "single_object":
		return nil, fmt.Errorf("%w: framing %q is not registry, single_object or none", batch.ErrInvalid, o.Framing)
	}
	return d, nil
}

// columns makes the columns of the reader's schema.
func (d *avroDecoder) columns() error {
	a := &avroArrow{left: avroColumns}
	top := d.reader.nullable()
	var err error
	if top.kind == avroRecord || top.kind == avroUnion {
		a.open = append(a.open, top)
		d.fields, err = a.fields(top)
	} else {
		var t arrow.DataType
		t, err = a.of(top)
		d.fields = []arrow.Field{{Name: valueColumn, Type: t, Nullable: true}}
	}
	if err != nil {
		return err
	}
	for _, f := range d.fields {
		if f.Name == batch.RangeColumn || f.Name == batch.OffsetColumn {
			return fmt.Errorf("field %q has a name of Frazil's own; write a schema without it (schema_file)", f.Name)
		}
	}
	if d.root, err = newStructure(arrow.StructOf(d.fields...), 0); err != nil {
		return err
	}
	d.column = d.root
	if top.kind != avroRecord && top.kind != avroUnion {
		d.column = d.root.members[0]
	}
	return nil
}

func fingerprint(s *avro.Schema) [8]byte {
	var fp [8]byte
	binary.LittleEndian.PutUint64(fp[:], binary.BigEndian.Uint64(s.Fingerprint(avro.NewRabin())))
	return fp
}

// plan compiles a writer's schema.
func (d *avroDecoder) plan(w *avroType) *avroPlan {
	c := &avroCompiler{skips: avroSkips{}}
	op, _, err := c.compile(w, d.reader, d.column)
	return &avroPlan{op: op, err: err}
}

// Fields implements Decoder.
func (d *avroDecoder) Fields() []arrow.Field { return d.fields }

// Rows implements Decoder.
func (d *avroDecoder) Rows() int { return d.root.len() }

// Bytes implements Decoder.
func (d *avroDecoder) Bytes() int { return d.root.bytes() }

func (d *avroDecoder) cut(rows int)     { d.root.cut(rows) }
func (d *avroDecoder) given(i int) bool { return d.root.memberGiven(i) }

// Append implements Decoder.
func (d *avroDecoder) Append(r Record) error {
	if r.Value == nil {
		d.root.null()
		return nil
	}
	plan, at, err := d.frame(r)
	if err != nil {
		return err
	}
	n := d.root.len()
	if err := d.record(plan, r.Value, at); err != nil {
		d.root.cut(n)
		return err
	}
	return nil
}

func (d *avroDecoder) record(plan *avroPlan, value []byte, at int) error {
	in := &d.input
	in.reset(value, at)
	if err := plan.op(in); err != nil {
		return err
	}
	if in.i < len(in.b) {
		return in.fail(in.i, "%d bytes follow the record; was it written with another schema?", len(in.b)-in.i)
	}
	if d.column != column(d.root) {
		d.root.push(true)
	}
	return nil
}

// Take implements Decoder.
func (d *avroDecoder) Take() []arrow.Array {
	return d.root.takeMembers()
}

// frame finds the plan for a record, and where the record begins.
func (d *avroDecoder) frame(r Record) (*avroPlan, int, error) {
	value := r.Value
	switch d.framing {
	case "registry":
		if held := d.heading.of(r); held != nil {
			id, err := d.heading.exact(held)
			if err != nil {
				return nil, 0, err
			}
			plan, err := d.byID(id)
			return plan, 0, placeless(err)
		}
		if len(value) < 5 || value[0] != 0 {
			return nil, 0, &Error{Reason: "the value does not begin with a zero byte and the id of a schema in the registry", Pos: 0}
		}
		plan, err := d.byID(int32(binary.BigEndian.Uint32(value[1:])))
		return plan, 5, err
	case "single_object":
		if len(value) < 10 || value[0] != 0xc3 || value[1] != 0x01 {
			return nil, 0, &Error{Reason: "the value does not begin with the mark of a single object, C3 01 and a fingerprint", Pos: 0}
		}
		plan, err := d.byFingerprint([8]byte(value[2:]))
		return plan, 10, err
	}
	return d.own, 0, nil
}

// byID returns the plan for a schema of the registry.
func (d *avroDecoder) byID(id int32) (*avroPlan, error) {
	if d.last == nil || d.id != id {
		plan := d.plans[id]
		if plan == nil {
			var err error
			if plan, err = d.ask(id); err != nil {
				return nil, err
			}
			d.plans[id] = plan
		}
		d.last, d.id = plan, id
	}
	if d.last.err != nil {
		return nil, &Error{Code: batch.CodeSchema, Reason: fmt.Sprintf("schema %d of the registry does not fit the columns: %v", id, d.last.err), Pos: -1}
	}
	return d.last, nil
}

// ask finds a schema that no record had before.
func (d *avroDecoder) ask(id int32) (*avroPlan, error) {
	s, err := d.schemas.ByID(id)
	if errors.Is(err, ErrUnknownSchema) {
		return nil, &Error{Code: batch.CodeSchema, Reason: fmt.Sprintf("the registry has no schema %d", id), Pos: 1}
	}
	if err != nil {
		return nil, err
	}
	if s.Type != "AVRO" {
		return &avroPlan{err: fmt.Errorf("it is of type %s", s.Type)}, nil
	}
	_, writer, err := parseAvro(s)
	if err != nil {
		return &avroPlan{err: fmt.Errorf("it cannot be read: %w", err)}, nil
	}
	return d.plan(writer), nil
}

// byFingerprint returns the plan for a schema that the reader's file or subject
// has.
func (d *avroDecoder) byFingerprint(fp [8]byte) (*avroPlan, error) {
	if d.known[fp] == nil && d.more != nil {
		all, err := d.more()
		if err != nil {
			return nil, err
		}
		for _, s := range all {
			parsed, writer, err := parseAvro(s)
			if err != nil {
				continue // no record that can be read was written with it
			}
			if of := fingerprint(parsed); d.known[of] == nil {
				d.known[of] = d.plan(writer)
			}
		}
	}
	plan := d.known[fp]
	switch {
	case plan == nil:
		return nil, &Error{Code: batch.CodeSchema, Reason: fmt.Sprintf("no known schema has the fingerprint %X", fp), Pos: 2}
	case plan.err != nil:
		return nil, &Error{Code: batch.CodeSchema, Reason: fmt.Sprintf("the schema with the fingerprint %X does not fit the columns: %v", fp, plan.err), Pos: 2}
	}
	return plan, nil
}
