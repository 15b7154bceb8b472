package decode

import (
	"fmt"

	"github.com/apache/arrow-go/v18/arrow"

	"github.com/frazil-io/frazil/internal/batch"
)

// The columns that an envelope adds to those of the row.
const (
	OpColumn       = "_op"        // c, u, d, r or t
	SourceTSColumn = "_source_ts" // when the source changed the row
)

// What Options.Include may name, and the columns that come of it.
const (
	IncludeBefore      = "before"      // the row as it was
	IncludeSource      = "source"      // where the change comes from, as JSON text
	IncludeTransaction = "transaction" // as JSON text

	beforeColumn      = "_before"
	sourceColumn      = "_source"
	transactionColumn = "_transaction"
)

// debezium decodes the change events of Debezium as JSON, with the {"schema": …,
// "payload": …} of Kafka Connect's converter around them or without it. A row's
// columns come from `after`, and for a row that was deleted from `before`.
//
// The envelope is walked once: after is decoded where it stands, before only
// where it is the row.
type debezium struct {
	rows    *jsonDecoder
	connect *connect
	fields  []arrow.Field

	op          *varied
	sourceTS    fixed[int64]
	before      *structure // nil, as the next two, where it is not wanted
	source      *varied
	transaction *varied

	// key says which columns of the row the record's key has, and for -1 whether it
	// has any; nil without a key.
	key func(column int) bool

	change change // the record's
}

// change is what an envelope says.
type change struct {
	seen        uint // which members were there
	op          byte
	beforeAt    int // where the row before stands, -1: null
	after       bool
	stamp       int64 // microseconds
	fineness    int   // of stamp; 0: there is none
	source      span
	transaction span
	kind        string // what the record is, if it is no change
}

// span is a part of a text; empty: null.
type span struct{ start, end int }

func (p span) of(text []byte) []byte {
	if p.start == p.end {
		return nil
	}
	return text[p.start:p.end]
}

func newDebezium(columns []arrow.Field, o Options) (*debezium, error) {
	if o.Envelope != "debezium" {
		return nil, fmt.Errorf("%w: envelope %q is not debezium", batch.ErrInvalid, o.Envelope)
	}
	rows, err := newJSON(columns, o)
	if err != nil {
		return nil, err
	}
	stamps, err := timestampForm(o.Timestamps)
	if err != nil {
		return nil, err
	}
	d := &debezium{rows: rows, connect: newConnect(stamps, "after")}
	d.connect.adapt(rows.root)
	d.connect.row = d.event
	added := []arrow.Field{
		{Name: OpColumn, Type: arrow.BinaryTypes.String, Nullable: true},
		{Name: SourceTSColumn, Type: &arrow.TimestampType{Unit: arrow.Microsecond, TimeZone: "UTC"}, Nullable: true},
	}
	d.op = newVaried(added[0].Type, nil)
	d.sourceTS = fixed[int64]{kind: added[1].Type, cast: arrow.Int64Traits.CastToBytes}
	more, err := d.include(columns, stamps, o.Include)
	if err != nil {
		return nil, err
	}
	n := len(rows.fields)
	d.fields = append(append(rows.fields[:n:n], added...), more...)
	return d, checkNames(d.fields)
}

// include makes the columns that are wanted beside the row's.
func (d *debezium) include(columns []arrow.Field, stamps timestamps, names []string) (added []arrow.Field, err error) {
	wanted := map[string]bool{}
	for _, name := range names {
		if name != IncludeBefore && name != IncludeSource && name != IncludeTransaction {
			return nil, fmt.Errorf("%w: include: %q is not before, source or transaction", batch.ErrInvalid, name)
		}
		wanted[name] = true
	}
	if wanted[IncludeBefore] {
		members := make([]arrow.Field, len(columns))
		for i, f := range columns {
			f.Nullable = true // a row before may be its key alone
			members[i] = f
		}
		if d.before, err = newStructure(arrow.StructOf(members...), stamps); err != nil {
			return nil, err
		}
		d.connect.adapt(d.before)
		added = append(added, arrow.Field{Name: beforeColumn, Type: d.before.kind, Nullable: true})
	}
	if wanted[IncludeSource] {
		d.source = newVaried(arrow.BinaryTypes.String, nil)
		added = append(added, arrow.Field{Name: sourceColumn, Type: d.source.kind, Nullable: true})
	}
	if wanted[IncludeTransaction] {
		d.transaction = newVaried(arrow.BinaryTypes.String, nil)
		added = append(added, arrow.Field{Name: transactionColumn, Type: d.transaction.kind, Nullable: true})
	}
	return added, nil
}

