package kafka

import (
	"context"
	"errors"
	"fmt"
	"net"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/frazil-io/frazil/internal/batch"
	"github.com/frazil-io/frazil/internal/certs"
)

// Unknown says whether an error is Kafka's for a topic or partition that does
// not exist, or that the broker which was asked does not know yet.
func Unknown(err error) bool {
	return errors.Is(err, kerr.UnknownTopicOrPartition) || errors.Is(err, kerr.UnknownTopicID)
}

// Classify says what the caller must do about an error of a client: it wraps it
// in one of the batch.Err… kinds, unless it carries one already. A cancelled
// ctx gives its cause.
func Classify(ctx context.Context, doing string, err error) error {
	if err == nil {
		return nil
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	for _, kind := range []error{batch.ErrUnavailable, batch.ErrInvalid, batch.ErrDataLost, batch.ErrFenced} {
		if errors.Is(err, kind) {
			return fmt.Errorf("%s: %w", doing, err)
		}
	}
	todo, kind := judge(err)
	if todo != "" {
		return fmt.Errorf("%s: %w: %s: %w", doing, kind, todo, err)
	}
	return fmt.Errorf("%s: %w: %w", doing, kind, err)
}

// judge gives each error its kind and says what to do. What is not listed may
// pass: no answer, no leader, a broker that starts, an error newer than this.
func judge(err error) (todo string, kind error) {
	switch {
	case isAny(err, kerr.SaslAuthenticationFailed):
		return "the broker refused the login; check sasl username and password", batch.ErrInvalid
	case isAny(err, kerr.UnsupportedSaslMechanism, kerr.IllegalSaslState):
		return "the broker does not take this login; check sasl mechanism", batch.ErrInvalid
	case isAny(err, kerr.TopicAuthorizationFailed):
		return "this user may not use the topic; grant READ and DESCRIBE on it, or WRITE and DESCRIBE where dead letters go to it", batch.ErrInvalid
	case isAny(err, kerr.GroupAuthorizationFailed):
		return "this user may not use the group; grant READ on it, or set group: \"\"", batch.ErrInvalid
	case isAny(err, kerr.ClusterAuthorizationFailed, kerr.TransactionalIDAuthorizationFailed, kerr.DelegationTokenAuthorizationFailed):
		return "this user may not do that; grant it in Kafka's ACLs", batch.ErrInvalid
	case isAny(err, kerr.InvalidTopicException):
		return "a topic cannot have this name; correct topics", batch.ErrInvalid
	case isAny(err, kerr.UnsupportedVersion):
		return "the broker is too old; frazil needs Kafka 0.11 or newer", batch.ErrInvalid
	}
	return judgeNetwork(err)
}

// judgeNetwork judges what stands between: certificates and addresses.
func judgeNetwork(err error) (todo string, kind error) {
	switch certs.FaultOf(err) {
	case certs.OtherName:
		return "the broker's certificate is for another name; check tls server_name", batch.ErrInvalid
	case certs.Untrusted:
		return "the broker's certificate is not trusted; check tls ca", batch.ErrInvalid
	case certs.Refused:
		return "the broker refused the TLS connection; check tls cert and key", batch.ErrInvalid
	case certs.Plain:
		return "the broker does not speak TLS at this address; check brokers and tls", batch.ErrInvalid
	case certs.None:
	}
	if is[*net.DNSError](err) || is[*net.OpError](err) {
		return "no broker can be reached; is it running, and are the addresses right?", batch.ErrUnavailable
	}
	return "", batch.ErrUnavailable
}

func isAny(err error, of ...*kerr.Error) bool {
	for _, e := range of {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

func is[E error](err error) bool {
	var target E
	return errors.As(err, &target)
}
