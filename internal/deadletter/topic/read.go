package topic

import (
	"encoding/json"
	"strconv"
	"strings"
	"time"

	"github.com/frazil-io/frazil/internal/batch"
	"github.com/frazil-io/frazil/internal/deadletter"
)

// instants is how a letter's headers say a time.
const instants = "2006-01-02 15:04:05.999999Z07:00"

// Parse reads a letter as a topic holds it. ok is false for a record that is none.
func Parse(key, value []byte, headers []deadletter.Header) (l deadletter.Letter, from deadletter.Origin, ok bool) {
	own := len(headers) // of the record itself: ours are behind them, and begin with the topic
	for i, h := range headers {
		if string(h.Key) == prefix+"topic" {
			own = i
		}
	}
	said := map[string]string{}
	for _, h := range headers[own:] {
		said[strings.TrimPrefix(string(h.Key), prefix)] = string(h.Value)
	}
	number := func(name string, bits int) int64 {
		n, err := strconv.ParseInt(said[name], 10, bits)
		ok = ok && err == nil
		return n
	}
	ok = said["code"] != ""
	l = deadletter.Letter{
		Topic: said["topic"], Partition: int32(number("partition", 32)), Offset: number("offset", 64), Timestamp: deadletter.NoTimestamp,
		Key: key, Value: value, Headers: headers[:own], Source: said["source"], Sink: said["sink"], Code: batch.Code(said["code"]), Reason: said["reason"],
	}
	if at, err := time.Parse(instants, said["timestamp"]); err == nil {
		l.Timestamp = at.UnixMicro()
	}
	from = deadletter.Origin{Pipeline: said["pipeline"], Stream: said["stream"], Batch: batch.ID(number("batch", 64))}
	if at, err := time.Parse(instants, said["batch_time"]); err == nil {
		from.Time = at
	}
	if json.Unmarshal([]byte(said["sinks"]), &l.Sinks) != nil {
		l.Sinks = nil
	}
	return l, from, ok
}
