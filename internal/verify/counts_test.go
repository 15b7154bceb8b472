package verify

import (
	"strings"
	"testing"
)

func TestImbalance(t *testing.T) {
	for _, tt := range []struct {
		terms terms
		wrong string
	}{
		{terms{}, ""},
		{terms{"offsets": 10, "data": 6, "control": 1, "aborted": 1, "lost": 1, "absent": 1, "rows": 3, "tombstones": 1, "skipped": 1, "dead_lettered": 1}, ""},
		{terms{"offsets": 10, "data": 6}, "offsets are 10"},
		{terms{"offsets": 6, "data": 6, "rows": 5}, "data are 6"},
		{terms{"offsets": 6, "data": 6, "rows": 7, "skipped": -1}, "skipped is -1"},
		{terms{"offsets": 6, "data": 6, "rows": 6, "scanned": 6, "with_output": 5, "rejected": 1, "rejected_by.cast": 1}, ""},
		{terms{"offsets": 6, "data": 6, "rows": 6, "scanned": 6, "with_output": 5}, "scanned are 6"},
		{terms{"offsets": 6, "data": 6, "rows": 6, "scanned": 7}, "7 were scanned"},
		{terms{"offsets": 6, "data": 6, "rows": 6, "rejected": 1, "rejected_by.cast": 2}, "rejected are 1"},
		{terms{"offsets": 6, "data": 6, "rows": 5, "skipped": 1, "bad.decode": 2}, "by code they are 2"},
	} {
		if got := tt.terms.imbalance(); (tt.wrong == "") != (got == "") || !strings.Contains(got, tt.wrong) {
			t.Errorf("%v: %q, want %q", tt.terms, got, tt.wrong)
		}
	}
}
