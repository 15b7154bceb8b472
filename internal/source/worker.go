package source

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"

	"github.com/frazil-io/frazil/internal/batch"
	"github.com/frazil-io/frazil/internal/deadletter"
	"github.com/frazil-io/frazil/internal/source/decode"
)

// chunkRows is what SQL and Parquet want in one record batch; large records make
// it smaller.
const chunkRows = 64 << 10

// A worker asks the decoder how much memory its rows take after this many bytes
// or rows more.
const (
	checkBytes = 64 << 10
	checkRows  = 256
)

// chunk is what a worker hands over: rows, or dead letters.
type chunk struct {
	rows    arrow.RecordBatch
	letters bool
}

// worker decodes pieces of one source of the spec. It keeps its buffers between
// reads.
type worker struct {
	r        *relation
	unpack   *unpacker
	decoder  decode.Decoder
	unpacked decode.Unpacked // the decoder, where values are compressed
	metadata *decode.Metadata
	payload  *decode.Payload     // nil: the source has no dead letters
	letters  *deadletter.Builder // nil: the same
	origins  *decode.Origins
	headers  []decode.Header
	lacking  []string // the sinks that lack what becomes a letter; nil: all

	// Of one Read.
	onSkip     func(batch.Reject)
	chunkBytes int
	batches    int64
	seen       []int64 // offsets that were counted, by range
	tally      batch.Tally
	skipped    batch.Reject // the first one

	// Of the record batch in the making.
	rows      int
	beside    int // bytes of keys and headers, which the decoder does not count
	unchecked int // bytes since the decoder was asked
}

func newWorker(r *relation) (*worker, error) {
	decoder, err := r.Decoder()
	if err != nil {
		return nil, err
	}
	w := &worker{r: r, unpack: newUnpacker(), decoder: decoder, origins: decode.NewOrigins()}
	w.unpacked, _ = decoder.(decode.Unpacked)
	if r.Metadata {
		w.metadata = decode.NewMetadata()
	}
	if r.DeadLetters {
		w.payload, w.letters = decode.NewPayload(), deadletter.NewBuilder()
	}
	return w, nil
}

// start prepares for a Read of that many ranges.
func (w *worker) start(ranges, chunkBytes int, onSkip func(batch.Reject)) {
	w.seen, w.chunkBytes, w.onSkip = make([]int64, ranges), chunkBytes, onSkip
	w.tally, w.skipped, w.batches, w.lacking = batch.Tally{}, batch.Reject{}, 0, nil
}

