package decode

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/extensions"
	"github.com/twmb/avro"
)

// avroKind is one of Avro's types, or a logical type that is decoded otherwise
// than what it annotates.
type avroKind string

const (
	avroNull    avroKind = "null"
	avroBoolean avroKind = "boolean"
	avroInt     avroKind = "int"
	avroLong    avroKind = "long"
	avroFloat   avroKind = "float"
	avroDouble  avroKind = "double"
	avroBytes   avroKind = "bytes"
	avroString  avroKind = "string"
	avroRecord  avroKind = "record"
	avroEnum    avroKind = "enum"
	avroArray   avroKind = "array"
	avroMap     avroKind = "map"
	avroUnion   avroKind = "union"
	avroFixed   avroKind = "fixed"
)

// avroType is a type of a schema. A named type is there once, so a recursive
// schema is a circle.
type avroType struct {
	kind    avroKind
	logical string // "" where it is unknown or does not fit: then it means nothing (specification, "Logical Types")
	// name is the full name of a record, enum or fixed, and aliases are its other
	// full names; bare are those of them that were written without a namespace,
	// which match in any.
	name          string
	aliases, bare []string
	fields        []avroField
	items         *avroType // of an array, or the values of a map
	branches      []*avroType
	symbols       []string
	fallback      string // the enum's default, "" if there is none
	size          int    // of a fixed
	precision     int    // of a decimal
	scale         int
	least         int // bytes that a value has at least; 0: it has none at all
}

type avroField struct {
	name    string
	aliases []string
	typ     *avroType
	node    avro.SchemaField // for its default
}

// short is a name without its namespace.
func short(name string) string { return name[strings.LastIndexByte(name, '.')+1:] }

// parseAvro reads a schema and those it refers to.
func parseAvro(s Schema) (*avro.Schema, *avroType, error) {
	var types avro.SchemaCache
	parsed, err := parseReferences(&types, s, map[string]bool{})
	if err != nil {
		return nil, nil, err
	}
	p := &avroTree{named: map[string]*avroType{}}
	t, err := p.typeOf(parsed.Root(), "")
	if err != nil {
		return nil, nil, err
	}
	p.measure(t, map[*avroType]bool{})
	return parsed, t, nil
}

// parseReferences parses a schema behind those that it refers to. One that is met
// again is known: a few could be reached on billions of ways.
func parseReferences(types *avro.SchemaCache, s Schema, known map[string]bool) (*avro.Schema, error) {
	for _, name := range slices.Sorted(maps.Keys(s.References)) {
		r := s.References[name]
		if known[r.Text] {
			continue
		}
		known[r.Text] = true
		if _, err := parseReferences(types, r, known); err != nil {
			return nil, fmt.Errorf("reference %q: %w", name, err)
		}
	}
	return types.Parse(s.Text)
}

// avroTree turns the library's tree into types.
type avroTree struct {
	named map[string]*avroType // by full name
}

func (p *avroTree) typeOf(n *avro.SchemaNode, namespace string) (*avroType, error) {
	t := &avroType{kind: avroKind(n.Type), logical: logicalOf(n)}
	switch t.kind {
	case avroNull, avroBoolean, avroInt, avroLong, avroFloat, avroDouble, avroString, avroBytes:
		t.precision, t.scale = n.Precision, n.Scale
		return t, nil
	case avroArray, avroMap:
		of := n.Items
		if t.kind == avroMap {
			of = n.Values
		}
		var err error
		t.items, err = p.typeOf(of, namespace)
		return t, err
	case avroUnion:
		for i := range n.Branches {
			b, err := p.typeOf(&n.Branches[i], namespace)
			if err != nil {
				return nil, err
			}
			t.branches = append(t.branches, b)
		}
		return t, nil
	case "error", avroRecord, avroEnum, avroFixed:
		return p.definition(t, n)
	}
	return p.reference(n.Type, namespace)
}

// reference finds a type by its name: in the enclosing namespace, then without
// one.
func (p *avroTree) reference(name, namespace string) (*avroType, error) {
	if !strings.Contains(name, ".") && namespace != "" {
		if t := p.named[namespace+"."+name]; t != nil {
			return t, nil
		}
	}
	if t := p.named[strings.TrimPrefix(name, ".")]; t != nil {
		return t, nil
	}
	return nil, fmt.Errorf("unknown type %q", name)
}

