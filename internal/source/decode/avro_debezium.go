package decode

import (
	"fmt"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"

	"github.com/frazil-io/frazil/internal/batch"
)

// avroDebezium decodes the change events of Debezium as Avro. The envelope's
// fields are decoded as they are, and the row is made of them when they are taken.
type avroDebezium struct {
	events *avroDecoder
	fields []arrow.Field
	rows   int // how many of fields are the row's
	// Of the envelope's fields, -1 where the schema has none.
	op, before, after, source int
	include                   []int
	stamps                    []stamp // of the source, the finest first
	key                       func(column int) bool
}

// stamp is a field of the source with a time.
type stamp struct {
	field int
	form  timestamps
}

func newAvroDebezium(o Options) (*avroDebezium, error) {
	if o.Envelope != "debezium" {
		return nil, fmt.Errorf("%w: envelope %q is not debezium", batch.ErrInvalid, o.Envelope)
	}
	events, err := newAvro(o)
	if err != nil {
		return nil, err
	}
	d := &avroDebezium{events: events}
	at := func(name string, kind arrow.Type) int {
		for i, f := range events.fields {
			if f.Name == name && f.Type.ID() == kind {
				return i
			}
		}
		return -1
	}
	d.op, d.before, d.after, d.source = at("op", arrow.STRING), at("before", arrow.STRUCT), at("after", arrow.STRUCT), at("source", arrow.STRUCT)
	if d.op < 0 || d.before < 0 || d.after < 0 || !arrow.TypeEqual(events.fields[d.before].Type, events.fields[d.after].Type) {
		return nil, fmt.Errorf("%w: the avro schema is not an envelope of Debezium, whose fields are before, after and op; leave envelope out", batch.ErrInvalid)
	}
	row := events.fields[d.after].Type.(*arrow.StructType).Fields()
	d.rows = len(row)
	d.fields = append(d.fields, row...)
	d.fields = append(d.fields,
		arrow.Field{Name: OpColumn, Type: arrow.BinaryTypes.String, Nullable: true},
		arrow.Field{Name: SourceTSColumn, Type: &arrow.TimestampType{Unit: arrow.Microsecond, TimeZone: "UTC"}, Nullable: true})
	d.findStamps()
	for _, name := range o.Include {
		i := at(name, arrow.STRUCT)
		if i < 0 || name != IncludeBefore && name != IncludeSource && name != IncludeTransaction {
			return nil, fmt.Errorf("%w: include: the avro schema has no %q among before, source and transaction", batch.ErrInvalid, name)
		}
		d.include = append(d.include, i)
		d.fields = append(d.fields, arrow.Field{Name: "_" + name, Type: events.fields[i].Type, Nullable: true})
	}
	return d, checkNames(d.fields)
}

// findStamps finds the times of the source.
func (d *avroDebezium) findStamps() {
	if d.source < 0 {
		return
	}
	fields := d.events.fields[d.source].Type.(*arrow.StructType).Fields()
	for _, s := range []struct {
		name string
		form timestamps
	}{{"ts_us", 1e3}, {"ts_ns", 1}, {"ts_ms", 1e6}} {
		for i, f := range fields {
			if f.Name == s.name && f.Type.ID() == arrow.INT64 {
				d.stamps = append(d.stamps, stamp{i, s.form})
			}
		}
	}
}

// Fields implements Decoder.
func (d *avroDebezium) Fields() []arrow.Field { return d.fields }

// Rows implements Decoder.
func (d *avroDebezium) Rows() int { return d.events.Rows() }

// Bytes implements Decoder.
func (d *avroDebezium) Bytes() int { return d.events.Bytes() }

func (d *avroDebezium) row() int                             { return d.rows }
func (d *avroDebezium) identify(given func(column int) bool) { d.key = given }

// Append implements Decoder.
func (d *avroDebezium) Append(r Record) error {
	n := d.events.Rows()
	if err := d.events.Append(r); err != nil || r.Value == nil {
		return err
	}
	if err := d.check(); err != nil {
		d.events.cut(n)
		return err
	}
	return nil
}

// check looks at the last event.
func (d *avroDebezium) check() error {
	if !d.events.given(d.op) {
		return &Error{Code: batch.CodeSchema, Reason: "there is no op", Pos: -1}
	}
	ops := d.events.root.members[d.op].(*varied)
	op, err := opOf(ops.data[ops.offsets[len(ops.offsets)-2]:], -1)
	if err != nil {
		return err
	}
	return sound(op, d.events.given(d.after), d.events.given(d.before), d.key)
}

// Take implements Decoder.
func (d *avroDebezium) Take() []arrow.Array {
	events := d.events.Take()
	after, before := events[d.after].(*array.Struct), events[d.before].(*array.Struct)
	out := make([]arrow.Array, 0, len(d.fields))
	for i := range d.rows {
		if after.NullN() > 0 {
			out = append(out, choose(after.Field(i), before.Field(i), after.IsNull))
			continue
		}
		after.Field(i).Retain()
		out = append(out, after.Field(i))
	}
	events[d.op].Retain()
	out = append(out, events[d.op], d.times(events, after.Len()))
	for _, i := range d.include {
		events[i].Retain()
		out = append(out, events[i])
	}
	for _, a := range events {
		a.Release()
	}
	return out
}

// times are the finest times of the source.
func (d *avroDebezium) times(events []arrow.Array, rows int) arrow.Array {
	c := fixed[int64]{kind: d.fields[d.rows+1].Type, cast: arrow.Int64Traits.CastToBytes}
	for i := range rows {
		at, there := d.time(events, i)
		if !there {
			c.null()
			continue
		}
		c.add(at)
	}
	return toArray(c.take())
}

func (d *avroDebezium) time(events []arrow.Array, row int) (micros int64, there bool) {
	if d.source < 0 || events[d.source].IsNull(row) {
		return 0, false
	}
	source := events[d.source].(*array.Struct)
	for _, s := range d.stamps {
		values := source.Field(s.field).(*array.Int64)
		if values.IsNull(row) {
			continue
		}
		v := values.Value(row)
		if s.form < 1e3 {
			return floorDiv(v, 1e3/int64(s.form)), true
		}
		scale := int64(s.form) / 1e3
		if v > timestampMax || v < -timestampMax {
			continue
		}
		return v * scale, true
	}
	return 0, false
}
