package sink

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"github.com/apache/iceberg-go"
	"github.com/apache/iceberg-go/table"

	"github.com/frazil-io/frazil/internal/batch"
	"github.com/frazil-io/frazil/internal/lake"
)

// sourceSnapshot is what Iceberg's cherrypick_snapshot notes in the summary of the
// copy that it makes: the new snapshot has the files of the other one, and not its
// stamp.
const sourceSnapshot = "source-snapshot-id"

// Copied returns what other writers put on the branch behind the tag of files that
// attempts of pipelines wrote, as one does who publishes by hand what an audit held
// back, as far as the head still has them. It looks at snapshots that say that they
// are copies, and while something is staged at all that are younger than that.
// batch.ErrDataLost: a manifest is gone.
func (v *View) Copied(ctx context.Context) ([]batch.Copy, error) {
	if v.Head() == v.Tagged() {
		return nil, nil
	}
	var copies []batch.Copy
	var err error
	v.walk(func(s *table.Snapshot) bool {
		if v.tagged != nil && s.SnapshotID == v.tagged.SnapshotID {
			return false
		}
		if !v.mayCopy(s) {
			return true
		}
		var found []batch.Copy
		if found, err = v.copiesIn(s); err == nil {
			err = context.Cause(ctx)
		}
		copies = append(copies, found...)
		return err == nil
	})
	if err != nil || len(copies) == 0 {
		return nil, err
	}
	return v.stillThere(copies)
}

func (v *View) mayCopy(s *table.Snapshot) bool {
	if s.Summary == nil {
		return v.staged != nil
	}
	if st, err := stampOf(s); st != nil || err != nil {
		return false
	}
	return s.Summary.Properties[sourceSnapshot] != "" || v.staged != nil && s.SequenceNumber > v.staged.SequenceNumber
}

// copiesIn are the attempts whose files a snapshot added.
func (v *View) copiesIn(s *table.Snapshot) ([]batch.Copy, error) {
	v.t.mu.Lock()
	known, ok := v.t.copies[s.SnapshotID]
	v.t.mu.Unlock()
	if ok {
		return known, nil
	}
	by := map[string]*batch.Copy{}
	err := v.dataFiles(s, func(e iceberg.ManifestEntry, of int64) {
		attempt := v.attemptOf(e.DataFile().FilePath())
		if of != s.SnapshotID || e.Status() != iceberg.EntryStatusADDED || attempt == "" {
			return
		}
		c := by[attempt]
		if c == nil {
			c = &batch.Copy{Snapshot: s.SnapshotID, Attempt: attempt, Parent: parentOf(s)}
			by[attempt] = c
		}
		c.Files = append(c.Files, e.DataFile().FilePath())
	})
	if err != nil {
		return nil, err
	}
	found := make([]batch.Copy, 0, len(by))
	staged := v.stagedStamp()
	for _, c := range by {
		c.Staged = staged != nil && staged.Attempt == c.Attempt
		found = append(found, *c)
	}
	v.t.mu.Lock()
	defer v.t.mu.Unlock()
	v.t.copies[s.SnapshotID] = found
	return found, nil
}

func parentOf(s *table.Snapshot) int64 {
	if s.ParentSnapshotID == nil {
		return 0
	}
	return *s.ParentSnapshotID
}

// attemptOf is the attempt in whose folder a data file lies, "" for files that no
// pipeline wrote to this table.
func (v *View) attemptOf(name string) string {
	rest, ours := strings.CutPrefix(name, v.t.attemptFolder(v.meta, ""))
	attempt, file, ok := strings.Cut(rest, "/")
	if !ours || !ok || strings.Contains(file, "/") {
		return ""
	}
	return attempt
}

// stillThere leaves out copies of which the head has no file any more: somebody
// took them out again.
func (v *View) stillThere(copies []batch.Copy) ([]batch.Copy, error) {
	has := map[string]int64{}
	err := v.dataFiles(v.head, func(e iceberg.ManifestEntry, _ int64) {
		if e.Status() != iceberg.EntryStatusDELETED {
			has[e.DataFile().FilePath()] += e.DataFile().Count()
		}
	})
	if err != nil {
		return nil, err
	}
	var left []batch.Copy
	for _, c := range copies {
		there := false
		for _, name := range c.Files {
			rows, ok := has[name]
			there = there || ok
			c.Rows += rows
		}
		if there {
			left = append(left, c)
		}
	}
	return left, nil
}

// dataFiles visits the data files that a snapshot's manifests name, with the
// snapshot that made the manifest.
func (v *View) dataFiles(s *table.Snapshot, visit func(e iceberg.ManifestEntry, of int64)) error {
	gone := func(name string, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("%w: snapshot %d of table %s names %s, which does not exist: restore it, or roll the table back", batch.ErrDataLost, s.SnapshotID, v.t.opts.Table, name)
		}
		return lake.Classify("read "+name, err)
	}
	manifests, err := s.Manifests(&v.t.fs)
	if err != nil {
		return gone(s.ManifestList, err)
	}
	for _, m := range manifests {
		if m.ManifestContent() != iceberg.ManifestContentData {
			continue
		}
		for e, err := range m.Entries(&v.t.fs, true) {
			if err != nil {
				return gone(m.FilePath(), err)
			}
			visit(e, m.SnapshotID())
		}
	}
	return nil
}
