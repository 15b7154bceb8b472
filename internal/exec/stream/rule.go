package stream

import "strings"

// Rule is what each row of a relation must be: an expression of its columns.
type Rule struct {
	What string // where it stands in the spec, for messages
	SQL  string
}

// outside are parts of an expression that see more than the row, or give more
// than one value, and what to write instead.
var outside = map[string]string{
	"SUBQUERY":             "a rule looks at one row and has no subquery; join with the table in the SQL of a sink, and name the column in a rule of that sink",
	"STAR":                 "a rule has no * and no COLUMNS; name the columns",
	"POSITIONAL_REFERENCE": "a rule has no columns by their place; name them",
	"WINDOW":               "a rule looks at one row and has no window function",
}

// Check analyses a rule and returns it as it runs; BatchTime stands for the plan's
// time in it.
func (a *Analyzer) Check(r Rule) (string, error) {
	t := text{what: r.What, sql: r.SQL, shift: len("SELECT ")}
	e, err := a.expression(t, r.SQL)
	if err != nil {
		return "", err
	}
	w := &walk{Analyzer: a, text: t}
	if err := w.ofOneRow(e); err != nil {
		return "", err
	}
	if e, err = w.repeatable(e); err != nil {
		return "", err
	}
	w.at = 0
	if _, err := w.expressions(e, scope{}, place{streaming: true}); err != nil {
		return "", err
	}
	sql, err := a.printed(statement(e))
	return strings.TrimPrefix(sql, "SELECT "), err
}

// ofOneRow refuses what is not a value of one row.
func (w *walk) ofOneRow(v any) error {
	switch v := v.(type) {
	case []any:
		for _, e := range v {
			if err := w.ofOneRow(e); err != nil {
				return err
			}
		}
	case node:
		w.here(v)
		if why := outside[str(v, "class")]; why != "" {
			return w.refusal(w.at, "%s", why)
		}
		if name := strings.ToLower(str(v, "function_name")); name == "unnest" || name == "unlist" {
			return w.refusal(w.at, "%s makes several rows of one; a rule looks at one row: use functions of lists, such as list_contains", name)
		}
		for _, key := range sortedKeys(v) {
			if err := w.ofOneRow(v[key]); err != nil {
				return err
			}
		}
	}
	return nil
}
