package decode

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"strconv"
	"strings"
	"testing"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
)

func decoder(t testing.TB, ddl string, o Options) Decoder {
	t.Helper()
	fields, err := ParseColumns(ddl)
	if err != nil {
		t.Fatal(err)
	}
	d, err := New("json", fields, o)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// taken renders the columns, one row a line.
func taken(d Decoder) string {
	n := d.Rows()
	arrays := d.Take()
	out := &strings.Builder{}
	for i := range n {
		for j, a := range arrays {
			if j > 0 {
				out.WriteString(" | ")
			}
			v, _ := json.Marshal(a.GetOneForMarshal(i))
			if a.IsValid(i) && string(v) == "null" {
				v = []byte(`""`) // Arrow shows a BLOB without bytes as nil
			}
			out.Write(v)
		}
		out.WriteByte('\n')
	}
	for _, a := range arrays {
		a.Release()
	}
	return out.String()
}

func TestJSONValues(t *testing.T) {
	for _, c := range []struct {
		column, form, value, want string // want begins with ! for an error
	}{
		{"BIGINT", "", `9223372036854775807`, `9223372036854775807`},
		{"BIGINT", "", `-9223372036854775808`, `-9223372036854775808`},
		{"BIGINT", "", `9223372036854775808`, `!field "v": 9223372036854775808 is out of range for int64, at byte 5`},
		{"UBIGINT", "", `18446744073709551615`, `18446744073709551615`},
		{"UTINYINT", "", `256`, `!field "v": 256 is out of range`},
		{"UTINYINT", "", `-1`, `!out of range`},
		{"TINYINT", "", `-128`, `-128`},
		{"INTEGER", "", `1.0`, `1`},
		{"INTEGER", "", `12e2`, `1200`},
		{"INTEGER", "", `1.5`, `!1.5 is not an integer`},
		{"INTEGER", "", `1e999999999`, `!out of range`},
		{"INTEGER", "", `"1"`, `!expected a number, found '"'`},
		{"INTEGER", "", `01`, `!must not begin with 0`},
		{"INTEGER", "", `+1`, `!expected a number`},
		{"INTEGER", "", `1.`, `!expected a digit`},
		{"INTEGER", "", `true`, `!expected a number`},
		{"DOUBLE", "", `1e308`, `1e+308`},
		{"DOUBLE", "", `1e309`, `!out of range`},
		{"DOUBLE", "", `0.1`, `0.1`},
		{"DOUBLE", "", `NaN`, `!expected a number`},
		{"FLOAT", "", `3.5e38`, `!out of range`},
		{"FLOAT", "", `0.5`, `0.5`},
		{"DECIMAL(10,2)", "", `12.30`, `"12.3"`},
		{"DECIMAL(10,2)", "", `"12.34"`, `"12.34"`},
		{"DECIMAL(10,2)", "", `12.345`, `!more than 2 digits behind the point`},
		{"DECIMAL(4,2)", "", `100`, `!out of range`},
		{"DECIMAL(9,2)", "", `0e999999999999999999999`, `"0"`},
		{"DECIMAL(9,2)", "", `-0`, `"0"`},
		{"DECIMAL(9,2)", "", `1e-999999999999999999999`, `!more than 2 digits behind the point`},
		{"DECIMAL(9,2)", "", `1e-5000`, `!more than 2 digits behind the point`},
		{"DECIMAL(9,2)", "", `1e999999999999999999999`, `!out of range`},
		{"DECIMAL(9,2)", "", `0.` + strings.Repeat("0", 90) + `1e91`, `"1"`},
		{"DECIMAL(9,2)", "", `1` + strings.Repeat("0", 90) + `e-90`, `"1"`},
		{"DECIMAL(9,2)", "", `1.` + strings.Repeat("3", 90), `!more than 2 digits behind the point`},
		{"DECIMAL(9,2)", "", `"1.5x"`, `!is not a number`},
		{"DECIMAL(9,2)", "", `""`, `!is not a number`},
		{"BIGINT", "", `0e400`, `0`},
		{"BIGINT", "", `-0`, `0`},
		{"BIGINT", "", `1e-400`, `!not an integer`},
		{"DOUBLE", "", `-0.0`, `-0`},
		{"DOUBLE", "", `1e400`, `!1e400 is out of range, at byte 5`},
		{"DOUBLE", "", `1e-400`, `0`},
		{"DOUBLE", "", `-Infinity`, `!expected a digit`},
		{"DECIMAL(38,0)", "", `99999999999999999999999999999999999999`, `"99999999999999999999999999999999999999"`},
		{"BOOLEAN", "", `true`, `true`},
		{"BOOLEAN", "", `1`, `!expected true or false`},
		{"VARCHAR", "", `"a\u00e9\ud83d\ude00\n"`, `"aé😀\n"`},
		{"VARCHAR", "", `"\ud83d"`, `!half of a surrogate pair`},
		{"VARCHAR", "", `"\x"`, `!unknown escape`},
		{"VARCHAR", "", "\"\xff\"", `!not valid UTF-8`},
		{"VARCHAR", "", "\"abcdefgh\xc3(\"", `!not valid UTF-8`},
		{"VARCHAR", "", "\"a\x01\"", `!control character`},
		{"VARCHAR", "", `1`, `!expected a text`},
		{"VARCHAR", "", `null`, `null`},
		{"VARCHAR NOT NULL", "", `null`, `!field "v" is null`},
		{"BLOB", "", `"aGk="`, `"aGk="`},
		{"BLOB", "", `"a"`, `!not base64`},
		{"DATE", "", `"2026-02-28"`, `"2026-02-28"`},
		{"DATE", "", `"2026-02-29"`, `!not a date`},
		{"DATE", "", `"1969-12-31"`, `"1969-12-31"`},
		{"TIME", "", `"23:59:59.999999"`, `"23:59:59.999999"`},
		{"TIME", "", `"24:00:00"`, `!not a time`},
		{"TIMESTAMPTZ", "", `"2026-01-02T03:04:05.678+02:00"`, `"2026-01-02T01:04:05.678Z"`},
		{"TIMESTAMPTZ", "", `"2026-01-02T03:04:05"`, `!has no zone`},
		{"TIMESTAMP", "", `"1969-12-31T23:59:59.5"`, `"1969-12-31T23:59:59.5"`},
		{"TIMESTAMP", "", `"2026-01-02T03:04:05Z"`, `!has a zone`},
		{"TIMESTAMPTZ", "", `1700000000`, `!expected a timestamp as text`},
		{"TIMESTAMPTZ", "s", `1700000000`, `"2023-11-14T22:13:20Z"`},
		{"TIMESTAMPTZ", "ns", `-1`, `"1969-12-31T23:59:59.999999Z"`},
		{"TIMESTAMPTZ", "ns", `1767323045678901234`, `"2026-01-02T03:04:05.678901Z"`},
		{"TIMESTAMP_NS", "ns", `1767323045678901234`, `"2026-01-02T03:04:05.678901234"`},
		{"TIMESTAMP_NS", "ns", `9223372036854775808`, `!out of range for a timestamp, at byte 5`},
		{"TIMESTAMPTZ", "s", `1.7e9`, `"2023-11-14T22:13:20Z"`},
		{"TIMESTAMPTZ", "s", `1.5`, `!not an integer timestamp`},
		{"TIMESTAMPTZ", "s", `1e400`, `!out of range`},
		{"TIMESTAMPTZ", "s", `99999999999999`, `!out of range`},
		{"TIMESTAMPTZ", "ms", `"x"`, `!expected a number`},
		{"UUID", "", `"01234567-89ab-cdef-0123-456789abcdef"`, `"01234567-89ab-cdef-0123-456789abcdef"`},
		{"UUID", "", `"0123456789abcdef0123456789abcdef"`, `!not a UUID`},
		{"VARCHAR[]", "", `["a",null]`, `["a",null]`},
		{"STRUCT(a INTEGER, b VARCHAR[])", "", `{"b":["x"],"a":1,"z":{}}`, `{"a":1,"b":["x"]}`},
		{"MAP(VARCHAR, INTEGER)", "", `{"k":1,"l":null}`, `[{"key":"k","value":1},{"key":"l","value":null}]`},
		{"MAP(VARCHAR, INTEGER)", "", `{"k":1,"k":2}`, `!is there twice`},
	} {
		d := decoder(t, "v "+c.column, Options{Timestamps: c.form})
		err := d.Append(Record{Value: []byte(`{"v":` + c.value + `}`)})
		if want, bad := strings.CutPrefix(c.want, "!"); bad {
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%s %s: error %v, want %q", c.column, c.value, err, want)
			}
			if d.Rows() != 0 {
				t.Errorf("%s %s: a bad record left a row", c.column, c.value)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s %s: %v", c.column, c.value, err)
			continue
		}
		if got := strings.TrimSpace(taken(d)); got != c.want {
			t.Errorf("%s %s: got %s, want %s", c.column, c.value, got, c.want)
		}
	}
}

func TestJSONObjects(t *testing.T) {
	for _, c := range []struct {
		unknown     Unknown
		value, want string
	}{
		{"", `{}`, "null | null\n"},
		{"", ` { "b" : "x" , "a" : 1 } `, "1 | \"x\"\n"},
		{"", `{"A":1,"a":2}`, "2 | null\n"},
		{"", `{"a":1,"a":1}`, `!field "a" is there twice, at byte 7`},
		{"", `{"a":1}x`, `!expected the end`},
		{"", `{"a":1`, `!the JSON ends where a comma`},
		{"", `{"a":1,}`, `!expected a key`},
		{"", `{"a" 1}`, `!expected a colon`},
		{"", `[1]`, `!expected an object`},
		{"", `null`, `!expected an object`},
		{"", ``, `!the JSON ends`},
		{"", `{"z":{"y":[1,{"x":null}]},"a":3}`, "3 | null\n"},
		{"", `{"z":{"y":[1,{"x":nul}]},"a":3}`, `!expected a value`},
		{"", `{"z":` + strings.Repeat("[", 100) + strings.Repeat("]", 100) + `}`, `!nested more than 64 deep`},
		{Reject, `{"a":1,"z":2}`, `!unknown field "z"`},
		{Column, `{"z":{"y": [1]},"a":1,"w":"\u0041"}`, `1 | null | "{\"z\":{\"y\": [1]},\"w\":\"\\u0041\"}"` + "\n"},
		{Column, `{"a":1}`, "1 | null | null\n"},
		{Column, `{"z":1,"a":1,"z":2}`, `!field "z" is there twice`},
		{Column, `{"z":1,"z":2}`, `!field "z" is there twice`},
		{Column, `{"\u0022<\u0000":1}`, `null | null | "{\"\\\"\\u003c\\u0000\":1}"` + "\n"},
		{"", "\xef\xbb\xbf{}", "!expected an object, found '\\ufeff', at byte 0"},
		{"", "{\"a\":1}\x00", "!expected the end, found '\\x00', at byte 7"},
		{"", "{\"a\":\x00}", "!expected a number"},
	} {
		d := decoder(t, "a INTEGER, b VARCHAR", Options{Unknown: c.unknown})
		err := d.Append(Record{Value: []byte(c.value)})
		if want, bad := strings.CutPrefix(c.want, "!"); bad {
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%s: error %v, want %q", c.value, err, want)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", c.value, err)
		} else if got := taken(d); got != c.want {
			t.Errorf("%s: got %q, want %q", c.value, got, c.want)
		}
	}
}

