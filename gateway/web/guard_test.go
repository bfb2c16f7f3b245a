package web

import (
	"context"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/doppel-iot/doppel/gateway/auth"
)

const tokensFile = "tokens:\n- {name: rita, token: token-of-the-reader, role: reader}\n- {name: ada, token: token-of-the-admin, role: admin}\n" +
	"- {name: brno, token: token-of-brno-admin, role: admin, tags: {site: brno}}\n"

func newGuard(t *testing.T) *auth.Guard {
	t.Helper()
	file := filepath.Join(t.TempDir(), "tokens.yaml")
	if err := os.WriteFile(file, []byte(tokensFile), 0o600); err != nil {
		t.Fatal(err)
	}
	g, err := auth.NewGuard(auth.GuardConfig{Tokens: file, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// TestGuarded: every path asks for what it is; health and the empty page are for everybody.
func TestGuarded(t *testing.T) {
	s := newGuardedSite(t, newGuard(t), func(c *Config) { c.Pprof = true })
	s.Put(pump(mac, 1, 21.5))
	for _, tc := range []struct {
		path, authorization string
		want                int
	}{
		{"/livez", "", 200},
		{"/readyz", "", 200},
		{"/", "", 200},
		{"/assets/main.js", "", 200},
		{"/metrics", "", 401},
		{"/metrics", "Bearer token-of-the-reader", 200},
		{"/metrics", "bearer   token-of-the-reader", 200},
		{"/metrics", "Bearer token-of-brno-admin", 403},
		{"/metrics", "Basic token-of-the-reader", 401},
		{"/debug/pprof/cmdline", "", 401},
		{"/debug/pprof/cmdline", "Bearer token-of-the-reader", 403},
		{"/debug/pprof/cmdline", "Bearer token-of-the-admin", 200},
		{"/v1/twins", "", 401},
		{"/v1/twins", "Bearer x", 401},
		{"/v1/twins", "Bearer token-of-the-reader", 200},
		{"/v1/status", "Bearer token-of-brno-admin", 403},
		{"/v1/twins:watch", "", 401},
		{"/v1/alerts:watch", "Bearer x", 401},
	} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.url+tc.path, http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		if tc.authorization != "" {
			req.Header.Set("Authorization", tc.authorization)
		}
		resp, err := s.client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if resp.StatusCode != tc.want {
			t.Errorf("%s with %q: got %d, want %d", tc.path, tc.authorization, resp.StatusCode, tc.want)
		}
	}
	for _, path := range []string{"/metrics", "/v1/twins", "/v1/twins:watch"} {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.url+path, http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		req.Header["Authorization"] = []string{"Bearer token-of-the-admin", "Bearer x"}
		resp, err := s.client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		cancel()
		if resp.StatusCode != http.StatusUnauthorized {
			t.Errorf("%s with two headers: got %d, want 401", path, resp.StatusCode)
		}
	}
}

// TestClientCertificateIsNeeded where it is asked for, but by probes.
func TestClientCertificateIsNeeded(t *testing.T) {
	s := newSite(t, func(c *Config) { c.Certificates = true })
	for path, want := range map[string]int{"/livez": 200, "/readyz": 200, "/": 401, "/v1/twins": 401, "/metrics": 401} {
		if got, _, body := s.do(t, http.MethodGet, path, "", nil); got != want {
			t.Errorf("%s: got %d %s, want %d", path, got, body, want)
		}
	}
}

// TestPageAsksForAToken and shows the fleet to who has one.
func TestPageAsksForAToken(t *testing.T) {
	s := newGuardedSite(t, newGuard(t), nil)
	s.Put(pump(mac, 1, 21.5))
	b := newBrowser(t, 1000, 700)
	b.open(s.url + "/")
	b.until("asked", `document.querySelector("#login").open`, `document.body.innerText`)
	if got := b.eval(`document.querySelectorAll("#list-rows tr").length`); got != float64(0) {
		t.Errorf("%v twins are shown to a stranger", got)
	}
	b.eval(`(document.querySelector("#login-token").value = "token-of-the-reader", document.querySelector("#login-form").requestSubmit())`)
	b.until("let in", `!document.querySelector("#login").open && document.querySelector("#list-rows tr").dataset.id === "`+mac+`"`, `document.body.innerText`)
	b.until("live", `document.querySelector("#link").dataset.state === "live"`, `document.querySelector("#link").title`)
}
