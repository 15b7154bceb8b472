package exec

import "context"

// MemoryBytes is how much the DuckDB instances hold now. It may be called at any
// time between New and Close.
func (e *Executor) MemoryBytes(ctx context.Context) (int64, error) {
	var sum int64
	for _, w := range e.workers {
		n, err := w.instance.MemoryBytes(ctx)
		if err != nil {
			return sum, err
		}
		sum += n
	}
	return sum, nil
}
