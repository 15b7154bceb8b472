// Package kafka opens Kafka clients from plain settings and says what a
// client's errors mean. It is a tool that rooms share, not a room.
package kafka

import (
	"context"
	"crypto/tls"
	"fmt"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/frazil-io/frazil/internal/batch"
	"github.com/frazil-io/frazil/internal/certs"
	"github.com/frazil-io/frazil/internal/near"
)

// Options say how to reach a cluster. They print without secrets.
type Options struct {
	Brokers []string // host:port
	SASL    SASL
	TLS     TLS
}

// TLS is how to encrypt; the zero value does not.
type TLS struct {
	Enabled    bool
	CA         string // file with certificates to trust, instead of the system's
	Cert, Key  string // files of the client's own certificate
	ServerName string // to expect in the broker's certificate; "": the broker's host
	// Insecure accepts any certificate: the traffic is encrypted, but anybody
	// on the way can read it.
	Insecure bool
}

// Times after which a request is given up, so that the caller can say what it
// waits for, and tries again.
const (
	dialTimeout    = 5 * time.Second
	requestTimeout = 10 * time.Second
	// responseMax is above any answer that a broker can be configured to send:
	// one record batch larger than what was asked for still comes whole.
	responseMax = 1 << 30
)

// NewClient opens a client. Nothing is sent yet. batch.ErrInvalid: a setting is
// wrong or a file cannot be read.
func NewClient(o Options, more ...kgo.Opt) (*kgo.Client, error) {
	if len(o.Brokers) == 0 {
		return nil, fmt.Errorf("%w: no kafka brokers are given; set brokers: [host:port]", batch.ErrInvalid)
	}
	opts := []kgo.Opt{
		kgo.SeedBrokers(o.Brokers...), kgo.ClientID("frazil"),
		kgo.RetryTimeout(requestTimeout), kgo.RequestRetries(2), kgo.BrokerMaxReadBytes(responseMax),
		kgo.MetadataMinAge(time.Second), kgo.DialTimeout(dialTimeout),
		kgo.DisableClientMetrics(), // KIP-714 would send a request now and then; frazil has metrics of its own
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
	client, err := kgo.NewClient(append(opts, more...)...)
	if err != nil {
		return nil, fmt.Errorf("%w: kafka client: %w", batch.ErrInvalid, err)
	}
	return client, nil
}

func (t TLS) config() (*tls.Config, error) {
	if !t.Enabled {
		return nil, nil
	}
	config, err := certs.TLS{CA: t.CA, Cert: t.Cert, Key: t.Key, ServerName: t.ServerName}.Config()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", batch.ErrInvalid, err)
	}
	config.InsecureSkipVerify = t.Insecure // the user asked for it by this name
	return config, nil
}

// Check makes sure that the cluster answers, that it takes the login, and that
// the topics are there: batch.ErrInvalid where one is not.
func Check(ctx context.Context, o Options, topics []string) error {
	client, err := NewClient(o)
	if err != nil {
		return err
	}
	defer client.Close()
	admin := kadm.NewClient(client)
	doing := "ask " + strings.Join(o.Brokers, ", ")
	// Without a topic the answer would name all of them.
	if _, err := admin.BrokerMetadata(ctx); err != nil {
		return Classify(ctx, doing, err)
	}
	if len(topics) == 0 {
		return nil
	}
	details, err := admin.ListTopics(ctx, topics...)
	if err != nil {
		return Classify(ctx, doing, err)
	}
	for _, topic := range topics {
		if err := details[topic].Err; Unknown(err) {
			return NoTopic(ctx, client, o, topic)
		} else if err != nil {
			return Classify(ctx, fmt.Sprintf("ask for topic %q", topic), err)
		}
	}
	return nil
}

// NoTopic is the batch.ErrInvalid for a topic that does not exist. It asks the
// cluster for a name that is near.
func NoTopic(ctx context.Context, client *kgo.Client, o Options, topic string) error {
	hint := "create it, or correct the name"
	// Not through kadm, which may answer from memory; an error only costs the hint.
	if resp, err := kmsg.NewPtrMetadataRequest().RequestWith(ctx, client); err == nil {
		var names []string
		for _, t := range resp.Topics {
			if t.Topic != nil && t.ErrorCode == 0 {
				names = append(names, *t.Topic)
			}
		}
		if name := nearest(names, topic); name != "" {
			hint = fmt.Sprintf("did you mean %q?", name)
		}
	}
	return fmt.Errorf("%w: topic %q does not exist on %s; %s", batch.ErrInvalid, topic, strings.Join(o.Brokers, ", "), hint)
}

// nearest returns the name that takes the fewest edits, "" if none is near.
func nearest(names []string, wanted string) string {
	best, least := "", max(2, len(wanted)/3)+1
	for _, name := range names {
		d := near.Edits(strings.ToLower(name), strings.ToLower(wanted))
		if strings.HasSuffix(name, wanted) || strings.HasPrefix(name, wanted) {
			d = min(d, 2) // a prefix of the environment or the team was left out
		}
		if d < least {
			best, least = name, d
		}
	}
	return best
}
