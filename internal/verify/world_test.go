package verify

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/apache/iceberg-go/catalog"
	"github.com/apache/iceberg-go/table"
	"github.com/google/uuid"

	"github.com/frazil-io/frazil/internal/batch"
	"github.com/frazil-io/frazil/internal/checkpoint"
	"github.com/frazil-io/frazil/internal/lake"
	"github.com/frazil-io/frazil/internal/objstore"
	"github.com/frazil-io/frazil/internal/sink"
)

var columns = arrow.NewSchema([]arrow.Field{{Name: "id", Type: arrow.PrimitiveTypes.Int64, Nullable: true}}, nil)

// world is a pipeline whose batches are made as the driver makes them, with the
// real table and the real checkpoint, without Kafka and SQL.
type world struct {
	*testing.T
	dir     string
	catalog *lake.Catalog
	table   *sink.Table
	cp      *checkpoint.Checkpoint
	inc     batch.Incarnation
	now     time.Time
	step    time.Duration // between two batches
	opts    Options
	keep    int64
	sink    string // its name

	entry   int64
	batch   batch.ID
	before  batch.Ref
	from    batch.Offsets
	carried batch.Counts
	outcome []batch.Outcome
	plan    *batch.Plan // the newest one
}

func newWorld(t *testing.T, lakeOf *lake.Catalog, dir string, keepSnapshots int) *world {
	t.Helper()
	store, err := objstore.Open(t.Context(), filepath.Join(dir, "checkpoints"), nil)
	if err != nil {
		t.Fatal(err)
	}
	w := &world{
		T: t, dir: dir, catalog: lakeOf, cp: checkpoint.New(store, "p"), now: time.Now().UTC().Truncate(time.Hour).Add(time.Hour), step: time.Minute,
		inc:  batch.Incarnation{UUID: "6f1c", Name: "p", ID: "first", Kind: batch.First},
		opts: Options{Pipeline: "p", KeepSnapshots: keepSnapshots}, keep: 1000, from: batch.Offsets{}, sink: "rows",
	}
	if err := w.cp.CreateIncarnation(w.Context(), w.inc); err != nil {
		t.Fatal(err)
	}
	w.table, err = sink.Open(w.Context(), lakeOf, sink.Options{Pipeline: "p", Table: "ns.t", Create: true, KeepSnapshots: keepSnapshots, KeepHourly: 24 * time.Hour}, columns,
		func() time.Time { return w.now }, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return w
}

func sqlWorld(t *testing.T, keepSnapshots int) *world {
	t.Helper()
	dir := t.TempDir()
	c, err := lake.Open(t.Context(), lake.Options{Name: "lake", Type: "sql", URI: filepath.Join(dir, "catalog.db"), Warehouse: filepath.Join(dir, "wh")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return newWorld(t, c, dir, keepSnapshots)
}

func (w *world) must(err error) {
	w.Helper()
	if err != nil {
		w.Fatal(err)
	}
}

// memoryStore is a checkpoint's store for many batches: a directory would make each
// file durable.
type memoryStore struct {
	mu      sync.Mutex
	objects map[string][]byte
}

func (m *memoryStore) Create(_ context.Context, key string, data []byte) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.objects[key] != nil {
		return objstore.ErrExists
	}
	m.objects[key] = data
	return nil
}

func (m *memoryStore) Put(_ context.Context, key string, data []byte) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.objects[key] = data
	return nil
}

func (m *memoryStore) Get(_ context.Context, key string) ([]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if data, ok := m.objects[key]; ok {
		return data, nil
	}
	return nil, objstore.ErrNotFound
}

func (m *memoryStore) List(_ context.Context, prefix, after string) (keys []string, _ error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for key := range m.objects {
		if strings.HasPrefix(key, prefix) && key > after {
			keys = append(keys, key)
		}
	}
	slices.Sort(keys)
	return keys, nil
}

func (m *memoryStore) Delete(_ context.Context, key string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.objects, key)
	return nil
}

// partitions are two of one topic, and a second topic that comes with batch 3.
func (w *world) partitions() []batch.TopicPartition {
	all := []batch.TopicPartition{{Source: "s", Topic: "clicks", TopicID: "t1", Partition: 0}, {Source: "s", Topic: "clicks", TopicID: "t1", Partition: 1}}
	if w.batch >= 3 {
		all = append(all, batch.TopicPartition{Source: "s", Topic: "views", TopicID: "t2"})
	}
	return all
}

