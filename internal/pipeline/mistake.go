package pipeline

import (
	"errors"
	"strings"

	"github.com/frazil-io/frazil/internal/batch"
	"github.com/frazil-io/frazil/internal/config"
	"github.com/frazil-io/frazil/internal/exec/stream"
)

// mistake is one in the SQL of a spec, where it stands in the file.
type mistake struct{ of *config.Error }

// Error implements error.
func (m mistake) Error() string { return m.of.Error() }

// Unwrap makes it a batch.ErrInvalid beside what it is.
func (m mistake) Unwrap() []error { return []error{m.of, batch.ErrInvalid} }

// inFile says of a mistake in a piece of SQL where in the spec's file it is.
func inFile(spec *config.Spec, err error) error {
	var of *stream.Error
	if !errors.As(err, &of) {
		return err
	}
	path, sql := pieceOf(spec, of.What)
	if path == "" {
		return err
	}
	return mistake{spec.Mistake(path, sql, of.Line, of.Column, of.Message)}
}

// pieceOf finds a piece of SQL by the name that messages have for it.
func pieceOf(s *config.Spec, what string) (path, sql string) {
	note := func(name, at, text string) {
		if name == what {
			path, sql = at, text
		}
	}
	rules := func(of, at string, o config.Ordered[config.Rule]) {
		for _, r := range o.Names {
			note("rule "+r+" of "+of, at+".expect."+r+".sql", o.By[r].SQL)
		}
	}
	for _, m := range s.Macros.Names {
		name, _, _ := strings.Cut(m, "(")
		note("macro "+strings.TrimSpace(name), "macros."+m, s.Macros.By[m])
	}
	for _, v := range s.Views.Names {
		note("view "+v, "views."+v, s.Views.By[v])
	}
	for _, name := range s.Sources.Names {
		rules("source "+name, "sources."+name, s.Sources.By[name].Expect)
	}
	for _, name := range s.Sinks.Names {
		one := s.Sinks.By[name]
		note("the sql of sink "+name, "sinks."+name+".sql", one.SQL)
		rules("sink "+name, "sinks."+name, one.Expect)
		for _, a := range one.Audit.Names {
			note("audit "+a+" of sink "+name, "sinks."+name+".audit."+a, one.Audit.By[a].SQL)
		}
	}
	return path, sql
}
