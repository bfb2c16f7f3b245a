package node

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net/url"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/sasl"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/doppel-iot/doppel/gateway/auth"
	"github.com/doppel-iot/doppel/gateway/certs"
	"github.com/doppel-iot/doppel/gateway/files"
	"github.com/doppel-iot/doppel/gateway/mqtt"
	"github.com/doppel-iot/doppel/storage/kafka"
)

// locks are those of the doors of a node, and its keys to those of others.
type locks struct {
	serves  bool // there is a certificate for doors
	trusts  bool // there are authorities
	clients tls.ClientAuthType

	certs   *certs.Store
	guard   *auth.Guard
	users   *auth.DeviceUsers // nil: the embedded broker asks nobody
	journal *auth.Journal

	sasl         sasl.Mechanism // nil: none
	mqttPassword string
	questdb      string // URL with user and password
}

// openLocks reads every file of secrets, and has those read again that may change.
func (a *assembly) openLocks(context.Context) (err error) {
	c := a.cfg
	l := &locks{serves: c.TLSCert != "", trusts: c.TLSCA != "", questdb: c.QuestDB}
	a.locks = l
	switch c.clientAuth() {
	case "request":
		l.clients = tls.VerifyClientCertIfGiven
	case "require":
		l.clients = tls.RequireAndVerifyClientCert
	}
	log := a.log.With("component", "security")
	if l.certs, err = certs.Open(certs.Files{Cert: c.TLSCert, Key: c.TLSKey, CA: c.TLSCA}); err != nil {
		return err
	}
	a.life.start("certificates", func(ctx context.Context) error { return l.certs.Run(ctx, 0, log) })
	cfg := auth.GuardConfig{Tokens: c.AuthTokens, Rate: float64(c.ClientRate), Watches: c.ClientWatches, Log: log}
	if c.OIDCIssuer != "" {
		var roots *x509.CertPool
		if l.trusts {
			if roots, err = x509.SystemCertPool(); err != nil {
				roots = x509.NewCertPool()
			}
			pem, err := files.Read(c.TLSCA)
			if err != nil {
				return fmt.Errorf("tls-ca: %w", err)
			}
			roots.AppendCertsFromPEM(pem)
		}
		cfg.OIDC, err = auth.NewOIDC(auth.OIDCConfig{
			Issuer: c.OIDCIssuer, Audience: c.OIDCAudience, RolesClaim: c.OIDCRolesClaim, TagsClaim: c.OIDCTagsClaim, Roots: roots,
		})
		if err != nil {
			return err
		}
	}
	if l.guard, err = auth.NewGuard(cfg); err != nil {
		return fmt.Errorf("auth-tokens: %w", err)
	}
	a.life.start("tokens", func(ctx context.Context) error { return l.guard.Run(ctx, 0) })
	if c.embeddedBroker() && c.devicesAuthenticate() {
		if l.users, err = auth.OpenDeviceUsers(c.MQTTUsers, log); err != nil {
			return fmt.Errorf("mqtt-users: %w", err)
		}
		a.life.start("mqtt users", func(ctx context.Context) error { return l.users.Run(ctx, 0) })
	}
	return l.openKeys(c)
}

// openKeys reads what this node shows to others.
func (l *locks) openKeys(c *Config) (err error) {
	if c.MQTTPasswordFile != "" {
		if l.mqttPassword, err = files.Secret(c.MQTTPasswordFile); err != nil {
			return fmt.Errorf("mqtt-password-file: %w", err)
		}
	}
	if c.KafkaSASLMechanism != "" {
		password := func() (string, error) { return files.Secret(c.KafkaSASLPasswordFile) }
		if _, err := password(); err != nil {
			return fmt.Errorf("kafka-sasl-password-file: %w", err)
		}
		if l.sasl, err = kafka.SASL(c.KafkaSASLMechanism, c.KafkaSASLUser, password); err != nil {
			return err
		}
	}
	if c.QuestDBUser == "" || c.QuestDB == "" {
		return nil
	}
	u, err := url.Parse(c.QuestDB)
	if err != nil {
		return fmt.Errorf("questdb: %w", err)
	}
	password := ""
	if c.QuestDBPasswordFile != "" {
		if password, err = files.Secret(c.QuestDBPasswordFile); err != nil {
			return fmt.Errorf("questdb-password-file: %w", err)
		}
	}
	u.User = url.UserPassword(c.QuestDBUser, password)
	l.questdb = u.String()
	return nil
}

// openJournal has writes recorded from here on.
func (a *assembly) openJournal(context.Context) error {
	a.locks.journal = auth.NewJournal(a.id, a.storage.KeepAudit, a.log.With("component", "audit"))
	a.life.start("journal", a.locks.journal.Run)
	return nil
}

// grpc is what the gRPC door is locked with.
func (l *locks) grpc() credentials.TransportCredentials {
	if !l.serves {
		return insecure.NewCredentials()
	}
	return credentials.NewTLS(l.certs.Server(l.clients, nil, "h2"))
}

// http is the same for the HTTP door; nil if it is open. Whether somebody must have a certificate is asked behind it, because
// probes have none.
func (l *locks) http() *tls.Config {
	if !l.serves {
		return nil
	}
	return l.certs.Server(min(l.clients, tls.VerifyClientCertIfGiven), nil, "h2", "http/1.1")
}

// mqtt is the same for the embedded broker.
func (l *locks) mqtt() *tls.Config {
	if !l.serves {
		return nil
	}
	return l.certs.Server(l.clients, nil)
}

// kafka is the same for the embedded log, which knows admins by their certificates, and nobody else.
func (l *locks) kafka(c *Config) *tls.Config {
	switch {
	case !l.serves:
		return nil
	case l.trusts && c.AuthTokens != "":
		return l.certs.Server(tls.RequireAndVerifyClientCert, l.guard.AdminOnly)
	default: // on loopback only
		return l.certs.Server(tls.NoClientCert, nil)
	}
}

// node is what this node shows to other nodes, and takes of them; nil: neither.
func (l *locks) node() func() *tls.Config {
	if !l.serves || !l.trusts {
		return nil
	}
	return l.certs.Pair
}

// refusals are the counters of what the embedded broker did not let in.
func refusals(s *mqtt.Stats) []prometheus.Collector {
	counter := func(name, help string, load func() uint64) prometheus.Collector {
		return prometheus.NewCounterFunc(prometheus.CounterOpts{Name: name, Help: help}, func() float64 { return float64(load()) })
	}
	return []prometheus.Collector{
		counter("doppel_mqtt_strangers_total", "Connections of devices refused for want of credentials.", s.Strangers.Load),
		counter("doppel_mqtt_denied_total", "Publications and subscriptions of devices to what is not their own.", s.Denied.Load),
	}
}
