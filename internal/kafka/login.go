package kafka

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"strings"

	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/twmb/franz-go/pkg/sasl"
	"github.com/twmb/franz-go/pkg/sasl/aws"
	"github.com/twmb/franz-go/pkg/sasl/oauth"
	"github.com/twmb/franz-go/pkg/sasl/plain"
	"github.com/twmb/franz-go/pkg/sasl/scram"
	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"

	"github.com/frazil-io/frazil/internal/batch"
)

// SASL is how to log in; the zero value does not. It prints without secrets.
type SASL struct {
	Mechanism string // plain, scram-sha-256, scram-sha-512, oauthbearer, aws_msk_iam
	// Username and Password; for aws_msk_iam the access key's id and secret, and
	// without them the default chain of the AWS SDK (environment, profile, role
	// of the container or machine).
	Username string
	Password string `json:"-"`
	// Token is for oauthbearer a token that is used as it is; for aws_msk_iam
	// the session token.
	Token string `json:"-"`
	// TokenFile is for oauthbearer, instead of Token, a file that is read for each
	// login and each login that a broker wants again (KIP-368): whoever renews
	// tokens writes it.
	TokenFile string
	// TokenURL is for oauthbearer, instead of Token, where each connection's
	// token is fetched with client credentials (RFC 6749, section 4.4).
	TokenURL     string
	ClientID     string
	ClientSecret string `json:"-"`
	Scopes       []string
}

// String names the mechanism and the user.
func (s SASL) String() string {
	if s.Mechanism == "" {
		return "no sasl"
	}
	return fmt.Sprintf("sasl %s as %q", s.Mechanism, s.Username+s.ClientID)
}

// GoString is String: %#v must not show secrets either.
func (s SASL) GoString() string { return s.String() }

// LogValue is String, for slog.
func (s SASL) LogValue() slog.Value { return slog.StringValue(s.String()) }

func (s SASL) mechanism() (sasl.Mechanism, error) {
	switch strings.ToLower(s.Mechanism) {
	case "":
		return nil, nil
	case "plain":
		return plain.Auth{User: s.Username, Pass: s.Password}.AsMechanism(), s.need(s.Username, "username", s.Password, "password")
	case "scram-sha-256":
		return scram.Auth{User: s.Username, Pass: s.Password}.AsSha256Mechanism(), s.need(s.Username, "username", s.Password, "password")
	case "scram-sha-512":
		return scram.Auth{User: s.Username, Pass: s.Password}.AsSha512Mechanism(), s.need(s.Username, "username", s.Password, "password")
	case "oauthbearer":
		switch {
		case s.TokenURL != "":
			return bearer{oauth.Oauth(s.fetchToken)}, s.need(s.ClientID, "client_id", s.ClientSecret, "client_secret")
		case s.TokenFile != "":
			return bearer{oauth.Oauth(s.readToken)}, nil
		}
		return bearer{oauth.Auth{Token: s.Token}.AsMechanism()}, s.need(s.Token, "token (or token_file, or token_url)")
	case "aws_msk_iam":
		if s.Username == "" {
			return aws.ManagedStreamingIAM(defaultChain), nil
		}
		return aws.Auth{AccessKey: s.Username, SecretKey: s.Password, SessionToken: s.Token}.AsManagedStreamingIAMMechanism(), s.need(s.Password, "password (the secret access key)")
	}
	return nil, fmt.Errorf("%w: sasl mechanism %q is not known; use plain, scram-sha-256, scram-sha-512, oauthbearer or aws_msk_iam", batch.ErrInvalid, s.Mechanism)
}

// need takes pairs of a value and its key, and says which value is missing.
func (s SASL) need(pairs ...string) error {
	for i := 0; i < len(pairs); i += 2 {
		if pairs[i] == "" {
			return fmt.Errorf("%w: sasl mechanism %s needs a %s", batch.ErrInvalid, s.Mechanism, pairs[i+1])
		}
	}
	return nil
}

