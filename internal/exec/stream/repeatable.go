package stream

import (
	"slices"
	"strings"
)

// environment are functions that say something about the session, not the data.
var environment = map[string]bool{
	"current_setting": true, "getvariable": true, "current_user": true, "user": true, "session_user": true, "version": true,
	"current_role": true, "query": true, "query_table": true, "txid_current": true, "in_search_path": true, "current_database": true, "current_schema": true,
	"current_schemas": true, "current_catalog": true, "getenv": true, "read_text": true, "read_blob": true, "create_sort_key": true,
	"json_serialize_plan": true, "json_execute_serialized_sql": true, "pg_sleep": true,
}

// instead of functions that give another answer each time.
var instead = map[string]string{
	"random":             "derive the number from the record, such as hash(id) / 18446744073709551615",
	"uuid":               "use the record's own id, or md5(_topic || _partition || _offset) with metadata: true",
	"nextval":            "use _partition and _offset with metadata: true",
	"reservoir_quantile": "use quantile or approx_quantile",
}

// times maps functions of the current time to the type that they return; the
// plan's time stands in for all of them.
var times = map[string]string{
	"now": "", "batch_time": "", "get_current_timestamp": "", "transaction_timestamp": "", "current_timestamp": "",
	"today": "DATE", "current_date": "DATE", "localtimestamp": "TIMESTAMP", "current_localtimestamp": "TIMESTAMP",
	"current_time": "TIME", "get_current_time": "TIME", "localtime": "TIME", "current_localtime": "TIME",
}

// bare are the functions that SQL calls without parentheses, where no column has
// the name.
var bare = map[string]bool{
	"current_catalog": true, "current_date": true, "current_role": true, "current_schema": true, "current_time": true, "current_timestamp": true,
	"current_user": true, "localtime": true, "localtimestamp": true, "session_user": true, "user": true,
}

// repeatable refuses, anywhere in a tree, what would give other rows when a
// batch is run again, and puts the plan's time in place of the functions of the
// current time. It returns what stands in for v.
func (w *walk) repeatable(v any) (any, error) {
	var err error
	switch v := v.(type) {
	case []any:
		for i := range v {
			if v[i], err = w.repeatable(v[i]); err != nil {
				return nil, err
			}
		}
	case node:
		w.here(v)
		if name := strings.ToLower(str(child(v, "function"), "function_name")); str(v, "type") == "TABLE_FUNCTION" && !tableFunctions[name] {
			return nil, w.refusal(w.at, "table function %s is not allowed in a pipeline; declare files and databases under tables:", name)
		}
		switch str(v, "class") {
		case "PARAMETER":
			return nil, w.refusal(w.at, "a parameter has no value here; write the value, or ${NAME} to take it from the environment")
		case "COLUMN_REF":
			return w.column(v)
		case "FUNCTION", "WINDOW":
			if stands, err := w.function(v); err != nil || stands != nil {
				return stands, err
			}
		}
		for _, key := range sortedKeys(v) {
			if v[key], err = w.repeatable(v[key]); err != nil {
				return nil, err
			}
		}
	}
	return v, nil
}

// column looks at a name that may be a function without parentheses.
func (w *walk) column(n node) (any, error) {
	names := list(n, "column_names")
	if len(names) != 1 {
		return n, nil
	}
	written, _ := names[0].(string)
	name := strings.ToLower(written)
	cast, isTime := times[name]
	switch {
	case !bare[name], !isTime && w.defined[name]:
		return n, nil
	case !isTime:
		return nil, w.refusal(w.at, "%s depends on the session, not on the data; leave it out", name)
	case w.defined[name]:
		return nil, w.refusal(w.at, "%s is the time, and the name of a column, too; write relation.%s for the column, or batch_time() for the time", name, name)
	}
	return w.time(n, cast)
}

// function looks at a call; what it returns, if not nil, stands in for it.
func (w *walk) function(n node) (any, error) {
	name := strings.ToLower(str(n, "function_name"))
	arguments := list(n, "children")
	cast, isTime := times[name]
	switch {
	case isTime && len(arguments) == 0 && str(n, "class") == "FUNCTION":
		return w.time(n, cast)
	case name == "age" && len(arguments) == 1 && str(n, "schema") == "", name == "age" && len(arguments) == 0:
		return nil, w.refusal(w.at, "age with one argument reads the clock; write age(batch_time(), …)")
	case name == "ago", name == "pg_postmaster_start_time", name == "pg_conf_load_time":
		return nil, w.refusal(w.at, "function %s reads the clock; write batch_time() - INTERVAL …", name)
	case environment[name]:
		return nil, w.refusal(w.at, "function %s depends on the session, not on the data; leave it out", name)
	case w.Volatile[name] && name != "error", instead[name] != "", strings.Contains(name, "uuid") && !strings.HasPrefix(name, "uuid_extract"):
		hint := instead[name]
		if hint == "" && strings.Contains(name, "uuid") {
			hint = instead["uuid"]
		}
		if hint == "" {
			hint = "leave it out"
		}
		return nil, w.refusal(w.at, "%s gives another answer each time, so a batch that is run again would give other rows; %s", name, hint)
	}
	m, err := w.macro(name)
	if m == nil || err != nil {
		return nil, err
	}
	if w.macros[name] == nil { // the bodies of the spec's own were checked when they were defined
		for _, body := range m.bodies {
			in, err := w.inside(m)
			if err != nil {
				return nil, err
			}
			if _, err := in.repeatable(body); err != nil {
				return nil, err
			}
		}
		return nil, nil //nolint:nilnil // nothing stands in for it
	}
	if m.timed {
		at, err := w.time(node{"query_location": n["query_location"], "alias": ""}, "")
		if err != nil {
			return nil, err
		}
		n["children"] = slices.Insert(arguments, 0, at)
	}
	return nil, nil //nolint:nilnil // nothing stands in for it
}

// time is the plan's time, as a type. Inside of a macro it is a parameter.
func (w *walk) time(n node, cast string) (any, error) {
	var t node
	switch {
	case w.within != nil:
		w.within.timed = true
		t = node{"class": "COLUMN_REF", "type": "COLUMN_REF", "alias": "", "query_location": n["query_location"], "column_names": []any{timeParam}}
	case len(w.calls) > 0:
		return nil, w.refusal(w.at, "it reads the clock; write batch_time()")
	default:
		t = node{
			"class": "FUNCTION", "type": "FUNCTION", "alias": "", "query_location": n["query_location"], "function_name": batchTimeName, "schema": "", "catalog": "",
			"children": []any{}, "filter": nil, "order_bys": node{"type": "ORDER_MODIFIER", "orders": []any{}}, "distinct": false, "is_operator": false, "export_state": false,
		}
	}
	if cast == "TIME" { // DuckDB casts a TIMESTAMPTZ to a TIME by way of a TIMESTAMP only
		t = castNode(t, "TIMESTAMP")
	}
	if cast != "" {
		t = castNode(t, cast)
	}
	t["alias"] = n["alias"]
	return t, nil
}

func castNode(n node, to string) node {
	return node{
		"class": "CAST", "type": "OPERATOR_CAST", "alias": "", "query_location": n["query_location"], "child": n,
		"cast_type": node{"id": to, "type_info": nil}, "try_cast": false,
	}
}
