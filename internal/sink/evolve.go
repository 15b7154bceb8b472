package sink

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/iceberg-go"
	"github.com/apache/iceberg-go/table"
)

// Evolve says what a sink may do to its table's schema, so that it takes the rows
// of the sink's SQL.
type Evolve string

// The values of Options.Evolve. Under both of the others a column that the table
// requires may become optional, too.
const (
	EvolveNone  Evolve = "none"
	EvolveAdd   Evolve = "add"   // columns, and fields inside of them
	EvolveWiden Evolve = "widen" // that, and int to long, float to double, decimals to more digits
)

// ChangeKind says how a table's schema differs from the rows of a sink's SQL.
type ChangeKind string

// The kinds of a [Change]. All but ChangeAbsent change the table.
const (
	ChangeAdd    ChangeKind = "add"
	ChangeWiden  ChangeKind = "widen"
	ChangeRelax  ChangeKind = "relax"  // from required to optional
	ChangeAbsent ChangeKind = "absent" // the SQL does not give it: new rows have NULL there
)

// Change is one difference between a table and the rows of a sink's SQL. Types
// are named as SQL does.
type Change struct {
	Kind   ChangeKind
	Column string // a.b for a field b of column a
	Table  string // its type in the table; "" where that lacks it
	SQL    string // its type in the SQL; "" where that lacks it
}

func (c Change) String() string {
	switch c.Kind {
	case ChangeAdd:
		return fmt.Sprintf("column %q (%s) is added", c.Column, c.SQL)
	case ChangeWiden:
		return fmt.Sprintf("column %q is widened from %s to %s", c.Column, c.Table, c.SQL)
	case ChangeRelax:
		return fmt.Sprintf("column %q (%s) is not required any more", c.Column, c.Table)
	case ChangeAbsent:
	}
	return fmt.Sprintf("column %q (%s) is not in the SQL: new rows have NULL there", c.Column, c.Table)
}

// origin says where a field of the table's files comes from.
type origin struct {
	from  int      // of the SQL's fields beside it; -1: it has none
	inner []origin // of the fields inside of it; nil: as they are
}

// fitting compares a table's fields with those of the SQL, and makes the fields
// with which the table takes them.
type fitting struct {
	how     Evolve
	version int            // of the table's format
	last    int            // the field id that was given last
	frozen  map[int]string // by field id: why its type stays
	held    map[int]bool   // fields that stay required
	inKey   bool           // of a map, which is not changed
	changes []Change
	wrong   []string
}

// fields fits the fields of a struct, or the columns of a table.
func (f *fitting) fields(path string, has []iceberg.NestedField, rows []arrow.Field) ([]iceberg.NestedField, []origin) {
	from := match(has, rows)
	out := make([]iceberg.NestedField, 0, len(has))
	origins := make([]origin, 0, len(has))
	taken := map[int]bool{}
	for k, field := range has {
		i, name := from[k], path+field.Name
		taken[i] = true
		o := origin{from: i}
		if i < 0 {
			f.absent(name, &field)
		} else {
			field.Type, o.inner = f.fit(name, field, rows[i].Type)
		}
		out, origins = append(out, field), append(origins, o)
	}
	for i, r := range rows {
		if taken[i] {
			continue
		}
		if field, ok := f.add(path, r); ok {
			out, origins = append(out, field), append(origins, origin{from: i})
		}
	}
	return out, origins
}

// match finds the SQL's field for each of the table's: by its exact name, or, as
// SQL does, without regard to case where that field is no other's.
func match(has []iceberg.NestedField, rows []arrow.Field) []int {
	from := make([]int, len(has))
	taken := map[int]bool{}
	find := func(k int, same func(a, b string) bool) {
		for i, r := range rows {
			if !taken[i] && same(r.Name, has[k].Name) {
				from[k], taken[i] = i, true
				return
			}
		}
	}
	for k := range from {
		from[k] = -1
		find(k, func(a, b string) bool { return a == b })
	}
	for k := range from {
		if from[k] < 0 {
			find(k, strings.EqualFold)
		}
	}
	return from
}

// differs notes a difference that cannot be helped.
func (f *fitting) differs(path, has, gives, todo string) {
	if has == "" {
		has = "no such column"
	}
	if gives == "" {
		gives = "none"
	}
	f.wrong = append(f.wrong, fmt.Sprintf("column %q: the table has %s, the SQL gives %s; %s", path, has, gives, todo))
}

