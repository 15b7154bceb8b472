package cli

import (
	"bytes"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/frazil-io/frazil/internal/config"
	"github.com/frazil-io/frazil/internal/query"
)

// listed is what people see of letters that SQL makes.
func listed(t *testing.T, f lettersFlags, width int, rows string) string {
	t.Helper()
	e, err := query.Open(t.Context(), nil, query.Options{Cache: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	spec := &config.Spec{DeadLetter: &config.DeadLetter{}}
	spec.Sources.Names = []string{"clicks"}
	spec.Sinks = config.Ordered[config.Sink]{Names: []string{"rows", config.DeadLetters}, By: map[string]config.Sink{
		"rows": {SQL: "FROM clicks"}, config.DeadLetters: {Iceberg: &config.Iceberg{Table: "ops.dead"}},
	}}
	var out bytes.Buffer
	begin := `WITH letters AS (SELECT 'clicks' AS topic, 0::INT AS partition, n AS "offset", '2026-01-02 03:04:05+00'::TIMESTAMPTZ AS timestamp, 'k'::BLOB AS key, value::BLOB AS value,
  [{key: 'h', value: '\xFF'::BLOB}] AS headers, source, sink, code, reason, 'p' AS pipeline, 3::BIGINT AS batch, '2026-01-02 03:04:06+00'::TIMESTAMPTZ AS batch_time, 'main' AS stream, sinks, replayed
FROM (VALUES ` + rows + `) v(n, source, sink, code, reason, value, sinks, replayed) WHERE n > 0)
`
	if err := f.text(t.Context(), &out, width, e, spec, begin); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

// TestLettersFitTheTerminal: whatever a payload is, no line is wider than the
// terminal, a character is never cut, and with --full nothing is left out.
func TestLettersFitTheTerminal(t *testing.T) {
	rows := `
(7::BIGINT, 'clicks', 'rows', 'cast', 'could not convert "abc" to INT32 when casting from source column kind, which is a rather long reason to be shown on one line', encode('x' || repeat('日本', 200000)), ['rows'], false),
(8::BIGINT, 'clicks', 'rows', 'cast', 'could not convert "xyz" to INT32 when casting from source column kind, which is a rather long reason to be shown on one line', NULL, ['rows'], true),
(9::BIGINT, 'clicks', NULL, 'decode', 'no', '\xFF\x00'::BLOB, ['rows', 'gone'], false)`
	const width = 60
	for _, records := range []bool{false, true} {
		text := listed(t, lettersFlags{limit: 20, records: records}, width, rows)
		for line := range strings.SplitSeq(text, "\n") {
			if utf8.RuneCountInString(line) > width && !strings.Contains(line, "not in the spec") {
				t.Errorf("%d characters: %s", utf8.RuneCountInString(line), line)
			}
		}
		want := []string{
			"3 letters in table ops.dead: 2 wait, 1 were run again\n", "1 letter waits for sink gone, which is not in the spec", "2 letters, 66.7%: cast in sink rows (clicks); 1", "could not convert … to INT…",
		}
		if records {
			want = append(want, "clicks/0 offset 9, 2026-01-02T03:04:05Z\n", "value   ff00 (hex, 2 bytes)\n", "value   null\n", "… (1200001 bytes; --full)\n", "lacking rows, gone; not in the spec: gone\n", "headers h=ff\n", "was run again\n")
		}
		for _, w := range want {
			if !strings.Contains(text, w) {
				t.Errorf("%q is not in\n%s", w, text)
			}
		}
	}
	if text := listed(t, lettersFlags{limit: 20, records: true, full: true}, width, rows); !strings.Contains(text, strings.Repeat("日本", 200000)+"\n") || strings.Contains(text, "--full") {
		t.Error("something was left out")
	}
	if text := listed(t, lettersFlags{limit: 1, records: true}, width, rows); !strings.Contains(text, "\n2 more; --limit 0 shows all\n") {
		t.Error(text)
	}
	if text := listed(t, lettersFlags{limit: 20, narrow: []string{"code = 'schema'"}}, width, rows); text != "3 letters in table ops.dead: 2 wait, 1 were run again; 0 are what was asked for\n" {
		t.Error(text)
	}
	if text := listed(t, lettersFlags{limit: 20}, width, "(0::BIGINT, 'clicks', NULL, 'decode', 'no', ''::BLOB, ['rows'], false)"); text != "no letters in table ops.dead\n" {
		t.Error(text)
	}
}
