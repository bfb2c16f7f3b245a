package remote

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
)

const (
	// streamWindow bounds what a node has received of one stream and not yet read. It also bounds
	// what is lost of it when the node dies.
	streamWindow = 1 << 20
	connWindow   = 8 * streamWindow
	// clientPing is how often gRPC lets a client ping; the peers' own pings find a stall sooner.
	clientPing = 10 * time.Second
	serverPing = time.Second
)

// ServerOptions are those of the gRPC server that Register is for. Other services may be on it.
func (r *Remote) ServerOptions() []grpc.ServerOption {
	creds := insecure.NewCredentials()
	if r.cfg.TLS != nil {
		creds = credentials.NewTLS(renewed(r.cfg.TLS))
	}
	return []grpc.ServerOption{
		grpc.Creds(creds),
		grpc.ForceServerCodecV2(newCodec()),
		grpc.MaxRecvMsgSize(r.maxReceive()),
		grpc.StaticStreamWindowSize(streamWindow),
		grpc.StaticConnWindowSize(connWindow),
		grpc.ConnectionTimeout(r.cfg.DialTimeout),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: serverPing, Timeout: r.cfg.StallAfter}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: clientPing / 2, PermitWithoutStream: true}),
		grpc.WaitForHandlers(true),
	}
}

func (r *Remote) dialOptions(p *peer) []grpc.DialOption {
	creds := insecure.NewCredentials()
	if r.cfg.TLS != nil {
		creds = renewing{TransportCredentials: credentials.NewTLS(clientTLS(r.cfg.TLS())), current: r.cfg.TLS}
	}
	return []grpc.DialOption{
		grpc.WithTransportCredentials(creds),
		grpc.WithContextDialer(p.dial),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: backoffMin, Multiplier: 1.6, Jitter: 0.3, MaxDelay: backoffMax},
			MinConnectTimeout: r.cfg.DialTimeout,
		}),
		// With it comes TCP_USER_TIMEOUT: the kernel ends a connection on which nothing moves.
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: clientPing, Timeout: r.cfg.StallAfter, PermitWithoutStream: true}),
		grpc.WithStaticStreamWindowSize(streamWindow),
		grpc.WithStaticConnWindowSize(connWindow),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(r.maxReceive())),
		grpc.WithDisableServiceConfig(),
		grpc.WithIdleTimeout(0),
	}
}

// maxReceive bounds one gRPC message: a batch with one message of the largest size, or an answer to
// a call of another service.
func (r *Remote) maxReceive() int { return max(2*r.cfg.MaxMessage, 16<<20) }

// dial connects for gRPC and remembers the connection, for cut.
func (p *peer) dial(ctx context.Context, address string) (net.Conn, error) {
	d := net.Dialer{Timeout: p.r.cfg.DialTimeout}
	c, err := d.DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	p.socket.Store(&c)
	return c, nil
}

// cut ends the connection, for a peer that stands still: everybody who waits for an answer over it
// learns at once, and the next attempt does not begin on a dead connection.
func (p *peer) cut() {
	if c := p.socket.Load(); c != nil {
		_ = (*c).Close() // gRPC reports what becomes of it
	}
}

// endOf translates how reading a stream ended: that the other node has nothing more to tell is well.
func endOf(err error) error {
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

// renewing are credentials that look at the certificates anew for each connection.
type renewing struct {
	credentials.TransportCredentials
	current func() *tls.Config
}

// ClientHandshake implements credentials.TransportCredentials.
func (c renewing) ClientHandshake(ctx context.Context, authority string, conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return credentials.NewTLS(clientTLS(c.current())).ClientHandshake(ctx, authority, conn)
}

// Clone implements credentials.TransportCredentials.
func (c renewing) Clone() credentials.TransportCredentials {
	return renewing{TransportCredentials: c.TransportCredentials.Clone(), current: c.current}
}

// renewed is the same for the connections of others.
func renewed(current func() *tls.Config) *tls.Config {
	c := serverTLS(current())
	c.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) { return serverTLS(current()), nil }
	return c
}

// serverTLS demands a certificate of the cluster from everybody who connects.
func serverTLS(c *tls.Config) *tls.Config {
	c = clientTLS(c)
	c.ClientAuth = tls.RequireAndVerifyClientCert
	if c.ClientCAs == nil {
		c.ClientCAs = c.RootCAs
	}
	if c.ClientCAs == nil {
		c.ClientCAs = x509.NewCertPool() // nobody: nil would be whom the system trusts
	}
	return c
}

func clientTLS(c *tls.Config) *tls.Config {
	c = c.Clone()
	c.MinVersion = max(c.MinVersion, tls.VersionTLS13) // both ends are ours
	c.NextProtos = []string{"h2"}
	return c
}
