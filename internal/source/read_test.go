package source

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/frazil-io/frazil/internal/batch"
	"github.com/frazil-io/frazil/internal/source/decode"
)

var seedFlag = flag.Uint64("seed", 0, "of the random tests; 0: a new one")

func random(t testing.TB) *rand.Rand {
	t.Helper()
	seed := *seedFlag
	if seed == 0 {
		seed = rand.Uint64()
	}
	t.Logf("go test -run %s -seed %d", t.Name(), seed)
	return rand.New(rand.NewPCG(seed, 1))
}

// produced is what a random history left.
type produced struct {
	committed map[int64]bool
	aborted   int64
}

// history writes transactions of several producers, with all codecs, that
// interleave, and ordinary records between them. A third of them is aborted.
func history(t testing.TB, c *kfake.Cluster, rnd *rand.Rand, partitions int32) produced {
	t.Helper()
	p := produced{committed: map[int64]bool{}}
	codecs := []kgo.CompressionCodec{kgo.NoCompression(), kgo.GzipCompression(), kgo.SnappyCompression(), kgo.Lz4Compression(), kgo.ZstdCompression()}
	id := int64(0)
	type producer struct {
		*kgo.Client
		open []int64
	}
	var producers []*producer
	for i, codec := range codecs {
		producers = append(producers, &producer{Client: client(t, c, kgo.TransactionalID(fmt.Sprint("tx", i)), kgo.ProducerBatchCompression(codec))})
	}
	plain := client(t, c)
	for range 150 {
		x := producers[rnd.IntN(len(producers))]
		var records []*kgo.Record
		for range 1 + rnd.IntN(30) {
			id++
			records = append(records, &kgo.Record{
				Partition: rnd.Int32N(partitions), Value: fmt.Appendf(nil, `{"id":%d,"pad":%q}`, id, strings.Repeat("x", rnd.IntN(200))),
				Headers: []kgo.RecordHeader{{Key: "h", Value: []byte("v")}},
			})
		}
		if rnd.IntN(5) == 0 {
			send(t, plain, records...)
			for i := range records {
				p.committed[id-int64(i)] = true
			}
			continue
		}
		if x.open == nil {
			if err := x.BeginTransaction(); err != nil {
				t.Fatal(err)
			}
		}
		send(t, x.Client, records...)
		for i := range records {
			x.open = append(x.open, id-int64(i))
		}
		if rnd.IntN(2) == 0 {
			p.end(t, x.Client, x.open, rnd.IntN(3) > 0)
			x.open = nil
		}
	}
	for _, x := range producers {
		if x.open != nil {
			p.end(t, x.Client, x.open, rnd.IntN(3) > 0)
		}
	}
	return p
}

func (p *produced) end(t testing.TB, cl *kgo.Client, open []int64, commit bool) {
	t.Helper()
	if err := cl.EndTransaction(context.Background(), kgo.TransactionEndTry(commit)); err != nil {
		t.Fatal(err)
	}
	for _, id := range open {
		p.committed[id] = commit
	}
	if !commit {
		p.aborted += int64(len(open))
	}
}

