package sink

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"path"
	"reflect"
	"slices"
	"strconv"

	"github.com/apache/iceberg-go"
	"github.com/apache/iceberg-go/table"

	"github.com/frazil-io/frazil/internal/batch"
	"github.com/frazil-io/frazil/internal/lake"
)

// change is one snapshot in the making.
type change struct {
	id        int64
	sequence  int64
	operation table.Operation
	base      []iceberg.ManifestFile // whose files stay
	files     []iceberg.DataFile     // that are new
	schema    *iceberg.Schema        // of the table when it is done
	totals    *table.Summary         // of the snapshot that base comes from
	stamp     *batch.Stamp           // nil on a branch for looking
	notes     map[string]string      // for the summary
	evolve    *Files                 // whose schema the table gets; nil: it keeps its own
	stage     bool                   // beside the branch
	wrote     []string               // files of metadata
	small     map[string][]byte      // manifests of few files that were written, by name
}

// Commit adds one snapshot with the files and the stamp and moves the tag to it.
// Without files it is an empty snapshot: it moves the head all the same, so that
// no older request can land any more. Whatever it returns, it may have been
// applied.
//
// Where a snapshot with the same stamp is staged on the same head, that one
// becomes the head instead. Whatever else is staged is removed.
func (v *View) Commit(ctx context.Context, stamp *batch.Stamp, files *Files) (int64, error) {
	if v.publishes(stamp) {
		return v.publish(ctx)
	}
	c, err := v.appended(stamp, files)
	if err != nil {
		return 0, err
	}
	return v.commit(ctx, c)
}

// appended is a change that adds files to what the head has.
func (v *View) appended(stamp *batch.Stamp, files *Files) (*change, error) {
	c := &change{operation: table.OpAppend, stamp: stamp}
	if files != nil {
		if err := files.check(v.meta); err != nil {
			return nil, err
		}
		c.files, c.evolve = files.files, files
	}
	if v.head != nil {
		var err error
		if c.base, err = v.t.manifestsOf(v.head); err != nil {
			return nil, err
		}
		c.totals = v.head.Summary
	}
	return c, nil
}

// Restore adds one snapshot with the contents of an earlier one.
func (v *View) Restore(ctx context.Context, stamp *batch.Stamp, to int64, dropForeign bool) (int64, error) {
	target := v.meta.SnapshotByID(to)
	if target == nil {
		return 0, fmt.Errorf("%w: snapshot %d of table %s has expired", batch.ErrDataLost, to, v.t.opts.Table)
	}
	if err := v.foreign(to); err != nil && !dropForeign {
		return 0, err
	}
	c := &change{operation: table.OpOverwrite, stamp: stamp, totals: target.Summary}
	var err error
	if c.base, err = v.t.manifestsOf(target); err != nil {
		return 0, err
	}
	return v.commit(ctx, c)
}

// foreign says whether other writers committed behind a snapshot.
func (v *View) foreign(to int64) error {
	for _, h := range v.History() {
		switch {
		case h.Snapshot == to:
			return nil
		case h.Stamp == nil || h.Stamp.Name != v.t.opts.Pipeline || h.Stamp.Stream != v.t.opts.Stream && h.Stamp.Kind == "":
			return fmt.Errorf("%w: snapshot %d of table %s was committed by another writer; going back would drop it (--drop-foreign)", batch.ErrDataLost, h.Snapshot, v.t.opts.Table)
		}
	}
	return fmt.Errorf("%w: snapshots of table %s between its head and snapshot %d have expired, and other writers may have made them; going back would drop what they added (--drop-foreign)",
		batch.ErrDataLost, v.t.opts.Table, to)
}

func (v *View) commit(ctx context.Context, c *change) (int64, error) {
	t := v.t
	t.mu.Lock()
	defer t.mu.Unlock()
	c.id, c.sequence, c.small = newSnapshotID(), v.meta.LastSequenceNumber()+1, map[string][]byte{}
	c.schema = v.meta.CurrentSchema()
	evolution, unchanged, err := v.evolution(c.evolve)
	if err != nil {
		return 0, err
	}
	if evolution != nil {
		c.schema = c.evolve.target
	}
	landed := false
	defer func() {
		if !landed { // or so it seems: they are looked at again before they are deleted
			t.trash.add(c.wrote...)
		}
	}()
	manifests, err := v.buildManifests(c)
	if err != nil {
		return 0, err
	}
	snapshot, manifests, err := v.buildSnapshot(c, manifests)
	if err != nil {
		return 0, err
	}
	moves, expired := v.moves(c)
	updates := append(append(evolution, table.NewAddSnapshotUpdate(snapshot)), moves...)
	meta, err := t.catalog.Commit(ctx, t.ident, append(v.requirements(), unchanged...), updates)
	if err != nil {
		return 0, err
	}
	landed = true
	if evolution != nil {
		t.log.Info("the table's schema was changed with the first rows that need it", "table", t.opts.Table, "schema", meta.CurrentSchema().ID, "changes", text(c.evolve.changes))
	}
	t.committed(v.meta, meta, c, manifests, expired)
	return c.id, nil
}

