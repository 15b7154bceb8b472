package source

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"

	"github.com/frazil-io/frazil/internal/batch"
	"github.com/frazil-io/frazil/internal/deadletter"
	"github.com/frazil-io/frazil/internal/source/decode"
)

const (
	// recordBytesDefault is far more than brokers take as one record, a megabyte or
	// ten, and a worker can hold it beside its other rows.
	recordBytesDefault = 64 << 20
	// payloadMax is the largest payload that a dead letter keeps whole, whatever the
	// limit of records is; of a larger one it keeps payloadKept bytes of key and value
	// each, enough to tell what it was.
	payloadMax  = 64 << 20
	payloadKept = 64 << 10
	// windowMax is what decompressing a stream of zstd may hold: as much as the highest
	// level that producers offer needs.
	windowMax = 128 << 20
	// snappyMax bounds a block of snappy, which cannot be decompressed in parts.
	snappyMax = 256 << 20
	flowBytes = 64 << 10
	// recordHead is the most that a record has before its key: a byte and two varints.
	recordHead = 1 + 2*binary.MaxVarintLen64
)

// oversize makes a record bad that is larger than the source's limit.
func (w *worker) oversize(ctx context.Context, p piece, it *walker, chunks chan<- chunk) error {
	w.tally.Bytes += it.missing
	reason := fmt.Sprintf("the record has %d bytes, max_record_bytes is %d", it.bytes, w.r.MaxRecordBytes)
	if it.bytes > payloadMax {
		reason += fmt.Sprintf("; it is too large to be kept: of key and value there are the first %d bytes, of the headers none", payloadKept)
	}
	return w.bad(ctx, p, it, chunks, &decode.Error{Code: batch.CodeOversize, Reason: reason, Pos: -1})
}

// cutLetter leaves the beginning of a payload that is too large, and says so in a
// header.
func cutLetter(l *deadletter.Letter, whole int64) {
	l.Key, l.Value = l.Key[:min(len(l.Key), payloadKept)], l.Value[:min(len(l.Value), payloadKept)]
	l.Headers = []deadletter.Header{{Key: []byte(deadletter.Truncated), Value: strconv.AppendInt(nil, whole, 10)}}
}

// walk decompresses a batch, or begins to, where it is too large to be held.
func (w *worker) walk(ctx context.Context, b recordBatch) (walker, error) {
	data, err := w.unpack.records(b)
	if err == nil || !tooLarge(err) {
		return b.walk(data, w.headers), err
	}
	it := b.walk(nil, w.headers)
	it.flow, err = newFlow(ctx, b, max(w.r.MaxRecordBytes, payloadMax))
	return it, err
}

// flow reads the records of a batch that is not held in memory, one after the
// other. A record that is larger than any that is wanted is passed over but for its
// beginning.
type flow struct {
	in     *bufio.Reader
	most   int64 // of a record that is read whole
	record []byte
	end    func()
}

func newFlow(ctx context.Context, b recordBatch, most int) (*flow, error) {
	packed := bytes.NewReader(b.raw[batchHeader:])
	f := &flow{most: int64(most), end: func() {}}
	var in io.Reader
	switch b.codec() {
	case codecGzip:
		z, err := gzip.NewReader(packed)
		if err != nil {
			return nil, err
		}
		in = z
	case codecSnappy:
		in = &snappyBlocks{left: b.raw[batchHeader:]}
	case codecLZ4:
		in = lz4.NewReader(packed)
	case codecZstd:
		z, err := zstd.NewReader(packed, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(windowMax))
		if err != nil {
			return nil, err
		}
		in, f.end = z, z.Close
	default:
		return nil, fmt.Errorf("unknown codec %d", b.codec())
	}
	f.in = bufio.NewReaderSize(&interruptible{ctx, in}, flowBytes)
	return f, nil
}

// interruptible reads until a context ends: a batch can have gigabytes.
type interruptible struct {
	ctx context.Context //nolint:containedctx // of one batch; Read has none
	in  io.Reader
}

// Read implements io.Reader.
func (r *interruptible) Read(to []byte) (int, error) {
	if r.ctx.Err() != nil {
		return 0, context.Cause(r.ctx)
	}
	return r.in.Read(to)
}

// close frees what a walk holds.
func (w *walker) close() {
	if w.flow != nil {
		w.flow.end()
	}
}

// next implements walker.next.
func (f *flow) next(w *walker) bool {
	if w.left <= 0 {
		if w.err == nil {
			switch _, err := f.in.ReadByte(); {
			case err == nil:
				w.err = errors.New("there are bytes behind the last record")
			case !errors.Is(err, io.EOF):
				w.err = err
			}
		}
		return false
	}
	w.missing = 0
	size, err := binary.ReadVarint(f.in)
	if err == nil && size < 1 {
		return w.malformed()
	}
	switch {
	case err != nil:
	case size <= f.most+recordHead:
		err = f.whole(w, size)
	default:
		err = f.part(w, size)
	}
	switch {
	case errors.Is(err, errMalformed), errors.Is(err, io.EOF):
		return w.malformed()
	case err != nil:
		w.left, w.err = 0, fmt.Errorf("decompress: %w", err)
		return false
	}
	w.left--
	return true
}

