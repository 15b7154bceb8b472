package planner

import (
	"fmt"
	"regexp"
	"slices"
	"time"

	"github.com/frazil-io/frazil/internal/batch"
)

// Source is what the spec says of one source.
type Source struct {
	// Topics or Pattern say which topics it reads; neither: all.
	Topics  []string
	Pattern *regexp.Regexp
	// RecordLoss is `on_data_loss: record`: lost offsets become gaps of the plan.
	RecordLoss bool
}

// Sources are those of the spec, by name; nil reads everything.
type Sources map[string]Source

// record says whether what is lost of a partition becomes a gap.
func (s Sources) record(tp batch.TopicPartition) bool { return s[tp.Source].RecordLoss }

// RecordLoss says whether any source's losses become gaps.
func (s Sources) RecordLoss() bool {
	for _, source := range s {
		if source.RecordLoss {
			return true
		}
	}
	return false
}

// Reads says whether the spec still reads a partition that the pipeline knows. Of
// one that it does not the pipeline keeps the position, so that it goes on there,
// without a gap and without a record twice, should a later spec read it again.
func (s Sources) Reads(tp batch.TopicPartition) bool {
	source, ok := s[tp.Source]
	switch {
	case s == nil:
		return true
	case !ok:
		return false
	case source.Pattern != nil:
		return source.Pattern.MatchString(tp.Topic)
	default:
		return len(source.Topics) == 0 || slices.Contains(source.Topics, tp.Topic)
	}
}

// Unread returns batch.ErrInvalid if ranges are still to be read of topics that
// the spec has no more.
func Unread(ranges []batch.Range, sources Sources) error {
	for _, r := range ranges {
		if r.First() < r.End && !sources.Reads(r.TopicPartition) {
			return unreadError(r.TopicPartition, r.First(), r.End)
		}
	}
	return nil
}

func unreadError(tp batch.TopicPartition, from, to int64) error {
	return fmt.Errorf("%w: offsets [%d,%d) of partition %s are still to be read for a table, but source %s of the spec does not read topic %s any more: "+
		"put it back until they are in the table; if it is gone from Kafka, put the source back with on_data_loss: record", batch.ErrInvalid, from, to, tp, tp.Source, tp.Topic)
}

// Topic names a topic as one source of the spec reads it.
type Topic struct{ Source, Name string }

func topicOf(tp batch.TopicPartition) Topic { return Topic{tp.Source, tp.Topic} }

// Absences remembers since when topics that the pipeline knows are missing from
// listings: one alone may come from a broker that starts, or lags.
type Absences map[Topic]time.Time

// Note takes note of a listing.
func (a Absences) Note(known batch.Offsets, available []batch.Available, now time.Time) {
	listed := map[Topic]bool{}
	for _, x := range available {
		listed[topicOf(x.TopicPartition)] = true
	}
	for tp := range known {
		t := topicOf(tp)
		if _, missing := a[t]; !missing && !listed[t] {
			a[t] = now
		}
	}
	for t := range listed {
		delete(a, t)
	}
}

// Gone returns the topics that were in no listing for this long.
func (a Absences) Gone(now time.Time, after time.Duration) map[Topic]bool {
	gone := map[Topic]bool{}
	for t, since := range a {
		if now.Sub(since) >= after {
			gone[t] = true
		}
	}
	return gone
}

func goneError(tp batch.TopicPartition, at int64) error {
	return fmt.Errorf("%w: topic %s was deleted: records from offset %d of partition %d on may be lost; make it again, take it out of the spec, "+
		"or with on_data_loss: record in source %s frazil notes the gap and goes on without it", batch.ErrDataLost, tp.Topic, at, tp.Partition, tp.Source)
}
