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
	Macros  []Macro  // in the order of the spec; each may use those before it
	Views   []View   // in the order of the spec; each may use those before it
	Static  []string // dimension tables
	// Columns are the names of all columns of sources and tables, to tell a
	// column called current_date from the function.
	Columns map[string]bool
}

// Macro is a scalar macro of the spec: "name(a, b := 2)" and an expression.
type Macro struct{ Signature, SQL string }

// View is a named step of the spec.
type View struct{ Name, SQL string }

// Catalog is what the analysis asks DuckDB.
type Catalog struct {
	Parse func(sql string) (string, error) // json_serialize_sql
	Print func(ast string) (string, error) // json_deserialize_sql
	// Aggregates are the names of aggregate functions, Volatile those of
	// functions that give another answer each time or depend on the session,
	// Functions those of all functions.
	Aggregates, Volatile, Functions map[string]bool
	// Macros are the bodies of DuckDB's own scalar macros, by name.
	Macros map[string][]string
}

// Query is an analysed SELECT.
type Query struct {
	SQL string // what runs; BatchTime stands for the plan's time
	// Numbered is the same with one more column, last: the ordinal of the input
	// row that each row came from. "": the query has something that would see it.
	Numbered string
	Streams  []string
	Static   []string // dimension tables
	Views    []string // in the order of the spec
	Macros   []string // of the spec, by lower-case name
	UsesTime bool
}

// node is a node of the syntax tree.
type node = map[string]any

// Analyzer analyses the SQL of one spec.
type Analyzer struct {
	Catalog
	names   Names
	macros  map[string]*macro // the spec's, by lower-case name
	builtin map[string]*macro // DuckDB's, as far as they were met
	created []string
	scope   scope // sources, tables and views
	views   map[string]node
	defined map[string]bool // names of columns that anything gives
}

// text is a piece of SQL of the spec, for positions.
type text struct {
	what, sql string
	shift     int // bytes that were put before it for the parser
}

// Error is a mistake in a piece of SQL of the spec: batch.ErrInvalid.
type Error struct {
	What         string // which piece it is
	Line, Column int    // in it, from 1; 0: it as a whole
	Message      string
}

func (e *Error) Error() string {
	where := e.What
	if e.Line > 0 {
		where = fmt.Sprintf("%s, line %d column %d", e.What, e.Line, e.Column)
	}
	return fmt.Sprintf("%v: %s: %s", batch.ErrInvalid, where, e.Message)
}

// Unwrap makes it a batch.ErrInvalid.
func (e *Error) Unwrap() error { return batch.ErrInvalid }

// At is a mistake at a byte of a piece of SQL; -1 is the whole of it.
func At(what, sql string, at int, message string) *Error {
	e := &Error{What: what, Message: message}
	if at >= 0 && at <= len(sql) {
		before := sql[:at]
		e.Line = 1 + strings.Count(before, "\n")
		e.Column = 1 + utf8.RuneCountInString(before[strings.LastIndexByte(before, '\n')+1:])
	}
	return e
}

// refusal is a construct that is not supported, where it stands.
func (t text) refusal(at int, format string, args ...any) error {
	return At(t.what, t.sql, at-t.shift, fmt.Sprintf(format, args...))
}

// New checks the macros and views of a spec.
func New(c Catalog, names Names) (*Analyzer, error) {
	a := &Analyzer{
		Catalog: c, names: names, macros: map[string]*macro{}, builtin: map[string]*macro{}, scope: scope{}, views: map[string]node{},
		defined: maps.Clone(names.Columns),
	}
	if a.defined == nil {
		a.defined = map[string]bool{}
	}
	for _, s := range names.Streams {
		a.scope[strings.ToLower(s)] = relation{stream: true, uses: []string{s}}
	}
	for _, s := range names.Static {
		a.scope[strings.ToLower(s)] = relation{static: []string{s}}
	}
	for _, m := range names.Macros {
		if err := a.define(m); err != nil {
			return nil, err
		}
	}
	for _, v := range names.Views {
		root, r, err := a.parse(text{what: "view " + v.Name, sql: v.SQL}, a.scope)
		if err != nil {
			return nil, err
		}
		r.view = v.Name
		a.scope[strings.ToLower(v.Name)] = r
		a.views[strings.ToLower(v.Name)] = root
	}
	return a, nil
}

// Macros returns the statements that make the spec's macros, in order.
func (a *Analyzer) Macros() []string { return a.created }

// Analyze checks the SQL of a sink and returns what to run.
func (a *Analyzer) Analyze(sink, sql string) (*Query, error) {
	t := text{what: "the sql of sink " + sink, sql: sql}
	root, r, err := a.parse(t, a.scope)
	if err != nil {
		return nil, err
	}
	if !r.stream {
		return nil, t.refusal(-1, "it reads no source; a sink's rows come from a source: use %s in FROM", strings.Join(a.names.Streams, ", "))
	}
	q := &Query{Streams: compact(r.uses), Static: compact(r.static), Views: compact(r.views), Macros: compact(r.macros)}
	if q.SQL, err = a.print(root, r); err != nil {
		return nil, err
	}
	q.Numbered = a.numbered(root, a.names.Streams)
	q.UsesTime = strings.Contains(q.SQL, BatchTime)
	return q, nil
}

