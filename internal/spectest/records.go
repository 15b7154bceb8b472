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
	Key       payload   `json:"key"`
	Value     payload   `json:"value"`
	Headers   headers   `json:"headers"`
	Partition int32     `json:"partition"`
	Timestamp time.Time `json:"timestamp"`
	// Schema is the version of the value's subject that it is written with; 0: the
	// newest one.
	Schema int    `json:"schema"`
	at     string // file:line
}

// header is one header of a record.
type header struct {
	name  string
	value payload
}

// headers are in the order of the file, in which a name may come twice.
type headers []header

// UnmarshalJSON reads an object, whose members are headers.
func (h *headers) UnmarshalJSON(data []byte) error {
	d := json.NewDecoder(bytes.NewReader(data))
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		if t == nil {
			return err
		}
		return fmt.Errorf("headers are an object of names and values, not %v", t)
	}
	for d.More() {
		name, err := d.Token()
		if err != nil {
			return err
		}
		one := header{name: name.(string)} // the decoder takes nothing else for a name
		if err := d.Decode(&one.value); err != nil {
			return err
		}
		*h = append(*h, one)
	}
	return nil
}

// payload is text, or any other JSON, which is encoded as the source has it, or
// {"base64": "…"} for bytes that are no text. null is no payload.
type payload struct {
	data    []byte // nil: none
	encoded bool   // data is JSON, which is to be encoded
}

// UnmarshalJSON reads a payload.
func (p *payload) UnmarshalJSON(data []byte) error {
	var text string
	if json.Unmarshal(data, &text) == nil && data[0] == '"' {
		*p = payload{data: append([]byte{}, text...)}
		return nil
	}
	if bytes.Equal(data, []byte("null")) {
		*p = payload{}
		return nil
	}
	var binary map[string][]byte
	if err := json.Unmarshal(data, &binary); err == nil && len(binary) == 1 && binary["base64"] != nil {
		*p = payload{data: binary["base64"]}
		return nil
	}
	var compact bytes.Buffer
	if err := json.Compact(&compact, data); err != nil {
		return err
	}
	*p = payload{data: compact.Bytes(), encoded: true}
	return nil
}

const (
	// recordsEnding marks files whose lines describe records; in all others a line is
	// a value.
	recordsEnding = ".records"
	// jsonEnding marks files whose lines are values in JSON, which are never empty.
	jsonEnding = ".jsonl"
)

// byteOrderMark is what editors on Windows put before a text.
const byteOrderMark = "\ufeff"

// partitionsMax bounds the partitions of a topic, all of which are made.
const partitionsMax = 1000

// readRecords reads the records of a topic.
func readRecords(path string) ([]record, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var all []record
	number := 0
	ending := filepath.Ext(path)
	for line := range strings.Lines(strings.TrimPrefix(string(data), byteOrderMark)) {
		number++
		line = strings.TrimSuffix(strings.TrimSuffix(line, "\n"), "\r")
		r := record{Value: payload{data: []byte(line), encoded: true}}
		if (ending == recordsEnding || ending == jsonEnding) && strings.TrimSpace(line) == "" {
			continue
		}
		if ending == recordsEnding {
			r = record{}
			d := json.NewDecoder(strings.NewReader(line))
			d.DisallowUnknownFields()
			if err := d.Decode(&r); err != nil {
				return nil, fmt.Errorf("%s:%d: %w; a line is {\"key\": …, \"value\": …, \"headers\": {…}, \"partition\": 0, \"timestamp\": \"…\"}", path, number, err)
			}
			if r.Partition < 0 || r.Partition >= partitionsMax {
				return nil, fmt.Errorf("%s:%d: partition %d; it is one from 0 to %d", path, number, r.Partition, partitionsMax-1)
			}
		}
		r.at = fmt.Sprintf("%s:%d", path, number)
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
	k := &kgo.Record{Topic: topic, Partition: r.Partition, Key: r.Key.data, Value: r.Value.data, Timestamp: at}
	for _, h := range r.Headers {
		k.Headers = append(k.Headers, kgo.RecordHeader{Key: h.name, Value: h.value.data})
	}
	return k
}
