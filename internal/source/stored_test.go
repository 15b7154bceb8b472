package source

import (
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"

	"github.com/frazil-io/frazil/internal/batch"
	"github.com/frazil-io/frazil/internal/deadletter"
	"github.com/frazil-io/frazil/internal/kafka"
	"github.com/frazil-io/frazil/internal/source/decode"
)

// TestDecode reads records that were kept elsewhere as if Kafka had them: rows with
// the metadata that they had, letters for the sinks that lack them, and a record
// of which only the beginning was kept is never taken for whole.
func TestDecode(t *testing.T) {
	t.Parallel()
	columns, err := decode.ParseColumns("id BIGINT")
	if err != nil {
		t.Fatal(err)
	}
	s, err := New([]Options{{
		Name: "s", Kafka: kafka.Options{Brokers: []string{"127.0.0.1:1"}}, Topics: []string{"t"}, DeadLetters: true, Metadata: true, MaxRecordBytes: 40,
		Decoder: func() (decode.Decoder, error) { return decode.New("json", columns, decode.Options{}) },
	}}, Limits{}, stoodStill{}, slog.New(slog.DiscardHandler), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	at := []batch.Range{{TopicPartition: batch.TopicPartition{Topic: "elsewhere"}}, {TopicPartition: batch.TopicPartition{Source: "s", Topic: "t", Partition: 3}}}
	records := []Stored{
		{Record: decode.Record{Value: []byte(`{"id":7}`), Key: []byte("k"), Headers: []decode.Header{{Key: []byte("h")}}}, Range: 1, Offset: 41, Timestamp: 5},
		{Record: decode.Record{Value: []byte(`{"id":`)}, Range: 1, Offset: 42, Timestamp: -1},
		{Record: decode.Record{Value: []byte(`{"id":8}`), Headers: []decode.Header{{Key: []byte(deadletter.Truncated), Value: []byte("99")}}}, Range: 1, Offset: 43},
		{Record: decode.Record{Value: []byte(`{"id":9}` + strings.Repeat(" ", 40))}, Range: 1, Offset: 44},
		{Record: decode.Record{}, Range: 1, Offset: 45},
	}
	var rows, letters []string
	tally, err := s.Decode(t.Context(), "s", at, []string{"a", "b"}, func(add func(Stored) error) error {
		for _, r := range records {
			if err := add(r); err != nil {
				return err
			}
		}
		return nil
	}, func(r arrow.RecordBatch) error {
		for i := range int(r.NumRows()) {
			var row []string
			for c, f := range r.Schema().Fields() {
				if slices.Contains([]string{"id", "_topic", "_partition", "_offset", "_timestamp", batch.RangeColumn, batch.OffsetColumn}, f.Name) {
					row = append(row, r.Column(c).ValueStr(i))
				}
			}
			rows = append(rows, strings.Join(row, " "))
		}
		return nil
	}, func(r arrow.RecordBatch) error {
		for i := range int(r.NumRows()) {
			letters = append(letters, fmt.Sprintf("%d %s %s", r.Column(2).(*array.Int64).Value(i), r.Column(9).ValueStr(i), r.Column(11).ValueStr(i)))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{"7 t 3 41 1970-01-01T00:00:00.005Z 1 41"}; !slices.Equal(rows, want) {
		t.Errorf("the rows are %q, want %q", rows, want)
	}
	if want := []string{`42 decode ["a","b"]`, `43 oversize ["a","b"]`, `44 oversize ["a","b"]`}; !slices.Equal(letters, want) {
		t.Errorf("the letters are %q, want %q", letters, want)
	}
	if !tally.Balanced() || tally.Data != 5 || tally.Rows != 1 || tally.DeadLettered != 3 || tally.Tombstones != 1 {
		t.Errorf("counted %+v", tally)
	}
}

// stoodStill is a clock.
type stoodStill struct{ Clock }

func (stoodStill) Now() time.Time { return time.Time{} }
