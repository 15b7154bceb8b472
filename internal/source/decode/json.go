package decode

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"

	"github.com/frazil-io/frazil/internal/batch"
)

// jsonDecoder decodes one JSON object a record (RFC 8259), driven by the
// columns: keys are matched exactly, first against the one that followed the
// last time.
//
// A missing member is NULL. A member that is decoded or kept and is there twice
// is an error, and so are numbers that do not fit, text where a number belongs
// and the other way round, half surrogate pairs, invalid UTF-8 and anything
// behind the object. Members that are ignored are only checked for their syntax.
// Integers may be written as 1.0 or 1e3; a fraction is an error, as is a decimal
// with more digits than the column keeps. Fractions of a second beyond the
// column's unit are cut off.
type jsonDecoder struct {
	fields  []arrow.Field
	root    *structure
	scanner scanner
	unknown *varied
	extra   []byte // the unknown members of the current record, as JSON
	// extraKeys are their keys.
	extraKeys map[string]bool
	// whole says that JSON which is no object is the value of the only column.
	whole bool
	// connect, if not nil, unwraps {"schema": …, "payload": …}.
	connect *connect
	framed  bool // the registry's header stands before the object
	// schemas finds the schemas of a registry that gives the columns; nil: their ids
	// do not matter. met are those that it had.
	schemas Schemas
	met     map[int32]bool
	heading heading
}

func newJSON(columns []arrow.Field, o Options) (*jsonDecoder, error) {
	stamps, err := timestampForm(o.Timestamps)
	if err != nil {
		return nil, err
	}
	derived := len(columns) == 0
	switch {
	case !derived:
	case o.Reader.Text == "":
		return nil, fmt.Errorf("%w: format json needs columns", batch.ErrInvalid)
	default:
		if err := textForm(o.Timestamps); err != nil {
			return nil, err
		}
		if columns, err = jsonColumns(o.Reader); err != nil {
			return nil, err
		}
	}
	d := &jsonDecoder{fields: columns, heading: newHeading(o)}
	switch o.Framing {
	case "", "none":
	case "registry":
		d.framed = true
		if derived && o.Schemas != nil {
			d.schemas, d.met = o.Schemas, map[int32]bool{}
		}
	default:
		return nil, fmt.Errorf("%w: framing: %q is not registry or none", batch.ErrInvalid, o.Framing)
	}
	if d.root, err = newStructure(arrow.StructOf(columns...), stamps); err != nil {
		return nil, err
	}
	switch o.Unknown {
	case "", Ignore:
	case Reject:
		rejectUnknown(d.root)
	case Column:
		d.unknown, d.extraKeys = newVaried(arrow.BinaryTypes.String, nil), map[string]bool{}
		d.fields = append(columns[:len(columns):len(columns)], arrow.Field{Name: UnknownColumn, Type: arrow.BinaryTypes.String, Nullable: true})
		d.root.unknown = d.keepUnknown
	default:
		return nil, fmt.Errorf("%w: unknown_fields: %q is not ignore, reject or column", batch.ErrInvalid, o.Unknown)
	}
	return d, nil
}

func (d *jsonDecoder) Fields() []arrow.Field { return d.fields }
func (d *jsonDecoder) Rows() int             { return d.root.len() }

func (d *jsonDecoder) Bytes() int {
	if d.unknown != nil {
		return d.root.bytes() + d.unknown.bytes()
	}
	return d.root.bytes()
}

func (d *jsonDecoder) Append(r Record) error {
	n := d.root.len()
	if err := d.record(r); err != nil {
		d.cut(n)
		return err
	}
	return nil
}

func (d *jsonDecoder) record(r Record) error {
	if r.Value == nil {
		return d.nulls("the value is null (a tombstone)", nil)
	}
	if err := d.start(r); err != nil {
		return err
	}
	s := &d.scanner
	if d.connect != nil && wrapped(s, d.root.names) {
		if err := d.connect.payload(s); err != nil {
			return err
		}
		return s.end()
	}
	if d.connect != nil {
		d.connect.none()
	}
	if err := d.object(0); err != nil {
		return err
	}
	return s.end()
}

// start puts the scanner before the JSON of a record.
func (d *jsonDecoder) start(r Record) error {
	value := r.Value
	d.scanner.b, d.scanner.i = value, 0
	if !d.framed {
		return nil
	}
	if held := d.heading.of(r); held != nil {
		if d.schemas == nil {
			return nil
		}
		id, err := d.heading.exact(held)
		if err == nil && !d.met[id] {
			err = placeless(d.meet(id))
		}
		return err
	}
	if len(value) < headerSize || value[0] != headerMagic {
		return &Error{Code: batch.CodeDecode, Reason: "the value does not begin with the registry's header: a zero byte and the schema's id", Pos: 0}
	}
	d.scanner.i = headerSize
	if id := int32(binary.BigEndian.Uint32(value[1:headerSize])); d.schemas != nil && !d.met[id] {
		return d.meet(id)
	}
	return nil
}

