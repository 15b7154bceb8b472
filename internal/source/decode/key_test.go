package decode

import (
	"encoding/base64"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/frazil-io/frazil/internal/batch"
)

func keyOf(t testing.TB, format, ddl string, o Options) Decoder {
	t.Helper()
	d, err := newKeyOf(format, ddl, o)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func newKeyOf(format, ddl string, o Options) (Decoder, error) {
	if ddl == "" {
		return NewKey(format, nil, o)
	}
	fields, err := ParseColumns(ddl)
	if err != nil {
		return nil, err
	}
	return NewKey(format, fields, o)
}

func joinedOf(t testing.TB, value, key Decoder) Decoder {
	t.Helper()
	d, err := WithKey(value, key)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestKeys(t *testing.T) {
	for _, c := range []struct {
		format, columns, form string
		key, want             string // want begins with ! for an error
	}{
		{"json", "id BIGINT", "", `{"id":42}`, "42"},
		{"json", "id BIGINT", "", `42`, "42"},
		{"json", "id BIGINT", "", ` 42 `, "42"},
		{"json", "id BIGINT", "", `42 1`, "!expected the end"},
		{"json", "id VARCHAR", "", `"abc"`, `"abc"`},
		{"json", "id VARCHAR", "", `abc`, `!key: field "id": expected a text, found 'a', at byte 0 of the key`},
		{"json", "id BIGINT", "", `null`, "null"},
		{"json", "id BIGINT NOT NULL", "", `null`, `!field "id" is null`},
		{"json", "id BIGINT[]", "", `[1,2]`, "[1,2]"},
		{"json", "a BIGINT, b VARCHAR", "", `{"a":1,"b":"x"}`, `1 | "x"`},
		{"json", "a BIGINT, b VARCHAR", "", `1`, "!expected an object, found '1'"},
		{"json", "id BIGINT", "", ``, "!the JSON ends"},
		{"string", "", "", `abc`, `"abc"`},
		{"string", "", "", ``, `""`},
		{"string", "", "", "a\xff", `!key: the text is not valid UTF-8, at byte 1 of the key`},
		{"string", "id BIGINT", "", `-42`, `-42`},
		{"string", "id BIGINT", "", ` 42`, `!is no such value`},
		{"string", "id BIGINT", "", `42 `, `!is no such value`},
		{"string", "id BIGINT", "", `42x`, `!key: expected the end, found 'x', at byte 2 of the key`},
		{"string", "id BIGINT", "", ``, `!a number`},
		{"string", "id SMALLINT", "", `40000`, `!out of range`},
		{"string", "id DECIMAL(9,2)", "", `1.25`, `"1.25"`},
		{"string", "id DECIMAL(9,2)", "", `"1.25"`, `!is no such value`},
		{"string", "id BOOLEAN", "", `true`, `true`},
		{"string", "id UUID", "", `01234567-89ab-cdef-0123-456789abcdef`, `"01234567-89ab-cdef-0123-456789abcdef"`},
		{"string", "id DATE", "", `2026-01-02`, `"2026-01-02"`},
		{"string", "id DATE", "", `2026-01\u002d02`, `!is no such value`},
		{"string", "id DATE", "", `2026-13-02`, `!key: the text "2026-13-02" is not a date such as 2026-01-02, at byte 0 of the key`},
		{"string", "id TIMESTAMPTZ", "", `2026-01-02T00:00:00Z`, `"2026-01-02T00:00:00Z"`},
		{"string", "id TIMESTAMPTZ", "ms", `1700000000000`, `"2023-11-14T22:13:20Z"`},
		{"kafka", "id INTEGER", "", "\x00\x00\x01\x02", "258"},
		{"kafka", "id INTEGER", "", "258", "!it has 3 bytes, and Kafka's serializer writes int32 in 4"},
		{"kafka", "id BIGINT", "", "\xff\xff\xff\xff\xff\xff\xff\xfe", "-2"},
		{"kafka", "id SMALLINT", "", "\x01\x00", "256"},
		{"kafka", "id DOUBLE", "", "\x3f\xf8\x00\x00\x00\x00\x00\x00", "1.5"},
		{"kafka", "id FLOAT", "", "\x3f\xc0\x00\x00", "1.5"},
		{"kafka", "id VARCHAR", "", "x", `"x"`},
		{"kafka", "id BLOB", "", "\xff", `"/w=="`},
		{"kafka", "id UUID", "", `01234567-89ab-cdef-0123-456789abcdef`, `"01234567-89ab-cdef-0123-456789abcdef"`},
		{"kafka", "id UUID", "", `0123456789abcdef`, `!not a UUID`},
		{"raw", "", "", "\xff\x00", `"/wA="`},
	} {
		d := joinedOf(t, decoder(t, "v INTEGER", Options{}), keyOf(t, c.format, c.columns, Options{Timestamps: c.form}))
		err := d.Append(Record{Key: []byte(c.key), Value: []byte(`{"v":1}`)})
		if want, bad := strings.CutPrefix(c.want, "!"); bad {
			var e *Error
			if !errors.As(err, &e) || !e.Key || !strings.Contains(err.Error(), want) || d.Rows() != 0 {
				t.Errorf("%s %s %q: error %v, want %q; %d rows", c.format, c.columns, c.key, err, want, d.Rows())
			}
			continue
		}
		if err != nil {
			t.Errorf("%s %s %q: %v", c.format, c.columns, c.key, err)
		} else if got := taken(d); got != "1 | "+c.want+"\n" {
			t.Errorf("%s %s %q: got %q, want %q", c.format, c.columns, c.key, got, c.want)
		}
	}
}

// TestNullKeys: a null key is NULL in every column, unless one is NOT NULL; a
// tombstone has its key.
func TestNullKeys(t *testing.T) {
	for _, c := range []struct{ format, columns, want string }{
		{"json", "a BIGINT, b VARCHAR", "null | null | null\n"},
		{"string", "", "null | null\n"},
		{"kafka", "id BIGINT", "null | null\n"},
		{"raw", "", "null | null\n"},
		{"json", "a BIGINT NOT NULL", ""},
		{"string", "id BIGINT NOT NULL", ""},
	} {
		d := joinedOf(t, decoder(t, "v INTEGER", Options{}), keyOf(t, c.format, c.columns, Options{}))
		err := d.Append(Record{Value: []byte(`{}`)})
		if (err != nil) != (c.want == "") || err != nil && d.Rows() != 0 {
			t.Errorf("%s %s: %v, %d rows", c.format, c.columns, err, d.Rows())
		} else if got := taken(d); got != c.want {
			t.Errorf("%s %s: got %q, want %q", c.format, c.columns, got, c.want)
		}
	}
	d := keyOf(t, "raw", "k BLOB", Options{})
	if err := d.Append(Record{Value: []byte{}}); err != nil || d.Take()[0].NullN() != 0 {
		t.Errorf("an empty key is not null: %v", err)
	}
	d = joinedOf(t, decoder(t, "v INTEGER", Options{}), keyOf(t, "string", "", Options{}))
	if err := d.Append(Record{Key: []byte("k")}); err != nil {
		t.Fatal(err)
	}
	if got := taken(d); got != "null | \"k\"\n" {
		t.Errorf("a tombstone: %q", got)
	}
}

func TestBadKeys(t *testing.T) {
	for _, c := range []struct{ format, columns, want string }{
		{"string", "a BIGINT, b BIGINT", "one column"},
		{"string", "a BIGINT[]", "does not make list"},
		{"string", "a BLOB", "does not make binary"},
		{"kafka", "", "needs the key's column"},
		{"kafka", "a DATE", "does not make date32"},
		{"kafka", "a TIMESTAMP", "does not make timestamp"},
		{"kafka", "a UINTEGER", "does not make uint32"},
		{"raw", "a VARCHAR", "does not make utf8"},
		{"json", "", "needs columns"},
		{"xml", "", "not supported"},
	} {
		if _, err := newKeyOf(c.format, c.columns, Options{}); !errors.Is(err, batch.ErrInvalid) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s %q: %v, want %q", c.format, c.columns, err, c.want)
		}
	}
	value := decoder(t, "id INTEGER, v VARCHAR", Options{})
	if _, err := WithKey(value, keyOf(t, "json", "ID BIGINT", Options{})); !errors.Is(err, batch.ErrInvalid) || !strings.Contains(err.Error(), `column "ID" is there twice, as "id"`) {
		t.Errorf("a clash: %v", err)
	}
}

// TestBadHalfLeavesNothing: a record of which the key or the value is bad leaves
// no trace in the columns of either.
func TestBadHalfLeavesNothing(t *testing.T) {
	seed := rand.Uint64()
	r := rand.New(rand.NewPCG(seed, 1))
	for _, format := range []string{"json", "string", "kafka", "raw"} {
		columns := map[string]string{"json": "ka BIGINT, kb VARCHAR", "string": "k DECIMAL(9,2)", "kafka": "k INTEGER", "raw": ""}[format]
		both := func() Decoder {
			return joinedOf(t, decoder(t, "a BIGINT, b VARCHAR[]", Options{Unknown: Column}), keyOf(t, format, columns, Options{}))
		}
		mixed, alone := both(), both()
		for range 2000 {
			n := r.IntN(1000)
			good := Record{Value: fmt.Appendf(nil, `{"a":%d,"b":["x","y%d"],"z":%d}`, n, n, n)}
			badKey := []byte(`{"ka":1,"kb":"x`)
			switch format {
			case "json":
				good.Key = fmt.Appendf(nil, `{"ka":%d,"kb":"k%d"}`, n, n)
			case "string":
				good.Key = fmt.Appendf(nil, `%d.25`, n)
			default:
				good.Key = []byte{0, 0, byte(n >> 8), byte(n)}
			}
			if r.IntN(8) == 0 {
				good.Key = nil
			}
			if r.IntN(3) == 0 && format != "raw" {
				if mixed.Append(Record{Key: badKey, Value: good.Value}) == nil {
					t.Fatalf("%s: a bad key was taken", format)
				}
			}
			if r.IntN(3) == 0 {
				if mixed.Append(Record{Key: good.Key, Value: good.Value[:len(good.Value)-2]}) == nil {
					t.Fatal("a bad value was taken")
				}
			}
			if err := errors.Join(mixed.Append(good), alone.Append(good)); err != nil {
				t.Fatal(err)
			}
		}
		if mixed.Rows() != 2000 || taken(mixed) != taken(alone) {
			t.Fatalf("%s, seed %d: bad records left something behind", format, seed)
		}
	}
}

// FuzzKey holds the joined decoder to its word: a record is a row of both, or of
// neither; a text that is a key as it is comes out as it is.
func FuzzKey(f *testing.F) {
	for _, s := range []string{`{"id":1}`, `1`, `"x"`, "abc", "\x00\x00\x00\x01", `{"schema":null,"payload":{"id":2}}`, "2026-01-02", ""} {
		f.Add([]byte(s), []byte(`{"v":1}`))
	}
	f.Add([]byte(nil), []byte(`{"v":`))
	m := newMeter()
	f.Fuzz(func(t *testing.T, key, value []byte) {
		for _, c := range []struct{ format, columns string }{
			{"json", "id BIGINT"}, {"json", "id VARCHAR, n DECIMAL(9,2)"}, {"string", ""}, {"string", "id UUID"}, {"string", "id TIMESTAMP"}, {"string", "id DOUBLE"}, {"kafka", "id BIGINT"}, {"raw", ""},
		} {
			d := joinedOf(t, decoder(t, "v INTEGER, w VARCHAR[]", Options{}), keyOf(t, c.format, c.columns, Options{}))
			var err error
			m.within(t, perByte*(len(key)+len(value)), func() { err = d.Append(Record{Key: key, Value: value}) })
			var e *Error
			switch {
			case err == nil && d.Rows() != 1, err != nil && d.Rows() != 0:
				t.Fatalf("%s: %v, %d rows", c.format, err, d.Rows())
			case err != nil && !errors.As(err, &e):
				t.Fatalf("%s: %v is no *Error", c.format, err)
			case err != nil && (e.Pos > len(value) && !e.Key || e.Pos > len(key) && e.Key):
				t.Fatalf("%s: byte %d is not in it", c.format, e.Pos)
			}
			arrays := d.Take()
			for _, a := range arrays {
				if a.Len() != map[bool]int{true: 1, false: 0}[err == nil] {
					t.Fatalf("%s: %v, and a column of %d", c.format, err, a.Len())
				}
				if err == nil {
					if err := check(a); err != nil {
						t.Fatal(err)
					}
				}
			}
			if err == nil && c.format == "raw" && key != nil && arrays[2].ValueStr(0) != base64.StdEncoding.EncodeToString(key) {
				t.Fatalf("%q came out as %s", key, arrays[2].ValueStr(0))
			}
		}
	})
}
