package decode

import (
	"fmt"
	"math"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/memory"

	"github.com/frazil-io/frazil/internal/batch"
)

func buffers(bitmap *memory.Buffer, data []byte) []*memory.Buffer {
	return []*memory.Buffer{bitmap, memory.NewBufferBytes(data)}
}

// timestamps is the form of timestamps in JSON: 0 for RFC 3339 text, else how
// many nanoseconds one unit of the number has.
type timestamps int64

func timestampForm(name string) (timestamps, error) {
	forms := map[string]timestamps{"": 0, "rfc3339": 0, "s": 1e9, "ms": 1e6, "us": 1e3, "ns": 1}
	form, ok := forms[name]
	if !ok {
		return 0, fmt.Errorf("%w: timestamps: %q is not rfc3339, s, ms, us or ns", batch.ErrInvalid, name)
	}
	return form, nil
}

// parser returns the function that reads one timestamp in the type's unit.
func (f timestamps) parser(t *arrow.TimestampType) func(*scanner) (int64, error) {
	unit := int64(t.Unit.Multiplier())
	if f != 0 {
		return func(s *scanner) (int64, error) { return parseEpoch(s, int64(f), unit) }
	}
	zoned := t.TimeZone != ""
	return func(s *scanner) (int64, error) { return parseRFC3339(s, zoned, unit) }
}

// parseEpoch reads a number of units of `from` nanoseconds. It may be written as
// an integer column's may: 1e9 is one, 0.5 is not.
func parseEpoch(s *scanner, from, to int64) (int64, error) {
	at := s.i
	n, err := s.number()
	if err != nil {
		return 0, err
	}
	if !n.exact { // more than 18 digits: nanoseconds of today have 19
		v, fraction, ok := unscaled(n.text, 0)
		switch {
		case fraction:
			return 0, s.failAt(at, "%.40s is not an integer timestamp", n.text)
		case !ok || !v.IsInt64():
			return 0, s.failAt(at, "%.40s is out of range for a timestamp", n.text)
		}
		n.value = v.Int64()
	}
	if from >= to {
		k := from / to
		if n.value > math.MaxInt64/k || n.value < math.MinInt64/k {
			return 0, s.failAt(at, "%.40s is out of range for a timestamp", n.text)
		}
		return n.value * k, nil
	}
	return floorDiv(n.value, to/from), nil
}

func floorDiv(a, b int64) int64 {
	q := a / b
	if a%b < 0 {
		q--
	}
	return q
}

// parseRFC3339 reads "2026-01-02T15:04:05.123Z" (RFC 3339 section 5.6), with a
// zone exactly where the column has one.
func parseRFC3339(s *scanner, zoned bool, unit int64) (int64, error) {
	if s.peek() != '"' {
		return 0, s.unexpected("a timestamp as text (timestamps: s, ms, us or ns reads numbers)")
	}
	at := s.i
	text, err := s.text()
	if err != nil {
		return 0, err
	}
	return s.timestamp(at, text, zoned, unit)
}

func (s *scanner) timestamp(at int, text []byte, zoned bool, unit int64) (int64, error) {
	bad := func(why string) (int64, error) {
		return 0, s.failAt(at, "the text %.40q is not a timestamp: %s", text, why)
	}
	if len(text) < 19 || text[10]|0x20 != 't' && text[10] != ' ' {
		return bad("expected 2026-01-02T15:04:05Z")
	}
	days, ok := parseDay(text[:10])
	if !ok {
		return bad("expected 2026-01-02T15:04:05Z")
	}
	nanos, rest, ok := parseClock(text[11:])
	if !ok {
		return bad("expected a time such as 15:04:05.123")
	}
	offset, hasZone, ok := parseZone(rest)
	switch {
	case !ok:
		return bad("expected a zone such as Z or +02:00")
	case zoned && !hasZone:
		return bad("it has no zone; read it as TIMESTAMP")
	case !zoned && hasZone:
		return bad("it has a zone; read it as TIMESTAMPTZ")
	}
	seconds := days*86400 + nanos/1e9 - offset
	perSecond := 1e9 / unit
	if seconds > math.MaxInt64/perSecond-1 || seconds < math.MinInt64/perSecond+1 {
		return bad("it is out of range")
	}
	return seconds*perSecond + nanos%1e9/unit, nil
}

