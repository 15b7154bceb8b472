package pipeline

import (
	"context"
	"os"
	"runtime/metrics"
	"strconv"
	"strings"
	"time"
)

// memoryTimeout bounds what a scrape may wait for.
const memoryTimeout = 2 * time.Second

// Memory is what the process holds, by part: go (heap, stacks and the runtime),
// duckdb (its buffers) and other (Arrow and Parquet buffers outside of Go's heap,
// code, allocators' slack). Together they are the resident memory, where the
// system tells it. The budget is the spec's `memory`.
func (p *Pipeline) Memory(ctx context.Context) (parts map[string]int64, budget int64) {
	ctx, cancel := context.WithTimeout(ctx, memoryTimeout)
	defer cancel()
	parts = map[string]int64{}
	samples := []metrics.Sample{{Name: "/memory/classes/total:bytes"}, {Name: "/memory/classes/heap/released:bytes"}}
	metrics.Read(samples)
	parts["go"] = int64(samples[0].Value.Uint64() - samples[1].Value.Uint64())
	if n, err := p.memoryOfDuckDB(ctx); err == nil {
		parts["duckdb"] = n
	}
	if resident := residentBytes(); resident > 0 {
		parts["other"] = max(0, resident-parts["go"]-parts["duckdb"])
	}
	return parts, int64(p.spec.Memory)
}

// memoryOfDuckDB holds the executor as it is while it is asked.
func (p *Pipeline) memoryOfDuckDB(ctx context.Context) (int64, error) {
	p.rooms.RLock()
	defer p.rooms.RUnlock()
	return p.exec.MemoryBytes(ctx)
}

// residentBytes is the process's resident memory on Linux, 0 elsewhere.
func residentBytes() int64 {
	data, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return 0
	}
	fields := strings.Fields(string(data))
	if len(fields) < 2 {
		return 0
	}
	pages, err := strconv.ParseInt(fields[1], 10, 64)
	if err != nil {
		return 0
	}
	return pages * int64(os.Getpagesize())
}
