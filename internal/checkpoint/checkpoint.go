// Package checkpoint keeps a pipeline's own records in an object store: its
// incarnations, the log of plans, commit records and registered attempts.
//
// What it promises:
//
//   - A log entry is created, never written over. Whoever creates it owns it; a
//     create whose answer was lost is told from another writer's by reading what
//     is there.
//   - Append returns nil only if the entry is the plan that was given, was the
//     newest one after it was made, and its incarnation still was, too.
//   - A file that was half written or changed is an error, never a plan.
//
// What it assumes of the store: an acknowledged object stays and is seen by
// every later listing. It starts no goroutine and reads no clock.
package checkpoint

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/frazil-io/frazil/internal/batch"
	"github.com/frazil-io/frazil/internal/objstore"
)

// Kinds of files.
const (
	kindIncarnation = "incarnation"
	kindPlan        = "plan"
	kindCommit      = "commit"
	kindAttempt     = "attempt"
	kindReleased    = "released"
	kindTable       = "table"
)

// Checkpoint is one pipeline's part of a store.
type Checkpoint struct {
	store  objstore.Store
	name   string
	copies copies

	mu   sync.Mutex
	read map[string]batch.Attempt // by key: a note never changes, so it is read once
}

// New returns the checkpoint of the pipeline with this name, below <name>/.
func New(store objstore.Store, name string) *Checkpoint {
	return &Checkpoint{store: store, name: name}
}

// Numbers in keys have a fixed width, so that keys sort as their numbers do.
func number(n int64) string { return fmt.Sprintf("%012d", n) }

func (c *Checkpoint) incarnations() string { return c.name + "/pipeline/" }
func (c *Checkpoint) attempts() string     { return c.name + "/attempts/" }
func (c *Checkpoint) released() string     { return c.name + "/released/" }
func (c *Checkpoint) tables(sink string) string {
	return c.name + "/tables/" + sink + "/"
}

func (c *Checkpoint) log(i batch.Incarnation) string {
	return fmt.Sprintf("%s/offsets/%d-%s/", c.name, i.Number, i.ID)
}

func (c *Checkpoint) commits(i batch.Incarnation) string {
	return fmt.Sprintf("%s/commits/%d-%s/", c.name, i.Number, i.ID)
}

// Incarnations returns all records of the pipeline, by number.
func (c *Checkpoint) Incarnations(ctx context.Context) ([]batch.Incarnation, error) {
	keys, err := c.store.List(ctx, c.incarnations(), "")
	if err != nil {
		return nil, fmt.Errorf("list incarnations: %w", err)
	}
	all := make([]batch.Incarnation, 0, len(keys))
	for _, key := range keys {
		var i batch.Incarnation
		if err := c.get(ctx, kindIncarnation, key, &i); err != nil {
			return nil, err
		}
		all = append(all, i)
	}
	return all, nil
}

// CreateIncarnation writes the record of i.Number if there is none. Look again
// afterwards: it may be another writer's.
func (c *Checkpoint) CreateIncarnation(ctx context.Context, i batch.Incarnation) error {
	data, err := encode(kindIncarnation, i)
	if err != nil {
		return err
	}
	err = c.store.Create(ctx, c.incarnations()+number(i.Number), data)
	if errors.Is(err, objstore.ErrExists) {
		return nil
	}
	return err
}

// Newest returns the log entry with the highest number, nil if there is none.
func (c *Checkpoint) Newest(ctx context.Context, i batch.Incarnation) (*batch.Plan, error) {
	keys, err := c.store.List(ctx, c.log(i), "")
	if err != nil || len(keys) == 0 {
		return nil, err
	}
	return c.plan(ctx, keys[len(keys)-1])
}

// Revisions returns the logged plans of one batch, oldest first.
func (c *Checkpoint) Revisions(ctx context.Context, i batch.Incarnation, id batch.ID) ([]*batch.Plan, error) {
	keys, err := c.store.List(ctx, c.log(i), "")
	if err != nil {
		return nil, err
	}
	var found []*batch.Plan
	// Entries are in the order of their batches, so the newest ones come last.
	for _, v := range slices.Backward(keys) {
		p, err := c.plan(ctx, v)
		if errors.Is(err, objstore.ErrNotFound) {
			break // purged meanwhile, and everything before it
		}
		if err != nil {
			return nil, err
		}
		if p.Batch < id {
			break
		}
		if p.Batch == id {
			found = append([]*batch.Plan{p}, found...)
		}
	}
	return found, nil
}

// Append creates the plan's log entry. It may be called again with the same
// plan after batch.ErrUnavailable. batch.ErrFenced: another writer made this
// entry or a higher one, or the plan's incarnation is not the newest any more.
func (c *Checkpoint) Append(ctx context.Context, p *batch.Plan) error {
	data, err := encode(kindPlan, p)
	if err != nil {
		return err
	}
	key := c.log(p.Incarnation) + number(p.Entry)
	if err := c.store.Create(ctx, key, data); err != nil {
		if err := c.mine(ctx, key, data, err); err != nil {
			return err
		}
	}
	return c.newestIs(ctx, p, key)
}

