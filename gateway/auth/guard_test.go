package auth

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
)

func newGuard(t *testing.T, tokens string, change func(*GuardConfig)) (*Guard, string) {
	t.Helper()
	cfg := GuardConfig{Log: slog.New(slog.DiscardHandler)}
	if tokens != "" {
		cfg.Tokens = filepath.Join(t.TempDir(), "tokens.yaml")
		if err := os.WriteFile(cfg.Tokens, []byte(tokens), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if change != nil {
		change(&cfg)
	}
	g, err := NewGuard(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return g, cfg.Tokens
}

// wantRefusal checks code and reason of a refusal.
func wantRefusal(t *testing.T, err error, code codes.Code, reason string) {
	t.Helper()
	st := status.Convert(err)
	if st.Code() != code {
		t.Errorf("got %v (%s), want %v", st.Code(), st.Message(), code)
	}
	for _, d := range st.Details() {
		if info, ok := d.(*errdetails.ErrorInfo); ok && info.GetReason() == reason && info.GetDomain() == Domain {
			return
		}
	}
	if reason != "" {
		t.Errorf("no reason %s in %v", reason, st)
	}
}

const (
	getTwin  = doppelv1.TwinService_GetTwin_FullMethodName
	update   = doppelv1.TwinService_UpdateTwin_FullMethodName
	drain    = doppelv1.FleetService_DrainNode_FullMethodName
	fleet    = doppelv1.FleetService_GetStatus_FullMethodName
	twoRoles = "tokens:\n" +
		"- {name: reader, token: the-readers-token, role: reader}\n" +
		"- {name: admin, token: the-admins-token!, role: admin}\n" +
		"- {name: brno, token: the-one-of-brno!, role: admin, tags: {site: brno}}\n" +
		"certificates:\n- {name: 'ops-*', role: operator}\n"
)

func certificateOf(name string) []*x509.Certificate {
	return []*x509.Certificate{{Subject: pkix.Name{CommonName: name}}}
}

func TestEnter(t *testing.T) {
	g, _ := newGuard(t, twoRoles, nil)
	for _, tc := range []struct {
		name, method string
		c            Credentials
		code         codes.Code
		reason, who  string
	}{
		{"reader reads", getTwin, Credentials{Authorization: "Bearer the-readers-token"}, codes.OK, "", "reader"},
		{"case of the scheme", getTwin, Credentials{Authorization: "bearer the-readers-token"}, codes.OK, "", "reader"},
		{"reader writes", update, Credentials{Authorization: "Bearer the-readers-token"}, codes.PermissionDenied, ReasonRole, "reader"},
		{"admin drains", drain, Credentials{Authorization: "Bearer the-admins-token!"}, codes.OK, "", "admin"},
		{"a bound admin drains", drain, Credentials{Authorization: "Bearer the-one-of-brno!"}, codes.PermissionDenied, ReasonScope, "brno"},
		{"nobody", getTwin, Credentials{}, codes.Unauthenticated, ReasonMissing, ""},
		{"a stranger's token", getTwin, Credentials{Authorization: "Bearer x"}, codes.Unauthenticated, ReasonInvalid, ""},
		{"another scheme", getTwin, Credentials{Authorization: "Basic the-readers-token"}, codes.Unauthenticated, ReasonInvalid, ""},
		{"several headers", getTwin, Credentials{Authorization: "several"}, codes.Unauthenticated, ReasonInvalid, ""},
		{"a wrong token with a right certificate", getTwin, Credentials{Authorization: "Bearer x", Certificates: certificateOf("ops-1")}, codes.Unauthenticated, ReasonInvalid, ""},
		{"a certificate", update, Credentials{Certificates: certificateOf("ops-1")}, codes.OK, "", "ops-1"},
		{"a certificate of nobody", getTwin, Credentials{Certificates: certificateOf("pump-1")}, codes.Unauthenticated, ReasonInvalid, ""},
		{"no such method", "/doppel.v1.TwinService/Steal", Credentials{Authorization: "Bearer the-admins-token!"}, codes.PermissionDenied, ReasonUnknownCall, ""},
		{"health", "/grpc.health.v1.Health/Check", Credentials{}, codes.OK, "", ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			ctx, err := g.Enter(t.Context(), tc.method, tc.c)
			wantRefusal(t, err, tc.code, tc.reason)
			if got := Identified(ctx); got != (tc.who != "") {
				t.Errorf("identified %v, want %v", got, tc.who != "")
			}
			if tc.who != "" && Name(ctx) != tc.who {
				t.Errorf("got %s, want %s", Name(ctx), tc.who)
			}
		})
	}
}

// TestNobodyIsAsked: out of the box everybody is an admin called local.
func TestNobodyIsAsked(t *testing.T) {
	g, _ := newGuard(t, "", nil)
	ctx, err := g.Enter(t.Context(), drain, Credentials{Authorization: "Bearer whatever", Address: "127.0.0.1:1"})
	if err != nil || Name(ctx) != "local" || FromContext(ctx).Role != Admin {
		t.Errorf("got %+v, %v", FromContext(ctx), err)
	}
}

func TestLimits(t *testing.T) {
	g, _ := newGuard(t, twoRoles, func(c *GuardConfig) { c.Rate, c.Watches = 5, 2 })
	reader, admin := Credentials{Authorization: "Bearer the-readers-token"}, Credentials{Authorization: "Bearer the-admins-token!"}
	var refused error
	for range 100 {
		if _, err := g.Enter(t.Context(), getTwin, reader); err != nil {
			refused = err
		}
	}
	wantRefusal(t, refused, codes.ResourceExhausted, ReasonRate)
	if d := status.Convert(refused).Details(); len(d) != 2 {
		t.Errorf("no RetryInfo: %v", d)
	}
	ctx, err := g.Enter(t.Context(), getTwin, admin)
	if err != nil {
		t.Fatalf("another pays for it: %v", err)
	}
	var done []func()
	for range 2 {
		_, left, err := g.Watch(ctx, admin)
		if err != nil {
			t.Fatal(err)
		}
		done = append(done, left)
	}
	_, _, err = g.Watch(ctx, admin)
	wantRefusal(t, err, codes.ResourceExhausted, ReasonWatches)
	done[0]()
	done[0]() // gives back one, not two
	_, left, err := g.Watch(ctx, admin)
	if err != nil {
		t.Fatal(err)
	}
	_, _, err = g.Watch(ctx, admin)
	wantRefusal(t, err, codes.ResourceExhausted, ReasonWatches)
	left()
	done[1]()
}

// TestRevoked: who is taken out of the file is refused from then on, and so is what goes on.
func TestRevoked(t *testing.T) {
	g, file := newGuard(t, twoRoles, nil)
	life, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- g.Run(life, 5*time.Millisecond) }()
	defer func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}()
	watch := func(c Credentials) context.Context {
		ctx, err := g.Enter(t.Context(), getTwin, c)
		if err != nil {
			t.Fatal(err)
		}
		ctx, done, err := g.Watch(ctx, c)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(done)
		return ctx
	}
	reader, admin := Credentials{Authorization: "Bearer the-readers-token"}, Credentials{Authorization: "Bearer the-admins-token!"}
	readers, admins, ops := watch(reader), watch(admin), watch(Credentials{Certificates: certificateOf("ops-1")})
	if err := os.WriteFile(file, []byte("tokens:\n- {name: admin, token: the-admins-token!, role: admin}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, ctx := range []context.Context{readers, ops} {
		select {
		case <-ctx.Done():
			wantRefusal(t, context.Cause(ctx), codes.Unauthenticated, ReasonRevoked)
		case <-time.After(10 * time.Second):
			t.Fatal("goes on")
		}
	}
	if admins.Err() != nil {
		t.Error("the admin's watch has ended, too")
	}
	_, err := g.Enter(t.Context(), getTwin, reader)
	wantRefusal(t, err, codes.Unauthenticated, ReasonInvalid)
}

// issuer is an OpenID provider.
type issuer struct {
	*httptest.Server
	key   *ecdsa.PrivateKey
	asked atomic.Int32 // for keys
}

func newIssuer(t *testing.T) *issuer {
	t.Helper()
	i := &issuer{}
	mux := http.NewServeMux()
	mux.HandleFunc("/.well-known/openid-configuration", func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode(map[string]any{"issuer": i.URL, "jwks_uri": i.URL + "/keys", "id_token_signing_alg_values_supported": []string{"ES256"}})
	})
	mux.HandleFunc("/keys", func(w http.ResponseWriter, _ *http.Request) {
		i.asked.Add(1)
		_ = json.NewEncoder(w).Encode(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: &i.key.PublicKey, KeyID: "1", Algorithm: "ES256", Use: "sig"}}})
	})
	i.Server = httptest.NewServer(mux)
	t.Cleanup(i.Close)
	i.key = newKey(t)
	return i
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func sign(t *testing.T, key any, alg jose.SignatureAlgorithm, claims map[string]any) string {
	t.Helper()
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: alg, Key: jose.JSONWebKey{Key: key, KeyID: "1"}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	payload, err := json.Marshal(claims)
	if err != nil {
		t.Fatal(err)
	}
	jws, err := signer.Sign(payload)
	if err != nil {
		t.Fatal(err)
	}
	token, err := jws.CompactSerialize()
	if err != nil {
		t.Fatal(err)
	}
	return token
}

