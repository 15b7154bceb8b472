package pipeline

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/apache/arrow-go/v18/arrow"

	"github.com/frazil-io/frazil/internal/batch"
)

// errEnough ends a preview.
var errEnough = errors.New("enough rows")

// Preview runs the SQL of the named sinks, all if none is named, over the newest
// records of each partition, and hands over rows until row says no. Nothing is
// committed.
func (p *Pipeline) Preview(ctx context.Context, sinks []string, records int64, row func(sink string, rows arrow.RecordBatch) bool) error {
	src, err := p.Source()
	if err != nil {
		return err
	}
	available, err := patient(ctx, func() ([]batch.Available, error) { return src.List(ctx, nil) })
	if err != nil {
		return err
	}
	if len(sinks) == 0 {
		sinks = p.spec.Queries()
	}
	var ranges []batch.Range
	for _, a := range available {
		ranges = append(ranges, batch.Range{TopicPartition: a.TopicPartition, Start: max(a.Start, a.End-records), End: a.End, Epoch: a.Epoch})
	}
	versions, err := p.exec.Pin(ctx)
	if err != nil {
		return err
	}
	job := batch.Job{Plan: &batch.Plan{Ranges: ranges, Time: time.Now().UTC(), Versions: versions}, Ranges: ranges, Sinks: sinks, Attempt: "preview"}
	var one sync.Mutex // rows come from several workers
	_, err = p.exec.Execute(ctx, job, func(emit, letters func(arrow.RecordBatch) error) error {
		_, err := src.Read(ctx, ranges, emit, letters)
		return err
	}, func(sink string, rows arrow.RecordBatch) error {
		one.Lock()
		defer one.Unlock()
		if !row(sink, rows) {
			return errEnough
		}
		return nil
	})
	if errors.Is(err, errEnough) {
		return nil
	}
	return err
}
