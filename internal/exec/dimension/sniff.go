package dimension

import (
	"encoding/csv"
	"errors"
	"io"
	"regexp"

	"github.com/apache/arrow-go/v18/arrow"
)

// guess is a type that a column may have, and what its values look like.
type guess struct {
	kind arrow.DataType
	form *regexp.Regexp
}

// fits says whether a text is a value of the guess: of its form, and as such
// readable.
func (g guess) fits(text string) bool {
	if !g.form.MatchString(text) {
		return false
	}
	switch t := g.kind.(type) {
	case *arrow.Date32Type:
		_, err := parseDate(text)
		return err == nil
	case *arrow.TimestampType:
		_, err := timestamps(t)(text)
		return err == nil
	}
	return true
}

// guesses, the narrower ones first. A text that would lose something keeps a
// column VARCHAR: leading zeros, more digits than a DOUBLE holds.
var guesses = []guess{
	{arrow.FixedWidthTypes.Boolean, regexp.MustCompile(`^(?i:true|false)$`)},
	{arrow.PrimitiveTypes.Int64, regexp.MustCompile(`^-?(0|[1-9][0-9]{0,17})$`)},
	{arrow.PrimitiveTypes.Float64, regexp.MustCompile(`^-?(0|[1-9][0-9]{0,14})(\.[0-9]{1,15})?([eE][+-]?[0-9]{1,2})?$`)},
	{arrow.FixedWidthTypes.Date32, regexp.MustCompile(`^[0-9]{4}-[01][0-9]-[0-3][0-9]$`)},
	{&arrow.TimestampType{Unit: arrow.Microsecond}, regexp.MustCompile(`^[0-9]{4}-[01][0-9]-[0-3][0-9][ T][0-2][0-9]:[0-5][0-9](:[0-5][0-9](\.[0-9]{1,6})?)?$`)},
	{&arrow.TimestampType{Unit: arrow.Microsecond, TimeZone: "UTC"}, regexp.MustCompile(`^[0-9]{4}-[01][0-9]-[0-3][0-9][ T][0-2][0-9]:[0-5][0-9](:[0-5][0-9](\.[0-9]{1,6})?)?(Z|[+-][0-2][0-9](:?[0-5][0-9])?)$`)},
}

// sniff finds the narrowest type for each column that all its values have;
// VARCHAR if there is none, or no value.
func (f csvFile) sniff(r *csv.Reader, names []string) ([]arrow.Field, error) {
	possible := make([][]bool, len(names))
	seen := make([]bool, len(names))
	for i := range possible {
		possible[i] = make([]bool, len(guesses))
		for k := range guesses {
			possible[i][k] = true
		}
	}
	for {
		record, err := r.Read()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, f.broken(err)
		}
		for i, v := range record {
			if v == f.Null {
				continue
			}
			seen[i] = true
			for k, g := range guesses {
				possible[i][k] = possible[i][k] && g.fits(v)
			}
		}
	}
	fields := make([]arrow.Field, len(names))
	for i, n := range names {
		fields[i] = arrow.Field{Name: n, Type: arrow.BinaryTypes.String, Nullable: true}
		for k, g := range guesses {
			if seen[i] && possible[i][k] {
				fields[i].Type = g.kind
				break
			}
		}
	}
	return fields, nil
}
