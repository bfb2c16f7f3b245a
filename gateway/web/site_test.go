package web

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/doppel-iot/doppel/gateway/api"
	"github.com/doppel-iot/doppel/gateway/api/apitest"
	"github.com/doppel-iot/doppel/gateway/auth"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// site is a served handler over a fleet in memory.
type site struct {
	*apitest.Fleet
	hub     *api.Hub
	handler http.Handler
	server  *http.Server
	served  chan error
	url     string
	client  *http.Client
}

// follow has a hub follow its log of alerts until the test ends.
func follow(t *testing.T, h *api.Hub) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- h.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func newSite(t *testing.T, change func(*Config)) *site { return newGuardedSite(t, nil, change) }

// newGuardedSite asks who comes; nil: nobody is asked.
func newGuardedSite(t *testing.T, g *auth.Guard, change func(*Config)) *site {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	alerts := &apitest.AlertLog{}
	hub := api.NewHub(api.HubConfig{Alerts: alerts})
	follow(t, hub)
	f := apitest.NewFleet(hub, alerts)
	a, err := api.New(api.Config{Twins: f, History: f, Alerts: f, Fleet: f, Rules: f, Commands: f, Hub: hub, Guard: g, Log: log})
	if err != nil {
		t.Fatal(err)
	}
	registry := prometheus.NewRegistry()
	registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "doppel_answer"}, func() float64 { return 42 }))
	grpcServer := a.Server(insecure.NewCredentials())
	cfg := Config{GRPC: grpcServer, Watches: a, Metrics: registry, Guard: g, Log: log}
	if change != nil {
		change(&cfg)
	}
	h, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{}
	s := &site{Fleet: f, hub: hub, handler: h, client: &http.Client{Transport: transport}}
	s.listen(t, "127.0.0.1:0")
	t.Cleanup(func() {
		hub.Close()
		transport.CloseIdleConnections()
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := s.server.Shutdown(ctx); err != nil {
			t.Errorf("shut down: %v", err)
		}
		grpcServer.Stop()
		if err := <-s.served; !errors.Is(err, http.ErrServerClosed) {
			t.Errorf("serve: %v", err)
		}
	})
	return s
}

// listen serves the handler at an address.
func (s *site) listen(t *testing.T, addr string) {
	t.Helper()
	lis, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	s.url = "http://" + lis.Addr().String()
	srv, served := NewServer(s.handler, slog.New(slog.DiscardHandler)), make(chan error, 1)
	s.server, s.served = srv, served
	go func() { served <- srv.Serve(lis) }()
}

func (s *site) do(t *testing.T, method, path, contentType string, body []byte) (int, http.Header, []byte) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, s.url+path, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	resp, err := s.client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	got, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, resp.Header, got
}

// object gets a path and reads the answer as a JSON object.
func (s *site) object(t *testing.T, method, path, body string) (int, map[string]any) {
	t.Helper()
	contentType := ""
	if body != "" {
		contentType = "application/json"
	}
	code, header, got := s.do(t, method, path, contentType, []byte(body))
	if ct := header.Get("Content-Type"); ct != "application/json" {
		t.Errorf("%s %s: content type %q", method, path, ct)
	}
	var o map[string]any
	if err := json.Unmarshal(got, &o); err != nil {
		t.Fatalf("%s %s: %d %s: %v", method, path, code, got, err)
	}
	return code, o
}
