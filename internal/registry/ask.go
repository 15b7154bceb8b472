package registry

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	"github.com/twmb/franz-go/pkg/sr"

	"github.com/frazil-io/frazil/internal/batch"
	"github.com/frazil-io/frazil/internal/certs"
)

// retried puts one question to the addresses in turn, again after a pause where
// none answered, within askTimeout.
func retried[T any](ctx context.Context, c *Client, what string, question func(context.Context, ask) (T, error)) (answer T, err error) {
	end := c.clock.Now().Add(askTimeout)
	pause := pauseFirst
	for attempt := 1; ; attempt++ {
		for _, a := range c.asks {
			answer, err = question(ctx, a)
			if err == nil {
				return answer, nil
			}
			if ctx.Err() != nil {
				return answer, context.Cause(ctx)
			}
			err = fmt.Errorf("schema registry %s: %s: %w", a.url, what, judge(err))
			if !errors.Is(err, batch.ErrUnavailable) {
				return answer, err
			}
		}
		if attempt == attempts || !c.clock.Now().Add(pause).Before(end) {
			return answer, err
		}
		if err := c.clock.Sleep(ctx, pause); err != nil {
			return answer, err
		}
		pause *= 2
	}
}

// errNoSchema stands for an answer in JSON that has no schema in it: to take that for
// an empty one would make records bad that are not.
var errNoSchema = errors.New("there is no schema in the answer")

// nonEmpty is what a question for a schema was answered with.
func nonEmpty[T any](answer T, s sr.Schema, err error) (T, error) {
	if err == nil && s.Schema == "" {
		err = errNoSchema
	}
	return answer, err
}

// messageMax is how much of a registry's own words an error shows.
const messageMax = 200

// judge gives an error its kind and says what to do.
func judge(err error) error {
	var answer *sr.ResponseError
	if errors.As(err, &answer) {
		return judgeAnswer(answer)
	}
	var cause *url.Error // what is around it prints the address once more
	if errors.As(err, &cause) {
		err = cause.Err
	}
	switch certs.FaultOf(err) {
	case certs.OtherName:
		return fmt.Errorf("%w: its certificate is for another name; check tls server_name: %w", batch.ErrInvalid, err)
	case certs.Untrusted:
		return fmt.Errorf("%w: its certificate is not trusted; check tls ca: %w", batch.ErrInvalid, err)
	case certs.Refused:
		return fmt.Errorf("%w: it refused the TLS connection; check tls cert and key: %w", batch.ErrInvalid, err)
	case certs.Plain, certs.None:
	}
	switch {
	case errors.Is(err, errTooLarge):
		return fmt.Errorf("%w: %w", batch.ErrInvalid, err)
	case is[*json.SyntaxError](err), is[*json.UnmarshalTypeError](err), errors.Is(err, errNoSchema):
		return fmt.Errorf("%w: what answers is not a schema registry; check registry.url", batch.ErrInvalid)
	}
	return fmt.Errorf("%w: it does not answer; is it running, and is registry.url right? %w", batch.ErrUnavailable, err)
}

// judgeAnswer judges an answer that is no success.
func judgeAnswer(e *sr.ResponseError) error {
	says := e.Message
	if e.ErrorCode == 0 {
		says = http.StatusText(e.StatusCode) // what is around a registry answers with pages
	}
	says = fmt.Sprintf("it answers %d, %.*s", e.StatusCode, messageMax, strings.TrimSpace(says))
	switch {
	case e.StatusCode == http.StatusUnauthorized, e.StatusCode == http.StatusForbidden:
		return fmt.Errorf("%w: %s; check username and password, or token, of registry, and what they may read", batch.ErrInvalid, says)
	case e.StatusCode == http.StatusNotFound && e.ErrorCode/100 == http.StatusNotFound: // 40401 to 40403
		return fmt.Errorf("%w (%s)", ErrUnknown, says)
	case e.StatusCode == http.StatusNotFound: // a page that is not there, not a schema
		return fmt.Errorf("%w: %s: that is no answer of a schema registry; check the path of registry.url", batch.ErrInvalid, says)
	case e.StatusCode == http.StatusTooManyRequests, e.StatusCode == http.StatusRequestTimeout, e.StatusCode >= http.StatusInternalServerError:
		return fmt.Errorf("%w: %s", batch.ErrUnavailable, says)
	}
	return fmt.Errorf("%w: %s; check registry.url", batch.ErrInvalid, says)
}

func is[E error](err error) bool {
	var target E
	return errors.As(err, &target)
}

// answerMax is above any schema; a registry has a limit of its own, of a megabyte
// or so.
const answerMax = 16 << 20

var errTooLarge = errors.New("its answer is larger than 16 MiB; is that a schema registry?")

// bounded limits the size of answers.
type bounded struct{ http.RoundTripper }

// RoundTrip implements http.RoundTripper.
func (b bounded) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := b.RoundTripper.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	resp.Body = &limited{ReadCloser: resp.Body, left: answerMax}
	return resp, nil
}

type limited struct {
	io.ReadCloser
	left int
}

// Read implements io.Reader.
func (l *limited) Read(p []byte) (int, error) {
	n, err := l.ReadCloser.Read(p)
	if l.left -= n; l.left < 0 {
		return 0, errTooLarge
	}
	return n, err
}
