package spectest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// record is one record of a topic as a case has it.
type record struct {
	Key       payload            `json:"key"`
	Value     payload            `json:"value"`
	Headers   map[string]payload `json:"headers"`
	Partition int32              `json:"partition"`
	Timestamp time.Time          `json:"timestamp"`
}

// payload is text, or any other JSON, which is what the bytes are then, or
// {"base64": "…"} for bytes that are no text. null is no payload.
type payload []byte

// UnmarshalJSON reads a payload.
func (p *payload) UnmarshalJSON(data []byte) error {
	var text string
	if json.Unmarshal(data, &text) == nil && data[0] == '"' {
		*p = append(payload{}, text...)
		return nil
	}
	if bytes.Equal(data, []byte("null")) {
		*p = nil
		return nil
	}
	var binary map[string][]byte
	if err := json.Unmarshal(data, &binary); err == nil && len(binary) == 1 && binary["base64"] != nil {
		*p = binary["base64"]
		return nil
	}
	var compact bytes.Buffer
	if err := json.Compact(&compact, data); err != nil {
		return err
	}
	*p = compact.Bytes()
	return nil
}

// recordsEnding marks files whose lines describe records; in all others a line
// is a value.
const recordsEnding = ".records"

// readRecords reads the records of a topic.
func readRecords(path string) ([]record, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var all []record
	number := 0
	for line := range strings.Lines(string(data)) {
		number++
		line = strings.TrimSuffix(line, "\n")
		r := record{Value: payload(line)}
		if filepath.Ext(path) == recordsEnding {
			if strings.TrimSpace(line) == "" {
				continue
			}
			r = record{}
			d := json.NewDecoder(strings.NewReader(line))
			d.DisallowUnknownFields()
			if err := d.Decode(&r); err != nil {
				return nil, fmt.Errorf("%s:%d: %w; a line is {\"key\": …, \"value\": …, \"headers\": {…}, \"partition\": 0, \"timestamp\": \"…\"}", path, number, err)
			}
		}
		all = append(all, r)
	}
	return all, nil
}

// kafka is the record for a topic. Records without a time have the case's, each a
// millisecond behind the one before.
func (r record) kafka(topic string, number int, now time.Time) *kgo.Record {
	at := r.Timestamp
	if at.IsZero() {
		at = now.Add(time.Duration(number) * time.Millisecond)
	}
	k := &kgo.Record{Topic: topic, Partition: r.Partition, Key: r.Key, Value: r.Value, Timestamp: at}
	for name, value := range r.Headers {
		k.Headers = append(k.Headers, kgo.RecordHeader{Key: name, Value: value})
	}
	return k
}
