package decode

import (
	"bytes"
	"math"
	"slices"
	"strconv"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"
)

// known appends a well-known message that is one value.
func (d *protoWire) known(c *protoCell, i, end, depth int) error {
	var err error
	switch c.kind {
	case cellTimestamp, cellDuration:
		var v int64
		if v, err = d.micros(c.kind, i, end, depth); err == nil {
			c.i64.add(v)
		}
		return err
	case cellFieldMask:
		c.bytes.data, err = d.fieldMask(c.bytes.data, i, end, depth)
	case cellStruct:
		c.bytes.data, err = d.jsonStruct(c.bytes.data, i, end, depth)
	case cellListValue:
		c.bytes.data, err = d.jsonList(c.bytes.data, i, end, depth)
	default:
		c.bytes.data, err = d.jsonValue(c.bytes.data, i, end, depth)
	}
	if err != nil {
		return err
	}
	c.bytes.end()
	return nil
}

// The ranges of the well-known types, in seconds.
const (
	timestampLeast = -62135596800 // 0001-01-01T00:00:00Z
	timestampMost  = 253402300799 // 9999-12-31T23:59:59Z
	durationMost   = 315576000000
)

// micros reads a Timestamp or Duration, seconds and nanoseconds, in microseconds.
// Finer digits are cut off.
func (d *protoWire) micros(kind cellKind, i, end, depth int) (int64, error) {
	var parts [2]int64
	for at := i; i < end; {
		number, wire, next, err := d.tag(i, end)
		if err != nil {
			return 0, err
		}
		if number > 2 {
			if i, err = d.skip(number, wire, next, end, depth); err != nil {
				return 0, err
			}
			continue
		}
		if wire != protowire.VarintType {
			return 0, d.fail(at, "field %d has wire type %d, and its type has %d", number, wire, protowire.VarintType)
		}
		v, next, err := d.varint(next, end)
		if err != nil {
			return 0, err
		}
		parts[number-1], i = int64(v), next
	}
	seconds, nanos := parts[0], parts[1]
	if kind == cellTimestamp {
		if seconds < timestampLeast || seconds > timestampMost || nanos < 0 || nanos >= 1e9 {
			return 0, d.fail(i, "a timestamp of %d seconds and %d nanoseconds is out of range", seconds, nanos)
		}
	} else if seconds < -durationMost || seconds > durationMost || nanos <= -1e9 || nanos >= 1e9 || seconds > 0 && nanos < 0 || seconds < 0 && nanos > 0 {
		return 0, d.fail(i, "a duration of %d seconds and %d nanoseconds is out of range", seconds, nanos)
	}
	return seconds*1e6 + nanos/1e3, nil
}

// fieldMask appends the paths, separated by commas.
func (d *protoWire) fieldMask(to []byte, i, end, depth int) ([]byte, error) {
	for first := true; i < end; {
		number, start, stop, next, err := d.part(1, i, end, depth)
		if err != nil {
			return to, err
		}
		if i = next; number != 1 {
			continue
		}
		if !utf8.Valid(d.b[start:stop]) {
			return to, d.fail(start, "the string is not valid UTF-8")
		}
		if !first {
			to = append(to, ',')
		}
		to, first = append(to, d.b[start:stop]...), false
	}
	return to, nil
}

// part reads a field, passes over it, and returns where its bytes are. Those
// with numbers up to most have to be a block.
func (d *protoWire) part(most protowire.Number, i, end, depth int) (number protowire.Number, start, stop, next int, err error) {
	number, wire, at, err := d.tag(i, end)
	if err != nil {
		return 0, 0, 0, 0, err
	}
	if number > most {
		next, err = d.skip(number, wire, at, end, depth)
		return number, 0, 0, next, err
	}
	if wire != protowire.BytesType {
		return 0, 0, 0, 0, d.fail(i, "field %d has wire type %d, and its type has %d", number, wire, protowire.BytesType)
	}
	start, stop, err = d.block(at, end)
	return number, start, stop, stop, err
}

