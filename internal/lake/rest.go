package lake

import (
	"context"
	"crypto/tls"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"time"

	"github.com/apache/iceberg-go"
	"github.com/apache/iceberg-go/catalog/rest"
	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"

	"github.com/frazil-io/frazil/internal/batch"
)

// Of a catalog's HTTP client. A server that took a request answers within
// answerMax: without it, one that hangs would hang a driver for ever. A commit
// without an answer is looked for in the table.
const (
	answerMax = time.Minute
	idleMax   = 16
	idleTime  = 90 * time.Second
)

// openREST opens a catalog behind an HTTP server. Properties have the names of
// Iceberg's other clients; those that are not named here (prefix, header.…,
// s3.…) are passed on.
func (c *Catalog) openREST(ctx context.Context, props iceberg.Properties) error {
	// Expiry and deletion go by the snapshots that a table has: a server must not
	// leave out those that no ref names.
	props["snapshot-loading-mode"] = string(rest.SnapshotModeAll)
	opts := []rest.Option{rest.WithAdditionalProps(props)}
	if c.opts.Warehouse != "" {
		opts = append(opts, rest.WithWarehouseLocation(c.opts.Warehouse))
	}
	if props["rest.tls.skip-verify"] == "true" {
		opts = append(opts, rest.WithTLSConfig(&tls.Config{InsecureSkipVerify: true})) // the user asked for it by this name
	}
	login, err := c.oauth(props)
	if err != nil {
		return err
	}
	switch {
	case login != nil:
		opts = append(opts, rest.WithAuthManager(login))
	case c.opts.Token != "":
		opts = append(opts, rest.WithOAuthToken(c.opts.Token))
	}
	opts = append(opts, rest.WithTransportFactory(func(t *tls.Config) (http.RoundTripper, func()) {
		transport := &http.Transport{
			Proxy: http.ProxyFromEnvironment, TLSClientConfig: t, ForceAttemptHTTP2: true,
			ResponseHeaderTimeout: answerMax, MaxIdleConnsPerHost: idleMax, IdleConnTimeout: idleTime,
		}
		if login == nil {
			return transport, transport.CloseIdleConnections
		}
		return &renewing{transport, login}, transport.CloseIdleConnections
	}))
	if props["rest.sigv4-enabled"] == "true" {
		signing, err := c.signing(props)
		if err != nil {
			return err
		}
		opts = append(opts, rest.WithSigV4RegionSvc(signing.Region, props["rest.signing-name"]), rest.WithAwsConfig(signing))
	}
	cat, err := rest.NewCatalog(ctx, c.opts.Name, c.opts.URI, opts...)
	if err != nil {
		return Classify("open catalog "+c.opts.Name+" at "+c.opts.URI, err)
	}
	c.Catalog = cat
	return nil
}

// signing is the region and the keys with which requests are signed: those of
// the properties, as in Java, or the default chain of AWS.
func (c *Catalog) signing(props iceberg.Properties) (aws.Config, error) {
	cfg := *c.aws
	if region := props["rest.signing-region"]; region != "" {
		cfg.Region = region
	}
	id, secret := props["rest.access-key-id"], props["rest.secret-access-key"]
	if (id == "") != (secret == "") {
		return cfg, fmt.Errorf("%w: catalog %s: rest.access-key-id and rest.secret-access-key go together; set both, or none for the default chain of AWS", batch.ErrInvalid, c.opts.Name)
	}
	if id != "" {
		cfg.Credentials = credentials.NewStaticCredentialsProvider(id, secret, props["rest.session-token"])
	}
	return cfg, nil
}

// oauth returns the login with client credentials, nil where there are none or a
// token is given.
func (c *Catalog) oauth(props iceberg.Properties) (*clientCredentials, error) {
	if c.opts.Credential == "" || c.opts.Token != "" {
		return nil, nil
	}
	base, err := url.Parse(c.opts.URI)
	if err != nil || base.Scheme == "" || base.Host == "" {
		return nil, fmt.Errorf("%w: catalog %s: uri %q is not an address; write https://host/path", batch.ErrInvalid, c.opts.Name, c.opts.URI)
	}
	server := base.JoinPath("v1/oauth/tokens")
	for _, key := range []string{"rest.authorization-url", "oauth2-server-uri"} { // the second one wins, as in Java
		text := props[key]
		if text == "" {
			continue
		}
		if server, err = url.Parse(text); err != nil || server.Scheme == "" || server.Host == "" {
			return nil, fmt.Errorf("%w: catalog %s: %s %q is not an address; write https://host/path", batch.ErrInvalid, c.opts.Name, key, text)
		}
	}
	more := url.Values{}
	for _, key := range []string{"audience", "resource"} {
		if v := props[key]; v != "" {
			more.Set(key, v)
		}
	}
	scope := props["scope"]
	if scope == "" {
		scope = "catalog"
	}
	return newClientCredentials(c.opts.Credential, server.String(), scope, more), nil
}

// properties are those of the spec, which the catalog may change.
func (o Options) properties() iceberg.Properties {
	props := iceberg.Properties{}
	maps.Copy(props, o.Properties)
	return props
}
