package auth

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"log/slog"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/doppel-iot/doppel/gateway/files"
)

// maxHeader bounds an Authorization header.
const maxHeader = 16 << 10

// GuardConfig is what a Guard goes by. Without Tokens and OIDC everybody is the admin "local".
type GuardConfig struct {
	// Tokens is a tokens file; empty: none.
	Tokens string
	OIDC   *OIDC // nil: none
	// Rate is how many calls a second a client may make, Watches how many it may watch with at a time;
	// 0: as many as it likes. A client is an identity, or, where nobody asks who calls, an address.
	Rate    float64
	Watches int
	Log     *slog.Logger
}

// Guard says who calls, and whether they may.
type Guard struct {
	cfg    GuardConfig
	tokens atomic.Pointer[Tokens]
	limits *limits

	mu      sync.Mutex
	watches map[*watch]struct{}
}

// watch is a stream that goes on for as long as its identity counts.
type watch struct {
	id   *Identity
	stop context.CancelCauseFunc
}

// NewGuard reads the tokens file.
func NewGuard(cfg GuardConfig) (*Guard, error) {
	g := &Guard{cfg: cfg, limits: newLimits(cfg.Rate, cfg.Watches), watches: make(map[*watch]struct{})}
	g.tokens.Store(&Tokens{})
	if cfg.Tokens != "" {
		if err := g.read(); err != nil {
			return nil, err
		}
	}
	return g, nil
}

// Run reads the tokens file again when it changes, until ctx ends. every 0: the default.
func (g *Guard) Run(ctx context.Context, every time.Duration) error {
	if g.cfg.Tokens == "" {
		<-ctx.Done()
		return nil
	}
	return files.Follow(ctx, every, g.cfg.Log, "auth-tokens", g.read, g.cfg.Tokens)
}

func (g *Guard) read() error {
	text, err := files.Read(g.cfg.Tokens)
	if err != nil {
		return err
	}
	t, err := ParseTokens(text)
	if err != nil {
		return err
	}
	g.tokens.Store(t)
	g.revoke(t)
	return nil
}

