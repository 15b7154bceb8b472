package sink

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	iofs "io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	iceio "github.com/apache/iceberg-go/io"
	"github.com/apache/iceberg-go/table"
	"github.com/google/uuid"

	"github.com/frazil-io/frazil/internal/batch"
)

// metadata returns the names in the table's metadata folder.
func (f *fixture) metadata() map[string]bool {
	f.Helper()
	entries, err := os.ReadDir(filepath.Join(f.dir, "wh", "ns.db", "t", "metadata"))
	if err != nil {
		f.Fatal(err)
	}
	names := map[string]bool{}
	for _, e := range entries {
		names[e.Name()] = true
	}
	return names
}

// alive fails the test unless every file that a live snapshot of any branch
// names is there.
func (f *fixture) alive() {
	f.Helper()
	tbl, err := f.catalog.Load(context.Background(), table.Identifier{"ns", "t"})
	if err != nil {
		f.Fatal(err)
	}
	fs, err := tbl.FS(context.Background())
	if err != nil {
		f.Fatal(err)
	}
	for _, s := range tbl.Metadata().Snapshots() {
		manifests, err := s.Manifests(fs)
		if err != nil {
			f.Fatalf("snapshot %d: %v", s.SnapshotID, err)
		}
		for _, m := range manifests {
			for e, err := range m.Entries(fs, true) {
				if err != nil {
					f.Fatalf("snapshot %d: %v", s.SnapshotID, err)
				}
				if _, err := os.Stat(strings.TrimPrefix(e.DataFile().FilePath(), "file://")); err != nil {
					f.Fatalf("snapshot %d: %v", s.SnapshotID, err)
				}
			}
		}
	}
}

func brief(o *Options) { o.KeepSnapshots, o.KeepHourly = 3, time.Nanosecond }

// needed counts the metadata files that a table of brief may have: of each kept
// snapshot the list, of the head the manifests, the log and the notes.
func (f *fixture) needed(t *Table) int {
	f.Helper()
	v := f.load(t)
	manifests, err := v.head.Manifests(&t.fs)
	if err != nil {
		f.Fatal(err)
	}
	return len(v.meta.Snapshots()) + len(manifests) + 11 + 1
}

// TestExpiredFilesGo: an hour after nothing names them, not before.
func TestExpiredFilesGo(t *testing.T) {
	f := newFixture(t)
	tbl := f.mustOpen(brief)
	for i := range 2 * mergeWidth {
		f.commit(tbl, fmt.Sprint("a", i), makeRows(i, i+1))
		f.now = f.now.Add(time.Second)
		tbl.Maintain(context.Background())
	}
	look := func(later time.Duration) int {
		f.now = f.now.Add(later)
		tbl.Maintain(context.Background())
		return len(f.metadata())
	}
	before := look(maintainEvery)
	if before < 2*2*mergeWidth {
		t.Fatalf("%d files", before)
	}
	if n := look(deleteAfter - 5*maintainEvery); n < before {
		t.Fatalf("%d of %d files are gone before their hour", before-n, before)
	}
	look(6 * maintainEvery)
	if got, most := len(f.metadata()), f.needed(tbl); got > most {
		t.Fatalf("%d of %d files are left, want at most %d", got, before, most)
	}
	f.alive()
	if got := f.ids(nil); !slices.Equal(got, count(2*mergeWidth)) {
		t.Fatalf("%d rows", len(got))
	}
}

// unlistable is a file system whose folders cannot be listed.
type unlistable struct{ iceio.WriteFileIO }

func (unlistable) WalkDir(string, iofs.WalkDirFunc) error { return iofs.ErrPermission }

// TestFolderThatCannotBeListed: what this process made goes all the same, and what it
// remembers does not grow with each commit.
func TestFolderThatCannotBeListed(t *testing.T) {
	f := newFixture(t)
	tbl := f.mustOpen(brief)
	tbl.fs.exchange(unlistable{tbl.fs.current()})
	for i := range 4 * mergeWidth {
		f.commit(tbl, fmt.Sprint("a", i), makeRows(i, i+1))
		f.now = f.now.Add(10 * time.Minute)
		tbl.Maintain(context.Background())
	}
	if live := len(f.load(tbl).meta.Snapshots()); len(tbl.trash.lists) > live+1 {
		t.Errorf("the manifests of %d snapshots are remembered, %d are live", len(tbl.trash.lists), live)
	}
	// Of the last hour each run leaves a list, a metadata file and perhaps a manifest.
	if got, most := len(f.metadata()), f.needed(tbl)+3*8+mergeWidth; got > most {
		t.Errorf("%d files are left, want at most %d", got, most)
	}
	f.alive()
}

