package cli

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/extensions"
)

// appendJSON appends value i of a column as JSON: numbers exact, DECIMAL with all
// of its digits, times as RFC 3339, BLOB as base64, STRUCT in the order of its
// members, MAP with texts for keys as an object and any other one as a list of
// {"key", "value"}.
func appendJSON(b []byte, c arrow.Array, i int) []byte {
	if c.IsNull(i) {
		return append(b, "null"...)
	}
	switch c := c.(type) {
	case *array.Boolean:
		return strconv.AppendBool(b, c.Value(i))
	case *extensions.Bool8Array:
		return strconv.AppendBool(b, c.Value(i))
	case *array.Float32:
		return appendFloat(b, float64(c.Value(i)), 32)
	case *array.Float64:
		return appendFloat(b, c.Value(i), 64)
	case *array.Decimal128:
		return append(b, c.Value(i).ToString(c.DataType().(*arrow.Decimal128Type).Scale)...)
	case *array.Decimal256:
		return append(b, c.Value(i).ToString(c.DataType().(*arrow.Decimal256Type).Scale)...)
	case *array.Dictionary:
		return appendJSON(b, c.Dictionary(), c.GetValueIndex(i))
	case *array.Struct:
		return appendStruct(b, c, i)
	case *array.Map:
		return appendMap(b, c, i)
	case array.ListLike:
		from, to := c.ValueOffsets(i)
		b = append(b, '[')
		for k := from; k < to; k++ {
			if k > from {
				b = append(b, ',')
			}
			b = appendJSON(b, c.ListValues(), int(k))
		}
		return append(b, ']')
	}
	if arrow.IsInteger(c.DataType().ID()) {
		return append(b, c.ValueStr(i)...)
	}
	return appendText(b, plainText(c, i))
}

func appendFloat(b []byte, v float64, bits int) []byte {
	if math.IsNaN(v) || math.IsInf(v, 0) {
		return append(b, `"`+floatText(v, bits)+`"`...) // JSON has no number for them
	}
	return append(b, floatText(v, bits)...)
}

func floatText(v float64, bits int) string {
	switch {
	case math.IsNaN(v):
		return "NaN"
	case math.IsInf(v, 1):
		return "Infinity"
	case math.IsInf(v, -1):
		return "-Infinity"
	case v != 0 && (math.Abs(v) < 1e-6 || math.Abs(v) >= 1e21):
		return strconv.FormatFloat(v, 'e', -1, bits)
	}
	return strconv.FormatFloat(v, 'f', -1, bits)
}

func appendText(b []byte, s string) []byte {
	var buf bytes.Buffer
	e := json.NewEncoder(&buf)
	e.SetEscapeHTML(false)
	if e.Encode(s) != nil {
		return append(b, `""`...)
	}
	return append(b, bytes.TrimRight(buf.Bytes(), "\n")...)
}

func appendStruct(b []byte, c *array.Struct, i int) []byte {
	b = append(b, '{')
	for k, f := range c.DataType().(*arrow.StructType).Fields() {
		if k > 0 {
			b = append(b, ',')
		}
		b = append(appendText(b, f.Name), ':')
		b = appendJSON(b, c.Field(k), i)
	}
	return append(b, '}')
}

func appendMap(b []byte, c *array.Map, i int) []byte {
	from, to := c.ValueOffsets(i)
	_, texts := c.Keys().(*array.String)
	open, shut := byte('['), byte(']')
	if texts {
		open, shut = '{', '}'
	}
	b = append(b, open)
	for k := int(from); k < int(to); k++ {
		if k > int(from) {
			b = append(b, ',')
		}
		if texts {
			b = append(appendJSON(b, c.Keys(), k), ':')
			b = appendJSON(b, c.Items(), k)
			continue
		}
		b = append(appendJSON(append(b, `{"key":`...), c.Keys(), k), `,"value":`...)
		b = append(appendJSON(b, c.Items(), k), '}')
	}
	return append(b, shut)
}