func (d *debezium) Fields() []arrow.Field { return d.fields }
func (d *debezium) Rows() int             { return d.rows.Rows() }

// columns are those that the envelope adds, in the order of Fields.
func (d *debezium) columns(each func(column)) {
	each(d.op)
	each(&d.sourceTS)
	if d.before != nil {
		each(d.before)
	}
	if d.source != nil {
		each(d.source)
	}
	if d.transaction != nil {
		each(d.transaction)
	}
}

func (d *debezium) Bytes() int {
	n := d.rows.Bytes()
	d.columns(func(c column) { n += c.bytes() })
	return n
}

func (d *debezium) Take() []arrow.Array {
	arrays := d.rows.Take()
	d.columns(func(c column) { arrays = append(arrays, toArray(c.take())) })
	return arrays
}

func (d *debezium) Append(r Record) error {
	n := d.rows.Rows()
	if err := d.record(r); err != nil {
		d.rows.cut(n)
		d.columns(func(c column) {
			if c.len() > n {
				c.cut(n)
			}
		})
		return err
	}
	return nil
}

func (d *debezium) record(r Record) error {
	if r.Value == nil {
		d.change = change{beforeAt: -1}
		if err := d.rows.nulls("the value is null (a tombstone)", d.key); err != nil {
			return err
		}
		d.finish()
		return nil
	}
	if err := d.rows.start(r); err != nil {
		return err
	}
	s := &d.rows.scanner
	if wrapped(s, nil) {
		if err := d.connect.payload(s); err != nil {
			return err
		}
		return s.end()
	}
	d.connect.none()
	if err := d.event(0); err != nil {
		return err
	}
	return s.end()
}

// The members of an envelope.
const (
	hasBefore = 1 << iota
	hasAfter
	hasSource
	hasOp
	hasTransaction
)

// event appends the change that the scanner stands before.
func (d *debezium) event(depth int) error {
	s, c := &d.rows.scanner, &d.change
	*c = change{beforeAt: -1}
	if s.peek() != '{' {
		return s.unexpected("an envelope (an object)")
	}
	for first := true; ; first = false {
		key, more, err := s.member(first)
		if err != nil {
			return err
		}
		if !more {
			break
		}
		if err := d.member(key, depth+1); err != nil {
			return err
		}
	}
	if err := d.complete(depth + 1); err != nil {
		return err
	}
	d.finish()
	return nil
}

// member takes in one member of the envelope.
func (d *debezium) member(key []byte, depth int) error {
	s, c := &d.rows.scanner, &d.change
	is := uint(0)
	switch string(key) {
	case "before":
		is = hasBefore
	case "after":
		is = hasAfter
	case "source":
		is = hasSource
	case "op":
		is = hasOp
	case "transaction":
		is = hasTransaction
	case "ddl", "tableChanges":
		c.kind = "a change of a table's schema"
	case "status":
		c.kind = "the begin or the end of a transaction"
	}
	if c.seen&is != 0 {
		return s.fail("field %q is there twice", key)
	}
	c.seen |= is
	there := s.peek() != 'n'
	start := s.i
	var err error
	switch {
	case !there:
		return s.literal("null")
	case is == hasOp:
		return d.operation(s)
	case is == hasAfter:
		if err = d.image(s, "after"); err == nil {
			c.after = true
			err = within(d.rows.object(depth), "after")
		}
	case is == hasBefore:
		if err = d.image(s, "before"); err == nil {
			c.beforeAt = start
			err = d.skipBefore(s, depth)
		}
	case is == hasSource:
		err = d.sourceTime(s, depth)
		c.source = span{start, s.i}
	default:
		err = s.skip(depth)
		if is == hasTransaction {
			c.transaction = span{start, s.i}
		}
	}
	return err
}

func (d *debezium) skipBefore(s *scanner, depth int) error {
	if d.before != nil {
		return within(d.before.json(s, depth), "before")
	}
	return s.skip(depth)
}

// image refuses what is no row.
func (d *debezium) image(s *scanner, name string) error {
	switch s.peek() {
	case '{':
		return nil
	case '"':
		e := &Error{Code: batch.CodeSchema, Pos: s.i}
		e.Reason = fmt.Sprintf("%q is a text, as MongoDB's connector writes it; read it as a source without envelope, with the columns op VARCHAR, before VARCHAR, after VARCHAR", name)
		return e
	}
	return s.unexpected("a row (an object) or null")
}

