package decode

import (
	"errors"
	"fmt"
	"slices"

	"github.com/twmb/avro"
)

// avroOp consumes one value and appends it to the column that it was compiled
// for, or to none. After an error the column may hold a part of the value.
type avroOp func(in *avroInput) error

// avroPlan turns records of one writer's schema into the columns of the reader's
// (specification, "Schema Resolution").
type avroPlan struct {
	op  avroOp
	err error // the two schemas do not fit
}

// opsMax bounds a plan: schemas that repeat their types would grow without end.
const opsMax = 200_000

// avroCompiler makes one plan.
type avroCompiler struct {
	skips avroSkips
	ops   int
}

// compile returns the operation for values of w that go into the column of r, and
// how many values, and bytes of texts that the schema has and not the record, it
// appends to columns beside the elements of lists. An error says why the two do
// not fit.
func (c *avroCompiler) compile(w, r *avroType, to column) (avroOp, int, error) {
	if c.ops++; c.ops > opsMax {
		return nil, 0, fmt.Errorf("the schemas need more than %d steps", opsMax)
	}
	switch {
	case w.kind == avroUnion:
		return c.writerUnion(w, r, to)
	case r.kind == avroUnion:
		return c.readerUnion(w, r, to)
	case r.kind == avroRecord && w.kind == avroRecord:
		if !namesMatch(w, r) {
			return nil, 0, fmt.Errorf("the record was written as %s, and the columns are those of %s", w.name, r.name)
		}
		return c.record(w, r, to.(*structure))
	case r.kind == avroArray && w.kind == avroArray:
		return c.array(w, r, to.(*list))
	case r.kind == avroMap && w.kind == avroMap:
		return c.mapping(w, r, to.(*list))
	case r.kind == avroEnum && w.kind == avroEnum:
		if !namesMatch(w, r) {
			return nil, 0, fmt.Errorf("it was written as enum %s, and the column is of %s", w.name, r.name)
		}
		return enumOp(w, r, to.(*varied)), 1 + longest(r.symbols), nil
	}
	op, err := scalarOp(w, r, to)
	switch _, text := to.(*varied); {
	case r.logical == "duration":
		return op, 4, err
	case r.logical == "decimal" && text:
		return op, 1 + r.precision, err // a byte may come to all of its digits
	}
	return op, 1, err
}

// longest is the length of the longest of these.
func longest(texts []string) (n int) {
	for _, text := range texts {
		n = max(n, len(text))
	}
	return n
}

// writerUnion resolves each branch. One that does not fit is an error of the
// records that have it only.
func (c *avroCompiler) writerUnion(w, r *avroType, to column) (avroOp, int, error) {
	branches := make([]avroOp, len(w.branches))
	cost, fit := 0, 0
	var why error
	for i, b := range w.branches {
		op, n, err := c.compile(b, r, to)
		if err != nil {
			why = err
			branches[i] = func(in *avroInput) error { return in.mismatch(in.i, "%s", err) }
			continue
		}
		fit++
		branches[i], cost = op, max(cost, n)
	}
	if fit == 0 && why != nil {
		return nil, 0, why
	}
	if len(branches) == 2 && (w.branches[0].kind == avroNull) != (w.branches[1].kind == avroNull) && fit == 2 {
		return nullableOp(w, branches, to), cost, nil
	}
	return func(in *avroInput) error {
		i, err := in.branch(len(branches))
		if err != nil {
			return err
		}
		return branches[i](in)
	}, cost, nil
}

// nullableOp is for the commonest union by far.
func nullableOp(w *avroType, branches []avroOp, to column) avroOp {
	null, there := byte(0), branches[1]
	if w.branches[1].kind == avroNull {
		null, there = 2, branches[0]
	}
	return func(in *avroInput) error {
		if in.i >= len(in.b) {
			return in.short("a union")
		}
		switch in.b[in.i] {
		case null:
			in.i++
			to.null()
			return nil
		case 2 - null:
			in.i++
			return there(in)
		}
		i, err := in.branch(2) // written with more bytes than it needs, or wrong
		if err != nil {
			return err
		}
		return branches[i](in)
	}
}

