package node

import (
	"fmt"
	"maps"
	"net"
	"net/url"
	"os"
	"slices"
	"strings"

	"github.com/spf13/pflag"

	"github.com/doppel-iot/doppel/gateway/auth"
)

// Security is what a node is told about who may come in, and how it comes in elsewhere. Secrets stand in
// files; settings name the files.
type Security struct {
	TLSCert, TLSKey, TLSCA string
	TLSClientAuth          string // none, request or require; empty: request with TLSCA, else none
	AuthTokens             string
	OIDCIssuer             string
	OIDCAudience           string
	OIDCRolesClaim         string
	OIDCTagsClaim          string
	MQTTUsers              string
	MQTTAnonymous          bool
	Insecure               bool
	ClientRate             int
	ClientWatches          int

	MQTTUser, MQTTPasswordFile       string
	QuestDBUser, QuestDBPasswordFile string
	KafkaTLS                         bool
	KafkaSASLMechanism               string
	KafkaSASLUser                    string
	KafkaSASLPasswordFile            string
}

func (c *Security) flags(fs *pflag.FlagSet) {
	fs.StringVar(&c.TLSCert, "tls-cert", "", "certificate `FILE` (PEM) of every door, read again when it changes")
	fs.StringVar(&c.TLSKey, "tls-key", "", "private key `FILE` (PEM)")
	fs.StringVar(&c.TLSCA, "tls-ca", "", "certificate authorities `FILE` (PEM) for clients, devices and other nodes")
	fs.StringVar(&c.TLSClientAuth, "tls-client-auth", "", "certificates of clients and devices: none, request or require (default request with tls-ca, else none)")
	fs.StringVar(&c.AuthTokens, "auth-tokens", "", "`FILE` of API tokens, and of the roles of client certificates; read again when it changes")
	fs.StringVar(&c.OIDCIssuer, "oidc-issuer", "", "`URL` of an OpenID provider whose tokens are taken")
	fs.StringVar(&c.OIDCAudience, "oidc-audience", "", "audience that those tokens must have")
	fs.StringVar(&c.OIDCRolesClaim, "oidc-roles-claim", "roles", "claim that holds reader, operator or admin, or a list with one of them; points lead into objects")
	fs.StringVar(&c.OIDCTagsClaim, "oidc-tags-claim", "doppel_tags", "claim that holds the tags an identity is bound to")
	fs.StringVar(&c.MQTTUsers, "mqtt-users", "", "`FILE` of the users of the embedded broker; read again when it changes")
	fs.BoolVar(&c.MQTTAnonymous, "mqtt-anonymous", false, "let devices without credentials in, each confined to the topics of its client id")
	fs.BoolVar(&c.Insecure, "insecure", false, "listen beyond loopback without TLS and authentication")
	fs.IntVar(&c.ClientRate, "client-rate", 20_000, "calls a second that a client may make; 0: as many as it likes")
	fs.IntVar(&c.ClientWatches, "client-watches", 20_000, "watches that a client may have at a time; 0: as many as it likes")
	fs.StringVar(&c.MQTTUser, "mqtt-user", "", "user at the brokers of mqtt")
	fs.StringVar(&c.MQTTPasswordFile, "mqtt-password-file", "", "`FILE` of the password at the brokers of mqtt")
	fs.BoolVar(&c.KafkaTLS, "kafka-tls", false, "connect to Kafka with TLS (tls-ca, and tls-cert if it asks for one)")
	fs.StringVar(&c.KafkaSASLMechanism, "kafka-sasl-mechanism", "", "plain, scram-sha-256 or scram-sha-512; none: no SASL")
	fs.StringVar(&c.KafkaSASLUser, "kafka-sasl-user", "", "user at Kafka")
	fs.StringVar(&c.KafkaSASLPasswordFile, "kafka-sasl-password-file", "", "`FILE` of the password at Kafka")
	fs.StringVar(&c.QuestDBUser, "questdb-user", "", "user at QuestDB")
	fs.StringVar(&c.QuestDBPasswordFile, "questdb-password-file", "", "`FILE` of the password at QuestDB")
}

// authenticates says whether people are asked who they are.
func (c *Security) authenticates() bool { return c.AuthTokens != "" || c.OIDCIssuer != "" }

// devicesAuthenticate says whether devices of the embedded broker are.
func (c *Security) devicesAuthenticate() bool { return c.MQTTUsers != "" || c.clientAuth() != "none" }

// clientAuth is the setting with its default.
func (c *Security) clientAuth() string {
	switch {
	case c.TLSClientAuth != "":
		return c.TLSClientAuth
	case c.TLSCA != "" && c.TLSCert != "":
		return "request"
	default:
		return "none"
	}
}