// absent is a field of the table that the SQL does not give.
func (f *fitting) absent(path string, field *iceberg.NestedField) {
	has := sqlName(arrowType(field.Type))
	switch {
	case !field.Required:
		f.changes = append(f.changes, Change{Kind: ChangeAbsent, Column: path, Table: has})
	case f.inKey:
		f.differs(path, has+" NOT NULL", "", "the key of a map is not changed: give it")
	case f.held[field.ID]:
		f.differs(path, has+" NOT NULL", "", "it identifies the table's rows: give it")
	case f.how == EvolveNone:
		f.differs(path, has+" NOT NULL", "", "give it; or set evolve: add, with which the table does not require it any more")
	default:
		field.Required = false
		f.changes = append(f.changes, Change{Kind: ChangeRelax, Column: path, Table: has}, Change{Kind: ChangeAbsent, Column: path, Table: has})
	}
}

// reserved are names that Iceberg's engines give to columns of their own. They have
// _partition, too; but that is also Kafka's, under `metadata: true`.
var reserved = map[string]bool{
	"_file": true, "_pos": true, "_deleted": true, "_spec_id": true, "_row_id": true, "_last_updated_sequence_number": true,
	"_change_type": true, "_change_ordinal": true, "_commit_snapshot_id": true,
}

// Reserved says whether no table can have a column of this name.
func Reserved(name string) bool { return reserved[strings.ToLower(name)] }

const isReserved = "Iceberg's engines have a column of this name themselves: give it another one with AS"

// checkName says why a column, or a field at a path, cannot be added with a name,
// "" if it can.
func checkName(path, name string) string {
	switch {
	case path == "" && Reserved(name):
		return isReserved
	case strings.Contains(name, "."):
		return "a dot in a name leads into a struct: give it another one with AS"
	}
	return ""
}

// add makes a field of the table for one of the SQL's that it lacks.
func (f *fitting) add(path string, r arrow.Field) (field iceberg.NestedField, ok bool) {
	gives := sqlName(r.Type)
	switch todo := checkName(path, r.Name); {
	case f.inKey:
		f.differs(path+r.Name, "", gives, "the key of a map is not changed: leave it out")
		return field, false
	case f.how == EvolveNone:
		f.differs(path+r.Name, "", gives, "set evolve: add, add it to the table, or leave it out")
		return field, false
	case todo != "":
		f.differs(path+r.Name, "", gives, todo)
		return field, false
	}
	alone, err := icebergSchema(arrow.NewSchema([]arrow.Field{{Name: r.Name, Type: r.Type, Nullable: true}}, nil), f.version)
	if err != nil {
		f.differs(path+r.Name, "", gives, err.Error())
		return field, false
	}
	f.changes = append(f.changes, Change{Kind: ChangeAdd, Column: path + r.Name, SQL: gives})
	return f.number(alone.Field(0)), true
}

// number gives field ids to a new field and what is inside of it. They depend on
// the table's last one alone, so that whoever does the same to it gives the same.
func (f *fitting) number(field iceberg.NestedField) iceberg.NestedField {
	f.last++
	field.ID = f.last
	switch t := field.Type.(type) {
	case *iceberg.StructType:
		inner := make([]iceberg.NestedField, 0, len(t.FieldList))
		for _, one := range t.FieldList {
			inner = append(inner, f.number(one))
		}
		field.Type = &iceberg.StructType{FieldList: inner}
	case *iceberg.ListType:
		element := f.number(t.ElementField())
		field.Type = &iceberg.ListType{ElementID: element.ID, Element: element.Type, ElementRequired: t.ElementRequired}
	case *iceberg.MapType:
		key, value := f.number(t.KeyField()), f.number(t.ValueField())
		field.Type = &iceberg.MapType{KeyID: key.ID, KeyType: key.Type, ValueID: value.ID, ValueType: value.Type, ValueRequired: t.ValueRequired}
	}
	return field
}

// fit fits the type of a field.
func (f *fitting) fit(path string, field iceberg.NestedField, from arrow.DataType) (iceberg.Type, []origin) {
	switch t := field.Type.(type) {
	case *iceberg.StructType:
		if s, ok := from.(*arrow.StructType); ok {
			inner, origins := f.fields(path+".", t.FieldList, s.Fields())
			return &iceberg.StructType{FieldList: inner}, origins
		}
	case *iceberg.ListType:
		if l, ok := from.(*arrow.ListType); ok {
			element, inner := f.fit(path+".element", t.ElementField(), l.Elem())
			return &iceberg.ListType{ElementID: t.ElementID, Element: element, ElementRequired: t.ElementRequired}, []origin{{inner: inner}}
		}
	case *iceberg.MapType:
		if m, ok := from.(*arrow.MapType); ok {
			was := f.inKey
			f.inKey = true
			key, inKey := f.fit(path+".key", t.KeyField(), m.KeyType())
			f.inKey = was
			value, inValue := f.fit(path+".value", t.ValueField(), m.ItemType())
			return &iceberg.MapType{KeyID: t.KeyID, KeyType: key, ValueID: t.ValueID, ValueType: value, ValueRequired: t.ValueRequired},
				[]origin{{inner: []origin{{inner: inKey}, {from: 1, inner: inValue}}}}
		}
	default:
		return f.primitive(path, field, from), nil
	}
	f.differs(path, sqlName(arrowType(field.Type)), sqlName(from), "give it the table's type, or another name with AS")
	return field.Type, nil
}

