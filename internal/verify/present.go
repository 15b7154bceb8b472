package verify

import (
	"fmt"

	"github.com/apache/iceberg-go"

	"github.com/frazil-io/frazil/internal/batch"
)

// presence holds what the table has now against what its live snapshots added and
// removed: a manifest list that was edited, or replaced by another one with as many
// rows, has files that nobody added, or lacks some that nobody removed.
type presence struct {
	head    map[uint64]inHead // files of attempts that the table has
	added   map[uint64]bool   // files of attempts that live snapshots added
	removed map[uint64]bool   // and removed
	adds    []addition
	// partly says that a manifest was not there, and so nothing can be told.
	partly bool
}

type inHead struct {
	name     string
	snapshot int64 // that added it, as its manifest says
	rows     int64
}

type addition struct {
	of   *snapshot
	key  uint64
	name string
	rows int64
}

func newPresence() *presence {
	return &presence{head: map[uint64]inHead{}, added: map[uint64]bool{}, removed: map[uint64]bool{}}
}

// present judges what was gathered.
func (f *files) present() {
	p := f.presence
	if p.partly {
		return
	}
	by := map[string]*snapshot{} // live batches, by attempt
	restored := int64(-1)        // a rewind has the files of an earlier snapshot
	for _, s := range f.all {
		switch {
		case s.stamp == nil:
		case s.stamp.Kind == "":
			by[s.stamp.Attempt] = s
		case s.stamp.Kind == batch.Rewind && f.onBranch[s.SnapshotID]:
			restored = max(restored, s.SequenceNumber)
		}
	}
	for key, h := range p.head {
		s := by[attemptOf(h.name)]
		if s == nil {
			s = f.byID[h.snapshot]
		}
		if s != nil && !p.added[key] {
			f.find(AddedFile, h.name, fmt.Sprintf("is in the table with %d rows, and no snapshot added it; %s, of which it should be, did not: the table's manifests were edited", h.rows, s.where()), todoHistory)
		}
	}
	for _, a := range p.adds {
		if _, there := p.head[a.key]; !there && !p.removed[a.key] && f.onBranch[a.of.SnapshotID] && a.of.SequenceNumber > restored {
			f.find(RemovedRows, a.of.where(), fmt.Sprintf("added %s with %d rows, which the table has no more, and no snapshot removed it: the table's manifests were edited", a.name, a.rows), todoHistory)
		}
	}
}

// tally counts what a manifest has, to be held against what the manifest list says.
type tally struct{ files, rows [3]int64 } // by status

func (t *tally) add(e iceberg.ManifestEntry) {
	if s := int(e.Status()); s >= 0 && s < len(t.files) {
		t.files[s]++
		t.rows[s] += e.DataFile().Count()
	}
}

// differ says in what a manifest is not what its list says; live: its removed files
// were not counted.
func (t *tally) differ(m iceberg.ManifestFile, live bool) string {
	if m.Version() < 2 { // where the list need not say it
		return ""
	}
	for _, c := range []struct {
		what      string
		has, says int64
	}{
		{"added files", t.files[iceberg.EntryStatusADDED], int64(m.AddedDataFiles())},
		{"added rows", t.rows[iceberg.EntryStatusADDED], m.AddedRows()},
		{"files from before", t.files[iceberg.EntryStatusEXISTING], int64(m.ExistingDataFiles())},
		{"rows from before", t.rows[iceberg.EntryStatusEXISTING], m.ExistingRows()},
		{"removed files", t.files[iceberg.EntryStatusDELETED], int64(m.DeletedDataFiles())},
		{"removed rows", t.rows[iceberg.EntryStatusDELETED], m.DeletedRows()},
	} {
		if c.has != c.says && (!live || c.what != "removed files" && c.what != "removed rows") {
			return fmt.Sprintf("has %d %s, and the manifest list says %d", c.has, c.what, c.says)
		}
	}
	return ""
}

// length compares the length of a manifest with what its list says.
func (f *files) length(m iceberg.ManifestFile) (wrong string, err error) {
	in, err := f.fs.Open(m.FilePath())
	if err != nil {
		return "", err
	}
	info, err := in.Stat()
	if closed := in.Close(); err == nil {
		err = closed
	}
	if err == nil && info.Size() != m.Length() {
		wrong = fmt.Sprintf("has %d bytes, and the manifest list says %d", info.Size(), m.Length())
	}
	return wrong, err
}
