package pipeline

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/apache/arrow-go/v18/arrow"

	"github.com/frazil-io/frazil/internal/batch"
	"github.com/frazil-io/frazil/internal/config"
	"github.com/frazil-io/frazil/internal/driver"
	"github.com/frazil-io/frazil/internal/exec"
	"github.com/frazil-io/frazil/internal/registry"
	"github.com/frazil-io/frazil/internal/sink"
	"github.com/frazil-io/frazil/internal/source"
	"github.com/frazil-io/frazil/internal/source/decode"
)

// The source and the executor are made for one set of reader schemas, and made
// anew for another one. The driver holds them by what they are now.

// sourceRoom is the source as it is now: driver.Source.
type sourceRoom struct{ p *Pipeline }

func (r sourceRoom) now() *source.Source {
	r.p.rooms.RLock()
	defer r.p.rooms.RUnlock()
	return r.p.source
}

// Start implements driver.Source.
func (r sourceRoom) Start(ctx context.Context, known batch.Offsets) (batch.Offsets, error) {
	return r.now().Start(ctx, known)
}

// List implements driver.Source.
func (r sourceRoom) List(ctx context.Context, since []batch.Range) ([]batch.Available, error) {
	return r.now().List(ctx, since)
}

// Ahead implements driver.Source.
func (r sourceRoom) Ahead(ctx context.Context, from batch.Offsets, available []batch.Available, bytesMax int64) ([]batch.Available, error) {
	return r.now().Ahead(ctx, from, available, bytesMax)
}

// Read implements driver.Source.
func (r sourceRoom) Read(ctx context.Context, ranges []batch.Range, emit, letters func(arrow.RecordBatch) error) (batch.Tally, error) {
	return r.now().Read(ctx, ranges, emit, letters)
}

// Publish implements driver.Source.
func (r sourceRoom) Publish(end batch.Offsets) { r.now().Publish(end) }

// execRoom is the executor as it is now: driver.Executor.
type execRoom struct{ p *Pipeline }

// Pin implements driver.Executor.
func (r execRoom) Pin(ctx context.Context) (map[string]string, error) {
	return r.p.executor().Pin(ctx)
}

// Execute implements driver.Executor.
func (r execRoom) Execute(ctx context.Context, job batch.Job, read func(emit, letters func(arrow.RecordBatch) error) error,
	write func(sink string, rows arrow.RecordBatch) error,
) (map[string]batch.Result, error) {
	return r.p.executor().Execute(ctx, job, read, write)
}

// Settle implements driver.Executor.
func (r execRoom) Settle(ctx context.Context, sink string, stamp *batch.Stamp) error {
	return r.p.executor().Settle(ctx, sink, stamp)
}

// Sweep implements driver.Executor.
func (r execRoom) Sweep(ctx context.Context, attempt string) error {
	return r.p.executor().Sweep(ctx, attempt)
}

func (p *Pipeline) executor() *exec.Executor {
	p.rooms.RLock()
	defer p.rooms.RUnlock()
	return p.exec
}

// current are the ids of the reader schemas, by source with a registry.
func (p *Pipeline) current() map[string]int32 {
	p.rooms.RLock()
	defer p.rooms.RUnlock()
	return idsOf(p.schemas)
}

func idsOf(schemas map[string]decode.Schema) map[string]int32 {
	ids := map[string]int32{}
	for name, s := range schemas {
		if s.ID != 0 {
			ids[name] = s.ID
		}
	}
	return ids
}

// ReadWith makes the pipeline read with the schemas that a plan names. A source
// that ids lack keeps its own. Nothing may use the pipeline meanwhile. With an
// error it is as it was. batch.ErrInvalid: SQL or a table does not fit them.
func (p *Pipeline) ReadWith(ctx context.Context, ids map[string]int32) error {
	schemas, err := p.schemasOf(ctx, ids)
	if err != nil {
		return err
	}
	o, err := p.execOptions(schemas)
	if err != nil {
		return err
	}
	ex, err := exec.New(ctx, o)
	if err != nil {
		return fmt.Errorf("with %s: %w", described(ids), err)
	}
	adopt, err := p.fit(ctx, ex)
	if err != nil {
		ex.Close()
		return fmt.Errorf("with %s: %w", described(ids), err)
	}
	src, err := p.newSource(schemas)
	if err != nil {
		ex.Close()
		return err
	}
	p.rooms.Lock()
	was, old := p.exec, p.source
	p.exec, p.source, p.schemas = ex, src, schemas
	p.noteFields(o)
	for _, f := range adopt {
		f()
	}
	p.rooms.Unlock()
	was.Close()
	if old != nil {
		old.Close()
	}
	for name, t := range p.opened() {
		p.tellChanges(name, t)
	}
	return nil
}

// described names schemas for people.
func described(ids map[string]int32) string {
	var all []string
	for _, name := range slices.Sorted(maps.Keys(ids)) {
		all = append(all, fmt.Sprintf("schema %d for source %s", ids[name], name))
	}
	return strings.Join(all, ", ")
}

// schemasOf are the reader schemas with these ids.
func (p *Pipeline) schemasOf(ctx context.Context, ids map[string]int32) (map[string]decode.Schema, error) {
	p.rooms.RLock()
	schemas := maps.Clone(p.schemas)
	p.rooms.RUnlock()
	for name, has := range schemas {
		id, ok := ids[name]
		if !ok || id == has.ID || p.registries[name] == nil {
			continue
		}
		found, err := p.registries[name].ByID(ctx, id)
		if errors.Is(err, registry.ErrUnknown) {
			return nil, fmt.Errorf("%w: source %s: %w, which a plan names; register it again, or change the SQL: then the batch is planned anew with the newest schema", batch.ErrInvalid, name, err)
		}
		if err != nil {
			return nil, fmt.Errorf("source %s: %w", name, err)
		}
		schemas[name] = toDecode(found)
	}
	return schemas, nil
}

