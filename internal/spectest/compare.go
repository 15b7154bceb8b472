package spectest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/big"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"
)

// table is a sink's table with its rows as JSON objects.
type table struct {
	name  string // of the sink
	ident string // namespace.table
	rows  []string
	// instants are the columns of type TIMESTAMPTZ: one moment has many texts.
	instants map[string]bool
}

type tables []table

// of is the table of a sink, or one by its full name.
func (t tables) of(name string) (table, bool) {
	for _, one := range t {
		if one.name == name || one.ident == name {
			return one, true
		}
	}
	return table{}, false
}

// inUTC writes the moments of canonical rows as tables have them.
func (t table) inUTC(rows []string) ([]string, error) {
	if len(t.instants) == 0 {
		return rows, nil
	}
	all := make([]string, 0, len(rows))
	for _, line := range rows {
		row, err := parsed(line)
		if err != nil {
			return nil, err
		}
		for name := range t.instants {
			text, _ := row[name].(string)
			if at, err := time.Parse(time.RFC3339Nano, text); err == nil {
				row[name] = at.UTC().Format(time.RFC3339Nano)
			}
		}
		if line, err = spelled(row); err != nil {
			return nil, err
		}
		all = append(all, line)
	}
	slices.Sort(all)
	return all, nil
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
	for line := range strings.Lines(strings.TrimPrefix(text, byteOrderMark)) {
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
	row, err := parsed(line)
	if err != nil {
		return "", err
	}
	return spelled(row)
}

func parsed(line string) (map[string]any, error) {
	d := json.NewDecoder(strings.NewReader(line))
	d.UseNumber()
	var row map[string]any
	if err := d.Decode(&row); err != nil {
		return nil, fmt.Errorf("a row is a JSON object in one line: %w", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("there is more than one JSON object in it")
	}
	return row, nil
}

func spelled(row map[string]any) (string, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(simplified(row)); err != nil {
		return "", err
	}
	return strings.TrimSuffix(b.String(), "\n"), nil
}

// digitsMax and exponentMax are how long a number may be that is compared by its
// value, and how far its point may be away: any DOUBLE is within.
const (
	digitsMax   = 100
	exponentMax = 400
)

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

// number has no zeros behind the point, and no exponent where it is short.
func number(n json.Number) json.Number {
	text := n.String()
	if mantissa, exponent, ok := strings.Cut(strings.ToLower(text), "e"); ok {
		if e, err := strconv.Atoi(exponent); err != nil || e < -exponentMax || e > exponentMax || len(mantissa) > digitsMax {
			return n
		}
	}
	r, ok := new(big.Rat).SetString(text)
	if !ok {
		return n
	}
	digits, exact := r.FloatPrec()
	if !exact {
		return n
	}
	plain := r.FloatString(digits)
	if len(plain) <= digitsMax {
		return json.Number(plain)
	}
	return json.Number(scientific(plain))
}

// scientific writes a number with one digit before the point and an exponent: zeros in
// their hundreds are not to be read.
func scientific(plain string) string {
	sign := ""
	if strings.HasPrefix(plain, "-") {
		sign, plain = "-", plain[1:]
	}
	whole, fraction, _ := strings.Cut(plain, ".")
	digits := strings.TrimLeft(whole+fraction, "0")
	exponent := len(whole) - 1 - (len(whole+fraction) - len(digits))
	digits = strings.TrimRight(digits, "0")
	text := sign + digits[:1]
	if len(digits) > 1 {
		text += "." + digits[1:]
	}
	return fmt.Sprintf("%se%+d", text, exponent)
}

// shownMax is how many rows a difference shows.
const shownMax = 20

// difference shows rows that are missing with -, and those that should not be
// there with +; "" if there are none. Rows that look like one another stand together,
// with the columns in which they differ.
func difference(want, have []string) string {
	missing, extra := apart(want, have)
	if len(missing)+len(extra) == 0 {
		return ""
	}
	head := fmt.Sprintf("%d rows were expected, there are %d; - is missing, + should not be there\n", len(want), len(have))
	all := len(missing) + len(extra)
	missing, extra = balanced(missing, extra)
	var lines []string
	for _, row := range missing {
		lines = append(lines, "- "+row)
		at, columns := nearest(row, extra)
		if at < 0 {
			continue
		}
		lines = append(lines, "+ "+extra[at], "  in "+strings.Join(columns, ", "))
		extra = slices.Delete(extra, at, at+1)
	}
	for _, row := range extra {
		lines = append(lines, "+ "+row)
	}
	if all > shownMax {
		lines = append(lines, fmt.Sprintf("… and %d more", all-shownMax))
	}
	return head + strings.Join(lines, "\n")
}

// apart are the rows of one list that the other one does not have. Both are sorted.
func apart(want, have []string) (missing, extra []string) {
	i, j := 0, 0
	for i < len(want) || j < len(have) {
		switch {
		case j == len(have) || i < len(want) && want[i] < have[j]:
			missing = append(missing, want[i])
			i++
		case i == len(want) || have[j] < want[i]:
			extra = append(extra, have[j])
			j++
		default:
			i, j = i+1, j+1
		}
	}
	return missing, extra
}

// balanced cuts the lists to what is shown, some of either where both are long.
func balanced(missing, extra []string) (a, b []string) {
	most := max(shownMax/2, shownMax-len(extra))
	missing = missing[:min(len(missing), most)]
	return missing, slices.Clone(extra[:min(len(extra), shownMax-len(missing))])
}

// nearest finds the row that has the most members like those of another one, at least
// half of them, and names those in which the two differ; -1: there is none.
func nearest(row string, among []string) (at int, columns []string) {
	at = -1
	one, err := parsed(row)
	if err != nil {
		return at, nil
	}
	for i, text := range among {
		two, err := parsed(text)
		if err != nil {
			continue
		}
		var differ []string
		for name := range one {
			if !reflect.DeepEqual(one[name], two[name]) {
				differ = append(differ, name)
			}
		}
		if 2*len(differ) > len(one) {
			continue
		}
		for name := range two {
			if _, ok := one[name]; !ok {
				differ = append(differ, name)
			}
		}
		if at < 0 || len(differ) < len(columns) {
			slices.Sort(differ)
			at, columns = i, differ
		}
	}
	return at, columns
}
