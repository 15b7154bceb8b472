package decode

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"slices"
	"strings"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/extensions"

	"github.com/frazil-io/frazil/internal/batch"
)

// TypeJSON is the type of a Schema that is a JSON Schema.
const TypeJSON = "JSON"

// jsonColumns derives columns from a JSON Schema (drafts 4 to 2020-12). Each is
// nullable. What columns cannot express is kept as JSON text: alternatives of
// several types, a schema inside of itself, tuples, and what has no type. Records
// are not validated against the schema, but decoded into these columns.
func jsonColumns(s Schema) ([]arrow.Field, error) {
	d := &jsonSchema{documents: map[string]*jsonObject{}}
	fields, err := d.columns(s)
	if err != nil {
		return nil, fmt.Errorf("%w: the JSON Schema cannot be used: %w; or write columns", batch.ErrInvalid, err)
	}
	return fields, nil
}

// asText marks a column that keeps any JSON value as its text.
const asText = "frazil.json"

// jsonKind is the type of a column, and with asText in meta that it keeps JSON text.
type jsonKind struct {
	of   arrow.DataType
	meta arrow.Metadata
}

func jsonText() jsonKind {
	return jsonKind{arrow.BinaryTypes.String, arrow.NewMetadata([]string{asText}, []string{"text"})}
}

func (k jsonKind) field(name string) arrow.Field {
	return arrow.Field{Name: name, Type: k.of, Nullable: true, Metadata: k.meta}
}

// jsonSchema derives columns.
type jsonSchema struct {
	documents map[string]*jsonObject // that references name
	within    []*jsonObject          // the schemas around the one being read
	count     int
}

// jsonPlace is a schema in a document.
type jsonPlace struct {
	schema any // *jsonObject, or a bool
	root   *jsonObject
}

func (d *jsonSchema) columns(s Schema) ([]arrow.Field, error) {
	root, err := parseJSONObject(s.Text)
	if err != nil {
		return nil, err
	}
	if err := d.gather(s.References); err != nil {
		return nil, err
	}
	k, err := d.kind(jsonPlace{root, root})
	if err != nil {
		return nil, err
	}
	object, ok := k.of.(*arrow.StructType)
	if !ok {
		return nil, errors.New("it describes no object with properties")
	}
	return object.Fields(), nil
}

func (d *jsonSchema) gather(references map[string]Schema) error {
	for name, r := range references {
		if d.documents[name] != nil {
			continue
		}
		root, err := parseJSONObject(r.Text)
		if err != nil {
			return fmt.Errorf("reference %q: %w", name, err)
		}
		d.documents[name] = root
		if id, ok := root.get("$id").(string); ok && d.documents[id] == nil {
			d.documents[id] = root
		}
		if err := d.gather(r.References); err != nil {
			return err
		}
	}
	return nil
}

// resolved follows references.
func (d *jsonSchema) resolved(p jsonPlace) (jsonPlace, error) {
	const most = 32
	for range most {
		object, ok := p.schema.(*jsonObject)
		if !ok {
			return p, nil
		}
		ref, ok := object.get("$ref").(string)
		if !ok {
			return p, nil
		}
		next, err := d.follow(p.root, ref)
		if err != nil {
			return p, err
		}
		p = next
	}
	return p, errors.New("its references lead in a circle")
}

func (d *jsonSchema) follow(root *jsonObject, ref string) (jsonPlace, error) {
	document, fragment, _ := strings.Cut(ref, "#")
	if document != "" {
		found := d.documents[document]
		if id, ok := root.get("$id").(string); found == nil && ok {
			if base, err := url.Parse(id); err == nil {
				if u, err := base.Parse(document); err == nil {
					found = d.documents[u.String()]
				}
			}
		}
		if found == nil {
			return jsonPlace{}, fmt.Errorf("the reference %q leads to no schema that it comes with", ref)
		}
		root = found
	}
	at := any(root)
	if fragment == "" {
		return jsonPlace{at, root}, nil
	}
	if !strings.HasPrefix(fragment, "/") {
		if at = anchored(root, fragment, 0); at == nil {
			return jsonPlace{}, fmt.Errorf("the reference %q leads nowhere", ref)
		}
		return jsonPlace{at, root}, nil
	}
	for step := range strings.SplitSeq(fragment[1:], "/") {
		name, err := url.PathUnescape(step)
		if err != nil {
			name = step
		}
		name = strings.ReplaceAll(strings.ReplaceAll(name, "~1", "/"), "~0", "~")
		object, ok := at.(*jsonObject)
		if !ok || object.get(name) == nil {
			return jsonPlace{}, fmt.Errorf("the reference %q leads nowhere", ref)
		}
		at = object.get(name)
	}
	return jsonPlace{at, root}, nil
}

