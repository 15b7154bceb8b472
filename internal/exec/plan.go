package exec

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/frazil-io/frazil/internal/batch"
	"github.com/frazil-io/frazil/internal/exec/stream"
)

// operator is a node of DuckDB's physical plan.
type operator struct {
	Name     string         `json:"name"`
	Extra    map[string]any `json:"extra_info"`
	Children []operator     `json:"children"`
}

// checkPlan is the second look at a sink's SQL, after the one at its syntax: no
// operator that needs all rows stands above the scan of a source. DuckDB moves
// an aggregate of a subquery outwards where all its columns come from there. It
// also says whether the plan only filters and projects: then a row gives one row
// at most.
func (e *Executor) checkPlan(ctx context.Context, sink string, q *stream.Query) (narrow bool, err error) {
	at := atTime(q.SQL, time.Unix(0, 0))
	out, err := e.workers[0].instance.Explain(ctx, at)
	if err != nil {
		return false, fmt.Errorf("the sql of sink %s: %w: %w", sink, batch.ErrInvalid, err)
	}
	var roots []operator
	if err := json.Unmarshal([]byte(out), &roots); err != nil {
		return false, fmt.Errorf("the sql of sink %s: %w: DuckDB's plan: %w", sink, batch.ErrInvalid, err)
	}
	c := planCheck{streams: map[string]bool{}, narrow: true}
	for _, r := range roots {
		c.find(r)
	}
	if c.whole != "" {
		return false, fmt.Errorf("%w: the sql of sink %s: DuckDB would run %s over the rows of a source, which needs state that this version of frazil does not keep; "+
			"in subqueries use columns of the subquery's own FROM, and list functions such as list_sum for lists of the row itself",
			batch.ErrInvalid, sink, strings.ToLower(strings.ReplaceAll(c.whole, "_", " ")))
	}
	// At another time a part of the SQL may run that is left out of this plan.
	return c.narrow && at == atTime(q.SQL, time.Unix(1, 0)), nil
}

// narrowOnes are operators that give one row at most for each that they take. One
// that DuckDB found to give none is not among them: a batch may be otherwise.
var narrowOnes = []string{"PROJECTION", "FILTER", "FRAZIL_STREAM"}

// needsAll are operators that give another answer over a part of the rows.
// Windows are not among them: DuckDB numbers rows itself to run ASOF joins and
// correlated subqueries.
var needsAll = []string{"UNGROUPED_AGGREGATE", "SIMPLE_AGGREGATE", "LIMIT", "STREAMING_LIMIT", "TOP_N", "ORDER_BY", "RESERVOIR_SAMPLE", "STREAMING_SAMPLE"}

type planCheck struct {
	streams map[string]bool // common table expressions that read a stream
	whole   string          // an operator above a stream that needs all rows
	narrow  bool            // there is nothing but narrowOnes
}

// find says whether a part of the plan reads a stream.
func (c *planCheck) find(o operator) bool {
	name := strings.TrimSpace(o.Name)
	c.narrow = c.narrow && slices.Contains(narrowOnes, strings.ToUpper(name))
	index := fmt.Sprint(o.Extra["CTE Index"])
	reads := false
	for i, child := range o.Children {
		r := c.find(child)
		if i == 0 && (name == "CTE" || strings.HasPrefix(name, "MATERIALIZED_CTE")) {
			c.streams[index] = r
		}
		reads = reads || r
	}
	switch {
	case strings.EqualFold(name, "FRAZIL_STREAM"):
		return true
	case strings.HasPrefix(name, "CTE_SCAN"):
		return c.streams[index]
	}
	for _, n := range needsAll {
		if reads && name == n {
			c.whole = name
		}
	}
	return reads
}