// cuts reads everything in random consecutive ranges. between is called before
// each Read.
func cuts(t testing.TB, s opened, rnd *rand.Rand, got *reading, between func()) (total batch.Tally) {
	t.Helper()
	available, err := s.List(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	position := batch.Offsets{}
	for done := false; !done; {
		done = true
		between()
		var ranges []batch.Range
		for _, a := range available {
			r := batch.Range{TopicPartition: a.TopicPartition, Start: position[a.TopicPartition], Epoch: -1}
			r.End = min(a.End, r.Start+rnd.Int64N(60))
			done = done && r.End == a.End
			position[a.TopicPartition] = r.End
			ranges = append(ranges, r)
		}
		total = total.Plus(read(t, s, ranges, got))
	}
	return total
}

func (p *produced) check(t testing.TB, got *reading, total batch.Tally) {
	t.Helper()
	rows := 0
	for id, committed := range p.committed {
		if _, ok := got.ids[id]; ok != committed {
			t.Fatalf("record %d: committed %t, read %t", id, committed, ok)
		}
		if committed {
			rows++
		}
	}
	if len(got.ids) != rows || total.Rows != int64(rows) || total.Aborted != p.aborted || total.Absent != 0 || total.Control == 0 {
		t.Fatalf("%d of %d rows, %d aborted, tally %+v", len(got.ids), rows, p.aborted, total)
	}
}

// TestReadsExactly cuts a random history into random ranges: together they give
// each committed record once.
func TestReadsExactly(t *testing.T) {
	rnd := random(t)
	c := cluster(t, 3)
	want := history(t, c, rnd, 3)
	s := openWith(t, c, nil, Limits{Memory: memoryMin, Workers: 2}, slog.New(slog.DiscardHandler), nil)
	got := newReading()
	total := cuts(t, s, rnd, got, func() {})
	want.check(t, got, total)
	if stats := s.Stats(); stats.CarriedBytes == 0 || stats.Retries != 0 {
		t.Errorf("%+v: nothing was carried over, or a fetch was repeated", stats)
	}
}

// TestReadsExactlyThroughFaults does so while leaders move, connections break
// and brokers answer with errors.
func TestReadsExactlyThroughFaults(t *testing.T) {
	rnd := random(t)
	c := cluster(t, 3)
	want := history(t, c, rnd, 3)
	s := open(t, c, nil)
	s.carry.max = 0 // fetch for each Read
	got := newReading()
	errs := []*kerr.Error{
		kerr.NotLeaderForPartition, kerr.FencedLeaderEpoch, kerr.UnknownLeaderEpoch, kerr.UnknownTopicID, kerr.KafkaStorageError,
		kerr.UnknownTopicOrPartition, kerr.OffsetNotAvailable, kerr.UnknownServerError, kerr.CorruptMessage,
	}
	total := cuts(t, s, rnd, got, func() {
		switch rnd.IntN(4) {
		case 0:
			c.ShufflePartitionLeaders()
		case 1:
			c.ControlKey(int16(kmsg.Fetch), func(kmsg.Request) (kmsg.Response, error, bool) {
				return nil, errors.New("the connection breaks"), true
			})
		case 2:
			c.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Fetch}, Topic: topicName, Partitions: []int32{rnd.Int32N(3)}, Err: errs[rnd.IntN(len(errs))], Count: 1 + rnd.IntN(3)})
		}
	})
	want.check(t, got, total)
	if s.Stats().Retries == 0 {
		t.Error("no fault was met")
	}
}

// TestRangeEndsAnywhere reads [0,k) and [k,end) for every k: in front of, on and
// behind each transaction marker and batch.
func TestRangeEndsAnywhere(t *testing.T) {
	c := cluster(t, 1)
	cl := client(t, c, kgo.TransactionalID("tx"))
	for i, commit := range []bool{true, false, true, false} {
		if err := cl.BeginTransaction(); err != nil {
			t.Fatal(err)
		}
		send(t, cl, ids(0, int64(i*10), int64(i*10+3))...)
		if err := cl.EndTransaction(t.Context(), kgo.TransactionEndTry(commit)); err != nil {
			t.Fatal(err)
		}
	}
	end := int64(16) // 4 × (3 records and a marker)
	for k := range end + 1 {
		s := open(t, c, nil)
		whole := all(t, s)[0]
		if whole.End != end {
			t.Fatalf("the log ends at %d", whole.End)
		}
		got := newReading()
		var total batch.Tally
		for _, r := range []batch.Range{{Start: 0, End: k}, {Start: k, End: end}} {
			r.TopicPartition, r.Epoch = whole.TopicPartition, whole.Epoch
			total = total.Plus(read(t, s, []batch.Range{r}, got))
		}
		if len(got.ids) != 6 || total.Control != 4 || total.Aborted != 6 || total.Rows != 6 || total.Absent != 0 {
			t.Fatalf("cut at %d: %v, %+v", k, got.ids, total)
		}
	}
}

