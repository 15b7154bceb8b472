package cli

import (
	"bufio"
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/apache/arrow-go/v18/arrow"
)

// rowWriter prints rows as they come.
type rowWriter interface {
	header(*arrow.Schema) error
	rows(arrow.RecordBatch) error
	end() error
}

// newRowWriter prints as table, csv or json. width is that of the terminal, 0 if
// there is none.
func newRowWriter(out io.Writer, format string, width int) rowWriter {
	b := bufio.NewWriterSize(out, 64<<10)
	switch format {
	case "json":
		return &jsonRows{out: b}
	case "csv":
		return &csvRows{out: b}
	}
	return &tableRows{out: b, width: width}
}

// uniqueNames are a result's columns; one that comes again gets a number.
func uniqueNames(s *arrow.Schema) []string {
	names := make([]string, s.NumFields())
	for i, f := range s.Fields() {
		name := f.Name
		for n := 1; slices.Contains(names[:i], name); n++ {
			name = fmt.Sprintf("%s_%d", f.Name, n)
		}
		names[i] = name
	}
	return names
}

// jsonRows prints an object a line, its keys in the order of the columns.
type jsonRows struct {
	out  *bufio.Writer
	keys [][]byte
	line []byte
}

func (w *jsonRows) header(s *arrow.Schema) error {
	w.keys = jsonKeys(s)
	return nil
}

// jsonKeys are the columns as the keys of an object.
func jsonKeys(s *arrow.Schema) (keys [][]byte) {
	for _, name := range uniqueNames(s) {
		keys = append(keys, append(appendText(nil, name), ':'))
	}
	return keys
}

// appendRow appends a row as an object.
func appendRow(b []byte, keys [][]byte, r arrow.RecordBatch, row int) []byte {
	b = append(b, '{')
	for c, key := range keys {
		if c > 0 {
			b = append(b, ',')
		}
		b = appendJSON(append(b, key...), r.Column(c), row)
	}
	return append(b, '}')
}

func (w *jsonRows) rows(r arrow.RecordBatch) error {
	for i := range int(r.NumRows()) {
		w.line = append(appendRow(w.line[:0], w.keys, r, i), '\n')
		if _, err := w.out.Write(w.line); err != nil {
			return err
		}
	}
	return w.out.Flush()
}

func (w *jsonRows) end() error { return w.out.Flush() }

// csvRows prints RFC 4180. NULL is an empty field, an empty text is "".
type csvRows struct{ out *bufio.Writer }

func (w *csvRows) header(s *arrow.Schema) error {
	names := uniqueNames(s)
	for i, name := range names {
		names[i] = csvField(name)
	}
	return w.line(names)
}

func (w *csvRows) line(fields []string) error {
	_, err := w.out.WriteString(strings.Join(fields, ",") + "\n")
	return err
}

func csvField(s string) string {
	if s == "" || strings.ContainsAny(s, "\",\r\n") || s[0] == ' ' || s[len(s)-1] == ' ' {
		return `"` + strings.ReplaceAll(s, `"`, `""`) + `"`
	}
	return s
}

func (w *csvRows) rows(r arrow.RecordBatch) error {
	fields := make([]string, r.NumCols())
	for i := range int(r.NumRows()) {
		for c := range fields {
			fields[c] = ""
			if !r.Column(c).IsNull(i) {
				fields[c] = csvField(plainText(r.Column(c), i))
			}
		}
		if err := w.line(fields); err != nil {
			return err
		}
	}
	return w.out.Flush()
}

func (w *csvRows) end() error { return w.out.Flush() }

// sampleRows is how many rows a table waits for to find its columns' widths.
// Later ones are printed as they come, so a result of any size fits.
const sampleRows = 1000

// cellMax is how wide a column of a table may be on a terminal; a column may be
// as wide as the terminal if it is alone.
const cellMax = 60

// tableRows prints aligned columns.
type tableRows struct {
	out     *bufio.Writer
	width   int // of the terminal, 0: none
	names   []string
	right   []bool // numbers
	widths  []int
	waiting [][]string
	settled bool
	count   int64
}

func (w *tableRows) header(s *arrow.Schema) error {
	w.names = uniqueNames(s)
	for i, name := range w.names {
		w.names[i] = visible(name)
		t := s.Field(i).Type.ID()
		w.right = append(w.right, arrow.IsInteger(t) || arrow.IsFloating(t) || arrow.IsDecimal(t))
		w.widths = append(w.widths, utf8.RuneCountInString(w.names[i]))
	}
	return nil
}

func (w *tableRows) rows(r arrow.RecordBatch) error {
	for i := range int(r.NumRows()) {
		cells := make([]string, r.NumCols())
		for c := range cells {
			cells[c] = cell(r.Column(c), i)
		}
		w.count++
		if w.settled {
			w.print(cells)
			continue
		}
		for c, text := range cells {
			w.widths[c] = max(w.widths[c], utf8.RuneCountInString(text))
		}
		if w.waiting = append(w.waiting, cells); len(w.waiting) >= sampleRows {
			w.settle()
		}
	}
	if w.settled {
		return w.out.Flush()
	}
	return nil
}

// settle fixes the widths and prints what waited for them.
func (w *tableRows) settle() {
	w.settled = true
	if most := cellMax; w.width > 0 {
		if len(w.widths) == 1 {
			most = w.width
		}
		for c := range w.widths {
			w.widths[c] = min(w.widths[c], most)
		}
	}
	w.print(w.names)
	for _, cells := range w.waiting {
		w.print(cells)
	}
	w.waiting = nil
}

func (w *tableRows) print(cells []string) {
	var line strings.Builder
	for c, text := range cells {
		n := utf8.RuneCountInString(text)
		if w.width > 0 && n > w.widths[c] {
			text, n = shortened(text, w.widths[c]), w.widths[c]
		}
		pad := strings.Repeat(" ", max(0, w.widths[c]-n))
		if c > 0 {
			line.WriteString("  ")
		}
		if w.right[c] {
			line.WriteString(pad)
			pad = ""
		}
		line.WriteString(text)
		if c < len(cells)-1 {
			line.WriteString(pad)
		}
	}
	_, _ = w.out.WriteString(line.String() + "\n") // Flush tells
}

func shortened(text string, width int) string {
	if utf8.RuneCountInString(text) <= width {
		return text
	}
	if width < 2 {
		return string([]rune(text)[:max(0, width)])
	}
	return string([]rune(text)[:width-1]) + "…"
}

func (w *tableRows) end() error {
	if !w.settled {
		w.settle()
	}
	rows := "rows"
	if w.count == 1 {
		rows = "row"
	}
	fmt.Fprintf(w.out, "(%d %s)\n", w.count, rows)
	return w.out.Flush()
}
