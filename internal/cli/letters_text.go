package cli

import (
	"bufio"
	"context"
	"encoding/hex"
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"

	"github.com/frazil-io/frazil/internal/config"
	"github.com/frazil-io/frazil/internal/query"
)

// widthElsewhere is how wide letters are shown where there is no terminal.
const widthElsewhere = 120

// lettersText shows letters to people: why they were rejected, the commonest first,
// and if that is wanted one by one.
type lettersText struct {
	out   *bufio.Writer
	width int
	full  bool // nothing is shortened
	marks bool // it is known which letters were run again
	spec  *config.Spec
	ask   asker
	from  string // where the letters are
}

// text shows the letters to people.
func (f *lettersFlags) text(ctx context.Context, out io.Writer, width int, e *query.Engine, spec *config.Spec, begin string) error {
	if width <= 0 {
		width = widthElsewhere
	}
	t := &lettersText{out: bufio.NewWriter(out), width: width, full: f.full, marks: spec.DeadLetter.Kafka == nil, spec: spec}
	t.ask = asking(ctx, e, begin)
	if t.marks {
		t.from = "table " + spec.Sinks.By[config.DeadLetters].Iceberg.Table
	} else {
		t.from = "topic " + spec.DeadLetter.Kafka.Topic
	}
	where := f.where()
	wanted, err := t.sums(where)
	if err != nil || wanted == 0 {
		return join(err, t.out.Flush())
	}
	if err := t.stranded(where); err != nil {
		return err
	}
	above := *f
	if f.records {
		above.limit = reasonsAbove
	}
	if err := t.reasons(&above, wanted); err != nil {
		return err
	}
	if f.records {
		if err := t.records(f, wanted); err != nil {
			return err
		}
	}
	return t.out.Flush()
}

// reasonsAbove is how many reasons are shown above letters.
const reasonsAbove = 5

func join(err, other error) error {
	if err != nil {
		return err
	}
	return other
}

func (t *lettersText) say(format string, args ...any) {
	_, _ = fmt.Fprintf(t.out, format, args...) // Flush tells
}

// sums says how many letters there are.
func (t *lettersText) sums(where string) (wanted int64, err error) {
	var all, waiting int64
	count := func(sql string, n ...*int64) error {
		return t.ask(sql, func(rows arrow.RecordBatch) error {
			for i := range n {
				*n[i] = rows.Column(i).(*array.Int64).Value(0)
			}
			return nil
		})
	}
	if err := count("SELECT count(*), count(*) FILTER (NOT replayed) FROM letters", &all, &waiting); err != nil {
		return 0, err
	}
	if wanted = all; where != "" {
		if err := count("SELECT count(*) FROM letters"+where, &wanted); err != nil {
			return 0, err
		}
	}
	switch {
	case all == 0:
		t.say("no letters in %s\n", visible(t.from))
		return 0, nil
	case t.marks:
		t.say("%s in %s: %d wait, %d were run again", letters(all), visible(t.from), waiting, all-waiting)
	default:
		t.say("%s in %s", letters(all), visible(t.from))
	}
	if where != "" {
		t.say("; %d are what was asked for", wanted)
	}
	t.say("\n")
	return wanted, nil
}

func letters(n int64) string {
	if n == 1 {
		return "1 letter"
	}
	return fmt.Sprintf("%d letters", n)
}

// stranded names what waiting letters lack and the spec does not have: a replay does
// not help them.
func (t *lettersText) stranded(where string) error {
	if !t.marks {
		return nil
	}
	and := " AND NOT replayed"
	if where == "" {
		and = " WHERE NOT replayed"
	}
	return t.ask(`SELECT what, name, count(*) AS n FROM (
  SELECT 'source' AS what, source AS name, source AS of FROM letters`+where+and+`
  UNION ALL SELECT 'sink', unnest(sinks), source FROM letters`+where+and+`)
WHERE `+"("+"what = 'source' AND "+notAmong("name", t.spec.Sources.Names)+" OR what = 'sink' AND "+notAmong("name", t.spec.Queries())+`)
GROUP BY ALL ORDER BY n DESC, what, name`, func(rows arrow.RecordBatch) error {
		for i := range int(rows.NumRows()) {
			what, name := rows.Column(0).(*array.String).Value(i), rows.Column(1).(*array.String).Value(i)
			t.say("%s\n", visible(strandedText(rows.Column(2).(*array.Int64).Value(i), what+" "+name)))
		}
		return nil
	})
}

// strandedText says of letters that need what the spec has no more what to do.
func strandedText(n int64, missing string) string {
	wait := "wait"
	if n == 1 {
		wait = "waits"
	}
	return fmt.Sprintf("%s %s for %s, which is not in the spec: --replay rejects them again each time. Put it back into the spec and run them again, or delete them from the table", letters(n), wait, missing)
}

// notAmong is SQL for a text that is none of some.
func notAmong(column string, names []string) string {
	if len(names) == 0 {
		return column + " IS NOT NULL"
	}
	var texts []string
	for _, n := range names {
		texts = append(texts, sqlText(n))
	}
	return column + " NOT IN (" + strings.Join(texts, ", ") + ")"
}