func TestOpenTransactionIsNotListed(t *testing.T) {
	c := cluster(t, 1)
	produce(t, c, `{"id":1}`)
	cl := client(t, c, kgo.TransactionalID("tx"))
	if err := cl.BeginTransaction(); err != nil {
		t.Fatal(err)
	}
	send(t, cl, ids(0, 2, 4)...)
	if r := all(t, open(t, c, nil))[0]; r.End != 1 {
		t.Fatalf("read_committed lists up to %d", r.End)
	}
	s := open(t, c, func(o *Options) { o.Uncommitted = true })
	ranges := all(t, s)
	got := newReading()
	if tally := read(t, s, ranges, got); ranges[0].End != 3 || tally.Rows != 3 {
		t.Fatalf("read_uncommitted: %v, %+v", ranges, tally)
	}
	if err := cl.EndTransaction(t.Context(), kgo.TryAbort); err != nil {
		t.Fatal(err)
	}
	got = newReading()
	if tally := read(t, s, all(t, s), got); tally.Rows != 3 || tally.Control != 1 || tally.Aborted != 0 {
		t.Fatalf("read_uncommitted after the abort: %+v", tally)
	}
}

func TestEmptyRanges(t *testing.T) {
	c := cluster(t, 2)
	produce(t, c, `{"id":1}`)
	s := open(t, c, nil)
	ranges := all(t, s)
	ranges[0].Start = ranges[0].End
	if tally := read(t, s, ranges, newReading()); tally != (batch.Tally{}) {
		t.Fatalf("%+v", tally)
	}
	if requests := s.Stats().Requests; requests != 1 { // the probe's
		t.Fatalf("%d fetches for empty ranges", requests)
	}
	ranges[0].Source, ranges[0].Start, ranges[0].Lost = "orders", 0, ranges[0].End
	if tally := read(t, s, ranges, newReading()); tally.Offsets != ranges[0].End || tally.Lost != ranges[0].End {
		t.Fatalf("nothing is left to read of a source that is not in the spec: %+v", tally)
	}
	ranges[0].Lost = 0
	if _, err := s.Read(t.Context(), ranges, discard, nil); !errors.Is(err, batch.ErrInvalid) {
		t.Fatalf("a source that is not in the spec: %v", err)
	}
}

func TestBadRecordsAndTombstones(t *testing.T) {
	c := cluster(t, 1)
	long := `{"id":"` + strings.Repeat("y", 300) + `"}`
	produce(t, c, `{"id":1}`, long, "tombstone", `{"id":2}`)

	s := open(t, c, nil)
	ranges := all(t, s)
	_, err := s.Read(t.Context(), ranges, discard, nil)
	if !errors.Is(err, batch.ErrInvalid) || !strings.Contains(err.Error(), "offset 1 of clicks/0") ||
		!strings.Contains(err.Error(), `id`) || !strings.Contains(err.Error(), "yyy\" …") || len(err.Error()) > 600 {
		t.Fatalf("error %v", err)
	}
	logged := &bytes.Buffer{}
	var rejects []batch.Reject
	s = openWith(t, c, func(o *Options) { o.SkipBad = true }, Limits{}, slog.New(slog.NewTextHandler(logged, nil)), func(r batch.Reject) { rejects = append(rejects, r) })
	for range 3 {
		if tally := read(t, s, ranges, newReading()); tally.Skipped != 1 || tally.Tombstones != 1 || tally.Rows != 2 {
			t.Fatalf("%+v", tally)
		}
	}
	if len(rejects) != 3 || rejects[0].Offset != 1 || rejects[0].Reason == "" {
		t.Fatalf("%v", rejects)
	}
	if n := strings.Count(logged.String(), "bad records were skipped"); n != 1 {
		t.Fatalf("logged %d times: %s", n, logged)
	}
	s = open(t, c, func(o *Options) { o.SkipBad, o.Tombstones, o.Metadata = true, Keep, true })
	rows := int64(0)
	tally, err := s.Read(t.Context(), ranges, func(b arrow.RecordBatch) error {
		rows += b.NumRows()
		if b.ColumnName(1) != "_topic" || b.Column(3).(*array.Int64).Value(1) != 2 || !b.Column(0).IsNull(1) {
			return fmt.Errorf("unexpected rows %v", b)
		}
		return nil
	}, nil)
	if err != nil || rows != 3 || tally.Tombstones != 0 {
		t.Fatalf("%d rows, %+v %v", rows, tally, err)
	}
	s = open(t, c, func(o *Options) { o.SkipBad, o.Tombstones = true, Reject })
	if tally := read(t, s, ranges, newReading()); tally.Skipped != 2 || tally.Rows != 2 {
		t.Fatalf("%+v", tally)
	}
}

