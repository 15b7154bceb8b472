package stream

import (
	"slices"
	"strings"
)

// walk goes over the tree of one piece of SQL.
type walk struct {
	*Analyzer
	text
	at      int      // the position of the node around, for nodes that have none
	visited int      // queries and relations that were looked at
	outer   bool     // a SELECT further out reads a stream
	within  *macro   // the macro of the spec whose body this is
	calls   []string // the macros whose body this is, as called from text
}

// here notes where n stands and returns it. The body of a macro stands where
// that is called.
func (w *walk) here(n node) int {
	if at := position(n["query_location"]); at >= 0 && len(w.calls) == 0 {
		w.at = at
	}
	return w.at
}

// refusal says through which macros the construct came.
func (w *walk) refusal(at int, format string, args ...any) error {
	if len(w.calls) > 0 {
		at = w.at
		format = strings.ReplaceAll(strings.Join(w.calls, " → "), "%", "%%") + "(): " + format
	}
	return w.text.refusal(at, format, args...)
}

// queryNode analyses a SELECT, or several put together.
func (w *walk) queryNode(n node, s scope) (relation, error) {
	s, err := w.ctes(n, s)
	if err != nil {
		return relation{}, err
	}
	w.visited++
	var r relation
	switch str(n, "type") {
	case "SELECT_NODE":
		r, err = w.selectNode(n, s)
	case "SET_OPERATION_NODE":
		r, err = w.setOperation(n, s)
	case "RECURSIVE_CTE_NODE":
		return r, w.refusal(w.at, "a recursive query is not supported; use unnest for lists, or prepare hierarchies as a dimension table")
	default:
		return r, w.refusal(w.at, "%s is not supported; write a SELECT", str(n, "type"))
	}
	if err != nil {
		return r, err
	}
	return w.modifiers(n, r, s)
}

func (w *walk) ctes(n node, s scope) (scope, error) {
	for _, c := range list(child(n, "cte_map"), "map") {
		cte := c.(node)
		if _, ok := w.views[strings.ToLower(str(cte, "key"))]; ok {
			return nil, w.refusal(firstLocation(cte, w.at), "WITH %s hides the view %s; choose another name", str(cte, "key"), str(cte, "key"))
		}
		r, err := w.queryNode(child(child(child(cte, "value"), "query"), "node"), s)
		if err != nil {
			return nil, err
		}
		s = s.with(str(cte, "key"), r)
	}
	return s, nil
}

// modifiers analyses ORDER BY, LIMIT and DISTINCT, which need the whole result of
// a stream.
func (w *walk) modifiers(n node, r relation, s scope) (relation, error) {
	ordered, limited := false, -1
	for _, m := range list(n, "modifiers") {
		m := m.(node)
		at := firstLocation(m, w.at)
		used, err := w.expressions(m, s, place{})
		if err != nil {
			return r, err
		}
		r = r.and(used)
		kind := str(m, "type")
		ordered = ordered || kind == "ORDER_MODIFIER"
		if strings.HasPrefix(kind, "LIMIT") {
			limited = at
		}
		if !r.stream {
			continue
		}
		switch kind {
		case "DISTINCT_MODIFIER":
			return r, w.refusal(at, "DISTINCT over a stream needs state, which this version of frazil does not keep; write the rows as they come and deduplicate when reading")
		case "ORDER_MODIFIER":
			return r, w.refusal(at, "ORDER BY over a stream never ends; sort the table's files with iceberg.sort_by, or order when reading")
		case "LIMIT_MODIFIER", "LIMIT_PERCENT_MODIFIER":
			return r, w.refusal(at, "LIMIT over a stream needs its end; filter with WHERE, or limit when reading")
		default:
			return r, w.refusal(at, "%s over a stream is not supported", kind)
		}
	}
	if limited >= 0 && !ordered && len(r.static) > 0 {
		return r, w.refusal(limited, "LIMIT without ORDER BY takes whichever rows lie first; write ORDER BY before it, or an aggregate such as min")
	}
	return r, nil
}

// firstLocation finds the first position inside of a tree.
func firstLocation(v any, otherwise int) int {
	first := -1
	var find func(v any)
	find = func(v any) {
		switch v := v.(type) {
		case node:
			if at := position(v["query_location"]); at >= 0 && (first < 0 || at < first) {
				first = at
			}
			for _, c := range v {
				find(c)
			}
		case []any:
			for _, c := range v {
				find(c)
			}
		}
	}
	if find(v); first < 0 {
		return otherwise
	}
	return first
}

func (w *walk) setOperation(n node, s scope) (relation, error) {
	left, err := w.queryNode(child(n, "left"), s)
	if err != nil {
		return left, err
	}
	at := w.at
	right, err := w.queryNode(child(n, "right"), s)
	if err != nil {
		return right, err
	}
	both := left.and(right)
	if !both.stream {
		return both, nil
	}
	if op := str(n, "setop_type"); op != "UNION" && op != "UNION_BY_NAME" || n["setop_all"] != true {
		return both, w.refusal(at, "%s over a stream compares all its rows, which needs state; write UNION ALL", strings.ReplaceAll(op, "_", " "))
	}
	if left.stream != right.stream {
		return both, w.refusal(at, "one side of UNION ALL reads no source, so its rows would come again and again; insert them into the table once by hand")
	}
	return both, nil
}

