package exec

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/apache/arrow-go/v18/arrow"

	"github.com/frazil-io/frazil/internal/batch"
	"github.com/frazil-io/frazil/internal/deadletter"
	"github.com/frazil-io/frazil/internal/exec/stream"
)

func expecting(source []Rule, sink ...Rule) func(*Options) {
	return func(o *Options) {
		o.DeadLetters = "dead_letters"
		for i := range o.Sources {
			o.Sources[i].DeadLetters = true
		}
		o.Sources[0].Expect = source
		o.Sinks[0].Expect = sink
		o.Macros = []stream.Macro{{Signature: "odd(n)", SQL: "n % 2 = 1"}}
	}
}

// expected runs record batches with their payload and returns each sink's rows
// sorted, and the dead letters as offset, sink, code and reason.
func expected(t *testing.T, e *Executor, n int, sinks ...string) (map[string][]string, []string, map[string]batch.Result, error) {
	t.Helper()
	job := batch.Job{
		Plan: &batch.Plan{Versions: map[string]string{"pages": "v1"}}, Sinks: append(sinks, "dead_letters"), Letters: batch.Letters{Source: true, Sinks: sinks},
		Ranges: []batch.Range{{TopicPartition: batch.TopicPartition{Source: "clicks", Topic: "clicks"}, End: int64(n)}},
	}
	var mu sync.Mutex
	out := map[string][]string{}
	var letters []string
	results, err := e.Execute(t.Context(), job, func(emit, _ func(arrow.RecordBatch) error) error {
		for _, part := range [][2]int{{0, n / 3}, {n / 3, n}} {
			plain := rows(part[0], part[1])
			b := withPayload(plain)
			err := emit(b)
			b.Release()
			plain.Release()
			if err != nil {
				return err
			}
		}
		return nil
	}, func(sink string, b arrow.RecordBatch) error {
		mu.Lock()
		defer mu.Unlock()
		if sink != "dead_letters" {
			out[sink] = append(out[sink], jsonLines(b)...)
			return nil
		}
		s := deadletter.Schema()
		for i := range int(b.NumRows()) {
			var parts []string
			for _, name := range []string{"offset", "sink", "code", "reason"} {
				parts = append(parts, fmt.Sprint(b.Column(s.FieldIndices(name)[0]).GetOneForMarshal(i)))
			}
			letters = append(letters, strings.Join(parts, " "))
		}
		return nil
	})
	for _, lines := range out {
		slices.Sort(lines)
	}
	slices.Sort(letters)
	return out, letters, results, err
}

// TestExpectSource: a row that fails a rule of its source is in no sink, is one
// letter, and is counted in each sink under the first rule that it fails. NULL is not
// true, and an error in a rule is one of SQL.
func TestExpectSource(t *testing.T) {
	e, err := open(t, expecting([]Rule{
		{"no_nine", "id <> 9", FailDrop}, {"has_page", "page IS NOT NULL AND id >= 0", FailLetter}, {"divides", "100 // (id - 5) IS NOT NULL AND if(id = 6, error('six'), true)", FailLetter}, {"maybe", "CASE WHEN id < 12 THEN true END", FailLetter},
	}), "SELECT id FROM clicks", "SELECT id, unnest(tags) AS tag FROM clicks", "SELECT id FROM views")
	if err != nil {
		t.Fatal(err)
	}
	out, letters, results, err := expected(t, e, 14, "s0", "s1", "s2")
	if err != nil {
		t.Fatal(err)
	}
	// 0 and 7 have no page; 5 divides by zero, which is NULL; 6 fails in the rule; 12
	// and 13 are NULL; 9 is dropped.
	if want := "[10| 11| 1| 2| 3| 4| 8|]"; fmt.Sprint(out["s0"]) != want || len(out["s2"]) != 0 {
		t.Errorf("%v, want %s", out, want)
	}
	if len(letters) != 6 || !strings.HasPrefix(letters[0], "0 <nil> constraint rule has_page failed: page IS NOT NULL") ||
		!slices.ContainsFunc(letters, func(l string) bool {
			return strings.HasPrefix(l, "6 <nil> cast ") && strings.Contains(l, "six")
		}) ||
		!strings.HasPrefix(letters[1], "12 <nil> constraint rule maybe failed") {
		t.Errorf("letters %q", letters)
	}
	rules := map[string]int64{"clicks.no_nine": 1, "clicks.has_page": 2, "clicks.divides": 1, "clicks.maybe": 2}
	for _, sink := range []string{"s0", "s1", "s2"} {
		r := results[sink]
		if !r.Balanced() || r.Scanned != 14 || r.Rejected != 6 || r.Dropped != 1 || r.Letters != 0 || r.SourceLetters != 6 || r.RejectedBy != (batch.Codes{Constraint: 5, Cast: 1}) || !maps.Equal(r.Rules, rules) {
			t.Errorf("%s: %+v", sink, r.Inputs)
		}
	}
	if r := results["dead_letters"]; r.Letters != 6 || r.Rows != 6 || r.SourceLetters != 6 || r.Failed != 6 || r.Scanned != 14 {
		t.Errorf("%+v", r)
	}
}

