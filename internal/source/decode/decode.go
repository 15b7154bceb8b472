// Package decode turns the bytes of Kafka records into Arrow columns. A decoder
// is made for one list of columns and works without allocating per row. A record
// that cannot be decoded is an *Error and leaves no trace in the columns.
package decode

import (
	"cmp"
	"errors"
	"fmt"

	"github.com/apache/arrow-go/v18/arrow"

	"github.com/frazil-io/frazil/internal/batch"
)

// Record is one Kafka record as fetched. Its slices are valid only during the
// call.
type Record struct {
	Key, Value []byte // nil: null
	Headers    []Header
}

// Header is one header of a record.
type Header struct{ Key, Value []byte }

// Decoder turns records into rows. It is used by one goroutine at a time.
type Decoder interface {
	// Fields are the columns, in order.
	Fields() []arrow.Field
	// Append decodes one record into one row, or returns an *Error and leaves
	// the columns as they were. A null value gives a row of NULLs. Another error
	// is not the record's: batch.ErrUnavailable, where a schema could not be had.
	Append(r Record) error
	// Rows is the number of rows since the last Take.
	Rows() int
	// Bytes estimates the memory of these rows.
	Bytes() int
	// Take returns the columns, which the caller releases, and starts afresh.
	Take() []arrow.Array
}

// Error says why a record cannot be decoded.
type Error struct {
	Code   batch.Code // "": batch.CodeDecode
	Reason string
	Pos    int  // byte offset in the record's value, or key; -1 if there is none
	Key    bool // it is the record's key that is wrong
}

func (e *Error) Error() string {
	of, text := "value", e.Reason
	if e.Key {
		of, text = "key", "key: "+e.Reason
	}
	if e.Pos < 0 {
		return text
	}
	return fmt.Sprintf("%s, at byte %d of the %s", text, e.Pos, of)
}

// Unknown says what becomes of members of a JSON object that are no columns.
type Unknown string

// The values of unknown_fields.
const (
	Ignore Unknown = "ignore"
	Reject Unknown = "reject"
	Column Unknown = "column" // kept as JSON text in UnknownColumn
)

// UnknownColumn holds, under Column, the unknown members as a JSON object.
const UnknownColumn = "_unknown"

// Schema is what a registry, or a file, says of records.
type Schema struct {
	// ID is the registry's; 0 for a file.
	ID   int32
	Type string // AVRO, PROTOBUF or JSON
	Text string
	// References are the schemas that Text refers to, by the name it uses, with
	// their own ones.
	References map[string]Schema
}

// ErrUnknownSchema says that no schema has this id.
var ErrUnknownSchema = errors.New("the registry has no schema with this id")

// Schemas finds the schema that a record was written with. It may be called by
// several goroutines, and keeps what it found.
type Schemas interface {
	// ByID returns ErrUnknownSchema, or batch.ErrUnavailable where the registry
	// does not answer.
	ByID(id int32) (Schema, error)
	// IDOf returns the id of the schema with a GUID, with the same errors.
	IDOf(guid string) (int32, error)
}

// Options are settings of a format.
type Options struct {
	// Reader is the schema whose columns a record becomes, for formats that have
	// one; Schemas finds those that records were written with, nil without a
	// registry.
	Reader  Schema
	Schemas Schemas
	// Known, if not nil, returns the schemas whose fingerprints records may have,
	// beside Reader's. It is asked again where a record has another one.
	Known func() ([]Schema, error)
	// Framing is what stands before an Avro or Protobuf record: "registry",
	// "single_object", or "none" ("").
	Framing string
	// Message is the name of a Protobuf message in Reader; "": its first one.
	Message string
	Unknown Unknown // "": Ignore
	// Timestamps is the form of a TIMESTAMP in JSON: "rfc3339" text (""), or a
	// number of "s", "ms", "us" or "ns" since 1970. It is never guessed.
	Timestamps string
	// Envelope is what is around a row: "debezium", or nothing ("").
	Envelope string
	// Include names more columns of an envelope: see IncludeBefore and the others.
	Include []string
	CSV     CSV
	// Encoding is how values are compressed: EncodingGzip, EncodingZstd, or "none"
	// ("").
	Encoding string
	// ValueMax is the most that a compressed value may become; 0: 64 MiB.
	ValueMax int
	key      bool // the decoder is one of keys
}

// New returns a decoder for the values of records in a format of the spec.
func New(format string, columns []arrow.Field, o Options) (Decoder, error) {
	d, err := newFormat(format, columns, o)
	if err != nil {
		return nil, err
	}
	return newEncoded(d, o.Encoding, cmp.Or(o.ValueMax, valueMax))
}

func newFormat(format string, columns []arrow.Field, o Options) (Decoder, error) {
	switch format {
	case "csv":
		return newCSV(columns, o)
	case "json":
		if o.Envelope != "" {
			return newDebezium(columns, o)
		}
		return newJSON(columns, o)
	case "protobuf":
		return newProtobuf(o)
	case "raw":
		return newRaw(), nil
	case "avro":
		if o.Envelope != "" {
			return newAvroDebezium(o)
		}
		return newAvro(o)
	}
	return nil, fmt.Errorf("%w: format %q is not supported by this version of frazil; use json, avro, protobuf, csv or raw", batch.ErrInvalid, format)
}
