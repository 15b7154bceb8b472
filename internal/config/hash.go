package config

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"reflect"
	"strings"
)

// outside are the keys on which no row depends: how often and how much, where
// servers are, how to log in. Changing them needs no revision of a batch.
var outside = map[string]bool{
	"trigger": true, "limits": true, "memory": true, "checkpoint": true, "maintenance": true, "start": true, "on_data_loss": true, "group": true,
	"brokers": true, "sasl": true, "tls": true, "registry": true, "refresh": true,
}

// SinkHash is the SHA-256 of every key that a sink's rows depend on. Comments,
// formatting, the order of keys and other sinks do not count.
func (s *Spec) SinkHash(sink string) string {
	catalogs := map[string]string{}
	for name, c := range s.Catalogs {
		catalogs[name] = c.Type
	}
	data, err := json.Marshal(map[string]any{
		"name": s.Name, "catalogs": catalogs, "sources": plain(reflect.ValueOf(s.Sources.By)), "tables": plain(reflect.ValueOf(s.Tables.By)),
		"views": s.Views.By, "views_order": s.Views.Names, "sink": plain(reflect.ValueOf(s.Sinks.By[sink])),
	})
	if err != nil {
		panic("config: a spec without JSON: " + err.Error())
	}
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

// plain turns a value into maps by YAML key, without the keys that are outside.
func plain(v reflect.Value) any {
	switch v.Kind() {
	case reflect.Pointer:
		if v.IsNil() {
			return nil
		}
		return plain(v.Elem())
	case reflect.Struct:
		out := map[string]any{}
		for i := range v.NumField() {
			f := v.Type().Field(i)
			key, _, _ := strings.Cut(f.Tag.Get("yaml"), ",")
			if key == "" || outside[key] || f.Tag.Get("later") != "" {
				continue
			}
			out[key] = plain(v.Field(i))
		}
		return out
	case reflect.Map:
		out := map[string]any{}
		for _, k := range v.MapKeys() {
			out[k.String()] = plain(v.MapIndex(k))
		}
		return out
	default:
		return v.Interface()
	}
}
