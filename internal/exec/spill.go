package exec

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/frazil-io/frazil/internal/batch"
)

// spillDir makes a folder for what DuckDB spills, at prefix.<process>.<random>:
// instances that shared one would write over each other's files. What processes
// that were killed left behind is removed.
func spillDir(prefix string) (string, error) {
	parent, base := filepath.Split(prefix)
	left, err := filepath.Glob(filepath.Join(parent, base+".*"))
	if err != nil {
		return "", fmt.Errorf("%w: folder %q for spilling: %w", batch.ErrInvalid, prefix, err)
	}
	for _, dir := range left {
		pid, _, _ := strings.Cut(strings.TrimPrefix(filepath.Base(dir), base+"."), ".")
		n, err := strconv.Atoi(pid)
		if err == nil && n > 0 && errors.Is(syscall.Kill(n, 0), syscall.ESRCH) {
			_ = os.RemoveAll(dir) // perhaps another user's
		}
	}
	dir, err := os.MkdirTemp(parent, fmt.Sprintf("%s.%d.", base, os.Getpid()))
	if err != nil {
		return "", fmt.Errorf("%w: the folder for what DuckDB spills cannot be made; set TMPDIR to one that this user may write: %w", batch.ErrInvalid, err)
	}
	return dir, nil
}
