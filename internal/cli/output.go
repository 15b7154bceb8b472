package cli

import (
	"fmt"
	"io"
	"os"
	"sync"

	"golang.org/x/term"
)

// output is the standard output. It remembers the first write that failed: what
// was asked for did not arrive, whoever wrote it.
type output struct {
	to io.Writer

	mu      sync.Mutex
	failed  error
	onError func(error) // told of the first one; may be nil
}

// Write implements io.Writer.
func (o *output) Write(p []byte) (int, error) {
	n, err := o.to.Write(p)
	o.mu.Lock()
	defer o.mu.Unlock()
	if err != nil && o.failed == nil {
		o.failed = fmt.Errorf("write the output: %w", err)
		if o.onError != nil {
			o.onError(err)
		}
	}
	return n, err
}

// tell has f called when a write fails.
func (o *output) tell(f func(error)) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.onError = f
}

// err is the first failure, nil if there was none.
func (o *output) err() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.failed
}

// fileOf is the file behind a writer, nil if there is none.
func fileOf(w io.Writer) *os.File {
	if o, ok := w.(*output); ok {
		w = o.to
	}
	f, _ := w.(*os.File)
	return f
}

func isTerminal(w io.Writer) bool {
	f := fileOf(w)
	return f != nil && term.IsTerminal(int(f.Fd()))
}

// widthOf is how many columns a terminal has, 0 for everything else.
func widthOf(w io.Writer) int {
	if !isTerminal(w) {
		return 0
	}
	width, _, err := term.GetSize(int(fileOf(w).Fd()))
	if err != nil || width <= 0 {
		return 80
	}
	return width
}