// meet looks for a schema that a record names. Nothing of it is needed, but that
// it is there, and a newer one may give the source more columns.
func (d *jsonDecoder) meet(id int32) error {
	s, err := d.schemas.ByID(id)
	switch {
	case errors.Is(err, ErrUnknownSchema):
		return &Error{Code: batch.CodeSchema, Reason: fmt.Sprintf("schema %d: %v", id, err), Pos: 1}
	case err != nil:
		return err
	case s.Type != TypeJSON:
		return &Error{Code: batch.CodeSchema, Reason: fmt.Sprintf("schema %d is of type %s, and no JSON Schema", id, s.Type), Pos: 1}
	}
	d.met[id] = true
	return nil
}

// object appends the row that the scanner stands before.
func (d *jsonDecoder) object(depth int) error {
	s := &d.scanner
	d.extra = d.extra[:0]
	clear(d.extraKeys)
	if d.whole && s.peek() != '{' {
		return d.root.only(s, depth)
	}
	if err := d.root.json(s, depth); err != nil {
		return err
	}
	d.rest()
	return nil
}

// rest appends the members that are no columns.
func (d *jsonDecoder) rest() {
	switch {
	case d.unknown == nil:
	case len(d.extra) > 0:
		d.extra = append(d.extra, '}')
		d.unknown.append(d.extra)
	default:
		d.unknown.null()
	}
}

// nulls appends a row of NULLs, because there is no value. given, if not nil, says
// which columns have one from elsewhere.
func (d *jsonDecoder) nulls(why string, given func(column int) bool) error {
	if err := d.root.nulls(why, given); err != nil {
		return err
	}
	d.extra = d.extra[:0]
	d.rest()
	return nil
}

func (c *structure) nulls(why string, given func(column int) bool) error {
	for i, f := range c.kind.Fields() {
		if !f.Nullable && (given == nil || !given(i)) {
			return &Error{Reason: fmt.Sprintf("%s, and field %q is NOT NULL", why, f.Name), Pos: -1}
		}
	}
	c.null()
	return nil
}

// cut drops rows that were appended.
func (d *jsonDecoder) cut(rows int) {
	d.root.cut(rows)
	if d.unknown != nil && d.unknown.len() > rows {
		d.unknown.cut(rows)
	}
}

func (d *jsonDecoder) given(i int) bool { return d.root.memberGiven(i) }

func (d *jsonDecoder) Take() []arrow.Array {
	arrays := d.root.takeMembers()
	if d.unknown != nil {
		arrays = append(arrays, toArray(d.unknown.take()))
	}
	return arrays
}

func toArray(data arrow.ArrayData) arrow.Array {
	defer data.Release()
	return array.MakeFromData(data)
}

// keepUnknown collects a member of the record itself.
func (d *jsonDecoder) keepUnknown(s *scanner, key []byte, depth int) error {
	if d.extraKeys[string(key)] {
		return s.fail("field %q is there twice", key)
	}
	d.extraKeys[string(key)] = true
	name, err := json.Marshal(string(key))
	if err != nil {
		return s.fail("key %q: %v", key, err)
	}
	s.peek()
	start := s.i
	if err := s.skip(depth + 1); err != nil {
		return err
	}
	sep := byte(',')
	if len(d.extra) == 0 {
		sep = '{'
	}
	d.extra = append(append(append(append(d.extra, sep), name...), ':'), s.b[start:s.i]...)
	return nil
}

func rejectUnknown(c column) {
	switch c := c.(type) {
	case *structure:
		c.unknown = func(s *scanner, key []byte, _ int) error { return s.fail("unknown field %q", key) }
		for _, m := range c.members {
			rejectUnknown(m)
		}
	case *list:
		rejectUnknown(c.elements)
	}
}

func newStructure(t *arrow.StructType, stamps timestamps) (*structure, error) {
	n := t.NumFields()
	c := &structure{kind: t, names: map[string]int{}, next: make([]int, n+1), seen: make([]uint64, n)}
	for i, f := range t.Fields() {
		m, err := newField(f, stamps)
		if err != nil {
			return nil, fmt.Errorf("column %q: %w", f.Name, err)
		}
		c.members = append(c.members, m)
		c.names[f.Name] = i
		c.tokens = append(c.tokens, token(f.Name))
		c.next[i] = i + 1
	}
	c.next[n] = 0
	c.unknown = func(s *scanner, _ []byte, depth int) error { return s.skip(depth + 1) }
	return c, nil
}

// token is what follows the opening quote of a key, up to its colon.
func token(name string) string {
	if strings.ContainsFunc(name, func(r rune) bool { return r < 0x20 || r == '"' || r == '\\' }) {
		return "" // it is written with escapes
	}
	return name + `":`
}

// json appends the object that the scanner stands before.
func (c *structure) json(s *scanner, depth int) error {
	if s.peek() != '{' {
		return s.unexpected("an object")
	}
	c.object++
	if err := c.object1(s, depth); err != nil {
		return err
	}
	for i, m := range c.members {
		if c.seen[i] == c.object {
			continue
		}
		if f := c.kind.Field(i); !f.Nullable {
			return s.fail("field %q is missing", f.Name)
		}
		m.null()
	}
	c.push(true)
	return nil
}

