package config

import (
	"errors"
	"fmt"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
)

// Error is one mistake in a spec.
type Error struct {
	File         string
	Line, Column int // 0: the file as a whole
	Path         string
	Message      string // what is wrong, and what to write instead
}

func (e *Error) Error() string {
	where := e.File
	if e.Line > 0 {
		where += fmt.Sprintf(":%d:%d", e.Line, e.Column)
	}
	if e.Path != "" {
		where += ": " + e.Path
	}
	return where + ": " + e.Message
}

// Load reads the spec in a file. env looks up ${NAME}. The error joins one
// *Error for each mistake.
func Load(path string, env func(string) (string, bool)) (*Spec, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, &Error{File: path, Message: "the spec cannot be read: " + err.Error()}
	}
	return Parse(path, data, env)
}

// Parse reads a spec.
func Parse(file string, data []byte, env func(string) (string, bool)) (*Spec, error) {
	p := &parse{file: file, env: env, at: map[string]position{}}
	f, err := parser.ParseBytes(data, 0)
	if err != nil {
		return nil, p.yamlError(err)
	}
	if len(f.Docs) != 1 || f.Docs[0].Body == nil {
		return nil, &Error{File: file, Message: "expected one YAML document that describes a pipeline"}
	}
	p.substitute(f.Docs[0].Body)
	p.positions(f.Docs[0].Body, "")
	spec := defaults()
	if err := yaml.NodeToValue(f.Docs[0].Body, spec, yaml.Strict(), yaml.DisallowUnknownField()); err != nil {
		return nil, errors.Join(append(p.errors, p.yamlError(err))...)
	}
	p.later(reflect.ValueOf(spec).Elem(), "")
	if len(p.errors) == 0 {
		p.validate(spec)
	}
	return spec, errors.Join(p.errors...)
}

type position struct{ line, column int }

// parse collects the mistakes of one file.
type parse struct {
	file   string
	env    func(string) (string, bool)
	at     map[string]position // by path
	errors []error
}

// fail notes a mistake at a path, or the nearest one above it that is there.
func (p *parse) fail(path, format string, args ...any) {
	e := &Error{File: p.file, Path: path, Message: fmt.Sprintf(format, args...)}
	for at := path; ; {
		if pos, ok := p.at[at]; ok {
			e.Line, e.Column = pos.line, pos.column
			break
		}
		i := strings.LastIndexByte(at, '.')
		if i < 0 {
			break
		}
		at = at[:i]
	}
	p.errors = append(p.errors, e)
}

// positions notes where each key stands.
func (p *parse) positions(n ast.Node, path string) {
	switch n := n.(type) {
	case *ast.MappingNode:
		for _, v := range n.Values {
			p.positions(v, path)
		}
	case *ast.MappingValueNode:
		key := n.Key.GetToken()
		inner := strings.TrimPrefix(path+"."+key.Value, ".")
		p.at[inner] = position{key.Position.Line, key.Position.Column}
		p.positions(n.Value, inner)
	}
}

// yamlError turns an error of the library into one of ours.
func (p *parse) yamlError(err error) error {
	var unknown *yaml.UnknownFieldError
	var syntax yaml.Error
	out := &Error{File: p.file, Message: err.Error()}
	if errors.As(err, &syntax) {
		if t := syntax.GetToken(); t != nil && t.Position != nil {
			out.Line, out.Column = t.Position.Line, t.Position.Column
		}
		out.Message = syntax.GetMessage()
	}
	if errors.As(err, &unknown) && unknown.Token != nil {
		key := unknown.Token.Value
		out.Message = fmt.Sprintf("unknown key %q", key)
		if hint := nearest(key); hint != "" {
			out.Message += fmt.Sprintf("; did you mean %q?", hint)
		} else {
			out.Message += "; `frazil spec-schema` lists the keys"
		}
	}
	return out
}

// variable is ${NAME}, ${NAME:-default} or ${file:/path}; $${ stands for ${.
var variable = regexp.MustCompile(`\$?\$\{([^}]*)\}`)

// substitute replaces variables inside of scalars, after the YAML is parsed: a
// value cannot change its structure.
func (p *parse) substitute(n ast.Node) {
	ast.Walk(visitor{p}, n)
}

