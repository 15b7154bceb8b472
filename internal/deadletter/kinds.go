package deadletter

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
)

// kindsMax bounds the kinds that are told apart, each with one example.
const kindsMax = 64

// Kinds counts letters by why they were rejected: reasons that differ in
// numbers and quoted values only are one kind.
type Kinds struct {
	mu   sync.Mutex
	by   map[string]*kind
	more int64 // of kinds beyond kindsMax
}

type kind struct {
	count     int64
	what      string
	partition int32
	offset    int64
	topic     string
	example   string
}

// valueShown is how much of a record an example shows.
const valueShown = 120

// Add notes letters.
func (k *Kinds) Add(letters arrow.RecordBatch) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.by == nil {
		k.by = map[string]*kind{}
	}
	text := func(column, row int) string { return letters.Column(column).(*array.String).Value(row) }
	for i := range int(letters.NumRows()) {
		where := "source " + text(source, i)
		if letters.Column(sink).IsValid(i) {
			where = "sink " + text(sink, i)
		}
		why, _, _ := strings.Cut(text(reason, i), "\n")
		name := text(code, i) + " in " + where + ": " + general(why)
		one := k.by[name]
		if one == nil && len(k.by) >= kindsMax {
			k.more++
			continue
		}
		next := kind{
			what: text(code, i) + " in " + where, topic: text(topic, i), partition: letters.Column(partition).(*array.Int32).Value(i), offset: letters.Column(offset).(*array.Int64).Value(i),
		}
		if one == nil {
			one = &kind{}
			k.by[name] = one
		}
		if one.count++; one.count == 1 || next.before(one) { // the same example whichever worker is first
			next.count = one.count
			next.example = fmt.Sprintf("offset %d of %s/%d: %s; its value is %s", next.offset, next.topic, next.partition, shortened(why, 2*valueShown), shown(letters.Column(value).(*array.Binary), i))
			*one = next
		}
	}
}

func (k *kind) before(o *kind) bool {
	return cmp.Or(cmp.Compare(k.topic, o.topic), cmp.Compare(k.partition, o.partition), cmp.Compare(k.offset, o.offset)) < 0
}

func shown(values *array.Binary, i int) string {
	if values.IsNull(i) {
		return "null"
	}
	v := values.Value(i)
	out := strconv.QuoteToASCII(string(v[:min(len(v), valueShown)]))
	if len(v) > valueShown {
		out += " …"
	}
	return out
}

// general leaves out what differs from record to record: numbers, and what is
// in quotes.
func general(reason string) string {
	b := &strings.Builder{}
	var quote rune
	for _, r := range reason {
		switch {
		case quote != 0:
			if r == quote {
				quote = 0
			}
		case r == '"' || r == '\'':
			quote = r
			b.WriteRune('…')
		case r >= '0' && r <= '9':
		default:
			b.WriteRune(r)
		}
	}
	return b.String()
}

// Commonest returns the most frequent kinds, one line each, with an example.
func (k *Kinds) Commonest(n int) []string {
	k.mu.Lock()
	defer k.mu.Unlock()
	all := slices.SortedFunc(maps.Values(k.by), func(a, b *kind) int {
		return cmp.Or(cmp.Compare(b.count, a.count), cmp.Compare(a.what, b.what), cmp.Compare(a.example, b.example))
	})
	var lines []string
	rest := k.more
	for i, one := range all {
		if i >= n {
			rest += one.count
			continue
		}
		lines = append(lines, fmt.Sprintf("%d × %s, such as %s", one.count, one.what, one.example))
	}
	if rest > 0 {
		lines = append(lines, fmt.Sprintf("%d × other reasons", rest))
	}
	return lines
}