// protoJSON keeps buffers for Struct, Value and ListValue, which become JSON text:
// without spaces, with the members of an object in the order of their keys, so that
// equal values are equal texts.
type protoJSON struct {
	members []jsonMember // of the objects that are being written, one on top of the other
}

// jsonMember is an entry of a Struct, in a buffer.
type jsonMember struct {
	key, value []byte
}

func (d *protoWire) deep(i, depth int) error {
	if depth >= protoDepthMax {
		return d.fail(i, "messages are nested more than %d deep", protoDepthMax)
	}
	return nil
}

// jsonStruct appends a Struct, a map of keys to Values, as an object.
func (d *protoWire) jsonStruct(to []byte, i, end, depth int) ([]byte, error) {
	if err := d.deep(i, depth); err != nil {
		return to, err
	}
	base := len(d.json.members)
	defer func() {
		clear(d.json.members[base:])
		d.json.members = d.json.members[:base]
	}()
	for i < end {
		number, start, stop, next, err := d.part(1, i, end, depth)
		if err != nil {
			return to, err
		}
		if i = next; number != 1 {
			continue
		}
		m, err := d.jsonEntry(start, stop, depth)
		if err != nil {
			return to, err
		}
		d.json.members = append(d.json.members, m)
	}
	members := d.json.members[base:]
	slices.SortStableFunc(members, func(a, b jsonMember) int { return bytes.Compare(a.key, b.key) })
	to = append(to, '{')
	first := true
	for k := base; k < base+len(members); k++ {
		m := d.json.members[k]
		before := len(to)
		if !first {
			to = append(to, ',')
		}
		to = append(appendJSONText(to, m.key), ':')
		var err error
		if to, err = d.jsonInside(to, m.value, i, depth+1); err != nil {
			return to, err
		}
		if k+1 < base+len(members) && bytes.Equal(m.key, d.json.members[k+1].key) {
			to = to[:before] // the last one counts
			continue
		}
		first = false
	}
	return append(to, '}'), nil
}

// jsonInside appends a Value that may lie in another buffer.
func (d *protoWire) jsonInside(to, value []byte, at, depth int) ([]byte, error) {
	b, fixed := d.b, d.fixed
	if d.b = value; fixed < 0 {
		d.fixed = at
	}
	to, err := d.jsonValue(to, 0, len(value), depth)
	d.b, d.fixed = b, fixed
	return to, err
}

// jsonEntry reads an entry of a Struct. Its value may be in parts.
func (d *protoWire) jsonEntry(i, end, depth int) (m jsonMember, err error) {
	var value parts
	for i < end {
		number, start, stop, next, err := d.part(2, i, end, depth)
		if err != nil {
			return m, err
		}
		i = next
		switch number {
		case 1:
			m.key = d.b[start:stop]
			if !utf8.Valid(m.key) {
				return m, d.fail(start, "the string is not valid UTF-8")
			}
		case 2:
			value.add(d.b[start:stop])
		default:
		}
	}
	m.value = value.all
	return m, nil
}

// parts is a message that may be in parts.
type parts struct {
	all   []byte
	count int
}

func (p *parts) add(part []byte) {
	switch p.count++; p.count {
	case 1:
		p.all = part
	case 2: // what it was is the record's
		p.all = slices.Concat(p.all, part)
	default:
		p.all = append(p.all, part...)
	}
}

// jsonList appends a ListValue.
func (d *protoWire) jsonList(to []byte, i, end, depth int) ([]byte, error) {
	if err := d.deep(i, depth); err != nil {
		return to, err
	}
	to = append(to, '[')
	for first := true; i < end; {
		number, start, stop, next, err := d.part(1, i, end, depth)
		if err != nil {
			return to, err
		}
		if i = next; number != 1 {
			continue
		}
		if !first {
			to = append(to, ',')
		}
		first = false
		if to, err = d.jsonValue(to, start, stop, depth+1); err != nil {
			return to, err
		}
	}
	return append(to, ']'), nil
}

