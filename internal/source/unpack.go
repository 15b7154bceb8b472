package source

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/s2"
	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
)

// Codecs of a record batch, in its attributes.
const (
	codecNone = iota
	codecGzip
	codecSnappy
	codecLZ4
	codecZstd
)

const (
	// unpackedMax is the most that one batch becomes in memory: a few bytes can
	// become gigabytes. A larger batch is read record by record (see flow).
	unpackedMax = 64 << 20
	// scratchMax is how much of a buffer an unpacker keeps after a large batch.
	scratchMax = 4 << 20
	// scratchFactor times the compressed size is where a buffer begins whose
	// final size the frame does not tell. LZ4 frames tell the largest possible
	// block, which is far too much.
	scratchFactor = 6
)

var errTooLarge = fmt.Errorf("it has more than %d MiB", unpackedMax>>20)

// tooLarge says whether a batch could not be decompressed for its size alone.
func tooLarge(err error) bool {
	return errors.Is(err, errTooLarge) || errors.Is(err, zstd.ErrDecoderSizeExceeded) || errors.Is(err, zstd.ErrWindowSizeExceeded)
}

// unpacker decompresses batches, one after the other, into one buffer.
type unpacker struct {
	max     int // of one batch
	buffer  []byte
	source  bytes.Reader
	gunzip  gzip.Reader
	unzstd  *zstd.Decoder
	zstdErr error
}

func newUnpacker() *unpacker {
	u := &unpacker{max: unpackedMax}
	u.unzstd, u.zstdErr = zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxMemory(unpackedMax))
	return u
}

// records returns the bytes of a batch's records. They are valid until the next
// call.
func (u *unpacker) records(b recordBatch) (data []byte, err error) {
	packed := b.raw[batchHeader:]
	dst := u.buffer[:0]
	switch b.codec() {
	case codecNone:
		return packed, nil
	case codecGzip:
		data, err = u.fromGzip(dst, packed)
	case codecSnappy:
		data, err = u.fromSnappy(dst, packed)
	case codecLZ4:
		data, err = u.fromLZ4(dst, packed)
	case codecZstd:
		if err = u.zstdErr; err == nil {
			data, err = u.unzstd.DecodeAll(packed, dst)
		}
	default:
		err = fmt.Errorf("unknown codec %d", b.codec())
	}
	if err != nil {
		return nil, fmt.Errorf("decompress: %w", err)
	}
	if cap(data) <= scratchMax {
		u.buffer = data[:0]
	}
	return data, nil
}

// grow makes room behind dst, more than there was.
func (u *unpacker) grow(dst []byte, atLeast int) ([]byte, error) {
	if len(dst)+atLeast > u.max {
		return nil, errTooLarge
	}
	more := max(atLeast, min(cap(dst), u.max-len(dst)))
	return slices.Grow(dst, more), nil
}

func (u *unpacker) fromGzip(dst, src []byte) ([]byte, error) {
	u.source.Reset(src)
	if err := u.gunzip.Reset(&u.source); err != nil {
		return nil, err
	}
	dst = slices.Grow(dst, min(scratchFactor*len(src), scratchMax))
	for {
		if len(dst) == cap(dst) {
			var err error
			if dst, err = u.grow(dst, 1); err != nil {
				return nil, err
			}
		}
		n, err := u.gunzip.Read(dst[len(dst):cap(dst)])
		dst = dst[:len(dst)+n]
		if errors.Is(err, io.EOF) {
			return dst, nil
		}
		if err != nil {
			return nil, err
		}
	}
}

// xerialMagic begins the framing that Java's producer puts around snappy: it is
// followed by two versions, and then by blocks with their size in four bytes.
var xerialMagic = []byte{0x82, 'S', 'N', 'A', 'P', 'P', 'Y', 0}

const xerialHeader = 16

func (u *unpacker) fromSnappy(dst, src []byte) ([]byte, error) {
	if len(src) < xerialHeader || !bytes.HasPrefix(src, xerialMagic) {
		return u.snappyBlock(dst, src)
	}
	for src = src[xerialHeader:]; len(src) > 0; {
		block, rest, err := xerialBlock(src)
		if err != nil {
			return nil, err
		}
		if dst, err = u.snappyBlock(dst, block); err != nil {
			return nil, err
		}
		src = rest
	}
	return dst, nil
}

