package remote

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"math/big"
	"net"
	"testing"
	"time"
)

// authority signs certificates of nodes on loopback.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{}
	tmpl := template("authority")
	tmpl.IsCA, tmpl.BasicConstraintsValid, tmpl.KeyUsage = true, true, x509.KeyUsageCertSign
	a.cert, a.key = sign(t, tmpl, nil)
	return a
}

func template(name string) *x509.Certificate {
	return &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
}

// sign makes a certificate; a nil parent: it signs itself.
func sign(t *testing.T, tmpl *x509.Certificate, parent *authority) (*x509.Certificate, *ecdsa.PrivateKey) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if parent == nil {
		parent = &authority{cert: tmpl, key: key}
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, parent.cert, &key.PublicKey, parent.key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert, key
}

// config of a node that trusts a and has a certificate of by.
func (a *authority) config(t *testing.T, by *authority) *tls.Config {
	t.Helper()
	c := &tls.Config{RootCAs: x509.NewCertPool()}
	c.RootCAs.AddCert(a.cert)
	if by != nil {
		cert, key := sign(t, template("node"), by)
		c.Certificates = []tls.Certificate{{Certificate: [][]byte{cert.Raw}, PrivateKey: key}}
	}
	return c
}

func TestMutualTLS(t *testing.T) {
	ours, theirs := newAuthority(t), newAuthority(t)
	b := startNode(t, withTLS(ours.config(t, ours)))
	in := b.inbox()

	t.Run("a node of the cluster", func(t *testing.T) {
		a := startNode(t, withTLS(ours.config(t, ours)))
		a.connected(t, b.Address())
		b.connected(t, a.Address())
		mustTell(t, a, b.Address(), "inbox", beat(1))
		eventually(t, "it arrived", func() bool { return in.len() == 1 })
	})
	strangers := map[string]func(*Config){
		"no encryption":                func(*Config) {},
		"certificate of other cluster": withTLS(ours.config(t, theirs)),
		"no certificate":               withTLS(ours.config(t, nil)),
		"trusts another cluster":       withTLS(theirs.config(t, ours)),
	}
	for name, change := range strangers {
		t.Run(name, func(t *testing.T) {
			a := startNode(t, change)
			got := in.len()
			eventually(t, "it is refused", func() bool {
				return errors.Is(a.Tell(b.Address(), "inbox", beat(2)), ErrDown)
			})
			if n := a.Stats().Connects.Load(); n != 0 {
				t.Errorf("%d streams were made, want 0", n)
			}
			if in.len() != got {
				t.Error("something arrived all the same")
			}
			if !b.Heard(a.Address()).IsZero() {
				t.Error("it was heard all the same")
			}
		})
	}
}

// TestServerWithoutAuthoritiesTrustsNobody, and not whom the operating system trusts.
func TestServerWithoutAuthoritiesTrustsNobody(t *testing.T) {
	if c := serverTLS(&tls.Config{}); c.ClientCAs == nil || c.ClientAuth != tls.RequireAndVerifyClientCert {
		t.Errorf("client authorities %v, authentication %v", c.ClientCAs, c.ClientAuth)
	}
}
