package exec

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"

	"github.com/frazil-io/frazil/internal/batch"
	"github.com/frazil-io/frazil/internal/exec/stream"
)

var point = arrow.StructOf(arrow.Field{Name: "x", Type: arrow.PrimitiveTypes.Int64, Nullable: true}, arrow.Field{Name: "y", Type: arrow.BinaryTypes.String, Nullable: true})

var columns = []arrow.Field{
	{Name: "id", Type: arrow.PrimitiveTypes.Int64, Nullable: true},
	{Name: "page", Type: arrow.BinaryTypes.String, Nullable: true},
	{Name: "tags", Type: arrow.ListOf(arrow.BinaryTypes.String), Nullable: true},
	{Name: "geo", Type: point, Nullable: true},
	{Name: "t", Type: &arrow.TimestampType{Unit: arrow.Microsecond, TimeZone: "UTC"}, Nullable: true},
}

var clicks = arrow.NewSchema(slices.Concat(columns, []arrow.Field{
	{Name: batch.RangeColumn, Type: arrow.PrimitiveTypes.Int32}, {Name: batch.OffsetColumn, Type: arrow.PrimitiveTypes.Int64},
}), nil)

// rows makes record i at offset i.
func rows(from, to int) arrow.RecordBatch {
	b := array.NewRecordBuilder(memory.DefaultAllocator, clicks)
	defer b.Release()
	for i := from; i < to; i++ {
		b.Field(0).(*array.Int64Builder).Append(int64(i))
		if i%7 == 0 {
			b.Field(1).AppendNull()
		} else {
			b.Field(1).(*array.StringBuilder).Append(fmt.Sprintf("%d page that is longer than twelve bytes", i%5))
		}
		l := b.Field(2).(*array.ListBuilder)
		l.Append(true)
		for k := range i % 3 {
			l.ValueBuilder().(*array.StringBuilder).Append(fmt.Sprint("tag", k))
		}
		s := b.Field(3).(*array.StructBuilder)
		s.Append(true)
		s.FieldBuilder(0).(*array.Int64Builder).Append(int64(i * 2))
		s.FieldBuilder(1).(*array.StringBuilder).Append(fmt.Sprint("y", i))
		b.Field(4).(*array.TimestampBuilder).Append(arrow.Timestamp(int64(i) * 1e6))
		b.Field(5).(*array.Int32Builder).Append(0)
		b.Field(6).(*array.Int64Builder).Append(int64(i))
	}
	return b.NewRecordBatch()
}

// pages is a dimension table.
type pages struct{}

func (pages) Fields() []arrow.Field {
	return []arrow.Field{{Name: "n", Type: arrow.PrimitiveTypes.Int64, Nullable: true}, {Name: "section", Type: arrow.BinaryTypes.String, Nullable: true}}
}
func (pages) Version(context.Context) (string, error) { return "v1", nil }
func (p pages) Load(_ context.Context, version string) (arrow.RecordBatch, error) {
	b := array.NewRecordBuilder(memory.DefaultAllocator, arrow.NewSchema(p.Fields(), nil))
	defer b.Release()
	for i := range 3 {
		b.Field(0).(*array.Int64Builder).Append(int64(i))
		b.Field(1).(*array.StringBuilder).Append(fmt.Sprint("section ", i, " ", version))
	}
	return b.NewRecordBatch(), nil
}

func options(change func(*Options), sinks ...string) Options {
	o := Options{Sources: []Source{{Name: "clicks", Fields: columns}, {Name: "views", Fields: columns}}, Tables: []Table{{Name: "pages", Dimension: pages{}}}}
	for i, sql := range sinks {
		o.Sinks = append(o.Sinks, Sink{Name: fmt.Sprint("s", i), SQL: sql})
	}
	if change != nil {
		change(&o)
	}
	return o
}

func open(t testing.TB, change func(*Options), sinks ...string) (*Executor, error) {
	t.Helper()
	e, err := New(context.Background(), options(change, sinks...))
	if err == nil {
		t.Cleanup(e.Close)
	}
	return e, err
}

func jsonLines(b arrow.RecordBatch) (lines []string) {
	for i := range int(b.NumRows()) {
		line := ""
		for c := range int(b.NumCols()) {
			v, _ := json.Marshal(b.Column(c).GetOneForMarshal(i))
			line += string(v) + "|"
		}
		lines = append(lines, line)
	}
	return lines
}

