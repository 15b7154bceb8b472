package stream

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"
)

// Numbered is what stands before the name of a source in [Query.Numbered]: that
// relation has the column Ordinal more, behind the others, a number for each row.
const (
	Numbered = "__frazil_numbered_"
	Ordinal  = "__frazil_ordinal"
)

// numbered writes an analysed query so that each of its rows carries, last, the
// ordinal of the row of the stream that it came from; "" where that cannot be
// done without changing what the query says.
func (a *Analyzer) numbered(root node, streams []string) string {
	data, err := json.Marshal(root)
	if err != nil {
		return ""
	}
	var mine node // views are shared by all sinks
	d := json.NewDecoder(strings.NewReader(string(data)))
	d.UseNumber()
	if d.Decode(&mine) != nil {
		return ""
	}
	c := &carrier{}
	s := carried{}
	for _, name := range streams {
		s[strings.ToLower(name)] = isSource
	}
	if !c.query(top(mine), s) || c.lost {
		return ""
	}
	sql, err := a.printed(mine)
	if err != nil {
		return ""
	}
	return sql
}

// What a name of a relation stands for.
const (
	isStatic  = iota // no stream
	isSource         // a source of the spec
	isDerived        // a query over a stream, which carries the ordinal already
)

// carried maps lower-case names to what they stand for.
type carried map[string]int

// carrier leads the ordinal through a query, from the stream at its bottom
// through each SELECT.
type carrier struct {
	lost bool // the query has something that would see the column
}

// query says whether a SELECT, or several put together, reads a stream; then it
// returns the ordinal as its last column.
func (c *carrier) query(n node, s carried) bool {
	s = c.ctes(n, s)
	switch str(n, "type") {
	case "SELECT_NODE":
		return c.selectNode(n, s)
	case "SET_OPERATION_NODE":
		left, right := c.query(child(n, "left"), s), c.query(child(n, "right"), s)
		c.lost = c.lost || left != right
		return left
	}
	return false
}

func (c *carrier) ctes(n node, s carried) carried {
	more := carried{}
	maps.Copy(more, s)
	for _, e := range list(child(n, "cte_map"), "map") {
		cte := e.(node)
		kind := isStatic
		if c.query(child(child(child(cte, "value"), "query"), "node"), more) {
			kind = isDerived
		}
		more[strings.ToLower(str(cte, "key"))] = kind
	}
	return more
}

func (c *carrier) selectNode(n node, s carried) bool {
	name, ok := c.from(child(n, "from_table"), s)
	if !ok {
		return false
	}
	for key, v := range n {
		if key != "from_table" && key != "cte_map" {
			c.look(v, name)
		}
	}
	n["select_list"] = append(list(n, "select_list"), node{
		"class": "COLUMN_REF", "type": "COLUMN_REF", "alias": Ordinal, "query_location": json.Number("18446744073709551615"), "column_names": []any{Ordinal},
	})
	return true
}

// from returns the name under which a FROM clause has a stream.
func (c *carrier) from(n node, s carried) (name string, ok bool) {
	switch str(n, "type") {
	case "BASE_TABLE":
		table := str(n, "table_name")
		name = table
		if alias := str(n, "alias"); alias != "" {
			name = alias
		}
		kind := s[strings.ToLower(table)]
		if kind == isSource {
			n["table_name"], n["alias"] = Numbered+table, name
		}
		return name, kind != isStatic
	case "SUBQUERY":
		return str(n, "alias"), c.query(child(child(n, "subquery"), "node"), s)
	case "JOIN":
		if name, ok = c.from(child(n, "left"), s); ok {
			_, both := c.from(child(n, "right"), s)
			c.lost = c.lost || both
			return name, true
		}
		return c.from(child(n, "right"), s)
	}
	return "", false
}

// look keeps the ordinal out of each star, and finds what would see it all the
// same: the relation as a struct, COLUMNS, and columns by their position.
func (c *carrier) look(v any, name string) {
	switch v := v.(type) {
	case []any:
		for _, e := range v {
			c.look(e, name)
		}
	case node:
		switch names := list(v, "column_names"); str(v, "class") {
		case "STAR":
			relation := str(v, "relation_name")
			c.lost = c.lost || v["columns"] == true
			if relation == "" || strings.EqualFold(relation, name) {
				v["exclude_list"] = append(slices.Clip(list(v, "exclude_list")), Ordinal)
			}
		case "POSITIONAL_REFERENCE":
			c.lost = true
		case "COLUMN_REF":
			only, _ := append(names, "")[0].(string)
			c.lost = c.lost || len(names) == 1 && strings.EqualFold(only, name)
		case "SUBQUERY":
			c.look(v["child"], name)
			c.lost = c.lost || refersTo(v["subquery"], name)
			return
		}
		for _, e := range v {
			c.look(e, name)
		}
	}
}

// refersTo says whether a tree may name a relation as a struct.
func refersTo(v any, name string) bool {
	switch v := v.(type) {
	case []any:
		return slices.ContainsFunc(v, func(e any) bool { return refersTo(e, name) })
	case node:
		if names := list(v, "column_names"); str(v, "class") == "COLUMN_REF" && len(names) == 1 {
			only, _ := names[0].(string)
			return strings.EqualFold(only, name)
		}
		for _, e := range v {
			if refersTo(e, name) {
				return true
			}
		}
	}
	return false
}
