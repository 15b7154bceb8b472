package decode

import (
	"errors"
	"fmt"
	"strings"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"

	"github.com/frazil-io/frazil/internal/batch"
)

// joined decodes a record's value and its key into the columns of both: the
// value's, then the key's. The key comes first, so that a bad value costs a row
// of the key that is taken back.
type joined struct {
	value  Decoder
	key    keyDecoder
	fields []arrow.Field
	// shared is, by column of the key, the column of the value that it completes;
	// -1: it stands beside.
	shared []int
}

// keyed is a value's decoder whose row may have the key's columns.
type keyed interface {
	// row is how many of the first fields are the row's.
	row() int
	// identify tells it which columns of the row the record's key gives; -1 asks
	// whether the key gives any column at all.
	identify(given func(column int) bool)
}

// WithKey joins decoders of values and of keys. A column's name in both is
// batch.ErrInvalid, except where the value is the envelope of a row: then it is
// one column, the row's, and the key's where the row has NULL.
func WithKey(value, key Decoder) (Decoder, error) {
	k, ok := key.(keyDecoder)
	if !ok {
		return nil, fmt.Errorf("%w: this format cannot be a key's", batch.ErrInvalid)
	}
	j := &joined{value: value, key: k, fields: value.Fields()}
	j.fields = j.fields[:len(j.fields):len(j.fields)]
	row, ok := value.(keyed)
	for _, f := range k.Fields() {
		at := -1
		if ok {
			at = find(j.fields[:row.row()], f.Name)
		}
		if at >= 0 && !arrow.TypeEqual(j.fields[at].Type, f.Type) {
			return nil, fmt.Errorf("%w: column %q is %s in columns and %s in key.columns; give both the same type", batch.ErrInvalid, f.Name, j.fields[at].Type, f.Type)
		}
		j.shared = append(j.shared, at)
		if at < 0 {
			j.fields = append(j.fields, f)
		}
	}
	if ok {
		row.identify(j.given)
	}
	return j, checkNames(j.fields)
}

// find is the index of the field that SQL takes for one of this name, -1 if there
// is none.
func find(fields []arrow.Field, name string) int {
	for i, f := range fields {
		if strings.EqualFold(f.Name, name) {
			return i
		}
	}
	return -1
}

// checkNames refuses two columns of one name.
func checkNames(fields []arrow.Field) error {
	for i, f := range fields {
		if at := find(fields[:i], f.Name); at >= 0 {
			return fmt.Errorf("%w: column %q is there twice, as %q: the key's columns, those of the envelope and the value's need names of their own; SQL does not tell upper from lower case", batch.ErrInvalid, f.Name, fields[at].Name)
		}
	}
	return nil
}

// given says whether the key of the record in the making has a value for a column
// of the row.
func (j *joined) given(column int) bool {
	for i, at := range j.shared {
		if at == column || column < 0 && j.key.given(i) {
			return j.key.given(i)
		}
	}
	return false
}

// Fields implements Decoder.
func (j *joined) Fields() []arrow.Field { return j.fields }

// Rows implements Decoder.
func (j *joined) Rows() int { return j.value.Rows() }

// Unpacked implements Unpacked.
func (j *joined) Unpacked() int {
	if u, ok := j.value.(Unpacked); ok {
		return u.Unpacked()
	}
	return 0
}

// Bytes implements Decoder.
func (j *joined) Bytes() int { return j.value.Bytes() + j.key.Bytes() }

// Append implements Decoder.
func (j *joined) Append(r Record) error {
	n := j.key.Rows()
	if err := j.key.Append(Record{Value: r.Key, Headers: r.Headers}); err != nil {
		return ofKey(err)
	}
	if err := j.value.Append(r); err != nil {
		j.key.cut(n)
		return err
	}
	return nil
}

// ofKey says that it is the key that is wrong.
func ofKey(err error) error {
	var e *Error
	if !errors.As(err, &e) {
		return fmt.Errorf("key: %w", err)
	}
	return &Error{Code: e.Code, Reason: e.Reason, Pos: e.Pos, Key: true}
}

// Take implements Decoder.
func (j *joined) Take() []arrow.Array {
	arrays := j.value.Take()
	for i, a := range j.key.Take() {
		at := j.shared[i]
		if at < 0 {
			arrays = append(arrays, a)
			continue
		}
		if arrays[at].NullN() > 0 {
			row := arrays[at]
			merged := choose(row, a, row.IsNull)
			arrays[at].Release()
			arrays[at] = merged
		}
		a.Release()
	}
	return arrays
}

// choose returns the values of one array, and of another where it says so.
func choose(a, b arrow.Array, other func(i int) bool) arrow.Array {
	var parts []arrow.Array
	for start := 0; start < a.Len(); {
		second := other(start)
		end := start + 1
		for end < a.Len() && other(end) == second {
			end++
		}
		from := a
		if second {
			from = b
		}
		parts = append(parts, array.NewSlice(from, int64(start), int64(end)))
		start = end
	}
	merged, err := array.Concatenate(parts, memory.DefaultAllocator)
	for _, p := range parts {
		p.Release()
	}
	if err != nil {
		panic("decode: two columns of one type: " + err.Error())
	}
	return merged
}
