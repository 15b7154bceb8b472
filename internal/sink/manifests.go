package sink

import (
	"bytes"
	"fmt"

	"github.com/apache/iceberg-go"

	"github.com/frazil-io/frazil/internal/lake"
)

// mergeWidth is how many manifests of one size are merged into one of the next
// size. Each data file is so rewritten into a new manifest once for each size,
// and a table has a few times mergeWidth manifests however many files.
const mergeWidth = 32

// buildManifests returns the manifests of the snapshot: those of base, some of
// them merged, and one with the new files.
func (v *View) buildManifests(c *change) ([]iceberg.ManifestFile, error) {
	manifests, err := v.merge(c)
	if err != nil || len(c.files) == 0 {
		return manifests, err
	}
	entries := make([]iceberg.ManifestEntry, 0, len(c.files))
	for _, f := range c.files {
		entries = append(entries, iceberg.NewManifestEntry(iceberg.EntryStatusADDED, &c.id, nil, nil, f))
	}
	m, err := v.writeManifest(c, v.spec(), entries)
	if err != nil {
		return nil, err
	}
	return append([]iceberg.ManifestFile{m}, manifests...), nil
}

func (v *View) writeManifest(c *change, spec iceberg.PartitionSpec, entries []iceberg.ManifestEntry) (iceberg.ManifestFile, error) {
	name := v.metadataFile(v.ownName() + "-m0.avro")
	c.wrote = append(c.wrote, name)
	var buf bytes.Buffer
	m, err := iceberg.WriteManifest(name, &buf, v.meta.Version(), spec, c.schema, c.id, entries)
	if err != nil {
		return nil, fmt.Errorf("write a manifest of table %s: %w", v.t.opts.Table, err)
	}
	if err := v.t.fs.WriteFile(name, buf.Bytes()); err != nil {
		return nil, lake.Classify("write "+name, err)
	}
	if len(entries) < mergeWidth {
		c.small[name] = buf.Bytes()
	}
	return m, nil
}

// size is the class of a manifest: 0 below mergeWidth files, 1 below its square,
// and so on.
func size(m iceberg.ManifestFile) (class int) {
	for n := int(m.AddedDataFiles() + m.ExistingDataFiles()); n >= mergeWidth; n /= mergeWidth {
		class++
	}
	return class
}

// sizeMax is the class from which manifests are not merged any more.
const sizeMax = 3

// merge puts manifests of one class together where there are mergeWidth of them.
func (v *View) merge(c *change) ([]iceberg.ManifestFile, error) {
	classes := map[int][]iceberg.ManifestFile{}
	spec := v.spec()
	for _, m := range c.base {
		if m.ManifestContent() == iceberg.ManifestContentData && int(m.PartitionSpecID()) == spec.ID() && m.DeletedDataFiles() == 0 {
			classes[size(m)] = append(classes[size(m)], m)
		}
	}
	gone := map[string]bool{}
	var merged []iceberg.ManifestFile
	for class := range sizeMax {
		if len(classes[class]) < mergeWidth {
			continue
		}
		m, err := v.mergeInto(c, classes[class])
		if err != nil {
			return nil, err
		}
		for _, old := range classes[class] {
			gone[old.FilePath()] = true
		}
		merged = append(merged, m)
		break // one class a commit keeps each commit short
	}
	for _, m := range c.base {
		if !gone[m.FilePath()] {
			merged = append(merged, m)
		}
	}
	return merged, nil
}

func (v *View) mergeInto(c *change, manifests []iceberg.ManifestFile) (iceberg.ManifestFile, error) {
	var entries []iceberg.ManifestEntry
	for _, m := range manifests {
		kept, err := v.entriesOf(m)
		if err != nil {
			return nil, err
		}
		entries = append(entries, kept...)
	}
	return v.writeManifest(c, v.spec(), entries)
}

// entriesOf returns the files of a manifest as a merged one names them: with what
// they have from the manifest, which is the sequence number, and in format 3 the
// number of the first row. Rows from before that format get theirs with the merged
// one.
func (v *View) entriesOf(m iceberg.ManifestFile) ([]iceberg.ManifestEntry, error) {
	entries, err := v.read(m)
	if err != nil {
		return nil, lake.Classify("read "+m.FilePath(), err)
	}
	kept := make([]iceberg.ManifestEntry, 0, len(entries))
	for _, e := range entries {
		id, sequence := e.SnapshotID(), e.SequenceNum()
		fileSequence := e.FileSequenceNum()
		if fileSequence == nil {
			fileSequence = &sequence
		}
		kept = append(kept, iceberg.NewManifestEntry(iceberg.EntryStatusEXISTING, &id, &sequence, fileSequence, e.DataFile()))
	}
	return kept, nil
}

// read reads a manifest, from memory where it was written here.
func (v *View) read(m iceberg.ManifestFile) (entries []iceberg.ManifestEntry, err error) {
	if raw, ok := v.t.small[m.FilePath()]; ok {
		return iceberg.ReadManifest(m, bytes.NewReader(raw), true)
	}
	for e, err := range m.Entries(&v.t.fs, true) {
		if err != nil {
			return nil, err
		}
		entries = append(entries, e)
	}
	return entries, nil
}