const nestedDDL = "a BIGINT, s VARCHAR, l STRUCT(x INTEGER, y VARCHAR[])[], m MAP(VARCHAR, DECIMAL(9,2)), b BLOB, u UUID, t TIMESTAMPTZ, o BOOLEAN"

// TestBadRecordLeavesNothing: good and bad records in random order give exactly
// what the good ones give alone.
func TestBadRecordLeavesNothing(t *testing.T) {
	good := func(r *rand.Rand) string {
		return fmt.Sprintf(`{"l":[{"x":%d,"y":["p","q"]},{"y":null},null],"a":%d,"m":{"k%d":1.25,"n":null},"s":"é%d\t","b":"aGk=","u":"01234567-89ab-cdef-0123-456789abcdef","t":"2026-01-02T03:04:05Z","o":true}`,
			r.IntN(100), r.Int64(), r.IntN(9), r.IntN(100))
	}
	seed := rand.Uint64()
	r := rand.New(rand.NewPCG(seed, 1))
	mixed, alone := decoder(t, nestedDDL, Options{}), decoder(t, nestedDDL, Options{})
	for range 2000 {
		g := []byte(good(r))
		if r.IntN(2) == 0 {
			bad := bytes.Clone(g[:1+r.IntN(len(g)-1)]) // cut off anywhere
			if err := mixed.Append(Record{Value: bad}); err == nil {
				t.Fatalf("seed %d: %s was taken", seed, bad)
			}
		}
		if err := errors.Join(mixed.Append(Record{Value: g}), alone.Append(Record{Value: g})); err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
	}
	if taken(mixed) != taken(alone) {
		t.Fatalf("seed %d: bad records left something behind", seed)
	}
}

