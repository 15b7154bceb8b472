package decode

import (
	"encoding/binary"
	"fmt"
	"math"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/frazil-io/frazil/internal/batch"
)

// protoDepthMax bounds the nesting of messages and groups, known or not: as much
// as Protobuf's own libraries take.
const protoDepthMax = 100

// What a record may take beyond its bytes, in values of columns, bytes that are
// read again, and texts that the schema has and not the record: an element without
// fields has two bytes, and a NULL, a zero or a default for each field that it could
// have; a symbol of an enum has one byte, and its name in the column; messages in
// parts inside of messages in parts are read many times.
const (
	spareFree    = 4 << 20
	sparePerByte = 4
)

// mergedKept bounds the buffer that is kept for messages in parts.
const mergedKept = 1 << 20

// protoWire reads the wire format of one record.
type protoWire struct {
	b     []byte
	fixed int // where errors are, for a buffer that is not the record's; -1: where they are
	spare int // of spareFree
	order []int32
	keep  []bool
	json  protoJSON
}

func (d *protoWire) begin(value []byte) {
	d.b, d.fixed, d.spare = value, -1, spareFree+sparePerByte*len(value)
}

// spend notes what the record takes beyond its bytes.
func (d *protoWire) spend(n, at int) error {
	if d.spare -= n; d.spare >= 0 {
		return nil
	}
	err := &Error{Code: batch.CodeOversize, Reason: "the record takes too much: it has too many elements whose fields are absent, symbols of enums, or messages in parts", Pos: at}
	if d.fixed >= 0 {
		err.Pos = d.fixed
	}
	return err
}

func (d *protoWire) fail(at int, format string, args ...any) error {
	if d.fixed >= 0 {
		at = d.fixed
	}
	return &Error{Code: batch.CodeDecode, Reason: fmt.Sprintf(format, args...), Pos: at}
}

// longVarint reads a varint of b before end; next is 0 where there is none.
func longVarint(b []byte, i, end int) (v uint64, next int) {
	for shift := uint(0); i < end && shift < 64; shift += 7 {
		c := b[i]
		i++
		if c < 0x80 {
			if shift == 63 && c > 1 {
				return 0, 0
			}
			return v | uint64(c)<<shift, i
		}
		v |= uint64(c&0x7f) << shift
	}
	return 0, 0
}

func (d *protoWire) varint(i, end int) (v uint64, next int, err error) {
	if i < end && d.b[i] < 0x80 {
		return uint64(d.b[i]), i + 1, nil
	}
	v, next = longVarint(d.b, i, end)
	if next != 0 {
		return v, next, nil
	}
	if end-i >= 10 {
		return 0, 0, d.fail(i, "a varint of more than 64 bits")
	}
	return 0, 0, d.fail(i, "the message ends inside a varint")
}

func unzigzag(v uint64) int64 { return int64(v>>1) ^ -int64(v&1) }

// block reads a length and returns where its bytes begin and end.
func (d *protoWire) block(i, end int) (start, stop int, err error) {
	if i < end && int(d.b[i]) < min(0x80, end-i) {
		return i + 1, i + 1 + int(d.b[i]), nil
	}
	n, start, err := d.varint(i, end)
	if err != nil {
		return 0, 0, err
	}
	if n > uint64(end-start) {
		return 0, 0, d.fail(i, "a length of %d, where %d bytes are left", n, end-start)
	}
	return start, start + int(n), nil
}

// tag reads the number and the wire type of a field.
func (d *protoWire) tag(i, end int) (number protowire.Number, wire protowire.Type, next int, err error) {
	v, next, err := d.varint(i, end)
	if err != nil {
		return 0, 0, 0, err
	}
	if n := v >> 3; n == 0 || n > uint64(protowire.MaxValidNumber) {
		return 0, 0, 0, d.fail(i, "%d is no number of a field", n)
	}
	return protowire.Number(v >> 3), protowire.Type(v & 7), next, nil
}

// skip passes over a value.
func (d *protoWire) skip(number protowire.Number, wire protowire.Type, i, end, depth int) (next int, err error) {
	switch wire {
	case protowire.VarintType:
		_, next, err = d.varint(i, end)
	case protowire.Fixed32Type:
		next = i + 4
	case protowire.Fixed64Type:
		next = i + 8
	case protowire.BytesType:
		_, next, err = d.block(i, end)
	case protowire.StartGroupType:
		_, next, err = d.group(number, i, end, depth)
	case protowire.EndGroupType:
		return 0, d.fail(i, "the end of group %d, which did not begin", number)
	default:
		return 0, d.fail(i, "field %d has wire type %d, which there is not", number, wire)
	}
	if err == nil && next > end {
		return 0, d.fail(i, "the message ends inside field %d", number)
	}
	return next, err
}