// execute runs sinks over records [0, n) cut at random, in one piece if seed is
// 0, and returns each sink's rows as sorted JSON lines.
func execute(t testing.TB, e *Executor, n int, seed uint64) (map[string][]string, map[string]batch.Result, error) {
	t.Helper()
	job := batch.Job{
		Plan:   &batch.Plan{Time: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), Versions: map[string]string{"pages": "v1"}},
		Ranges: []batch.Range{{TopicPartition: batch.TopicPartition{Source: "clicks", Topic: "clicks"}, End: int64(n)}},
	}
	for _, s := range e.opts.Sinks {
		job.Sinks = append(job.Sinks, s.Name)
	}
	r := rand.New(rand.NewPCG(seed, 1))
	var mu sync.Mutex
	out := map[string][]string{}
	results, err := e.Execute(context.Background(), job, func(emit, _ func(arrow.RecordBatch) error) error {
		for at := 0; at < n; {
			to := min(n, at+1+r.IntN(2500))
			if seed == 0 {
				to = n
			}
			b := rows(at, to)
			err := emit(b)
			b.Release()
			if err != nil {
				return err
			}
			at = to
		}
		return nil
	}, func(sink string, b arrow.RecordBatch) error {
		mu.Lock()
		defer mu.Unlock()
		out[sink] = append(out[sink], jsonLines(b)...)
		return nil
	})
	for _, lines := range out {
		slices.Sort(lines)
	}
	return out, results, err
}

// stateless are queries whose answer does not depend on where a stream is cut.
var stateless = []string{
	`SELECT * FROM clicks WHERE id % 3 = 1`,
	`SELECT id, upper(page) AS page, geo.x + 1 AS x, geo['y'] AS y, len(tags) AS n FROM clicks WHERE page IS NOT NULL`,
	`SELECT id, unnest(tags) AS tag FROM clicks`,
	`SELECT c.id, u.tag FROM clicks c, unnest(c.tags) u(tag) WHERE u.tag <> 'tag0'`,
	`WITH even AS (SELECT * FROM clicks WHERE id % 2 = 0) SELECT id, page FROM even`,
	`SELECT id, 'a' AS kind FROM clicks UNION ALL SELECT id, 'b' FROM clicks WHERE id < 10`,
	`SELECT id, section FROM clicks LEFT JOIN pages ON id % 4 = n`,
	`SELECT id, section FROM pages JOIN clicks ON id % 4 = n`,
	`SELECT id FROM clicks SEMI JOIN pages ON id = n`,
	`SELECT id FROM clicks WHERE id NOT IN (SELECT n FROM pages)`,
	`SELECT id, (SELECT max(section) FROM pages) AS last, (SELECT count(*) FROM unnest(tags)) AS tags FROM clicks`,
	`SELECT id, list_transform(tags, x -> x || '!') AS shouted, {'a': id, 'b': [id]} AS s, MAP {page: id} AS m FROM clicks WHERE page IS NOT NULL`,
	`SELECT id, now() AS at, current_date AS day, batch_time() - t AS age_is_an_interval FROM (SELECT * FROM clicks) WHERE false`,
	`SELECT id, uuid_text::UUID AS u, page::BLOB AS b, (id / 3)::DECIMAL(9, 2) AS d FROM (SELECT *, '01234567-89ab-cdef-0123-456789abcdef' AS uuid_text FROM clicks)`,
}

// TestCutsDoNotMatter: any division of the records gives the rows that one piece
// gives.
func TestCutsDoNotMatter(t *testing.T) { cuts(t, func(*Options) {}, stateless) }

func cuts(t *testing.T, change func(*Options), statements []string) {
	for _, sql := range statements {
		if strings.Contains(sql, "interval") {
			continue
		}
		e, err := open(t, func(o *Options) { o.Workers = 2; change(o) }, sql)
		if err != nil {
			t.Errorf("%s: %v", sql, err)
			continue
		}
		seed := rand.Uint64()
		got, results, err := execute(t, e, 5000, seed)
		if err != nil {
			t.Errorf("%s: %v", sql, err)
			continue
		}
		want := whole(t, e, 5000)
		if !slices.Equal(got["s0"], want) {
			t.Errorf("seed %d: %s: %d rows in pieces, %d in one", seed, sql, len(got["s0"]), len(want))
		}
		if r := results["s0"]; r.Scanned != 5000 || r.Rows != int64(len(want)) {
			t.Errorf("%s: counted %+v", sql, r)
		}
	}
}

