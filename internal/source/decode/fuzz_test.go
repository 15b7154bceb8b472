package decode

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/big"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/apache/arrow-go/v18/arrow/array"
)

const fuzzDDL = "a DOUBLE, i INTEGER, d DECIMAL(9,2), s VARCHAR, l BIGINT[], o MAP(VARCHAR, VARCHAR), t STRUCT(x BOOLEAN)"

// FuzzJSON holds the decoder against encoding/json, made strict: what one takes
// the other takes, with the same values, and what one refuses the other does.
func FuzzJSON(f *testing.F) {
	for _, s := range []string{
		`{"a":1,"s":"x"}`, `{"s":"\ud83d\ude00","l":[1,2]}`, `{"a":1e2}`, `{"x":[{}]}`, `{"s":"a\\\"b"} `, `{"o":{"k":"v"}}`,
		`{"i":2147483648}`, `{"i":1.0}`, `{"i":1e400}`, `{"a":1e400}`, `{"a":-0.0}`, `{"d":"1.25"}`, `{"d":1.255}`, `{"d":0e9999}`,
		`{"l":[1,null,9223372036854775807]}`, `{"l":[01]}`, `{"t":{"x":true,"x":false}}`, `{"t":null}`, `{"s":"\ud800"}`, `{"s":"\ud800\u0041"}`,
		"{\"s\":\"\xff\"}", "\xef\xbb\xbf{}", `{"A":1}`, `{"a":NaN}`, `{}x`, `{"z":"\udfff"}`, `{"z":[[[]]],"a":1,"z":2}`, "{\"s\":\"\x1f\"}", `{"o":{"k":null,"k":"v"}}`,
	} {
		f.Add([]byte(s))
	}
	m := newMeter()
	f.Fuzz(func(t *testing.T, value []byte) {
		d := decoder(t, fuzzDDL, Options{})
		var err error
		m.within(t, perByte*len(value), func() { err = d.Append(Record{Value: bytes.Clone(value)}) })
		want, wrong := oracle(value)
		if err != nil {
			var e *Error
			if !errors.As(err, &e) || e.Pos < 0 || e.Pos > len(value) || d.Rows() != 0 {
				t.Fatalf("%q: an error without a place, or a row left: %v, %d rows", value, err, d.Rows())
			}
		}
		if (err == nil) != (wrong == nil) {
			t.Fatalf("%q: the decoder says %v, encoding/json says %v", value, err, wrong)
		}
		if err == nil {
			if got := fuzzRow(t, d); got != want {
				t.Fatalf("%q: the decoder reads %s, encoding/json %s", value, got, want)
			}
		}
	})
}

// fuzzRow renders the row as oracle does.
func fuzzRow(t *testing.T, d Decoder) string {
	arrays := d.Take()
	var out []string
	for i, a := range arrays {
		if err := check(a); err != nil {
			t.Fatal(err)
		}
		v, err := json.Marshal(a.GetOneForMarshal(0))
		if err != nil {
			t.Fatal(err)
		}
		if i == 0 && !a.IsNull(0) {
			v = fmt.Appendf(nil, "%x", math.Float64bits(a.(*array.Float64).Value(0)))
		}
		out = append(out, string(v))
	}
	return strings.Join(out, " ")
}

// check looks at what Arrow's readers trust.
func check(a any) error {
	if s, ok := a.(*array.String); ok && !s.IsNull(0) && !utf8.ValidString(s.Value(0)) {
		return fmt.Errorf("a text that is not UTF-8: %q", s.Value(0))
	}
	return nil
}

// member is one of an object, in order: encoding/json alone forgets duplicates.
type member struct {
	key   string
	value any // nil, bool, json.Number, string, []any or []member
}

// oracle decodes by encoding/json and checks what that lets pass.
func oracle(value []byte) (row string, err error) {
	if !json.Valid(value) || !utf8.Valid(value) || halfSurrogates(value) {
		return "", errors.New("it is not JSON")
	}
	d := json.NewDecoder(bytes.NewReader(value))
	d.UseNumber()
	tree, err := parse(d, -1)
	if err != nil {
		return "", err
	}
	root, ok := tree.([]member)
	if !ok {
		return "", errors.New("it is no object")
	}
	known, err := unique(root, "a", "i", "d", "s", "l", "o", "t")
	if err != nil {
		return "", err
	}
	var out []string
	for _, c := range []struct {
		key  string
		read func(any) (string, error)
	}{
		{"a", readDouble}, {"i", integer(32)}, {"d", readDecimal}, {"s", readText}, {"l", list64}, {"o", readMap}, {"t", readStruct},
	} {
		text := "null"
		if v := known[c.key]; v != nil {
			if text, err = c.read(v); err != nil {
				return "", fmt.Errorf("%s: %w", c.key, err)
			}
		}
		out = append(out, text)
	}
	return strings.Join(out, " "), nil
}

// parse reads one value as a tree. The members of the record have depth 0.
func parse(d *json.Decoder, depth int) (any, error) {
	if depth > depthMax {
		return nil, errors.New("it is nested too deep")
	}
	token, err := d.Token()
	if err != nil {
		return nil, err
	}
	switch token {
	case json.Delim('{'):
		object := []member{}
		for d.More() {
			key, err := d.Token()
			if err != nil {
				return nil, err
			}
			v, err := parse(d, depth+1)
			if err != nil {
				return nil, err
			}
			object = append(object, member{key.(string), v})
		}
		_, err := d.Token()
		return object, err
	case json.Delim('['):
		array := []any{}
		for d.More() {
			v, err := parse(d, depth+1)
			if err != nil {
				return nil, err
			}
			array = append(array, v)
		}
		_, err := d.Token()
		return array, err
	}
	return token, nil
}

