// Package objstore is the small part of an object store that the checkpoint
// needs: objects under slash-separated keys, and creation only where nothing is
// there yet. A directory and an S3 bucket keep the same promises.
package objstore

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
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

// objectMax bounds an object in bytes: no file of a checkpoint comes near it,
// and the memory that Get takes stays bounded.
const objectMax = 256 << 20

// Store holds objects. Keys are paths with slashes, without empty, "." and ".."
// elements. Any failure but ErrExists and ErrNotFound wraps
// batch.ErrUnavailable, after which a write may have been applied, or be applied
// later, or batch.ErrInvalid; a cancelled call wraps the context's cause, too.
//
// What was acknowledged is durable, and every later Get and List sees it. A
// deletion alone may be undone when the machine fails. A Store may be used by
// several goroutines.
type Store interface {
	// Create writes the object if the key has none, else returns ErrExists. An
	// object is there whole or not at all.
	Create(ctx context.Context, key string, data []byte) error
	// Put writes the object, in place of one that is there.
	Put(ctx context.Context, key string, data []byte) error
	// Get returns the object, or ErrNotFound.
	Get(ctx context.Context, key string) ([]byte, error)
	// List returns the keys that begin with prefix and sort behind after, in
	// order. Its cost depends on what it returns, not on what lies before.
	List(ctx context.Context, prefix, after string) ([]string, error)
	// Delete removes the object; there may be none.
	Delete(ctx context.Context, key string) error
}

// Open opens the store at a location: a directory ("./dir", "file:///dir") or a
// bucket ("s3://bucket/prefix"), to which properties with Iceberg's names apply:
// s3.endpoint, s3.region, s3.access-key-id, s3.secret-access-key,
// s3.session-token, s3.path-style-access. Nothing is written before the first
// Create or Put. batch.ErrInvalid: the location or a property is wrong.
func Open(ctx context.Context, location string, properties map[string]string) (Store, error) {
	s, err := open(ctx, location, properties)
	if err != nil {
		return nil, err // not a nil *Dir or *Bucket in an interface
	}
	return s, nil
}

func open(ctx context.Context, location string, properties map[string]string) (Store, error) {
	scheme, _, ok := strings.Cut(location, "://")
	if !ok {
		return OpenDir(location)
	}
	// The location is not quoted before it is known to hold no password.
	u, err := url.Parse(location)
	if err != nil || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return nil, fmt.Errorf("%w: a location with scheme %q holds more than a path; write s3://bucket/prefix or file:///directory, "+
			"and give keys as the properties s3.access-key-id and s3.secret-access-key", batch.ErrInvalid, scheme)
	}
	switch scheme {
	case "file":
		if u.Host != "" && u.Host != "localhost" || u.Path == "" {
			return nil, fmt.Errorf("%w: location %q is not a directory of this host; write file:///directory", batch.ErrInvalid, location)
		}
		return OpenDir(u.Path)
	case "s3", "s3a":
		prefix := strings.Trim(u.Path, "/")
		if u.Host == "" || prefix != "" && !fs.ValidPath(prefix) {
			return nil, fmt.Errorf("%w: location %q is not s3://bucket/prefix", batch.ErrInvalid, location)
		}
		return OpenBucket(ctx, u.Host, prefix, properties)
	default:
		return nil, fmt.Errorf("%w: location %q: scheme %q is not supported; use a directory or s3://bucket/prefix", batch.ErrInvalid, location, scheme)
	}
}

// check returns an error for a call that must not go out: it was cancelled, or
// its key would lead out of the store.
func check(ctx context.Context, verb, key string) error {
	if err := context.Cause(ctx); err != nil {
		return fmt.Errorf("%s %s: %w: %w", verb, key, batch.ErrUnavailable, err)
	}
	if !fs.ValidPath(key) || key == "." || strings.Contains("/"+key, "/"+temporaryPrefix) {
		return fmt.Errorf("%w: %s: %q is not a key; choose names that are not empty, \".\" or \"..\", hold no slash, and do not begin with %s",
			batch.ErrInvalid, verb, key, temporaryPrefix)
	}
	return nil
}

// checkPrefix is check for a listing: a prefix may end in the middle of a name.
func checkPrefix(ctx context.Context, prefix string) error { return check(ctx, "list", prefix+"x") }

func checkSize(key string, data []byte) error {
	if len(data) > objectMax {
		return fmt.Errorf("%w: object %s has %d bytes; the most is %d", batch.ErrInvalid, key, len(data), objectMax)
	}
	return nil
}
