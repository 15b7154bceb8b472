//go:build duckdb_arrow && cgo

// Package duckdb runs SQL in an embedded DuckDB instance that belongs to one
// worker of one pipeline: sandboxed, with one thread, reading Arrow without a
// copy and returning Arrow.
package duckdb

import (
	"context"
	"database/sql/driver"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/duckdb/duckdb-go/v2"
	"github.com/duckdb/duckdb-go/v2/arrowmapping"
	"github.com/duckdb/duckdb-go/v2/mapping"

	"github.com/frazil-io/frazil/internal/batch"
	"github.com/frazil-io/frazil/internal/glue"
)

// Options are settings of an instance.
type Options struct {
	MemoryBytes int64  // memory_limit; 0: DuckDB's default
	SpillDir    string // temp_directory; "": it does not spill
}

// Instance is one DuckDB database in memory with one connection. It is used by
// one goroutine at a time.
type Instance struct {
	connector  *duckdb.Connector
	conn       *duckdb.Conn
	connection mapping.Connection
	sources    map[string]*Source // by lower-case name
	numbered   map[string]*Source
}

// Open starts an instance. It is not locked yet: see Lock.
func Open(ctx context.Context, o Options) (*Instance, error) {
	i := &Instance{sources: map[string]*Source{}, numbered: map[string]*Source{}}
	connector, err := duckdb.NewConnector(InMemory, nil)
	if err != nil {
		return nil, fmt.Errorf("start DuckDB: %w", err)
	}
	i.connector = connector
	duckdb.RegisterReplacementScan(connector, i.replace)
	conn, err := connector.Connect(ctx)
	if err != nil {
		i.Close()
		return nil, fmt.Errorf("start DuckDB: %w", err)
	}
	i.conn = conn.(*duckdb.Conn)
	i.connection = Connection(i.conn)
	settings := []string{"SET threads=1", "SET TimeZone='UTC'", "SET arrow_lossless_conversion=true", "SET preserve_insertion_order=true"}
	if o.MemoryBytes > 0 {
		settings = append(settings, fmt.Sprintf("SET memory_limit='%dB'", o.MemoryBytes))
	}
	if o.SpillDir != "" {
		settings = append(settings, "SET temp_directory="+quote(o.SpillDir))
	}
	for _, s := range settings {
		if err := i.Exec(ctx, s); err != nil {
			i.Close()
			return nil, err
		}
	}
	for _, k := range []Kind{Stream, Table} {
		if err := registerScan(i.connection, k); err != nil {
			i.Close()
			return nil, err
		}
	}
	return i, nil
}

func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", "''") + "'" }

// replace resolves the name of a relation that is no table of DuckDB.
func (i *Instance) replace(name string) (function string, params []any, err error) {
	name = strings.ToLower(name)
	if s, ok := i.numbered[name]; ok {
		return string(s.kind), []any{int64(s.id | numbered)}, nil
	}
	s, ok := i.sources[name]
	if !ok {
		return "", nil, fmt.Errorf("relation %s does not exist", name)
	}
	return string(s.kind), []any{int64(s.id)}, nil
}

// Lock takes from SQL what reaches beyond the data: files, the network,
// settings. It cannot be undone.
func (i *Instance) Lock(ctx context.Context) error {
	return errors.Join(i.Exec(ctx, "SET enable_external_access=false"), i.Exec(ctx, "SET lock_configuration=true"))
}

// Exec runs a statement of our own.
func (i *Instance) Exec(ctx context.Context, statement string) error {
	if _, err := i.conn.ExecContext(ctx, statement, nil); err != nil {
		return fmt.Errorf("DuckDB: %s: %w", statement, err)
	}
	return nil
}

// Text runs a query of our own with one text parameter and returns the first
// column of its rows as text.
func (i *Instance) Text(ctx context.Context, query string, args ...string) ([]string, error) {
	return i.texts(ctx, 0, query, args...)
}