// TestTombstonesAreRows: a null value is a row of NULLs, but not where a column
// may not be NULL.
func TestTombstonesAreRows(t *testing.T) {
	d := decoder(t, "a INTEGER, b VARCHAR[]", Options{})
	if err := d.Append(Record{}); err != nil {
		t.Fatal(err)
	}
	if got := taken(d); got != "null | null\n" {
		t.Errorf("got %q", got)
	}
	d = decoder(t, "a INTEGER, b VARCHAR NOT NULL", Options{})
	var bad *Error
	if err := d.Append(Record{}); !errors.As(err, &bad) || d.Rows() != 0 {
		t.Errorf("a NULL in a column that is NOT NULL: %v, %d rows", err, d.Rows())
	}
}

// TestMetadata: what a record may lack, or hold though it should not.
func TestMetadata(t *testing.T) {
	m := NewMetadata()
	m.Append("t", 3, 9, 1700000000123, []byte("k"), []Header{{Key: []byte("h"), Value: []byte("v")}, {Key: []byte("h"), Value: nil}})
	m.Append("t", 3, 10, -1, nil, nil)
	m.Append("t", 3, 11, 1<<62, []byte{}, []Header{{Key: []byte("\xff"), Value: []byte{}}})
	columns := m.Take()
	want := []string{
		`"t" 3 9 "2023-11-14T22:13:20.123Z" "aw==" [{"key":"h","value":"dg=="},{"key":"h","value":null}]`,
		`"t" 3 10 null null []`,
		`"t" 3 11 null "" [{"key":"�","value":""}]`,
	}
	for i := range want {
		var got []string
		for _, c := range columns {
			v, err := json.Marshal(c.GetOneForMarshal(i))
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, string(v))
		}
		if row := strings.Join(got, " "); row != want[i] {
			t.Errorf("got %s, want %s", row, want[i])
		}
	}
}

