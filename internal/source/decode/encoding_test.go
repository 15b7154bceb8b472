package decode

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"runtime"
	"strings"
	"testing"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"

	"github.com/frazil-io/frazil/internal/batch"
)

// packed compresses a value.
func packed(t testing.TB, encoding string, value []byte) []byte {
	t.Helper()
	out := &bytes.Buffer{}
	if encoding == EncodingGzip {
		w := gzip.NewWriter(out)
		w.Write(value)
		w.Close()
		return out.Bytes()
	}
	w, err := zstd.NewWriter(out)
	if err != nil {
		t.Fatal(err)
	}
	w.Write(value)
	w.Close()
	return out.Bytes()
}

// TestEncoding: a compressed value is decompressed before any format reads it.
func TestEncoding(t *testing.T) {
	fields, err := ParseColumns("a BIGINT, b VARCHAR")
	if err != nil {
		t.Fatal(err)
	}
	click := text(`syntax = "proto3"; message M { int64 a = 1; string b = 2; }`)
	for _, encoding := range []string{EncodingGzip, EncodingZstd} {
		for format, values := range map[string][2][]byte{
			"json":     {[]byte(`{"a":1,"b":"x"}`), []byte(`{"a":2,"b":"` + strings.Repeat("y", 3000) + `"}`)},
			"csv":      {[]byte(`1,x`), []byte(`2,` + strings.Repeat("y", 3000))},
			"protobuf": {written(t, descriptor(t, click, ""), "a: 1 b: 'x'"), written(t, descriptor(t, click, ""), "a: 2 b: '"+strings.Repeat("y", 3000)+"'")},
		} {
			o := Options{Encoding: encoding, Reader: click}
			d, err := New(format, fields, o)
			if err != nil {
				t.Fatal(err)
			}
			for _, v := range values {
				if err := d.Append(Record{Value: packed(t, encoding, v)}); err != nil {
					t.Errorf("%s %s: %v", encoding, format, err)
				}
				if got := d.(Unpacked).Unpacked(); got != len(v) {
					t.Errorf("%s %s: %d bytes unpacked, want %d", encoding, format, got, len(v))
				}
				var e *Error
				if err := d.Append(Record{Value: v}); !errors.As(err, &e) || e.Code != batch.CodeDecode || !strings.Contains(e.Reason, "cannot be decompressed as "+encoding) {
					t.Errorf("%s %s: a value that is not compressed: %v", encoding, format, err)
				}
			}
			if err := d.Append(Record{}); err != nil {
				t.Errorf("%s %s: a tombstone: %v", encoding, format, err)
			}
			if got, want := shownRows(d), `{a: 1, b: "x"} {a: 2, b: "`+strings.Repeat("y", 3000)+`"} {a: null, b: null}`; strings.Join(got, " ") != want {
				t.Errorf("%s %s: got %s", encoding, format, got)
			}
		}
	}
	if _, err := New("json", fields, Options{Encoding: "lz4"}); !errors.Is(err, batch.ErrInvalid) {
		t.Errorf("an encoding that there is not: %v", err)
	}
}

// TestEncodingRaw: raw gives the value without its compression, and an empty one
// is no NULL.
func TestEncodingRaw(t *testing.T) {
	for _, encoding := range []string{EncodingGzip, EncodingZstd} {
		d, err := New("raw", nil, Options{Encoding: encoding})
		if err != nil {
			t.Fatal(err)
		}
		two := append(packed(t, encoding, []byte("a")), packed(t, encoding, []byte("b"))...)
		for _, v := range [][]byte{packed(t, encoding, []byte("x")), packed(t, encoding, nil), two, nil} {
			if err := d.Append(Record{Value: v}); err != nil {
				t.Fatal(encoding, err)
			}
		}
		want := "{key: null, value: x'78', headers: []} {key: null, value: x'', headers: []} {key: null, value: x'6162', headers: []} {key: null, value: null, headers: []}"
		if got := strings.Join(shownRows(d), " "); got != want {
			t.Errorf("%s: got %s", encoding, got)
		}
	}
}

