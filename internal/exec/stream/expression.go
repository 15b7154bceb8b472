package stream

import (
	"slices"
	"strings"
)

// place says where an expression stands.
type place struct {
	streaming bool // the SELECT around it reads a stream
	bare      bool // that SELECT has no FROM
}

// expressions analyses everything inside of an expression.
func (w *walk) expressions(v any, s scope, p place) (relation, error) {
	var used relation
	switch v := v.(type) {
	case []any:
		for _, e := range v {
			r, err := w.expressions(e, s, p)
			if err != nil {
				return used, err
			}
			used = used.and(r)
		}
	case node:
		w.here(v)
		switch str(v, "class") {
		case "SUBQUERY":
			return w.subquery(v, s, p)
		case "WINDOW":
			if err := w.window(v, p); err != nil {
				return used, err
			}
		case "FUNCTION":
			var err error
			if used, err = w.call(v, s, p); err != nil {
				return used, err
			}
		}
		for _, key := range sortedKeys(v) {
			r, err := w.expressions(v[key], s, p)
			if err != nil {
				return used, err
			}
			used = used.and(r)
		}
	}
	return used, nil
}

func sortedKeys(n node) []string {
	keys := make([]string, 0, len(n))
	for k := range n {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

func (w *walk) subquery(n node, s scope, p place) (relation, error) {
	at, outer := w.at, w.outer
	w.outer = outer || p.streaming
	r, err := w.queryNode(child(child(n, "subquery"), "node"), s)
	w.outer = outer
	if err != nil {
		return r, err
	}
	if r.stream {
		return r, w.refusal(at, "a subquery over a stream needs all its rows; join with a dimension table instead")
	}
	over, err := w.expressions(n["child"], s, p)
	return r.and(over), err
}

// ordered are window functions whose answer depends on the order of rows.
var ordered = map[string]bool{
	"row_number": true, "ntile": true, "lag": true, "lead": true, "first_value": true, "last_value": true, "nth_value": true, "first": true, "last": true,
	"any_value": true, "list": true, "array_agg": true, "string_agg": true, "fill": true,
}

func (w *walk) window(n node, p place) error {
	name := strings.ToLower(str(n, "function_name"))
	switch {
	case p.streaming:
		return w.refusal(w.at, "window function %s over a stream needs state, which this version of frazil does not keep; write the rows as they come and use it when reading", name)
	case ordered[name] && len(list(n, "orders")) == 0:
		return w.refusal(w.at, "%s without ORDER BY depends on the order in which rows happen to lie; write OVER (ORDER BY …)", name)
	}
	return nil
}

// call looks at a function: an aggregate, or a macro that may hide one.
func (w *walk) call(n node, s scope, p place) (used relation, err error) {
	name := strings.ToLower(str(n, "function_name"))
	if w.Aggregates[name] {
		switch {
		case p.streaming:
			return used, w.refusal(w.at, "aggregate %s over a stream needs state, which this version of frazil does not keep; write the rows as they come and aggregate when reading "+
				"(over a list of the row itself, use %s)", plainName(name), w.ofList(name))
		case w.outer && p.bare && refers(n):
			return used, w.refusal(w.at, "aggregate %s in a subquery without FROM is one over the stream around it; over a list of the row itself, use %s", plainName(name), w.ofList(name))
		}
	}
	m, err := w.macro(name)
	if m == nil || err != nil {
		return used, err
	}
	if w.macros[name] != nil {
		used.macros = append(used.macros, name)
	}
	for _, body := range m.bodies {
		in, err := w.inside(m)
		if err != nil {
			return used, err
		}
		r, err := in.expressions(body, s, p)
		if err != nil {
			return used, err
		}
		used = used.and(r)
	}
	return used, nil
}

// refers says whether a tree names a column.
func refers(v any) bool {
	switch v := v.(type) {
	case []any:
		return slices.ContainsFunc(v, refers)
	case node:
		if c := str(v, "class"); c == "COLUMN_REF" || c == "STAR" {
			return true
		}
		for _, c := range v {
			if refers(c) {
				return true
			}
		}
	}
	return false
}

// ofList names the function that does for a list what an aggregate does for rows.
func (w *walk) ofList(aggregate string) string {
	if f := "list_" + plainName(aggregate); w.Functions[f] {
		return f
	}
	return "list_aggregate(…, '" + plainName(aggregate) + "')"
}

func plainName(aggregate string) string {
	if aggregate == "count_star" {
		return "count"
	}
	return aggregate
}
