//go:build !cgo

package query

// DuckDB needs cgo; this says so to whoever builds without it.
import _ "github.com/frazil-io/frazil/internal/exec/duckdb"
