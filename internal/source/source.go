// Package source reads Kafka: it lists what partitions can serve, and reads
// exactly the ranges of a plan as Arrow record batches.
//
// "Exactly" means: the end of a range is known by the next fetch position, never
// by a record, because compaction, aborted transactions and their markers leave
// holes; every offset is accounted for; and a position that the broker no longer
// has is batch.ErrDataLost, never moved. Records are fetched as Kafka stores
// them and decoded straight from the decompressed bytes: they never exist as Go
// objects.
package source

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"regexp"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/frazil-io/frazil/internal/batch"
	"github.com/frazil-io/frazil/internal/kafka"
	"github.com/frazil-io/frazil/internal/source/decode"
)

// Tombstones says what becomes of records with a null value.
type Tombstones string

// The values of tombstones.
const (
	Drop   Tombstones = "drop" // counted
	Keep   Tombstones = "keep" // a row of NULLs
	Reject Tombstones = "reject"
)

// Start says where a pipeline begins to read. The zero value is the beginning.
type Start struct {
	Latest bool
	Time   time.Time // the first record at or after it, if not zero
	// Offsets, if not nil, are by topic and partition; partitions that it does
	// not name start at their beginning.
	Offsets map[string]map[int32]int64
}

// Options describe one source of the spec.
type Options struct {
	Name    string // the relation in SQL
	Kafka   kafka.Options
	Topics  []string
	Pattern string // instead of Topics: a regular expression
	Start   Start
	// Uncommitted reads records of open and aborted transactions, too.
	Uncommitted bool
	// Group is where offsets are published for lag tools; "": nowhere.
	Group      string
	Tombstones Tombstones // "": Drop
	// SkipBad counts records that cannot be decoded, and goes on; else they end
	// the batch.
	SkipBad bool
	// DeadLetters hands records that cannot be decoded to Read's letters instead,
	// and gives each row its record (batch.PayloadColumns), for rows that SQL
	// fails on.
	DeadLetters bool
	// RecordLoss counts records that are missing from the middle of a log which
	// is never compacted, and goes on; else they are batch.ErrDataLost.
	RecordLoss bool
	Metadata   bool // add the columns of decode.MetadataFields
	// MaxRecordBytes is the most that a record may have: its key, value and headers
	// as they lie in its batch without compression. A larger one is bad. 0: 64 MiB.
	MaxRecordBytes int
	// Decoder makes a decoder for the records. It is called for each worker.
	Decoder func() (decode.Decoder, error)
}

// Limits bound what a Source uses, for all its sources together.
type Limits struct {
	// Memory bounds what is held between the brokers and emit, in bytes; 0: 96
	// MiB. One record larger than that still comes through.
	Memory int64
	// Workers decode at the same time; 0: 1. More also call emit at the same
	// time.
	Workers int
}

// The shares of Limits.Memory: fetched and not decoded yet, kept for the next
// Read, and the rest for rows, of which each worker has one record batch in the
// making, one that waits, and one in emit.
const (
	memoryDefault  = 96 << 20
	memoryMin      = 4 << 20
	queueShare     = 4
	carryShare     = 8
	chunkShare     = 2
	chunksAtOnce   = 3
	chunkBytesMax  = 8 << 20
	chunkBytesMin  = 256 << 10
	requestShare   = 2 // of the queue: one answer is decoded while the next comes
	requestBytes   = 4 << 20
	requestMin     = 64 << 10
	partitionBytes = 1 << 20
)

func (l Limits) withDefaults() Limits {
	return Limits{Memory: max(cmp.Or(l.Memory, memoryDefault), memoryMin), Workers: max(l.Workers, 1)}
}

func (l Limits) queueBytes() int64 { return l.Memory / queueShare }

func (l Limits) chunkBytes() int {
	return int(min(max(l.Memory/chunkShare/chunksAtOnce/int64(l.Workers), chunkBytesMin), chunkBytesMax))
}

// Clock is time, real or simulated.
type Clock interface {
	Now() time.Time
	// Sleep returns early with the context's cause.
	Sleep(ctx context.Context, d time.Duration) error
}

