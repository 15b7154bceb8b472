package planner

import (
	"slices"
	"sort"

	"github.com/frazil-io/frazil/internal/batch"
)

// bytesUnknown stands in for the size of a record in a partition of which
// nothing was fetched yet.
const bytesUnknown = 1 << 10

// Limits bound one batch. 0 is no limit. Bytes are uncompressed key and value.
// BytesMax is exact for partitions that were read ahead, and for the others an
// estimate from what was fetched before. They bound the batch, not memory, which
// never depends on a batch's size.
type Limits struct {
	BytesMax, RecordsMax int64
	BytesMin, RecordsMin int64
}

// sizes is what the facts tell of the size of records, by partition.
type sizes map[batch.TopicPartition]batch.Available

func sizesOf(available []batch.Available) sizes {
	all := sizes{}
	for _, a := range available {
		all[a.TopicPartition] = a
	}
	return all
}

// mean is the estimated size of one offset.
func (s sizes) mean(tp batch.TopicPartition) float64 {
	if b := s[tp].Bytes; b > 0 {
		return b
	}
	return bytesUnknown
}

// of returns what is known of the offsets of a range.
func (s sizes) of(r batch.Range) cost {
	if known := s[r.TopicPartition].Sizes; known != nil && known.From == r.First() {
		return cost{exact: true, first: r.First(), marks: known.Marks}
	}
	return cost{each: s.mean(r.TopicPartition)}
}

// enough says whether one of the minimums is reached, or none is set.
func (l Limits) enough(ranges []batch.Range, size sizes) bool {
	if l.RecordsMin == 0 && l.BytesMin == 0 {
		return true
	}
	var records int64
	var bytes float64
	for _, r := range ranges {
		n := r.End - r.First()
		records += n
		bytes += float64(n) * size.mean(r.TopicPartition)
	}
	return l.RecordsMin > 0 && records >= l.RecordsMin || l.BytesMin > 0 && bytes >= float64(l.BytesMin)
}

// cut shortens ranges to the maximums, fairly: no partition gets more than
// another one that still wants more. turn rotates who gets what cannot be
// divided: the partition whose turn it is always gets one record, or one that is
// larger than its share would wait for ever. So a batch is above a limit only if
// it is one single record.
func (l Limits) cut(ranges []batch.Range, size sizes, turn int64) {
	wants := make([]int64, len(ranges))
	costs := make([]cost, len(ranges))
	for i, r := range ranges {
		wants[i] = r.End - r.First()
		costs[i] = cost{each: 1}
	}
	if l.RecordsMax > 0 {
		wants = fair(wants, costs, float64(l.RecordsMax), turn)
	}
	if l.BytesMax > 0 {
		for i, r := range ranges {
			costs[i] = size.of(r)
			wants[i] = min(wants[i], costs[i].known(wants[i]))
		}
		wants = fair(wants, costs, float64(l.BytesMax), turn)
	}
	for i := range ranges {
		ranges[i].End = ranges[i].First() + wants[i]
	}
}

// cost tells what the first n offsets of a range cost: each the same, or exactly
// what the marks say.
type cost struct {
	each  float64
	exact bool
	first int64
	marks []batch.Mark
}

// known returns of how many of n offsets the cost is known.
func (c cost) known(n int64) int64 {
	if !c.exact {
		return n
	}
	if len(c.marks) == 0 {
		return 0
	}
	return min(n, c.marks[len(c.marks)-1].Next-c.first)
}

// of returns the cost of n offsets. Between two marks it is that of the second.
func (c cost) of(n int64) float64 {
	if !c.exact {
		return float64(n) * c.each
	}
	if n == 0 {
		return 0
	}
	i := sort.Search(len(c.marks), func(i int) bool { return c.marks[i].Next-c.first >= n })
	return float64(c.marks[i].Bytes)
}

// within returns the most of n offsets that cost no more than total.
func (c cost) within(n int64, total float64) int64 {
	if !c.exact {
		if c.of(n) <= total {
			return n // the quotient may be beyond what an integer holds
		}
		return min(n, int64(total/c.each))
	}
	i := sort.Search(len(c.marks), func(i int) bool { return float64(c.marks[i].Bytes) > total })
	if i == 0 {
		return 0
	}
	return min(n, c.marks[i-1].Next-c.first)
}

// next returns the next number of offsets behind got that could be had, up to
// want.
func (c cost) next(got, want int64) int64 {
	if !c.exact {
		return min(got+1, want)
	}
	i := sort.Search(len(c.marks), func(i int) bool { return c.marks[i].Next-c.first > got })
	return min(c.marks[i].Next-c.first, want)
}

// fair divides total among wants: max-min fairness by cost. The first one from
// turn on that wants something gets one record at least.
func fair(wants []int64, costs []cost, total float64, turn int64) []int64 {
	first := -1
	for k := range wants {
		if i := int((turn + int64(k)) % int64(len(wants))); wants[i] > 0 {
			first = i
			break
		}
	}
	if first < 0 {
		return wants
	}
	got, rest := divide(wants, costs, total)
	if got[first] == 0 {
		one := costs[first].next(0, wants[first])
		others := slices.Clone(wants)
		others[first] = 0
		if rest = total - costs[first].of(one); rest > 0 {
			got, rest = divide(others, costs, rest)
		} else {
			got = make([]int64, len(wants))
		}
		got[first] = one
	}
	handOut(got, wants, costs, rest, turn)
	return got
}

// divide gives each what it wants, or an equal share, in whole records. It
// returns what is left over.
func divide(wants []int64, costs []cost, total float64) (got []int64, rest float64) {
	order := make([]int, len(wants))
	need := make([]float64, len(wants))
	for i := range order {
		order[i], need[i] = i, costs[i].of(wants[i])
	}
	slices.SortStableFunc(order, func(a, b int) int {
		switch {
		case need[a] < need[b]:
			return -1
		case need[a] > need[b]:
			return 1
		}
		return 0
	})
	got = make([]int64, len(wants))
	rest = total
	for k, i := range order {
		got[i] = costs[i].within(wants[i], rest/float64(len(order)-k))
		rest -= costs[i].of(got[i])
	}
	return got, rest
}

// handOut gives away what was left over by rounding down: one more record to
// each, beginning with another partition in every batch, and then as many as
// there is room for.
func handOut(got, wants []int64, costs []cost, rest float64, turn int64) {
	for _, all := range []bool{false, true} {
		for k := range wants {
			i := int((turn + int64(k)) % int64(len(wants)))
			if got[i] >= wants[i] {
				continue
			}
			had := costs[i].of(got[i])
			more := costs[i].next(got[i], wants[i])
			if all {
				more = costs[i].within(wants[i], had+rest)
			}
			if used := costs[i].of(more) - had; more > got[i] && used <= rest {
				got[i], rest = more, rest-used
			}
		}
	}
}
