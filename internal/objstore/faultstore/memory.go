package faultstore

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/frazil-io/frazil/internal/objstore"
)

// Memory is an objstore.Store that keeps everything in memory.
type Memory struct {
	mu      sync.Mutex
	objects map[string][]byte
}

var _ objstore.Store = (*Memory)(nil)

// NewMemory returns an empty store.
func NewMemory() *Memory { return &Memory{objects: map[string][]byte{}} }

// Create implements objstore.Store.
func (m *Memory) Create(_ context.Context, key string, data []byte) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, ok := m.objects[key]; ok {
		return fmt.Errorf("create %s: %w", key, objstore.ErrExists)
	}
	m.objects[key] = slices.Clone(data)
	return nil
}

// Put implements objstore.Store.
func (m *Memory) Put(_ context.Context, key string, data []byte) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.objects[key] = slices.Clone(data)
	return nil
}

// Get implements objstore.Store.
func (m *Memory) Get(_ context.Context, key string) ([]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	data, ok := m.objects[key]
	if !ok {
		return nil, fmt.Errorf("get %s: %w", key, objstore.ErrNotFound)
	}
	return slices.Clone(data), nil
}

// List implements objstore.Store.
func (m *Memory) List(_ context.Context, prefix, after string) ([]string, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.DeleteFunc(slices.Sorted(maps.Keys(m.objects)), func(k string) bool { return !strings.HasPrefix(k, prefix) || k <= after }), nil
}

// Delete implements objstore.Store.
func (m *Memory) Delete(_ context.Context, key string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.objects, key)
	return nil
}
