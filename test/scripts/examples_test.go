package scripts

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/frazil-io/frazil/internal/cli"
)

// TestExamples: every example has cases, and they pass.
func TestExamples(t *testing.T) {
	all, err := filepath.Glob("../../examples/*")
	if err != nil || len(all) == 0 {
		t.Fatal(all, err)
	}
	for _, dir := range all {
		t.Run(filepath.Base(dir), func(t *testing.T) {
			if cases, err := os.ReadDir(filepath.Join(dir, "tests")); err != nil || len(cases) == 0 {
				t.Fatalf("the example has no cases: %v", err)
			}
			var out, errOut bytes.Buffer
			if code := cli.Main([]string{"test", dir, "--verbose", "--log-level", "error"}, &out, &errOut); code != 0 {
				t.Fatalf("exit code %d\n%s%s", code, &out, &errOut)
			}
		})
	}
}
