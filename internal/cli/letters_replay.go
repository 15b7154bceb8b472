package cli

import (
	"context"
	"fmt"

	"github.com/frazil-io/frazil/internal/batch"
	"github.com/frazil-io/frazil/internal/pipeline"
)

// replayLetters runs the letters that wait, until stop is cancelled.
func (a *app) replayLetters(stop context.Context, path string, f lettersFlags) error {
	format, err := a.format("text", "json")
	if err != nil {
		return err
	}
	spec, err := a.load(path)
	if err != nil {
		return err
	}
	log, err := a.logger()
	if err != nil {
		return err
	}
	p, err := pipeline.New(stop, spec, pipeline.Options{Log: log, Takeover: f.takeover, Grace: f.grace, Stream: batch.StreamReplay, ReadOnly: f.dry})
	if err != nil {
		return inSpec(path, err)
	}
	defer p.Close()
	var r *pipeline.Again
	if f.dry {
		r, err = p.TryLetters(stop)
	} else {
		r, err = p.ReplayLetters(context.WithoutCancel(stop), stop)
	}
	if r != nil {
		if printed := a.answer(format, r, func() error { return a.printAgain(r, spec.Queries()) }); err == nil {
			err = printed
		}
	}
	switch {
	case err != nil:
		return err
	case stop.Err() != nil:
		return stop.Err()
	case r.Again > 0 && !f.dry:
		return fmt.Errorf("%w: %d letters were rejected again and wait; correct the spec and run them again", batch.ErrInvalid, r.Again)
	}
	return nil
}

func (a *app) printAgain(r *pipeline.Again, sinks []string) error {
	out := a.masked()
	if r.Dry {
		fmt.Fprintf(out, "%d letters would be run; this is a dry run, and nothing is committed\n", r.Letters)
	} else {
		fmt.Fprintf(out, "%d letters run in %d batches\n", r.Letters, r.Batches)
	}
	for _, s := range sinks {
		fmt.Fprintf(out, "sink %s: %d rows\n", visible(s), r.Rows[s])
	}
	if r.Dropped > 0 {
		fmt.Fprintf(out, "dropped or skipped, as the spec says: %d\n", r.Dropped)
	}
	fmt.Fprintf(out, "rejected again: %d\n", r.Again)
	for _, line := range r.Reasons {
		fmt.Fprintf(out, "  %s\n", visible(line))
	}
	return nil
}