// within says in which image of the row something is wrong.
func within(err error, image string) error {
	if err == nil {
		return nil
	}
	return named(err, image)
}

// operation takes in what happened to the row.
func (d *debezium) operation(s *scanner) error {
	at := s.i
	if s.peek() != '"' {
		return s.unexpected("an operation as text")
	}
	op, err := s.text()
	if err != nil {
		return err
	}
	d.change.op, err = opOf(op, at)
	return err
}

// opOf is the operation that a text stands for.
func opOf(op []byte, at int) (byte, error) {
	if len(op) == 1 {
		switch op[0] {
		case 'c', 'u', 'd', 'r', 't':
			return op[0], nil
		case 'm':
			return 0, &Error{Code: batch.CodeSchema, Reason: "op m is a message that was written to the log (pg_logical_emit_message), no change of a row", Pos: at}
		}
	}
	return 0, &Error{Code: batch.CodeSchema, Reason: fmt.Sprintf("op %.40q is not c, u, d, r or t", op), Pos: at}
}

// sound says whether an operation has the rows that it needs, and no others.
// given says what the key has.
func sound(op byte, after, before bool, given func(column int) bool) error {
	why := ""
	switch {
	case op == 't' && (after || before):
		why = "op is t (truncate), and there is a row"
	case op == 't', op != 'd' && after:
	case op != 'd':
		why = fmt.Sprintf("op is %c, and after is null", op)
	case after:
		why = "op is d, and after is not null"
	case before:
	case given == nil:
		why = "op is d, and before is null: nothing says which row it was; set key: so that its columns come from the record's key"
	case !given(-1):
		why = "op is d, and both before and the key are null: nothing says which row it was"
	}
	if why == "" {
		return nil
	}
	return &Error{Code: batch.CodeSchema, Reason: why, Pos: -1}
}

// sourceTime takes the finest of the times of the source.
func (d *debezium) sourceTime(s *scanner, depth int) error {
	if s.peek() != '{' {
		return s.unexpected("the source (an object)")
	}
	for first := true; ; first = false {
		key, more, err := s.member(first)
		if err != nil || !more {
			return err
		}
		fineness, unit := 0, int64(0)
		switch string(key) {
		case "ts_ms":
			fineness, unit = 1, 1e6
		case "ts_us":
			fineness, unit = 3, 1e3
		case "ts_ns":
			fineness, unit = 2, 1 // a column has microseconds: no more than ts_us has
		}
		if fineness <= d.change.fineness || s.peek() == 'n' {
			if err := s.skip(depth + 1); err != nil {
				return err
			}
			continue
		}
		stamp, err := parseEpoch(s, unit, 1e3)
		if err != nil {
			return within(err, "source")
		}
		d.change.stamp, d.change.fineness = stamp, fineness
	}
}

// complete sees to it that the row has its columns.
func (d *debezium) complete(depth int) error {
	s, c := &d.rows.scanner, &d.change
	if c.op == 0 {
		kind := c.kind
		if kind == "" {
			kind = "a heartbeat, or no change event of Debezium"
		}
		return &Error{Code: batch.CodeSchema, Reason: "there is no op: it is " + kind + "; a source with envelope: debezium reads topics of rows only", Pos: -1}
	}
	if err := sound(c.op, c.after, c.beforeAt >= 0, d.key); err != nil {
		return err
	}
	switch {
	case c.op == 't':
		return d.rows.nulls("op is t (truncate)", nil)
	case c.op == 'd' && c.beforeAt < 0:
		return d.rows.nulls("op is d, and before is null", d.key)
	case c.op == 'd':
		end := s.i
		s.i = c.beforeAt
		if err := d.rows.object(depth); err != nil {
			return within(err, "before")
		}
		s.i = end
	}
	return nil
}

// finish appends what is beside the row.
func (d *debezium) finish() {
	c, text := &d.change, d.rows.scanner.b
	if c.op == 0 {
		d.op.null()
	} else {
		d.op.append([]byte{c.op})
	}
	if c.fineness == 0 {
		d.sourceTS.null()
	} else {
		d.sourceTS.add(c.stamp)
	}
	if d.before != nil && c.beforeAt < 0 {
		d.before.null()
	}
	if d.source != nil {
		d.source.append(c.source.of(text))
	}
	if d.transaction != nil {
		d.transaction.append(c.transaction.of(text))
	}
}

// identify implements keyed.
func (d *debezium) identify(given func(column int) bool) { d.key = given }

// row implements keyed.
func (d *debezium) row() int { return len(d.rows.root.members) }