// mine says whether what is under key was made by this writer: the answer to
// its create may have been lost.
func (c *Checkpoint) mine(ctx context.Context, key string, data []byte, created error) error {
	if errors.Is(created, batch.ErrInvalid) {
		return created
	}
	there, err := c.store.Get(ctx, key)
	switch {
	case errors.Is(err, objstore.ErrNotFound):
		// The create may still be on its way; the next try finds out.
		return fmt.Errorf("create %s: %w: %w", key, batch.ErrUnavailable, created)
	case err != nil:
		return err
	case !bytes.Equal(there, data):
		return fmt.Errorf("%w: another driver made log entry %s", batch.ErrFenced, key)
	}
	return nil
}

// newestIs makes sure that nothing came after the entry: a writer that was
// frozen before its create is a ghost.
func (c *Checkpoint) newestIs(ctx context.Context, p *batch.Plan, key string) error {
	later, err := c.store.List(ctx, c.log(p.Incarnation), key)
	if err != nil {
		return err
	}
	if len(later) > 0 {
		return fmt.Errorf("%w: another driver has gone on to log entry %s", batch.ErrFenced, later[len(later)-1])
	}
	all, err := c.Incarnations(ctx)
	if err != nil {
		return err
	}
	if len(all) == 0 || !all[len(all)-1].Same(p.Incarnation) {
		return fmt.Errorf("%w: incarnation %d-%s of this driver is not the newest one of the pipeline any more: the pipeline was recovered or rewound, or its checkpoint is gone; "+
			"if no other driver runs it, start it again: it goes on from its tables", batch.ErrFenced, p.Incarnation.Number, p.Incarnation.ID)
	}
	return nil
}

// Record writes the commit record of a batch, for people and tools. It may be
// repeated.
func (c *Checkpoint) Record(ctx context.Context, i batch.Incarnation, r batch.Commit) error {
	return c.put(ctx, kindCommit, c.commits(i)+number(int64(r.Batch)), r)
}

// Recorded returns the newest commit records, at most n, newest first.
func (c *Checkpoint) Recorded(ctx context.Context, i batch.Incarnation, n int) ([]batch.Commit, error) {
	keys, err := c.store.List(ctx, c.commits(i), "")
	if err != nil {
		return nil, err
	}
	var found []batch.Commit
	for k := len(keys) - 1; k >= 0 && len(found) < n; k-- {
		var r batch.Commit
		if err := c.get(ctx, kindCommit, keys[k], &r); err != nil {
			if errors.Is(err, objstore.ErrNotFound) {
				break
			}
			return nil, err
		}
		found = append(found, r)
	}
	return found, nil
}

// Purge removes log entries and commit records of batches before keep, but
// never the newest entry, copies of dimension tables that no entry names any
// more, and what writers before its own noted at their end.
func (c *Checkpoint) Purge(ctx context.Context, i batch.Incarnation, keep batch.ID) error {
	keys, err := c.store.List(ctx, c.log(i), "")
	if err != nil {
		return err
	}
	if err := c.purgeReleased(ctx, keys); err != nil {
		return err
	}
	var old []string
	var plans []*batch.Plan
	for n := range len(keys) - 1 {
		p, err := c.plan(ctx, keys[n])
		if errors.Is(err, objstore.ErrNotFound) {
			continue
		}
		if err != nil {
			return err
		}
		if p.Batch >= keep {
			break
		}
		old, plans = append(old, keys[n]), append(plans, p)
	}
	if err := c.dropCopies(ctx, old, plans); err != nil {
		return err
	}
	for _, key := range old {
		if err := c.store.Delete(ctx, key); err != nil {
			return err
		}
	}
	records, err := c.store.List(ctx, c.commits(i), "")
	if err != nil {
		return err
	}
	for _, key := range records {
		// Numbers have a fixed width: keys compare as numbers do.
		if key >= c.commits(i)+number(int64(keep)) {
			break
		}
		if err := c.store.Delete(ctx, key); err != nil {
			return err
		}
	}
	return nil
}

// Clear removes what there is of the incarnations before i: it is for a stream that
// has ended. Attempts stay, because their files may.
func (c *Checkpoint) Clear(ctx context.Context, i batch.Incarnation) error {
	for _, prefix := range []string{c.name + "/offsets/", c.name + "/commits/", c.released(), c.name + "/dims/", c.incarnations()} {
		keys, err := c.store.List(ctx, prefix, "")
		if err != nil {
			return err
		}
		for _, key := range keys {
			c.copies.mu.Lock()
			fresh := c.copies.fresh[strings.TrimPrefix(key, c.dimension(""))]
			c.copies.mu.Unlock()
			if fresh || prefix == c.incarnations() && key >= prefix+number(i.Number) || strings.HasPrefix(key, c.log(i)) || strings.HasPrefix(key, c.commits(i)) {
				continue
			}
			if err := c.store.Delete(ctx, key); err != nil {
				return err
			}
		}
	}
	return nil
}