// Explain returns the physical plan of a SELECT as JSON.
func (i *Instance) Explain(ctx context.Context, query string) (string, error) {
	out, err := i.texts(ctx, 1, "EXPLAIN (FORMAT json) "+query)
	return strings.Join(out, ""), err
}

func (i *Instance) texts(ctx context.Context, column int, query string, args ...string) ([]string, error) {
	named := make([]driver.NamedValue, len(args))
	for k, a := range args {
		named[k] = driver.NamedValue{Ordinal: k + 1, Value: a}
	}
	rows, err := i.conn.QueryContext(ctx, query, named)
	if err != nil {
		return nil, err
	}
	defer rows.Close() //nolint:errcheck // nothing is left to lose after the last row
	var out []string
	row := make([]driver.Value, len(rows.Columns()))
	for {
		switch err := rows.Next(row); {
		case errors.Is(err, io.EOF):
			return out, nil
		case err != nil:
			return nil, err // a list that was cut off would let SQL through
		}
		out = append(out, fmt.Sprint(row[column]))
	}
}

// AddSource declares a relation whose rows come as Arrow.
func (i *Instance) AddSource(name string, fields []arrow.Field, kind Kind) (*Source, error) {
	s, err := newSource(i.connection, name, fields)
	if err != nil {
		return nil, err
	}
	s.kind = kind
	i.sources[strings.ToLower(name)] = s
	return s, nil
}

// Number gives a relation a second name, under which it has one more column
// behind its own: the row's place in the record batch that is set.
func (i *Instance) Number(s *Source, name, column string) {
	s.ordinal = column
	i.numbered[strings.ToLower(name)] = s
}

// Close frees the instance.
func (i *Instance) Close() {
	for _, s := range i.sources {
		s.close()
	}
	if i.conn != nil {
		_ = i.conn.Close()
	}
	if i.connector != nil {
		_ = i.connector.Close()
	}
}

// Statement is a prepared SELECT.
type Statement struct {
	instance *Instance
	prepared mapping.PreparedStatement
	options  arrowmapping.ArrowOptions
	schema   *arrow.Schema
}

// Prepare binds a SELECT: its names and types are checked, nothing runs.
// batch.ErrInvalid: DuckDB refused it, with its message.
func (i *Instance) Prepare(sql string) (*Statement, error) {
	s := &Statement{instance: i}
	if mapping.Prepare(i.connection, sql, &s.prepared) == mapping.StateError {
		defer mapping.DestroyPrepare(&s.prepared)
		return nil, fmt.Errorf("%w: %s", batch.ErrInvalid, mapping.PrepareError(s.prepared))
	}
	arrowmapping.ConnectionGetArrowOptions(i.connection, &s.options)
	var err error
	if s.schema, err = columns(s.prepared, s.options, noted); err != nil {
		s.Close()
		return nil, fmt.Errorf("%w: a column has a type that cannot leave DuckDB; cast it, for instance to VARCHAR: %w", batch.ErrInvalid, err)
	}
	return s, nil
}

// Mistake is what DuckDB says of a SELECT that it refuses, without what it shows of
// it, and the byte where it stands; -1 where it does not say. "": it has nothing
// against it, or the instance is locked.
func (i *Instance) Mistake(ctx context.Context, sql string) (message string, at int) {
	if err := i.Exec(ctx, "SET errors_as_json=true"); err != nil {
		return "", -1
	}
	s := &Statement{instance: i}
	refused := mapping.Prepare(i.connection, sql, &s.prepared) == mapping.StateError
	text := mapping.PrepareError(s.prepared)
	mapping.DestroyPrepare(&s.prepared)
	if err := i.Exec(ctx, "SET errors_as_json=false"); err != nil || !refused {
		return "", -1
	}
	said := struct {
		Kind     string `json:"exception_type"`
		Message  string `json:"exception_message"`
		Position string `json:"position"`
	}{}
	if err := json.Unmarshal([]byte(text), &said); err != nil {
		return "", -1
	}
	if at, err := strconv.Atoi(said.Position); err == nil {
		return said.Kind + " Error: " + said.Message, at
	}
	return said.Kind + " Error: " + said.Message, -1
}