// Source reads all sources of a spec. List may be called while Read or Ahead is
// under way.
type Source struct {
	relations []*relation
	limits    Limits
	clock     Clock
	log       *slog.Logger
	onSkip    func(batch.Reject)
	publisher *publisher
	carry     *carry
	ahead     *ahead
	stats     stats
}

// relation is one source of the spec.
type relation struct {
	Options
	client  *kgo.Client
	admin   *kadm.Client
	clock   Clock
	log     *slog.Logger
	stats   *stats
	pattern *regexp.Regexp
	fields  []arrow.Field // visible columns
	schema  *arrow.Schema // and the hidden ones

	mu       sync.Mutex
	view     *view
	known    map[string]topic // every topic that the last listing had
	doubted  map[string]bool  // topics that were there, and that a listing may lack
	begun    bool             // a listing may lack any topic: its loss may be noted already
	awaited  map[string]bool  // topics of which it was said that they are away
	policies map[string]policy
	sizes    map[batch.TopicPartition]size
	probed   map[string]bool // topics, by id, whose sizes were asked for
	sound    map[batch.TopicPartition]verdict
	idle     []*worker // between reads

	skips      int64 // since skipsNoted
	skipsNoted time.Time
}

// Stats are running totals, except for Buffered.
type Stats struct {
	Requests     int64 // fetches sent
	FetchedBytes int64 // compressed, as brokers sent them
	Retries      int64 // listings and rounds of fetches that met an error
	CarriedBytes int64 // fetched for one Read and used by the next
	Buffered     int64 // bytes fetched and not decoded yet, now
	BufferedPeak int64
}

type stats struct {
	requests, fetched, retries, carried, buffered, peak atomic.Int64
}

// hold notes bytes that are kept, and release that they are not any more.
func (s *stats) hold(n int64) {
	now := s.buffered.Add(n)
	for peak := s.peak.Load(); now > peak && !s.peak.CompareAndSwap(peak, now); peak = s.peak.Load() {
	}
}

func (s *stats) release(n int64) { s.buffered.Add(-n) }

// New opens clients for the sources. It sends nothing yet. onSkip, which may be
// nil, is told of each record that is skipped, from several goroutines at once
// where there are several workers, and again where a batch is read again.
// batch.ErrInvalid: a setting is wrong.
func New(sources []Options, limits Limits, clock Clock, log *slog.Logger, onSkip func(batch.Reject)) (*Source, error) {
	if onSkip == nil {
		onSkip = func(batch.Reject) {}
	}
	limits = limits.withDefaults()
	s := &Source{limits: limits, clock: clock, log: log, onSkip: onSkip}
	s.carry, s.ahead = newCarry(limits.Memory/carryShare, limits.AheadMax(), &s.stats), newAhead()
	for _, o := range sources {
		r, err := s.relation(o)
		if err != nil {
			s.Close()
			return nil, fmt.Errorf("source %s: %w", o.Name, err)
		}
		s.relations = append(s.relations, r)
	}
	s.publisher = newPublisher(s.relations, log)
	return s, nil
}

func (s *Source) relation(o Options) (*relation, error) {
	o.MaxRecordBytes = cmp.Or(o.MaxRecordBytes, recordBytesDefault)
	r := &relation{
		Options: o, clock: s.clock, log: s.log.With("source", o.Name), stats: &s.stats,
		known: map[string]topic{}, doubted: map[string]bool{}, awaited: map[string]bool{}, policies: map[string]policy{},
		sizes: map[batch.TopicPartition]size{}, probed: map[string]bool{}, sound: map[batch.TopicPartition]verdict{},
	}
	if err := o.validate(); err != nil {
		return nil, err
	}
	decoder, err := o.Decoder()
	if err != nil {
		return nil, err
	}
	r.fields = decoder.Fields()
	if o.Pattern != "" {
		if r.pattern, err = regexp.Compile(o.Pattern); err != nil {
			return nil, fmt.Errorf("%w: topic_pattern %q is not a regular expression: %w", batch.ErrInvalid, o.Pattern, err)
		}
	}
	if o.Metadata {
		r.fields = slices.Concat(r.fields, decode.MetadataFields())
	}
	var payload []arrow.Field
	if o.DeadLetters {
		payload = decode.PayloadFields()
	}
	r.schema = arrow.NewSchema(slices.Concat(r.fields, payload, []arrow.Field{
		{Name: batch.RangeColumn, Type: arrow.PrimitiveTypes.Int32},
		{Name: batch.OffsetColumn, Type: arrow.PrimitiveTypes.Int64},
	}), nil)
	if r.client, err = kafka.NewClient(o.Kafka); err != nil {
		return nil, err
	}
	r.admin = kadm.NewClient(r.client)
	return r, nil
}