// purgeReleased removes the notes that nobody asks for any more: all but that of
// the newest plan's writer.
func (c *Checkpoint) purgeReleased(ctx context.Context, log []string) error {
	released, err := c.store.List(ctx, c.released(), "")
	if err != nil || len(released) == 0 || len(log) == 0 {
		return err
	}
	newest, err := c.plan(ctx, log[len(log)-1])
	if err != nil {
		return err
	}
	for _, key := range released {
		if key == c.released()+newest.Writer.ID {
			continue
		}
		if err := c.store.Delete(ctx, key); err != nil {
			return err
		}
	}
	return nil
}

// routedTable is what the list of a sink's tables says of one.
type routedTable struct {
	Sink  string `json:"sink"`
	Table string `json:"table"`
}

// NoteTable lists a table of a sink that feeds many. It may be repeated.
func (c *Checkpoint) NoteTable(ctx context.Context, sink, table string) error {
	return c.put(ctx, kindTable, c.tables(sink)+table, routedTable{sink, table})
}

// Tables returns the tables that were listed for a sink, by name.
func (c *Checkpoint) Tables(ctx context.Context, sink string) ([]string, error) {
	return c.listed(ctx, sink, c.tables(sink))
}

// Dropped returns the tables that somebody took from that list because they were
// dropped on purpose.
func (c *Checkpoint) Dropped(ctx context.Context, sink string) ([]string, error) {
	return c.listed(ctx, sink, c.name+"/dropped/"+sink+"/")
}

func (c *Checkpoint) listed(ctx context.Context, sink, prefix string) ([]string, error) {
	keys, err := c.store.List(ctx, prefix, "")
	if err != nil {
		return nil, fmt.Errorf("list the tables of sink %s: %w", sink, err)
	}
	for i, key := range keys {
		keys[i] = strings.TrimPrefix(key, prefix)
	}
	return keys, nil
}

// Register notes an attempt before its first file.
func (c *Checkpoint) Register(ctx context.Context, a batch.Attempt) error {
	return c.put(ctx, kindAttempt, c.attempts()+a.Name, a)
}

// Attempts returns the registered attempts. It may be called while others are
// registered and forgotten.
func (c *Checkpoint) Attempts(ctx context.Context) ([]batch.Attempt, error) {
	keys, err := c.store.List(ctx, c.attempts(), "")
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	known := map[string]batch.Attempt{}
	var all []batch.Attempt
	for _, key := range keys {
		a, ok := c.read[key]
		if !ok {
			err := c.get(ctx, kindAttempt, key, &a)
			if errors.Is(err, objstore.ErrNotFound) {
				continue // forgotten meanwhile
			}
			if err != nil {
				return nil, err
			}
		}
		known[key] = a
		all = append(all, a)
	}
	c.read = known
	return all, nil
}

// Forget removes the note of an attempt.
func (c *Checkpoint) Forget(ctx context.Context, attempt string) error {
	return c.store.Delete(ctx, c.attempts()+attempt)
}

// Release notes that a writer let go of the pipeline at its end.
func (c *Checkpoint) Release(ctx context.Context, w batch.Writer) error {
	return c.put(ctx, kindReleased, c.released()+w.ID, w)
}

// Released says whether a writer let go of the pipeline.
func (c *Checkpoint) Released(ctx context.Context, w batch.Writer) (bool, error) {
	var there batch.Writer
	err := c.get(ctx, kindReleased, c.released()+w.ID, &there)
	if errors.Is(err, objstore.ErrNotFound) {
		return false, nil
	}
	return err == nil, err
}

func (c *Checkpoint) plan(ctx context.Context, key string) (*batch.Plan, error) {
	p := &batch.Plan{}
	return p, c.get(ctx, kindPlan, key, p)
}

func (c *Checkpoint) get(ctx context.Context, kind, key string, v any) error {
	data, err := c.store.Get(ctx, key)
	if errors.Is(err, objstore.ErrNotFound) {
		// It was listed, or may be made any moment: look again.
		return fmt.Errorf("%w: %w", batch.ErrUnavailable, err)
	}
	if err != nil {
		return err
	}
	return decode(kind, key, data, v)
}

func (c *Checkpoint) put(ctx context.Context, kind, key string, v any) error {
	data, err := encode(kind, v)
	if err != nil {
		return err
	}
	return c.store.Put(ctx, key, data)
}
