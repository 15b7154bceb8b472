package decode

import (
	"runtime/metrics"
	"testing"
)

// lateBytes is what the runtime may not have counted yet: objects of less than 32
// KiB are counted when the page that they lie on is full.
const lateBytes = 4 << 20

// meter reads how many bytes were allocated since the program began.
type meter [1]metrics.Sample

func newMeter() *meter {
	m := &meter{}
	m[0].Name = "/gc/heap/allocs:bytes"
	return m
}

func (m *meter) read() uint64 {
	metrics.Read(m[:])
	return m[0].Value.Uint64()
}

// within fails the test where f allocates more than so many bytes, whatever is
// freed meanwhile: no input may cost more memory than its length tells.
func (m *meter) within(t *testing.T, most int, f func()) {
	t.Helper()
	before := m.read()
	f()
	if took := m.read() - before; took > uint64(most)+lateBytes {
		t.Fatalf("%d bytes were allocated, %d is the most", took, most)
	}
}

// perByte is what a decoder may allocate for a byte of its input, all growing of
// slices included.
const perByte = 256

// valueBytes is what a value of a column may take while the column grows.
const valueBytes = 64
