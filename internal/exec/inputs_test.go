package exec

import (
	"context"
	"errors"
	"fmt"
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

// TestInputs: how it is told which records left output, and what is counted.
func TestInputs(t *testing.T) {
	cases := []struct {
		sql           string
		by            counting
		with, without int64
	}{
		{"SELECT id, upper(page) AS page FROM clicks WHERE id % 4 = 0", byRows, 250, 750},
		{"SELECT id FROM clicks WHERE false", byOrdinal, 0, 1000},
		{"SELECT id FROM clicks UNION ALL SELECT id FROM clicks WHERE now() < TIMESTAMPTZ '1960-01-01'", byOrdinal, 1000, 0}, // its plan for 1970 has one branch
		{"WITH a AS (SELECT id AS i FROM clicks WHERE id < 10) SELECT i FROM a WHERE i > 4", byRows, 5, 995},
		{"SELECT id, unnest(tags) AS tag FROM clicks", byOrdinal, 666, 334}, // every third has none
		{"SELECT c.id, p.section FROM clicks c JOIN pages p ON p.n = c.id % 10", byOrdinal, 300, 700},
		{"SELECT c.id, p.section FROM clicks c LEFT JOIN pages p ON p.n = c.id % 10", byOrdinal, 1000, 0},
		{"SELECT c.* FROM clicks c CROSS JOIN pages p WHERE c.id < 3", byOrdinal, 3, 997},
		{"FROM clicks SEMI JOIN pages ON n = id", byOrdinal, 3, 997},
		{"FROM clicks ANTI JOIN pages ON n = id", byOrdinal, 997, 3},
		{"SELECT id FROM clicks WHERE id < 10 UNION ALL SELECT id FROM clicks WHERE id BETWEEN 5 AND 19", byOrdinal, 20, 980},
		{"SELECT * FROM (SELECT * EXCLUDE (tags), unnest(tags) AS tag FROM clicks) t WHERE tag = 'tag1'", byOrdinal, 333, 667},
		{"SELECT n, count FROM (SELECT id, len(tags) AS count FROM clicks WHERE id < 7) t(a, count) JOIN pages ON n = a", byOrdinal, 3, 997},
		{"SELECT clicks, unnest(tags) AS tag FROM clicks", notAtAll, 0, 0},
		{"SELECT COLUMNS('i.'), unnest(tags) AS tag FROM clicks", notAtAll, 0, 0},
		{"SELECT #1 AS id, unnest(tags) AS tag FROM clicks", notAtAll, 0, 0},
		{"SELECT id FROM views WHERE id > 3", byRows, 0, 0},
	}
	var sinks []string
	for _, c := range cases {
		sinks = append(sinks, c.sql)
	}
	e, err := open(t, nil, sinks...)
	if err != nil {
		t.Fatal(err)
	}
	got, results, err := execute(t, e, 1000, 7)
	if err != nil {
		t.Fatal(err)
	}
	for i, c := range cases {
		sink := fmt.Sprint("s", i)
		r := results[sink]
		if e.counts[sink] != c.by || r.With != c.with || r.Without != c.without || !r.Balanced() || r.Scanned != 1000 {
			t.Errorf("%s: way %d, %+v; want way %d, %d with, %d without\n%s", c.sql, e.counts[sink], r.Inputs, c.by, c.with, c.without, e.queries[sink].Numbered)
		}
		for _, f := range e.Schema(sink).Fields() {
			if strings.Contains(f.Name, stream.Ordinal) {
				t.Errorf("%s: column %s", c.sql, f.Name)
			}
		}
		if r.Rows != int64(len(got[sink])) {
			t.Errorf("%s: %d rows, counted %d", c.sql, len(got[sink]), r.Rows)
		}
	}
}

// withPayload gives rows the hidden columns of a source with dead letters.
func withPayload(r arrow.RecordBatch) arrow.RecordBatch {
	n := int(r.NumCols()) - 2
	b := array.NewRecordBuilder(memory.DefaultAllocator, payloadSchema)
	defer b.Release()
	for i := range int(r.NumRows()) {
		at := offsetsOf(r).Value(i)
		if at%2 == 0 {
			b.Field(0).AppendNull()
		} else {
			b.Field(0).(*array.TimestampBuilder).Append(arrow.Timestamp(at))
		}
		b.Field(1).(*array.BinaryBuilder).Append([]byte{})
		b.Field(2).(*array.BinaryBuilder).Append(fmt.Append(nil, "value ", at))
		l := b.Field(3).(*array.ListBuilder)
		l.Append(true)
		for k := range at % 3 {
			p := l.ValueBuilder().(*array.StructBuilder)
			p.Append(true)
			p.FieldBuilder(0).(*array.StringBuilder).Append(fmt.Sprint("h", k))
			p.FieldBuilder(1).(*array.BinaryBuilder).Append(fmt.Append(nil, at))
		}
	}
	more := b.NewRecordBatch()
	defer more.Release()
	fields := append(append(append([]arrow.Field{}, r.Schema().Fields()[:n]...), payloadSchema.Fields()...), r.Schema().Fields()[n:]...)
	columns := append(append(append([]arrow.Array{}, r.Columns()[:n]...), more.Columns()...), r.Columns()[n:]...)
	return array.NewRecordBatch(arrow.NewSchema(fields, nil), columns, r.NumRows())
}

var payloadSchema = arrow.NewSchema([]arrow.Field{
	{Name: batch.PayloadColumns()[0], Type: &arrow.TimestampType{Unit: arrow.Microsecond, TimeZone: "UTC"}, Nullable: true},
	{Name: batch.PayloadColumns()[1], Type: arrow.BinaryTypes.Binary, Nullable: true},
	{Name: batch.PayloadColumns()[2], Type: arrow.BinaryTypes.Binary, Nullable: true},
	{Name: batch.PayloadColumns()[3], Type: arrow.ListOfField(arrow.Field{Name: "element", Nullable: true, Type: arrow.StructOf(
		arrow.Field{Name: "key", Type: arrow.BinaryTypes.String, Nullable: true}, arrow.Field{Name: "value", Type: arrow.BinaryTypes.Binary, Nullable: true})}), Nullable: true},
}, nil)

// lettered runs a job over records [0, n) and returns the dead letters as lines.
func lettered(t *testing.T, e *Executor, n int, sinks ...string) (map[string]int, map[string]batch.Result, []string, error) {
	t.Helper()
	job := batch.Job{
		Plan:   &batch.Plan{Incarnation: batch.Incarnation{Name: "p"}, Batch: 9, Versions: map[string]string{"pages": "v1"}},
		Ranges: []batch.Range{{TopicPartition: batch.TopicPartition{Source: "clicks", Topic: "clicks", Partition: 4}}}, Sinks: sinks, Letters: batch.Letters{Source: true, Sinks: []string{"s0", "s1", "s2"}},
	}
	rowsOf := map[string]int{}
	var lines []string
	var mu sync.Mutex
	results, err := e.Execute(context.Background(), job, func(emit, _ func(arrow.RecordBatch) error) error {
		for at := 0; at < n; at += 700 {
			plain := rows(at, min(n, at+700))
			r := withPayload(plain)
			err := emit(r)
			r.Release()
			plain.Release()
			if err != nil {
				return err
			}
		}
		return nil
	}, func(sink string, b arrow.RecordBatch) error {
		mu.Lock()
		defer mu.Unlock()
		rowsOf[sink] += int(b.NumRows())
		if sink == "dead_letters" {
			for i := range int(b.NumRows()) {
				line := ""
				for c := range int(b.NumCols()) {
					line += b.ColumnName(c) + "=" + b.Column(c).ValueStr(i) + " "
				}
				lines = append(lines, line)
			}
		}
		return nil
	})
	return rowsOf, results, lines, err
}

// TestLetters: a row that SQL fails on is a letter of that sink alone, with its
// payload; all letters come again when only their table lacks the batch.
func TestLetters(t *testing.T) {
	e, err := open(t, func(o *Options) {
		o.Workers = 2
		o.Sources[0].DeadLetters = true
		o.DeadLetters = "dead_letters"
	}, "SELECT id, CASE WHEN id % 1000 = 7 THEN 'x'::INTEGER END AS n FROM clicks", "SELECT id, CASE WHEN id % 500 = 7 THEN 'y'::INTEGER END AS n FROM clicks", "SELECT id FROM views")
	if err != nil {
		t.Fatal(err)
	}
	got, results, lines, err := lettered(t, e, 3000, "s0", "s1", "s2", "dead_letters")
	if err != nil {
		t.Fatal(err)
	}
	if got["s0"] != 2997 || got["s1"] != 2994 || len(lines) != 9 {
		t.Errorf("%v, %d letters", got, len(lines))
	}
	for sink, letters := range map[string]int64{"s0": 3, "s1": 6, "s2": 0, "dead_letters": 9} {
		r := results[sink]
		rejected := letters
		if sink == "dead_letters" {
			rejected = 0
		}
		if r.Letters != letters || r.Rejected != rejected || r.RejectedBy.Cast != rejected || !r.Balanced() || r.Scanned != 3000 || r.Rows != int64(got[sink]) {
			t.Errorf("%s: %+v", sink, r)
		}
	}
	if d := results["dead_letters"]; d.Failed != 6 || len(d.Reasons) != 2 || !strings.HasPrefix(d.Reasons[0], "6 × cast in sink s1, such as offset 7 of clicks/4: Conversion Error: ") || !strings.HasSuffix(d.Reasons[0], `its value is "value 7"`) {
		t.Errorf("%d failed, %q", d.Failed, d.Reasons)
	}
	text := strings.Join(lines, "\n")
	want := "topic=clicks partition=4 offset=1007 timestamp=1970-01-01T00:00:00.001007Z key= value=dmFsdWUgMTAwNw== " +
		`headers=[{"key":"h0","value":"MTAwNw=="},{"key":"h1","value":"MTAwNw=="}] source=clicks sink=s0 code=cast reason=Conversion Error: Could not convert string 'x' to INT32 pipeline=p batch=9 `
	if !strings.Contains(text, want) {
		t.Errorf("letters\n%s\nwant %s", text, want)
	}

	_, again, only, err := lettered(t, e, 3000, "dead_letters")
	if err != nil || len(only) != 9 || again["dead_letters"].Letters != 9 || again["s0"].Letters != 3 {
		t.Errorf("for the dead letters alone: %d of them, %+v, %v", len(only), again, err)
	}
	got, results, lines, err = lettered(t, e, 3000, "s0")
	if err != nil || len(lines) != 0 || results["s0"].Letters != 0 || results["s0"].Rejected != 3 || got["s0"] != 2997 {
		t.Errorf("without the dead letters: %d of them, %+v, %v", len(lines), results, err)
	}
}

// TestForgedOrdinal: an ordinal that no row has is a bug that stops.
func TestForgedOrdinal(t *testing.T) {
	f := &feed{execution: &execution{Executor: &Executor{counts: map[string]counting{"s": byOrdinal}}}, sink: "s"}
	in := rows(0, 10)
	f.begin(in)
	b := array.NewInt64Builder(memory.DefaultAllocator)
	b.Append(64)
	out := array.NewRecordBatch(arrow.NewSchema([]arrow.Field{{Name: "o", Type: arrow.PrimitiveTypes.Int64}}, nil), []arrow.Array{b.NewArray()}, 1)
	if err := f.mark(out); !errors.Is(err, errMiscount) {
		t.Error(err)
	}
	f.counts["s"] = byRows
	f.out = 11
	if err := f.settle(in); !errors.Is(err, errMiscount) {
		t.Error(err)
	}
}

// BenchmarkInputs is what it costs to count which inputs left output.
func BenchmarkInputs(b *testing.B) {
	for name, sql := range map[string]string{
		"unnest": "SELECT id, page, unnest(tags) AS tag FROM clicks", "join": "SELECT c.id, c.page, p.section FROM clicks c LEFT JOIN pages p ON p.n = c.id % 4",
	} {
		for _, by := range []counting{notAtAll, byOrdinal} {
			b.Run(fmt.Sprint(name, "/", map[counting]string{notAtAll: "uncounted", byOrdinal: "counted"}[by]), func(b *testing.B) {
				e, err := open(b, nil, sql)
				if err != nil {
					b.Fatal(err)
				}
				if by == notAtAll {
					e.counts["s0"] = notAtAll
					w := e.workers[0]
					w.statements["s0"].Close()
					delete(w.statements, "s0")
					if err := w.bind("s0", e.queries["s0"].SQL, false, time.Unix(0, 0)); err != nil {
						b.Fatal(err)
					}
				}
				chunk := rows(0, 65536)
				defer chunk.Release()
				job := batch.Job{Plan: &batch.Plan{Versions: map[string]string{"pages": "v1"}}, Sinks: []string{"s0"}, Ranges: []batch.Range{{TopicPartition: batch.TopicPartition{Source: "clicks"}}}}
				for b.Loop() {
					_, err := e.Execute(context.Background(), job, func(emit, _ func(arrow.RecordBatch) error) error { return emit(chunk) }, func(string, arrow.RecordBatch) error { return nil })
					if err != nil {
						b.Fatal(err)
					}
				}
				b.ReportMetric(float64(b.N)*65536/b.Elapsed().Seconds(), "rows/s")
			})
		}
	}
}
