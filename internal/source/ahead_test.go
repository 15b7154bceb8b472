package source

import (
	"log/slog"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/frazil-io/frazil/internal/batch"
	"github.com/frazil-io/frazil/internal/planner"
)

// drainer plans batches as the driver does, and reads them.
type drainer struct {
	opened
	position batch.Offsets
	since    []batch.Range
	limits   planner.Limits
	batch    batch.ID
	got      *reading
	total    batch.Tally
}

func drain(t testing.TB, s opened, limits planner.Limits) *drainer {
	t.Helper()
	starts, err := s.Start(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	return &drainer{opened: s, position: starts, limits: limits, got: newReading(), batch: 1}
}

// plan freezes the next batch, nil where there is none.
func (d *drainer) plan(t testing.TB) *batch.Plan {
	t.Helper()
	available, err := d.List(t.Context(), d.since)
	if err == nil {
		available, err = d.Ahead(t.Context(), d.position, available, d.limits.BytesMax)
	}
	if err != nil {
		t.Fatal(err)
	}
	p, err := planner.Next(planner.Facts{Batch: d.batch, Position: d.position, Available: available, Now: time.Unix(0, 0)}, planner.Policy{Limits: d.limits})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// next plans and reads one batch.
func (d *drainer) next(t testing.TB) (*batch.Plan, batch.Tally) {
	t.Helper()
	p := d.plan(t)
	if p == nil {
		return nil, batch.Tally{}
	}
	tally := read(t, d.opened, p.Ranges, d.got)
	d.position, d.since, d.total = p.End(), p.Ranges, d.total.Plus(tally)
	d.batch++
	return p, tally
}

// TestByteLimitIsExact: a random history, with transactions, markers and all
// codecs, under random limits. Each batch holds at most the limit, or one record,
// and if anything is left nearly all of it; together they hold each record once.
func TestByteLimitIsExact(t *testing.T) {
	rnd := random(t)
	c := cluster(t, 3)
	want := history(t, c, rnd, 3)
	for _, limit := range []int64{1, 100, 1000 + rnd.Int64N(10_000), memoryMin / queueShare} {
		s := openWith(t, c, nil, Limits{Memory: memoryMin, Workers: 2}, slog.New(slog.DiscardHandler), nil)
		d := drain(t, s, planner.Limits{BytesMax: limit})
		for {
			p, tally := d.next(t)
			if p == nil {
				break
			}
			if tally.Bytes > limit && tally.Data != 1 {
				t.Fatalf("limit %d: batch %d holds %d bytes in %d records", limit, d.batch, tally.Bytes, tally.Data)
			}
			if more := d.plan(t); more != nil && tally.Bytes < limit-300 { // no record is larger
				t.Fatalf("limit %d: batch %d holds only %d bytes", limit, d.batch, tally.Bytes)
			}
		}
		want.check(t, d.got, d.total)
		if s.Stats().Buffered != 0 && limit > 1 {
			t.Errorf("limit %d: %d bytes are still kept", limit, s.Stats().Buffered)
		}
	}
}

// TestByteLimitThroughFaults: the same while leaders move, connections break and
// brokers refuse.
func TestByteLimitThroughFaults(t *testing.T) {
	rnd := random(t)
	c := cluster(t, 3)
	want := history(t, c, rnd, 3)
	s := open(t, c, nil)
	d := drain(t, s, planner.Limits{BytesMax: 5000})
	errs := []*kerr.Error{kerr.NotLeaderForPartition, kerr.FencedLeaderEpoch, kerr.KafkaStorageError, kerr.UnknownTopicID, kerr.CorruptMessage}
	for {
		switch rnd.IntN(3) {
		case 0:
			c.ShufflePartitionLeaders()
		case 1:
			c.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Fetch}, Topic: topicName, Partitions: []int32{rnd.Int32N(3)}, Err: errs[rnd.IntN(len(errs))], Count: 1 + rnd.IntN(3)})
		}
		p, tally := d.next(t)
		if p == nil {
			break
		}
		if tally.Bytes > 5000 {
			t.Fatalf("batch %d holds %d bytes", d.batch, tally.Bytes)
		}
	}
	want.check(t, d.got, d.total)
}

// TestAheadIsReadOnce: what was read ahead of a plan is not fetched again, also
// where the plan was asked for several times, as minimums do.
func TestAheadIsReadOnce(t *testing.T) {
	c := cluster(t, 1)
	send(t, client(t, c), ids(0, 0, 1000)...)
	s := open(t, c, nil)
	d := drain(t, s, planner.Limits{BytesMax: 1000})
	p := d.plan(t)
	requests := s.Stats().Requests
	if again := d.plan(t); again.Ranges[0] != p.Ranges[0] {
		t.Errorf("%v, then %v", p.Ranges, again.Ranges)
	}
	var batches int64
	for p, _ := d.next(t); p != nil; p, _ = d.next(t) {
		batches++
	}
	if s.Stats().Requests != requests || batches < 9 || len(d.got.ids) != 1000 {
		t.Errorf("%d fetches more in %d batches, %d records", s.Stats().Requests-requests, batches, len(d.got.ids))
	}
}

