package dimension

import (
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"math/big"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/decimal128"
	"github.com/apache/arrow-go/v18/arrow/extensions"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/google/uuid"

	"github.com/frazil-io/frazil/internal/batch"
)

// appender appends the value that a text stands for, exactly: a text that does
// not fit the type is an error, never rounded or cut.
type appender func(text string) error

// errNoValue is a text that is no value of the type.
var errNoValue = errors.New("no value")

// appenderOf returns how texts are appended to a builder. Bytes are in base64,
// or in hexadecimal behind \x; lists are those of PostgreSQL.
func appenderOf(builder array.Builder, t arrow.DataType) (appender, error) {
	switch b := builder.(type) {
	case *array.BooleanBuilder:
		return func(s string) error { return add(b.Append, s, parseBool) }, nil
	case *array.Int8Builder:
		return func(s string) error { return add(b.Append, s, signed[int8](8)) }, nil
	case *array.Int16Builder:
		return func(s string) error { return add(b.Append, s, signed[int16](16)) }, nil
	case *array.Int32Builder:
		return func(s string) error { return add(b.Append, s, signed[int32](32)) }, nil
	case *array.Int64Builder:
		return func(s string) error { return add(b.Append, s, signed[int64](64)) }, nil
	case *array.Uint8Builder:
		return func(s string) error { return add(b.Append, s, unsigned[uint8](8)) }, nil
	case *array.Uint16Builder:
		return func(s string) error { return add(b.Append, s, unsigned[uint16](16)) }, nil
	case *array.Uint32Builder:
		return func(s string) error { return add(b.Append, s, unsigned[uint32](32)) }, nil
	case *array.Uint64Builder:
		return func(s string) error { return add(b.Append, s, unsigned[uint64](64)) }, nil
	case *array.Float32Builder:
		return func(s string) error {
			return add(b.Append, s, func(s string) (float32, error) { f, err := strconv.ParseFloat(s, 32); return float32(f), err })
		}, nil
	case *array.Float64Builder:
		return func(s string) error {
			return add(b.Append, s, func(s string) (float64, error) { return strconv.ParseFloat(s, 64) })
		}, nil
	case *array.Decimal128Builder:
		return func(s string) error { return add(b.Append, s, decimals(t.(*arrow.Decimal128Type))) }, nil
	case *array.StringBuilder:
		return func(s string) error { return add(b.Append, s, parseText) }, nil
	case *array.BinaryBuilder:
		return func(s string) error { return add(b.Append, s, parseBytes) }, nil
	case *array.Date32Builder:
		return func(s string) error { return add(b.Append, s, parseDate) }, nil
	case *array.Time64Builder:
		return func(s string) error { return add(b.Append, s, parseTime) }, nil
	case *array.TimestampBuilder:
		return func(s string) error { return add(b.Append, s, timestamps(t.(*arrow.TimestampType))) }, nil
	case *extensions.UUIDBuilder:
		return func(s string) error { return add(b.Append, s, parseUUID) }, nil
	case *array.ListBuilder:
		element, err := appenderOf(b.ValueBuilder(), t.(*arrow.ListType).Elem())
		return func(s string) error { return appendList(b, element, s) }, err
	}
	return nil, fmt.Errorf("%w: type %s", errNoValue, t)
}

func add[T any](to func(T), text string, parse func(string) (T, error)) error {
	v, err := parse(text)
	if err == nil {
		to(v)
	}
	return err
}

func parseBool(s string) (bool, error) {
	switch strings.ToLower(s) {
	case "true", "t":
		return true, nil
	case "false", "f":
		return false, nil
	}
	return false, errNoValue
}

func signed[T int8 | int16 | int32 | int64](bits int) func(string) (T, error) {
	return func(s string) (T, error) { n, err := strconv.ParseInt(s, 10, bits); return T(n), err }
}

func unsigned[T uint8 | uint16 | uint32 | uint64](bits int) func(string) (T, error) {
	return func(s string) (T, error) { n, err := strconv.ParseUint(s, 10, bits); return T(n), err }
}