func whole(t *testing.T, e *Executor, n int) []string {
	t.Helper()
	out, _, err := execute(t, e, n, 0)
	if err != nil {
		t.Fatal(err)
	}
	return out["s0"]
}

func TestPlanTime(t *testing.T) {
	e, err := open(t, nil, `SELECT now() AS a, current_date AS b, batch_time() AS c, today() AS d, localtimestamp AS e, current_time AS f FROM clicks`)
	if err != nil {
		t.Fatal(err)
	}
	got, _, err := execute(t, e, 1, 1)
	if want := `"2026-01-02T03:04:05Z"|"2026-01-02"|"2026-01-02T03:04:05Z"|"2026-01-02"|"2026-01-02T03:04:05"|"03:04:05"|`; err != nil || len(got["s0"]) != 1 || got["s0"][0] != want {
		t.Fatalf("%v %v, want %s", got, err, want)
	}
}

// TestColumnsRead: of each sink for itself, in whichever place of a join.
func TestColumnsRead(t *testing.T) {
	e, err := open(t, attacked, "SELECT page FROM clicks WHERE id > 3", "SELECT geo.x FROM pages p JOIN clicks c ON c.id = p.n", "SELECT 1 AS one FROM even", "SELECT shout(section) AS s FROM clicks JOIN pages ON id = n")
	if err != nil {
		t.Fatal(err)
	}
	for sink, want := range map[string]string{"s0": "[id page] []", "s1": "[id geo] [n]", "s2": "[id] []", "s3": "[id] [n section]"} {
		source, err := e.ColumnsRead(t.Context(), sink, "clicks")
		if err != nil {
			t.Fatal(err)
		}
		table, err := e.ColumnsRead(t.Context(), sink, "pages")
		if err != nil {
			t.Fatal(err)
		}
		if got := fmt.Sprint(source, table); strings.ReplaceAll(got, "][", "] [") != want {
			t.Errorf("%s reads %s, want %s", sink, got, want)
		}
	}
	if q := e.Query("s3"); !slices.Equal(q.Macros, []string{"shout"}) || !slices.Equal(e.Query("s2").Views, []string{"even"}) {
		t.Errorf("uses %v %v", q.Macros, e.Query("s2").Views)
	}
}

