package config

import (
	"encoding/json"
	"reflect"
	"strings"
)

// JSONSchema describes the spec for editors, from the types that read it.
func JSONSchema() ([]byte, error) {
	s := schemaOf(reflect.TypeFor[Spec]())
	s["$schema"] = "https://json-schema.org/draft/2020-12/schema"
	s["title"] = "Frazil pipeline"
	s["required"] = []string{"name", "trigger", "catalogs", "sources", "sinks"}
	return json.MarshalIndent(s, "", "  ")
}

func schemaOf(t reflect.Type) map[string]any {
	switch t {
	case reflect.TypeFor[Bytes]():
		return map[string]any{"type": []string{"string", "integer"}, "pattern": `^[0-9.]+ *([KMGT]i?B|B)?$`, "description": "a size: 256MiB"}
	case reflect.TypeFor[Duration]():
		return map[string]any{"type": []string{"string", "integer"}, "description": "a time span: 500ms, 10s, 5m, 7d"}
	case reflect.TypeFor[Start]():
		return map[string]any{"type": []string{"string", "object"}, "description": "earliest, latest, a timestamp, or offsets by topic and partition"}
	}
	switch t.Kind() {
	case reflect.Pointer:
		return schemaOf(t.Elem())
	case reflect.Struct:
		if by, ok := t.FieldByName("By"); ok {
			return schemaOf(by.Type)
		}
		props := map[string]any{}
		for f := range t.Fields() {
			key, _, _ := strings.Cut(f.Tag.Get("yaml"), ",")
			if key == "" {
				continue
			}
			if later := f.Tag.Get("later"); later != "" {
				props[key] = map[string]any{"description": "not supported yet: " + later}
				continue
			}
			props[key] = schemaOf(f.Type)
		}
		return map[string]any{"type": "object", "properties": props, "additionalProperties": false}
	case reflect.Map:
		return map[string]any{"type": "object", "additionalProperties": schemaOf(t.Elem())}
	case reflect.Slice:
		return map[string]any{"type": "array", "items": schemaOf(t.Elem())}
	case reflect.Bool:
		return map[string]any{"type": "boolean"}
	case reflect.Int, reflect.Int32, reflect.Int64:
		return map[string]any{"type": "integer"}
	case reflect.String:
		return map[string]any{"type": "string"}
	default:
		return map[string]any{}
	}
}