// run decodes pieces until there are no more, and sends record batches.
func (w *worker) run(ctx context.Context, pieces <-chan piece, g *gate, chunks chan<- chunk) error {
	for p := range pieces {
		err := w.piece(ctx, p, chunks)
		w.r.stats.release(p.size)
		g.leave(p.held)
		if err != nil {
			return err
		}
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return w.flush(ctx, chunks)
}

func (w *worker) piece(ctx context.Context, p piece, chunks chan<- chunk) error {
	bytes := w.tally.Bytes
	for _, b := range p.batches {
		if err := w.batch(ctx, p, b, chunks); err != nil {
			return err
		}
	}
	last := p.batches[len(p.batches)-1].last
	w.r.learn(p.TopicPartition, w.tally.Bytes-bytes, min(last+1, p.End)-p.from)
	return nil
}

// batch decodes the records of one batch that are in the range. Offsets that are
// not above the ones before are an error: a record would be read twice.
func (w *worker) batch(ctx context.Context, p piece, b fetchedBatch, chunks chan<- chunk) error {
	it, err := w.walk(ctx, b.recordBatch)
	if err != nil {
		return w.unreadable(p, b, err)
	}
	defer it.close()
	next := b.base
	for it.next() {
		if it.offset < next {
			return w.unreadable(p, b, fmt.Errorf("offset %d comes behind offset %d", it.offset, next-1))
		}
		next = it.offset + 1
		if it.offset < b.from || it.offset >= p.End {
			continue // of the batch, but not of the range, or not any more
		}
		w.seen[p.index]++
		switch {
		case b.control():
			w.tally.Control++
		case b.aborted:
			w.tally.Aborted++
		default:
			if err := w.record(ctx, p, &it, chunks); err != nil {
				return err
			}
		}
	}
	w.headers = it.Headers
	w.batches++
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if it.err != nil {
		return w.unreadable(p, b, it.err)
	}
	return nil
}

// unreadable is the error for a batch whose checksum is right and whose contents
// are not: its producer wrote it so, and reading it again would not help.
func (w *worker) unreadable(p piece, b fetchedBatch, cause error) error {
	return fmt.Errorf("%w: the record batch at offset %d of %s cannot be read: %w; the program that produced it is broken", batch.ErrInvalid, b.base, p.TopicPartition, cause)
}

// record decodes one record into a row.
func (w *worker) record(ctx context.Context, p piece, it *walker, chunks chan<- chunk) error {
	w.tally.Data++
	w.tally.Bytes += int64(len(it.Key) + len(it.Value))
	if it.bytes > int64(w.r.MaxRecordBytes) {
		return w.oversize(ctx, p, it, chunks)
	}
	if it.Value == nil {
		switch w.r.Tombstones {
		case Reject:
			return w.bad(ctx, p, it, chunks, &decode.Error{Reason: "the value is null (a tombstone), and tombstones: reject is set", Pos: -1})
		case Drop, "":
			w.tally.Tombstones++
			return nil
		case Keep:
		}
	}
	if err := w.decoder.Append(it.Record); err != nil {
		return w.bad(ctx, p, it, chunks, err)
	}
	w.tally.Rows++
	w.rows++
	w.origins.Append(int32(p.index), it.offset)
	w.unchecked += len(it.Key) + len(it.Value)
	if w.unpacked != nil {
		w.unchecked += w.unpacked.Unpacked()
	}
	if w.metadata != nil {
		w.metadata.Append(p.Topic, p.Partition, it.offset, it.timestamp, it.Key, it.Headers)
		beside := len(it.Key)
		for _, h := range it.Headers {
			beside += len(h.Key) + len(h.Value)
		}
		w.beside += beside
		w.unchecked += beside
	}
	if w.payload != nil {
		w.payload.Append(it.timestamp, it.Record)
	}
	if w.full() {
		return w.flush(ctx, chunks)
	}
	return nil
}

// full says whether the record batch is large enough.
func (w *worker) full() bool {
	if w.rows >= chunkRows {
		return true
	}
	if w.unchecked < checkBytes && w.rows%checkRows != 0 {
		return false
	}
	w.unchecked = 0
	return w.bytes() >= w.chunkBytes
}

// bytes is what the rows and letters in the making take.
func (w *worker) bytes() int {
	n := w.decoder.Bytes() + w.beside
	if w.payload != nil {
		n += w.payload.Bytes() + w.letters.Bytes()
	}
	return n
}

// valueShown is how much of a bad record an error shows.
const valueShown = 120

// bad counts a record that cannot be used, makes it a dead letter, or ends the
// batch. An error that is no *decode.Error is not the record's.
func (w *worker) bad(ctx context.Context, p piece, it *walker, chunks chan<- chunk, cause error) error {
	var reason *decode.Error
	if !errors.As(cause, &reason) {
		return fmt.Errorf("decode offset %d of %s: %w", it.offset, p.TopicPartition, cause)
	}
	code := cmp.Or(reason.Code, batch.CodeDecode)
	switch {
	case w.r.DeadLetters:
		w.tally.DeadLettered++
		w.tally.Bad.Add(code)
		w.letter(p, it, code, cause.Error())
		if w.letters.Rows() >= chunkRows || w.bytes() >= w.chunkBytes {
			return w.flush(ctx, chunks)
		}
		return nil
	case w.r.SkipBad:
		reject := batch.Reject{TopicPartition: p.TopicPartition, Offset: it.offset, Code: code, Reason: cause.Error()}
		w.tally.Bad.Add(code)
		if w.tally.Skipped++; w.tally.Skipped == 1 {
			w.skipped = reject
		}
		w.onSkip(reject)
		return nil
	}
	of, bytes := "value", it.Value
	if reason.Key {
		of, bytes = "key", it.Key
	}
	todo := "correct the columns"
	if code == batch.CodeOversize {
		todo = "raise max_record_bytes"
	}
	return fmt.Errorf("%w: bad record at offset %d of %s: %w; its %s is %s; %s of source %s, or set on_bad_record: skip to count such records, or dead_letter to keep them, and go on",
		batch.ErrInvalid, it.offset, p.TopicPartition, cause, of, shown(bytes), todo, w.r.Name)
}

// shown is a bad record's value or key for an error.
func shown(data []byte) string {
	if data == nil {
		return "null"
	}
	text := strconv.QuoteToASCII(string(data[:min(len(data), valueShown)]))
	if len(data) > valueShown {
		text += " …"
	}
	return text
}

// letter makes a record a dead letter.
func (w *worker) letter(p piece, it *walker, code batch.Code, reason string) {
	l := deadletter.Letter{
		Topic: p.Topic, Partition: p.Partition, Offset: it.offset, Timestamp: deadletter.NoTimestamp, Key: it.Key, Value: it.Value,
		Source: w.r.Name, Sinks: w.lacking, Code: code, Reason: reason,
	}
	if at, ok := decode.Micros(it.timestamp); ok {
		l.Timestamp = at
	}
	for _, h := range it.Headers {
		l.Headers = append(l.Headers, deadletter.Header(h))
	}
	if it.bytes > payloadMax {
		cutLetter(&l, it.bytes)
	}
	w.letters.Add(l)
}

// flush sends the rows that were decoded, and the dead letters.
func (w *worker) flush(ctx context.Context, chunks chan<- chunk) error {
	if w.rows > 0 {
		if err := hand(ctx, chunks, chunk{rows: w.take()}); err != nil {
			return err
		}
	}
	if w.letters == nil || w.letters.Rows() == 0 {
		return nil
	}
	return hand(ctx, chunks, chunk{rows: w.letters.Take(), letters: true})
}

func hand(ctx context.Context, chunks chan<- chunk, c chunk) error {
	select {
	case chunks <- c:
		return nil
	case <-ctx.Done():
		c.rows.Release()
		return context.Cause(ctx)
	}
}

// take makes a record batch of the rows that were decoded.
func (w *worker) take() arrow.RecordBatch {
	columns := w.decoder.Take()
	if w.metadata != nil {
		columns = append(columns, w.metadata.Take()...)
	}
	if w.payload != nil {
		columns = append(columns, w.payload.Take()...)
	}
	columns = append(columns, w.origins.Take()...)
	rows := array.NewRecordBatch(w.r.schema, columns, int64(w.rows))
	for _, c := range columns {
		c.Release()
	}
	w.rows, w.beside, w.unchecked = 0, 0, 0
	return rows
}

// skipsEvery is how often skipped records are logged; the stamp has the count.
const skipsEvery = 10 * time.Second

// noteSkips logs how many records were skipped, with one example.
func (r *relation) noteSkips(n int64, first batch.Reject) {
	if n == 0 {
		return
	}
	r.mu.Lock()
	r.skips += n
	n = r.skips
	now := r.clock.Now()
	due := now.Sub(r.skipsNoted) >= skipsEvery
	if due {
		r.skips, r.skipsNoted = 0, now
	}
	r.mu.Unlock()
	if due {
		r.log.Warn("bad records were skipped", "records", n, "partition", first.String(), "offset", first.Offset, "reason", first.Reason)
	}
}
