package batch

// Job is one execution of a plan, for some of its sinks.
type Job struct {
	Plan *Plan
	// Ranges are what is read for these sinks; RangeColumn points into them.
	Ranges  []Range
	Sinks   []string
	Attempt string
	// Letters says, where the dead letters are among the sinks, whose they are.
	Letters Letters
	// Stream is that of the pipeline's streams whose batch this is.
	Stream string
	// Targets, if not nil, are, for each of Ranges, the only sinks that its rows are
	// for. Then a record batch has rows of ranges with the same ones.
	Targets [][]string
	// State is, by sink, the Stamp.State to build on.
	State map[string]string
}

// Letters says which rejected records are the dead letters of a job.
type Letters struct {
	// Source says that those are which the source rejects.
	Source bool
	// Sinks are those whose SQL runs for what it rejects, also where their rows are
	// not wanted.
	Sinks []string
}

// Result is what an execution came to in one sink.
type Result struct {
	// Inputs is what became of the rows that the executor was given in this job,
	// whether or not the sink's SQL reads their source.
	Inputs
	Rows int64 // rows out of the SQL
	// Failed counts, in the dead letters, the records that the SQL of at least one
	// sink failed on; Reasons are the commonest reasons of all letters, one line
	// each, with an example.
	Failed  int64
	Reasons []string
	// State is the reference to the state after the job; equal to the one
	// before where nothing changed.
	State string
}
