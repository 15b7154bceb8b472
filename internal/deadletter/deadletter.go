// Package deadletter is what a rejected record becomes: the rows of the
// dead-letter table. It is a tool: source and exec build them, whoever runs the
// batch gives them its number and time.
package deadletter

import (
	"bytes"
	"math"
	"strings"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"

	"github.com/frazil-io/frazil/internal/batch"
)

// Sink is the name of the dead letters among the sinks of a pipeline. A spec
// cannot give it to another one.
const Sink = "dead_letters"

// Columns of the table.
const (
	topic = iota
	partition
	offset
	timestamp
	key
	value
	headers
	source
	sink
	code
	reason
)

func fields() []arrow.Field {
	text, blob := arrow.BinaryTypes.String, arrow.BinaryTypes.Binary
	header := arrow.StructOf(arrow.Field{Name: "key", Type: text, Nullable: true}, arrow.Field{Name: "value", Type: blob, Nullable: true})
	return []arrow.Field{
		topic:     {Name: "topic", Type: text, Nullable: true},
		partition: {Name: "partition", Type: arrow.PrimitiveTypes.Int32, Nullable: true},
		offset:    {Name: "offset", Type: arrow.PrimitiveTypes.Int64, Nullable: true},
		timestamp: {Name: "timestamp", Type: instant(), Nullable: true},
		key:       {Name: "key", Type: blob, Nullable: true},
		value:     {Name: "value", Type: blob, Nullable: true},
		headers:   {Name: "headers", Type: arrow.ListOfField(arrow.Field{Name: "element", Type: header, Nullable: true}), Nullable: true},
		source:    {Name: "source", Type: text, Nullable: true},
		sink:      {Name: "sink", Type: text, Nullable: true},
		code:      {Name: "code", Type: text, Nullable: true},
		reason:    {Name: "reason", Type: text, Nullable: true},
	}
}

func instant() arrow.DataType { return &arrow.TimestampType{Unit: arrow.Microsecond, TimeZone: "UTC"} }

// Schema is that of the table: a letter, and the pipeline, batch and batch time
// that [Seal] adds.
func Schema() *arrow.Schema {
	return arrow.NewSchema(append(fields(),
		arrow.Field{Name: "pipeline", Type: arrow.BinaryTypes.String, Nullable: true},
		arrow.Field{Name: "batch", Type: arrow.PrimitiveTypes.Int64, Nullable: true},
		arrow.Field{Name: "batch_time", Type: instant(), Nullable: true}), nil)
}

// Header is one header of a record.
type Header struct{ Key, Value []byte }

// Letter is a rejected record. Its slices are copied.
type Letter struct {
	Topic     string
	Partition int32
	Offset    int64
	Timestamp int64  // microseconds since 1970; NoTimestamp for none
	Key       []byte // nil: null, as Value
	Value     []byte
	Headers   []Header
	Source    string
	Sink      string // "": it was rejected before any sink's SQL
	Code      batch.Code
	Reason    string
}

// NoTimestamp stands for a record without one, or one beyond what a column holds.
const NoTimestamp = math.MinInt64

// reasonMax bounds a reason: DuckDB's may quote the record.
const reasonMax = 2000

// Builder collects letters.
type Builder struct {
	build *array.RecordBuilder
	bytes int
}

// NewBuilder returns an empty one.
func NewBuilder() *Builder {
	return &Builder{build: array.NewRecordBuilder(memory.DefaultAllocator, arrow.NewSchema(fields(), nil))}
}

// Add adds one letter.
func (b *Builder) Add(l Letter) {
	text := func(column int, s string) { b.build.Field(column).(*array.StringBuilder).Append(s) }
	blob := func(column int, v []byte) { blobs(b.build.Field(column).(*array.BinaryBuilder), v) }
	l.Reason = shortened(strings.ToValidUTF8(l.Reason, "\uFFFD"), reasonMax)
	text(topic, l.Topic)
	b.build.Field(partition).(*array.Int32Builder).Append(l.Partition)
	b.build.Field(offset).(*array.Int64Builder).Append(l.Offset)
	if l.Timestamp == NoTimestamp {
		b.build.Field(timestamp).AppendNull()
	} else {
		b.build.Field(timestamp).(*array.TimestampBuilder).Append(arrow.Timestamp(l.Timestamp))
	}
	blob(key, l.Key)
	blob(value, l.Value)
	list := b.build.Field(headers).(*array.ListBuilder)
	list.Append(true)
	pair := list.ValueBuilder().(*array.StructBuilder)
	for _, h := range l.Headers {
		pair.Append(true)
		pair.FieldBuilder(0).(*array.StringBuilder).Append(string(bytes.ToValidUTF8(h.Key, []byte("\uFFFD"))))
		blobs(pair.FieldBuilder(1).(*array.BinaryBuilder), h.Value)
		b.bytes += len(h.Key) + len(h.Value) + headerBytes
	}
	text(source, l.Source)
	if l.Sink == "" {
		b.build.Field(sink).AppendNull()
	} else {
		text(sink, l.Sink)
	}
	text(code, string(l.Code))
	text(reason, l.Reason)
	b.bytes += len(l.Topic) + len(l.Key) + len(l.Value) + len(l.Source) + len(l.Sink) + len(l.Reason) + letterBytes
}

// What a letter and a header take beside their contents.
const (
	letterBytes = 96
	headerBytes = 16
)

func blobs(b *array.BinaryBuilder, v []byte) {
	if v == nil {
		b.AppendNull()
	} else {
		b.Append(v)
	}
}

// Rows is the number of letters since the last Take, Bytes what they take.
func (b *Builder) Rows() int { return b.build.Field(0).Len() }

// Bytes estimates the memory of these letters.
func (b *Builder) Bytes() int { return b.bytes }

// Take returns the letters, which the caller releases, and starts afresh.
func (b *Builder) Take() arrow.RecordBatch {
	b.bytes = 0
	return b.build.NewRecordBatch()
}

// Release frees the builder.
func (b *Builder) Release() { b.build.Release() }

// Seal makes letters rows of the table: those of a batch of a pipeline.
func Seal(letters arrow.RecordBatch, pipeline string, id batch.ID, at time.Time) arrow.RecordBatch {
	n := int(letters.NumRows())
	names, ids := array.NewStringBuilder(memory.DefaultAllocator), array.NewInt64Builder(memory.DefaultAllocator)
	times := array.NewTimestampBuilder(memory.DefaultAllocator, instant().(*arrow.TimestampType))
	defer names.Release()
	defer ids.Release()
	defer times.Release()
	for range n {
		names.Append(pipeline)
		ids.Append(int64(id))
		times.Append(arrow.Timestamp(at.UnixMicro()))
	}
	all := append([]arrow.Array{}, letters.Columns()...)
	for _, b := range []array.Builder{names, ids, times} {
		column := b.NewArray()
		defer column.Release()
		all = append(all, column)
	}
	return array.NewRecordBatch(Schema(), all, int64(n))
}

// shortened cuts a text at a character.
func shortened(s string, most int) string {
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + " …"
}
