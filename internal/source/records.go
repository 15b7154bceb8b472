package source

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"

	"github.com/frazil-io/frazil/internal/batch"
	"github.com/frazil-io/frazil/internal/source/decode"
)

// Kafka's record batch, format 2 (KIP-98): a header of 61 bytes, then records,
// compressed together. Integers are big endian; inside records they are zigzag
// varints.
const (
	batchHeader  = 61
	posLength    = 8  // int32, of what follows it
	posMagic     = 16 // int8
	posCRC       = 17 // uint32, CRC-32C of everything behind it
	posAttribute = 21 // int16
	posLastDelta = 23 // int32
	posBaseTime  = 27 // int64, milliseconds
	posMaxTime   = 35 // int64
	posProducer  = 43 // int64
	posCount     = 57 // int32

	attrCodec         = 0x07
	attrAppendTime    = 0x08
	attrTransactional = 0x10
	attrControl       = 0x20
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// errTruncated: the rest of a response is a batch that was cut off. Brokers do
// that; it is fetched again.
var errTruncated = errors.New("truncated batch")

// recordBatch is one batch as fetched.
type recordBatch struct {
	raw      []byte
	base     int64 // offset of the first record
	last     int64 // of the last one, also where compaction removed it
	count    int
	attr     uint16
	baseTime int64
	maxTime  int64
	producer int64
}

func (b recordBatch) control() bool       { return b.attr&attrControl != 0 }
func (b recordBatch) transactional() bool { return b.attr&attrTransactional != 0 }
func (b recordBatch) codec() int          { return int(b.attr & attrCodec) }

// nextBatch splits the first batch off a partition's bytes. batch.ErrInvalid:
// its format is too old. batch.ErrUnavailable: its bytes were damaged.
func nextBatch(in []byte) (b recordBatch, rest []byte, err error) {
	if len(in) <= posMagic {
		return b, nil, errTruncated
	}
	if magic := in[posMagic]; magic != 2 {
		return b, nil, fmt.Errorf("%w: message format %d of Kafka before 0.11 is not supported; copy the topic to write it anew", batch.ErrInvalid, magic)
	}
	if len(in) < batchHeader {
		return b, nil, errTruncated
	}
	size := int64(int32(binary.BigEndian.Uint32(in[posLength:]))) + posLength + 4
	if size < batchHeader {
		return b, nil, fmt.Errorf("%w: a record batch claims to have %d bytes", batch.ErrUnavailable, size)
	}
	if size > int64(len(in)) {
		return b, nil, errTruncated
	}
	raw := in[:size:size]
	if crc32.Checksum(raw[posAttribute:], castagnoli) != binary.BigEndian.Uint32(raw[posCRC:]) {
		return b, nil, fmt.Errorf("%w: the checksum of a record batch does not match", batch.ErrUnavailable)
	}
	base := int64(binary.BigEndian.Uint64(raw))
	b = recordBatch{
		raw: raw, base: base, last: base + int64(int32(binary.BigEndian.Uint32(raw[posLastDelta:]))),
		count: int(int32(binary.BigEndian.Uint32(raw[posCount:]))), attr: binary.BigEndian.Uint16(raw[posAttribute:]),
		baseTime: int64(binary.BigEndian.Uint64(raw[posBaseTime:])), maxTime: int64(binary.BigEndian.Uint64(raw[posMaxTime:])),
		producer: int64(binary.BigEndian.Uint64(raw[posProducer:])),
	}
	if b.last < b.base || b.base < 0 {
		return b, nil, fmt.Errorf("%w: a record batch claims to have the offsets %d to %d", batch.ErrUnavailable, b.base, b.last)
	}
	return b, in[size:], nil
}

// walker goes through the records of a batch. The fields are those of the record
// that next found; slices point into the decompressed batch.
type walker struct {
	decode.Record
	offset    int64
	timestamp int64 // milliseconds since 1970
	bytes     int64 // of key, value and headers, with their lengths
	missing   int64 // bytes of key and value that were passed over
	err       error

	batch recordBatch
	in    []byte
	left  int
	flow  *flow // instead of in, of a batch that is not held
}

// walk begins to read a batch whose decompressed records are data. headers is
// reused for the headers of each record; nil is fine.
func (b recordBatch) walk(data []byte, headers []decode.Header) walker {
	return walker{batch: b, in: data, left: b.count, Record: decode.Record{Headers: headers[:0]}}
}

// next moves on to the next record. It returns false at the end and after an
// error.
func (w *walker) next() bool {
	if w.flow != nil {
		return w.flow.next(w)
	}
	if w.left <= 0 {
		if len(w.in) > 0 && w.err == nil {
			w.err = errors.New("there are bytes behind the last record")
		}
		return false
	}
	w.left--
	all := cursor{in: w.in}
	size := all.varint()
	if all.bad || size < 1 || size > int64(len(all.in)) {
		return w.malformed()
	}
	w.in = all.in[size:]
	c := cursor{in: all.in[1:size]} // the first byte is attributes, unused
	w.timestamp = w.batch.baseTime + c.varint()
	if w.batch.attr&attrAppendTime != 0 {
		w.timestamp = w.batch.maxTime
	}
	w.offset = w.batch.base + c.varint()
	w.bytes = int64(len(c.in))
	w.Key = c.bytes()
	w.Value = c.bytes()
	w.Headers = w.Headers[:0]
	for n := c.varint(); n > 0 && !c.bad; n-- {
		w.Headers = append(w.Headers, decode.Header{Key: c.bytes(), Value: c.bytes()})
	}
	if c.bad || w.offset < w.batch.base || w.offset > w.batch.last {
		return w.malformed()
	}
	return true
}

func (w *walker) malformed() bool {
	w.err = fmt.Errorf("record %d of %d is malformed", w.batch.count-w.left, w.batch.count)
	w.left = 0
	return false
}

// cursor reads the fields of records.
type cursor struct {
	in  []byte
	bad bool
}

func (c *cursor) varint() int64 {
	if len(c.in) > 0 && c.in[0] < 0x80 { // one byte: the usual case
		u := c.in[0]
		c.in = c.in[1:]
		return int64(u>>1) ^ -int64(u&1)
	}
	v, n := binary.Varint(c.in)
	if n <= 0 {
		c.bad = true
		return 0
	}
	c.in = c.in[n:]
	return v
}

// bytes reads a length and as many bytes; nil for length -1.
func (c *cursor) bytes() []byte {
	n := c.varint()
	if n < -1 || n > int64(len(c.in)) {
		c.bad = true
		return nil
	}
	if n < 0 {
		return nil
	}
	out := c.in[:n:n]
	c.in = c.in[n:]
	return out
}
