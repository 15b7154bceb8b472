//go:build integration

package integration

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/frazil-io/frazil/internal/batch"
	"github.com/frazil-io/frazil/internal/kafka"
	"github.com/frazil-io/frazil/test/servers"
)

const password = "open-sesame"

// certificates are an authority's, in files.
type certificates struct {
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newCertificates(t *testing.T) *certificates {
	t.Helper()
	c := &certificates{dir: t.TempDir()}
	c.cert, c.key = c.issue(t, "ca")
	return c
}

func (c *certificates) file(name string) string { return filepath.Join(c.dir, name) }

// issue writes name.pem, name.key, and both together as Kafka's keystores are.
func (c *certificates) issue(t *testing.T, name string) (*x509.Certificate, *ecdsa.PrivateKey) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		BasicConstraintsValid: true, IsCA: c.cert == nil, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	parent, signer := template, key
	if c.cert != nil {
		parent, signer = c.cert, c.key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, signer)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	certPEM := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	keyPEM := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8})
	for suffix, data := range map[string][]byte{".pem": certPEM, ".key": keyPEM, ".store.pem": append(append([]byte{}, keyPEM...), certPEM...)} {
		if err := os.WriteFile(c.file(name+suffix), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert, key
}

// token is an unsigned JSON Web Token, which Kafka takes when it is told nothing
// else.
func token(t *testing.T, holds time.Duration) string {
	t.Helper()
	part := func(v any) string {
		data, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return base64.RawURLEncoding.EncodeToString(data)
	}
	now := time.Now()
	return part(map[string]any{"alg": "none"}) + "." + part(map[string]any{"sub": "reader", "iat": now.Add(-time.Minute).Unix(), "exp": now.Add(holds).Unix()}) + "."
}

// TestKafkaLogins tries every login that a broker can be set up for here, good
// and bad.
func TestKafkaLogins(t *testing.T) {
	certs, others := newCertificates(t), newCertificates(t)
	certs.issue(t, "broker")
	certs.issue(t, "client")
	others.issue(t, "client")
	ports := map[string]int{"LOGIN": servers.Port(t), "BOTH": servers.Port(t), "TLS": servers.Port(t), "MUTUAL": servers.Port(t)}
	jaas := ""
	for _, listener := range []string{"login", "both"} {
		for mechanism, module := range map[string]string{
			"plain":         `plain.PlainLoginModule required user_reader="` + password + `"`,
			"scram-sha-256": `scram.ScramLoginModule required`,
			"scram-sha-512": `scram.ScramLoginModule required`,
			"oauthbearer":   `oauthbearer.OAuthBearerLoginModule required unsecuredLoginStringClaim_sub="broker"`,
		} {
			jaas += fmt.Sprintf("listener.name.%s.%s.sasl.jaas.config=org.apache.kafka.common.security.%s;\n", listener, mechanism, module)
		}
	}
	k := servers.StartKafkaWith(t, "testdata", servers.KafkaOptions{
		Listeners: ports,
		Properties: fmt.Sprintf(`listener.security.protocol.map=PLAINTEXT:PLAINTEXT,OWN:PLAINTEXT,CONTROLLER:PLAINTEXT,LOGIN:SASL_PLAINTEXT,BOTH:SASL_SSL,TLS:SSL,MUTUAL:SSL
sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256,SCRAM-SHA-512,OAUTHBEARER
connections.max.reauth.ms=2000
ssl.keystore.type=PEM
ssl.keystore.location=%s
ssl.truststore.type=PEM
ssl.truststore.location=%s
listener.name.mutual.ssl.client.auth=required
%s`, certs.file("broker.store.pem"), certs.file("ca.pem"), jaas),
		Scram: []string{"SCRAM-SHA-256=[name=reader,password=" + password + "]", "SCRAM-SHA-512=[name=reader,password=" + password + "]"},
	})
	admin, err := kgo.NewClient(kgo.SeedBrokers(k.Addr()))
	if err != nil {
		t.Fatal(err)
	}
	defer admin.Close()
	if _, err := kadm.NewClient(admin).CreateTopic(t.Context(), 1, 1, nil, "clicks"); err != nil {
		t.Fatal(err)
	}
	at := func(listener string) []string { return []string{fmt.Sprintf("127.0.0.1:%d", ports[listener])} }
	user := func(mechanism, password string) kafka.SASL {
		return kafka.SASL{Mechanism: mechanism, Username: "reader", Password: password}
	}
	trust := kafka.TLS{Enabled: true, CA: certs.file("ca.pem")}
	file := filepath.Join(t.TempDir(), "token")
	write := func(text string) {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(token(t, time.Hour))
	for name, c := range map[string]struct {
		o    kafka.Options
		text string // "": it is let in
	}{
		"plain":                       {kafka.Options{Brokers: at("LOGIN"), SASL: user("plain", password)}, ""},
		"plain, wrong password":       {kafka.Options{Brokers: at("LOGIN"), SASL: user("plain", "wrong-word")}, "check sasl username and password"},
		"scram-sha-256":               {kafka.Options{Brokers: at("LOGIN"), SASL: user("scram-sha-256", password)}, ""},
		"scram-sha-256, wrong":        {kafka.Options{Brokers: at("LOGIN"), SASL: user("scram-sha-256", "wrong-word")}, "check sasl username and password"},
		"scram-sha-512":               {kafka.Options{Brokers: at("LOGIN"), SASL: user("scram-sha-512", password)}, ""},
		"scram-sha-512, wrong":        {kafka.Options{Brokers: at("LOGIN"), SASL: user("scram-sha-512", "wrong-word")}, "check sasl username and password"},
		"oauthbearer":                 {kafka.Options{Brokers: at("LOGIN"), SASL: kafka.SASL{Mechanism: "oauthbearer", Token: token(t, time.Hour)}}, ""},
		"oauthbearer, file":           {kafka.Options{Brokers: at("LOGIN"), SASL: kafka.SASL{Mechanism: "oauthbearer", TokenFile: file}}, ""},
		"oauthbearer, ended":          {kafka.Options{Brokers: at("LOGIN"), SASL: kafka.SASL{Mechanism: "oauthbearer", Token: token(t, -time.Minute)}}, "the broker refused the token (invalid_token)"},
		"oauthbearer, junk":           {kafka.Options{Brokers: at("LOGIN"), SASL: kafka.SASL{Mechanism: "oauthbearer", Token: "wrong-word"}}, "the broker refused the token (invalid_token)"},
		"mechanism that is off":       {kafka.Options{Brokers: at("LOGIN"), SASL: kafka.SASL{Mechanism: "aws_msk_iam", Username: "u", Password: "wrong-word"}}, "sasl"},
		"login over tls":              {kafka.Options{Brokers: at("BOTH"), SASL: user("scram-sha-512", password), TLS: trust}, ""},
		"login over tls, wrong":       {kafka.Options{Brokers: at("BOTH"), SASL: user("plain", "wrong-word"), TLS: trust}, "check sasl username and password"},
		"tls":                         {kafka.Options{Brokers: at("TLS"), TLS: trust}, ""},
		"tls, another authority":      {kafka.Options{Brokers: at("TLS"), TLS: kafka.TLS{Enabled: true, CA: others.file("ca.pem")}}, "check tls ca"},
		"tls, another name":           {kafka.Options{Brokers: at("TLS"), TLS: kafka.TLS{Enabled: true, CA: certs.file("ca.pem"), ServerName: "other.test"}}, "check tls server_name"},
		"mutual":                      {kafka.Options{Brokers: at("MUTUAL"), TLS: kafka.TLS{Enabled: true, CA: certs.file("ca.pem"), Cert: certs.file("client.pem"), Key: certs.file("client.key")}}, ""},
		"mutual, no certificate":      {kafka.Options{Brokers: at("MUTUAL"), TLS: trust}, "check tls cert and key"},
		"mutual, another authority's": {kafka.Options{Brokers: at("MUTUAL"), TLS: kafka.TLS{Enabled: true, CA: certs.file("ca.pem"), Cert: others.file("client.pem"), Key: others.file("client.key")}}, "check tls cert and key"},
	} {
		begun := time.Now()
		err := kafka.Check(t.Context(), c.o, []string{"clicks"})
		t.Logf("%s: %v after %s", name, err, time.Since(begun).Round(time.Millisecond))
		switch {
		case c.text == "" && err != nil:
			t.Errorf("%s: %v", name, err)
		case c.text != "" && (!errors.Is(err, batch.ErrInvalid) || !strings.Contains(err.Error(), c.text)):
			t.Errorf("%s: %v, want %q", name, err, c.text)
		}
		if err != nil && (strings.Contains(err.Error(), "wrong-word") || strings.Contains(err.Error(), password)) {
			t.Errorf("%s: a secret is printed: %v", name, err)
		}
	}
	reauthenticate(t, kafka.Options{Brokers: at("LOGIN"), SASL: kafka.SASL{Mechanism: "oauthbearer", TokenFile: file}}, write)
	wrongPassword(t, at("LOGIN")[0])
}

// reauthenticate keeps one client beyond what its first token holds: the broker
// wants the login again, and the file has a new token then.
func reauthenticate(t *testing.T, o kafka.Options, write func(string)) {
	t.Helper()
	write(token(t, 4*time.Second))
	client, err := kafka.NewClient(o)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	ends := time.Now().Add(4 * time.Second)
	if err := client.Ping(t.Context()); err != nil {
		t.Fatal(err)
	}
	write(token(t, time.Hour))
	tick := time.NewTicker(500 * time.Millisecond)
	defer tick.Stop()
	for time.Now().Before(ends.Add(3 * time.Second)) { // until the first token has ended for certain
		<-tick.C
		if err := client.Ping(t.Context()); err != nil {
			t.Fatalf("with the new token: %v", err)
		}
	}
	write(token(t, -time.Hour))
	for range 20 {
		<-tick.C
		if err := kafka.Classify(t.Context(), "ping", client.Ping(t.Context())); errors.Is(err, batch.ErrInvalid) {
			return
		}
	}
	t.Error("the broker never asked for the login again: nothing was tested")
}

// wrongPassword runs the program with one.
func wrongPassword(t *testing.T, broker string) {
	t.Helper()
	l := &lab{T: t}
	dir := t.TempDir()
	l.spec = filepath.Join(dir, "pipeline.yaml")
	text := fmt.Sprintf(`name: logins
trigger: {interval: 1s}
checkpoint: %[1]s/checkpoints
catalogs: {lake: {type: sql, uri: "%[1]s/catalog.db", warehouse: "%[1]s/warehouse"}}
sources:
  clicks:
    kafka: {brokers: ["%[2]s"], topics: [clicks], start: earliest, sasl: {mechanism: scram-sha-512, username: reader, password: wrong-word}}
    format: json
    columns: id BIGINT
sinks:
  rows: {sql: SELECT id FROM clicks, iceberg: {catalog: lake, table: t.rows}}
`, dir, broker)
	if err := os.WriteFile(l.spec, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	d := l.start()
	code := l.end(d, 20*time.Second)
	said := d.log.String()
	if code != 2 || !strings.Contains(said, "check sasl username and password") || strings.Contains(said, "wrong-word") {
		t.Errorf("exit code %d:\n%s", code, said)
	}
}
