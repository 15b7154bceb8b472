package sink

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/compute"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/apache/iceberg-go"
	"github.com/apache/iceberg-go/table"

	"github.com/frazil-io/frazil/internal/batch"
)

// layout leads from the SQL's columns to those of the table's files.
type layout struct {
	table *iceberg.Schema
	files *arrow.Schema // with the table's field ids
	from  []int         // by column of the table: the SQL's column, -1 for none
}

// check makes sure that the SQL's rows fit the table, and that the table is
// divided and sorted as the spec says, where it says so.
func (t *Table) check(tbl *table.Table) error {
	if _, err := t.layout(tbl.Schema()); err != nil {
		return err
	}
	var wrong []string
	if len(t.opts.PartitionBy) > 0 {
		want, err := partitionSpec(tbl.Schema(), t.opts.PartitionBy)
		if err != nil {
			return err
		}
		if got, want := partitionTerms(tbl.Schema(), tbl.Spec()), partitionTerms(tbl.Schema(), want); got != want {
			wrong = append(wrong, fmt.Sprintf("it is partitioned by [%s], and partition_by says [%s]", got, want))
		}
	}
	if len(t.opts.SortBy) > 0 {
		want, err := sortOrder(tbl.Schema(), t.opts.SortBy)
		if err != nil {
			return err
		}
		if got, want := sortTerms(tbl.Schema(), tbl.SortOrder()), sortTerms(tbl.Schema(), want); got != want {
			wrong = append(wrong, fmt.Sprintf("it is sorted by [%s], and sort_by says [%s]", got, want))
		}
	}
	if len(wrong) > 0 {
		return fmt.Errorf("%w: table %s exists and is not as the spec says; change the table with another engine, or the spec, or leave the key out:\n  %s",
			batch.ErrInvalid, t.opts.Table, strings.Join(wrong, "\n  "))
	}
	return nil
}

// partitionTerms writes a spec as partition_by has it.
func partitionTerms(schema *iceberg.Schema, spec iceberg.PartitionSpec) string {
	var terms []string
	for _, f := range spec.Fields() {
		if _, void := f.Transform.(iceberg.VoidTransform); !void {
			terms = append(terms, term(schema, f.Transform, f.SourceIDs[0]))
		}
	}
	return strings.Join(terms, ", ")
}

// sortTerms writes an order as sort_by has it.
func sortTerms(schema *iceberg.Schema, order table.SortOrder) string {
	var terms []string
	for _, f := range order.Fields() {
		text := term(schema, f.Transform, f.SourceIDs[0])
		if f.Direction == table.SortDESC {
			text += " desc"
		}
		terms = append(terms, text)
	}
	return strings.Join(terms, ", ")
}

// term is a transform of a column as the spec has it.
func term(schema *iceberg.Schema, tr iceberg.Transform, source int) string {
	column, ok := schema.FindColumnName(source)
	if !ok {
		column = fmt.Sprintf("field %d", source)
	}
	switch tr := tr.(type) {
	case iceberg.IdentityTransform:
		return column
	case iceberg.BucketTransform:
		return fmt.Sprintf("bucket(%d, %s)", tr.NumBuckets, column)
	case iceberg.TruncateTransform:
		return fmt.Sprintf("truncate(%d, %s)", tr.Width, column)
	}
	return fmt.Sprintf("%s(%s)", tr, column)
}

// layout matches columns by name. The ids come from the table: those of a schema
// that was only proposed are others, and columns would change places.
func (t *Table) layout(schema *iceberg.Schema) (*layout, error) {
	files, err := table.SchemaToArrowSchema(schema, nil, true, false)
	if err != nil {
		return nil, fmt.Errorf("%w: the schema of table %s: %w", batch.ErrInvalid, t.opts.Table, err)
	}
	l := &layout{table: schema, files: files}
	var wrong []string
	taken := map[int]bool{}
	l.from = t.match(files)
	for k, f := range files.Fields() {
		i := l.from[k]
		taken[i] = true
		switch {
		case i < 0 && !f.Nullable:
			wrong = append(wrong, fmt.Sprintf("column %q is required in the table and missing in the SQL", f.Name))
		case i >= 0 && !fits(t.rows.Field(i).Type, f.Type):
			wrong = append(wrong, fmt.Sprintf("column %q is %s in the table and %s in the SQL: cast it", f.Name, f.Type, t.rows.Field(i).Type))
		}
	}
	for i, f := range t.rows.Fields() {
		if !taken[i] {
			wrong = append(wrong, fmt.Sprintf("column %q (%s) of the SQL is missing in the table: add it to the table, or leave it out", f.Name, f.Type))
		}
	}
	if len(wrong) > 0 {
		return nil, fmt.Errorf("%w: table %s does not fit the sink's SQL:\n  %s", batch.ErrInvalid, t.opts.Table, strings.Join(wrong, "\n  "))
	}
	return l, nil
}

