package decode

import (
	"errors"
	"strings"
	"testing"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/extensions"

	"github.com/frazil-io/frazil/internal/batch"
)

// ddlOf renders columns as SQL has them; JSON is text of any value.
func ddlOf(fields []arrow.Field) string {
	var out []string
	for _, f := range fields {
		nullable := ""
		if !f.Nullable {
			nullable = " NOT NULL"
		}
		out = append(out, f.Name+" "+ddlType(f)+nullable)
	}
	return strings.Join(out, ", ")
}

func ddlType(f arrow.Field) string {
	switch t := f.Type.(type) {
	case *arrow.StructType:
		return "STRUCT(" + ddlOf(t.Fields()) + ")"
	case *arrow.ListType:
		return ddlType(t.ElemField()) + "[]"
	case *arrow.MapType:
		return "MAP(" + ddlType(t.KeyField()) + ", " + ddlType(t.ItemField()) + ")"
	case *extensions.UUIDType:
		return "UUID"
	}
	if f.Metadata.FindKey(asText) >= 0 {
		return "JSON"
	}
	return map[arrow.Type]string{arrow.INT64: "BIGINT", arrow.FLOAT64: "DOUBLE", arrow.STRING: "VARCHAR", arrow.BOOL: "BOOLEAN", arrow.DATE32: "DATE", arrow.TIMESTAMP: "TIMESTAMPTZ", arrow.BINARY: "BLOB"}[f.Type.ID()]
}

