package decode

import (
	"cmp"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math/big"
	"slices"

	"github.com/apache/arrow-go/v18/arrow"

	"github.com/frazil-io/frazil/internal/batch"
)

// dayForm is the form of times that count days.
const dayForm timestamps = 86400 * 1e9

// form is how the values of one column are written, as a schema has it.
type form struct {
	unit    timestamps // of a time that is a number; 0: the schema says nothing of it
	base64  bool       // a decimal is its unscaled bytes, in base64
	decimal int        // its scale then
	name    string     // the schema's, for people
}

// leaf is a column whose form depends on a schema.
type leaf struct {
	form
	stamps timestamps // of numbers where no schema says anything
}

// connect reads what Kafka Connect's JSON converter writes: {"schema": …,
// "payload": …}, or the payload alone. Of the schema it takes in which units
// times are, and what the scale of decimals is; a schema that comes again is
// compared, not parsed.
type connect struct {
	stamps timestamps
	row    func(depth int) error // decodes the payload
	part   string                // the field of the schema that describes the row; "": the whole
	roots  [][]*leaf             // of each structure that has the row's columns
	shape  *formShape
	flat   []form // no schema
	last   []byte // the text of the schema that the leaves have now; nil: none
	known  map[string][]form
	bytes  int // of the texts in known
}

// knownMax bounds the texts of schemas that are kept.
const knownMax = 4 << 20

// formShape leads from names to leaves.
type formShape struct {
	leaf    int // -1: none
	names   []string
	members []*formShape
	element *formShape
}

func newConnect(stamps timestamps, part string) *connect {
	return &connect{stamps: stamps, part: part, known: map[string][]form{}}
}

// adapt makes the columns of a row read what the converter writes. It may be
// called again for another structure with the same columns.
func (c *connect) adapt(root *structure) {
	var leaves []*leaf
	c.shape = c.adaptColumn(root, root.kind, &leaves)
	c.roots = append(c.roots, leaves)
	c.flat = make([]form, len(leaves))
}

func (c *connect) adaptColumn(col column, t arrow.DataType, leaves *[]*leaf) *formShape {
	shape := &formShape{leaf: -1}
	add := func() *leaf {
		l := &leaf{stamps: c.stamps}
		shape.leaf = len(*leaves)
		*leaves = append(*leaves, l)
		return l
	}
	switch col := col.(type) {
	case *structure:
		for i, f := range col.kind.Fields() {
			shape.names = append(shape.names, f.Name)
			shape.members = append(shape.members, c.adaptColumn(col.members[i], f.Type, leaves))
		}
	case *list:
		elements := col.elements
		inner := t
		if m, ok := t.(*arrow.MapType); ok {
			elements, inner = col.elements.(*structure).members[1], m.ItemType()
		} else if l, ok := t.(*arrow.ListType); ok {
			inner = l.Elem()
		}
		shape.element = c.adaptColumn(elements, inner, leaves)
	case *decimal:
		col.connect = add()
	case *fixed[int32]:
		if t.ID() == arrow.DATE32 {
			col.parse = add().date
		}
	case *fixed[int64]:
		switch t := t.(type) {
		case *arrow.Time64Type:
			col.parse = add().time
		case *arrow.TimestampType:
			col.parse = add().timestamp(t)
		}
	}
	return shape
}

// wrapped says whether the object that the scanner stands before is {"schema": …,
// "payload": …}, by its first key. columns are names that do not count.
func wrapped(s *scanner, columns map[string]int) bool {
	if s.peek() != '{' {
		return false
	}
	i := s.i + 1
	for i < len(s.b) && (s.b[i] == ' ' || s.b[i] == '\n' || s.b[i] == '\t' || s.b[i] == '\r') {
		i++
	}
	for _, key := range [...]string{"schema", "payload"} {
		end := i + len(key) + 2
		if end <= len(s.b) && s.b[i] == '"' && s.b[end-1] == '"' && string(s.b[i+1:end-1]) == key {
			_, column := columns[key]
			return !column
		}
	}
	return false
}

// payload decodes what is in {"schema": …, "payload": …}.
func (c *connect) payload(s *scanner) error {
	const schema, payload = 1, 2
	seen, waits := 0, -1
	for first := true; ; first = false {
		key, more, err := s.member(first)
		if err != nil {
			return err
		}
		if !more {
			break
		}
		is := 0
		switch string(key) {
		case "schema":
			is = schema
		case "payload":
			is = payload
		}
		if seen&is != 0 {
			return s.fail("field %q is there twice", key)
		}
		seen |= is
		switch {
		case is == schema:
			err = c.schema(s)
		case is == payload && seen&schema == 0:
			s.peek()
			waits = s.i
			err = s.skip(1)
		case is == payload:
			err = c.row(1)
		default:
			err = s.skip(1)
		}
		if err != nil {
			return err
		}
	}
	switch {
	case seen&payload == 0:
		return &Error{Code: batch.CodeSchema, Reason: `there is a schema, and no "payload"`, Pos: -1}
	case waits < 0:
		return nil
	case seen&schema == 0:
		c.none()
	}
	end := s.i
	s.i = waits
	if err := c.row(1); err != nil {
		return err
	}
	s.i = end
	return nil
}