// anchored finds the schema with an anchor.
func anchored(at any, name string, depth int) any {
	object, ok := at.(*jsonObject)
	if !ok || depth > depthMax {
		return nil
	}
	if object.get("$anchor") == name || object.get("$id") == "#"+name || object.get("id") == "#"+name {
		return object
	}
	for _, key := range object.keys {
		if found := anchored(object.get(key), name, depth+1); found != nil {
			return found
		}
	}
	return nil
}

// kind returns the type of a schema's column.
func (d *jsonSchema) kind(p jsonPlace) (jsonKind, error) {
	p, err := d.resolved(p)
	if err != nil {
		return jsonKind{}, err
	}
	object, ok := p.schema.(*jsonObject)
	if !ok || slices.Contains(d.within, object) || len(d.within) >= depthMax {
		return jsonText(), nil
	}
	d.within = append(d.within, object)
	defer func() { d.within = d.within[:len(d.within)-1] }()
	for _, key := range []string{"oneOf", "anyOf"} {
		if all, ok := object.get(key).([]any); ok {
			one, ok, err := d.alternative(all, p.root)
			if err != nil {
				return jsonKind{}, err
			}
			if !ok || object.get("properties") != nil {
				return jsonText(), nil
			}
			return d.kind(one)
		}
	}
	if all, ok := object.get("allOf").([]any); ok {
		return d.merged(p, all)
	}
	switch d.typeOf(object) {
	case "string":
		return jsonKind{of: stringKind(object)}, nil
	case "integer":
		return jsonKind{of: arrow.PrimitiveTypes.Int64}, nil
	case "number":
		return jsonKind{of: arrow.PrimitiveTypes.Float64}, nil
	case "boolean":
		return jsonKind{of: arrow.FixedWidthTypes.Boolean}, nil
	case "array":
		return d.array(p, object)
	case "object":
		return d.object(p, object)
	}
	return jsonText(), nil
}

// alternative returns the one schema beside null.
func (d *jsonSchema) alternative(all []any, root *jsonObject) (one jsonPlace, ok bool, err error) {
	found := 0
	for _, a := range all {
		p, err := d.resolved(jsonPlace{a, root})
		if err != nil {
			return one, false, err
		}
		if object, ok := p.schema.(*jsonObject); ok && d.typeOf(object) == "null" {
			continue
		}
		one = p
		found++
	}
	return one, found == 1, nil
}

// merged reads schemas that hold all together: one, or objects.
func (d *jsonSchema) merged(p jsonPlace, all []any) (jsonKind, error) {
	object := p.schema.(*jsonObject)
	if len(all) == 1 && object.get("properties") == nil {
		return d.kind(jsonPlace{all[0], p.root})
	}
	var fields []arrow.Field
	add := func(t arrow.DataType) bool {
		s, ok := t.(*arrow.StructType)
		if !ok {
			return false
		}
		for _, f := range s.Fields() {
			if i := slices.IndexFunc(fields, func(g arrow.Field) bool { return g.Name == f.Name }); i < 0 {
				fields = append(fields, f)
			} else if !arrow.TypeEqual(fields[i].Type, f.Type) {
				return false
			}
		}
		return true
	}
	for _, a := range all {
		k, err := d.kind(jsonPlace{a, p.root})
		if err != nil {
			return jsonKind{}, err
		}
		if !add(k.of) {
			return jsonText(), nil
		}
	}
	if object.get("properties") != nil {
		k, err := d.object(p, object)
		if err != nil {
			return jsonKind{}, err
		}
		if !add(k.of) {
			return jsonText(), nil
		}
	}
	return jsonKind{of: arrow.StructOf(fields...)}, nil
}

// typeOf returns the one type beside null of a schema, "" where there are several
// or none.
func (d *jsonSchema) typeOf(object *jsonObject) string {
	switch t := object.get("type").(type) {
	case string:
		return t
	case []any:
		var types []string
		for _, one := range t {
			if name, ok := one.(string); ok && name != "null" {
				types = append(types, name)
			}
		}
		slices.Sort(types)
		switch {
		case len(types) == 0:
			return "null"
		case len(types) == 1:
			return types[0]
		case slices.Equal(types, []string{"integer", "number"}):
			return "number"
		}
		return ""
	}
	values, ok := object.get("enum").([]any)
	if !ok && object.has("const") {
		values = []any{object.get("const")}
	}
	if values != nil {
		return typeOfValues(values)
	}
	if object.get("properties") != nil {
		return "object"
	}
	return ""
}

// typeOfValues returns the type that all have beside null.
func typeOfValues(values []any) string {
	kind := "null"
	for _, v := range values {
		one := ""
		switch v := v.(type) {
		case nil:
			continue
		case string:
			one = "string"
		case bool:
			one = "boolean"
		case json.Number:
			if one = "integer"; strings.ContainsAny(string(v), ".eE") {
				one = "number"
			}
		}
		if kind != "null" && kind != one {
			return ""
		}
		kind = one
	}
	return kind
}

