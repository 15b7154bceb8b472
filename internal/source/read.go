package source

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/twmb/franz-go/pkg/kgo"
	"golang.org/x/sync/errgroup"

	"github.com/frazil-io/frazil/internal/batch"
	"github.com/frazil-io/frazil/internal/source/decode"
)

// Sizes of a record batch that is emitted. SQL and Parquet want some ten
// thousand rows; large records make it smaller.
const (
	chunkRows  = 64 << 10
	chunkBytes = 16 << 20
)

// Read emits every visible record of the ranges once: see driver.Source. For
// each source of the spec three stages overlap: fetching, decoding, and what
// emit does; each holds one piece of work, so memory does not depend on the
// ranges.
func (s *Source) Read(ctx context.Context, ranges []batch.Range, emit func(arrow.RecordBatch) error) (batch.Tally, error) {
	var total batch.Tally
	for _, r := range s.relations {
		tally, err := s.read(ctx, r, ranges, emit)
		if err != nil {
			return total, fmt.Errorf("read source %s: %w", r.Name, err)
		}
		total = total.Plus(tally)
	}
	return total, nil
}

func (s *Source) read(ctx context.Context, r *relation, ranges []batch.Range, emit func(arrow.RecordBatch) error) (batch.Tally, error) {
	var shares []*share
	var tally batch.Tally
	for i, rg := range ranges {
		if rg.Source != r.Name {
			continue
		}
		tally.Offsets += rg.Len()
		tally.Lost += rg.Lost
		if rg.First() < rg.End {
			shares = append(shares, &share{Range: rg, index: int32(i), next: rg.First()})
		}
	}
	if len(shares) == 0 {
		return tally, nil
	}
	d, err := s.newReader(r)
	if err != nil {
		return tally, err
	}
	group, ctx := errgroup.WithContext(ctx)
	answers := make(chan []fetched)
	chunks := make(chan arrow.RecordBatch)
	group.Go(func() error {
		defer close(answers)
		return r.fetchAll(ctx, shares, s.now, func(got []fetched) error { return send(ctx, answers, got) })
	})
	group.Go(func() error {
		defer close(chunks)
		return d.decodeAll(answers, func(rows arrow.RecordBatch) error {
			err := send(ctx, chunks, rows)
			if err != nil {
				rows.Release()
			}
			return err
		})
	})
	group.Go(func() error {
		for rows := range chunks {
			err := emit(rows)
			rows.Release()
			if err != nil {
				return err
			}
		}
		return nil
	})
	err = group.Wait()
	for rows := range chunks { // left over where emit failed
		rows.Release()
	}
	if err != nil {
		return tally, err
	}
	tally = tally.Plus(d.tally)
	tally.Absent = tally.Offsets - tally.Lost - tally.Data - tally.Control - tally.Aborted
	return tally, nil
}

