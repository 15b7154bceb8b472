package batch

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"time"
)

// Kind says how an incarnation came about.
type Kind string

// The kinds of an incarnation.
const (
	First   Kind = "first"   // the pipeline was new
	Recover Kind = "recover" // the checkpoint was lost; the tables' tags told the rest
	Rewind  Kind = "rewind"  // an operator went back to a batch
	Replay  Kind = "replay"  // a run of a stream that has an end
	Ended   Kind = "ended"   // the run before it is over: nothing of it can land any more
)

// Incarnation is one life of a pipeline: the record `pipeline/<Number>`,
// created if absent, the highest number counts. A log belongs to one
// incarnation. UUID is the pipeline's identity through all of them; ID is
// random, because after two losses two writers can pick the same number.
type Incarnation struct {
	UUID   string `json:"uuid"`
	Name   string `json:"name"`
	Number int64  `json:"number"`
	ID     string `json:"id"`
	Kind   Kind   `json:"kind"`
	// Targets of a rewind: the snapshot that each sink's table goes back to.
	Targets map[string]int64 `json:"targets,omitempty"`
	// Checked is, by sink, the head from which on back to the target the table was
	// looked at when the rewind was asked for: without DropForeign it had no snapshot
	// of another writer.
	Checked map[string]int64 `json:"checked,omitempty"`
	// Batch is the batch that a rewind goes back to, or behind which a run begins.
	Batch ID `json:"batch,omitempty"`
	// Starts is where a run begins.
	Starts Offsets `json:"starts,omitempty"`
	// Totals are, by sink, the Stamp.Total behind which a run begins, or with which the
	// one before ended.
	Totals map[string]Counts `json:"totals,omitempty"`
	// DropForeign says that a rewind may drop snapshots of other writers.
	DropForeign bool `json:"drop_foreign,omitempty"`
}

// Same says whether both are the same record.
func (i Incarnation) Same(j Incarnation) bool {
	return i.UUID == j.UUID && i.Number == j.Number && i.ID == j.ID
}

// Newer says whether a stamp or a record with (number, id) cannot have been
// written before i was made: a higher number, or i's number with another id.
func (i Incarnation) Newer(number int64, id string) bool {
	return number > i.Number || number == i.Number && id != i.ID
}

// Writer names the process that logged a plan.
type Writer struct {
	ID   string `json:"id"` // random, one for each process
	Host string `json:"host"`
	PID  int    `json:"pid"`
}

// SinkPlan is what a plan fixes for one sink.
type SinkPlan struct {
	Name string `json:"name"`
	Hash string `json:"hash"` // of every key of the spec that this sink's rows depend on
	// Active is false where the table already has this plan's ranges.
	Active bool `json:"active"`
	// Before is the stamp that the table's tag must carry before the commit;
	// the zero Ref where the tag must not exist.
	Before Ref `json:"before"`
	// Due says that this batch commits an empty snapshot if it has no rows.
	Due bool `json:"due,omitempty"`
	// From is where the next stamp begins: the end of the stamp before, and the
	// start of every partition that appeared since. What lies between From and
	// the plan's ranges went by without a commit, counted in Carried, except
	// under Lags.
	From    Offsets `json:"from"`
	Carried Counts  `json:"carried"`
	// CatchUp says that this plan is one of those that bring the table to where
	// the pipeline stands.
	CatchUp bool `json:"catch_up,omitempty"`
	// Lags says that the table, which takes no part in this plan, waits for such
	// plans: it may lack records from From on.
	Lags bool `json:"lags,omitempty"`
	// Held is why none of this batch's rows go into the table; nil: they do.
	Held *Held `json:"held,omitempty"`
	// Route is what the plan fixes for a sink that feeds many tables. Before and
	// Carried are then those of its tables, and From is where the sink stands.
	Route *RoutePlan `json:"route,omitempty"`
}

// Held is the verdict of an audit: of each record that has rows in the batch, a dead
// letter is made in their place.
type Held struct {
	Rule   string `json:"rule"`
	Reason string `json:"reason"`
}

// Ref points to a stamp and holds what the next one continues.
type Ref struct {
	Hash    string    `json:"hash,omitempty"` // Stamp.Hash; empty: no stamp
	Last    ID        `json:"last,omitempty"`
	Attempt string    `json:"attempt,omitempty"`
	Time    time.Time `json:"time,omitzero"`
	End     Offsets   `json:"end,omitempty"`
	State   string    `json:"state,omitempty"`
	Total   Counts    `json:"total"`
}

