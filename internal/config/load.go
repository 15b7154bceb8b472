package config

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"

	"github.com/frazil-io/frazil/internal/near"
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

// specMax is far above any spec that a person writes.
const specMax = 1 << 20

// Parse reads a spec.
func Parse(file string, data []byte, env func(string) (string, bool)) (*Spec, error) {
	p := &parse{file: file, env: env, at: map[string]position{}, floats: map[string]bool{}}
	body, err := p.document(data)
	if err != nil {
		return nil, err
	}
	p.substitute(body)
	p.positions(body, "")
	if len(p.errors) > 0 {
		return nil, p.masked()
	}
	spec := defaults()
	if err := yaml.NodeToValue(body, spec, yaml.Strict(), yaml.DisallowUnknownField()); err != nil {
		p.errors = append(p.errors, p.yamlError(err))
		return nil, p.masked()
	}
	p.later(reflect.ValueOf(spec).Elem(), "")
	if len(p.errors) == 0 {
		p.validate(spec)
	}
	spec.mask, spec.text = p.mask, text{file: file, data: string(data), at: p.at}
	return spec, p.masked()
}

// document reads the one YAML document of a file.
func (p *parse) document(data []byte) (ast.Node, error) {
	if len(data) > specMax {
		return nil, &Error{File: p.file, Message: fmt.Sprintf("it has %d bytes; a spec has at most 1 MiB: is it the right file?", len(data))}
	}
	if bytes.ContainsRune(data, 0) || !utf8.Valid(data) {
		return nil, &Error{File: p.file, Message: "it is not a text in UTF-8: is it the right file?"}
	}
	f, err := parser.ParseBytes(bytes.TrimPrefix(data, []byte("\ufeff")), 0)
	if err != nil {
		return nil, p.yamlError(err)
	}
	if len(f.Docs) > 1 {
		return nil, &Error{File: p.file, Message: "expected one YAML document that describes a pipeline, found several; write one file for each"}
	}
	if len(f.Docs) == 0 || f.Docs[0].Body == nil {
		return nil, &Error{File: p.file, Message: "expected one YAML document that describes a pipeline, found none; `frazil init` writes one"}
	}
	return f.Docs[0].Body, nil
}

// masked joins the mistakes. What came out of a variable is not printed back.
func (p *parse) masked() error {
	for _, err := range p.errors {
		if e, ok := err.(*Error); ok { //nolint:errorlint // only what was put there
			e.Message = p.mask.Hide(e.Message)
		}
	}
	return errors.Join(p.errors...)
}

type position struct{ line, column int }

// parse collects the mistakes of one file.
type parse struct {
	file   string
	env    func(string) (string, bool)
	at     map[string]position // by path
	errors []error
	mask   Mask
	floats map[string]bool // paths of numbers with a fraction
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
		here := position{key.Position.Line, key.Position.Column}
		if was, ok := p.at[inner]; ok {
			p.errors = append(p.errors, &Error{File: p.file, Line: here.line, Column: here.column, Path: inner, Message: fmt.Sprintf("it is there twice, first in line %d; remove one", was.line)})
		}
		p.at[inner] = here
		p.positions(n.Value, inner)
	case *ast.FloatNode:
		p.floats[path] = true
	case *ast.SequenceNode:
		for i, v := range n.Values {
			p.positions(v, fmt.Sprintf("%s.%d", path, i))
		}
	case *ast.AnchorNode, *ast.AliasNode:
		pos := n.GetToken().Position
		p.errors = append(p.errors, &Error{File: p.file, Line: pos.Line, Column: pos.Column, Path: path, Message: "anchors (&) and aliases (*) are not supported; write the value out"})
	}
}

// near is the path of the key at a position, or the nearest one before it in its
// line.
func (p *parse) near(line, column int) string {
	best, at := "", 0
	for path, pos := range p.at {
		if pos.line == line && pos.column <= column && pos.column > at {
			best, at = path, pos.column
		}
	}
	return best
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
		out.Message = inWords(syntax.GetMessage())
	}
	var value *valueError
	if errors.As(err, &value) {
		out.Line, out.Column, out.Message = value.line, value.column, value.Error()
	}
	if out.Path = p.near(out.Line, out.Column); out.Path == "" && out.Line > 1 {
		out.Path = p.near(out.Line-1, 1<<20)
	}
	if errors.As(err, &unknown) && unknown.Token != nil {
		key := unknown.Token.Value
		out.Path = ""
		out.Message = fmt.Sprintf("unknown key %q", key)
		if hint := nearest(key); hint != "" {
			out.Message += fmt.Sprintf("; did you mean %q?", hint)
		} else {
			out.Message += "; `frazil spec-schema` lists the keys"
		}
	}
	return out
}

