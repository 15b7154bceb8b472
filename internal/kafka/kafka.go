// Package kafka opens Kafka clients from plain settings and says what a
// client's errors mean. It is a tool that rooms share, not a room.
package kafka

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sasl"
	"github.com/twmb/franz-go/pkg/sasl/aws"
	"github.com/twmb/franz-go/pkg/sasl/oauth"
	"github.com/twmb/franz-go/pkg/sasl/plain"
	"github.com/twmb/franz-go/pkg/sasl/scram"

	"github.com/frazil-io/frazil/internal/batch"
)

// Options say how to reach a cluster.
type Options struct {
	Brokers []string
	SASL    SASL
	TLS     TLS
}

// SASL is how to log in; the zero value does not.
type SASL struct {
	Mechanism string // plain, scram-sha-256, scram-sha-512, oauthbearer, aws_msk_iam
	Username  string // AWS: access key id
	Password  string // AWS: secret access key
	Token     string // oauthbearer: the token; AWS: session token
}

// TLS is how to encrypt; the zero value does not.
type TLS struct {
	Enabled    bool
	CA         string // file with certificates to trust, instead of the system's
	Cert, Key  string // files of the client's own certificate
	ServerName string
}

// Times after which a request is given up, so that the caller can say what it
// waits for, and tries again.
const (
	dialTimeout    = 5 * time.Second
	requestTimeout = 10 * time.Second
	responseMax    = 1 << 30
)

// NewClient opens a client. Nothing is sent yet.
func NewClient(o Options, more ...kgo.Opt) (*kgo.Client, error) {
	opts := []kgo.Opt{
		kgo.SeedBrokers(o.Brokers...), kgo.ClientID("frazil"),
		kgo.RetryTimeout(requestTimeout), kgo.RequestRetries(2), kgo.BrokerMaxReadBytes(responseMax),
		kgo.MetadataMinAge(time.Second),
	}
	mechanism, err := o.SASL.mechanism()
	if err != nil {
		return nil, err
	}
	if mechanism != nil {
		opts = append(opts, kgo.SASL(mechanism))
	}
	config, err := o.TLS.config()
	if err != nil {
		return nil, err
	}
	if config != nil {
		opts = append(opts, kgo.DialTLSConfig(config))
	}
	opts = append(opts, kgo.DialTimeout(dialTimeout))
	client, err := kgo.NewClient(append(opts, more...)...)
	if err != nil {
		return nil, fmt.Errorf("%w: kafka client: %w", batch.ErrInvalid, err)
	}
	return client, nil
}

func (s SASL) mechanism() (sasl.Mechanism, error) {
	switch strings.ToLower(s.Mechanism) {
	case "":
		return nil, nil
	case "plain":
		return plain.Auth{User: s.Username, Pass: s.Password}.AsMechanism(), nil
	case "scram-sha-256":
		return scram.Auth{User: s.Username, Pass: s.Password}.AsSha256Mechanism(), nil
	case "scram-sha-512":
		return scram.Auth{User: s.Username, Pass: s.Password}.AsSha512Mechanism(), nil
	case "oauthbearer":
		return oauth.Auth{Token: s.Token}.AsMechanism(), nil
	case "aws_msk_iam":
		return aws.Auth{AccessKey: s.Username, SecretKey: s.Password, SessionToken: s.Token}.AsManagedStreamingIAMMechanism(), nil
	}
	return nil, fmt.Errorf("%w: sasl mechanism %q is not plain, scram-sha-256, scram-sha-512, oauthbearer or aws_msk_iam", batch.ErrInvalid, s.Mechanism)
}

func (t TLS) config() (*tls.Config, error) {
	if !t.Enabled {
		return nil, nil
	}
	config := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: t.ServerName}
	if t.CA != "" {
		pem, err := os.ReadFile(t.CA)
		if err != nil {
			return nil, fmt.Errorf("%w: tls ca: %w", batch.ErrInvalid, err)
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("%w: tls ca: file %s holds no certificate in PEM", batch.ErrInvalid, t.CA)
		}
	}
	if t.Cert != "" || t.Key != "" {
		pair, err := tls.LoadX509KeyPair(t.Cert, t.Key)
		if err != nil {
			return nil, fmt.Errorf("%w: tls cert and key: %w", batch.ErrInvalid, err)
		}
		config.Certificates = []tls.Certificate{pair}
	}
	return config, nil
}

// Check makes sure that the cluster answers and that the topics are there.
func Check(ctx context.Context, o Options, topics []string) error {
	client, err := NewClient(o)
	if err != nil {
		return err
	}
	defer client.Close()
	details, err := kadm.NewClient(client).ListTopics(ctx, topics...)
	if err != nil {
		return Classify(fmt.Sprintf("ask %s", strings.Join(o.Brokers, ", ")), err)
	}
	for _, topic := range topics {
		err := details[topic].Err
		if errors.Is(err, kerr.UnknownTopicOrPartition) {
			return fmt.Errorf("%w: topic %s does not exist on %s; create it, or check the name", batch.ErrInvalid, topic, strings.Join(o.Brokers, ", "))
		}
		if err != nil {
			return Classify("topic "+topic, err)
		}
	}
	return nil
}

// Classify says what the caller must do about an error of a client.
func Classify(doing string, err error) error {
	var authority x509.UnknownAuthorityError
	var name x509.HostnameError
	var verification *tls.CertificateVerificationError
	switch {
	case err == nil:
		return nil
	case errors.Is(err, context.Canceled):
		return err
	case errors.Is(err, kerr.SaslAuthenticationFailed), errors.Is(err, kerr.UnsupportedSaslMechanism), errors.Is(err, kerr.IllegalSaslState):
		return fmt.Errorf("%s: %w: the broker refused the login: check sasl mechanism, username and password: %w", doing, batch.ErrInvalid, err)
	case errors.Is(err, kerr.TopicAuthorizationFailed), errors.Is(err, kerr.ClusterAuthorizationFailed), errors.Is(err, kerr.GroupAuthorizationFailed),
		errors.Is(err, kerr.TransactionalIDAuthorizationFailed):
		return fmt.Errorf("%s: %w: this user may not do that: grant it the right in Kafka's ACLs: %w", doing, batch.ErrInvalid, err)
	case errors.Is(err, kerr.InvalidTopicException):
		return fmt.Errorf("%s: %w: %w", doing, batch.ErrInvalid, err)
	case errors.As(err, &authority), errors.As(err, &name), errors.As(err, &verification):
		return fmt.Errorf("%s: %w: the broker's certificate is not trusted: check tls ca and server name: %w", doing, batch.ErrInvalid, err)
	default: // not reachable, no leader, timeouts: they may pass
		return fmt.Errorf("%s: %w: %w", doing, batch.ErrUnavailable, err)
	}
}