// none says that the values that follow have no schema.
func (c *connect) none() {
	if c.last != nil {
		c.apply(c.flat)
		c.last = nil
	}
}

func (c *connect) apply(forms []form) {
	for _, leaves := range c.roots {
		for i, l := range leaves {
			l.form = forms[i]
		}
	}
}

// schema consumes the schema that the scanner stands before.
func (c *connect) schema(s *scanner) error {
	if s.peek() == 'n' {
		c.none()
		return s.literal("null")
	}
	if n := len(c.last); n > 0 && len(s.b)-s.i >= n && string(s.b[s.i:s.i+n]) == string(c.last) {
		s.i += n // an object that begins so ends there
		return nil
	}
	if s.peek() != '{' {
		return s.unexpected("a schema")
	}
	start := s.i
	if err := s.skip(1); err != nil {
		return err
	}
	text := s.b[start:s.i]
	forms, ok := c.known[string(text)]
	if !ok {
		var err error
		if forms, err = c.parse(text); err != nil {
			return &Error{Code: batch.CodeSchema, Reason: fmt.Sprintf("the schema is not one of Kafka Connect's: %v", err), Pos: start}
		}
		if c.bytes += len(text); c.bytes > knownMax {
			clear(c.known)
			c.bytes = len(text)
		}
		c.known[string(text)] = forms
	}
	c.apply(forms)
	c.last = append(c.last[:0], text...)
	return nil
}

// connectSchema is a schema as the converter writes it.
type connectSchema struct {
	Type       string          `json:"type"`
	Field      string          `json:"field"`
	Name       string          `json:"name"`
	Fields     []connectSchema `json:"fields"`
	Items      *connectSchema  `json:"items"`
	Values     *connectSchema  `json:"values"`
	Parameters struct {
		Scale json.Number `json:"scale"`
	} `json:"parameters"`
}

func (c *connect) parse(text []byte) ([]form, error) {
	var root connectSchema
	if err := json.Unmarshal(text, &root); err != nil {
		return nil, err
	}
	forms := slices.Clone(c.flat)
	row := &root
	if c.part != "" {
		if row = root.field(c.part); row == nil {
			return forms, nil
		}
	}
	if row.Type != "struct" && len(c.shape.members) == 1 { // the only column is the whole
		return forms, c.shape.members[0].resolve(row, forms)
	}
	return forms, c.shape.resolve(row, forms)
}

func (s *connectSchema) field(name string) *connectSchema {
	for i := range s.Fields {
		if s.Fields[i].Field == name {
			return &s.Fields[i]
		}
	}
	return nil
}

func (f *formShape) resolve(s *connectSchema, forms []form) (err error) {
	if f.leaf >= 0 {
		forms[f.leaf], err = formOf(s)
		return err
	}
	for i, name := range f.names {
		if field := s.field(name); field != nil {
			if err := f.members[i].resolve(field, forms); err != nil {
				return err
			}
		}
	}
	if inner := cmp.Or(s.Items, s.Values); f.element != nil && inner != nil {
		return f.element.resolve(inner, forms)
	}
	return nil
}

// formOf is the form that the name of a schema stands for.
func formOf(s *connectSchema) (form, error) {
	f := form{name: s.Name}
	switch s.Name {
	case "io.debezium.time.Date", "org.apache.kafka.connect.data.Date":
		f.unit = dayForm
	case "io.debezium.time.Timestamp", "io.debezium.time.Time", "org.apache.kafka.connect.data.Timestamp", "org.apache.kafka.connect.data.Time":
		f.unit = 1e6
	case "io.debezium.time.MicroTimestamp", "io.debezium.time.MicroTime":
		f.unit = 1e3
	case "io.debezium.time.NanoTimestamp", "io.debezium.time.NanoTime":
		f.unit = 1
	case "org.apache.kafka.connect.data.Decimal":
		scale, err := s.Parameters.Scale.Int64()
		if err != nil || scale < -digitsMax || scale > digitsMax {
			return f, fmt.Errorf("the scale of the decimal %q is %q", s.Field, s.Parameters.Scale)
		}
		f.base64, f.decimal = true, int(scale)
	}
	return f, nil
}

// date reads days since 1970, or text, which may end with the Z of ISO 8601.
func (l *leaf) date(s *scanner) (int32, error) {
	at := s.i
	if s.peek() == '"' {
		text, err := s.text()
		if err != nil {
			return 0, err
		}
		if n := len(text); n == 11 && text[10] == 'Z' {
			text = text[:10]
		}
		days, ok := parseDay(text)
		if !ok {
			return 0, s.failAt(at, "the text %.40q is not a date such as 2026-01-02", text)
		}
		return int32(days), nil
	}
	days, err := parseEpoch(s, 1, 1)
	switch {
	case err != nil:
		return 0, err
	case l.unit != 0 && l.unit != dayForm:
		return 0, s.failAt(at, "its schema is %s, which no DATE is; declare the column as TIMESTAMP, or as TIME", l.name)
	case days != int64(int32(days)):
		return 0, s.failAt(at, "%d is out of range for a DATE, which is in days", days)
	}
	return int32(days), nil
}

