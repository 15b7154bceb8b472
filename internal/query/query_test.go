package query

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/apache/iceberg-go"
	"github.com/apache/iceberg-go/catalog"
	"github.com/apache/iceberg-go/table"

	"github.com/frazil-io/frazil/internal/batch"
	"github.com/frazil-io/frazil/internal/lake"
)

var seedFlag = flag.Uint64("seed", 0, "seed of random tests; 0: another one each time")

// world is an embedded catalog, and an engine over its tables.
type world struct {
	t       *testing.T
	catalog *lake.Catalog
	engine  *Engine
	log     *strings.Builder
}

func newWorld(t *testing.T, names ...string) *world {
	t.Helper()
	dir := t.TempDir()
	c, err := lake.Open(t.Context(), lake.Options{Name: "lake", Type: "sql", URI: dir + "/c.db", Warehouse: dir + "/wh"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	if err := c.CreateNamespace(t.Context(), table.Identifier{"w"}, nil); err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, catalog: c, log: &strings.Builder{}}
	var tables []Table
	for _, n := range names {
		tables = append(tables, Table{Alias: "my_" + n, Ident: table.Identifier{"w", n}, Branch: "main", Catalog: c})
	}
	log := slog.New(slog.NewTextHandler(w.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	if w.engine, err = Open(t.Context(), tables, Options{Cache: dir + "/cache", Log: log}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.engine.Close)
	return w
}

func (w *world) create(name string, schema *iceberg.Schema, fields ...iceberg.PartitionField) *table.Table {
	w.t.Helper()
	spec := iceberg.NewPartitionSpec(fields...)
	tbl, err := w.catalog.CreateTable(w.t.Context(), table.Identifier{"w", name}, schema, catalog.WithPartitionSpec(&spec))
	if err != nil {
		w.t.Fatal(err)
	}
	return tbl
}

func (w *world) load(name string) *table.Table {
	w.t.Helper()
	tbl, err := w.catalog.Load(w.t.Context(), table.Identifier{"w", name})
	if err != nil {
		w.t.Fatal(err)
	}
	return tbl
}

// insert appends rows, given as JSON, in one commit.
func (w *world) insert(name, rows string) {
	w.t.Helper()
	tbl := w.load(name)
	schema, err := table.SchemaToArrowSchema(tbl.Schema(), nil, true, false)
	if err != nil {
		w.t.Fatal(err)
	}
	rec, _, err := array.RecordFromJSON(memory.DefaultAllocator, schema, strings.NewReader(rows))
	if err != nil {
		w.t.Fatal(err)
	}
	defer rec.Release()
	reader, err := array.NewRecordReader(schema, []arrow.RecordBatch{rec})
	if err != nil {
		w.t.Fatal(err)
	}
	defer reader.Release()
	if _, err := tbl.Append(w.t.Context(), reader, nil); err != nil {
		w.t.Fatal(err)
	}
}

// run returns the rows as text.
func (w *world) run(text string) ([]string, error) {
	var out []string
	err := w.engine.Query(w.t.Context(), text, func(*arrow.Schema) error { return nil }, func(r arrow.RecordBatch) error {
		for i := range int(r.NumRows()) {
			var cells []string
			for c := range int(r.NumCols()) {
				cells = append(cells, strings.Clone(r.Column(c).ValueStr(i)))
			}
			out = append(out, strings.Join(cells, "|"))
		}
		return nil
	})
	return out, err
}

func (w *world) want(text string, rows ...string) {
	w.t.Helper()
	got, err := w.run(text)
	if err != nil {
		w.t.Fatalf("%s: %v", text, err)
	}
	if !slices.Equal(got, rows) {
		w.t.Errorf("%s\n got %q\nwant %q", text, got, rows)
	}
}

// files is how many files the last query read, of how many.
func (w *world) files() string {
	lines := strings.Split(strings.TrimSpace(w.log.String()), "\n")
	last := lines[len(lines)-1]
	var files, all int
	if _, err := fmt.Sscanf(last[strings.Index(last, "files="):], "files=%d files_in_table=%d", &files, &all); err != nil {
		w.t.Fatalf("%q: %v", last, err)
	}
	return fmt.Sprintf("%d of %d", files, all)
}

func field(id int, name string, t iceberg.Type) iceberg.NestedField {
	return iceberg.NestedField{ID: id, Name: name, Type: t}
}

var events = iceberg.NewSchema(0, field(1, "id", iceberg.PrimitiveTypes.Int64), field(2, "Kind", iceberg.PrimitiveTypes.String),
	field(3, "seen", iceberg.PrimitiveTypes.TimestampTz), field(4, "price", iceberg.DecimalTypeOf(9, 2)), field(5, "score", iceberg.PrimitiveTypes.Float64),
	field(6, "dot.ted", iceberg.PrimitiveTypes.Int32))

func (w *world) threeDays(fields ...iceberg.PartitionField) {
	w.create("events", events, fields...)
	for day := 1; day <= 3; day++ {
		w.insert("events", fmt.Sprintf(`[{"id":%d,"Kind":"a","seen":"2026-01-0%dT01:00:00Z","price":"1.50","score":1,"dot.ted":%d},
			{"id":%d,"Kind":null,"seen":"2026-01-0%dT23:00:00Z","price":"-2.25","score":"NaN","dot.ted":null}]`, 10*day, day, day, 10*day+1, day))
	}
}

// TestFilesAreDropped: a filter on a partition or on statistics keeps files from
// being read, through views, joins, subqueries and functions; what is not
// understood reads all.
func TestFilesAreDropped(t *testing.T) {
	w := newWorld(t, "events")
	w.threeDays()
	for _, c := range []struct{ sql, files, rows string }{
		{"SELECT id FROM w.events WHERE seen >= '2026-01-03' ORDER BY 1", "1 of 3", "30,31"},
		{"SELECT id FROM my_events WHERE seen < '2026-01-02' ORDER BY 1", "1 of 3", "10,11"},
		{"SELECT id FROM my_events WHERE date_trunc('day', seen) = '2026-01-02' ORDER BY 1", "1 of 3", "20,21"},
		{"SELECT id FROM my_events WHERE id = 20", "1 of 3", "20"},
		{"SELECT id FROM my_events WHERE 20 = id", "1 of 3", "20"},
		{"SELECT id FROM my_events WHERE id IN (10, 30) ORDER BY 1", "2 of 3", "10,30"},
		{"SELECT id FROM my_events WHERE id = 10 OR id > 30 ORDER BY 1", "2 of 3", "10,31"},
		{"SELECT id FROM my_events WHERE id BETWEEN 11 AND 20 ORDER BY 1", "2 of 3", "11,20"},
		{"SELECT id FROM my_events WHERE id > 9007199254740993", "0 of 3", ""},
		{"SELECT id FROM my_events WHERE kind = 'b'", "0 of 3", ""},
		{"SELECT id FROM my_events WHERE kind LIKE 'b%'", "0 of 3", ""},
		{"SELECT count(*) FROM my_events WHERE kind IS NULL", "3 of 3", "3"},
		{"WITH x AS (SELECT * FROM my_events) SELECT id FROM x WHERE id < 11", "1 of 3", "10"},
		{"SELECT a.id FROM my_events a JOIN my_events b USING (id) WHERE a.id = 10", "1 of 3", "10"},
		{"SELECT a.id FROM my_events a LEFT JOIN my_events b ON a.id = b.id AND b.id = 10 ORDER BY 1", "3 of 3", "10,11,20,21,30,31"},
		{"SELECT id FROM my_events WHERE id = 10 UNION ALL SELECT id FROM my_events WHERE id = 31", "2 of 3", "10,31"},
		{"SELECT id FROM my_events WHERE NOT id > 11 ORDER BY 1", "1 of 3", "10,11"},
		{"SELECT id FROM my_events WHERE abs(id) = 20", "3 of 3", "20"},
		{"SELECT id FROM my_events WHERE score > 5 ORDER BY 1", "3 of 3", "11,21,31"}, // NaN is above all, and in no statistics
		{`SELECT id FROM my_events WHERE "dot.ted" = 2`, "1 of 3", "20"},
		{"SELECT count(*) FROM my_events WHERE false", "", "0"},
		{"SELECT count(*) FROM my_events", "3 of 3", "6"},
		{"SELECT sum(price) FROM my_events WHERE price < 0", "3 of 3", "-6.75"},
		{"SELECT (SELECT max(id) FROM my_events WHERE id < 11)", "1 of 3", "10"},
		{"SELECT max(id) FROM my_events HAVING max(id) > 20", "3 of 3", "31"},
	} {
		w.log.Reset()
		got, err := w.run(c.sql)
		if err != nil {
			t.Errorf("%s: %v", c.sql, err)
			continue
		}
		if strings.Join(got, ",") != c.rows {
			t.Errorf("%s: got %v, want %s", c.sql, got, c.rows)
		}
		if c.files == "" {
			if w.log.Len() > 0 {
				t.Errorf("%s: files were looked for: %s", c.sql, w.log)
			}
		} else if got := w.files(); got != c.files {
			t.Errorf("%s: read %s files, want %s", c.sql, got, c.files)
		}
	}
}

// TestDroppingFilesNeverDropsRows compares random filters with the same filters
// over a copy of the rows that has no files.
func TestDroppingFilesNeverDropsRows(t *testing.T) {
	seed := *seedFlag
	if seed == 0 {
		seed = uint64(time.Now().UnixNano())
	}
	t.Logf("seed %d: go test ./internal/query -run %s -seed %d", seed, t.Name(), seed)
	r := rand.New(rand.NewPCG(seed, 0))
	for _, fields := range [][]iceberg.PartitionField{
		nil,
		{{SourceIDs: []int{3}, FieldID: 1000, Name: "z_day", Transform: iceberg.DayTransform{}}},
		{{SourceIDs: []int{1}, FieldID: 1000, Name: "b", Transform: iceberg.BucketTransform{NumBuckets: 4}}},
		{{SourceIDs: []int{2}, FieldID: 1000, Name: "p", Transform: iceberg.TruncateTransform{Width: 3}}, {SourceIDs: []int{5}, FieldID: 1001, Name: "m", Transform: iceberg.MonthTransform{}}},
		{{SourceIDs: []int{4}, FieldID: 1000, Name: "same", Transform: iceberg.IdentityTransform{}}},
	} {
		w := newWorld(t, "t")
		w.create("t", iceberg.NewSchema(0, field(1, "i", iceberg.PrimitiveTypes.Int32), field(2, "s", iceberg.PrimitiveTypes.String),
			field(3, "z", iceberg.PrimitiveTypes.TimestampTz), field(4, "d", iceberg.PrimitiveTypes.Date), field(5, "n", iceberg.PrimitiveTypes.Timestamp),
			field(6, "f", iceberg.PrimitiveTypes.Float64), field(7, "l", iceberg.PrimitiveTypes.Int64)), fields...)
		for range 5 {
			var rows []string
			for range 1 + r.IntN(6) {
				rows = append(rows, fmt.Sprintf(`{"i":%s,"s":%s,"z":%s,"d":%s,"n":%s,"f":%s,"l":%s}`, randomInt(r), randomText(r, `"`),
					randomTime(r, `"2006-01-02T15:04:05.000Z"`), randomTime(r, `"2006-01-02"`), randomTime(r, `"2006-01-02T15:04:05.000"`), randomFloat(r), randomInt(r)))
			}
			w.insert("t", "["+strings.Join(rows, ",")+"]")
		}
		all := "SELECT i, s, z, d, n, f, l FROM w.t ORDER BY ALL"
		ctx := t.Context()
		if _, err := w.run(all); err != nil {
			t.Fatal(err)
		}
		// A copy without files: the whole table as the engine reads it unfiltered.
		if err := w.copyTo(ctx, "copy"); err != nil {
			t.Fatal(err)
		}
		dropped := 0
		for range 40 {
			where := randomFilter(r, 3)
			w.log.Reset()
			got, err := w.run("SELECT i, s, z, d, n, f, l FROM w.t WHERE " + where + " ORDER BY ALL")
			if err != nil {
				t.Fatalf("%s: %v", where, err)
			}
			want, err := w.run("SELECT i, s, z, d, n, f, l FROM copy WHERE " + where + " ORDER BY ALL")
			if err != nil {
				t.Fatalf("%s: %v", where, err)
			}
			if !slices.Equal(got, want) {
				t.Fatalf("WHERE %s\n got %d %q\nwant %d %q", where, len(got), got, len(want), want)
			}
			if log := w.log.String(); strings.Contains(log, "files=") && !strings.Contains(log, "files=5 ") {
				dropped++
			}
		}
		if dropped == 0 {
			t.Error("no filter dropped any file")
		}
	}
}

func (w *world) copyTo(ctx context.Context, name string) error {
	loaded, _, err := w.engine.load(ctx)
	if err != nil {
		return err
	}
	from, err := w.engine.relation(ctx, loaded[0], []mayMatch{always})
	if err != nil {
		return err
	}
	return w.engine.exec(ctx, "CREATE TABLE "+name+" AS "+from)
}

func randomInt(r *rand.Rand) string {
	if r.IntN(6) == 0 {
		return "null"
	}
	return fmt.Sprint(r.IntN(20) - 10)
}

func randomFloat(r *rand.Rand) string {
	return []string{"null", `"NaN"`, "1.5", "-2", "0", "1000"}[r.IntN(6)]
}

func randomText(r *rand.Rand, quote string) string {
	if r.IntN(6) == 0 && quote == `"` {
		return "null"
	}
	s := []string{"", "a", "ab", "abc", "abcdefghijklmnopqrstuvwxyz", "abcdefghijklmnopqrstuvwxyzz", "Ä", "日本語日本語日本語日本語日本語日本語", "zz", "it''s"}[r.IntN(10)]
	if quote == `"` {
		s = strings.ReplaceAll(s, "''", "'")
	}
	return quote + s + quote
}

func randomTime(r *rand.Rand, layout string) string {
	if r.IntN(6) == 0 && layout[0] == '"' {
		return "null"
	}
	return time.Date(1969, 12, 30, 0, 0, 0, 0, time.UTC).Add(time.Duration(r.IntN(8*24*3600*4)) * 250 * time.Millisecond).Format(layout)
}

func randomFilter(r *rand.Rand, depth int) string {
	if depth > 0 && r.IntN(3) > 0 {
		a, b := randomFilter(r, depth-1), randomFilter(r, depth-1)
		return []string{"(" + a + " AND " + b + ")", "(" + a + " OR " + b + ")", "NOT (" + a + ")"}[r.IntN(3)]
	}
	op := []string{"=", "<", "<=", ">", ">=", "<>", "IS DISTINCT FROM"}[r.IntN(7)]
	switch r.IntN(10) {
	case 0:
		return []string{"i", "s", "z", "d", "n", "f", "l"}[r.IntN(7)] + []string{" IS NULL", " IS NOT NULL"}[r.IntN(2)]
	case 1:
		return "s " + op + " " + randomText(r, "'")
	case 2:
		return "z " + op + " " + randomTime(r, "'2006-01-02 15:04:05.000+00'")
	case 3:
		return "d " + op + " " + randomTime(r, "'2006-01-02'")
	case 4:
		return "n " + op + " " + randomTime(r, "'2006-01-02 15:04:05.000'")
	case 5:
		return "f " + op + " " + []string{"1.5", "'NaN'::DOUBLE", "-2", "0"}[r.IntN(4)]
	case 6:
		return fmt.Sprintf("l IN (%d, %d, %d)", r.IntN(20)-10, r.IntN(20)-10, r.IntN(20)-10)
	case 7:
		return "s LIKE " + []string{"'a%'", "'abcdefghijklmnopqrstuvwxyz%'", "'%c'", "'日%'", "'_b%'"}[r.IntN(5)]
	case 8:
		return fmt.Sprintf("date_trunc('%s', z) %s '1970-01-01'", []string{"day", "month", "hour"}[r.IntN(3)], op)
	}
	return fmt.Sprintf("%s %s %d", []string{"i", "l"}[r.IntN(2)], op, r.IntN(20)-10)
}

// TestNaN: it is above every number to DuckDB, and in no statistics, also where it
// is a member.
func TestNaN(t *testing.T) {
	w := newWorld(t, "t")
	w.create("t", iceberg.NewSchema(0, field(1, "i", iceberg.PrimitiveTypes.Int32), field(2, "f", iceberg.PrimitiveTypes.Float32), field(3, "d", iceberg.PrimitiveTypes.Float64),
		field(4, "s", &iceberg.StructType{FieldList: []iceberg.NestedField{field(5, "x", iceberg.PrimitiveTypes.Float64)}})))
	w.insert("t", `[{"i":1,"f":-5,"d":-5,"s":{"x":-5}},{"i":2,"f":"NaN","d":"NaN","s":{"x":"NaN"}},{"i":3,"f":null,"d":null,"s":null}]`)
	for _, column := range []string{"f", "d", "s.x"} {
		w.want("SELECT i FROM my_t WHERE "+column+" > 3", "2")
		w.want("SELECT i FROM my_t WHERE "+column+" = 'NaN'", "2")
		w.want("SELECT i FROM my_t WHERE "+column+" < 3", "1")
		w.want("SELECT i FROM my_t WHERE "+column+" IS NULL", "3")
		w.want("SELECT i FROM my_t WHERE "+column+" <> -5", "2")
	}
}

// TestDistinctFrom: DuckDB's reader skips a file that is all NULL, wrongly.
func TestDistinctFrom(t *testing.T) {
	w := newWorld(t, "t")
	w.create("t", iceberg.NewSchema(0, field(1, "i", iceberg.PrimitiveTypes.Int32), field(2, "d", iceberg.PrimitiveTypes.Date)))
	w.insert("t", `[{"i":1,"d":null}]`)
	w.insert("t", `[{"i":2,"d":"1970-01-02"},{"i":3,"d":null}]`)
	w.want("SELECT i FROM my_t WHERE d <> '1970-01-05' OR d IS DISTINCT FROM '1969-12-31' ORDER BY 1", "1", "2", "3")
	w.want("SELECT i FROM my_t WHERE d = '1970-01-02'", "2") // the next query is planned as ever
	if got := w.files(); got != "1 of 2" {
		t.Error(got)
	}
}

// TestSchemaEvolution: columns are found by field id, whatever their files called
// them.
func TestSchemaEvolution(t *testing.T) {
	w := newWorld(t, "t")
	w.create("t", iceberg.NewSchema(0, field(1, "a", iceberg.PrimitiveTypes.Int32), field(2, "b", iceberg.PrimitiveTypes.String)))
	w.insert("t", `[{"a":1,"b":"one"}]`)
	tx := w.load("t").NewTransaction()
	err := tx.UpdateSchema(true, false).RenameColumn([]string{"b"}, "c").
		UpdateColumn([]string{"a"}, table.ColumnUpdate{FieldType: iceberg.Optional[iceberg.Type]{Val: iceberg.PrimitiveTypes.Int64, Valid: true}}).
		AddColumn([]string{"b"}, iceberg.PrimitiveTypes.String, "", false, nil).Commit()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.insert("t", `[{"a":2,"c":"two","b":"new"}]`)
	w.want("SELECT a, c, b FROM my_t ORDER BY a", "1|one|(null)", "2|two|new")
	w.want("SELECT a FROM my_t WHERE b IS NULL", "1")
	w.want("SELECT a FROM my_t WHERE c = 'one'", "1")
	w.want("SELECT a FROM my_t WHERE b = 'one'")
}

// TestRenamedMembersAreRefused: DuckDB finds members of a STRUCT by name.
func TestRenamedMembersAreRefused(t *testing.T) {
	old := iceberg.NewSchema(0, field(1, "s", &iceberg.StructType{FieldList: []iceberg.NestedField{field(2, "x", iceberg.PrimitiveTypes.Int32)}}))
	renamed := iceberg.NewSchema(1, field(1, "s", &iceberg.StructType{FieldList: []iceberg.NestedField{field(2, "y", iceberg.PrimitiveTypes.Int32)}}))
	replaced := iceberg.NewSchema(1, field(1, "s", &iceberg.StructType{FieldList: []iceberg.NestedField{field(3, "x", iceberg.PrimitiveTypes.Int32)}}))
	added := iceberg.NewSchema(1, field(1, "t", &iceberg.StructType{FieldList: []iceberg.NestedField{field(2, "x", iceberg.PrimitiveTypes.Int32), field(3, "y", iceberg.PrimitiveTypes.Int32)}}))
	for name, c := range map[string]struct {
		now     *iceberg.Schema
		refused bool
	}{"renamed": {renamed, true}, "replaced": {replaced, true}, "added": {added, false}, "same": {old, false}} {
		err := sameNames([]*iceberg.Schema{old, c.now})
		if errors.Is(err, batch.ErrInvalid) != c.refused || (err != nil) != c.refused {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestPathsAreNoPatterns: a value of a partition may look like one, or like
// another column's.
func TestPathsAreNoPatterns(t *testing.T) {
	w := newWorld(t, "t")
	w.create("t", iceberg.NewSchema(0, field(1, "k", iceberg.PrimitiveTypes.String), field(2, "v", iceberg.PrimitiveTypes.Int32)),
		iceberg.PartitionField{SourceIDs: []int{1}, FieldID: 1000, Name: "k", Transform: iceberg.IdentityTransform{}})
	for i, k := range []string{"[ab]", "*", "a?b", "'; DROP", "2026-01-01", "a", "b"} {
		w.insert("t", fmt.Sprintf(`[{"k":%q,"v":%d}]`, k, i))
	}
	w.want("SELECT v, k FROM w.t ORDER BY v", "0|[ab]", "1|*", "2|a?b", "3|'; DROP", "4|2026-01-01", "5|a", "6|b")
	w.want("SELECT v FROM w.t WHERE k = '[ab]'", "0")
	dir := t.TempDir()
	names := []string{"a[1].parquet", "a1.parquet", "x*?.parquet", "x12.parquet"}
	for _, name := range names {
		if err := w.engine.exec(t.Context(), "COPY (SELECT "+literal(name)+" AS n) TO "+literal(filepath.Join(dir, name))); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range names {
		got, err := w.run("SELECT n FROM read_parquet(" + literal(exactPath(filepath.Join(dir, name))) + ")")
		if err != nil || !slices.Equal(got, []string{name}) {
			t.Errorf("%s: %v %v", name, got, err)
		}
	}
}

// TestOnlyLooks: query changes nothing, and says so.
func TestOnlyLooks(t *testing.T) {
	w := newWorld(t, "events", "missing")
	w.threeDays()
	out := filepath.Join(t.TempDir(), "out.csv")
	for _, sql := range []string{
		"INSERT INTO my_events VALUES (1)", "DELETE FROM my_events", "DROP VIEW my_events", "CREATE TABLE x AS SELECT 1", "COPY (SELECT 1) TO " + literal(out),
		"SET threads=1", "ATTACH ':memory:' AS x", "PRAGMA enable_profiling", "INSTALL httpfs", "SELECT 1; SELECT 2", "", "EXPLAIN SELECT 1", "EXPLAIN ANALYZE SELECT 1", "SELEC 1",
		"SELECT * FROM nosuch", "SELECT nosuch FROM my_events", "SELECT * FROM my_missing", "SELECT * FROM w.missing", "COMMIT", "BEGIN",
	} {
		_, err := w.run(sql)
		if !errors.Is(err, batch.ErrInvalid) {
			t.Errorf("%q: %v", sql, err)
		} else if strings.Contains(err.Error(), "FORMAT JSON") || strings.Contains(err.Error(), "frazil_table") {
			t.Errorf("%q: our own words are told: %v", sql, err)
		}
		if strings.Contains(sql, "missing") && !strings.Contains(err.Error(), "does not exist yet; run the pipeline first") {
			t.Errorf("%q: %v", sql, err)
		}
	}
	if _, err := os.Stat(out); err == nil {
		t.Error("a file was written")
	}
	w.want("SELECT count(*) FROM my_events", "6")
}

// TestUnknownTable: who misspells a table is told of those that there are, and not
// of DuckDB's own.
func TestUnknownTable(t *testing.T) {
	w := newWorld(t, "events", "missing")
	w.threeDays()
	for sql, want := range map[string]string{
		"SELECT * FROM indexes":     "there is no table indexes; the pipeline has my_events (w.events), my_missing (w.missing)",
		"SELECT * FROM my_event":    "there is no table my_event; did you mean my_events? the pipeline has",
		"SELECT * FROM W.Evnts":     "there is no table W.Evnts; did you mean w.events?",
		`SELECT * FROM "My Events"`: "there is no table My Events; did you mean my_events?",
		"WITH a AS (FROM my_events) SELECT * FROM a JOIN my_events USING (id), b": "there is no table b; the pipeline",
		"SELECT (SELECT max(id) FROM evnts) FROM my_events":                       "there is no table evnts; ",
		"SELECT * FROM my_events, my_missing":                                     "table w.missing does not exist yet",
		"SELECT nosuch(id) FROM my_events":                                        "nosuch",
		"SELECT nosuch FROM my_events, information_schema.tables":                 "nosuch",
	} {
		_, err := w.run(sql)
		if !errors.Is(err, batch.ErrInvalid) || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "pg_") ||
			strings.Contains(want, "nosuch") && strings.Contains(err.Error(), "there is no table") {
			t.Errorf("%q: %v", sql, err)
		}
	}
	w.want("SELECT count(*) FROM (SUMMARIZE SELECT * EXCLUDE (score) FROM my_events)", "5")
	if got, err := w.run("DESCRIBE my_events"); err != nil || len(got) != 6 {
		t.Errorf("%v %v", got, err)
	}
}

// TestNowIsOneMoment: the plan and the run see the same now().
func TestNowIsOneMoment(t *testing.T) {
	w := newWorld(t, "events")
	w.threeDays()
	w.want("SELECT count(*) FROM my_events WHERE seen <= now() AND now() = transaction_timestamp()", "6")
	if got := w.files(); got != "3 of 3" {
		t.Error(got)
	}
}

// TestErrorInTheMiddle: a failure behind the first rows is told.
func TestErrorInTheMiddle(t *testing.T) {
	w := newWorld(t)
	_, err := w.run("SELECT CASE WHEN range = 900000 THEN error('late') ELSE range END FROM range(1000000)")
	if !errors.Is(err, batch.ErrInvalid) || !strings.Contains(err.Error(), "late") {
		t.Errorf("%v", err)
	}
}

// TestStreams: rows come while DuckDB still looks for others.
func TestStreams(t *testing.T) {
	w := newWorld(t)
	enough := errors.New("enough")
	rows := int64(0)
	// This many rows would never fit, nor end.
	err := w.engine.Query(t.Context(), "SELECT range FROM range(1000000000000)", func(*arrow.Schema) error { return nil }, func(r arrow.RecordBatch) error {
		if rows += r.NumRows(); rows > 100_000 {
			return enough
		}
		return nil
	})
	if !errors.Is(err, enough) {
		t.Error(err)
	}
	w.want("SELECT 1", "1") // the engine goes on
	ctx, cancel := context.WithCancel(t.Context())
	err = w.engine.Query(ctx, "SELECT range FROM range(1000000000000)", func(*arrow.Schema) error { return nil }, func(arrow.RecordBatch) error { cancel(); return nil })
	if !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	w.want("SELECT 1", "1")
}