func send[T any](ctx context.Context, to chan<- T, v T) error {
	select {
	case to <- v:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// reader decodes what is fetched for one relation.
type reader struct {
	r        *relation
	onSkip   func(batch.Reject)
	unpack   kgo.Decompressor
	decoder  decode.Decoder
	metadata *decode.Metadata
	origins  *decode.Origins
	rows     int
	bytes    int // of keys and headers, which the decoder does not count
	tally    batch.Tally
}

func (s *Source) newReader(r *relation) (*reader, error) {
	decoder, err := r.Decoder()
	if err != nil {
		return nil, err
	}
	d := &reader{r: r, onSkip: s.onSkip, unpack: kgo.DefaultDecompressor(), decoder: decoder, origins: decode.NewOrigins()}
	if r.Metadata {
		d.metadata = decode.NewMetadata()
	}
	return d, nil
}

func (d *reader) decodeAll(answers <-chan []fetched, emit func(arrow.RecordBatch) error) error {
	for got := range answers {
		for _, f := range got {
			bytes := d.tally.Bytes
			for _, b := range f.batches {
				if err := d.batch(f, b, emit); err != nil {
					return err
				}
			}
			d.r.learn(f.TopicPartition, d.tally.Bytes-bytes, f.batches[len(f.batches)-1].last+1-f.from)
		}
	}
	return d.flush(emit)
}

// batch decodes the records of one batch that are in the range.
func (d *reader) batch(f fetched, b fetchedBatch, emit func(arrow.RecordBatch) error) error {
	data := b.raw[batchHeader:]
	if codec := b.codec(); codec != 0 {
		var err error
		if data, err = d.unpack.Decompress(data, kgo.CompressionCodecType(codec)); err != nil {
			return fmt.Errorf("%w: decompress the batch at offset %d of %s: %w", batch.ErrUnavailable, b.base, f.TopicPartition, err)
		}
	}
	next := b.from
	err := b.walk(data, d.metadata != nil, func(rec record) error {
		switch {
		case rec.offset < b.from || rec.offset >= f.End:
			return nil // of the batch, but not of the range, or not any more
		case rec.offset < next:
			return fmt.Errorf("offset %d comes behind offset %d", rec.offset, next-1)
		}
		next = rec.offset + 1
		switch {
		case b.control():
			d.tally.Control++
			return nil
		case b.aborted:
			d.tally.Aborted++
			return nil
		}
		return d.record(f, rec, emit)
	})
	if err == nil || isKind(err) || errors.Is(err, context.Canceled) {
		return err
	}
	return fmt.Errorf("%w: %s: %w", batch.ErrUnavailable, f.TopicPartition, err)
}

func isKind(err error) bool {
	return errors.Is(err, batch.ErrInvalid) || errors.Is(err, batch.ErrUnavailable) || errors.Is(err, batch.ErrDataLost) || errors.Is(err, batch.ErrFenced)
}

// record decodes one record into a row.
func (d *reader) record(f fetched, rec record, emit func(arrow.RecordBatch) error) error {
	d.tally.Data++
	d.tally.Bytes += int64(len(rec.Key) + len(rec.Value))
	if rec.Value == nil {
		switch d.r.Tombstones {
		case Reject:
			return d.bad(f, rec, &decode.Error{Reason: "the value is null (a tombstone); tombstones: keep or drop takes it", Pos: -1})
		case Drop, "":
			d.tally.Tombstones++
			return nil
		case Keep:
		}
	}
	if err := d.decoder.Append(rec.Record); err != nil {
		return d.bad(f, rec, err)
	}
	d.tally.Rows++
	d.origins.Append(f.index, rec.offset)
	if d.metadata != nil {
		d.metadata.Append(f.Topic, f.Partition, rec.offset, rec.timestamp, rec.Key, rec.Headers)
		d.bytes += len(rec.Key)
		for _, h := range rec.Headers {
			d.bytes += len(h.Key) + len(h.Value)
		}
	}
	if d.rows++; d.rows >= chunkRows || d.rows%16 == 0 && d.decoder.Bytes()+d.bytes >= chunkBytes {
		return d.flush(emit)
	}
	return nil
}

// valueShown is how much of a bad record an error shows.
const valueShown = 120

// bad counts a record that cannot be used, or ends the batch.
func (d *reader) bad(f fetched, rec record, cause error) error {
	if d.r.SkipBad {
		d.tally.Skipped++
		d.onSkip(batch.Reject{TopicPartition: f.TopicPartition, Offset: rec.offset, Reason: cause.Error()})
		return nil
	}
	shown := rec.Value[:min(len(rec.Value), valueShown)]
	return fmt.Errorf("%w: bad record at offset %d of %s: %w; value %s. Correct the columns of source %s, or set on_bad_record: skip to count such records and go on",
		batch.ErrInvalid, rec.offset, f.TopicPartition, cause, strconv.QuoteToASCII(string(shown)), d.r.Name)
}

// flush emits the rows that were decoded.
func (d *reader) flush(emit func(arrow.RecordBatch) error) error {
	if d.rows == 0 {
		return nil
	}
	columns := d.decoder.Take()
	if d.metadata != nil {
		columns = append(columns, d.metadata.Take()...)
	}
	columns = append(columns, d.origins.Take()...)
	rows := array.NewRecordBatch(d.r.schema, columns, int64(d.rows))
	for _, c := range columns {
		c.Release()
	}
	d.rows, d.bytes = 0, 0
	return emit(rows)
}
