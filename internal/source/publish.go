package source

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"

	"github.com/frazil-io/frazil/internal/batch"
)

// publisher commits offsets to consumer groups for lag tools, behind the
// batches: only the newest offsets matter, and nothing waits for them. It is no
// member of the groups: a plain commit without a generation.
type publisher struct {
	relations []*relation
	log       *slog.Logger
	cancel    context.CancelFunc
	done      sync.WaitGroup
	wake      chan struct{} // holds at most one

	mu   sync.Mutex
	next batch.Offsets // nil: nothing new
}

// lastPublish bounds the commit at the end.
const lastPublish = 2 * time.Second

func newPublisher(relations []*relation, log *slog.Logger) *publisher {
	ctx, cancel := context.WithCancel(context.Background())
	p := &publisher{relations: relations, log: log, cancel: cancel, wake: make(chan struct{}, 1)}
	p.done.Go(func() { p.run(ctx) })
	return p
}

// publish replaces what was not committed yet.
func (p *publisher) publish(end batch.Offsets) {
	p.mu.Lock()
	p.next = end
	p.mu.Unlock()
	select {
	case p.wake <- struct{}{}:
	default: // it is awake
	}
}

func (p *publisher) take() batch.Offsets {
	p.mu.Lock()
	defer p.mu.Unlock()
	end := p.next
	p.next = nil
	return end
}

// run commits what comes. Of failures in a row only the first one is logged.
func (p *publisher) run(ctx context.Context) {
	failing := false
	for {
		select {
		case <-ctx.Done():
			return
		case <-p.wake:
			end := p.take()
			err := p.commit(ctx, end)
			if err != nil && ctx.Err() != nil {
				p.mu.Lock()
				if p.next == nil {
					p.next = end // for close
				}
				p.mu.Unlock()
				return
			}
			if err != nil && !failing {
				p.log.Warn("offsets were not published to the consumer group; lag tools show old ones", "error", err)
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
		if len(offsets) == 0 {
			continue
		}
		if err := r.admin.CommitAllOffsets(ctx, r.Group, offsets); err != nil {
			return err
		}
	}
	return nil
}

// close commits what is left, and ends.
func (p *publisher) close() {
	p.cancel()
	p.done.Wait()
	if end := p.take(); end != nil {
		ctx, cancel := context.WithTimeout(context.Background(), lastPublish)
		defer cancel()
		if err := p.commit(ctx, end); err != nil {
			p.log.Warn("the last offsets were not published to the consumer group", "error", err)
		}
	}
}
