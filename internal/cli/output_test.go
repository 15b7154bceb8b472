package cli

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"testing"
)

// fullDisk takes so many bytes.
type fullDisk int

var errFull = errors.New("no space left on device")

func (d *fullDisk) Write(p []byte) (int, error) {
	if *d -= fullDisk(len(p)); *d < 0 {
		return 0, errFull
	}
	return len(p), nil
}

// TestOutputThatCannotBeWritten: whoever wrote it, and whatever became of the
// error, the command has failed, once and in words.
func TestOutputThatCannotBeWritten(t *testing.T) {
	for _, args := range [][]string{{"version"}, {"spec-schema"}, {"--help"}, {"completion", "bash"}} {
		for _, room := range []fullDisk{0, 10} {
			var said bytes.Buffer
			if code := Main(args, &room, &said); code != exitFailed || strings.Count(said.String(), "no space left on device") != 1 {
				t.Errorf("%v ended with %d and said %q", args, code, said.String())
			}
		}
		room, said := fullDisk(1<<20), bytes.Buffer{}
		if code := Main(args, &room, &said); code != exitDone || said.Len() > 0 {
			t.Errorf("%v with room ended with %d and said %q", args, code, said.String())
		}
	}
}

// TestErrorsOfSeveralLines: a tab at the beginning of a line is no character to spell.
func TestErrorsOfSeveralLines(t *testing.T) {
	if got := lines(errors.New("no such function\n\tlen(VARCHAR)\n\n")); !slices.Equal(got, []string{"no such function", "    len(VARCHAR)"}) {
		t.Errorf("%q", got)
	}
}