// xerialBlock splits the first block off.
func xerialBlock(src []byte) (block, rest []byte, err error) {
	if len(src) < 4 {
		return nil, nil, io.ErrUnexpectedEOF
	}
	n := int64(binary.BigEndian.Uint32(src))
	if src = src[4:]; n > int64(len(src)) {
		return nil, nil, io.ErrUnexpectedEOF
	}
	return src[:n], src[n:], nil
}

// snappyRatio is above what snappy can reach: a copy of 64 bytes takes three.
// It keeps a small block from having a large buffer made for it.
const snappyRatio = 64

// snappyBlock appends a decompressed block to dst.
func (u *unpacker) snappyBlock(dst, src []byte) ([]byte, error) {
	n, err := s2.DecodedLen(src)
	if err != nil {
		return nil, err
	}
	if n > snappyRatio*len(src) {
		return nil, s2.ErrCorrupt
	}
	if cap(dst)-len(dst) < n {
		if dst, err = u.grow(dst, n); err != nil {
			return nil, err
		}
	}
	if _, err := s2.Decode(dst[len(dst):len(dst)+n], src); err != nil {
		return nil, err
	}
	return dst[:len(dst)+n], nil
}

// The LZ4 frame format, version 1: magic, flags, block descriptor, optional
// content size and dictionary id, a checksum of the header; then blocks, each
// with its size in four bytes, whose highest bit says that it is not compressed;
// a size of 0 ends the frame. Integers are little endian. Its checksums are not
// looked at: the batch's own covers the same bytes.
const (
	lz4Magic         = 0x184D2204
	lz4HeaderMin     = 7
	lz4Independent   = 0x20
	lz4BlockChecksum = 0x10
	lz4ContentSize   = 0x08
	lz4DictionaryID  = 0x01
	lz4Stored        = 1 << 31
	lz4Window        = 64 << 10
)

func (u *unpacker) fromLZ4(dst, src []byte) ([]byte, error) {
	if len(src) < lz4HeaderMin || binary.LittleEndian.Uint32(src) != lz4Magic {
		return nil, errors.New("it is no lz4 frame")
	}
	flags := src[4]
	blockMax := 1 << (8 + 2*(src[5]>>4&7))
	header := lz4HeaderMin
	if flags&lz4ContentSize != 0 {
		header += 8
	}
	if flags&lz4DictionaryID != 0 {
		return nil, errors.New("it needs a dictionary")
	}
	dst = slices.Grow(dst, min(scratchFactor*len(src), scratchMax))
	for src = src[min(header, len(src)):]; ; {
		if len(src) < 4 {
			return nil, io.ErrUnexpectedEOF
		}
		size := binary.LittleEndian.Uint32(src)
		src = src[4:]
		if size == 0 {
			return dst, nil
		}
		stored := size&lz4Stored != 0
		n := int64(size &^ uint32(lz4Stored))
		if n > int64(len(src)) {
			return nil, io.ErrUnexpectedEOF
		}
		var err error
		if stored {
			dst = append(dst, src[:n]...)
		} else if dst, err = u.lz4Block(dst, src[:n], blockMax, flags&lz4Independent != 0); err != nil {
			return nil, err
		}
		src = src[n:]
		if flags&lz4BlockChecksum != 0 {
			src = src[min(4, len(src)):]
		}
	}
}

// lz4Block appends a decompressed block to dst. Its size is not known before,
// only its maximum: it is tried again with more room.
func (u *unpacker) lz4Block(dst, src []byte, blockMax int, independent bool) ([]byte, error) {
	for {
		room := dst[len(dst):min(cap(dst), len(dst)+blockMax)]
		var n int
		var err error
		if independent || len(dst) == 0 {
			n, err = lz4.UncompressBlock(src, room)
		} else {
			n, err = lz4.UncompressBlockWithDict(src, room, dst[max(0, len(dst)-lz4Window):])
		}
		if err == nil {
			return dst[:len(dst)+n], nil
		}
		if len(room) == blockMax {
			return nil, err
		}
		if dst, err = u.grow(dst, max(len(room)+1, min(lz4Window, blockMax))); err != nil {
			return nil, err
		}
	}
}
