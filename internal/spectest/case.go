package spectest

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/goccy/go-yaml"

	"github.com/frazil-io/frazil/internal/batch"
	"github.com/frazil-io/frazil/internal/config"
)

// settings are a case's own, in case.yaml.
type settings struct {
	// Now is the time of every batch, and so what now() is.
	Now time.Time `yaml:"now"`
	// Env are variables of the spec, before those of the environment.
	Env map[string]string `yaml:"env"`
	// Partitions is how many each topic has, at least.
	Partitions int32 `yaml:"partitions"`
}

// testCase is a case as it lies in its folder.
type testCase struct {
	dir string
	settings
	topics map[string][]record
	tables map[string]string   // fixtures in place of dimension tables, by name
	want   map[string][]string // canonical rows, by sink or table
	errors []string            // that the run must end with; nil: none
}

// errorFile holds what a case's error must say, a part a line.
const errorFile = "error.txt"

// load reads a case. Without its expected rows where they are to be written.
func load(dir string, update bool) (*testCase, error) {
	c := &testCase{dir: dir, topics: map[string][]record{}, tables: map[string]string{}, want: map[string][]string{}}
	c.Now = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	if err := c.loadSettings(); err != nil {
		return nil, err
	}
	if err := c.loadInput(); err != nil {
		return nil, err
	}
	for _, path := range files(filepath.Join(dir, "tables")) {
		c.tables[stem(path)] = path
	}
	return c, c.loadExpected(update)
}

func (c *testCase) loadSettings() error {
	path := filepath.Join(c.dir, "case.yaml")
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		err = yaml.UnmarshalWithOptions(data, &c.settings, yaml.Strict())
	}
	if err != nil {
		return fmt.Errorf("%w: %s: its keys are now (a time), env (texts by name) and partitions (one number, for all topics): %w", batch.ErrInvalid, path, err)
	}
	return nil
}

func (c *testCase) loadInput() error {
	paths := files(filepath.Join(c.dir, "input"))
	if len(paths) == 0 {
		return fmt.Errorf("%w: %s has no input: write records to input/TOPIC.jsonl, a value a line, or to input/TOPIC.records", batch.ErrInvalid, c.dir)
	}
	for _, path := range paths {
		records, err := readRecords(path)
		if err != nil {
			return fmt.Errorf("%w: %w", batch.ErrInvalid, err)
		}
		c.topics[stem(path)] = append(c.topics[stem(path)], records...)
	}
	return nil
}

// isRead returns an error where a file of records is for a topic that no source names.
// What a pattern leaves out may be what the case is about.
func (c *testCase) isRead(spec *config.Spec) error {
	var topics []string
	for _, s := range spec.Sources.By {
		if s.Kafka.TopicPattern != "" {
			return nil
		}
		topics = append(topics, s.Kafka.Topics...)
	}
	for _, topic := range slices.Sorted(maps.Keys(c.topics)) {
		if !slices.Contains(topics, topic) {
			slices.Sort(topics)
			return fmt.Errorf("%w: %s has records of topic %q, which no source reads; they read %s", batch.ErrInvalid, filepath.Join(c.dir, "input"), topic, strings.Join(slices.Compact(topics), ", "))
		}
	}
	return nil
}

func (c *testCase) loadExpected(update bool) error {
	paths := files(filepath.Join(c.dir, "expect"))
	for _, path := range paths {
		data, err := os.ReadFile(path)
		if err != nil {
			return fmt.Errorf("%w: %w", batch.ErrInvalid, err)
		}
		switch {
		case filepath.Base(path) == errorFile:
			c.errors = nonEmpty(string(data))
		case filepath.Ext(path) != ".jsonl":
			return fmt.Errorf("%w: %s: expected rows are in SINK.jsonl, or a part of the error a line in %s", batch.ErrInvalid, path, errorFile)
		case !update:
			rows, err := canonicalRows(string(data))
			if err != nil {
				return fmt.Errorf("%w: %s: %w", batch.ErrInvalid, path, err)
			}
			c.want[stem(path)] = rows
		}
	}
	switch {
	case c.errors != nil && len(c.want) > 0:
		return fmt.Errorf("%w: %s expects an error and rows: which batches went well before it depends on where they end", batch.ErrInvalid, c.dir)
	case c.errors == nil && len(c.want) == 0 && !update:
		return fmt.Errorf("%w: %s says nothing of what is expected: write rows to expect/SINK.jsonl, or run with --update and read what it wrote", batch.ErrInvalid, c.dir)
	}
	return nil
}

