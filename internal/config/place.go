package config

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// text is a spec as it was written.
type text struct {
	file, data string
	at         map[string]position // of keys, by path
}

// Mistake is one in a value of the spec, such as SQL, where it stands in the file: at
// a line and column of the value, from 1; 0 is the value as a whole. Where the value
// cannot be found again in the file, because of variables or escapes before that
// place, it is at its key.
func (s *Spec) Mistake(path, value string, line, column int, message string) *Error {
	if inner := path + ".sql"; s.text.at[inner] != (position{}) { // an object in place of a text
		path = inner
	}
	e := &Error{File: s.text.file, Path: path, Message: message}
	key, ok := s.text.at[path]
	if !ok {
		return e
	}
	e.Line, e.Column = key.line, key.column
	if line == 0 {
		return e
	}
	if at, ok := s.text.find(key, path, value, offset(value, position{line, column})); ok {
		e.Line, e.Column = at.line, at.column
	}
	return e
}

// offset is the byte of a position in a text; the end of the text where there is
// none.
func offset(text string, p position) int {
	at := 0
	for line, rest := range splitLines(text) {
		if line+1 < p.line {
			at += len(rest)
			continue
		}
		for i := range rest {
			if p.column--; p.column == 0 {
				return at + i
			}
		}
		return at + len(rest)
	}
	return len(text)
}

func splitLines(text string) []string { return strings.SplitAfter(text, "\n") }

// find looks for the byte of a value whose key stands at a position. A block, a
// quoted text and one that goes on in the next line differ from the value in
// whitespace only.
func (t text) find(key position, path, value string, byteOf int) (position, bool) {
	at := offset(t.data, key)
	_, after, ok := strings.Cut(t.data[at:], path[strings.LastIndexByte(path, '.')+1:])
	if !ok {
		return position{}, false
	}
	after = strings.TrimLeft(after, "'\"")
	if after, ok = strings.CutPrefix(strings.TrimLeft(after, " "), ":"); !ok {
		return position{}, false
	}
	at = len(t.data) - len(after)
	at += len(after) - len(strings.TrimLeftFunc(after, unicode.IsSpace))
	switch first := t.data[at:]; {
	case strings.HasPrefix(first, "|"), strings.HasPrefix(first, ">"):
		header, _, _ := strings.Cut(first, "\n")
		at += len(header)
	case strings.HasPrefix(first, "'"), strings.HasPrefix(first, `"`):
		at++
	}
	for i, r := range value {
		if unicode.IsSpace(r) {
			if i == byteOf {
				return t.position(at), true
			}
			continue
		}
		at += len(t.data[at:]) - len(strings.TrimLeftFunc(t.data[at:], unicode.IsSpace))
		if i == byteOf {
			return t.position(at), true
		}
		if !strings.HasPrefix(t.data[at:], string(r)) {
			return position{}, false
		}
		at += utf8.RuneLen(r)
	}
	return t.position(at), true
}

// position is that of a byte of the file.
func (t text) position(at int) position {
	before := t.data[:at]
	return position{1 + strings.Count(before, "\n"), 1 + utf8.RuneCountInString(before[strings.LastIndexByte(before, '\n')+1:])}
}
