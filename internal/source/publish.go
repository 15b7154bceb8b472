package source

import (
	"context"
	"log/slog"
	"sync"

	"github.com/twmb/franz-go/pkg/kadm"

	"github.com/frazil-io/frazil/internal/batch"
)

// publisher commits offsets to consumer groups for lag tools, behind the
// batches: only the newest offsets matter, and nothing waits for them.
type publisher struct {
	relations []*relation
	log       *slog.Logger
	next      chan batch.Offsets // holds at most one
	cancel    context.CancelFunc
	done      sync.WaitGroup
}

func newPublisher(relations []*relation, log *slog.Logger) *publisher {
	ctx, cancel := context.WithCancel(context.Background())
	p := &publisher{relations: relations, log: log, next: make(chan batch.Offsets, 1), cancel: cancel}
	p.done.Go(func() { p.run(ctx) })
	return p
}

func (p *publisher) publish(end batch.Offsets) {
	select {
	case <-p.next: // older offsets that nobody took yet
	default:
	}
	select {
	case p.next <- end:
	default:
	}
}

func (p *publisher) run(ctx context.Context) {
	failing := false
	for {
		select {
		case <-ctx.Done():
			return
		case end := <-p.next:
			err := p.commit(ctx, end)
			if err != nil && !failing && ctx.Err() == nil {
				p.log.Warn("offsets were not published to the consumer group; lag tools will show old ones", "error", err)
			}
			failing = err != nil
		}
	}
}

func (p *publisher) commit(ctx context.Context, end batch.Offsets) error {
	for _, r := range p.relations {
		if r.Group == "" {
			continue
		}
		offsets := kadm.Offsets{}
		for tp, at := range end {
			if tp.Source == r.Name {
				offsets.AddOffset(tp.Topic, tp.Partition, at, -1)
			}
		}
		if err := r.admin.CommitAllOffsets(ctx, r.Group, offsets); err != nil {
			return err
		}
	}
	return nil
}

// close publishes what is left, and ends.
func (p *publisher) close() {
	p.cancel()
	p.done.Wait()
}
