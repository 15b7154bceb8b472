package driver_test

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"

	"github.com/frazil-io/frazil/internal/batch"
	"github.com/frazil-io/frazil/internal/driver"
	"github.com/frazil-io/frazil/internal/planner"
)

// simMark says that letters of a stream were run again up to a batch.
type simMark struct {
	stream string
	to     int64
	batch  batch.ID
}

var simMarkSchema = arrow.NewSchema([]arrow.Field{
	{Name: "stream", Type: arrow.BinaryTypes.String}, {Name: "to", Type: arrow.PrimitiveTypes.Int64}, {Name: "batch", Type: arrow.PrimitiveTypes.Int64},
}, nil)

func marksOf(rows arrow.RecordBatch) (marks []simMark) {
	for i := range int(rows.NumRows()) {
		marks = append(marks, simMark{rows.Column(0).(*array.String).Value(i), rows.Column(1).(*array.Int64).Value(i), batch.ID(rows.Column(2).(*array.Int64).Value(i))})
	}
	return marks
}

// untag is a request to remove a tag.
type untag struct {
	pipe, table, uuid int
	tag               int64
}

func (w *world) untag(u *untag) bool {
	t := w.tables[u.table]
	if t.uuid != u.uuid || t.tags[u.pipe] != u.tag {
		return false
	}
	w.note("  t%d: tag %d of pipeline %d is removed", u.table, u.tag, u.pipe)
	t.tags[u.pipe] = 0
	return true
}

// loseReplay removes what the store holds of the replay.
func (w *world) loseReplay() {
	w.losses++
	maps.DeleteFunc(w.store, func(key string, _ []byte) bool { return strings.HasPrefix(key, simPipelines[simReplays]+"/") })
	w.note("the checkpoint of the replay is lost")
}

func (p *proc) name() string { return strings.TrimSuffix(simPipelines[p.pipe], "."+batch.StreamReplay) }

func (p *proc) stream() string {
	if p.pipe == simReplays {
		return batch.StreamReplay
	}
	return batch.StreamMain
}

// alone says whether nobody else works for the stream of a process, and never did.
func (w *world) alone(p *proc) bool {
	c := w.cfg
	if p.pipe == simReplays || c.replays == 0 || c.loss || c.rewind || c.delays > 0 {
		return false
	}
	return c.drivers == 1 && len(w.procs) <= c.daemons()
}

// replays makes the rooms of a process those that run letters again.
func (p *proc) replays(rooms *driver.Rooms, opts *driver.Options) {
	r := &simReplay{simExecutor: p.exec, p: p}
	rooms.Source, rooms.Executor, rooms.Replay, rooms.Readers = r, r, r, nil
	opts.Trigger, opts.MaxFraction, opts.Limits = driver.Trigger{AvailableNow: true}, 1, planner.Limits{BytesMax: 2}
	opts.Sources = planner.Sources{"letters": {Topics: []string{batch.StreamMain, batch.StreamReplay}}}
	p.reader = 0
}

// made is an execution: its batch, and the sinks whose letters it makes.
type made struct {
	batch batch.ID
	lacks string
}

// simLetter is one letter in the table: a record, and the sinks that lack it.
type simLetter struct {
	stream string
	batch  batch.ID
	record int64
	source bool   // the source rejected it
	sinks  string // with a blank between them
}

func (l simLetter) lacks(sink int) bool { return strings.Contains(l.sinks, sinkName(sink)) }

// Letters of the source, where not all sinks lack the record: that of one of them,
// from here on, or of none.
const (
	simLone = 5
	simNone = simLone + simSinks
)

// sourceLetter is the letter of a record that the source rejects.
func sourceLetter(record int64, lacking []string) int64 {
	switch len(lacking) {
	case 0:
		return record*simLetters + simNone
	case 1:
		return record*simLetters + simLone + int64(sinkIndex(lacking[0]))
	}
	return record * simLetters
}

// simReplay is the letters as a source, and the executor around them.
type simReplay struct {
	*simExecutor
	p   *proc
	job []simLetter
	of  []string // the sinks whose letters the job makes
}

func streamTP(stream string) batch.TopicPartition {
	return batch.TopicPartition{Source: "letters", Topic: stream}
}

// letters are those in the dead letters' table now, and its marks.
func (w *world) letters() (all []simLetter, marks []simMark) {
	for _, name := range w.headFiles(w.letterTable()) {
		f := w.files[name]
		marks = append(marks, f.marks...)
		for i, row := range f.rows {
			pipe := row / simOther
			if row < 0 || pipe == 1 {
				continue
			}
			code := int(row % simLetters)
			l := simLetter{stream: batch.StreamMain, batch: f.batches[i], record: row % simOther / simLetters, source: code == 0 || code >= simLone}
			switch {
			case code == 0:
				l.sinks = f.lacks[i]
			case code >= simLone && code < simNone:
				l.sinks = sinkName(code - simLone)
			case code < simLone:
				l.sinks = sinkName(code - 1)
			}
			if pipe == int64(simReplays) {
				l.stream = batch.StreamReplay
			}
			all = append(all, l)
		}
	}
	return all, marks
}

