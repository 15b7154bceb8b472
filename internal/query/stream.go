//go:build duckdb_arrow && cgo

package query

import (
	"cmp"
	"context"
	"fmt"

	"github.com/apache/arrow-go/v18/arrow"
	bindings "github.com/duckdb/duckdb-go-bindings"
	"github.com/duckdb/duckdb-go/v2"
	"github.com/duckdb/duckdb-go/v2/arrowmapping"
	"github.com/duckdb/duckdb-go/v2/mapping"

	"github.com/frazil-io/frazil/internal/batch"
	embedded "github.com/frazil-io/frazil/internal/exec/duckdb"
)

// raw calls f with the binding's connection: duckdb-go's own queries collect the
// whole result in memory before the first row.
func (e *Engine) raw(f func(mapping.Connection) error) error {
	return e.conn.Raw(func(driverConn any) error {
		c, ok := driverConn.(*duckdb.Conn)
		if !ok {
			return fmt.Errorf("DuckDB: the driver's connection is a %T", driverConn)
		}
		return f(embedded.Connection(c))
	})
}

// onlySelect refuses everything but one query: nothing is written here.
func (e *Engine) onlySelect(text string) error {
	return e.raw(func(c mapping.Connection) error {
		var all mapping.ExtractedStatements
		n := mapping.ExtractStatements(c, text, &all)
		defer mapping.DestroyExtracted(&all)
		if n == 0 {
			if why := mapping.ExtractStatementsError(all); why != "" {
				return fmt.Errorf("%w: %s", batch.ErrInvalid, why)
			}
			return fmt.Errorf("%w: there is no SQL; write a SELECT", batch.ErrInvalid)
		}
		if n > 1 {
			return fmt.Errorf("%w: write one SELECT, not %d statements", batch.ErrInvalid, n)
		}
		var prepared mapping.PreparedStatement
		defer mapping.DestroyPrepare(&prepared)
		if mapping.PrepareExtractedStatement(c, all, 0, &prepared) == mapping.StateError {
			return fmt.Errorf("%w: %s", batch.ErrInvalid, mapping.PrepareError(prepared))
		}
		if mapping.PreparedStatementType(prepared) != mapping.StatementTypeSelect {
			return errNoSelect
		}
		return nil
	})
}

var errNoSelect = fmt.Errorf("%w: only a SELECT runs here: query looks at tables, and changes nothing", batch.ErrInvalid)

// stream runs a query and hands over its rows as DuckDB finds them, at most a
// few thousand at a time.
func (e *Engine) stream(ctx context.Context, text string, header func(*arrow.Schema) error, rows func(arrow.RecordBatch) error) error {
	return e.raw(func(c mapping.Connection) error {
		var prepared mapping.PreparedStatement
		defer mapping.DestroyPrepare(&prepared)
		if mapping.Prepare(c, text, &prepared) == mapping.StateError {
			return fmt.Errorf("%w: %s", batch.ErrInvalid, mapping.PrepareError(prepared))
		}
		if mapping.PreparedStatementType(prepared) != mapping.StatementTypeSelect {
			return errNoSelect
		}
		var options arrowmapping.ArrowOptions
		arrowmapping.ConnectionGetArrowOptions(c, &options)
		defer arrowmapping.DestroyArrowOptions(&options)
		schema, err := embedded.Columns(prepared, options)
		if err != nil {
			return fmt.Errorf("%w: %w", batch.ErrInvalid, err)
		}
		if err := header(schema); err != nil {
			return err
		}
		stop := context.AfterFunc(ctx, func() { mapping.Interrupt(c) })
		defer stop()
		var result mapping.Result
		defer mapping.DestroyResult(&result)
		// Deprecated without a successor: the other calls collect the whole result.
		if bindings.ExecutePreparedStreaming(prepared, &result) == mapping.StateError {
			return failed(ctx, c, prepared, &result)
		}
		for {
			chunk := mapping.FetchChunk(result)
			if chunk.Ptr == nil {
				return failed(ctx, c, prepared, &result)
			}
			part, wrong := arrowmapping.DataChunkToArrowArray(options, schema, chunk)
			mapping.DestroyDataChunk(&chunk)
			if err := embedded.ErrorOf(wrong); err != nil {
				return fmt.Errorf("%w: %w", batch.ErrInvalid, err)
			}
			err := rows(part)
			part.Release()
			if err != nil {
				return err
			}
		}
	})
}

// failed is the error that ended a result, nil at its proper end. After the error
// of one thread DuckDB interrupts the others, and may tell of that instead: then
// the query runs once more in one thread, only to fail.
func failed(ctx context.Context, c mapping.Connection, prepared mapping.PreparedStatement, result *mapping.Result) error {
	if err := context.Cause(ctx); err != nil {
		return err
	}
	why := mapping.ResultError(result)
	if why == "" {
		return nil
	}
	if mapping.ResultErrorType(result) == mapping.ErrorTypeInterrupt {
		why = alone(c, prepared, why)
		if err := context.Cause(ctx); err != nil {
			return err
		}
	}
	return fmt.Errorf("%w: %s", batch.ErrInvalid, why)
}

// alone runs a query in one thread, drops its rows, and returns its error; the
// one that is known if there is none.
func alone(c mapping.Connection, prepared mapping.PreparedStatement, known string) string {
	set := func(statement string) bool {
		var done mapping.Result
		defer mapping.DestroyResult(&done)
		return mapping.Query(c, statement, &done) != mapping.StateError
	}
	if !set("SET threads = 1") {
		return known
	}
	defer set("RESET threads")
	var again mapping.Result
	defer mapping.DestroyResult(&again)
	if bindings.ExecutePreparedStreaming(prepared, &again) != mapping.StateError {
		for chunk := mapping.FetchChunk(again); chunk.Ptr != nil; chunk = mapping.FetchChunk(again) {
			mapping.DestroyDataChunk(&chunk)
		}
	}
	return cmp.Or(mapping.ResultError(&again), known)
}
