package batch

import "maps"

// Tally is what a source counted while it read ranges. Every offset is in
// exactly one term, and so is every record:
//
//	Offsets = Data + Control + Aborted + Lost + Absent
//	Data = Rows + Tombstones + Skipped + DeadLettered
//
// All but Absent are counted where the record is seen; Absent is the rest,
// offsets that compaction removed. Bad is Skipped and DeadLettered by code.
type Tally struct {
	Offsets      int64 `json:"offsets,omitempty"`       // end - start, over all ranges
	Data         int64 `json:"data,omitempty"`          // records handed to the decoder
	Control      int64 `json:"control,omitempty"`       // transaction markers
	Aborted      int64 `json:"aborted,omitempty"`       // records of aborted transactions
	Lost         int64 `json:"lost,omitempty"`          // the plan's gaps
	Absent       int64 `json:"absent,omitempty"`        // neither seen nor lost
	Tombstones   int64 `json:"tombstones,omitempty"`    // dropped
	Skipped      int64 `json:"skipped,omitempty"`       // bad records under on_bad_record: skip
	DeadLettered int64 `json:"dead_lettered,omitempty"` // bad records under on_bad_record: dead_letter
	Rows         int64 `json:"rows,omitempty"`          // rows emitted
	Bytes        int64 `json:"bytes,omitempty"`         // key + value of Data
	Bad          Codes `json:"bad,omitzero"`
}

// Plus returns the sum of both, term by term.
func (t Tally) Plus(u Tally) Tally {
	return Tally{
		Offsets: t.Offsets + u.Offsets, Data: t.Data + u.Data, Control: t.Control + u.Control,
		Aborted: t.Aborted + u.Aborted, Lost: t.Lost + u.Lost, Absent: t.Absent + u.Absent,
		Tombstones: t.Tombstones + u.Tombstones, Skipped: t.Skipped + u.Skipped, DeadLettered: t.DeadLettered + u.DeadLettered,
		Rows: t.Rows + u.Rows, Bytes: t.Bytes + u.Bytes, Bad: t.Bad.Plus(u.Bad),
	}
}

// Balanced says whether every offset and every record is in one term.
func (t Tally) Balanced() bool {
	return t.Offsets == t.Data+t.Control+t.Aborted+t.Lost+t.Absent &&
		t.Data == t.Rows+t.Tombstones+t.Skipped+t.DeadLettered &&
		t.Bad.Sum() == t.Skipped+t.DeadLettered
}

// Inputs is what became of a source's rows in one sink. Every row that its SQL
// was given is in exactly one term:
//
//	Scanned = Unread + With + Without + Uncounted + Rejected + Dropped
//
// Rules is Dropped, and the part of Rejected that has CodeConstraint, by rule.
// Scanned is counted by who runs the SQL and is equal to Tally.Rows. Stamps of
// versions that did not count them have 0 in all terms but Rejected.
type Inputs struct {
	Scanned int64 `json:"scanned,omitempty"`
	Unread  int64 `json:"unread,omitempty"`         // rows of sources that its SQL does not read
	With    int64 `json:"with_output,omitempty"`    // rows that gave at least one row
	Without int64 `json:"without_output,omitempty"` // rows that gave none: filtered, or without a match
	// Uncounted are rows of SQL of which it cannot be told what left output.
	Uncounted int64 `json:"uncounted,omitempty"`
	Rejected  int64 `json:"rejected,omitempty"` // rows that SQL failed on, or a rule
	Dropped   int64 `json:"dropped,omitempty"`  // rows that a rule dropped
	// RejectedBy is Rejected by code.
	RejectedBy Codes `json:"rejected_by,omitzero"`
	// Letters counts the dead letters: in a sink the part of Rejected that was
	// handed to them, in the dead letters' own table all that it was given, so
	// there they are Written.
	Letters int64 `json:"dead_letters,omitempty"`
	// Marks counts, in the dead letters' own table, the rows that are none, but say
	// which ones were run again.
	Marks int64 `json:"marks,omitempty"`
	// SourceLetters counts those of Rejected that a rule of their source keeps from
	// every sink: they are one dead letter for all sinks.
	SourceLetters int64 `json:"source_letters,omitempty"`
	// Rules counts the rows that failed a rule, by its name; that of a source's rule
	// has the source and a dot before it.
	Rules map[string]int64 `json:"rules,omitempty"`
}

