package driver_test

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"

	"github.com/frazil-io/frazil/internal/batch"
	"github.com/frazil-io/frazil/internal/driver"
)

// flaky says whether a call that changes nothing gets no answer.
func (p *proc) flaky(what string) error {
	if p.w.failing[what] > 0 && !p.w.quiet {
		p.w.failing[what]--
		return fmt.Errorf("%s: %w", what, batch.ErrUnavailable)
	}
	if p.w.pick(40, 1) == 1 {
		p.w.note("  %s: no answer", what)
		return fmt.Errorf("%s: %w", what, batch.ErrUnavailable)
	}
	return nil
}

// simSource is driver.Source.
type simSource struct{ p *proc }

// asked is batch.ErrInvalid where the topic is gone and whoever asks has not begun
// to read it: it is a mistake in the spec then.
func (s simSource) asked(begun bool) error {
	if s.p.w.deleted && !begun {
		return fmt.Errorf("topic %s does not exist: %w", simTopic, batch.ErrInvalid)
	}
	return nil
}

func (s simSource) Start(_ context.Context, known batch.Offsets) (batch.Offsets, error) {
	s.p.io("resolve start")
	if err := s.asked(len(known) > 0 || known != nil && s.p.w.onLoss); err != nil {
		return nil, err
	}
	starts := batch.Offsets{}
	for _, a := range s.p.w.available() {
		starts[a.TopicPartition] = a.Start
		if s.p.w.latest {
			starts[a.TopicPartition] = a.End
		}
	}
	return starts, s.p.flaky("resolve start")
}

// staleFor is how old a listing's answer can be; two listings further apart
// cannot both be stale.
const staleFor = 5e9

func (s simSource) List(_ context.Context, since []batch.Range) ([]batch.Available, error) {
	s.p.io("list offsets")
	w := s.p.w
	if err := s.asked(len(since) > 0 || since != nil && w.onLoss); err != nil {
		return nil, err
	}
	if err := s.p.flaky("list offsets"); err != nil {
		return nil, err
	}
	if answer := w.stale; answer != nil {
		w.stale = nil
		return answer, nil
	}
	stale := 0
	if w.cfg.stale && w.listed != nil && w.now.Sub(w.listedAt) < staleFor {
		stale = 3
	}
	switch w.pick(20, stale, stale/3) {
	case 1:
		w.note("  a stale listing")
		return w.listed, nil
	case 2:
		w.note("  a listing without a partition")
		return w.available()[min(1, len(w.available())):], nil
	}
	now := w.available()
	if w.listed == nil || w.now.Sub(w.listedAt) >= staleFor {
		w.listed, w.listedAt = now, w.now
	}
	return now, nil
}

var simSchema = arrow.NewSchema([]arrow.Field{
	{Name: "id", Type: arrow.PrimitiveTypes.Int64},
	{Name: batch.RangeColumn, Type: arrow.PrimitiveTypes.Int32},
	{Name: batch.OffsetColumn, Type: arrow.PrimitiveTypes.Int64},
}, nil)

// simRowSchema is what the SQL gives: a record, and the table for it where its
// sink feeds many.
var simRowSchema = arrow.NewSchema([]arrow.Field{
	{Name: "id", Type: arrow.PrimitiveTypes.Int64},
	{Name: "table", Type: arrow.PrimitiveTypes.Int64},
}, nil)