// decimals reads a number with at most the type's digits behind the point.
func decimals(t *arrow.Decimal128Type) func(string) (decimal128.Num, error) {
	return func(s string) (decimal128.Num, error) {
		whole, fraction, _ := strings.Cut(strings.TrimPrefix(strings.TrimPrefix(s, "-"), "+"), ".")
		digits := whole + fraction
		for i := range len(digits) {
			if digits[i] < '0' || digits[i] > '9' {
				return decimal128.Num{}, errNoValue
			}
		}
		if digits == "" {
			return decimal128.Num{}, errNoValue
		}
		for len(fraction) > int(t.Scale) && strings.HasSuffix(fraction, "0") {
			fraction = fraction[:len(fraction)-1]
		}
		if len(fraction) > int(t.Scale) {
			return decimal128.Num{}, errNoValue
		}
		n, _ := new(big.Int).SetString(whole+fraction+strings.Repeat("0", int(t.Scale)-len(fraction)), 10)
		if n == nil || len(n.String()) > int(t.Precision) {
			return decimal128.Num{}, errNoValue
		}
		if strings.HasPrefix(s, "-") {
			n.Neg(n)
		}
		return decimal128.FromBigInt(n), nil
	}
}

func parseText(s string) (string, error) {
	if !utf8.ValidString(s) {
		return "", errNoValue
	}
	return s, nil
}

func parseBytes(s string) ([]byte, error) {
	if digits, ok := strings.CutPrefix(s, `\x`); ok {
		return hex.DecodeString(digits)
	}
	return base64.StdEncoding.DecodeString(s)
}

func parseDate(s string) (arrow.Date32, error) {
	at, err := time.Parse(time.DateOnly, s)
	return arrow.Date32(at.Unix() / 86400), err // midnight: nothing is rounded
}

func parseTime(s string) (arrow.Time64, error) {
	for _, form := range []string{"15:04:05", "15:04"} {
		if at, err := time.Parse(form, s); err == nil {
			us := time.Duration(at.Hour())*time.Hour + time.Duration(at.Minute())*time.Minute + time.Duration(at.Second())*time.Second + time.Duration(at.Nanosecond())
			if us%time.Microsecond != 0 {
				return 0, errNoValue
			}
			return arrow.Time64(us.Microseconds()), nil
		}
	}
	return 0, errNoValue
}

// timestamps reads ISO 8601 with T or a space: with a zone where the type has
// one, and only there.
func timestamps(t *arrow.TimestampType) func(string) (arrow.Timestamp, error) {
	zones := []string{""}
	if t.TimeZone != "" {
		zones = []string{"Z07:00", "Z07", "Z0700"}
	}
	unit := int64(t.Unit.Multiplier())
	return func(s string) (arrow.Timestamp, error) {
		s = strings.Replace(s, "T", " ", 1)
		for _, clock := range []string{"15:04:05", "15:04"} {
			for _, zone := range zones {
				at, err := time.Parse("2006-01-02 "+clock+zone, s)
				if err != nil {
					continue
				}
				seconds, rest := at.Unix(), int64(at.Nanosecond())
				perSecond := int64(time.Second) / unit
				if rest%unit != 0 || seconds > math.MaxInt64/perSecond-1 || seconds < math.MinInt64/perSecond+1 {
					return 0, errNoValue
				}
				return arrow.Timestamp(seconds*perSecond + rest/unit), nil
			}
		}
		return 0, errNoValue
	}
}

func parseUUID(s string) (uuid.UUID, error) { return uuid.Parse(s) }

// appendList reads PostgreSQL's text of an array of one dimension: {a,"b c",NULL}.
func appendList(b *array.ListBuilder, element appender, s string) error {
	if !strings.HasPrefix(s, "{") || !strings.HasSuffix(s, "}") {
		return fmt.Errorf("%w: arrays must begin at 1", errNoValue) // [0:2]={…}
	}
	b.Append(true)
	rest := s[1 : len(s)-1]
	for rest != "" {
		value, quoted, after, err := listElement(rest)
		if err != nil {
			return err
		}
		if !quoted && strings.EqualFold(value, "NULL") {
			b.ValueBuilder().AppendNull()
		} else if err := element(value); err != nil {
			return err
		}
		rest = after
	}
	return nil
}

