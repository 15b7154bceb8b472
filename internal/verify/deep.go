package verify

import (
	"fmt"
	"strings"

	"github.com/frazil-io/frazil/internal/batch"
)

// Read is what a batch came to in one sink when its offsets were read again.
type Read struct {
	Sink  string
	Batch batch.ID
	// Then is what was counted when it was committed, Now what Kafka has today.
	Then, Now batch.Tally
	// Diff compares its rows; nil where the spec is another one today.
	Diff *Diff
}

const todoTopic = "find out whether the topic was written to by another cluster's copy, or restored; the table has what was there when it was read"

// Compare adds what a batch came to when it was read again.
func (r *Report) Compare(b Read) {
	s := r.section(b.Sink)
	if s == nil {
		return
	}
	where := fmt.Sprintf("batch %d", b.Batch)
	shrunk := false
	switch less := b.Then.Data - b.Now.Data; {
	case less < 0:
		s.find(TopicDiffers, where, fmt.Sprintf("had %d records, and the topic has %d in its offsets now", b.Then.Data, b.Now.Data), todoTopic)
	case less > 0 && b.Now.Absent-b.Then.Absent >= less:
		shrunk = true
		s.note("%s: %d of its %d records are in the topic no more, as on a compacted one; the rest was compared", where, less, b.Then.Data)
	case less > 0:
		s.find(TopicDiffers, where, fmt.Sprintf("had %d records, and the topic has %d in its offsets now", b.Then.Data, b.Now.Data), todoTopic)
	}
	s.count("batches counted again in Kafka", 1)
	d := b.Diff
	if d == nil {
		return
	}
	s.count("batches run again", 1)
	s.count("rows compared", d.Committed)
	if d.Equal || shrunk && d.OnlyReplayed == 0 {
		return
	}
	var examples []string
	for _, row := range d.ExamplesReplayed {
		examples = append(examples, "+ "+string(row))
	}
	for _, row := range d.ExamplesCommitted {
		examples = append(examples, "- "+string(row))
	}
	s.find(RowsDiffer, where, fmt.Sprintf("gives %d rows when it is run again, and %d are in its files; %d only now, %d only in the files: %s",
		d.Replayed, d.Committed, d.OnlyReplayed, d.OnlyCommitted, strings.Join(examples, " ")), fmt.Sprintf("`frazil replay SPEC --batch %d` shows it; its SQL or a table it reads may not be the same any more", b.Batch))
}

// Stray adds rows that a batch gives, when it is run again, for a table of a sink
// that its plan does not name.
func (r *Report) Stray(part string, id batch.ID, rows int64) {
	sink, table := batch.SplitRoute(part)
	for i := range r.Tables {
		if of, _ := batch.SplitRoute(r.Tables[i].Sink); of != sink {
			continue
		}
		r.Tables[i].find(RowsDiffer, fmt.Sprintf("batch %d", id), fmt.Sprintf("gives %d rows for table %s when it is run again, and its plan does not name that table", rows, table),
			fmt.Sprintf("`frazil replay SPEC --batch %d` shows it; its SQL or a table it reads may not be the same any more", id))
		return
	}
}

// Note adds a remark to a sink's table.
func (r *Report) Note(sink, format string, args ...any) {
	if s := r.section(sink); s != nil {
		s.note(format, args...)
	}
}

func (r *Report) section(sink string) *Section {
	for i := range r.Tables {
		if r.Tables[i].Sink == sink {
			return &r.Tables[i].Section
		}
	}
	return nil
}
