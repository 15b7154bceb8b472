package sink

import (
	"context"
	"fmt"
	"strings"

	"github.com/apache/iceberg-go"
	"github.com/apache/iceberg-go/table"

	"github.com/frazil-io/frazil/internal/batch"
)

// View is a table's metadata as loaded once.
type View struct {
	t      *Table
	meta   table.Metadata
	layout *layout
	branch *table.Snapshot // where the branch is; nil: there is none yet
	head   *table.Snapshot // what the next commit builds upon; nil: nothing
	tagged *table.Snapshot // nil: there is no tag
	staged *table.Snapshot // nil: nothing is
	stamp  *batch.Stamp
}

func (t *Table) view(meta table.Metadata) (*View, error) {
	v := &View{t: t, meta: meta, tagged: meta.SnapshotByName(t.tag), staged: meta.SnapshotByName(t.AuditBranch())}
	v.branch = meta.SnapshotByName(t.opts.Branch)
	v.head = v.branch
	if v.head == nil { // a branch that is made begins with what the table has, as in Iceberg's Java library
		v.head = meta.CurrentSnapshot()
	}
	if t.opts.Branch == table.MainBranch {
		v.branch = v.head
	}
	var err error
	if v.layout, err = t.layout(meta, t.sqlRows()); err != nil {
		return nil, err
	}
	if v.tagged != nil {
		if v.stamp, err = stampOf(v.tagged); err != nil {
			return nil, fmt.Errorf("table %s: %w", t.opts.Table, err)
		}
		if v.stamp == nil {
			return nil, fmt.Errorf("%w: tag %s of table %s is on snapshot %d, which carries no stamp: somebody moved it; put it back on the newest stamped snapshot",
				batch.ErrDataLost, t.tag, t.opts.Table, v.tagged.SnapshotID)
		}
	}
	return v, nil
}

func stampOf(s *table.Snapshot) (*batch.Stamp, error) {
	if s.Summary == nil {
		return nil, nil
	}
	return batch.ParseStamp(s.Summary.Properties)
}

// Stamp is what the tagged snapshot carries, nil without a tag.
func (v *View) Stamp() *batch.Stamp { return v.stamp }

// Tagged is the tagged snapshot, 0 without a tag.
func (v *View) Tagged() int64 {
	if v.tagged == nil {
		return 0
	}
	return v.tagged.SnapshotID
}

// Head is the snapshot that the next commit builds upon, 0 if there is none.
func (v *View) Head() int64 {
	if v.head == nil {
		return 0
	}
	return v.head.SnapshotID
}

// Ancestry says how the tag relates to the head.
func (v *View) Ancestry() batch.Ancestry {
	if v.tagged == nil {
		return batch.IsAncestor
	}
	for s := v.head; s != nil; {
		if s.SnapshotID == v.tagged.SnapshotID {
			return batch.IsAncestor
		}
		if s.ParentSnapshotID == nil {
			// pyiceberg's expiry takes the parent's id away from what it leaves.
			if s.SequenceNumber > v.tagged.SequenceNumber {
				return batch.UnknownAncestor
			}
			return batch.NotAncestor
		}
		if s = v.meta.SnapshotByID(*s.ParentSnapshotID); s == nil {
			if v.rolledBack() {
				return batch.NotAncestor
			}
			return batch.UnknownAncestor
		}
	}
	return batch.NotAncestor
}

// rolledBack says whether the tagged snapshot was built upon the head: then the
// table was rolled back, whatever has expired before that.
func (v *View) rolledBack() bool {
	for s := v.tagged; s.ParentSnapshotID != nil; {
		if *s.ParentSnapshotID == v.Head() {
			return true
		}
		if s = v.meta.SnapshotByID(*s.ParentSnapshotID); s == nil {
			return false
		}
	}
	return false
}

// walk calls f for each live snapshot from the head back, until f says no.
func (v *View) walk(f func(*table.Snapshot) bool) {
	for s := v.head; s != nil && f(s) && s.ParentSnapshotID != nil; {
		s = v.meta.SnapshotByID(*s.ParentSnapshotID)
	}
}

// onBranch says whether a snapshot is the head, or an ancestor of it.
func (v *View) onBranch(of *table.Snapshot) (found bool) {
	v.walk(func(s *table.Snapshot) bool {
		found = s.SnapshotID == of.SnapshotID
		return !found
	})
	return found
}

// History returns the live snapshots from the head back.
func (v *View) History() []batch.Stamped {
	var all []batch.Stamped
	v.walk(func(s *table.Snapshot) bool {
		st, err := stampOf(s)
		if err != nil {
			st = nil // of a newer version: not ours to judge
		}
		all = append(all, batch.Stamped{Snapshot: s.SnapshotID, Stamp: st})
		return true
	})
	return all
}

// Snapshot returns the stamp of any live snapshot.
func (v *View) Snapshot(id int64) (*batch.Stamp, bool) {
	s := v.meta.SnapshotByID(id)
	if s == nil {
		return nil, false
	}
	st, err := stampOf(s)
	return st, err == nil
}

// Streams are the pipeline's other streams that have a tag on this table.
func (v *View) Streams() (streams []string) {
	main := batch.Tag(v.t.opts.Pipeline, batch.StreamMain)
	for name := range v.meta.Refs() {
		if stream, ok := strings.CutPrefix(name, main+"."); ok && stream == batch.StreamReplay && name != v.t.tag {
			streams = append(streams, stream)
		}
	}
	return streams
}

// Untag removes the tag, where it still is on the snapshot that was seen.
func (v *View) Untag(ctx context.Context) error {
	if v.tagged == nil {
		return nil
	}
	_, err := v.t.catalog.Commit(ctx, v.t.ident,
		[]table.Requirement{table.AssertTableUUID(v.meta.TableUUID()), table.AssertRefSnapshotID(v.t.tag, idOf(v.tagged))},
		[]table.Update{table.NewRemoveSnapshotRefUpdate(v.t.tag)})
	return err
}

// Metadata is what was loaded.
func (v *View) Metadata() table.Metadata { return v.meta }

// requirements assert everything that was seen.
func (v *View) requirements() []table.Requirement {
	return []table.Requirement{
		table.AssertTableUUID(v.meta.TableUUID()),
		table.AssertRefSnapshotID(v.t.opts.Branch, idOf(v.branch)),
		table.AssertRefSnapshotID(v.t.tag, idOf(v.tagged)),
		table.AssertRefSnapshotID(v.t.AuditBranch(), idOf(v.staged)),
		table.AssertCurrentSchemaID(v.meta.CurrentSchema().ID),
		table.AssertDefaultSpecID(v.meta.DefaultPartitionSpec()),
	}
}

func idOf(s *table.Snapshot) *int64 {
	if s == nil {
		return nil
	}
	id := s.SnapshotID
	return &id
}

// spec is the partition spec for new files.
func (v *View) spec() iceberg.PartitionSpec { return v.meta.PartitionSpec() }
