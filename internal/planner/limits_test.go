package planner

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/frazil-io/frazil/internal/batch"
)

// backlog is partitions with records of known sizes, which a test drains batch
// by batch, as the driver does.
type backlog struct {
	records  [][]int64 // sizes, by partition
	at       []int64
	measured func(partition int) int // how many records are read ahead; nil: the sizes are an estimate
}

func (b *backlog) facts(id int64) Facts {
	f := facts(batch.Offsets{})
	f.Batch = batch.ID(id)
	for i, sizes := range b.records {
		a := batch.Available{TopicPartition: tp(int32(i)), End: int64(len(sizes)), Bytes: mean(sizes[:min(len(sizes), 100)])}
		if b.measured != nil {
			a.Sizes = &batch.Sizes{From: b.at[i]}
			var sum int64
			for at := b.at[i]; at < a.End && at < b.at[i]+int64(b.measured(i)); at++ {
				sum += sizes[at]
				a.Sizes.Marks = append(a.Sizes.Marks, batch.Mark{Next: at + 1, Bytes: sum})
			}
		}
		f.Position[a.TopicPartition] = b.at[i]
		f.Available = append(f.Available, a)
	}
	return f
}

func mean(sizes []int64) float64 {
	var sum int64
	for _, n := range sizes {
		sum += n
	}
	return float64(sum) / float64(max(1, len(sizes)))
}

// next plans one batch and moves on behind it. It returns what it holds, by
// partition.
func (b *backlog) next(t *testing.T, id int64, p Policy) (records, bytes []int64) {
	t.Helper()
	plan, err := Next(b.facts(id), p)
	if err != nil {
		t.Fatal(err)
	}
	records, bytes = make([]int64, len(b.at)), make([]int64, len(b.at))
	if plan == nil {
		return records, bytes
	}
	for _, r := range plan.Ranges {
		i := int(r.Partition)
		if r.Start != b.at[i] || r.End < r.Start || r.End > int64(len(b.records[i])) {
			t.Fatalf("%v does not follow offset %d of %d", r, b.at[i], len(b.records[i]))
		}
		for _, n := range b.records[i][r.Start:r.End] {
			records[i]++
			bytes[i] += n
		}
		b.at[i] = r.End
	}
	return records, bytes
}

func total(all []int64) (n int64) {
	for _, v := range all {
		n += v
	}
	return n
}

// TestLimitsHold drains random backlogs under random limits: no batch is above a
// limit unless it is a single record; every partition that has a backlog moves on
// within as many batches as there are partitions; a batch is not small while more
// would fit; and everything comes through.
func TestLimitsHold(t *testing.T) {
	seed := rand.Uint64()
	for n := range uint64(40) {
		rnd := rand.New(rand.NewPCG(seed, n))
		b := &backlog{measured: func(int) int { return 1 << 30 }}
		left := 0
		for range 1 + rnd.IntN(40) {
			var sizes []int64
			for range rnd.IntN(60) {
				sizes = append(sizes, rnd.Int64N(1+rnd.Int64N(1000)))
			}
			b.records, b.at = append(b.records, sizes), append(b.at, 0)
			left += len(sizes)
		}
		l := Limits{BytesMax: 1 + rnd.Int64N(4000), RecordsMax: rnd.Int64N(60)}
		waited := make([]int, len(b.at))
		for id := int64(rnd.IntN(100)); left > 0; id++ {
			records, bytes := b.next(t, id, Policy{Limits: l})
			if total(records) == 0 {
				t.Fatalf("seed %d %d: nothing was planned, %d records are left", seed, n, left)
			}
			if total(records) > 1 && total(bytes) > l.BytesMax || l.RecordsMax > 0 && total(records) > l.RecordsMax {
				t.Fatalf("seed %d %d: %d records, %d bytes, limits %+v", seed, n, total(records), total(bytes), l)
			}
			for i := range records {
				left -= int(records[i])
				if waited[i]++; records[i] > 0 || b.at[i] == int64(len(b.records[i])) {
					waited[i] = 0
				}
				if waited[i] > len(b.at) {
					t.Fatalf("seed %d %d: partition %d waits for the %dth batch", seed, n, i, waited[i])
				}
				if next := b.at[i]; next < int64(len(b.records[i])) && total(bytes)+b.records[i][next] <= l.BytesMax && (l.RecordsMax == 0 || total(records) < l.RecordsMax) {
					// Rounds of records and of bytes are divided one after the other, so a
					// limit on both can leave room.
					if l.RecordsMax == 0 {
						t.Fatalf("seed %d %d: %d bytes of %d are used, and the next record of partition %d has %d", seed, n, total(bytes), l.BytesMax, i, b.records[i][next])
					}
				}
			}
		}
	}
}

