package scripts

import (
	"strings"

	"github.com/rogpeppe/go-internal/testscript"
)

// badSpec is one change that makes a good spec bad.
type badSpec struct {
	title    string
	old, new string
	message  string
}

func parseSpecs(ts *testscript.TestScript, text string) (good string, cases []badSpec) {
	blocks := strings.Split(text, "\n=== ")
	good = blocks[0] + "\n"
	for _, b := range blocks[1:] {
		title, rest, _ := strings.Cut(b, "\n")
		c := badSpec{title: title}
		for line := range strings.Lines(rest) {
			line = strings.TrimSuffix(line, "\n")
			switch {
			case strings.HasPrefix(line, "- "):
				c.old += line[2:] + "\n"
			case strings.HasPrefix(line, "+ "):
				c.new += line[2:] + "\n"
			case strings.HasPrefix(line, "> "):
				c.message = line[2:]
			case line != "":
				ts.Fatalf("%s: unexpected line %q", title, line)
			}
		}
		cases = append(cases, c)
	}
	return good, cases
}

func (c badSpec) apply(ts *testscript.TestScript, good string) string {
	if !strings.Contains(good, c.old) {
		ts.Fatalf("%s: the good spec has no %q", c.title, c.old)
	}
	return strings.Replace(good, c.old, c.new, 1)
}

func (c badSpec) check(ts *testscript.TestScript, stderr string) {
	if !strings.Contains(stderr, c.message) {
		ts.Fatalf("%s: said\n%s\nwant\n%s", c.title, stderr, c.message)
	}
	if strings.Contains(stderr, "s3cret") {
		ts.Fatalf("%s: a secret was printed:\n%s", c.title, stderr)
	}
}
