// Package dimension reads dimension tables: what a pipeline joins its streams
// with, pinned to one version for each batch.
//
// An Iceberg table is pinned by snapshot. Any other is copied as Parquet into the
// checkpoint before a plan names it, under the SHA-256 of that Parquet; a batch
// that is run again reads the copy, whatever became of the table.
package dimension

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/apache/arrow-go/v18/arrow"

	"github.com/frazil-io/frazil/internal/batch"
)

// Keeper keeps copies: the checkpoint.
type Keeper interface {
	// KeepDimension keeps the contents of a version.
	KeepDimension(ctx context.Context, version string, data []byte) error
	// Dimension returns the contents of a version. batch.ErrInvalid: they are not
	// kept.
	Dimension(ctx context.Context, version string) ([]byte, error)
}

// Options are common to all tables that are copied.
type Options struct {
	// Refresh is how long a version is used before the table is looked at again.
	Refresh  time.Duration
	BytesMax int64 // of the table in memory; 0: no limit
	Keeper   func(ctx context.Context) (Keeper, error)
	// Pinned is the version that the newest plan names, "" for none: it says which
	// columns the table had, if the table cannot be read any more.
	Pinned func(ctx context.Context) (string, error)
	Now    func() time.Time
}

// origin is where a table comes from.
type origin interface {
	// columns returns the table's columns; was are those of the copy that the
	// newest plan names, nil for none.
	columns(ctx context.Context, was []arrow.Field) ([]arrow.Field, error)
	// parquet returns the contents as they are now: fields, perhaps among others.
	parquet(ctx context.Context, fields []arrow.Field) ([]byte, error)
}

// Copied is a table whose versions are copies in the checkpoint.
type Copied struct {
	opts   Options
	from   origin
	fields []arrow.Field
	refreshed
	kept string // the version that was kept last
}

// open reads the columns: of the table, or if it cannot be read of the copy that
// the newest plan names.
func open(ctx context.Context, from origin, o Options) (*Copied, error) {
	c := &Copied{opts: o, from: from, refreshed: refreshed{every: o.Refresh, now: o.Now}}
	was, lost := c.before(ctx)
	var err error
	if c.fields, err = from.columns(ctx, was); err == nil {
		return c, nil
	}
	if was != nil && !errors.Is(err, errMistake) {
		c.fields = was
		return c, nil
	}
	if lost != nil && errors.Is(lost, batch.ErrUnavailable) {
		err = fmt.Errorf("%w; its copy cannot be read either: %v", err, lost) //nolint:errorlint // one kind only
	}
	if kind(err) == nil {
		return nil, fmt.Errorf("%w: %w", batch.ErrInvalid, err)
	}
	return nil, err
}

// errMistake marks what a copy is no way out of: the spec is wrong.
var errMistake = errors.New("the spec")

// kind returns which of the errors of batch err wraps.
func kind(err error) error {
	for _, k := range []error{batch.ErrUnavailable, batch.ErrInvalid, batch.ErrDataLost, batch.ErrFenced} {
		if errors.Is(err, k) {
			return k
		}
	}
	return nil
}

// before returns the columns of the copy that the newest plan names.
func (c *Copied) before(ctx context.Context) ([]arrow.Field, error) {
	version, err := c.opts.Pinned(ctx)
	if version == "" || err != nil {
		return nil, err
	}
	keeper, err := c.opts.Keeper(ctx)
	if err != nil {
		return nil, err
	}
	data, err := keeper.Dimension(ctx, version)
	if err != nil {
		return nil, err
	}
	return fieldsOf(data)
}

// Fields implements exec.Dimension.
func (c *Copied) Fields() []arrow.Field { return c.fields }

// Version implements exec.Dimension. The version is in the checkpoint when it
// returns. A file that is away may be in the middle of being replaced:
// batch.ErrUnavailable.
func (c *Copied) Version(ctx context.Context) (string, error) {
	return c.version(func() (string, error) {
		data, err := c.from.parquet(ctx, c.fields)
		if err != nil {
			if kind(err) == nil {
				err = fmt.Errorf("%w: %w", batch.ErrUnavailable, err)
			}
			return "", err
		}
		version := versionOf(data)
		if version == c.kept {
			return version, nil
		}
		rows, err := decode(ctx, data, c.fields, c.opts.BytesMax)
		if err != nil {
			return "", err // before a plan names what cannot be read
		}
		rows.Release()
		return version, c.keep(ctx, version, data)
	})
}

func versionOf(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

func (c *Copied) keep(ctx context.Context, version string, data []byte) error {
	keeper, err := c.opts.Keeper(ctx)
	if err != nil {
		return err
	}
	if err := keeper.KeepDimension(ctx, version, data); err != nil {
		return err
	}
	c.kept = version
	return nil
}

// Load implements exec.Dimension. If the copy is gone and the table still has
// the same contents, they are kept again.
func (c *Copied) Load(ctx context.Context, version string) (arrow.RecordBatch, error) {
	keeper, err := c.opts.Keeper(ctx)
	if err != nil {
		return nil, err
	}
	data, err := keeper.Dimension(ctx, version)
	if errors.Is(err, batch.ErrInvalid) {
		now, failed := c.from.parquet(ctx, c.fields)
		if failed != nil || versionOf(now) != version {
			return nil, fmt.Errorf("%w, and the table has changed since; change the spec in any way to revise the batch with the newest version", err)
		}
		data, err = now, c.keep(ctx, version, now)
	}
	if err != nil {
		return nil, err
	}
	if versionOf(data) != version {
		return nil, fmt.Errorf("%w: the copy of version %s in the checkpoint is damaged; restore it, or change the spec in any way to revise the batch with the newest version",
			batch.ErrDataLost, version)
	}
	return decode(ctx, data, c.fields, c.opts.BytesMax)
}

// refreshed asks for a version at most once in a while.
type refreshed struct {
	every time.Duration
	now   func() time.Time
	mu    sync.Mutex
	at    time.Time
	last  string
}

func (r *refreshed) version(ask func() (string, error)) (string, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.last != "" && r.now().Sub(r.at) < r.every {
		return r.last, nil
	}
	v, err := ask()
	if err == nil {
		r.last, r.at = v, r.now()
	}
	return v, err
}
