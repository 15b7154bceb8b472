package decode

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"unicode/utf8"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/extensions"
	"github.com/google/uuid"

	"github.com/frazil-io/frazil/internal/batch"
)

// keyDecoder is a decoder whose last rows can be taken back. It reads a key where
// others read the value.
type keyDecoder interface {
	Decoder
	// cut drops the rows from this one on.
	cut(rows int)
	// given says whether a column of the last row is there.
	given(column int) bool
}

// KeyColumn is the column of a key that is no object, where the spec gives it no
// other name.
const KeyColumn = "key"

// NewKey returns a decoder for the keys of records: in a format of New, or as
// "string", "kafka" or "raw", which make one column of the key as a whole. Its
// Append reads Record.Value, and the headers.
func NewKey(format string, columns []arrow.Field, o Options) (Decoder, error) {
	o.key = true
	switch format {
	case "string", "kafka", "raw":
		return newPlain(format, columns, o)
	case "json":
		return newJSONKey(columns, o)
	case "avro":
		d, err := newAvro(o)
		if err == nil && d.column != column(d.root) {
			d.fields[0].Name = KeyColumn
		}
		return d, err
	}
	return New(format, columns, o)
}

func newJSONKey(columns []arrow.Field, o Options) (*jsonDecoder, error) {
	if o.Unknown == Column {
		return nil, fmt.Errorf("%w: unknown_fields: column is for values; use ignore or reject", batch.ErrInvalid)
	}
	d, err := newJSON(columns, o)
	if err != nil {
		return nil, err
	}
	d.whole = len(columns) == 1
	if o.Envelope != "" {
		stamps, err := timestampForm(o.Timestamps)
		if err != nil {
			return nil, err
		}
		d.connect = newConnect(stamps, "")
		d.connect.adapt(d.root)
		d.connect.row = d.object
	}
	return d, nil
}

// plain makes one column of a key as a whole.
type plain struct {
	field  arrow.Field
	column column
	append func(key []byte) error
}

func newPlain(format string, columns []arrow.Field, o Options) (*plain, error) {
	otherwise := arrow.DataType(arrow.BinaryTypes.String)
	if format == "raw" {
		otherwise = arrow.BinaryTypes.Binary
	}
	p := &plain{field: arrow.Field{Name: KeyColumn, Type: otherwise, Nullable: true}}
	switch {
	case len(columns) > 1:
		return nil, fmt.Errorf("%w: format %s makes one column of the key, and columns has %d", batch.ErrInvalid, format, len(columns))
	case len(columns) == 1:
		p.field = columns[0]
	case format == "kafka":
		return nil, fmt.Errorf("%w: format kafka needs the key's column, such as id BIGINT", batch.ErrInvalid)
	}
	stamps, err := timestampForm(o.Timestamps)
	if err != nil {
		return nil, err
	}
	if p.column, err = newColumn(p.field.Type, stamps); err != nil {
		return nil, err
	}
	switch format {
	case "raw":
		p.append = p.raw()
	case "kafka":
		p.append = p.kafka()
	default:
		p.append = p.text(stamps)
	}
	if p.append == nil {
		return nil, fmt.Errorf("%w: column %q: format %s does not make %s of a key", batch.ErrInvalid, p.field.Name, format, p.field.Type)
	}
	return p, nil
}

// Fields implements Decoder.
func (p *plain) Fields() []arrow.Field { return []arrow.Field{p.field} }

// Rows implements Decoder.
func (p *plain) Rows() int { return p.column.len() }

// Bytes implements Decoder.
func (p *plain) Bytes() int { return p.column.bytes() }

// Take implements Decoder.
func (p *plain) Take() []arrow.Array { return []arrow.Array{toArray(p.column.take())} }

func (p *plain) cut(rows int)   { p.column.cut(rows) }
func (p *plain) given(int) bool { return p.column.(interface{ given() bool }).given() }

// Append implements Decoder.
func (p *plain) Append(r Record) error {
	if r.Value != nil {
		return p.append(r.Value)
	}
	if !p.field.Nullable {
		return &Error{Reason: fmt.Sprintf("it is null, and column %q is NOT NULL", p.field.Name), Pos: -1}
	}
	p.column.null()
	return nil
}