func (w *walk) selectNode(n node, s scope) (relation, error) {
	r, err := w.from(child(n, "from_table"), s)
	if err != nil {
		return r, err
	}
	p := place{streaming: r.stream, bare: str(child(n, "from_table"), "type") == "EMPTY"}
	for _, key := range []string{"select_list", "where_clause", "group_expressions", "having", "qualify"} {
		used, err := w.expressions(n[key], s, p)
		if err != nil {
			return r, err
		}
		r = r.and(used)
	}
	if n["sample"] != nil {
		return r, w.refusal(w.at, "a random sample differs each time it runs; filter by a hash of a column, such as hash(id) %% 10 = 0")
	}
	if !r.stream {
		return r, nil
	}
	switch {
	case len(list(n, "group_expressions")) > 0 || len(list(n, "group_sets")) > 0 || str(n, "aggregate_handling") == "FORCE_AGGREGATES":
		return r, w.refusal(firstLocation(n["group_expressions"], firstLocation(n["select_list"], w.at)),
			"GROUP BY over a stream needs state, which this version of frazil does not keep; write the rows as they come and group when reading")
	case n["having"] != nil:
		return r, w.refusal(firstLocation(n["having"], w.at), "HAVING over a stream needs state; filter rows with WHERE")
	case n["qualify"] != nil:
		return r, w.refusal(firstLocation(n["qualify"], w.at), "QUALIFY over a stream needs state; filter rows with WHERE")
	}
	return r, nil
}

// from analyses a FROM clause.
func (w *walk) from(n node, s scope) (relation, error) {
	at := w.here(n)
	if n["sample"] != nil {
		return relation{}, w.refusal(at, "TABLESAMPLE differs each time it runs; filter by a hash of a column, such as hash(id) %% 10 = 0")
	}
	switch kind := str(n, "type"); kind {
	case "EMPTY":
		return relation{}, nil
	case "BASE_TABLE":
		return w.table(n, s)
	case "SUBQUERY":
		return w.queryNode(child(child(n, "subquery"), "node"), s)
	case "JOIN":
		return w.join(n, s)
	case "TABLE_FUNCTION":
		return w.expressions(n["function"], s, place{})
	case "EXPRESSION_LIST":
		return w.expressions(n["values"], s, place{})
	case "PIVOT":
		r, err := w.from(child(n, "source"), s)
		if err != nil {
			return r, err
		}
		if r.stream {
			return r, w.refusal(at, "PIVOT and UNPIVOT over a stream are not supported; write the columns out, or unnest a list of structs")
		}
		for _, key := range sortedKeys(n) {
			if key == "source" {
				continue
			}
			used, err := w.expressions(n[key], s, place{})
			if err != nil {
				return r, err
			}
			r = r.and(used)
		}
		return r, nil
	default:
		return relation{}, w.refusal(at, "%s is not supported in FROM; write a source, a view, a table or a subquery", strings.ToLower(strings.ReplaceAll(kind, "_", " ")))
	}
}

func (w *walk) table(n node, s scope) (relation, error) {
	w.visited++
	name := str(n, "table_name")
	at := w.at
	if str(n, "schema_name") != "" || str(n, "catalog_name") != "" {
		return relation{}, w.refusal(at, "%s.%s: names of schemas and catalogs are not supported; name a source, a view or a table of the spec", str(n, "schema_name"), name)
	}
	if n["at_clause"] != nil {
		return relation{}, w.refusal(at, "AT is not supported; a dimension table is pinned to one version per batch by itself")
	}
	r, ok := s[strings.ToLower(name)]
	if !ok {
		return relation{}, w.refusal(at, "unknown relation %q; %s", name, w.known(name, s))
	}
	if r.view != "" {
		r.views = append(slices.Clone(r.views), r.view)
		r.view = ""
	}
	return r, nil
}

// known suggests a name.
func (w *walk) known(name string, s scope) string {
	var names []string
	for n := range s {
		names = append(names, n)
		if strings.HasPrefix(n, strings.ToLower(name)) || strings.HasPrefix(strings.ToLower(name), n) {
			return "did you mean " + n + "?"
		}
	}
	slices.Sort(names)
	return "the spec has " + strings.Join(names, ", ")
}

func (w *walk) join(n node, s scope) (relation, error) {
	at := w.at
	left, err := w.from(child(n, "left"), s)
	if err != nil {
		return left, err
	}
	right, err := w.from(child(n, "right"), s)
	if err != nil {
		return right, err
	}
	w.at = at
	both := left.and(right)
	used, err := w.expressions(n["condition"], s, place{streaming: both.stream})
	if err != nil {
		return both, err
	}
	both = both.and(used)
	kind := str(n, "join_type")
	switch {
	case !both.stream:
		return both, nil
	case left.stream && right.stream:
		return both, w.refusal(at, "a join of two streams, or of a stream with itself, needs state, which this version of frazil does not keep; "+
			"write both to tables and join when reading, or make one of them a dimension table under tables:")
	case str(n, "ref_type") == "ASOF" && !left.stream:
		return both, w.refusal(at, "an ASOF join looks in the stream for the nearest row, which is known only at its end; let the stream be on the left: stream ASOF JOIN table")
	case str(n, "ref_type") == "POSITIONAL":
		return both, w.refusal(at, "a positional join over a stream depends on where it is cut; join by a column")
	case kind == "INNER",
		left.stream && slices.Contains([]string{"LEFT", "SEMI", "ANTI", "SINGLE", "MARK"}, kind),
		right.stream && kind == "RIGHT":
		return both, nil
	}
	return both, w.refusal(at, "a %s join keeps rows of the dimension table that match nothing, which is known only at the end of the stream; "+
		"let the stream be the side that is kept: stream LEFT JOIN table", kind)
}

// tables that may be called: they depend on their arguments only.
var tableFunctions = map[string]bool{"unnest": true, "range": true, "generate_series": true, "json_each": true, "json_tree": true, "regexp_split_to_table": true}
