package exec

import (
	"context"
	"testing"

	"github.com/apache/arrow-go/v18/arrow"

	"github.com/frazil-io/frazil/internal/batch"
)

// TestOneRecordMakesMany: what a query makes of one record does not have to fit
// Go's memory at once.
func TestOneRecordMakesMany(t *testing.T) {
	e, err := open(t, nil, "SELECT unnest(range(20000000 + id)) AS n, id FROM clicks") // a constant would be made at each preparation
	if err != nil {
		t.Fatal(err)
	}
	one := rows(0, 1)
	defer one.Release()
	job := batch.Job{
		Plan:   &batch.Plan{Versions: map[string]string{"pages": "v1"}},
		Ranges: []batch.Range{{TopicPartition: batch.TopicPartition{Source: "clicks"}, End: 1}}, Sinks: []string{"s0"},
	}
	var largest, total int64
	results, err := e.Execute(context.Background(), job, func(emit, _ func(arrow.RecordBatch) error) error { return emit(one) },
		func(_ string, piece arrow.RecordBatch) error {
			largest, total = max(largest, piece.NumRows()), total+piece.NumRows()
			return nil
		})
	if err != nil || total != 20_000_000 || results["s0"].Rows != total {
		t.Fatalf("%d rows, %+v: %v", total, results["s0"], err)
	}
	if largest > 2_000_000 {
		t.Errorf("%d rows came at once", largest)
	}
}