// TestJSONSchemaColumns: what each schema becomes, and what becomes of a value.
func TestJSONSchemaColumns(t *testing.T) {
	for _, c := range []struct{ schema, column, value, want string }{
		{`{"type":"integer"}`, "BIGINT", `7`, `7`},
		{`{"type":"number"}`, "DOUBLE", `0.5`, `0.5`},
		{`{"type":"boolean"}`, "BOOLEAN", `true`, `true`},
		{`{"type":"string"}`, "VARCHAR", `"x"`, `"x"`},
		{`{"type":"string","format":"email","maxLength":3}`, "VARCHAR", `"xxxx"`, `"xxxx"`}, // not validated
		{`{"type":"string","format":"date"}`, "DATE", `"2026-01-02"`, `"2026-01-02"`},
		{`{"type":"string","format":"date-time"}`, "TIMESTAMPTZ", `"2026-01-02T03:04:05+01:00"`, `"2026-01-02T02:04:05Z"`},
		{`{"type":"string","format":"uuid"}`, "UUID", `"01234567-89ab-cdef-0123-456789abcdef"`, `"01234567-89ab-cdef-0123-456789abcdef"`},
		{`{"type":"string","format":"time"}`, "VARCHAR", `"03:04:05Z"`, `"03:04:05Z"`},
		{`{"type":"string","contentEncoding":"base64"}`, "BLOB", `"aGk="`, `"aGk="`},
		{`{"type":["null","string"]}`, "VARCHAR", `null`, `null`},
		{`{"type":["integer","number","null"]}`, "DOUBLE", `1`, `1`},
		{`{"type":["integer","string"]}`, "JSON", `"x"`, `"\"x\""`},
		{`{"type":["integer","string"]}`, "JSON", ` 12 `, `"12"`},
		{`{"type":["integer","string"]}`, "JSON", `null`, `null`},
		{`{"type":"null"}`, "JSON", `null`, `null`},
		{`{"oneOf":[{"type":"null"},{"type":"integer"}]}`, "BIGINT", `1`, `1`},
		{`{"anyOf":[{"$ref":"#/definitions/Geo"},{"type":"null"}],"default":null}`, "STRUCT(lat DOUBLE, lon DOUBLE)", `{"lon":2}`, `{"lat":null,"lon":2}`},
		{`{"oneOf":[{"type":"string"},{"type":"integer"}]}`, "JSON", `1`, `"1"`},
		{`{"$ref":"#/definitions/Geo"}`, "STRUCT(lat DOUBLE, lon DOUBLE)", `{"lat":1,"lon":2}`, `{"lat":1,"lon":2}`},
		{`{"$ref":"#/$defs/a~1b"}`, "BIGINT", `1`, `1`},
		{`{"$ref":"#place"}`, "VARCHAR", `"x"`, `"x"`},
		{`{"$ref":"other.json"}`, "STRUCT(x BIGINT, y VARCHAR)", `{"x":1}`, `{"x":1,"y":null}`},
		{`{"$ref":"other.json#/definitions/Inner"}`, "VARCHAR", `"x"`, `"x"`},
		{`{"$ref":"https://example.com/other.json"}`, "STRUCT(x BIGINT, y VARCHAR)", `null`, `null`},
		{`{"$ref":"#/definitions/Tree"}`, "STRUCT(value BIGINT, left JSON)", `{"value":1,"left":{"value":2}}`, `{"left":"{\"value\":2}","value":1}`},
		{`{"type":"array","items":{"type":"integer"}}`, "BIGINT[]", `[1,null]`, `[1,null]`},
		{`{"type":"array","items":{"type":["integer","string"]}}`, "JSON[]", `[1,"x",null]`, `["1","\"x\"",null]`},
		{`{"type":"array","items":[{"type":"integer"},{"type":"string"}]}`, "JSON", `[1,"x"]`, `"[1,\"x\"]"`},
		{`{"type":"array"}`, "JSON", `[1]`, `"[1]"`},
		{`{"type":"object","properties":{"a":{"type":"object","properties":{"b":{"type":"array","items":{"$ref":"#/definitions/Geo"}}}}},"required":["a"]}`, "STRUCT(a STRUCT(b STRUCT(lat DOUBLE, lon DOUBLE)[]))", `{}`, `{"a":null}`},
		{`{"type":"object","additionalProperties":{"type":"integer"}}`, "MAP(VARCHAR, BIGINT)", `{"k":1}`, `[{"key":"k","value":1}]`},
		{`{"type":"object","additionalProperties":{}}`, "MAP(VARCHAR, JSON)", `{"k":[1]}`, `[{"key":"k","value":"[1]"}]`},
		{`{"type":"object"}`, "JSON", `{"k": 1}`, `"{\"k\": 1}"`},
		{`{"type":"object","patternProperties":{"^x":{"type":"integer"}},"additionalProperties":{"type":"string"}}`, "JSON", `{}`, `"{}"`},
		{`{"properties":{"a":{"type":"integer"}}}`, "STRUCT(a BIGINT)", `{"a":1}`, `{"a":1}`},
		{`{"enum":["a","b",null]}`, "VARCHAR", `"c"`, `"c"`},
		{`{"enum":[1,2]}`, "BIGINT", `1`, `1`},
		{`{"enum":[1,"a"]}`, "JSON", `1`, `"1"`},
		{`{"const":"a"}`, "VARCHAR", `"a"`, `"a"`},
		{`{"allOf":[{"$ref":"#/definitions/Geo"}],"title":"t"}`, "STRUCT(lat DOUBLE, lon DOUBLE)", `{"lat":1}`, `{"lat":1,"lon":null}`},
		{`{"allOf":[{"$ref":"#/definitions/Geo"},{"properties":{"name":{"type":"string"}}}],"properties":{"more":{"type":"boolean"}}}`, "STRUCT(lat DOUBLE, lon DOUBLE, name VARCHAR, more BOOLEAN)", `{"more":true}`, `{"lat":null,"lon":null,"more":true,"name":null}`},
		{`{"allOf":[{"type":"string"},{"maxLength":3}]}`, "JSON", `"x"`, `"\"x\""`},
		{`true`, "JSON", `[{}]`, `"[{}]"`},
		{`{}`, "JSON", `1.50`, `"1.50"`},
	} {
		s := Schema{
			Type: "JSON", Text: `{"$schema":"http://json-schema.org/draft-07/schema#","$id":"https://example.com/click.json","type":"object","properties":{"v":` + c.schema + `},"required":["v"],
			"definitions":{"Geo":{"type":"object","properties":{"lat":{"type":"number"},"lon":{"type":"number"}}},"Tree":{"type":"object","properties":{"value":{"type":"integer"},"left":{"$ref":"#/definitions/Tree"}}},"P":{"$anchor":"place","type":"string"}},
			"$defs":{"a/b":{"type":"integer"}}}`,
			References: map[string]Schema{"other.json": {Type: "JSON", Text: `{"$id":"https://example.com/other.json","type":"object","properties":{"x":{"type":"integer"},"y":{"$ref":"#/definitions/Inner"}},"definitions":{"Inner":{"type":"string"}}}`}},
		}
		d, err := New("json", nil, Options{Reader: s, Framing: "registry"})
		if err != nil {
			t.Errorf("%s: %v", c.schema, err)
			continue
		}
		if got := ddlOf(d.Fields()); got != "v "+c.column {
			t.Errorf("%s: got %s, want %s", c.schema, got, c.column)
		}
		if err := d.Append(Record{Value: framed(7, nil, []byte(`{"v":`+c.value+`,"other":1}`))[:5]}); err == nil {
			t.Errorf("%s: a header without an object was taken", c.schema)
		}
		if err := d.Append(Record{Value: append([]byte{0, 0, 0, 0, 7}, []byte(`{"v":`+c.value+`,"other":1}`)...)}); err != nil {
			t.Errorf("%s %s: %v", c.schema, c.value, err)
		} else if got := taken(d); got != c.want+"\n" {
			t.Errorf("%s %s: got %s, want %s", c.schema, c.value, got, c.want)
		}
	}
}