// raw takes the bytes as they are.
func (p *plain) raw() func([]byte) error {
	c, ok := p.column.(*varied)
	if !ok || p.field.Type.ID() != arrow.BINARY {
		return nil
	}
	return func(key []byte) error {
		c.append(key)
		return nil
	}
}

// utf8 takes the bytes as text.
func (p *plain) utf8(c *varied) func([]byte) error {
	return func(key []byte) error {
		if !utf8.Valid(key) {
			return &Error{Reason: "the text is not valid UTF-8", Pos: invalidAt(key)}
		}
		c.append(key)
		return nil
	}
}

// text reads what is text, as JSON has it: 42, true, 2026-01-02.
func (p *plain) text(stamps timestamps) func([]byte) error {
	quoted := false
	switch p.field.Type.(type) {
	case *arrow.StringType:
		return p.utf8(p.column.(*varied))
	case *arrow.BinaryType, *arrow.StructType, *arrow.ListType, *arrow.MapType:
		return nil
	case *arrow.Date32Type, *arrow.Time64Type, *extensions.UUIDType:
		quoted = true
	case *arrow.TimestampType:
		quoted = stamps == 0
	}
	s := &scanner{}
	var tmp []byte
	return func(key []byte) error {
		s.b, s.i = key, 0
		shift := 0
		if quoted {
			tmp = append(append(append(tmp[:0], '"'), key...), '"')
			s.b, shift = tmp, 1
		}
		if err := plainValue(p.column, s, key); err != nil {
			var e *Error
			if errors.As(err, &e) {
				return &Error{Reason: e.Reason, Pos: min(max(e.Pos-shift, 0), len(key))}
			}
			return err
		}
		return nil
	}
}

// plainValue appends one value that fills the text.
func plainValue(c column, s *scanner, key []byte) error {
	for i, b := range key {
		if b <= ' ' && b != ' ' || b == '\\' || b == '"' || b == ' ' && (i == 0 || i == len(key)-1) {
			return s.failAt(i, "the text %.40q is no such value", key)
		}
	}
	n := c.len()
	if err := c.json(s, 0); err != nil {
		c.cut(n)
		return err
	}
	if err := s.end(); err != nil {
		c.cut(n)
		return err
	}
	return nil
}

// kafka reads what the serializers of Kafka's Java client write.
func (p *plain) kafka() func([]byte) error {
	switch c := p.column.(type) {
	case *varied:
		if p.field.Type.ID() == arrow.STRING {
			return p.utf8(c)
		}
		return p.raw()
	case *fixed[int16]:
		return bigEndian(p, 2, func(b []byte) { c.add(int16(binary.BigEndian.Uint16(b))) })
	case *fixed[int32]:
		if p.field.Type.ID() == arrow.INT32 {
			return bigEndian(p, 4, func(b []byte) { c.add(int32(binary.BigEndian.Uint32(b))) })
		}
	case *fixed[int64]:
		if p.field.Type.ID() == arrow.INT64 {
			return bigEndian(p, 8, func(b []byte) { c.add(int64(binary.BigEndian.Uint64(b))) })
		}
	case *fixed[float32]:
		return bigEndian(p, 4, func(b []byte) { c.add(math.Float32frombits(binary.BigEndian.Uint32(b))) })
	case *fixed[float64]:
		return bigEndian(p, 8, func(b []byte) { c.add(math.Float64frombits(binary.BigEndian.Uint64(b))) })
	case *uuids:
		return func(key []byte) error {
			id, err := uuid.ParseBytes(key)
			if err != nil || len(key) != 36 {
				return &Error{Reason: fmt.Sprintf("the text %.40q is not a UUID", key), Pos: 0}
			}
			c.values = append(c.values, id[:]...)
			c.push(true)
			return nil
		}
	}
	return nil
}

func bigEndian(p *plain, size int, add func([]byte)) func([]byte) error {
	return func(key []byte) error {
		if len(key) != size {
			return &Error{Reason: fmt.Sprintf("it has %d bytes, and Kafka's serializer writes %s in %d; text is read by format: string", len(key), p.field.Type, size), Pos: -1}
		}
		add(key)
		return nil
	}
}
