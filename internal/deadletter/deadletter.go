// Package deadletter is what a rejected record becomes: the rows of the
// dead-letter table. It is a tool: source and exec build them, whoever runs the
// batch gives them its number and time.
package deadletter

import (
	"bytes"
	"fmt"
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
	sinks
)

// CodeReplayed is, in place of a code, that of a mark: a row that says which letters
// were run again. It is no letter.
const CodeReplayed = "replayed"

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
		sinks:     {Name: "sinks", Type: arrow.ListOfField(arrow.Field{Name: "element", Type: text, Nullable: true}), Nullable: true},
	}
}

func instant() arrow.DataType { return &arrow.TimestampType{Unit: arrow.Microsecond, TimeZone: "UTC"} }

// Schema is that of the table: a letter, what [Seal] adds, and the columns of
// marks.
func Schema() *arrow.Schema {
	all := fields()
	text, number := arrow.BinaryTypes.String, arrow.PrimitiveTypes.Int64
	return arrow.NewSchema(append(all[:sinks:sinks],
		arrow.Field{Name: "pipeline", Type: text, Nullable: true},
		arrow.Field{Name: "batch", Type: number, Nullable: true},
		arrow.Field{Name: "batch_time", Type: instant(), Nullable: true},
		arrow.Field{Name: "stream", Type: text, Nullable: true},
		all[sinks],
		arrow.Field{Name: "replayed_stream", Type: text, Nullable: true},
		arrow.Field{Name: "replayed_from", Type: number, Nullable: true},
		arrow.Field{Name: "replayed_to", Type: number, Nullable: true}), nil)
}

// Truncated is the key of a header that a letter has whose payload was too large to
// be kept: of key and value it has the beginning, and of the headers none. The
// header's value is the size of the whole payload, in digits. Such a letter is not the
// record, and must not be taken for it.
const Truncated = "frazil.truncated"

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
	// Sinks are those whose tables lack the record. nil: Sink alone, and without one
	// all that [Seal] is told.
	Sinks  []string
	Code   batch.Code
	Reason string
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
	names := b.build.Field(sinks).(*array.ListBuilder)
	if l.Sinks == nil && l.Sink != "" {
		l.Sinks = []string{l.Sink}
	}
	names.Append(l.Sinks != nil)
	for _, name := range l.Sinks {
		names.ValueBuilder().(*array.StringBuilder).Append(name)
	}
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

// Origin is what rejected letters: a batch of a stream of a pipeline.
type Origin struct {
	Pipeline, Stream string
	Batch            batch.ID
	Time             time.Time
	// Sinks are those that lack what the source rejected.
	Sinks []string
}

// Seal makes letters rows of the table.
func Seal(letters arrow.RecordBatch, from Origin) arrow.RecordBatch {
	b := array.NewRecordBuilder(memory.DefaultAllocator, Schema())
	defer b.Release()
	n := int(letters.NumRows())
	lacking := letters.Column(sinks).(*array.List)
	names := lacking.ListValues().(*array.String)
	for i := range n {
		from.seal(b)
		list := b.Field(sinks + 4).(*array.ListBuilder)
		list.Append(true)
		if lacking.IsNull(i) {
			list.ValueBuilder().(*array.StringBuilder).AppendValues(from.Sinks, nil)
			continue
		}
		for k, to := lacking.ValueOffsets(i); k < to; k++ {
			list.ValueBuilder().(*array.StringBuilder).Append(names.Value(int(k)))
		}
	}
	all := append([]arrow.Array{}, letters.Columns()[:sinks]...)
	for i := sinks; i < Schema().NumFields(); i++ {
		column := b.Field(i)
		column.AppendNulls(n - column.Len())
		made := column.NewArray()
		defer made.Release()
		all = append(all, made)
	}
	return array.NewRecordBatch(Schema(), all, int64(n))
}

// seal adds to a row who made it.
func (o Origin) seal(b *array.RecordBuilder) {
	b.Field(sinks).(*array.StringBuilder).Append(o.Pipeline)
	b.Field(sinks + 1).(*array.Int64Builder).Append(int64(o.Batch))
	b.Field(sinks + 2).(*array.TimestampBuilder).Append(arrow.Timestamp(o.Time.UnixMicro()))
	b.Field(sinks + 3).(*array.StringBuilder).Append(o.Stream)
}

// Mark says that the letters of a stream's batches [From, To) were run again.
type Mark struct {
	Stream   string
	From, To int64
}

// Marks are rows of the table, written by the batch that ran the letters.
func Marks(marks []Mark, from Origin) arrow.RecordBatch {
	b := array.NewRecordBuilder(memory.DefaultAllocator, Schema())
	defer b.Release()
	for _, m := range marks {
		from.seal(b)
		b.Field(code).(*array.StringBuilder).Append(CodeReplayed)
		b.Field(reason).(*array.StringBuilder).Append(fmt.Sprintf("letters of stream %s, batches %d to %d, were run again", m.Stream, m.From, m.To-1))
		b.Field(sinks + 5).(*array.StringBuilder).Append(m.Stream)
		b.Field(sinks + 6).(*array.Int64Builder).Append(m.From)
		b.Field(sinks + 7).(*array.Int64Builder).Append(m.To)
	}
	for _, column := range b.Fields() {
		column.AppendNulls(len(marks) - column.Len())
	}
	return b.NewRecordBatch()
}

// shortened cuts a text at a character.
func shortened(s string, most int) string {
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + " …"
}
