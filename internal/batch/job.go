package batch

// Job is one execution of a plan, for some of its sinks.
type Job struct {
	Plan *Plan
	// Ranges are what is read for these sinks; RangeColumn points into them.
	Ranges  []Range
	Sinks   []string
	Attempt string
	// State is, by sink, the Stamp.State to build on.
	State map[string]string
}

// Result is what an execution came to in one sink.
type Result struct {
	// Scanned counts the rows that the executor was given in this job, whether
	// or not the sink's SQL reads their source.
	Scanned  int64
	Rejected int64 // rows of the source that its SQL failed on, skipped
	Rows     int64 // rows out of the SQL
	// State is the reference to the state after the job; equal to the one
	// before where nothing changed.
	State string
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
