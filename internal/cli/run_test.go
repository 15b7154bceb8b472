package cli

import (
	"strings"
	"testing"
	"time"

	"github.com/frazil-io/frazil/internal/driver"
)

// heard keeps what an observer is told.
type heard struct{ all []string }

func (h *heard) Batch(driver.Progress)   {}
func (h *heard) Listed(time.Time, int64) {}
func (h *heard) Waiting(reason string)   { h.all = append(h.all, reason) }
func (h *heard) Standby(reason string)   { h.all = append(h.all, reason) }

// TestObserversLearnNoSecret: /readyz shows what they are told.
func TestObserversLearnNoSecret(t *testing.T) {
	var line, page heard
	b := both{&line, &page, func(text string) string { return strings.ReplaceAll(text, "hunter2", "***") }}
	b.Waiting("the catalog: http://bob:hunter2@c is away")
	b.Standby("hunter2 owns it")
	for _, h := range []heard{line, page} {
		if got := strings.Join(h.all, "\n"); got != "the catalog: http://bob:***@c is away\n*** owns it" {
			t.Errorf("an observer is told %q", got)
		}
	}
}