// planNext logs a plan of n offsets in each partition.
func (w *world) planNext(n int64) *batch.Plan {
	w.Helper()
	p := &batch.Plan{Incarnation: w.inc, Entry: w.entry, Batch: w.batch, Time: w.now, Outcome: w.outcome, Writer: batch.Writer{ID: "w"}}
	at := batch.Offsets{}
	if w.plan != nil {
		at = w.plan.Position()
	}
	sp := batch.SinkPlan{Name: w.sink, Hash: "h", Active: true, Before: w.before, From: w.from.Clone(), Carried: w.carried}
	for _, tp := range w.partitions() {
		p.Ranges = append(p.Ranges, batch.Range{TopicPartition: tp, Start: at[tp], End: at[tp] + n})
		if _, ok := sp.From[tp]; !ok {
			sp.From[tp] = at[tp]
		}
	}
	p.Sinks = []batch.SinkPlan{sp}
	w.must(w.cp.Append(w.Context(), p))
	w.entry++
	w.plan = p
	return p
}

// stamp is what the driver makes of a plan.
func (w *world) stamp(p *batch.Plan, attempt string, counts batch.Counts) *batch.Stamp {
	sp := p.Sink(w.sink)
	first := p.Batch
	if sp.Before.Hash != "" {
		first = sp.Before.Last + 1
	}
	counts = sp.Carried.Plus(counts)
	return &batch.Stamp{
		UUID: w.inc.UUID, Name: "p", Incarnation: w.inc.Number, IncarnationID: w.inc.ID, Stream: batch.StreamMain, Plan: p.Hash(),
		First: first, Last: p.Batch, Start: sp.From, End: p.End(), Time: p.Time, Attempt: attempt,
		Counts: counts, Total: sp.Before.Total.Plus(counts), Previous: sp.Before.Hash,
	}
}

// counted is one offset in ten absent, one a marker, one rejected; the rest rows.
func counted(p *batch.Plan) batch.Counts {
	var c batch.Counts
	for _, r := range p.Ranges {
		c.Offsets += r.Len()
	}
	c.Absent, c.Control = c.Offsets/10, c.Offsets/10
	c.Data = c.Offsets - c.Absent - c.Control
	c.Tombstones, c.Skipped = c.Data/5, c.Data/10
	c.Rows = c.Data - c.Tombstones - c.Skipped
	c.Written, c.Bytes = c.Rows, 10*c.Data
	return c
}

func (w *world) write(attempt string, rows int64) *sink.Files {
	w.Helper()
	out, err := w.table.Writer(w.Context(), attempt)
	w.must(err)
	if rows > 0 {
		b := array.NewRecordBuilder(memory.DefaultAllocator, columns)
		for i := range rows {
			b.Field(0).(*array.Int64Builder).Append(int64(w.batch)*1000 + i)
		}
		r := b.NewRecordBatch()
		b.Release()
		w.must(out.Write(r))
		r.Release()
	}
	files, err := out.Close(w.Context())
	w.must(err)
	return files
}

func (w *world) view() *sink.View {
	w.Helper()
	v, err := w.table.Load(w.Context())
	w.must(err)
	return v
}

// run makes one batch of n offsets in each partition; with 0 nothing is committed.
func (w *world) run(n int64) {
	w.Helper()
	w.now = w.now.Add(w.step)
	p := w.planNext(n)
	counts := counted(p)
	if counts.Written == 0 && w.before.Hash != "" {
		w.done(p, nil, 0, counts)
		return
	}
	attempt := uuid.NewString()
	st := w.stamp(p, attempt, counts)
	id, err := w.view().Commit(w.Context(), st, w.write(attempt, counts.Written))
	w.must(err)
	w.done(p, st, id, st.Counts)
}

func (w *world) done(p *batch.Plan, st *batch.Stamp, id int64, counts batch.Counts) {
	w.Helper()
	w.outcome = []batch.Outcome{{Sink: w.sink, Snapshot: id, Counts: counts}}
	if st != nil {
		w.before, w.from, w.carried = batch.RefTo(st), st.End.Clone(), batch.Counts{}
	} else {
		sp := p.Sink(w.sink)
		w.from, w.carried = sp.From, sp.Carried.Plus(counts)
	}
	w.must(w.cp.Record(w.Context(), w.inc, batch.Commit{Batch: p.Batch, Plan: p.Hash(), Time: p.Time, Outcome: w.outcome}))
	w.batch++
}

func (w *world) runs(n int) {
	w.Helper()
	for range n {
		w.run(10)
	}
}

