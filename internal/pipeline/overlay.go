package pipeline

import (
	"context"
	"sync"

	"github.com/frazil-io/frazil/internal/objstore"
)

// overlay is a store that is read, and never written: what is written stays in
// memory.
type overlay struct {
	objstore.Store
	mu   sync.Mutex
	kept map[string][]byte
}

// Create implements objstore.Store.
func (o *overlay) Create(ctx context.Context, key string, data []byte) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if _, ok := o.kept[key]; ok {
		return objstore.ErrExists
	}
	o.kept[key] = data
	return context.Cause(ctx)
}

// Put implements objstore.Store.
func (o *overlay) Put(ctx context.Context, key string, data []byte) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.kept[key] = data
	return context.Cause(ctx)
}

// Get implements objstore.Store.
func (o *overlay) Get(ctx context.Context, key string) ([]byte, error) {
	o.mu.Lock()
	data, ok := o.kept[key]
	o.mu.Unlock()
	if ok {
		return data, context.Cause(ctx)
	}
	return o.Store.Get(ctx, key)
}

// Delete implements objstore.Store.
func (o *overlay) Delete(ctx context.Context, key string) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.kept, key)
	return context.Cause(ctx)
}