// moves are the updates behind the one that adds the snapshot: where the refs go,
// and which snapshots expire.
func (v *View) moves(c *change) (updates []table.Update, expired []int64) {
	if c.stage {
		updates = []table.Update{table.NewSetSnapshotRefUpdate(v.t.AuditBranch(), c.id, table.BranchRef, 0, 0, 0)}
	} else {
		updates = []table.Update{v.moveBranch(c.id), table.NewSetSnapshotRefUpdate(v.t.tag, c.id, table.TagRef, 0, 0, 0)}
		if v.staged != nil {
			updates = append(updates, table.NewRemoveSnapshotRefUpdate(v.t.AuditBranch()))
		}
		if v.t.opts.Stream == batch.StreamMain { // the others come and go
			expired = v.expired()
		}
	}
	if v.staged != nil && v.staged.SnapshotID != c.id && !v.onBranch(v.staged) {
		expired = append(expired, v.staged.SnapshotID)
	}
	if len(expired) > 0 {
		updates = append(updates, table.NewRemoveSnapshotsUpdate(expired, false))
	}
	return updates, expired
}

// moveBranch keeps the branch's own settings.
func (v *View) moveBranch(to int64) table.Update {
	var refAge, snapshotAge int64
	var least int
	for name, ref := range v.meta.Refs() {
		if name != v.t.opts.Branch {
			continue
		}
		if ref.MaxRefAgeMs != nil {
			refAge = *ref.MaxRefAgeMs
		}
		if ref.MaxSnapshotAgeMs != nil {
			snapshotAge = *ref.MaxSnapshotAgeMs
		}
		if ref.MinSnapshotsToKeep != nil {
			least = *ref.MinSnapshotsToKeep
		}
	}
	return table.NewSetSnapshotRefUpdate(v.t.opts.Branch, to, table.BranchRef, refAge, snapshotAge, least)
}

// newSnapshotID is random and positive, as Iceberg's other writers make it.
func newSnapshotID() int64 {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails
	return int64(binary.BigEndian.Uint64(b[:]) &^ (1 << 63))
}

// buildSnapshot writes the manifest list. It returns the manifests as a later
// snapshot will read them.
func (v *View) buildSnapshot(c *change, manifests []iceberg.ManifestFile) (*table.Snapshot, []iceberg.ManifestFile, error) {
	name := v.metadataFile(v.ownName() + ".avro")
	c.wrote = append(c.wrote, name)
	first := v.meta.NextRowID()
	list, numbered, err := v.manifestList(c, first, manifests)
	if err != nil {
		return nil, nil, fmt.Errorf("write the manifest list of table %s: %w", v.t.opts.Table, err)
	}
	if err := v.t.fs.WriteFile(name, list); err != nil {
		return nil, nil, lake.Classify("write "+name, err)
	}
	manifests, err = iceberg.ReadManifestList(bytes.NewReader(list))
	if err != nil {
		return nil, nil, fmt.Errorf("read back %s: %w", name, err)
	}
	schema := c.schema.ID
	s := &table.Snapshot{
		SnapshotID: c.id, ParentSnapshotID: idOf(v.head), SequenceNumber: c.sequence, TimestampMs: max(v.t.now().UnixMilli(), v.meta.LastUpdatedMillis()),
		ManifestList: name, Summary: c.summary(), SchemaID: &schema,
	}
	if v.meta.Version() >= 3 {
		s.FirstRowID, s.AddedRows = &first, &numbered
	}
	return s, manifests, nil
}

// manifestList encodes the list. In format 3 it gives the manifests that have no
// row numbers yet a stretch of them, from first on. numbered is how many it gave:
// as in Iceberg's Java library a merged manifest gets as many as it has rows,
// though its rows keep the numbers they had.
func (v *View) manifestList(c *change, first int64, manifests []iceberg.ManifestFile) (list []byte, numbered int64, err error) {
	for _, m := range manifests {
		keepEmptyBounds(m)
	}
	var buf bytes.Buffer
	if v.meta.Version() < 3 {
		err = iceberg.WriteManifestList(v.meta.Version(), &buf, c.id, idOf(v.head), &c.sequence, 0, manifests)
		return buf.Bytes(), 0, err
	}
	w, err := iceberg.NewManifestListWriterV3(&buf, c.id, c.sequence, first, idOf(v.head))
	if err != nil {
		return nil, 0, err
	}
	err = errors.Join(w.AddManifests(manifests), w.Close())
	return buf.Bytes(), *w.NextRowID() - first, err
}

