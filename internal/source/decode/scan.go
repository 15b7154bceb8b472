package decode

import (
	"fmt"
	"math/bits"
	"strconv"
	"unicode/utf16"
	"unicode/utf8"
	"unsafe"
)

// depthMax bounds the nesting of a value, known columns or not.
const depthMax = 64

// scanner walks over the bytes of one JSON text (RFC 8259).
type scanner struct {
	b   []byte
	i   int
	tmp []byte // the last string, where it had escapes
}

func (s *scanner) fail(format string, args ...any) error {
	return &Error{Reason: fmt.Sprintf(format, args...), Pos: min(s.i, len(s.b))}
}

func (s *scanner) failAt(pos int, format string, args ...any) error {
	return &Error{Reason: fmt.Sprintf(format, args...), Pos: pos}
}

// unexpected says what stands where something else should.
func (s *scanner) unexpected(wanted string) error {
	if s.i >= len(s.b) {
		return s.fail("the JSON ends where %s should be", wanted)
	}
	r, _ := utf8.DecodeRune(s.b[s.i:])
	return s.fail("expected %s, found %q", wanted, r)
}

// end says what follows the text.
func (s *scanner) end() error {
	if s.peek(); s.i < len(s.b) {
		return s.unexpected("the end")
	}
	return nil
}

func (s *scanner) space() {
	for s.i < len(s.b) {
		switch s.b[s.i] {
		case ' ', '\t', '\n', '\r':
			s.i++
		default:
			return
		}
	}
}

// peek returns the next byte that is not white space, 0 at the end.
func (s *scanner) peek() byte {
	if s.i < len(s.b) && s.b[s.i] > ' ' {
		return s.b[s.i]
	}
	s.space()
	if s.i < len(s.b) {
		return s.b[s.i]
	}
	return 0
}

// literal consumes true, false or null.
func (s *scanner) literal(word string) error {
	if len(s.b)-s.i < len(word) || string(s.b[s.i:s.i+len(word)]) != word {
		return s.unexpected("a value")
	}
	s.i += len(word)
	return nil
}

const (
	ones  = 0x0101010101010101
	highs = 0x8080808080808080
)

// text consumes a string, whose opening quote is next, and returns its
// contents: valid until the next call.
func (s *scanner) text() ([]byte, error) {
	start := s.i + 1
	i := start
	var high uint64 // whether a byte above ASCII was seen
	// Eight bytes at a time, up to a quote, a backslash or a control character.
	for i+8 <= len(s.b) {
		w := *(*uint64)(unsafe.Pointer(&s.b[i]))
		quote, slash := w^(ones*'"'), w^(ones*'\\')
		m := ((quote - ones) &^ quote) | ((slash - ones) &^ slash) | ((w - ones*0x20) &^ w)
		if m &= highs; m != 0 {
			n := bits.TrailingZeros64(m) >> 3
			high |= w & highs & (1<<(8*uint(n)) - 1)
			i += n
			return s.textFrom(start, i, high != 0)
		}
		high |= w & highs
		i += 8
	}
	for i < len(s.b) && s.b[i] != '"' && s.b[i] != '\\' && s.b[i] >= 0x20 {
		high |= uint64(s.b[i] & 0x80)
		i++
	}
	return s.textFrom(start, i, high != 0)
}

// textFrom goes on at i, where a quote, a backslash or something wrong stands.
func (s *scanner) textFrom(start, i int, high bool) ([]byte, error) {
	s.i = i
	if i < len(s.b) && s.b[i] == '"' {
		s.i++
		out := s.b[start:i]
		if high && !utf8.Valid(out) {
			return nil, s.failAt(start+invalidAt(out), "the string is not valid UTF-8")
		}
		return out, nil
	}
	return s.escaped(start)
}

func invalidAt(b []byte) int {
	for i := 0; i < len(b); {
		r, n := utf8.DecodeRune(b[i:])
		if r == utf8.RuneError && n == 1 {
			return i
		}
		i += n
	}
	return len(b)
}

// escaped reads the rest of a string that has escapes.
func (s *scanner) escaped(start int) ([]byte, error) {
	s.tmp = append(s.tmp[:0], s.b[start:s.i]...)
	for s.i < len(s.b) {
		switch c := s.b[s.i]; {
		case c == '"':
			s.i++
			if !utf8.Valid(s.tmp) {
				return nil, s.failAt(start, "the string is not valid UTF-8")
			}
			return s.tmp, nil
		case c < 0x20:
			return nil, s.fail("control character %#02x in a string", c)
		case c != '\\':
			s.tmp = append(s.tmp, c)
			s.i++
		default:
			if err := s.escape(); err != nil {
				return nil, err
			}
		}
	}
	return nil, s.fail("the JSON ends inside a string")
}

var escapes = [256]byte{'"': '"', '\\': '\\', '/': '/', 'b': '\b', 'f': '\f', 'n': '\n', 'r': '\r', 't': '\t'}

func (s *scanner) escape() error {
	if s.i+1 >= len(s.b) {
		return s.fail("the JSON ends inside a string")
	}
	c := s.b[s.i+1]
	if c != 'u' {
		if escapes[c] == 0 {
			return s.fail("unknown escape %q", s.b[s.i:s.i+2])
		}
		s.tmp = append(s.tmp, escapes[c])
		s.i += 2
		return nil
	}
	r, err := s.hex(s.i)
	if err != nil {
		return err
	}
	at := s.i
	s.i += 6
	if utf16.IsSurrogate(r) {
		low := rune(utf8.RuneError)
		if s.i+1 < len(s.b) && s.b[s.i] == '\\' && s.b[s.i+1] == 'u' {
			if low, err = s.hex(s.i); err != nil {
				return err
			}
			s.i += 6
		}
		if r = utf16.DecodeRune(r, low); r == utf8.RuneError {
			return s.failAt(at, "half of a surrogate pair")
		}
	}
	s.tmp = utf8.AppendRune(s.tmp, r)
	return nil
}

