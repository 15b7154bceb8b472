package source

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"

	"github.com/frazil-io/frazil/internal/source/decode"
)

// Kafka's record batch, format 2 (KIP-98): a header of 61 bytes, then records,
// compressed together.
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

// nextBatch splits the first batch off a partition's bytes.
func nextBatch(in []byte) (b recordBatch, rest []byte, err error) {
	if len(in) < batchHeader {
		return b, nil, errTruncated
	}
	if magic := in[posMagic]; magic != 2 {
		return b, nil, fmt.Errorf("message format %d is older than Kafka 0.11 and not supported", magic)
	}
	size := int64(int32(binary.BigEndian.Uint32(in[posLength:]))) + posLength + 4
	if size < batchHeader {
		return b, nil, fmt.Errorf("a batch claims %d bytes", size)
	}
	if size > int64(len(in)) {
		return b, nil, errTruncated
	}
	raw := in[:size]
	if crc32.Checksum(raw[posAttribute:], castagnoli) != binary.BigEndian.Uint32(raw[posCRC:]) {
		return b, nil, errors.New("a batch's checksum does not match")
	}
	base := int64(binary.BigEndian.Uint64(raw))
	return recordBatch{
		raw: raw, base: base, last: base + int64(int32(binary.BigEndian.Uint32(raw[posLastDelta:]))),
		count: int(int32(binary.BigEndian.Uint32(raw[posCount:]))), attr: binary.BigEndian.Uint16(raw[posAttribute:]),
		baseTime: int64(binary.BigEndian.Uint64(raw[posBaseTime:])), maxTime: int64(binary.BigEndian.Uint64(raw[posMaxTime:])),
		producer: int64(binary.BigEndian.Uint64(raw[posProducer:])),
	}, in[size:], nil
}

// record is one record; its slices point into the decompressed batch.
type record struct {
	decode.Record
	offset    int64
	timestamp int64 // milliseconds
}

// cursor reads the fields of records.
type cursor struct {
	in  []byte
	bad bool
}

func (c *cursor) varint() int64 {
	if len(c.in) > 0 && c.in[0] < 0x80 { // one byte, zigzag: the usual case
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
	if n < 0 {
		return nil
	}
	if n > int64(len(c.in)) {
		c.bad = true
		return nil
	}
	out := c.in[:n:n]
	c.in = c.in[n:]
	return out
}

// walk calls f for each record of a batch, whose decompressed records are data.
// headers says whether headers are wanted.
func (b recordBatch) walk(data []byte, headers bool, f func(record) error) error {
	c := cursor{in: data}
	var kept []decode.Header
	for i := range b.count {
		size := c.varint()
		if c.bad || size < 0 || size > int64(len(c.in)) {
			return fmt.Errorf("record %d of the batch at offset %d is malformed", i, b.base)
		}
		in := cursor{in: c.in[:size]}
		c.in = c.in[size:]
		if len(in.in) == 0 {
			return fmt.Errorf("record %d of the batch at offset %d is empty", i, b.base)
		}
		in.in = in.in[1:] // attributes, unused
		r := record{timestamp: b.baseTime + in.varint()}
		if b.attr&attrAppendTime != 0 {
			r.timestamp = b.maxTime
		}
		r.offset = b.base + in.varint()
		r.Key = in.bytes()
		r.Value = in.bytes()
		if headers {
			n := in.varint()
			kept = kept[:0]
			for range n {
				if in.bad {
					break
				}
				kept = append(kept, decode.Header{Key: in.bytes(), Value: in.bytes()})
			}
			r.Headers = kept
		}
		if in.bad {
			return fmt.Errorf("record %d of the batch at offset %d is malformed", i, b.base)
		}
		if err := f(r); err != nil {
			return err
		}
	}
	return nil
}

// aborts reads a control batch: whether it ends its transaction by an abort.
// A marker's key is version and type, 0 for an abort (KIP-98).
func (b recordBatch) aborts(data []byte) (abort bool, err error) {
	err = b.walk(data, false, func(r record) error {
		if len(r.Key) < 4 {
			return fmt.Errorf("the control record at offset %d is malformed", r.offset)
		}
		abort = binary.BigEndian.Uint16(r.Key[2:]) == 0
		return nil
	})
	return abort, err
}
