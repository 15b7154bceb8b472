package checkpoint

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"sync"

	"github.com/frazil-io/frazil/internal/batch"
	"github.com/frazil-io/frazil/internal/objstore"
)

// copies are the contents of dimension tables. A copy lies under its SHA-256
// before a plan names it, and stays while a plan of any log does.
type copies struct {
	mu    sync.Mutex
	fresh map[string]bool     // kept since the last purge: a plan may be about to name them
	named map[string][]string // versions by log entry, as far as they were read
}

// sha256Hex tells the version of a copy from the snapshot of an Iceberg table.
var sha256Hex = regexp.MustCompile(`^[0-9a-f]{64}$`)

func (c *Checkpoint) dimension(version string) string { return c.name + "/dims/" + version }

// KeepDimension keeps the contents of a dimension table under their SHA-256.
func (c *Checkpoint) KeepDimension(ctx context.Context, version string, data []byte) error {
	c.copies.mu.Lock()
	if c.copies.fresh == nil {
		c.copies.fresh = map[string]bool{}
	}
	c.copies.fresh[version] = true
	c.copies.mu.Unlock()
	err := c.store.Create(ctx, c.dimension(version), data)
	if errors.Is(err, objstore.ErrExists) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("keep a copy of a dimension table: %w", err)
	}
	return nil
}

// Dimension returns the contents of a dimension table. batch.ErrInvalid: they are
// not kept.
func (c *Checkpoint) Dimension(ctx context.Context, version string) ([]byte, error) {
	data, err := c.store.Get(ctx, c.dimension(version))
	if errors.Is(err, objstore.ErrNotFound) {
		return nil, fmt.Errorf("%w: version %s of a dimension table is not in the checkpoint any more", batch.ErrInvalid, version)
	}
	return data, err
}

// dropCopies deletes the copies that only the given log entries name, before
// these are deleted themselves: what is left half done is found again.
func (c *Checkpoint) dropCopies(ctx context.Context, entries []string, plans []*batch.Plan) error {
	c.copies.mu.Lock()
	defer c.copies.mu.Unlock()
	going, candidates := map[string]bool{}, map[string]bool{}
	for i, p := range plans {
		going[entries[i]] = true
		for _, v := range p.Versions {
			if sha256Hex.MatchString(v) && !c.copies.fresh[v] {
				candidates[v] = true
			}
		}
	}
	if err := c.spare(ctx, candidates, going); err != nil {
		return err
	}
	for v := range candidates {
		if err := c.store.Delete(ctx, c.dimension(v)); err != nil {
			return err
		}
	}
	for key := range going {
		delete(c.copies.named, key)
	}
	clear(c.copies.fresh)
	return nil
}

// spare takes off the candidates what any other entry of any log names. The
// newest entries come first: most versions are still in use.
func (c *Checkpoint) spare(ctx context.Context, candidates, going map[string]bool) error {
	if len(candidates) == 0 {
		return nil
	}
	keys, err := c.store.List(ctx, c.name+"/offsets/", "")
	if err != nil {
		return err
	}
	for k := len(keys) - 1; k >= 0 && len(candidates) > 0; k-- {
		if going[keys[k]] {
			continue
		}
		versions, ok := c.copies.named[keys[k]]
		if !ok {
			p, err := c.plan(ctx, keys[k])
			if errors.Is(err, objstore.ErrNotFound) {
				continue // deleted meanwhile
			}
			if err != nil {
				return err
			}
			for _, v := range p.Versions {
				versions = append(versions, v)
			}
			if c.copies.named == nil {
				c.copies.named = map[string][]string{}
			}
			c.copies.named[keys[k]] = versions
		}
		for _, v := range versions {
			delete(candidates, v)
		}
	}
	return nil
}