// TestExpectSink: where SQL makes several rows of a record, none of them is written
// if one fails, whether the result fits into memory at once or not.
func TestExpectSink(t *testing.T) {
	for _, sql := range []string{
		"SELECT id, tag FROM (SELECT id, unnest(tags) AS tag FROM clicks) t",
		"SELECT id, tag, repeat('x', 8000000) AS large FROM (SELECT id, unnest(tags) AS tag FROM clicks) t",
	} {
		e, err := open(t, expecting(nil, Rule{"not_five", "id <> 5 OR tag <> 'tag1'", FailLetter}, Rule{"even", "NOT odd(id)", FailDrop}), sql)
		if err != nil {
			t.Fatal(err)
		}
		out, letters, results, err := expected(t, e, 9, "s0")
		if err != nil {
			t.Fatal(err)
		}
		for i, line := range out["s0"] {
			out["s0"][i] = line[:8]
		}
		if want := `[2|"tag0" 2|"tag1" 4|"tag0" 8|"tag0" 8|"tag1"]`; fmt.Sprint(out["s0"]) != want {
			t.Errorf("%v, want %s", out["s0"], want)
		}
		// Of record 5 row tag0 fails the second rule, and row tag1 the first, which counts.
		if fmt.Sprint(letters) != "[5 s0 constraint rule not_five failed: id <> 5 OR tag <> 'tag1']" {
			t.Errorf("letters %q", letters)
		}
		if r := results["s0"]; !r.Balanced() || r.Rows != 5 || r.With != 3 || r.Without != 3 || r.Dropped != 2 || r.Rejected != 1 || r.Letters != 1 || !maps.Equal(r.Rules, map[string]int64{"not_five": 1, "even": 2}) {
			t.Errorf("%+v", r.Inputs)
		}
	}
	e, err := open(t, expecting(nil, Rule{"small", "id < 6", FailLetter}), "SELECT id FROM clicks WHERE id <> 2")
	if err != nil {
		t.Fatal(err)
	}
	out, letters, results, err := expected(t, e, 9, "s0")
	if r := results["s0"]; err != nil || len(out["s0"]) != 5 || len(letters) != 3 || !r.Balanced() || r.With != 5 || r.Without != 1 || r.Rejected != 3 {
		t.Errorf("%v %v %+v %v", out, letters, r, err)
	}
}

