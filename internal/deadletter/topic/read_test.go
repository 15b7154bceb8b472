package topic

import (
	"reflect"
	"testing"
	"time"

	"github.com/frazil-io/frazil/internal/batch"
	"github.com/frazil-io/frazil/internal/deadletter"
)

// TestParse reads letters back as they are sent.
func TestParse(t *testing.T) {
	t.Parallel()
	from := deadletter.Origin{Pipeline: "clicks", Stream: batch.StreamMain, Batch: 7, Time: time.Date(2026, 1, 2, 3, 4, 5, 678000000, time.UTC), Sinks: []string{"a", "b"}}
	for name, l := range map[string]deadletter.Letter{
		"of the source": {
			Topic: "t", Partition: 3, Offset: 41, Timestamp: 1700000000123000, Key: []byte{}, Value: []byte("{\xff"), Headers: []deadletter.Header{{Key: []byte("h"), Value: nil}, {Key: []byte("frazil.topic"), Value: []byte("not ours")}},
			Source: "s", Code: batch.CodeDecode, Reason: "a \"reason\"\nof two lines", Sinks: []string{"a", "b"},
		},
		"of a sink": {Topic: "t", Timestamp: deadletter.NoTimestamp, Value: nil, Source: "s", Sink: "a", Code: batch.CodeCast, Sinks: []string{"a"}},
	} {
		b := deadletter.NewBuilder()
		b.Add(l)
		letters := b.Take()
		rows := deadletter.Seal(letters, from)
		r := (&Topic{name: "dead"}).record(rows, 0)
		var headers []deadletter.Header
		for _, h := range r.Headers {
			headers = append(headers, deadletter.Header{Key: []byte(h.Key), Value: h.Value})
		}
		got, origin, ok := Parse(r.Key, r.Value, headers)
		if len(got.Headers) == 0 {
			got.Headers = nil
		}
		if !ok || !reflect.DeepEqual(got, l) {
			t.Errorf("%s: %v\n%+v became\n%+v", name, ok, l, got)
		}
		if origin.Sinks = from.Sinks; !reflect.DeepEqual(origin, from) {
			t.Errorf("%s: it comes from %+v, and was read as from %+v", name, from, origin)
		}
	}
	if _, _, ok := Parse(nil, []byte("x"), []deadletter.Header{{Key: []byte("frazil.code"), Value: []byte("decode")}}); ok {
		t.Error("a record without a place is taken for a letter")
	}
}
