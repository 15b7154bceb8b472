//go:build integration

package integration

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/frazil-io/frazil/internal/batch"
	"github.com/frazil-io/frazil/internal/cli"
	"github.com/frazil-io/frazil/internal/exec/dimension"
	"github.com/frazil-io/frazil/test/servers"
)

// database is a PostgreSQL behind a gate.
type database struct {
	*testing.T
	direct, uri string // uri leads through the gate
	gate        net.Listener
	open        atomic.Bool
}

func startDatabase(t *testing.T) *database {
	t.Helper()
	d := &database{T: t, direct: servers.StartPostgres(t)}
	u, err := url.Parse(d.direct)
	if err != nil {
		t.Fatal(err)
	}
	to := u.Host
	if d.gate, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.gate.Close() })
	u.Host = d.gate.Addr().String()
	d.uri = u.String()
	d.open.Store(true)
	go func() {
		for {
			c, err := d.gate.Accept()
			if err != nil {
				return
			}
			if !d.open.Load() {
				_ = c.Close()
				continue
			}
			s, err := net.Dial("tcp", to)
			if err != nil {
				_ = c.Close()
				continue
			}
			go func() { _, _ = io.Copy(s, c); _ = s.Close() }()
			go func() { _, _ = io.Copy(c, s); _ = c.Close() }()
		}
	}()
	return d
}

// with is the address with another password.
func (d *database) with(password string) string {
	return strings.Replace(d.uri, servers.PostgresPassword, password, 1)
}

func (d *database) exec(statements string) {
	d.Helper()
	c, err := pgconn.Connect(d.Context(), d.direct)
	if err != nil {
		d.Fatal(err)
	}
	defer c.Close(context.Background())
	if _, err := c.Exec(d.Context(), statements).ReadAll(); err != nil {
		d.Fatal(err)
	}
}

// memory is a keeper of copies.
type memory map[string][]byte

func (m memory) KeepDimension(_ context.Context, version string, data []byte) error {
	m[version] = data
	return nil
}

func (m memory) Dimension(_ context.Context, version string) ([]byte, error) {
	if data, ok := m[version]; ok {
		return data, nil
	}
	return nil, fmt.Errorf("%w: not kept", batch.ErrInvalid)
}

func (m memory) options(pinned string) dimension.Options {
	return dimension.Options{
		BytesMax: 1 << 20, Now: time.Now, Keeper: func(context.Context) (dimension.Keeper, error) { return m, nil },
		Pinned: func(context.Context) (string, error) { return pinned, nil },
	}
}

func lines(t *testing.T, d *dimension.Copied, version string) []string {
	t.Helper()
	rows, err := d.Load(t.Context(), version)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Release()
	return text(rows)
}

func text(rows arrow.RecordBatch) (all []string) {
	for i := range int(rows.NumRows()) {
		var values []string
		for c := range int(rows.NumCols()) {
			values = append(values, rows.Column(c).ValueStr(i))
		}
		all = append(all, strings.Join(values, "|"))
	}
	return all
}

const everyType = `
CREATE TYPE mood AS ENUM ('good', 'bad');
CREATE DOMAIN code AS numeric(6, 2);
CREATE TABLE every (
  a smallint, b integer, c bigint, d real, e double precision, f boolean, g text, h varchar(9), i char(3), j numeric(38, 10), k code, l bytea, m date, n time, o timestamp,
  p timestamptz, q uuid, r json, s jsonb, t integer[], u text[], v mood, w inet, x numeric(4, 2)[], y uuid[], z mood[]);
INSERT INTO every VALUES (-1, 2, 9223372036854775807, 0.1, 0.1, true, 'ä "q" \', 'x', 'y', 1234567890123456789012345678.0123456789, 12.3, '\x00ff', '0001-01-01', '23:59:59.999999',
  '2024-02-29 12:00:00.5', '2024-02-29 12:00:00.5+05:30', '01234567-89AB-cdef-0123-456789abcdef', '{"a":  1}', '{"a":  1}', '{1,NULL,3}', '{"a,b","c\"d",NULL,"NULL",""}', 'good',
  '10.0.0.1', '{1.50,NULL}', '{01234567-89ab-cdef-0123-456789abcdef}', '{bad,good}');
INSERT INTO every (a) VALUES (NULL);`

