package objstore

import (
	"context"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/frazil-io/frazil/internal/batch"
)

// Names of the properties, as Iceberg has them.
const (
	propEndpoint  = "s3.endpoint"
	propRegion    = "s3.region"
	propKeyID     = "s3.access-key-id"
	propSecret    = "s3.secret-access-key"
	propToken     = "s3.session-token"
	propPathStyle = "s3.path-style-access"
)

const (
	// A server that took a request answers within answerMax; a request with its
	// body takes at most requestMax. Without them a server that hangs would hang
	// a driver for ever.
	answerMax  = 20 * time.Second
	requestMax = 2 * time.Minute
	// regionDefault is what compatible stores expect where nothing is said.
	regionDefault = "us-east-1"
)

// newClient makes a client. Without keys it uses the default chain of AWS:
// environment, shared files, web identity, instance role.
func newClient(ctx context.Context, properties map[string]string) (*s3.Client, error) {
	endpoint, pathStyle, err := address(properties)
	if err != nil {
		return nil, err
	}
	opts := []func(*config.LoadOptions) error{config.WithHTTPClient(awshttp.NewBuildableClient().WithTimeout(requestMax).
		WithTransportOptions(func(t *http.Transport) { t.ResponseHeaderTimeout = answerMax }))}
	if region := properties[propRegion]; region != "" {
		opts = append(opts, config.WithRegion(region))
	}
	key, secret := properties[propKeyID], properties[propSecret]
	if (key == "") != (secret == "") {
		return nil, fmt.Errorf("%w: %s and %s go together; set both, or none for the default chain of AWS", batch.ErrInvalid, propKeyID, propSecret)
	}
	if key != "" {
		opts = append(opts, config.WithCredentialsProvider(credentials.NewStaticCredentialsProvider(key, secret, properties[propToken])))
	}
	cfg, err := config.LoadDefaultConfig(ctx, opts...)
	if err != nil {
		return nil, fmt.Errorf("%w: the AWS configuration of this environment: %w; correct it, or set %s and %s", batch.ErrInvalid, err, propRegion, propKeyID)
	}
	if cfg.Region == "" && endpoint == "" {
		return nil, fmt.Errorf("%w: no region; set %s or AWS_REGION, and %s for a store that is not Amazon's", batch.ErrInvalid, propRegion, propEndpoint)
	}
	if cfg.Region == "" {
		cfg.Region = regionDefault
	}
	if key == "" {
		cfg.Credentials = &chain{CredentialsProvider: cfg.Credentials}
	}
	return s3.NewFromConfig(cfg, func(o *s3.Options) {
		if endpoint != "" {
			o.BaseEndpoint = &endpoint
		}
		o.UsePathStyle = pathStyle
		// Compatible stores do not all know the trailing checksums that the SDK
		// adds by default. Checkpoint files carry their own.
		o.RequestChecksumCalculation = aws.RequestChecksumCalculationWhenRequired
		o.ResponseChecksumValidation = aws.ResponseChecksumValidationWhenRequired
	}), nil
}

// address reads where the store is. One with an endpoint of its own is addressed
// by path unless the properties say otherwise.
func address(properties map[string]string) (endpoint string, pathStyle bool, err error) {
	endpoint = properties[propEndpoint]
	if endpoint != "" && !strings.HasPrefix(endpoint, "http://") && !strings.HasPrefix(endpoint, "https://") {
		return "", false, fmt.Errorf("%w: %s %q has no scheme; write http:// or https:// before it", batch.ErrInvalid, propEndpoint, endpoint)
	}
	style, ok := properties[propPathStyle]
	if !ok {
		return endpoint, endpoint != "", nil
	}
	if pathStyle, err = strconv.ParseBool(style); err != nil {
		return "", false, fmt.Errorf("%w: %s is %q; write true or false", batch.ErrInvalid, propPathStyle, style)
	}
	return endpoint, pathStyle, nil
}

// chain marks the errors of the default chain of AWS, which has no type for
// them.
type chain struct {
	aws.CredentialsProvider
	found atomic.Bool
}

// Retrieve implements aws.CredentialsProvider.
func (c *chain) Retrieve(ctx context.Context) (aws.Credentials, error) {
	keys, err := c.CredentialsProvider.Retrieve(ctx)
	if err != nil {
		return keys, &noKeysError{err: err, never: !c.found.Load()}
	}
	c.found.Store(true)
	return keys, nil
}

// noKeysError says that the default chain found no keys.
type noKeysError struct {
	err   error
	never bool // nor did it before: nobody gave it any
}

func (e *noKeysError) Error() string { return e.err.Error() }
func (e *noKeysError) Unwrap() error { return e.err }
