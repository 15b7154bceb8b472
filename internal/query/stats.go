package query

import (
	"cmp"
	"encoding/binary"

	"github.com/apache/iceberg-go"
)

// mayMatch says from a data file's statistics whether it may hold rows that are
// wanted. It errs to true only.
type mayMatch func(iceberg.DataFile) bool

func always(iceberg.DataFile) bool { return true }

func allOf(tests []mayMatch) mayMatch {
	return func(d iceberg.DataFile) bool {
		for _, t := range tests {
			if !t(d) {
				return false
			}
		}
		return true
	}
}

func anyOf(tests []mayMatch) mayMatch {
	return func(d iceberg.DataFile) bool {
		for _, t := range tests {
			if t(d) {
				return true
			}
		}
		return false
	}
}

// mayBeNull says whether a column may hold a NULL. A file that is older than the
// column has no count of it.
func mayBeNull(d iceberg.DataFile, id int) bool {
	nulls, known := d.NullValueCounts()[id]
	return !known || nulls > 0
}

// mayBeThere says whether a column may hold something else than NULL.
func mayBeThere(d iceberg.DataFile, id int) bool {
	nulls, known := d.NullValueCounts()[id]
	values, counted := d.ValueCounts()[id]
	return !known || !counted || nulls < values
}

// numberBound reads a bound of an INTEGER, BIGINT, DATE or TIMESTAMP. A column
// that was widened has bounds of both widths.
func numberBound(data []byte) (int64, bool) {
	switch len(data) {
	case 4:
		return int64(int32(binary.LittleEndian.Uint32(data))), true
	case 8:
		return int64(binary.LittleEndian.Uint64(data)), true
	}
	return 0, false
}

// textBound reads a bound of a VARCHAR. Long ones are cut: the lower one is then
// below, the upper one above every value. Texts compare by their bytes, here and
// in DuckDB.
func textBound(data []byte) (string, bool) { return string(data), len(data) > 0 }

// comparison tests a column against a value.
func comparison[T cmp.Ordered](f iceberg.NestedField, operator string, v T, read func([]byte) (T, bool)) mayMatch {
	return func(d iceberg.DataFile) bool {
		if !mayBeThere(d, f.ID) {
			return false // NULL is neither equal, nor less, nor more
		}
		low, hasLow := read(d.LowerBoundValues()[f.ID])
		high, hasHigh := read(d.UpperBoundValues()[f.ID])
		switch operator {
		case equal:
			return (!hasLow || low <= v) && (!hasHigh || v <= high)
		case less:
			return !hasLow || low < v
		case atMost:
			return !hasLow || low <= v
		case more:
			return !hasHigh || v < high
		default: // atLeast
			return !hasHigh || v <= high
		}
	}
}

// prefixed tests a text for how it begins.
func prefixed(f iceberg.NestedField, begins string) mayMatch {
	return func(d iceberg.DataFile) bool {
		low, hasLow := textBound(d.LowerBoundValues()[f.ID])
		high, hasHigh := textBound(d.UpperBoundValues()[f.ID])
		return mayBeThere(d, f.ID) && (!hasLow || low[:min(len(low), len(begins))] <= begins) && (!hasHigh || high >= begins)
	}
}