// TestPostgresTypes: each type that has a place comes through exactly; the
// others are refused with what to do.
func TestPostgresTypes(t *testing.T) {
	d := startDatabase(t)
	d.exec(everyType)
	m := memory{}
	c, err := dimension.Postgres(t.Context(), dimension.PostgresOptions{URI: d.uri, Table: "public.every"}, m.options(""))
	if err != nil {
		t.Fatal(err)
	}
	v, err := c.Version(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	want := `-1|2|9223372036854775807|0.1|0.1|true|ä "q" \|x|y  |1234567890123456789012345678.0123456789|12.3|AP8=|0001-01-01|23:59:59.999999|2024-02-29T12:00:00.5|` +
		`2024-02-29T06:30:00.5Z|01234567-89ab-cdef-0123-456789abcdef|{"a":  1}|{"a": 1}|[1,null,3]|["a,b","c\"d",null,"NULL",""]|good|10.0.0.1|["1.5",null]|` +
		`["01234567-89ab-cdef-0123-456789abcdef"]|["bad","good"]`
	nothing := strings.TrimSuffix(strings.Repeat("(null)|", len(c.Fields())), "|")
	if got := lines(t, c, v); !slices.Equal(got, []string{nothing, want}) {
		t.Errorf("%s\nwant\n%s\n%s", strings.Join(got, "\n"), nothing, want)
	}
	for query, want := range map[string]string{
		"SELECT 1::numeric AS n":                                        `column "n" of the query is of a type that frazil does not have: numeric without a precision; cast it in query`,
		"SELECT 1::numeric(50, 2) AS n":                                 "numeric(50, 2); cast it in query to at most 38 digits",
		"SELECT interval '1 day' AS n":                                  "interval; cast it in query, for instance to text",
		"SELECT point(1, 2) AS n":                                       "point; cast it in query",
		"SELECT 1 AS n, 2 AS n":                                         `column "n" twice`,
		"SELECT 'infinity'::timestamptz AS n":                           `column "n": "infinity" is not TIMESTAMPTZ; filter it, or cast the column to text`,
		"SELECT 'NaN'::numeric(5, 2) AS n":                              `"NaN" is not DECIMAL(5,2)`,
		"SELECT '{{1},{2}}'::int[] AS n":                                "arrays of several dimensions have no place in a list",
		"SELECT date '0044-03-15 BC' AS n":                              "is not DATE",
		"SELECT repeat('x', 2000000) AS n":                              "the table takes 2 MB or more, the most is 1 MB",
		"SELECT 1/0 AS n":                                               "division by zero",
		"SELECT nothing FROM every":                                     `column "nothing" does not exist`,
		"SELEC 1":                                                       "syntax error",
		"DELETE FROM every RETURNING a":                                 "syntax error", // it stands inside of a SELECT
		"SELECT pg_catalog.set_config('a.b','c', false) AS n; SELECT 2": "cannot insert multiple commands",
	} {
		c, err := dimension.Postgres(t.Context(), dimension.PostgresOptions{URI: d.uri, Query: query}, m.options(""))
		if err == nil {
			_, err = c.Version(t.Context())
		}
		if !errors.Is(err, batch.ErrInvalid) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", query, err, want)
		}
	}
}

