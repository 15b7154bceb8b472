package lake

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/apache/iceberg-go/catalog/rest"
	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"

	"github.com/frazil-io/frazil/internal/batch"
)

// tokenMax bounds one request for a token.
const tokenMax = 30 * time.Second

// statusExpired is what Iceberg's REST specification answers to an expired
// login: AuthenticationTimeoutResponse.
const statusExpired = 419

// clientCredentials logs in with an OAuth2 client id and secret (RFC 6749,
// section 4.4). iceberg-go's own would turn a token server that is away into a
// refused login, because it keeps only the text of an error.
type clientCredentials struct {
	config clientcredentials.Config
	client *http.Client
	lock   chan struct{} // holds one value; taken with a context
	token  *oauth2.Token // nil: none yet
}

var _ rest.ContextAuthManager = (*clientCredentials)(nil)

// newClientCredentials takes "id:secret", or a secret alone.
func newClientCredentials(credential, server, scope string, more url.Values) *clientCredentials {
	id, secret, ok := strings.Cut(credential, ":")
	if !ok {
		id, secret = "", credential
	}
	return &clientCredentials{
		config: clientcredentials.Config{
			ClientID: id, ClientSecret: secret, TokenURL: server, Scopes: strings.Fields(scope), EndpointParams: more, AuthStyle: oauth2.AuthStyleInParams,
		},
		client: &http.Client{Timeout: tokenMax},
		lock:   make(chan struct{}, 1),
	}
}

// AuthHeader implements rest.AuthManager.
func (c *clientCredentials) AuthHeader() (string, string, error) {
	return c.AuthHeaderWithContext(context.Background())
}

// AuthHeaderWithContext implements rest.ContextAuthManager. A token is fetched
// when there is none, or the last one is about to expire.
func (c *clientCredentials) AuthHeaderWithContext(ctx context.Context) (string, string, error) {
	value, err := c.header(ctx, "")
	return "Authorization", value, err
}

// header returns the value of the header, and fetches a new token where the
// last one is the one that was refused.
func (c *clientCredentials) header(ctx context.Context, refused string) (string, error) {
	select {
	case c.lock <- struct{}{}:
		defer func() { <-c.lock }()
	case <-ctx.Done():
		return "", context.Cause(ctx)
	}
	if c.token.Valid() && value(c.token) != refused {
		return value(c.token), nil
	}
	token, err := c.config.Token(context.WithValue(ctx, oauth2.HTTPClient, c.client))
	if err != nil {
		return "", c.judge(err)
	}
	c.token = token
	return value(token), nil
}

func value(t *oauth2.Token) string { return t.Type() + " " + t.AccessToken }

// judge never repeats what the token server said, nor what was sent: either may
// hold the secret.
func (c *clientCredentials) judge(err error) error {
	var refused *oauth2.RetrieveError
	if !errors.As(err, &refused) || refused.Response == nil {
		return fmt.Errorf("token server %s: %w: %w", c.config.TokenURL, batch.ErrUnavailable, err)
	}
	switch code := refused.Response.StatusCode; {
	case code < 400 || code >= 500, code == http.StatusTooManyRequests, code == http.StatusRequestTimeout:
		return fmt.Errorf("token server %s: %w: it answered %s", c.config.TokenURL, batch.ErrUnavailable, refused.Response.Status)
	default:
		return fmt.Errorf("token server %s: %w: it answered %s; check credential, and the properties scope and oauth2-server-uri", c.config.TokenURL, batch.ErrInvalid, refused.Response.Status)
	}
}

// renewing sends a request again, once, with a new token where the catalog does
// not take the old one: it may have been revoked, or have expired sooner than
// its server said. What was refused so was not applied.
type renewing struct {
	http.RoundTripper
	login *clientCredentials
}

// RoundTrip implements http.RoundTripper.
func (t *renewing) RoundTrip(r *http.Request) (*http.Response, error) {
	answer, err := t.RoundTripper.RoundTrip(r)
	if err != nil || answer.StatusCode != http.StatusUnauthorized && answer.StatusCode != statusExpired {
		return answer, err
	}
	again := r.Clone(r.Context())
	if r.Body != nil {
		if r.GetBody == nil {
			return answer, nil
		}
		if again.Body, err = r.GetBody(); err != nil {
			return answer, nil //nolint:nilerr // the first answer says what is wrong
		}
	}
	_, _ = io.Copy(io.Discard, io.LimitReader(answer.Body, 1<<20))
	_ = answer.Body.Close()
	fresh, err := t.login.header(r.Context(), r.Header.Get("Authorization"))
	if err != nil {
		return nil, err
	}
	again.Header.Set("Authorization", fresh)
	return t.RoundTripper.RoundTrip(again)
}
