// Package certstest makes authorities and certificates for tests, in files of the test's own.
package certstest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/doppel-iot/doppel/gateway/certs"
)

// Authority signs certificates.
type Authority struct {
	File string // its own certificate

	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

var serial atomic.Int64

// New makes an authority.
func New(t testing.TB) *Authority {
	t.Helper()
	a := &Authority{File: filepath.Join(t.TempDir(), "ca.pem")}
	tmpl := template("authority", time.Hour)
	tmpl.IsCA, tmpl.BasicConstraintsValid, tmpl.KeyUsage = true, true, x509.KeyUsageCertSign
	a.key = newKey(t)
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &a.key.PublicKey, a.key)
	if err != nil {
		t.Fatal(err)
	}
	if a.cert, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	write(t, a.File, "CERTIFICATE", der)
	return a
}

// Node is the certificate of a node on loopback, and what it trusts.
func (a *Authority) Node(t testing.TB) certs.Files {
	t.Helper()
	return a.sign(t, t.TempDir(), "node", time.Hour, x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth)
}

// Client is the certificate of a person or a device, and what they trust.
func (a *Authority) Client(t testing.TB, name string) certs.Files {
	t.Helper()
	return a.sign(t, t.TempDir(), name, time.Hour, x509.ExtKeyUsageClientAuth)
}

// Expired is the same, too late.
func (a *Authority) Expired(t testing.TB, name string) certs.Files {
	t.Helper()
	return a.sign(t, t.TempDir(), name, -time.Minute, x509.ExtKeyUsageClientAuth)
}

// Renew replaces a node's certificate in its files.
func (a *Authority) Renew(t testing.TB, f certs.Files) {
	t.Helper()
	fresh := a.Node(t)
	for from, to := range map[string]string{fresh.Key: f.Key, fresh.Cert: f.Cert} {
		if err := os.Rename(from, to); err != nil {
			t.Fatal(err)
		}
	}
}

// Config is the configuration of who has these files.
func Config(t testing.TB, f certs.Files) *tls.Config {
	t.Helper()
	s, err := certs.Open(f)
	if err != nil {
		t.Fatal(err)
	}
	return s.Client()
}

func (a *Authority) sign(t testing.TB, dir, name string, valid time.Duration, usage ...x509.ExtKeyUsage) certs.Files {
	t.Helper()
	f := certs.Files{Cert: filepath.Join(dir, "cert.pem"), Key: filepath.Join(dir, "key.pem"), CA: a.File}
	tmpl, key := template(name, valid), newKey(t)
	tmpl.ExtKeyUsage = usage
	der, err := x509.CreateCertificate(rand.Reader, tmpl, a.cert, &key.PublicKey, a.key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	write(t, f.Cert, "CERTIFICATE", der)
	write(t, f.Key, "PRIVATE KEY", private)
	return f
}

func template(name string, valid time.Duration) *x509.Certificate {
	return &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano() + serial.Add(1)), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-2 * time.Hour), NotAfter: time.Now().Add(valid),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback}, DNSNames: []string{"localhost"}, KeyUsage: x509.KeyUsageDigitalSignature,
	}
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func write(t testing.TB, file, kind string, der []byte) {
	t.Helper()
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
}
