package pipeline

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"

	"github.com/frazil-io/frazil/internal/batch"
	"github.com/frazil-io/frazil/internal/config"
	"github.com/frazil-io/frazil/internal/deadletter"
	"github.com/frazil-io/frazil/internal/query"
	"github.com/frazil-io/frazil/internal/source"
	"github.com/frazil-io/frazil/internal/source/decode"
)

// waiting are the letters in a table, as a source: driver.Source, driver.Replay. It
// has two partitions: the letters of the main stream, and those that were rejected
// again. Their offsets are the numbers of the batches that rejected them. The table
// is only added to, and a stream's stamp says up to which batch it is complete: so
// the letters of some batches are the same whenever they are read.
type waiting struct {
	p    *Pipeline
	name string // of the pipeline
	most int64  // bytes of letters that are in memory at once, beside DuckDB's

	mu     sync.Mutex // of the engine, which one goroutine at a time may use
	engine *query.Engine
	sizes  map[string][]batch.Mark // by stream, how many bytes the letters of each batch have
	upto   map[string]int64        // of sizes

	groups []letterGroup // of the job that is executed now
}

// letterGroup are letters of one source that the same sinks lack.
type letterGroup struct {
	source  string
	sinks   []string
	missing string // what the spec has no more, "" for nothing
	// first is the place in the job's ranges of the first of places.
	first  int
	places []batch.TopicPartition
	// lacking are those of the sinks whose letters the job makes.
	lacking []string
}

func (p *Pipeline) newWaiting() *waiting {
	w := &waiting{p: p, name: p.spec.Name, most: int64(p.spec.Memory) / shareOfTables, sizes: map[string][]batch.Mark{}, upto: map[string]int64{}}
	p.closers = append(p.closers, func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		if w.engine != nil {
			w.engine.Close()
		}
	})
	return w
}

// streamPartition is the partition of a stream's letters.
func streamPartition(stream string) batch.TopicPartition {
	return batch.TopicPartition{Source: config.DeadLetters, Topic: stream}
}

func sqlText(s string) string { return "'" + strings.ReplaceAll(s, "'", "''") + "'" }

// query runs SQL over the table of the dead letters, called letters.
func (w *waiting) query(ctx context.Context, sql string, rows func(arrow.RecordBatch) error) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.engine == nil {
		i := w.p.spec.Sinks.By[config.DeadLetters].Iceberg
		c, err := w.p.Catalog(ctx, i.Catalog)
		if err != nil {
			return err
		}
		w.engine, err = query.Open(ctx, []query.Table{{Alias: "letters", Ident: strings.Split(i.Table, "."), Branch: i.Branch, Catalog: c}}, query.Options{
			Cache: filepath.Join(os.TempDir(), "frazil-letters-"+w.name), MemoryBytes: int64(w.p.spec.Memory) / shareOfSource, Threads: 1, Log: w.p.log,
		})
		if err != nil {
			return err
		}
	}
	err := w.engine.Query(ctx, sql, func(*arrow.Schema) error { return nil }, rows)
	if err != nil && strings.Contains(err.Error(), "Out of Memory Error") {
		return fmt.Errorf("%w: the dead letters cannot be read within a quarter of the spec's memory, which is %d MiB: their files hold large records side by side. Raise memory for the replay", batch.ErrInvalid, int64(w.p.spec.Memory)>>20)
	}
	return err
}

// ours is the condition on letters of this pipeline.
func (w *waiting) ours() string { return "pipeline = " + sqlText(w.name) }

// Done implements driver.Replay.
func (w *waiting) Done(ctx context.Context) (upto batch.Offsets, next batch.ID, uuid string, err error) {
	stamp, err := w.stamp(ctx)
	if err != nil {
		return nil, 0, "", err
	}
	upto, next, err = w.marked(ctx)
	return upto, next, stamp.UUID, err
}