func (s simSource) Read(ctx context.Context, ranges []batch.Range, emit, letters func(arrow.RecordBatch) error) (batch.Tally, error) {
	var t batch.Tally
	s.p.reading++
	defer func() { s.p.reading-- }()
	for i, r := range ranges {
		s.p.io("read %s", r)
		if err := context.Cause(ctx); err != nil {
			return t, err
		}
		t.Offsets += r.Len()
		t.Lost += r.Lost
		b := array.NewRecordBuilder(memory.DefaultAllocator, simSchema)
		bad := array.NewRecordBuilder(memory.DefaultAllocator, arrow.NewSchema(simSchema.Fields()[:1], nil))
		for o := r.First(); o < r.End; o++ {
			part := s.p.w.part(r.TopicPartition)
			if r.TopicID != s.p.w.topic() || s.p.w.deleted || o < part.start {
				return t, fmt.Errorf("offset %d of %s: %w", o, r.TopicPartition, batch.ErrDataLost)
			}
			if s.p.w.vanished {
				return t, fmt.Errorf("offset %d of %s vanished: %w", o, r.TopicPartition, batch.ErrDataLost)
			}
			rec := part.records[o]
			if rec.hole {
				t.Control++
				continue
			}
			if rec.schema > s.p.reader {
				return t, fmt.Errorf("offset %d of %s: %w", o, r.TopicPartition, batch.ErrOutdated)
			}
			t.Data++
			if rec.bad {
				t.DeadLettered++
				t.Bad.Add(batch.CodeDecode)
				bad.Field(0).(*array.Int64Builder).AppendValues([]int64{rec.id * simLetters}, nil)
				continue
			}
			t.Rows++
			b.Field(0).(*array.Int64Builder).Append(rec.id)
			b.Field(1).(*array.Int32Builder).Append(int32(i))
			b.Field(2).(*array.Int64Builder).Append(o)
		}
		if rows := b.NewRecordBatch(); rows.NumRows() > 0 {
			if err := emit(rows); err != nil {
				return t, err
			}
		}
		if rows := bad.NewRecordBatch(); rows.NumRows() > 0 {
			if err := letters(rows); err != nil {
				return t, err
			}
		}
	}
	return t, s.p.flaky("the end of a read")
}

// Ahead measures some of what is there: every record is one byte.
func (s simSource) Ahead(_ context.Context, from batch.Offsets, available []batch.Available, bytesMax int64) ([]batch.Available, error) {
	available = slices.Clone(available)
	for i, a := range available {
		start := max(a.Start, from[a.TopicPartition])
		sizes := &batch.Sizes{From: start}
		for n := int64(1); start+n <= a.End && n <= bytesMax; n++ {
			sizes.Marks = append(sizes.Marks, batch.Mark{Next: start + n, Bytes: n})
		}
		available[i].Sizes = sizes
	}
	return available, nil
}

func (s simSource) Publish(batch.Offsets) {}

// simReaders is driver.Readers.
type simReaders struct{ p *proc }

func (r simReaders) Current() map[string]int32 { return map[string]int32{simRelation: r.p.reader} }
func (r simReaders) Newest() map[string]int32  { return map[string]int32{simRelation: r.p.w.schema} }

func (r simReaders) Use(_ context.Context, ids map[string]int32) error {
	r.p.io("use schema %d", ids[simRelation])
	if err := r.p.flaky("use a schema"); err != nil {
		return err
	}
	if r.p.reading > 0 {
		r.p.w.fail("read twice", "process %d takes schema %d while it reads", r.p.id, ids[simRelation])
	}
	r.p.reader = ids[simRelation]
	return nil
}

// simExecutor is driver.Executor. Sink 0 keeps a sum for each key: what this
// process holds in memory is what it writes, so state that was merged twice, or
// kept though another attempt won, shows in the table's changelogs.
type simExecutor struct {
	p        *proc
	sums     [simKeys]int
	at       string // the reference that sums belongs to
	valid    bool
	overlays map[string]*overlay // by attempt
}

type overlay struct {
	base, ref string
	sums      [simKeys]int
}

func (e *simExecutor) Pin(context.Context) (map[string]string, error) { return nil, nil }

func (e *simExecutor) Execute(_ context.Context, job batch.Job, read func(emit, letters func(arrow.RecordBatch) error) error,
	write func(string, arrow.RecordBatch) error,
) (map[string]batch.Result, error) {
	w := e.p.w
	if id := job.Plan.Readers[simRelation]; id != e.p.reader {
		w.fail("wrong schema", "plan %d.r%d was made with schema %d, this driver reads with %d", job.Plan.Batch, job.Plan.Revision, id, e.p.reader)
	}
	w.read = append(w.read, reading{job.Plan.Batch, e.p.reader})
	if e.p.batches == nil {
		e.p.batches = map[string]made{}
	}
	e.p.batches[job.Attempt] = made{job.Plan.Batch, strings.Join(job.Letters.Sinks, " ")}
	x := &simJob{simExecutor: e, job: job, write: write, results: map[string]batch.Result{}}
	for _, s := range job.Sinks {
		i := sinkIndex(s)
		if sp := job.Plan.Sink(s); sp.Hash != e.p.hash(i) {
			w.fail("wrong spec", "sink %d: plan %d.r%d was made with %s, this driver has %s", i, job.Plan.Batch, job.Plan.Revision, sp.Hash, e.p.hash(i))
		}
		x.results[s] = batch.Result{State: job.State[s]}
		x.toLetters = x.toLetters || w.cfg.letters && i == w.letterSink()
	}
	err := read(x.emit, func(letters arrow.RecordBatch) error {
		if !job.Letters.Source {
			return nil
		}
		return x.letters(letters)
	})
	if err != nil || !slices.Contains(job.Sinks, sinkName(0)) || x.deltas == [simKeys]int{} {
		return x.results, err
	}
	res := x.results[sinkName(0)]
	res.State, err = e.merge(job, x.deltas)
	x.results[sinkName(0)] = res
	return x.results, err
}

