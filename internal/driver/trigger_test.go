package driver

import (
	"testing"

	"github.com/frazil-io/frazil/internal/planner"
)

func TestFirstBatchIsSmall(t *testing.T) {
	for _, c := range []struct{ limits, first planner.Limits }{
		{planner.Limits{}, planner.Limits{RecordsMax: firstRecords, BytesMax: firstBytes}},
		{planner.Limits{RecordsMax: 1e6, BytesMax: 1 << 30, RecordsMin: 5}, planner.Limits{RecordsMax: firstRecords, BytesMax: firstBytes, RecordsMin: 5}},
		{planner.Limits{RecordsMax: 10, BytesMax: 1000}, planner.Limits{RecordsMax: 10, BytesMax: 1000}},
	} {
		d := New(Rooms{}, Options{Limits: c.limits}, nil, nil)
		if got := d.limits(0); got != c.first {
			t.Errorf("limits %+v: batch 0 has %+v, want %+v", c.limits, got, c.first)
		}
		if got := d.limits(1); got != c.limits {
			t.Errorf("limits %+v: batch 1 has %+v", c.limits, got)
		}
	}
}
