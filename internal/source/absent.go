package source

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/frazil-io/frazil/internal/batch"
	"github.com/frazil-io/frazil/internal/kafka"
)

// policy is what a topic's cleanup.policy allows.
type policy int

const (
	policyUnknown policy = iota // this user may not ask
	policyDelete
	policyCompact // alone or with delete
)

// absent counts the offsets of the shares that were not seen. Only compaction
// may remove records from the middle of a log; without it they are lost, or this
// package is wrong.
func (r *relation) absent(ctx context.Context, shares []*share, seen []int64) (total int64, err error) {
	for _, s := range shares {
		n := s.Len() - s.Lost - seen[s.index]
		if n < 0 {
			panic(fmt.Sprintf("source: %d offsets were seen twice in %s", -n, s.Range))
		}
		if total += n; n == 0 {
			continue
		}
		p, err := r.policyOf(ctx, s.Topic, s.TopicID)
		if err != nil {
			return 0, err
		}
		if p != policyDelete {
			continue
		}
		lost := fmt.Errorf("%w: %d records of %s are missing, but topic %s is not compacted; "+
			"if it was once, set on_data_loss: record to go on, and they are counted as absent", batch.ErrDataLost, n, s.Range, s.Topic)
		if !r.RecordLoss {
			return 0, lost
		}
		r.log.Warn("records are missing from a topic that is not compacted", "error", lost)
	}
	return total, nil
}

// policyOf asks for a topic's cleanup.policy, and remembers it unless it is
// delete, which is about to be an error.
func (r *relation) policyOf(ctx context.Context, name, id string) (policy, error) {
	r.mu.Lock()
	p, ok := r.policies[id+name]
	r.mu.Unlock()
	if ok {
		return p, nil
	}
	err := r.again(ctx, func() (err error) {
		p, err = r.askPolicy(ctx, name)
		return err
	})
	if errors.Is(err, batch.ErrInvalid) {
		r.log.Warn("cleanup.policy of a topic cannot be read, so missing records are not told from compacted ones; grant DESCRIBE_CONFIGS on it", "topic", name, "error", err)
		p, err = policyUnknown, nil
	}
	if err == nil && p != policyDelete {
		r.mu.Lock()
		r.policies[id+name] = p
		r.mu.Unlock()
	}
	return p, err
}

// cleanupPolicy is the topic's setting that says how its log is shortened.
const cleanupPolicy = "cleanup.policy"

func (r *relation) askPolicy(ctx context.Context, name string) (policy, error) {
	resource := kmsg.NewDescribeConfigsRequestResource()
	resource.ResourceType, resource.ResourceName = kmsg.ConfigResourceTypeTopic, name
	resource.ConfigNames = []string{cleanupPolicy}
	req := kmsg.NewPtrDescribeConfigsRequest()
	req.Resources = append(req.Resources, resource)
	doing := "ask for the settings of topic " + name
	resp, err := req.RequestWith(ctx, r.client)
	if err != nil {
		return 0, kafka.Classify(ctx, doing, err)
	}
	for _, res := range resp.Resources {
		if err := kerr.ErrorForCode(res.ErrorCode); err != nil {
			return 0, kafka.Classify(ctx, doing, err)
		}
		for _, c := range res.Configs {
			if c.Name == cleanupPolicy && c.Value != nil && strings.Contains(*c.Value, "compact") {
				return policyCompact, nil
			}
			if c.Name == cleanupPolicy && c.Value != nil {
				return policyDelete, nil
			}
		}
	}
	return policyUnknown, nil
}