// marked is up to where letters were run again, and the number of the next batch.
func (w *waiting) marked(ctx context.Context) (upto batch.Offsets, next batch.ID, err error) {
	upto = batch.Offsets{}
	err = w.query(ctx, fmt.Sprintf(`SELECT coalesce(max(replayed_to) FILTER (replayed_stream = %[1]s), 0), coalesce(max(replayed_to) FILTER (replayed_stream = %[2]s), 0), coalesce(max(batch) FILTER (stream = %[2]s), -1)
FROM letters WHERE %[3]s AND stream = %[2]s`, sqlText(batch.StreamMain), sqlText(batch.StreamReplay), w.ours()), func(rows arrow.RecordBatch) error {
		value := func(i int) int64 { return rows.Column(i).(*array.Int64).Value(0) }
		upto[streamPartition(batch.StreamMain)], upto[streamPartition(batch.StreamReplay)] = value(0), value(1)
		next = batch.ID(max(value(1), value(2)+1))
		return nil
	})
	return upto, next, err
}

// stamp is that of the main stream in the table of the dead letters.
func (w *waiting) stamp(ctx context.Context) (*batch.Stamp, error) {
	t, err := w.p.loadTable(ctx, config.DeadLetters)
	if err != nil {
		return nil, err
	}
	if t != nil {
		if s := t.Metadata().SnapshotByName(batch.Tag(w.name, batch.StreamMain)); s != nil && s.Summary != nil {
			if st, err := batch.ParseStamp(s.Summary.Properties); err != nil || st != nil {
				return st, err
			}
		}
	}
	return nil, fmt.Errorf("%w: the table of the dead letters carries no stamp of pipeline %s: the pipeline has not run yet with these letters", batch.ErrInvalid, w.name)
}

// Start implements driver.Source.
func (w *waiting) Start(ctx context.Context, _ batch.Offsets) (batch.Offsets, error) {
	upto, _, _, err := w.Done(ctx)
	return upto, err
}

// List implements driver.Source: what is complete can be read.
func (w *waiting) List(ctx context.Context, since []batch.Range) ([]batch.Available, error) {
	stamp, err := w.stamp(ctx)
	if err != nil {
		return nil, err
	}
	_, next, _, err := w.Done(ctx)
	if err != nil {
		return nil, err
	}
	all := []batch.Available{
		{TopicPartition: streamPartition(batch.StreamMain), End: int64(stamp.Last) + 1, Epoch: -1},
		{TopicPartition: streamPartition(batch.StreamReplay), End: int64(next), Epoch: -1},
	}
	for _, r := range since {
		for _, a := range all {
			if r.TopicPartition == a.TopicPartition && r.End > a.End {
				return nil, fmt.Errorf("%w: letters of stream %s were run again up to batch %d, and the table of the dead letters has none behind batch %d any more: it was rolled back, or the pipeline was rewound. "+
					"Roll it forward again", batch.ErrDataLost, a.Topic, r.End-1, a.End-1)
			}
		}
	}
	return all, nil
}

// Ahead implements driver.Source: it tells the exact sizes.
func (w *waiting) Ahead(ctx context.Context, from batch.Offsets, available []batch.Available, _ int64) ([]batch.Available, error) {
	available = slices.Clone(available)
	for i := range available {
		a := &available[i]
		if err := w.measure(ctx, a.Topic, from[a.TopicPartition], a.End); err != nil {
			return nil, err
		}
		a.Sizes = &batch.Sizes{From: max(a.Start, from[a.TopicPartition])}
		var sum int64
		for _, m := range w.sizes[a.Topic] {
			if m.Next > a.Sizes.From && m.Next <= a.End {
				sum += m.Bytes
				a.Sizes.Marks = append(a.Sizes.Marks, batch.Mark{Next: m.Next, Bytes: sum})
			}
		}
		if n := len(a.Sizes.Marks); a.Sizes.From < a.End && (n == 0 || a.Sizes.Marks[n-1].Next < a.End) {
			a.Sizes.Marks = append(a.Sizes.Marks, batch.Mark{Next: a.End, Bytes: sum})
		}
	}
	return available, nil
}

