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

// piece is the rows of one partition.
type piece struct {
	key    string
	values map[int]any // by partition field id; nil for NULL
	rows   arrow.RecordBatch
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

// split divides rows. The caller releases the pieces.
func (p *partitioner) split(ctx context.Context, rows arrow.RecordBatch) ([]piece, error) {
	n := int(rows.NumRows())
	keys := make([]strings.Builder, n)
	values := make([][]any, len(p.fields))
	for k, f := range p.fields {
		v, err := f.apply(rows.Column(f.column))
		if err != nil {
			return nil, err
		}
		values[k] = v
		for i := range n {
			fmt.Fprintf(&keys[i], "%T:%v\x00", v[i], v[i])
		}
	}
	index := map[string][]int64{}
	var order []string
	for i := range n {
		key := keys[i].String()
		if _, ok := index[key]; !ok {
			order = append(order, key)
		}
		index[key] = append(index[key], int64(i))
	}
	var pieces []piece
	for _, key := range order {
		at := index[key]
		out := piece{key: key, values: map[int]any{}}
		for k, f := range p.fields {
			out.values[f.id] = values[k][at[0]]
		}
		var err error
		if out.rows, err = take(ctx, rows, at); err != nil {
			releasePieces(pieces)
			return nil, err
		}
		pieces = append(pieces, out)
	}
	return pieces, nil
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
