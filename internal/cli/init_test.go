package cli

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
)

// frazil runs a command line and returns its exit code and output.
func frazil(args ...string) (code int, out, errOut string) {
	var o, e bytes.Buffer
	code = Main(args, &o, &e)
	return code, o.String(), e.String()
}

func mustRun(t *testing.T, args ...string) string {
	t.Helper()
	code, out, errOut := frazil(args...)
	if code != exitDone {
		t.Fatalf("frazil %s: exit code %d\n%s", strings.Join(args, " "), code, errOut)
	}
	return out
}

// cluster is an embedded Kafka with a topic that holds these values; nil is a
// tombstone.
func cluster(t *testing.T, topic string, values ...[]byte) string {
	t.Helper()
	c, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(2, topic))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	produce(t, c.ListenAddrs()[0], topic, values...)
	return c.ListenAddrs()[0]
}

func produce(t *testing.T, broker, topic string, values ...[]byte) {
	t.Helper()
	client, err := kgo.NewClient(kgo.SeedBrokers(broker), kgo.DefaultProduceTopic(topic))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	for _, v := range values {
		if err := client.ProduceSync(context.Background(), &kgo.Record{Value: v}).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
}

func texts(lines ...string) [][]byte {
	all := make([][]byte, len(lines))
	for i, l := range lines {
		all[i] = []byte(l)
	}
	return all
}

// TestInitWritesSpecsThatRun: whatever a topic holds, the spec that init writes
// validates, previews and runs, and no record is lost.
func TestInitWritesSpecsThatRun(t *testing.T) {
	wide := func() string {
		var b strings.Builder
		for i := range 300 {
			fmt.Fprintf(&b, `"column_%d":%d,`, i, i)
		}
		return "{" + b.String() + `"last":true}`
	}
	counts := func() string {
		var b strings.Builder
		for i := range 150 {
			fmt.Fprintf(&b, `"user%d":%d,`, i, i)
		}
		return `{"counts":{` + strings.TrimSuffix(b.String(), ",") + `}}`
	}
	for name, c := range map[string]struct {
		topic  string
		values [][]byte
		spec   []string // that the spec has
		query  string
		want   string
	}{
		"flat": {
			values: texts(`{"id":1,"name":"a","ok":true,"x":1.5}`, `{"id":2,"name":null}`),
			spec:   []string{"id BIGINT", "name VARCHAR", "ok BOOLEAN", "x DOUBLE"}, query: "SELECT id, name, ok, x FROM %s ORDER BY id", want: "1,a,true,1.5\n2,,,\n",
		},
		"nested": {
			values: texts(`{"a":{"b":{"c":[1,2,{}]}},"l":[[1],[2,3]],"s":[{"x":1},{"y":"z"}]}`, `{"a":{"b":{"c":null}},"l":[],"s":[]}`),
			spec:   []string{"l BIGINT[][]", "s STRUCT(x BIGINT, y VARCHAR)[]", "unknown_fields: column"}, query: "SELECT l, s FROM %s ORDER BY len(l)",
			want: `[],[]` + "\n" + `"[[1],[2,3]]","[{""x"":1,""y"":null},{""x"":null,""y"":""z""}]"` + "\n",
		},
		"mixed types": {
			values: texts(`{"v":1,"w":1}`, `{"v":"x","w":1.5}`, `{"v":{"y":1},"w":2}`),
			spec:   []string{"w DOUBLE", "their values' types or their names: v"}, query: "SELECT w, _unknown FROM %s ORDER BY w", want: `1,"{""v"":1}"` + "\n" + `1.5,"{""v"":""x""}"` + "\n" + `2,"{""v"":{""y"":1}}"` + "\n",
		},
		"large numbers": {
			values: texts(`{"big":9223372036854775808,"huge":1e400,"long":123456789012345678901234567890123456789012,"d":1e300,"neg":-9223372036854775808}`, `{"big":1}`),
			spec:   []string{"big DECIMAL(38,0)", "d DOUBLE", "neg BIGINT", "long DOUBLE"}, query: "SELECT big FROM %s ORDER BY big", want: "1\n9223372036854775808\n",
		},
		"times": {
			values: texts(`{"at":"2026-01-02T03:04:05.678Z","zone":"2026-01-02T03:04:05+02:00","day":"2026-01-02","ms":1767323045000,"s":1767323045,"naive":"2026-01-02T03:04:05","odd":"2026-01-02T03:04:05Z"}`,
				`{"at":"2026-01-02T03:04:06Z","odd":"never"}`),
			spec:  []string{`"at" TIMESTAMPTZ`, "zone TIMESTAMPTZ", "day DATE", "ms BIGINT", "s BIGINT", "naive VARCHAR", "odd VARCHAR", "# ms looks like milliseconds since 1970: make_timestamptz(ms * 1000)", "# s looks like seconds"},
			query: "SELECT \"at\", zone, day FROM %s ORDER BY \"at\"", want: "2026-01-02T03:04:05.678Z,2026-01-02T01:04:05Z,2026-01-02\n2026-01-02T03:04:06Z,,\n",
		},
		"nulls": {
			values: texts(`{"n":null,"a":[null],"o":{},"e":[]}`, `{"n":null,"i":1}`),
			spec:   []string{"n VARCHAR", "n was null each time", "i BIGINT"}, query: "SELECT count(*) FROM %s WHERE n IS NULL", want: "2\n",
		},
		"keys": {
			values: texts(`{"a.b":1,"with space":2,"Id":3,"ID":4,"select":5,"from":6,"äöü":7,"qu\"ote":8,"":9,"${HOME}":10,"__own":11,"_unknown":12,"tab\tbed":13,"a":{"b":1,"B":2},"c":{"d":1},"c.d":2,"back\\slash":14,"it's":15,"a,b":16,"# c":17,"x: y":18,"日本":19, " pad ":20}`),
			spec:   []string{`"with space" BIGINT`, "ID BIGINT", `"select" BIGINT`, `"from" BIGINT`, `"qu""ote" BIGINT`, `"$${HOME}" BIGINT`}, query: `SELECT a_b, with_space, id, "select", "from", "äöü", qu_ote, HOME, it_s, c_, x_y, "日本" FROM %s`, want: "16,2,4,5,6,7,8,10,15,17,18,19\n",
		},
		"names of Iceberg's engines": {
			values: texts(`{"_file":1,"_POS":2,"_deleted":true,"file":3,"deep":{"_row_id":4}}`), spec: []string{"_file BIGINT"},
			query: "SELECT file, file_, pos, deleted, deep._row_id FROM %s", want: "3,1,2,true,4\n",
		},
		"change events": {
			values: append(texts(`{"before":null,"after":{"id":1,"name":"a"},"source":{"ts_ms":1700000000123},"op":"c"}`, `{"before":{"id":2,"name":null,"gone":true},"after":null,"source":{"ts_ms":1700000000124},"op":"d"}`,
				`{"schema":{"type":"struct"},"payload":{"after":{"id":3,"_op":"x","a b":1},"source":{"ts_ms":1700000000125},"op":"r"}}`), nil),
			spec:  []string{"envelope: debezium", "id BIGINT", "gone BOOLEAN", "tombstones: drop", "their names: _op"},
			query: "SELECT id, name, gone, a_b, _unknown, _op, _source_ts FROM %s ORDER BY id", want: "1,a,,,,c,2023-11-14T22:13:20.123Z\n2,,true,,,d,2023-11-14T22:13:20.124Z\n" + `3,,,1,"{""_op"":""x""}",r,2023-11-14T22:13:20.125Z` + "\n",
		},
		"change events are the exception": {
			values: texts(`{"op":"c","source":"x","after":{"id":1}}`, `{"id":1}`),
			spec:   []string{"after STRUCT(id BIGINT)"}, query: "SELECT count(*) FROM %s", want: "2\n",
		},
		"reserved topic":  {topic: "order", values: texts(`{"id":1}`), query: "SELECT id FROM order_rows", want: "1\n"},
		"topic of digits": {topic: "2026.clicks_V2", values: texts(`{"id":1}`), spec: []string{"t_2026_clicks_v2", "2026-clicks-v2"}, query: "SELECT id FROM raw.t_2026_clicks_v2", want: "1\n"},
		"topic of dots":   {topic: "_._", values: texts(`{"id":1}`), query: "SELECT id FROM topic_rows", want: "1\n"},
		"topic that YAML would take for a number": {topic: "1e3", values: texts(`{"id":1}`), spec: []string{`topics: ["1e3"]`}, query: "SELECT count(*) FROM raw.t_1e3", want: "1\n"},
		"long topic":      {topic: strings.Repeat("very-long.", 20), values: texts(`{"id":1}`)},
		"a registry's":    {values: texts("\x00\x00\x00\x00\x07a", "\x00\x00\x00\x00\x08b", "x"), spec: []string{"# 2 of 3 begin with a zero byte", "(7 in the first one)", "format: raw"}, query: "SELECT count(*) FROM %s", want: "3\n"},
		"compressed":      {values: texts("\x1f\x8b34567890", "\x1f\x8b34567890"), spec: []string{"# 2 of 2 are compressed with gzip: write options: {encoding: gzip}"}, query: "SELECT count(*) FROM %s", want: "2\n"},
		"no JSON":         {values: texts("hello", "a,b,c", "\xff\x00"), spec: []string{"format: raw", "metadata: true"}, query: "SELECT count(*), count(value) FROM %s", want: "3,3\n"},
		"no objects":      {values: texts(`[1,2]`, `"x"`, `1`, `null`), spec: []string{"format: raw"}, query: "SELECT count(*) FROM %s", want: "4\n"},
		"tombstones only": {values: [][]byte{nil, nil}, spec: []string{"format: raw"}},
		"some tombstones": {values: append(texts(`{"id":1}`), nil), spec: []string{"tombstones: drop", "1 of the sampled records have no value"}, query: "SELECT count(*) FROM %s", want: "1\n"},
		"some bad ones":   {values: texts(`{"id":1}`, `{"id":2}`, `{"id":3`, "{\"id\":4,\"t\":\"\xff\"}", `{"id":5,"id":6}`, `{"id":7}{"id":8}`, `{"id":9}`), spec: []string{"on_bad_record: skip", "cannot be decoded"}, query: "SELECT min(id), max(id) FROM %s", want: "1,9\n"},
		"wide":            {values: texts(wide()), spec: []string{"column_299 BIGINT", "last BOOLEAN"}, query: "SELECT column_299, last FROM %s", want: "299,true\n"},
		"keys are data":   {values: texts(counts()), spec: []string{"counts MAP(VARCHAR, BIGINT)"}, query: "SELECT counts['user149'] FROM %s", want: "149\n"},
		"deep":            {values: texts(strings.Repeat(`{"a":`, 40) + "1" + strings.Repeat("}", 40))},
		"empty objects":   {values: texts(`{}`, `{}`), spec: []string{"format: raw"}, query: "SELECT count(*) FROM %s", want: "2\n"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Chdir(t.TempDir())
			topic := c.topic
			if topic == "" {
				topic = "clicks"
			}
			broker := cluster(t, topic, c.values...)
			mustRun(t, "init", "--brokers", broker, "--topic", topic, "--file", "spec.yaml")
			text, err := os.ReadFile("spec.yaml")
			if err != nil {
				t.Fatal(err)
			}
			for _, part := range c.spec {
				if !strings.Contains(string(text), part) {
					t.Errorf("the spec has no %q:\n%s", part, text)
				}
			}
			mustRun(t, "validate", "--connect", "spec.yaml")
			mustRun(t, "preview", "spec.yaml")
			if entries, err := os.ReadDir("."); err != nil || len(entries) != 1 {
				t.Errorf("looking left something behind: %v %v", entries, err)
			}
			mustRun(t, "run", "--available-now", "spec.yaml")
			if c.query != "" {
				sql := c.query
				if strings.Contains(sql, "%s") {
					sql = fmt.Sprintf(sql, "clicks_rows")
				}
				out := mustRun(t, "query", "spec.yaml", sql, "--output", "csv")
				_, rows, _ := strings.Cut(out, "\n")
				if rows != c.want {
					t.Errorf("%s\n got %q\nwant %q\n%s", sql, rows, c.want, text)
				}
			}
		})
	}
}

// TestInitRefuses: a topic without anything, and a file that is there.
func TestInitRefuses(t *testing.T) {
	t.Chdir(t.TempDir())
	broker := cluster(t, "empty")
	if code, _, errOut := frazil("init", "--brokers", broker, "--topic", "empty"); code != exitInvalid || !strings.Contains(errOut, "holds no records") {
		t.Errorf("%d %s", code, errOut)
	}
	if code, _, errOut := frazil("init", "--brokers", broker, "--topic", "emty"); code != exitInvalid || !strings.Contains(errOut, `"empty"`) {
		t.Errorf("%d %s", code, errOut)
	}
	if err := os.WriteFile("spec.yaml", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if code, _, errOut := frazil("init", "--brokers", broker, "--topic", "empty", "--file", "spec.yaml"); code != exitInvalid || !strings.Contains(errOut, "exists already") {
		t.Errorf("%d %s", code, errOut)
	}
	if code, _, errOut := frazil("init", "--brokers", broker, "--topic", "empty", "--sasl-mechanism", "plain", "--sasl-username", "me", "--sasl-password-env", "NO_SUCH"); code != exitInvalid || !strings.Contains(errOut, "NO_SUCH is not set") {
		t.Errorf("%d %s", code, errOut)
	}
}
