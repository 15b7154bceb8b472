//go:build duckdb_arrow && cgo

package duckdb

import (
	"context"
	"database/sql/driver"
	"fmt"
)

// MemoryBytes is how much memory the instance's buffers take now. It may be
// called while the instance works: it asks through a connection of its own.
func (i *Instance) MemoryBytes(ctx context.Context) (int64, error) {
	c, err := i.connector.Connect(ctx)
	if err != nil {
		return 0, fmt.Errorf("DuckDB: %w", err)
	}
	defer c.Close() //nolint:errcheck // nothing was written
	rows, err := c.(driver.QueryerContext).QueryContext(ctx, "SELECT sum(memory_usage_bytes)::BIGINT FROM duckdb_memory()", nil)
	if err != nil {
		return 0, fmt.Errorf("DuckDB: %w", err)
	}
	defer rows.Close() //nolint:errcheck // nothing is left to lose after the last row
	row := make([]driver.Value, 1)
	if err := rows.Next(row); err != nil {
		return 0, fmt.Errorf("DuckDB: %w", err)
	}
	n, _ := row[0].(int64)
	return n, nil
}