// match finds the SQL's column for each of the table's: by its exact name, or, as
// SQL does, without regard to case where that column is no other's.
func (t *Table) match(files *arrow.Schema) []int {
	from := make([]int, files.NumFields())
	taken := map[int]bool{}
	find := func(k int, same func(a, b string) bool) {
		for i, f := range t.rows.Fields() {
			if !taken[i] && same(f.Name, files.Field(k).Name) {
				from[k], taken[i] = i, true
				return
			}
		}
	}
	for k := range from {
		from[k] = -1
		find(k, func(a, b string) bool { return a == b })
	}
	for k := range from {
		if from[k] < 0 {
			find(k, strings.EqualFold)
		}
	}
	return from
}

// fits says whether values of type from can be stored as to without loss.
func fits(from, to arrow.DataType) bool {
	switch to := to.(type) {
	case *arrow.ListType:
		l, ok := from.(*arrow.ListType)
		return ok && fits(l.Elem(), to.Elem())
	case *arrow.MapType:
		m, ok := from.(*arrow.MapType)
		return ok && fits(m.KeyType(), to.KeyType()) && fits(m.ItemType(), to.ItemType())
	case *arrow.StructType:
		s, ok := from.(*arrow.StructType)
		if !ok || s.NumFields() != to.NumFields() {
			return false
		}
		for i, f := range to.Fields() {
			if s.Field(i).Name != f.Name || !fits(s.Field(i).Type, f.Type) {
				return false
			}
		}
		return true
	}
	if arrow.TypeEqual(from, to) {
		return true
	}
	switch to.ID() {
	case arrow.INT32:
		return from.ID() == arrow.INT8 || from.ID() == arrow.INT16 || from.ID() == arrow.UINT8 || from.ID() == arrow.UINT16
	case arrow.INT64:
		return arrow.IsInteger(from.ID()) && from.ID() != arrow.UINT64
	case arrow.FLOAT64:
		return from.ID() == arrow.FLOAT32
	case arrow.DECIMAL128:
		d := to.(*arrow.Decimal128Type)
		s, ok := from.(*arrow.Decimal128Type)
		return ok && s.Scale == d.Scale && s.Precision <= d.Precision || from.ID() == arrow.UINT64 && d.Scale == 0 && d.Precision >= 20
	case arrow.TIMESTAMP:
		s, ok := from.(*arrow.TimestampType)
		d := to.(*arrow.TimestampType)
		return ok && (s.TimeZone == "") == (d.TimeZone == "") && s.Unit <= d.Unit
	}
	return false
}

// conform turns rows of the SQL into rows of the table's files.
func (l *layout) conform(ctx context.Context, rows arrow.RecordBatch) (arrow.RecordBatch, error) {
	columns := make([]arrow.Array, len(l.from))
	defer func() {
		for _, c := range columns {
			if c != nil {
				c.Release()
			}
		}
	}()
	for i, f := range l.files.Fields() {
		if l.from[i] < 0 {
			columns[i] = array.MakeArrayOfNull(memory.DefaultAllocator, f.Type, int(rows.NumRows()))
			continue
		}
		c := rows.Column(l.from[i])
		if !f.Nullable && c.NullN() > 0 { // iceberg-go would store zeros
			return nil, fmt.Errorf("%w: column %q is required in the table, but %d rows have NULL there; filter them out, or give a value with coalesce", batch.ErrInvalid, f.Name, c.NullN())
		}
		var err error
		if columns[i], err = stored(ctx, c, f.Type); err != nil {
			return nil, fmt.Errorf("%w: column %q: %w", batch.ErrInvalid, f.Name, err)
		}
		if path := missing(columns[i], f, nil); path != "" {
			return nil, fmt.Errorf("%w: column %q: %q is required in the table, but rows have NULL there; give a value with coalesce, or leave such rows out", batch.ErrInvalid, f.Name, path)
		}
	}
	return array.NewRecordBatch(l.files, columns, rows.NumRows()), nil
}

