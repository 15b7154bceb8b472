package query

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/apache/iceberg-go"

	"github.com/frazil-io/frazil/internal/batch"
)

// planNode is a node of DuckDB's physical plan, as EXPLAIN (FORMAT JSON) has it.
type planNode struct {
	Name     string         `json:"name"`
	Children []planNode     `json:"children"`
	Extra    map[string]any `json:"extra_info"`
}

// plan lets DuckDB plan the query over the stand-ins, and returns what each scan
// of each stand-in wants: one filter for each time that the query reads it.
//
// A query's answer depends on those rows of a scan only that pass the filters
// above it, as long as the plan used nothing that is true of some rows only. So
// no statistics may take part: the stand-ins have none, and the optimizer that
// would use them is off.
func (e *Engine) plan(ctx context.Context, text string) (*queryPlan, error) {
	if err := e.without(ctx, "statistics_propagation,join_filter_pushdown"); err != nil {
		return nil, err
	}
	var kind, data string
	if err := e.conn.QueryRowContext(ctx, "EXPLAIN (FORMAT JSON) "+text).Scan(&kind, &data); err != nil {
		return nil, fmt.Errorf("%w: %w", batch.ErrInvalid, err)
	}
	var roots []planNode
	if err := json.Unmarshal([]byte(data), &roots); err != nil {
		return nil, fmt.Errorf("DuckDB's plan: %w", err)
	}
	byFunction := map[string]*standIn{}
	for _, in := range e.known {
		byFunction[in.function] = in
	}
	p := &queryPlan{scans: map[string][]mayMatch{}}
	for _, n := range roots {
		if err := e.walk(ctx, n, "", byFunction, p); err != nil {
			return nil, err
		}
	}
	return p, e.without(ctx, "")
}

// queryPlan is what was read off DuckDB's plan.
type queryPlan struct {
	scans map[string][]mayMatch // by stand-in
	// distinct says that a filter has IS DISTINCT FROM. DuckDB 1.5 skips a row
	// group that is all NULL for it, though its rows pass.
	distinct bool
}

// without turns some of DuckDB's optimizers off, and all others on.
func (e *Engine) without(ctx context.Context, optimizers string) error {
	return e.exec(ctx, "SET disabled_optimizers="+literal(optimizers))
}

// walk collects the scans below a node. above is the filter directly above it:
// only there do names mean the scan's own columns.
func (e *Engine) walk(ctx context.Context, n planNode, above string, tables map[string]*standIn, p *queryPlan) error {
	name := strings.ToLower(strings.TrimSpace(n.Name))
	if in := tables[name]; in != nil {
		filter, err := e.filter(ctx, in, above)
		if err != nil {
			return err
		}
		p.scans[in.function] = append(p.scans[in.function], filter)
	}
	inner := ""
	if name == "filter" {
		inner, _ = n.Extra["Expression"].(string)
		p.distinct = p.distinct || strings.Contains(inner, "DISTINCT FROM")
	}
	for _, child := range n.Children {
		if err := e.walk(ctx, child, inner, tables, p); err != nil {
			return err
		}
	}
	return nil
}

// filter reads an expression of the plan. What it does not understand may match.
func (e *Engine) filter(ctx context.Context, in *standIn, text string) (mayMatch, error) {
	if text == "" {
		return always, nil
	}
	var tree string
	row := e.conn.QueryRowContext(ctx, "SELECT json_serialize_sql('SELECT 1 WHERE ' || ?::VARCHAR)::VARCHAR", text)
	if err := row.Scan(&tree); err != nil {
		return nil, fmt.Errorf("DuckDB: %w", err)
	}
	var parsed struct {
		Statements []struct {
			Node struct {
				Where *expression `json:"where_clause"`
			} `json:"node"`
		} `json:"statements"`
	}
	d := json.NewDecoder(strings.NewReader(tree))
	d.UseNumber() // a float64 would round large integers
	if err := d.Decode(&parsed); err != nil || len(parsed.Statements) != 1 || parsed.Statements[0].Node.Where == nil {
		return always, nil //nolint:nilerr // the plan's text is no SQL: no file is dropped
	}
	return in.translate(parsed.Statements[0].Node.Where), nil
}

// expression is a node of DuckDB's syntax tree, with the fields that matter here.
type expression struct {
	Class    string        `json:"class"`
	Type     string        `json:"type"`
	Left     *expression   `json:"left"`
	Right    *expression   `json:"right"`
	Input    *expression   `json:"input"`
	Lower    *expression   `json:"lower"`
	Upper    *expression   `json:"upper"`
	Child    *expression   `json:"child"`
	Children []*expression `json:"children"`
	Columns  []string      `json:"column_names"`
	Function string        `json:"function_name"`
	CastType typeID        `json:"cast_type"`
	Value    *struct {
		IsNull bool   `json:"is_null"`
		Value  any    `json:"value"`
		Type   typeID `json:"type"`
	} `json:"value"`
}

type typeID struct {
	ID string `json:"id"`
}

