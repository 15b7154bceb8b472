package verify

import (
	"slices"
	"strconv"

	iceio "github.com/apache/iceberg-go/io"
	"github.com/apache/iceberg-go/table"

	"github.com/frazil-io/frazil/internal/batch"
)

// Table is one table of the pipeline as it was loaded once.
type Table struct {
	Sink   string
	Name   string // namespace.table
	Branch string // "": main
	// Metadata is nil where the table does not exist.
	Metadata table.Metadata
	FS       iceio.IO
}

// snapshot is a live snapshot of a table.
type snapshot struct {
	*table.Snapshot
	stamp *batch.Stamp
	hash  string // of the stamp
	bad   error  // why its stamp cannot be read
}

// where names a snapshot for people.
func (s *snapshot) where() string { return "snapshot " + strconv.FormatInt(s.SnapshotID, 10) }

func (s *snapshot) parent() (int64, bool) {
	if s.ParentSnapshotID == nil {
		return 0, false
	}
	return *s.ParentSnapshotID, true
}

// cut says whether a snapshot without a parent has lost it: an expiry by pyiceberg
// takes the parent's id away from the snapshots that it leaves.
func (s *snapshot) cut() bool { return s.ParentSnapshotID == nil && s.SequenceNumber > 1 }

func (s *snapshot) operation() table.Operation {
	if s.Summary == nil {
		return ""
	}
	return s.Summary.Operation
}

// number reads a number of the summary; ok is false where it has none.
func (s *snapshot) number(key string) (n int64, ok bool) {
	if s.Summary == nil {
		return 0, false
	}
	n, err := strconv.ParseInt(s.Summary.Properties[key], 10, 64)
	return n, err == nil
}

// history is what the metadata of a table say.
type history struct {
	meta   table.Metadata
	all    []*snapshot // in the order of their commits
	byID   map[int64]*snapshot
	head   *snapshot // of the branch; nil: there is none
	tagged *snapshot // nil: there is no tag
	// onBranch are those that the walk from the head along the parents meets, and
	// end is the last of them.
	onBranch map[int64]bool
	end      *snapshot
	named    map[int64]bool // by a ref other than the pipeline's tag and the branch
}

func newHistory(t Table, tag string) *history {
	h := &history{meta: t.Metadata, byID: map[int64]*snapshot{}, onBranch: map[int64]bool{}, named: map[int64]bool{}}
	snapshots := t.Metadata.Snapshots()
	branch := t.Branch
	if branch == "" {
		branch = table.MainBranch
	}
	staged := t.Metadata.SnapshotByName(batch.AuditBranch(tag))
	if staged != nil && ancestor(t.Metadata, staged, branch) {
		staged = nil // somebody published it
	}
	for i := range snapshots {
		if staged != nil && snapshots[i].SnapshotID == staged.SnapshotID {
			continue // it waits for its audit, and is no part of the table
		}
		s := &snapshot{Snapshot: &snapshots[i]}
		if s.Summary != nil {
			s.stamp, s.bad = batch.ParseStamp(s.Summary.Properties)
			s.hash = s.stamp.Hash()
		}
		h.all = append(h.all, s)
		h.byID[s.SnapshotID] = s
	}
	slices.SortStableFunc(h.all, func(a, b *snapshot) int { return int(a.SequenceNumber - b.SequenceNumber) })
	if s := t.Metadata.SnapshotByName(branch); s != nil {
		h.head = h.byID[s.SnapshotID]
	} else if s := t.Metadata.CurrentSnapshot(); s != nil && branch == table.MainBranch {
		h.head = h.byID[s.SnapshotID]
	}
	if s := t.Metadata.SnapshotByName(tag); s != nil {
		h.tagged = h.byID[s.SnapshotID]
	}
	for name, ref := range t.Metadata.Refs() {
		if name != tag && name != branch {
			h.named[ref.SnapshotID] = true
		}
	}
	for s := h.head; s != nil; s = h.before(s) {
		h.onBranch[s.SnapshotID] = true
		h.end = s
	}
	return h
}

// ancestor says whether the live parents of a branch's head lead to a snapshot,
// or whether it is the head.
func ancestor(meta table.Metadata, of *table.Snapshot, branch string) bool {
	for s := meta.SnapshotByName(branch); s != nil; s = meta.SnapshotByID(*s.ParentSnapshotID) {
		if s.SnapshotID == of.SnapshotID {
			return true
		}
		if s.ParentSnapshotID == nil {
			return false
		}
	}
	return false
}

// before is a snapshot's parent, nil if it has none or it is not live any more.
func (h *history) before(s *snapshot) *snapshot {
	id, ok := s.parent()
	if !ok {
		return nil
	}
	return h.byID[id]
}

// leads says whether the live parents of a snapshot lead to another one, and if
// not, whether that is because a parent is not live any more.
func (h *history) leads(from, to *snapshot) (reaches, expired bool) {
	for s := from; ; {
		if s.SnapshotID == to.SnapshotID {
			return true, false
		}
		_, has := s.parent()
		next := h.before(s)
		if next == nil {
			return false, has || s.cut()
		}
		s = next
	}
}
