package decode

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"unicode/utf8"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/extensions"

	"github.com/frazil-io/frazil/internal/batch"
)

// CSV is how a line of values is written.
type CSV struct {
	Delimiter string  // one character; "": a comma
	Quote     *string // one character, "" for none; nil: "
	Null      string  // what stands for NULL where it is not in quotes; "": an empty field
}

// csvDecoder decodes one line of values a record (RFC 4180). A value in quotes may
// hold delimiters, line ends, and quotes that are doubled, and is never NULL. The
// line's end may be there or not. Types are written as their texts are in JSON, true
// and false in any case; spaces around values that are no texts do no harm.
type csvDecoder struct {
	fields           []arrow.Field
	root             *structure
	cells            []csvCell
	delimiter, quote byte // quote 0: none
	null             []byte
	scanner          scanner // of the record, for the places of errors
	unquoted         []byte  // a value in quotes, where some are doubled
}

// csvCell appends the value of a column, whose text begins at `at` in the record.
type csvCell func(at int, text []byte) error

func newCSV(columns []arrow.Field, o Options) (*csvDecoder, error) {
	if len(columns) == 0 {
		return nil, fmt.Errorf("%w: format csv needs columns", batch.ErrInvalid)
	}
	stamps, err := timestampForm(o.Timestamps)
	if err != nil {
		return nil, err
	}
	quote := `"`
	if o.CSV.Quote != nil {
		quote = *o.CSV.Quote
	}
	d := &csvDecoder{fields: columns, null: []byte(o.CSV.Null)}
	if d.delimiter, err = csvMark("delimiter", cmp.Or(o.CSV.Delimiter, ",")); err != nil {
		return nil, err
	}
	if quote != "" {
		if d.quote, err = csvMark("quote", quote); err != nil {
			return nil, err
		}
	}
	if d.quote == d.delimiter {
		return nil, fmt.Errorf("%w: delimiter and quote are both %q", batch.ErrInvalid, quote)
	}
	if d.root, err = newStructure(arrow.StructOf(columns...), stamps); err != nil {
		return nil, err
	}
	for i, m := range d.root.members {
		cell, err := d.cell(columns[i], m, stamps)
		if err != nil {
			return nil, err
		}
		d.cells = append(d.cells, cell)
	}
	return d, nil
}

func csvMark(key, text string) (byte, error) {
	if len(text) != 1 || text[0] >= utf8.RuneSelf || text[0] == '\n' || text[0] == '\r' || text[0] == 0 {
		return 0, fmt.Errorf("%w: %s: %q is not one ASCII character", batch.ErrInvalid, key, text)
	}
	return text[0], nil
}

// cell returns what reads a column's values.
func (d *csvDecoder) cell(f arrow.Field, c column, stamps timestamps) (csvCell, error) {
	s := &d.scanner
	switch t := f.Type.(type) {
	case *arrow.StringType:
		c := c.(*varied)
		return func(at int, text []byte) error {
			if !utf8.Valid(text) {
				return s.failAt(at+invalidAt(text), "the text is not valid UTF-8")
			}
			c.append(nonNil(text))
			return nil
		}, nil
	case *arrow.BinaryType:
		c := c.(*varied)
		return func(at int, text []byte) error {
			data, err := s.base64(at, c.data, text)
			if err != nil {
				return err
			}
			c.data = data
			c.end()
			return nil
		}, nil
	case *arrow.Decimal128Type:
		c := c.(*decimal)
		return trimmed(func(at int, text []byte) error { return c.text(s, at, text) }), nil
	case *arrow.Date32Type:
		return fixedCell(c.(*fixed[int32]), s.date), nil
	case *arrow.Time64Type:
		return fixedCell(c.(*fixed[int64]), s.time), nil
	case *arrow.TimestampType:
		if stamps != 0 {
			return d.numberCell(c), nil
		}
		zoned, unit := t.TimeZone != "", int64(t.Unit.Multiplier())
		return fixedCell(c.(*fixed[int64]), func(at int, text []byte) (int64, error) { return s.timestamp(at, text, zoned, unit) }), nil
	case *extensions.UUIDType:
		c := c.(*uuids)
		return trimmed(func(at int, text []byte) error { return c.text(s, at, text) }), nil
	case *arrow.BooleanType:
		c := c.(*boolean)
		return trimmed(func(at int, text []byte) error {
			truth := byte(0)
			switch {
			case bytes.EqualFold(text, []byte("true")):
				truth = 1
			case bytes.EqualFold(text, []byte("false")):
			default:
				return s.failAt(at, "expected true or false, found %.40q", text)
			}
			c.values = append(c.values, truth)
			c.push(true)
			return nil
		}), nil
	case *arrow.StructType, *arrow.MapType, *arrow.ListType:
		return nil, fmt.Errorf("%w: column %q: a %s has no place in a line of CSV; read it as VARCHAR and take it apart in SQL", batch.ErrInvalid, f.Name, t.Name())
	}
	return d.numberCell(c), nil
}

// fixedCell reads values by a function of their text.
func fixedCell[T int32 | int64](c *fixed[T], parse func(int, []byte) (T, error)) csvCell {
	return trimmed(func(at int, text []byte) error {
		v, err := parse(at, text)
		if err != nil {
			return err
		}
		c.add(v)
		return nil
	})
}

