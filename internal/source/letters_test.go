package source

import (
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/frazil-io/frazil/internal/batch"
)

// lettersOf collects what Read hands to letters.
func lettersOf(lines *[]string, largest *int64) func(arrow.RecordBatch) error {
	var mu sync.Mutex
	return func(rows arrow.RecordBatch) error {
		mu.Lock()
		defer mu.Unlock()
		*largest = max(*largest, rows.NumRows())
		for i := range int(rows.NumRows()) {
			var parts []string
			for c := range int(rows.NumCols()) {
				parts = append(parts, rows.ColumnName(c)+"="+rows.Column(c).ValueStr(i))
			}
			*lines = append(*lines, strings.Join(parts, " "))
		}
		return nil
	}
}

// TestLetters: a record that cannot be decoded becomes a letter with all that it
// has, and the others carry their payload.
func TestLetters(t *testing.T) {
	t.Parallel()
	c := cluster(t, 1)
	send(t, client(t, c),
		&kgo.Record{Value: []byte(`{"id":1}`), Key: []byte("k1"), Headers: []kgo.RecordHeader{{Key: "h", Value: []byte("v")}}},
		&kgo.Record{Value: []byte(`{"id":`), Key: []byte{}, Headers: []kgo.RecordHeader{{Key: "a\xff", Value: nil}, {Key: "a", Value: []byte("b")}}},
		&kgo.Record{Value: nil},
		&kgo.Record{Value: []byte(`{"id":"x"}`)},
	)
	s := open(t, c, func(o *Options) { o.DeadLetters, o.Tombstones = true, Reject })
	ranges := all(t, s)
	var lines []string
	var largest int64
	var payload []string
	tally, err := s.Read(t.Context(), ranges, func(rows arrow.RecordBatch) error {
		for _, name := range batch.PayloadColumns() {
			i := rows.Schema().FieldIndices(name)
			payload = append(payload, rows.Column(i[0]).ValueStr(0))
		}
		return newReading().emit(ranges)(rows)
	}, lettersOf(&lines, &largest))
	if err != nil {
		t.Fatal(err)
	}
	balanced(t, tally)
	if tally.Rows != 1 || tally.DeadLettered != 3 || tally.Skipped != 0 || tally.Bad.Decode != 3 {
		t.Errorf("%+v", tally)
	}
	if len(payload) != 4 || payload[1] != "azE=" || payload[2] != "eyJpZCI6MX0=" || payload[3] != `[{"key":"h","value":"dg=="}]` {
		t.Errorf("payload %q", payload)
	}
	if len(lines) != 3 {
		t.Fatalf("letters %q", lines)
	}
	for i, want := range []string{
		"topic=clicks partition=0 offset=1 ", "topic=clicks partition=0 offset=2 ", "topic=clicks partition=0 offset=3 ",
	} {
		if !strings.HasPrefix(lines[i], want) || !strings.Contains(lines[i], " source=clicks sink=(null) code=decode reason=") {
			t.Errorf("letter %q", lines[i])
		}
	}
	if !strings.Contains(lines[0], ` key= value=eyJpZCI6 headers=[{"key":"a�","value":null},{"key":"a","value":"Yg=="}] `) {
		t.Errorf("letter %q", lines[0])
	}
	if !strings.Contains(lines[1], " key=(null) value=(null) headers=[] ") || !strings.Contains(lines[1], "tombstone") {
		t.Errorf("letter %q", lines[1])
	}
}

// TestAllPoison: records that are all bad are handed on in pieces that memory
// bounds, each once.
func TestAllPoison(t *testing.T) {
	t.Parallel()
	c := cluster(t, 1)
	const n, size = 3000, 4000
	var records []*kgo.Record
	for i := range n {
		records = append(records, &kgo.Record{Value: fmt.Appendf(nil, "%d %s", i, strings.Repeat("x", size))})
	}
	send(t, client(t, c), records...)
	s := openWith(t, c, func(o *Options) { o.DeadLetters = true }, Limits{Memory: memoryMin}, slog.New(slog.DiscardHandler), nil)
	seen := map[int64]bool{}
	largest := int64(0)
	tally, err := s.Read(t.Context(), all(t, s), discard, func(rows arrow.RecordBatch) error {
		largest = max(largest, rows.NumRows())
		for _, at := range rows.Column(slices.Index(names(rows), "offset")).(*array.Int64).Int64Values() {
			if seen[at] {
				t.Errorf("offset %d is there twice", at)
			}
			seen[at] = true
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if tally.DeadLettered != n || len(seen) != n {
		t.Errorf("%d letters of %d records; %+v", len(seen), n, tally)
	}
	if most := int64(s.limits.chunkBytes()/size + 1); largest > most {
		t.Errorf("a piece has %d letters, the most is %d", largest, most)
	}
}

func names(rows arrow.RecordBatch) (names []string) {
	for i := range int(rows.NumCols()) {
		names = append(names, rows.ColumnName(i))
	}
	return names
}
