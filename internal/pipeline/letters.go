package pipeline

import (
	"context"

	"github.com/frazil-io/frazil/internal/config"
	"github.com/frazil-io/frazil/internal/deadletter/topic"
	"github.com/frazil-io/frazil/internal/driver"
	"github.com/frazil-io/frazil/internal/kafka"
)

// deadLetters tells the driver where they go: to the last of the sinks, which it
// has, or to a topic.
func (p *Pipeline) deadLetters(rooms *driver.Rooms, opts *driver.Options) error {
	d := p.spec.DeadLetter
	if d == nil {
		return nil
	}
	opts.DeadLetters, opts.MaxFraction = config.DeadLetters, *d.MaxFraction
	if d.Kafka == nil {
		return nil
	}
	to, err := p.letterTopic(d.Kafka)
	if err != nil {
		return err
	}
	rooms.Letters = func(ctx context.Context, _ string) (driver.Writer, error) {
		w, err := to.Writer(ctx)
		if err != nil {
			return nil, err
		}
		return letterWriter{w}, nil
	}
	return nil
}

// letterTopic opens the topic, once.
func (p *Pipeline) letterTopic(k *config.DeadLetterTopic) (*topic.Topic, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.letters != nil {
		return p.letters, nil
	}
	o := kafkaOptions(&config.Kafka{Brokers: k.Brokers, SASL: k.SASL, TLS: k.TLS})
	client, err := kafka.NewClient(o, topic.ClientOptions()...)
	if err != nil {
		return nil, err
	}
	large, err := kafka.NewClient(o, topic.LargeOptions()...)
	if err != nil {
		client.Close()
		return nil, err
	}
	p.letters = topic.New(client, large, o, k.Topic)
	return p.letters, nil
}

type letterWriter struct{ *topic.Writer }

// Close implements driver.Writer.
func (w letterWriter) Close(ctx context.Context) (driver.Files, error) {
	sent, err := w.Writer.Close(ctx)
	if err != nil {
		return nil, err
	}
	return sent, nil
}
