package sink

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"slices"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/extensions"
	"github.com/apache/iceberg-go"
	"github.com/apache/iceberg-go/table"
)

// sorter orders rows by the table's sort order.
type sorter struct{ terms []sortTerm }

type sortTerm struct {
	column     int
	descending bool
	nullsLast  bool
}

// newSorter returns nil where the table has no sort order that can be followed.
// An order is a promise about files only where they say so, so leaving it out is
// allowed.
func newSorter(meta table.Metadata, l *layout) *sorter {
	s := &sorter{}
	for _, f := range meta.SortOrder().Fields() {
		name, ok := l.table.FindColumnName(f.SourceIDs[0])
		columns := l.files.FieldIndices(name)
		if _, identity := f.Transform.(iceberg.IdentityTransform); !ok || len(columns) != 1 || !identity {
			return nil
		}
		s.terms = append(s.terms, sortTerm{columns[0], f.Direction == table.SortDESC, f.NullOrder == table.NullsLast})
	}
	if len(s.terms) == 0 {
		return nil
	}
	return s
}

// sort returns the rows in order; equal ones keep theirs.
func (s *sorter) sort(ctx context.Context, rows arrow.RecordBatch) (arrow.RecordBatch, error) {
	var compare []func(a, b int64) int
	for _, t := range s.terms {
		values, err := comparer(rows.Column(t.column))
		if err != nil {
			return nil, err
		}
		compare = append(compare, t.compare(rows.Column(t.column), values))
	}
	at := make([]int64, rows.NumRows())
	for i := range at {
		at[i] = int64(i)
	}
	slices.SortStableFunc(at, func(a, b int64) int {
		for _, c := range compare {
			if v := c(a, b); v != 0 {
				return v
			}
		}
		return 0
	})
	return take(ctx, rows, at)
}

func (t sortTerm) compare(c arrow.Array, values func(a, b int) int) func(a, b int64) int {
	null := -1
	if t.nullsLast {
		null = 1
	}
	return func(a, b int64) int {
		switch x, y := c.IsNull(int(a)), c.IsNull(int(b)); {
		case x && y:
			return 0
		case x:
			return null
		case y:
			return -null
		}
		v := values(int(a), int(b))
		if t.descending {
			return -v
		}
		return v
	}
}

func ordered[T cmp.Ordered](value func(int) T) func(a, b int) int {
	return func(a, b int) int { return cmp.Compare(value(a), value(b)) }
}

// comparer compares two values of a column.
func comparer(c arrow.Array) (func(a, b int) int, error) {
	switch c := c.(type) {
	case *array.Int32:
		return ordered(c.Value), nil
	case *array.Int64:
		return ordered(c.Value), nil
	case *array.Float32:
		return ordered(c.Value), nil
	case *array.Float64:
		return ordered(c.Value), nil
	case *array.String:
		return ordered(c.Value), nil
	case *array.Date32:
		return ordered(c.Value), nil
	case *array.Time64:
		return ordered(c.Value), nil
	case *array.Timestamp:
		return ordered(c.Value), nil
	case *array.Binary:
		return func(a, b int) int { return bytes.Compare(c.Value(a), c.Value(b)) }, nil
	case *array.Decimal128:
		return func(a, b int) int { return c.Value(a).Cmp(c.Value(b)) }, nil
	case *extensions.UUIDArray:
		return func(a, b int) int {
			x, y := c.Value(a), c.Value(b)
			return bytes.Compare(x[:], y[:])
		}, nil
	case *array.Boolean:
		return ordered(func(i int) int {
			if c.Value(i) {
				return 1
			}
			return 0
		}), nil
	}
	return nil, fmt.Errorf("a column of type %s cannot be sorted by", c.DataType())
}