// unique returns the members with these keys, all where there are none.
func unique(object []member, keys ...string) (map[string]any, error) {
	found, seen := map[string]any{}, map[string]bool{}
	for _, m := range object {
		known := len(keys) == 0
		for _, k := range keys {
			known = known || k == m.key
		}
		if known && seen[m.key] {
			return nil, fmt.Errorf("%q is there twice", m.key)
		}
		if known {
			found[m.key], seen[m.key] = m.value, true
		}
	}
	return found, nil
}

// halfSurrogates says whether a valid JSON text has an escape that is half of a
// pair; encoding/json replaces it.
func halfSurrogates(value []byte) bool {
	high := false
	for i := 0; i < len(value); {
		unit := int64(0)
		n := 1
		if value[i] == '\\' {
			n = 2
			if value[i+1] == 'u' {
				n = 6
				unit, _ = strconv.ParseInt(string(value[i+2:i+6]), 16, 32)
			}
		}
		low := unit >= 0xdc00 && unit < 0xe000
		if high != low {
			return true
		}
		high = unit >= 0xd800 && unit < 0xdc00
		i += n
	}
	return high
}

func readDouble(v any) (string, error) {
	n, ok := v.(json.Number)
	if !ok {
		return "", errors.New("it is no number")
	}
	f, err := strconv.ParseFloat(string(n), 64)
	return fmt.Sprintf("%x", math.Float64bits(f)), err
}

// exact reads a number, times ten to the scale, which must be an integer of less
// than so many bits or digits.
func exact(v any, scale int) (*big.Int, error) {
	n, ok := v.(json.Number)
	if !ok {
		return nil, errors.New("it is no number")
	}
	text := string(n)
	mantissa, exponent, _ := strings.Cut(strings.ToLower(text), "e")
	if strings.Trim(mantissa, "-0.") == "" {
		return new(big.Int), nil
	}
	if e, err := strconv.Atoi(exponent); exponent != "" && (err != nil || e > 5000 || e < -5000) {
		if len(mantissa) > 4000 {
			return nil, errors.New("this oracle does not know")
		}
		return nil, errors.New("it is far too large or small")
	}
	r, ok := new(big.Rat).SetString(text)
	if !ok {
		return nil, errors.New("it is no number")
	}
	r.Mul(r, new(big.Rat).SetInt(new(big.Int).Exp(big.NewInt(10), big.NewInt(int64(scale)), nil)))
	if !r.IsInt() {
		return nil, errors.New("it has a fraction")
	}
	return r.Num(), nil
}

func integer(bits uint) func(any) (string, error) {
	return func(v any) (string, error) {
		i, err := exact(v, 0)
		if err != nil {
			return "", err
		}
		most := new(big.Int).Lsh(big.NewInt(1), bits-1)
		if i.Cmp(most) >= 0 || i.Cmp(new(big.Int).Neg(most)) < 0 {
			return "", errors.New("it is out of range")
		}
		return i.String(), nil
	}
}

func readDecimal(v any) (string, error) {
	if text, ok := v.(string); ok {
		if !json.Valid([]byte(text)) || strings.TrimSpace(text) != text {
			return "", errors.New("the text is no number")
		}
		if err := json.Unmarshal([]byte(text), new(float64)); err != nil {
			var range1 *json.UnmarshalTypeError
			if !errors.As(err, &range1) || !strings.HasPrefix(range1.Value, "number") {
				return "", err
			}
		}
		if text == "null" {
			return "", errors.New("the text is no number")
		}
		v = json.Number(text)
	}
	i, err := exact(v, 2)
	if err != nil {
		return "", err
	}
	if i.CmpAbs(big.NewInt(1_000_000_000)) >= 0 {
		return "", errors.New("it is out of range")
	}
	text := new(big.Rat).SetFrac(i, big.NewInt(100)).FloatString(2)
	text = strings.TrimSuffix(strings.TrimRight(text, "0"), ".")
	return strconv.Quote(text), nil
}

func readText(v any) (string, error) {
	text, ok := v.(string)
	if !ok {
		return "", errors.New("it is no text")
	}
	out, err := json.Marshal(text)
	return string(out), err
}

func list64(v any) (string, error) {
	elements, ok := v.([]any)
	if !ok {
		return "", errors.New("it is no list")
	}
	out := []string{}
	for _, e := range elements {
		text := "null"
		if e != nil {
			var err error
			if text, err = integer(64)(e); err != nil {
				return "", err
			}
		}
		out = append(out, text)
	}
	return "[" + strings.Join(out, ",") + "]", nil
}

func readMap(v any) (string, error) {
	object, ok := v.([]member)
	if !ok {
		return "", errors.New("it is no object")
	}
	if _, err := unique(object); err != nil {
		return "", err
	}
	out := []string{}
	for _, m := range object {
		text := "null"
		if m.value != nil {
			var err error
			if text, err = readText(m.value); err != nil {
				return "", err
			}
		}
		key, err := json.Marshal(m.key)
		if err != nil {
			return "", err
		}
		out = append(out, fmt.Sprintf(`{"key":%s,"value":%s}`, key, text))
	}
	return "[" + strings.Join(out, ",") + "]", nil
}

func readStruct(v any) (string, error) {
	object, ok := v.([]member)
	if !ok {
		return "", errors.New("it is no object")
	}
	known, err := unique(object, "x")
	if err != nil {
		return "", err
	}
	if b, ok := known["x"].(bool); ok {
		return fmt.Sprintf(`{"x":%t}`, b), nil
	}
	if known["x"] != nil {
		return "", errors.New("x is no boolean")
	}
	return `{"x":null}`, nil
}
