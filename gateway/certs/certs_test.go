package certs_test

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"os"
	"testing"
	"time"

	"github.com/doppel-iot/doppel/gateway/certs"
	"github.com/doppel-iot/doppel/gateway/certs/certstest"
)

// meet connects a client to a server, and gives what each thinks of it, and the serial that the client saw.
func meet(t *testing.T, server, client *tls.Config) (serial string, ofServer, ofClient error) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	b, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	a, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	s := tls.Server(a, server)
	done := make(chan error, 1)
	go func() {
		err := s.Handshake()
		if err == nil {
			_, err = s.Write([]byte{1})
		}
		_ = a.Close()
		done <- err
	}()
	client = client.Clone()
	client.ServerName = "localhost"
	c := tls.Client(b, client)
	ofClient = c.Handshake()
	if ofClient == nil { // TLS 1.3: what the server thinks comes with the first byte
		_, ofClient = c.Read(make([]byte, 1))
		serial = c.ConnectionState().PeerCertificates[0].SerialNumber.String()
	}
	_ = b.Close()
	return serial, <-done, ofClient
}

func open(t *testing.T, f certs.Files) *certs.Store {
	t.Helper()
	s, err := certs.Open(f)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestWhoIsTrusted(t *testing.T) {
	ours, theirs := certstest.New(t), certstest.New(t)
	node := open(t, ours.Node(t))
	stranger := ours.Client(t, "x")
	stranger.Cert, stranger.Key = "", ""
	for _, tc := range []struct {
		name   string
		want   tls.ClientAuthType
		check  func(tls.ConnectionState) error
		client certs.Files
		ok     bool
	}{
		{"a client of ours", tls.RequireAndVerifyClientCert, nil, ours.Client(t, "a"), true},
		{"no certificate where none is asked for", tls.NoClientCert, nil, stranger, true},
		{"no certificate where it may be shown", tls.VerifyClientCertIfGiven, nil, stranger, true},
		{"no certificate where it must be shown", tls.RequireAndVerifyClientCert, nil, stranger, false},
		{"an expired one", tls.VerifyClientCertIfGiven, nil, ours.Expired(t, "a"), false},
		{"a client of theirs", tls.VerifyClientCertIfGiven, nil, certs.Files{Cert: theirs.Client(t, "a").Cert, CA: ours.File}, false},
		{"a node among nodes", tls.RequireAndVerifyClientCert, certs.NodeOnly, ours.Node(t), true},
		{"a device among nodes", tls.RequireAndVerifyClientCert, certs.NodeOnly, ours.Client(t, "pump-1"), false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if tc.client.Cert != "" && tc.client.Key == "" {
				tc.client = theirs.Client(t, "a")
				tc.client.CA = ours.File
			}
			_, ofServer, ofClient := meet(t, node.Server(tc.want, tc.check), open(t, tc.client).Client())
			if ok := ofServer == nil && ofClient == nil; ok != tc.ok {
				t.Errorf("server: %v, client: %v; want accepted %v", ofServer, ofClient, tc.ok)
			}
		})
	}
	if _, _, err := meet(t, node.Server(tls.NoClientCert, nil), open(t, certs.Files{CA: theirs.File}).Client()); err == nil {
		t.Error("a client trusts a node that its authorities did not vouch for")
	}
}

// TestRenewal: a new certificate counts without anybody being told, and a broken one does not.
func TestRenewal(t *testing.T) {
	ca := certstest.New(t)
	f := ca.Node(t)
	s := open(t, f)
	server, client := s.Server(tls.NoClientCert, nil), open(t, certs.Files{CA: ca.File}).Client()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx, 5*time.Millisecond, slog.New(slog.DiscardHandler)) }()
	defer func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()
	serial := func() string {
		n, ofServer, ofClient := meet(t, server, client)
		if err := errors.Join(ofServer, ofClient); err != nil {
			t.Fatal(err)
		}
		return n
	}
	first := serial()
	if err := os.WriteFile(f.Cert, []byte("half of it"), 0o600); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(50 * time.Millisecond); time.Now().Before(end); {
		if got := serial(); got != first {
			t.Fatalf("got certificate %s while its file is broken, want %s", got, first)
		}
	}
	ca.Renew(t, f)
	for end := time.Now().Add(10 * time.Second); serial() == first; {
		if time.Now().After(end) {
			t.Fatal("the new certificate is not shown")
		}
	}
}

func TestOpenRefuses(t *testing.T) {
	ca := certstest.New(t)
	f := ca.Node(t)
	for name, files := range map[string]certs.Files{
		"certificate alone": {Cert: f.Cert}, "key alone": {Key: f.Key}, "no file": {CA: "nowhere"},
		"another's key": {Cert: f.Cert, Key: ca.Node(t).Key}, "no certificate": {CA: f.Key},
	} {
		if _, err := certs.Open(files); err == nil {
			t.Errorf("%s: got no error", name)
		}
	}
}