// TestFairToAThousand: one hot partition does not hold up a thousand others, nor
// a partition with large records that many small ones crowd.
func TestFairToAThousand(t *testing.T) {
	for _, exact := range []bool{true, false} {
		t.Run(fmt.Sprintf("exact %t", exact), func(t *testing.T) {
			const partitions, limit = 1000, 1 << 20
			b := &backlog{at: make([]int64, partitions), records: make([][]int64, partitions)}
			if exact {
				b.measured = func(int) int { return 11_000 } // as much as one batch can hold
			}
			for i := range b.records {
				n, size := 3, int64(100)
				switch i {
				case 17:
					n = 200_000 // hot
				case 500:
					n, size = 20, limit/2 // much more than its share
				}
				for range n {
					b.records[i] = append(b.records[i], size)
				}
			}
			records, bytes := b.next(t, 0, Policy{Limits: Limits{BytesMax: limit}})
			for i := range records {
				if i != 17 && i != 500 && records[i] != 3 {
					t.Fatalf("partition %d got %d records of 3", i, records[i])
				}
			}
			if total(bytes) > limit || total(bytes) < limit-200 {
				t.Errorf("%d bytes of %d", total(bytes), limit)
			}
			// Now a thousand partitions want all they can get.
			if exact {
				b.measured = func(int) int { return 20 }
			}
			for i := range b.records {
				for range 3000 {
					if i != 500 {
						b.records[i] = append(b.records[i], 100)
					}
				}
			}
			moved := false
			for id := int64(490); id <= 505; id++ { // its turn is among these
				records, bytes := b.next(t, id, Policy{Limits: Limits{BytesMax: limit}})
				moved = moved || records[500] > 0
				if total(bytes) > limit {
					t.Fatalf("batch %d has %d bytes", id, total(bytes))
				}
			}
			if !moved {
				t.Error("the partition with large records starved")
			}
		})
	}
}

// TestUnmeasuredWaits: where sizes are exact, nothing is planned of which the
// size is not known.
func TestUnmeasuredWaits(t *testing.T) {
	b := &backlog{at: []int64{0, 0}, records: [][]int64{{5, 5, 5}, {5, 5, 5}}, measured: func(p int) int { return 2 * p }}
	if records, _ := b.next(t, 0, Policy{Limits: Limits{BytesMax: 100}}); records[0] != 0 || records[1] != 2 {
		t.Errorf("%v", records)
	}
	b.measured = func(int) int { return 0 }
	if plan, err := Next(b.facts(1), Policy{Limits: Limits{BytesMax: 100}}); plan != nil || err != nil {
		t.Errorf("%v %v", plan, err)
	}
}

// TestMinimums: a batch waits for either minimum, and no longer than the delay.
func TestMinimums(t *testing.T) {
	for _, c := range []struct {
		limits Limits
		full   bool
		want   int64
	}{
		{Limits{RecordsMin: 4}, false, 0},
		{Limits{RecordsMin: 3}, false, 3},
		{Limits{BytesMin: 31}, false, 0},
		{Limits{BytesMin: 30}, false, 3},
		{Limits{BytesMin: 1000, RecordsMin: 3}, false, 3},
		{Limits{BytesMin: 1000, RecordsMin: 1000}, true, 3},
	} {
		b := &backlog{at: []int64{0}, records: [][]int64{{10, 10, 10}}}
		if records, _ := b.next(t, 0, Policy{Limits: c.limits, Full: c.full}); records[0] != c.want {
			t.Errorf("%+v: %d records, want %d", c, records[0], c.want)
		}
	}
}

// TestNearlyNothing: a partition whose records have next to no bytes, as one has that
// gets only transactions which are aborted, takes no more than there is, whatever a
// limit divided by their size comes to.
func TestNearlyNothing(t *testing.T) {
	for _, each := range []float64{1e-3, 1e-9, 1e-18, 5e-324} {
		f := facts(batch.Offsets{tp(0): 100, tp(1): 100})
		f.Available = []batch.Available{
			{TopicPartition: tp(0), End: 1100, Bytes: each},
			{TopicPartition: tp(1), End: 1_000_000, Bytes: 1000},
		}
		p, err := Next(f, Policy{Limits: Limits{BytesMax: 256 << 20}})
		if err != nil || p == nil {
			t.Fatalf("%g bytes each: plan %v, %v", each, p, err)
		}
		if r := p.Ranges; r[0].End != 1100 || r[1].End < 200_000 || r[1].End > 300_000 {
			t.Errorf("%g bytes each: the plan takes %v", each, r)
		}
	}
}
