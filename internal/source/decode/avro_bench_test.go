package decode

import (
	"fmt"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/avro"
)

// clickSchema is the benchmark workload's record.
const clickSchema = `{"type":"record","name":"Click","fields":[{"name":"user_id","type":"long"},{"name":"session","type":"string"},
	{"name":"event","type":{"type":"enum","name":"Event","symbols":["view","click","buy"]}},{"name":"page","type":"string"},{"name":"referrer","type":["null","string"]},
	{"name":"event_time","type":{"type":"long","logicalType":"timestamp-micros"}},{"name":"duration_ms","type":["null","int"]},{"name":"price","type":"double"}]}`

// decodes appends one record over and over, and reports MB of payload for a second of
// CPU time: it counts on a busy machine, too, with the garbage collector's share.
func decodes(b *testing.B, d Decoder, r Record) {
	size := len(r.Value) + len(r.Key)
	b.SetBytes(int64(size))
	b.ReportAllocs()
	b.ResetTimer()
	start := cpuTime(b)
	for i := range b.N {
		if err := d.Append(r); err != nil {
			b.Fatal(err)
		}
		if i%32768 == 32767 {
			for _, a := range d.Take() {
				a.Release()
			}
		}
	}
	b.ReportMetric(float64(b.N)*float64(size)/1e6/(cpuTime(b)-start).Seconds(), "MB/cpu-s")
}

// cpuTime is what the process has used.
func cpuTime(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkAvro reports MB/s of payload, for clicks as they are written and for
// such as are resolved to another schema.
func BenchmarkAvro(b *testing.B) {
	const records, chunk = 1000, 32
	s := avro.MustParse(clickSchema)
	values, size := make([][]byte, records), 0
	for i := range values {
		v, err := s.AppendEncode([]byte{0, 0, 0, 0, 1}, map[string]any{
			"user_id": int64(i) * 7919 % 100_000, "session": fmt.Sprintf("%032x", i*104_729), "event": "click", "page": fmt.Sprintf("/products/%04d", i%5000),
			"referrer": "https://example.org/", "event_time": int64(1_767_323_045_678_901 + i), "duration_ms": int32(i % 977), "price": float64(i%90) + 0.25,
		})
		if err != nil {
			b.Fatal(err)
		}
		values[i], size = v, size+len(v)
	}
	for _, c := range []struct{ name, reader string }{
		{"same", clickSchema},
		{"resolved", `{"type":"record","name":"Click","fields":[{"name":"page","type":"string"},{"name":"user_id","type":"double"},{"name":"referrer","type":["null","string"]},{"name":"spent","type":["null","long"],"aliases":["duration_ms"]},` +
			`{"name":"event_time","type":{"type":"long","logicalType":"timestamp-millis"}},{"name":"campaign","type":"string","default":"none"}]}`},
	} {
		b.Run(c.name, func(b *testing.B) {
			d, err := newAvro(Options{Reader: Schema{Text: c.reader}, Framing: "registry", Schemas: registryOf{1: {Type: "AVRO", Text: clickSchema}}})
			if err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			start := cpuTime(b)
			for b.Loop() {
				for range chunk {
					for _, v := range values {
						if err := d.Append(Record{Value: v}); err != nil {
							b.Fatal(err)
						}
					}
				}
				for _, a := range d.Take() {
					a.Release()
				}
			}
			b.SetBytes(chunk * int64(size))
			b.ReportMetric(float64(b.N)*float64(chunk*size)/1e6/(cpuTime(b)-start).Seconds(), "MB/cpu-s")
		})
	}
}