func (w *world) done() (upto map[string]int64, next batch.ID) {
	all, marks := w.letters()
	upto = map[string]int64{batch.StreamMain: 0, batch.StreamReplay: 0}
	for _, m := range marks {
		upto[m.stream] = max(upto[m.stream], m.to)
		next = max(next, m.batch+1)
	}
	for _, l := range all {
		if l.stream == batch.StreamReplay {
			next = max(next, l.batch+1)
		}
	}
	return upto, max(next, batch.ID(upto[batch.StreamReplay]))
}

func (r *simReplay) Done(context.Context) (batch.Offsets, batch.ID, string, error) {
	r.p.io("read the marks")
	st := r.p.w.tables[r.p.w.letterTable()].stamp(0)
	if st == nil {
		return nil, 0, "", fmt.Errorf("no stamp: %w", batch.ErrInvalid)
	}
	upto, next := r.p.w.done()
	offsets := batch.Offsets{}
	for stream, at := range upto {
		offsets[streamTP(stream)] = at
	}
	return offsets, next, st.UUID, r.p.flaky("read the marks")
}

func (r *simReplay) Start(ctx context.Context, _ batch.Offsets) (batch.Offsets, error) {
	upto, _, _, err := r.Done(ctx)
	return upto, err
}

func (r *simReplay) List(_ context.Context, since []batch.Range) ([]batch.Available, error) {
	r.p.io("list letters")
	st := r.p.w.tables[r.p.w.letterTable()].stamp(0)
	if st == nil {
		return nil, fmt.Errorf("no stamp: %w", batch.ErrInvalid)
	}
	_, next := r.p.w.done()
	all := []batch.Available{
		{TopicPartition: streamTP(batch.StreamMain), End: int64(st.Last) + 1, Epoch: -1}, {TopicPartition: streamTP(batch.StreamReplay), End: int64(next), Epoch: -1},
	}
	for _, s := range since {
		for _, a := range all {
			if s.TopicPartition == a.TopicPartition && s.End > a.End {
				return nil, fmt.Errorf("letters of stream %s end at %d, before %d: %w", a.Topic, a.End, s.End, batch.ErrDataLost)
			}
		}
	}
	return all, r.p.flaky("list letters")
}

func (r *simReplay) Ahead(ctx context.Context, from batch.Offsets, available []batch.Available, bytesMax int64) ([]batch.Available, error) {
	return simSource{r.p}.Ahead(ctx, from, available, bytesMax)
}

func (r *simReplay) Publish(batch.Offsets) {}

// within are the letters of some ranges.
func (w *world) within(ranges []batch.Range) (found []simLetter) {
	all, _ := w.letters()
	for _, l := range all {
		for _, rg := range ranges {
			if rg.Topic == l.stream && int64(l.batch) >= rg.Start && int64(l.batch) < rg.End {
				found = append(found, l)
			}
		}
	}
	slices.SortFunc(found, func(a, b simLetter) int { return strings.Compare(fmt.Sprint(a), fmt.Sprint(b)) })
	return found
}

func (r *simReplay) Seal(_ context.Context, ranges []batch.Range) error {
	r.p.io("seal")
	for i := range ranges {
		found := r.p.w.within(ranges[i : i+1])
		ranges[i].Records, ranges[i].Digest = int64(len(found)), fmt.Sprint("digest", found)
	}
	return r.p.flaky("seal")
}

// find is where a record is.
func (w *world) find(id int64) (tp batch.TopicPartition, offset int64) {
	for topic, parts := range w.parts {
		for n, part := range parts {
			for o, rec := range part.records {
				if rec.id == id {
					return batch.TopicPartition{Source: simRelation, Topic: simTopic, TopicID: topic, Partition: n}, int64(o)
				}
			}
		}
	}
	panic(fmt.Sprintf("there is no record %d", id))
}

func (r *simReplay) Execute(ctx context.Context, job batch.Job, read func(emit, letters func(arrow.RecordBatch) error) error,
	write func(string, arrow.RecordBatch) error,
) (map[string]batch.Result, error) {
	w := r.p.w
	r.p.io("look for letters")
	plan := job.Plan
	r.job, r.of, job.Ranges, job.Targets = w.within(job.Ranges), job.Letters.Sinks, nil, [][]string{}
	for _, l := range r.job {
		tp, _ := w.find(l.record)
		var sinks []string
		for i := range w.sinks() {
			if l.lacks(i) {
				sinks = append(sinks, sinkName(i))
			}
		}
		job.Ranges, job.Targets = append(job.Ranges, batch.Range{TopicPartition: tp}), append(job.Targets, sinks)
	}
	results, err := r.simExecutor.Execute(ctx, job, read, write)
	name := sinkName(w.letterSink())
	if err != nil || !slices.Contains(job.Sinks, name) {
		return results, err
	}
	b := array.NewRecordBuilder(memory.DefaultAllocator, simMarkSchema)
	for _, rg := range plan.Ranges {
		if rg.Start < rg.End {
			b.Field(0).(*array.StringBuilder).Append(rg.Topic)
			b.Field(1).(*array.Int64Builder).Append(rg.End)
			b.Field(2).(*array.Int64Builder).Append(int64(plan.Batch))
		}
	}
	marks := b.NewRecordBatch()
	res := results[name]
	res.Marks = marks.NumRows()
	results[name] = res
	return results, write(name, marks)
}

