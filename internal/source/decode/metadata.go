package decode

import (
	"math"

	"github.com/apache/arrow-go/v18/arrow"

	"github.com/frazil-io/frazil/internal/batch"
)

// Metadata builds the columns that `metadata: true` adds to a source.
type Metadata struct {
	topic     *varied
	partition fixed[int32]
	offset    fixed[int64]
	timestamp fixed[int64]
	key       *varied
	headers   *list
}

// MetadataFields are the columns that Metadata builds.
func MetadataFields() []arrow.Field {
	return []arrow.Field{
		{Name: "_topic", Type: arrow.BinaryTypes.String, Nullable: true},
		{Name: "_partition", Type: arrow.PrimitiveTypes.Int32, Nullable: true},
		{Name: "_offset", Type: arrow.PrimitiveTypes.Int64, Nullable: true},
		{Name: "_timestamp", Type: &arrow.TimestampType{Unit: arrow.Microsecond, TimeZone: "UTC"}, Nullable: true},
		{Name: "_key", Type: arrow.BinaryTypes.Binary, Nullable: true},
		{Name: "_headers", Type: headersType, Nullable: true},
	}
}

// NewMetadata returns empty columns.
func NewMetadata() *Metadata {
	f := MetadataFields()
	return &Metadata{
		topic:     newVaried(f[0].Type, nil),
		partition: fixed[int32]{kind: f[1].Type, cast: arrow.Int32Traits.CastToBytes},
		offset:    fixed[int64]{kind: f[2].Type, cast: arrow.Int64Traits.CastToBytes},
		timestamp: fixed[int64]{kind: f[3].Type, cast: arrow.Int64Traits.CastToBytes},
		key:       newVaried(f[4].Type, nil),
		headers:   newHeaders(),
	}
}

// noTimestamp is Kafka's for a record without one.
const noTimestamp = -1

// timestampMax is what Append can hold, in milliseconds from 1970.
const timestampMax = math.MaxInt64 / 1000

// Micros turns a record's timestamp, in milliseconds, into what a column holds;
// not where there is none.
func Micros(timestamp int64) (int64, bool) {
	if timestamp == noTimestamp || timestamp > timestampMax || timestamp < -timestampMax {
		return 0, false
	}
	return timestamp * 1000, true
}

// Append adds one row. timestamp is in milliseconds since 1970; what Kafka writes
// for no timestamp, -1, becomes NULL, and so does one that a producer made up
// beyond what the column holds.
func (m *Metadata) Append(topic string, partition int32, offset, timestamp int64, key []byte, headers []Header) {
	m.topic.append([]byte(topic))
	m.partition.add(partition)
	m.offset.add(offset)
	if at, ok := Micros(timestamp); ok {
		m.timestamp.add(at)
	} else {
		m.timestamp.null()
	}
	m.key.append(key)
	appendHeaders(m.headers, headers)
}

// Take returns the columns and starts afresh.
func (m *Metadata) Take() []arrow.Array {
	return []arrow.Array{
		toArray(m.topic.take()), toArray(m.partition.take()), toArray(m.offset.take()),
		toArray(m.timestamp.take()), toArray(m.key.take()), toArray(m.headers.take()),
	}
}

// Payload builds the hidden columns of batch.PayloadColumns.
type Payload struct {
	timestamp  fixed[int64]
	key, value *varied
	headers    *list
}

// PayloadFields are the columns that Payload builds.
func PayloadFields() []arrow.Field {
	types := []arrow.DataType{&arrow.TimestampType{Unit: arrow.Microsecond, TimeZone: "UTC"}, arrow.BinaryTypes.Binary, arrow.BinaryTypes.Binary, headersType}
	fields := make([]arrow.Field, len(types))
	for i, name := range batch.PayloadColumns() {
		fields[i] = arrow.Field{Name: name, Type: types[i], Nullable: true}
	}
	return fields
}

// NewPayload returns empty columns.
func NewPayload() *Payload {
	f := PayloadFields()
	return &Payload{
		timestamp: fixed[int64]{kind: f[0].Type, cast: arrow.Int64Traits.CastToBytes},
		key:       newVaried(f[1].Type, nil), value: newVaried(f[2].Type, nil), headers: newHeaders(),
	}
}

// Append adds one row. timestamp is as in Metadata.Append.
func (p *Payload) Append(timestamp int64, r Record) {
	if at, ok := Micros(timestamp); ok {
		p.timestamp.add(at)
	} else {
		p.timestamp.null()
	}
	p.key.append(r.Key)
	p.value.append(r.Value)
	appendHeaders(p.headers, r.Headers)
}

// Bytes estimates the memory of the rows since the last Take.
func (p *Payload) Bytes() int { return p.key.bytes() + p.value.bytes() + p.headers.bytes() }

// Take returns the columns and starts afresh.
func (p *Payload) Take() []arrow.Array {
	return []arrow.Array{toArray(p.timestamp.take()), toArray(p.key.take()), toArray(p.value.take()), toArray(p.headers.take())}
}

// Origins builds the hidden columns that lead back to a row's record.
type Origins struct {
	ranges  fixed[int32]
	offsets fixed[int64]
}

// NewOrigins returns empty columns.
func NewOrigins() *Origins {
	return &Origins{
		ranges:  fixed[int32]{kind: arrow.PrimitiveTypes.Int32, cast: arrow.Int32Traits.CastToBytes},
		offsets: fixed[int64]{kind: arrow.PrimitiveTypes.Int64, cast: arrow.Int64Traits.CastToBytes},
	}
}

// Append adds one row: an index into the ranges that are read, and an offset.
func (o *Origins) Append(index int32, offset int64) {
	o.ranges.add(index)
	o.offsets.add(offset)
}

// Take returns the columns and starts afresh.
func (o *Origins) Take() []arrow.Array {
	return []arrow.Array{toArray(o.ranges.take()), toArray(o.offsets.take())}
}
