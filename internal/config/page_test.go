package config

import (
	"flag"
	"fmt"
	"os"
	"reflect"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write docs/spec.md")

const specPage = "../../docs/spec.md"

// TestSpecPage: docs/spec.md has every key, as it is. `make spec-page` writes it
// again.
func TestSpecPage(t *testing.T) {
	page := specText()
	if *update {
		if err := os.WriteFile(specPage, []byte(page), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	have, err := os.ReadFile(specPage)
	if err != nil {
		t.Fatal(err)
	}
	lines, now := strings.Split(string(have), "\n"), strings.Split(page, "\n")
	for i := range max(len(lines), len(now)) {
		if i >= len(lines) || i >= len(now) || lines[i] != now[i] {
			t.Fatalf("docs/spec.md is stale from line %d on; write it again with `make spec-page`", i+1)
		}
	}
	for path, k := range keys {
		name := path[strings.LastIndex(path, ".")+1:]
		if name != "*" && (!strings.Contains(page, "`"+shown(path)+"`") || !strings.Contains(page, escaped(k.doc))) {
			t.Errorf("the page lacks %s", path)
		}
	}
}

// specText is the page: a table for each key at the top of a spec.
func specText() string {
	p := &pageWriter{}
	p.WriteString(`# The spec

Every key of a pipeline's spec. This page is made from the keys that the binary knows; ` + "`frazil spec-schema`" + ` prints
the same as a JSON schema for editors.

` + "`${NAME}`, `${NAME:-default}` and `${file:/path}`" + ` stand for a variable or a mounted secret in any value; a value
that came out of one is not printed back. A size is a number of bytes or ` + "`256MiB`, `1GB`" + `; a time span is
` + "`10s`, `1m30s`, `7d`" + `. A key that is not here is an error.
`)
	top := reflect.TypeFor[Spec]()
	p.WriteString("\n## At the top\n\n" + tableHead)
	for f := range top.Fields() {
		if key := f.Tag.Get("yaml"); key != "" && f.Tag.Get("later") == "" {
			p.row(f, key)
		}
	}
	for f := range top.Fields() {
		key := f.Tag.Get("yaml")
		if key == "" || f.Tag.Get("later") != "" || structOf(f.Type) == nil {
			continue
		}
		path := key
		if isMap(f.Type) {
			path += ".*"
		}
		fmt.Fprintf(p, "\n## `%s`\n\n%s\n\n%s", shown(path), escaped(keys[key].doc), tableHead)
		p.object(structOf(f.Type), path)
	}
	p.WriteString("\n## Not yet\n\n| Key | |\n|---|---|\n")
	p.later(top, "")
	return p.String()
}

const tableHead = "| Key | Value | |\n|---|---|---|\n"

type pageWriter struct{ strings.Builder }

// object writes the keys of an object, and below each those of its own.
func (p *pageWriter) object(t reflect.Type, path string) {
	for f := range t.Fields() {
		key := f.Tag.Get("yaml")
		if key == "" || f.Tag.Get("later") != "" {
			continue
		}
		inner := path + "." + key
		p.row(f, inner)
		if s := structOf(f.Type); s != nil {
			if isMap(f.Type) {
				inner += ".*"
			}
			p.object(s, inner)
		}
	}
}

func (p *pageWriter) row(f reflect.StructField, path string) {
	k := keys[path]
	value := kindOf(f.Type)
	if k.values != "" {
		value = "`" + strings.ReplaceAll(k.values, " ", "`, `") + "`"
	}
	if f.Tag.Get("secret") != "" {
		value += ", secret"
	}
	if k.required {
		value += ", **required**"
	}
	fmt.Fprintf(p, "| `%s` | %s | %s |\n", shown(path), value, escaped(k.doc))
}

// later lists keys that are known and not supported.
func (p *pageWriter) later(t reflect.Type, path string) {
	for f := range t.Fields() {
		key := f.Tag.Get("yaml")
		if key == "" {
			continue
		}
		inner := strings.TrimPrefix(path+"."+key, ".")
		if isMap(f.Type) {
			inner += ".*"
		}
		if why := f.Tag.Get("later"); why != "" {
			fmt.Fprintf(p, "| `%s` | %s |\n", shown(inner), escaped(why))
		} else if s := structOf(f.Type); s != nil {
			p.later(s, inner)
		}
	}
}

// shown is a path as people read it: a name of their choice stands for *.
func shown(path string) string { return strings.ReplaceAll(path, "*", "<name>") }

func escaped(text string) string { return strings.ReplaceAll(text, "|", `\|`) }

// structOf is the object behind a type that has keys of its own, nil for others.
func structOf(t reflect.Type) reflect.Type {
	switch t {
	case reflect.TypeFor[Start](), reflect.TypeFor[Duration](), reflect.TypeFor[Bytes]():
		return nil
	}
	switch t.Kind() {
	case reflect.Pointer, reflect.Map:
		return structOf(t.Elem())
	case reflect.Struct:
		if by, ok := t.FieldByName("By"); ok {
			return structOf(by.Type)
		}
		for f := range t.Fields() {
			if f.Tag.Get("yaml") != "" {
				return t
			}
		}
	}
	return nil
}

func isMap(t reflect.Type) bool {
	if t.Kind() == reflect.Struct {
		_, ordered := t.FieldByName("By")
		return ordered
	}
	return t.Kind() == reflect.Map
}

// kindOf is what a value looks like.
func kindOf(t reflect.Type) string {
	switch t {
	case reflect.TypeFor[Bytes]():
		return "size"
	case reflect.TypeFor[Duration]():
		return "time span"
	case reflect.TypeFor[Start]():
		return "text or map"
	}
	switch t.Kind() {
	case reflect.Pointer:
		return kindOf(t.Elem())
	case reflect.Bool:
		return "true or false"
	case reflect.Int, reflect.Int32, reflect.Int64:
		return "number"
	case reflect.Slice:
		return "list"
	case reflect.Map:
		return "map"
	case reflect.Struct:
		if isMap(t) {
			return "map, in order"
		}
		return "map"
	}
	return "text"
}
