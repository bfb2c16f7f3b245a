package api

import (
	"log/slog"
	"slices"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	reflectionv1 "google.golang.org/grpc/reflection/grpc_reflection_v1"

	"github.com/doppel-iot/doppel/gateway/api/apitest"
	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
)

func TestHealth(t *testing.T) {
	w := newWorld(t, HubConfig{})
	client := healthv1.NewHealthClient(w.conn)
	for _, serving := range []bool{false, true, false} {
		w.api.SetServing(serving)
		want := healthv1.HealthCheckResponse_NOT_SERVING
		if serving {
			want = healthv1.HealthCheckResponse_SERVING
		}
		for _, name := range []string{"", "doppel.v1.TwinService", "doppel.v1.AlertService", "doppel.v1.FleetService", "doppel.v1.RuleService"} {
			got, err := client.Check(t.Context(), &healthv1.HealthCheckRequest{Service: name})
			if err != nil || got.GetStatus() != want {
				t.Errorf("%q: got %v, %v; want %v", name, got.GetStatus(), err, want)
			}
		}
	}
	_, err := client.Check(t.Context(), &healthv1.HealthCheckRequest{Service: "nosuch"})
	wantCode(t, err, codes.NotFound, "")
}

func TestReflection(t *testing.T) {
	w := newWorld(t, HubConfig{})
	stream, err := reflectionv1.NewServerReflectionClient(w.conn).ServerReflectionInfo(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	err = stream.Send(&reflectionv1.ServerReflectionRequest{MessageRequest: &reflectionv1.ServerReflectionRequest_ListServices{}})
	if err != nil {
		t.Fatal(err)
	}
	resp, err := stream.Recv()
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, s := range resp.GetListServicesResponse().GetService() {
		got = append(got, s.GetName())
	}
	for _, name := range []string{"doppel.v1.TwinService", "doppel.v1.AlertService", "doppel.v1.FleetService", "doppel.v1.RuleService", "grpc.health.v1.Health"} {
		if !slices.Contains(got, name) {
			t.Errorf("%s is not among %v", name, got)
		}
	}
	if err := stream.CloseSend(); err != nil {
		t.Fatal(err)
	}
}

func TestRequestsAreLimited(t *testing.T) {
	w := newWorld(t, HubConfig{})
	_, err := w.twins.ListTwins(t.Context(), &doppelv1.ListTwinsRequest{Filter: string(make([]byte, maxReceive+1))})
	wantCode(t, err, codes.ResourceExhausted, "")
}

func TestNewNeedsItsPorts(t *testing.T) {
	hub := NewHub(HubConfig{})
	defer hub.Close()
	f := apitest.NewFleet(hub, &apitest.AlertLog{})
	full := Config{Twins: f, Alerts: f, Fleet: f, Hub: hub, Log: slog.New(slog.DiscardHandler)}
	if _, err := New(full); err != nil {
		t.Error(err)
	}
	for name, drop := range map[string]func(*Config){
		"twins": func(c *Config) { c.Twins = nil }, "alerts": func(c *Config) { c.Alerts = nil }, "fleet": func(c *Config) { c.Fleet = nil },
		"hub": func(c *Config) { c.Hub = nil }, "log": func(c *Config) { c.Log = nil },
	} {
		cfg := full
		drop(&cfg)
		if _, err := New(cfg); err == nil {
			t.Errorf("without %s: got no error", name)
		}
	}
}

// TestCompressedCalls: a client may compress what it sends.
func TestCompressedCalls(t *testing.T) {
	w := newWorld(t, HubConfig{})
	w.Put(apitest.Twin("a", 1))
	if _, err := w.twins.GetTwin(t.Context(), &doppelv1.GetTwinRequest{Id: "a"}, grpc.UseCompressor("gzip")); err != nil {
		t.Error(err)
	}
}