// TestPostgresVersions: the same rows have one version, in whatever order they
// lie; a server that is away is unavailable, and its copy stands in for it.
func TestPostgresVersions(t *testing.T) {
	d := startDatabase(t)
	d.exec(`CREATE TABLE "Odd.Name" (id bigint, name text); INSERT INTO "Odd.Name" VALUES (1, 'a'), (2, 'b'), (3, NULL)`)
	m := memory{}
	open := func(password, pinned string) (*dimension.Copied, error) {
		return dimension.Postgres(t.Context(), dimension.PostgresOptions{URI: d.with(password), Query: `SELECT * FROM "Odd.Name"; `}, m.options(pinned))
	}
	c, err := open(servers.PostgresPassword, "")
	if err != nil {
		t.Fatal(err)
	}
	version := func() string {
		t.Helper()
		v, err := c.Version(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	first := version()
	d.exec(`UPDATE "Odd.Name" SET name = name WHERE id = 1`) // the row moves to the end
	if version() != first || len(m) != 1 {
		t.Error("the order of the rows makes another version")
	}
	d.exec(`ALTER TABLE "Odd.Name" ADD COLUMN more text; INSERT INTO "Odd.Name" VALUES (4, 'd', 'x')`)
	second := version()
	if got := lines(t, c, second); second == first || len(got) != 4 || got[3] != "4|d" {
		t.Errorf("%v", got)
	}
	_, err = open("wrong-password", first)
	if !errors.Is(err, batch.ErrInvalid) || !strings.Contains(err.Error(), "refused the login") || strings.Contains(err.Error(), "wrong-password") {
		t.Errorf("a wrong password: %v", err)
	}
	d.open.Store(false)
	if _, err := c.Version(t.Context()); !errors.Is(err, batch.ErrUnavailable) || strings.Contains(err.Error(), servers.PostgresPassword) {
		t.Errorf("away: %v", err)
	}
	if _, err := open(servers.PostgresPassword, ""); !errors.Is(err, batch.ErrUnavailable) {
		t.Errorf("away, and no plan: %v", err)
	}
	again, err := open(servers.PostgresPassword, first)
	if err != nil {
		t.Fatal(err)
	}
	if got := lines(t, again, first); len(got) != 3 {
		t.Errorf("the copy has %v", got)
	}
	d.open.Store(true)
	d.exec(`ALTER TABLE "Odd.Name" ALTER COLUMN id TYPE text`)
	if _, err := c.Version(t.Context()); !errors.Is(err, batch.ErrInvalid) || !strings.Contains(err.Error(), `column "id" of the query was BIGINT when the pipeline started`) {
		t.Errorf("another type: %v", err)
	}
	d.exec(`DROP TABLE "Odd.Name"`)
	if again, err = open(servers.PostgresPassword, first); err != nil {
		t.Fatalf("dropped, with a copy: %v", err)
	}
	if _, err := again.Version(t.Context()); !errors.Is(err, batch.ErrInvalid) || !strings.Contains(err.Error(), "does not exist") {
		t.Errorf("dropped: %v", err)
	}
}

// TestPostgresPipeline: a pipeline joins with a table of PostgreSQL, and sees
// what changed there in the next batch.
func TestPostgresPipeline(t *testing.T) {
	d := startDatabase(t)
	d.exec("CREATE TABLE pages (page text, section text); INSERT INTO pages VALUES ('/a', 'news')")
	kafka, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(1, "clicks"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(kafka.Close)
	dir := t.TempDir()
	t.Setenv("PG", d.uri)
	spec := filepath.Join(dir, "pipeline.yaml")
	text := fmt.Sprintf(`name: joined
trigger: {available_now: true}
checkpoint: %[1]s/checkpoints
catalogs:
  lake: {type: sql, uri: %[1]s/catalog.db, warehouse: %[1]s/warehouse}
sources:
  clicks:
    kafka: {brokers: ["%[2]s"], topics: [clicks], start: earliest}
    format: json
    columns: id BIGINT, page VARCHAR
tables:
  pages: {postgres: {uri: "${PG}", table: pages}}
sinks:
  rows:
    sql: SELECT id, section FROM clicks LEFT JOIN pages USING (page)
    iceberg: {catalog: lake, table: web.rows}
`, dir, kafka.ListenAddrs()[0])
	if err := os.WriteFile(spec, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	run := func(args ...string) string {
		t.Helper()
		var out, errs bytes.Buffer
		if code := cli.Main(args, &out, &errs); code != 0 || strings.Contains(out.String()+errs.String(), servers.PostgresPassword) {
			t.Fatalf("%v: exit code %d\n%s%s", args, code, out.String(), errs.String())
		}
		return out.String()
	}
	client, err := kgo.NewClient(kgo.SeedBrokers(kafka.ListenAddrs()...), kgo.DefaultProduceTopic("clicks"))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	for i, change := range []string{"", "UPDATE pages SET section = 'sport'"} {
		if change != "" {
			d.exec(change)
		}
		if err := client.ProduceSync(t.Context(), &kgo.Record{Value: []byte(fmt.Sprintf(`{"id": %d, "page": "/a"}`, i))}).FirstErr(); err != nil {
			t.Fatal(err)
		}
		run("validate", spec)
		run("explain", spec)
		run("run", spec)
	}
	if got, want := run("query", spec, "SELECT id, section FROM web.rows ORDER BY id", "--output", "csv"), "id,section\n0,news\n1,sport\n"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	copies, err := filepath.Glob(filepath.Join(dir, "checkpoints", "joined", "dims", "*"))
	if err != nil || len(copies) != 2 {
		t.Errorf("copies: %v %v", copies, err)
	}
}