// plainText is value i of a column as text, without quotes: for CSV, and for
// what JSON writes as a string.
func plainText(c arrow.Array, i int) string {
	if c.IsNull(i) {
		return ""
	}
	switch c := c.(type) {
	case *array.String:
		return c.Value(i)
	case *array.Boolean:
		return strconv.FormatBool(c.Value(i))
	case *extensions.Bool8Array:
		return strconv.FormatBool(c.Value(i))
	case *array.Binary:
		return base64.StdEncoding.EncodeToString(c.Value(i))
	case *array.FixedSizeBinary:
		return base64.StdEncoding.EncodeToString(c.Value(i))
	case *array.Float32:
		return floatText(float64(c.Value(i)), 32)
	case *array.Float64:
		return floatText(c.Value(i), 64)
	case *array.Decimal128:
		return c.Value(i).ToString(c.DataType().(*arrow.Decimal128Type).Scale)
	case *array.Decimal256:
		return c.Value(i).ToString(c.DataType().(*arrow.Decimal256Type).Scale)
	case *array.Dictionary:
		return plainText(c.Dictionary(), c.GetValueIndex(i))
	case *array.Timestamp:
		t := c.DataType().(*arrow.TimestampType)
		at := c.Value(i).ToTime(t.Unit).UTC()
		if t.TimeZone == "" {
			return at.Format("2006-01-02T15:04:05.999999999")
		}
		return at.Format("2006-01-02T15:04:05.999999999Z07:00")
	case *array.Date32:
		return c.Value(i).ToTime().Format("2006-01-02")
	case *array.Time64:
		return c.Value(i).ToTime(c.DataType().(*arrow.Time64Type).Unit).Format("15:04:05.999999999")
	case *array.MonthDayNanoInterval:
		return intervalText(c.Value(i))
	case *array.Struct, *array.Map, array.ListLike:
		return string(appendJSON(nil, c, i))
	}
	return c.ValueStr(i)
}

func intervalText(v arrow.MonthDayNanoInterval) string {
	var parts []string
	for _, p := range []struct {
		n    int64
		unit string
	}{{int64(v.Months), "months"}, {int64(v.Days), "days"}} {
		if p.n != 0 {
			parts = append(parts, fmt.Sprintf("%d %s", p.n, p.unit))
		}
	}
	if v.Nanoseconds != 0 || len(parts) == 0 {
		parts = append(parts, strconv.FormatFloat(float64(v.Nanoseconds)/1e9, 'f', -1, 64)+" seconds")
	}
	return strings.Join(parts, " ")
}

// cell is value i of a column for a table that people read: NULL is said, bytes
// are shown where they are letters, and nothing in it can move the cursor. It is
// a copy: the value itself may lie in DuckDB's memory.
func cell(c arrow.Array, i int) string {
	if c.IsNull(i) {
		return "NULL"
	}
	if bytes, ok := c.(*array.Binary); ok {
		return visible(string(bytes.Value(i)))
	}
	return strings.Clone(visible(plainText(c, i)))
}

// visible escapes what a terminal would not print as it is.
func visible(s string) string {
	clean := true
	for _, r := range s {
		if r == utf8.RuneError || !unicode.IsPrint(r) {
			clean = false
			break
		}
	}
	if clean {
		return s
	}
	var b strings.Builder
	for len(s) > 0 {
		r, n := utf8.DecodeRuneInString(s)
		switch {
		case r == utf8.RuneError && n == 1:
			fmt.Fprintf(&b, `\x%02x`, s[0])
		case r == '\n':
			b.WriteString(`\n`)
		case r == '\t':
			b.WriteString(`\t`)
		case r == '\r':
			b.WriteString(`\r`)
		case !unicode.IsPrint(r):
			fmt.Fprintf(&b, `\u%04x`, r)
		default:
			b.WriteRune(r)
		}
		s = s[n:]
	}
	return b.String()
}