// branch reads which type of a union follows.
func (in *avroInput) branch(types int) (int, error) {
	at := in.i
	i, err := in.long()
	if err == nil && uint64(i) >= uint64(types) {
		return 0, in.fail(at, "type %d of a union that has %d", i, types)
	}
	return int(i), err
}

// readerUnion finds the reader's type for w, which is no union.
func (c *avroCompiler) readerUnion(w, r *avroType, to column) (avroOp, int, error) {
	if w.kind == avroNull && slices.ContainsFunc(r.branches, func(b *avroType) bool { return b.kind == avroNull }) {
		return func(*avroInput) error {
			to.null()
			return nil
		}, width(to), nil
	}
	chosen := bestBranch(w, r)
	if chosen == nil {
		return nil, 0, fmt.Errorf("it was written as %s, and the column's union has no such type", w.describe())
	}
	if one := r.nullable(); one.kind != avroUnion {
		return c.compile(w, chosen, to)
	}
	all := to.(*structure)
	at := slices.IndexFunc(r.members(), func(m avroField) bool { return m.typ == chosen })
	op, cost, err := c.compile(w, chosen, all.members[at])
	if err != nil {
		return nil, 0, err
	}
	return func(in *avroInput) error {
		if err := op(in); err != nil {
			return err
		}
		for i, m := range all.members {
			if i != at {
				m.null()
			}
		}
		all.push(true)
		return nil
	}, cost + width(to), nil
}

// bestBranch returns the type of a reader's union for a writer's type: of the
// same kind and full name or alias, else of the same name in another namespace,
// else the first one that it can be promoted to.
func bestBranch(w, r *avroType) *avroType {
	for _, fits := range []func(b *avroType) bool{
		func(b *avroType) bool {
			return b.kind == w.kind && b.size == w.size && (b.name == w.name || slices.Contains(b.aliases, w.name))
		},
		func(b *avroType) bool {
			return b.kind == w.kind && b.size == w.size && namesMatch(w, b)
		},
		func(b *avroType) bool { return promotes(w.kind, b.kind) },
	} {
		if i := slices.IndexFunc(r.branches, fits); i >= 0 {
			return r.branches[i]
		}
	}
	return nil
}

// namesMatch says whether named types are the same: by their names without
// namespaces, or by an alias of the reader's.
func namesMatch(w, r *avroType) bool {
	return short(w.name) == short(r.name) || slices.Contains(r.aliases, w.name) || slices.Contains(r.bare, short(w.name))
}

func promotes(from, to avroKind) bool {
	switch from {
	case avroInt:
		return to == avroLong || to == avroFloat || to == avroDouble
	case avroLong:
		return to == avroFloat || to == avroDouble
	case avroFloat:
		return to == avroDouble
	case avroString:
		return to == avroBytes
	case avroBytes:
		return to == avroString
	default:
		return false
	}
}

func (t *avroType) describe() string {
	if t.name != "" {
		return string(t.kind) + " " + t.name
	}
	return string(t.kind)
}

// record matches fields by name, then by the reader's aliases.
func (c *avroCompiler) record(w, r *avroType, to *structure) (avroOp, int, error) {
	taken := make([]bool, len(r.fields))
	var ops []avroOp
	var names []string
	cost := 1
	for _, f := range w.fields {
		i := readerField(r, w, f.name)
		if i < 0 {
			ops, names = append(ops, c.skips.skip(f.typ)), append(names, f.name)
			continue
		}
		if taken[i] {
			return nil, 0, fmt.Errorf("two fields of the record are field %q by its aliases", r.fields[i].name)
		}
		taken[i] = true
		op, n, err := c.compile(f.typ, r.fields[i].typ, to.members[i])
		if err != nil {
			return nil, 0, inField(err, f.name)
		}
		ops, names, cost = append(ops, op), append(names, f.name), cost+n
	}
	for i, f := range r.fields {
		if taken[i] {
			continue
		}
		op, n, err := c.absent(f, to.members[i])
		if err != nil {
			return nil, 0, inField(err, f.name)
		}
		ops, names, cost = append(ops, op), append(names, f.name), cost+n
	}
	return func(in *avroInput) error {
		for i, op := range ops {
			if err := op(in); err != nil {
				return named(err, names[i])
			}
		}
		to.push(true)
		return nil
	}, cost, nil
}

