package verify

import (
	"bytes"
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/apache/iceberg-go"
	"github.com/apache/iceberg-go/table"
	"github.com/google/uuid"

	"github.com/frazil-io/frazil/internal/batch"
)

// metadata changes the metadata file itself, as somebody with write access to the
// warehouse could.
func (w *world) metadata(change func(meta map[string]any)) {
	w.Helper()
	loc := strings.TrimPrefix(w.load().MetadataLocation(), "file://")
	data, err := os.ReadFile(loc)
	w.must(err)
	var meta map[string]any
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	w.must(d.Decode(&meta))
	change(meta)
	data, err = json.Marshal(meta)
	w.must(err)
	w.must(os.WriteFile(loc, data, 0o600))
}

// edited gives a snapshot another summary, under the same number.
func (w *world) edited(number int, change func(map[string]string)) {
	w.Helper()
	w.metadata(func(meta map[string]any) {
		props := map[string]string{}
		summary := meta["snapshots"].([]any)[number].(map[string]any)["summary"].(map[string]any)
		for k, v := range summary {
			props[k] = v.(string)
		}
		change(props)
		clear(summary)
		for k, v := range props {
			summary[k] = v
		}
	})
}

// refs moves refs to the snapshot with this number; -1 removes them.
func (w *world) refs(number int, names ...string) {
	w.Helper()
	w.metadata(func(meta map[string]any) {
		refs := meta["refs"].(map[string]any)
		for _, name := range names {
			if number < 0 {
				delete(refs, name)
				continue
			}
			id := meta["snapshots"].([]any)[number].(map[string]any)["snapshot-id"]
			refs[name].(map[string]any)["snapshot-id"] = id
			if name == "main" {
				meta["current-snapshot-id"] = id
				meta["snapshot-log"] = []any{}
			}
		}
	})
}

// removed takes a snapshot out of the table.
func (w *world) removed(number int) {
	w.Helper()
	w.metadata(func(meta map[string]any) {
		meta["snapshots"] = slices.Delete(meta["snapshots"].([]any), number, number+1)
		meta["snapshot-log"] = []any{}
	})
}

// orphaned removes the first snapshots, and the id of the parent from what follows
// them.
func (w *world) orphaned(n int) {
	w.Helper()
	for range n {
		w.removed(0)
	}
	w.metadata(func(meta map[string]any) { delete(meta["snapshots"].([]any)[0].(map[string]any), "parent-snapshot-id") })
}

func restamped(change func(*batch.Stamp)) func(map[string]string) {
	return func(p map[string]string) {
		st, err := batch.ParseStamp(p)
		if err != nil {
			panic(err)
		}
		change(st)
		maps.Copy(p, st.Properties())
	}
}

// foreign appends rows as another engine does.
func (w *world) foreign(n int) {
	w.Helper()
	tbl := w.load()
	schema, err := table.SchemaToArrowSchema(tbl.Schema(), nil, true, false)
	w.must(err)
	b := array.NewRecordBuilder(memory.DefaultAllocator, schema)
	for i := range n {
		b.Field(0).(*array.Int64Builder).Append(int64(-i))
	}
	rows := b.NewRecordBatch()
	r, err := array.NewRecordReader(schema, []arrow.RecordBatch{rows})
	w.must(err)
	tx := tbl.NewTransaction()
	w.must(tx.Append(w.Context(), r, nil))
	_, err = tx.Commit(w.Context())
	w.must(err)
}

