package cli

import (
	"encoding/json"
	"math/big"
	"regexp"
	"sort"
	"strings"
	"time"
	"unicode"
)

// shape is what was seen of one JSON value.
type shape struct {
	kinds   map[string]bool // BIGINT, INTEGERS, DOUBLE, BOOLEAN, VARCHAR, TIMESTAMPTZ, DATE, object, list
	members map[string]*shape
	order   []string // of members, as they were seen first
	element *shape
	least   float64 // of the numbers
	most    float64
	objects int // how many objects were seen
}

func newShape() *shape { return &shape{kinds: map[string]bool{}, members: map[string]*shape{}} }

var (
	rfc3339   = regexp.MustCompile(`^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)$`)
	dateOnly  = regexp.MustCompile(`^\d{4}-\d\d-\d\d$`)
	decimal38 = new(big.Int).Exp(big.NewInt(10), big.NewInt(38), nil)
)

func (s *shape) see(v any) {
	switch v := v.(type) {
	case nil:
	case bool:
		s.kinds["BOOLEAN"] = true
	case json.Number:
		s.number(v)
	case string:
		s.kinds[textKind(v)] = true
	case []any:
		s.kinds["list"] = true
		if s.element == nil {
			s.element = newShape()
		}
		for _, e := range v {
			s.element.see(e)
		}
	case map[string]any:
		s.kinds["object"] = true
		s.objects++
		names := make([]string, 0, len(v))
		for name := range v {
			names = append(names, name)
		}
		sort.Strings(names)
		for _, name := range names {
			if s.members[name] == nil {
				s.members[name] = newShape()
				s.order = append(s.order, name)
			}
			s.members[name].see(v[name])
		}
	}
}

func (s *shape) number(v json.Number) {
	kind := "DOUBLE"
	if _, err := v.Int64(); err == nil {
		kind = "BIGINT"
	} else if n, ok := new(big.Int).SetString(v.String(), 10); ok && n.CmpAbs(decimal38) < 0 {
		kind = "INTEGERS" // beyond BIGINT
	} else if _, err := v.Float64(); err != nil {
		kind = "number" // beyond DOUBLE: no column takes it
	}
	f, _ := v.Float64()
	if !s.kinds["BIGINT"] && !s.kinds["DOUBLE"] {
		s.least, s.most = f, f
	}
	s.least, s.most = min(s.least, f), max(s.most, f)
	s.kinds[kind] = true
}

func textKind(v string) string {
	if rfc3339.MatchString(v) {
		if _, err := time.Parse(time.RFC3339Nano, v); err == nil {
			return "TIMESTAMPTZ"
		}
	}
	if dateOnly.MatchString(v) {
		if _, err := time.Parse("2006-01-02", v); err == nil {
			return "DATE"
		}
	}
	return "VARCHAR"
}

// mapFrom is how many different keys make an object a MAP rather than a STRUCT:
// its keys are data then.
const mapFrom = 100

// sqlType is the narrowest type that took everything seen, "" where none does.
func (s *shape) sqlType() string {
	if len(s.kinds) == 0 {
		return "VARCHAR" // null only: a guess
	}
	switch {
	case s.only("list"):
		if inner := s.element.sqlType(); inner != "" {
			return inner + "[]"
		}
		return ""
	case s.only("object"):
		if len(s.members) > mapFrom {
			return s.mapType()
		}
		return s.structType()
	case s.only("BIGINT", "INTEGERS"):
		if s.kinds["INTEGERS"] {
			return "DECIMAL(38,0)"
		}
		return "BIGINT"
	case s.only("BIGINT", "INTEGERS", "DOUBLE"):
		return "DOUBLE"
	case s.only("TIMESTAMPTZ"):
		return "TIMESTAMPTZ"
	case s.only("DATE"):
		return "DATE"
	case s.only("VARCHAR", "TIMESTAMPTZ", "DATE"):
		return "VARCHAR"
	case s.only("BOOLEAN"):
		return "BOOLEAN"
	}
	return ""
}

// only says that nothing else than these kinds was seen.
func (s *shape) only(kinds ...string) bool {
	n := 0
	for _, k := range kinds {
		if s.kinds[k] {
			n++
		}
	}
	return n > 0 && n == len(s.kinds)
}

// structType is "" where a member has no type, or two names are one to SQL: what
// it would leave out would be lost.
func (s *shape) structType() string {
	var members []string
	seen := map[string]bool{}
	for _, name := range s.order {
		t := s.members[name].sqlType()
		if t == "" || seen[strings.ToLower(name)] || !columnName(name) {
			return ""
		}
		seen[strings.ToLower(name)] = true
		members = append(members, quoteName(name)+" "+t)
	}
	if len(members) == 0 {
		return ""
	}
	return "STRUCT(" + strings.Join(members, ", ") + ")"
}

func (s *shape) mapType() string {
	all := newShape()
	for _, m := range s.members {
		for k := range m.kinds {
			all.kinds[k] = true
		}
	}
	if all.kinds["object"] || all.kinds["list"] {
		return ""
	}
	if t := all.sqlType(); t != "" {
		return "MAP(VARCHAR, " + t + ")"
	}
	return ""
}

// epoch says in which unit a whole number looks like a time since 1970: between
// 2001 and 2100.
func (s *shape) epoch() string {
	if !s.only("BIGINT") {
		return ""
	}
	for _, u := range []struct {
		name string
		per  float64
	}{{"s", 1}, {"ms", 1e3}, {"us", 1e6}, {"ns", 1e9}} {
		if s.least >= 1e9*u.per && s.most < 4102444800*u.per {
			return u.name
		}
	}
	return ""
}

// columnName says whether a key can be a column: there is something in it, all of
// it can be seen, and it is not one of Frazil's own.
func columnName(name string) bool {
	if strings.TrimSpace(name) == "" || strings.TrimSpace(name) != name || strings.HasPrefix(name, "__") || strings.EqualFold(name, "_unknown") {
		return false
	}
	for _, r := range name {
		if !unicode.IsPrint(r) || r == unicode.ReplacementChar {
			return false
		}
	}
	return true
}

var plainName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

// reserved are the words that DuckDB takes for its own where a name could stand.
var reserved = wordSet(`all analyse analyze and anti any array as asc asof asymmetric at both case cast check collate column constraint create cross
	default deferrable desc describe distinct do else end except false fetch for foreign freeze from full glob grant group having ilike in initially
	inner intersect into is isnull join lambda lateral leading left like limit map natural not notnull null offset on only or order outer overlaps
	pivot pivot_longer pivot_wider placing positional primary qualify references returning right select semi show similar some struct summarize
	symmetric table tablesample then to trailing true union unique unpivot using variadic verbose when where window with`)

func wordSet(words string) map[string]bool {
	set := map[string]bool{}
	for w := range strings.FieldsSeq(words) {
		set[w] = true
	}
	return set
}

func quoteName(name string) string {
	if plainName.MatchString(name) && !reserved[strings.ToLower(name)] {
		return name
	}
	return `"` + strings.ReplaceAll(name, `"`, `""`) + `"`
}
