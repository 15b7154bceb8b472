package pipeline

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/frazil-io/frazil/internal/batch"
	"github.com/frazil-io/frazil/internal/registry"
	"github.com/frazil-io/frazil/internal/source/decode"
)

// TestAskingEnds: a decoder waits for a registry no longer than its timeout, a second
// once the pipeline is to stop, and not at all once it ends.
func TestAskingEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, c := range []struct {
			name      string
			stop, end time.Duration // when; 0: never
			after     time.Duration
			want      error
		}{
			{"a silent registry", 0, 0, schemaTimeout, batch.ErrUnavailable},
			{"a stop", 3 * time.Second, 0, 4 * time.Second, batch.ErrUnavailable},
			{"a stop late", schemaTimeout - time.Millisecond, 0, schemaTimeout, batch.ErrUnavailable},
			{"the end", 3 * time.Second, 3500 * time.Millisecond, 3500 * time.Millisecond, context.Canceled},
		} {
			ctx, end := context.WithCancel(t.Context())
			stopped, stop := context.WithCancel(t.Context())
			ask := within(ctx, stopped)
			begun := time.Now()
			if c.stop > 0 {
				time.AfterFunc(c.stop, stop)
			}
			if c.end > 0 {
				time.AfterFunc(c.end, end)
			}
			asked, done := ask()
			<-asked.Done()
			if took := time.Since(begun); took != c.after || !errors.Is(context.Cause(asked), c.want) {
				t.Errorf("%s: %v after %v, want %v after %v", c.name, context.Cause(asked), took, c.want, c.after)
			}
			done()
			stop()
			end()
			synctest.Wait()
		}
	})
}

// TestReferencesAreTakenOnce: schemas that refer to each other on very many ways.
func TestReferencesAreTakenOnce(t *testing.T) {
	at := registry.Schema{ID: 1, Type: "AVRO", Text: `{"type":"record","name":"R0","fields":[{"name":"x","type":"long"}]}`}
	const depth = 60
	for i := 1; i <= depth; i++ {
		at = registry.Schema{ID: int32(i + 1), Type: "AVRO", Text: fmt.Sprintf(`{"type":"record","name":"R%d","fields":[{"name":"x","type":"long"}]}`, i), References: map[string]registry.Schema{"a": at, "b": at}}
	}
	s := toDecode(at)
	n := 0
	for s.References != nil {
		s, n = s.References["b"], n+1
	}
	if n != depth {
		t.Errorf("%d references deep, want %d", n, depth)
	}
	d, err := decode.New("avro", nil, decode.Options{Reader: toDecode(at)})
	if err != nil || len(d.Fields()) != 1 {
		t.Errorf("%v", err)
	}
}