// TestExpiredFilesGoAfterARestart: what waits survives the process, by its notes
// and by what lies in the folder; each process lives for one batch only.
func TestExpiredFilesGoAfterARestart(t *testing.T) {
	f := newFixture(t)
	total := 3 * mergeWidth
	for i := range total {
		tbl := f.mustOpen(brief)
		f.commit(tbl, fmt.Sprint("a", i), makeRows(i, i+1))
		f.now = f.now.Add(5 * time.Minute)
		tbl.Maintain(context.Background())
	}
	f.alive()
	// Twelve runs an hour: a run leaves a list and perhaps a manifest, and its
	// garbage is seen in the run after it.
	if got, most := len(f.metadata()), f.needed(f.mustOpen(brief))+3*15+mergeWidth; got > most {
		t.Fatalf("%d files after %d runs, want at most %d", got, total, most)
	}
	if got := f.ids(nil); !slices.Equal(got, count(total)) {
		t.Fatalf("%d rows", len(got))
	}
}

// TestFilesInTheMakingGo: those of a process that was killed, an hour after they were
// seen, and none to which somebody writes; the pipeline's runs may be short.
func TestFilesInTheMakingGo(t *testing.T) {
	f := newFixture(t)
	tbl := f.mustOpen(brief)
	f.commit(tbl, "a", makeRows(0, 1))
	folder := filepath.Join(f.dir, "wh", "ns.db", "t", "metadata")
	write := func(name string, written time.Time) string {
		t.Helper()
		path := filepath.Join(folder, name)
		if err := errors.Join(os.WriteFile(path, []byte("half"), 0o600), os.Chtimes(path, written, written)); err != nil {
			t.Fatal(err)
		}
		return path
	}
	there := func(path string) bool { _, err := os.Stat(path); return err == nil }
	killed, foreign := write(".frazil-tmp-1", f.now.Add(-24*time.Hour)), write(".other-tmp-1", f.now.Add(-24*time.Hour))
	f.now = f.now.Add(maintainEvery)
	tbl.Maintain(t.Context())
	if !there(killed) {
		t.Fatal("it was deleted as soon as it was seen")
	}
	f.now = f.now.Add(deleteAfter)
	busy := write(".frazil-tmp-2", f.now.Add(-time.Second))
	tbl = f.mustOpen(brief) // by the notes
	tbl.Maintain(t.Context())
	if there(killed) || !there(foreign) {
		t.Fatal("an hour later it is still there, or another's file is gone")
	}
	f.now = f.now.Add(deleteAfter)
	if now := f.now.Add(-time.Second); os.Chtimes(busy, now, now) != nil {
		t.Fatal("the time of a file cannot be set")
	}
	tbl.Maintain(t.Context())
	if !there(busy) {
		t.Fatal("a file that is written to is gone")
	}
	f.now = f.now.Add(deleteAfter)
	tbl.Maintain(t.Context())
	if there(busy) {
		t.Fatal("the other one is still there")
	}
	f.alive()
}

// TestNotesAreCheckedAgain: notes that are damaged are not used, and notes that
// lie cost no file that is needed or that is not metadata.
func TestNotesAreCheckedAgain(t *testing.T) {
	f := newFixture(t)
	tbl := f.mustOpen(brief)
	for i := range 6 {
		f.commit(tbl, fmt.Sprint("a", i), makeRows(i, i+1))
	}
	f.now = f.now.Add(time.Minute)
	tbl.Maintain(context.Background())
	notes := filepath.Join(f.dir, "wh", "ns.db", "t", "metadata", "frazil-p-expired.json")
	data, err := os.ReadFile(notes)
	if err != nil || !strings.HasPrefix(string(data), "frazil expired v1 sha256:") {
		t.Fatalf("%s, %v", data, err)
	}
	if err := os.WriteFile(notes, bytes.ReplaceAll(data, []byte(f.now.Format("2006")), []byte("1970")), 0o600); err != nil {
		t.Fatal(err)
	}
	again := f.mustOpen(brief)
	again.recall(f.load(again).meta)
	if len(again.trash.since) != 0 {
		t.Fatal("damaged notes are used")
	}
	long := f.now.Add(-24 * time.Hour)
	again.trash.since = map[string]time.Time{}
	for name := range f.metadata() { // everything is said to be garbage for a day
		again.trash.since[metadataFolder(f.load(again).meta)+"/"+name] = long
	}
	again.trash.since[f.dir+"/wh/ns.db/t/data/frazil-a0/00001.parquet"] = long
	if err := again.save(f.load(again).meta); err != nil {
		t.Fatal(err)
	}
	last := f.mustOpen(brief)
	last.recall(f.load(last).meta)
	for name := range last.trash.since {
		if strings.Contains(name, ".parquet") || strings.Contains(name, "expired.json") {
			t.Fatalf("the notes may name %s", name)
		}
	}
	last.Maintain(context.Background())
	f.alive()
	if got := f.ids(nil); !slices.Equal(got, count(6)) {
		t.Fatalf("%v", got)
	}
	f.commit(last, "b", makeRows(6, 7)) // the metadata is whole
}