func TestOIDC(t *testing.T) {
	i := newIssuer(t)
	o, err := NewOIDC(OIDCConfig{Issuer: i.URL, Audience: "doppel", RolesClaim: "realm_access.roles"})
	if err != nil {
		t.Fatal(err)
	}
	g, _ := newGuard(t, "", func(c *GuardConfig) { c.OIDC = o })
	now := time.Now()
	base := func(change map[string]any) map[string]any {
		claims := map[string]any{
			"iss": i.URL, "aud": []string{"other", "doppel"}, "sub": "u1", "preferred_username": "jana", "exp": now.Add(time.Minute).Unix(),
			"realm_access": map[string]any{"roles": []string{"offline_access", "doppel-operator", "reader"}},
		}
		for k, v := range change {
			if v == nil {
				delete(claims, k)
			} else {
				claims[k] = v
			}
		}
		return claims
	}
	for _, tc := range []struct {
		name   string
		token  string
		method string
		code   codes.Code
		reason string
	}{
		{"an operator writes", sign(t, i.key, jose.ES256, base(nil)), update, codes.OK, ""},
		{"an operator drains", sign(t, i.key, jose.ES256, base(nil)), drain, codes.PermissionDenied, ReasonRole},
		{"without a role", sign(t, i.key, jose.ES256, base(map[string]any{"realm_access": nil})), getTwin, codes.PermissionDenied, ReasonRole},
		{"bound to tags", sign(t, i.key, jose.ES256, base(map[string]any{"doppel_tags": map[string]any{"site": "brno"}})), fleet, codes.PermissionDenied, ReasonScope},
		{"bound to something else", sign(t, i.key, jose.ES256, base(map[string]any{"doppel_tags": "brno"})), getTwin, codes.Unauthenticated, ReasonInvalid},
		{"expired", sign(t, i.key, jose.ES256, base(map[string]any{"exp": now.Add(-time.Hour).Unix()})), getTwin, codes.Unauthenticated, ReasonExpired},
		{"expired within the skew of clocks", sign(t, i.key, jose.ES256, base(map[string]any{"exp": now.Add(-10 * time.Second).Unix()})), getTwin, codes.OK, ""},
		{"not yet", sign(t, i.key, jose.ES256, base(map[string]any{"nbf": now.Add(time.Hour).Unix(), "exp": now.Add(2 * time.Hour).Unix()})), getTwin, codes.Unauthenticated, ReasonInvalid},
		{"another audience", sign(t, i.key, jose.ES256, base(map[string]any{"aud": "other"})), getTwin, codes.Unauthenticated, ReasonInvalid},
		{"another issuer", sign(t, i.key, jose.ES256, base(map[string]any{"iss": "https://else.example.com"})), getTwin, codes.Unauthenticated, ReasonInvalid},
		{"another's key", sign(t, newKey(t), jose.ES256, base(nil)), getTwin, codes.Unauthenticated, ReasonInvalid},
		{"a shared secret", sign(t, []byte("0123456789abcdef0123456789abcdef"), jose.HS256, base(nil)), getTwin, codes.Unauthenticated, ReasonInvalid},
		{"unsigned", "eyJhbGciOiJub25lIn0.eyJzdWIiOiJ1MSJ9.", getTwin, codes.Unauthenticated, ReasonInvalid},
		{"no token", "a.b.c", getTwin, codes.Unauthenticated, ReasonInvalid},
	} {
		t.Run(tc.name, func(t *testing.T) {
			for range 2 { // the second time it is remembered, or not
				_, err := g.Enter(t.Context(), tc.method, Credentials{Authorization: "Bearer " + tc.token, Address: "192.0.2.1:1"})
				wantRefusal(t, err, tc.code, tc.reason)
			}
		})
	}
	asked := i.asked.Load()
	for range 50 {
		if _, err := g.Enter(t.Context(), getTwin, Credentials{Authorization: "Bearer " + sign(t, i.key, jose.ES256, base(map[string]any{"jti": rand.Text()}))}); err != nil {
			t.Fatal(err)
		}
	}
	if n := i.asked.Load() - asked; n != 0 {
		t.Errorf("the issuer was asked %d times for a key that is known", n)
	}
	var limited error
	for range 300 { // now and then one is looked at again
		_, err := g.Enter(t.Context(), getTwin, Credentials{Authorization: "Bearer " + sign(t, newKey(t), jose.ES256, base(nil)), Address: "192.0.2.2:1"})
		if status.Code(err) != codes.Unauthenticated {
			limited = err
		}
	}
	wantRefusal(t, limited, codes.ResourceExhausted, ReasonRate)
}