// Plus returns the sum of both, term by term.
func (i Inputs) Plus(j Inputs) Inputs {
	return Inputs{
		Scanned: i.Scanned + j.Scanned, Unread: i.Unread + j.Unread, With: i.With + j.With, Without: i.Without + j.Without,
		Uncounted: i.Uncounted + j.Uncounted, Rejected: i.Rejected + j.Rejected, Dropped: i.Dropped + j.Dropped,
		RejectedBy: i.RejectedBy.Plus(j.RejectedBy), Letters: i.Letters + j.Letters, Marks: i.Marks + j.Marks, SourceLetters: i.SourceLetters + j.SourceLetters, Rules: plus(i.Rules, j.Rules),
	}
}

// plus adds up by rule, and leaves what it is given as it is.
func plus(a, b map[string]int64) map[string]int64 {
	if len(b) == 0 {
		return a
	}
	sum := maps.Clone(b)
	for rule, n := range a {
		sum[rule] += n
	}
	maps.DeleteFunc(sum, func(_ string, n int64) bool { return n == 0 })
	if len(sum) == 0 {
		return nil
	}
	return sum
}

// Balanced says whether every row that the SQL was given is in one term.
func (i Inputs) Balanced() bool {
	var failed int64
	for _, n := range i.Rules {
		failed += n
	}
	return i.Scanned == i.Unread+i.With+i.Without+i.Uncounted+i.Rejected+i.Dropped && i.RejectedBy.Sum() == i.Rejected &&
		failed == i.Dropped+i.RejectedBy.Constraint
}

// Counts is the accounting of one stamp, for one table.
type Counts struct {
	Tally
	Inputs
	// Written counts rows in the table's data files.
	Written int64 `json:"written,omitempty"`
}

// Plus returns the sum of both, term by term.
func (c Counts) Plus(d Counts) Counts {
	return Counts{Tally: c.Tally.Plus(d.Tally), Inputs: c.Inputs.Plus(d.Inputs), Written: c.Written + d.Written}
}

// Balanced says whether every offset, record and row is in one term. Counts of
// a version that did not count a sink's inputs are not.
func (c Counts) Balanced() bool {
	return c.Tally.Balanced() && c.Inputs.Balanced() && c.Scanned == c.Rows
}

// Code groups the reasons for which a record cannot be used.
type Code string

// The codes of a [Reject].
const (
	CodeDecode     Code = "decode"     // its bytes are not what the format says
	CodeSchema     Code = "schema"     // it does not fit the columns, or its schema is unknown or cannot be resolved
	CodeCast       Code = "cast"       // SQL failed on it
	CodeConstraint Code = "constraint" // a rule or an audit says so, or it can choose no table
	CodeOversize   Code = "oversize"   // it is larger than max_record_bytes, or would be in columns
)

// Codes counts rejected records by code.
type Codes struct {
	Decode     int64 `json:"decode,omitempty"`
	Schema     int64 `json:"schema,omitempty"`
	Cast       int64 `json:"cast,omitempty"`
	Constraint int64 `json:"constraint,omitempty"`
	Oversize   int64 `json:"oversize,omitempty"`
}

// Add counts one more. A code that is none of ours counts as CodeDecode.
func (c *Codes) Add(code Code) {
	switch code {
	case CodeSchema:
		c.Schema++
	case CodeCast:
		c.Cast++
	case CodeConstraint:
		c.Constraint++
	case CodeOversize:
		c.Oversize++
	case CodeDecode:
		c.Decode++
	default:
		c.Decode++
	}
}

// Plus returns the sum of both, code by code.
func (c Codes) Plus(d Codes) Codes {
	return Codes{
		Decode: c.Decode + d.Decode, Schema: c.Schema + d.Schema, Cast: c.Cast + d.Cast,
		Constraint: c.Constraint + d.Constraint, Oversize: c.Oversize + d.Oversize,
	}
}

// Sum is how many there are of all codes.
func (c Codes) Sum() int64 { return c.Decode + c.Schema + c.Cast + c.Constraint + c.Oversize }

// Reject is a record that could not be used, and why.
type Reject struct {
	TopicPartition
	Offset int64
	Code   Code
	Reason string
}
