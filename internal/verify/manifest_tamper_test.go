package verify

import (
	"bytes"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/apache/iceberg-go"
	"github.com/apache/iceberg-go/table"
	"github.com/google/uuid"

	"github.com/frazil-io/frazil/internal/batch"
	"github.com/frazil-io/frazil/internal/sink"
)

func local(name string) string { return strings.TrimPrefix(name, "file://") }

// manifest is a snapshot's own one, and its entries.
func (w *world) manifest(s table.Snapshot) (iceberg.ManifestFile, []iceberg.ManifestEntry) {
	w.Helper()
	files, err := w.load().FS(w.Context())
	w.must(err)
	manifests, err := s.Manifests(files)
	w.must(err)
	for _, m := range manifests {
		if m.SnapshotID() != s.SnapshotID {
			continue
		}
		var entries []iceberg.ManifestEntry
		for e, err := range m.Entries(files, false) {
			w.must(err)
			entries = append(entries, e)
		}
		return m, entries
	}
	w.Fatalf("snapshot %d has no manifest of its own", s.SnapshotID)
	return nil, nil
}

// newManifest writes a manifest of a snapshot to a file.
func (w *world) newManifest(name string, of int64, entries ...iceberg.ManifestEntry) iceberg.ManifestFile {
	w.Helper()
	meta := w.load().Metadata()
	var buf bytes.Buffer
	m, err := iceberg.WriteManifest(name, &buf, meta.Version(), meta.PartitionSpec(), meta.CurrentSchema(), of, entries)
	w.must(err)
	w.must(os.WriteFile(local(name), buf.Bytes(), 0o600))
	return m
}

// relist writes a snapshot's manifest list anew, with another manifest in the place of
// one.
func (w *world) relist(s table.Snapshot, old, by iceberg.ManifestFile) {
	w.Helper()
	files, err := w.load().FS(w.Context())
	w.must(err)
	manifests, err := s.Manifests(files)
	w.must(err)
	for i, m := range manifests {
		if m.FilePath() == old.FilePath() {
			b := iceberg.NewManifestFile(2, by.FilePath(), by.Length(), by.PartitionSpecID(), old.SnapshotID()).
				AddedFiles(by.AddedDataFiles()).AddedRows(by.AddedRows()).ExistingFiles(by.ExistingDataFiles()).ExistingRows(by.ExistingRows()).
				DeletedFiles(by.DeletedDataFiles()).DeletedRows(by.DeletedRows()).SequenceNum(old.SequenceNum(), old.MinSequenceNum())
			manifests[i] = b.Build()
		}
	}
	var buf bytes.Buffer
	w.must(iceberg.WriteManifestList(2, &buf, s.SnapshotID, s.ParentSnapshotID, &s.SequenceNumber, 0, manifests))
	w.must(os.WriteFile(local(s.ManifestList), buf.Bytes(), 0o600))
}

// other is another data file in the folder of a snapshot's attempt, with so many rows,
// described as its manifest would.
func (w *world) other(s table.Snapshot, rows int64, name string) iceberg.DataFile {
	w.Helper()
	st, err := batch.ParseStamp(s.Summary.Properties)
	w.must(err)
	attempt := uuid.NewString()
	w.write(attempt, rows)
	folder := filepath.Join(w.dir, "wh", "*", "*", "data")
	made, err := filepath.Glob(filepath.Join(folder, "frazil-"+attempt, "*.parquet"))
	w.must(err)
	to := filepath.Join(filepath.Dir(filepath.Dir(made[0])), "frazil-"+st.Attempt, name)
	w.must(os.Rename(made[0], to))
	info, err := os.Stat(to)
	w.must(err)
	b, err := iceberg.NewDataFileBuilder(w.load().Metadata().PartitionSpec(), iceberg.EntryContentData, "file://"+to, iceberg.ParquetFile, nil, nil, nil, rows, info.Size())
	w.must(err)
	return b.Build()
}

