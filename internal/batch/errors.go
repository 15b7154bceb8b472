package batch

import (
	"errors"
	"fmt"
)

// What a caller must do about a failure. A room wraps its own cause in exactly
// one of these, and adds a kind only where a caller would act differently:
//
//	fmt.Errorf("list offsets of %s: %w: %w", topic, batch.ErrUnavailable, err)
var (
	// ErrUnavailable: something outside did not answer, or not yet. Try the
	// same step again after a backoff. The outcome of a write is unknown.
	ErrUnavailable = errors.New("unavailable")
	// ErrFenced: another driver owns the pipeline. Stop.
	ErrFenced = errors.New("fenced")
	// ErrDataLost: records are gone, or two histories disagree. An operator
	// decides.
	ErrDataLost = errors.New("data lost")
	// ErrInvalid: the spec, the SQL, a schema, a credential or a record is
	// wrong. Fix it and start again.
	ErrInvalid = errors.New("invalid")
)

// ErrOutdated is an ErrUnavailable: records were written with a newer schema than
// the batch's plan has them read with, and the registry has one that fits them.
// Read them with that.
var ErrOutdated = fmt.Errorf("%w: read with an older schema than records were written with", ErrUnavailable)
