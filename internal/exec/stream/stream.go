// Package stream decides whether a sink's SQL can run over one piece of a stream
// at a time, and prepares it for that. DuckDB's own serialised syntax tree is
// the only parser.
//
// A query is stateless if running it over any division of the records and
// putting the results together gives what it gives over all of them at once:
// each SELECT uses a stream at most once, in a place where every row counts
// alone. Anything else is refused with its construct, its position, and what to
// write instead. Nothing is silently evaluated per batch.
package stream

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/frazil-io/frazil/internal/batch"
)

// BatchTime stands in the prepared SQL for the plan's time: a TIMESTAMPTZ.
const BatchTime = "__frazil_batch_time()"

const batchTimeName = "__frazil_batch_time"

// Names are the relations that SQL may use.
type Names struct {
	Streams []string // sources
	Views   []View   // in the order of the spec; each may use those before it
	Static  []string // dimension tables
	// Columns are the names of all columns of sources and tables, to tell a
	// column called current_date from the function.
	Columns map[string]bool
}

// View is a named step of the spec.
type View struct{ Name, SQL string }

// Catalog is what the analysis asks DuckDB.
type Catalog struct {
	Parse func(sql string) (string, error) // json_serialize_sql
	Print func(ast string) (string, error) // json_deserialize_sql
	// Aggregates are the names of aggregate functions, Volatile those of
	// functions that give another answer each time or depend on the session.
	Aggregates, Volatile map[string]bool
}

// Query is an analysed SELECT.
type Query struct {
	SQL      string // what runs; BatchTime stands for the plan's time
	Streams  []string
	Static   []string
	UsesTime bool
}

// node is a node of the syntax tree.
type node = map[string]any

// analysis is the walk over one sink's SQL.
type analysis struct {
	Catalog
	names Names
	query *Query
}

// text is a piece of SQL of the spec, for positions.
type text struct{ what, sql string }

// refusal is a construct that is not supported, where it stands.
func (t text) refusal(at int, format string, args ...any) error {
	where := t.what
	if at >= 0 && at <= len(t.sql) {
		before := t.sql[:at]
		line := 1 + strings.Count(before, "\n")
		column := 1 + utf8.RuneCountInString(before[strings.LastIndexByte(before, '\n')+1:])
		where = fmt.Sprintf("%s, line %d column %d", t.what, line, column)
	}
	return fmt.Errorf("%w: %s: %s", batch.ErrInvalid, where, fmt.Sprintf(format, args...))
}

// Analyze checks the SQL of a sink and returns what to run.
func Analyze(c Catalog, names Names, sink, sql string) (*Query, error) {
	a := &analysis{Catalog: c, names: names, query: &Query{}}
	scope := scope{}
	for _, s := range names.Streams {
		scope[strings.ToLower(s)] = relation{stream: true, uses: []string{s}}
	}
	for _, s := range names.Static {
		scope[strings.ToLower(s)] = relation{static: []string{s}}
	}
	views := map[string]node{}
	for _, v := range names.Views {
		root, r, err := a.parse(text{"view " + v.Name, v.SQL}, scope)
		if err != nil {
			return nil, err
		}
		r.view = v.Name
		scope[strings.ToLower(v.Name)] = r
		views[v.Name] = root
	}
	t := text{"the sql of sink " + sink, sql}
	a.query.UsesTime = false
	root, r, err := a.parse(t, scope)
	if err != nil {
		return nil, err
	}
	if !r.stream {
		return nil, t.refusal(-1, "it reads no source; a sink's rows come from a source: use %s in FROM", strings.Join(names.Streams, ", "))
	}
	a.query.Streams, a.query.Static = compact(r.uses), compact(r.static)
	return a.query, a.print(root, views, r)
}

func compact(s []string) []string {
	slices.Sort(s)
	return slices.Compact(s)
}

// parse analyses one piece of SQL and returns its tree, with the functions of
// time replaced.
func (a *analysis) parse(t text, scope scope) (node, relation, error) {
	out, err := a.Parse(t.sql)
	if err != nil {
		return nil, relation{}, t.refusal(-1, "%v", err)
	}
	var root node
	d := json.NewDecoder(strings.NewReader(out))
	d.UseNumber()
	if err := d.Decode(&root); err != nil {
		return nil, relation{}, t.refusal(-1, "DuckDB's syntax tree: %v", err)
	}
	if root["error"] == true {
		return nil, relation{}, t.refusal(position(root["position"]), "%v", root["error_message"])
	}
	statements, _ := root["statements"].([]any)
	if len(statements) != 1 {
		return nil, relation{}, t.refusal(-1, "it has %d statements; write one SELECT", len(statements))
	}
	w := &walk{analysis: a, text: t}
	r, err := w.queryNode(child(statements[0].(node), "node"), scope)
	return root, r, err
}

// print turns the tree into the SQL that runs; views that it uses become its
// first common table expressions.
func (a *analysis) print(root node, views map[string]node, r relation) error {
	ctes := []any{}
	for _, v := range a.names.Views {
		if slices.Contains(r.views, v.Name) {
			ctes = append(ctes, node{"key": v.Name, "value": node{
				"aliases": []any{}, "query": views[v.Name]["statements"].([]any)[0], "materialized": "CTE_MATERIALIZE_DEFAULT", "key_targets": []any{},
			}})
		}
	}
	top := child(root["statements"].([]any)[0].(node), "node")
	if m := child(top, "cte_map"); len(ctes) > 0 && m != nil {
		m["map"] = append(ctes, m["map"].([]any)...)
	}
	data, err := json.Marshal(root)
	if err != nil {
		return err
	}
	if a.query.SQL, err = a.Print(string(data)); err != nil {
		return fmt.Errorf("%w: the SQL cannot be written back: %w", batch.ErrInvalid, err)
	}
	a.query.UsesTime = strings.Contains(a.query.SQL, BatchTime)
	return nil
}

func child(n node, key string) node {
	c, _ := n[key].(node)
	return c
}

func list(n node, key string) []any {
	l, _ := n[key].([]any)
	return l
}

func str(n node, key string) string {
	s, _ := n[key].(string)
	return s
}

// position reads a query_location, -1 where DuckDB has none.
func position(v any) int {
	var s string
	switch v := v.(type) {
	case json.Number:
		s = v.String()
	case string:
		s = v
	}
	var at int
	if _, err := fmt.Sscan(s, &at); err != nil {
		return -1
	}
	return at
}

// relation is what a name, or a part of a query, stands for.
type relation struct {
	stream bool
	uses   []string // streams
	static []string // dimension tables
	view   string   // its own name, if it is a view
	views  []string // views it needs
}

func (r relation) and(s relation) relation {
	return relation{
		stream: r.stream || s.stream, uses: slices.Concat(r.uses, s.uses), static: slices.Concat(r.static, s.static),
		views: slices.Concat(r.views, s.views),
	}
}

// scope maps lower-case names to relations.
type scope map[string]relation

func (s scope) with(name string, r relation) scope {
	c := maps.Clone(s)
	c[strings.ToLower(name)] = r
	return c
}
