package objstore

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"github.com/frazil-io/frazil/internal/batch"
)

// classify says what a caller must do; nil for nil. It judges by status and
// error code (Amazon S3 API reference, "Error responses"), never by text.
func (b *Bucket) classify(ctx context.Context, verb, key string, err error) error {
	if err == nil {
		return nil
	}
	where := fmt.Sprintf("%s s3://%s/%s", verb, b.bucket, b.key(key))
	if cause := context.Cause(ctx); cause != nil {
		return fmt.Errorf("%s: %w: %w", where, batch.ErrUnavailable, cause)
	}
	invalid := func(do string) error {
		return fmt.Errorf("%w: %s: %w; %s", batch.ErrInvalid, where, err, do)
	}
	// First: below it lie answers of other servers, which know no object.
	var lacking *noKeysError
	if errors.As(err, &lacking) {
		if lacking.never {
			return invalid("set " + propKeyID + " and " + propSecret + ", or AWS's own variables or files")
		}
		return fmt.Errorf("%s: %w: %w", where, batch.ErrUnavailable, err)
	}
	code, status := answer(err)
	switch {
	case status == http.StatusPreconditionFailed:
		return fmt.Errorf("%s: %w", where, ErrExists)
	case code == "NoSuchKey" && verb != "write":
		return fmt.Errorf("%s: %w", where, ErrNotFound)
	case code == "NoSuchBucket":
		return invalid("create the bucket " + b.bucket)
	case code == "RequestTimeTooSkewed":
		return invalid("set this machine's clock")
	case status == http.StatusUnauthorized, status == http.StatusForbidden, code == "ExpiredToken", code == "InvalidToken":
		return invalid("check the keys, and that they may read, write, list and delete objects in bucket " + b.bucket)
	case status >= 300 && status < 400, code == "AuthorizationHeaderMalformed":
		return invalid("set " + propRegion + " to the bucket's region and " + propEndpoint + " to its store")
	case status == http.StatusNotImplemented:
		return invalid("the store lacks conditional writes or another part of S3; use one that has them, or a directory")
	case status >= 400 && status < 500 && !passes(code, status):
		return invalid("check the bucket, the prefix and the " + propEndpoint)
	default:
		return fmt.Errorf("%s: %w: %w", where, batch.ErrUnavailable, err)
	}
}

// passes says whether an answer of the 400s is one that a later try can change.
// 409 is ConditionalRequestConflict or OperationAborted, when two writes met:
// whose object is there is not known.
func passes(code string, status int) bool {
	switch status {
	case http.StatusConflict, http.StatusRequestTimeout, http.StatusTooManyRequests:
		return true
	}
	return code == "RequestTimeout" || code == "SlowDown" || code == "IncompleteBody"
}

// answer returns what the server said, zero where it did not answer.
func answer(err error) (code string, status int) {
	var api smithy.APIError
	if errors.As(err, &api) {
		code = api.ErrorCode()
	}
	var response *smithyhttp.ResponseError
	if errors.As(err, &response) {
		status = response.HTTPStatusCode()
	}
	return code, status
}
