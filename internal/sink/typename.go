package sink

import (
	"fmt"
	"strings"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/extensions"
	"github.com/apache/iceberg-go"
	"github.com/apache/iceberg-go/table"
)

// arrowType is the type in which files have an Iceberg type; nil for one that
// Arrow lacks.
func arrowType(t iceberg.Type) arrow.DataType {
	a, err := table.TypeToArrowType(t, false, false)
	if err != nil {
		return nil
	}
	return a
}

var sqlNames = map[arrow.Type]string{
	arrow.BOOL: "BOOLEAN", arrow.INT8: "TINYINT", arrow.INT16: "SMALLINT", arrow.INT32: "INTEGER", arrow.INT64: "BIGINT",
	arrow.UINT8: "UTINYINT", arrow.UINT16: "USMALLINT", arrow.UINT32: "UINTEGER", arrow.UINT64: "UBIGINT",
	arrow.FLOAT32: "FLOAT", arrow.FLOAT64: "DOUBLE", arrow.STRING: "VARCHAR", arrow.LARGE_STRING: "VARCHAR", arrow.BINARY: "BLOB", arrow.LARGE_BINARY: "BLOB",
	arrow.DATE32: "DATE", arrow.TIME64: "TIME",
}

// sqlName is a type's name in SQL.
func sqlName(t arrow.DataType) string {
	switch t := t.(type) {
	case nil:
		return "a type that SQL lacks"
	case *arrow.StructType:
		var fields []string
		for _, f := range t.Fields() {
			fields = append(fields, f.Name+" "+sqlName(f.Type))
		}
		return "STRUCT(" + strings.Join(fields, ", ") + ")"
	case *arrow.ListType:
		return sqlName(t.Elem()) + "[]"
	case *arrow.MapType:
		return "MAP(" + sqlName(t.KeyType()) + ", " + sqlName(t.ItemType()) + ")"
	case *arrow.Decimal128Type:
		return fmt.Sprintf("DECIMAL(%d,%d)", t.Precision, t.Scale)
	case *arrow.TimestampType:
		name := "TIMESTAMP"
		if t.TimeZone != "" {
			name = "TIMESTAMPTZ"
		}
		if t.Unit == arrow.Nanosecond {
			name += "_NS"
		}
		return name
	case *extensions.UUIDType:
		return "UUID"
	}
	if name := sqlNames[t.ID()]; name != "" {
		return name
	}
	return t.String()
}
