package pipeline

import (
	"context"
	"fmt"

	"github.com/frazil-io/frazil/internal/batch"
	"github.com/frazil-io/frazil/internal/checkpoint"
	"github.com/frazil-io/frazil/internal/kafka"
)

// Connect asks every server of the spec: brokers and topics, catalogs, the
// checkpoint. It changes nothing but makes the checkpoint's folder.
func (p *Pipeline) Connect(ctx context.Context) error {
	for _, name := range p.spec.Sources.Names {
		k := p.spec.Sources.By[name].Kafka
		if err := kafka.Check(ctx, kafkaOptions(k), k.Topics); err != nil {
			return fmt.Errorf("source %s: %w", name, err)
		}
	}
	for name := range p.spec.Catalogs {
		c, err := p.Catalog(ctx, name)
		if err != nil {
			return err
		}
		for range c.Catalog.ListTables(ctx, []string{"frazil_connect_check"}) {
			break
		}
	}
	_, err := p.Checkpoint(ctx)
	return err
}

// SinkStatus is what a table's tag says.
type SinkStatus struct {
	Sink     string        `json:"sink"`
	Table    string        `json:"table"`
	Stamp    string        `json:"stamp"`
	Batch    batch.ID      `json:"batch"`
	Rows     int64         `json:"rows"`
	End      batch.Offsets `json:"offsets"`
	Ancestry string        `json:"ancestry"`
	Head     int64         `json:"head"`
}

// Status is what checkpoint and tables say of a pipeline.
type Status struct {
	Name        string             `json:"name"`
	Incarnation *batch.Incarnation `json:"incarnation,omitempty"`
	Plan        *batch.Plan        `json:"plan,omitempty"`
	Commits     []batch.Commit     `json:"commits,omitempty"`
	Sinks       []SinkStatus       `json:"sinks"`
	Lag         int64              `json:"lag"`
	LagError    string             `json:"lag_error,omitempty"`
}

// Status looks at checkpoint, tables and Kafka. It changes nothing.
func (p *Pipeline) Status(ctx context.Context) (*Status, error) {
	s := &Status{Name: p.spec.Name}
	cp, err := p.Checkpoint(ctx)
	if err != nil {
		return nil, err
	}
	if err := s.checkpoint(ctx, cp); err != nil {
		return nil, err
	}
	for _, name := range p.spec.Sinks.Names {
		t, err := p.Table(ctx, name)
		if err != nil {
			return nil, err
		}
		v, err := t.Load(ctx)
		if err != nil {
			return nil, err
		}
		one := SinkStatus{
			Sink: name, Table: p.spec.Sinks.By[name].Iceberg.Table, Stamp: v.Stamp().String(), Batch: batch.None, Head: v.Head(),
			Ancestry: map[batch.Ancestry]string{batch.IsAncestor: "ok", batch.NotAncestor: "rolled back", batch.UnknownAncestor: "unknown"}[v.Ancestry()],
		}
		if st := v.Stamp(); st != nil {
			one.Batch, one.Rows, one.End = st.Last, st.Total.Written, st.End
		}
		s.Sinks = append(s.Sinks, one)
	}
	s.lag(ctx, p)
	return s, nil
}

// recent is how many commits a status shows.
const recent = 5

func (s *Status) checkpoint(ctx context.Context, cp *checkpoint.Checkpoint) error {
	all, err := cp.Incarnations(ctx)
	if err != nil || len(all) == 0 {
		return err
	}
	s.Incarnation = &all[len(all)-1]
	if s.Plan, err = cp.Newest(ctx, *s.Incarnation); err != nil {
		return err
	}
	s.Commits, err = cp.Recorded(ctx, *s.Incarnation, recent)
	return err
}

// lag counts what Kafka has beyond the table that is furthest behind the plan.
func (s *Status) lag(ctx context.Context, p *Pipeline) {
	src, err := p.Source()
	if err == nil {
		var available []batch.Available
		if available, err = src.List(ctx); err == nil {
			end := batch.Offsets{}
			if s.Plan != nil {
				end = s.Plan.End()
			}
			for _, a := range available {
				s.Lag += max(0, a.End-max(a.Start, end[a.TopicPartition]))
			}
			return
		}
	}
	s.LagError = err.Error()
}
