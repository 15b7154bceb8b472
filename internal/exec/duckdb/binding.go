//go:build duckdb_arrow && cgo

package duckdb

import (
	"errors"
	"reflect"
	"unsafe"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/duckdb/duckdb-go/v2"
	"github.com/duckdb/duckdb-go/v2/arrowmapping"
	"github.com/duckdb/duckdb-go/v2/mapping"
)

// InMemory names a database in memory that fetches and loads no extension unasked.
const InMemory = "?autoinstall_known_extensions=false&autoload_known_extensions=false" +
	"&allow_community_extensions=false&allow_unsigned_extensions=false"

// Connection reaches the binding's connection, which duckdb-go keeps to itself.
func Connection(c *duckdb.Conn) mapping.Connection {
	p := reflect.ValueOf(c).Elem().FieldByName("conn").FieldByName("Ptr")
	return mapping.Connection{Ptr: unsafe.Pointer(p.Pointer())}
}

// Columns is the schema of what a prepared statement returns.
func Columns(prepared mapping.PreparedStatement, options arrowmapping.ArrowOptions) (*arrow.Schema, error) {
	return columns(prepared, options, func(s *arrow.Schema, _ []mapping.LogicalType) *arrow.Schema { return s })
}

// columns is the schema of what a prepared statement returns, seen through with.
func columns(prepared mapping.PreparedStatement, options arrowmapping.ArrowOptions, with func(*arrow.Schema, []mapping.LogicalType) *arrow.Schema) (*arrow.Schema, error) {
	var types []mapping.LogicalType
	var names []string
	for c := range mapping.PreparedStatementColumnCount(prepared) {
		types = append(types, mapping.PreparedStatementColumnLogicalType(prepared, c))
		names = append(names, mapping.PreparedStatementColumnName(prepared, c))
	}
	defer func() {
		for k := range types {
			mapping.DestroyLogicalType(&types[k])
		}
	}()
	schema, failed := arrowmapping.NewArrowSchema(options, types, names)
	if err := ErrorOf(failed); err != nil {
		return nil, err
	}
	return with(schema, types), nil
}

// ErrorOf frees the binding's error and returns it as one of Go; nil if it is none.
func ErrorOf(e mapping.ErrorData) error {
	if e.Ptr == nil {
		return nil
	}
	defer mapping.DestroyErrorData(&e)
	return errors.New(mapping.ErrorDataMessage(e))
}