func (p *avroTree) definition(t *avroType, n *avro.SchemaNode) (*avroType, error) {
	namespace := n.Namespace
	t.name = n.Name
	if i := strings.LastIndexByte(n.Name, '.'); i >= 0 {
		namespace = n.Name[:i]
	} else if namespace != "" {
		t.name = namespace + "." + n.Name
	}
	for _, a := range n.Aliases {
		if !strings.Contains(a, ".") {
			t.bare = append(t.bare, a)
			if namespace != "" {
				a = namespace + "." + a
			}
		}
		t.aliases = append(t.aliases, a)
	}
	p.named[t.name] = t
	t.symbols, t.size, t.precision, t.scale = n.Symbols, n.Size, n.Precision, n.Scale
	if n.HasEnumDefault {
		t.fallback = n.EnumDefault
	}
	if t.kind != avroEnum && t.kind != avroFixed {
		t.kind = avroRecord
	}
	for _, f := range n.Fields {
		typ, err := p.typeOf(&f.Type, namespace)
		if err != nil {
			return nil, fmt.Errorf("field %q: %w", f.Name, err)
		}
		t.fields = append(t.fields, avroField{name: f.Name, aliases: f.Aliases, typ: typ, node: f})
	}
	return t, nil
}

// logicalOf returns a logical type that is known and fits.
func logicalOf(n *avro.SchemaNode) string {
	fits := false
	switch n.LogicalType {
	case "date", "time-millis":
		fits = n.Type == "int"
	case "time-micros", "timestamp-millis", "timestamp-micros", "timestamp-nanos", "local-timestamp-millis", "local-timestamp-micros", "local-timestamp-nanos":
		fits = n.Type == "long"
	case "uuid":
		fits = n.Type == "string" || n.Type == "fixed" && n.Size == 16
	case "duration":
		fits = n.Type == "fixed" && n.Size == 12
	case "decimal":
		fits = (n.Type == "bytes" || n.Type == "fixed") && n.Precision > 0 && n.Scale >= 0 && n.Scale <= n.Precision
	}
	if fits {
		return n.LogicalType
	}
	return ""
}

// measure finds how small values can be. A type that is measured already, or is
// being measured (it contains itself), counts as one byte: only a union, an array
// or a map can end a circle, and each has a byte.
func (p *avroTree) measure(t *avroType, open map[*avroType]bool) int {
	if open[t] {
		return max(t.least, 1)
	}
	if t.least > 0 {
		return t.least
	}
	open[t] = true
	defer delete(open, t)
	switch t.kind {
	case avroNull:
	case avroFloat:
		t.least = 4
	case avroDouble:
		t.least = 8
	case avroFixed:
		t.least = t.size
	case avroRecord:
		least := 0
		for _, f := range t.fields {
			least = min(least+p.measure(f.typ, open), leastMax)
		}
		t.least = least
	case avroArray, avroMap:
		p.measure(t.items, open)
		t.least = 1
	case avroUnion:
		for _, b := range t.branches {
			p.measure(b, open)
		}
		t.least = 1
	default:
		t.least = 1
	}
	return t.least
}

// leastMax keeps the sum of a schema that repeats its types from running over.
const leastMax = 1 << 30

// nullable returns what a union of null and one type holds, and any other type as
// it is.
func (t *avroType) nullable() *avroType {
	if t.kind != avroUnion {
		return t
	}
	var one *avroType
	for _, b := range t.branches {
		switch {
		case b.kind == avroNull:
		case one != nil:
			return t
		default:
			one = b
		}
	}
	if one == nil {
		return &avroType{kind: avroNull}
	}
	return one
}

// avroColumns bounds the columns of a schema, nested ones included: a few types
// that contain each other many times would be more than memory holds.
const avroColumns = 10_000

// avroArrow finds the columns of a schema.
type avroArrow struct {
	left int
	open []*avroType // those around, to find circles
}

// decimalText is the column for decimals with more digits than Iceberg has.
var decimalText = arrow.BinaryTypes.String

// of returns the type of a column.
func (a *avroArrow) of(t *avroType) (arrow.DataType, error) {
	t = t.nullable()
	if a.left--; a.left < 0 {
		return nil, fmt.Errorf("the schema has more than %d columns", avroColumns)
	}
	if slices.Contains(a.open, t) {
		return nil, fmt.Errorf("type %s contains itself, and a table has no place for that; write a schema without it (schema_file), whose columns are read from the same records", t.name)
	}
	if len(a.open) > depthMax {
		return nil, fmt.Errorf("the schema is nested more than %d deep", depthMax)
	}
	a.open = append(a.open, t)
	defer func() { a.open = a.open[:len(a.open)-1] }()
	switch t.logical {
	case "date":
		return arrow.FixedWidthTypes.Date32, nil
	case "time-millis", "time-micros":
		return arrow.FixedWidthTypes.Time64us, nil
	case "timestamp-millis", "timestamp-micros":
		return &arrow.TimestampType{Unit: arrow.Microsecond, TimeZone: "UTC"}, nil
	case "local-timestamp-millis", "local-timestamp-micros":
		return &arrow.TimestampType{Unit: arrow.Microsecond}, nil
	case "timestamp-nanos", "local-timestamp-nanos": // DuckDB has no nanoseconds with a zone
		return &arrow.TimestampType{Unit: arrow.Nanosecond}, nil
	case "uuid":
		return extensions.NewUUIDType(), nil
	case "duration":
		return durationType, nil
	case "decimal":
		if t.precision > decimalMax {
			return decimalText, nil
		}
		return &arrow.Decimal128Type{Precision: int32(t.precision), Scale: int32(t.scale)}, nil
	}
	return a.plain(t)
}

