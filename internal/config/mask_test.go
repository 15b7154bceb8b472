package config

import (
	"os"
	"strings"
	"testing"
)

// TestVariablesAreNotPrintedBack: neither in errors, nor in what is hidden later.
func TestVariablesAreNotPrintedBack(t *testing.T) {
	file := t.TempDir() + "/secret"
	if err := os.WriteFile(file, []byte("from \"a\" file\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	env := func(name string) (string, bool) {
		v, ok := map[string]string{"LONG": "abcdef-ghi", "PART": "abcdef", "TINY": "x"}[name]
		return v, ok
	}
	s, err := Parse("x.yaml", []byte(strings.Replace(full, "${T}", "${LONG} ${PART} ${TINY} ${NONE:-plain} ${file:"+file+"}", 1)), func(name string) (string, bool) {
		if v, ok := env(name); ok {
			return v, true
		}
		return "5", len(name) == 1
	})
	if err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string]string{
		"login abcdef-ghi": "login ${LONG}", "abcdef": "${PART}", "x plain 5": "x plain 5",
		`{"e":"from \"a\" file"}`: `{"e":"${file:` + file + `}"}`, `from "a" file`: "${file:" + file + "}",
	} {
		if got := s.Mask().Hide(text); got != want {
			t.Errorf("%q is shown as %q, want %q", text, got, want)
		}
	}
	for _, change := range [][2]string{
		{"trigger: {interval: 0s}", `trigger: {interval: "${LONG}"}`},
		{"name: full", `name: "${LONG}"`},
		{"memory: 1GiB", `memory: "${LONG}"`},
		{"start: {clicks: {0: 120}}", `start: "${LONG}"`},
		{"table: w.rows", `table: "${LONG}"`},
		{"format: json", `format: "${LONG}"`},
		{"topics: [clicks]", `topics: ["a ${LONG}"]`},
	} {
		_, err := Parse("x.yaml", []byte(strings.Replace(full, change[0], change[1], 1)), func(name string) (string, bool) {
			if v, ok := env(name); ok {
				return v, true
			}
			return "5", len(name) == 1
		})
		if err == nil && !strings.Contains(change[1], "name") {
			t.Errorf("%s: no mistake", change[1])
		}
		if err != nil && strings.Contains(err.Error(), "abcdef") {
			t.Errorf("%s: %v", change[1], err)
		}
	}
}

// TestVariablesInEveryValue: sizes, time spans and starts read them, too.
func TestVariablesInEveryValue(t *testing.T) {
	values := map[string]string{"SPAN": "7s", "SIZE": "3GiB", "WHEN": "latest", "COUNT": "12", "YES": "true"}
	text := strings.NewReplacer("interval: 0s", `interval: "${SPAN}"`, "memory: 1GiB", "memory: ${SIZE}", "start: {clicks: {0: 120}}", "start: ${WHEN}", "max_records: 0", `max_records: "${COUNT}"`).Replace(full)
	s, err := Parse("x.yaml", []byte(text), func(name string) (string, bool) {
		if v, ok := values[name]; ok {
			return v, true
		}
		return "5", len(name) == 1
	})
	if err != nil {
		t.Fatal(err)
	}
	if s.Memory != 3<<30 || s.Trigger.Interval.String() != "7s" || s.Sources.By["clicks"].Kafka.Start.Text != "latest" || s.Limits.MaxRecords != 12 {
		t.Errorf("%+v", s)
	}
}

// TestLoginsInAddressesAreNotPrintedBack: what is written into an address is hidden
// as it stands there, and its words nowhere else.
func TestLoginsInAddressesAreNotPrintedBack(t *testing.T) {
	text := strings.Replace(full, `"https://c"`, `"https://bob:hunter2@c/x?key=disable&t=1"`, 1)
	if text == full {
		t.Fatal("the spec has no such address any more")
	}
	s, err := Parse("x.yaml", []byte(text), func(string) (string, bool) { return "5", true })
	if err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string]string{
		"at https://bob:hunter2@c/x?key=disable&t=1: refused":          "at https://bob:***@c/x?***: refused",
		`{"e":"https://bob:hunter2@c/x?key=disable\u0026t=1 is away"}`: `{"e":"https://bob:***@c/x?*** is away"}`,
		"disable hunter2 bob": "disable hunter2 bob",
	} {
		if got := s.Mask().Hide(text); got != want {
			t.Errorf("%q is shown as %q, want %q", text, got, want)
		}
	}
}
