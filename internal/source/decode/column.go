package decode

import (
	"bytes"
	"fmt"
	"math"
	"slices"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/bitutil"
	"github.com/apache/arrow-go/v18/arrow/decimal128"
	"github.com/apache/arrow-go/v18/arrow/memory"
)

// column holds the values of one column, or of one member of a nested one,
// until they are taken as an Arrow array. Unlike Arrow's builders it can be cut
// back, so that a bad record leaves nothing behind.
type column interface {
	// json appends the value that the scanner stands before.
	json(s *scanner, depth int) error
	null()
	len() int
	cut(n int) // back to n values
	bytes() int
	// take returns what was appended, and starts afresh.
	take() arrow.ArrayData
}

// validity says which values are there. As long as all are, it only counts them.
type validity struct {
	n     int
	nulls int
	valid []byte // one byte a value, 1 for one that is there; none where there are no nulls
}

func (v *validity) push(there bool) {
	if there && v.nulls == 0 {
		v.n++
		return
	}
	v.note(there)
}

// note is push from the first null on.
func (v *validity) note(there bool) {
	if v.nulls == 0 {
		v.valid = slices.Grow(v.valid[:0], v.n+1)[:v.n]
		for i := range v.valid {
			v.valid[i] = 1
		}
	}
	v.n++
	if there {
		v.valid = append(v.valid, 1)
		return
	}
	v.valid = append(v.valid, 0)
	v.nulls++
}

// given says whether the last value is there.
func (v *validity) given() bool { return v.nulls == 0 || v.valid[v.n-1] == 1 }

func (v *validity) cut(n int) {
	if v.nulls > 0 {
		for _, b := range v.valid[n:] {
			v.nulls -= int(1 - b)
		}
		v.valid = v.valid[:n]
	}
	v.n = n
}

// take returns the bitmap, nil where every value is there.
func (v *validity) take() (bitmap *memory.Buffer, nulls int) {
	nulls = v.nulls
	if nulls > 0 {
		bits := make([]byte, bitutil.BytesForBits(int64(v.n)))
		for i, b := range v.valid {
			bits[i>>3] |= b << (i & 7)
		}
		bitmap = memory.NewBufferBytes(bits)
	}
	v.valid, v.nulls, v.n = v.valid[:0], 0, 0
	return bitmap, nulls
}

// fresh returns an empty slice in place of one that was handed out, as large as
// that had become.
func fresh[T any](used []T) []T { return make([]T, 0, len(used)+len(used)/8) }

// fits makes sure that offsets of 32 bits reach so far: the limits of a record and of
// a record batch see to that, and wrong offsets would be rows that nobody wrote.
func fits(end int) {
	if end > math.MaxInt32 {
		panic(fmt.Sprintf("decode: a column comes to %d bytes or elements, beyond its offsets", end))
	}
}

// fixed is a column of values of one width.
type fixed[T decimal128.Num | int8 | int16 | int32 | int64 | uint8 | uint16 | uint32 | uint64 | float32 | float64] struct {
	validity
	kind   arrow.DataType
	values []T
	cast   func([]T) []byte
	parse  func(s *scanner) (T, error)
}

func (c *fixed[T]) json(s *scanner, _ int) error {
	v, err := c.parse(s)
	if err != nil {
		return err
	}
	c.values = append(c.values, v)
	c.push(true)
	return nil
}

func (c *fixed[T]) add(v T) {
	c.values = append(c.values, v)
	c.push(true)
}

func (c *fixed[T]) null() {
	var zero T
	c.values = append(c.values, zero)
	c.push(false)
}

func (c *fixed[T]) len() int   { return len(c.values) }
func (c *fixed[T]) bytes() int { return len(c.cast(c.values)) + c.n }
func (c *fixed[T]) cut(n int) {
	c.values = c.values[:n]
	c.validity.cut(n)
}

func (c *fixed[T]) take() arrow.ArrayData {
	n := len(c.values)
	bitmap, nulls := c.validity.take()
	data := array.NewData(c.kind, n, []*memory.Buffer{bitmap, memory.NewBufferBytes(c.cast(c.values))}, nil, nulls, 0)
	c.values = fresh(c.values)
	return data
}

// boolean is packed into bits when it is taken.
type boolean struct {
	validity
	values []byte
}

func (c *boolean) json(s *scanner, _ int) error {
	v, err := parseBool(s)
	if err != nil {
		return err
	}
	c.values = append(c.values, v)
	c.push(true)
	return nil
}

func (c *boolean) null() {
	c.values = append(c.values, 0)
	c.push(false)
}

func (c *boolean) len() int   { return len(c.values) }
func (c *boolean) bytes() int { return 2 * len(c.values) }
func (c *boolean) cut(n int) {
	c.values = c.values[:n]
	c.validity.cut(n)
}

func (c *boolean) take() arrow.ArrayData {
	n := len(c.values)
	bits := make([]byte, bitutil.BytesForBits(int64(n)))
	for i, b := range c.values {
		bits[i>>3] |= b << (i & 7)
	}
	c.values = c.values[:0]
	bitmap, nulls := c.validity.take()
	return array.NewData(arrow.FixedWidthTypes.Boolean, n, []*memory.Buffer{bitmap, memory.NewBufferBytes(bits)}, nil, nulls, 0)
}

// varied is a column of texts or bytes.
type varied struct {
	validity
	kind    arrow.DataType
	offsets []int32 // one more than values
	data    []byte
	parse   func(s *scanner, to []byte) ([]byte, error) // appends one value to to
}

