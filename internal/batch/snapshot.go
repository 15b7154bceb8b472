package batch

// Stamped is a live snapshot of a table and its stamp, nil for another writer's.
type Stamped struct {
	Snapshot int64
	Stamp    *Stamp
}

// Copy is a snapshot of another writer that added files of an attempt of a pipeline.
type Copy struct {
	Snapshot int64
	Parent   int64 // upon which it was built; 0: none
	Attempt  string
	Files    []string
	Rows     int64 // of these files, that the head has
	// Staged says that it is the attempt that is staged for an audit.
	Staged bool
}

// Ancestry says how a table's tag relates to the head of its branch.
type Ancestry int

// The answers that a walk from the head along the parents can give.
const (
	// IsAncestor: the head descends from the tagged snapshot, or there is no tag.
	IsAncestor Ancestry = iota
	// NotAncestor: the walk reached the table's first snapshot without meeting
	// the tag: another engine rolled the table back.
	NotAncestor
	// UnknownAncestor: the walk ended at an expired parent. Metadata cannot
	// tell a rollback from appends by others whose snapshots have expired.
	UnknownAncestor
)