// TestTampering: each fault is found, and named as what it is.
func TestTampering(t *testing.T) {
	tests := []struct {
		name  string
		plant func(*world)
		code  Code
		text  string
	}{
		{"a removed snapshot in the middle", func(w *world) {
			w.removed(4)
		}, RemovedSnapshot, "batches 4..4"},
		{"a foreign append that claims the newest stamp", func(w *world) {
			s := w.history()[7]
			w.again(s, 77, nil)
		}, DoubledBatch, "snapshot 77: carries the same stamp"},
		{"a foreign append that claims a batch in between, before ours go on", func(w *world) {
			s := w.history()[7]
			w.again(s, 77, restamped(func(st *batch.Stamp) { st.Previous, st.First, st.Last = st.Hash(), st.Last+1, st.Last+1 }))
			w.runs(2)
		}, ForeignClaim, "snapshot 77: claims batches 8..8"},
		{"a foreign append with a stamp of its own behind ours", func(w *world) {
			s := w.history()[7]
			w.again(s, 77, restamped(func(st *batch.Stamp) {
				st.Previous, st.First, st.Last, st.Start = st.Hash(), st.Last+1, st.Last+1, st.End
			}))
		}, MissingLogEntry, "snapshot 77: has batch 8"},
		{"the same, with the tag moved to it", func(w *world) {
			s := w.history()[7]
			w.again(s, 77, restamped(func(st *batch.Stamp) {
				st.Previous, st.First, st.Last, st.Start = st.Hash(), st.Last+1, st.Last+1, st.End
			}))
			w.refs(8, "frazil-p")
		}, TwoHistories, "table"},
		{"a file added under our stamp", func(w *world) {
			w.now = w.now.Add(1)
			p := w.planNext(10)
			st := w.stamp(p, uuid.NewString(), counted(p))
			id, err := w.view().Commit(w.Context(), st, w.write(uuid.NewString(), st.Counts.Written))
			w.must(err)
			w.done(p, st, id, st.Counts)
		}, AddedFile, "which attempt"},
		{"more rows than the stamp says", func(w *world) {
			p := w.planNext(10)
			attempt := uuid.NewString()
			st := w.stamp(p, attempt, counted(p))
			id, err := w.view().Commit(w.Context(), st, w.write(attempt, st.Counts.Written+1))
			w.must(err)
			w.done(p, st, id, st.Counts)
		}, WrongRows, "its stamp says"},
		{"a doubled batch", func(w *world) {
			p := w.plan
			attempt := uuid.NewString()
			st := w.stamp(p, attempt, counted(p))
			_, err := w.view().Commit(w.Context(), st, w.write(attempt, st.Counts.Written))
			w.must(err)
		}, ForeignClaim, "claims batches 7..7"},
		{"offsets that are in two snapshots", func(w *world) {
			for tp := range w.from {
				w.from[tp] -= 5
			}
			w.run(10)
		}, BrokenLink, "are in two snapshots"},
		{"offsets that are in no snapshot", func(w *world) {
			for tp := range w.from {
				w.from[tp] += 5
			}
			w.run(10)
		}, BrokenLink, "are in no snapshot"},
		{"counts that do not add up", func(w *world) {
			p := w.planNext(10)
			attempt := uuid.NewString()
			c := counted(p)
			c.Absent++
			st := w.stamp(p, attempt, c)
			id, err := w.view().Commit(w.Context(), st, w.write(attempt, c.Written))
			w.must(err)
			w.done(p, st, id, st.Counts)
		}, Unbalanced, "data + control + aborted + lost + absent"},
		{"one record more that failed a rule", func(w *world) {
			p := w.planNext(10)
			attempt := uuid.NewString()
			c := counted(p)
			c.Rules = map[string]int64{"clicks.has_user": 1}
			st := w.stamp(p, attempt, c)
			id, err := w.view().Commit(w.Context(), st, w.write(attempt, c.Written))
			w.must(err)
			w.done(p, st, id, st.Counts)
		}, Unbalanced, "dropped + rejected_by.constraint are 0, but by rule they are 1"},
		{"a rolled back table", func(w *world) {
			w.refs(4, "main")
		}, RolledBack, "does not descend from"},
		{"a table rolled back together with its tag", func(w *world) {
			w.refs(4, "main", "frazil-p")
		}, TwoHistories, "one of them was restored"},
		{"a moved tag", func(w *world) {
			w.refs(4, "frazil-p")
		}, MovedTag, "batch 4, but"},
		{"a removed tag", func(w *world) { w.refs(-1, "frazil-p") }, MovedTag, "is gone"},
		{"a tag on a snapshot of another writer", func(w *world) {
			w.foreign(3)
			w.refs(8, "frazil-p")
		}, MovedTag, "carries no stamp"},
		{"an edited stamp in the middle", func(w *world) {
			w.edited(4, restamped(func(st *batch.Stamp) { st.Attempt = uuid.NewString() }))
		}, EditedStamp, "is not the one that"},
		{"an edited stamp at the end", func(w *world) {
			w.edited(7, restamped(func(st *batch.Stamp) { st.Total.Bytes += 5 }))
		}, EditedStamp, "is not what the plan of batch 7"},
		{"counts of the newest stamp, edited so that they add up", func(w *world) {
			w.edited(7, restamped(func(st *batch.Stamp) {
				st.Counts.Data, st.Counts.Absent, st.Counts.Skipped = st.Counts.Data+1, st.Counts.Absent-1, st.Counts.Skipped+1
				st.Total.Data, st.Total.Absent, st.Total.Skipped = st.Total.Data+1, st.Total.Absent-1, st.Total.Skipped+1
			}))
		}, EditedStamp, "and the commit record of batch 7 says"},
		{"a summary with other rows", func(w *world) {
			w.edited(5, func(p map[string]string) {
				n, _ := strconv.Atoi(p["added-records"])
				p["added-records"] = strconv.Itoa(n + 1)
			})
		}, WrongRows, "as its summary says"},
		{"a deleted log entry", func(w *world) { w.remove(w.checkpointFile("offsets/0-first/000000000004")) }, MissingLogEntry, "log entries 4..4"},
		{"the newest log entry deleted", func(w *world) { w.remove(w.checkpointFile("offsets/0-first/000000000007")) }, MissingLogEntry, "newest log entry of its incarnation is of batch 6"},
		{"all log entries deleted", func(w *world) {
			files, err := filepath.Glob(filepath.Join(w.dir, "checkpoints", "p", "offsets", "*", "*"))
			w.must(err)
			for _, f := range files {
				w.remove(f)
			}
		}, MissingLogEntry, "is empty"},
		{"a changed log entry", func(w *world) {
			name := w.checkpointFile("offsets/0-first/000000000005")
			data, err := os.ReadFile(name)
			w.must(err)
			w.must(os.WriteFile(name, bytes.Replace(data, []byte(`"start":50`), []byte(`"start":40`), 1), 0o600))
		}, DamagedRecord, "000000000005"},
		{"a log entry of another plan", func(w *world) {
			p := *w.plan
			p.Entry, p.Batch = w.entry, w.batch
			w.must(w.cp.Append(w.Context(), &p))
		}, WrongRecord, "starts partition"},
		{"the incarnation's record deleted", func(w *world) { w.remove(w.checkpointFile("pipeline/*")) }, MissingIncarnation, "no record"},
		{"the newest incarnation's record deleted", func(w *world) {
			w.begin(batch.Rewind, w.history()[4].SnapshotID)
			w.runs(2)
			w.remove(w.checkpointFile("pipeline/000000000001"))
		}, MissingIncarnation, "incarnation 1-rewind1"},
		{"an incarnation's record in the middle deleted", func(w *world) {
			w.begin(batch.Rewind, w.history()[4].SnapshotID)
			w.runs(2)
			w.begin(batch.Rewind, w.history()[5].SnapshotID)
			w.runs(2)
			w.remove(w.checkpointFile("pipeline/000000000001"))
		}, MissingIncarnation, "incarnations 1..1"},
		{"a commit record of another snapshot", func(w *world) {
			id := w.history()[3].SnapshotID
			c, err := w.cp.Recorded(w.Context(), w.inc, 1)
			w.must(err)
			c[0].Outcome[0].Snapshot = id
			w.must(w.cp.Record(w.Context(), w.inc, c[0]))
		}, WrongRecord, "is said to have batch 7"},
		{"a deleted data file", func(w *world) { w.remove(w.dataFiles(w.history()[2])[0]) }, MissingFile, "the data file"},
		{"a data file with fewer rows", func(w *world) {
			few := w.write(uuid.NewString(), 1)
			_ = few
			files, err := filepath.Glob(filepath.Join(w.dir, "wh", "*", "*", "data", "frazil-*", "*.parquet"))
			w.must(err)
			target := w.dataFiles(w.history()[2])[0]
			live := map[string]bool{}
			for _, s := range w.history() {
				live[w.dataFiles(s)[0]] = true
			}
			files = slices.DeleteFunc(files, func(f string) bool { return live[f] })
			if len(files) != 1 {
				w.Fatal(files)
			}
			w.must(os.Rename(files[0], target))
		}, ChangedFile, "has 1 rows, and its manifest says"},
		{"a data file that was cut off", func(w *world) {
			w.must(os.Truncate(w.dataFiles(w.history()[2])[0], 40))
		}, ChangedFile, "is no Parquet file any more"},
		{"a deleted manifest list", func(w *world) { w.remove(strings.TrimPrefix(w.history()[7].ManifestList, "file://")) }, MissingFile, "its manifest list"},
		{"rows deleted by another writer", func(w *world) {
			tx := w.load().NewTransaction()
			w.must(tx.Delete(w.Context(), iceberg.AlwaysTrue{}, nil))
			_, err := tx.Commit(w.Context())
			w.must(err)
		}, RemovedRows, "is of another writer"},
		{"a table of an older metadata file", func(w *world) {
			old := w.load().MetadataLocation()
			data, err := os.ReadFile(strings.TrimPrefix(old, "file://"))
			w.must(err)
			w.runs(3)
			w.must(os.WriteFile(strings.TrimPrefix(w.load().MetadataLocation(), "file://"), data, 0o600))
		}, TwoHistories, "one of them was restored"},
		{"a table that is gone", func(w *world) { w.must(w.catalog.DropTable(w.Context(), table.Identifier{"ns", "t"})) }, MissingTable, "does not exist"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			w := sqlWorld(t, 100)
			if strings.Contains(tt.name, "another writer") { // iceberg-go's own commits have no clock
				w.now, w.step = time.Now().UTC(), time.Millisecond
			}
			w.runs(8)
			w.clean()
			tt.plant(w)
			w.finds(tt.code, tt.text)
		})
	}
}

