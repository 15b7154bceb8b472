//go:build !duckdb_arrow

package duckdb

// A build without the tag ends here, with a message that names it.
var _ = build_with_the_tag_duckdb_arrow_as_the_Makefile_does