// listElement takes the first element off the inside of an array, and the comma
// behind it.
func listElement(s string) (value string, quoted bool, after string, err error) {
	if s[0] == '{' {
		return "", false, "", fmt.Errorf("%w: arrays of several dimensions have no place in a list", errNoValue)
	}
	if s[0] != '"' {
		value, after, _ = strings.Cut(s, ",")
		return value, false, after, nil
	}
	var out strings.Builder
	for i := 1; i < len(s); i++ {
		switch s[i] {
		case '\\':
			if i++; i < len(s) {
				out.WriteByte(s[i])
			}
		case '"':
			return out.String(), true, strings.TrimPrefix(s[i+1:], ","), nil
		default:
			out.WriteByte(s[i])
		}
	}
	return "", false, "", errNoValue
}

// TypeName is what SQL calls a type.
func TypeName(t arrow.DataType) string {
	switch t := t.(type) {
	case *arrow.ListType:
		return TypeName(t.Elem()) + "[]"
	case *arrow.MapType:
		return "MAP(" + TypeName(t.KeyType()) + ", " + TypeName(t.ItemType()) + ")"
	case *arrow.StructType:
		var parts []string
		for _, f := range t.Fields() {
			parts = append(parts, f.Name+" "+TypeName(f.Type))
		}
		return "STRUCT(" + strings.Join(parts, ", ") + ")"
	case *arrow.Decimal128Type:
		return fmt.Sprintf("DECIMAL(%d,%d)", t.Precision, t.Scale)
	case *arrow.TimestampType:
		if t.TimeZone != "" {
			return "TIMESTAMPTZ"
		}
		return map[arrow.TimeUnit]string{arrow.Second: "TIMESTAMP_S", arrow.Millisecond: "TIMESTAMP_MS", arrow.Microsecond: "TIMESTAMP", arrow.Nanosecond: "TIMESTAMP_NS"}[t.Unit]
	case *extensions.UUIDType:
		return "UUID"
	}
	if name := typeNames[t.ID()]; name != "" {
		return name
	}
	return t.String()
}

var typeNames = map[arrow.Type]string{
	arrow.BOOL: "BOOLEAN", arrow.INT8: "TINYINT", arrow.INT16: "SMALLINT", arrow.INT32: "INTEGER", arrow.INT64: "BIGINT",
	arrow.UINT8: "UTINYINT", arrow.UINT16: "USMALLINT", arrow.UINT32: "UINTEGER", arrow.UINT64: "UBIGINT",
	arrow.FLOAT32: "FLOAT", arrow.FLOAT64: "DOUBLE", arrow.STRING: "VARCHAR", arrow.BINARY: "BLOB", arrow.DATE32: "DATE", arrow.TIME64: "TIME",
}

// builder appends rows of texts.
type builder struct {
	*array.RecordBuilder
	fields   []arrow.Field
	appends  []appender
	bytes    int64
	bytesMax int64
}

func newBuilder(fields []arrow.Field, bytesMax int64) (*builder, error) {
	b := &builder{RecordBuilder: array.NewRecordBuilder(memory.DefaultAllocator, arrow.NewSchema(fields, nil)), fields: fields, bytesMax: bytesMax}
	for i, f := range fields {
		a, err := appenderOf(b.Field(i), f.Type)
		if err != nil {
			b.Release()
			return nil, fmt.Errorf("%w: %w: column %q: %s cannot be read here; declare it as VARCHAR", batch.ErrInvalid, errMistake, f.Name, TypeName(f.Type))
		}
		b.appends = append(b.appends, a)
	}
	return b, nil
}

func (b *builder) null(column int) {
	b.Field(column).AppendNull()
	b.bytes++
}

// text appends one value. Lists and texts are the only ones that are larger than
// overhead.
func (b *builder) text(column int, s string) error {
	const overhead = 16
	if b.bytes += int64(len(s)) + overhead; b.bytesMax > 0 && b.bytes > b.bytesMax {
		return tooLarge(b.bytes, b.bytesMax)
	}
	if err := b.appends[column](s); err != nil {
		why := ""
		if errors.Is(err, errNoValue) && err != errNoValue { //nolint:errorlint // the plain one says nothing
			why = ": " + strings.TrimPrefix(err.Error(), errNoValue.Error()+": ")
		}
		return fmt.Errorf("column %q: %.60q is not %s%s", b.fields[column].Name, s, TypeName(b.fields[column].Type), why)
	}
	return nil
}
