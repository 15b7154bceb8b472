package spectest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/big"
	"slices"
	"strings"
)

// table is a sink's table with its rows as JSON objects.
type table struct {
	name  string // of the sink
	ident string // namespace.table
	rows  []string
}

type tables []table

// rows are those of a sink, or of a table by its full name.
func (t tables) rows(name string) ([]string, bool) {
	for _, one := range t {
		if one.name == name || one.ident == name {
			return one.rows, true
		}
	}
	return nil, false
}

func (t tables) names() (all []string) {
	for _, one := range t {
		all = append(all, one.name)
	}
	return all
}

// canonicalRows brings rows, a JSON object a line, to the one form of their
// meaning: members by name, numbers by value, NULLs left out.
func canonicalRows(text string) ([]string, error) {
	var all []string
	number := 0
	for line := range strings.Lines(text) {
		number++
		if strings.TrimSpace(line) == "" {
			continue
		}
		row, err := canonical(line)
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", number, err)
		}
		all = append(all, row)
	}
	slices.Sort(all)
	return all, nil
}

func canonical(line string) (string, error) {
	d := json.NewDecoder(strings.NewReader(line))
	d.UseNumber()
	var row map[string]any
	if err := d.Decode(&row); err != nil {
		return "", fmt.Errorf("a row is a JSON object: %w", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return "", errors.New("there is more than one JSON object in it")
	}
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(simplified(row)); err != nil {
		return "", err
	}
	return strings.TrimSuffix(b.String(), "\n"), nil
}

// digitsMax is how long a number may be that is compared by its value.
const digitsMax = 100

// simplified leaves NULLs out of objects and writes equal numbers alike.
func simplified(v any) any {
	switch v := v.(type) {
	case map[string]any:
		out := map[string]any{}
		for name, member := range v {
			if member != nil {
				out[name] = simplified(member)
			}
		}
		return out
	case []any:
		out := make([]any, 0, len(v))
		for _, element := range v {
			out = append(out, simplified(element))
		}
		return out
	case json.Number:
		return number(v)
	default:
		return v
	}
}

// number has no zeros behind the point, and no exponent where it is small.
func number(n json.Number) json.Number {
	text := n.String()
	if mantissa, exponent, ok := strings.Cut(strings.ToLower(text), "e"); ok && (len(exponent) > 3 || len(mantissa) > digitsMax) {
		return n
	}
	r, ok := new(big.Rat).SetString(text)
	if !ok {
		return n
	}
	digits, exact := r.FloatPrec()
	if !exact {
		return n
	}
	return json.Number(r.FloatString(digits))
}

// shownMax is how many rows a difference shows.
const shownMax = 20

// difference shows rows that are missing with -, and those that should not be
// there with +; "" if there are none. Both are sorted.
func difference(want, have []string) string {
	var lines []string
	i, j := 0, 0
	for i < len(want) || j < len(have) {
		switch {
		case j == len(have) || i < len(want) && want[i] < have[j]:
			lines = append(lines, "- "+want[i])
			i++
		case i == len(want) || have[j] < want[i]:
			lines = append(lines, "+ "+have[j])
			j++
		default:
			i, j = i+1, j+1
		}
	}
	if len(lines) == 0 {
		return ""
	}
	head := fmt.Sprintf("%d rows were expected, there are %d; - is missing, + should not be there\n", len(want), len(have))
	if more := len(lines) - shownMax; more > 0 {
		lines = append(lines[:shownMax], fmt.Sprintf("… and %d more", more))
	}
	return head + strings.Join(lines, "\n")
}