func TestColumns(t *testing.T) {
	for _, c := range []struct{ ddl, want string }{
		{"a BIGINT, b VARCHAR(20)[] NOT NULL,\n -- a comment\n \"C d\" STRUCT(x DOUBLE PRECISION, y TIMESTAMP WITH TIME ZONE), m MAP(VARCHAR, NUMERIC(9, 2)),", ""},
		{"a BIGNIT", `line 1 column 3: unknown type "BIGNIT"; did you mean BIGINT?`},
		{"a BIGINT,\n a INT", `line 2 column 2: column "a" is there twice`},
		{"a HUGEINT", "write DECIMAL(38,0)"},
		{"a BIGINT b INT", "expected a comma"},
		{"a STRUCT(x INT", "expected a comma or the end"},
		{"", "expected the name of a column"},
		{"a DECIMAL(39,2)", "expected a number up to 38"},
		{"\"a BIGINT", "does not end"},
	} {
		fields, err := ParseColumns(c.ddl)
		switch {
		case c.want == "" && err != nil:
			t.Errorf("%s: %v", c.ddl, err)
		case c.want == "" && fields[3].Type.ID() != arrow.MAP:
			t.Errorf("%s: %v", c.ddl, fields)
		case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
			t.Errorf("%s: error %v, want %q", c.ddl, err, c.want)
		}
	}
}

