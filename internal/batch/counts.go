package batch

// Tally is what a source counted while it read ranges. Every offset is in
// exactly one term:
//
//	Offsets = Data + Control + Aborted + Lost + Absent
//
// All but Absent are counted where the record is seen; Absent is the rest,
// offsets that compaction removed. Data = Rows + Tombstones + Skipped.
type Tally struct {
	Offsets    int64 `json:"offsets,omitempty"`    // end - start, over all ranges
	Data       int64 `json:"data,omitempty"`       // records handed to the decoder
	Control    int64 `json:"control,omitempty"`    // transaction markers
	Aborted    int64 `json:"aborted,omitempty"`    // records of aborted transactions
	Lost       int64 `json:"lost,omitempty"`       // the plan's gaps
	Absent     int64 `json:"absent,omitempty"`     // neither seen nor lost
	Tombstones int64 `json:"tombstones,omitempty"` // dropped
	Skipped    int64 `json:"skipped,omitempty"`    // bad records under on_bad_record: skip
	Rows       int64 `json:"rows,omitempty"`       // rows emitted
	Bytes      int64 `json:"bytes,omitempty"`      // key + value of Data
}

// Plus returns the sum of both, term by term.
func (t Tally) Plus(u Tally) Tally {
	return Tally{
		Offsets: t.Offsets + u.Offsets, Data: t.Data + u.Data, Control: t.Control + u.Control,
		Aborted: t.Aborted + u.Aborted, Lost: t.Lost + u.Lost, Absent: t.Absent + u.Absent,
		Tombstones: t.Tombstones + u.Tombstones, Skipped: t.Skipped + u.Skipped,
		Rows: t.Rows + u.Rows, Bytes: t.Bytes + u.Bytes,
	}
}

// Counts is the accounting of one stamp, for one table.
type Counts struct {
	Tally
	// Rejected counts rows that this sink's SQL failed on and that were
	// skipped.
	Rejected int64 `json:"rejected,omitempty"`
	// Written counts rows in the table's data files.
	Written int64 `json:"written,omitempty"`
}

// Plus returns the sum of both, term by term.
func (c Counts) Plus(d Counts) Counts {
	return Counts{Tally: c.Tally.Plus(d.Tally), Rejected: c.Rejected + d.Rejected, Written: c.Written + d.Written}
}

// Code groups the reasons for which a record cannot be used.
type Code string

// The codes of a [Reject].
const (
	CodeDecode     Code = "decode"     // its bytes are not what the format says
	CodeSchema     Code = "schema"     // it does not fit the columns, or its schema is unknown or cannot be resolved
	CodeCast       Code = "cast"       // SQL failed on it
	CodeConstraint Code = "constraint" // a rule of `expect` says so
	CodeOversize   Code = "oversize"   // it is larger than what memory allows
)

// Reject is a record that could not be used, and why.
type Reject struct {
	TopicPartition
	Offset int64
	Code   Code
	Reason string
}