// simJob is one execution.
type simJob struct {
	*simExecutor
	job       batch.Job
	write     func(string, arrow.RecordBatch) error
	results   map[string]batch.Result
	deltas    [simKeys]int
	toLetters bool
}

func (x *simJob) emit(rows arrow.RecordBatch) error {
	w := x.p.w
	refused, err := x.rules(rows)
	if err != nil {
		return err
	}
	for i := range w.sinks() {
		if !slices.Contains(x.job.Sinks, sinkName(i)) && (!x.toLetters || !slices.Contains(x.job.Letters.Sinks, sinkName(i))) {
			continue
		}
		if t := x.job.Targets; t != nil && !slices.Contains(t[rows.Column(1).(*array.Int32).Value(0)], sinkName(i)) {
			res := x.results[sinkName(i)]
			res.Scanned += rows.NumRows()
			res.Unread += rows.NumRows()
			x.results[sinkName(i)] = res
			continue
		}
		if err := x.run(i, rows, refused); err != nil {
			return err
		}
	}
	if x.toLetters {
		res := x.results[sinkName(w.letterSink())]
		res.SourceLetters += refused.SourceLetters
		res.Scanned += rows.NumRows()
		res.Unread += rows.NumRows()
		x.results[sinkName(w.letterSink())] = res
	}
	return nil
}

// record is the one of a row.
func (x *simJob) record(rows arrow.RecordBatch, i int) record {
	r := x.job.Ranges[rows.Column(1).(*array.Int32).Value(i)]
	return x.p.w.part(r.TopicPartition).records[rows.Column(2).(*array.Int64).Value(i)]
}

// rules are those of the source: what fails one is in no sink, and one dead letter
// at most.
func (x *simJob) rules(rows arrow.RecordBatch) (refused batch.Inputs, err error) {
	b := array.NewRecordBuilder(memory.DefaultAllocator, arrow.NewSchema(simSchema.Fields()[:1], nil))
	for i := range int(rows.NumRows()) {
		rec := x.record(rows, i)
		switch rec.rule {
		case toLetter:
			refused.Rejected++
			refused.RejectedBy.Constraint++
			if x.toLetters && x.job.Letters.Source {
				refused.SourceLetters++
				b.Field(0).(*array.Int64Builder).Append(rec.id * simLetters)
			}
		case toNobody:
			refused.Dropped++
		default:
			continue
		}
		one := batch.Inputs{Rules: map[string]int64{fmt.Sprint("rule", rec.rule): 1}}
		refused.Scanned++
		refused = refused.Plus(one)
	}
	if out := b.NewRecordBatch(); out.NumRows() > 0 {
		return refused, x.letters(out)
	}
	return refused, nil
}

// letters takes dead letters.
func (x *simJob) letters(rows arrow.RecordBatch) error {
	if !x.toLetters {
		return nil
	}
	name := sinkName(x.p.w.letterSink())
	res := x.results[name]
	res.Letters += rows.NumRows()
	res.Rows += rows.NumRows()
	x.results[name] = res
	return x.write(name, rows)
}

