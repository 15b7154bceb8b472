package source

import (
	"context"
	"fmt"
	"time"

	"github.com/frazil-io/frazil/internal/batch"
)

// Behind returns, for every partition, the offset behind its records up to a time:
// that of the first later record, or the end where there is none.
func (s *Source) Behind(ctx context.Context, at time.Time) (batch.Offsets, error) {
	behind := batch.Offsets{}
	for _, r := range s.relations {
		if err := r.behind(ctx, at, behind); err != nil {
			return nil, fmt.Errorf("look for %s in source %s: %w", at.Format(time.RFC3339), r.Name, err)
		}
	}
	return behind, nil
}

func (r *relation) behind(ctx context.Context, at time.Time, behind batch.Offsets) error {
	available, err := r.list(ctx, nil)
	if err != nil {
		return err
	}
	var later map[spot]listed
	err = r.again(ctx, func() error {
		topics, err := r.metadata(ctx, topicsEvery)
		if err == nil {
			later, err = r.offsets(ctx, topics, at.UnixMilli()+1)
		}
		return err
	})
	if err != nil {
		return err
	}
	for _, a := range available {
		end := a.End
		if l, ok := later[spot{a.Topic, a.Partition}]; ok && l.offset >= 0 {
			end = min(end, l.offset)
		}
		behind[a.TopicPartition] = end
	}
	return nil
}