// opened are the tables that were opened so far.
func (p *Pipeline) opened() map[string]*sink.Table {
	p.mu.Lock()
	defer p.mu.Unlock()
	return maps.Clone(p.tables)
}

// fit checks the opened tables against the SQL as it is now. What it returns makes
// it so.
func (p *Pipeline) fit(ctx context.Context, ex *exec.Executor) (adopt []func(), err error) {
	for name, t := range p.opened() {
		f, err := t.Fit(ctx, ex.Schema(name))
		if err != nil {
			return nil, fmt.Errorf("sink %s: %w", name, err)
		}
		adopt = append(adopt, f)
	}
	for _, name := range p.spec.Sinks.Names {
		r := p.routedBy(name)
		if r == nil {
			continue
		}
		f, err := r.Fit(ctx, ex.Schema(name))
		if err != nil {
			return nil, fmt.Errorf("sink %s: %w", name, err)
		}
		adopt = append(adopt, f)
	}
	return adopt, nil
}

// A registry is asked for newer schemas so often, beside the batches. One look may
// take as long as lookTimeout.
const (
	lookEvery   = 30 * time.Second
	lookTimeout = 30 * time.Second
)

// readers follow the registries of a pipeline: driver.Readers.
type readers struct {
	p       *Pipeline
	clock   driver.Clock
	follows []string // sources, and keys of sources
	look    func()   // asks for all of them
	cancel  context.CancelFunc
	beside  sync.WaitGroup

	mu      sync.Mutex
	newest  map[string]int32
	looked  time.Time
	looking bool
	met     map[writerSchema]bool // after which the registry was asked
}

// writerSchema is a schema that records of a source were written with.
type writerSchema struct {
	source string
	id     int32
}

// newReaders follows the sources whose version is not fixed and of which every
// sink that reads them may change its table. It asks nobody yet.
func newReaders(p *Pipeline, clock driver.Clock) *readers {
	r := &readers{p: p, clock: clock, follows: p.follows(), newest: p.current(), looked: clock.Now(), met: map[writerSchema]bool{}}
	ctx, cancel := context.WithCancel(context.Background())
	r.look, r.cancel = func() { r.ask(ctx) }, cancel
	return r
}

// follows are the sources, and keys of sources, that take a newer schema while the
// pipeline runs.
func (p *Pipeline) follows() (names []string) {
	for _, name := range p.spec.Sources.Names {
		fixed := slices.ContainsFunc(p.spec.Queries(), func(sink string) bool {
			return !evolves(p.spec.Sinks.By[sink]) && slices.Contains(p.exec.Query(sink).Streams, name)
		})
		if fixed {
			continue
		}
		parts := []string{name}
		if p.spec.Sources.By[name].Key != nil {
			parts = append(parts, name+keyPart)
		}
		for _, part := range parts {
			if s := p.part(part); p.schemas[part].ID != 0 && s.Registry.Version == 0 {
				names = append(names, part)
			}
		}
	}
	return names
}

// evolves says whether a sink may change its table.
func evolves(s config.Sink) bool { return sink.Evolve(s.Iceberg.Evolve) != sink.EvolveNone }

// Current implements driver.Readers.
func (r *readers) Current() map[string]int32 { return r.p.current() }

// Newest implements driver.Readers. It starts a look where one is due.
func (r *readers) Newest() map[string]int32 {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.follows) > 0 && !r.looking && r.clock.Now().Sub(r.looked) >= lookEvery {
		r.looking = true
		r.beside.Go(r.look)
	}
	return maps.Clone(r.newest)
}

// Use implements driver.Readers.
func (r *readers) Use(ctx context.Context, ids map[string]int32) error {
	return r.p.ReadWith(ctx, ids)
}

// meet is told of the schema with which a record was written that is read with
// another one. batch.ErrOutdated: it is newer, and so is the registry's newest:
// read with the older one, what is new in the record would be lost.
func (r *readers) meet(ctx context.Context, w writerSchema, reader int32) error {
	if !slices.Contains(r.follows, w.source) || w.id <= reader { // a registry counts up
		return nil
	}
	r.mu.Lock()
	asked := r.met[w]
	r.mu.Unlock()
	if !asked {
		if err := r.askFor(ctx, w.source); err != nil {
			return err
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.met[w] = true
	if newest := r.newest[w.source]; newest != reader {
		return fmt.Errorf("%w: a record of source %s was written with schema %d; it is read with schema %d, and the newest one is %d", batch.ErrOutdated, w.source, w.id, reader, newest)
	}
	return nil
}

// ask asks for the newest schemas.
func (r *readers) ask(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, lookTimeout)
	defer cancel()
	for _, name := range r.follows {
		if err := r.askFor(ctx, name); err != nil {
			r.p.log.Debug("the registry did not say whether there is a newer schema; it is asked again", "source", name, "error", err)
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.looked, r.looking = r.clock.Now(), false
}

// askFor asks for the newest schema of a source.
func (r *readers) askFor(ctx context.Context, source string) error {
	s, err := r.p.readerSchema(ctx, source)
	if err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if was := r.newest[source]; was != s.ID {
		r.p.log.Info("the registry has another schema for a source", "source", source, "schema", s.ID, "was", was)
	}
	r.newest[source] = s.ID
	return nil
}

// close ends a look and waits for its end.
func (r *readers) close() {
	r.cancel()
	r.beside.Wait()
}
