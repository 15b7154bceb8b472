package driver

import (
	"time"

	"github.com/frazil-io/frazil/internal/batch"
)

// Progress is what the driver tells about one finished batch.
type Progress struct {
	Batch    batch.ID
	Revision int
	Start    time.Time     // when its work began
	Total    time.Duration // until its outcome was known
	Prepare  time.Duration // reading, SQL, files
	Commit   time.Duration
	Tries    int             // commits sent
	Retries  int             // of these, sent again after one that failed
	Outcome  []batch.Outcome // by sink, in the order of the spec
	Tally    batch.Tally     // what this process read for it; zero if another attempt was committed
	Plan     *batch.Plan     // as logged; read only
	// Lag is how many offsets were available behind the batch's end when it was
	// planned, and Latest the ends of all partitions then. A plan that this
	// process found has neither: Lag is -1.
	Lag    int64
	Latest batch.Offsets
}

// listing is what Kafka had when a batch was planned.
type listing struct {
	lag    int64
	latest batch.Offsets
}

// listed compares what is available with where a plan, or the position without
// one, ends.
func listed(available []batch.Available, end batch.Offsets) listing {
	l := listing{latest: batch.Offsets{}}
	for _, a := range available {
		at, ok := end[a.TopicPartition]
		if !ok {
			at = a.Start
		}
		l.lag += max(0, a.End-at)
		l.latest[a.TopicPartition] = a.End
	}
	return l
}

// Observer is told what happens, for people and metrics. Its methods return at
// once.
type Observer interface {
	// Batch: a batch's outcome is known.
	Batch(Progress)
	// Listed: Kafka was asked; lag offsets are waiting.
	Listed(at time.Time, lag int64)
	// Waiting: a server does not answer; the driver goes on trying. "" when it
	// answers again.
	Waiting(reason string)
	// Standby: another driver owns the pipeline. "" when that is over.
	Standby(reason string)
}

type nobody struct{}

func (nobody) Batch(Progress)          {}
func (nobody) Listed(time.Time, int64) {}
func (nobody) Waiting(string)          {}
func (nobody) Standby(string)          {}
