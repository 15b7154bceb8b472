// Package batch defines the nouns that every room shares: which offsets a
// micro-batch covers, the plan that freezes it, the stamp that its snapshot
// carries, and how it can fail. It imports the standard library only, does no
// I/O, and every other package may import it.
package batch

import (
	"cmp"
	"fmt"
	"slices"
)

// ID numbers the batches of one pipeline 0, 1, 2, … without gaps.
type ID int64

// None is the ID before the first batch.
const None ID = -1

// Hidden columns that a source appends to every Arrow record batch it emits,
// behind the columns that SQL sees. They lead from a row back to its record.
const (
	// RangeColumn is an int32: the index into the ranges that were read.
	RangeColumn = "__range"
	// OffsetColumn is an int64: the record's offset in its partition.
	OffsetColumn = "__offset"
)

// PayloadColumns are further hidden columns, before those: the record itself, of
// a source whose bad records become dead letters. So a row that SQL fails on can
// be told whole.
func PayloadColumns() []string {
	return []string{"__timestamp", "__key", "__value", "__headers"}
}

// TopicPartition names one Kafka partition as one source of the spec reads it.
// A topic that was deleted and made again has another TopicID, so its
// partitions are other partitions.
type TopicPartition struct {
	Source    string `json:"source"`
	Topic     string `json:"topic"`
	TopicID   string `json:"topic_id"` // Kafka's topic UUID as text; empty if the broker has none
	Partition int32  `json:"partition"`
}

// Compare orders by source, topic, topic id, then number.
func (p TopicPartition) Compare(q TopicPartition) int {
	return cmp.Or(cmp.Compare(p.Source, q.Source), cmp.Compare(p.Topic, q.Topic),
		cmp.Compare(p.TopicID, q.TopicID), cmp.Compare(p.Partition, q.Partition))
}

func (p TopicPartition) String() string { return fmt.Sprintf("%s/%d", p.Topic, p.Partition) }

// Range is the half-open interval [Start, End) of one partition. It counts
// offsets, not records: compaction, aborted records and transaction markers
// leave holes. It may be empty.
type Range struct {
	TopicPartition
	Start int64 `json:"start"`
	End   int64 `json:"end"`
	// Lost counts the offsets from Start that are gone and were given up under
	// `on_data_loss: record`: the gap is [Start, Start+Lost). Reading begins
	// behind it.
	Lost int64 `json:"lost,omitempty"`
	// Closed says that the topic id no longer exists: what lay behind End is a
	// gap of unknown length, and no later plan has a range for this partition.
	Closed bool `json:"closed,omitempty"`
	// Epoch is the leader epoch under which End was listed, -1 if unknown.
	Epoch int32 `json:"epoch"`
	// Digest says which records a range has whose offsets are numbers of batches, of
	// dead letters, and Records how many. Else it is empty: an offset is a record.
	Digest  string `json:"digest,omitempty"`
	Records int64  `json:"records,omitempty"`
}

// First returns the first offset that is read.
func (r Range) First() int64 { return r.Start + r.Lost }

// Len returns the number of offsets, lost ones included, or of the records that a
// range of dead letters has.
func (r Range) Len() int64 {
	if r.Digest != "" {
		return r.Records
	}
	return r.End - r.Start
}

func (r Range) String() string {
	s := fmt.Sprintf("%s[%d,%d)", r.TopicPartition, r.Start, r.End)
	if r.Lost > 0 {
		s += fmt.Sprintf(" lost %d", r.Lost)
	}
	if r.Closed {
		s += " closed"
	}
	return s
}

// SortRanges puts ranges in the order of a plan.
func SortRanges(ranges []Range) {
	slices.SortFunc(ranges, func(a, b Range) int { return a.Compare(b.TopicPartition) })
}

// Available is what a partition can serve now.
type Available struct {
	TopicPartition
	Start int64 // first offset still retained (log start)
	// End is the first offset that cannot be read yet: the last stable offset
	// under read_committed, else the high watermark.
	End   int64
	Epoch int32 // leader epoch, -1 if unknown
	// Bytes estimates the uncompressed size of key and value per offset, from
	// what was fetched of this partition so far; 0 if nothing was.
	Bytes float64
	// Sizes, if not nil, is what was read ahead. It is exact, and a plan with a
	// limit in bytes takes no more of the partition than it tells of.
	Sizes *Sizes
}

// Sizes tells how large the records of one partition are, from the offset From
// on.
type Sizes struct {
	From  int64
	Marks []Mark // rising
}

// Mark says that the records in [Sizes.From, Next) have Bytes, uncompressed key
// and value. Next is behind a record, or behind a hole.
type Mark struct{ Next, Bytes int64 }
