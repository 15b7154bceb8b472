package near

import "testing"

func TestEdits(t *testing.T) {
	for _, test := range []struct {
		a, b string
		want int
	}{
		{"", "", 0},
		{"", "abc", 3},
		{"abc", "", 3},
		{"abc", "abc", 0},
		{"clikcs", "clicks", 2},
		{"kitten", "sitting", 3},
		{"brokers", "broker", 1},
		{"a", "b", 1},
	} {
		if got := Edits(test.a, test.b); got != test.want {
			t.Errorf("%q to %q: %d, want %d", test.a, test.b, got, test.want)
		}
		if got := Edits(test.b, test.a); got != test.want {
			t.Errorf("%q to %q: %d, want %d", test.b, test.a, got, test.want)
		}
	}
}

func TestOf(t *testing.T) {
	names := []string{"topics", "topic", "trigger"}
	for wanted, want := range map[string]string{"topik": "topic", "topics": "topics", "tropics": "topics", "sinks": "", "topi": "topic"} {
		if got := Of(names, wanted, 2); got != want {
			t.Errorf("%q: %q, want %q", wanted, got, want)
		}
	}
	if got := Of([]string{"b", "a"}, "c", 1); got != "a" { // the same whatever the order
		t.Errorf("of two that are as near: %q", got)
	}
}
