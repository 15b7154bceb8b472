package kafka

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/frazil-io/frazil/internal/batch"
)

const secret = "s3cr3t-do-not-show"

func cluster(t *testing.T, opts ...kfake.Opt) *kfake.Cluster {
	t.Helper()
	c, err := kfake.NewCluster(append([]kfake.Opt{kfake.NumBrokers(1), kfake.SeedTopics(1, "clicks", "orders")}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// wants makes sure of the kind, that the text says what to do, and that it
// shows no secret.
func wants(t *testing.T, err, kind error, text string) {
	t.Helper()
	if kind == nil {
		if err != nil {
			t.Fatalf("error %v, want none", err)
		}
		return
	}
	if !errors.Is(err, kind) || !strings.Contains(err.Error(), text) {
		t.Fatalf("error %v, want %v and %q", err, kind, text)
	}
	if strings.Contains(err.Error(), secret) {
		t.Fatalf("the error shows a secret: %v", err)
	}
}

func TestCheckLogin(t *testing.T) {
	c := cluster(t, kfake.EnableSASL(),
		kfake.Superuser("PLAIN", "u", secret), kfake.Superuser("SCRAM-SHA-256", "u", secret), kfake.Superuser("SCRAM-SHA-512", "u", secret))
	for name, test := range map[string]struct {
		sasl SASL
		kind error
		text string
	}{
		"plain":          {SASL{Mechanism: "plain", Username: "u", Password: secret}, nil, ""},
		"scram 256":      {SASL{Mechanism: "scram-sha-256", Username: "u", Password: secret}, nil, ""},
		"scram 512":      {SASL{Mechanism: "SCRAM-SHA-512", Username: "u", Password: secret}, nil, ""},
		"not enabled":    {SASL{Mechanism: "oauthbearer", Token: secret}, batch.ErrInvalid, "check sasl mechanism"},
		"none":           {SASL{}, batch.ErrUnavailable, "SASL"},
		"no password":    {SASL{Mechanism: "plain", Username: "u"}, batch.ErrInvalid, "needs a password"},
		"no such":        {SASL{Mechanism: "gssapi"}, batch.ErrInvalid, `"gssapi" is not known; use plain`},
		"no client id":   {SASL{Mechanism: "oauthbearer", TokenURL: "http://127.0.0.1:1"}, batch.ErrInvalid, "client_id"},
		"no secret key":  {SASL{Mechanism: "aws_msk_iam", Username: "AKIA"}, batch.ErrInvalid, "secret access key"},
		"no token":       {SASL{Mechanism: "oauthbearer"}, batch.ErrInvalid, "token_url"},
		"iam on a plain": {SASL{Mechanism: "aws_msk_iam", Username: "AKIA", Password: secret}, batch.ErrInvalid, "check sasl mechanism"},
	} {
		t.Run(name, func(t *testing.T) {
			err := Check(t.Context(), Options{Brokers: c.ListenAddrs(), SASL: test.sasl}, []string{"clicks"})
			wants(t, err, test.kind, test.text)
		})
	}
}

// TestWrongPassword answers as Kafka does; kfake alone would hang up.
func TestWrongPassword(t *testing.T) {
	c := cluster(t, kfake.EnableSASL(), kfake.Superuser("PLAIN", "u", "p"), kfake.Superuser("SCRAM-SHA-512", "u", "p"))
	c.ControlKey(int16(kmsg.SASLAuthenticate), func(req kmsg.Request) (kmsg.Response, error, bool) {
		c.KeepControl()
		resp := req.ResponseKind().(*kmsg.SASLAuthenticateResponse)
		resp.ErrorCode = kerr.SaslAuthenticationFailed.Code
		return resp, nil, true
	})
	for _, mechanism := range []string{"plain", "scram-sha-512"} {
		err := Check(t.Context(), Options{Brokers: c.ListenAddrs(), SASL: SASL{Mechanism: mechanism, Username: "u", Password: secret}}, []string{"clicks"})
		wants(t, err, batch.ErrInvalid, "check sasl username and password")
	}
}

// TestPlainServer speaks HTTP where TLS is expected.
func TestPlainServer(t *testing.T) {
	server := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(server.Close)
	err := Check(t.Context(), Options{Brokers: []string{server.Listener.Addr().String()}, TLS: TLS{Enabled: true}}, nil)
	wants(t, err, batch.ErrInvalid, "does not speak TLS")
}

func TestCheckTopics(t *testing.T) {
	o := Options{Brokers: cluster(t).ListenAddrs()}
	wants(t, Check(t.Context(), o, []string{"clicks", "orders"}), nil, "")
	wants(t, Check(t.Context(), o, nil), nil, "")
	wants(t, Check(t.Context(), o, []string{"clicks", "order"}), batch.ErrInvalid, `topic "order" does not exist`)
	wants(t, Check(t.Context(), o, []string{"ordres"}), batch.ErrInvalid, `did you mean "orders"?`)
	wants(t, Check(t.Context(), o, []string{"weather"}), batch.ErrInvalid, "create it, or correct the name")
	wants(t, Check(t.Context(), Options{}, nil), batch.ErrInvalid, "brokers")
}

func TestUnreachableBroker(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	l.Close() // nothing listens there any more
	wants(t, Check(t.Context(), Options{Brokers: []string{address}}, nil), batch.ErrUnavailable, "no broker can be reached")
	ctx, cancel := context.WithCancelCause(t.Context())
	why := errors.New("the reason")
	cancel(why)
	if err := Check(ctx, Options{Brokers: []string{address}}, nil); !errors.Is(err, why) {
		t.Fatalf("error %v, want the cause", err)
	}
}

// authority issues certificates for tests.
type authority struct {
	key  *ecdsa.PrivateKey
	cert *x509.Certificate
	dir  string
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{dir: t.TempDir()}
	a.key, a.cert = a.issue(t, "ca", nil)
	return a
}

// issue writes NAME.pem and NAME.key.
func (a *authority) issue(t *testing.T, name string, hosts []string) (*ecdsa.PrivateKey, *x509.Certificate) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotBefore: time.Unix(0, 0), NotAfter: time.Now().Add(time.Hour),
		DNSNames: hosts, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}, BasicConstraintsValid: true, IsCA: a.cert == nil,
	}
	parent, signer := c, key
	if a.cert != nil {
		parent, signer = a.cert, a.key
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, &key.PublicKey, signer)
	if err != nil {
		t.Fatal(err)
	}
	pkcs, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	a.write(t, name+".pem", "CERTIFICATE", der)
	a.write(t, name+".key", "PRIVATE KEY", pkcs)
	if c, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	return key, c
}

