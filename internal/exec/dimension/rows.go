package dimension

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/apache/arrow-go/v18/parquet"
	"github.com/apache/arrow-go/v18/parquet/compress"
	"github.com/apache/arrow-go/v18/parquet/file"
	"github.com/apache/arrow-go/v18/parquet/pqarrow"

	"github.com/frazil-io/frazil/internal/batch"
)

// encode writes rows as Parquet. Equal rows have equal bytes.
func encode(rows arrow.RecordBatch) ([]byte, error) {
	var out bytes.Buffer
	w, err := pqarrow.NewFileWriter(rows.Schema(), &out, parquet.NewWriterProperties(parquet.WithCompression(compress.Codecs.Zstd)),
		pqarrow.NewArrowWriterProperties(pqarrow.WithStoreSchema()))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", batch.ErrInvalid, err)
	}
	if err := errors.Join(w.WriteBuffered(rows), w.Close()); err != nil {
		return nil, fmt.Errorf("%w: %w", batch.ErrInvalid, err)
	}
	return out.Bytes(), nil
}

// reading opens Parquet.
func reading(data []byte) (*pqarrow.FileReader, error) {
	pf, err := file.NewParquetReader(bytes.NewReader(data), file.WithReadProps(parquet.NewReaderProperties(memory.DefaultAllocator)))
	if err != nil {
		return nil, fmt.Errorf("%w: it is not Parquet: %w", batch.ErrInvalid, err)
	}
	r, err := pqarrow.NewFileReader(pf, pqarrow.ArrowReadProperties{}, memory.DefaultAllocator)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", batch.ErrInvalid, err)
	}
	return r, nil
}

// fieldsOf returns the columns of Parquet.
func fieldsOf(data []byte) ([]arrow.Field, error) {
	r, err := reading(data)
	if err != nil {
		return nil, err
	}
	schema, err := r.Schema()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", batch.ErrInvalid, err)
	}
	return nullable(schema.Fields()), nil
}

// nullable takes from columns what SQL does not know: ids, and that they are
// required.
func nullable(fields []arrow.Field) []arrow.Field {
	out := make([]arrow.Field, 0, len(fields))
	for _, f := range fields {
		out = append(out, arrow.Field{Name: f.Name, Type: f.Type, Nullable: true})
	}
	return out
}

// decode reads the columns fields of Parquet, with at most bytesMax in memory.
func decode(ctx context.Context, data []byte, fields []arrow.Field, bytesMax int64) (arrow.RecordBatch, error) {
	r, err := reading(data)
	if err != nil {
		return nil, err
	}
	var unpacked int64
	for i := range r.ParquetReader().NumRowGroups() {
		unpacked += r.ParquetReader().MetaData().RowGroups[i].GetTotalByteSize()
	}
	if bytesMax > 0 && unpacked > bytesMax {
		return nil, tooLarge(unpacked, bytesMax)
	}
	t, err := r.ReadTable(ctx)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", batch.ErrInvalid, err)
	}
	defer t.Release()
	reader := array.NewTableReader(t, 0)
	defer reader.Release()
	p := parts{bytesMax: bytesMax}
	defer p.release()
	for reader.Next() {
		if err := p.add(reader.RecordBatch()); err != nil {
			return nil, err
		}
	}
	return p.joined(fields, t.Schema())
}

// parts are pieces of a table.
type parts struct {
	rows     []arrow.RecordBatch
	bytes    int64
	bytesMax int64
}

func (p *parts) add(rows arrow.RecordBatch) error {
	rows.Retain()
	p.rows = append(p.rows, rows)
	if p.bytes += Size(rows); p.bytesMax > 0 && p.bytes > p.bytesMax {
		return tooLarge(p.bytes, p.bytesMax)
	}
	return nil
}

// Size is how many bytes the buffers of rows take.
func Size(rows arrow.RecordBatch) (bytes int64) {
	var count func(d arrow.ArrayData)
	count = func(d arrow.ArrayData) {
		for _, b := range d.Buffers() {
			if b != nil {
				bytes += int64(b.Len())
			}
		}
		for _, c := range d.Children() {
			count(c)
		}
		if d.DataType().ID() == arrow.DICTIONARY {
			count(d.Dictionary())
		}
	}
	for _, c := range rows.Columns() {
		count(c.Data())
	}
	return bytes
}

func (p *parts) release() {
	for _, r := range p.rows {
		r.Release()
	}
}

// joined copies the pieces into one: the columns fields, found by their names.
// schema is that of the pieces, should there be none.
func (p *parts) joined(fields []arrow.Field, schema *arrow.Schema) (arrow.RecordBatch, error) {
	var rows int64
	for _, r := range p.rows {
		rows += r.NumRows()
		schema = r.Schema()
	}
	columns := make([]arrow.Array, len(fields))
	defer func() {
		for _, c := range columns {
			if c != nil {
				c.Release()
			}
		}
	}()
	for i, f := range fields {
		at := schema.FieldIndices(f.Name)
		if len(at) != 1 {
			return nil, fmt.Errorf("%w: it has no column %q any more; start the pipeline again to use the table as it is now", batch.ErrInvalid, f.Name)
		}
		if have := schema.Field(at[0]).Type; !alike(have, f.Type) {
			return nil, fmt.Errorf("%w: column %q is %s, and was %s when the pipeline started; start it again to use the table as it is now", batch.ErrInvalid, f.Name, TypeName(have), TypeName(f.Type))
		}
		var err error
		if columns[i], err = p.column(at[0], f); err != nil {
			return nil, err
		}
	}
	return array.NewRecordBatch(arrow.NewSchema(fields, nil), columns, rows), nil
}

func (p *parts) column(at int, f arrow.Field) (arrow.Array, error) {
	if len(p.rows) == 0 {
		b := array.NewBuilder(memory.DefaultAllocator, f.Type)
		defer b.Release()
		return b.NewArray(), nil
	}
	pieces := make([]arrow.Array, len(p.rows))
	for k, r := range p.rows {
		data := retyped(r.Column(at).Data(), f.Type)
		pieces[k] = array.MakeFromData(data)
		data.Release()
		defer pieces[k].Release()
	}
	joined, err := array.Concatenate(pieces, memory.DefaultAllocator)
	if err != nil {
		return nil, fmt.Errorf("%w: column %s: %w", batch.ErrInvalid, f.Name, err)
	}
	return joined, nil
}

// alike says whether two types lie in memory in the same way and mean the same:
// only names of their parts may differ.
func alike(a, b arrow.DataType) bool {
	na, ok := a.(arrow.NestedType)
	if !ok {
		return arrow.TypeEqual(a, b)
	}
	nb, ok := b.(arrow.NestedType)
	if !ok || a.ID() != b.ID() || len(na.Fields()) != len(nb.Fields()) {
		return false
	}
	for i, f := range na.Fields() {
		if g := nb.Fields()[i]; !alike(f.Type, g.Type) || a.ID() == arrow.STRUCT && f.Name != g.Name {
			return false
		}
	}
	return true
}

// retyped gives data a type that is alike.
func retyped(d arrow.ArrayData, t arrow.DataType) arrow.ArrayData {
	var children []arrow.ArrayData
	if nested, ok := t.(arrow.NestedType); ok {
		for i, f := range nested.Fields() {
			child := retyped(d.Children()[i], f.Type)
			defer child.Release()
			children = append(children, child)
		}
	}
	data := array.NewData(t, d.Len(), d.Buffers(), children, d.NullN(), d.Offset())
	if d.DataType().ID() == arrow.DICTIONARY {
		data.SetDictionary(d.Dictionary())
	}
	return data
}