// dayMicros is the length of a day in microseconds.
const dayMicros = 86400 * 1e6

// time reads a number since midnight, or text.
func (l *leaf) time(s *scanner) (int64, error) {
	at := s.i
	if s.peek() == '"' {
		text, err := s.text()
		if err != nil {
			return 0, err
		}
		nanos, rest, ok := parseClock(text)
		if !ok || len(rest) > 0 && string(rest) != "Z" {
			return 0, s.failAt(at, "the text %.40q is not a time such as 15:04:05.123, or with a Z", text)
		}
		return nanos / 1e3, nil
	}
	unit, err := l.units(s)
	if err != nil {
		return 0, err
	}
	v, err := parseEpoch(s, int64(unit), 1e3)
	if err == nil && (v < 0 || v >= dayMicros) {
		return 0, s.failAt(at, "it is not within a day; declare the column as BIGINT")
	}
	return v, err
}

// units are those of the number that comes.
func (l *leaf) units(s *scanner) (timestamps, error) {
	unit := cmp.Or(l.unit, l.stamps)
	if unit == 0 {
		return 0, s.fail("a time is a number, and nothing says in which unit; set timestamps: to ms, us or ns, or let the converter write schemas")
	}
	return unit, nil
}

// timestamp returns the function that reads a number since 1970, or text, which
// for a column without a zone may have that of UTC.
func (l *leaf) timestamp(t *arrow.TimestampType) func(*scanner) (int64, error) {
	unit := int64(t.Unit.Multiplier())
	return func(s *scanner) (int64, error) {
		if s.peek() != '"' {
			from, err := l.units(s)
			if err != nil {
				return 0, err
			}
			return parseEpoch(s, int64(from), unit)
		}
		return parseRFC3339(s, t.TimeZone != "" || endsWithZ(s), unit)
	}
}

// endsWithZ says whether the text that comes, which is not longer than any time
// is, ends with Z.
func endsWithZ(s *scanner) bool {
	for i := s.i + 1; i < min(len(s.b), s.i+40); i++ {
		if s.b[i] == '"' {
			return s.b[i-1] == 'Z'
		}
	}
	return false
}

// encoded says whether the decimal that comes is its unscaled bytes.
func (l *leaf) encoded(s *scanner) bool {
	c := s.peek()
	return c == '{' || c == '"' && l.base64
}

// decimal appends a decimal that is its unscaled bytes: in base64 with the
// schema's scale, or {"scale": …, "value": …}.
func (l *leaf) decimal(s *scanner, c *decimal) error {
	at := s.i
	if s.peek() == '"' {
		text, err := s.text()
		if err != nil {
			return err
		}
		return appendUnscaled(s, c, at, text, l.form.decimal)
	}
	var value []byte
	scale := int64(-1)
	for first := true; ; first = false {
		key, more, err := s.member(first)
		if err != nil {
			return err
		}
		if !more {
			break
		}
		switch string(key) {
		case "scale":
			scale, err = parseEpoch(s, 1, 1)
		case "value":
			if s.peek() != '"' {
				return s.unexpected("a text in base64")
			}
			var text []byte
			text, err = s.text()
			value = append([]byte{}, text...)
		default:
			err = s.skip(1)
		}
		if err != nil {
			return err
		}
	}
	if value == nil || scale < 0 || scale > digitsMax {
		return s.failAt(at, "the object is not a decimal with scale and value")
	}
	return appendUnscaled(s, c, at, value, int(scale))
}

// connectBytesMax is how many bytes a decimal may have: more than any column holds.
const connectBytesMax = 64

// appendUnscaled appends the integer in text, big-endian in two's complement and
// in base64, divided by ten to the power of scale.
func appendUnscaled(s *scanner, c *decimal, at int, text []byte, scale int) error {
	if len(text) > base64.StdEncoding.EncodedLen(connectBytesMax) {
		return s.failAt(at, "it is out of range for %s", c.t)
	}
	data, err := base64.StdEncoding.Strict().AppendDecode(nil, text)
	if err != nil || len(data) == 0 {
		return s.failAt(at, "the text %.40q is not the base64 of a decimal's bytes", text)
	}
	v := new(big.Int).SetBytes(data)
	if data[0]&0x80 != 0 {
		v.Sub(v, new(big.Int).Lsh(big.NewInt(1), uint(8*len(data))))
	}
	shift := int(c.t.Scale) - scale
	ten := new(big.Int).Exp(big.NewInt(10), big.NewInt(int64(max(shift, -shift))), nil)
	fraction := false
	if shift >= 0 {
		v.Mul(v, ten)
	} else {
		rest := new(big.Int)
		v.QuoRem(v, ten, rest)
		fraction = rest.Sign() != 0
	}
	return c.unscaled(s, at, text, v, fraction, true)
}