// hex reads the four digits of \uXXXX at i.
func (s *scanner) hex(i int) (rune, error) {
	if i+6 > len(s.b) {
		return 0, s.fail("the JSON ends inside a string")
	}
	v, err := strconv.ParseUint(string(s.b[i+2:i+6]), 16, 32)
	if err != nil {
		return 0, s.failAt(i, "%q is not \\u with four hexadecimal digits", s.b[i:i+6])
	}
	return rune(v), nil
}

// number is a JSON number: its text and, where it is an integer of up to 18
// digits, its value. One of up to 15 digits without an exponent is value /
// 10^scale.
type number struct {
	text  []byte
	value int64
	exact bool
	scale int // -1: it has more digits, or an exponent
}

// floatDigits are as many as every float64 holds.
const floatDigits = 15

// number consumes the number that is next.
func (s *scanner) number() (number, error) {
	start := s.i
	i := s.i
	negative := i < len(s.b) && s.b[i] == '-'
	if negative {
		i++
	}
	first := i
	var v uint64
	for i < len(s.b) && s.b[i]-'0' <= 9 {
		v = v*10 + uint64(s.b[i]-'0')
		i++
	}
	digits := i - first
	s.i = i
	switch {
	case digits == 0 && negative:
		return number{}, s.unexpected("a digit")
	case digits == 0:
		return number{}, s.unexpected("a number")
	}
	if digits > 1 && s.b[first] == '0' {
		return number{}, s.failAt(first, "a number must not begin with 0")
	}
	n := number{exact: digits <= 18}
	if i < len(s.b) && s.b[i] == '.' {
		point := i
		for i++; i < len(s.b) && s.b[i]-'0' <= 9; i++ {
			v = v*10 + uint64(s.b[i]-'0')
		}
		if s.i = i; i == point+1 {
			return number{}, s.unexpected("a digit")
		}
		n.exact, n.scale = false, i-point-1
	}
	if digits+n.scale > floatDigits {
		n.scale = -1
	}
	if s.i < len(s.b) && s.b[s.i]|0x20 == 'e' {
		n.exact, n.scale = false, -1
		i := s.i + 1
		if i < len(s.b) && (s.b[i] == '+' || s.b[i] == '-') {
			i++
		}
		if err := s.digits(i); err != nil {
			return number{}, err
		}
	}
	n.text, n.value = s.b[start:s.i], int64(v)
	if negative {
		n.value = -n.value
	}
	return n, nil
}

func (s *scanner) digits(from int) error {
	i := from
	for i < len(s.b) && s.b[i]-'0' <= 9 {
		i++
	}
	s.i = i
	if i == from {
		return s.unexpected("a digit")
	}
	return nil
}

// skip consumes any value and checks its syntax.
func (s *scanner) skip(depth int) error {
	if depth > depthMax {
		return s.fail("the JSON is nested more than %d deep", depthMax)
	}
	var err error
	switch c := s.peek(); {
	case c == '"':
		_, err = s.text()
	case c == '{':
		err = s.object(func([]byte) error { return s.skip(depth + 1) })
	case c == '[':
		err = s.array(func() error { return s.skip(depth + 1) })
	case c == 't':
		err = s.literal("true")
	case c == 'f':
		err = s.literal("false")
	case c == 'n':
		err = s.literal("null")
	case c == '-' || c-'0' <= 9:
		_, err = s.number()
	default:
		err = s.unexpected("a value")
	}
	return err
}

// object consumes an object and calls member behind each key and colon.
func (s *scanner) object(member func(key []byte) error) error {
	s.i++
	if s.peek() == '}' {
		s.i++
		return nil
	}
	for {
		if s.peek() != '"' {
			return s.unexpected("a key in quotes")
		}
		key, err := s.text()
		if err != nil {
			return err
		}
		if s.peek() != ':' {
			return s.unexpected("a colon")
		}
		s.i++
		if err := member(key); err != nil {
			return err
		}
		if more, err := s.comma('}'); !more {
			return err
		}
	}
}

// member consumes the key of an object's next member, and the colon. first: the
// object itself comes next. Where the object ends, it is consumed and more is
// false.
func (s *scanner) member(first bool) (key []byte, more bool, err error) {
	if first {
		s.i++
		if s.peek() == '}' {
			s.i++
			return nil, false, nil
		}
	} else if more, err := s.comma('}'); !more {
		return nil, false, err
	}
	if s.peek() != '"' {
		return nil, false, s.unexpected("a key in quotes")
	}
	if key, err = s.text(); err != nil {
		return nil, false, err
	}
	if s.peek() != ':' {
		return nil, false, s.unexpected("a colon")
	}
	s.i++
	return key, true, nil
}

// array consumes an array and calls element before each one.
func (s *scanner) array(element func() error) error {
	s.i++
	if s.peek() == ']' {
		s.i++
		return nil
	}
	for {
		if err := element(); err != nil {
			return err
		}
		if more, err := s.comma(']'); !more {
			return err
		}
	}
}

// comma consumes a comma, or the end of an object or array.
func (s *scanner) comma(end byte) (more bool, err error) {
	switch s.peek() {
	case ',':
		s.i++
		return true, nil
	case end:
		s.i++
		return false, nil
	}
	return false, s.unexpected(fmt.Sprintf("a comma or %q", end))
}
