package source

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/apache/arrow-go/v18/arrow"
	"golang.org/x/sync/errgroup"

	"github.com/frazil-io/frazil/internal/batch"
)

// Read emits every visible record of the ranges once: see driver.Source. Sources
// of the spec are read one after the other. For each, fetching, decoding and
// what emit does overlap, within Limits.Memory whatever the size of the ranges.
// emit and letters are called by Limits.Workers goroutines at once. After an
// error, what was emitted must be dropped. letters is given the records that
// become dead letters (see deadletter.Letter); it may be nil where no source has
// DeadLetters.
func (s *Source) Read(ctx context.Context, ranges []batch.Range, emit, letters func(arrow.RecordBatch) error) (batch.Tally, error) {
	var total batch.Tally
	for i, rg := range ranges {
		if !slices.ContainsFunc(s.relations, func(r *relation) bool { return r.Name == rg.Source }) {
			if rg.First() >= rg.End { // only its position is kept
				total.Offsets += rg.Len()
				total.Lost += rg.Lost
				continue
			}
			return total, fmt.Errorf("%w: the plan reads source %q (range %d), which is not in the spec", batch.ErrInvalid, rg.Source, i)
		}
	}
	for _, r := range s.relations {
		tally, err := s.read(ctx, r, ranges, emit, letters)
		if err != nil {
			s.carry.drop()
			if ctx.Err() != nil {
				err = context.Cause(ctx)
			}
			return total, fmt.Errorf("read source %s: %w", r.Name, err)
		}
		total = total.Plus(tally)
	}
	return total, nil
}

// read reads the ranges of one source of the spec.
func (s *Source) read(ctx context.Context, r *relation, ranges []batch.Range, emit, letters func(arrow.RecordBatch) error) (batch.Tally, error) {
	shares, tally := sharesOf(r.Name, ranges)
	if len(shares) == 0 {
		return tally, nil
	}
	r.expect(partitionsOf(ranges))
	workers, err := r.hire(s.workersFor(shares))
	if err != nil {
		return tally, err
	}
	pieces := make(chan piece)
	gate := newGate(s.limits.queueBytes())
	f := &fetcher{
		relation: r, shares: shares, gate: gate, deliver: r.queue(pieces), carry: s.carry, partition: partitionBytes,
		room: s.carry.max, surplus: map[batch.TopicPartition]surplus{},
	}
	for _, w := range workers {
		w.start(len(ranges), s.limits.chunkBytes(), s.onSkip)
	}
	if err := decodeAll(ctx, f, workers, pieces, emit, letters); err != nil {
		return tally, err // the workers are in the middle of something: let them go
	}
	seen := make([]int64, len(ranges))
	for _, w := range workers {
		tally = tally.Plus(w.tally)
		for i, n := range w.seen {
			seen[i] += n
		}
		r.noteSkips(w.tally.Skipped, w.skipped)
	}
	if tally.Absent, err = r.absent(ctx, shares, seen); err != nil {
		return tally, err
	}
	r.rest(workers)
	s.carry.only(r.Name, ranges)
	s.carry.put(f.surplus)
	return tally, nil
}

// decodeAll fetches, decodes and emits at the same time, and checks that what was
// fetched was decoded.
func decodeAll(ctx context.Context, f *fetcher, workers []*worker, pieces chan piece, emit, letters func(arrow.RecordBatch) error) error {
	group, within := errgroup.WithContext(ctx)
	group.Go(func() error {
		defer close(pieces)
		if err := f.resume(within); err != nil {
			return err
		}
		return f.run(within)
	})
	for _, w := range workers {
		chunks := make(chan chunk)
		group.Go(func() error {
			defer close(chunks)
			return w.run(within, pieces, f.gate, chunks)
		})
		group.Go(func() error { return forward(chunks, emit, letters) })
	}
	if err := group.Wait(); err != nil {
		return err
	}
	var decoded int64
	for _, w := range workers {
		decoded += w.batches
	}
	if sent := f.sent.Load(); sent != decoded {
		return fmt.Errorf("%w: %d were fetched, %d were decoded", errMiscount, sent, decoded)
	}
	return nil
}

// errMiscount is a hand-over whose two sides counted differently: a bug, and never
// a reason to go on. On a compacted topic the offsets alone would not show it.
var errMiscount = errors.New("record batches were miscounted; nothing was committed; please report this")

// sharesOf returns what is to be fetched of the ranges for a source of the spec,
// and counts what the ranges themselves say.
func sharesOf(source string, ranges []batch.Range) (shares []*share, tally batch.Tally) {
	for i, rg := range ranges {
		if rg.Source != source {
			continue
		}
		tally.Offsets += rg.Len()
		tally.Lost += rg.Lost
		if rg.First() < rg.End {
			shares = append(shares, &share{Range: rg, index: i, next: rg.First()})
		}
	}
	return shares, tally
}

// parallelFrom is how many offsets are worth more than one worker: each of them
// ends with a record batch that may be small.
const parallelFrom = 32 << 10

func (s *Source) workersFor(shares []*share) int {
	if missing(shares) < parallelFrom {
		return 1
	}
	return s.limits.Workers
}

// hire returns workers, those of earlier reads first: their buffers fit.
func (r *relation) hire(n int) ([]*worker, error) {
	r.mu.Lock()
	have := min(n, len(r.idle))
	workers := slices.Clone(r.idle[:have])
	r.idle = slices.Delete(r.idle, 0, have)
	r.mu.Unlock()
	for len(workers) < n {
		w, err := newWorker(r)
		if err != nil {
			return nil, err
		}
		workers = append(workers, w)
	}
	return workers, nil
}

// rest keeps workers for the next Read.
func (r *relation) rest(workers []*worker) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.idle = append(r.idle, workers...)
}

// forward emits what a worker has made, so that the worker makes the next one
// meanwhile.
func forward(chunks <-chan chunk, emit, letters func(arrow.RecordBatch) error) error {
	for c := range chunks {
		to := emit
		if c.letters {
			to = letters
		}
		err := to(c.rows)
		c.rows.Release()
		if err != nil {
			return err
		}
	}
	return nil
}
