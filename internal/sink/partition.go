package sink

import (
	"context"
	"fmt"
	"strings"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/compute"
	"github.com/apache/arrow-go/v18/arrow/extensions"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/apache/iceberg-go"
	"github.com/apache/iceberg-go/table"

	"github.com/frazil-io/frazil/internal/batch"
)

// partitioner divides rows by the table's partition spec. Partitions are told
// apart by typed values: iceberg-go's own writer does it by path, where NULL and
// the text "null" are one.
type partitioner struct {
	schema *arrow.Schema
	fields []partitionField
}

type partitionField struct {
	id        int
	column    int // of the files
	transform iceberg.Transform
}

// chunk is a record batch whose rows of one partition lie together.
type chunk struct {
	rows  arrow.RecordBatch
	bytes int64
	parts []part
}

// part is the rows [from, to) of a chunk, which are of one partition.
type part struct {
	key      string
	values   map[int]any // by partition field id; nil for NULL
	from, to int64
}

func newPartitioner(meta table.Metadata, l *layout) (*partitioner, error) {
	spec := meta.PartitionSpec()
	if spec.IsUnpartitioned() {
		return nil, nil
	}
	p := &partitioner{schema: l.files}
	for _, f := range spec.Fields() {
		if _, void := f.Transform.(iceberg.VoidTransform); void {
			continue
		}
		name, ok := l.table.FindColumnName(f.SourceIDs[0])
		columns := l.files.FieldIndices(name)
		if !ok || len(columns) != 1 {
			return nil, fmt.Errorf("%w: partition field %q is not on a column of its own, which is not supported", batch.ErrInvalid, f.Name)
		}
		p.fields = append(p.fields, partitionField{f.FieldID, columns[0], f.Transform})
	}
	return p, nil
}

// whole is a chunk of one partition, or of a table that has none.
func whole(rows arrow.RecordBatch, key string, values map[int]any) chunk {
	rows.Retain()
	c := chunk{rows: rows, parts: []part{{key: key, values: values, to: rows.NumRows()}}}
	for _, column := range rows.Columns() {
		c.bytes += int64(column.Data().SizeInBytes())
	}
	return c
}

// split brings the rows of each partition together; they keep their order. The
// caller releases the chunk's rows.
func (p *partitioner) split(ctx context.Context, rows arrow.RecordBatch) (chunk, error) {
	n := int(rows.NumRows())
	values := make([][]any, len(p.fields))
	of, groups := make([]int32, n), int32(min(n, 1))
	for k, f := range p.fields {
		v, err := f.apply(rows.Column(f.column))
		if err != nil {
			return chunk{}, err
		}
		values[k] = v
		groups = refine(of, v)
	}
	counts := make([]int64, groups)
	first := make([]int, groups)
	for i := n - 1; i >= 0; i-- {
		counts[of[i]]++
		first[of[i]] = i
	}
	parts := make([]part, groups)
	next := make([]int64, groups) // where the group's next row goes
	var from int64
	for g := range parts {
		parts[g] = part{key: keyOf(values, first[g]), values: map[int]any{}, from: from, to: from + counts[g]}
		for k, f := range p.fields {
			parts[g].values[f.id] = values[k][first[g]]
		}
		next[g], from = from, from+counts[g]
	}
	if groups == 1 {
		return whole(rows, parts[0].key, parts[0].values), nil
	}
	at := make([]int64, n)
	for i, g := range of {
		at[next[g]] = int64(i)
		next[g]++
	}
	moved, err := take(ctx, rows, at)
	if err != nil {
		return chunk{}, err
	}
	defer moved.Release()
	c := whole(moved, "", nil)
	c.parts = parts
	return c, nil
}

// refine divides the groups of rows by one more value. It returns how many there
// are; they are numbered in the order in which they come.
func refine(of []int32, values []any) int32 {
	type member struct {
		group int32
		value any
	}
	index := map[member]int32{}
	for i, v := range values {
		m := member{of[i], mapKey(v)}
		g, ok := index[m]
		if !ok {
			g = int32(len(index))
			index[m] = g
		}
		of[i] = g
	}
	return int32(len(index))
}

