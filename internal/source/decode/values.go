package decode

import (
	"encoding/base64"
	"errors"
	"fmt"
	"math"
	"math/big"
	"strconv"
	"unsafe"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/decimal128"
	"github.com/apache/arrow-go/v18/arrow/extensions"
	"github.com/google/uuid"

	"github.com/frazil-io/frazil/internal/batch"
)

// newField returns the column for a field: for one that keeps JSON text, or for its
// type.
func newField(f arrow.Field, stamps timestamps) (column, error) {
	if f.Metadata.FindKey(asText) >= 0 {
		return newVaried(arrow.BinaryTypes.String, parseAny), nil
	}
	return newColumn(f.Type, stamps)
}

// parseAny keeps any value as its text.
func parseAny(s *scanner, to []byte) ([]byte, error) {
	s.peek()
	start := s.i
	if err := s.skip(0); err != nil {
		return nil, err
	}
	return append(to, s.b[start:s.i]...), nil
}

// newColumn returns the column for a type.
func newColumn(t arrow.DataType, stamps timestamps) (column, error) {
	switch t := t.(type) {
	case *arrow.BooleanType:
		return &boolean{}, nil
	case *arrow.Int8Type:
		return integers[int8](t, math.MinInt8, math.MaxInt8, arrow.Int8Traits.CastToBytes), nil
	case *arrow.Int16Type:
		return integers[int16](t, math.MinInt16, math.MaxInt16, arrow.Int16Traits.CastToBytes), nil
	case *arrow.Int32Type:
		return integers[int32](t, math.MinInt32, math.MaxInt32, arrow.Int32Traits.CastToBytes), nil
	case *arrow.Int64Type:
		return integers[int64](t, math.MinInt64, math.MaxInt64, arrow.Int64Traits.CastToBytes), nil
	case *arrow.Uint8Type:
		return integers[uint8](t, 0, math.MaxUint8, arrow.Uint8Traits.CastToBytes), nil
	case *arrow.Uint16Type:
		return integers[uint16](t, 0, math.MaxUint16, arrow.Uint16Traits.CastToBytes), nil
	case *arrow.Uint32Type:
		return integers[uint32](t, 0, math.MaxUint32, arrow.Uint32Traits.CastToBytes), nil
	case *arrow.Uint64Type:
		return integers[uint64](t, 0, math.MaxUint64, arrow.Uint64Traits.CastToBytes), nil
	case *arrow.Float32Type:
		return &fixed[float32]{kind: t, cast: arrow.Float32Traits.CastToBytes, parse: func(s *scanner) (float32, error) {
			v, err := parseFloat(s, 32)
			return float32(v), err
		}}, nil
	case *arrow.Float64Type:
		return &fixed[float64]{kind: t, cast: arrow.Float64Traits.CastToBytes, parse: func(s *scanner) (float64, error) { return parseFloat(s, 64) }}, nil
	case *arrow.Decimal128Type:
		return &decimal{t: t}, nil
	case *arrow.StringType:
		return newVaried(t, parseText), nil
	case *arrow.BinaryType:
		return newVaried(t, parseBase64), nil
	case *arrow.Date32Type:
		return &fixed[int32]{kind: t, cast: arrow.Int32Traits.CastToBytes, parse: parseDate}, nil
	case *arrow.Time64Type:
		return &fixed[int64]{kind: t, cast: arrow.Int64Traits.CastToBytes, parse: parseTime}, nil
	case *arrow.TimestampType:
		return &fixed[int64]{kind: t, cast: arrow.Int64Traits.CastToBytes, parse: stamps.parser(t)}, nil
	case *extensions.UUIDType:
		return &uuids{}, nil
	case *arrow.StructType:
		return newStructure(t, stamps)
	case *arrow.MapType:
		return newMap(t, stamps)
	case *arrow.ListType:
		return newList(t, stamps)
	}
	return nil, fmt.Errorf("%w: type %s cannot be read from JSON", batch.ErrInvalid, t)
}

func parseBool(s *scanner) (byte, error) {
	switch s.peek() {
	case 't':
		return 1, s.literal("true")
	case 'f':
		return 0, s.literal("false")
	}
	return 0, s.unexpected("true or false")
}