// keepEmptyBounds repairs the summary of a manifest's partitions. iceberg-go
// writes the bound "" of an empty text as none, which says to other engines that
// all values are NULL, so they would not find any row of the manifest. A bound
// that is read back from a list becomes so, too.
func keepEmptyBounds(m iceberg.ManifestFile) {
	field := reflect.ValueOf(m).Elem().FieldByName("PartitionList") // what Partitions returns is a copy
	list, ok := field.Interface().(*[]iceberg.FieldSummary)
	if !ok || list == nil {
		return
	}
	for _, s := range *list {
		for _, bound := range []*[]byte{s.LowerBound, s.UpperBound} {
			if bound != nil && *bound == nil {
				*bound = []byte{}
			}
		}
	}
}

// The keys of a snapshot's summary: https://iceberg.apache.org/spec/#optional-snapshot-summary-fields
const (
	addedFiles, addedRecords, addedBytes = "added-data-files", "added-records", "added-files-size"
	totalFiles, totalRecords, totalBytes = "total-data-files", "total-records", "total-files-size"
)

// summary counts what the snapshot adds and holds, and carries the stamp.
func (c *change) summary() *table.Summary {
	var files, records, size int64
	for _, f := range c.files {
		files++
		records += f.Count()
		size += f.FileSizeBytes()
	}
	p := iceberg.Properties{}
	// A total that another writer left out stays out: nobody could tell a wrong
	// one from a right one.
	was := func(key string) (int64, bool) {
		if c.totals == nil {
			return 0, len(c.base) == 0
		}
		n, err := strconv.ParseInt(c.totals.Properties[key], 10, 64)
		return n, err == nil
	}
	for key, n := range map[string]int64{addedFiles: files, addedRecords: records, addedBytes: size} {
		if n > 0 {
			p[key] = strconv.FormatInt(n, 10)
		}
	}
	for key, n := range map[string]int64{totalFiles: files, totalRecords: records, totalBytes: size, "total-delete-files": 0, "total-position-deletes": 0, "total-equality-deletes": 0} {
		if before, known := was(key); known {
			p[key] = strconv.FormatInt(before+n, 10)
		}
	}
	if c.stamp != nil {
		maps.Copy(p, c.stamp.Properties())
	}
	maps.Copy(p, c.notes)
	return &table.Summary{Operation: c.operation, Properties: p}
}

// check makes sure that the files were written for the schema and the spec that
// the commit asserts.
func (f *Files) check(meta table.Metadata) error {
	if f.table != meta.TableUUID() {
		return fmt.Errorf("%w: the table was dropped and made again while the batch was written; start the pipeline again", batch.ErrInvalid)
	}
	if !f.fit(meta) {
		return fmt.Errorf("%w: the files are for another schema or partitioning than the table has; start the pipeline again", batch.ErrInvalid)
	}
	return nil
}

// fit says whether the files, if there are any, are for the spec and the schema,
// or for one that this becomes: nobody has given the ids of its new fields since.
func (f *Files) fit(meta table.Metadata) bool {
	current := meta.CurrentSchema()
	switch {
	case len(f.files) == 0:
		return true
	case f.spec != meta.DefaultPartitionSpec():
		return false
	case f.target != nil && f.target.Equals(current): // the batch before brought it, or another writer the same
		return true
	}
	return f.schema == current.ID && (f.target == nil || f.lastID == meta.LastColumnID())
}

// Fits says whether files can be committed to the table as it is; not where its
// schema or partitioning was changed since they were written. Then the batch must
// be written again.
func (v *View) Fits(files *Files) bool {
	return files == nil || files.table != v.meta.TableUUID() || files.fit(v.meta)
}

// manifestsOf returns the manifests of a snapshot, from memory where this
// process committed it.
func (t *Table) manifestsOf(s *table.Snapshot) ([]iceberg.ManifestFile, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if m, ok := t.manifests[s.SnapshotID]; ok {
		return slices.Clone(m), nil
	}
	m, err := s.Manifests(&t.fs)
	if err != nil {
		return nil, lake.Classify("read "+path.Base(s.ManifestList), err)
	}
	return m, nil
}