// RefTo points to s; nil gives the zero Ref.
func RefTo(s *Stamp) Ref {
	if s == nil {
		return Ref{}
	}
	return Ref{Hash: s.Hash(), Last: s.Last, Attempt: s.Attempt, Time: s.Time, End: s.End, State: s.State, Total: s.Total}
}

// Plan is everything that the outcome of a batch depends on. It is logged
// before the batch's first commit and never changes after that: running the
// same Plan twice reads the same records and yields the same multiset of rows.
// A revision has the ranges of the plan it revises.
type Plan struct {
	Incarnation Incarnation `json:"incarnation"`
	Entry       int64       `json:"entry"` // place in the incarnation's log: 0, 1, 2, …
	Batch       ID          `json:"batch"`
	Revision    int         `json:"revision,omitempty"`
	Ranges      []Range     `json:"ranges"` // sorted; one for every known partition
	// Ahead is where the pipeline stands, in a plan that only brings tables there
	// that lag behind it; else nil.
	Ahead Offsets `json:"ahead,omitempty"`
	// Time is what now() means inside the SQL; never before the last plan's.
	Time time.Time `json:"time"`
	// Versions pins each dimension table of the spec.
	Versions map[string]string `json:"versions,omitempty"`
	// Readers is, by source with a registry, the id of the schema whose columns
	// its records become: a replay reads them as the first run did, whatever was
	// registered meanwhile.
	Readers map[string]int32 `json:"readers,omitempty"`
	Sinks   []SinkPlan       `json:"sinks"` // in the order of the spec
	Writer  Writer           `json:"writer"`
	// Recent is what came to the dead letters of the records before this batch.
	Recent Fraction `json:"recent,omitzero"`
	// Outcome of the batch before, for people and tools.
	Outcome []Outcome `json:"outcome,omitempty"`
}

// Hash is the SHA-256 of the plan's JSON, in hexadecimal.
func (p *Plan) Hash() string { return hash(p) }

// CatchesUp says whether the plan is for tables that lag.
func (p *Plan) CatchesUp() bool { return p.Ahead != nil }

// Position is where the pipeline stands behind this plan, and the next one
// starts.
func (p *Plan) Position() Offsets {
	if p.CatchesUp() {
		return p.Ahead
	}
	return p.End()
}

// End returns where the tables of the plan's sinks stand behind it: the end of
// every range that is not closed.
func (p *Plan) End() Offsets {
	end := Offsets{}
	for _, r := range p.Ranges {
		if !r.Closed {
			end[r.TopicPartition] = r.End
		}
	}
	return end
}

// Lossy says whether the plan gives up records.
func (p *Plan) Lossy() bool {
	for _, r := range p.Ranges {
		if r.Lost > 0 || r.Closed {
			return true
		}
	}
	return false
}

// Sink returns what the plan says of the sink with this name, nil if nothing. With
// the name of a [RouteName] it is a copy of what follows for that table.
func (p *Plan) Sink(name string) *SinkPlan {
	sink, table := SplitRoute(name)
	for i := range p.Sinks {
		s := &p.Sinks[i]
		switch {
		case s.Name != sink:
		case table == "":
			return s
		case s.Route != nil && s.Route.Table(table) != nil:
			return p.routed(s, s.Route.Table(table))
		}
	}
	return nil
}

// Outcome is what a batch came to in one sink.
type Outcome struct {
	Sink     string `json:"sink"`
	Snapshot int64  `json:"snapshot,omitempty"` // 0: nothing was committed
	// Tables is how many tables it touched, of a sink that feeds many.
	Tables int    `json:"tables,omitempty"`
	Counts Counts `json:"counts"`
}

// Commit is the record `commits/<i>-<id>/<Batch>`, for people and tools.
type Commit struct {
	Batch    ID        `json:"batch"`
	Revision int       `json:"revision,omitempty"`
	Plan     string    `json:"plan"` // Plan.Hash
	Time     time.Time `json:"time"`
	Outcome  []Outcome `json:"outcome"`
}

// Attempt registers the files that an execution of a batch may write, before
// it writes the first one.
type Attempt struct {
	Name  string `json:"name"`
	Batch ID     `json:"batch"`
	// Waits lists, by sink, the hashes of the stamps on whose tag this attempt
	// may still be committed: the one its commit will assert, and where it ran
	// ahead also the one before that. When the tag carries none of them the
	// attempt can never land any more. "" stands for no tag.
	Waits map[string][]string `json:"waits"`
	// Writer executes the attempt; Time is when it began.
	Writer Writer    `json:"writer"`
	Time   time.Time `json:"time,omitzero"`
}

func hash(v any) string {
	data, err := json.Marshal(v)
	if err != nil {
		panic("batch: a noun without JSON: " + err.Error())
	}
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}
