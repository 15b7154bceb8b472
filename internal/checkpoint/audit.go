package checkpoint

import (
	"context"
	"errors"
	"path"
	"strconv"

	"golang.org/x/sync/errgroup"

	"github.com/frazil-io/frazil/internal/batch"
	"github.com/frazil-io/frazil/internal/objstore"
)

// File is one file of a checkpoint as an audit finds it.
type File[T any] struct {
	Key    string
	Number int64 // in its key
	Value  *T    // nil where it is damaged
	Damage error // why, with batch.ErrDataLost or batch.ErrInvalid
}

// AuditIncarnations returns every record below pipeline/, damaged ones, too.
func (c *Checkpoint) AuditIncarnations(ctx context.Context) ([]File[batch.Incarnation], error) {
	return audit[batch.Incarnation](ctx, c, kindIncarnation, c.incarnations())
}

// AuditLog returns every entry of an incarnation's log, damaged ones, too.
func (c *Checkpoint) AuditLog(ctx context.Context, i batch.Incarnation) ([]File[batch.Plan], error) {
	return audit[batch.Plan](ctx, c, kindPlan, c.log(i))
}

// AuditCommits returns every commit record of an incarnation, damaged ones, too.
func (c *Checkpoint) AuditCommits(ctx context.Context, i batch.Incarnation) ([]File[batch.Commit], error) {
	return audit[batch.Commit](ctx, c, kindCommit, c.commits(i))
}

// NewestEntry returns the number of an incarnation's newest log entry, -1 if there
// is none.
func (c *Checkpoint) NewestEntry(ctx context.Context, i batch.Incarnation) (int64, error) {
	keys, err := c.store.List(ctx, c.log(i), "")
	if err != nil || len(keys) == 0 {
		return -1, err
	}
	n, err := strconv.ParseInt(path.Base(keys[len(keys)-1]), 10, 64)
	if err != nil {
		return -1, damaged(keys[len(keys)-1], "its name is not a number")
	}
	return n, nil
}

// auditAtOnce is how many files are read side by side: enough to hide the answer
// times of an object store.
const auditAtOnce = 16

// audit reads all files below a prefix, in order. One that a running driver has
// purged meanwhile is left out, and so are those before it.
func audit[T any](ctx context.Context, c *Checkpoint, kind, prefix string) ([]File[T], error) {
	keys, err := c.store.List(ctx, prefix, "")
	if err != nil {
		return nil, err
	}
	files := make([]File[T], len(keys))
	purged := make([]bool, len(keys))
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(auditAtOnce)
	for k, key := range keys {
		group.Go(func() error {
			data, err := c.store.Get(ctx, key)
			if errors.Is(err, objstore.ErrNotFound) {
				purged[k] = true
				return nil
			}
			if err != nil {
				return err
			}
			files[k] = read[T](kind, key, data)
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	first := 0
	for k, gone := range purged {
		if gone {
			first = k + 1
		}
	}
	return files[first:], nil
}

func read[T any](kind, key string, data []byte) File[T] {
	f := File[T]{Key: key, Value: new(T)}
	var err error
	if f.Number, err = strconv.ParseInt(path.Base(key), 10, 64); err != nil {
		return File[T]{Key: key, Number: -1, Damage: damaged(key, "its name is not a number")}
	}
	if err := decode(kind, key, data, f.Value); err != nil {
		f.Value, f.Damage = nil, err
	}
	return f
}