// TestEncodingBombs: a value that becomes too large is bad, whatever its header
// claims; one of just the bound is good.
func TestEncodingBombs(t *testing.T) {
	const most = 8 << 20
	half := make([]byte, most/2+1)
	for _, encoding := range []string{EncodingGzip, EncodingZstd} {
		for name, c := range map[string]struct {
			value []byte
			large bool
		}{
			"the bound":       {packed(t, encoding, make([]byte, most)), false},
			"one more":        {packed(t, encoding, make([]byte, most+1)), true},
			"far more":        {packed(t, encoding, make([]byte, 20*most)), true},
			"in several ones": {append(packed(t, encoding, half), packed(t, encoding, half)...), true},
		} {
			d, err := newEncoded(newRaw(), encoding, most)
			if err != nil {
				t.Fatal(err)
			}
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			err = d.Append(Record{Value: c.value})
			runtime.ReadMemStats(&after)
			if n := after.TotalAlloc - before.TotalAlloc; n > 10*most { // less than the largest value has
				t.Errorf("%s, %s: %d MiB were allocated", encoding, name, n>>20)
			}
			var e *Error
			if large := errors.As(err, &e) && e.Code == batch.CodeOversize && strings.Contains(e.Reason, "more than 8388608 bytes"); large != c.large || !c.large && err != nil {
				t.Errorf("%s, %s: %v", encoding, name, err)
			}
			if got := cap(d.(*encodedDecoder).buffer); got > scratchKept {
				t.Errorf("%s, %s: %d bytes are kept", encoding, name, got)
			}
		}
	}
}

// TestEncodingCutOff: a part of a value is bad, and does no harm to the next one.
func TestEncodingCutOff(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for _, encoding := range []string{EncodingGzip, EncodingZstd} {
		d, err := New("raw", nil, Options{Encoding: encoding})
		if err != nil {
			t.Fatal(err)
		}
		value := make([]byte, 2000)
		for i := range value {
			value[i] = byte(r.IntN(9))
		}
		whole := packed(t, encoding, value)
		for n := range len(whole) {
			var e *Error
			if err := d.Append(Record{Value: whole[:n]}); !errors.As(err, &e) || e.Code != batch.CodeDecode {
				t.Fatalf("%s: %d of %d bytes: %v", encoding, n, len(whole), err)
			}
			damaged := bytes.Clone(whole)
			damaged[n] ^= 0x55
			if err := d.Append(Record{Value: damaged}); err != nil && !errors.As(err, &e) {
				t.Fatalf("%s: byte %d changed: %v", encoding, n, err)
			}
		}
		d.Take()
		if err := d.Append(Record{Value: whole}); err != nil || !bytes.Contains([]byte(shownRows(d)[0]), []byte("x'0")) {
			t.Errorf("%s: behind bad values: %v", encoding, err)
		}
	}
}

// TestKeyBesideEncoding: a key in any format stands beside a compressed value, and
// completes the row of an envelope.
func TestKeyBesideEncoding(t *testing.T) {
	ids, err := ParseColumns("id BIGINT")
	if err != nil {
		t.Fatal(err)
	}
	row, err := ParseColumns("id BIGINT, v VARCHAR")
	if err != nil {
		t.Fatal(err)
	}
	schema := text(`syntax = "proto3"; message K { int64 id = 1; }`)
	for format, key := range map[string]string{"csv": "7", "protobuf": "\x08\x07"} {
		k, err := NewKey(format, ids, Options{Reader: schema})
		if err != nil {
			t.Fatal(err)
		}
		v, err := New("json", row, Options{Encoding: EncodingZstd, Envelope: "debezium"})
		if err != nil {
			t.Fatal(err)
		}
		d, err := WithKey(v, k)
		if err != nil {
			t.Fatal(format, err)
		}
		value := packed(t, EncodingZstd, []byte(`{"op":"c","after":{"v":"x"}}`))
		if err := d.Append(Record{Key: []byte(key), Value: value}); err != nil {
			t.Fatal(format, err)
		}
		if got := d.(Unpacked).Unpacked(); got != 28 {
			t.Errorf("%s: %d bytes unpacked", format, got)
		}
		var e *Error
		if err := d.Append(Record{Key: []byte(key), Value: []byte("x")}); !errors.As(err, &e) || d.Rows() != 1 || k.Rows() != 1 {
			t.Errorf("%s: a bad value leaves %d rows, and %d of the key: %v", format, d.Rows(), k.Rows(), err)
		}
		if got := shownRows(d)[0]; !strings.HasPrefix(got, `{id: 7, v: "x", _op: "c"`) {
			t.Errorf("%s: got %s", format, got)
		}
	}
}
