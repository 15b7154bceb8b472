package decode

import (
	"bytes"
	"encoding/csv"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/frazil-io/frazil/internal/batch"
)

func csvDecoderOf(t testing.TB, ddl string, o Options) Decoder {
	t.Helper()
	fields, err := ParseColumns(ddl)
	if err != nil {
		t.Fatal(err)
	}
	d, err := New("csv", fields, o)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestCSVValues(t *testing.T) {
	none, pipe := "", "|"
	for _, c := range []struct {
		ddl, value, want string // want begins with ! for an error, with its code
		o                Options
	}{
		{"a BIGINT, b VARCHAR", "1,x", `1 | "x"`, Options{}},
		{"a BIGINT, b VARCHAR", "1,x\n", `1 | "x"`, Options{}},
		{"a BIGINT, b VARCHAR", "1,x\r\n", `1 | "x"`, Options{}},
		{"a BIGINT, b VARCHAR", "-9223372036854775808,", `-9223372036854775808 | null`, Options{}},
		{"a BIGINT, b VARCHAR", `,""`, `null | ""`, Options{}},
		{"a BIGINT, b VARCHAR", " 7 , x ", `7 | " x "`, Options{}},
		{"a BIGINT, b VARCHAR", "\"7\",\"a,\"\"b\"\"\nc\"", `7 | "a,\"b\"\nc"`, Options{}},
		{"a VARCHAR, b VARCHAR", `"""","a"""`, `"\"" | "a\""`, Options{}},
		{"a VARCHAR", "", `null`, Options{}},
		{"a VARCHAR", `""`, `""`, Options{}},
		{"a VARCHAR, b VARCHAR", `\N,"\N"`, `null | "\\N"`, Options{CSV: CSV{Null: `\N`}}},
		{"a VARCHAR, b BIGINT", `,1`, `"" | 1`, Options{CSV: CSV{Null: `\N`}}},
		{"a BIGINT, b BIGINT", `,1`, `!decode field "a": expected a number, found nothing, at byte 0`, Options{CSV: CSV{Null: `\N`}}},
		{"a VARCHAR, b BIGINT", "x,y\t1", `"x,y" | 1`, Options{CSV: CSV{Delimiter: "\t"}}},
		{"a VARCHAR, b BIGINT", "\"x;|1", `"\"x;" | 1`, Options{CSV: CSV{Delimiter: "|", Quote: &none}}},
		{"a VARCHAR, b BIGINT", "|x,y|,1", `"x,y" | 1`, Options{CSV: CSV{Quote: &pipe}}},
		{"a BOOLEAN, b BOOLEAN", "TRUE,False", `true | false`, Options{}},
		{"a BOOLEAN", "1", `!decode expected true or false, found "1"`, Options{}},
		{"a DOUBLE, b FLOAT", "1e308,-0.5", `1e+308 | -0.5`, Options{}},
		{"a DOUBLE", "NaN", `!decode expected a number`, Options{}},
		{"a UTINYINT", "256", `!decode field "a": 256 is out of range for uint8, at byte 0`, Options{}},
		{"a VARCHAR, b TINYINT", "x,  1x", `!decode field "b": a number ends before "x", at byte 5`, Options{}},
		{"a INTEGER", "1 2", `!decode a number ends before " 2"`, Options{}},
		{"a INTEGER", `"1"`, `1`, Options{}},
		{"a INTEGER", `""`, `!decode expected a number, found nothing`, Options{}},
		{"a DECIMAL(10,2)", "12.30", `"12.3"`, Options{}},
		{"a DECIMAL(10,2)", "12.345", `!decode more than 2 digits behind the point`, Options{}},
		{"a DATE, b TIME, c TIMESTAMPTZ, d TIMESTAMP", "2026-02-28,23:59:59.5,2026-01-02T03:04:05+02:00,2026-01-02 03:04:05", `"2026-02-28" | "23:59:59.5" | "2026-01-02T01:04:05Z" | "2026-01-02T03:04:05"`, Options{}},
		{"a VARCHAR, c TIMESTAMPTZ", "x,2026-01-02T03:04:05", `!decode field "c": the text "2026-01-02T03:04:05" is not a timestamp: it has no zone; read it as TIMESTAMP, at byte 2`, Options{}},
		{"a TIMESTAMPTZ", "1700000000123", `"2023-11-14T22:13:20.123Z"`, Options{Timestamps: "ms"}},
		{"a UUID", "01234567-89ab-cdef-0123-456789abcdef", `"01234567-89ab-cdef-0123-456789abcdef"`, Options{}},
		{"a BLOB, b VARCHAR", "aGk=,x", `"aGk=" | "x"`, Options{}},
		{"a BLOB", "a", `!decode not base64`, Options{}},
		{"a VARCHAR, b VARCHAR", "x,\xff", `!decode field "b": the text is not valid UTF-8, at byte 2`, Options{}},
		{"a BIGINT, b VARCHAR", "1", `!schema there are 1 values, and 2 columns: "b" is missing, at byte 1`, Options{}},
		{"a BIGINT, b VARCHAR", "", `!schema there are 1 values, and 2 columns`, Options{}},
		{"a BIGINT, b VARCHAR", "1,x,", `!schema there are more values than the 2 columns, at byte 4`, Options{}},
		{"a BIGINT, b VARCHAR", "1,x\n2,y", `!decode the value has a second line`, Options{}},
		{"a BIGINT, b VARCHAR", "1,\"x\"\n2,y", `!decode expected the delimiter behind a value in quotes, found '\n', at byte 5`, Options{}},
		{"a VARCHAR", `x"y`, `!decode a quote inside of a value without quotes`, Options{}},
		{"a VARCHAR", `"x"y`, `!decode expected the delimiter behind a value in quotes, found 'y', at byte 3`, Options{}},
		{"a VARCHAR", `"x`, `!decode a value in quotes does not end, at byte 0`, Options{}},
		{"a BIGINT NOT NULL, b VARCHAR", ",x", `!decode field "a": it is NULL, at byte 0`, Options{}},
	} {
		d := csvDecoderOf(t, c.ddl, c.o)
		for range 2 { // also behind a record that was there, or was bad
			err := d.Append(Record{Value: []byte(c.value)})
			if want, bad := strings.CutPrefix(c.want, "!"); bad {
				code, reason, _ := strings.Cut(want, " ")
				var e *Error
				if !errors.As(err, &e) || string(e.Code) != code && (e.Code != "" || code != "decode") || !strings.Contains(e.Error(), reason) || d.Rows() != 0 {
					t.Errorf("%s %q: %v, want %q", c.ddl, c.value, err, c.want)
				}
				continue
			}
			if err != nil {
				t.Errorf("%s %q: %v", c.ddl, c.value, err)
			} else if got := taken(d); got != c.want+"\n" {
				t.Errorf("%s %q: got %s, want %s", c.ddl, c.value, got, c.want)
			}
		}
	}
}

// TestCSVOptions: what no line can be written with.
func TestCSVOptions(t *testing.T) {
	long := "''"
	for want, c := range map[string]struct {
		ddl string
		csv CSV
	}{
		`delimiter: "::" is not one ASCII character`: {"a BIGINT", CSV{Delimiter: "::"}},
		`delimiter: "§" is not one ASCII character`:  {"a BIGINT", CSV{Delimiter: "§"}},
		`quote: "''" is not one ASCII character`:     {"a BIGINT", CSV{Quote: &long}},
		`delimiter and quote are both "\""`:          {"a BIGINT", CSV{Delimiter: `"`}},
		`a list has no place in a line of CSV`:       {"a BIGINT[]", CSV{}},
		`a struct has no place in a line of CSV`:     {"a STRUCT(x BIGINT)", CSV{}},
		`format csv needs columns`:                   {"", CSV{}},
	} {
		fields, err := ParseColumns(c.ddl)
		if c.ddl != "" && err != nil {
			t.Fatal(err)
		}
		if _, err := New("csv", fields, Options{CSV: c.csv}); !errors.Is(err, batch.ErrInvalid) || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
}

// TestCSVBadRecordLeavesNothing: good and bad records in random order give exactly
// what the good ones give alone; a tombstone is a row of NULLs.
func TestCSVBadRecordLeavesNothing(t *testing.T) {
	const ddl = "a BIGINT, s VARCHAR, b BLOB, d DECIMAL(9,2), u UUID, t TIMESTAMPTZ, o BOOLEAN"
	seed := rand.Uint64()
	r := rand.New(rand.NewPCG(seed, 1))
	mixed, alone := csvDecoderOf(t, ddl, Options{}), csvDecoderOf(t, ddl, Options{})
	for range 1000 {
		g := fmt.Appendf(nil, `%d,"é""%d",aGk=,%d.25,01234567-89ab-cdef-0123-456789abcdef,2026-01-02T03:04:05Z,true`, r.Int64(), r.IntN(9), r.IntN(999))
		if r.IntN(2) == 0 {
			if err := mixed.Append(Record{Value: bytes.Clone(g[:r.IntN(len(g)-5)])}); err == nil {
				t.Fatalf("seed %d: a part of %s was taken", seed, g)
			}
		}
		if r.IntN(9) == 0 {
			g = nil
		}
		if err := errors.Join(mixed.Append(Record{Value: g}), alone.Append(Record{Value: g})); err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
	}
	if taken(mixed) != taken(alone) {
		t.Fatalf("seed %d: bad records left something behind", seed)
	}
	var e *Error
	if err := csvDecoderOf(t, "a BIGINT NOT NULL", Options{}).Append(Record{}); !errors.As(err, &e) {
		t.Errorf("a tombstone in a column that is NOT NULL: %v", err)
	}
}

// FuzzCSV holds the decoder against encoding/csv: one record of as many values as
// there are columns is taken, with the same values, and nothing else.
func FuzzCSV(f *testing.F) {
	for _, s := range []string{"1,x,y", "1,\"a\"\"b\",", "\"2\",\"a\nb\",c\r\n", "a,b", "1,b\n2,c", `1,"x"y,z`, `1,x"y,z`, "1,\r,2", ",,", "\n", `1," ","`, "01,x,y"} {
		f.Add([]byte(s))
	}
	m := newMeter()
	f.Fuzz(func(t *testing.T, value []byte) {
		d := csvDecoderOf(t, "a BIGINT, b VARCHAR, c VARCHAR", Options{CSV: CSV{Null: "NULL"}})
		var err error
		m.within(t, perByte*len(value), func() { err = d.Append(Record{Value: bytes.Clone(value)}) })
		var e *Error
		if err != nil && (!errors.As(err, &e) || e.Pos < 0 || e.Pos > len(value) || d.Rows() != 0) {
			t.Fatalf("%q: an error without a place, or a row left: %v, %d rows", value, err, d.Rows())
		}
		if bytes.ContainsAny(value, "\r") || bytes.HasPrefix(value, []byte("\n")) { // encoding/csv changes line ends, and passes empty lines over
			return
		}
		r := csv.NewReader(bytes.NewReader(value))
		r.FieldsPerRecord = -1
		all, wrong := r.ReadAll()
		good := wrong == nil && len(all) == 1 && len(all[0]) == 3 && !bytes.HasSuffix(value, []byte("\n\n"))
		var a int64
		if good {
			null := all[0][0] == "NULL"
			text := strings.Trim(all[0][0], " ")
			a, wrong = strconv.ParseInt(text, 10, 64)
			if !null && (wrong != nil || !numeral(text)) || !utf8.ValidString(all[0][1]) || !utf8.ValidString(all[0][2]) || bytes.Contains(value, []byte("NULL")) {
				return // the decoder knows more of numbers, and of NULL
			}
		}
		if (err == nil) != good {
			t.Fatalf("%q: the decoder says %v, encoding/csv %q, %v", value, err, all, wrong)
		}
		if err == nil {
			if got, want := shownRows(d)[0], fmt.Sprintf("{a: %d, b: %q, c: %q}", a, all[0][1], all[0][2]); got != want {
				t.Fatalf("%q: got %s, want %s", value, got, want)
			}
		}
	})
}

// numeral says whether an integer is written as JSON has it.
func numeral(s string) bool {
	s = strings.TrimPrefix(s, "-")
	return s == "0" || s != "" && s[0] >= '1' && s[0] <= '9'
}

func BenchmarkCSV(b *testing.B) {
	d := csvDecoderOf(b, "user_id BIGINT, event VARCHAR, event_time TIMESTAMPTZ, page VARCHAR, session VARCHAR, duration_ms INTEGER, price DOUBLE, referrer VARCHAR", Options{})
	value := []byte(`123456,click,2026-01-01T00:00:00.000Z,/products/4711/details,0123456789abcdef,12345,123.45,"https://www.example.com/search?q=ice"`)
	decodes(b, d, Record{Value: value})
}
