package stream

import (
	"encoding/json"
	"regexp"
	"strings"
)

// macro is the body of a scalar macro, as if it stood where it is called.
type macro struct {
	name   string
	bodies []any // one for each overload
	// timed says that its first parameter is the plan's time, which frazil adds.
	timed bool
}

// timeParam is that parameter's name.
const timeParam = "__frazil_time"

var signature = regexp.MustCompile(`^\s*([A-Za-z_][A-Za-z0-9_]*)\s*\(((?s:.*))\)\s*$`)

// define checks a macro of the spec and notes how to make it.
func (a *Analyzer) define(m Macro) error {
	t := text{what: "macro " + m.Signature, sql: m.SQL, shift: len("SELECT ")}
	match := signature.FindStringSubmatch(m.Signature)
	if match == nil {
		return t.refusal(-1, "its key is not name(parameters); write for instance mask(email): left(email, 2) || '***'")
	}
	name, params := strings.ToLower(match[1]), match[2]
	t.what = "macro " + match[1]
	_, isTime := times[name]
	switch {
	case a.macros[name] != nil:
		return t.refusal(-1, "there are two macros of this name")
	case a.Functions[name], isTime, grammar[name], strings.HasPrefix(name, "__"):
		return t.refusal(-1, "DuckDB has a function of this name; choose another one")
	}
	if err := a.parameters(t, match[1], params); err != nil {
		return err
	}
	body, err := a.expression(t, m.SQL)
	if err != nil {
		return err
	}
	a.note(body)
	w := &walk{Analyzer: a, text: t, within: &macro{name: match[1]}}
	if body, err = w.repeatable(body); err != nil {
		return err
	}
	sql, err := a.printed(statement(body))
	if err != nil {
		return err
	}
	w.within.bodies = []any{body}
	a.macros[name] = w.within
	if w.within.timed {
		params = strings.TrimSuffix(timeParam+", "+strings.TrimSpace(params), ", ")
	}
	a.created = append(a.created, `CREATE MACRO "`+match[1]+`"(`+params+") AS "+strings.TrimPrefix(sql, "SELECT "))
	return nil
}

// grammar are names that look like calls and are none.
var grammar = map[string]bool{"coalesce": true, "cast": true, "try_cast": true, "try": true, "columns": true, "grouping": true, "row": true, "struct": true, "exists": true, "case": true}

// parameters makes sure that the text between the parentheses is names, and
// constants for the last of them.
func (a *Analyzer) parameters(t text, name, params string) error {
	t.shift = 1 << 30 // the position would be that of another text
	wrong := t.refusal(-1, "its parameters are %q; write names, and constants for those that may be left out: (a, b := 2)", params)
	e, err := a.expression(t, name+"("+params+")")
	if err != nil {
		return wrong
	}
	f, ok := e.(node)
	if !ok || str(f, "class") != "FUNCTION" || str(f, "alias") != "" || f["distinct"] != false || f["filter"] != nil || len(list(child(f, "order_bys"), "orders")) > 0 {
		return wrong
	}
	for _, c := range list(f, "children") {
		c, _ := c.(node)
		names := list(c, "column_names")
		plain := str(c, "class") == "COLUMN_REF" && len(names) == 1 && str(c, "alias") == ""
		constant := str(c, "alias") != "" && (str(c, "class") == "CONSTANT" || str(c, "class") == "CAST" && str(child(c, "child"), "class") == "CONSTANT")
		if !plain && !constant {
			return wrong
		}
		param := str(c, "alias")
		if plain {
			param, _ = names[0].(string)
		}
		a.defined[strings.ToLower(param)] = true
	}
	return nil
}

// expression parses one expression.
func (a *Analyzer) expression(t text, sql string) (any, error) {
	root, err := a.tree(t, "SELECT "+sql)
	if err != nil {
		return nil, err
	}
	n := top(root)
	items := list(n, "select_list")
	if str(n, "type") != "SELECT_NODE" || len(items) != 1 || str(child(n, "from_table"), "type") != "EMPTY" || len(list(n, "modifiers")) > 0 ||
		len(list(n, "group_expressions")) > 0 || len(list(n, "group_sets")) > 0 ||
		n["where_clause"] != nil || n["having"] != nil || n["qualify"] != nil || n["sample"] != nil || str(items[0].(node), "alias") != "" {
		return nil, t.refusal(-1, "it is not one expression; write a single value, such as left(email, 2) || '***', and a view for rows")
	}
	return items[0], nil
}

// statement makes a tree of one expression.
func statement(e any) node {
	return node{"error": false, "statements": []any{node{"named_param_map": []any{}, "node": node{
		"type": "SELECT_NODE", "modifiers": []any{}, "cte_map": node{"map": []any{}}, "select_list": []any{e},
		"from_table":   node{"type": "EMPTY", "alias": "", "sample": nil, "query_location": json.Number("18446744073709551615")},
		"where_clause": nil, "group_expressions": []any{}, "group_sets": []any{}, "aggregate_handling": "STANDARD_HANDLING", "having": nil, "sample": nil, "qualify": nil,
	}}}}
}

// macro returns the macro that a function name stands for, nil for none.
func (w *walk) macro(name string) (*macro, error) {
	if m := w.macros[name]; m != nil {
		return m, nil
	}
	if m := w.builtin[name]; m != nil || w.Catalog.Macros[name] == nil {
		return m, nil
	}
	m := &macro{name: name}
	for _, sql := range w.Catalog.Macros[name] {
		body, err := w.expression(text{what: "function " + name, sql: sql}, sql)
		if err != nil {
			return nil, w.refusal(w.at, "function %s is not supported", name)
		}
		m.bodies = append(m.bodies, body)
	}
	w.builtin[name] = m
	return m, nil
}

// nestedMax bounds macros that call macros: DuckDB's own nest two deep, and
// those of a spec stand in an order.
const nestedMax = 64

// inside returns the walk over the body of a macro that is called where w
// stands: it refuses at the place of the call.
func (w *walk) inside(m *macro) (*walk, error) {
	if len(w.calls) > nestedMax {
		return nil, w.refusal(w.at, "macros call each other too deeply")
	}
	return &walk{Analyzer: w.Analyzer, text: w.text, at: w.at, calls: append(w.calls[:len(w.calls):len(w.calls)], m.name), outer: w.outer}, nil
}