// TestExpectStop: the message names rule, record and row.
func TestExpectStop(t *testing.T) {
	for _, change := range []func(*Options){
		expecting([]Rule{{"small", "id < 6", FailStop}}), expecting(nil, Rule{"small", "id < 6", FailStop}),
	} {
		e, err := open(t, change, "SELECT id, unnest([1, 2]) AS n FROM clicks")
		if err != nil {
			t.Fatal(err)
		}
		_, _, _, err = expected(t, e, 9, "s0")
		for _, want := range []string{"rule small failed: id < 6, on the record at offset 6 of clicks/0", `{"id": 6`} {
			if !errors.Is(err, batch.ErrInvalid) || !strings.Contains(err.Error(), want) {
				t.Errorf("%v, want %s", err, want)
			}
		}
	}
}

// TestExpectRefusals: what is no condition over one row, and what could give another
// answer when a batch is run again.
func TestExpectRefusals(t *testing.T) {
	for sql, want := range map[string]string{
		"id > (SELECT max(n) FROM pages)":    "line 1 column 6: a rule looks at one row and has no subquery",
		"count(*) > 1":                       "aggregate count",
		"row_number() OVER () = 1":           "no window function",
		"random() < 0.5":                     "line 1 column 1: random gives another answer each time",
		"COLUMNS(*) IS NOT NULL":             "no * and no COLUMNS",
		"unnest(tags) = 'a'":                 "several rows of one",
		"id":                                 "id is not true or false",
		"idd > 1":                            `"idd"`,
		"id > 1, true":                       "it is not one expression",
		"id >":                               "syntax error",
		"current_setting('threads') = 'one'": "depends on the session",
	} {
		for _, change := range []func(*Options){expecting([]Rule{{"r", sql, FailDrop}}), expecting(nil, Rule{"r", sql, FailDrop})} {
			_, err := open(t, change, "SELECT id, tags FROM clicks")
			if !errors.Is(err, batch.ErrInvalid) || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "rule r of s") {
				t.Errorf("%s: %v, want %s", sql, err, want)
			}
		}
	}
	_, err := open(t, func(o *Options) { expecting(nil, Rule{"r", "true", FailLetter})(o); o.Sources[0].DeadLetters = false }, "SELECT id FROM clicks")
	if err == nil || !strings.Contains(err.Error(), "needs on_bad_record: dead_letter of source clicks") {
		t.Error(err)
	}
	_, err = open(t, expecting(nil, Rule{"r", "true", FailDrop}), "SELECT COLUMNS('i.') FROM clicks")
	if err == nil || !strings.Contains(err.Error(), "cannot be told from which record") {
		t.Error(err)
	}
}

// TestExpectGuards: a rule does not fail with an error on what one before it has
// refused, and one that does refuses that row alone.
func TestExpectGuards(t *testing.T) {
	rules := []Rule{{"not_five", "id <> 5", FailLetter}, {"safe", "CASE WHEN id IN (5, 6) THEN error('bad ' || id) ELSE 'x' END = 'x'", FailLetter}, {"not_seven", "id <> 7", FailDrop}}
	for name, change := range map[string]func(*Options){"source": expecting(rules), "sink": expecting(nil, rules...)} {
		for _, sql := range []string{"SELECT id FROM clicks", "SELECT id, unnest([1]) AS n FROM clicks"} {
			e, err := open(t, change, sql)
			if err != nil {
				t.Fatal(err)
			}
			out, letters, results, err := expected(t, e, 10, "s0")
			if err != nil {
				t.Fatal(err)
			}
			of := map[string]string{"source": "<nil>", "sink": "s0"}[name]
			if len(out["s0"]) != 7 || len(letters) != 2 || letters[0] != "5 "+of+" constraint rule not_five failed: id <> 5" || !strings.HasPrefix(letters[1], "6 "+of+" cast ") || !strings.Contains(letters[1], "bad 6") {
				t.Errorf("%s: %s: %v, letters %q", name, sql, out, letters)
			}
			if r := results["s0"]; !r.Balanced() || r.Dropped != 1 || r.Rejected != 2 {
				t.Errorf("%s: %s: %+v", name, sql, r.Inputs)
			}
		}
	}
}