func (a *authority) write(t *testing.T, name, kind string, der []byte) {
	t.Helper()
	if err := os.WriteFile(a.file(name), pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
}

func (a *authority) file(name string) string { return filepath.Join(a.dir, name) }

func TestTLS(t *testing.T) {
	ours, others := newAuthority(t), newAuthority(t)
	ours.issue(t, "broker", []string{"broker.test"})
	ours.issue(t, "client", nil)
	pair, err := tls.LoadX509KeyPair(ours.file("broker.pem"), ours.file("broker.key"))
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(ours.cert)
	open := cluster(t, kfake.TLS(&tls.Config{Certificates: []tls.Certificate{pair}}))
	mutual := cluster(t, kfake.TLS(&tls.Config{Certificates: []tls.Certificate{pair}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: pool}))
	good := TLS{Enabled: true, CA: ours.file("ca.pem"), ServerName: "broker.test"}
	with := func(change func(*TLS)) TLS { o := good; change(&o); return o }
	for name, test := range map[string]struct {
		cluster *kfake.Cluster
		tls     TLS
		kind    error
		text    string
	}{
		"good":            {open, good, nil, ""},
		"insecure":        {open, TLS{Enabled: true, Insecure: true}, nil, ""},
		"mutual":          {mutual, with(func(o *TLS) { o.Cert, o.Key = ours.file("client.pem"), ours.file("client.key") }), nil, ""},
		"mutual, no cert": {mutual, good, batch.ErrInvalid, "check tls cert and key"},
		"another ca":      {open, with(func(o *TLS) { o.CA = others.file("ca.pem") }), batch.ErrInvalid, "check tls ca"},
		"another name":    {open, with(func(o *TLS) { o.ServerName = "other.test" }), batch.ErrInvalid, "check tls server_name"},
		"no tls here":     {open, TLS{}, batch.ErrUnavailable, ""},
		"no file":         {open, with(func(o *TLS) { o.CA = ours.file("none.pem") }), batch.ErrInvalid, "none.pem"},
		"no certificate":  {open, with(func(o *TLS) { o.CA = ours.file("ca.key") }), batch.ErrInvalid, "holds no certificate"},
		"no key":          {open, with(func(o *TLS) { o.Cert = ours.file("client.pem") }), batch.ErrInvalid, "client.pem"},
	} {
		t.Run(name, func(t *testing.T) {
			wants(t, Check(t.Context(), Options{Brokers: test.cluster.ListenAddrs(), TLS: test.tls}, []string{"clicks"}), test.kind, test.text)
		})
	}
}

func TestSecretsAreNotPrinted(t *testing.T) {
	o := Options{Brokers: []string{"b:1"}, SASL: SASL{Mechanism: "plain", Username: "u", Password: secret, Token: secret, ClientSecret: secret}}
	data, err := json.Marshal(o)
	if err != nil {
		t.Fatal(err)
	}
	logged := &strings.Builder{}
	slog.New(slog.NewJSONHandler(logged, nil)).Info("options", "sasl", o.SASL, "all", o)
	for _, text := range []string{fmt.Sprint(o), fmt.Sprintf("%+v", o), fmt.Sprintf("%#v", o), fmt.Sprintf("%+v", &o), string(data), logged.String()} {
		if strings.Contains(text, secret) {
			t.Errorf("a secret is shown: %s", text)
		}
	}
}

func TestTokenEndpoint(t *testing.T) {
	status := http.StatusOK
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		user, password, _ := r.BasicAuth()
		if user != "id" || password != secret || r.FormValue("grant_type") != "client_credentials" || r.FormValue("scope") != "kafka" {
			w.WriteHeader(http.StatusUnauthorized)
			fmt.Fprintf(w, `{"error":"invalid_client","error_description":%q}`, password)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		fmt.Fprint(w, `{"access_token":"the-token","token_type":"bearer","expires_in":60}`)
	}))
	t.Cleanup(server.Close)
	s := SASL{Mechanism: "oauthbearer", TokenURL: server.URL, ClientID: "id", ClientSecret: secret, Scopes: []string{"kafka"}}
	mechanism, err := s.mechanism()
	if err != nil {
		t.Fatal(err)
	}
	_, first, err := mechanism.Authenticate(t.Context(), "b:1")
	if err != nil || !strings.Contains(string(first), "auth=Bearer the-token\x01") {
		t.Fatalf("%q %v", first, err)
	}
	status = http.StatusServiceUnavailable
	_, err = s.fetchToken(t.Context())
	wants(t, err, batch.ErrUnavailable, "503")
	s.ClientSecret = secret + "x"
	_, err = s.fetchToken(t.Context())
	wants(t, err, batch.ErrInvalid, "check sasl token_url")
	s.TokenURL = "http://127.0.0.1:1"
	_, err = s.fetchToken(t.Context())
	wants(t, err, batch.ErrUnavailable, "token endpoint")
}

