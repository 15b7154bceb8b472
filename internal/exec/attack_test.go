package exec

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/frazil-io/frazil/internal/batch"
	"github.com/frazil-io/frazil/internal/exec/stream"
)

// views and macros that statements under attack may use.
func attacked(o *Options) {
	o.Macros = []stream.Macro{
		{Signature: "biggest(x)", SQL: "max(x)"},
		{Signature: "twice_hidden(x)", SQL: "biggest(x) + 1"},
		{Signature: "place(x)", SQL: "row_number() OVER (ORDER BY x)"},
		{Signature: "known(x)", SQL: "x IN (SELECT id FROM clicks)"},
		{Signature: "listed(x)", SQL: "x IN (SELECT n FROM pages)"},
		{Signature: "top()", SQL: "(SELECT max(n) FROM pages)"},
		{Signature: "moment()", SQL: "now()"},
		{Signature: "later(i := 1)", SQL: "moment() + to_seconds(i)"},
		{Signature: "shout(x, mark := '!')", SQL: "upper(x) || mark"},
	}
	o.Views = []stream.View{{Name: "even", SQL: "SELECT * FROM clicks WHERE id % 2 = 0"}, {Name: "static", SQL: "SELECT n, section FROM pages"}}
}

// refuser returns what prepares one more sink in an executor.
func refuser(t *testing.T, change func(*Options)) func(sql string) error {
	t.Helper()
	e, err := open(t, change, "SELECT id FROM clicks")
	if err != nil {
		t.Fatal(err)
	}
	a, err := e.analyzer(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	more := 0
	return func(sql string) error {
		more++
		return e.prepareSink(t.Context(), a, Sink{Name: fmt.Sprint("more", more), SQL: sql})
	}
}

// TestAttacks: nothing that would need all rows, or give others the next time,
// or reach beyond the data, comes through, however it is dressed.
func TestAttacks(t *testing.T) {
	refuse := refuser(t, attacked)
	for _, c := range []struct{ sql, want string }{
		// names
		{`SELECT "MAX"(id) AS m FROM "Clicks"`, "aggregate max over a stream"},
		{"SELECT /* max */ max /* x */ (id) AS m -- clicks\nFROM clicks", "aggregate max over a stream"},
		{`SELECT main.max(id) AS m FROM clicks`, "aggregate max over a stream"},
		{`SELECT id.max() AS m FROM clicks`, "aggregate max over a stream"},
		{`SELECT max(COLUMNS(*)) FROM clicks`, "aggregate max over a stream"},
		{`SELECT sum(COLUMNS(c -> c = 'id')) AS s FROM clicks`, "aggregate sum over a stream"},
		{`SELECT * REPLACE (max(id) AS id) FROM clicks`, "aggregate max over a stream"},
		{`FROM clicks SELECT count(*) AS n`, "aggregate count over a stream"},
		{`SELECT struct_pack(a := max(id)) AS s FROM clicks`, "aggregate max over a stream"},
		{`SELECT list_transform([1], x -> max(id)) AS s FROM clicks`, "aggregate max over a stream"},
		{`SELECT list_transform(tags, x -> list_transform([1], y -> y + random()::INT)) AS s FROM clicks`, "random gives another answer"},
		{`SELECT CASE WHEN true THEN sum(id) END AS s FROM clicks`, "aggregate sum over a stream"},
		{`SELECT id FROM clicks WHERE id > (SELECT id FROM clicks)`, "a subquery over a stream"},
		{`SELECT id FROM clicks HAVING id > 1`, "HAVING over a stream"},
		{`SELECT id FROM clicks GROUP BY ALL`, "GROUP BY over a stream"},
		{`SELECT id FROM clicks GROUP BY ()`, "over a stream"},
		{`SELECT DISTINCT ON (page) id FROM clicks`, "DISTINCT over a stream"},
		{`SELECT id FROM clicks ORDER BY ALL`, "ORDER BY over a stream"},
		{`SELECT id FROM clicks LIMIT 10%`, "LIMIT over a stream"},
		{`SELECT id FROM clicks OFFSET 3`, "LIMIT over a stream"},
		{`SELECT id FROM clicks USING SAMPLE 3`, "a random sample"},
		{`SELECT id FROM (SELECT id FROM clicks LIMIT 3)`, "LIMIT over a stream"},
		{`SELECT lag(id) OVER w AS l FROM clicks WINDOW w AS (ORDER BY id)`, "window function lag over a stream"},
		{`SELECT sum(id) FILTER (id > 1) AS s FROM clicks`, "aggregate sum over a stream"},
		{`SELECT list(id ORDER BY id) AS s FROM clicks`, "aggregate list over a stream"},
		{`SELECT ARRAY(SELECT id FROM clicks) AS s FROM clicks`, "aggregate array_agg over a stream"},
		// aggregates of the subquery's surroundings
		{`SELECT (SELECT max(c.id)) AS m FROM clicks c`, "line 1 column 16: aggregate max in a subquery without FROM"},
		{`SELECT (SELECT (SELECT max(c.id))) AS m FROM clicks c`, "without FROM"},
		{`SELECT (SELECT max(c.id) FROM pages WHERE n = 0) AS m FROM clicks c`, "over the rows of a source"},
		{`SELECT (SELECT max(c.id) FROM unnest([1])) AS m FROM clicks c`, "over the rows of a source"},
		{`WITH x AS MATERIALIZED (SELECT id FROM clicks) SELECT (SELECT max(x.id) FROM (SELECT 1)) AS m FROM x`, "over the rows of a source"},
		{`SELECT * FROM clicks c, LATERAL (SELECT max(c.id) AS m)`, "LATERAL join cannot contain aggregates"},
		// functions that hide others
		{`SELECT geomean(id) AS g FROM clicks`, "line 1 column 8: geomean(): aggregate avg over a stream"},
		{`SELECT weighted_avg(id, 1) AS g FROM clicks`, "aggregate sum over a stream"},
		{`SELECT json_group_array(id) AS g FROM clicks`, "aggregate string_agg over a stream"},
		{`SELECT ago(INTERVAL 1 DAY) AS g FROM clicks`, "function ago reads the clock"},
		{`SELECT age(t) AS g FROM clicks`, "age with one argument reads the clock"},
		{`SELECT pg_conf_load_time() AS g FROM clicks`, "reads the clock"},
		{`SELECT format_type(1, 1) AS g FROM clicks`, "format_type(): table function duckdb_types is not allowed"},
		{`SELECT get_block_size('memory') AS g FROM clicks`, "table function pragma_database_size is not allowed"},
		{`SELECT twice_hidden(id) AS m FROM clicks`, "line 1 column 8: twice_hidden → biggest(): aggregate max over a stream"},
		{`SELECT place(id) AS m FROM clicks`, "place(): window function row_number over a stream"},
		{`SELECT id FROM clicks WHERE known(id)`, "known(): a subquery over a stream"},
		{`SELECT (SELECT biggest(c.id)) AS m FROM clicks c`, "without FROM"},
		{`WITH pages AS (SELECT id AS n FROM clicks) SELECT id FROM clicks WHERE listed(id)`, "listed(): a subquery over a stream"},
		// time and chance in odd places
		{`SELECT id, x FROM clicks, (VALUES (random())) v(x)`, "random gives another answer"},
		{`SELECT id, x FROM clicks, unnest([uuid()]) v(x)`, "uuid gives another answer"},
		{`SELECT id, (SELECT n FROM pages ORDER BY random() LIMIT 1) AS x FROM clicks`, "random gives another answer"},
		{`SELECT id, (SELECT n FROM pages LIMIT 1) AS x FROM clicks`, "line 1 column 39: LIMIT without ORDER BY"},
		{`SELECT id, (SELECT max(n) FROM pages USING SAMPLE 1) AS x FROM clicks`, "a random sample"},
		{`SELECT id, (SELECT max(n) FROM pages TABLESAMPLE 10%) AS x FROM clicks`, "TABLESAMPLE"},
		{`SELECT id, m FROM clicks JOIN (SELECT n, row_number() OVER () AS m FROM pages) p ON p.n = id`, "row_number without ORDER BY"},
		{`SELECT id, (SELECT reservoir_quantile(n, 0.5) FROM pages) AS q FROM clicks`, "reservoir_quantile gives another answer"},
		{`SELECT id FROM clicks JOIN pages ON n = id AND random() > 0.5`, "random gives another answer"},
		{`SELECT gen_random_uuid() AS u FROM clicks`, "gen_random_uuid gives another answer"},
		{`SELECT uuidv7() AS u FROM clicks`, "uuidv7 gives another answer"},
		{`SELECT setseed(0.5) AS s FROM clicks`, "setseed gives another answer"},
		{`SELECT txid_current() AS s FROM clicks`, "depends on the session"},
		{`SELECT getvariable('x') AS s FROM clicks`, "depends on the session"},
		{`SELECT current_query() AS s FROM clicks`, "gives another answer"},
		{`SELECT pg_sleep(1) AS s FROM clicks`, "depends on the session"},
		{`SELECT write_log('x') AS s FROM clicks`, "gives another answer"},
		{`SELECT user AS s FROM clicks`, "user depends on the session"},
		{`WITH x AS (SELECT id AS current_date FROM clicks) SELECT current_date AS d FROM x`, "current_date is the time, and the name of a column, too"},
		{`SELECT list_transform([1], current_date -> current_date) AS d FROM clicks`, "the name of a column, too"},
		{`SELECT __frazil_batch_time() AS b FROM clicks`, "names that begin with __frazil"},
		{`SELECT '__frazil_batch_time()' AS b FROM clicks`, "names that begin with __frazil"},
		{`SELECT id FROM clicks WHERE id = $1`, "a parameter has no value"},
		{`SELECT id FROM clicks WHERE id = ?`, "a parameter has no value"},
		// joins
		{`SELECT * FROM clicks a, clicks b`, "a join of two streams"},
		{`SELECT a.id FROM clicks a NATURAL JOIN even b`, "a join of two streams"},
		{`SELECT a.id FROM even a JOIN clicks b ON a.id = b.id`, "a join of two streams"},
		{`SELECT c.id FROM clicks c, LATERAL (SELECT id FROM clicks d WHERE d.id = c.id)`, "a join of two streams"},
		{`SELECT n, id FROM pages ASOF JOIN clicks ON n >= id`, "let the stream be on the left"},
		{`SELECT n, id FROM pages ASOF LEFT JOIN clicks ON n >= id`, "let the stream be on the left"},
		{`SELECT n, id FROM clicks RIGHT JOIN pages ON n = id`, "a RIGHT join keeps rows of the dimension table"},
		{`SELECT n FROM pages ANTI JOIN clicks ON n = id`, "a ANTI join"},
		{`SELECT id FROM clicks WHERE EXISTS (FROM views v WHERE v.id = clicks.id)`, "a subquery over a stream"},
		{`SELECT id FROM clicks EXCEPT ALL SELECT n FROM pages`, "write UNION ALL"},
		{`SELECT id FROM clicks INTERSECT SELECT id FROM views`, "write UNION ALL"},
		{`SELECT id FROM clicks UNION BY NAME SELECT id FROM views`, "write UNION ALL"},
		{`VALUES (1)`, "it reads no source"},
		{`WITH clicks AS (SELECT * FROM pages) SELECT * FROM clicks`, "it reads no source"},
		{`WITH even AS (SELECT * FROM pages) SELECT id FROM clicks`, "WITH even hides the view even"},
		{`SELECT id, m FROM clicks, (SELECT max(id) AS m FROM even)`, "aggregate max over a stream"},
		// the sandbox
		{`SELECT * FROM clicks, read_parquet('x')`, "table function read_parquet is not allowed"},
		{`SELECT * FROM clicks, read_text('/etc/passwd')`, "table function read_text is not allowed"},
		{`SELECT * FROM clicks, glob('*')`, "table function glob is not allowed"},
		{`SELECT * FROM clicks, duckdb_settings()`, "table function duckdb_settings is not allowed"},
		{`SELECT * FROM clicks, query_table('pages')`, "table function query_table is not allowed"},
		{`SELECT * FROM clicks, frazil_stream(1)`, "table function frazil_stream is not allowed"},
		{`SELECT * FROM clicks, json_execute_serialized_sql('x')`, "is not allowed"},
		{`SELECT * FROM information_schema.tables, clicks`, "names of schemas and catalogs"},
		{`SELECT * FROM clicks, duckdb_tables`, "unknown relation"},
		{`SELECT * FROM clicks, sqlite_master`, "unknown relation"},
		{`SELECT * FROM clicks, 'data.parquet'`, "unknown relation"},
		{`SELECT * FROM clicks, (DESCRIBE clicks)`, "is not supported in FROM"},
		{`SELECT * FROM clicks, (SUMMARIZE pages)`, "is not supported in FROM"},
		{`DESCRIBE clicks`, "is not supported in FROM"},
		{`PRAGMA version`, "Only SELECT statements"},
		{`SET threads = 2`, "Only SELECT statements"},
		{`COPY (SELECT 1) TO 'x'`, "Only SELECT statements"},
		{`ATTACH ':memory:' AS x`, "Only SELECT statements"},
		{`CREATE MACRO f(x) AS x`, "Only SELECT statements"},
		{`EXPLAIN SELECT id FROM clicks`, "Only SELECT statements"},
		{`SELECT id FROM clicks; DROP TABLE x`, ""},
		{`SELECT getenv('HOME') AS h FROM clicks`, "depends on the session"},
		{`PIVOT pages ON n IN (1, 2) USING first(section)`, "it reads no source"},
		{`UNPIVOT clicks ON id INTO NAME k VALUE v`, "over a stream"},
		{``, "it has 0 statements"},
		{`SELECT id FROM clicks AT (VERSION => 1)`, "AT is not supported"},
		{`WITH RECURSIVE r USING KEY (a) AS (SELECT id AS a, 1 AS b FROM clicks UNION SELECT a, b + 1 FROM r) SELECT * FROM r`, "recursive"},
	} {
		err := refuse(c.sql)
		if !errors.Is(err, batch.ErrInvalid) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s:\n  error %v\n  want  %q", c.sql, err, c.want)
		}
	}
}

