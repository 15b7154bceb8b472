package pipeline

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/apache/iceberg-go/catalog"

	"github.com/frazil-io/frazil/internal/config"
	"github.com/frazil-io/frazil/internal/kafka"
	"github.com/frazil-io/frazil/internal/sink"
)

// Connect asks every server of the spec: brokers and topics, catalogs, the
// checkpoint. It changes nothing.
func (p *Pipeline) Connect(ctx context.Context) error {
	for _, name := range p.spec.Sources.Names {
		k := p.spec.Sources.By[name].Kafka
		if err := kafka.Check(ctx, kafkaOptions(k), k.Topics); err != nil {
			return fmt.Errorf("source %s: %w", name, err)
		}
	}
	if d := p.spec.DeadLetter; d != nil && d.Kafka != nil {
		o := kafkaOptions(&config.Kafka{Brokers: d.Kafka.Brokers, SASL: d.Kafka.SASL, TLS: d.Kafka.TLS})
		if err := kafka.Check(ctx, o, []string{d.Kafka.Topic}); err != nil {
			return fmt.Errorf("dead_letter: %w", err)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(p.spec.Catalogs)) {
		if err := p.connectCatalog(ctx, name); err != nil {
			return fmt.Errorf("catalog %s: %w", name, err)
		}
	}
	for _, name := range p.spec.Sinks.Names {
		if err := p.connectTable(ctx, name); err != nil {
			return err
		}
	}
	cp, err := p.Checkpoint(ctx)
	if err != nil {
		return err
	}
	if _, err := cp.Incarnations(ctx); err != nil {
		return fmt.Errorf("checkpoint %s: %w", p.spec.Checkpoint, err)
	}
	return nil
}

// connectCatalog asks a catalog for a table that nobody has. An embedded one that
// does not exist yet will be made by the first run.
func (p *Pipeline) connectCatalog(ctx context.Context, name string) error {
	c, err := p.Catalog(ctx, name)
	if err == nil {
		_, err = c.Load(ctx, []string{"frazil_connect_check", "frazil_connect_check"})
	}
	if missing(err) {
		return nil
	}
	return err
}

// Changes is how a sink's table differs from the rows of its SQL; nothing where
// there is no table yet.
func (p *Pipeline) Changes(ctx context.Context, name string) ([]sink.Change, error) {
	t, err := p.Table(ctx, name)
	if missing(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return t.Changes(), nil
}

// connectTable checks that a sink's table, where it exists, fits its SQL.
func (p *Pipeline) connectTable(ctx context.Context, name string) error {
	if p.Routes(name) {
		return nil // its rows say which tables it has
	}
	_, err := p.Table(ctx, name)
	if missing(err) && *p.spec.Sinks.By[name].Iceberg.Create {
		return nil
	}
	return err
}

func missing(err error) bool {
	return errors.Is(err, catalog.ErrNoSuchTable) || errors.Is(err, catalog.ErrNoSuchNamespace)
}