// TestTokenIsRefused: a broker says so by an answer that is no error.
func TestTokenIsRefused(t *testing.T) {
	mechanism, err := SASL{Mechanism: "oauthbearer", Token: secret}.mechanism()
	if err != nil {
		t.Fatal(err)
	}
	session, _, err := mechanism.Authenticate(t.Context(), "b:1")
	if err != nil {
		t.Fatal(err)
	}
	if done, _, err := session.Challenge(nil); !done || err != nil {
		t.Fatalf("%t, %v", done, err)
	}
	for answer, text := range map[string]string{`{"status":"invalid_token"}`: "(invalid_token)", "junk": "(no reason given)"} {
		_, _, err := session.Challenge([]byte(answer))
		wants(t, err, batch.ErrInvalid, text)
	}
}

// TestTokenFile: the file is read for each login.
func TestTokenFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "token")
	mechanism, err := SASL{Mechanism: "oauthbearer", TokenFile: file}.mechanism()
	if err != nil {
		t.Fatal(err)
	}
	_, _, err = mechanism.Authenticate(t.Context(), "b:1")
	wants(t, err, batch.ErrInvalid, "token_file")
	for _, token := range []string{"one", "two"} {
		if err := os.WriteFile(file, []byte(token+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		_, first, err := mechanism.Authenticate(t.Context(), "b:1")
		if err != nil || !strings.Contains(string(first), "auth=Bearer "+token+"\x01") {
			t.Fatalf("%q %v", first, err)
		}
	}
	if err := os.WriteFile(file, []byte("\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, _, err = mechanism.Authenticate(t.Context(), "b:1")
	wants(t, err, batch.ErrInvalid, "is empty")
}

func TestAWSLogin(t *testing.T) {
	t.Setenv("AWS_REGION", "eu-west-1")
	t.Setenv("AWS_ACCESS_KEY_ID", "AKIAENV")
	t.Setenv("AWS_SECRET_ACCESS_KEY", secret)
	for _, s := range []SASL{{Mechanism: "aws_msk_iam", Username: "AKIASPEC", Password: secret}, {Mechanism: "aws_msk_iam"}} {
		mechanism, err := s.mechanism()
		if err != nil {
			t.Fatal(err)
		}
		_, first, err := mechanism.Authenticate(t.Context(), "b-1.kafka.eu-west-1.amazonaws.com:9098")
		want := s.Username
		if want == "" {
			want = "AKIAENV"
		}
		if err != nil || !strings.Contains(string(first), want+"/") || strings.Contains(string(first), secret) {
			t.Errorf("%q %v", first, err)
		}
	}
}

// TestAWSSignature computes the signature of a login anew with AWS's own SDK
// (https://github.com/aws/aws-msk-iam-auth#details).
func TestAWSSignature(t *testing.T) {
	const host = "b-1.kafka.eu-west-1.amazonaws.com"
	for _, session := range []string{"", "the/session=="} {
		mechanism, err := SASL{Mechanism: "aws_msk_iam", Username: "AKIASPEC", Password: secret, Token: session}.mechanism()
		if err != nil {
			t.Fatal(err)
		}
		_, first, err := mechanism.Authenticate(t.Context(), host+":9098")
		if err != nil {
			t.Fatal(err)
		}
		var said map[string]string
		if err := json.Unmarshal(first, &said); err != nil {
			t.Fatalf("%v: %s", err, first)
		}
		if mechanism.Name() != "AWS_MSK_IAM" || said["version"] != "2020_10_22" || said["host"] != host || said["action"] != "kafka-cluster:Connect" {
			t.Fatalf("%s says %v", mechanism.Name(), said)
		}
		at, err := time.Parse("20060102T150405Z", said["x-amz-date"])
		if err != nil {
			t.Fatal(err)
		}
		query := url.Values{"Action": {said["action"]}, "X-Amz-Expires": {said["x-amz-expires"]}}
		request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "kafka://"+host+"/?"+query.Encode(), nil)
		if err != nil {
			t.Fatal(err)
		}
		nothing := sha256.Sum256(nil)
		signed, _, err := v4.NewSigner().PresignHTTP(t.Context(), aws.Credentials{AccessKeyID: "AKIASPEC", SecretAccessKey: secret, SessionToken: session},
			request, hex.EncodeToString(nothing[:]), "kafka-cluster", "eu-west-1", at)
		if err != nil {
			t.Fatal(err)
		}
		u, err := url.Parse(signed)
		if err != nil {
			t.Fatal(err)
		}
		for _, key := range []string{"X-Amz-Signature", "X-Amz-Credential", "X-Amz-Algorithm", "X-Amz-SignedHeaders", "X-Amz-Security-Token"} {
			if got, want := said[strings.ToLower(key)], u.Query().Get(key); got != want {
				t.Errorf("%s is %q, and %q by the SDK", key, got, want)
			}
		}
	}
}

func TestClassify(t *testing.T) {
	for _, test := range []struct {
		err, kind error
	}{
		{kerr.TopicAuthorizationFailed, batch.ErrInvalid},
		{kerr.GroupAuthorizationFailed, batch.ErrInvalid},
		{kerr.InvalidTopicException, batch.ErrInvalid},
		{kerr.NotLeaderForPartition, batch.ErrUnavailable},
		{kerr.UnknownTopicOrPartition, batch.ErrUnavailable},
		{context.DeadlineExceeded, batch.ErrUnavailable},
		{context.Canceled, batch.ErrUnavailable}, // of the library, not of the caller
		{fmt.Errorf("token endpoint: %w", batch.ErrInvalid), batch.ErrInvalid},
	} {
		if err := Classify(t.Context(), "fetch", test.err); !errors.Is(err, test.kind) || !errors.Is(err, test.err) || !strings.HasPrefix(err.Error(), "fetch: ") {
			t.Errorf("%v is %v, want %v", test.err, err, test.kind)
		}
	}
}
