package api

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	_ "google.golang.org/grpc/encoding/gzip" // for clients that compress
	"google.golang.org/grpc/health"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/reflection"

	"github.com/doppel-iot/doppel/actors/codec"
	"github.com/doppel-iot/doppel/actors/filter"
	"github.com/doppel-iot/doppel/actors/ruleset"
	"github.com/doppel-iot/doppel/gateway/auth"
	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
)

const (
	// maxReceive bounds one request.
	maxReceive = 1 << 20
	// A client may ping every pingMin, also while nothing runs; idle ones are pinged every pingIdle.
	pingMin     = 10 * time.Second
	pingIdle    = 30 * time.Second
	pingTimeout = 10 * time.Second
	// maxStreams bounds the calls of one connection.
	maxStreams = 20_000
	// streamWindow is what a client may send of one call before it is read. That it is fixed spares a call the
	// pings by which gRPC would find one out.
	streamWindow = maxReceive
	connWindow   = 4 * streamWindow
	// streamWorkers are goroutines that serve one call after another, so that their stacks are large enough. Where all
	// are busy, a call has a goroutine of its own.
	streamWorkers = 64
)

// Config of an API. Twins, Alerts, Fleet, Hub and Log must be set.
type Config struct {
	Twins  Twins
	Alerts Alerts
	Fleet  Fleet
	Rules  Rules // nil: rules and silences are UNIMPLEMENTED
	Past   Past  // nil: as_of and ReplayTwin are UNIMPLEMENTED
	// History nil: GetHistory is UNIMPLEMENTED.
	History History
	// DeadLetters nil: ListDeadLetters and RedriveDeadLetters are UNIMPLEMENTED.
	DeadLetters DeadLetters
	// Decoder makes the decoder that says whether a letter would be refused again. Default:
	// codec.NewDecoder.
	Decoder func() *codec.Decoder
	// Resets nil: ResetTwin is UNIMPLEMENTED.
	Resets Resets
	// Writes nil: UpdateTwin and DeleteTwin are UNIMPLEMENTED.
	Writes Writes
	Drains Drains // nil: DrainNode is UNIMPLEMENTED
	// Commands nil: InvokeCommand is UNIMPLEMENTED.
	Commands Commands
	// AlertDesk nil: AcknowledgeAlert and ExplainAlert are UNIMPLEMENTED.
	AlertDesk AlertDesk
	Hub       *Hub
	// Guard says who calls and what they may do. Default: everybody is the admin "local".
	Guard *auth.Guard
	// Journal records writes. Default: nobody does.
	Journal *auth.Journal
	Log     *slog.Logger
}

// API is the services of doppel.v1 over the ports.
type API struct {
	log     *slog.Logger
	guard   *auth.Guard
	journal *auth.Journal
	twins   *twinService
	alerts  *alertService
	fleet   *fleetService
	rules   *ruleService
	health  *health.Server

	moderation moderation
}

// New makes the services. It starts nothing.
func New(cfg Config) (*API, error) {
	if cfg.Twins == nil || cfg.Alerts == nil || cfg.Fleet == nil || cfg.Hub == nil || cfg.Log == nil {
		return nil, errors.New("api: a port, the hub or the logger is missing")
	}
	twinFilter, err := filter.NewEnv(&doppelv1.Twin{})
	if err != nil {
		return nil, err
	}
	alertFilter, err := filter.NewEnv(&doppelv1.Alert{})
	if err != nil {
		return nil, err
	}
	letterFilter, err := filter.NewEnv(&doppelv1.DeadLetter{})
	if err != nil {
		return nil, err
	}
	if cfg.Decoder == nil {
		cfg.Decoder = codec.NewDecoder
	}
	if cfg.Guard == nil {
		if cfg.Guard, err = auth.NewGuard(auth.GuardConfig{Log: cfg.Log}); err != nil {
			return nil, err
		}
	}
	a := &API{
		log: cfg.Log, guard: cfg.Guard, journal: cfg.Journal,
		twins:  &twinService{twins: cfg.Twins, past: cfg.Past, history: cfg.History, resets: cfg.Resets, writes: cfg.Writes, commands: cfg.Commands, hub: cfg.Hub, filter: twinFilter},
		alerts: &alertService{alerts: cfg.Alerts, desk: cfg.AlertDesk, hub: cfg.Hub, filter: alertFilter, rules: cfg.Rules, silencer: ruleset.NewCompiler()},
		fleet: &fleetService{
			fleet: cfg.Fleet, drains: cfg.Drains, letters: cfg.DeadLetters, letterFilter: letterFilter, decoder: cfg.Decoder, redriving: make(chan struct{}, 1),
		},
		rules:  &ruleService{rules: cfg.Rules, now: time.Now},
		health: health.NewServer(),
	}
	a.SetServing(false)
	return a, nil
}

// Server returns a gRPC server with every service, health and reflection on it. The caller serves
// and stops it; before GracefulStop it closes the Hub, or watches keep the server from stopping.
func (a *API) Server(creds credentials.TransportCredentials) *grpc.Server {
	s := grpc.NewServer(
		grpc.Creds(moderatedCredentials{creds, &a.moderation}),
		grpc.NumStreamWorkers(streamWorkers),
		grpc.ChainUnaryInterceptor(a.unary),
		grpc.ChainStreamInterceptor(a.stream),
		grpc.MaxRecvMsgSize(maxReceive),
		grpc.MaxConcurrentStreams(maxStreams),
		grpc.StaticStreamWindowSize(streamWindow),
		grpc.StaticConnWindowSize(connWindow),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: pingMin, PermitWithoutStream: true}),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: pingIdle, Timeout: pingTimeout}),
		grpc.WaitForHandlers(true),
	)
	doppelv1.RegisterTwinServiceServer(s, a.twins)
	doppelv1.RegisterAlertServiceServer(s, a.alerts)
	doppelv1.RegisterFleetServiceServer(s, a.fleet)
	doppelv1.RegisterRuleServiceServer(s, a.rules)
	healthv1.RegisterHealthServer(s, a.health)
	reflection.Register(s)
	return s
}

// SetServing sets what grpc.health.v1 says, of the server and of each service. A new API does not
// serve.
func (a *API) SetServing(serving bool) {
	st := healthv1.HealthCheckResponse_NOT_SERVING
	if serving {
		st = healthv1.HealthCheckResponse_SERVING
	}
	for _, name := range []string{
		"",
		doppelv1.TwinService_ServiceDesc.ServiceName,
		doppelv1.AlertService_ServiceDesc.ServiceName,
		doppelv1.FleetService_ServiceDesc.ServiceName,
		doppelv1.RuleService_ServiceDesc.ServiceName,
	} {
		a.health.SetServingStatus(name, st)
	}
}

// WatchTwins serves a watch in process, as the gRPC server would: for doors that speak another
// protocol. ctx carries the caller's metadata as incoming metadata.
func (a *API) WatchTwins(ctx context.Context, req *doppelv1.WatchTwinsRequest, send func(*doppelv1.WatchTwinsResponse) error) error {
	return local(ctx, a, doppelv1.TwinService_WatchTwins_FullMethodName, req, send, a.twins.WatchTwins)
}

// WatchAlerts is the same for alerts.
func (a *API) WatchAlerts(ctx context.Context, req *doppelv1.WatchAlertsRequest, send func(*doppelv1.WatchAlertsResponse) error) error {
	return local(ctx, a, doppelv1.AlertService_WatchAlerts_FullMethodName, req, send, a.alerts.WatchAlerts)
}
