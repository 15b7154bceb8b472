package source

import (
	"context"
	"fmt"

	"github.com/apache/arrow-go/v18/arrow"
	"golang.org/x/sync/errgroup"

	"github.com/frazil-io/frazil/internal/batch"
	"github.com/frazil-io/frazil/internal/deadletter"
	"github.com/frazil-io/frazil/internal/source/decode"
)

// Stored is a record that was kept outside of Kafka.
type Stored struct {
	decode.Record
	// Range is the value of batch.RangeColumn for its row: where the record was.
	Range     int
	Offset    int64
	Timestamp int64 // milliseconds since 1970, -1 for none
}

// Decode decodes records of one source of the spec that were kept outside of
// Kafka, as Read does. at is where they were; feed hands them over one by one, and
// may use their memory again when add returns. lacking are the sinks that lack a
// record which becomes a dead letter.
func (s *Source) Decode(ctx context.Context, name string, at []batch.Range, lacking []string, feed func(add func(Stored) error) error, emit, letters func(arrow.RecordBatch) error) (batch.Tally, error) {
	r := s.named(name)
	if r == nil {
		return batch.Tally{}, fmt.Errorf("%w: there is no source %s", batch.ErrInvalid, name)
	}
	workers, err := r.hire(1)
	if err != nil {
		return batch.Tally{}, err
	}
	w := workers[0]
	w.start(len(at), s.limits.chunkBytes(), s.onSkip)
	w.lacking = lacking
	chunks := make(chan chunk)
	group, within := errgroup.WithContext(ctx)
	group.Go(func() error {
		defer close(chunks)
		err := feed(func(one Stored) error {
			it := walker{Record: one.Record, offset: one.Offset, timestamp: one.Timestamp, bytes: one.bytes()}
			p := piece{share: &share{Range: at[one.Range], index: one.Range}}
			if one.truncated() {
				return w.truncated(within, p, &it, chunks)
			}
			return w.record(within, p, &it, chunks)
		})
		if err != nil {
			return err
		}
		return w.flush(within, chunks)
	})
	group.Go(func() error { return forward(chunks, emit, letters) })
	if err := group.Wait(); err != nil { // the worker is in the middle of something: let it go
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return batch.Tally{}, fmt.Errorf("read source %s: %w", name, err)
	}
	r.noteSkips(w.tally.Skipped, w.skipped)
	tally := w.tally
	tally.Offsets = tally.Data
	r.rest(workers)
	return tally, nil
}

// bytes is what a record has.
func (s Stored) bytes() int64 {
	n := len(s.Key) + len(s.Value)
	for _, h := range s.Headers {
		n += len(h.Key) + len(h.Value)
	}
	return int64(n)
}

// truncated says whether only the beginning of a record was kept.
func (s Stored) truncated() bool {
	return len(s.Headers) == 1 && string(s.Headers[0].Key) == deadletter.Truncated
}

// truncated makes a record bad of which only the beginning was kept: what it was
// cannot be told from that.
func (w *worker) truncated(ctx context.Context, p piece, it *walker, chunks chan<- chunk) error {
	w.tally.Data++
	w.tally.Bytes += int64(len(it.Key) + len(it.Value))
	return w.bad(ctx, p, it, chunks, &decode.Error{Code: batch.CodeOversize, Reason: "the record was too large to be kept, and its letter has only the beginning: it cannot be run again", Pos: -1})
}

func (s *Source) named(name string) *relation {
	for _, r := range s.relations {
		if r.Name == name {
			return r
		}
	}
	return nil
}
