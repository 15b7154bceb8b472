package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/apache/arrow-go/v18/parquet"
	"github.com/apache/arrow-go/v18/parquet/compress"
	"github.com/apache/arrow-go/v18/parquet/pqarrow"

	"github.com/frazil-io/frazil/internal/batch"
	"github.com/frazil-io/frazil/internal/config"
	"github.com/frazil-io/frazil/internal/deadletter"
	"github.com/frazil-io/frazil/internal/query"
)

// largeLetters writes n letters of so many bytes, ten a batch, as a table has them. Every
// fourth one has a second letter, for another sink.
func largeLetters(t *testing.T, n, size int) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "letters.parquet")
	out, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	w, err := pqarrow.NewFileWriter(deadletter.Schema(), out, parquet.NewWriterProperties(parquet.WithCompression(compress.Codecs.Zstd)), pqarrow.DefaultWriterProps())
	if err != nil {
		t.Fatal(err)
	}
	build := deadletter.NewBuilder()
	defer build.Release()
	for i := range n {
		l := deadletter.Letter{
			Topic: "clicks", Offset: int64(i), Value: []byte(largeValue(i, size)), Source: "clicks", Sink: "rows", Code: batch.CodeCast, Reason: fmt.Sprintf("no number: %d", i),
		}
		build.Add(l)
		if i%4 == 0 {
			l.Sink, l.Reason = "sums", "no sum"
			build.Add(l)
		}
		if i%10 < 9 && i < n-1 {
			continue
		}
		letters := build.Take()
		rows := deadletter.Seal(letters, deadletter.Origin{Pipeline: "p", Stream: batch.StreamMain, Batch: batch.ID(i / 10), Time: time.Unix(int64(i/10), 0)})
		if err := w.Write(rows); err != nil {
			t.Fatal(err)
		}
		rows.Release()
		letters.Release()
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return name
}

func largeValue(i, size int) string { return fmt.Sprint(i, strings.Repeat("x", size)) }

// TestLargeLetters: letters of which a few are put in order at once
// are listed by reason, one by one, and whole, in order and each once.
func TestLargeLetters(t *testing.T) {
	const n, size, most = 200, 200 << 10, 256 << 20
	name := largeLetters(t, n, size)
	spec := &config.Spec{Name: "p", DeadLetter: &config.DeadLetter{}}
	spec.Sources.Names = []string{"clicks"}
	spec.Sinks = config.Ordered[config.Sink]{Names: []string{"rows", "sums", config.DeadLetters}, By: map[string]config.Sink{
		"rows": {SQL: "FROM clicks"}, "sums": {SQL: "FROM clicks"}, config.DeadLetters: {Iceberg: &config.Iceberg{Table: "ops.dead"}},
	}}
	list := func(format string, f lettersFlags) string {
		e, err := query.Open(context.WithoutCancel(t.Context()), nil, query.Options{Cache: t.TempDir(), SpillDir: filepath.Join(t.TempDir(), "spill"), MemoryBytes: most, Threads: 1, AsWritten: true})
		if err != nil {
			t.Fatal(err)
		}
		defer e.Close()
		var out bytes.Buffer
		a := &app{out: &output{to: &out}, err: io.Discard}
		if err := a.printLetters(t.Context(), e, spec, format, f, lettersIn(name)); err != nil {
			t.Fatalf("%s %+v: %v", format, f, err)
		}
		return out.String()
	}
	text := list("text", lettersFlags{limit: 20})
	for _, want := range []string{"250 letters in", "200 letters, 80.0%: cast in sink rows", "50 letters, 20.0%: cast in sink sums", "clicks/0 offset 199, batch 19", "value   199xxx", "(204803 bytes; --full)"} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is not in\n%s", want, text)
		}
	}
	if got := values(t, list("json", lettersFlags{limit: 20})); !slices.Equal(got, []string{largeValue(199, size), largeValue(196, size)}) {
		t.Errorf("the examples are %.100q", got)
	}
	var want []string // the newest batch first, within it by offset and sink
	for b := n/10 - 1; b >= 0; b-- {
		for i := b * 10; i < b*10+10; i++ {
			want = append(want, largeValue(i, size))
			if i%4 == 0 {
				want = append(want, largeValue(i, size))
			}
		}
	}
	for _, limit := range []int{0, 1, 32} { // the 2nd letter of an offset is behind the 1st; the 11th begins a batch
		few := want
		if limit > 0 {
			few = want[:limit]
		}
		if got := values(t, list("json", lettersFlags{records: true, limit: int64(limit)})); !slices.Equal(got, few) {
			t.Errorf("limit %d: %d letters, or in another order", limit, len(got))
		}
	}
	if text := list("text", lettersFlags{records: true, limit: 100}); strings.Count(text, "  value ") != 100 || !strings.Contains(text, "150 more; --limit 0") {
		t.Errorf("%d letters: %.300s", strings.Count(text, "  value "), text)
	}
	if text := list("text", lettersFlags{records: true, full: true, limit: 20}); strings.Count(text, "\n  value ") != 20 || len(text) < 20*size {
		t.Errorf("%d letters in %d bytes", strings.Count(text, "  value "), len(text))
	}
}

// values are those of letters as JSON.
func values(t *testing.T, lines string) (all []string) {
	t.Helper()
	for line := range strings.Lines(lines) {
		var one struct{ Value string }
		if err := json.Unmarshal([]byte(line), &one); err != nil {
			t.Fatal(err)
		}
		all = append(all, one.Value)
	}
	return all
}