// letterBytes is what a letter takes beside its payload.
const letterBytes = 128

// measure finds out how large the letters of a stream's batches are, up to a batch.
func (w *waiting) measure(ctx context.Context, stream string, from, to int64) error {
	from = max(from, w.upto[stream])
	if from >= to {
		return nil
	}
	err := w.query(ctx, fmt.Sprintf(`SELECT batch, (sum(coalesce(octet_length(value), 0) + coalesce(octet_length(key), 0) + %d))::BIGINT FROM letters
WHERE %s AND %s GROUP BY batch ORDER BY batch`, letterBytes, w.ours(), ofBatches(stream, from, to)), func(rows arrow.RecordBatch) error {
		for i := range int(rows.NumRows()) {
			w.sizes[stream] = append(w.sizes[stream], batch.Mark{Next: rows.Column(0).(*array.Int64).Value(i) + 1, Bytes: rows.Column(1).(*array.Int64).Value(i)})
		}
		return nil
	})
	if err == nil {
		w.upto[stream] = to
	}
	return err
}

// ofBatches is the condition on letters of some batches of a stream.
func ofBatches(stream string, from, to int64) string {
	return fmt.Sprintf("code <> %s AND stream = %s AND batch >= %d AND batch < %d", sqlText(deadletter.CodeReplayed), sqlText(stream), from, to)
}

// ofRanges is the condition on letters of some ranges.
func (w *waiting) ofRanges(ranges []batch.Range) string {
	either := []string{"false"}
	for _, r := range ranges {
		if r.Start < r.End {
			either = append(either, "("+ofBatches(r.Topic, r.Start, r.End)+")")
		}
	}
	return w.ours() + " AND (" + strings.Join(either, " OR ") + ")"
}

// identity is SQL that tells a letter from others, as text.
const identity = `concat_ws('|', stream, batch, topic, partition, "offset", source, coalesce(sink, ''), array_to_string(sinks, ','))`

// digest is of letters in any order.
type digest struct {
	n   int64
	sum uint64
}

func (d *digest) add(identity string) {
	h := sha256.Sum256([]byte(identity))
	d.n++
	d.sum += binary.BigEndian.Uint64(h[:])
}

func (d *digest) text() string {
	var b [8]byte
	binary.BigEndian.PutUint64(b[:], d.sum)
	return hex.EncodeToString(b[:])
}

// Seal implements driver.Replay.
func (w *waiting) Seal(ctx context.Context, ranges []batch.Range) error {
	for i := range ranges {
		var d digest
		err := w.query(ctx, "SELECT "+identity+" FROM letters WHERE "+w.ofRanges(ranges[i:i+1]), func(rows arrow.RecordBatch) error {
			for k := range int(rows.NumRows()) {
				d.add(rows.Column(0).(*array.String).Value(k))
			}
			return nil
		})
		if err != nil {
			return err
		}
		ranges[i].Records, ranges[i].Digest = d.n, d.text()
	}
	return nil
}

// Publish implements driver.Source.
func (*waiting) Publish(batch.Offsets) {}

// groupsOf finds out whose letters some ranges have, and where their records were.
func (w *waiting) groupsOf(ctx context.Context, ranges []batch.Range, letters []string) (groups []letterGroup, err error) {
	places := 0
	err = w.query(ctx, `SELECT DISTINCT source, sinks, topic, partition FROM letters WHERE `+w.ofRanges(ranges)+` ORDER BY ALL`, func(rows arrow.RecordBatch) error {
		for i := range int(rows.NumRows()) {
			at := batch.TopicPartition{
				Source: strings.Clone(rows.Column(0).(*array.String).Value(i)), Topic: strings.Clone(rows.Column(2).(*array.String).Value(i)), Partition: rows.Column(3).(*array.Int32).Value(i),
			}
			sinks := textsOf(rows.Column(1).(*array.List), i)
			if n := len(groups); n == 0 || groups[n-1].source != at.Source || !slices.Equal(groups[n-1].sinks, sinks) {
				groups = append(groups, w.group(at.Source, sinks, places, letters))
			}
			g := &groups[len(groups)-1]
			g.places = append(g.places, at)
			places++
		}
		return nil
	})
	return groups, err
}