// run is the SQL of one sink over one record batch. Where the sink takes no part,
// only what it rejects counts. refused are those that a rule of the source keeps
// from it.
func (x *simJob) run(s int, rows arrow.RecordBatch, refused batch.Inputs) error {
	w, name := x.p.w, sinkName(s)
	wanted := slices.Contains(x.job.Sinks, name)
	one := arrow.NewSchema(simSchema.Fields()[:1], nil)
	b, bad := array.NewRecordBuilder(memory.DefaultAllocator, simRowSchema), array.NewRecordBuilder(memory.DefaultAllocator, one)
	res, sp := x.results[name], x.job.Plan.Sink(name)
	res.Scanned += rows.NumRows() - refused.Scanned
	res.Inputs = res.Inputs.Plus(refused)
	for i := range int(rows.NumRows()) {
		rec := x.record(rows, i)
		switch {
		case rec.rule != noRule:
			continue
		case rec.poison[s] && w.cfg.letters && x.p.spec[s] == 1:
			res.Rejected++
			res.RejectedBy.Cast++
			if x.toLetters {
				res.Letters++
				bad.Field(0).(*array.Int64Builder).Append(rec.letter(s))
			}
			continue
		case rec.poison[s] && !w.cfg.letters && x.p.spec[s] == 1:
			x.p.poisoned = s
			return fmt.Errorf("record %d: %w", rec.id, batch.ErrInvalid)
		case rec.poison[s] && !w.cfg.letters:
			res.Rejected++
			res.RejectedBy.Cast++
			continue
		case rec.narrow && x.p.spec[s] == 2:
			res.Without++
			continue
		case sp != nil && sp.Held != nil && rec.to[s]:
			res.Inputs = res.Inputs.Plus(batch.Inputs{Rejected: 1, RejectedBy: batch.Codes{Constraint: 1}, Rules: map[string]int64{"audit " + sp.Held.Rule: 1}})
			if x.toLetters {
				res.Letters++
				bad.Field(0).(*array.Int64Builder).Append(rec.letter(s))
			}
			continue
		}
		if s == 0 && wanted {
			x.deltas[rec.key]++
		}
		if !rec.to[s] {
			res.Without++
			continue
		}
		res.With++
		if wanted {
			res.Rows++
			b.Field(0).(*array.Int64Builder).Append(rec.id)
			b.Field(1).(*array.Int64Builder).Append(int64(1 + (rec.table(x.p.spec[s])-1+w.fickle)%simRoutes))
		}
	}
	x.results[name] = res
	if out := bad.NewRecordBatch(); out.NumRows() > 0 {
		if err := x.letters(out); err != nil {
			return err
		}
	}
	if out := b.NewRecordBatch(); out.NumRows() > 0 {
		return x.write(name, out)
	}
	return nil
}

// merge puts the batch's changes into an overlay and writes its changelog.
func (e *simExecutor) merge(job batch.Job, deltas [simKeys]int) (string, error) {
	base := job.State[sinkName(0)]
	sums, err := e.load(base)
	if err != nil {
		return "", err
	}
	e.p.io("write the changelog of %s", job.Attempt)
	for k, d := range deltas {
		sums[k] += d
	}
	w := e.p.w
	below, _ := w.restore(base)
	f := &simFile{prev: base}
	for k := range sums {
		f.deltas[k] = sums[k] - below[k]
	}
	ref := job.Attempt + "/state"
	w.files[ref] = f
	e.overlays[job.Attempt] = &overlay{base: base, ref: ref, sums: sums}
	return ref, nil
}

// load returns the state at a reference: from memory, from an overlay that is
// not applied yet, or from the changelogs.
func (e *simExecutor) load(ref string) ([simKeys]int, error) {
	if e.valid && e.at == ref {
		return e.sums, nil
	}
	for _, o := range e.overlays {
		if o.ref == ref {
			return o.sums, nil
		}
	}
	e.p.io("load state %q", ref)
	sums, ok := e.p.w.restore(ref)
	if !ok { // a driver that was overtaken finds it gone; whether it is lost the checks judge
		return sums, fmt.Errorf("state %s: %w", ref, batch.ErrUnavailable)
	}
	e.sums, e.at, e.valid = sums, ref, true
	return sums, nil
}

func (e *simExecutor) Settle(_ context.Context, sink string, stamp *batch.Stamp) error {
	if sinkIndex(sink) != 0 {
		return nil
	}
	o := e.overlays[stamp.Attempt]
	switch {
	case o != nil && o.ref == stamp.State:
		e.sums, e.at, e.valid = o.sums, o.ref, true
	case e.at != stamp.State:
		e.valid = false
	}
	for name, o := range e.overlays {
		if o.base != stamp.State {
			delete(e.overlays, name)
		}
	}
	return nil
}