// another commits a snapshot behind the head as another engine would: with a manifest
// of its own, and those of the head but what one snapshot added.
func (w *world) another(head, s table.Snapshot, own iceberg.ManifestFile, without int64) {
	w.Helper()
	files, err := w.load().FS(w.Context())
	w.must(err)
	manifests, err := head.Manifests(files)
	w.must(err)
	kept := []iceberg.ManifestFile{own}
	for _, m := range manifests {
		if m.SnapshotID() != without {
			kept = append(kept, m)
		}
	}
	s.ParentSnapshotID, s.SequenceNumber, s.SchemaID = &head.SnapshotID, w.load().Metadata().LastSequenceNumber()+1, head.SchemaID
	s.TimestampMs, s.ManifestList = w.load().Metadata().LastUpdatedMillis(), strings.Replace(head.ManifestList, ".avro", "-l7.avro", 1)
	var buf bytes.Buffer
	w.must(iceberg.WriteManifestList(2, &buf, s.SnapshotID, s.ParentSnapshotID, &s.SequenceNumber, 0, kept))
	w.must(os.WriteFile(local(s.ManifestList), buf.Bytes(), 0o600))
	w.commit(table.NewAddSnapshotUpdate(&s), table.NewSetSnapshotRefUpdate("main", s.SnapshotID, table.BranchRef, 0, 0, 0))
}

// TestTamperedManifests: who can write to the warehouse changes manifests, in the place
// of the table's metadata, so that the totals are as they were.
func TestTamperedManifests(t *testing.T) {
	tests := []struct {
		name  string
		plant func(*world)
		code  Code
		text  string
	}{
		{"two data files with as many rows swapped", func(w *world) {
			all := w.history()
			a, b := w.dataFiles(all[4])[0], w.dataFiles(all[5])[0]
			w.must(os.Rename(a, a+".x"))
			w.must(os.Rename(b, a))
			w.must(os.Rename(a+".x", b))
		}, ChangedFile, "it is another file"},
		{"the head has another file with as many rows in the place of one", func(w *world) {
			all := w.history()
			old, entries := w.manifest(all[5])
			id := all[5].SnapshotID
			seq := all[5].SequenceNumber
			x := w.other(all[5], entries[0].DataFile().Count(), "x.parquet")
			by := w.newManifest(strings.Replace(old.FilePath(), "-m0.avro", "-m1.avro", 1), id, iceberg.NewManifestEntry(iceberg.EntryStatusADDED, &id, &seq, &seq, x))
			w.relist(all[7], old, by)
		}, AddedFile, "no snapshot added it"},
		{"the same, and what is missing is told, too", func(w *world) {
			all := w.history()
			old, entries := w.manifest(all[5])
			id := all[5].SnapshotID
			seq := all[5].SequenceNumber
			x := w.other(all[6], entries[0].DataFile().Count(), "x.parquet")
			by := w.newManifest(strings.Replace(old.FilePath(), "-m0.avro", "-m1.avro", 1), id, iceberg.NewManifestEntry(iceberg.EntryStatusADDED, &id, &seq, &seq, x))
			w.relist(all[7], old, by)
		}, RemovedRows, "and no snapshot removed it"},
		{"a manifest edited where it is", func(w *world) {
			all := w.history()
			old, entries := w.manifest(all[5])
			id := all[5].SnapshotID
			x := w.other(all[5], entries[0].DataFile().Count()-1, "x.parquet")
			w.newManifest(old.FilePath(), id, iceberg.NewManifestEntry(iceberg.EntryStatusADDED, &id, nil, nil, x))
		}, ChangedFile, "added rows, and the manifest list says"},
		{"a manifest of another length", func(w *world) {
			all := w.history()
			old, entries := w.manifest(all[5])
			id := all[5].SnapshotID
			w.newManifest(old.FilePath(), id, iceberg.NewManifestEntry(iceberg.EntryStatusADDED, &id, nil, nil, w.other(all[5], entries[0].DataFile().Count(), "a-longer-name.parquet")))
		}, ChangedFile, "bytes, and the manifest list says"},
		{"a compaction that loses a row and does not say so", func(w *world) {
			all := w.history()
			_, entries := w.manifest(all[5])
			id := int64(77)
			seq := all[5].SequenceNumber
			x := w.other(all[5], entries[0].DataFile().Count()-1, "x.parquet")
			b, err := iceberg.NewDataFileBuilder(w.load().Metadata().PartitionSpec(), iceberg.EntryContentData, strings.Replace(x.FilePath(), "/frazil-", "/compacted-", 1), iceberg.ParquetFile, nil, nil, nil, x.Count(), x.FileSizeBytes())
			w.must(err)
			y := b.Build()
			w.must(os.MkdirAll(filepath.Dir(local(y.FilePath())), 0o755))
			w.must(os.Rename(local(x.FilePath()), local(y.FilePath())))
			m := w.newManifest(strings.Replace(all[7].ManifestList, ".avro", "-m7.avro", 1), id,
				iceberg.NewManifestEntry(iceberg.EntryStatusDELETED, &id, &seq, &seq, entries[0].DataFile()), iceberg.NewManifestEntry(iceberg.EntryStatusADDED, &id, nil, nil, y))
			w.another(all[7], table.Snapshot{SnapshotID: id, Summary: &table.Summary{Operation: table.OpReplace, Properties: map[string]string{}}}, m, all[5].SnapshotID)
		}, RemovedRows, "rewrote"},
		{"a copy of what was staged", func(w *world) {
			all := w.history()
			id := int64(77)
			m := w.newManifest(strings.Replace(all[7].ManifestList, ".avro", "-m7.avro", 1), id, iceberg.NewManifestEntry(iceberg.EntryStatusADDED, &id, nil, nil, w.other(all[7], 5, "x.parquet")))
			w.another(all[7], table.Snapshot{SnapshotID: id, Summary: &table.Summary{Operation: table.OpAppend, Properties: map[string]string{sourceSnapshot: "76"}}}, m, 0)
		}, AddedFile, "a copy of snapshot 76 (cherrypick_snapshot)"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			w := sqlWorld(t, 100)
			w.runs(8)
			w.clean()
			tt.plant(w)
			w.finds(tt.code, tt.text)
		})
	}
}