func (o Options) validate() error {
	switch {
	case (len(o.Topics) == 0) == (o.Pattern == ""):
		return fmt.Errorf("%w: give either topics or topic_pattern", batch.ErrInvalid)
	case o.Tombstones != "" && o.Tombstones != Drop && o.Tombstones != Keep && o.Tombstones != Reject:
		return fmt.Errorf("%w: tombstones: %q is not drop, keep or reject", batch.ErrInvalid, o.Tombstones)
	}
	return nil
}

// Fields returns the columns that SQL sees of a source; nil for one that is not
// in the spec.
func (s *Source) Fields(name string) []arrow.Field {
	for _, r := range s.relations {
		if r.Name == name {
			return r.fields
		}
	}
	return nil
}

// Stats returns the totals since New.
func (s *Source) Stats() Stats {
	return Stats{
		Requests: s.stats.requests.Load(), FetchedBytes: s.stats.fetched.Load(), Retries: s.stats.retries.Load(),
		CarriedBytes: s.stats.carried.Load(), Buffered: s.stats.buffered.Load(), BufferedPeak: s.stats.peak.Load(),
	}
}

// Close publishes what is left to publish and closes the clients. No other call
// may be under way.
func (s *Source) Close() {
	if s.publisher != nil {
		s.publisher.close()
	}
	for _, r := range s.relations {
		r.client.Close()
	}
}

// Publish tells lag tools what is in the tables. It does not wait, and a failure
// is only logged.
func (s *Source) Publish(end batch.Offsets) { s.publisher.publish(end) }

// Start resolves where reading begins, for every partition that exists now. known
// is where the pipeline stands, nil for a new one. A topic that does not exist is
// batch.ErrInvalid, as in List.
func (s *Source) Start(ctx context.Context, known batch.Offsets) (batch.Offsets, error) {
	starts := batch.Offsets{}
	for _, r := range s.relations {
		if known != nil {
			r.expect(known.Partitions())
		}
		if err := r.resolve(ctx, starts); err != nil {
			return nil, fmt.Errorf("resolve start of source %s: %w", r.Name, err)
		}
	}
	return starts, nil
}

// List returns what every partition can serve now. A partition that was there
// before and is not now is batch.ErrUnavailable; one of a topic that was made
// again has another topic id.
//
// A topic that the spec names and that does not exist is batch.ErrInvalid, unless
// since has it: then it was deleted, and the listing lacks it. With
// Options.RecordLoss the listing of a pipeline that has begun may lack any: its
// loss may be noted already.
//
// since is what was planned last, nil for a pipeline that is new. A partition whose
// log no longer holds all of that, because an unclean election put another log in
// its place, ends where the two part: behind that are other records, under
// offsets that were read. A partition that the spec no longer reads stays where
// it was.
func (s *Source) List(ctx context.Context, since []batch.Range) ([]batch.Available, error) {
	var all []batch.Available
	for _, r := range s.relations {
		if since != nil {
			r.expect(partitionsOf(since))
		}
		available, err := r.list(ctx, since)
		if err != nil {
			return nil, fmt.Errorf("list offsets of source %s: %w", r.Name, err)
		}
		all = append(all, available...)
	}
	for _, rg := range since {
		if !s.reads(rg.Source, rg.Topic) {
			all = append(all, batch.Available{TopicPartition: rg.TopicPartition, Start: rg.End, End: rg.End, Epoch: -1})
		}
	}
	return all, nil
}

// reads says whether the spec has a topic in a source.
func (s *Source) reads(source, topic string) bool {
	return slices.ContainsFunc(s.relations, func(r *relation) bool {
		return r.Name == source && (slices.Contains(r.Topics, topic) || r.pattern != nil && r.pattern.MatchString(topic))
	})
}