func (e *simExecutor) Sweep(_ context.Context, attempt string) error {
	w := e.p.w
	ref := attempt + "/state"
	f := w.files[ref]
	if f == nil || f.deleted {
		return nil
	}
	for _, s := range w.tables[0].snaps[1:] {
		if s.expired || s.stamp == nil {
			continue
		}
		for n := s.stamp.State; n != ""; n = w.files[n].prev {
			if n == ref {
				return nil
			}
		}
	}
	w.note("d%d deletes %s", e.p.id, ref)
	f.deleted = true
	return nil
}

// simSink is driver.Table as one process sees it.
type simSink struct {
	p *proc
	i int
}

func sinkName(i int) string     { return fmt.Sprintf("s%d", i) }
func sinkIndex(name string) int { return int(name[1] - '0') }
func specHash(v int) string     { return fmt.Sprintf("spec%d", v) }

func (s simSink) Load(context.Context) (driver.View, error) {
	t := s.p.w.tables[s.i]
	s.p.io("load t%d head=%d tag=%d", s.i, t.head, t.tags[s.p.pipe])
	if err := s.p.flaky("load"); err != nil {
		return nil, err
	}
	t = s.p.w.tables[s.i]
	if t.missing {
		return nil, fmt.Errorf("there is no table t%d: %w", s.i, batch.ErrDataLost)
	}
	s.p.sawBack = s.p.sawBack || !t.truly()
	tag := t.tags[s.p.pipe]
	v := &simView{p: s.p, i: s.i, uuid: t.uuid, schema: t.schema, head: t.head, tag: tag, staged: t.staged[s.p.pipe], ancestry: t.ancestry(s.p.pipe), files: s.p.w.headFiles(s.i), streams: t.tags[simReplays] != 0}
	var err error
	if v.stamp, err = batch.ParseStamp(t.snaps[tag].summary); err != nil {
		return nil, err
	}
	v.live = map[int64]*batch.Stamp{}
	s.p.sawStamp = s.p.sawStamp || v.stamp != nil
	for _, s := range t.snaps[1:] {
		if !s.expired {
			v.live[s.id] = s.stamp
		}
	}
	for id := t.head; id != 0 && !t.snaps[id].expired; id = t.snaps[id].parent {
		v.history = append(v.history, batch.Stamped{Snapshot: id, Stamp: t.snaps[id].stamp})
	}
	return v, nil
}

func (s simSink) Writer(_ context.Context, attempt string) (driver.Writer, error) {
	t := s.p.w.tables[s.i]
	return &simWriter{s: s, attempt: attempt, uuid: t.uuid, schema: t.schema}, nil
}

func (s simSink) Sweep(_ context.Context, attempt string) error {
	s.p.io("sweep %s in t%d", attempt, s.i)
	w := s.p.w
	for name, f := range w.files {
		if strings.HasPrefix(name, attempt+"/data") && strings.HasSuffix(name, tableName(s.i)) && !f.deleted && !w.tables[s.i].live(name) {
			w.note("d%d deletes %s", s.p.id, name)
			f.deleted = true
		}
	}
	return nil
}

func (s simSink) Pin(_ context.Context, tag string, id int64) error {
	s.p.io("pin t%d snapshot %d", s.i, id)
	t := s.p.w.tables[s.i]
	if int(id) >= len(t.snaps) || t.snaps[id].expired {
		return fmt.Errorf("snapshot %d has expired: %w", id, batch.ErrInvalid)
	}
	t.pins[tag] = id
	return nil
}

func (s simSink) Unpin(_ context.Context, tag string) error {
	s.p.io("unpin %s of t%d", tag, s.i)
	delete(s.p.w.tables[s.i].pins, tag)
	return nil
}

type simWriter struct {
	s       simSink
	attempt string
	uuid    int
	schema  int
	rows    []int64
	marks   []simMark
}

func (w *simWriter) Write(rows arrow.RecordBatch) error {
	if rows.NumCols() == 3 && rows.ColumnName(0) == "stream" {
		w.marks = append(w.marks, marksOf(rows)...)
		return nil
	}
	for _, id := range rows.Column(0).(*array.Int64).Int64Values() {
		w.rows = append(w.rows, id+int64(w.s.p.pipe)*simOther)
	}
	return nil
}

