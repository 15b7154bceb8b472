package objstore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/frazil-io/frazil/internal/batch"
)

// probeKey is the object by which a store shows that it honours the condition.
// It stays: on the next start one refused write is enough.
const probeKey = "frazil-conditional-write-probe"

// Bucket is a Store in a bucket of S3 or a compatible store, below a prefix.
// Creation is a PUT with If-None-Match: * (Amazon S3 user guide, "Conditional
// writes"). A store that ignores the condition would let two drivers own a
// batch, so the first Create of a process makes sure of it.
type Bucket struct {
	client         *s3.Client
	bucket, prefix string
	page           int32 // keys in a page of a listing; 0: the store's own, 1,000 in S3

	mu     sync.Mutex
	proven bool // the store honours the condition
}

// OpenBucket opens a bucket, with the properties that Open describes. It sends
// no request yet.
func OpenBucket(ctx context.Context, bucket, prefix string, properties map[string]string) (*Bucket, error) {
	client, err := newClient(ctx, properties)
	if err != nil {
		return nil, fmt.Errorf("bucket %s: %w", bucket, err)
	}
	return &Bucket{client: client, bucket: bucket, prefix: prefix}, nil
}

// Create implements Store. batch.ErrInvalid also where the store ignores the
// condition.
func (b *Bucket) Create(ctx context.Context, key string, data []byte) error {
	if err := b.prove(ctx); err != nil {
		return err
	}
	return b.put(ctx, key, data, aws.String("*"))
}

// prove writes one object under the condition that it is not there, once more
// where it was not: the second write must be refused.
func (b *Bucket) prove(ctx context.Context) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.proven {
		return nil
	}
	text := []byte("frazil writes this object only where it is missing, to see whether the store honours If-None-Match.\n")
	for range 2 {
		err := b.put(ctx, probeKey, text, aws.String("*"))
		if errors.Is(err, ErrExists) {
			b.proven = true
			return nil
		}
		if err != nil {
			return err
		}
	}
	return fmt.Errorf("%w: the object store of bucket %s ignores If-None-Match, so two drivers could both create an entry of the checkpoint; "+
		"use a store with conditional writes, or a directory", batch.ErrInvalid, b.bucket)
}

// Put implements Store.
func (b *Bucket) Put(ctx context.Context, key string, data []byte) error {
	return b.put(ctx, key, data, nil)
}

func (b *Bucket) put(ctx context.Context, key string, data []byte, ifNoneMatch *string) error {
	if err := errors.Join(check(ctx, "write", key), checkSize(key, data)); err != nil {
		return err
	}
	_, err := b.client.PutObject(ctx, &s3.PutObjectInput{
		Bucket: &b.bucket, Key: aws.String(b.key(key)), Body: bytes.NewReader(data), IfNoneMatch: ifNoneMatch,
	})
	return b.classify(ctx, "write", key, err)
}

// Get implements Store.
func (b *Bucket) Get(ctx context.Context, key string) ([]byte, error) {
	if err := check(ctx, "read", key); err != nil {
		return nil, err
	}
	out, err := b.client.GetObject(ctx, &s3.GetObjectInput{Bucket: &b.bucket, Key: aws.String(b.key(key))})
	if err != nil {
		return nil, b.classify(ctx, "read", key, err)
	}
	data, err := io.ReadAll(io.LimitReader(out.Body, objectMax+1))
	if err := errors.Join(err, out.Body.Close()); err != nil {
		return nil, b.classify(ctx, "read", key, err)
	}
	return data, checkSize(key, data)
}

// List implements Store.
func (b *Bucket) List(ctx context.Context, prefix, after string) ([]string, error) {
	if err := checkPrefix(ctx, prefix); err != nil {
		return nil, err
	}
	in := &s3.ListObjectsV2Input{Bucket: &b.bucket, Prefix: aws.String(b.key(prefix))}
	if after != "" {
		in.StartAfter = aws.String(b.key(after))
	}
	if b.page > 0 {
		in.MaxKeys = &b.page
	}
	var keys []string
	for pages := s3.NewListObjectsV2Paginator(b.client, in); pages.HasMorePages(); {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return nil, b.classify(ctx, "list", prefix, err)
		}
		for _, o := range page.Contents {
			key := strings.TrimPrefix(aws.ToString(o.Key), b.key(""))
			if key > after { // some stores ignore start-after
				keys = append(keys, key)
			}
		}
	}
	return keys, nil
}

// Delete implements Store.
func (b *Bucket) Delete(ctx context.Context, key string) error {
	if err := check(ctx, "delete", key); err != nil {
		return err
	}
	_, err := b.client.DeleteObject(ctx, &s3.DeleteObjectInput{Bucket: &b.bucket, Key: aws.String(b.key(key))})
	if err = b.classify(ctx, "delete", key, err); errors.Is(err, ErrNotFound) {
		return nil
	}
	return err
}

// key returns the name in the bucket of a key or of a key's beginning.
func (b *Bucket) key(key string) string {
	if b.prefix == "" {
		return key
	}
	return b.prefix + "/" + key
}
