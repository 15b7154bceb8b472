package cli

import (
	"bytes"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"
)

// TestLogsSayDurations in the same words in every format, wherever they are.
func TestLogsSayDurations(t *testing.T) {
	for format, wants := range map[string][]string{
		"json": {`"after":"10s"`, `"took":"1.5ms"`, `"inner":"2h0m0s"`, `"n":10`, `"error":"away"`},
		"text": {"after=10s", "took=1.5ms", "g.inner=2h0m0s", "n=10", "error=away"},
	} {
		var said bytes.Buffer
		a := &app{err: &said, logLevel: "debug", logFormat: format}
		log, err := a.logger()
		if err != nil {
			t.Fatal(err)
		}
		log.With("took", 1500*time.Microsecond).Info("x", "after", 10*time.Second, "n", 10, "error", errors.New("away"), slog.Group("g", "inner", 2*time.Hour))
		for _, want := range wants {
			if !strings.Contains(said.String(), want) {
				t.Errorf("%s: %s lacks %s", format, said.String(), want)
			}
		}
	}
}