func (w *simWriter) Close(context.Context) (driver.Files, error) {
	f := simFiles{rows: int64(len(w.rows) + len(w.marks)), uuid: w.uuid, schema: w.schema}
	if f.rows > 0 {
		f.name = fmt.Sprintf("%s/data-%s", w.attempt, tableName(w.s.i))
		w.s.p.io("write %s", f.name)
		by := w.s.p.batches[w.attempt]
		w.s.p.w.files[f.name] = &simFile{rows: w.rows, marks: w.marks, batches: slices.Repeat([]batch.ID{by.batch}, len(w.rows)), lacks: slices.Repeat([]string{by.lacks}, len(w.rows))}
	}
	return f, w.s.p.flaky("finish a file")
}

func (w *simWriter) Abort() {}

type simFiles struct {
	name string
	rows int64
	uuid int // of the table that they were written for
	// schema is the one that they were written for.
	schema int
}

func (f simFiles) Rows() int64 { return f.rows }

// simView is driver.View.
type simView struct {
	p         *proc
	i         int
	uuid      int
	schema    int
	head, tag int64
	staged    int64 // 0: nothing
	stamp     *batch.Stamp
	ancestry  batch.Ancestry
	files     []string
	history   []batch.Stamped
	live      map[int64]*batch.Stamp
	streams   bool // the replay has a tag
}

func (v *simView) Snapshot(id int64) (*batch.Stamp, bool) {
	st, ok := v.live[id]
	return st, ok
}

func (v *simView) Stamp() *batch.Stamp      { return v.stamp }
func (v *simView) Tagged() int64            { return v.tag }
func (v *simView) Ancestry() batch.Ancestry { return v.ancestry }
func (v *simView) Head() int64              { return v.head }
func (v *simView) History() []batch.Stamped { return v.history }

// Copied implements driver.View.
func (v *simView) Copied(context.Context) (copies []batch.Copy, err error) {
	t := v.p.w.tables[v.i]
	for _, h := range v.history {
		if h.Snapshot == v.tag {
			break
		}
		s := t.snaps[h.Snapshot]
		if s.stamp == nil && s.added.name != "" && slices.Contains(v.files, s.added.name) {
			copies = append(copies, batch.Copy{
				Snapshot: s.id, Parent: s.parent, Rows: s.added.rows, Attempt: strings.Split(s.added.name, "/")[0],
				Staged: v.staged != 0 && t.snaps[v.staged].added.name == s.added.name,
			})
		}
	}
	if len(copies) > 0 {
		err = v.p.flaky("look for copies")
	}
	return copies, err
}

func (v *simView) Streams() []string {
	if v.p.pipe == 0 && v.streams {
		return []string{batch.StreamReplay}
	}
	return nil
}

func (v *simView) Untag(context.Context) error {
	v.p.io("untag t%d on %d", v.i, v.tag)
	w := v.p.w
	if w.outcome(w.cfg.delays) == onItsWay {
		w.note("  untag: still on its way")
		w.pending = append(w.pending, &untag{v.p.pipe, v.i, v.uuid, v.tag})
		return fmt.Errorf("untag: %w", batch.ErrUnavailable)
	}
	if !w.untag(&untag{v.p.pipe, v.i, v.uuid, v.tag}) {
		return fmt.Errorf("untag: %w", batch.ErrUnavailable)
	}
	return v.p.flaky("untag")
}

func (v *simView) Fits(files driver.Files) bool {
	f, _ := files.(simFiles)
	return f.uuid != v.uuid || f.rows == 0 || f.schema == v.schema
}

func (v *simView) Commit(_ context.Context, stamp *batch.Stamp, files driver.Files) (int64, error) {
	all := slices.Clone(v.files)
	if f, ok := files.(simFiles); ok && f.uuid != v.uuid {
		return 0, fmt.Errorf("the table was dropped and made again: %w", batch.ErrInvalid)
	}
	if f, ok := files.(simFiles); ok && f.rows > 0 && f.schema != v.schema {
		v.p.w.fail("wrong schema", "process %d commits files of schema %d in t%d, which has %d", v.p.id, f.schema, v.i, v.schema)
	}
	if f, ok := files.(simFiles); ok && f.name != "" {
		all = append(all, f.name)
	}
	if s := v.stagedSnapshot(); s != nil && s.stamp.Hash() == stamp.Hash() && s.parent == v.head {
		return v.send(stamp, snapshot{files: all}, publish)
	}
	return v.send(stamp, snapshot{files: all}, appends)
}