// BenchmarkJSON reports MB/s of payload: a flat object, and one with everything
// nested.
func BenchmarkJSON(b *testing.B) {
	for _, c := range []struct{ name, columns, value string }{
		{
			"flat", "user_id BIGINT, event VARCHAR, event_time TIMESTAMPTZ, page VARCHAR, session VARCHAR, duration_ms INTEGER, price DOUBLE, referrer VARCHAR",
			`{"user_id":123456,"event":"click","event_time":"2026-01-01T00:00:00.000Z","page":"/products/4711/details","session":"0123456789abcdef","duration_ms":12345,"price":123.45,"referrer":"https://www.example.com/search?q=ice"}`,
		},
		{
			"nested", "id BIGINT, state VARCHAR, address STRUCT(street VARCHAR, city VARCHAR, state VARCHAR, country VARCHAR), items STRUCT(sku VARCHAR, count INTEGER, price DOUBLE)[], labels MAP(VARCHAR, VARCHAR), codes INTEGER[], card VARCHAR, at TIMESTAMPTZ, gift BOOLEAN",
			`{"id":918273645,"state":"PAID","address":{"street":"12 Long Lane","city":"Springfield","country":"US"},"items":[{"sku":"AB-12345","count":2,"price":9.99},{"sku":"CD-67890","count":1,"price":149.5},{"sku":"EF-11111","count":12,"price":0.25}],` +
				`"labels":{"channel":"web","campaign":"winter"},"codes":[1,-20,300,-4000],"card":"4111111111111111","at":"2026-01-01T00:00:00.123456Z","gift":false}`,
		},
	} {
		b.Run(c.name, func(b *testing.B) { decodes(b, decoder(b, c.columns, Options{}), Record{Value: []byte(c.value)}) })
	}
}

// TestKeysWithEscapes: a key is compared as what it says, not as it is written.
func TestKeysWithEscapes(t *testing.T) {
	for _, c := range []struct{ ddl, value, want string }{
		{`"a\b" INTEGER`, `{"a\b":1}`, "null\n"}, // a backspace
		{`"a\b" INTEGER`, `{"a\\b":1}`, "1\n"},
		{`"a""b" INTEGER`, `{"a"b":1}`, "!expected a colon"},
		{`"a""b" INTEGER`, `{"a\"b":1}`, "1\n"},
		{`"é" INTEGER`, `{"\u00e9" :1}`, "1\n"},
		{`"é" INTEGER`, `{"é":1}`, "1\n"},
	} {
		d := decoder(t, c.ddl, Options{})
		err := d.Append(Record{Value: []byte(c.value)})
		if want, bad := strings.CutPrefix(c.want, "!"); bad {
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%s: error %v, want %q", c.value, err, want)
			}
		} else if got := taken(d); err != nil || got != c.want {
			t.Errorf("%s: got %q, %v, want %q", c.value, got, err, c.want)
		}
	}
}

// TestFloatsAreNearest: every way to read a number gives the nearest float.
func TestFloatsAreNearest(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	d := decoder(t, "x DOUBLE, y REAL", Options{})
	for range 20000 {
		text := strconv.FormatUint(rnd.Uint64N(1<<rnd.IntN(64)+1), 10)
		if rnd.IntN(4) > 0 {
			digits := strconv.FormatUint(rnd.Uint64N(1<<rnd.IntN(64)+1), 10)
			text += "." + strings.Repeat("0", rnd.IntN(20)) + digits
		}
		if rnd.IntN(4) == 0 {
			text += "e" + strconv.Itoa(rnd.IntN(40)-20)
		}
		if rnd.IntN(2) == 0 {
			text = "-" + text
		}
		if err := d.Append(Record{Value: []byte(`{"x":` + text + `,"y":` + text + `}`)}); err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		x, _ := strconv.ParseFloat(text, 64)
		y, _ := strconv.ParseFloat(text, 32)
		got := d.Take()
		if v := got[0].(*array.Float64).Value(0); math.Float64bits(v) != math.Float64bits(x) {
			t.Fatalf("%s as DOUBLE: %v, want %v", text, v, x)
		}
		if v := got[1].(*array.Float32).Value(0); math.Float32bits(v) != math.Float32bits(float32(y)) {
			t.Fatalf("%s as REAL: %v, want %v", text, v, float32(y))
		}
	}
}