func newVaried(kind arrow.DataType, parse func(*scanner, []byte) ([]byte, error)) *varied {
	return &varied{kind: kind, offsets: []int32{0}, parse: parse}
}

func (c *varied) json(s *scanner, _ int) error {
	data, err := c.parse(s, c.data)
	if err != nil {
		return err
	}
	c.data = data
	c.end()
	return nil
}

func (c *varied) append(v []byte) {
	if v == nil {
		c.null()
		return
	}
	c.data = append(c.data, v...)
	c.end()
}

// end makes what was appended to data a value.
func (c *varied) end() {
	c.offsets = append(c.offsets, int32(len(c.data)))
	c.push(true)
}

// fewKeys are so few that comparing all of them is quicker than a map.
const fewKeys = 16

// twice returns a value that is there twice, from the first one on.
func (c *varied) twice(first int) ([]byte, bool) {
	n := c.len()
	value := func(i int) []byte { return c.data[c.offsets[i]:c.offsets[i+1]] }
	if n-first > fewKeys {
		seen := make(map[string]bool, n-first)
		for i := first; i < n; i++ {
			if seen[string(value(i))] {
				return value(i), true
			}
			seen[string(value(i))] = true
		}
		return nil, false
	}
	for i := first + 1; i < n; i++ {
		for j := first; j < i; j++ {
			if bytes.Equal(value(i), value(j)) {
				return value(i), true
			}
		}
	}
	return nil, false
}

func (c *varied) null() {
	c.offsets = append(c.offsets, int32(len(c.data)))
	c.push(false)
}

func (c *varied) len() int   { return c.n }
func (c *varied) bytes() int { return len(c.data) + 5*c.n }
func (c *varied) cut(n int) {
	c.offsets = c.offsets[:n+1]
	c.data = c.data[:c.offsets[n]]
	c.validity.cut(n)
}

func (c *varied) take() arrow.ArrayData {
	fits(len(c.data))
	n := c.n
	bitmap, nulls := c.validity.take()
	data := array.NewData(c.kind, n, []*memory.Buffer{
		bitmap, memory.NewBufferBytes(arrow.Int32Traits.CastToBytes(c.offsets)), memory.NewBufferBytes(c.data),
	}, nil, nulls, 0)
	c.offsets, c.data = append(fresh(c.offsets), 0), fresh(c.data)
	return data
}

// list is a column of lists; a map is one of key and value structs.
type list struct {
	validity
	kind     arrow.DataType
	offsets  []int32
	elements column
	parse    func(c *list, s *scanner, depth int) error // appends the elements of one value
}

func (c *list) json(s *scanner, depth int) error {
	if err := c.parse(c, s, depth); err != nil {
		return err
	}
	c.end()
	return nil
}

// end makes the elements that were appended a value.
func (c *list) end() {
	c.offsets = append(c.offsets, int32(c.elements.len()))
	c.push(true)
}

func (c *list) null() {
	c.offsets = append(c.offsets, int32(c.elements.len()))
	c.push(false)
}

func (c *list) len() int   { return c.n }
func (c *list) bytes() int { return 5*c.n + c.elements.bytes() }

// cut also drops elements of a list that was not finished.
func (c *list) cut(n int) {
	c.offsets = c.offsets[:n+1]
	c.elements.cut(int(c.offsets[n]))
	c.validity.cut(n)
}

func (c *list) take() arrow.ArrayData {
	fits(c.elements.len())
	n := c.n
	bitmap, nulls := c.validity.take()
	child := c.elements.take()
	data := array.NewData(c.kind, n, []*memory.Buffer{bitmap, memory.NewBufferBytes(arrow.Int32Traits.CastToBytes(c.offsets))}, []arrow.ArrayData{child}, nulls, 0)
	child.Release()
	c.offsets = append(fresh(c.offsets), 0)
	return data
}

// structure is a column of structs: the record itself is one.
type structure struct {
	validity
	kind    *arrow.StructType
	members []column
	names   map[string]int
	tokens  []string // what follows the opening quote of each member's key: `name":`; "" where JSON writes the name otherwise
	next    []int    // the member that followed each one the last time; the last element is for the first member
	seen    []uint64 // the object in which a member was seen last
	object  uint64   // counts objects
	unknown func(s *scanner, key []byte, depth int) error
}

func (c *structure) null() {
	for _, m := range c.members {
		m.null()
	}
	c.push(false)
}

func (c *structure) len() int { return c.n }

// memberGiven says whether a member of the last value is there.
func (c *structure) memberGiven(i int) bool { return c.members[i].(interface{ given() bool }).given() }

func (c *structure) bytes() int {
	n := c.n
	for _, m := range c.members {
		n += m.bytes()
	}
	return n
}

func (c *structure) cut(n int) {
	for _, m := range c.members {
		m.cut(n)
	}
	c.validity.cut(n)
}

func (c *structure) take() arrow.ArrayData {
	n := c.n
	bitmap, nulls := c.validity.take()
	children := make([]arrow.ArrayData, len(c.members))
	for i, m := range c.members {
		children[i] = m.take()
	}
	data := array.NewData(c.kind, n, []*memory.Buffer{bitmap}, children, nulls, 0)
	for _, child := range children {
		child.Release()
	}
	return data
}

// takeMembers takes the columns of a record, which is itself no column.
func (c *structure) takeMembers() []arrow.Array {
	arrays := make([]arrow.Array, len(c.members))
	for i, m := range c.members {
		arrays[i] = toArray(m.take())
	}
	c.validity.take()
	return arrays
}