// stagedSnapshot is what the view saw on the branch for audits.
func (v *simView) stagedSnapshot() *snapshot {
	if t := v.p.w.tables[v.i]; v.staged != 0 && t.uuid == v.uuid && !t.snaps[v.staged].expired {
		return t.snaps[v.staged]
	}
	return nil
}

func (v *simView) Stage(_ context.Context, stamp *batch.Stamp, files driver.Files) (int64, error) {
	f := files.(simFiles)
	if f.uuid != v.uuid {
		return 0, fmt.Errorf("the table was dropped and made again: %w", batch.ErrInvalid)
	}
	if _, err := v.send(stamp, snapshot{files: append(slices.Clone(v.files), f.name), added: f}, stage); err != nil {
		return 0, err
	}
	return v.p.w.tables[v.i].staged[v.p.pipe], nil
}

func (v *simView) Staged(context.Context) (int64, *batch.Stamp, driver.Files, error) {
	if err := v.p.flaky("read what is staged"); err != nil {
		return 0, nil, nil, err
	}
	s := v.stagedSnapshot()
	if s == nil || s.added.schema != v.schema {
		return 0, nil, nil, nil
	}
	return s.id, s.stamp, s.added, nil
}

// simAuditor is driver.Auditor.
type simAuditor struct{ simSink }

func (a simAuditor) Audit(_ context.Context, id int64) error {
	a.p.io("audit t%d snapshot %d", a.i, id)
	w := a.p.w
	if err := a.p.flaky("audit"); err != nil {
		return err
	}
	t := w.tables[a.i]
	if int(id) >= len(t.snaps) || t.snaps[id].expired {
		return fmt.Errorf("snapshot %d is gone: %w", id, batch.ErrUnavailable)
	}
	s := t.snaps[id]
	forGood := 0
	if w.cfg.letters {
		forGood = 3
	}
	held := fmt.Errorf("a rule holds the batch back: %w", batch.ErrInvalid)
	switch w.pick(20, 1, forGood) {
	case 1:
		w.note("  audit: a rule holds the batch back")
		return held
	case 2:
		w.note("  audit: a rule makes dead letters of the batch")
		return &driver.HeldBack{Held: batch.Held{Rule: "small", Reason: "too large"}, Sink: sinkName(a.i), Else: held}
	}
	w.audited[s.added.name] = true
	return nil
}

func (v *simView) Restore(_ context.Context, stamp *batch.Stamp, to int64, dropForeign bool) (int64, error) {
	t := v.p.w.tables[v.i]
	if t.uuid != v.uuid {
		return 0, fmt.Errorf("the table is another one: %w", batch.ErrUnavailable)
	}
	found := false
	for _, h := range v.history {
		if found = h.Snapshot == to; found {
			break
		}
		if (h.Stamp == nil || h.Stamp.Name != v.p.name() || h.Stamp.Stream != v.p.stream() && h.Stamp.Kind == "") && !dropForeign {
			return 0, fmt.Errorf("snapshot %d is another writer's: %w", h.Snapshot, batch.ErrDataLost)
		}
	}
	if !found && !dropForeign {
		return 0, fmt.Errorf("behind an expired snapshot there was another writer's: %w", batch.ErrDataLost)
	}
	return v.send(stamp, snapshot{files: slices.Clone(t.snaps[to].files), prev: t.snaps[to], restores: true}, appends)
}

func (v *simView) send(stamp *batch.Stamp, s snapshot, how int) (int64, error) {
	v.p.io("%s t%d batch %d..%d head=%d tag=%d", [...]string{"commit", "stage", "publish"}[how], v.i, stamp.First, stamp.Last, v.head, v.tag)
	summary := stamp.Properties()
	parsed, err := batch.ParseStamp(summary)
	if err != nil {
		return 0, err
	}
	s.parent, s.summary, s.stamp = v.head, summary, parsed
	if !v.p.w.submit(&commit{pipe: v.p.pipe, table: v.i, uuid: v.uuid, schema: v.schema, head: v.head, tag: v.tag, staged: v.staged, how: how, snap: s}) {
		return 0, fmt.Errorf("commit: %w", batch.ErrUnavailable) // refused, or no answer: the driver must not care
	}
	return v.p.w.tables[v.i].head, nil
}