// begin anchors a new incarnation: a rewind to target, or with 0 a recovery.
func (w *world) begin(kind batch.Kind, target int64) {
	w.Helper()
	v := w.view()
	from := v.Stamp()
	w.inc.Number++
	w.inc.ID, w.inc.Kind = fmt.Sprint(kind, w.inc.Number), kind
	if kind == batch.Rewind {
		w.inc.Targets = map[string]int64{w.sink: target}
		from, _ = v.Snapshot(target)
	}
	w.must(w.cp.CreateIncarnation(w.Context(), w.inc))
	w.now = w.now.Add(w.step)
	a := &batch.Stamp{
		UUID: w.inc.UUID, Name: "p", Incarnation: w.inc.Number, IncarnationID: w.inc.ID, Stream: batch.StreamMain, Kind: kind, Plan: "anchor-" + w.inc.ID,
		First: from.Last + 1, Last: from.Last, Start: from.End, End: from.End, Time: w.now, Attempt: from.Attempt, Total: from.Total, Previous: v.Stamp().Hash(),
	}
	var err error
	if kind == batch.Rewind {
		_, err = v.Restore(w.Context(), a, target, true)
	} else {
		_, err = v.Commit(w.Context(), a, nil)
	}
	w.must(err)
	w.entry, w.batch, w.outcome, w.carried = 0, a.Last+1, nil, batch.Counts{}
	w.before, w.from = batch.RefTo(a), a.End.Clone()
	w.plan = &batch.Plan{Ahead: a.End}
}

func (w *world) load() *table.Table {
	w.Helper()
	tbl, err := w.catalog.Load(w.Context(), table.Identifier{"ns", "t"})
	w.must(err)
	return tbl
}

// history are the table's live stamped snapshots, oldest first.
func (w *world) history() []table.Snapshot { return w.load().Metadata().Snapshots() }

func (w *world) tables() []Table {
	w.Helper()
	tbl, err := w.catalog.Load(w.Context(), table.Identifier{"ns", "t"})
	if errors.Is(err, catalog.ErrNoSuchTable) {
		return []Table{{Sink: w.sink, Name: "ns.t"}}
	}
	w.must(err)
	from, err := tbl.FS(w.catalog.Context(w.Context()))
	w.must(err)
	return []Table{{Sink: w.sink, Name: "ns.t", Metadata: tbl.Metadata(), FS: from}}
}

func (w *world) records(before int64) *Records {
	w.Helper()
	r := &Records{Entry: before, KeepBatches: w.keep}
	var err error
	r.Incarnations, err = w.cp.AuditIncarnations(w.Context())
	w.must(err)
	for _, f := range r.Incarnations {
		if f.Value == nil {
			continue
		}
		l := Log{Incarnation: *f.Value}
		l.Plans, err = w.cp.AuditLog(w.Context(), *f.Value)
		w.must(err)
		l.Commits, err = w.cp.AuditCommits(w.Context(), *f.Value)
		w.must(err)
		r.Logs = append(r.Logs, l)
	}
	return r
}

func (w *world) verify() *Report {
	w.Helper()
	before, err := w.cp.NewestEntry(w.Context(), w.inc)
	w.must(err)
	report, err := Tables(w.Context(), w.opts, w.tables(), w.records(before))
	w.must(err)
	return report
}

func all(r *Report) []Finding {
	return append(slices.Clone(r.Checkpoint.Findings), r.Tables[0].Findings...)
}

// clean fails where a healthy pipeline has findings.
func (w *world) clean() *Report {
	w.Helper()
	r := w.verify()
	for _, f := range all(r) {
		w.Errorf("found %s: %s: %s", f.Code, f.Where, f.What)
	}
	if !r.Clean && len(all(r)) == 0 {
		w.Error("not clean, without a finding")
	}
	return r
}

// finds fails where a planted fault is not named.
func (w *world) finds(code Code, text string) {
	w.Helper()
	r := w.verify()
	for _, f := range all(r) {
		w.Logf("found %s: %s: %s", f.Code, f.Where, f.What)
	}
	if r.Clean || !slices.ContainsFunc(all(r), func(f Finding) bool { return f.Code == code && strings.Contains(f.Where+": "+f.What, text) }) {
		w.Errorf("%s with %q was not found", code, text)
	}
}

// commit changes the table as another engine would.
func (w *world) commit(updates ...table.Update) {
	w.Helper()
	_, err := w.catalog.Commit(w.Context(), table.Identifier{"ns", "t"}, nil, updates)
	w.must(err)
}

// again adds a copy of a snapshot behind the head, with another summary.
func (w *world) again(s table.Snapshot, id int64, change func(map[string]string)) {
	w.Helper()
	meta := w.load().Metadata()
	head := meta.CurrentSnapshot().SnapshotID
	props := map[string]string{}
	for k, v := range s.Summary.Properties {
		props[k] = v
	}
	if change != nil {
		change(props)
	}
	s.SnapshotID, s.ParentSnapshotID, s.SequenceNumber = id, &head, meta.LastSequenceNumber()+1
	s.TimestampMs = max(w.now.UnixMilli(), meta.LastUpdatedMillis())
	s.Summary = &table.Summary{Operation: s.Summary.Operation, Properties: props}
	w.commit(table.NewAddSnapshotUpdate(&s), table.NewSetSnapshotRefUpdate("main", id, table.BranchRef, 0, 0, 0))
}