// TestRestoredManifestsStay: a manifest that was merged away, and that everybody
// had seen to be garbage, may come back: by a rewind, or by a branch that
// another engine makes from an old snapshot.
func TestRestoredManifestsStay(t *testing.T) {
	for name, back := range map[string]func(f *fixture, tbl *Table, to int64){
		"rewind": func(f *fixture, _ *Table, to int64) {
			cli := f.mustOpen(func(o *Options) { o.KeepSnapshots = 1000 }) // another process
			s := f.stamp("r")
			if _, err := f.load(cli).Restore(context.Background(), s, to, false); err != nil {
				f.Fatal(err)
			}
			f.last = s
		},
		"branch": func(f *fixture, tbl *Table, to int64) {
			v := f.load(tbl)
			old := v.meta.SnapshotByID(to)
			child := *old // as if another engine had committed to a branch made from it
			child.SnapshotID, child.ParentSnapshotID, child.SequenceNumber = newSnapshotID(), &to, v.meta.LastSequenceNumber()+1
			list := f.dir + "/wh/ns.db/t/metadata/snap-foreign.avro"
			data, err := os.ReadFile(strings.TrimPrefix(old.ManifestList, "file://"))
			if err != nil {
				f.Fatal(err)
			}
			if err := os.WriteFile(list, data, 0o600); err != nil {
				f.Fatal(err)
			}
			child.ManifestList = "file://" + list
			if _, err := f.catalog.Commit(context.Background(), tbl.ident, nil, []table.Update{
				table.NewAddSnapshotUpdate(&child), table.NewSetSnapshotRefUpdate("audit", child.SnapshotID, table.BranchRef, 0, 0, 0),
			}); err != nil {
				f.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t)
			tbl := f.mustOpen(func(o *Options) { o.KeepSnapshots = mergeWidth + 10 })
			var target int64
			for i := range mergeWidth + 5 { // one merge
				target = f.commit(tbl, fmt.Sprint("a", i), makeRows(i, i+1))
				if i == mergeWidth-3 { // before it
					if err := tbl.Pin(context.Background(), "pin", target); err != nil {
						t.Fatal(err)
					}
				}
			}
			pinned := f.load(tbl).meta.SnapshotByName("pin").SnapshotID
			tbl.Maintain(context.Background())
			back(f, tbl, pinned)
			if err := tbl.Unpin(context.Background(), "pin"); err != nil {
				t.Fatal(err)
			}
			tbl.opts.KeepSnapshots, tbl.opts.KeepHourly = 2, time.Nanosecond
			for i := range 5 { // everything from before the merge expires
				f.now = f.now.Add(2 * time.Hour)
				f.commit(tbl, fmt.Sprint("b", i))
				tbl.Maintain(context.Background())
			}
			if f.load(tbl).meta.SnapshotByID(pinned) != nil {
				t.Fatal("the old snapshot is alive: nothing was tested")
			}
			f.alive()
		})
	}
}