// bearer is a login with a token. A broker refuses a token by an answer that is
// no error (RFC 7628, section 3.2.2), of which franz-go says only that it did
// not expect it.
type bearer struct{ sasl.Mechanism }

// Authenticate implements sasl.Mechanism.
func (b bearer) Authenticate(ctx context.Context, host string) (sasl.Session, []byte, error) {
	session, first, err := b.Mechanism.Authenticate(ctx, host)
	return bearerSession{session}, first, err
}

type bearerSession struct{ sasl.Session }

// Challenge implements sasl.Session.
func (b bearerSession) Challenge(answer []byte) (bool, []byte, error) {
	if len(answer) == 0 {
		return b.Session.Challenge(answer)
	}
	var refused struct{ Status string }
	if err := json.Unmarshal(answer, &refused); err != nil || refused.Status == "" {
		refused.Status = "no reason given"
	}
	return false, nil, fmt.Errorf("%w: the broker refused the token (%s); check sasl token, token_file or token_url", batch.ErrInvalid, refused.Status)
}

// readToken reads the token's file, which may be written anew meanwhile.
func (s SASL) readToken(context.Context) (oauth.Auth, error) {
	text, err := os.ReadFile(s.TokenFile)
	if err != nil {
		return oauth.Auth{}, fmt.Errorf("%w: sasl token_file: %w", batch.ErrInvalid, err)
	}
	token := strings.TrimSpace(string(text))
	if token == "" {
		return oauth.Auth{}, fmt.Errorf("%w: sasl token_file %q is empty", batch.ErrInvalid, s.TokenFile)
	}
	return oauth.Auth{Token: token}, nil
}

// fetchToken asks the token endpoint, once for each connection. An error never
// repeats what the endpoint said: it may hold what was sent.
func (s SASL) fetchToken(ctx context.Context) (oauth.Auth, error) {
	ctx = context.WithValue(ctx, oauth2.HTTPClient, &http.Client{Timeout: requestTimeout})
	c := clientcredentials.Config{ClientID: s.ClientID, ClientSecret: s.ClientSecret, TokenURL: s.TokenURL, Scopes: s.Scopes, AuthStyle: oauth2.AuthStyleInHeader}
	token, err := c.Token(ctx)
	if err == nil {
		return oauth.Auth{Token: token.AccessToken}, nil
	}
	var refused *oauth2.RetrieveError
	if !errors.As(err, &refused) || refused.Response == nil {
		return oauth.Auth{}, fmt.Errorf("token endpoint %s: %w: %w", s.TokenURL, batch.ErrUnavailable, err)
	}
	kind, todo := batch.ErrUnavailable, ""
	if code := refused.Response.StatusCode; code >= 400 && code < 500 && code != http.StatusTooManyRequests && code != http.StatusRequestTimeout {
		kind, todo = batch.ErrInvalid, "; check sasl token_url, client_id, client_secret and scopes"
	}
	return oauth.Auth{}, fmt.Errorf("token endpoint %s: %w: it answered %s%s", s.TokenURL, kind, refused.Response.Status, todo)
}

// defaultChain takes credentials where the AWS SDK finds them. They may expire,
// so they are taken again for each connection.
func defaultChain(ctx context.Context) (aws.Auth, error) {
	c, err := config.LoadDefaultConfig(ctx)
	if err != nil {
		return aws.Auth{}, fmt.Errorf("%w: aws settings: %w", batch.ErrInvalid, err)
	}
	keys, err := c.Credentials.Retrieve(ctx)
	if err != nil {
		return aws.Auth{}, fmt.Errorf("aws credentials: %w: %w; set sasl username and password, or give the process a role", batch.ErrUnavailable, err)
	}
	return aws.Auth{AccessKey: keys.AccessKeyID, SecretKey: keys.SecretAccessKey, SessionToken: keys.SessionToken}, nil
}