// harmless are statements that look like attacks and are none.
var harmless = []string{
	`SELECT list_sum([id, 1])::BIGINT AS a, list_aggregate(tags, 'count') AS b, list_max(tags) AS c FROM clicks`,
	`SELECT id, (SELECT count(*) FROM unnest(tags)) AS n, (SELECT count(*)) AS one FROM clicks`,
	`SELECT id, (SELECT string_agg(u.tag, ',' ORDER BY u.tag) FROM unnest(c.tags) u(tag)) AS n FROM clicks c`,
	`SELECT id, (SELECT max(section) FROM pages p WHERE p.n = c.id % 4) AS s FROM clicks c`,
	`SELECT id, (SELECT section FROM pages p WHERE p.n <= c.id % 4 ORDER BY n DESC LIMIT 1) AS s FROM clicks c`,
	`SELECT id, s.section FROM clicks c, LATERAL (SELECT section FROM pages p WHERE p.n < c.id % 4 ORDER BY n LIMIT 2) s`,
	`SELECT id, EXISTS (FROM pages p WHERE p.n = c.id % 5) AS there FROM clicks c`,
	`SELECT id, section FROM clicks ASOF JOIN pages ON id % 10 >= n`,
	`SELECT id, section FROM clicks ASOF LEFT JOIN pages ON id % 10 - 3 >= n`,
	`SELECT id FROM clicks ANTI JOIN pages ON id % 4 = n`,
	`SELECT id, n FROM clicks CROSS JOIN pages`,
	`SELECT id, n FROM pages, clicks WHERE n = id % 3`,
	`SELECT id, section FROM clicks NATURAL JOIN (SELECT n AS id, section FROM pages)`,
	`SELECT id, p.section FROM pages p, LATERAL (SELECT id FROM clicks WHERE id % 7 = p.n)`,
	`SELECT c.id, r.total FROM clicks c JOIN (SELECT section, count(*) AS total FROM pages GROUP BY section HAVING count(*) > 0) r ON r.section = 'section ' || c.id % 3 || ' v1'`,
	`SELECT c.id, r.place FROM clicks c JOIN (SELECT n, row_number() OVER (ORDER BY n DESC) AS place FROM pages) r ON r.n = c.id % 3`,
	`SELECT id, x FROM clicks, (VALUES (now()), (batch_time())) v(x)`,
	`SELECT id, x FROM clicks, unnest([current_date, today()]) v(x)`,
	`SELECT * EXCLUDE (geo, t) REPLACE (upper(page) AS page) FROM clicks`,
	`SELECT COLUMNS(c -> c LIKE 'i%'), COLUMNS('pag.') FROM clicks`,
	`FROM clicks SELECT id, struct_pack(a := id, b := [id]) AS s WHERE id < 5000`,
	`WITH clicks AS (SELECT * FROM clicks WHERE id % 2 = 1) SELECT id FROM clicks`,
	`WITH x AS (SELECT id AS today FROM clicks) SELECT today FROM x`,
	`WITH x AS MATERIALIZED (SELECT id FROM clicks), p AS MATERIALIZED (SELECT * FROM pages) SELECT x.id, (SELECT max(n) FROM p) AS m FROM x JOIN p ON p.n = x.id % 3`,
	`SELECT id FROM clicks UNION ALL SELECT id FROM even UNION ALL BY NAME SELECT id FROM views`,
	`SELECT id, CASE WHEN id < 0 THEN error('negative') END AS e FROM clicks`,
	`SELECT unnest(list_transform(tags, lambda x: x || '?')) AS tag, id FROM clicks`,
	`SELECT id, unnest(geo) FROM clicks`,
	`SELECT id, list_transform(tags, (x, i) -> x || i) AS numbered, list_filter(tags, x -> x <> 'tag0') AS f, [x || '!' for x in tags if x <> 'tag1'] AS g FROM clicks`,
	`SELECT id, listed(id % 5) AS l, top() AS top, moment() AS m, later(i := 2) AS l2, later() AS l1, shout(page) AS s, page.shout(mark := '?') AS s2 FROM clicks`,
	`SELECT e.id, moment() AS m FROM even e JOIN static s ON s.n = e.id % 3 WHERE listed(s.n)`,
	`SELECT id, (SELECT biggest(n) FROM pages) AS b FROM clicks`,
	`SELECT id, TRY_CAST(page AS INTEGER) AS p, TRY(page::INTEGER) AS q FROM clicks`,
	`SELECT id, json_extract_string('{"a": ' || id || '}', '$.a') AS a FROM clicks`,
	`SELECT clicks.id, j.value::VARCHAR AS v FROM clicks, json_each('[1, 2]') j`,
	`SELECT id, g FROM clicks, generate_series(1, id % 3) s(g)`,
	`SELECT id, (SELECT first(section ORDER BY n) FROM pages) AS f, (SELECT quantile_cont(n, 0.5) FROM pages) AS q FROM clicks`,
	`SELECT id, p.* FROM clicks c JOIN (FROM pages PIVOT (max(section) FOR n IN (0, 1))) p ON true`,
}

