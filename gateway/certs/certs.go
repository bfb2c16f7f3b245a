// Package certs holds the certificate of a node or a client and the authorities it trusts, and reads
// them again when their files change: a certificate is renewed without a restart.
//
// It decides nothing about who may do what; package auth does. A Store is safe for concurrent use.
package certs

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync/atomic"
	"time"

	"github.com/doppel-iot/doppel/gateway/files"
)

// Files are PEM files. Cert may be followed by its chain. Without Cert and Key there is no certificate,
// without CA the authorities of the system count.
type Files struct {
	Cert, Key, CA string
}

// Store is what stood in the files when they were last read.
type Store struct {
	files Files
	held  atomic.Pointer[material]
}

type material struct {
	cert  *tls.Certificate // nil: none
	roots *x509.CertPool   // nil: those of the system
}

// Open reads the files.
func Open(f Files) (*Store, error) {
	s := &Store{files: f}
	if err := s.read(); err != nil {
		return nil, err
	}
	return s, nil
}

// Run reads the files again when they change, until ctx ends. every 0: the default.
func (s *Store) Run(ctx context.Context, every time.Duration, log *slog.Logger) error {
	paths := slices.DeleteFunc([]string{s.files.Cert, s.files.Key, s.files.CA}, func(p string) bool { return p == "" })
	return files.Follow(ctx, every, log, "certificates", s.read, paths...)
}

func (s *Store) read() error {
	m := &material{}
	if (s.files.Cert == "") != (s.files.Key == "") {
		return errors.New("tls-cert and tls-key go together")
	}
	if s.files.Cert != "" {
		cert, err := tls.LoadX509KeyPair(s.files.Cert, s.files.Key)
		if err != nil {
			return fmt.Errorf("tls-cert: %w", err)
		}
		m.cert = &cert
	}
	if s.files.CA != "" {
		pem, err := files.Read(s.files.CA)
		if err != nil {
			return fmt.Errorf("tls-ca: %w", err)
		}
		m.roots = x509.NewCertPool()
		if !m.roots.AppendCertsFromPEM(pem) {
			return fmt.Errorf("tls-ca: no certificate in %s", s.files.CA)
		}
	}
	s.held.Store(m)
	return nil
}

// Server is the configuration of a door. want says whether clients must show a certificate; check,
// unless nil, has the last word on the connection of one; protocols are those to choose from, none: any.
func (s *Store) Server(want tls.ClientAuthType, check func(tls.ConnectionState) error, protocols ...string) *tls.Config {
	current := func() *tls.Config {
		m := s.held.Load()
		c := &tls.Config{
			MinVersion: tls.VersionTLS12, ClientAuth: want, ClientCAs: m.roots, NextProtos: protocols, VerifyConnection: check,
		}
		if m.cert != nil {
			c.Certificates = []tls.Certificate{*m.cert}
		}
		if c.ClientCAs == nil {
			c.ClientCAs = x509.NewCertPool() // nobody: nil would be whom the system trusts
		}
		return c
	}
	c := current()
	c.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) { return current(), nil }
	return c
}

// Client is the configuration of one connection to somebody else, as the files are now.
func (s *Store) Client() *tls.Config {
	m := s.held.Load()
	c := &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: m.roots}
	if m.cert != nil {
		c.Certificates = []tls.Certificate{*m.cert}
	}
	return c
}

// Pair has own certificate and authorities of a node among nodes; see [NodeOnly].
func (s *Store) Pair() *tls.Config {
	c := s.Client()
	c.ClientCAs = c.RootCAs
	c.VerifyConnection = NodeOnly
	return c
}

// ErrNoNode says that the certificate is one of a client or a device, not of a node.
var ErrNoNode = errors.New("the certificate is not that of a node: its extended key usage lacks serverAuth")

// NodeOnly refuses whose certificate is not meant for a server. Devices and people have certificates of
// the same authorities, for clientAuth alone; they are not to speak as nodes.
func NodeOnly(cs tls.ConnectionState) error {
	if len(cs.PeerCertificates) == 0 || !slices.Contains(cs.PeerCertificates[0].ExtKeyUsage, x509.ExtKeyUsageServerAuth) {
		return ErrNoNode
	}
	return nil
}
