// Package objstore is the small part of an object store that the checkpoint
// needs: objects under slash-separated keys, and creation only where nothing is
// there yet. A directory and an S3 bucket keep the same promises.
package objstore

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"

	"github.com/frazil-io/frazil/internal/batch"
)

var (
	// ErrExists says that the key has an object already, perhaps one that an earlier try
	// of the same call made.
	ErrExists = errors.New("object exists")
	// ErrNotFound says that the key has no object.
	ErrNotFound = errors.New("object not found")
)

// Store holds objects. Any failure but ErrExists and ErrNotFound wraps
// batch.ErrUnavailable, after which a write may have been applied or not, or
// batch.ErrInvalid. What was acknowledged is durable.
type Store interface {
	// Create writes the object if the key has none, else returns ErrExists.
	Create(ctx context.Context, key string, data []byte) error
	// Put writes the object, in place of one that is there.
	Put(ctx context.Context, key string, data []byte) error
	// Get returns the object, or ErrNotFound.
	Get(ctx context.Context, key string) ([]byte, error)
	// List returns the keys that begin with prefix and sort behind after, in
	// order.
	List(ctx context.Context, prefix, after string) ([]string, error)
	// Delete removes the object; there may be none.
	Delete(ctx context.Context, key string) error
}

// Open opens the store at a location: a directory ("./dir", "file:///dir") or a
// bucket ("s3://bucket/prefix"), to which properties with Iceberg's names apply
// (s3.endpoint, s3.region, s3.access-key-id …).
func Open(ctx context.Context, location string, properties map[string]string) (Store, error) {
	scheme, rest, ok := strings.Cut(location, "://")
	switch {
	case !ok:
		return OpenDir(location)
	case scheme == "file":
		return OpenDir(rest)
	case scheme == "s3" || scheme == "s3a":
		u, err := url.Parse(location)
		if err != nil || u.Host == "" {
			return nil, fmt.Errorf("%w: location %q is not s3://bucket/prefix", batch.ErrInvalid, location)
		}
		return OpenBucket(ctx, u.Host, strings.Trim(u.Path, "/"), properties)
	default:
		return nil, fmt.Errorf("%w: location %q: scheme %q is not supported; use a directory or s3://bucket/prefix", batch.ErrInvalid, location, scheme)
	}
}