// primitive fits a type that has no fields.
func (f *fitting) primitive(path string, field iceberg.NestedField, from arrow.DataType) iceberg.Type {
	to := arrowType(field.Type)
	if to != nil && fits(from, to) {
		return field.Type
	}
	has, gives := sqlName(to), sqlName(from)
	cast := "cast it to " + has
	wider, ok := wider(field.Type, from, f.version)
	switch why := f.frozen[field.ID]; {
	case ok && f.inKey:
		f.differs(path, has, gives, "the key of a map is not changed: "+cast)
	case ok && why != "":
		f.differs(path, has, gives, why+", so its type stays: "+cast)
	case ok && f.how != EvolveWiden:
		f.differs(path, has, gives, "set evolve: widen, or "+cast)
	case ok:
		f.changes = append(f.changes, Change{Kind: ChangeWiden, Column: path, Table: has, SQL: sqlName(arrowType(wider))})
		return wider
	case field.Type.Equals(iceberg.PrimitiveTypes.Date) && from.ID() == arrow.TIMESTAMP:
		f.differs(path, has, gives, cast+", or give it another name with AS: engines read older files wrongly after such a change")
	default:
		f.differs(path, has, gives, cast+", or give it another name with AS")
	}
	return field.Type
}

// wider is the type to which Iceberg lets a column be widened so that it takes
// values of type from.
// https://iceberg.apache.org/spec/#schema-evolution
//
// Of its rules two are left out. That a date becomes a timestamp in format 3 is
// known to no engine: they prune older files by bounds that they misread. And a
// column of unknown type has no values that could be widened.
func wider(t iceberg.Type, from arrow.DataType, version int) (iceberg.Type, bool) {
	from, err := widened(from, version)
	if err != nil {
		return nil, false
	}
	switch t := t.(type) {
	case iceberg.Int32Type:
		return iceberg.PrimitiveTypes.Int64, from.ID() == arrow.INT64
	case iceberg.Float32Type:
		return iceberg.PrimitiveTypes.Float64, from.ID() == arrow.FLOAT64
	case iceberg.DecimalType:
		d, ok := from.(*arrow.Decimal128Type)
		if !ok || int(d.Scale) != t.Scale() || int(d.Precision) <= t.Precision() {
			return nil, false
		}
		return iceberg.DecimalTypeOf(int(d.Precision), t.Scale()), true
	}
	return nil, false
}

// frozen are the fields whose types stay, with the reason: those of which
// partitions are made, in any spec that the table ever had, and those that
// identify rows. held are those that stay required: the latter, what they are inside
// of, and the keys of maps.
func frozen(meta table.Metadata, schema *iceberg.Schema) (fields map[int]string, held map[int]bool, err error) {
	fields, held = map[int]string{}, map[int]bool{}
	for _, spec := range meta.PartitionSpecs() {
		for _, p := range spec.Fields() {
			if _, void := p.Transform.(iceberg.VoidTransform); void {
				continue
			}
			for _, id := range p.SourceIDs {
				fields[id] = "the table is partitioned by it"
			}
		}
	}
	parents, err := iceberg.IndexParents(schema)
	if err != nil {
		return nil, nil, err
	}
	for _, id := range schema.IdentifierFieldIDs {
		fields[id] = "it identifies the table's rows"
		for at, ok := id, true; ok; at, ok = parents[at] {
			held[at] = true
		}
	}
	holdKeys(schema.Fields(), false, held)
	return fields, held, nil
}

// holdKeys notes the keys of maps, and what is inside of them.
func holdKeys(fields []iceberg.NestedField, inKey bool, held map[int]bool) {
	for _, f := range fields {
		if inKey {
			held[f.ID] = true
		}
		switch t := f.Type.(type) {
		case *iceberg.MapType:
			holdKeys([]iceberg.NestedField{t.KeyField()}, true, held)
			holdKeys([]iceberg.NestedField{t.ValueField()}, inKey, held)
		case iceberg.NestedType:
			holdKeys(t.Fields(), inKey, held)
		}
	}
}

