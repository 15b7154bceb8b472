package exec

import (
	"errors"
	"fmt"
	"strings"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/extensions"

	"github.com/frazil-io/frazil/internal/batch"
)

// checked makes sure that a sink's columns can be those of a table: each has a
// name and a type that Iceberg has.
func checked(sink string, s *arrow.Schema) (*arrow.Schema, error) {
	seen := map[string]bool{}
	fields := make([]arrow.Field, 0, s.NumFields())
	for i, f := range s.Fields() {
		switch lower := strings.ToLower(f.Name); {
		case f.Name == "" || strings.ContainsAny(f.Name, "()*+-/,' \n"):
			return nil, fmt.Errorf("%w: the sql of sink %s: column %d is called %q; give it a name with AS", batch.ErrInvalid, sink, i+1, f.Name)
		case seen[lower]:
			return nil, fmt.Errorf("%w: the sql of sink %s: column %q is there twice; give one another name with AS", batch.ErrInvalid, sink, f.Name)
		case strings.HasPrefix(f.Name, "__"):
			return nil, fmt.Errorf("%w: the sql of sink %s: column %q: names that begin with two underscores are frazil's own", batch.ErrInvalid, sink, f.Name)
		default:
			seen[lower] = true
		}
		t, err := storable(f)
		if err != nil {
			return nil, fmt.Errorf("%w: the sql of sink %s: column %q: %w", batch.ErrInvalid, sink, f.Name, err)
		}
		fields = append(fields, arrow.Field{Name: f.Name, Type: t, Nullable: true})
	}
	return arrow.NewSchema(fields, nil), nil
}

// extensionName is where Arrow notes what a type stands for beyond its storage.
const extensionName = "ARROW:extension:name"

// storable returns the type of a field with the names that Iceberg gives to its
// parts.
func storable(f arrow.Field) (arrow.DataType, error) {
	switch t := f.Type.(type) {
	case *arrow.ListType:
		elem, err := storable(t.ElemField())
		return arrow.ListOfField(arrow.Field{Name: "element", Type: elem, Nullable: true}), err
	case *arrow.StructType:
		fields := make([]arrow.Field, 0, t.NumFields())
		for _, f := range t.Fields() {
			if f.Name == "" {
				return nil, errors.New("a tuple has no names for its parts; write a struct: {'a': …, 'b': …}")
			}
			inner, err := storable(f)
			if err != nil {
				return nil, err
			}
			fields = append(fields, arrow.Field{Name: f.Name, Type: inner, Nullable: true})
		}
		return arrow.StructOf(fields...), nil
	case *arrow.MapType:
		key, err := storable(t.KeyField())
		if err != nil {
			return nil, err
		}
		item, err := storable(t.ItemField())
		if err != nil {
			return nil, err
		}
		m := arrow.MapOf(key, item)
		m.SetItemNullable(true)
		return m, nil
	}
	if i := f.Metadata.FindKey(extensionName); i >= 0 && f.Metadata.Values()[i] == "arrow.uuid" {
		return extensions.NewUUIDType(), nil
	}
	if hint, bad := unstorable(f.Type); bad {
		return nil, fmt.Errorf("its type has no place in an Iceberg table; %s", hint)
	}
	return f.Type, nil
}

// typed gives rows the types of schema: the same buffers under other names.
func typed(rows arrow.RecordBatch, schema *arrow.Schema) arrow.RecordBatch {
	columns := make([]arrow.Array, rows.NumCols())
	for i, c := range rows.Columns() {
		data := retyped(c.Data(), schema.Field(i).Type)
		columns[i] = array.MakeFromData(data)
		data.Release()
	}
	defer func() {
		for _, c := range columns {
			c.Release()
		}
	}()
	return array.NewRecordBatch(schema, columns, rows.NumRows())
}

func retyped(d arrow.ArrayData, t arrow.DataType) arrow.ArrayData {
	var children []arrow.ArrayData
	if nested, ok := t.(arrow.NestedType); ok {
		for i, f := range nested.Fields() {
			child := retyped(d.Children()[i], f.Type)
			defer child.Release()
			children = append(children, child)
		}
	}
	return array.NewData(t, d.Len(), d.Buffers(), children, d.NullN(), d.Offset())
}

// unstorable says what to write instead of a type that Iceberg does not have.
func unstorable(t arrow.DataType) (hint string, bad bool) {
	switch t.ID() {
	case arrow.BOOL, arrow.INT8, arrow.INT16, arrow.INT32, arrow.INT64, arrow.UINT8, arrow.UINT16, arrow.UINT32, arrow.UINT64,
		arrow.FLOAT32, arrow.FLOAT64, arrow.DECIMAL128, arrow.STRING, arrow.BINARY, arrow.DATE32, arrow.TIME64, arrow.TIMESTAMP:
		return "", false
	case arrow.INTERVAL_MONTH_DAY_NANO, arrow.DURATION:
		return "cast it to BIGINT, with date_diff or epoch", true
	case arrow.FIXED_SIZE_BINARY: // HUGEINT, TIMETZ
		return "cast it: a HUGEINT to BIGINT or DECIMAL(38,0), anything else to VARCHAR", true
	case arrow.DICTIONARY:
		return "cast the ENUM to VARCHAR", true
	case arrow.FIXED_SIZE_LIST:
		return "cast the array to a list, such as x::DOUBLE[]", true
	default:
		return "cast it to VARCHAR", true
	}
}