// numberCell reads numbers as JSON has them.
func (d *csvDecoder) numberCell(c column) csvCell {
	var sub scanner
	return trimmed(func(at int, text []byte) error {
		sub.b, sub.i = text, 0
		n := c.len()
		err := c.json(&sub, 0)
		if err == nil && sub.i < len(text) {
			c.cut(n)
			err = sub.fail("a number ends before %.40q", text[sub.i:])
		}
		switch {
		case err == nil:
			return nil
		case len(text) == 0:
			return d.scanner.failAt(at, "expected a number, found nothing")
		}
		return moved(err, at)
	})
}

// moved says where an error inside of a value is in the record.
func moved(err error, by int) error {
	var e *Error
	if errors.As(err, &e) {
		return &Error{Code: e.Code, Reason: e.Reason, Pos: by + e.Pos}
	}
	return err
}

// trimmed leaves out spaces around a value.
func trimmed(read csvCell) csvCell {
	return func(at int, text []byte) error {
		for len(text) > 0 && text[0] == ' ' {
			at, text = at+1, text[1:]
		}
		return read(at, bytes.TrimRight(text, " "))
	}
}

func (d *csvDecoder) Fields() []arrow.Field { return d.fields }
func (d *csvDecoder) Rows() int             { return d.root.len() }
func (d *csvDecoder) Bytes() int            { return d.root.bytes() }
func (d *csvDecoder) cut(rows int)          { d.root.cut(rows) }
func (d *csvDecoder) given(i int) bool      { return d.root.memberGiven(i) }

func (d *csvDecoder) Take() []arrow.Array {
	return d.root.takeMembers()
}

func (d *csvDecoder) Append(r Record) error {
	if r.Value == nil {
		return d.root.nulls("the value is null (a tombstone)", nil)
	}
	n := d.root.len()
	if err := d.line(r.Value); err != nil {
		d.root.cut(n)
		return err
	}
	d.root.push(true)
	return nil
}

// line reads the values of one line.
func (d *csvDecoder) line(value []byte) error {
	d.scanner.b = value
	end := len(value)
	if end > 0 && value[end-1] == '\n' {
		if end--; end > 0 && value[end-1] == '\r' {
			end--
		}
	}
	for i, k := 0, 0; ; k++ {
		text, next, quoted, err := d.value(i, end)
		if err != nil {
			return err
		}
		if k == len(d.cells) {
			return &Error{Code: batch.CodeSchema, Reason: fmt.Sprintf("there are more values than the %d columns", k), Pos: i}
		}
		if err := d.put(k, i, text, quoted); err != nil {
			return named(err, d.fields[k].Name)
		}
		if next > end {
			if k+1 < len(d.cells) {
				return &Error{Code: batch.CodeSchema, Reason: fmt.Sprintf("there are %d values, and %d columns: %q is missing", k+1, len(d.cells), d.fields[k+1].Name), Pos: end}
			}
			return nil
		}
		i = next
	}
}

func (d *csvDecoder) put(k, at int, text []byte, quoted bool) error {
	if !quoted && bytes.Equal(text, d.null) {
		if !d.fields[k].Nullable {
			return d.scanner.failAt(at, "it is NULL")
		}
		d.root.members[k].null()
		return nil
	}
	if quoted {
		at++
	}
	return d.cells[k](at, text)
}

// value returns the value at i, and where the next one begins: beyond end, where
// there is none.
func (d *csvDecoder) value(i, end int) (text []byte, next int, quoted bool, err error) {
	b := d.scanner.b[:end]
	if i < end && d.quote != 0 && b[i] == d.quote {
		text, next, err = d.quotedValue(i, end)
		if err == nil && next < end && b[next] != d.delimiter {
			err = d.scanner.failAt(next, "expected the delimiter behind a value in quotes, found %q", b[next])
		}
		return text, next + 1, true, err
	}
	for next = i; next < end; next++ {
		switch c := b[next]; {
		case c == d.delimiter:
			return b[i:next], next + 1, false, nil
		case c == '\n' || c == '\r':
			return nil, 0, false, d.scanner.failAt(next, "the value has a second line; a record is one line, but for line ends in quotes")
		case c == d.quote && d.quote != 0:
			return nil, 0, false, d.scanner.failAt(next, "a quote inside of a value without quotes; write the value in quotes and double the quote")
		}
	}
	return b[i:end], end + 1, false, nil
}

// quotedValue returns a value in quotes, and where its last quote ends.
func (d *csvDecoder) quotedValue(i, end int) (text []byte, next int, err error) {
	b := d.scanner.b
	from := i + 1
	d.unquoted = d.unquoted[:0]
	for at := from; ; {
		n := bytes.IndexByte(b[at:end], d.quote)
		if n < 0 {
			return nil, 0, d.scanner.failAt(i, "a value in quotes does not end")
		}
		if at += n; at+1 < end && b[at+1] == d.quote {
			d.unquoted = append(d.unquoted, b[from:at+1]...)
			at += 2
			from = at
			continue
		}
		if len(d.unquoted) == 0 {
			return b[from:at], at + 1, nil
		}
		d.unquoted = append(d.unquoted, b[from:at]...)
		return d.unquoted, at + 1, nil
	}
}
