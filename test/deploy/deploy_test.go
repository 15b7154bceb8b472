package deploy

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/frazil-io/frazil/internal/cli"
	"github.com/frazil-io/frazil/internal/config"
)

// flag returns the value of a flag.
func flag(t *testing.T, args []string, name string) string {
	t.Helper()
	i := slices.Index(args, name)
	if i < 0 || i+1 == len(args) {
		t.Fatalf("no %s in %q", name, args)
	}
	return args[i+1]
}

// takes fails the test if the program does not know a command or a flag.
func takes(t *testing.T, args []string) {
	t.Helper()
	var out, said bytes.Buffer
	if code := cli.Main(append(slices.Clone(args), "--help"), &out, &said); code != 0 || args[0] != "run" {
		t.Errorf("frazil %q: exit code %d: %s", args, code, said.String())
	}
}

// valid checks a spec as `frazil validate` does, SQL and all, and returns it.
func valid(t *testing.T, text []byte) *config.Spec {
	t.Helper()
	file := filepath.Join(t.TempDir(), "pipeline.yaml")
	if err := os.WriteFile(file, text, 0o644); err != nil {
		t.Fatal(err)
	}
	var out, said bytes.Buffer
	if code := cli.Main([]string{"validate", file}, &out, &said); code != 0 {
		t.Fatalf("exit code %d: %s", code, said.String())
	}
	spec, err := config.Load(file, os.LookupEnv)
	if err != nil {
		t.Fatal(err)
	}
	return spec
}

// recipe is what other files rely on of the Dockerfile.
type recipe struct {
	user    string
	volumes []string
	words   map[string][]string // arguments by instruction
}

func dockerfile(t *testing.T) recipe {
	t.Helper()
	text, err := os.ReadFile(root + "/deploy/Dockerfile")
	if err != nil {
		t.Fatal(err)
	}
	r := recipe{words: map[string][]string{}}
	for line := range strings.Lines(string(text)) {
		if word, rest, ok := strings.Cut(strings.TrimSpace(line), " "); ok && word != "#" {
			r.words[word] = append(r.words[word], rest)
		}
	}
	last := func(word string) string {
		if len(r.words[word]) == 0 {
			t.Fatalf("the Dockerfile has no %s", word)
		}
		return r.words[word][len(r.words[word])-1]
	}
	r.user = last("USER")
	if err := json.Unmarshal([]byte(last("VOLUME")), &r.volumes); err != nil {
		t.Fatal(err)
	}
	return r
}

// TestDockerfile: its bases and version are arguments, it is not root, and ends
// as `run` wants to be ended.
func TestDockerfile(t *testing.T) {
	r := dockerfile(t)
	for _, from := range r.words["FROM"] {
		if !strings.HasPrefix(from, "${") {
			t.Errorf("FROM %s: not an argument", from)
		}
	}
	for _, name := range []string{"BUILD_IMAGE", "RUNTIME_IMAGE", "VERSION"} {
		if !slices.ContainsFunc(r.words["ARG"], func(a string) bool { return strings.HasPrefix(a, name+"=") }) {
			t.Errorf("no argument %s", name)
		}
	}
	if strings.HasPrefix(r.user, "0") || strings.Trim(r.user, "0123456789:") != "" {
		t.Errorf("USER %s: not a number other than root's", r.user)
	}
	if got := r.words["STOPSIGNAL"]; !slices.Equal(got, []string{"SIGTERM"}) {
		t.Errorf("STOPSIGNAL %q", got)
	}
	if len(r.words["HEALTHCHECK"]) > 0 {
		t.Error("HEALTHCHECK: Kubernetes does not read it, and Compose has its own")
	}
}
