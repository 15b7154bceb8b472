package config

import (
	"encoding/json"
	"reflect"
	"strings"
)

// JSONSchema describes the spec for editors: its structure from the types that
// read it, its words from keys.
func JSONSchema() ([]byte, error) {
	s := schemaOf(reflect.TypeFor[Spec](), "")
	s["$schema"] = "https://json-schema.org/draft/2020-12/schema"
	s["title"] = "Frazil pipeline"
	s["description"] = "One pipeline from Kafka topics to Iceberg tables. ${NAME}, ${NAME:-default} and ${file:/path} stand for variables and mounted secrets in any value."
	return json.MarshalIndent(s, "", "  ")
}

// A value may come out of a variable, whatever its type is.
const variablePattern = `^\$\{.*\}$`

func schemaOf(t reflect.Type, path string) map[string]any {
	var s map[string]any
	switch t {
	case reflect.TypeFor[Bytes]():
		s = map[string]any{"type": []string{"string", "integer"}, "pattern": `^ *[0-9.]+ *([KMGT]i?B|B)? *$|` + variablePattern, "minimum": 0}
	case reflect.TypeFor[Duration]():
		s = map[string]any{"type": []string{"string", "integer"}, "pattern": `^([0-9.]+(ns|us|µs|ms|s|m|h|d))+$|^0$|` + variablePattern, "maximum": 0}
	case reflect.TypeFor[Start]():
		s = map[string]any{
			"type": []string{"string", "object"}, "pattern": `^(earliest|latest|\d{4}-\d\d-\d\dT.*)$|` + variablePattern,
			"additionalProperties": map[string]any{"type": "object", "additionalProperties": map[string]any{"type": "integer", "minimum": 0}},
		}
	case reflect.TypeFor[Audit]():
		s = objectOf(t, path)
		s["type"] = []string{"string", "object"}
	default:
		s = structureOf(t, path)
	}
	k := keys[path]
	if k.doc != "" {
		s["description"] = k.doc
	}
	if k.values != "" {
		s["enum"] = strings.Fields(k.values)
	}
	return s
}

func structureOf(t reflect.Type, path string) map[string]any {
	switch t.Kind() {
	case reflect.Pointer:
		return schemaOf(t.Elem(), path)
	case reflect.Struct:
		if by, ok := t.FieldByName("By"); ok {
			return schemaOf(by.Type, path)
		}
		return objectOf(t, path)
	case reflect.Map:
		return map[string]any{"type": "object", "additionalProperties": schemaOf(t.Elem(), path+".*")}
	case reflect.Slice:
		return map[string]any{"type": "array", "items": schemaOf(t.Elem(), path+".*")}
	case reflect.Bool:
		return map[string]any{"type": []string{"boolean", "string"}, "pattern": variablePattern}
	case reflect.Int, reflect.Int32, reflect.Int64:
		return map[string]any{"type": []string{"integer", "string"}, "pattern": variablePattern, "minimum": 0}
	case reflect.String:
		return map[string]any{"type": []string{"string", "number", "boolean"}}
	default:
		return map[string]any{}
	}
}

func objectOf(t reflect.Type, path string) map[string]any {
	properties := map[string]any{}
	var required []string
	for f := range t.Fields() {
		key, _, _ := strings.Cut(f.Tag.Get("yaml"), ",")
		if key == "" {
			continue
		}
		inner := strings.TrimPrefix(path+"."+key, ".")
		if later := f.Tag.Get("later"); later != "" {
			properties[key] = map[string]any{"not": map[string]any{}, "deprecated": true, "description": "Not supported yet: " + later}
			if key == "envelope" {
				properties[key] = map[string]any{"enum": []string{"none"}, "description": "Not supported yet: " + later}
			}
			continue
		}
		if keys[inner].required {
			required = append(required, key)
		}
		properties[key] = schemaOf(f.Type, inner)
	}
	s := map[string]any{"type": "object", "properties": properties, "additionalProperties": false}
	if len(required) > 0 {
		s["required"] = required
	}
	return s
}