// TestReplayTampering: of what ran dead letters again, too.
func TestReplayTampering(t *testing.T) {
	// Snapshots 0..3 are batches, 4 an anchor, 5..7 a run, 8 an anchor, 9 and 10 a second
	// one, 11 and 12 batches.
	tests := []struct {
		name  string
		plant func(*world)
		code  Code
		text  string
	}{
		{"a removed snapshot in the middle", func(w *world) { w.removed(6) }, RemovedSnapshot, "batches 1..1"},
		{"the last snapshot of a run removed", func(w *world) { w.removed(7) }, Unbalanced, "begins a run of stream dead-letter-replay with totals"},
		{"the newest snapshot removed", func(w *world) {
			w.refs(9, "main")
			w.refs(3, "frazil-p")
			for n := 12; n > 9; n-- {
				w.removed(n)
			}
		}, RemovedSnapshot, "20 letters were run again, as the checkpoint says, and the table has stamps of 16"},
		{"all of them removed by a table that was rolled back and cleaned up", func(w *world) {
			w.refs(3, "main", "frazil-p")
			for n := 12; n > 3; n-- {
				w.removed(n)
			}
		}, RemovedSnapshot, "the table has stamps of 0"},
		{"a doubled batch", func(w *world) { w.again(w.history()[9], 77, nil) }, DoubledBatch, "carries the same stamp"},
		{"a doubled batch with a stamp of its own", func(w *world) {
			w.again(w.history()[9], 77, restamped(func(st *batch.Stamp) { st.Attempt = uuid.NewString() }))
		}, ForeignClaim, "carries batches 4..4"},
		{"a rolled back table, of which the run is over", func(w *world) { w.refs(8, "main"); w.refs(3, "frazil-p") }, RolledBack, "has batches 4..4 of stream dead-letter-replay"},
		{"an edited stamp", func(w *world) { w.edited(6, restamped(func(st *batch.Stamp) { st.Attempt = uuid.NewString() })) }, EditedStamp, "is not the one that"},
		{"the newest stamp edited so that it adds up", func(w *world) {
			w.edited(10, restamped(func(st *batch.Stamp) {
				st.Counts.Rows, st.Counts.Skipped, st.Total.Rows, st.Total.Skipped = st.Counts.Rows-1, 1, st.Total.Rows-1, 1
			}))
		}, EditedStamp, "and the checkpoint says"},
		{"a mark without a run", func(w *world) {
			w.opts.Marked = map[string]int64{batch.StreamMain: 6}
		}, ForeignClaim, "up to batch 5, and the runs came to batch 4"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			w := sqlWorld(t, 100)
			if strings.Contains(tt.name, "mark") {
				w.sink = "dead_letters"
			}
			w.runs(4)
			w.clean()
			first := w.replays(0, nil, 3, 4)
			w.clean()
			w.replays(2, first, 2, 4)
			w.runs(2)
			w.opts.Marked = map[string]int64{batch.StreamMain: 5}
			w.clean()
			tt.plant(w)
			w.finds(tt.code, tt.text)
		})
	}
}