// files are those of a folder, by name; none if it is not there.
func files(dir string) (all []string) {
	entries, _ := os.ReadDir(dir)
	for _, e := range entries {
		if !e.IsDir() && !strings.HasPrefix(e.Name(), ".") {
			all = append(all, filepath.Join(dir, e.Name()))
		}
	}
	return all
}

// stem is a file's name without its ending.
func stem(path string) string { return strings.TrimSuffix(filepath.Base(path), filepath.Ext(path)) }

func nonEmpty(text string) (lines []string) {
	for line := range strings.Lines(text) {
		if line = strings.TrimSpace(line); line != "" {
			lines = append(lines, line)
		}
	}
	return lines
}

// check compares what a run came to with what is expected.
func (c *testCase) check(got tables, failed error) error {
	if c.errors != nil {
		return c.checkError(failed)
	}
	if failed != nil {
		return failed
	}
	var wrong []string
	for _, name := range slices.Sorted(maps.Keys(c.want)) {
		of, ok := got.of(name)
		// Rows may choose a table or not: one without rows is expected as an empty file.
		if !ok && (len(c.want[name]) > 0 || !strings.Contains(name, ".")) {
			return fmt.Errorf("expect/%s.jsonl: there is no such sink or table; there are %s", name, strings.Join(got.names(), ", "))
		}
		want, err := of.inUTC(c.want[name])
		if err != nil {
			return err
		}
		have, err := canonicalRows(strings.Join(of.rows, "\n"))
		if err == nil {
			have, err = of.inUTC(have)
		}
		if err == nil && name == config.DeadLetters && !slices.ContainsFunc(c.want[name], hasReason) {
			have, err = withoutReasons(have)
		}
		if err != nil {
			return fmt.Errorf("table %s: %w", name, err)
		}
		if d := difference(want, have); d != "" {
			wrong = append(wrong, name+": "+d)
		}
	}
	if len(wrong) > 0 {
		return errors.New(strings.Join(wrong, "\n"))
	}
	return nil
}

func (c *testCase) checkError(failed error) error {
	if failed == nil {
		return fmt.Errorf("it went well, and an error with %q was expected", c.errors)
	}
	for _, part := range c.errors {
		if !strings.Contains(failed.Error(), part) {
			return fmt.Errorf("the error should say %q, it is: %w", part, failed)
		}
	}
	return nil
}

// hasReason says whether a dead letter is expected with its reason.
func hasReason(row string) bool { return strings.Contains(row, `"reason":`) }

// withoutReasons leaves out why letters are there: a case need not say it.
func withoutReasons(rows []string) ([]string, error) {
	var all strings.Builder
	for _, row := range rows {
		var members map[string]any
		if err := json.Unmarshal([]byte(row), &members); err != nil {
			return nil, err
		}
		delete(members, "reason")
		line, err := json.Marshal(members)
		if err != nil {
			return nil, err
		}
		all.Write(line)
		all.WriteByte('\n')
	}
	return canonicalRows(all.String())
}

// update writes the rows that a run came to as what is expected.
func (c *testCase) update(got tables) error {
	dir := filepath.Join(c.dir, "expect")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("%w: %w", batch.ErrInvalid, err)
	}
	for _, t := range got {
		path := filepath.Join(dir, t.name+".jsonl")
		if _, err := os.Stat(path); err != nil && t.name == config.DeadLetters && len(t.rows) == 0 {
			continue // few cases have any
		}
		lines := slices.Sorted(slices.Values(t.rows))
		text := strings.Join(lines, "\n")
		if len(lines) > 0 {
			text += "\n"
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			return fmt.Errorf("%w: %w", batch.ErrInvalid, err)
		}
	}
	return nil
}
