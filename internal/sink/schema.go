package sink

import (
	"context"
	"fmt"
	"strconv"
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
	// table is the schema that files are written for: the table's, or the one that
	// it gets with the first of them.
	table   *iceberg.Schema
	columns *arrow.Schema // of table
	files   *arrow.Schema // the same, but that all fields are nullable that may become optional
	from    []origin      // by column
	held    map[int]bool  // fields that stay required
	relaxes bool          // a NULL where the table requires a value makes the field optional
	changes []Change
}

// check makes sure that the SQL's rows fit the table, and that the table is
// divided and sorted as the spec says, where it says so. It returns how the table
// differs from them otherwise.
func (t *Table) check(tbl *table.Table, rows *arrow.Schema) ([]Change, error) {
	l, err := t.layout(tbl.Metadata(), rows)
	if err != nil {
		return nil, err
	}
	var wrong []string
	if len(t.opts.PartitionBy) > 0 {
		want, err := partitionSpec(l.table, t.opts.PartitionBy)
		if err != nil {
			return nil, err
		}
		if got, want := partitionTerms(l.table, tbl.Spec()), partitionTerms(l.table, want); got != want {
			wrong = append(wrong, fmt.Sprintf("it is partitioned by [%s], and partition_by says [%s]", got, want))
		}
	}
	if len(t.opts.SortBy) > 0 {
		want, err := sortOrder(l.table, t.opts.SortBy)
		if err != nil {
			return nil, err
		}
		if got, want := sortTerms(l.table, tbl.SortOrder()), sortTerms(l.table, want); got != want {
			wrong = append(wrong, fmt.Sprintf("it is sorted by [%s], and sort_by says [%s]", got, want))
		}
	}
	if len(wrong) > 0 {
		return nil, fmt.Errorf("%w: table %s exists and is not as the spec says; change the table with another engine, or the spec, or leave the key out:\n  %s",
			batch.ErrInvalid, t.opts.Table, strings.Join(wrong, "\n  "))
	}
	return l.changes, nil
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
// that was only proposed are others, and columns would change places. Where
// Options.Evolve allows it, the table's schema grows to take the SQL's rows.
func (t *Table) layout(meta table.Metadata, rows *arrow.Schema) (*layout, error) {
	invalid := func(err error) error {
		return fmt.Errorf("%w: the schema of table %s: %w", batch.ErrInvalid, t.opts.Table, err)
	}
	current := meta.CurrentSchema()
	types, held, err := frozen(meta, current)
	if err != nil {
		return nil, invalid(err)
	}
	f := &fitting{how: t.opts.Evolve, version: meta.Version(), last: meta.LastColumnID(), frozen: types, held: held}
	fields, from := f.fields("", current.Fields(), rows.Fields())
	if len(f.wrong) > 0 {
		return nil, fmt.Errorf("%w: table %s does not fit the sink's SQL:\n  %s", batch.ErrInvalid, t.opts.Table, strings.Join(f.wrong, "\n  "))
	}
	l := &layout{table: current, from: from, held: held, relaxes: f.how != EvolveNone, changes: f.changes}
	if len(evolving(f.changes)) > 0 {
		l.table = successor(meta, current, fields)
	}
	if l.columns, err = table.SchemaToArrowSchema(l.table, nil, true, false); err != nil {
		return nil, invalid(err)
	}
	l.files = l.columns
	if l.relaxes {
		l.files, err = table.SchemaToArrowSchema(iceberg.NewSchema(0, relaxed(l.table.Fields(), l.mayRelax)...), nil, true, false)
		if err != nil {
			return nil, invalid(err)
		}
	}
	return l, nil
}

// mayRelax says whether a field may become optional.
func (l *layout) mayRelax(id int) bool { return l.relaxes && !l.held[id] }

// fits says whether values of type from can be stored as to without loss. Neither
// has fields.
func fits(from, to arrow.DataType) bool {
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

// conform turns rows of the SQL into rows of the table's files. nulls are the ids
// of fields that the table requires and that may become optional, of which some
// rows have NULL.
func (l *layout) conform(ctx context.Context, rows arrow.RecordBatch) (stored arrow.RecordBatch, nulls map[int]bool, err error) {
	columns := make([]arrow.Array, len(l.from))
	defer func() {
		for _, c := range columns {
			if c != nil {
				c.Release()
			}
		}
	}()
	for i, f := range l.files.Fields() {
		if l.from[i].from < 0 {
			columns[i] = array.MakeArrayOfNull(memory.DefaultAllocator, f.Type, int(rows.NumRows()))
			continue
		}
		if columns[i], err = storedAs(ctx, rows.Column(l.from[i].from), f.Type, l.from[i]); err != nil {
			return nil, nil, fmt.Errorf("%w: column %q: %w", batch.ErrInvalid, f.Name, err)
		}
		missing(columns[i], l.columns.Field(i), nil, func(path string, f arrow.Field, n int) {
			switch id := fieldID(f); {
			case l.mayRelax(id):
				if nulls == nil {
					nulls = map[int]bool{}
				}
				nulls[id] = true
			case err == nil: // iceberg-go would store zeros
				err = fmt.Errorf("%w: column %q is required in the table, but %d rows have NULL there; filter them out, or give a value with coalesce", batch.ErrInvalid, path, n)
			}
		})
		if err != nil {
			return nil, nil, err
		}
	}
	return array.NewRecordBatch(l.files, columns, rows.NumRows()), nulls, nil
}

// fieldID is the table's id of a field of files.
func fieldID(f arrow.Field) int {
	text, _ := f.Metadata.GetValue(table.ArrowParquetFieldIDKey)
	id, err := strconv.Atoi(text)
	if err != nil {
		panic("sink: a field of a file without an id: " + f.Name)
	}
	return id
}

// storedAs returns c as type t: the same buffers where only names differ.
func storedAs(ctx context.Context, c arrow.Array, t arrow.DataType, o origin) (arrow.Array, error) {
	data, err := storedData(ctx, c.Data(), t, o)
	if err != nil {
		return nil, err
	}
	defer data.Release()
	return array.MakeFromData(data), nil
}

func storedData(ctx context.Context, d arrow.ArrayData, t arrow.DataType, o origin) (arrow.ArrayData, error) {
	nested, ok := t.(arrow.NestedType)
	switch {
	case ok:
		children, err := storedChildren(ctx, d, nested, o)
		defer func() {
			for _, c := range children {
				c.Release()
			}
		}()
		if err != nil {
			return nil, err
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

// storedChildren returns the fields inside of d as those of t, which the caller
// releases, also with an error.
func storedChildren(ctx context.Context, d arrow.ArrayData, t arrow.NestedType, o origin) (children []arrow.ArrayData, err error) {
	for i, f := range t.Fields() {
		from := origin{from: i}
		if o.inner != nil {
			from = o.inner[i]
		}
		if from.from < 0 {
			none := array.MakeArrayOfNull(memory.DefaultAllocator, f.Type, d.Offset()+d.Len())
			none.Data().Retain()
			children = append(children, none.Data())
			none.Release()
			continue
		}
		child, err := storedData(ctx, d.Children()[from.from], f.Type, from)
		if err != nil {
			return children, err
		}
		children = append(children, child)
	}
	return children, nil
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

// missing tells of each required field, the column or one inside of it, that has
// NULL where what holds it is there: its path, and of how many values. there says
// which values are looked at, nil for all.
func missing(c arrow.Array, f arrow.Field, there []bool, tell func(path string, f arrow.Field, n int)) {
	if !f.Nullable && c.NullN() > 0 {
		n := 0
		for i := range c.Len() {
			if (there == nil || there[i]) && c.IsNull(i) {
				n++
			}
		}
		if n > 0 {
			tell(f.Name, f, n)
		}
	}
	nested, ok := f.Type.(arrow.NestedType)
	if !ok || !requires(nested) {
		return
	}
	inner := func(path string, g arrow.Field, n int) { tell(f.Name+"."+path, g, n) }
	is := func(i int) bool { return (there == nil || there[i]) && c.IsValid(i) }
	switch c := c.(type) {
	case *array.Struct:
		inside := make([]bool, c.Len())
		for i := range inside {
			inside[i] = is(i)
		}
		for k, g := range nested.Fields() {
			missing(c.Field(k), g, inside, inner)
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
		missing(values, nested.Fields()[0], inside, inner)
	}
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
