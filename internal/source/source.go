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
	"context"
	"fmt"
	"log/slog"
	"regexp"
	"slices"
	"sync"
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

// Start says where a pipeline begins to read.
type Start struct {
	Latest  bool
	Time    time.Time                  // the first record at or after it, if not zero
	Offsets map[string]map[int32]int64 // by topic and partition, if not nil; others at their beginning
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
	SkipBad  bool
	Metadata bool // add the columns of decode.MetadataFields
	// Decoder makes a decoder for the records.
	Decoder func() (decode.Decoder, error)
}

// Source reads all sources of a spec.
type Source struct {
	relations []*relation
	log       *slog.Logger
	onSkip    func(batch.Reject)
	now       func() time.Time
	publisher *publisher
}

// relation is one source of the spec.
type relation struct {
	Options
	client  *kgo.Client
	admin   *kadm.Client
	pattern *regexp.Regexp
	fields  []arrow.Field // visible columns
	schema  *arrow.Schema // and the hidden ones

	mu      sync.Mutex
	topics  map[string]topic
	asked   time.Time                        // when the topics were
	density map[batch.TopicPartition]density // bytes per offset, as fetched
}

// topic is what metadata says of one.
type topic struct {
	id         string
	rawID      [16]byte
	partitions map[int32]leader
}

type leader struct{ broker, epoch int32 }

// density estimates how many bytes an offset holds, weighing later fetches more.
type density struct{ bytes, offsets float64 }

// New opens clients for the sources. It sends nothing yet. onSkip, which may be
// nil, is told of each record that is skipped.
func New(sources []Options, log *slog.Logger, now func() time.Time, onSkip func(batch.Reject)) (*Source, error) {
	if onSkip == nil {
		onSkip = func(batch.Reject) {}
	}
	s := &Source{log: log, onSkip: onSkip, now: now}
	for _, o := range sources {
		r, err := newRelation(o)
		if err != nil {
			s.Close()
			return nil, fmt.Errorf("source %s: %w", o.Name, err)
		}
		s.relations = append(s.relations, r)
	}
	s.publisher = newPublisher(s.relations, log)
	return s, nil
}

func newRelation(o Options) (*relation, error) {
	decoder, err := o.Decoder()
	if err != nil {
		return nil, err
	}
	r := &relation{Options: o, fields: decoder.Fields(), density: map[batch.TopicPartition]density{}}
	if o.Pattern != "" {
		if r.pattern, err = regexp.Compile(o.Pattern); err != nil {
			return nil, fmt.Errorf("%w: topic_pattern %q: %w", batch.ErrInvalid, o.Pattern, err)
		}
	}
	if o.Metadata {
		r.fields = slices.Concat(r.fields, decode.MetadataFields())
	}
	r.schema = arrow.NewSchema(slices.Concat(r.fields, []arrow.Field{
		{Name: batch.RangeColumn, Type: arrow.PrimitiveTypes.Int32},
		{Name: batch.OffsetColumn, Type: arrow.PrimitiveTypes.Int64},
	}), nil)
	if r.client, err = kafka.NewClient(o.Kafka); err != nil {
		return nil, err
	}
	r.admin = kadm.NewClient(r.client)
	return r, nil
}

// Fields returns the columns that SQL sees of a source.
func (s *Source) Fields(name string) []arrow.Field {
	for _, r := range s.relations {
		if r.Name == name {
			return r.fields
		}
	}
	return nil
}

// Close ends what the source started and closes its clients.
func (s *Source) Close() {
	if s.publisher != nil {
		s.publisher.close()
	}
	for _, r := range s.relations {
		r.client.Close()
	}
}

// Publish tells lag tools what is in the tables. It does not wait.
func (s *Source) Publish(end batch.Offsets) { s.publisher.publish(end) }

func (s *Source) relation(name string) *relation {
	i := slices.IndexFunc(s.relations, func(r *relation) bool { return r.Name == name })
	return s.relations[i]
}

// Start resolves where reading begins, for every partition that exists now.
func (s *Source) Start(ctx context.Context) (batch.Offsets, error) {
	starts := batch.Offsets{}
	for _, r := range s.relations {
		if err := r.resolve(ctx, starts, s.now()); err != nil {
			return nil, fmt.Errorf("resolve start of source %s: %w", r.Name, err)
		}
	}
	return starts, nil
}

// List returns what every partition can serve now.
func (s *Source) List(ctx context.Context) ([]batch.Available, error) {
	var all []batch.Available
	for _, r := range s.relations {
		available, err := r.list(ctx, s.now())
		if err != nil {
			return nil, fmt.Errorf("list offsets of source %s: %w", r.Name, err)
		}
		all = append(all, available...)
	}
	return all, nil
}