// revoke ends the watches of identities that do not count any more, or for something else now.
func (g *Guard) revoke(t *Tokens) {
	valid := make(map[string]struct{}, len(t.tokens))
	for _, id := range t.tokens {
		valid[id.key] = struct{}{}
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	for w := range g.watches {
		ok := true
		switch {
		case w.id.By == "token":
			_, ok = valid[w.id.key]
		case w.id.certificate != nil:
			now := t.certificate(w.id.certificate)
			ok = now != nil && now.key == w.id.key
		}
		if !ok {
			w.stop(refuse(codes.Unauthenticated, ReasonRevoked, "the %s was withdrawn", w.id.By))
		}
	}
}

// Asks says whether anybody is asked who they are.
func (g *Guard) Asks() bool { return g.cfg.Tokens != "" || g.cfg.OIDC != nil }

// Credentials are what a call brings.
type Credentials struct {
	Authorization string              // the header
	Certificates  []*x509.Certificate // verified, the client's own first
	Address       string              // HOST:PORT it came from
}

// CredentialsOf are those of a gRPC call.
func CredentialsOf(ctx context.Context) Credentials {
	var c Credentials
	if p, ok := peer.FromContext(ctx); ok {
		if p.Addr != nil {
			c.Address = p.Addr.String()
		}
		if info, ok := p.AuthInfo.(credentials.TLSInfo); ok {
			c.Certificates = Verified(&info.State)
		}
	}
	switch values := metadata.ValueFromIncomingContext(ctx, "authorization"); len(values) {
	case 0:
	case 1:
		c.Authorization = values[0]
	default:
		c.Authorization = "several" // which is none: proxies disagree about which one counts
	}
	return c
}

// Verified are the certificates of a connection's other end, none if they are not verified.
func Verified(s *tls.ConnectionState) []*x509.Certificate {
	if s == nil || len(s.VerifiedChains) == 0 {
		return nil
	}
	return s.PeerCertificates
}

// Enter says whether a call of method may be made, and returns the context for it, with its identity; also
// where a known one may not.
func (g *Guard) Enter(ctx context.Context, method string, c Credentials) (context.Context, error) {
	r, ok := RuleOf(method)
	if !ok {
		return ctx, refuse(codes.PermissionDenied, ReasonUnknownCall, "nobody may call %s", shorten(method))
	}
	now := time.Now()
	host := hostOf(c.Address)
	if r.Open {
		return NewContext(ctx, &anybody), g.limits.call(host, now)
	}
	id, err := g.Identify(ctx, c)
	if err != nil {
		return ctx, err
	}
	if err := g.limits.call(clientOf(id, host), now); err != nil {
		return ctx, err
	}
	return NewContext(ctx, id), authorize(id, method, r)
}

// clientOf is the client whose calls are counted together.
func clientOf(id *Identity, host string) string {
	if id.By == "local" {
		return host
	}
	return id.By + " " + id.Name
}

// Identify says who shows these credentials.
func (g *Guard) Identify(ctx context.Context, c Credentials) (*Identity, error) {
	if !g.Asks() {
		return &local, nil
	}
	if c.Authorization == "" {
		if len(c.Certificates) == 0 {
			return nil, refuse(codes.Unauthenticated, ReasonMissing, "no credentials: send the header authorization: Bearer TOKEN, or a client certificate")
		}
		if id := g.tokens.Load().certificate(c.Certificates[0]); id != nil {
			return id, nil
		}
		return nil, refuse(codes.Unauthenticated, ReasonInvalid, "the client certificate of %q is that of nobody here", shorten(c.Certificates[0].Subject.CommonName))
	}
	token, ok := bearer(c.Authorization)
	if !ok {
		return nil, refuse(codes.Unauthenticated, ReasonInvalid, "the authorization header is not Bearer TOKEN")
	}
	if id := g.tokens.Load().token(token); id != nil {
		return id, nil
	}
	if g.cfg.OIDC != nil && looksLike(token) {
		return g.signed(ctx, token, hostOf(c.Address))
	}
	return nil, refuse(codes.Unauthenticated, ReasonInvalid, "nobody here has this token")
}

// signed is the identity of a token that somebody has signed. To look at a signature costs more than
// anything else that a stranger can make us do, so an address may be wrong only so often.
func (g *Guard) signed(ctx context.Context, token, host string) (*Identity, error) {
	now := time.Now()
	if id := g.cfg.OIDC.known(token); id != nil {
		return id, nil
	}
	if err := g.limits.strange(host, now); err != nil {
		return nil, err
	}
	id, err := g.cfg.OIDC.Identity(ctx, token)
	if status.Code(err) == codes.Unauthenticated {
		g.limits.failed(host, now)
	}
	return id, err
}

// ErrNoAdmin refuses a connection to the log itself.
var ErrNoAdmin = errors.New("the certificate is not that of an admin of the whole fleet, to whom alone the log is open")

// AdminOnly refuses the connection of who is not an admin of the whole fleet, by certificate: the log has
// everything of everybody in it.
func (g *Guard) AdminOnly(cs tls.ConnectionState) error {
	certs := Verified(&cs)
	if len(certs) == 0 {
		return ErrNoAdmin
	}
	if id := g.tokens.Load().certificate(certs[0]); id == nil || id.Role < Admin || id.Scoped() {
		return ErrNoAdmin
	}
	return nil
}

// bearer is the token of an Authorization header.
func bearer(header string) (token string, ok bool) {
	if len(header) > maxHeader {
		return "", false
	}
	scheme, token, found := strings.Cut(strings.TrimSpace(header), " ")
	token = strings.TrimSpace(token)
	return token, found && strings.EqualFold(scheme, "bearer") && token != "" && !strings.ContainsAny(token, " \t\r\n,")
}

func hostOf(address string) string {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return address
	}
	return host
}

// Watch counts a stream of the identity of ctx until done is called. The context it returns ends when the
// identity ceases to count; context.Cause then says so.
func (g *Guard) Watch(ctx context.Context, c Credentials) (_ context.Context, done func(), err error) {
	id := FromContext(ctx)
	left, err := g.limits.watch(clientOf(id, hostOf(c.Address)), time.Now())
	if err != nil {
		return nil, nil, err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	w := &watch{id: id, stop: cancel}
	g.mu.Lock()
	g.watches[w] = struct{}{}
	g.mu.Unlock()
	var timer *time.Timer
	if !id.Expires.IsZero() {
		timer = time.AfterFunc(time.Until(id.Expires), func() {
			cancel(refuse(codes.Unauthenticated, ReasonExpired, "the token has expired"))
		})
	}
	return ctx, func() {
		if timer != nil {
			timer.Stop()
		}
		g.mu.Lock()
		delete(g.watches, w)
		g.mu.Unlock()
		left()
		cancel(nil)
	}, nil
}
