package verify

import (
	"errors"
	"fmt"
	"io/fs"

	"github.com/apache/iceberg-go"

	"github.com/frazil-io/frazil/internal/batch"
	"github.com/frazil-io/frazil/internal/lake"
)

// What a snapshot's summary says of a batch that was run again on a branch.
const (
	ReplayedBatch = "frazil.replayed-batch"
	ReplayedPlan  = "frazil.replayed-plan"
)

// SnapshotBefore is the snapshot upon which that of a batch was built, 0 where there
// was none; ok is false where it has expired. A batch that committed nothing is
// behind the table's newest snapshot.
func SnapshotBefore(t Table, b Batch) (id int64, ok bool) {
	if b.Snapshot == 0 {
		if b.Stamp == nil && len(b.Files) == 0 {
			if s := t.Metadata.CurrentSnapshot(); s != nil {
				return s.SnapshotID, true
			}
		}
		return 0, false
	}
	s := t.Metadata.SnapshotByID(b.Snapshot)
	if s == nil {
		return 0, false
	}
	if s.ParentSnapshotID == nil {
		return 0, true
	}
	return *s.ParentSnapshotID, t.Metadata.SnapshotByID(*s.ParentSnapshotID) != nil
}

// Batch is what a table has of one batch.
type Batch struct {
	Snapshot int64 // 0: nothing was committed, or it has expired
	Files    []string
	Rows     int64
	// Stamp is that of the snapshot, nil where it has expired.
	Stamp *batch.Stamp
	// Stands is the batch that the table has newest; batch.None without one.
	Stands batch.ID
}

// Contents finds what a table has of each batch.
type Contents struct {
	t    Table
	h    *history
	head map[string]*Batch // by attempt; nil before it was needed
}

// NewContents looks into a table of the pipeline.
func NewContents(t Table, pipeline string) *Contents {
	c := &Contents{t: t}
	if t.Metadata != nil {
		c.h = newHistory(t, batch.Tag(pipeline, batch.StreamMain))
	}
	return c
}

// BatchOf finds the data files of a batch. later are plans behind it, in order:
// they name the attempt of a batch whose snapshot has expired. ok is false where
// the table does not have the batch yet, or that cannot be told any more.
func (c *Contents) BatchOf(inc batch.Incarnation, id batch.ID, later []*batch.Plan) (b Batch, ok bool, err error) {
	b.Stands = batch.None
	if c.h == nil {
		return b, false, nil
	}
	if c.h.tagged != nil && c.h.tagged.stamp != nil {
		b.Stands = c.h.tagged.stamp.Last
	}
	for _, s := range c.h.all {
		if st := s.stamp; st != nil && st.Of(inc, batch.StreamMain) && st.Kind == "" && st.First <= id && id <= st.Last {
			b.Stamp = st
			if st.Last != id {
				return b, true, nil // it went by without rows
			}
			b.Snapshot = s.SnapshotID
			return b, true, c.added(&b, s)
		}
	}
	for _, p := range later {
		sp := p.Sink(c.t.Sink)
		if sp == nil || sp.Before.Hash == "" || sp.Before.Last < id {
			continue
		}
		if sp.Before.Last != id {
			return b, true, nil
		}
		if err := c.index(); err != nil {
			return b, false, err
		}
		if has := c.head[sp.Before.Attempt]; has != nil {
			b.Files, b.Rows = has.Files, has.Rows
		}
		return b, true, nil
	}
	return b, len(later) > 0, nil // nothing has been committed since
}

// added lists what a snapshot added.
func (c *Contents) added(b *Batch, s *snapshot) error {
	return c.entries(s, func(e iceberg.ManifestEntry, of int64) {
		if of == s.SnapshotID && e.Status() == iceberg.EntryStatusADDED {
			b.Files = append(b.Files, e.DataFile().FilePath())
			b.Rows += e.DataFile().Count()
		}
	})
}

// index lists what the table has now, by attempt.
func (c *Contents) index() error {
	if c.head != nil || c.h.head == nil {
		return nil
	}
	head := map[string]*Batch{}
	err := c.entries(c.h.head, func(e iceberg.ManifestEntry, _ int64) {
		attempt := attemptOf(e.DataFile().FilePath())
		if head[attempt] == nil {
			head[attempt] = &Batch{}
		}
		head[attempt].Files = append(head[attempt].Files, e.DataFile().FilePath())
		head[attempt].Rows += e.DataFile().Count()
	})
	if err == nil {
		c.head = head
	}
	return err
}

// entries visits the data files of a snapshot, with the snapshot that made their
// manifest.
func (c *Contents) entries(s *snapshot, visit func(e iceberg.ManifestEntry, of int64)) error {
	manifests, err := s.Manifests(c.t.FS)
	if err != nil {
		return unread(s.ManifestList, err)
	}
	for _, m := range manifests {
		if m.ManifestContent() != iceberg.ManifestContentData {
			continue
		}
		for e, err := range m.Entries(c.t.FS, true) {
			if err != nil {
				return unread(m.FilePath(), err)
			}
			visit(e, m.SnapshotID())
		}
	}
	return nil
}

func unread(name string, err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: %s does not exist: `frazil verify` tells more", batch.ErrDataLost, name)
	}
	return lake.Classify("read "+name, err)
}