// translate returns a test that every file passes that has a row for which x is
// true.
func (s *standIn) translate(x *expression) mayMatch {
	switch {
	case x.Type == "CONJUNCTION_AND":
		return allOf(s.each(x.Children))
	case x.Type == "CONJUNCTION_OR":
		return anyOf(s.each(x.Children))
	case x.Class == "COMPARISON" && x.Left != nil && x.Right != nil:
		if f, ok := s.column(x.Left); ok {
			return compare(f, x.Type, x.Right)
		}
		if f, ok := s.column(x.Right); ok {
			return compare(f, flipped[x.Type], x.Left)
		}
	case x.Class == "BETWEEN" && x.Input != nil && x.Lower != nil && x.Upper != nil:
		if f, ok := s.column(x.Input); ok {
			return allOf([]mayMatch{compare(f, atLeast, x.Lower), compare(f, atMost, x.Upper)})
		}
	case x.Type == "COMPARE_IN" && len(x.Children) > 1:
		if f, ok := s.column(x.Children[0]); ok {
			var each []mayMatch
			for _, c := range x.Children[1:] {
				each = append(each, compare(f, equal, c))
			}
			return anyOf(each)
		}
	case x.Type == "OPERATOR_IS_NULL" && len(x.Children) == 1:
		if f, ok := s.column(x.Children[0]); ok {
			return func(d iceberg.DataFile) bool { return mayBeNull(d, f.ID) }
		}
	case x.Type == "OPERATOR_IS_NOT_NULL" && len(x.Children) == 1:
		if f, ok := s.column(x.Children[0]); ok {
			return func(d iceberg.DataFile) bool { return mayBeThere(d, f.ID) }
		}
	case x.Function == "prefix" && len(x.Children) == 2:
		f, ok := s.column(x.Children[0])
		begins, is := text(x.Children[1])
		if _, isString := f.Type.(iceberg.StringType); ok && is && isString {
			return prefixed(f, begins)
		}
	}
	return always
}

func (s *standIn) each(children []*expression) []mayMatch {
	tests := make([]mayMatch, len(children))
	for i, c := range children {
		tests[i] = s.translate(c)
	}
	return tests
}

// Comparisons, as DuckDB's tree names them.
const (
	equal   = "COMPARE_EQUAL"
	less    = "COMPARE_LESSTHAN"
	more    = "COMPARE_GREATERTHAN"
	atMost  = "COMPARE_LESSTHANOREQUALTO"
	atLeast = "COMPARE_GREATERTHANOREQUALTO"
)

var flipped = map[string]string{equal: equal, less: more, more: less, atMost: atLeast, atLeast: atMost}

// column says which column of the table an expression is.
func (s *standIn) column(x *expression) (iceberg.NestedField, bool) {
	if x.Class != "COLUMN_REF" || len(x.Columns) != 1 {
		return iceberg.NestedField{}, false
	}
	f, ok := s.columns[x.Columns[0]]
	return f, ok
}

// compare compares a column with a constant of the column's own type. Floats are
// left out: NaN is above every number to DuckDB, and in no statistics.
func compare(f iceberg.NestedField, operator string, x *expression) mayMatch {
	if flipped[operator] == "" {
		return always // IS DISTINCT FROM and the like, which NULL can pass
	}
	switch f.Type.(type) {
	case iceberg.Int32Type, iceberg.Int64Type:
		if v, ok := integer(x); ok {
			return comparison(f, operator, v, numberBound)
		}
	case iceberg.StringType:
		if v, ok := text(x); ok {
			return comparison(f, operator, v, textBound)
		}
	case iceberg.DateType:
		if v, ok := moment(x, "DATE", "2006-01-02"); ok {
			return comparison(f, operator, v.Unix()/86400, numberBound)
		}
	case iceberg.TimestampType:
		if v, ok := moment(x, "TIMESTAMP", "2006-01-02 15:04:05.999999"); ok {
			return comparison(f, operator, v.UnixMicro(), numberBound)
		}
	case iceberg.TimestampTzType:
		if v, ok := moment(x, "TIMESTAMP WITH TIME ZONE", "2006-01-02 15:04:05.999999-07"); ok {
			return comparison(f, operator, v.UnixMicro(), numberBound)
		}
	}
	return always
}

func integer(x *expression) (int64, bool) {
	if x.Type == "VALUE_CONSTANT" && x.Value != nil && !x.Value.IsNull {
		switch x.Value.Type.ID {
		case "TINYINT", "SMALLINT", "INTEGER", "BIGINT":
			if n, ok := x.Value.Value.(json.Number); ok {
				v, err := n.Int64()
				return v, err == nil
			}
		}
	}
	return 0, false
}

func text(x *expression) (string, bool) {
	if x.Type != "VALUE_CONSTANT" || x.Value == nil || x.Value.IsNull || x.Value.Type.ID != "VARCHAR" {
		return "", false
	}
	s, ok := x.Value.Value.(string)
	return s, ok
}

// moment reads '2026-01-02'::DATE and its like.
func moment(x *expression, as, layout string) (time.Time, bool) {
	if x.Class != "CAST" || x.Child == nil || x.CastType.ID != as {
		return time.Time{}, false
	}
	s, ok := text(x.Child)
	if !ok {
		return time.Time{}, false
	}
	t, err := time.Parse(layout, s)
	return t, err == nil
}
