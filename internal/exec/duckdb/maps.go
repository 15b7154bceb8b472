//go:build duckdb_arrow && cgo

package duckdb

import (
	"github.com/apache/arrow-go/v18/arrow"
	"github.com/duckdb/duckdb-go/v2/mapping"
)

// Arrow notes on a field what its bytes stand for beyond their type.
const (
	extensionName = "ARROW:extension:name"
	extensionMeta = "ARROW:extension:metadata"
)

// noted returns the schema with what Arrow's Go library forgets when it imports a
// schema from C: what the key and the value of a MAP stand for. Without it a BOOLEAN
// in a MAP, which DuckDB hands over in a byte, would become a number, and a UUID bytes.
func noted(s *arrow.Schema, types []mapping.LogicalType) *arrow.Schema {
	fields := s.Fields()
	for k := range fields {
		fields[k].Type = notedType(fields[k].Type, types[k])
	}
	meta := s.Metadata()
	return arrow.NewSchema(fields, &meta)
}

func notedType(t arrow.DataType, is mapping.LogicalType) arrow.DataType {
	switch t := t.(type) {
	case *arrow.ListType:
		f := t.ElemField()
		f.Type = notedChild(f.Type, mapping.ListTypeChildType(is))
		return arrow.ListOfField(f)
	case *arrow.StructType:
		fields := t.Fields()
		for i := range fields {
			fields[i].Type = notedChild(fields[i].Type, mapping.StructTypeChildType(is, mapping.IdxT(i)))
		}
		return arrow.StructOf(fields...)
	case *arrow.MapType:
		key, item := mapping.MapTypeKeyType(is), mapping.MapTypeValueType(is)
		keyMeta, itemMeta := note(key), note(item)
		m := arrow.MapOfWithMetadata(notedChild(t.KeyType(), key), keyMeta, notedChild(t.ItemType(), item), itemMeta)
		m.KeysSorted = t.KeysSorted
		return m
	}
	return t
}

// notedChild frees the type that it is given.
func notedChild(t arrow.DataType, is mapping.LogicalType) arrow.DataType {
	defer mapping.DestroyLogicalType(&is)
	return notedType(t, is)
}

// note is what Arrow notes on a field of a type, where a table needs it.
func note(t mapping.LogicalType) arrow.Metadata {
	switch mapping.GetTypeId(t) {
	case mapping.TypeBoolean:
		return arrow.NewMetadata([]string{extensionName, extensionMeta}, []string{"arrow.bool8", ""})
	case mapping.TypeUUID:
		return arrow.NewMetadata([]string{extensionName, extensionMeta}, []string{"arrow.uuid", ""})
	}
	return arrow.Metadata{}
}