// TestRawHasHeaders: they are not only for metadata.
func TestRawHasHeaders(t *testing.T) {
	c := cluster(t, 1)
	send(t, client(t, c), &kgo.Record{Key: []byte("k"), Value: []byte("v"), Headers: []kgo.RecordHeader{{Key: "a", Value: []byte("1")}, {Key: "b"}}})
	s := open(t, c, func(o *Options) {
		o.Decoder = func() (decode.Decoder, error) { return decode.New("raw", nil, decode.Options{}) }
	})
	_, err := s.Read(t.Context(), all(t, s), func(b arrow.RecordBatch) error {
		if text := fmt.Sprint(b.Column(2)); !strings.Contains(text, `"a"`) || !strings.Contains(text, `"b"`) {
			return fmt.Errorf("headers are %s", text)
		}
		return nil
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
}

func TestEmitFailsAndContextEnds(t *testing.T) {
	c := cluster(t, 2)
	cl := client(t, c)
	send(t, cl, ids(0, 0, 40_000)...)
	send(t, cl, ids(1, 40_000, 80_000)...)
	s := openWith(t, c, nil, Limits{Memory: memoryMin, Workers: 2}, slog.New(slog.DiscardHandler), nil)
	ranges := all(t, s)
	full := errors.New("the disk is full")
	if _, err := s.Read(t.Context(), ranges, func(arrow.RecordBatch) error { return full }, nil); !errors.Is(err, full) {
		t.Fatalf("error %v", err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	why := errors.New("the driver stops")
	if _, err := s.Read(ctx, ranges, func(arrow.RecordBatch) error { cancel(why); return nil }, nil); !errors.Is(err, why) {
		t.Fatalf("error %v", err)
	}
	if buffered := s.Stats().Buffered; buffered != 0 {
		t.Errorf("%d bytes are still counted", buffered)
	}
	got := newReading()
	if tally := read(t, s, ranges, got); tally.Rows != 80_000 {
		t.Fatalf("afterwards: %+v", tally)
	}
}

// TestTwoSources share one Source; range indexes are those of the whole plan.
func TestTwoSources(t *testing.T) {
	c := cluster(t, 1, kfake.SeedTopics(1, "orders"))
	produce(t, c, `{"id":1}`, `{"id":2}`)
	send(t, client(t, c), &kgo.Record{Topic: "orders", Value: []byte(`{"id":3}`)})
	clicks, orders := options(t, c), options(t, c)
	orders.Name, orders.Topics = "orders", []string{"orders"}
	s, err := New([]Options{clicks, orders}, Limits{}, newClock(), slog.New(slog.DiscardHandler), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	o := opened{s, nil}
	ranges := all(t, o)
	batch.SortRanges(ranges)
	got := newReading()
	if tally := read(t, o, ranges, got); tally.Rows != 3 || len(ranges) != 2 || got.ids[3] != "orders/0@0" {
		t.Fatalf("%v %v %+v", ranges, got.ids, tally)
	}
	if s.Fields("orders")[0].Name != "id" || s.Fields("none") != nil {
		t.Error("fields")
	}
}
