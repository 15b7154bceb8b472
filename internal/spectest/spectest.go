// Package spectest runs the test cases of a spec: records in, rows out, with an
// embedded broker, catalog and warehouse. Each case is run as one batch, as many
// random ones, and with crashes at random moments between them; the tables must
// be the same each time.
package spectest

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/apache/arrow-go/v18/arrow"

	"github.com/frazil-io/frazil/internal/batch"
	"github.com/frazil-io/frazil/internal/config"
)

// Options are settings of a run of cases.
type Options struct {
	Only   *regexp.Regexp // cases whose directory/name matches; nil: all
	Update bool           // write the expected rows instead of comparing
	Seed   uint64         // of batches and crashes
	Now    func() time.Time
	Env    func(string) (string, bool)
	Log    *slog.Logger
	// Encode appends a row as a JSON object.
	Encode func(b []byte, rows arrow.RecordBatch, row int) []byte
	// Begin is told of each case, Done how it ended.
	Begin func(name string)
	Done  func(Result)
}

// Result is how one case ended.
type Result struct {
	Suite   string // the directory of the spec
	Case    string
	Took    time.Duration
	Failure string // "": it passed
	Updated bool   // its expected rows were written
}

// Name is suite/case.
func (r Result) Name() string { return filepath.ToSlash(filepath.Join(r.Suite, r.Case)) }

// casesFolder holds the cases of a spec, beside it.
const casesFolder = "tests"

// suite is a spec and its cases.
type suite struct {
	dir, spec string
	cases     []string
}

// Run runs the cases of all specs below the directories. batch.ErrInvalid: there
// are none. What is wrong with a case is told by Options.Done.
func Run(ctx context.Context, dirs []string, o Options) error {
	var suites []suite
	for _, dir := range dirs {
		found, err := find(dir)
		if err != nil {
			return err
		}
		for _, s := range found {
			if !slices.ContainsFunc(suites, func(have suite) bool { return filepath.Clean(have.dir) == filepath.Clean(s.dir) }) {
				suites = append(suites, s)
			}
		}
	}
	ran := 0
	for _, s := range suites {
		for _, name := range s.cases {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			r := Result{Suite: s.dir, Case: name}
			if o.Only != nil && !o.Only.MatchString(r.Name()) {
				continue
			}
			ran++
			o.Begin(r.Name())
			begun := o.Now()
			err := s.run(ctx, name, o)
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			r.Took, r.Updated = o.Now().Sub(begun), o.Update && err == nil
			if err != nil {
				r.Failure = err.Error()
			}
			o.Done(r)
		}
	}
	if ran == 0 {
		return fmt.Errorf("%w: no case matches %s", batch.ErrInvalid, o.Only)
	}
	return nil
}

// find returns the specs below a directory that have cases.
func find(dir string) ([]suite, error) {
	var all []suite
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.IsDir() {
			return err
		}
		if e.Name() != casesFolder || !hasCase(path) { // others have tests, too
			return nil
		}
		s, err := newSuite(filepath.Dir(path))
		if err != nil {
			return err
		}
		all = append(all, s)
		return fs.SkipDir
	})
	switch {
	case errors.Is(err, batch.ErrInvalid):
		return nil, err
	case err != nil:
		return nil, fmt.Errorf("%w: %w", batch.ErrInvalid, err)
	case len(all) == 0:
		return nil, fmt.Errorf("%w: there are no cases below %s: a case is a folder %s/NAME beside a spec, with input/TOPIC.jsonl and expect/SINK.jsonl in it", batch.ErrInvalid, dir, casesFolder)
	}
	return all, nil
}

// hasCase says whether a folder has anything in it that looks like a case.
func hasCase(dir string) bool {
	for _, name := range []string{"input", "expect", "case.yaml"} {
		if found, _ := filepath.Glob(filepath.Join(globbed(dir), "*", name)); len(found) > 0 {
			return true
		}
	}
	return false
}

// globbed is a path of which filepath.Glob takes each character as it is.
func globbed(path string) string {
	return strings.NewReplacer(`\`, `\\`, "*", `\*`, "?", `\?`, "[", `\[`).Replace(path)
}

func newSuite(dir string) (suite, error) {
	s := suite{dir: dir}
	var specs []string
	for _, pattern := range []string{"*.yaml", "*.yml"} {
		found, err := filepath.Glob(filepath.Join(globbed(dir), pattern))
		if err != nil {
			return s, fmt.Errorf("%w: %w", batch.ErrInvalid, err)
		}
		specs = append(specs, found...)
	}
	switch i := slices.Index(specs, filepath.Join(dir, "pipeline.yaml")); {
	case i >= 0:
		s.spec = specs[i]
	case len(specs) == 1:
		s.spec = specs[0]
	case len(specs) == 0:
		return s, fmt.Errorf("%w: %s has cases and no spec; put pipeline.yaml beside %s", batch.ErrInvalid, dir, casesFolder)
	default:
		return s, fmt.Errorf("%w: %s has cases and several specs: call the one that they are for pipeline.yaml", batch.ErrInvalid, dir)
	}
	folders, err := os.ReadDir(filepath.Join(dir, casesFolder))
	if err != nil {
		return s, fmt.Errorf("%w: %w", batch.ErrInvalid, err)
	}
	for _, f := range folders {
		if f.IsDir() && !strings.HasPrefix(f.Name(), ".") {
			s.cases = append(s.cases, f.Name())
		}
	}
	return s, nil
}

// run runs a case in all ways. What the spec's variables stand for is not told.
func (s suite) run(ctx context.Context, name string, o Options) error {
	t := trial{suite: s, o: o, mask: &config.Mask{}}
	err := t.run(ctx, name)
	if err == nil {
		return nil
	}
	return errors.New(t.mask.Hide(err.Error()))
}

func (t trial) run(ctx context.Context, name string) error {
	s, o := t.suite, t.o
	c, err := load(filepath.Join(s.dir, casesFolder, name), o.Update)
	if err != nil {
		return err
	}
	// Each case has numbers of its own: they do not change with what ran before.
	rnd := rand.New(rand.NewPCG(o.Seed, uint64(len(s.dir)+1)*131+uint64(len(name))))
	t.c = c
	got, err := t.whole(ctx)
	if o.Update && c.errors == nil {
		if err != nil {
			return err
		}
		return c.update(got)
	}
	if err := c.check(got, err); err != nil {
		return fmt.Errorf("as one batch: %w", err)
	}
	steps, got, err := t.batches(ctx, rnd)
	if err := c.check(got, err); err != nil {
		return fmt.Errorf("in random batches (--seed %d): %w", o.Seed, err)
	}
	got, err = t.crashes(ctx, rnd, steps)
	if err := c.check(got, err); err != nil {
		return fmt.Errorf("in random batches with crashes between (--seed %d): %w", o.Seed, err)
	}
	return nil
}
