package decode

import (
	"math"

	"github.com/apache/arrow-go/v18/arrow"
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
		{Name: "_headers", Type: HeadersType, Nullable: true},
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

// Append adds one row. timestamp is in milliseconds since 1970; what Kafka writes
// for no timestamp, -1, becomes NULL, and so does one that a producer made up
// beyond what the column holds.
func (m *Metadata) Append(topic string, partition int32, offset, timestamp int64, key []byte, headers []Header) {
	m.topic.append([]byte(topic))
	m.partition.add(partition)
	m.offset.add(offset)
	if timestamp == noTimestamp || timestamp > timestampMax || timestamp < -timestampMax {
		m.timestamp.null()
	} else {
		m.timestamp.add(timestamp * 1000)
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