// mapKey returns v as the key of a map. NaN differs from itself, and bytes
// cannot be a key; as texts they keep their type.
func mapKey(v any) any {
	type text string
	switch v := v.(type) {
	case []byte:
		return text(v)
	case float32:
		if v != v {
			return text("NaN")
		}
	case float64:
		if v != v {
			return text("NaN")
		}
	}
	return v
}

// keyOf names the partition of a row. Types tell NULL from the text "null", and
// lengths where a text ends.
func keyOf(values [][]any, row int) string {
	var key strings.Builder
	for _, v := range values {
		text := fmt.Sprint(v[row])
		fmt.Fprintf(&key, "%T:%d:%s", v[row], len(text), text)
	}
	return key.String()
}

// take copies rows by their numbers.
func take(ctx context.Context, rows arrow.RecordBatch, at []int64) (arrow.RecordBatch, error) {
	if int64(len(at)) == rows.NumRows() && isSorted(at) {
		rows.Retain()
		return rows, nil
	}
	b := array.NewInt64Builder(memory.DefaultAllocator)
	defer b.Release()
	b.AppendValues(at, nil)
	indices := b.NewArray()
	defer indices.Release()
	columns := make([]arrow.Array, rows.NumCols())
	defer func() {
		for _, c := range columns {
			if c != nil {
				c.Release()
			}
		}
	}()
	for i, c := range rows.Columns() {
		var err error
		if columns[i], err = compute.TakeArray(ctx, c, indices); err != nil {
			return nil, fmt.Errorf("take rows of column %s: %w", rows.ColumnName(i), err)
		}
	}
	return array.NewRecordBatch(rows.Schema(), columns, int64(len(at))), nil
}

func isSorted(at []int64) bool {
	for i, v := range at {
		if v != int64(i) {
			return false
		}
	}
	return true
}

// apply computes the partition value of each row, nil for NULL.
func (f partitionField) apply(c arrow.Array) ([]any, error) {
	out := make([]any, c.Len())
	for i := range out {
		if c.IsNull(i) {
			continue
		}
		l, err := literal(c, i)
		if err != nil {
			return nil, err
		}
		if v := f.transform.Apply(iceberg.Optional[iceberg.Literal]{Valid: true, Val: l}); v.Valid {
			out[i] = v.Val.Any()
		}
	}
	return out, nil
}

// literal is one value as Iceberg's transforms take it.
func literal(c arrow.Array, i int) (iceberg.Literal, error) {
	switch c := c.(type) {
	case *array.Boolean:
		return iceberg.NewLiteral(c.Value(i)), nil
	case *array.Int32:
		return iceberg.NewLiteral(c.Value(i)), nil
	case *array.Int64:
		return iceberg.NewLiteral(c.Value(i)), nil
	case *array.Float32:
		return iceberg.NewLiteral(c.Value(i)), nil
	case *array.Float64:
		return iceberg.NewLiteral(c.Value(i)), nil
	case *array.String:
		return iceberg.NewLiteral(strings.Clone(c.Value(i))), nil
	case *array.Binary:
		return iceberg.NewLiteral(append([]byte{}, c.Value(i)...)), nil
	case *array.Date32:
		return iceberg.NewLiteral(iceberg.Date(c.Value(i))), nil
	case *array.Time64:
		return iceberg.NewLiteral(iceberg.Time(c.Value(i))), nil
	case *array.Timestamp:
		if c.DataType().(*arrow.TimestampType).Unit == arrow.Nanosecond {
			return iceberg.NewLiteral(iceberg.TimestampNano(c.Value(i))), nil
		}
		return iceberg.NewLiteral(iceberg.Timestamp(c.Value(i))), nil
	case *array.Decimal128:
		return iceberg.NewLiteral(iceberg.Decimal{Val: c.Value(i), Scale: int(c.DataType().(*arrow.Decimal128Type).Scale)}), nil
	case *extensions.UUIDArray:
		return iceberg.NewLiteral(c.Value(i)), nil
	}
	return nil, fmt.Errorf("%w: a column of type %s cannot partition a table", batch.ErrInvalid, c.DataType())
}
