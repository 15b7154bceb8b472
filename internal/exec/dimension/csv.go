package dimension

import (
	"bytes"
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/apache/arrow-go/v18/arrow"

	"github.com/frazil-io/frazil/internal/batch"
)

// CSVOptions say how a file of comma-separated values is read.
type CSVOptions struct {
	Path       string            // or s3://bucket/key
	Properties map[string]string // for s3, as objstore takes them
	NoHeader   bool              // the first line is data; then Columns are needed
	Delimiter  rune              // 0: a comma
	Null       string            // the text that stands for NULL; "": nothing between two delimiters
	// Columns are the types, by the header's names, or without one in order. If
	// there are none, they are found once: see sniff.
	Columns []arrow.Field
}

// csvFile is RFC 4180 in UTF-8.
type csvFile struct {
	object
	CSVOptions
}

// CSV opens a file of comma-separated values.
func CSV(ctx context.Context, c CSVOptions, o Options) (*Copied, error) {
	if c.Columns != nil {
		c.Columns = nullable(c.Columns)
	}
	return open(ctx, csvFile{object{c.Path, c.Properties, o.BytesMax}, c}, o)
}

func (f csvFile) columns(ctx context.Context, was []arrow.Field) ([]arrow.Field, error) {
	if f.Columns != nil {
		if _, err := newBuilder(f.Columns, 0); err != nil {
			return nil, err
		}
		return f.Columns, nil
	}
	r, names, err := f.open(ctx)
	if err != nil {
		return nil, err
	}
	if sameNames(names, was) {
		return was, nil // found before: they stay
	}
	return f.sniff(r, names)
}

func sameNames(names []string, fields []arrow.Field) bool {
	return slices.EqualFunc(names, fields, func(n string, f arrow.Field) bool { return n == f.Name })
}

// open reads the file and its header.
func (f csvFile) open(ctx context.Context) (*csv.Reader, []string, error) {
	data, err := f.read(ctx)
	if err != nil {
		return nil, nil, err
	}
	r := csv.NewReader(bytes.NewReader(bytes.TrimPrefix(data, []byte("\ufeff"))))
	r.ReuseRecord = true
	if f.Delimiter != 0 {
		r.Comma = f.Delimiter
	}
	if f.NoHeader {
		r.FieldsPerRecord = len(f.Columns)
		var names []string
		for _, c := range f.Columns {
			names = append(names, c.Name)
		}
		return r, names, nil
	}
	header, err := r.Read()
	if errors.Is(err, io.EOF) {
		return nil, nil, fmt.Errorf("%w: %s: the file is empty; it needs a header, or header: false with columns", batch.ErrInvalid, f.Path)
	}
	if err != nil {
		return nil, nil, f.broken(err)
	}
	names := slices.Clone(header)
	seen := map[string]bool{}
	for i, n := range names {
		switch lower := strings.ToLower(n); {
		case n == "" || !utf8.ValidString(n):
			return nil, nil, fmt.Errorf("%w: %s: line 1: column %d of the header has no name", batch.ErrInvalid, f.Path, i+1)
		case seen[lower]:
			return nil, nil, fmt.Errorf("%w: %s: line 1: the header has %q twice", batch.ErrInvalid, f.Path, n)
		default:
			seen[lower] = true
		}
	}
	return r, names, nil
}

// broken says where the file is no CSV.
func (f csvFile) broken(err error) error {
	var p *csv.ParseError
	switch {
	case errors.As(err, &p) && errors.Is(p.Err, csv.ErrFieldCount):
		return fmt.Errorf("%w: %s: line %d: it has another number of values than the header, or than columns", batch.ErrInvalid, f.Path, p.Line)
	case errors.As(err, &p):
		return fmt.Errorf("%w: %s: line %d column %d: %w", batch.ErrInvalid, f.Path, p.Line, p.Column, p.Err)
	}
	return fmt.Errorf("%w: %s: %w", batch.ErrInvalid, f.Path, err)
}

func (f csvFile) parquet(ctx context.Context, fields []arrow.Field) ([]byte, error) {
	r, names, err := f.open(ctx)
	if err != nil {
		return nil, err
	}
	from := make([]int, len(fields))
	for i, c := range fields {
		if from[i] = slices.IndexFunc(names, func(n string) bool { return strings.EqualFold(n, c.Name) }); from[i] < 0 {
			return nil, fmt.Errorf("%w: %s: the header has no column %q; it has %s", batch.ErrInvalid, f.Path, c.Name, strings.Join(names, ", "))
		}
	}
	b, err := newBuilder(fields, f.bytesMax)
	if err != nil {
		return nil, err
	}
	defer b.Release()
	for {
		record, err := r.Read()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, f.broken(err)
		}
		for i, at := range from {
			if record[at] == f.Null {
				b.null(i)
				continue
			}
			if err := b.text(i, record[at]); err != nil {
				line, _ := r.FieldPos(at)
				return nil, f.wrong(line, err)
			}
		}
	}
	rows := b.NewRecordBatch()
	defer rows.Release()
	return encode(rows)
}

func (f csvFile) wrong(line int, err error) error {
	if kind(err) != nil {
		return fmt.Errorf("%s: line %d: %w", f.Path, line, err)
	}
	hint := "correct it"
	if f.Columns == nil {
		hint = "correct it, or declare columns"
	}
	return fmt.Errorf("%w: %s: line %d: %w; %s", batch.ErrInvalid, f.Path, line, err, hint)
}
