package objstore

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net/http"
	"path"
	"strconv"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"github.com/frazil-io/frazil/internal/batch"
)

// objectMax bounds what Get reads: no object of a checkpoint comes near it.
const objectMax = 256 << 20

// Bucket is a Store in a bucket of S3 or a compatible store, below a prefix.
// Creation is a PUT with If-None-Match: *.
type Bucket struct {
	client         *s3.Client
	bucket, prefix string
}

// OpenBucket opens a bucket and makes sure that the store honours conditional
// writes: one that ignores the condition would let two drivers own a batch.
func OpenBucket(ctx context.Context, bucket, prefix string, properties map[string]string) (*Bucket, error) {
	client, err := S3Client(ctx, properties)
	if err != nil {
		return nil, err
	}
	b := &Bucket{client: client, bucket: bucket, prefix: prefix}
	return b, b.probe(ctx)
}

// S3Client makes a client from Iceberg's property names. Without keys it uses
// the default chain of AWS (environment, profile, instance role).
func S3Client(ctx context.Context, properties map[string]string) (*s3.Client, error) {
	opts := []func(*config.LoadOptions) error{}
	if region := properties["s3.region"]; region != "" {
		opts = append(opts, config.WithRegion(region))
	}
	if key := properties["s3.access-key-id"]; key != "" {
		opts = append(opts, config.WithCredentialsProvider(
			credentials.NewStaticCredentialsProvider(key, properties["s3.secret-access-key"], properties["s3.session-token"])))
	}
	cfg, err := config.LoadDefaultConfig(ctx, opts...)
	if err != nil {
		return nil, fmt.Errorf("%w: S3 configuration: %w", batch.ErrInvalid, err)
	}
	pathStyle := properties["s3.endpoint"] != ""
	if v, err := strconv.ParseBool(properties["s3.path-style-access"]); err == nil {
		pathStyle = v
	}
	return s3.NewFromConfig(cfg, func(o *s3.Options) {
		if endpoint := properties["s3.endpoint"]; endpoint != "" {
			o.BaseEndpoint = aws.String(endpoint)
		}
		o.UsePathStyle = pathStyle
		o.RequestChecksumCalculation = aws.RequestChecksumCalculationWhenRequired
		o.ResponseChecksumValidation = aws.ResponseChecksumValidationWhenRequired
	}), nil
}

// probe writes one object twice under the condition.
func (b *Bucket) probe(ctx context.Context) error {
	key := "frazil-probe-" + rand.Text()
	if err := b.Create(ctx, key, []byte("probe")); err != nil {
		return err
	}
	err := b.Create(ctx, key, []byte("again"))
	_ = b.Delete(ctx, key) // one small object more would do no harm
	switch {
	case errors.Is(err, ErrExists):
		return nil
	case err == nil:
		return fmt.Errorf("%w: the object store of bucket %s ignores If-None-Match, so two writers could both create a checkpoint's entry; "+
			"use a store with conditional writes, or a directory", batch.ErrInvalid, b.bucket)
	default:
		return err
	}
}

// Create implements Store.
func (b *Bucket) Create(ctx context.Context, key string, data []byte) error {
	return b.put(ctx, key, data, aws.String("*"))
}

// Put implements Store.
func (b *Bucket) Put(ctx context.Context, key string, data []byte) error {
	return b.put(ctx, key, data, nil)
}

func (b *Bucket) put(ctx context.Context, key string, data []byte, ifNoneMatch *string) error {
	_, err := b.client.PutObject(ctx, &s3.PutObjectInput{
		Bucket: &b.bucket, Key: aws.String(b.key(key)), Body: bytes.NewReader(data), IfNoneMatch: ifNoneMatch,
	})
	return b.classify("write", key, err)
}

// Get implements Store.
func (b *Bucket) Get(ctx context.Context, key string) ([]byte, error) {
	out, err := b.client.GetObject(ctx, &s3.GetObjectInput{Bucket: &b.bucket, Key: aws.String(b.key(key))})
	if err != nil {
		return nil, b.classify("read", key, err)
	}
	data, err := io.ReadAll(io.LimitReader(out.Body, objectMax))
	if err := errors.Join(err, out.Body.Close()); err != nil {
		return nil, fmt.Errorf("read s3://%s/%s: %w: %w", b.bucket, b.key(key), batch.ErrUnavailable, err)
	}
	return data, nil
}

// List implements Store.
func (b *Bucket) List(ctx context.Context, prefix, after string) ([]string, error) {
	in := &s3.ListObjectsV2Input{Bucket: &b.bucket, Prefix: aws.String(b.key(prefix))}
	if after != "" {
		in.StartAfter = aws.String(b.key(after))
	}
	var keys []string
	for pages := s3.NewListObjectsV2Paginator(b.client, in); pages.HasMorePages(); {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return nil, b.classify("list", prefix, err)
		}
		for _, o := range page.Contents {
			key := strings.TrimPrefix(strings.TrimPrefix(aws.ToString(o.Key), b.prefix), "/")
			if key > after { // some stores ignore start-after
				keys = append(keys, key)
			}
		}
	}
	return keys, nil
}

// Delete implements Store.
func (b *Bucket) Delete(ctx context.Context, key string) error {
	_, err := b.client.DeleteObject(ctx, &s3.DeleteObjectInput{Bucket: &b.bucket, Key: aws.String(b.key(key))})
	if err := b.classify("delete", key, err); !errors.Is(err, ErrNotFound) {
		return err
	}
	return nil
}

// key keeps a trailing slash, which path.Join would drop from a prefix.
func (b *Bucket) key(key string) string {
	if b.prefix == "" {
		return key
	}
	return path.Join(b.prefix) + "/" + key
}

// classify judges by status and error code, never by text.
func (b *Bucket) classify(verb, key string, err error) error {
	if err == nil {
		return nil
	}
	where := fmt.Sprintf("%s s3://%s/%s", verb, b.bucket, b.key(key))
	var api smithy.APIError
	code := ""
	if errors.As(err, &api) {
		code = api.ErrorCode()
	}
	status := 0
	var response *smithyhttp.ResponseError
	if errors.As(err, &response) {
		status = response.HTTPStatusCode()
	}
	switch {
	case status == http.StatusPreconditionFailed:
		return fmt.Errorf("%s: %w", where, ErrExists)
	case code == "NoSuchBucket":
		return fmt.Errorf("%s: %w: bucket %s does not exist; create it", where, batch.ErrInvalid, b.bucket)
	case status == http.StatusNotFound:
		return fmt.Errorf("%s: %w", where, ErrNotFound)
	case status == http.StatusForbidden, status == http.StatusUnauthorized:
		return fmt.Errorf("%s: %w: access denied (%s); check the keys and the bucket's policy", where, batch.ErrInvalid, code)
	default: // also 409, when two conditional writes met: the outcome is unknown
		return fmt.Errorf("%s: %w: %w", where, batch.ErrUnavailable, err)
	}
}