// successor is the schema that follows the table's, with the id that the catalog
// will give to it: that of an equal one that the table has, or the next one.
func successor(meta table.Metadata, current *iceberg.Schema, fields []iceberg.NestedField) *iceberg.Schema {
	next := iceberg.NewSchemaWithIdentifiers(0, slices.Clone(current.IdentifierFieldIDs), fields...)
	id := 0
	for _, s := range meta.Schemas() {
		if s.Equals(next) {
			return s
		}
		id = max(id, s.ID+1)
	}
	return iceberg.NewSchemaWithIdentifiers(id, slices.Clone(current.IdentifierFieldIDs), fields...)
}

// relaxed returns fields of which those that may be are optional.
func relaxed(fields []iceberg.NestedField, may func(id int) bool) []iceberg.NestedField {
	out := make([]iceberg.NestedField, 0, len(fields))
	for _, f := range fields {
		f.Required = f.Required && !may(f.ID)
		f.Type = relaxedType(f.Type, may)
		out = append(out, f)
	}
	return out
}

func relaxedType(t iceberg.Type, may func(id int) bool) iceberg.Type {
	switch t := t.(type) {
	case *iceberg.StructType:
		return &iceberg.StructType{FieldList: relaxed(t.FieldList, may)}
	case *iceberg.ListType:
		return &iceberg.ListType{ElementID: t.ElementID, Element: relaxedType(t.Element, may), ElementRequired: t.ElementRequired && !may(t.ElementID)}
	case *iceberg.MapType: // its key stays as it is
		return &iceberg.MapType{KeyID: t.KeyID, KeyType: t.KeyType, ValueID: t.ValueID, ValueType: relaxedType(t.ValueType, may), ValueRequired: t.ValueRequired && !may(t.ValueID)}
	}
	return t
}

// evolution is the part of a commit that changes the table's schema; nothing
// where the files were written for the one that it has.
func (v *View) evolution(files *Files) ([]table.Update, []table.Requirement, error) {
	if files == nil || files.target == nil || len(files.files) == 0 || files.target.Equals(v.meta.CurrentSchema()) {
		return nil, nil, nil
	}
	known := slices.ContainsFunc(v.meta.Schemas(), func(s *iceberg.Schema) bool { return s.ID == files.target.ID })
	updates := []table.Update{table.NewSetCurrentSchemaUpdate(files.target.ID)}
	if !known {
		updates = []table.Update{table.NewAddSchemaUpdate(files.target), table.NewSetCurrentSchemaUpdate(-1)} // the one that was added
	}
	mapping, err := v.mapping(files.target)
	if err != nil {
		return nil, nil, err
	}
	if mapping != nil {
		updates = append(updates, mapping)
	}
	return updates, []table.Requirement{table.AssertLastAssignedFieldID(v.meta.LastColumnID())}, nil
}

// mapping brings the names of new fields into the table's name mapping, which
// files without field ids are read by; nil where it has none.
func (v *View) mapping(target *iceberg.Schema) (table.Update, error) {
	has := v.meta.NameMapping()
	if len(has) == 0 {
		return nil, nil
	}
	added := map[int][]iceberg.NestedField{}
	note(-1, target.Fields(), v.meta.LastColumnID(), added)
	if len(added) == 0 {
		return nil, nil
	}
	grown, err := iceberg.UpdateNameMapping(has, nil, added)
	if err != nil {
		return nil, fmt.Errorf("the name mapping of table %s: %w", v.t.opts.Table, err)
	}
	data, err := json.Marshal(grown)
	if err != nil {
		return nil, fmt.Errorf("the name mapping of table %s: %w", v.t.opts.Table, err)
	}
	return table.NewSetPropertiesUpdate(iceberg.Properties{table.DefaultNameMappingKey: string(data)}), nil
}

// note collects the fields above an id, by their parent's.
func note(parent int, fields []iceberg.NestedField, last int, added map[int][]iceberg.NestedField) {
	for _, f := range fields {
		if f.ID > last {
			added[parent] = append(added[parent], f) // with what is inside of it
		} else if nested, ok := f.Type.(iceberg.NestedType); ok {
			note(f.ID, nested.Fields(), last, added)
		}
	}
}

// text joins what changes.
func text(changes []Change) string {
	var all []string
	for _, c := range changes {
		all = append(all, c.String())
	}
	return strings.Join(all, "; ")
}

// evolving are the changes that a commit makes to the table.
func evolving(changes []Change) []Change {
	return slices.DeleteFunc(slices.Clone(changes), func(c Change) bool { return c.Kind == ChangeAbsent })
}

// named are the paths of fields by their ids.
func named(schema *iceberg.Schema, ids map[int]bool) (changes []Change) {
	for _, id := range slices.Sorted(maps.Keys(ids)) {
		if f, ok := schema.FindFieldByID(id); ok {
			path, _ := schema.FindColumnName(id)
			changes = append(changes, Change{Kind: ChangeRelax, Column: path, Table: sqlName(arrowType(f.Type))})
		}
	}
	return changes
}