// TestAheadIsFair: one hot partition and large batches do not keep others out,
// and what is held has a bound.
func TestAheadIsFair(t *testing.T) {
	const partitions = 60
	rnd := random(t)
	c := cluster(t, partitions)
	cl := client(t, c)
	left := make([]int64, partitions)
	id := int64(0)
	produceTo := func(p int32, n, size int) {
		var records []*kgo.Record
		for range n {
			records = append(records, padded(p, int(id), size))
			id++
		}
		send(t, cl, records...)
		left[p] += int64(n)
	}
	produceTo(7, 4000, 1000)
	produceTo(8, 3, 200_000)
	for p := range int32(partitions) {
		if p != 7 && p != 8 {
			produceTo(p, 100+rnd.IntN(100), 200)
		}
	}
	const limit = 300_000
	s := openWith(t, c, withPad, Limits{Memory: memoryMin}, slog.New(slog.DiscardHandler), nil)
	d := drain(t, s, planner.Limits{BytesMax: limit})
	waited := make([]int, partitions)
	most := s.limits.AheadMax() + requestBytes
	for {
		p, tally := d.next(t)
		if p == nil {
			break
		}
		if tally.Bytes > limit {
			t.Fatalf("batch %d holds %d bytes", d.batch, tally.Bytes)
		}
		for _, r := range p.Ranges {
			left[r.Partition] -= r.Len()
			if waited[r.Partition]++; r.Len() > 0 || left[r.Partition] == 0 {
				waited[r.Partition] = 0
			}
			if waited[r.Partition] > partitions {
				t.Fatalf("partition %d waits for batch %d", r.Partition, d.batch)
			}
		}
		if peak := s.Stats().BufferedPeak; peak > most {
			t.Fatalf("%d bytes were held, want at most %d", peak, most)
		}
	}
	if int64(len(d.got.ids)) != id {
		t.Errorf("%d of %d records", len(d.got.ids), id)
	}
}

// TestAheadTakesTurns: where memory holds a few records only, those that were
// read are not always of the same partitions.
func TestAheadTakesTurns(t *testing.T) {
	const partitions, records = 20, 4
	c := cluster(t, partitions)
	cl := client(t, c)
	for p := range int32(partitions) {
		for i := range records {
			send(t, cl, padded(p, int(p)*100+i, 300_000))
		}
	}
	s := openWith(t, c, withPad, Limits{Memory: memoryMin}, slog.New(slog.DiscardHandler), nil)
	d := drain(t, s, planner.Limits{BytesMax: 300_000})
	got, last := map[int32]int{}, map[int32]int{}
	for i := range partitions * records {
		p, _ := d.next(t)
		if p == nil {
			t.Fatalf("nothing to plan after %d records", i)
		}
		for _, r := range p.Ranges {
			if r.Len() > 0 {
				got[r.Partition]++
				last[r.Partition] = i
			}
		}
		for p := range int32(partitions) {
			if got[p] < records && i-last[p] > 2*partitions {
				t.Fatalf("partition %d waits since batch %d, now is %d", p, last[p], i)
			}
		}
	}
	if len(d.got.ids) != partitions*records {
		t.Errorf("%d records", len(d.got.ids))
	}
}

// TestAheadHasABound: records of aborted transactions count nothing and take
// memory all the same. When it is full a smaller batch is planned; and what fills
// it does not stay when its leader is replaced.
func TestAheadHasABound(t *testing.T) {
	const partitions = 8
	c := cluster(t, partitions)
	tx := client(t, c, kgo.TransactionalID("tx"))
	for i := range 4 {
		if err := tx.BeginTransaction(); err != nil {
			t.Fatal(err)
		}
		for p := range int32(partitions) {
			send(t, tx, padded(p, 1000*i+int(p), 100_000))
		}
		if err := tx.EndTransaction(t.Context(), kgo.TransactionEndTry(i == 3)); err != nil {
			t.Fatal(err)
		}
	}
	s := openWith(t, c, withPad, Limits{Memory: memoryMin}, slog.New(slog.DiscardHandler), nil)
	d := drain(t, s, planner.Limits{BytesMax: memoryMin / queueShare})
	most := s.limits.AheadMax() + s.limits.queueBytes()/requestShare
	d.plan(t)
	if held := s.Stats().Buffered; held < s.limits.AheadMax() || held > most {
		t.Fatalf("%d bytes are held, want %d to %d", held, s.limits.AheadMax(), most)
	}
	for p := range int32(partitions) {
		leader := c.LeaderFor(topicName, p)
		for _, node := range []int32{1 - leader, leader} {
			if err := c.MoveTopicPartition(topicName, p, node); err != nil {
				t.Fatal(err)
			}
		}
	}
	s.relations[0].stale()
	for p, _ := d.next(t); p != nil; p, _ = d.next(t) {
		if peak := s.Stats().BufferedPeak; peak > most {
			t.Fatalf("%d bytes were held, want at most %d", peak, most)
		}
	}
	if len(d.got.ids) != partitions || d.total.Aborted != 3*partitions {
		t.Fatalf("%d records, %+v", len(d.got.ids), d.total)
	}
}

