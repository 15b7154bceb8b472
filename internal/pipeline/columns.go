package pipeline

import (
	"context"
	"fmt"

	"github.com/apache/iceberg-go"
	"github.com/apache/iceberg-go/table"

	"github.com/frazil-io/frazil/internal/batch"
	"github.com/frazil-io/frazil/internal/config"
	"github.com/frazil-io/frazil/internal/deadletter"
	"github.com/frazil-io/frazil/internal/lake"
)

// column returns the column of letters with this name. batch.ErrInvalid: there is
// none, since it was renamed or dropped, or since an older version made the table.
func column(t *table.Table, name string) (iceberg.NestedField, error) {
	if f, ok := t.Schema().FindFieldByName(name); ok {
		return f, nil
	}
	if len(formerly(t, name, -1)) > 0 {
		return iceberg.NestedField{}, fmt.Errorf("%w: table %s has no column %q any more: another engine renamed or dropped it; name it %[3]s again", batch.ErrInvalid, tableName(t), name)
	}
	return iceberg.NestedField{}, fmt.Errorf("%w: table %s has no column %q; with evolve: add the pipeline adds it with the next letters", batch.ErrInvalid, tableName(t), name)
}

func tableName(t *table.Table) string {
	id := t.Identifier()
	return id[len(id)-2] + "." + id[len(id)-1]
}

// formerly are the other fields that had this name, by the ids of what files have of
// them.
func formerly(t *table.Table, name string, but int) (leaves []int) {
	for _, s := range t.Metadata().Schemas() {
		if f, ok := s.FindFieldByName(name); ok && f.ID != but {
			leaves = append(leaves, leavesOf(f)...)
		}
	}
	return leaves
}

// leavesOf are the ids that values of a field have in a file.
func leavesOf(f iceberg.NestedField) (ids []int) {
	nested, ok := f.Type.(iceberg.NestedType)
	if !ok {
		return []int{f.ID}
	}
	for _, member := range nested.Fields() {
		ids = append(ids, leavesOf(member)...)
	}
	return ids
}

// another is a column of letters whose name other columns had before it.
type another struct {
	name        string
	now, before []int
}

// oneColumn makes sure that each column of letters is the same in all files. Where
// another engine renamed or dropped one, and a new one took its name, older letters
// would be read without it: a record without its value is a tombstone, and would be
// passed over.
func (p *Pipeline) oneColumn(ctx context.Context) error {
	t, err := p.loadTable(ctx, config.DeadLetters)
	if err != nil || t == nil {
		return err
	}
	var suspects []another
	for _, c := range deadletter.Schema().Fields() {
		f, err := column(t, c.Name)
		if err != nil {
			return err
		}
		if before := formerly(t, c.Name, f.ID); len(before) > 0 {
			suspects = append(suspects, another{c.Name, leavesOf(f), before})
		}
	}
	if len(suspects) == 0 {
		return nil
	}
	i := p.spec.Sinks.By[config.DeadLetters].Iceberg
	c, err := p.Catalog(ctx, i.Catalog)
	if err != nil {
		return err
	}
	return eachDataFile(c.Context(ctx), t, i.Branch, func(d iceberg.DataFile) error {
		for _, s := range suspects {
			if !has(d, s.now) && has(d, s.before) {
				return fmt.Errorf("%w: table %s has letters from before its column %q was renamed or dropped and another one took its name; they would be run without it. "+
					"Copy the former column's values into the new one where that is NULL, or delete those letters", batch.ErrInvalid, tableName(t), s.name)
			}
		}
		return nil
	})
}

// has says whether a file has values of any of these fields, as its manifest counts
// them.
func has(d iceberg.DataFile, ids []int) bool {
	for _, id := range ids {
		if _, ok := d.ValueCounts()[id]; ok {
			return true
		}
	}
	return false
}

// eachDataFile calls f for each data file of a branch.
func eachDataFile(ctx context.Context, t *table.Table, branch string, f func(iceberg.DataFile) error) error {
	snapshot := t.Metadata().SnapshotByName(branch)
	if snapshot == nil {
		return nil
	}
	fs, err := t.FS(ctx)
	if err != nil {
		return lake.Classify("open files", err)
	}
	manifests, err := snapshot.Manifests(fs)
	if err != nil {
		return lake.Classify("read the list of manifests", err)
	}
	for _, m := range manifests {
		if m.ManifestContent() == iceberg.ManifestContentDeletes {
			continue
		}
		for entry, err := range m.Entries(fs, true) {
			if err != nil {
				return lake.Classify("read manifest "+m.FilePath(), err)
			}
			if err := f(entry.DataFile()); err != nil {
				return err
			}
		}
	}
	return nil
}
