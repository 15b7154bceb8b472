package cli

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/frazil-io/frazil/internal/config"
	"github.com/frazil-io/frazil/internal/pipeline"
)

// load reads a spec with the environment. What came out of variables is hidden
// from then on.
func (a *app) load(path string) (*config.Spec, error) {
	spec, err := config.Load(path, os.LookupEnv)
	if err == nil {
		a.mask = spec.Mask()
	}
	return spec, err
}

// open checks a spec and opens its pipeline.
func (a *app) open(ctx context.Context, path string, readOnly bool) (*config.Spec, *pipeline.Pipeline, error) {
	spec, err := a.load(path)
	if err != nil {
		return nil, nil, err
	}
	log, err := a.logger()
	if err != nil {
		return nil, nil, err
	}
	p, err := pipeline.New(ctx, spec, pipeline.Options{Log: log, ReadOnly: readOnly})
	if err != nil {
		return nil, nil, inSpec(path, err)
	}
	return spec, p, nil
}

// inSpec names the spec's file, where an error does not say itself where in it is.
func inSpec(path string, err error) error {
	if at := new(config.Error); errors.As(err, &at) {
		return err
	}
	return fmt.Errorf("%s: %w", path, err)
}