func parseText(s *scanner, to []byte) ([]byte, error) {
	if s.peek() != '"' {
		return nil, s.unexpected("a text")
	}
	v, err := s.text()
	return append(to, v...), err
}

func parseBase64(s *scanner, to []byte) ([]byte, error) {
	if s.peek() != '"' {
		return nil, s.unexpected("a text in base64")
	}
	at := s.i
	v, err := s.text()
	if err != nil {
		return nil, err
	}
	return s.base64(at, to, v)
}

func (s *scanner) base64(at int, to, text []byte) ([]byte, error) {
	out, err := base64.StdEncoding.Strict().AppendDecode(to, text)
	if err != nil {
		return nil, s.failAt(at, "the text is not base64")
	}
	return out, nil
}

// integers is a column of integers from least to most.
func integers[T int8 | int16 | int32 | int64 | uint8 | uint16 | uint32 | uint64](t arrow.DataType, least int64, most uint64, cast func([]T) []byte) column {
	return &fixed[T]{kind: t, cast: cast, parse: func(s *scanner) (T, error) {
		at := s.i
		n, err := s.number()
		if err != nil {
			return 0, err
		}
		if n.exact && n.value >= least && (n.value < 0 || uint64(n.value) <= most) {
			return T(n.value), nil
		}
		return wideInteger[T](s, n, least, most, at, t)
	}}
}

// wideInteger handles what is not a plain integer of up to 18 digits: more
// digits, 1.0, 1e3.
func wideInteger[T int8 | int16 | int32 | int64 | uint8 | uint16 | uint32 | uint64](s *scanner, n number, least int64, most uint64, at int, t arrow.DataType) (T, error) {
	v, fraction, ok := unscaled(n.text, 0)
	switch {
	case fraction:
		return 0, s.failAt(at, "%.40s is not an integer", n.text)
	case !ok || v.Cmp(big.NewInt(least)) < 0 || v.Cmp(new(big.Int).SetUint64(most)) > 0:
		return 0, s.failAt(at, "%.40s is out of range for %s", n.text, t)
	}
	if v.Sign() < 0 {
		return T(v.Int64()), nil
	}
	return T(v.Uint64()), nil
}

// powers are those of ten.
var powers = [floatDigits + 1]float64{1, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15}

func parseFloat(s *scanner, size int) (float64, error) {
	at := s.i
	n, err := s.number()
	if err != nil {
		return 0, err
	}
	switch {
	case n.value == 0: // -0 keeps its sign below
	case size == 64 && n.scale >= 0: // both are exact, so their quotient is the nearest number
		return float64(n.value) / powers[n.scale], nil
	case n.exact && n.value > -1<<24 && n.value < 1<<24: // exact in both sizes
		return float64(n.value), nil
	}
	v, err := strconv.ParseFloat(unsafe.String(unsafe.SliceData(n.text), len(n.text)), size)
	if errors.Is(err, strconv.ErrRange) {
		return 0, s.failAt(at, "%.40s is out of range", n.text)
	}
	return v, err
}

// digitsMax bounds the digits of an integer that is computed: more than any type
// holds, and few enough that a record cannot keep a worker busy with one number.
const digitsMax = 80

// unscaled returns a JSON number times 10^scale. fraction says that it is not an
// integer then, ok that it is not absurdly large.
func unscaled(text []byte, scale int) (v *big.Int, fraction, ok bool) {
	digits := make([]byte, 0, min(len(text), 2*digitsMax))
	exponent, i := scale, 0
	negative := text[0] == '-'
	if negative {
		i = 1
	}
	point := false
	for ; i < len(text) && text[i]|0x20 != 'e'; i++ {
		if text[i] == '.' {
			point = true
			continue
		}
		if len(digits) > 0 || text[i] != '0' {
			digits = append(digits, text[i])
		}
		if point {
			exponent--
		}
	}
	if len(digits) == 0 { // zero, whatever its exponent
		return new(big.Int), false, true
	}
	for digits[len(digits)-1] == '0' {
		digits = digits[:len(digits)-1]
		exponent++
	}
	if i < len(text) {
		e, err := strconv.Atoi(string(text[i+1:]))
		if err != nil { // it has more digits than an int
			return nil, text[i+1] == '-', text[i+1] == '-'
		}
		exponent = addBounded(exponent, e)
	}
	switch {
	case exponent < 0:
		return nil, true, true
	case len(digits) > digitsMax, exponent > digitsMax:
		return nil, false, false
	}
	v, ok = new(big.Int).SetString(string(digits), 10)
	if !ok {
		panic("decode: the scanner let a number through that is none")
	}
	v.Mul(v, new(big.Int).Exp(big.NewInt(10), big.NewInt(int64(exponent)), nil))
	if negative {
		v.Neg(v)
	}
	return v, false, true
}