var durationType = arrow.StructOf(
	arrow.Field{Name: "months", Type: arrow.PrimitiveTypes.Int64, Nullable: true},
	arrow.Field{Name: "days", Type: arrow.PrimitiveTypes.Int64, Nullable: true},
	arrow.Field{Name: "millis", Type: arrow.PrimitiveTypes.Int64, Nullable: true},
)

func (a *avroArrow) plain(t *avroType) (arrow.DataType, error) {
	switch t.kind {
	case avroNull, avroInt: // DuckDB's type of a bare NULL is INTEGER
		return arrow.PrimitiveTypes.Int32, nil
	case avroBoolean:
		return arrow.FixedWidthTypes.Boolean, nil
	case avroLong:
		return arrow.PrimitiveTypes.Int64, nil
	case avroFloat:
		return arrow.PrimitiveTypes.Float32, nil
	case avroDouble:
		return arrow.PrimitiveTypes.Float64, nil
	case avroBytes, avroFixed:
		return arrow.BinaryTypes.Binary, nil
	case avroString, avroEnum:
		return arrow.BinaryTypes.String, nil
	case avroArray, avroMap:
		items, err := a.of(t.items)
		if err != nil {
			return nil, err
		}
		if t.kind == avroArray {
			return arrow.ListOfField(arrow.Field{Name: elementName, Type: items, Nullable: true}), nil
		}
		m := arrow.MapOf(arrow.BinaryTypes.String, items)
		m.SetItemNullable(true)
		return m, nil
	case avroRecord, avroUnion:
	}
	fields, err := a.fields(t)
	if err != nil {
		return nil, err
	}
	return arrow.StructOf(fields...), nil
}

// fields returns the members of a record, or of a union with several types.
// Nothing is NOT NULL: a newer schema may not have a field any more.
func (a *avroArrow) fields(t *avroType) ([]arrow.Field, error) {
	members := t.fields
	if t.kind == avroUnion {
		members = t.members()
	}
	if len(members) == 0 {
		return nil, fmt.Errorf("record %s has no fields, and a table has no place for that; write a schema without it (schema_file)", t.name)
	}
	fields := make([]arrow.Field, len(members))
	seen := map[string]string{}
	for i, m := range members {
		if was, ok := seen[strings.ToLower(m.name)]; ok {
			return nil, fmt.Errorf("field %q is there twice (as %q): SQL does not tell upper from lower case", m.name, was)
		}
		seen[strings.ToLower(m.name)] = m.name
		typ, err := a.of(m.typ)
		if err != nil {
			return nil, inField(err, m.name)
		}
		fields[i] = arrow.Field{Name: m.name, Type: typ, Nullable: true}
	}
	return fields, nil
}

// members are the types of a union that are not null, under their names: the
// full one, with underscores, where two differ in their namespaces only.
func (t *avroType) members() []avroField {
	var all []avroField
	taken := map[string]int{}
	for _, b := range t.branches {
		if b.kind != avroNull {
			all = append(all, avroField{name: b.branchName(), typ: b})
			taken[strings.ToLower(b.branchName())]++
		}
	}
	for i, m := range all {
		if taken[strings.ToLower(m.name)] > 1 && m.typ.name != "" {
			all[i].name = strings.ReplaceAll(m.typ.name, ".", "_")
		}
	}
	return all
}

func (t *avroType) branchName() string {
	if t.name != "" {
		return short(t.name)
	}
	return string(t.kind)
}

// fieldError is what is wrong with a field of a schema.
type fieldError struct {
	path string
	err  error
}

func (e *fieldError) Error() string { return fmt.Sprintf("field %q: %s", e.path, e.err) }

// inField says in which field something is wrong, by its whole path.
func inField(err error, field string) error {
	var inner *fieldError
	if errors.As(err, &inner) {
		return &fieldError{path: field + "." + inner.path, err: inner.err}
	}
	return &fieldError{path: field, err: err}
}
