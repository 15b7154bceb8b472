// Package verify audits a pipeline: the stamps in its tables, their data files,
// and its checkpoint must tell one story, in which every offset is in exactly one
// snapshot. It reads and never writes, trusts no shortcut that the pipeline itself
// takes, and names what does not fit: what, where, and what to do.
package verify

import (
	"cmp"
	"fmt"
	"slices"
	"time"
)

// Code names a kind of finding for programs. Codes are stable.
type Code string

// The codes of findings.
const (
	RemovedSnapshot    Code = "removed-snapshot"    // not by expiry
	ForeignClaim       Code = "foreign-claim"       // a snapshot claims to be a batch that it is not
	DoubledBatch       Code = "doubled-batch"       // a batch is in the table twice
	EditedStamp        Code = "edited-stamp"        // a stamp is not the one that the next one follows, or that was planned
	BrokenLink         Code = "broken-link"         // a stamp does not continue the one before
	Unbalanced         Code = "unbalanced-counts"   // the counts of a stamp do not add up
	WrongRows          Code = "wrong-rows"          // a snapshot, or the table, has other rows than its stamps say
	RolledBack         Code = "rolled-back"         // the tag is not part of the branch
	MovedTag           Code = "moved-tag"           // the tag is not on the newest stamp
	MissingTable       Code = "missing-table"       // the checkpoint knows commits to it
	MissingFile        Code = "missing-file"        // a data file, or metadata, of the table
	ChangedFile        Code = "changed-file"        // a data file is not what its manifest says
	AddedFile          Code = "added-file"          // a file that its stamp's attempt did not write
	DoubledFile        Code = "doubled-file"        // a data file is in the table twice
	RemovedRows        Code = "removed-rows"        // another writer removed rows of this pipeline
	DamagedRecord      Code = "damaged-record"      // a file of the checkpoint
	MissingLogEntry    Code = "missing-log-entry"   // a plan that should still be kept
	MissingIncarnation Code = "missing-incarnation" // the record of an incarnation
	TwoHistories       Code = "two-histories"       // checkpoint and table disagree
	WrongRecord        Code = "wrong-record"        // a record of the checkpoint contradicts another, or a snapshot
	TopicDiffers       Code = "topic-differs"       // --deep: Kafka has another number of records
	RowsDiffer         Code = "rows-differ"         // --deep: the batch gives other rows today
)

// Finding is something that must not be so.
type Finding struct {
	Code  Code   `json:"code"`
	Where string `json:"where"`
	What  string `json:"what"`
	Todo  string `json:"todo"`
}

// Check is something that was looked at, and how often.
type Check struct {
	What  string `json:"what"`
	Count int64  `json:"count"`
}

// Section is what was found out about one table, or the checkpoint.
type Section struct {
	Checks   []Check   `json:"checks"`
	Findings []Finding `json:"findings"`
	// Notes are no faults: what others wrote, what cannot be told any more.
	Notes []string `json:"notes"`
}

// findingsMax bounds the findings of one kind in a section: a table that is broken
// from one end to the other says so once.
const findingsMax = 20

func (s *Section) find(code Code, where, what, todo string) {
	n := 0
	for _, f := range s.Findings {
		if f.Code == code {
			n++
		}
		if f == (Finding{code, where, what, todo}) {
			return
		}
	}
	switch {
	case n < findingsMax:
		s.Findings = append(s.Findings, Finding{Code: code, Where: where, What: what, Todo: todo})
	case n == findingsMax:
		s.Findings = append(s.Findings, Finding{Code: code, Where: "further places", What: "there are more findings of this kind", Todo: todo})
	}
}

func (s *Section) note(format string, args ...any) {
	if text := fmt.Sprintf(format, args...); !slices.Contains(s.Notes, text) {
		s.Notes = append(s.Notes, text)
	}
}

// count adds to a check.
func (s *Section) count(what string, n int64) {
	for i := range s.Checks {
		if s.Checks[i].What == what {
			s.Checks[i].Count += n
			return
		}
	}
	s.Checks = append(s.Checks, Check{what, n})
}

// TableReport is the section of one table.
type TableReport struct {
	Sink  string `json:"sink"`
	Table string `json:"table"`
	// Stamp is where the table stands, for people; empty without one.
	Stamp string `json:"stamp,omitempty"`
	// Rows are those that the pipeline wrote, as its newest stamp says.
	Rows int64 `json:"rows"`
	Section
}

// Report is an audit's outcome.
type Report struct {
	Name       string        `json:"name"`
	Time       time.Time     `json:"time"`
	Clean      bool          `json:"clean"` // there is no finding
	Deep       bool          `json:"deep"`
	Tables     []TableReport `json:"tables"`
	Checkpoint Section       `json:"checkpoint"`
}

// Findings counts those of all sections.
func (r *Report) Findings() int {
	n := len(r.Checkpoint.Findings)
	for i := range r.Tables {
		n += len(r.Tables[i].Findings)
	}
	return n
}

// listed is a list that JSON shows as one, also without elements.
func listed[T any](list []T) []T {
	if list == nil {
		return []T{}
	}
	return list
}

// finish sorts what came in the order of goroutines.
func (s *Section) finish() {
	s.Checks, s.Findings, s.Notes = listed(s.Checks), listed(s.Findings), listed(s.Notes)
	slices.SortStableFunc(s.Findings, func(a, b Finding) int {
		return cmp.Or(cmp.Compare(a.Code, b.Code), cmp.Compare(a.Where, b.Where))
	})
}
