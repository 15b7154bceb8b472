package exec

import (
	"context"
	"testing"

	"github.com/apache/arrow-go/v18/arrow"

	"github.com/frazil-io/frazil/internal/batch"
)

// BenchmarkExpect is what rules cost, where none of a record batch fails one, and
// where one of a thousand records does.
func BenchmarkExpect(b *testing.B) {
	const filter, unnest = "SELECT id, page, t FROM clicks WHERE id % 4 <> 0", "SELECT id, page, unnest(tags) AS tag FROM clicks"
	pass := []Rule{{"has_id", "id IS NOT NULL", FailDrop}, {"positive", "id >= 0", FailDrop}}
	fail := []Rule{{"has_id", "id IS NOT NULL", FailDrop}, {"positive", "id % 1000 <> 7", FailDrop}}
	for _, c := range []struct {
		name, sql    string
		source, sink []Rule
	}{
		{"filter/none", filter, nil, nil},
		{"filter/source", filter, pass, nil},
		{"filter/source_fails", filter, fail, nil},
		{"filter/sink", filter, nil, pass},
		{"filter/sink_fails", filter, nil, fail},
		{"unnest/none", unnest, nil, nil},
		{"unnest/source", unnest, pass, nil},
		{"unnest/sink", unnest, nil, pass},
		{"unnest/sink_fails", unnest, nil, fail},
	} {
		b.Run(c.name, func(b *testing.B) {
			e, err := open(b, expecting(c.source, c.sink...), c.sql)
			if err != nil {
				b.Fatal(err)
			}
			plain := rows(0, 65536)
			chunk := withPayload(plain)
			plain.Release()
			defer chunk.Release()
			job := batch.Job{Plan: &batch.Plan{Versions: map[string]string{"pages": "v1"}}, Sinks: []string{"s0"}, Ranges: []batch.Range{{TopicPartition: batch.TopicPartition{Source: "clicks"}}}}
			for b.Loop() {
				_, err := e.Execute(context.Background(), job, func(emit, _ func(arrow.RecordBatch) error) error { return emit(chunk) }, func(string, arrow.RecordBatch) error { return nil })
				if err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.N)*65536/b.Elapsed().Seconds(), "rows/s")
		})
	}
}
