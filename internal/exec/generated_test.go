package exec

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

var seedFlag = flag.Uint64("seed", 0, "seed of the random tests; 0: a random one")

func seeded(t *testing.T) (*rand.Rand, uint64) {
	seed := *seedFlag
	if seed == 0 {
		seed = rand.Uint64()
	}
	t.Logf("seed %d", seed)
	return rand.New(rand.NewPCG(seed, 2)), seed
}

// pieces of SQL over a relation c with the columns of clicks, and over p, the
// dimension table that it may be joined with.
var (
	relations = []string{
		"clicks", "even", "(SELECT * FROM clicks WHERE id % 3 <> 1)", "(FROM clicks UNION ALL FROM clicks)", "(SELECT * REPLACE (id + 1 AS id) FROM even)",
		"(WITH w AS (SELECT * FROM clicks) SELECT * FROM w)", "(SELECT * FROM clicks SEMI JOIN pages ON n = id % 4)",
		"(SELECT * EXCLUDE (tags), list_transform(tags, x -> x || '+') AS tags FROM clicks)",
	}
	joins = []string{
		"", "", "JOIN pages p ON p.n = c.id % 4", "LEFT JOIN pages p ON p.n = c.id % 5", "LEFT JOIN (SELECT n, max(section) AS section FROM pages GROUP BY n) p ON p.n = c.geo.x % 4",
		"ASOF JOIN pages p ON c.id % 10 >= p.n", "ASOF LEFT JOIN pages p ON c.id % 5 - 1 >= p.n", "CROSS JOIN pages p", ", (VALUES (1, 'v'), (2, NULL)) p(n, section)",
		", LATERAL (SELECT n, section FROM pages WHERE n <= c.id % 4 ORDER BY n DESC LIMIT 1) p",
	}
	unnests = []string{"", "", ", unnest(c.tags) u(tag)", ", unnest([c.page, 'x']) u(tag)", ", unnest(list_filter(c.tags, x -> x <> 'tag1')) u(tag)"}
	values  = []string{
		"c.id + 1", "upper(c.page)", "c.geo", "c.geo.y || '!'", "c.tags", "len(c.tags)", "c.t", "date_trunc('minute', c.t)", "c.id % 7 IN (SELECT n FROM pages)", "shout(c.page)", "moment()",
		"(SELECT count(*) FROM unnest(c.tags))", "(SELECT max(section) FROM pages WHERE n = c.id % 3)", "(SELECT string_agg(x, ',' ORDER BY x) FROM unnest(c.tags) s(x))",
		"EXISTS (FROM pages WHERE n = c.id % 9)", "now()", "MAP {c.id: c.tags}", "CASE WHEN c.id % 2 = 0 THEN c.page ELSE 'odd' END", "TRY_CAST(c.page AS INTEGER)", "hash(c.page)",
		"list_sum(list_transform(c.tags, x -> length(x)))::BIGINT", "(c.id / 3)::DECIMAL(12, 4)", "top() + c.id", "json_object('id', c.id)::VARCHAR",
	}
	conditions = []string{
		"c.id % 2 = 1", "c.page IS NOT NULL", "c.page LIKE '1%'", "len(c.tags) > 0", "c.t >= TIMESTAMPTZ '1970-01-01 00:10:00+00'", "c.id NOT IN (SELECT n FROM pages)",
		"listed(c.id % 6)", "c.geo.x BETWEEN 100 AND 8000", "c.t < now()", "NOT EXISTS (FROM pages WHERE n = c.id % 11)",
	}
)

func pick(r *rand.Rand, from []string) string { return from[r.IntN(len(from))] }

func generated(r *rand.Rand) string {
	join, unnest := pick(r, joins), pick(r, unnests)
	columns := []string{"c.id"}
	for k := range 1 + r.IntN(4) {
		columns = append(columns, fmt.Sprintf("%s AS v%d", pick(r, values), k))
	}
	if join != "" {
		columns = append(columns, "p.section || p.n AS joined")
	}
	if unnest != "" {
		columns = append(columns, "u.tag")
	}
	sql := "SELECT " + strings.Join(columns, ", ") + " FROM " + pick(r, relations) + " c " + join + unnest
	for k := range r.IntN(3) {
		sql += []string{" WHERE ", " AND "}[min(k, 1)] + pick(r, conditions)
	}
	switch r.IntN(6) {
	case 0:
		sql = "WITH g AS (" + sql + ") SELECT * FROM g"
	case 1:
		sql = "FROM (" + sql + ") SELECT * WHERE v0 IS NOT NULL"
	case 2:
		sql = "SELECT id, unnest([v0::VARCHAR, 'end']) AS u FROM (" + sql + ")"
	}
	return sql
}

// TestGeneratedCuts: whatever is put together from what is supported gives the
// same rows however the stream is cut.
func TestGeneratedCuts(t *testing.T) {
	r, seed := seeded(t)
	const statements, records = 40, 3000
	var sinks []string
	for range statements {
		sinks = append(sinks, generated(r))
	}
	e, err := open(t, func(o *Options) { o.Workers = 2; attacked(o) }, sinks...)
	if err != nil {
		t.Fatalf("seed %d: %v", seed, err)
	}
	want, _, err := execute(t, e, records, 0)
	if err != nil {
		t.Fatalf("seed %d: %v", seed, err)
	}
	got, results, err := execute(t, e, records, max(1, seed))
	if err != nil {
		t.Fatalf("seed %d: %v", seed, err)
	}
	some := 0
	for i, sql := range sinks {
		sink := fmt.Sprint("s", i)
		some += min(1, len(want[sink]))
		if !slices.Equal(got[sink], want[sink]) || results[sink].Rows != int64(len(want[sink])) {
			t.Errorf("seed %d: %s: %d rows in pieces, %d in one", seed, sql, len(got[sink]), len(want[sink]))
		}
		// The first column is another one for each record.
		ids := map[string]bool{}
		for _, line := range got[sink] {
			id, _, _ := strings.Cut(line, "|")
			ids[id] = true
		}
		if r := results[sink]; r.With != int64(len(ids)) || r.With+r.Without != records || !r.Balanced() {
			t.Errorf("seed %d: %s: %d records left output, counted %+v", seed, sql, len(ids), r.Inputs)
		}
	}
	if some < statements/2 {
		t.Errorf("seed %d: only %d of %d statements give rows", seed, some, statements)
	}
}