// TestHarmless: they are accepted, and the cuts do not matter.
func TestHarmless(t *testing.T) { cuts(t, attacked, harmless) }

// TestMacros: they are made in order, and say what is wrong with them.
func TestMacros(t *testing.T) {
	for _, c := range []struct {
		macros []stream.Macro
		want   string
	}{
		{[]stream.Macro{{Signature: "f", SQL: "1"}}, "its key is not name(parameters)"},
		{[]stream.Macro{{Signature: "f(a) AS b, g(c)", SQL: "1"}}, `its parameters are`},
		{[]stream.Macro{{Signature: "f(a := random())", SQL: "1"}}, `its parameters are`},
		{[]stream.Macro{{Signature: "f(a + 1)", SQL: "1"}}, `its parameters are`},
		{[]stream.Macro{{Signature: "f(a)", SQL: "a, 1"}}, "macro f: it is not one expression"},
		{[]stream.Macro{{Signature: "f(a)", SQL: "a FROM clicks"}}, "it is not one expression"},
		{[]stream.Macro{{Signature: "f(a)", SQL: "a AS b"}}, "it is not one expression"},
		{[]stream.Macro{{Signature: "f(a)", SQL: "a; SELECT 1"}}, "it has 2 statements"},
		{[]stream.Macro{{Signature: "f(a)", SQL: "a +"}}, "macro f"},
		{[]stream.Macro{{Signature: "f(a)", SQL: "a +\n random()"}}, "macro f, line 2 column 2: random gives another answer"},
		{[]stream.Macro{{Signature: "f(a)", SQL: "SELECT * FROM clicks"}}, "macro f"},
		{[]stream.Macro{{Signature: "upper(a)", SQL: "a"}}, "DuckDB has a function of this name"},
		{[]stream.Macro{{Signature: "now()", SQL: "1"}}, "DuckDB has a function of this name"},
		{[]stream.Macro{{Signature: "f(a)", SQL: "a"}, {Signature: "F(b)", SQL: "b"}}, "two macros of this name"},
		{[]stream.Macro{{Signature: "f(a)", SQL: "a + b"}}, `"b"`},
		{[]stream.Macro{{Signature: "f(a)", SQL: "f(a) + 1"}}, "macro f"},
		{[]stream.Macro{{Signature: "f(a)", SQL: "g(a)"}, {Signature: "g(a)", SQL: "a"}}, "g"},
	} {
		_, err := open(t, func(o *Options) { o.Macros = c.macros }, "SELECT id, f(id) AS f FROM clicks")
		if !errors.Is(err, batch.ErrInvalid) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v:\n  error %v\n  want  %q", c.macros, err, c.want)
		}
	}
	e, err := open(t, attacked, "SELECT moment() AS m, later(i := 2) AS l, page.shout('?') AS s FROM clicks WHERE id = 1")
	if err != nil {
		t.Fatal(err)
	}
	got, _, err := execute(t, e, 3, 1)
	if want := []string{`"2026-01-02T03:04:05Z"|"2026-01-02T03:04:07Z"|"1 PAGE THAT IS LONGER THAN TWELVE BYTES?"|`}; err != nil || !slices.Equal(got["s0"], want) {
		t.Errorf("%v %v, want %v", got, err, want)
	}
}