func (w *waiting) group(from string, sinks []string, first int, letters []string) letterGroup {
	g := letterGroup{source: from, sinks: sinks, first: first, lacking: []string{}}
	if _, ok := w.p.spec.Sources.By[from]; !ok {
		g.missing = "source " + from
	}
	for _, s := range sinks {
		if !slices.Contains(w.p.spec.Queries(), s) {
			g.missing = "sink " + s
		}
		if slices.Contains(letters, s) {
			g.lacking = append(g.lacking, s)
		}
	}
	return g
}

func textsOf(list *array.List, i int) (texts []string) {
	values := list.ListValues().(*array.String)
	for from, to := list.ValueOffsets(i); from < to; from++ {
		texts = append(texts, strings.Clone(values.Value(int(from))))
	}
	return texts
}

// job makes a job one for the letters in its ranges.
func (w *waiting) job(ctx context.Context, job batch.Job) (batch.Job, error) {
	groups, err := w.groupsOf(ctx, job.Ranges, job.Letters.Sinks)
	if err != nil {
		return job, err
	}
	job.Ranges, job.Targets = nil, [][]string{}
	for _, g := range groups {
		for _, at := range g.places {
			job.Ranges, job.Targets = append(job.Ranges, batch.Range{TopicPartition: at}), append(job.Targets, g.sinks)
		}
	}
	w.groups = groups
	return job, nil
}

// Read implements driver.Source.
func (w *waiting) Read(ctx context.Context, ranges []batch.Range, emit, letters func(arrow.RecordBatch) error) (total batch.Tally, err error) {
	var at []batch.Range
	for _, g := range w.groups {
		for _, tp := range g.places {
			at = append(at, batch.Range{TopicPartition: tp})
		}
	}
	found := map[string]*digest{}
	for _, r := range ranges {
		found[r.Topic] = &digest{}
	}
	for _, g := range w.groups {
		tally, err := w.read(ctx, g, at, ranges, found, emit, letters)
		if err != nil {
			return total, err
		}
		total = total.Plus(tally)
	}
	for _, r := range ranges {
		if d := found[r.Topic]; d.n != r.Records || d.text() != r.Digest {
			return total, fmt.Errorf("%w: the table of the dead letters has %d letters of stream %s, batches %d to %d, and the batch was planned with %d: letters were deleted, or the table was rolled back. "+
				"Bring them back; or remove the checkpoint of the replay, %s, and start it again: it goes on from the tables with what is there", batch.ErrDataLost, d.n, r.Topic, r.Start, r.End-1, r.Records, w.p.checkpointName(batch.StreamReplay))
		}
	}
	return total, nil
}

// read reads the letters of one group.
func (w *waiting) read(ctx context.Context, g letterGroup, at, ranges []batch.Range, found map[string]*digest, emit, letters func(arrow.RecordBatch) error) (batch.Tally, error) {
	rangeOf := map[batch.TopicPartition]int{}
	for i, tp := range g.places {
		rangeOf[tp] = g.first + i
	}
	feed := func(add func(source.Stored, batch.TopicPartition) error) error {
		slices, err := w.slices(ctx, g, ranges)
		if err != nil {
			return err
		}
		for _, slice := range slices {
			err := w.query(ctx, w.lettersOf(g, ranges)+slice, func(rows arrow.RecordBatch) error {
				for i := range int(rows.NumRows()) {
					one, tp, stream, id := storedOf(rows, i)
					tp.Source = g.source
					one.Range = rangeOf[tp]
					found[stream].add(id)
					if err := add(one, tp); err != nil {
						return err
					}
				}
				return nil
			})
			if err != nil {
				return err
			}
		}
		return nil
	}
	if g.missing != "" {
		return w.refuse(g, feed, letters)
	}
	return w.p.sourceNow().Decode(ctx, g.source, at, g.lacking, func(add func(source.Stored) error) error {
		return feed(func(one source.Stored, _ batch.TopicPartition) error { return add(one) })
	}, emit, letters)
}