// TestReplayRecovered: where the checkpoint of a run was lost, its batches are counted
// behind the marks, so a table may lack numbers; it does not lack offsets or rows, and
// the numbers do not go back.
func TestReplayRecovered(t *testing.T) {
	for skips, fits := range map[batch.ID]bool{-1: false, 0: true, 1: true, 5: true} {
		w := sqlWorld(t, 100)
		w.runs(4)
		w.recovered(w.replays(0, nil, 2, 4), skips)
		if fits {
			w.clean()
		} else {
			w.finds(BrokenLink, "the stamp before it is of batch 1")
		}
	}
}

// TestForeignAppend: what another writer adds is no fault, and is named.
func TestForeignAppend(t *testing.T) {
	t.Parallel()
	w := sqlWorld(t, 100)
	w.now, w.step = time.Now().UTC(), time.Millisecond
	w.runs(4)
	w.foreign(3)
	w.runs(2)
	r := w.clean()
	if text := strings.Join(r.Tables[0].Notes, "\n"); !strings.Contains(text, "is of another writer: append of 3 rows") {
		t.Error(text)
	}
}

// TestLiveDriver: whatever the driver does between the reads of tables and records,
// there is no finding.
func TestLiveDriver(t *testing.T) {
	t.Parallel()
	w := sqlWorld(t, 5)
	for i := range 12 {
		before, err := w.cp.NewestEntry(w.Context(), w.inc)
		w.must(err)
		tables := w.tables()
		for range i % 4 {
			w.run(int64(i % 3))
		}
		r, err := Tables(w.Context(), w.opts, tables, w.records(before))
		w.must(err)
		for _, f := range all(r) {
			t.Errorf("round %d: found %s: %s: %s", i, f.Code, f.Where, f.What)
		}
	}
}
