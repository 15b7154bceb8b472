package verify

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/frazil-io/frazil/internal/batch"
)

// minus returns the difference, term by term.
func minus(a, b batch.Counts) batch.Counts {
	return batch.Counts{
		Tally: batch.Tally{
			Offsets: a.Offsets - b.Offsets, Data: a.Data - b.Data, Control: a.Control - b.Control, Aborted: a.Aborted - b.Aborted,
			Lost: a.Lost - b.Lost, Absent: a.Absent - b.Absent, Tombstones: a.Tombstones - b.Tombstones, Skipped: a.Skipped - b.Skipped,
			Rows: a.Rows - b.Rows, Bytes: a.Bytes - b.Bytes,
		},
		Rejected: a.Rejected - b.Rejected, Written: a.Written - b.Written,
	}
}

// equal compares all terms, as the stamp writes them.
func equal(a, b batch.Counts) bool {
	x, errX := json.Marshal(a)
	y, errY := json.Marshal(b)
	return errX == nil && errY == nil && bytes.Equal(x, y)
}

// imbalance says what does not add up in counts, "" if everything does.
func imbalance(c batch.Counts) string {
	var wrong []string
	for name, n := range map[string]int64{
		"offsets": c.Offsets, "data": c.Data, "control": c.Control, "aborted": c.Aborted, "lost": c.Lost, "absent": c.Absent,
		"tombstones": c.Tombstones, "skipped": c.Skipped, "rows": c.Rows, "bytes": c.Bytes, "rejected": c.Rejected, "written": c.Written,
	} {
		if n < 0 {
			wrong = append(wrong, fmt.Sprintf("%s is %d", name, n))
		}
	}
	if sum := c.Data + c.Control + c.Aborted + c.Lost + c.Absent; sum != c.Offsets {
		wrong = append(wrong, fmt.Sprintf("offsets are %d, but data + control + aborted + lost + absent are %d", c.Offsets, sum))
	}
	if sum := c.Rows + c.Tombstones + c.Skipped; sum != c.Data {
		wrong = append(wrong, fmt.Sprintf("data are %d, but rows + tombstones + skipped are %d", c.Data, sum))
	}
	return strings.Join(wrong, "; ")
}

// span compares where a stamp starts and ends. offsets is what lies between;
// exact is false where a partition was closed, of which the end is not known.
func span(start, end batch.Offsets) (offsets int64, exact bool, wrong string) {
	exact = true
	for _, tp := range start.Partitions() {
		to, open := end[tp]
		if !open {
			exact = false
			continue
		}
		if to < start[tp] {
			return 0, false, fmt.Sprintf("partition %s ends at offset %d before it starts at %d", tp, to, start[tp])
		}
		offsets += to - start[tp]
	}
	for _, tp := range end.Partitions() {
		if _, ok := start[tp]; !ok {
			return 0, false, fmt.Sprintf("partition %s has an end, %d, and no start", tp, end[tp])
		}
	}
	return offsets, exact, ""
}
