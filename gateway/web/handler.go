// Package web is the HTTP door: the API as JSON, gRPC-Web and Connect, watches as newline-delimited
// JSON, the live page, metrics and health.
//
// It holds no state and knows no twin: every call goes on to the gRPC server's services, with their
// interceptors. It listens on nothing; whoever wires the node gives it a listener.
//
// Concurrency: the handler is safe for concurrent use and starts no goroutines.
package web

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/pprof"
	"strings"
	"time"

	"connectrpc.com/vanguard"
	"connectrpc.com/vanguard/vanguardgrpc"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/doppel-iot/doppel/gateway/auth"
	"github.com/doppel-iot/doppel/gateway/command"
	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
)

const (
	// A call must be read within readTimeout and answered within writeTimeout; each message of a
	// stream must be taken within writeTimeout.
	headerTimeout = 10 * time.Second
	readTimeout   = 30 * time.Second
	writeTimeout  = 60 * time.Second
	idleTimeout   = 2 * time.Minute
	maxHeader     = 64 << 10
	maxBody       = 1 << 20
)

// Watches serves the streams. They run in process because REST has no mapping for them.
type Watches interface {
	WatchTwins(ctx context.Context, req *doppelv1.WatchTwinsRequest, send func(*doppelv1.WatchTwinsResponse) error) error
	WatchAlerts(ctx context.Context, req *doppelv1.WatchAlertsRequest, send func(*doppelv1.WatchAlertsResponse) error) error
}

// Config of the handler. GRPC, Watches, Metrics and Log must be set.
type Config struct {
	// GRPC has the services registered; it need not serve a listener itself.
	GRPC    *grpc.Server
	Watches Watches
	Metrics prometheus.Gatherer
	// Ready says why the node is not ready. Default: always ready.
	Ready func() error
	// Pprof serves /debug/pprof/. Default off: profiles tell more than a stranger should know.
	Pprof bool
	// Guard is asked about what is no RPC: metrics and profiles. Default: everybody may see them.
	Guard *auth.Guard
	// Certificates asks everybody for a client certificate, but who asks for health: probes have none.
	Certificates bool
	Log          *slog.Logger
}

type handler struct {
	log     *slog.Logger
	watches Watches
	ready   func() error
	guard   *auth.Guard
	certs   bool
	rest    http.Handler
	routes  []route
	verbs   map[string]map[string][]string // see verbs
	mux     *http.ServeMux
}

// New makes the handler of everything on the HTTP address.
func New(cfg Config) (http.Handler, error) {
	if cfg.GRPC == nil || cfg.Watches == nil || cfg.Metrics == nil || cfg.Log == nil {
		return nil, errors.New("web: the gRPC server, the watches, the metrics or the logger is missing")
	}
	if cfg.Ready == nil {
		cfg.Ready = func() error { return nil }
	}
	h := &handler{log: cfg.Log, watches: cfg.Watches, ready: cfg.Ready, guard: cfg.Guard, certs: cfg.Certificates, mux: http.NewServeMux()}
	rest, err := vanguardgrpc.NewTranscoder(cfg.GRPC, vanguard.WithUnknownHandler(http.HandlerFunc(notFound)))
	if err != nil {
		return nil, fmt.Errorf("map the services to HTTP: %w", err)
	}
	h.rest, h.routes = rest, newRoutes(cfg.GRPC)
	h.verbs = verbs(h.routes)
	h.mux.HandleFunc("GET /livez", h.livez)
	h.mux.HandleFunc("GET /readyz", h.readyz)
	h.mux.Handle("GET /metrics", h.guarded(auth.Metrics, promhttp.HandlerFor(cfg.Metrics, promhttp.HandlerOpts{})))
	h.mux.HandleFunc("GET /v1/twins:watch", h.watchTwins)
	h.mux.HandleFunc("GET /v1/alerts:watch", h.watchAlerts)
	h.mux.HandleFunc("/v1/", h.serveREST)
	h.mux.HandleFunc("/", h.serveOther)
	description, err := newOpenAPI()
	if err != nil {
		return nil, err
	}
	h.mux.Handle("GET /openapi.json", description)
	page, err := newPage()
	if err != nil {
		return nil, err
	}
	h.mux.Handle("GET /{$}", page)
	h.mux.Handle("GET /assets/", page)
	if cfg.Pprof {
		h.mux.Handle("GET /debug/pprof/", h.guarded(auth.Profiles, http.HandlerFunc(pprof.Index)))
		h.mux.Handle("GET /debug/pprof/profile", h.guarded(auth.Profiles, http.HandlerFunc(pprof.Profile)))
		h.mux.Handle("GET /debug/pprof/trace", h.guarded(auth.Profiles, http.HandlerFunc(pprof.Trace)))
		h.mux.Handle("GET /debug/pprof/symbol", h.guarded(auth.Profiles, http.HandlerFunc(pprof.Symbol)))
		h.mux.Handle("GET /debug/pprof/cmdline", h.guarded(auth.Profiles, http.HandlerFunc(pprof.Cmdline)))
	}
	// Nobody's other web page may change anything here through a browser that can reach us.
	origin := http.NewCrossOriginProtection()
	origin.SetDenyHandler(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		writeError(w, status.New(codes.PermissionDenied, "cross-origin request").Proto())
	}))
	return origin.Handler(h), nil
}