func (r *simReplay) Read(_ context.Context, ranges []batch.Range, emit, letters func(arrow.RecordBatch) error) (batch.Tally, error) {
	w := r.p.w
	var t batch.Tally
	for _, rg := range ranges {
		r.p.io("read letters %s", rg)
		if got := fmt.Sprint("digest", w.within([]batch.Range{rg})); got != rg.Digest {
			return t, fmt.Errorf("letters of stream %s: %s became %s: %w", rg.Topic, rg.Digest, got, batch.ErrDataLost)
		}
	}
	for i, l := range r.job {
		_, offset := w.find(l.record)
		t.Data++
		t.Offsets++
		if l.source && !r.p.mended {
			t.DeadLettered++
			t.Bad.Add(batch.CodeDecode)
			bad := array.NewRecordBuilder(memory.DefaultAllocator, arrow.NewSchema(simSchema.Fields()[:1], nil))
			lacking := slices.DeleteFunc(strings.Fields(l.sinks), func(s string) bool { return !slices.Contains(r.of, s) })
			bad.Field(0).(*array.Int64Builder).Append(sourceLetter(l.record, lacking))
			if err := letters(bad.NewRecordBatch()); err != nil {
				return t, err
			}
			continue
		}
		t.Rows++
		b := array.NewRecordBuilder(memory.DefaultAllocator, simSchema)
		b.Field(0).(*array.Int64Builder).Append(l.record)
		b.Field(1).(*array.Int32Builder).Append(int32(i))
		b.Field(2).(*array.Int64Builder).Append(offset)
		if err := emit(b.NewRecordBatch()); err != nil {
			return t, err
		}
	}
	return t, r.p.flaky("the end of a read")
}

// rowsOf counts a record's rows of a pipeline in a sink's tables.
func (w *world) rowsOf(pipe, sink int) map[int64]int {
	n := map[int64]int{}
	for ti := range w.tables {
		if w.sinkIndexOf(ti) != sink {
			continue
		}
		for _, name := range w.headFiles(ti) {
			for _, row := range w.files[name].rows {
				if row > 0 && row/simOther == int64(pipe) {
					n[row%simOther]++
				}
			}
		}
	}
	return n
}

// checkReplayed: no letter is taken twice.
func (w *world) checkReplayed(ti int) {
	if w.isLetters(ti) || w.tables[ti].taken[simReplays] {
		return
	}
	for record, n := range w.rowsOf(simReplays, w.sinkIndexOf(ti)) {
		if n > 1 {
			w.fail("replayed twice", "t%d has record %d %d times out of letters", ti, record, n)
		}
	}
}

// checkAllReplayed: each letter is taken by the sinks that lack it, or waits.
func (w *world) checkAllReplayed() {
	if !w.allTruly() {
		return
	}
	all, _ := w.letters()
	upto, _ := w.done()
	type whose struct {
		record int64
		sink   int
	}
	letters, waits := map[whose]bool{}, map[whose]bool{}
	for _, l := range all {
		for i := range w.sinks() {
			if !l.lacks(i) {
				continue
			}
			who := whose{l.record, i}
			if l.stream == batch.StreamMain {
				letters[who] = true
			}
			if int64(l.batch) >= upto[l.stream] {
				if waits[who] {
					w.fail("waits twice", "record %d of sink %d has two letters that wait", l.record, i)
				}
				waits[who] = true
			}
		}
	}
	for i := range w.sinks() {
		if w.tables[i].taken[simReplays] || w.out[i] || w.drops > 0 {
			continue
		}
		rows := w.rowsOf(simReplays, i)
		for record := range rows {
			if !letters[whose{record, i}] {
				w.fail("no letter", "t%d has record %d, run again without a letter", i, record)
			}
		}
		for who := range letters {
			if who.sink != i {
				continue
			}
			tp, offset := w.find(who.record)
			rec := w.part(tp).records[offset]
			want := rec.to[i]
			switch n := rows[who.record]; {
			case waits[who] && n > 0:
				w.fail("taken and waiting", "record %d of sink %d waits, and is in the table", who.record, i)
			case w.losses > 0 && !w.cfg.forgets: // the spec may have changed while a table lagged
			case !waits[who] && n == 0 && want && !rec.narrow:
				w.fail("letter forgotten", "record %d of sink %d was run again, waits no more, and is not in its table", who.record, i)
			}
		}
	}
}
