package decode

import (
	"encoding/binary"
	"fmt"
	"math"
	"unicode/utf8"

	"github.com/frazil-io/frazil/internal/batch"
)

// avroInput walks over the bytes of one record (specification, "Binary
// Encoding").
type avroInput struct {
	b     []byte
	i     int
	depth int // of nested values that are skipped
	// budget is how many values the record may still put into columns: it bounds
	// elements that take no or little space in the record, and much in columns.
	budget int
}

// budgetMin is what any record may put into columns, and budgetPerByte what a
// large one may for each of its bytes.
const (
	budgetMin     = 4 << 20
	budgetPerByte = 16
)

func (in *avroInput) reset(value []byte, at int) {
	in.b, in.i, in.depth = value, at, 0
	in.budget = max(budgetMin, budgetPerByte*len(value))
}

func (in *avroInput) fail(at int, format string, args ...any) error {
	return &Error{Reason: fmt.Sprintf(format, args...), Pos: at}
}

// mismatch is the error for a value that the schema of the columns has no place
// for.
func (in *avroInput) mismatch(at int, format string, args ...any) error {
	return &Error{Code: batch.CodeSchema, Reason: fmt.Sprintf(format, args...), Pos: at}
}

func (in *avroInput) short(what string) error {
	return in.fail(len(in.b), "the record ends inside of %s", what)
}

// long reads a number of zig-zag groups of seven bits.
func (in *avroInput) long() (int64, error) {
	if i := in.i; i < len(in.b) && in.b[i] < 0x80 {
		in.i = i + 1
		return int64(in.b[i]>>1) ^ -int64(in.b[i]&1), nil
	}
	return in.longer()
}

func (in *avroInput) longer() (int64, error) {
	v, n := binary.Uvarint(in.b[in.i:])
	if n <= 0 {
		if n == 0 && len(in.b)-in.i < binary.MaxVarintLen64 {
			return 0, in.short("a number")
		}
		return 0, in.fail(in.i, "a number has more than 64 bits")
	}
	in.i += n
	return int64(v>>1) ^ -int64(v&1), nil
}

func (in *avroInput) int() (int32, error) {
	at := in.i
	v, err := in.long()
	if err == nil && int64(int32(v)) != v {
		return 0, in.fail(at, "%d is out of range for an int", v)
	}
	return int32(v), err
}

// whole reads an int or a long.
func (in *avroInput) whole(kind avroKind) (int64, error) {
	if kind == avroInt {
		v, err := in.int()
		return int64(v), err
	}
	return in.long()
}

// take consumes n bytes.
func (in *avroInput) take(n int, what string) ([]byte, error) {
	if len(in.b)-in.i < n {
		return nil, in.short(what)
	}
	b := in.b[in.i : in.i+n]
	in.i += n
	return b, nil
}

// bytes consumes a length and as many bytes. The result is never nil.
func (in *avroInput) bytes() ([]byte, error) {
	at := in.i
	n, err := in.long()
	if err != nil {
		return nil, err
	}
	if uint64(n) > uint64(len(in.b)-in.i) {
		return nil, in.tooLong(at, n)
	}
	b := in.b[in.i : in.i+int(n)]
	in.i += int(n)
	return b, nil
}

func (in *avroInput) tooLong(at int, n int64) error {
	if n < 0 {
		return in.fail(at, "a length is negative: %d", n)
	}
	return in.fail(at, "a length of %d, and only %d bytes follow", n, len(in.b)-in.i)
}

// text consumes a string.
func (in *avroInput) text() ([]byte, error) {
	b, err := in.bytes()
	if err == nil && !utf8.Valid(b) {
		return nil, in.fail(in.i-len(b)+invalidAt(b), "the string is not valid UTF-8")
	}
	return b, err
}

// block consumes the head of a block of an array or map: how many elements it
// has, 0 for the end, and where it ends, -1 if that is not said. least is the
// size of an element, cost how many values it puts into columns.
func (in *avroInput) block(least, cost int) (count, end int, err error) {
	at := in.i
	n, err := in.long()
	if err != nil || n == 0 {
		return 0, -1, err
	}
	end = -1
	if n < 0 {
		if n == math.MinInt64 {
			return 0, 0, in.fail(at, "a block has too many elements")
		}
		n = -n
		size, err := in.long()
		if err != nil {
			return 0, 0, err
		}
		if uint64(size) > uint64(len(in.b)-in.i) {
			return 0, 0, in.tooLong(at, size)
		}
		end = in.i + int(size)
	}
	left := len(in.b) - in.i
	if least > 0 && n > int64(left/least) {
		return 0, 0, in.fail(at, "a block of %d elements, and only %d bytes follow", n, left)
	}
	if n > int64(in.budget/max(cost, 1)) {
		return 0, 0, in.fail(at, "a block of %d elements is too large for a record of %d bytes", n, len(in.b))
	}
	in.budget -= int(n) * cost
	return int(n), end, nil
}

// ends checks that a block ended where its head said.
func (in *avroInput) ends(end int) error {
	if end >= 0 && in.i != end {
		return in.fail(in.i, "a block ends at byte %d, not where it says, at byte %d", in.i, end)
	}
	return nil
}
