//go:build !cgo

package query

// DuckDB needs cgo; exec/duckdb says so to whoever builds without it.
