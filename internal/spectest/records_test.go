package spectest

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestRecords: what a line of a file becomes.
func TestRecords(t *testing.T) {
	for _, c := range []struct{ file, text, want string }{
		{"a.jsonl", "{}\r\n\n \n{}", "{}|{}"},
		{"a.csv", "\ufeff1,a\r\n\n2,b\n", "1,a||2,b"},
		{"a.records", `{"value":"x","headers":{"b":"1","a":null,"b":{"base64":"/w=="},"c":{"d": 1}}}`, "x b=1 a=<nil> b=\xff c={\"d\":1}"},
	} {
		path := filepath.Join(t.TempDir(), c.file)
		if err := os.WriteFile(path, []byte(c.text), 0o644); err != nil {
			t.Fatal(err)
		}
		for range 10 { // headers once came in another order each time
			all, err := readRecords(path)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for i, r := range all {
				k := r.kafka("t", i, time.Time{})
				text := string(k.Value)
				for _, h := range k.Headers {
					value := string(h.Value)
					if h.Value == nil {
						value = "<nil>"
					}
					text += " " + h.Key + "=" + value
				}
				got = append(got, text)
			}
			if text := strings.Join(got, "|"); text != c.want {
				t.Fatalf("%s is %q, want %q", c.text, text, c.want)
			}
		}
	}
	for _, wrong := range []string{`{"headers":[]}`, `{"headers":"x"}`, `{"headers":{"a"}}`, `{"partition":-1}`} {
		path := filepath.Join(t.TempDir(), "a.records")
		if err := os.WriteFile(path, []byte(wrong), 0o644); err != nil {
			t.Fatal(err)
		}
		if all, err := readRecords(path); err == nil {
			t.Errorf("%s became %v", wrong, all)
		}
	}
}
