package kafka

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
)

// TestLockedKafka: a log that asks who comes and is encrypted is used like any other; certificates and
// passwords are looked at for each connection.
func TestLockedKafka(t *testing.T) {
	s := httptest.NewTLSServer(nil) // for its certificate
	defer s.Close()
	trusts := x509.NewCertPool()
	trusts.AddCert(s.Certificate())
	for _, mechanism := range []string{"PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"} {
		t.Run(mechanism, func(t *testing.T) {
			cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.EnableSASL(), kfake.Superuser(mechanism, "me", "secret"),
				kfake.TLS(&tls.Config{Certificates: s.TLS.Certificates}))
			if err != nil {
				t.Fatal(err)
			}
			defer cluster.Close()
			var asked atomic.Int32
			open := func(password string, roots *x509.CertPool) (*Client, error) {
				m, err := SASL(mechanism, "me", func() (string, error) { asked.Add(1); return password, nil })
				if err != nil {
					t.Fatal(err)
				}
				ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
				defer cancel()
				return Open(ctx, Config{
					Brokers: cluster.ListenAddrs(), Partitions: 1, SASL: m, TLS: func() *tls.Config { return &tls.Config{RootCAs: roots} },
				})
			}
			c, err := open("secret", trusts)
			if err != nil {
				t.Fatal(err)
			}
			done := make(chan error, 1)
			c.KeepAudit(t.Context(), []byte("pump-1"), []byte(`{"who":"me"}`), func(err error) { done <- err })
			if err := <-done; err != nil {
				t.Error(err)
			}
			got := consume(t, c, c.Topics().Audit, 1)[0]
			if string(got.Key) != "pump-1" || string(got.Value) != `{"who":"me"}` || c.Topics().Audit != "doppel.audit" {
				t.Errorf("got %s %s in %s", got.Key, got.Value, got.Topic)
			}
			if err := c.Close(); err != nil {
				t.Error(err)
			}
			if asked.Load() < 2 {
				t.Errorf("the password was asked for %d times, not for each connection", asked.Load())
			}
			c.KeepAudit(t.Context(), nil, []byte(`{}`), func(err error) { done <- err })
			if err := <-done; err == nil {
				t.Error("a record that is not kept is not told")
			}
			if _, err := open("wrong", trusts); err == nil {
				t.Error("a wrong password is taken")
			}
			if _, err := open("secret", x509.NewCertPool()); err == nil {
				t.Error("a server that nobody vouches for is taken")
			}
		})
	}
	if _, err := SASL("gssapi", "me", nil); err == nil {
		t.Error("an unknown mechanism is taken")
	}
}
