package duckdb

import (
	"fmt"

	"github.com/duckdb/duckdb-go/v2/mapping"

	"github.com/frazil-io/frazil/internal/batch"
)

// checkMaps refuses BOOLEAN as the key or the value of a MAP: what says that a byte
// is one is lost when Arrow's Go library imports a map from C, and it would silently
// become a number. Within a struct or a list that is a map's value it is kept.
func checkMaps(column string, t mapping.LogicalType, inMap bool) error {
	isMap := false
	var children []mapping.LogicalType
	switch mapping.GetTypeId(t) {
	case mapping.TypeBoolean:
		if inMap {
			return fmt.Errorf("%w: column %q has BOOLEAN as key or value of a MAP, which cannot leave DuckDB; cast it, for instance to MAP(VARCHAR, TINYINT), or to a list with map_entries", batch.ErrInvalid, column)
		}
	case mapping.TypeMap:
		isMap = true
		children = append(children, mapping.MapTypeKeyType(t), mapping.MapTypeValueType(t))
	case mapping.TypeList:
		children = append(children, mapping.ListTypeChildType(t))
	case mapping.TypeArray:
		children = append(children, mapping.ArrayTypeChildType(t))
	case mapping.TypeStruct:
		for i := range mapping.StructTypeChildCount(t) {
			children = append(children, mapping.StructTypeChildType(t, i))
		}
	}
	var failed error
	for k := range children {
		if err := checkMaps(column, children[k], isMap); err != nil {
			failed = err
		}
		mapping.DestroyLogicalType(&children[k])
	}
	return failed
}