// inWords says what the YAML library means.
func inWords(message string) string {
	for of, words := range map[string]string{
		"string was used where mapping is expected":        "a text is here where keys and values are expected",
		"sequence was used where mapping is expected":      "a list is here where keys and values are expected",
		"mapping was used where sequence is expected":      "keys and values are here where a list is expected; write [a, b]",
		"string was used where sequence is expected":       "a text is here where a list is expected; write [a, b]",
		"found character '\t' that cannot start any token": "a tab is here; YAML indents with spaces",
	} {
		if strings.Contains(message, of) {
			return words
		}
	}
	if strings.Contains(message, "cannot start any token") {
		return message + "; indent with spaces, and quote what begins with @, ` or %"
	}
	if m := wrongType.FindStringSubmatch(message); m != nil {
		return fmt.Sprintf("%s is here where %s is expected", cmp.Or(typeWords[m[1]], "a "+m[1]), cmp.Or(typeWords[m[2]], m[2]))
	}
	if strings.HasPrefix(message, "mapping key ") && strings.Contains(message, "already defined") {
		return message + "; remove one"
	}
	return message
}

var wrongType = regexp.MustCompile(`^cannot unmarshal (\S+) into Go (?:struct field \S+|value) of type (\S+)`)

var typeWords = map[string]string{
	"string": "a text", "int": "a whole number", "int32": "a whole number", "int64": "a whole number", "uint64": "a whole number", "float64": "a number",
	"bool": "true or false", "[]string": "a list, such as [a, b],", "map[string]string": "a mapping of keys and values",
	"map[string]interface": "a mapping of keys and values", "[]interface": "a list",
}

// variable is ${NAME}, ${NAME:-default} or ${file:/path}; $${ stands for ${.
var variable = regexp.MustCompile(`\$?\$\{([^}]*)\}`)

var variableName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

// substitute replaces variables inside of scalars, after the YAML is parsed: a
// value cannot change its structure.
func (p *parse) substitute(n ast.Node) {
	ast.Walk(visitor{p: p}, n)
}

// visitor replaces what it meets below a path.
type visitor struct {
	p    *parse
	path string
}

// isTable says whether a path is that of a sink's table, whose name may have
// columns in it.
var isTable = regexp.MustCompile(`^\.sinks\.[^.]*\.iceberg\.table$`)

// Visit implements ast.Visitor.
func (v visitor) Visit(n ast.Node) ast.Visitor {
	switch s := n.(type) {
	case *ast.StringNode:
		s.Value = v.p.replaced(s.Value, s, isTable.MatchString(v.path))
		v.p.mask.addAddress(s.Value)
	case *ast.LiteralNode:
		s.Value.Value = v.p.replaced(s.Value.Value, s, isTable.MatchString(v.path))
		return nil
	case *ast.MappingValueNode:
		ast.Walk(visitor{v.p, v.path + "." + s.Key.GetToken().Value}, s.Value)
		return nil
	}
	return v
}

// replaced puts the values of variables into a text. In one with columns, as
// raw.${_topic}, only what is written in capitals is a variable.
func (p *parse) replaced(text string, n ast.Node, columns bool) string {
	for _, rest := range variable.Split(text, -1) {
		if at := strings.Index(rest, "${"); at >= 0 {
			pos := n.GetToken().Position
			p.errors = append(p.errors, &Error{File: p.file, Line: pos.Line, Column: pos.Column, Message: fmt.Sprintf("%q is not closed; write ${NAME}, or $${ for the characters themselves", rest[at:min(len(rest), at+20)])})
			return text
		}
	}
	return variable.ReplaceAllStringFunc(text, func(m string) string {
		if strings.HasPrefix(m, "$$") {
			return m[1:]
		}
		name := m[2 : len(m)-1]
		if columns && !environment.MatchString(name) {
			return m
		}
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
			secret := strings.TrimRight(string(data), "\r\n")
			p.mask.add("${file:"+path+"}", secret)
			return secret
		}
		name, otherwise, hasDefault := strings.Cut(name, ":-")
		if strings.HasPrefix(name, "_") {
			return fail("${%s}: a column can be named in the table of a sink only; the name of a variable begins with a letter", name)
		}
		if !variableName.MatchString(name) {
			return fail("%s: %q is not the name of a variable: letters, digits and underscores", m, name)
		}
		if v, ok := p.env(name); ok && (v != "" || !hasDefault) {
			p.mask.add("${"+name+"}", v)
			return v
		}
		if hasDefault {
			return otherwise
		}
		return fail("variable %s is not set; set it, or write ${%s:-default}", name, name)
	})
}

// later refuses keys of features that are not there yet, and fractions where the
// YAML library would cut them off.
func (p *parse) later(v reflect.Value, path string) {
	switch v.Kind() {
	case reflect.Int, reflect.Int32, reflect.Int64:
		if p.floats[path] && v.Type().PkgPath() == "" {
			p.fail(path, "a whole number is expected")
		}
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
				if !v.Field(i).IsNil() {
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
	return near.Of(allKeys(reflect.TypeFor[Spec](), map[reflect.Type]bool{}), strings.ToLower(key), min(2, len(key)/2))
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