// stringKind is the type of a text of a known format.
func stringKind(object *jsonObject) arrow.DataType {
	switch object.get("format") {
	case "date":
		return arrow.FixedWidthTypes.Date32
	case "date-time":
		return scalars["TIMESTAMPTZ"]
	case "uuid":
		return extensions.NewUUIDType()
	}
	if object.get("contentEncoding") == "base64" {
		return arrow.BinaryTypes.Binary
	}
	return arrow.BinaryTypes.String
}

func (d *jsonSchema) array(p jsonPlace, object *jsonObject) (jsonKind, error) {
	items := object.get("items")
	if _, tuple := items.([]any); tuple || items == nil || object.get("prefixItems") != nil {
		return jsonText(), nil
	}
	k, err := d.kind(jsonPlace{items, p.root})
	if err != nil {
		return jsonKind{}, err
	}
	return jsonKind{of: arrow.ListOfField(k.field(elementName))}, nil
}

// object returns a STRUCT of properties, a MAP where only the type of any is known,
// or JSON text.
func (d *jsonSchema) object(p jsonPlace, object *jsonObject) (jsonKind, error) {
	properties, ok := object.get("properties").(*jsonObject)
	if !ok || len(properties.keys) == 0 {
		values, typed := object.get("additionalProperties").(*jsonObject)
		if !typed || object.get("patternProperties") != nil {
			return jsonText(), nil
		}
		k, err := d.kind(jsonPlace{values, p.root})
		if err != nil {
			return jsonKind{}, err
		}
		return jsonKind{of: arrow.MapOfFields(arrow.Field{Name: "key", Type: arrow.BinaryTypes.String}, k.field("value"))}, nil
	}
	var fields []arrow.Field
	names := map[string]string{}
	for _, name := range properties.keys {
		lower := strings.ToLower(name)
		switch was, twice := names[lower]; {
		case twice:
			return jsonKind{}, fmt.Errorf("the properties %q and %q: SQL does not tell upper from lower case", was, name)
		case strings.HasPrefix(name, "__"):
			return jsonKind{}, fmt.Errorf("the property %q: names that begin with two underscores are Frazil's own", name)
		case name == "":
			return jsonKind{}, errors.New("a property without a name")
		}
		names[lower] = name
		if d.count++; d.count > columnsMax {
			return jsonKind{}, fmt.Errorf("it comes to more than %d columns", columnsMax)
		}
		k, err := d.kind(jsonPlace{properties.get(name), p.root})
		if err != nil {
			return jsonKind{}, fmt.Errorf("property %q: %w", name, err)
		}
		fields = append(fields, k.field(name))
	}
	return jsonKind{of: arrow.StructOf(fields...)}, nil
}

// jsonObject is an object whose members keep their order. Values are nil, bool,
// json.Number, string, []any and *jsonObject.
type jsonObject struct {
	keys    []string
	members map[string]any
}

func (o *jsonObject) get(key string) any { return o.members[key] }

func (o *jsonObject) has(key string) bool {
	_, ok := o.members[key]
	return ok
}

func parseJSONObject(text string) (*jsonObject, error) {
	d := json.NewDecoder(bytes.NewReader([]byte(text)))
	d.UseNumber()
	v, err := parseJSONTree(d, 0)
	if err != nil {
		return nil, fmt.Errorf("it is not JSON: %w", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("it is not JSON: something stands behind it")
	}
	object, ok := v.(*jsonObject)
	if !ok {
		return nil, errors.New("it is no JSON object")
	}
	return object, nil
}

func parseJSONTree(d *json.Decoder, depth int) (any, error) {
	const most = 1000
	if depth > most {
		return nil, fmt.Errorf("nested more than %d deep", most)
	}
	token, err := d.Token()
	if err != nil {
		return nil, err
	}
	switch token {
	case json.Delim('{'):
		o := &jsonObject{members: map[string]any{}}
		for d.More() {
			key, err := d.Token()
			if err != nil {
				return nil, err
			}
			name, ok := key.(string)
			if !ok {
				return nil, fmt.Errorf("a key that is no text: %v", key)
			}
			v, err := parseJSONTree(d, depth+1)
			if err != nil {
				return nil, err
			}
			if !o.has(name) {
				o.keys = append(o.keys, name)
			}
			o.members[name] = v
		}
		_, err := d.Token()
		return o, err
	case json.Delim('['):
		list := []any{}
		for d.More() {
			v, err := parseJSONTree(d, depth+1)
			if err != nil {
				return nil, err
			}
			list = append(list, v)
		}
		_, err := d.Token()
		return list, err
	}
	return token, nil
}

// textForm refuses a form of timestamps that a JSON Schema's texts do not have.
func textForm(form string) error {
	if f := cmp.Or(form, "rfc3339"); f != "rfc3339" {
		return fmt.Errorf("%w: timestamps: %s needs columns: in a JSON Schema a date-time is a text", batch.ErrInvalid, f)
	}
	return nil
}