// Schema is what the statement returns.
func (s *Statement) Schema() *arrow.Schema { return s.schema }

// Close frees the statement.
func (s *Statement) Close() {
	arrowmapping.DestroyArrowOptions(&s.options)
	mapping.DestroyPrepare(&s.prepared)
}

// pieceBytes bounds the rows that Run hands over at once. A query may make any
// number of rows from one, and DuckDB, which has them all before the first is
// handed over, spills where Go's memory could not.
const pieceBytes = 16 << 20

// Run runs the statement and hands its rows to deliver, in order, in pieces that
// are deliver's to keep and release. Nothing is delivered before DuckDB has all
// rows, so after an error of a row nothing was.
func (s *Statement) Run(ctx context.Context, deliver func(arrow.RecordBatch) error) error {
	if err := context.Cause(ctx); err != nil {
		return err
	}
	// duckdb-go's own interrupt waits half a second.
	stop := context.AfterFunc(ctx, func() { mapping.Interrupt(s.instance.connection) })
	defer stop()
	var pending mapping.PendingResult
	state := mapping.PendingPrepared(s.prepared, &pending)
	defer mapping.DestroyPending(&pending)
	if state == mapping.StateError {
		return &Error{Message: mapping.PendingError(pending)}
	}
	var result mapping.Result
	if mapping.ExecutePending(pending, &result) == mapping.StateError {
		defer mapping.DestroyResult(&result)
		if err := context.Cause(ctx); err != nil {
			return err
		}
		return &Error{Kind: mapping.ResultErrorType(&result), Message: mapping.ResultError(&result)}
	}
	defer mapping.DestroyResult(&result)
	return s.fetch(result, deliver)
}

// fetch hands over what a result holds.
func (s *Statement) fetch(result mapping.Result, deliver func(arrow.RecordBatch) error) error {
	var parts []arrow.RecordBatch
	var size uint64
	defer func() { release(parts) }()
	hand := func() error {
		if len(parts) == 0 {
			return nil
		}
		piece, err := glue.Join(s.schema, parts)
		release(parts)
		parts, size = nil, 0
		if err != nil {
			return err
		}
		return deliver(piece)
	}
	for {
		chunk := mapping.FetchChunk(result)
		if chunk.Ptr == nil {
			return hand()
		}
		part, failed := arrowmapping.DataChunkToArrowArray(s.options, s.schema, chunk)
		mapping.DestroyDataChunk(&chunk)
		if err := ErrorOf(failed); err != nil {
			return &Error{Message: err.Error()}
		}
		parts = append(parts, part)
		for _, c := range part.Columns() {
			size += c.Data().SizeInBytes()
		}
		if size >= pieceBytes {
			if err := hand(); err != nil {
				return err
			}
		}
	}
}

func release(parts []arrow.RecordBatch) {
	for _, p := range parts {
		p.Release()
	}
}

// Error is DuckDB's answer to a statement that ran.
type Error struct {
	Kind    mapping.ErrorType
	Message string
}

func (e *Error) Error() string { return e.Message }

// IsRowError says whether a value is at fault, so that another choice of rows
// could run. What DuckDB says of the statement, of itself or of the machine is
// not: under on_bad_record: skip it would make every record a bad one.
func IsRowError(err error) bool {
	var e *Error
	if !errors.As(err, &e) {
		return false
	}
	switch e.Kind {
	case mapping.ErrorTypeConversion, mapping.ErrorTypeOutOfRange, mapping.ErrorTypeInvalidInput, mapping.ErrorTypeDecimal,
		mapping.ErrorTypeMismatchType, mapping.ErrorTypeInvalidType, mapping.ErrorTypeDivideByZero, mapping.ErrorTypeObjectSize,
		mapping.ErrorTypeConstraint:
		return true
	}
	return false
}

// IsMemoryError says whether the instance's memory was too small.
func IsMemoryError(err error) bool {
	var e *Error
	return errors.As(err, &e) && e.Kind == mapping.ErrorTypeOutOfMemory
}