// TestJSONSchemaRefused: what gives no columns, and records without a header.
func TestJSONSchemaRefused(t *testing.T) {
	for schema, want := range map[string]string{
		`{"type":"string"}`:                           "it describes no object with properties",
		`{"type":"object"}`:                           "it describes no object with properties",
		`{"type":"object","additionalProperties":{}}`: "it describes no object with properties",
		`true`:    "it is no JSON object",
		`{"type"`: "it is not JSON",
		`{} {}`:   "something stands behind it",
		`{"properties":{"a":{"$ref":"#/definitions/X"}}}`:                `property "a": the reference "#/definitions/X" leads nowhere`,
		`{"properties":{"a":{"$ref":"x.json"}}}`:                         `the reference "x.json" leads to no schema`,
		`{"properties":{"a":{"$ref":"#/properties/a"}}}`:                 "its references lead in a circle",
		`{"properties":{"a":{"type":"integer"},"A":{"type":"integer"}}}`: `the properties "a" and "A"`,
		`{"properties":{"__a":{"type":"integer"}}}`:                      "are Frazil's own",
		`{"properties":{"":{"type":"integer"}}}`:                         "a property without a name",
	} {
		if _, err := New("json", nil, Options{Reader: Schema{Type: "JSON", Text: schema}}); !errors.Is(err, batch.ErrInvalid) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", schema, err, want)
		}
	}
	s := Schema{Type: "JSON", Text: `{"properties":{"a":{"type":"integer"}}}`}
	if _, err := New("json", nil, Options{Reader: s, Timestamps: "ms"}); !errors.Is(err, batch.ErrInvalid) {
		t.Errorf("timestamps as numbers: %v", err)
	}
	d, err := New("json", nil, Options{Reader: s, Framing: "registry"})
	if err != nil {
		t.Fatal(err)
	}
	for _, value := range []string{"", `{"a":1}`, "\x00\x00\x00\x00", "\x01\x00\x00\x00\x07{}"} {
		var e *Error
		if err := d.Append(Record{Value: []byte(value)}); !errors.As(err, &e) || !strings.Contains(e.Reason, "registry's header") || d.Rows() != 0 {
			t.Errorf("%q: %v", value, err)
		}
	}
	fields, err := ParseColumns("b VARCHAR")
	if err != nil {
		t.Fatal(err)
	}
	if d, err = New("json", fields, Options{Reader: s}); err != nil || ddlOf(d.Fields()) != "b VARCHAR" { // columns come first
		t.Errorf("columns beside a schema: %v", err)
	}
}

// TestJSONSchemaIDs: a schema that the registry does not have makes a record bad, a
// registry that does not answer does not.
func TestJSONSchemaIDs(t *testing.T) {
	reader := Schema{Type: "JSON", Text: `{"properties":{"a":{"type":"integer"}}}`}
	r := &shelf{schemas: map[int32]Schema{1: reader, 2: {Type: "AVRO"}}}
	d, err := New("json", nil, Options{Reader: reader, Framing: "registry", Schemas: r})
	if err != nil {
		t.Fatal(err)
	}
	value := func(id byte) Record { return Record{Value: append([]byte{0, 0, 0, 0, id}, `{"a":1}`...)} }
	for range 3 {
		if err := d.Append(value(1)); err != nil {
			t.Fatal(err)
		}
	}
	if r.asked != 1 {
		t.Errorf("the registry was asked %d times", r.asked)
	}
	for id, want := range map[byte]string{2: "schema 2 is of type AVRO", 3: "schema 3: the registry has no schema"} {
		var e *Error
		if err := d.Append(value(id)); !errors.As(err, &e) || e.Code != batch.CodeSchema || !strings.Contains(e.Reason, want) {
			t.Errorf("schema %d: %v", id, err)
		}
	}
	r.down = true
	if err := d.Append(value(4)); !errors.Is(err, batch.ErrUnavailable) {
		t.Errorf("a registry that does not answer: %v", err)
	}
	if got := taken(d); got != "1\n1\n1\n" {
		t.Errorf("got %s", got)
	}
}
