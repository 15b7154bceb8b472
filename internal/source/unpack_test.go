package source

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"runtime"
	"testing"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/s2"
	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
	"github.com/twmb/franz-go/pkg/kgo"
)

func packed(codec uint16, data []byte) recordBatch {
	return recordBatch{attr: codec, raw: append(make([]byte, batchHeader), data...)}
}

// texts are easy, hard, empty and large.
func texts() [][]byte {
	rnd := rand.New(rand.NewPCG(1, 2))
	noise := make([]byte, 3<<20)
	for i := range noise {
		noise[i] = byte(rnd.Uint32())
	}
	return [][]byte{{}, []byte("a"), bytes.Repeat([]byte("abcdefg "), 100_000), noise, noise[:1000], bytes.Repeat(noise[:100], 200_000)}
}

// TestUnpack what other programs have packed, through one buffer.
func TestUnpack(t *testing.T) {
	u := newUnpacker()
	for codec, option := range map[uint16]kgo.CompressionCodec{
		codecNone: kgo.NoCompression(), codecGzip: kgo.GzipCompression(), codecSnappy: kgo.SnappyCompression(), codecLZ4: kgo.Lz4Compression(), codecZstd: kgo.ZstdCompression(),
	} {
		compressor, err := kgo.DefaultCompressor(option)
		if err != nil {
			t.Fatal(err)
		}
		for i, text := range texts() {
			data := text
			if codec != codecNone {
				data, _ = compressor.Compress(&bytes.Buffer{}, text)
			}
			got, err := u.records(packed(codec, data))
			if err != nil || !bytes.Equal(got, text) {
				t.Errorf("codec %d, text %d: %d of %d bytes, %v", codec, i, len(got), len(text), err)
			}
			if cap(u.buffer) > scratchMax {
				t.Errorf("codec %d, text %d: %d bytes are kept", codec, i, cap(u.buffer))
			}
			for _, n := range []int{1, len(data) / 2} {
				if codec != codecNone && n > 0 && n < len(data) {
					if got, err := u.records(packed(codec, data[:n])); err == nil && bytes.Equal(got, text) && len(text) > 1 {
						t.Errorf("codec %d, text %d: the whole text from %d of %d bytes", codec, i, n, len(data))
					}
				}
			}
		}
	}
	if _, err := u.records(packed(7, nil)); err == nil {
		t.Error("codec 7 is known")
	}
}

// TestUnpackFrames that kgo does not write: snappy as it is, and LZ4 with blocks
// that refer to the one before, checksums and sizes.
func TestUnpackFrames(t *testing.T) {
	text := texts()[2]
	u := newUnpacker()
	if got, err := u.records(packed(codecSnappy, s2.EncodeSnappy(nil, text))); err != nil || !bytes.Equal(got, text) {
		t.Errorf("snappy: %d bytes, %v", len(got), err)
	}
	for _, size := range []lz4.BlockSize{lz4.Block64Kb, lz4.Block4Mb} {
		out := &bytes.Buffer{}
		w := lz4.NewWriter(out)
		if err := w.Apply(lz4.BlockSizeOption(size), lz4.BlockChecksumOption(true), lz4.ChecksumOption(true), lz4.SizeOption(uint64(len(text)))); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(text); err != nil || w.Close() != nil {
			t.Fatal(err)
		}
		if got, err := u.records(packed(codecLZ4, out.Bytes())); err != nil || !bytes.Equal(got, text) {
			t.Errorf("lz4 with blocks of %d: %d bytes, %v", size, len(got), err)
		}
	}
	linked := []byte{0x04, 0x22, 0x4d, 0x18, 0x40, 0x40, 0}
	linked = append(linked, 8, 0, 0, 0x80)
	linked = append(linked, "abcdefgh"...)
	linked = append(linked, 10, 0, 0, 0, 0x10, 'X', 5, 0, 0x50) // one literal, then four bytes from five bytes before
	linked = append(linked, "12345"...)
	linked = append(linked, 0, 0, 0, 0)
	if got, err := u.records(packed(codecLZ4, linked)); err != nil || string(got) != "abcdefghXefgh12345" {
		t.Errorf("linked lz4: %q %v", got, err)
	}
}

// TestUnpackIsBounded: a few bytes do not become gigabytes, nor buffers for them.
func TestUnpackIsBounded(t *testing.T) {
	const limit = 1 << 20
	bomb := make([]byte, 8<<20)
	gz, lz := &bytes.Buffer{}, &bytes.Buffer{}
	g := gzip.NewWriter(gz)
	l := lz4.NewWriter(lz)
	for _, w := range []interface {
		Write(p []byte) (int, error)
		Close() error
	}{g, l} {
		if _, err := w.Write(bomb); err != nil || w.Close() != nil {
			t.Fatal(err)
		}
	}
	for name, test := range map[string]recordBatch{
		"gzip":   packed(codecGzip, gz.Bytes()),
		"lz4":    packed(codecLZ4, lz.Bytes()),
		"snappy": packed(codecSnappy, s2.EncodeSnappy(nil, bomb)),
	} {
		u := newUnpacker()
		u.max = limit
		if _, err := u.records(test); !errors.Is(err, errTooLarge) || cap(u.buffer) > limit {
			t.Errorf("%s: error %v, a buffer of %d", name, err, cap(u.buffer))
		}
	}
	for _, claim := range [][]byte{{0xff, 0xff, 0xff, 0xff, 0x0f, 0, 0}, {0x80, 0x80, 0x80, 0x60, 0, 0, 0}} { // 4 GiB, 192 MiB
		u := newUnpacker()
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, err := u.records(packed(codecSnappy, claim))
		runtime.ReadMemStats(&after)
		if took := after.TotalAlloc - before.TotalAlloc; err == nil || took > limit {
			t.Errorf("snappy: seven bytes took %d, error %v", took, err)
		}
	}
	encoder, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	huge := encoder.EncodeAll(make([]byte, unpackedMax+1), nil)
	if _, err := newUnpacker().records(packed(codecZstd, huge)); !errors.Is(err, zstd.ErrDecoderSizeExceeded) {
		t.Errorf("zstd: error %v", err)
	}
}
