package exec

import (
	"errors"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"

	"github.com/frazil-io/frazil/internal/batch"
	"github.com/frazil-io/frazil/internal/exec/stream"
)

var fenced = regexp.MustCompile("(?ms)^```(sql refused|sql|yaml)\n(.*?)^```$")

// TestTheGuide: each statement of docs/sql.md runs, or is refused as it says.
func TestTheGuide(t *testing.T) {
	data, err := os.ReadFile("../../docs/sql.md")
	if err != nil {
		t.Fatal(err)
	}
	var good, bad []string
	var change func(*Options)
	for _, block := range fenced.FindAllStringSubmatch(string(data), -1) {
		switch text := block[2]; block[1] {
		case "sql":
			good = append(good, text)
		case "sql refused":
			bad = append(bad, text)
		case "yaml":
			var spec struct{ Macros, Views yaml.MapSlice }
			if err := yaml.Unmarshal([]byte(text), &spec); err != nil {
				t.Fatal(err)
			}
			if spec.Macros != nil {
				change = func(o *Options) {
					for _, m := range spec.Macros {
						o.Macros = append(o.Macros, stream.Macro{Signature: m.Key.(string), SQL: m.Value.(string)})
					}
					for _, v := range spec.Views {
						o.Views = append(o.Views, stream.View{Name: v.Key.(string), SQL: v.Value.(string)})
					}
				}
			}
		}
	}
	if len(good) < 8 || len(bad) < 10 || change == nil {
		t.Fatalf("%d good statements, %d bad ones", len(good), len(bad))
	}
	cuts(t, change, good)
	refuse := refuser(t, change)
	for _, b := range bad {
		sql, want, _ := strings.Cut(strings.TrimSpace(b), "\n-- ")
		if err := refuse(sql); !errors.Is(err, batch.ErrInvalid) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", sql, err, want)
		}
	}
}
