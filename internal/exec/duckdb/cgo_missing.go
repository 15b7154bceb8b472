//go:build !cgo

package duckdb

// A build without a C compiler ends here, with a message that says so.
var _ = frazil_needs_cgo_so_install_a_C_compiler_and_set_CGO_ENABLED_1