// group finds the end of a group: of its contents, and of its end tag.
func (d *protoWire) group(number protowire.Number, i, end, depth int) (stop, next int, err error) {
	if depth >= protoDepthMax {
		return 0, 0, d.fail(i, "messages are nested more than %d deep", protoDepthMax)
	}
	start := i
	for i < end {
		stop = i
		n, wire, next, err := d.tag(i, end)
		if err != nil {
			return 0, 0, err
		}
		if wire == protowire.EndGroupType {
			if n != number {
				return 0, 0, d.fail(i, "the end of group %d inside of group %d", n, number)
			}
			return stop, next, nil
		}
		if i, err = d.skip(n, wire, next, end, depth+1); err != nil {
			return 0, 0, err
		}
	}
	return 0, 0, d.fail(start, "group %d does not end", number)
}

// decode appends the message in the bytes from i to end.
func (d *protoWire) decode(m *wireMessage, i, end, depth int) error {
	n := m.node
	if depth >= protoDepthMax {
		return d.fail(i, "messages are nested more than %d deep", protoDepthMax)
	}
	row := n.rows()
	n.object++
	n.pending, n.there = 0, 0
	start := i
	b := d.b
	for i < end {
		var number protowire.Number
		var wire protowire.Type
		var err error
		if c := b[i]; c < 0x80 && c >= 8 {
			number, wire = protowire.Number(c>>3), protowire.Type(c&7)
			i++
		} else if number, wire, i, err = d.tag(i, end); err != nil {
			return err
		}
		var f *wireField
		if int(number) < len(m.dense) {
			f = m.dense[number]
		} else if m.sparse != nil {
			f = m.sparse[number]
		}
		switch {
		case f == nil:
			i, err = d.skip(number, wire, i, end, depth)
		case f.plain && wire == f.wire:
			if s := &n.slots[f.slot]; s.seen != n.object {
				s.seen = n.object
				n.there++
			} else {
				s.column.cut(row) // the last one counts
			}
			i, err = d.value(f, i, end)
		case f.repeated:
			i, err = d.element(n, f, wire, i, end, depth)
		default:
			i, err = d.single(n, f, wire, i, end, depth, row)
		}
		if err != nil {
			if f != nil {
				return named(err, n.slots[f.slot].name)
			}
			return err
		}
	}
	return d.finish(m, start, end, depth, row)
}

// single reads the value of a field that has one.
func (d *protoWire) single(n *protoNode, f *wireField, wire protowire.Type, i, end, depth, row int) (int, error) {
	if wire != f.wire {
		return 0, d.mismatch(f, wire, i)
	}
	s := &n.slots[f.slot]
	again := s.seen == n.object
	if !again {
		s.seen = n.object
		n.there++
	}
	if s.oneof >= 0 && !again {
		n.chosen(f.slot, row)
	}
	if !f.message {
		if again {
			s.column.cut(row)
		}
		return d.value(f, i, end)
	}
	start, stop, next, err := d.span(f, i, end, depth)
	if err != nil {
		return 0, err
	}
	switch {
	case again:
		d.merge(n, s, start, stop)
	case s.node != nil && s.node.whole: // a part alone may lack what is required
		s.deferred, s.start, s.end = n.object, start, stop
		n.pending++
	default:
		s.start, s.end = start, stop
		err = d.into(f, start, stop, depth)
	}
	return next, err
}

// chosen notes that a oneof has another member, and takes back the one before.
func (n *protoNode) chosen(slot, row int) {
	o := &n.oneofs[n.slots[slot].oneof]
	if o.object == n.object {
		s := &n.slots[o.slot]
		s.column.cut(row)
		s.seen, s.deferred, s.merging = 0, 0, 0
		n.there--
	}
	*o = protoOneof{slot: slot, object: n.object}
}

// span finds the bytes of a message.
func (d *protoWire) span(f *wireField, i, end, depth int) (start, stop, next int, err error) {
	if f.wire == protowire.StartGroupType {
		stop, next, err = d.group(f.number, i, end, depth+1)
		return i, stop, next, err
	}
	start, stop, err = d.block(i, end)
	return start, stop, stop, err
}

// into appends a message to its column.
func (d *protoWire) into(f *wireField, i, end, depth int) error {
	if f.sub != nil {
		return d.decode(f.sub, i, end, depth+1)
	}
	return d.known(f.cell, i, end, depth+1)
}

// merge adds a part of a message. Parts one behind the other are the message.
func (d *protoWire) merge(n *protoNode, s *protoSlot, start, stop int) {
	if s.merging != n.object {
		s.merging = n.object
		s.merged = append(s.merged[:0], d.b[s.start:s.end]...)
		if s.deferred != n.object {
			n.pending++
		}
	}
	s.merged = append(s.merged, d.b[start:stop]...)
	s.start = start // errors are where its last part is
}