func compact(s []string) []string {
	slices.Sort(s)
	return slices.Compact(s)
}

// tree parses one piece of SQL.
func (a *Analyzer) tree(t text, sql string) (node, error) {
	if strings.Contains(strings.ToLower(sql), "__frazil") {
		return nil, t.refusal(-1, "names that begin with __frazil are frazil's own; choose others")
	}
	out, err := a.Parse(sql)
	if err != nil {
		return nil, t.refusal(-1, "%v", err)
	}
	var root node
	d := json.NewDecoder(strings.NewReader(out))
	d.UseNumber()
	if err := d.Decode(&root); err != nil {
		return nil, t.refusal(-1, "DuckDB's syntax tree: %v", err)
	}
	if root["error"] == true {
		return nil, t.refusal(position(root["position"]), "%v", root["error_message"])
	}
	statements, _ := root["statements"].([]any)
	if len(statements) != 1 {
		return nil, t.refusal(-1, "it has %d statements; write one SELECT", len(statements))
	}
	return root, nil
}

// top is the query of a tree.
func top(root node) node { return child(root["statements"].([]any)[0].(node), "node") }

// parse analyses one piece of SQL and returns its tree, with the functions of
// time replaced.
func (a *Analyzer) parse(t text, scope scope) (node, relation, error) {
	root, err := a.tree(t, t.sql)
	if err != nil {
		return nil, relation{}, err
	}
	a.note(root)
	w := &walk{Analyzer: a, text: t}
	if _, err := w.repeatable(top(root)); err != nil {
		return nil, relation{}, err
	}
	r, err := w.queryNode(top(root), scope)
	if err != nil {
		return nil, relation{}, err
	}
	if there := queries(top(root)); there != w.visited {
		return nil, relation{}, t.refusal(-1, "a SELECT stands in a place that frazil does not know (%d of %d were checked); write it as a subquery in FROM", w.visited, there)
	}
	return root, r, nil
}

// queries counts the SELECTs, set operations and relations of a tree.
func queries(v any) (n int) {
	switch v := v.(type) {
	case []any:
		for _, c := range v {
			n += queries(c)
		}
	case node:
		switch str(v, "type") {
		case "SELECT_NODE", "SET_OPERATION_NODE", "BASE_TABLE":
			n++
		}
		for _, c := range v {
			n += queries(c)
		}
	}
	return n
}

// note notes the names that a tree gives to columns.
func (a *Analyzer) note(v any) {
	switch v := v.(type) {
	case []any:
		for _, c := range v {
			a.note(c)
		}
	case node:
		if alias := str(v, "alias"); alias != "" {
			a.defined[strings.ToLower(alias)] = true
		}
		names := slices.Concat(list(v, "column_name_alias"), list(v, "aliases"))
		if str(v, "class") == "LAMBDA" {
			names = append(names, list(child(v, "lhs"), "column_names")...)
			for _, c := range list(child(v, "lhs"), "children") { // of several parameters
				if c, ok := c.(node); ok {
					names = append(names, list(c, "column_names")...)
				}
			}
		}
		for _, n := range names {
			if n, ok := n.(string); ok {
				a.defined[strings.ToLower(n)] = true
			}
		}
		for _, c := range v {
			a.note(c)
		}
	}
}

// print turns the tree into the SQL that runs; views that it uses become its
// first common table expressions.
func (a *Analyzer) print(root node, r relation) (string, error) {
	ctes := []any{}
	for _, v := range a.names.Views {
		if slices.Contains(r.views, v.Name) {
			ctes = append(ctes, node{"key": v.Name, "value": node{
				"aliases": []any{}, "query": a.views[strings.ToLower(v.Name)]["statements"].([]any)[0], "materialized": "CTE_MATERIALIZE_DEFAULT", "key_targets": []any{},
			}})
		}
	}
	if m := child(top(root), "cte_map"); len(ctes) > 0 && m != nil {
		m["map"] = append(ctes, m["map"].([]any)...)
	}
	return a.printed(root)
}

func (a *Analyzer) printed(root node) (string, error) {
	data, err := json.Marshal(root)
	if err != nil {
		return "", err
	}
	sql, err := a.Print(string(data))
	if err != nil {
		return "", fmt.Errorf("%w: the SQL cannot be written back: %w", batch.ErrInvalid, err)
	}
	return sql, nil
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
	macros []string // macros of the spec that it calls
}

func (r relation) and(s relation) relation {
	return relation{
		stream: r.stream || s.stream, uses: slices.Concat(r.uses, s.uses), static: slices.Concat(r.static, s.static),
		views: slices.Concat(r.views, s.views), macros: slices.Concat(r.macros, s.macros),
	}
}

// scope maps lower-case names to relations.
type scope map[string]relation

func (s scope) with(name string, r relation) scope {
	c := maps.Clone(s)
	c[strings.ToLower(name)] = r
	return c
}