// only appends a value of the only member, which stands for the whole.
func (c *structure) only(s *scanner, depth int) error {
	c.object++
	if err := c.member(s, 0, c.object, s.i, depth); err != nil {
		return err
	}
	c.push(true)
	return nil
}

func (c *structure) object1(s *scanner, depth int) error {
	s.i++
	if s.peek() == '}' {
		s.i++
		return nil
	}
	object := c.object
	for last := len(c.members); ; {
		at := s.i
		member, key, err := c.key(s, last)
		if err != nil {
			return err
		}
		if member < 0 {
			err = c.unknown(s, key, depth)
		} else {
			last = member
			err = c.member(s, member, object, at, depth)
		}
		if err != nil {
			return err
		}
		if more, err := s.comma('}'); !more {
			return err
		}
		s.peek()
	}
}

// key consumes a key and its colon, and returns its member, -1 for an unknown one.
func (c *structure) key(s *scanner, last int) (int, []byte, error) {
	if s.i >= len(s.b) || s.b[s.i] != '"' {
		return 0, nil, s.unexpected("a key in quotes")
	}
	if guess := c.next[last]; guess < len(c.tokens) {
		token, rest := c.tokens[guess], s.b[s.i+1:]
		if len(token) > 0 && len(rest) >= len(token) && string(rest[:len(token)]) == token {
			s.i += 1 + len(token)
			return guess, nil, nil
		}
	}
	key, err := s.text()
	if err != nil {
		return 0, nil, err
	}
	if s.peek() != ':' {
		return 0, nil, s.unexpected("a colon")
	}
	s.i++
	member, ok := c.names[string(key)]
	if !ok {
		return -1, key, nil
	}
	c.next[last] = member
	return member, nil, nil
}

func (c *structure) member(s *scanner, i int, object uint64, at, depth int) error {
	if c.seen[i] == object {
		return s.failAt(at, "field %q is there twice", c.kind.Field(i).Name)
	}
	c.seen[i] = object
	if s.peek() == 'n' {
		if err := s.literal("null"); err != nil {
			return err
		}
		if f := c.kind.Field(i); !f.Nullable {
			return s.failAt(at, "field %q is null", f.Name)
		}
		c.members[i].null()
		return nil
	}
	if err := c.members[i].json(s, depth+1); err != nil {
		return named(err, c.kind.Field(i).Name)
	}
	return nil
}

// named says in which field something is wrong.
func named(err error, field string) error {
	var e *Error
	if errors.As(err, &e) {
		return &Error{Code: e.Code, Reason: fmt.Sprintf("field %q: %s", field, e.Reason), Pos: e.Pos}
	}
	return err
}

func newList(t *arrow.ListType, stamps timestamps) (column, error) {
	elements, err := newField(t.ElemField(), stamps)
	if err != nil {
		return nil, err
	}
	return &list{kind: t, offsets: []int32{0}, elements: elements, parse: parseList}, nil
}

func parseList(c *list, s *scanner, depth int) error {
	if s.peek() != '[' {
		return s.unexpected("a list")
	}
	if s.i++; s.peek() == ']' {
		s.i++
		return nil
	}
	for {
		if s.peek() == 'n' {
			if err := s.literal("null"); err != nil {
				return err
			}
			c.elements.null()
		} else if err := c.elements.json(s, depth+1); err != nil {
			return err
		}
		if more, err := s.comma(']'); !more {
			return err
		}
	}
}

// newMap decodes an object whose keys are data. Its keys are texts.
func newMap(t *arrow.MapType, stamps timestamps) (column, error) {
	if t.KeyType().ID() != arrow.STRING {
		return nil, fmt.Errorf("%w: a MAP read from JSON has VARCHAR keys", batch.ErrInvalid)
	}
	values, err := newField(t.ItemField(), stamps)
	if err != nil {
		return nil, err
	}
	keys := newVaried(arrow.BinaryTypes.String, nil)
	entry := t.Elem().(*arrow.StructType)
	pairs := &structure{kind: entry, members: []column{keys, values}}
	return &list{kind: t, offsets: []int32{0}, elements: pairs, parse: parseMap}, nil
}

func parseMap(c *list, s *scanner, depth int) error {
	if s.peek() != '{' {
		return s.unexpected("an object")
	}
	pairs := c.elements.(*structure)
	keys, values := pairs.members[0].(*varied), pairs.members[1]
	begin := keys.len()
	for first := true; ; first = false {
		key, more, err := s.member(first)
		if err != nil {
			return err
		}
		if !more {
			break
		}
		keys.append(nonNil(key))
		if s.peek() == 'n' {
			if err := s.literal("null"); err != nil {
				return err
			}
			values.null()
		} else if err := values.json(s, depth+1); err != nil {
			return err
		}
		pairs.push(true)
	}
	if key, twice := keys.twice(begin); twice {
		return s.fail("key %q is there twice", key)
	}
	return nil
}