func (d *protoWire) mismatch(f *wireField, wire protowire.Type, i int) error {
	if wire == 6 || wire == 7 || wire == protowire.EndGroupType {
		_, err := d.skip(f.number, wire, i, len(d.b), 0)
		return err
	}
	return d.fail(i, "field %d has wire type %d, and its type has %d; it was written with another schema", f.number, wire, f.wire)
}

// element reads a value of a field that has many, or a packed block of them.
func (d *protoWire) element(n *protoNode, f *wireField, wire protowire.Type, i, end, depth int) (int, error) {
	s := &n.slots[f.slot]
	if f.message {
		if wire != f.wire {
			return 0, d.mismatch(f, wire, i)
		}
		start, stop, next, err := d.span(f, i, end, depth)
		if err != nil {
			return 0, err
		}
		if s.node != nil {
			if err := d.spend(s.node.cells, i); err != nil {
				return 0, err
			}
		}
		return next, d.into(f, start, stop, depth)
	}
	if wire == f.wire {
		return d.value(f, i, end)
	}
	if wire != protowire.BytesType || f.wire == protowire.BytesType {
		return 0, d.mismatch(f, wire, i)
	}
	i, end, err := d.block(i, end)
	for err == nil && i < end {
		i, err = d.value(f, i, end)
	}
	return i, err
}

// ascii says whether all bytes are below 0x80; so short a text is checked most quickly
// here.
func ascii(b []byte) bool {
	n := len(b)
	if n < 8 {
		all := byte(0)
		for _, c := range b {
			all |= c
		}
		return all < utf8.RuneSelf
	}
	all := binary.LittleEndian.Uint64(b[n-8:])
	for i := 0; i < n-8; i += 8 {
		all |= binary.LittleEndian.Uint64(b[i:])
	}
	return all&highs == 0
}

// text reads a value of bytes whose length has one byte; next is 0 for any other, and
// for one that is wrong.
func (d *protoWire) text(c *protoCell, i, end int) (next int) {
	if i >= end || int(d.b[i]) >= min(0x80, end-i) {
		return 0
	}
	next = i + 1 + int(d.b[i])
	v := d.b[i+1 : next]
	if c.kind == cellText && !ascii(v) && !utf8.Valid(v) {
		return 0
	}
	c.bytes.append(v)
	return next
}

// value reads one value that is no message.
func (d *protoWire) value(f *wireField, i, end int) (int, error) {
	if f.wire == protowire.BytesType {
		if next := d.text(f.cell, i, end); next != 0 {
			return next, nil
		}
	}
	var v uint64
	at := i
	switch f.wire {
	case protowire.VarintType:
		if i < end && d.b[i] < 0x80 {
			v = uint64(d.b[i])
			i++
		} else {
			var err error
			if v, i, err = d.varint(i, end); err != nil {
				return 0, err
			}
		}
		if f.form == formZigzag {
			v = uint64(unzigzag(v))
		}
	case protowire.Fixed64Type:
		if end-i < 8 {
			return 0, d.fail(i, "the message ends inside of eight bytes")
		}
		v = binary.LittleEndian.Uint64(d.b[i:])
		i += 8
	case protowire.Fixed32Type:
		if end-i < 4 {
			return 0, d.fail(i, "the message ends inside of four bytes")
		}
		v = uint64(binary.LittleEndian.Uint32(d.b[i:]))
		i += 4
		switch f.form {
		case formSigned:
			v = uint64(int64(int32(v)))
		case formWiden:
			v = math.Float64bits(float64(math.Float32frombits(uint32(v))))
		case formPlain, formZigzag:
		}
	default:
		start, stop, err := d.block(i, end)
		if err != nil {
			return 0, err
		}
		if !f.cell.text(d.b[start:stop]) {
			return 0, d.fail(start+invalidAt(d.b[start:stop]), "the string is not valid UTF-8")
		}
		return stop, nil
	}
	if f.names != nil && (!f.unsigned || v <= math.MaxInt32) && uint64(int64(int32(v))) == v {
		was := len(f.cell.bytes.data)
		f.cell.bytes.data = f.names.append(f.cell.bytes.data, int32(v))
		f.cell.bytes.end()
		return i, d.spend(len(f.cell.bytes.data)-was, at)
	}
	if !f.cell.number(v, f.unsigned) {
		if f.unsigned {
			return 0, d.fail(at, "%d is out of range", v)
		}
		return 0, d.fail(at, "%d is out of range", int64(v))
	}
	return i, nil
}