// addBounded adds an exponent of a record's choice to that of its digits, which
// is no larger than the record.
func addBounded(a, b int) int {
	const most = math.MaxInt / 4
	return max(-most, min(most, a)) + max(-most, min(most, b))
}

// decimal is a column of DECIMAL(p, s), exact.
type decimal struct {
	fixed[decimal128.Num]
	t *arrow.Decimal128Type
	// connect, if not nil, reads what Kafka Connect's converter writes.
	connect *leaf
}

func (c *decimal) json(s *scanner, _ int) error {
	if c.connect != nil && c.connect.encoded(s) {
		return c.connect.decimal(s, c)
	}
	at := s.i
	if s.peek() == '"' { // money often comes as text, to keep it exact
		text, err := s.text()
		if err != nil {
			return err
		}
		return c.text(s, at, text)
	}
	n, err := s.number()
	if err != nil {
		return err
	}
	return c.number(s, at, n.text)
}

// text appends a number that is the whole of a text.
func (c *decimal) text(s *scanner, at int, text []byte) error {
	sub := scanner{b: text}
	if n, err := sub.number(); err != nil || len(n.text) != len(text) {
		return s.failAt(at, "the text %.40q is not a number", text)
	}
	return c.number(s, at, text)
}

func (c *decimal) number(s *scanner, at int, text []byte) error {
	v, fraction, ok := unscaled(text, int(c.t.Scale))
	return c.unscaled(s, at, text, v, fraction, ok)
}

// unscaled appends a value times ten to the scale, if it is an integer in range.
func (c *decimal) unscaled(s *scanner, at int, text []byte, v *big.Int, fraction, ok bool) error {
	switch {
	case fraction:
		return s.failAt(at, "%.40s has more than %d digits behind the point", text, c.t.Scale)
	case !ok || v.CmpAbs(new(big.Int).Exp(big.NewInt(10), big.NewInt(int64(c.t.Precision)), nil)) >= 0:
		return s.failAt(at, "%.40s is out of range for %s", text, c.t)
	}
	c.values = append(c.values, decimal128.FromBigInt(v))
	c.push(true)
	return nil
}

func (c *decimal) null() {
	c.values = append(c.values, decimal128.Num{})
	c.push(false)
}

func (c *decimal) bytes() int { return 17 * len(c.values) }

func (c *decimal) take() arrow.ArrayData {
	c.kind, c.cast = c.t, arrow.Decimal128Traits.CastToBytes
	return c.fixed.take()
}

// uuids is a column of UUIDs.
type uuids struct {
	validity
	values []byte // 16 each
}

func (c *uuids) json(s *scanner, _ int) error {
	if s.peek() != '"' {
		return s.unexpected("a UUID as text")
	}
	at := s.i
	text, err := s.text()
	if err != nil {
		return err
	}
	return c.text(s, at, text)
}

func (c *uuids) text(s *scanner, at int, text []byte) error {
	id, err := uuid.ParseBytes(text)
	if err != nil || len(text) != 36 {
		return s.failAt(at, "the text %.40q is not a UUID", text)
	}
	c.values = append(c.values, id[:]...)
	c.push(true)
	return nil
}

func (c *uuids) null() {
	c.values = append(c.values, make([]byte, 16)...)
	c.push(false)
}

func (c *uuids) len() int   { return c.n }
func (c *uuids) bytes() int { return 17 * c.n }
func (c *uuids) cut(n int) {
	c.values = c.values[:16*n]
	c.validity.cut(n)
}

func (c *uuids) take() arrow.ArrayData {
	n := c.n
	bitmap, nulls := c.validity.take()
	data := array.NewData(extensions.NewUUIDType(), n, buffers(bitmap, c.values), nil, nulls, 0)
	c.values = fresh(c.values)
	return data
}
