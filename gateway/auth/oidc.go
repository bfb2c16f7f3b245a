package auth

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"google.golang.org/grpc/codes"
)

const (
	// clockSkew is how far the clocks of an issuer and this node may be apart.
	clockSkew = 30 * time.Second
	// issuerTimeout bounds one question to the issuer, issuerPause is between two of which the first failed.
	issuerTimeout = 5 * time.Second
	issuerPause   = 5 * time.Second
	// verifiedFor is how long a verified token is believed without looking at its signature again, and
	// verifiedMost how many are.
	verifiedFor  = time.Minute
	verifiedMost = 10_000
)

// OIDCConfig says whose tokens are taken. Issuer and Audience must be set.
type OIDCConfig struct {
	// Issuer is the URL of the OpenID provider, https but on loopback.
	Issuer string
	// Audience must be among those of a token.
	Audience string
	// RolesClaim holds the name of a role or a list of names, of which the highest counts; what is no role is
	// passed over, and a role may be written doppel:ROLE, doppel-ROLE or doppel.ROLE. Points lead into
	// objects (realm_access.roles). Default: roles.
	RolesClaim string
	// TagsClaim holds an object of strings, the tags that the identity is bound to. Default: doppel_tags.
	TagsClaim string
	// Roots are trusted besides those of the system; nil: none.
	Roots *x509.CertPool
	// Now is the clock. Default: time.Now.
	Now func() time.Time
}

// Check says what is wrong with c.
func (c *OIDCConfig) Check() error {
	u, err := url.Parse(c.Issuer)
	switch {
	case err != nil || u.Host == "":
		return fmt.Errorf("oidc-issuer: %q is not a URL", shorten(c.Issuer))
	case u.Scheme != "https" && (u.Scheme != "http" || !loopback(u.Hostname())):
		return fmt.Errorf("oidc-issuer: %q is not https: whoever can change what it says decides who is admin", shorten(c.Issuer))
	case c.Audience == "":
		return errors.New("oidc-audience: is missing: without it a token for any other service would do")
	}
	return nil
}

func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// OIDC verifies tokens of one OpenID provider. It asks the provider for its keys when it first needs
// them, keeps them, and asks again for one that it does not know.
type OIDC struct {
	cfg    OIDCConfig
	client *http.Client

	finding  sync.Mutex // one at a time asks the issuer
	mu       sync.Mutex
	verifier *oidc.IDTokenVerifier // nil: the issuer has not answered yet
	tried    time.Time
	failure  error
	verified map[[sha256.Size]byte]verified
}

type verified struct {
	id    *Identity
	until time.Time
}

// NewOIDC returns a verifier. It asks nobody yet.
func NewOIDC(cfg OIDCConfig) (*OIDC, error) {
	if err := cfg.Check(); err != nil {
		return nil, err
	}
	if cfg.RolesClaim == "" {
		cfg.RolesClaim = "roles"
	}
	if cfg.TagsClaim == "" {
		cfg.TagsClaim = "doppel_tags"
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	transport := &http.Transport{
		Proxy: http.ProxyFromEnvironment, ForceAttemptHTTP2: true, IdleConnTimeout: time.Minute, TLSHandshakeTimeout: issuerTimeout,
	}
	if cfg.Roots != nil {
		transport.TLSClientConfig = trusting(cfg.Roots)
	}
	return &OIDC{
		cfg: cfg, client: &http.Client{Transport: transport, Timeout: issuerTimeout}, verified: make(map[[sha256.Size]byte]verified),
	}, nil
}

// looksLike says whether a token could be a JWT.
func looksLike(token string) bool { return strings.Count(token, ".") == 2 }

// Identity verifies a token.
func (o *OIDC) Identity(ctx context.Context, token string) (*Identity, error) {
	if id := o.known(token); id != nil {
		return id, nil
	}
	hash, now := sha256.Sum256([]byte(token)), o.cfg.Now()
	verifier, err := o.find(ctx)
	if err != nil {
		return nil, refuseFor(issuerPause, codes.Unavailable, ReasonIssuerAway, "the issuer of tokens does not answer: %v", err)
	}
	t, err := verifier.Verify(oidc.ClientContext(ctx, o.client), token)
	if expired := (*oidc.TokenExpiredError)(nil); errors.As(err, &expired) {
		return nil, refuse(codes.Unauthenticated, ReasonExpired, "the token has expired at %s", expired.Expiry.UTC().Format(time.RFC3339))
	}
	if err != nil {
		return nil, refuse(codes.Unauthenticated, ReasonInvalid, "the token is not taken: %s", shorten(strings.TrimPrefix(err.Error(), "oidc: ")))
	}
	var claims map[string]any
	if err := t.Claims(&claims); err != nil {
		return nil, refuse(codes.Unauthenticated, ReasonInvalid, "the claims of the token cannot be read")
	}
	id, err := o.identity(t, claims)
	if err != nil {
		return nil, err
	}
	id.key = "oidc " + hex.EncodeToString(hash[:])
	o.remember(hash, id, now)
	return id, nil
}

// known is the identity of a token verified a moment ago, nil: of none.
func (o *OIDC) known(token string) *Identity {
	hash := sha256.Sum256([]byte(token))
	o.mu.Lock()
	defer o.mu.Unlock()
	if v, ok := o.verified[hash]; ok && o.cfg.Now().Before(v.until) {
		return v.id
	}
	return nil
}

func (o *OIDC) remember(hash [sha256.Size]byte, id *Identity, now time.Time) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.verified) >= verifiedMost {
		maps.DeleteFunc(o.verified, func(_ [sha256.Size]byte, v verified) bool { return !now.Before(v.until) })
	}
	if len(o.verified) >= verifiedMost {
		clear(o.verified)
	}
	until := now.Add(verifiedFor)
	if id.Expires.Before(until) {
		until = id.Expires
	}
	o.verified[hash] = verified{id: id, until: until}
}