type visitor struct{ p *parse }

// Visit implements ast.Visitor.
func (v visitor) Visit(n ast.Node) ast.Visitor {
	switch s := n.(type) {
	case *ast.StringNode:
		s.Value = v.p.replaced(s.Value, s)
	case *ast.LiteralNode:
		s.Value.Value = v.p.replaced(s.Value.Value, s)
		return nil
	case *ast.MappingValueNode:
		ast.Walk(v, s.Value)
		return nil
	}
	return v
}

func (p *parse) replaced(text string, n ast.Node) string {
	return variable.ReplaceAllStringFunc(text, func(m string) string {
		if strings.HasPrefix(m, "$$") {
			return m[1:]
		}
		name := m[2 : len(m)-1]
		fail := func(format string, args ...any) string {
			pos := n.GetToken().Position
			p.errors = append(p.errors, &Error{File: p.file, Line: pos.Line, Column: pos.Column, Message: fmt.Sprintf(format, args...)})
			return ""
		}
		if path, ok := strings.CutPrefix(name, "file:"); ok {
			data, err := os.ReadFile(path)
			if err != nil {
				return fail("${file:%s} cannot be read: %v", path, err)
			}
			return strings.TrimRight(string(data), "\r\n")
		}
		name, otherwise, hasDefault := strings.Cut(name, ":-")
		if strings.HasPrefix(name, "_") {
			return fail("${%s}: tables that are chosen by a column come with a later version; name one table", name)
		}
		if v, ok := p.env(name); ok && (v != "" || !hasDefault) {
			return v
		}
		if hasDefault {
			return otherwise
		}
		return fail("variable %s is not set; set it, or write ${%s:-default}", name, name)
	})
}

// later refuses keys of features that are not there yet.
func (p *parse) later(v reflect.Value, path string) {
	switch v.Kind() {
	case reflect.Pointer:
		if !v.IsNil() {
			p.later(v.Elem(), path)
		}
	case reflect.Struct:
		if by := v.FieldByName("By"); by.IsValid() {
			p.later(by, path)
			return
		}
		for i := range v.NumField() {
			f := v.Type().Field(i)
			key, _, _ := strings.Cut(f.Tag.Get("yaml"), ",")
			if key == "" {
				continue
			}
			inner := strings.TrimPrefix(path+"."+key, ".")
			if why := f.Tag.Get("later"); why != "" {
				if !v.Field(i).IsNil() && !(key == "envelope" && v.Field(i).Interface() == "none") {
					p.fail(inner, "%s", why)
				}
				continue
			}
			p.later(v.Field(i), inner)
		}
	case reflect.Map:
		keys := v.MapKeys()
		slices.SortFunc(keys, func(a, b reflect.Value) int { return strings.Compare(a.String(), b.String()) })
		for _, k := range keys {
			p.later(v.MapIndex(k), path+"."+k.String())
		}
	}
}

// nearest returns the key that differs from a misspelt one by up to two edits.
func nearest(key string) string {
	best, distance := "", 3
	for _, k := range allKeys(reflect.TypeFor[Spec](), map[reflect.Type]bool{}) {
		if d := edits(strings.ToLower(key), k); d < distance {
			best, distance = k, d
		}
	}
	return best
}

func allKeys(t reflect.Type, seen map[reflect.Type]bool) (keys []string) {
	switch t.Kind() {
	case reflect.Pointer, reflect.Map, reflect.Slice:
		return allKeys(t.Elem(), seen)
	case reflect.Struct:
		if seen[t] {
			return nil
		}
		seen[t] = true
		if by, ok := t.FieldByName("By"); ok {
			return allKeys(by.Type, seen)
		}
		for field := range t.Fields() {
			if key := field.Tag.Get("yaml"); key != "" {
				keys = append(keys, key)
				keys = append(keys, allKeys(field.Type, seen)...)
			}
		}
	}
	return keys
}

// edits is the Levenshtein distance.
func edits(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			change := diagonal
			if a[i] != b[j] {
				change++
			}
			diagonal = row[j+1]
			row[j+1] = min(change, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
