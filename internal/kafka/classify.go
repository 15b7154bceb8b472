package kafka

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/frazil-io/frazil/internal/batch"
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
	kind, todo := judge(err)
	if todo != "" {
		return fmt.Errorf("%s: %w: %s: %w", doing, kind, todo, err)
	}
	return fmt.Errorf("%s: %w: %w", doing, kind, err)
}

// judge gives each error its kind and says what to do. What is not listed may
// pass: no answer, no leader, a broker that starts, an error newer than this.
func judge(err error) (kind error, todo string) {
	switch {
	case isAny(err, kerr.SaslAuthenticationFailed):
		return batch.ErrInvalid, "the broker refused the login; check sasl username and password"
	case isAny(err, kerr.UnsupportedSaslMechanism, kerr.IllegalSaslState):
		return batch.ErrInvalid, "the broker does not take this login; check sasl mechanism"
	case isAny(err, kerr.TopicAuthorizationFailed):
		return batch.ErrInvalid, "this user may not read the topic; grant READ and DESCRIBE on it"
	case isAny(err, kerr.GroupAuthorizationFailed):
		return batch.ErrInvalid, "this user may not use the group; grant READ on it, or set group: \"\""
	case isAny(err, kerr.ClusterAuthorizationFailed, kerr.TransactionalIDAuthorizationFailed, kerr.DelegationTokenAuthorizationFailed):
		return batch.ErrInvalid, "this user may not do that; grant it in Kafka's ACLs"
	case isAny(err, kerr.InvalidTopicException):
		return batch.ErrInvalid, "a topic cannot have this name; correct topics"
	case isAny(err, kerr.UnsupportedVersion):
		return batch.ErrInvalid, "the broker is too old; frazil needs Kafka 0.11 or newer"
	case is[x509.UnknownAuthorityError](err), is[x509.CertificateInvalidError](err), is[*tls.CertificateVerificationError](err):
		return batch.ErrInvalid, "the broker's certificate is not trusted; check tls ca"
	case is[x509.HostnameError](err):
		return batch.ErrInvalid, "the broker's certificate is for another name; check tls server_name"
	case isAlert(err):
		return batch.ErrInvalid, "the broker refused the TLS connection; check tls cert and key"
	case is[tls.RecordHeaderError](err):
		return batch.ErrInvalid, "the broker does not speak TLS at this address; check brokers and tls"
	case is[*net.DNSError](err), is[*net.OpError](err):
		return batch.ErrUnavailable, "no broker can be reached; is it running, and are the addresses right?"
	}
	return batch.ErrUnavailable, ""
}

func isAny(err error, of ...*kerr.Error) bool {
	for _, e := range of {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// isAlert says whether the other side ended the TLS handshake. crypto/tls keeps
// the alert's type to itself and marks it by the operation (tls.Conn.readRecord).
func isAlert(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "remote error"
}

func is[E error](err error) bool {
	var target E
	return errors.As(err, &target)
}