// find asks the issuer where its keys are, once.
func (o *OIDC) find(ctx context.Context) (*oidc.IDTokenVerifier, error) {
	if v, err := o.found(); v != nil || err != nil {
		return v, err
	}
	o.finding.Lock()
	defer o.finding.Unlock()
	if v, err := o.found(); v != nil || err != nil {
		return v, err
	}
	// Its keys are asked for later with this context, which must not end with the call.
	p, err := oidc.NewProvider(oidc.ClientContext(context.WithoutCancel(ctx), o.client), o.cfg.Issuer)
	o.mu.Lock()
	defer o.mu.Unlock()
	o.tried, o.failure = time.Now(), err
	if err != nil {
		return nil, err
	}
	o.verifier = p.Verifier(&oidc.Config{ClientID: o.cfg.Audience, Now: func() time.Time { return o.cfg.Now().Add(-clockSkew) }})
	return o.verifier, nil
}

// found is the verifier if there is one, or why there is none if that was found out just now.
func (o *OIDC) found() (*oidc.IDTokenVerifier, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.verifier == nil && o.failure != nil && time.Since(o.tried) < issuerPause {
		return nil, o.failure
	}
	return o.verifier, nil
}

func (o *OIDC) identity(t *oidc.IDToken, claims map[string]any) (*Identity, error) {
	id := &Identity{Name: t.Subject, By: "oidc", Expires: t.Expiry.Add(clockSkew)}
	for _, claim := range []string{"preferred_username", "email"} {
		if name, ok := claims[claim].(string); ok && name != "" {
			id.Name = shorten(name)
			break
		}
	}
	if id.Name == "" {
		return nil, refuse(codes.Unauthenticated, ReasonInvalid, "the token names nobody")
	}
	for _, name := range texts(claimAt(claims, o.cfg.RolesClaim)) {
		for _, prefix := range []string{"doppel:", "doppel-", "doppel."} {
			name = strings.TrimPrefix(name, prefix)
		}
		if role, err := ParseRole(name); err == nil {
			id.Role = max(id.Role, role)
		}
	}
	tags := claimAt(claims, o.cfg.TagsClaim)
	if tags == nil {
		return id, nil
	}
	object, ok := tags.(map[string]any)
	if !ok {
		return nil, refuse(codes.Unauthenticated, ReasonInvalid, "claim %s of the token is not an object", o.cfg.TagsClaim)
	}
	id.Tags = make(map[string]string, len(object))
	for key, value := range object {
		text, ok := value.(string)
		if !ok || key == "" {
			return nil, refuse(codes.Unauthenticated, ReasonInvalid, "claim %s of the token has something else than strings", o.cfg.TagsClaim)
		}
		id.Tags[key] = text
	}
	return id, nil
}

// claimAt is the claim of a path with points; one whose own name has points goes first.
func claimAt(claims map[string]any, path string) any {
	if v, ok := claims[path]; ok {
		return v
	}
	first, rest, more := strings.Cut(path, ".")
	inner, ok := claims[first].(map[string]any)
	if !more || !ok {
		return nil
	}
	return claimAt(inner, rest)
}

// texts are the strings of a claim that is one or has several, or has them with spaces between.
func texts(claim any) []string {
	switch v := claim.(type) {
	case string:
		return strings.Fields(v)
	case []any:
		var all []string
		for _, one := range v {
			if s, ok := one.(string); ok {
				all = append(all, s)
			}
		}
		return slices.Clip(all)
	case json.Number, nil:
	}
	return nil
}