func parseDate(s *scanner) (int32, error) {
	if s.peek() != '"' {
		return 0, s.unexpected("a date as text")
	}
	at := s.i
	text, err := s.text()
	if err != nil {
		return 0, err
	}
	return s.date(at, text)
}

func (s *scanner) date(at int, text []byte) (int32, error) {
	days, ok := parseDay(text)
	if !ok {
		return 0, s.failAt(at, "the text %.40q is not a date such as 2026-01-02", text)
	}
	return int32(days), nil
}

// parseTime reads a time of day into microseconds.
func parseTime(s *scanner) (int64, error) {
	if s.peek() != '"' {
		return 0, s.unexpected("a time as text")
	}
	at := s.i
	text, err := s.text()
	if err != nil {
		return 0, err
	}
	return s.time(at, text)
}

func (s *scanner) time(at int, text []byte) (int64, error) {
	nanos, rest, ok := parseClock(text)
	if !ok || len(rest) > 0 {
		return 0, s.failAt(at, "the text %.40q is not a time such as 15:04:05.123", text)
	}
	return nanos / 1e3, nil
}

// two reads two digits at i, -1 if there are none.
func two(b []byte, i int) int64 {
	hi, lo := b[i]-'0', b[i+1]-'0'
	if hi > 9 || lo > 9 {
		return -1
	}
	return int64(hi)*10 + int64(lo)
}

var monthDays = [...]int64{31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31}

// parseDay reads 2026-01-02 into days since 1970.
func parseDay(b []byte) (int64, bool) {
	if len(b) != 10 || b[4] != '-' || b[7] != '-' {
		return 0, false
	}
	hundreds, years, month, day := two(b, 0), two(b, 2), two(b, 5), two(b, 8)
	if hundreds < 0 || years < 0 || month < 1 || month > 12 || day < 1 || day > monthDays[month-1] {
		return 0, false
	}
	year := hundreds*100 + years
	if month == 2 && day == 29 && (year%4 != 0 || year%100 == 0 && year%400 != 0) {
		return 0, false
	}
	return civilDays(year, month, day), true
}

// civilDays counts days since 1970 in the proleptic Gregorian calendar, with
// years that begin in March so that the leap day comes last.
func civilDays(year, month, day int64) int64 {
	if month <= 2 {
		year--
		month += 12
	}
	era := floorDiv(year, 400)
	ofEra := year - era*400
	ofYear := (153*(month-3)+2)/5 + day - 1
	return era*146097 + ofEra*365 + ofEra/4 - ofEra/100 + ofYear - 719468
}

// parseClock reads 15:04:05.123456789 into nanoseconds and returns what follows.
func parseClock(b []byte) (nanos int64, rest []byte, ok bool) {
	if len(b) < 8 || b[2] != ':' || b[5] != ':' {
		return 0, nil, false
	}
	hour, minute, second := two(b, 0), two(b, 3), two(b, 6)
	if hour < 0 || hour > 23 || minute < 0 || minute > 59 || second < 0 || second > 59 {
		return 0, nil, false
	}
	nanos = (hour*3600 + minute*60 + second) * 1e9
	rest = b[8:]
	if len(rest) > 0 && rest[0] == '.' {
		i, unit := 1, int64(1e8)
		for i < len(rest) && rest[i]-'0' <= 9 {
			nanos += int64(rest[i]-'0') * unit
			unit /= 10
			i++
		}
		if i == 1 {
			return 0, nil, false
		}
		rest = rest[i:]
	}
	return nanos, rest, true
}

// parseZone reads Z, +02:00 or nothing into seconds east of Greenwich.
func parseZone(b []byte) (offset int64, there, ok bool) {
	switch {
	case len(b) == 0:
		return 0, false, true
	case len(b) == 1 && b[0]|0x20 == 'z':
		return 0, true, true
	case len(b) == 6 && (b[0] == '+' || b[0] == '-') && b[3] == ':':
		hour, minute := two(b, 1), two(b, 4)
		offset = hour*3600 + minute*60
		if b[0] == '-' {
			offset = -offset
		}
		return offset, true, hour >= 0 && hour <= 23 && minute >= 0 && minute <= 59
	}
	return 0, false, false
}