// stored returns c as type t: the same buffers where only names differ.
func stored(ctx context.Context, c arrow.Array, t arrow.DataType) (arrow.Array, error) {
	data, err := storedData(ctx, c.Data(), t)
	if err != nil {
		return nil, err
	}
	defer data.Release()
	return array.MakeFromData(data), nil
}

func storedData(ctx context.Context, d arrow.ArrayData, t arrow.DataType) (arrow.ArrayData, error) {
	nested, ok := t.(arrow.NestedType)
	switch {
	case ok:
		var children []arrow.ArrayData
		var failed error
		for i, f := range nested.Fields() {
			child, err := storedData(ctx, d.Children()[i], f.Type)
			if err != nil {
				failed = errors.Join(failed, err)
				continue
			}
			defer child.Release()
			children = append(children, child)
		}
		if failed != nil {
			return nil, failed
		}
		return array.NewData(t, d.Len(), d.Buffers(), children, d.NullN(), d.Offset()), nil
	case d.DataType().ID() == t.ID() && sameStorage(d.DataType(), t):
		return array.NewData(t, d.Len(), d.Buffers(), nil, d.NullN(), d.Offset()), nil
	}
	from := array.MakeFromData(d)
	defer from.Release()
	out, err := compute.CastArray(ctx, from, compute.SafeCastOptions(t))
	if err != nil {
		return nil, err
	}
	defer out.Release()
	out.Data().Retain()
	return out.Data(), nil
}

// sameStorage says whether equal bytes mean equal values.
func sameStorage(from, to arrow.DataType) bool {
	switch to := to.(type) {
	case *arrow.TimestampType:
		return from.(*arrow.TimestampType).Unit == to.Unit
	case *arrow.Decimal128Type:
		return from.(*arrow.Decimal128Type).Scale == to.Scale
	}
	return true
}

// missing returns the path of a required field inside of a column that has NULL
// where what holds it is there, "" if there is none. there says which values of
// the column are looked at, nil for all.
func missing(c arrow.Array, f arrow.Field, there []bool) string {
	nested, ok := f.Type.(arrow.NestedType)
	if !ok || !requires(nested) {
		return ""
	}
	is := func(i int) bool { return (there == nil || there[i]) && c.IsValid(i) }
	switch c := c.(type) {
	case *array.Struct:
		inside := make([]bool, c.Len())
		for i := range inside {
			inside[i] = is(i)
		}
		for k, inner := range nested.Fields() {
			if path := missingIn(c.Field(k), inner, inside); path != "" {
				return f.Name + "." + path
			}
		}
	case array.ListLike: // a map is a list of its entries
		values := c.ListValues()
		inside := make([]bool, values.Len())
		for i := range c.Len() {
			if start, end := c.ValueOffsets(i); is(i) {
				for k := start; k < end; k++ {
					inside[k] = true
				}
			}
		}
		if path := missingIn(values, nested.Fields()[0], inside); path != "" {
			return f.Name + "." + path
		}
	}
	return ""
}

// missingIn is missing for a field whose own NULLs count, too.
func missingIn(c arrow.Array, f arrow.Field, there []bool) string {
	if !f.Nullable && c.NullN() > 0 {
		for i, is := range there {
			if is && c.IsNull(i) {
				return f.Name
			}
		}
	}
	return missing(c, f, there)
}

// requires says whether any field inside of a type is required.
func requires(t arrow.NestedType) bool {
	for _, f := range t.Fields() {
		if inner, ok := f.Type.(arrow.NestedType); !f.Nullable || ok && requires(inner) {
			return true
		}
	}
	return false
}
