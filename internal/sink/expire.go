package sink

import (
	"context"
	"errors"
	"io/fs"
	"maps"
	"strings"
	"time"

	"github.com/apache/iceberg-go"
	"github.com/apache/iceberg-go/table"

	"github.com/frazil-io/frazil/internal/lake"
)

// cacheMax bounds the manifests whose entries are kept for merging. Only small
// ones are: those of merged manifests would be the whole table in the end.
const cacheMax = 4 * mergeWidth

// expired returns the snapshots that the next commit removes: ancestors of the
// head beyond those to keep. One that a ref of somebody else names stays, and so
// does whatever is not an ancestor of every live frazil tag of the branch:
// cutting the walk from the head to such a tag would make a rollback
// indistinguishable.
func (v *View) expired() []int64 {
	named := map[int64]bool{}
	tagged := map[int64]bool{}
	for name, ref := range v.meta.Refs() {
		if name == v.t.tag { // it moves to the new snapshot
			continue
		}
		named[ref.SnapshotID] = true
		if strings.HasPrefix(name, "frazil-") && v.alive(ref.SnapshotID) {
			tagged[ref.SnapshotID] = true
		}
	}
	ahead := 0 // tags of the branch that the walk has not met yet; those of others are never met
	v.walk(func(s *table.Snapshot) bool {
		if tagged[s.SnapshotID] {
			ahead++
		}
		return true
	})
	var gone []int64
	hours := map[int64]bool{}
	horizon := v.t.now().Add(-v.t.opts.KeepHourly).UnixMilli()
	kept := 1 // the new snapshot
	v.walk(func(s *table.Snapshot) bool {
		if tagged[s.SnapshotID] {
			ahead--
		}
		hour := s.TimestampMs / time.Hour.Milliseconds()
		newest := !hours[hour]
		hours[hour] = true
		switch {
		case kept < v.t.opts.KeepSnapshots, newest && s.TimestampMs >= horizon, named[s.SnapshotID], ahead > 0:
			kept++
		default:
			gone = append(gone, s.SnapshotID)
		}
		return true
	})
	return append(gone, v.adrift(horizon)...)
}

// adrift returns snapshots of this pipeline from before horizon that no ref
// leads to: somebody rolled the branch back, or a pin held one while those
// behind it expired. Nothing else would ever remove them.
func (v *View) adrift(horizon int64) []int64 {
	reached := map[int64]bool{}
	for _, ref := range v.meta.Refs() {
		for s := v.meta.SnapshotByID(ref.SnapshotID); s != nil && !reached[s.SnapshotID]; {
			reached[s.SnapshotID] = true
			if s.ParentSnapshotID == nil {
				break
			}
			s = v.meta.SnapshotByID(*s.ParentSnapshotID)
		}
	}
	var gone []int64
	for _, s := range v.meta.Snapshots() {
		if reached[s.SnapshotID] || s.TimestampMs >= horizon {
			continue
		}
		if st, err := stampOf(&s); err == nil && st != nil && st.Name == v.t.opts.Pipeline {
			gone = append(gone, s.SnapshotID)
		}
	}
	return gone
}

// alive says whether the tag on a snapshot still holds expiry back: one that has
// not moved for KeepHourly does not.
func (v *View) alive(snapshot int64) bool {
	s := v.meta.SnapshotByID(snapshot)
	return s != nil && s.TimestampMs >= v.t.now().Add(-v.t.opts.KeepHourly).UnixMilli()
}

// committed keeps what the next commits need, and notes what may be garbage.
func (t *Table) committed(before, after table.Metadata, c *change, manifests []iceberg.ManifestFile, expired []int64) {
	if !c.stage {
		clear(t.manifests) // only the head is built upon
	}
	t.manifests[c.id] = manifests
	live := map[string]bool{}
	paths := make([]string, 0, len(manifests))
	for _, m := range manifests {
		live[m.FilePath()] = true
		paths = append(paths, m.FilePath())
	}
	t.trash.know(c.id, paths)
	for _, m := range c.base {
		if !live[m.FilePath()] {
			t.trash.add(m.FilePath())
			delete(t.small, m.FilePath())
		}
	}
	if len(t.small) > cacheMax {
		clear(t.small)
	}
	maps.Copy(t.small, c.small)
	for _, id := range expired {
		if s := before.SnapshotByID(id); s != nil && s.ManifestList != "" {
			t.trash.add(s.ManifestList)
		}
	}
	if t.catalog.WritesMetadata() && deletesMetadata(after) {
		for e := range before.PreviousFiles() {
			t.trash.add(e.MetadataFile) // it may be in the log still, which is looked at again
		}
	}
}

// Sweep deletes the data files of an attempt that no live snapshot names.
func (t *Table) Sweep(ctx context.Context, attempt string) error {
	tbl, err := t.load(ctx)
	if err != nil {
		return err
	}
	folder := t.attemptFolder(tbl.Metadata(), attempt)
	files, err := t.list(folder)
	if err != nil || len(files) == 0 {
		return err
	}
	named, err := t.names(tbl.Metadata(), folder)
	if err != nil {
		return err
	}
	for _, f := range files {
		if named[suffix(f, folder)] {
			continue
		}
		if err := t.fs.Remove(f); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return lake.Classify("delete "+f, err)
		}
	}
	return nil
}

// suffix is a file's name within a folder: listings and manifests differ in how
// they spell what comes before.
func suffix(file, folder string) string {
	if i := strings.LastIndex(file, base(folder)+"/"); i >= 0 {
		return file[i:]
	}
	return file
}

func base(folder string) string {
	folder = strings.TrimRight(folder, "/")
	return folder[strings.LastIndexByte(folder, '/')+1:]
}

func (t *Table) list(folder string) ([]string, error) {
	var files []string
	err := t.fs.WalkDir(folder, func(name string, e fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err == nil && e != nil && !e.IsDir() {
			files = append(files, name)
		}
		return err
	})
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, lake.Classify("list "+folder, err)
	}
	return files, nil
}

// names returns which files of a folder any live snapshot names.
func (t *Table) names(meta table.Metadata, folder string) (map[string]bool, error) {
	named := map[string]bool{}
	read := map[string]bool{}
	for _, s := range meta.Snapshots() {
		manifests, err := t.manifestsOf(&s)
		if err != nil {
			return nil, err
		}
		for _, m := range manifests {
			if read[m.FilePath()] {
				continue
			}
			read[m.FilePath()] = true
			for e, err := range m.Entries(&t.fs, true) {
				if err != nil {
					return nil, lake.Classify("read "+m.FilePath(), err)
				}
				named[suffix(e.DataFile().FilePath(), folder)] = true
			}
		}
	}
	return named, nil
}
