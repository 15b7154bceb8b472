package config

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"reflect"
	"regexp"
	"slices"
	"strings"
)

// outside are the keys on which no row depends: how often and how much, where
// servers are, how to log in. Changing them needs no revision of a batch.
var outside = map[string]bool{
	"trigger": true, "limits": true, "memory": true, "checkpoint": true, "maintenance": true, "start": true, "on_data_loss": true, "group": true,
	"brokers": true, "sasl": true, "tls": true, "url": true, "username": true, "password": true, "token": true, "refresh": true, "uri": true, "max_tables": true,
	"expect": true, // in the order of the spec, beside the others
	"audit":  true, // it decides when rows are published; which, where it makes dead letters, is in the plan
}

// SinkHash is the SHA-256 of every key that a sink's rows depend on. Comments,
// formatting, the order of keys, other sinks and macros that it does not use do
// not count, nor where its dead letters go. The dead letters depend on the SQL of
// all sinks.
func (s *Spec) SinkHash(sink string) string {
	catalogs := map[string]string{}
	for name, c := range s.Catalogs {
		catalogs[name] = c.Type
	}
	keys := map[string]any{
		"name": s.Name, "catalogs": catalogs, "sources": plain(reflect.ValueOf(s.Sources.By)), "tables": plain(reflect.ValueOf(s.Tables.By)),
		"views": s.Views.By, "views_order": s.Views.Names, "sink": plain(reflect.ValueOf(s.Sinks.By[sink])),
	}
	texts := []string{s.Sinks.By[sink].SQL}
	rules := map[string][][3]string{}
	note := func(of string, o Ordered[Rule]) {
		for _, name := range o.Names {
			rules[of] = append(rules[of], [3]string{name, o.By[name].SQL, o.By[name].OnFail})
			texts = append(texts, o.By[name].SQL)
		}
	}
	for _, name := range s.Sources.Names {
		note("source "+name, s.Sources.By[name].Expect)
	}
	for _, name := range s.Queries() {
		if name == sink || sink == DeadLetters {
			note("sink "+name, s.Sinks.By[name].Expect)
		}
	}
	if len(rules) > 0 {
		keys["expect"] = rules
	}
	if one := s.Sinks.By[sink]; one.Holds() {
		keys["audit"] = "dead_letter"
	}
	if sink == DeadLetters { // what the SQL of any sink rejects is theirs
		all := map[string]string{}
		for _, name := range s.Queries() {
			all[name] = s.Sinks.By[name].SQL
			texts = append(texts, all[name])
		}
		keys["sinks"] = all
	}
	if used := s.macrosOf(strings.Join(texts, "\n")); len(used) > 0 {
		keys["macros"] = used
	}
	data, err := json.Marshal(keys)
	if err != nil {
		panic("config: a spec without JSON: " + err.Error())
	}
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

// word is what may be the name of a macro in SQL.
var word = regexp.MustCompile(`[A-Za-z_][A-Za-z0-9_]*`)

// macrosOf are the macros whose names stand anywhere in SQL, in a view,
// or in such a macro, in their order. A name in a comment counts, too: that
// changes the hash once too often, never too seldom.
func (s *Spec) macrosOf(sql string) (used [][2]string) {
	words := map[string]bool{}
	note := func(sql string) {
		for _, w := range word.FindAllString(sql, -1) {
			words[strings.ToLower(w)] = true
		}
	}
	note(sql)
	for _, v := range s.Views.By {
		note(v)
	}
	for _, signature := range slices.Backward(s.Macros.Names) { // each may use those before it
		if words[strings.ToLower(word.FindString(signature))] {
			note(s.Macros.By[signature])
			used = append(used, [2]string{signature, s.Macros.By[signature]})
		}
	}
	slices.Reverse(used)
	return used
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
