package config

import (
	"cmp"
	"encoding/json"
	"slices"
	"strings"
)

// maskMin is the shortest value that is hidden: a shorter one is no secret, and
// would be found in words that have nothing to do with it.
const maskMin = 4

// Mask hides the values of variables, and logins in addresses, in what is printed.
type Mask struct{ pairs []masked }

type masked struct{ name, value string }

func (m *Mask) add(name, value string) {
	escaped, _ := json.Marshal(value) // as logs and JSON show it
	for _, v := range []string{value, strings.Trim(string(escaped), `"`)} {
		if len(v) >= maskMin && !slices.Contains(m.pairs, masked{name, v}) {
			m.pairs = append(m.pairs, masked{name, v})
		}
	}
}

// addAddress hides the password and the query of an address, as they stand in it: a
// word such as "disable" that is a query's value is no secret anywhere else.
func (m *Mask) addAddress(text string) {
	_, rest, ok := strings.Cut(text, "://")
	if !ok || strings.ContainsAny(text, " \t\r\n") {
		return
	}
	rest, query, hasQuery := strings.Cut(rest, "?")
	if hasQuery {
		m.add("?***", "?"+query)
	}
	if at := strings.LastIndexByte(rest, '@'); at >= 0 {
		if _, password, ok := strings.Cut(rest[:at], ":"); ok && password != "" {
			m.add(":***@", ":"+password+"@")
		}
	}
}

// Hide replaces each value by the variable that it came from, and each login in an
// address by stars.
func (m Mask) Hide(text string) string {
	if len(m.pairs) == 0 {
		return text
	}
	// A value may be a part of another one: the longest goes first.
	longest := slices.SortedFunc(slices.Values(m.pairs), func(a, b masked) int { return cmp.Compare(len(b.value), len(a.value)) })
	var all []string
	for _, p := range longest {
		all = append(all, p.value, p.name)
	}
	return strings.NewReplacer(all...).Replace(text)
}

// Mask hides what the spec's variables stand for, and the logins in its addresses.
func (s *Spec) Mask() Mask { return s.mask }