// shownBytes is SQL for the beginning of a BLOB, as much as is shown, and its length,
// each within a function.
func (t *lettersText) shownBytes(of, column string) string {
	part := column
	if !t.full {
		part = fmt.Sprintf("array_slice(%s, 1, %d)", column, utf8.UTFMax*t.width)
	}
	return fmt.Sprintf("%[1]s(%[2]s) AS %[3]s, %[1]s(octet_length(%[3]s)) AS %[3]s_size", of, part, column)
}

// reasons shows why letters were rejected, the commonest first, each with an example
// if not letters one by one follow.
func (t *lettersText) reasons(f *lettersFlags, wanted int64) error {
	kinds := int64(0)
	found, value, from := "", "NULL::BLOB, 0::BIGINT", "shown"
	if !f.records {
		found, value, from = ", found AS (SELECT "+foundKey+", "+t.shownBytes("any_value", "value")+" FROM "+foundAmong+" GROUP BY ALL)", "value, value_size", withFound
	}
	err := t.ask(f.grouped()+found+`
SELECT code, source, sink, why, letters, waiting, places, topic, partition, low, high, oldest, latest, x.t, x.p, x.o, x.b, `+value+`, kinds, x.r
FROM `+from+` ORDER BY letters DESC, code, source, sink, why`, func(rows arrow.RecordBatch) error {
		for i := range int(rows.NumRows()) {
			text := func(c int) string { return visible(plainText(rows.Column(c), i)) }
			n := rows.Column(4).(*array.Int64).Value(i)
			kinds = rows.Column(19).(*array.Int64).Value(i)
			at := "in source " + text(1)
			if rows.Column(2).IsValid(i) {
				at = "in sink " + text(2) + " (" + text(1) + ")"
			}
			if t.marks {
				at += fmt.Sprintf("; %d wait", rows.Column(5).(*array.Int64).Value(i))
			}
			t.say("\n%s, %s: %s %s\n", letters(n), share(n, wanted), text(0), at)
			t.wrapped("reason", text(3))
			if f.records {
				continue
			}
			places := fmt.Sprintf("%s/%s, offsets %s to %s", text(7), text(8), text(9), text(10))
			if k := rows.Column(6).(*array.Int64).Value(i); k > 1 {
				places = fmt.Sprintf("%d partitions", k)
			}
			if rows.Column(11).IsValid(i) {
				places += ", of " + text(11)
				if text(11) != text(12) {
					places += " to " + text(12)
				}
			}
			t.wrapped("where", places)
			t.wrapped("newest", fmt.Sprintf("%s/%s offset %s, batch %s", text(13), text(14), text(15), text(16)))
			if reason := firstLine(plainText(rows.Column(20), i)); reason != text(3) {
				t.wrapped("", reason)
			}
			t.payload("value", rows.Column(17).(*array.Binary), rows.Column(18), i)
		}
		return nil
	})
	if f.limit > 0 && kinds > f.limit {
		t.say("\n%d more reasons; --limit 0 shows all\n", kinds-f.limit)
	}
	return err
}

// share is a part in percent.
func share(n, of int64) string {
	part := 100 * float64(n) / float64(of)
	switch {
	case n == of:
		return "100%"
	case part < 0.1:
		return "<0.1%"
	case part > 99.9:
		return ">99.9%"
	}
	return fmt.Sprintf("%.1f%%", part)
}

func limitText(limit int64) string {
	if limit <= 0 {
		return ""
	}
	return fmt.Sprintf(" LIMIT %d", limit)
}

