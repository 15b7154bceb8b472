package decode

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"

	"github.com/frazil-io/frazil/internal/batch"
)

// The values of encoding.
const (
	EncodingGzip = "gzip"
	EncodingZstd = "zstd"
)

const (
	// valueMax bounds what a compressed value may become: a few bytes can claim to be
	// gigabytes. It is far more than brokers take as one record, and a worker can hold
	// it beside its other rows.
	valueMax = 64 << 20
	// scratchKept is how much of a buffer is kept after a large value.
	scratchKept = 1 << 20
	// scratchFactor times the compressed size is where a buffer begins.
	scratchFactor = 6
)

// Unpacked is a decoder of compressed values, whose rows are larger than the
// records.
type Unpacked interface {
	// Unpacked is the size of the last record's value without compression.
	Unpacked() int
}

// encodedDecoder decompresses values, one after the other, into one buffer, for the
// decoder of their format.
type encodedDecoder struct {
	Decoder
	unpack func(to, packed []byte) ([]byte, error) // errTooLarge beyond max
	name   string
	max    int
	buffer []byte
	size   int
}

var errTooLarge = errors.New("the value is too large")

func newEncoded(d Decoder, encoding string, most int) (Decoder, error) {
	e := &encodedDecoder{Decoder: d, name: encoding, max: most}
	switch encoding {
	case "", "none":
		return d, nil
	case EncodingGzip:
		e.unpack = e.gunzip()
	case EncodingZstd:
		z, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxMemory(uint64(most)))
		if err != nil {
			return nil, err
		}
		e.unpack = func(to, packed []byte) ([]byte, error) {
			out, err := z.DecodeAll(packed, to)
			if errors.Is(err, zstd.ErrDecoderSizeExceeded) || errors.Is(err, zstd.ErrWindowSizeExceeded) || len(out) > most {
				return nil, errTooLarge
			}
			return out, err
		}
	default:
		return nil, fmt.Errorf("%w: encoding: %q is not none, gzip or zstd", batch.ErrInvalid, encoding)
	}
	if k, ok := d.(keyed); ok {
		return &encodedRow{e, k}, nil
	}
	return e, nil
}

// encodedRow is an encodedDecoder whose row may have the key's columns.
type encodedRow struct {
	*encodedDecoder
	keyed
}

// Unpacked implements Unpacked.
func (e *encodedDecoder) Unpacked() int { return e.size }

func (e *encodedDecoder) Append(r Record) error {
	e.size = 0
	if r.Value == nil {
		return e.Decoder.Append(r)
	}
	if len(r.Value) == 0 {
		return &Error{Code: batch.CodeDecode, Reason: "the value is empty, and no " + e.name, Pos: 0}
	}
	value, err := e.unpack(slices.Grow(e.buffer[:0], min(scratchFactor*len(r.Value), scratchKept)), r.Value)
	switch {
	case errors.Is(err, errTooLarge):
		return &Error{Code: batch.CodeOversize, Reason: fmt.Sprintf("the value has more than %d bytes without its compression (%s); max_record_bytes is the most", e.max, e.name), Pos: -1}
	case err != nil:
		return &Error{Code: batch.CodeDecode, Reason: fmt.Sprintf("the value cannot be decompressed as %s: %v", e.name, err), Pos: -1}
	}
	if e.buffer = value[:0]; cap(value) > scratchKept {
		e.buffer = nil
	}
	e.size = len(value)
	r.Value = nonNil(value)
	return e.Decoder.Append(r)
}

// gunzip returns a function that decompresses one or more members of gzip.
func (e *encodedDecoder) gunzip() func(to, packed []byte) ([]byte, error) {
	source, reader := &bytes.Reader{}, &gzip.Reader{}
	return func(to, packed []byte) ([]byte, error) {
		source.Reset(packed)
		if err := reader.Reset(source); err != nil {
			return nil, err
		}
		for {
			if len(to) == cap(to) {
				to = slices.Grow(to, max(512, len(to)/2))
			}
			n, err := reader.Read(to[len(to):cap(to)])
			if to = to[:len(to)+n]; len(to) > e.max {
				return nil, errTooLarge
			}
			if errors.Is(err, io.EOF) {
				return to, nil
			}
			if err != nil {
				return nil, err
			}
		}
	}
}