// The members of a Value's oneof.
const (
	valueNone   = 0
	valueNumber = 2
	valueText   = 3
	valueBool   = 4
	valueStruct = 5
	valueList   = 6
)

// jsonValue appends a Value: the last of its members that is there. One without a
// member is null.
func (d *protoWire) jsonValue(to []byte, i, end, depth int) ([]byte, error) {
	if err := d.deep(i, depth); err != nil {
		return to, err
	}
	kind := protowire.Number(valueNone)
	var bits uint64
	var inner parts // of a text, struct or list
	at := i
	for i < end {
		number, wire, next, err := d.tag(i, end)
		if err != nil {
			return to, err
		}
		at = i
		want := protowire.BytesType
		switch number {
		case 1, valueBool:
			want = protowire.VarintType
		case valueNumber:
			want = protowire.Fixed64Type
		case valueText, valueStruct, valueList:
		default:
			if i, err = d.skip(number, wire, next, end, depth); err != nil {
				return to, err
			}
			continue
		}
		if wire != want {
			return to, d.fail(i, "field %d has wire type %d, and its type has %d", number, wire, want)
		}
		if i, err = d.skip(number, wire, next, end, depth); err != nil {
			return to, err
		}
		switch want {
		case protowire.VarintType:
			bits, _ = longVarint(d.b, next, end)
		case protowire.Fixed64Type:
			for k := range 8 {
				bits = bits>>8 | uint64(d.b[next+k])<<56
			}
		default:
			start, stop, err := d.block(next, end)
			if err != nil {
				return to, err
			}
			if number != kind || number == valueText { // no part of the same message
				inner = parts{}
			}
			inner.add(d.b[start:stop])
		}
		kind = number
	}
	return d.jsonMade(to, kind, bits, inner.all, at, depth)
}

func (d *protoWire) jsonMade(to []byte, kind protowire.Number, bits uint64, inner []byte, at, depth int) ([]byte, error) {
	switch kind {
	case valueNumber:
		v := math.Float64frombits(bits)
		if math.IsNaN(v) || math.IsInf(v, 0) {
			return to, d.fail(at, "%v is no number of JSON", v)
		}
		return appendJSONNumber(to, v), nil
	case valueText:
		if !utf8.Valid(inner) {
			return to, d.fail(at, "the string is not valid UTF-8")
		}
		return appendJSONText(to, inner), nil
	case valueBool:
		return strconv.AppendBool(to, bits != 0), nil
	case valueStruct, valueList:
		b, fixed := d.b, d.fixed
		if d.b = inner; fixed < 0 {
			d.fixed = at
		}
		var err error
		if kind == valueStruct {
			to, err = d.jsonStruct(to, 0, len(inner), depth+1)
		} else {
			to, err = d.jsonList(to, 0, len(inner), depth+1)
		}
		d.b, d.fixed = b, fixed
		return to, err
	default:
		return append(to, "null"...), nil
	}
}

// appendJSONNumber appends a number in its shortest form.
func appendJSONNumber(to []byte, v float64) []byte {
	if abs := math.Abs(v); abs != 0 && (abs < 1e-6 || abs >= 1e21) {
		return strconv.AppendFloat(to, v, 'e', -1, 64)
	}
	return strconv.AppendFloat(to, v, 'f', -1, 64)
}

// appendJSONText appends UTF-8 as a string.
func appendJSONText(to, text []byte) []byte {
	const digits = "0123456789abcdef"
	to = append(to, '"')
	from := 0
	for i, c := range text {
		if c >= 0x20 && c != '"' && c != '\\' {
			continue
		}
		to = append(to, text[from:i]...)
		from = i + 1
		switch c {
		case '"', '\\':
			to = append(to, '\\', c)
		case '\n':
			to = append(to, '\\', 'n')
		case '\r':
			to = append(to, '\\', 'r')
		case '\t':
			to = append(to, '\\', 't')
		default:
			to = append(to, '\\', 'u', '0', '0', digits[c>>4], digits[c&15])
		}
	}
	return append(append(to, text[from:]...), '"')
}