// TestAheadOfLargeBatches: batches larger than memory come through, one at a time.
func TestAheadOfLargeBatches(t *testing.T) {
	c := cluster(t, 4)
	cl := client(t, c, kgo.ProducerBatchCompression(kgo.NoCompression()))
	for p := range int32(4) {
		for i := range 3 {
			send(t, cl, padded(p, int(p)*10+i, 3<<20))
		}
	}
	s := openWith(t, c, withPad, Limits{Memory: memoryMin}, slog.New(slog.DiscardHandler), nil)
	d := drain(t, s, planner.Limits{BytesMax: 1 << 20})
	for p, tally := d.next(t); p != nil; p, tally = d.next(t) {
		if tally.Data != 1 {
			t.Errorf("batch %d has %d records of three times the limit", d.batch, tally.Data)
		}
	}
	if len(d.got.ids) != 12 {
		t.Errorf("%d records", len(d.got.ids))
	}
}

// TestAheadForgetsAnOldEpoch: sizes that were read from a leader that was
// replaced may be of records that are gone.
func TestAheadForgetsAnOldEpoch(t *testing.T) {
	c := cluster(t, 1)
	send(t, client(t, c), ids(0, 0, 100)...)
	s := open(t, c, nil)
	d := drain(t, s, planner.Limits{BytesMax: 100})
	d.plan(t)
	requests := s.Stats().Requests
	bounce(t, c)
	s.relations[0].stale()
	d.plan(t)
	if s.Stats().Requests == requests {
		t.Error("what an old leader sent was measured")
	}
	for p, tally := d.next(t); p != nil; p, tally = d.next(t) {
		if tally.Bytes > 100 {
			t.Errorf("%d bytes", tally.Bytes)
		}
	}
	if len(d.got.ids) != 100 {
		t.Errorf("%d records", len(d.got.ids))
	}
}

// TestLargeLimitIsAnEstimate: nothing is read ahead for a limit that memory
// cannot hold.
func TestLargeLimitIsAnEstimate(t *testing.T) {
	c := cluster(t, 1)
	send(t, client(t, c), ids(0, 0, 100)...)
	s := open(t, c, nil)
	available, err := s.List(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, limit := range []int64{0, s.limits.AheadMax() + 1} {
		if got, err := s.Ahead(t.Context(), nil, available, limit); err != nil || got[0].Sizes != nil {
			t.Errorf("limit %d: %+v %v", limit, got, err)
		}
	}
	if got, err := s.Ahead(t.Context(), nil, available, s.limits.AheadMax()); err != nil || got[0].Sizes == nil {
		t.Errorf("%+v %v", got, err)
	}
}

// TestMarks: steps, rebasing on and between marks, against a plain list.
func TestMarks(t *testing.T) {
	rnd := random(t)
	for range 200 {
		m := &measured{from: 10, next: 10}
		var sizes []int64
		step := rnd.Int64N(20)
		for at := int64(10); at < 60; at++ {
			n := rnd.Int64N(30)
			if rnd.IntN(3) == 0 {
				n = 0
			}
			sizes = append(sizes, n)
			m.add(at+1, n, step)
			m.next = at + 1
		}
		sum := func(from, to int64) (n int64) {
			for _, v := range sizes[from-10 : to-10] {
				n += v
			}
			return n
		}
		check := func(slack int64) {
			t.Helper()
			last := batch.Mark{Next: m.from}
			for _, k := range m.marks {
				want := sum(m.from, k.Next)
				if k.Next <= last.Next || k.Bytes < want || k.Bytes > want+slack {
					t.Fatalf("mark %+v behind %+v, want %d bytes", k, last, want)
				}
				if gap := sum(last.Next, k.Next); gap > step && gap > biggest(sizes[last.Next-10:k.Next-10]) {
					t.Fatalf("the marks %+v and %+v are further apart than %d", last, k, step)
				}
				last = k
			}
		}
		check(0)
		if !m.rebase(m.marks[rnd.IntN(len(m.marks))].Next) {
			t.Fatal("a mark is known")
		}
		check(0)
		if m.from < 59 {
			if !m.rebase(m.from + 1) {
				t.Fatal("the next offset is known")
			}
			check(30)
		}
		if m.rebase(9) || m.rebase(61) {
			t.Fatal("what was not measured is not known")
		}
	}
}

func biggest(sizes []int64) (n int64) {
	for _, v := range sizes {
		n = max(n, v)
	}
	return n
}
