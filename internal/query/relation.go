//go:build cgo

package query

import (
	"fmt"
	"strings"

	"github.com/apache/iceberg-go"
	"github.com/duckdb/duckdb-go/v2"

	"github.com/frazil-io/frazil/internal/batch"
)

// parquetRelation is SQL that reads Parquet files as the schema says: by field
// id, so that a column that was renamed, widened or added since is itself.
// Everything that DuckDB would guess is said.
func parquetRelation(schema *iceberg.Schema, paths []string) (string, error) {
	var columns, names, files []string
	for _, f := range schema.Fields() {
		t, err := typeName(f.Type)
		if err != nil {
			return "", fmt.Errorf("%w: column %q: %w", batch.ErrInvalid, f.Name, err)
		}
		columns = append(columns, fmt.Sprintf("%d: {name: %s, type: %s, default_value: NULL}", f.ID, literal(f.Name), literal(t)))
		names = append(names, column(f))
	}
	for _, p := range paths {
		files = append(files, literal(exactPath(p)))
	}
	return "SELECT " + strings.Join(names, ", ") + " FROM read_parquet([" + strings.Join(files, ", ") + "], hive_partitioning = false, schema = MAP {" + strings.Join(columns, ", ") + "})", nil
}

// column reads one column. NaN is above every number to DuckDB, and in no
// statistics of a file: a filter on a column that may hold it must not reach
// DuckDB's reader, which would skip by them. An expression stops it.
func column(f iceberg.NestedField) string {
	name := quoted(f.Name)
	switch t := f.Type.(type) {
	case iceberg.Float32Type:
		return "CASE WHEN isnan(" + name + ") THEN 'NaN'::FLOAT ELSE " + name + " END AS " + name
	case iceberg.Float64Type:
		return "CASE WHEN isnan(" + name + ") THEN 'NaN'::DOUBLE ELSE " + name + " END AS " + name
	case *iceberg.StructType:
		if hasFloat(t) {
			return "CASE WHEN " + name + " IS NULL THEN NULL ELSE " + name + " END AS " + name
		}
	}
	return name
}

func hasFloat(t iceberg.Type) bool {
	switch t := t.(type) {
	case iceberg.Float32Type, iceberg.Float64Type:
		return true
	case iceberg.NestedType:
		for _, f := range t.Fields() {
			if hasFloat(f.Type) {
				return true
			}
		}
	}
	return false
}

// exactPath is a pattern that only this path matches.
func exactPath(path string) string {
	return strings.NewReplacer("[", "[[]", "*", "[*]", "?", "[?]").Replace(path)
}

// sameNames refuses a table in which a member of a STRUCT changed its name, or
// took another's: DuckDB finds columns by field id, but their members by name.
func sameNames(schemas []*iceberg.Schema) error {
	names := map[int]string{} // of a nested field, by its id
	ids := map[string]int{}   // of a nested field, by its parent's id and its name
	for _, s := range schemas {
		for _, f := range s.Fields() {
			if err := sameMembers(f.ID, f.Type, names, ids); err != nil {
				return fmt.Errorf("column %q: %w", f.Name, err)
			}
		}
	}
	return nil
}

func sameMembers(parent int, t iceberg.Type, names map[int]string, ids map[string]int) error {
	nested, ok := t.(iceberg.NestedType)
	if !ok {
		return nil
	}
	for _, f := range nested.Fields() {
		key := fmt.Sprintf("%d.%s", parent, strings.ToLower(f.Name))
		was, known := names[f.ID]
		id, taken := ids[key]
		if known && !strings.EqualFold(was, f.Name) || taken && id != f.ID {
			return fmt.Errorf("%w: its member %q had another name in older files, which this query cannot follow; read the table with another engine", batch.ErrInvalid, f.Name)
		}
		names[f.ID], ids[key] = f.Name, f.ID
		if err := sameMembers(f.ID, f.Type, names, ids); err != nil {
			return err
		}
	}
	return nil
}