// errMalformed: the bytes of a record are none.
var errMalformed = errors.New("malformed record")

// whole reads a record into memory.
func (f *flow) whole(w *walker, size int64) error {
	f.record = binary.AppendVarint(f.record[:0], size)
	head := len(f.record)
	f.record = slices.Grow(f.record, int(size))[:head+int(size)]
	if _, err := io.ReadFull(f.in, f.record[head:]); err != nil {
		return err
	}
	one := walker{batch: w.batch, in: f.record, left: 1, Record: decode.Record{Headers: w.Headers}}
	if !one.next() {
		return errMalformed
	}
	w.Record, w.offset, w.timestamp, w.bytes = one.Record, one.offset, one.timestamp, one.bytes
	return nil
}

// part reads the beginning of a record's key and value, and passes over the rest.
func (f *flow) part(w *walker, size int64) error {
	c := &stretch{in: f.in, left: size}
	c.skip(1) // attributes, unused
	w.timestamp = w.batch.baseTime + c.varint()
	if w.batch.attr&attrAppendTime != 0 {
		w.timestamp = w.batch.maxTime
	}
	w.offset = w.batch.base + c.varint()
	w.bytes = c.left
	var key, value int64 // that are missing
	w.Key, key = c.bytes()
	w.Value, value = c.bytes()
	w.missing = key + value
	w.Headers = w.Headers[:0]
	for n := c.varint(); n > 0 && c.err == nil; n-- {
		c.skipBytes() // the key
		c.skipBytes() // and the value
	}
	c.skip(c.left)
	if c.err == nil && (w.offset < w.batch.base || w.offset > w.batch.last) {
		return errMalformed
	}
	return c.err
}

// stretch reads a part of a stream, and nothing behind it.
type stretch struct {
	in   *bufio.Reader
	left int64
	err  error
}

// ReadByte implements io.ByteReader.
func (s *stretch) ReadByte() (byte, error) {
	if s.left == 0 {
		return 0, errMalformed
	}
	s.left--
	return s.in.ReadByte()
}

func (s *stretch) varint() int64 {
	if s.err != nil {
		return 0
	}
	var v int64
	v, s.err = binary.ReadVarint(s)
	return v
}

// skip passes over n bytes.
func (s *stretch) skip(n int64) {
	if s.err == nil && (n < 0 || n > s.left) {
		s.err = errMalformed
	}
	if s.err == nil {
		_, s.err = io.CopyN(io.Discard, s.in, n)
		s.left -= n
	}
}

// skipBytes passes over a length and its bytes, of which -1 has none, as cursor.bytes
// has it.
func (s *stretch) skipBytes() {
	if n := s.varint(); n != -1 {
		s.skip(n)
	}
}

// bytes reads a length and the first bytes, and says how many it passed over; nil
// for length -1.
func (s *stretch) bytes() (first []byte, missing int64) {
	n := s.varint()
	if s.err == nil && (n < -1 || n > s.left) {
		s.err = errMalformed
	}
	if s.err != nil || n < 0 {
		return nil, 0
	}
	first = make([]byte, min(n, payloadKept))
	if _, s.err = io.ReadFull(s.in, first); s.err != nil {
		return nil, 0
	}
	s.left -= int64(len(first))
	missing = n - int64(len(first))
	s.skip(missing)
	return first, missing
}

// snappyBlocks reads snappy block by block.
type snappyBlocks struct {
	left   []byte // of Java's framing, behind its header; or all of it
	framed bool
	begun  bool
	unpack unpacker
	block  []byte
}

// Read implements io.Reader.
func (s *snappyBlocks) Read(to []byte) (int, error) {
	for len(s.block) == 0 {
		if err := s.load(); err != nil {
			return 0, err
		}
	}
	n := copy(to, s.block)
	s.block = s.block[n:]
	return n, nil
}

// load decompresses the next block.
func (s *snappyBlocks) load() (err error) {
	if !s.begun {
		s.begun, s.unpack.max = true, snappyMax
		if s.framed = len(s.left) >= xerialHeader && bytes.HasPrefix(s.left, xerialMagic); s.framed {
			s.left = s.left[xerialHeader:]
		}
	}
	if len(s.left) == 0 {
		return io.EOF
	}
	packed := s.left
	if s.framed {
		if packed, s.left, err = xerialBlock(s.left); err != nil {
			return err
		}
	} else {
		s.left = nil
	}
	s.unpack.buffer, err = s.unpack.snappyBlock(s.unpack.buffer[:0], packed)
	s.block = s.unpack.buffer
	return err
}