// TestOIDCWatchEnds when its token does.
func TestOIDCWatchEnds(t *testing.T) {
	g, _ := newGuard(t, "", nil)
	ctx := NewContext(t.Context(), &Identity{Name: "jana", Role: Reader, By: "oidc", Expires: time.Now().Add(20 * time.Millisecond)})
	ctx, done, err := g.Watch(ctx, Credentials{})
	if err != nil {
		t.Fatal(err)
	}
	defer done()
	select {
	case <-ctx.Done():
		wantRefusal(t, context.Cause(ctx), codes.Unauthenticated, ReasonExpired)
	case <-time.After(10 * time.Second):
		t.Fatal("goes on")
	}
}

// TestIssuerIsAway: that is nobody's fault who has a token, and static tokens still count.
func TestIssuerIsAway(t *testing.T) {
	i := newIssuer(t)
	i.Close()
	o, err := NewOIDC(OIDCConfig{Issuer: i.URL, Audience: "doppel"})
	if err != nil {
		t.Fatal(err)
	}
	g, _ := newGuard(t, twoRoles, func(c *GuardConfig) { c.OIDC = o })
	_, err = g.Enter(t.Context(), getTwin, Credentials{Authorization: "Bearer " + sign(t, i.key, jose.ES256, map[string]any{"sub": "x"})})
	wantRefusal(t, err, codes.Unavailable, ReasonIssuerAway)
	if _, err := g.Enter(t.Context(), getTwin, Credentials{Authorization: "Bearer the-readers-token"}); err != nil {
		t.Error(err)
	}
}