// typeName is an Iceberg type in DuckDB's SQL.
func typeName(t iceberg.Type) (string, error) {
	switch t := t.(type) {
	case iceberg.BooleanType:
		return "BOOLEAN", nil
	case iceberg.Int32Type:
		return "INTEGER", nil
	case iceberg.Int64Type:
		return "BIGINT", nil
	case iceberg.Float32Type:
		return "FLOAT", nil
	case iceberg.Float64Type:
		return "DOUBLE", nil
	case iceberg.DateType:
		return "DATE", nil
	case iceberg.TimeType:
		return "TIME", nil
	case iceberg.TimestampType:
		return "TIMESTAMP", nil
	case iceberg.TimestampTzType:
		return "TIMESTAMP WITH TIME ZONE", nil
	case iceberg.TimestampNsType:
		return "TIMESTAMP_NS", nil
	case iceberg.StringType:
		return "VARCHAR", nil
	case iceberg.UUIDType:
		return "UUID", nil
	case iceberg.BinaryType, iceberg.FixedType:
		return "BLOB", nil
	case iceberg.DecimalType:
		return fmt.Sprintf("DECIMAL(%d,%d)", t.Precision(), t.Scale()), nil
	case *iceberg.ListType:
		element, err := typeName(t.Element)
		return element + "[]", err
	case *iceberg.MapType:
		key, err := typeName(t.KeyType)
		if err != nil {
			return "", err
		}
		value, err := typeName(t.ValueType)
		return "MAP(" + key + ", " + value + ")", err
	case *iceberg.StructType:
		var members []string
		for _, f := range t.FieldList {
			member, err := typeName(f.Type)
			if err != nil {
				return "", err
			}
			members = append(members, quoted(f.Name)+" "+member)
		}
		return "STRUCT(" + strings.Join(members, ", ") + ")", nil
	}
	return "", fmt.Errorf("DuckDB has no type for %s", t)
}

var plainTypes = map[string]duckdb.Type{
	"BOOLEAN": duckdb.TYPE_BOOLEAN, "INTEGER": duckdb.TYPE_INTEGER, "BIGINT": duckdb.TYPE_BIGINT, "FLOAT": duckdb.TYPE_FLOAT, "DOUBLE": duckdb.TYPE_DOUBLE,
	"DATE": duckdb.TYPE_DATE, "TIME": duckdb.TYPE_TIME, "TIMESTAMP": duckdb.TYPE_TIMESTAMP, "TIMESTAMP WITH TIME ZONE": duckdb.TYPE_TIMESTAMP_TZ,
	"TIMESTAMP_NS": duckdb.TYPE_TIMESTAMP_NS, "VARCHAR": duckdb.TYPE_VARCHAR, "UUID": duckdb.TYPE_UUID, "BLOB": duckdb.TYPE_BLOB,
}

// typeInfo is an Iceberg type as DuckDB's interface for functions wants it.
func typeInfo(t iceberg.Type) (duckdb.TypeInfo, error) {
	switch t := t.(type) {
	case iceberg.DecimalType:
		return duckdb.NewDecimalInfo(uint8(t.Precision()), uint8(t.Scale()))
	case *iceberg.ListType:
		element, err := typeInfo(t.Element)
		if err != nil {
			return nil, err
		}
		return duckdb.NewListInfo(element)
	case *iceberg.MapType:
		key, err := typeInfo(t.KeyType)
		if err != nil {
			return nil, err
		}
		value, err := typeInfo(t.ValueType)
		if err != nil {
			return nil, err
		}
		return duckdb.NewMapInfo(key, value)
	case *iceberg.StructType:
		var members []duckdb.StructEntry
		for _, f := range t.FieldList {
			info, err := typeInfo(f.Type)
			if err != nil {
				return nil, err
			}
			member, err := duckdb.NewStructEntry(info, f.Name)
			if err != nil {
				return nil, err
			}
			members = append(members, member)
		}
		return duckdb.NewStructInfo(members[0], members[1:]...)
	}
	name, err := typeName(t)
	if err != nil {
		return nil, err
	}
	return duckdb.NewTypeInfo(plainTypes[name])
}
