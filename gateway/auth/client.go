package auth

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/doppel-iot/doppel/gateway/certs"
	"github.com/doppel-iot/doppel/gateway/files"
)

// Client is how a program comes to a node and shows who it is.
type Client struct {
	TLS       bool        // implied by any of Files
	Files     certs.Files // its certificate, and whom it trusts
	Token     string
	TokenFile string // goes before Token
}

// Encrypted says whether the connection is.
func (c *Client) Encrypted() bool { return c.TLS || c.Files != (certs.Files{}) }

// Secret is the token, empty: none.
func (c *Client) Secret() (string, error) {
	if c.TokenFile == "" {
		return c.Token, nil
	}
	token, err := files.Secret(c.TokenFile)
	if err != nil {
		return "", fmt.Errorf("token-file: %w", err)
	}
	return token, nil
}

// Config is the TLS configuration, nil: none.
func (c *Client) Config() (*tls.Config, error) {
	if !c.Encrypted() {
		return nil, nil //nolint:nilnil // no configuration is a valid one
	}
	s, err := certs.Open(c.Files)
	if err != nil {
		return nil, err
	}
	return s.Client(), nil
}

// errPlain refuses to send a token where others can read it.
var errPlain = errors.New("a token would go in plain text to another machine: give --tls, or --tls-ca")

// DialOptions for the nodes of addr, HOST:PORT with commas in between.
func (c *Client) DialOptions(addr string) ([]grpc.DialOption, error) {
	conf, err := c.Config()
	if err != nil {
		return nil, err
	}
	creds := insecure.NewCredentials()
	if conf != nil {
		creds = credentials.NewTLS(conf)
	}
	opts := []grpc.DialOption{grpc.WithTransportCredentials(creds)}
	token, err := c.Secret()
	if err != nil || token == "" {
		return opts, err
	}
	if conf == nil && !allLoopback(addr) {
		return nil, errPlain
	}
	return append(opts, grpc.WithPerRPCCredentials(bearerToken(token))), nil
}

func allLoopback(addr string) bool {
	for one := range strings.SplitSeq(addr, ",") {
		host, _, err := net.SplitHostPort(strings.TrimSpace(one))
		if err != nil || !loopback(host) {
			return false
		}
	}
	return true
}

// bearerToken implements credentials.PerRPCCredentials.
type bearerToken string

// GetRequestMetadata implements credentials.PerRPCCredentials.
func (t bearerToken) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	return map[string]string{"authorization": "Bearer " + string(t)}, nil
}

// RequireTransportSecurity implements credentials.PerRPCCredentials; DialOptions sees to it.
func (bearerToken) RequireTransportSecurity() bool { return false }
