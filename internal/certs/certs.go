// Package certs reads the certificates of a client's TLS connections and says
// what a handshake failed of. It is a tool that other tools share.
package certs

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
)

// TLS is what a connection needs beside the system's certificates.
type TLS struct {
	CA         string // file with certificates to trust, instead of the system's
	Cert, Key  string // files of the client's own certificate
	ServerName string // to expect in the server's certificate; "": the address's host
}

// Config reads the files. Its errors name the key of the spec that is wrong.
func (t TLS) Config() (*tls.Config, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: t.ServerName}
	if t.CA != "" {
		pem, err := os.ReadFile(t.CA)
		if err != nil {
			return nil, fmt.Errorf("tls ca: %w", err)
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("tls ca: file %q holds no certificate in PEM; point it at the certificate of the authority", t.CA)
		}
	}
	if t.Cert != "" || t.Key != "" {
		pair, err := tls.LoadX509KeyPair(t.Cert, t.Key)
		if err != nil {
			return nil, fmt.Errorf("tls cert %q and key %q: %w", t.Cert, t.Key, err)
		}
		config.Certificates = []tls.Certificate{pair}
	}
	return config, nil
}

// Fault is what a handshake failed of.
type Fault int

// The faults.
const (
	None      Fault = iota // it is no error of TLS
	OtherName              // the server's certificate is for another name
	Untrusted              // the server's certificate is not trusted
	Refused                // the server ended the handshake: it wants another client
	Plain                  // the server does not speak TLS at this address
)

// FaultOf judges an error by its type.
func FaultOf(err error) Fault {
	switch {
	case is[x509.HostnameError](err): // before what wraps it
		return OtherName
	case is[x509.UnknownAuthorityError](err), is[x509.CertificateInvalidError](err), is[*tls.CertificateVerificationError](err):
		return Untrusted
	case isAlert(err):
		return Refused
	case is[tls.RecordHeaderError](err), errors.Is(err, http.ErrSchemeMismatch):
		return Plain
	}
	return None
}

// isAlert says whether the other side ended the TLS handshake. crypto/tls keeps
// the alert's type to itself and marks it by the operation (tls.Conn.readRecord).
func isAlert(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "remote error"
}

func is[E error](err error) bool {
	var target E
	return errors.As(err, &target)
}