// records shows letters one by one, the newest first.
func (t *lettersText) records(f *lettersFlags, wanted int64) error {
	columns := `topic, partition, "offset", timestamp, source, sink, code, reason, stream, batch, batch_time, replayed, sinks, headers, ` + t.shownBytes("", "key") + ", " + t.shownBytes("", "value")
	queries := []string{f.wanted(columns) + "FROM parts" + newestFirst + limitText(f.limit)}
	if t.full {
		slices, err := f.slices(t.ask)
		if err != nil {
			return err
		}
		queries = nil
		for _, slice := range slices {
			queries = append(queries, "SELECT "+columns+" FROM letters"+slice)
		}
	}
	for _, sql := range queries {
		err := t.ask(sql, func(rows arrow.RecordBatch) error {
			for i := range int(rows.NumRows()) {
				t.record(rows, i)
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	if f.limit > 0 && wanted > f.limit {
		t.say("\n%d more; --limit 0 shows all\n", wanted-f.limit)
	}
	return nil
}

func (t *lettersText) record(rows arrow.RecordBatch, i int) {
	text := func(c int) string { return visible(plainText(rows.Column(c), i)) }
	t.say("\n%s/%s offset %s", text(0), text(1), text(2))
	if rows.Column(3).IsValid(i) {
		t.say(", %s", text(3))
	}
	at := "source " + text(4)
	if rows.Column(5).IsValid(i) {
		at = "sink " + text(5)
	}
	by := "batch " + text(9)
	if stream := text(8); stream != "main" {
		by += " of stream " + stream
	}
	by += ", " + text(10)
	if t.marks {
		state := "waits"
		if plainText(rows.Column(11), i) == "true" {
			state = "was run again"
		}
		by += "; " + state
	}
	t.say("\n")
	t.wrapped("code", text(6)+" in "+at)
	t.wrapped("by", by)
	lines := strings.Split(plainText(rows.Column(7), i), "\n")
	if !t.full {
		lines = lines[:1]
	}
	for k, line := range lines {
		t.wrapped([]string{"reason", ""}[min(k, 1)], visible(line))
	}
	if rows.Column(12).IsValid(i) {
		var lacking, gone []string
		list := rows.Column(12).(*array.List)
		for from, to := list.ValueOffsets(i); from < to; from++ {
			name := list.ListValues().(*array.String).Value(int(from))
			lacking = append(lacking, visible(name))
			if !slices.Contains(t.spec.Queries(), name) {
				gone = append(gone, visible(name))
			}
		}
		line := strings.Join(lacking, ", ")
		if len(gone) > 0 {
			line += "; not in the spec: " + strings.Join(gone, ", ")
		}
		t.wrapped("lacking", line)
	}
	if list, ok := rows.Column(13).(*array.List); ok && list.IsValid(i) {
		if from, to := list.ValueOffsets(i); from < to {
			t.line("headers", headersText(list, int(from), int(to)), "")
		}
	}
	t.payload("key", rows.Column(14).(*array.Binary), rows.Column(15), i)
	t.payload("value", rows.Column(16).(*array.Binary), rows.Column(17), i)
}

// headersText are headers on one line.
func headersText(list *array.List, from, to int) string {
	pairs := list.ListValues().(*array.Struct)
	keys, values := pairs.Field(0), pairs.Field(1).(*array.Binary)
	var all []string
	for k := from; k < to; k++ {
		value := "null"
		if values.IsValid(k) {
			value, _ = bytesText(values.Value(k), false)
		}
		all = append(all, visible(plainText(keys, k))+"="+value)
	}
	return strings.Join(all, ", ")
}

// payload shows bytes, of which length there are.
func (t *lettersText) payload(name string, values *array.Binary, length arrow.Array, i int) {
	if values.IsNull(i) {
		t.line(name, "null", "")
		return
	}
	var size int64
	_, _ = fmt.Sscan(length.ValueStr(i), &size)
	part := values.Value(i)
	text, isHex := bytesText(part, size > int64(len(part)))
	note := ""
	if isHex {
		note = "hex, "
	}
	if size > int64(len(part)) || !t.full && utf8.RuneCountInString(text) > t.room() {
		t.cut(name, text, fmt.Sprintf(" (%s%d bytes; --full)", note, size))
		return
	}
	if isHex {
		note = fmt.Sprintf(" (hex, %d bytes)", size)
	}
	t.line(name, text, note)
}

// bytesText shows bytes as text where they are text, else in hexadecimal. What was cut
// may end within a character.
func bytesText(b []byte, cut bool) (text string, isHex bool) {
	if cut {
		for k := 1; k < utf8.UTFMax && k <= len(b); k++ {
			if utf8.RuneStart(b[len(b)-k]) {
				if !utf8.FullRune(b[len(b)-k:]) {
					b = b[:len(b)-k]
				}
				break
			}
		}
	}
	if utf8.Valid(b) {
		return visible(string(b)), false
	}
	return hex.EncodeToString(b), true
}

// named is how wide the names of a letter's parts are.
const named = 10

// room is what a line has for a part.
func (t *lettersText) room() int { return max(t.width-named, 20) }

// line shows a part on one line, shortened to the width.
func (t *lettersText) line(name, text, note string) {
	if !t.full && utf8.RuneCountInString(text)+len(note) > t.room() {
		t.cut(name, text, note)
		return
	}
	t.say("  %-*s%s%s\n", named-2, name, text, note)
}

func (t *lettersText) cut(name, text, note string) {
	t.say("  %-*s%s%s\n", named-2, name, shortened(text, max(t.room()-len(note), 10)), note)
}

// foldedMax is how many lines a part has if it is not shown whole.
const foldedMax = 4

// wrapped shows a part on as many lines as it needs.
func (t *lettersText) wrapped(name, text string) {
	for n := 1; ; n++ {
		line, rest := fold(text, t.room())
		if n == foldedMax && !t.full {
			line, rest = shortened(text, t.room()), ""
		}
		t.say("  %-*s%s\n", named-2, name, line)
		if name, text = "", rest; rest == "" {
			return
		}
	}
}

// fold takes a line off a text, at a space where there is one.
func fold(text string, width int) (line, rest string) {
	runes := []rune(text)
	if len(runes) <= width {
		return text, ""
	}
	at := width
	for k := width; k > width/2; k-- {
		if runes[k] == ' ' {
			at = k
			break
		}
	}
	return string(runes[:at]), strings.TrimLeft(string(runes[at:]), " ")
}

func firstLine(s string) string {
	line, _, _ := strings.Cut(s, "\n")
	return visible(line)
}
