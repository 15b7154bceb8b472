package exec

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/bitutil"
	"github.com/apache/arrow-go/v18/arrow/extensions"
	"github.com/apache/arrow-go/v18/arrow/memory"

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
			return nil, fmt.Errorf("%w: the sql of sink %s: column %d is called %q, and a name has no space, quote, comma or bracket in it, and no +, -, * or /; give it a name with AS", batch.ErrInvalid, sink, i+1, f.Name)
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
const (
	extensionName = "ARROW:extension:name"
	extensionMeta = "ARROW:extension:metadata"
)

// opaque says what to cast types to that DuckDB hands over as bytes.
var opaque = map[string]string{
	"hugeint": "cast it to BIGINT or DECIMAL(38,0)", "uhugeint": "cast it to BIGINT or DECIMAL(38,0)", "time_tz": "cast it to TIME, or to VARCHAR to keep the offset",
}

// opaqueName is DuckDB's name of a type.
func opaqueName(m arrow.Metadata) string {
	var of struct {
		Name string `json:"type_name"`
	}
	if i := m.FindKey(extensionMeta); i < 0 || json.Unmarshal([]byte(m.Values()[i]), &of) != nil {
		return "its type"
	}
	return of.Name
}

// storable returns the type of a field with the names that Iceberg gives to its
// parts.
func storable(f arrow.Field) (arrow.DataType, error) {
	switch t := f.Type.(type) {
	case *arrow.ListType:
		elem, err := storable(t.ElemField())
		if err != nil {
			return nil, err
		}
		return arrow.ListOfField(arrow.Field{Name: "element", Type: elem, Nullable: true}), nil
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
	if i := f.Metadata.FindKey(extensionName); i >= 0 {
		switch f.Metadata.Values()[i] {
		case "arrow.uuid":
			return extensions.NewUUIDType(), nil
		case "arrow.bool8": // a BOOLEAN in a byte; Iceberg and Parquet have a bit
			return arrow.FixedWidthTypes.Boolean, nil
		case "arrow.opaque":
			name := opaqueName(f.Metadata)
			hint := opaque[name]
			if hint == "" {
				hint = "cast it to VARCHAR"
			}
			return nil, fmt.Errorf("%s has no place in an Iceberg table; %s", strings.ToUpper(name), hint)
		}
	}
	if name, hint := unstorable(f.Type); name != "" {
		return nil, fmt.Errorf("%s has no place in an Iceberg table; %s", name, hint)
	}
	return f.Type, nil
}

// typed gives rows the types of schema: the same buffers under other names. A
// column beyond them, the ordinal, is left out.
func typed(rows arrow.RecordBatch, schema *arrow.Schema) arrow.RecordBatch {
	columns := make([]arrow.Array, schema.NumFields())
	for i, c := range rows.Columns()[:len(columns)] {
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
	if t.ID() == arrow.BOOL && d.DataType().ID() != arrow.BOOL {
		return packBits(d)
	}
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

// packBits packs truth values of a byte each.
func packBits(d arrow.ArrayData) arrow.ArrayData {
	n := d.Offset() + d.Len()
	packed := memory.NewBufferBytes(make([]byte, bitutil.BytesForBits(int64(n))))
	defer packed.Release()
	for i, v := range d.Buffers()[1].Bytes()[:n] {
		if v != 0 {
			bitutil.SetBit(packed.Bytes(), i)
		}
	}
	return array.NewData(arrow.FixedWidthTypes.Boolean, d.Len(), []*memory.Buffer{d.Buffers()[0], packed}, nil, d.NullN(), d.Offset())
}

// unstorable says what a type is called that Iceberg does not have, and what to
// write instead; "" for one that it has.
func unstorable(t arrow.DataType) (name, hint string) {
	switch t := t.(type) {
	case *arrow.TimestampType:
		if t.Unit == arrow.Microsecond {
			return "", ""
		}
		return map[arrow.TimeUnit]string{arrow.Second: "TIMESTAMP_S", arrow.Millisecond: "TIMESTAMP_MS", arrow.Nanosecond: "TIMESTAMP_NS"}[t.Unit], "cast it to TIMESTAMP"
	case *arrow.Time64Type:
		if t.Unit == arrow.Microsecond {
			return "", ""
		}
		return "TIME_NS", "cast it to TIME"
	}
	switch t.ID() {
	case arrow.BOOL, arrow.INT8, arrow.INT16, arrow.INT32, arrow.INT64, arrow.UINT8, arrow.UINT16, arrow.UINT32, arrow.UINT64,
		arrow.FLOAT32, arrow.FLOAT64, arrow.DECIMAL128, arrow.STRING, arrow.BINARY, arrow.DATE32:
		return "", ""
	case arrow.INTERVAL_MONTH_DAY_NANO, arrow.DURATION:
		return "INTERVAL", "make it a BIGINT, with date_diff or epoch_us"
	case arrow.DICTIONARY:
		return "ENUM", "cast it to VARCHAR"
	case arrow.FIXED_SIZE_LIST:
		return "ARRAY", "cast it to a list, such as x::DOUBLE[]"
	case arrow.SPARSE_UNION, arrow.DENSE_UNION:
		return "UNION", "take out its members, as in u.a, or cast it to VARCHAR"
	default:
		return t.String(), "cast it to VARCHAR"
	}
}
