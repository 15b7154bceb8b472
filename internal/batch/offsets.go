package batch

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// Offsets maps partitions to offsets. As JSON it is
// {"source": {"topic@topic-id": {"partition": offset}}}, with sorted keys, so
// that equal offsets have equal bytes.
type Offsets map[TopicPartition]int64

// Clone returns a copy that shares nothing.
func (o Offsets) Clone() Offsets { return maps.Clone(o) }

// Equal says whether both name the same partitions with the same offsets.
func (o Offsets) Equal(p Offsets) bool { return maps.Equal(o, p) }

// Partitions returns the partitions in order.
func (o Offsets) Partitions() []TopicPartition {
	return slices.SortedFunc(maps.Keys(o), TopicPartition.Compare)
}

// MarshalJSON writes the canonical form.
func (o Offsets) MarshalJSON() ([]byte, error) {
	out := map[string]map[string]map[string]int64{}
	for p, at := range o {
		topics := out[p.Source]
		if topics == nil {
			topics = map[string]map[string]int64{}
			out[p.Source] = topics
		}
		name := p.Topic + "@" + p.TopicID
		if topics[name] == nil {
			topics[name] = map[string]int64{}
		}
		topics[name][strconv.Itoa(int(p.Partition))] = at
	}
	return json.Marshal(out)
}

// UnmarshalJSON reads what MarshalJSON wrote.
func (o *Offsets) UnmarshalJSON(data []byte) error {
	var in map[string]map[string]map[string]int64
	if err := json.Unmarshal(data, &in); err != nil {
		return fmt.Errorf("offsets: %w", err)
	}
	*o = Offsets{}
	for source, topics := range in {
		for name, partitions := range topics {
			// A topic's name cannot hold "@".
			topic, id, ok := strings.Cut(name, "@")
			if !ok {
				return fmt.Errorf("offsets: %q is not topic@topic-id", name)
			}
			for number, at := range partitions {
				n, err := strconv.ParseInt(number, 10, 32)
				if err != nil {
					return fmt.Errorf("offsets: partition %q of %s: %w", number, topic, err)
				}
				(*o)[TopicPartition{source, topic, id, int32(n)}] = at
			}
		}
	}
	return nil
}