func TestRefusals(t *testing.T) {
	refuse := refuser(t, nil)
	for _, c := range []struct{ sql, want string }{
		{"SELECT page, count(*) AS n\nFROM clicks GROUP BY page", "line 1 column 14: aggregate count over a stream needs state"},
		{"SELECT page FROM clicks GROUP BY page", "GROUP BY over a stream needs state"},
		{"SELECT max(id) AS m FROM clicks", "aggregate max over a stream"},
		{"SELECT DISTINCT page FROM clicks", "DISTINCT over a stream needs state"},
		{"SELECT id FROM clicks\nORDER BY id", "line 2 column 10: ORDER BY over a stream never ends"},
		{"SELECT id FROM clicks LIMIT 3", "LIMIT over a stream"},
		{"SELECT row_number() OVER () AS n FROM clicks", "window function row_number over a stream"},
		{"SELECT id FROM clicks QUALIFY row_number() OVER () = 1", "over a stream needs state"},
		{"SELECT a.id FROM clicks a JOIN clicks b USING (id)", "a join of two streams, or of a stream with itself"},
		{"SELECT a.id FROM clicks a JOIN views b USING (id)", "a join of two streams"},
		{"SELECT id FROM clicks WHERE id IN (SELECT id FROM views)", "a subquery over a stream"},
		{"SELECT n FROM pages LEFT JOIN clicks ON id = n", "a LEFT join keeps rows of the dimension table"},
		{"SELECT n FROM pages SEMI JOIN clicks ON id = n", "a SEMI join"},
		{"SELECT n FROM clicks FULL JOIN pages ON id = n", "join keeps rows of the dimension table"},
		{"SELECT id FROM clicks UNION SELECT id FROM views", "write UNION ALL"},
		{"SELECT id FROM clicks UNION ALL SELECT n FROM pages", "one side of UNION ALL reads no source"},
		{"SELECT id, random() AS r FROM clicks", "line 1 column 12: random gives another answer each time"},
		{"SELECT uuid() AS u FROM clicks", "gives another answer each time"},
		{"SELECT nextval('s') AS u FROM clicks", "gives another answer each time"},
		{"SELECT current_setting('threads') AS u FROM clicks", "depends on the session"},
		{"SELECT 1 AS one", "it reads no source"},
		{"SELECT n FROM pages", "it reads no source"},
		{"SELECT id FROM click", `unknown relation "click"; did you mean clicks?`},
		{"SELECT id FROM main.clicks", "names of schemas and catalogs are not supported"},
		{"SELECT ID, idd FROM clicks", `"idd"`},
		{"SELEC id FROM clicks", `line 1 column 1: syntax error at or near "SELEC"`},
		{"SELECT id FROM clicks; SELECT id FROM clicks", "it has 2 statements"},
		{"DELETE FROM clicks", "Only SELECT statements"},
		{"SELECT id + 1 FROM clicks", "give it a name with AS"},
		{"SELECT id, page AS ID FROM clicks", "is there twice"},
		{"SELECT id::HUGEINT AS h FROM clicks", "HUGEINT has no place in an Iceberg table; cast it to BIGINT"},
		{"SELECT batch_time() - t AS age FROM clicks", "make it a BIGINT"},
		{"SELECT id FROM clicks TABLESAMPLE 10%", "TABLESAMPLE differs each time"},
		{"SELECT id FROM clicks POSITIONAL JOIN pages", "positional join"},
		{"SELECT * FROM clicks, read_csv('/etc/passwd')", "table function read_csv is not allowed"},
		{"SELECT * FROM clicks, enable_logging(storage='file')", "table function enable_logging is not allowed"},
		{"SELECT * FROM clicks, query('SELECT 1')", "table function query is not allowed"},
		{"FROM '/etc/passwd'", "unknown relation"},
		{"SHOW TABLES", "not supported in FROM"},
		{"WITH RECURSIVE r AS (SELECT 1 AS a UNION ALL SELECT a + 1 FROM r WHERE a < 3) SELECT r.a, id FROM clicks, r", "recursive"},
		{"PIVOT clicks ON page IN ('a') USING count(*)", "over a stream"},
	} {
		err := refuse(c.sql)
		if !errors.Is(err, batch.ErrInvalid) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s:\n  error %v\n  want  %q", c.sql, err, c.want)
		}
	}
}

func TestViews(t *testing.T) {
	e, err := open(t, func(o *Options) {
		o.Views = []stream.View{{Name: "even", SQL: "SELECT * FROM clicks WHERE id % 2 = 0"}, {Name: "named", SQL: "SELECT e.*, section, now() AS made FROM even e JOIN pages ON id = n"}}
	}, "WITH x AS (SELECT id, section, made FROM named) SELECT * FROM x", "SELECT id FROM even WHERE id < 6")
	if err != nil {
		t.Fatal(err)
	}
	got, _, err := execute(t, e, 10, 1)
	if err != nil || fmt.Sprint(got["s0"]) != `[0|"section 0 v1"|"2026-01-02T03:04:05Z"| 2|"section 2 v1"|"2026-01-02T03:04:05Z"|]` || len(got["s1"]) != 3 {
		t.Fatalf("%v %v", got, err)
	}
	_, err = open(t, func(o *Options) { o.Views = []stream.View{{Name: "v", SQL: "SELECT\n count(*) AS n FROM clicks"}} }, "SELECT * FROM v")
	if err == nil || !strings.Contains(err.Error(), "view v, line 2 column 2: aggregate count") {
		t.Fatal(err)
	}
}

func BenchmarkFilter(b *testing.B) {
	e, err := open(b, nil, "SELECT id, page, t FROM clicks WHERE id % 4 <> 0")
	if err != nil {
		b.Fatal(err)
	}
	chunk := rows(0, 65536)
	defer chunk.Release()
	job := batch.Job{Plan: &batch.Plan{Versions: map[string]string{"pages": "v1"}}, Sinks: []string{"s0"}, Ranges: []batch.Range{{TopicPartition: batch.TopicPartition{Source: "clicks"}}}}
	b.ResetTimer()
	for range b.N {
		_, err := e.Execute(context.Background(), job, func(emit, _ func(arrow.RecordBatch) error) error { return emit(chunk) }, func(string, arrow.RecordBatch) error { return nil })
		if err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.N)*65536/b.Elapsed().Seconds(), "rows/s")
}
