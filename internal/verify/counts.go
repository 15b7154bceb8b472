package verify

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/frazil-io/frazil/internal/batch"
)

// terms are the counts of a stamp as it writes them, by name; those inside of a
// group have the group's name before them. An audit reads what is written, so it
// sees a term of any version.
type terms map[string]int64

func termsOf(c batch.Counts) terms {
	data, err := json.Marshal(c)
	if err != nil {
		panic("verify: counts without JSON: " + err.Error())
	}
	var tree map[string]any
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	if err := d.Decode(&tree); err != nil {
		panic("verify: counts without JSON: " + err.Error())
	}
	t := terms{}
	t.flatten("", tree)
	return t
}

func (t terms) flatten(group string, tree map[string]any) {
	for name, v := range tree {
		switch v := v.(type) {
		case json.Number:
			if n, err := v.Int64(); err == nil && n != 0 {
				t[group+name] = n
			}
		case map[string]any:
			t.flatten(group+name+".", v)
		}
	}
}

// minus returns the difference, term by term.
func (t terms) minus(u terms) terms {
	d := maps.Clone(t)
	for name, n := range u {
		if d[name] -= n; d[name] == 0 {
			delete(d, name)
		}
	}
	return d
}

// group sums what a group has.
func (t terms) group(name string) (sum int64) {
	for k, n := range t {
		if strings.HasPrefix(k, name+".") {
			sum += n
		}
	}
	return sum
}

// imbalance says what does not add up, "" if everything does. Terms that a former
// version did not count are 0 in its stamps, and less than the rest in totals.
func (t terms) imbalance() string {
	var wrong []string
	for _, name := range slices.Sorted(maps.Keys(t)) {
		if t[name] < 0 {
			wrong = append(wrong, fmt.Sprintf("%s is %d", name, t[name]))
		}
	}
	sum := func(whole string, parts ...string) {
		var n int64
		for _, part := range parts {
			n += t[part]
		}
		if n != t[whole] {
			wrong = append(wrong, fmt.Sprintf("%s are %d, but %s are %d", whole, t[whole], strings.Join(parts, " + "), n))
		}
	}
	sum("offsets", "data", "control", "aborted", "lost", "absent")
	sum("data", "rows", "tombstones", "skipped", "dead_lettered")
	if inputs := t["unread"] + t["with_output"] + t["without_output"] + t["uncounted"]; inputs > 0 && t["scanned"] == t["rows"] {
		sum("scanned", "unread", "with_output", "without_output", "uncounted", "rejected", "dropped")
	}
	if rules := t.group("rules"); rules != t["dropped"]+t["rejected_by.constraint"] {
		wrong = append(wrong, fmt.Sprintf("dropped + rejected_by.constraint are %d, but by rule they are %d", t["dropped"]+t["rejected_by.constraint"], rules))
	}
	switch bad := t.group("bad"); {
	case t["scanned"] > t["rows"]:
		wrong = append(wrong, fmt.Sprintf("rows are %d, but %d were scanned", t["rows"], t["scanned"]))
	case bad > t["skipped"]+t["dead_lettered"]:
		wrong = append(wrong, fmt.Sprintf("skipped + dead_lettered are %d, but by code they are %d", t["skipped"]+t["dead_lettered"], bad))
	case t.group("rejected_by") > t["rejected"]:
		wrong = append(wrong, fmt.Sprintf("rejected are %d, but by code they are %d", t["rejected"], t.group("rejected_by")))
	}
	return strings.Join(wrong, "; ")
}

// equal compares all terms.
func equal(a, b batch.Counts) bool { return maps.Equal(termsOf(a), termsOf(b)) }

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