// dataFiles are the data files of one snapshot's attempt.
func (w *world) dataFiles(s table.Snapshot) []string {
	w.Helper()
	st, err := batch.ParseStamp(s.Summary.Properties)
	w.must(err)
	files, err := filepath.Glob(filepath.Join(w.dir, "wh", "*", "*", "data", "frazil-"+st.Attempt, "*.parquet"))
	w.must(err)
	if len(files) == 0 {
		w.Fatalf("snapshot %d has no files", s.SnapshotID)
	}
	return files
}

func (w *world) checkpointFile(pattern string) string {
	w.Helper()
	files, err := filepath.Glob(filepath.Join(w.dir, "checkpoints", "p", pattern))
	w.must(err)
	if len(files) != 1 {
		w.Fatalf("%s: %v", pattern, files)
	}
	return files[0]
}

func (w *world) remove(file string) {
	w.Helper()
	w.must(os.Remove(file))
}

// replays runs letters again in so many batches, of so many letters each, as a run of
// their own: an anchor, batches, and at its end no tag. It returns what it counted in
// all.
func (w *world) replays(number int64, before *batch.Stamp, batches int, n int64) *batch.Stamp {
	w.Helper()
	tag := batch.Tag("p", batch.StreamReplay)
	t, err := sink.Open(w.Context(), w.catalog, sink.Options{Pipeline: "p", Stream: batch.StreamReplay, Table: "ns.t", KeepSnapshots: 1000, KeepHourly: 24 * time.Hour}, columns,
		func() time.Time { return w.now }, slog.New(slog.DiscardHandler))
	w.must(err)
	main := batch.TopicPartition{Source: "dead_letters", Topic: batch.StreamMain}
	st := &batch.Stamp{
		UUID: w.inc.UUID, Name: "p", Incarnation: number, IncarnationID: fmt.Sprint("run", number), Stream: batch.StreamReplay, Kind: batch.Replay, Plan: fmt.Sprint("anchor", number),
		Last: -1, Start: batch.Offsets{main: 0}, End: batch.Offsets{main: 0},
	}
	if before != nil {
		st.Last, st.Start, st.End, st.Total, st.First = before.Last, before.End, before.End, before.Total, before.Last+1
	}
	for i := range batches + 1 {
		w.now = w.now.Add(w.step)
		attempt := uuid.NewString()
		var files *sink.Files
		if i > 0 {
			next := *st
			next.Kind, next.Plan, next.First, next.Last, next.Previous = "", fmt.Sprint("plan", i), st.Last+1, st.Last+1, st.Hash()
			next.Start, next.End = st.End, batch.Offsets{main: st.End[main] + 1}
			next.Counts = batch.Counts{Tally: batch.Tally{Offsets: n, Data: n, Rows: n}, Written: n}
			next.Total = st.Total.Plus(next.Counts)
			st, files = &next, w.write(attempt, n)
		}
		st.Time, st.Attempt = w.now, attempt
		v, err := t.Load(w.Context())
		w.must(err)
		_, err = v.Commit(w.Context(), st, files)
		w.must(err)
	}
	w.refs(-1, tag)
	w.opts.Replayed = map[string]batch.Counts{w.sink: st.Total}
	return st
}

// recovered anchors a run whose checkpoint was lost behind st, at a batch that comes
// later by skips.
func (w *world) recovered(st *batch.Stamp, skips batch.ID) {
	w.Helper()
	t, err := sink.Open(w.Context(), w.catalog, sink.Options{Pipeline: "p", Stream: batch.StreamReplay, Table: "ns.t", KeepSnapshots: 1000, KeepHourly: 24 * time.Hour}, columns,
		func() time.Time { return w.now }, slog.New(slog.DiscardHandler))
	w.must(err)
	w.now = w.now.Add(w.step)
	next := *st
	next.Kind, next.Incarnation, next.IncarnationID, next.Plan = batch.Recover, st.Incarnation+1, "recovered", "anchor-recovered"
	next.Last += skips
	next.First, next.Start, next.Counts, next.Previous, next.Time = next.Last+1, st.End, batch.Counts{}, st.Hash(), w.now
	v, err := t.Load(w.Context())
	w.must(err)
	_, err = v.Commit(w.Context(), &next, nil)
	w.must(err)
	w.refs(-1, batch.Tag("p", batch.StreamReplay))
}
