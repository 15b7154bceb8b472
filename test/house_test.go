// Package house checks what the architecture promises of the source tree.
package house

import (
	"go/ast"
	"go/build"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/frazil-io/frazil/internal/batch"
)

const module = "github.com/frazil-io/frazil/"

// allowed are the packages of ours that each one may import, below internal/.
var allowed = map[string][]string{
	"batch": {}, "glue": {}, "near": {}, "config": {}, "planner": {"batch"}, "driver": {"batch", "planner"},
	"source": {"batch", "deadletter", "kafka", "source"}, "exec": {"batch", "deadletter", "lake", "objstore", "exec"}, "deadletter": {"batch", "kafka", "deadletter"}, "sink": {"batch", "lake"},
	"checkpoint": {"batch", "objstore"}, "certs": {}, "kafka": {"batch", "certs"}, "lake": {"batch", "certs"}, "registry": {"batch", "certs"}, "objstore": {"batch", "objstore"},
	"query": {"batch", "exec", "lake"}, "demo": {"batch"}, "server": {"driver"},
	"verify": {"batch", "checkpoint", "deadletter", "lake"},
}

// wiring are the packages that put rooms together.
var wiring = map[string]bool{"cli": true, "pipeline": true, "spectest": true}

// leaves are tools that import nothing of ours and do no I/O: anything may import
// them.
var leaves = map[string]bool{"glue": true, "near": true}

// sources parses every file of the program that is no test.
func sources(t *testing.T, visit func(path string, file *ast.File)) {
	t.Helper()
	err := filepath.WalkDir("..", func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") || strings.Contains(path, ".cache") {
			return err
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ParseComments)
		if err == nil {
			visit(filepath.ToSlash(strings.TrimPrefix(path, "../")), file)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestStar: rooms know the nouns and the tools, never each other. A package that is
// new says here what it may import, and nothing more than it does.
func TestStar(t *testing.T) {
	seen := 0
	used := map[string]bool{}
	sources(t, func(path string, file *ast.File) {
		room, ok := strings.CutPrefix(path, "internal/")
		if !ok {
			return
		}
		room, _, _ = strings.Cut(room, "/")
		may, ok := allowed[room]
		if wiring[room] {
			return
		}
		if !ok {
			t.Errorf("%s: nothing says what package %s may import", path, room)
		}
		for _, i := range file.Imports {
			name, _ := strconv.Unquote(i.Path.Value)
			ours, ok := strings.CutPrefix(name, module+"internal/")
			if !ok {
				continue
			}
			seen++
			ours, _, _ = strings.Cut(ours, "/")
			found := ours == room || leaves[ours]
			if slices.Contains(may, ours) {
				found, used[room+" "+ours] = true, true
			}
			if !found {
				t.Errorf("%s imports %s: %s may import %v", path, name, room, may)
			}
		}
	})
	if seen < 50 {
		t.Fatalf("only %d imports were looked at", seen)
	}
	for room, may := range allowed {
		for _, m := range may {
			if !used[room+" "+m] {
				t.Errorf("%s may import %s, and does not", room, m)
			}
		}
	}
}

// TestDocumented: every exported name has a comment.
func TestDocumented(t *testing.T) {
	seen := 0
	sources(t, func(path string, file *ast.File) {
		for _, d := range file.Decls {
			switch d := d.(type) {
			case *ast.FuncDecl:
				if d.Name.IsExported() && exportedReceiver(d) && d.Name.Name != "String" && d.Name.Name != "Error" {
					seen++
					if d.Doc == nil {
						t.Errorf("%s: %s has no comment", path, d.Name.Name)
					}
				}
			case *ast.GenDecl:
				for _, s := range d.Specs {
					if s, ok := s.(*ast.TypeSpec); ok && s.Name.IsExported() {
						seen++
						if d.Doc == nil && s.Doc == nil {
							t.Errorf("%s: type %s has no comment", path, s.Name.Name)
						}
					}
				}
			}
		}
	})
	if seen < 100 {
		t.Fatalf("only %d names were looked at", seen)
	}
}

func exportedReceiver(d *ast.FuncDecl) bool {
	if d.Recv == nil || len(d.Recv.List) == 0 {
		return true
	}
	t := d.Recv.List[0].Type
	if s, ok := t.(*ast.StarExpr); ok {
		t = s.X
	}
	switch t := t.(type) {
	case *ast.Ident:
		return t.IsExported()
	case *ast.IndexExpr:
		id, ok := t.X.(*ast.Ident)
		return ok && id.IsExported()
	}
	return false
}

// TestBuildSaysWhatIsMissing: without DuckDB's build tag, or without cgo, the build
// ends at the line that says so, and not before at a package of others.
func TestBuildSaysWhatIsMissing(t *testing.T) {
	for missing, c := range map[string]build.Context{
		"tag": {GOARCH: "amd64", GOOS: "linux", Compiler: "gc", CgoEnabled: true}, "cgo": {GOARCH: "amd64", GOOS: "linux", Compiler: "gc", BuildTags: []string{"duckdb_arrow"}},
	} {
		for room, told := range map[string]bool{"../internal/query": false, "../internal/exec": false, "../internal/exec/duckdb": true} {
			p, err := c.ImportDir(room, 0)
			if err != nil {
				t.Fatal(err)
			}
			if want := missing + "_missing.go"; told && !slices.Equal(p.GoFiles, []string{want}) {
				t.Errorf("without the %s, %s is built of %v, want %s alone", missing, room, p.GoFiles, want)
			}
			for _, i := range p.Imports {
				if strings.HasPrefix(i, "github.com/duckdb/") && (missing == "cgo" || strings.HasSuffix(i, "/arrowmapping")) {
					t.Errorf("without the %s, %s imports %s, where the build ends without saying why", missing, room, i)
				}
			}
		}
	}
}

// TestCountsAreDocumented: whoever reads a stamp finds each of its terms in
// docs/formats.md.
func TestCountsAreDocumented(t *testing.T) {
	page, err := os.ReadFile("../docs/formats.md")
	if err != nil {
		t.Fatal(err)
	}
	terms := 0
	for _, counted := range []reflect.Type{reflect.TypeFor[batch.Counts](), reflect.TypeFor[batch.Codes]()} {
		for _, f := range reflect.VisibleFields(counted) {
			name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
			if name == "" {
				continue // what is embedded
			}
			terms++
			if !strings.Contains(string(page), "`"+name+"`") {
				t.Errorf("docs/formats.md lacks the term %s of a stamp", name)
			}
		}
	}
	if terms < 25 {
		t.Fatalf("only %d terms were looked at", terms)
	}
}
