package stream

import (
	"slices"
	"strings"
)

// expressions analyses everything inside of an expression. streaming says that
// the SELECT around it reads a stream.
func (w *walk) expressions(v any, s scope, streaming bool) (relation, error) {
	var used relation
	switch v := v.(type) {
	case []any:
		for _, e := range v {
			r, err := w.expressions(e, s, streaming)
			if err != nil {
				return used, err
			}
			used = used.and(r)
		}
	case node:
		w.here(v)
		if err := w.allowed(v, streaming); err != nil {
			return used, err
		}
		if str(v, "class") == "SUBQUERY" {
			return w.subquery(v, s, streaming)
		}
		for _, key := range sortedKeys(v) {
			r, err := w.expressions(v[key], s, streaming)
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

func (w *walk) subquery(n node, s scope, streaming bool) (relation, error) {
	at := w.at
	r, err := w.queryNode(child(child(n, "subquery"), "node"), s)
	if err != nil {
		return r, err
	}
	if r.stream {
		return r, w.refusal(at, "a subquery over a stream needs all its rows; join with a dimension table instead")
	}
	over, err := w.expressions(n["child"], s, streaming)
	n["child"] = w.replaced(n["child"])
	return r.and(over), err
}

// environment are functions that say something about the session, not the data.
var environment = map[string]bool{
	"current_setting": true, "getvariable": true, "current_user": true, "user": true, "session_user": true, "version": true, "pg_postmaster_start_time": true,
	"current_role": true, "query": true, "query_table": true, "txid_current": true, "in_search_path": true, "current_database": true, "current_schema": true,
	"current_schemas": true, "current_catalog": true, "getenv": true, "nextval": true, "currval": true, "read_text": true, "read_blob": true, "create_sort_key": true,
}

// instead of functions that give another answer each time.
var repeatable = map[string]string{
	"random": "derive the number from the record, such as hash(id) / 18446744073709551615", "uuid": "use the record's own id, or md5(_topic || _partition || _offset) with metadata: true",
	"nextval": "use _partition and _offset with metadata: true",
}

// allowed refuses functions that a stream cannot have.
func (w *walk) allowed(n node, streaming bool) error {
	name := strings.ToLower(str(n, "function_name"))
	switch str(n, "class") {
	case "WINDOW":
		if streaming {
			return w.refusal(w.at, "window function %s over a stream needs state, which this version of frazil does not keep; write the rows as they come and use it when reading", name)
		}
	case "FUNCTION":
		switch {
		case w.Aggregates[name] && streaming:
			return w.refusal(w.at, "aggregate %s over a stream needs state, which this version of frazil does not keep; write the rows as they come and aggregate when reading "+
				"(over a list of the row itself, use list_%s)", plainName(name), plainName(name))
		case strings.HasPrefix(name, "__frazil"):
			return w.refusal(w.at, "function %s is frazil's own; write batch_time()", name)
		case w.Volatile[name] || strings.HasPrefix(name, "uuid") || strings.HasSuffix(name, "random_uuid"):
			hint := repeatable[name]
			if hint == "" && strings.Contains(name, "uuid") {
				hint = repeatable["uuid"]
			}
			if hint == "" {
				hint = "leave it out"
			}
			return w.refusal(w.at, "%s gives another answer each time, so a batch that is run again would give other rows; %s", name, hint)
		case environment[name]:
			return w.refusal(w.at, "function %s depends on the session, not on the data; leave it out", name)
		}
	}
	return nil
}

func plainName(aggregate string) string {
	if aggregate == "count_star" {
		return "count"
	}
	return aggregate
}

// times maps functions of the current time to the type that they return; the
// plan's time stands in for all of them.
var times = map[string]string{
	"now": "", "batch_time": "", "get_current_timestamp": "", "transaction_timestamp": "", "current_timestamp": "",
	"today": "DATE", "current_date": "DATE", "localtimestamp": "TIMESTAMP", "current_localtimestamp": "TIMESTAMP",
	"current_time": "TIME", "get_current_time": "TIME", "localtime": "TIME", "current_localtime": "TIME",
}

// replaced puts the plan's time in place of the functions of the current time.
func (w *walk) replaced(v any) any {
	switch v := v.(type) {
	case []any:
		for i := range v {
			v[i] = w.replaced(v[i])
		}
	case node:
		if name, ok := w.timeFunction(v); ok {
			return timeNode(v, times[name])
		}
		for k, c := range v {
			if str(v, "class") == "SUBQUERY" && k == "subquery" {
				continue // replaced where it was analysed
			}
			v[k] = w.replaced(c)
		}
	}
	return v
}

func (w *walk) timeFunction(n node) (string, bool) {
	var name string
	switch str(n, "class") {
	case "FUNCTION":
		if len(list(n, "children")) == 0 {
			name = strings.ToLower(str(n, "function_name"))
		}
	case "COLUMN_REF": // CURRENT_DATE and its kin parse as columns
		if names := list(n, "column_names"); len(names) == 1 {
			name, _ = names[0].(string)
			name = strings.ToLower(name)
			if w.names.Columns[name] {
				return "", false
			}
		}
	}
	_, ok := times[name]
	return name, ok
}

func timeNode(n node, cast string) node {
	f := node{
		"class": "FUNCTION", "type": "FUNCTION", "alias": "", "query_location": n["query_location"], "function_name": batchTimeName, "schema": "", "catalog": "",
		"children": []any{}, "filter": nil, "order_bys": node{"type": "ORDER_MODIFIER", "orders": []any{}}, "distinct": false, "is_operator": false, "export_state": false,
	}
	if cast == "TIME" { // DuckDB casts a TIMESTAMPTZ to a TIME by way of a TIMESTAMP only
		f = castNode(f, "TIMESTAMP")
	}
	if cast != "" {
		f = castNode(f, cast)
	}
	f["alias"] = n["alias"]
	return f
}

func castNode(n node, to string) node {
	return node{
		"class": "CAST", "type": "OPERATOR_CAST", "alias": "", "query_location": n["query_location"], "child": n,
		"cast_type": node{"id": to, "type_info": nil}, "try_cast": false,
	}
}