// lettersOf is SQL for the letters of a group in some ranges; more conditions may
// follow.
func (w *waiting) lettersOf(g letterGroup, ranges []batch.Range) string {
	return `SELECT topic, partition, "offset", epoch_us(timestamp) AS at, key, value, headers, stream, ` + identity + ` AS id FROM letters WHERE ` + w.ofGroup(g, ranges)
}

// ofGroup is the condition on the letters of a group in some ranges.
func (w *waiting) ofGroup(g letterGroup, ranges []batch.Range) string {
	var sinks []string
	for _, s := range g.sinks {
		sinks = append(sinks, sqlText(s))
	}
	return w.ofRanges(ranges) + " AND source = " + sqlText(g.source) + " AND sinks = [" + strings.Join(sinks, ", ") + "]::VARCHAR[]"
}

// storedOf is a letter as a record again. Its slices are those of rows.
func storedOf(rows arrow.RecordBatch, i int) (one source.Stored, tp batch.TopicPartition, stream, id string) {
	text := func(c int) string { return rows.Column(c).(*array.String).Value(i) }
	tp = batch.TopicPartition{Topic: strings.Clone(text(0)), Partition: rows.Column(1).(*array.Int32).Value(i)}
	one = source.Stored{Offset: rows.Column(2).(*array.Int64).Value(i), Timestamp: -1}
	if at := rows.Column(3).(*array.Int64); at.IsValid(i) {
		one.Timestamp = at.Value(i) / 1000
	}
	one.Key, one.Value = valueOf(rows.Column(4).(*array.Binary), i), valueOf(rows.Column(5).(*array.Binary), i)
	for _, h := range headersOf(rows.Column(6).(*array.List), i) {
		one.Headers = append(one.Headers, decode.Header(h))
	}
	return one, tp, text(7), text(8)
}

// refuse makes letters again of those that name what the spec does not have.
func (w *waiting) refuse(g letterGroup, feed func(add func(source.Stored, batch.TopicPartition) error) error, letters func(arrow.RecordBatch) error) (t batch.Tally, err error) {
	b := deadletter.NewBuilder()
	defer b.Release()
	flush := func() error {
		rows := b.Take()
		defer rows.Release()
		return letters(rows)
	}
	err = feed(func(one source.Stored, tp batch.TopicPartition) error {
		t.Offsets++
		t.Data++
		t.DeadLettered++
		t.Bad.Add(batch.CodeSchema)
		t.Bytes += int64(len(one.Key) + len(one.Value))
		l := deadletter.Letter{
			Topic: tp.Topic, Partition: tp.Partition, Offset: one.Offset, Timestamp: deadletter.NoTimestamp, Key: one.Key, Value: one.Value, Source: g.source, Sinks: g.lacking,
			Code: batch.CodeSchema, Reason: "the spec has no " + g.missing + ", which this letter is for: put it back into the spec and run the letter again, or delete it",
		}
		if at, ok := decode.Micros(one.Timestamp); ok {
			l.Timestamp = at
		}
		for _, h := range one.Headers {
			l.Headers = append(l.Headers, deadletter.Header(h))
		}
		if b.Add(l); b.Bytes() < unsealedBytes {
			return nil
		}
		return flush()
	})
	if err == nil && b.Rows() > 0 {
		err = flush()
	}
	return t, err
}