// validateSecurity finds what is wrong with what protects the doors.
func (c *Config) validateSecurity() (errs []error) {
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if (c.TLSCert == "") != (c.TLSKey == "") {
		bad("tls-cert, tls-key: one is given without the other")
	}
	switch c.TLSClientAuth {
	case "", "none":
	case "request", "require":
		if c.TLSCA == "" || c.TLSCert == "" {
			bad("tls-client-auth: %s needs tls-cert, tls-key and tls-ca", c.TLSClientAuth)
		}
	default:
		bad("tls-client-auth: %q is none of none, request, require", c.TLSClientAuth)
	}
	if c.OIDCIssuer != "" {
		if err := (&auth.OIDCConfig{Issuer: c.OIDCIssuer, Audience: c.OIDCAudience}).Check(); err != nil {
			errs = append(errs, err)
		}
	}
	if c.ClientRate < 0 || c.ClientWatches < 0 {
		bad("client-rate, client-watches: negative; 0 means no limit")
	}
	for _, pair := range [...]struct{ userKey, user, fileKey, file string }{
		{"mqtt-user", c.MQTTUser, "mqtt-password-file", c.MQTTPasswordFile},
		{"kafka-sasl-user", c.KafkaSASLUser, "kafka-sasl-password-file", c.KafkaSASLPasswordFile},
		{"questdb-user", c.QuestDBUser, "questdb-password-file", c.QuestDBPasswordFile},
	} {
		if pair.file != "" && pair.user == "" {
			bad("%s: needs %s", pair.fileKey, pair.userKey)
		}
	}
	switch strings.ToLower(c.KafkaSASLMechanism) {
	case "":
		if c.KafkaSASLUser != "" {
			bad("kafka-sasl-user: needs kafka-sasl-mechanism: plain, scram-sha-256 or scram-sha-512")
		}
	case "plain", "scram-sha-256", "scram-sha-512":
		if c.KafkaSASLUser == "" || c.KafkaSASLPasswordFile == "" {
			bad("kafka-sasl-mechanism: needs kafka-sasl-user and kafka-sasl-password-file")
		}
	default:
		bad("kafka-sasl-mechanism: %q is none of plain, scram-sha-256, scram-sha-512", c.KafkaSASLMechanism)
	}
	for _, s := range [...]struct{ key, file string }{
		{"tls-cert", c.TLSCert},
		{"tls-key", c.TLSKey},
		{"tls-ca", c.TLSCA},
		{"auth-tokens", c.AuthTokens},
		{"mqtt-users", c.MQTTUsers},
		{"mqtt-password-file", c.MQTTPasswordFile},
		{"kafka-sasl-password-file", c.KafkaSASLPasswordFile},
		{"questdb-password-file", c.QuestDBPasswordFile},
	} {
		if s.file == "" {
			continue
		}
		if _, err := os.Stat(s.file); err != nil {
			bad("%s: %w", s.key, err)
		}
	}
	errs = append(errs, c.checkPlainSecrets()...)
	listens := c.listens()
	for _, key := range slices.Sorted(maps.Keys(listens)) {
		if err := c.checkListen(key, listens[key]); err != nil {
			errs = append(errs, err)
		}
	}
	return errs
}

// checkPlainSecrets refuses to send passwords where others can read them.
func (c *Config) checkPlainSecrets() (errs []error) {
	if c.Insecure {
		return nil
	}
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if u, err := url.Parse(c.QuestDB); err == nil && c.QuestDBPasswordFile != "" && u.Scheme == "http" && !loopback(u.Hostname()) {
		bad("questdb: the password would go in plain text to %s; give https://, or insecure", u.Host)
	}
	if c.MQTTPasswordFile != "" {
		for _, raw := range c.MQTT {
			if u, err := url.Parse(raw); err == nil && (u.Scheme == "mqtt" || u.Scheme == "tcp") && !loopback(u.Hostname()) {
				bad("mqtt: the password would go in plain text to %s; give mqtts://, or insecure", u.Host)
			}
		}
	}
	if strings.EqualFold(c.KafkaSASLMechanism, "plain") && !c.KafkaTLS {
		for _, broker := range c.Kafka {
			if host, _, err := net.SplitHostPort(broker); err != nil || !loopback(host) {
				bad("kafka: the password would go in plain text to %s; give kafka-tls, or scram, or insecure", broker)
				break
			}
		}
	}
	return errs
}

// checkListen refuses an address beyond loopback unless its door is locked or the user insists.
func (c *Config) checkListen(key, addr string) error {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return fmt.Errorf("%s: %q is not HOST:PORT", key, addr)
	}
	if c.Insecure || loopback(host) {
		return nil
	}
	var missing []string
	need := func(ok bool, what string) {
		if !ok {
			missing = append(missing, what)
		}
	}
	need(c.TLSCert != "", "tls-cert and tls-key")
	switch key {
	case "grpc-addr", "http-addr":
		need(c.authenticates(), "auth-tokens or oidc-issuer")
	case "mqtt-addr":
		need(c.devicesAuthenticate(), "mqtt-users or tls-ca")
		need(!c.MQTTAnonymous, "mqtt-anonymous: false")
	case "kafka-addr": // the log knows people by their certificates alone
		need(c.TLSCA != "", "tls-ca")
		need(c.AuthTokens != "", "auth-tokens")
	case "node-addr":
		need(c.TLSCA != "", "tls-ca")
	}
	if len(missing) == 0 {
		return nil
	}
	return fmt.Errorf("%s: %s is reachable from other machines, which needs TLS and authentication: give %s; or listen on 127.0.0.1, or give insecure",
		key, addr, strings.Join(missing, ", "))
}

func loopback(host string) bool {
	if host == "localhost" {
		return true
	}
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}
