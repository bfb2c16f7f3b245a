package auth

import (
	"crypto/tls"
	"crypto/x509"
)

// trusting is the configuration of connections to somebody whom these authorities vouch for.
func trusting(roots *x509.CertPool) *tls.Config {
	return &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots}
}