// NewServer returns an HTTP server with sane limits around a handler of New. It speaks HTTP/1.1
// and, to who knows it without asking, HTTP/2 in the clear, which plain gRPC clients need.
func NewServer(h http.Handler, log *slog.Logger) *http.Server {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetHTTP2(true)
	protocols.SetUnencryptedHTTP2(true)
	return &http.Server{
		Handler:           h,
		ReadHeaderTimeout: headerTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeader,
		Protocols:         protocols,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
}

// ServeHTTP implements http.Handler.
func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	// Deadlines are set for each request because a connection's outlive the request. Writers that
	// have none (tests, wrappers) do without.
	rc := http.NewResponseController(w)
	if streams(r.URL.Path) {
		_ = rc.SetReadDeadline(time.Time{})
		_ = rc.SetWriteDeadline(time.Time{})
	} else {
		now := time.Now()
		if waits(r.URL.Path) {
			now = now.Add(command.MaxTimeout)
		}
		_ = rc.SetReadDeadline(now.Add(readTimeout))
		_ = rc.SetWriteDeadline(now.Add(writeTimeout))
		r.Body = http.MaxBytesReader(w, r.Body, maxBody)
	}
	w.Header().Set("X-Content-Type-Options", "nosniff")
	if r.ContentLength > maxBody {
		writeStatus(w, http.StatusRequestEntityTooLarge,
			status.Newf(codes.ResourceExhausted, "the body has more than %d bytes", maxBody).Proto())
		return
	}
	if h.certs && len(auth.Verified(r.TLS)) == 0 && r.URL.Path != "/livez" && r.URL.Path != "/readyz" {
		writeError(w, status.New(codes.Unauthenticated, "a client certificate is needed").Proto())
		return
	}
	h.mux.ServeHTTP(w, r)
}

// streams says whether answers at a path go on for as long as the client wants.
func streams(path string) bool {
	method := path[strings.LastIndexByte(path, '/')+1:]
	return strings.HasPrefix(method, "Watch") || strings.HasSuffix(method, ":watch") ||
		method == "Watch" || method == "ServerReflectionInfo" || strings.HasPrefix(path, "/debug/pprof/")
}

// waits says whether a call at a path may wait for a device: also reading must not end meanwhile, or the call
// would be taken for given up.
func waits(path string) bool {
	return strings.HasPrefix(path, "/v1/twins/") && strings.Contains(path, "/commands/") || strings.HasSuffix(path, "/InvokeCommand")
}

// serveOther is gRPC, gRPC-Web and Connect, whose paths are /PACKAGE.SERVICE/METHOD, and what is
// nowhere.
func (h *handler) serveOther(w http.ResponseWriter, r *http.Request) {
	if service, _, ok := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/"); ok && strings.Contains(service, ".") {
		h.rest.ServeHTTP(w, r)
		return
	}
	notFound(w, r)
}

func notFound(w http.ResponseWriter, r *http.Request) {
	writeError(w, status.Newf(codes.NotFound, "nothing at %s %s", r.Method, r.URL.Path).Proto())
}
