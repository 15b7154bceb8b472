//go:build cgo && !duckdb_arrow

package duckdb

// A build without the tag ends here, with a message that names it. The other files are left out then, so that this one
// is what the compiler complains of.
var _ = build_with_make_or_with_the_tag_duckdb_arrow