// readerField finds the reader's field for one of the writer's.
func readerField(r, w *avroType, name string) int {
	if i := slices.IndexFunc(r.fields, func(f avroField) bool { return f.name == name }); i >= 0 {
		return i
	}
	return slices.IndexFunc(r.fields, func(f avroField) bool {
		return slices.Contains(f.aliases, name) && !slices.ContainsFunc(w.fields, func(w avroField) bool { return w.name == f.name })
	})
}

// absent appends the default of a field that the writer does not have. The
// default is decoded, as the record is.
func (c *avroCompiler) absent(f avroField, to column) (avroOp, int, error) {
	if !f.node.HasDefault {
		return nil, 0, errors.New("the record was written without it, and it has no default")
	}
	value, err := encodeDefault(f.node)
	if err != nil {
		return nil, 0, fmt.Errorf("its default: %w", err)
	}
	op, cost, err := c.compile(f.typ, f.typ, to)
	if err != nil {
		return nil, 0, fmt.Errorf("its default: %w", err)
	}
	var try avroInput
	try.reset(value, 0)
	n := to.len()
	err = op(&try)
	to.cut(n)
	if err != nil {
		return nil, 0, fmt.Errorf("its default: %w", err)
	}
	return func(in *avroInput) error {
		b, i := in.b, in.i
		in.b, in.i = value, 0
		err := op(in)
		in.b, in.i = b, i
		return err
	}, cost + len(value), nil
}

// encodeDefault encodes the default of a field: that of a record without fields,
// whose schema has this one.
func encodeDefault(f avro.SchemaField) ([]byte, error) {
	node := avro.SchemaNode{Type: "record", Name: "frazil_default", Fields: []avro.SchemaField{f}}
	s, err := node.Schema()
	if err != nil {
		return nil, err
	}
	value, err := s.Encode(map[string]any{})
	return nonNil(value), err
}

// width is how many values a NULL of a column takes.
func width(c column) int {
	n := 1
	if s, ok := c.(*structure); ok {
		for _, m := range s.members {
			n += width(m)
		}
	}
	return n
}

// array compiles a list of elements.
func (c *avroCompiler) array(w, r *avroType, to *list) (avroOp, int, error) {
	item, cost, err := c.compile(w.items, r.items, to.elements)
	if err != nil {
		return nil, 0, err
	}
	least := w.items.least
	return func(in *avroInput) error {
		for {
			n, end, err := in.block(least, cost)
			if err != nil {
				return err
			}
			if n == 0 {
				break
			}
			for range n {
				if err := item(in); err != nil {
					return err
				}
			}
			if err := in.ends(end); err != nil {
				return err
			}
		}
		to.offsets = append(to.offsets, int32(to.elements.len()))
		to.push(true)
		return nil
	}, 1, nil
}

// mapping compiles a map. A key that is there twice is an error: SQL's maps have
// no place for it.
func (c *avroCompiler) mapping(w, r *avroType, to *list) (avroOp, int, error) {
	pairs := to.elements.(*structure)
	keys := pairs.members[0].(*varied)
	value, cost, err := c.compile(w.items, r.items, pairs.members[1])
	if err != nil {
		return nil, 0, err
	}
	least := w.items.least + 1
	return func(in *avroInput) error {
		first := keys.len()
		for {
			n, end, err := in.block(least, cost+2)
			if err != nil {
				return err
			}
			if n == 0 {
				break
			}
			for range n {
				key, err := in.text()
				if err != nil {
					return err
				}
				keys.append(key)
				if err := value(in); err != nil {
					return named(err, string(key))
				}
				pairs.push(true)
			}
			if err := in.ends(end); err != nil {
				return err
			}
		}
		if key, twice := keys.twice(first); twice {
			return in.fail(in.i, "key %q of a map is there twice", key)
		}
		to.offsets = append(to.offsets, int32(pairs.len()))
		to.push(true)
		return nil
	}, 1, nil
}
