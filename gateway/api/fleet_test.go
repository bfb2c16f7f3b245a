package api

import (
	"context"
	"log/slog"
	"net"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"

	"github.com/doppel-iot/doppel/gateway/api/apitest"
	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// world is a served API over a fleet.
type world struct {
	*apitest.Fleet
	letters *apitest.Letters
	hub     *Hub
	log     *apitest.AlertLog
	api     *API
	conn    *grpc.ClientConn
	twins   doppelv1.TwinServiceClient
	alerts  doppelv1.AlertServiceClient
	fleet   doppelv1.FleetServiceClient
}

func newWorld(t *testing.T, cfg HubConfig, change ...func(*Config)) *world {
	t.Helper()
	log := &apitest.AlertLog{}
	if cfg.Alerts == nil {
		cfg.Alerts = log
	}
	hub := NewHub(cfg)
	f := apitest.NewFleet(hub, log)
	run(t, hub)
	letters := &apitest.Letters{}
	full := Config{Twins: f, Past: f, History: f, Alerts: f, Fleet: f, Rules: f, DeadLetters: letters, Resets: f, Hub: hub, AlertDesk: f, Log: slog.New(slog.DiscardHandler)}
	for _, f := range change {
		f(&full)
	}
	a, err := New(full)
	if err != nil {
		t.Fatal(err)
	}
	srv := a.Server(insecure.NewCredentials())
	lis := bufconn.Listen(1 << 20)
	served := make(chan error, 1)
	go func() { served <- srv.Serve(lis) }()
	conn, err := grpc.NewClient("passthrough:///bufconn",
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return lis.DialContext(ctx) }))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		hub.Close()
		if err := conn.Close(); err != nil {
			t.Error(err)
		}
		srv.GracefulStop()
		if err := <-served; err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	return &world{
		Fleet: f, letters: letters, hub: hub, log: log, api: a, conn: conn,
		twins: doppelv1.NewTwinServiceClient(conn), alerts: doppelv1.NewAlertServiceClient(conn), fleet: doppelv1.NewFleetServiceClient(conn),
	}
}

// run has a hub follow its log until the test ends.
func run(t testing.TB, h *Hub) {
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

// eventually polls cond for at most ten seconds.
func eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for !cond() {
		if time.Now().After(deadline) {
			t.Fatalf("still not: %s", what)
		}
		time.Sleep(time.Millisecond)
	}
}