// TestSnapshotsAdrift: what a rollback leaves behind expires in the end, if it is
// ours; a snapshot that another engine staged without a ref is not.
func TestSnapshotsAdrift(t *testing.T) {
	f := newFixture(t)
	tbl := f.mustOpen(func(o *Options) { o.KeepHourly = time.Hour })
	first := f.commit(tbl, "a", makeRows(0, 1))
	dropped := f.commit(tbl, "b", makeRows(1, 2))
	v := f.load(tbl)
	staged := *v.head
	staged.SnapshotID, staged.SequenceNumber, staged.Summary = newSnapshotID(), v.meta.LastSequenceNumber()+1, &table.Summary{Operation: table.OpAppend}
	if _, err := f.catalog.Commit(context.Background(), tbl.ident, nil, []table.Update{
		table.NewAddSnapshotUpdate(&staged), table.NewSetSnapshotRefUpdate("main", first, table.BranchRef, 0, 0, 0),
		table.NewSetSnapshotRefUpdate("frazil-p", first, table.TagRef, 0, 0, 0),
	}); err != nil {
		t.Fatal(err)
	}
	f.commit(tbl, "c", makeRows(1, 2))
	if f.load(tbl).meta.SnapshotByID(dropped) == nil {
		t.Fatal("it is gone at once")
	}
	f.now = f.now.Add(2 * time.Hour)
	f.commit(tbl, "d", makeRows(2, 3))
	if meta := f.load(tbl).meta; meta.SnapshotByID(dropped) != nil || meta.SnapshotByID(staged.SnapshotID) == nil {
		t.Fatal("the one that was rolled back stays, or the staged one is gone")
	}
	f.alive()
}

// TestTwoPipelinesOneFolder: each deletes what it wrote or made expire, and
// nothing that the other, or a foreign engine, is about to commit.
func TestTwoPipelinesOneFolder(t *testing.T) {
	f := newFixture(t)
	p := f.mustOpen(brief)
	open := func() *Table {
		q, err := f.open(func(o *Options) {
			brief(o)
			o.Pipeline = "p-5" // whose names begin like those of p
		}, rowSchema)
		if err != nil {
			t.Fatal(err)
		}
		return q
	}
	q := open()
	f.commit(p, "a", makeRows(0, 1))
	commitQ := func(attempt string, from, to int) {
		files := f.write(q, attempt, makeRows(from, to))
		if _, err := f.load(q).Commit(context.Background(), &batch.Stamp{Name: "p-5", Attempt: attempt, Start: batch.Offsets{}, End: batch.Offsets{}}, files); err != nil {
			t.Fatal(err)
		}
	}
	commitQ("q0", 1, 2)
	// Both have a request under way, as has another engine: files that nothing
	// names yet.
	v := f.load(q)
	folder := filepath.Join(f.dir, "wh", "ns.db", "t", "metadata")
	underWay := []string{
		v.ownName() + ".avro", v.ownName() + "-m0.avro", f.load(p).ownName() + "-m0.avro",
		uuid.NewString() + "-m0.avro", "snap-123-1-" + uuid.NewString() + ".avro", "frazil-p-1-x.avro", "frazil-p-expired.json.bak",
		"99999-" + uuid.NewString() + ".metadata.json",
	}
	for _, name := range underWay {
		if err := os.WriteFile(filepath.Join(folder, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	check := func(names ...string) {
		t.Helper()
		got := f.metadata()
		for _, n := range names {
			if !got[n] {
				t.Fatalf("%s was deleted", n)
			}
		}
	}
	for i := range 4 { // p starts anew each time, q does not move
		p = f.mustOpen(brief)
		p.Maintain(context.Background())
		f.now = f.now.Add(2 * time.Hour)
		if i < 2 {
			check(underWay...)
		}
		if i == 0 {
			continue
		}
		f.commit(p, fmt.Sprint("b", i), makeRows(i+1, i+2))
		check(slices.Delete(slices.Clone(underWay), 2, 3)...) // p's request cannot land any more
	}
	p.Maintain(context.Background())
	if f.metadata()[underWay[2]] {
		t.Fatal("what p wrote and cannot commit any more is left")
	}
	// q moves, is restarted, and deletes its own.
	q = open()
	q.Maintain(context.Background())
	commitQ("q1", 5, 6)
	q.Maintain(context.Background())
	f.now = f.now.Add(2 * time.Hour)
	q.Maintain(context.Background())
	f.now = f.now.Add(2 * time.Hour)
	q.Maintain(context.Background())
	got := f.metadata()
	if got[underWay[0]] || got[underWay[1]] {
		t.Fatal("what q wrote and cannot commit any more is left")
	}
	check(underWay[3:]...)
	f.alive()
	if got := f.ids(nil); !slices.Equal(got, count(6)) {
		t.Fatalf("%v", got)
	}
}