// TestHealthyHistories: what the table may lack of what its snapshots added.
func TestHealthyHistories(t *testing.T) {
	w := sqlWorld(t, 100)
	w.runs(6)
	w.begin(batch.Rewind, w.history()[3].SnapshotID)
	w.clean()
	w.runs(2)
	w.clean()
	w.begin(batch.Recover, 0)
	w.runs(40) // which merges manifests
	w.clean()
}

// TestOtherPartition: a manifest that says that a file is in another partition than its
// rows hides them from whoever asks for theirs.
func TestOtherPartition(t *testing.T) {
	for _, by := range []string{"truncate(1000, id)", "bucket(64, id)", "id"} {
		w := sqlWorld(t, 100)
		w.must(w.catalog.DropTable(w.Context(), table.Identifier{"ns", "t"}))
		var err error
		w.table, err = sink.Open(w.Context(), w.catalog, sink.Options{Pipeline: "p", Table: "ns.t", Create: true, PartitionBy: []string{by}}, columns,
			func() time.Time { return w.now }, slog.New(slog.DiscardHandler))
		w.must(err)
		w.runs(8)
		w.clean()
		s := w.history()[4]
		old, entries := w.manifest(s)
		for i, e := range entries {
			d := e.DataFile()
			b, err := iceberg.NewDataFileBuilder(w.load().Metadata().PartitionSpec(), iceberg.EntryContentData, d.FilePath(), iceberg.ParquetFile, map[int]any{1000: elsewhere(d.Partition()[1000])}, nil, nil, d.Count(), d.FileSizeBytes())
			w.must(err)
			entries[i] = iceberg.NewManifestEntry(iceberg.EntryStatusADDED, &s.SnapshotID, nil, nil, b.Build())
		}
		w.newManifest(old.FilePath(), s.SnapshotID, entries...)
		w.finds(ChangedFile, "has a value whose partition is")
	}
}

// elsewhere is another partition value.
func elsewhere(v any) any {
	if n, ok := v.(int32); ok {
		return (n + 1) % 64
	}
	return v.(int64) + 1000
}
