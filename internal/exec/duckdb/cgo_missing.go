//go:build !cgo

package duckdb

// A build without a C compiler ends here, with a message that says so.
var _ = frazil_embeds_DuckDB_so_install_a_C_compiler_and_build_with_CGO_ENABLED_1
