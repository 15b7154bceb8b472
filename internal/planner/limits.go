package planner

import (
	"slices"

	"github.com/frazil-io/frazil/internal/batch"
)

// bytesUnknown stands in for the size of a record in a partition of which
// nothing was fetched yet.
const bytesUnknown = 1 << 10

// Limits bound one batch. 0 is no limit. Bytes are uncompressed key and value,
// estimated from what was fetched before; they bound the batch, not memory,
// which never depends on a batch's size.
type Limits struct {
	BytesMax, RecordsMax int64
	BytesMin, RecordsMin int64
}

func sizes(available []batch.Available) map[batch.TopicPartition]float64 {
	size := map[batch.TopicPartition]float64{}
	for _, a := range available {
		size[a.TopicPartition] = a.Bytes
	}
	return size
}

func sizeOf(size map[batch.TopicPartition]float64, tp batch.TopicPartition) float64 {
	if b := size[tp]; b > 0 {
		return b
	}
	return bytesUnknown
}

// enough says whether one of the minimums is reached, or none is set.
func (l Limits) enough(ranges []batch.Range, size map[batch.TopicPartition]float64) bool {
	if l.RecordsMin == 0 && l.BytesMin == 0 {
		return true
	}
	var records int64
	var bytes float64
	for _, r := range ranges {
		n := r.End - r.First()
		records += n
		bytes += float64(n) * sizeOf(size, r.TopicPartition)
	}
	return l.RecordsMin > 0 && records >= l.RecordsMin || l.BytesMin > 0 && bytes >= float64(l.BytesMin)
}

// cut shortens ranges to the maximums, fairly: no partition gets more than
// another one that still wants more. turn rotates who gets what cannot be
// divided. At least one offset is left, or a record larger than the limit would
// stop the pipeline.
func (l Limits) cut(ranges []batch.Range, size map[batch.TopicPartition]float64, turn int64) {
	wants := make([]int64, len(ranges))
	costs := make([]float64, len(ranges))
	for i, r := range ranges {
		wants[i] = r.End - r.First()
		costs[i] = 1
	}
	if l.RecordsMax > 0 {
		wants = fair(wants, costs, float64(l.RecordsMax), turn)
	}
	if l.BytesMax > 0 {
		for i, r := range ranges {
			costs[i] = sizeOf(size, r.TopicPartition)
		}
		wants = fair(wants, costs, float64(l.BytesMax), turn)
	}
	for i := range ranges {
		ranges[i].End = ranges[i].First() + wants[i]
	}
}

// fair divides total among wants, which cost costs each: max-min fairness by
// cost. If nobody could have a whole one, one gets one.
func fair(wants []int64, costs []float64, total float64, turn int64) []int64 {
	order := make([]int, len(wants))
	for i := range order {
		order[i] = i
	}
	need := func(i int) float64 { return float64(wants[i]) * costs[i] }
	slices.SortStableFunc(order, func(a, b int) int {
		switch {
		case need(a) < need(b):
			return -1
		case need(a) > need(b):
			return 1
		}
		return 0
	})
	got := make([]int64, len(wants))
	rest := total
	for k, i := range order {
		share := rest / float64(len(order)-k)
		got[i] = min(wants[i], int64(share/costs[i]))
		rest -= float64(got[i]) * costs[i]
	}
	// What is left over after rounding down goes round, beginning with another
	// partition in every batch.
	given := slices.ContainsFunc(got, func(n int64) bool { return n > 0 })
	for k := range wants {
		i := int((turn + int64(k)) % int64(len(wants)))
		if got[i] < wants[i] && (costs[i] <= rest || !given) {
			got[i]++
			rest -= costs[i]
			given = true
		}
	}
	return got
}
