package web

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/proto"

	"github.com/doppel-iot/doppel/actors/alert"
	"github.com/doppel-iot/doppel/actors/host"
	"github.com/doppel-iot/doppel/gateway/api"
	"github.com/doppel-iot/doppel/gateway/api/apitest"
	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
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

func newSite(t *testing.T, change func(*Config)) *site {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	hub := api.NewHub(api.HubConfig{})
	f := apitest.NewFleet(hub)
	a, err := api.New(api.Config{Twins: f, Alerts: f, Fleet: f, Rules: f, Hub: hub, Log: log})
	if err != nil {
		t.Fatal(err)
	}
	registry := prometheus.NewRegistry()
	registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "doppel_answer"}, func() float64 { return 42 }))
	grpcServer := a.Server()
	cfg := Config{GRPC: grpcServer, Watches: a, Metrics: registry, Log: log}
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

func TestTwinAsJSON(t *testing.T) {
	s := newSite(t, nil)
	tw := apitest.Twin("aa:bb:cc:dd:ee:ff", 7)
	tw.Metrics = map[string]*doppelv1.Metric{"temperature": {Value: 7, Z: new(1.5)}}
	tw.Reported = nil
	tw.Counters = nil
	s.Put(tw)
	code, got := s.object(t, "GET", "/v1/twins/aa:bb:cc:dd:ee:ff", "")
	want := map[string]any{
		"id": "aa:bb:cc:dd:ee:ff", "etag": "", "version": "7", "desiredVersion": "0", "reportedVersion": "0", "tagsVersion": "0",
		"boot": "2", "seq": "7", "digest": "0", "setDigest": "0", "online": false,
		"lastSeen": "2026-11-22T10:00:07Z", "createTime": "2026-11-22T10:00:00Z",
		"reported": nil, "desired": nil, "delta": nil,
		"tags": map[string]any{"site": "brno", "line": "1"},
		"metrics": map[string]any{"temperature": map[string]any{
			"value": 7.0, "time": nil, "count": "0", "mean": 0.0, "stddev": 0.0, "min": 0.0, "max": 0.0, "z": 1.5,
		}},
		"openAlerts": []any{}, "counters": nil, "owner": "", "epoch": "0", "quarantined": false,
	}
	if diff := cmp.Diff(want, got); code != http.StatusOK || diff != "" {
		t.Errorf("got %d (-want +got)\n%s", code, diff)
	}
}

func TestIdsWithColons(t *testing.T) {
	s := newSite(t, nil)
	for _, id := range []string{"aa:bb:cc:dd:ee:ff", "pump:reset", "x:y", ":", "a:", "watch", "a@b.c_d-e"} {
		s.Put(apitest.Twin(id, 1))
	}
	for path, want := range map[string]string{
		"/v1/twins/aa:bb:cc:dd:ee:ff":             "aa:bb:cc:dd:ee:ff",
		"/v1/twins/aa%3Abb%3Acc%3add:ee:ff":       "aa:bb:cc:dd:ee:ff",
		"/v1/twins/pump:reset":                    "pump:reset",
		"/v1/twins/x:y":                           "x:y",
		"/v1/twins/:":                             ":",
		"/v1/twins/a:":                            "a:",
		"/v1/twins/watch":                         "watch",
		"/v1/twins/a%40b.c_d-e":                   "a@b.c_d-e",
		"/v1/twins/a@b.c_d-e?readMask=id,version": "a@b.c_d-e",
	} {
		if code, got := s.object(t, "GET", path, ""); code != http.StatusOK || got["id"] != want {
			t.Errorf("%s: got %d %v, want %s", path, code, got, want)
		}
	}
	// The verbs still are verbs, of ids with colons, too; what is not served says so.
	for method, paths := range map[string][]string{
		"POST": {
			"/v1/twins/aa:bb:cc:dd:ee:ff:reset", "/v1/twins/aa%3Abb:replay", "/v1/twins/aa:bb/commands/re:start",
			"/v1/alerts/0000000000000abc:acknowledge", "/v1/alerts:silence", "/v1/rules:test", "/v1/deadLetters:redrive",
		},
		"GET":    {"/v1/twins/aa:bb/history", "/v1/alerts/0000000000000abc:explain", "/v1/deadLetters"},
		"DELETE": {"/v1/twins/aa:bb:cc:dd:ee:ff", "/v1/rules/a.b"},
		"PATCH":  {"/v1/twins/aa:bb:cc:dd:ee:ff"},
		"PUT":    {"/v1/rules/a.b"},
	} {
		for _, path := range paths {
			body := ""
			if method != "GET" && method != "DELETE" {
				body = "{}"
			}
			if code, got := s.object(t, method, path, body); code != http.StatusNotImplemented || got["code"] != 12.0 {
				t.Errorf("%s %s: got %d %v, want 501", method, path, code, got)
			}
		}
	}
}

func TestErrorsAsJSON(t *testing.T) {
	s := newSite(t, nil)
	s.Put(apitest.Twin("a", 1))
	for _, tc := range []struct {
		method, path, body string
		status             int
		code               float64
		field              string
	}{
		{"GET", "/v1/twins/nosuch:aa", "", 404, 5, ""},
		{"GET", "/v1/twins/a%2Fb", "", 400, 3, "id"},
		{"GET", "/v1/twins/" + strings.Repeat("x", 200), "", 400, 3, "id"},
		{"GET", "/v1/twins?filter=nope", "", 400, 3, "filter"},
		{"GET", "/v1/twins?pageToken=x", "", 400, 3, "page_token"},
		{"POST", "/v1/twins:batchGet", `{"ids":[""]}`, 400, 3, "ids"},
		{"GET", "/v1/alerts/xyz", "", 400, 3, "id"},
		{"GET", "/v1/alerts/00000000000000ff", "", 404, 5, ""},
		{"GET", "/v1/alerts?orderBy=zz", "", 400, 3, "order_by"},
		{"GET", "/v1/nothing", "", 404, 5, ""},
		{"GET", "/v1/", "", 404, 5, ""},
		{"GET", "/nothing/at/all", "", 404, 5, ""},
		{"GET", "/v1/twins:watch?filter=nope", "", 400, 3, "filter"},
		{"GET", "/v1/twins:watch?nosuch=1", "", 400, 3, "nosuch"},
		{"GET", "/v1/twins:watch?heartbeat=soon", "", 400, 3, "heartbeat"},
		{"GET", "/v1/twins:watch?heartbeat=-3s", "", 400, 3, "heartbeat"},
		{"GET", "/v1/twins:watch?filter=a&filter=b", "", 400, 3, "filter"},
		{"GET", "/v1/twins:watch?readMask=nosuch", "", 400, 3, "read_mask"},
		{"GET", "/v1/alerts:watch?minSeverity=LOUD", "", 400, 3, "min_severity"},
		{"GET", "/v1/alerts:watch?includePending=perhaps", "", 400, 3, "include_pending"},
		{"GET", "/v1/alerts:watch?resumeToken=x", "", 400, 3, "resume_token"},
	} {
		status, got := s.object(t, tc.method, tc.path, tc.body)
		if status != tc.status || got["code"] != tc.code || got["message"] == "" {
			t.Errorf("%s %s: got %d %v, want %d and code %v", tc.method, tc.path, status, got, tc.status, tc.code)
			continue
		}
		if text, _ := json.Marshal(got["details"]); tc.field != "" && !strings.Contains(string(text), `"field":"`+tc.field+`"`) {
			t.Errorf("%s %s: details %s do not name %s", tc.method, tc.path, text, tc.field)
		}
	}
	if code, _, _ := s.do(t, "DELETE", "/v1/alerts", "", nil); code != http.StatusMethodNotAllowed {
		t.Errorf("DELETE /v1/alerts: got %d, want 405", code)
	}
	s.Fail(host.ErrUnavailable)
	for _, path := range []string{"/v1/twins/a", "/v1/twins", "/v1/status", "/v1/twins:watch", "/v1/alerts:watch"} {
		if status, got := s.object(t, "GET", path, ""); status != 503 || got["code"] != 14.0 {
			t.Errorf("%s: got %d %v, want 503", path, status, got)
		}
	}
}

func TestListsAsJSON(t *testing.T) {
	s := newSite(t, nil)
	for _, id := range []string{"a", "b", "c"} {
		s.Put(apitest.Twin(id, 2))
	}
	_, got := s.object(t, "GET", "/v1/twins?pageSize=2&orderBy=id%20desc&readMask=id", "")
	if got["totalSize"] != "3" || len(got["twins"].([]any)) != 2 || got["twins"].([]any)[0].(map[string]any)["id"] != "c" {
		t.Errorf("got %v, want c and b of 3", got)
	}
	_, got = s.object(t, "GET", "/v1/twins?pageSize=2&orderBy=id%20desc&pageToken="+got["nextPageToken"].(string), "")
	if len(got["twins"].([]any)) != 1 || got["nextPageToken"] != "" {
		t.Errorf("got %v, want the last page", got)
	}
	_, got = s.object(t, "POST", "/v1/twins:batchGet", `{"ids":["b","x:y"],"readMask":"id,lastSeen"}`)
	if diff := cmp.Diff([]any{"x:y"}, got["missingIds"]); diff != "" {
		t.Error(diff)
	}
	s.Transition(1, "a", alert.Warning, alert.Firing)
	_, got = s.object(t, "GET", `/v1/alerts?filter=state+%3D%3D+%22FIRING%22`, "")
	if a := got["alerts"].([]any)[0].(map[string]any); a["state"] != "FIRING" || a["id"] != "0000000000000001" {
		t.Errorf("got %v", a)
	}
	if _, got = s.object(t, "GET", "/v1/alerts/0000000000000001", ""); got["device"] != "a" {
		t.Errorf("got %v", got)
	}
	if _, got = s.object(t, "GET", "/v1/status", ""); got["twins"] != "3" {
		t.Errorf("got %v", got)
	}
	if _, got = s.object(t, "GET", "/v1/rules", ""); len(got["rules"].([]any)) != 2 {
		t.Errorf("got %v", got)
	}
	if _, got = s.object(t, "GET", "/v1/audit", ""); got["balanced"] != true {
		t.Errorf("got %v", got)
	}
}

// lineReader reads a watch.
type lineReader struct {
	t     *testing.T
	lines *bufio.Scanner
	close func()
}

func (s *site) lines(t *testing.T, path string) *lineReader {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.url+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := s.client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	stop := func() { cancel(); resp.Body.Close() }
	t.Cleanup(stop)
	if ct := resp.Header.Get("Content-Type"); resp.StatusCode != http.StatusOK || ct != "application/x-ndjson" {
		t.Fatalf("got %d %q", resp.StatusCode, ct)
	}
	return &lineReader{t: t, lines: bufio.NewScanner(resp.Body), close: stop}
}

// next returns the next line that is no heartbeat.
func (l *lineReader) next() map[string]any {
	l.t.Helper()
	for l.lines.Scan() {
		var o map[string]any
		if err := json.Unmarshal(l.lines.Bytes(), &o); err != nil {
			l.t.Fatalf("%q: %v", l.lines.Text(), err)
		}
		if _, beat := o["heartbeat"]; !beat {
			return o
		}
	}
	l.t.Fatalf("no more lines: %v", l.lines.Err())
	return nil
}

func TestWatchTwinsAsLines(t *testing.T) {
	s := newSite(t, nil)
	s.Put(apitest.Twin("aa:bb", 1))
	s.Put(apitest.Twin("c", 1))
	w := s.lines(t, "/v1/twins:watch?ids=aa:bb&ids=d,e&readMask=id,seq,lastSeen&heartbeat=60s")
	if got := w.next()["snapshot"].(map[string]any); got["id"] != "aa:bb" || got["seq"] != "1" || got["lastSeen"] == nil {
		t.Errorf("got %v, want aa:bb", got)
	}
	done := w.next()
	if _, ok := done["snapshotDone"]; !ok || done["resumeToken"] == "" {
		t.Errorf("got %v, want snapshotDone with a token", done)
	}
	s.Put(apitest.Twin("c", 2))
	s.Put(apitest.Twin("aa:bb", 2))
	if got := w.next()["changed"].(map[string]any); got["id"] != "aa:bb" || got["seq"] != "2" {
		t.Errorf("got %v, want aa:bb at 2", got)
	}
	w.close()
	s.Put(apitest.Twin("e", 5))
	w = s.lines(t, "/v1/twins:watch?ids=aa:bb&ids=d,e&resumeToken="+done["resumeToken"].(string))
	seen := map[string]bool{}
	for len(seen) < 2 {
		seen[w.next()["changed"].(map[string]any)["id"].(string)] = true
	}
	if diff := cmp.Diff(map[string]bool{"aa:bb": true, "e": true}, seen); diff != "" {
		t.Error(diff)
	}
	s.Remove("e")
	if got := w.next(); got["deletedId"] != "e" {
		t.Errorf("got %v, want e deleted", got)
	}
}

func TestWatchAlertsAsLines(t *testing.T) {
	s := newSite(t, nil)
	s.Transition(1, "aa:bb", alert.Critical, alert.Firing)
	s.Transition(2, "b", alert.Info, alert.Firing)
	w := s.lines(t, "/v1/alerts:watch?minSeverity=WARNING&includePending=true&devices=aa:bb,c")
	if got := w.next()["snapshot"].(map[string]any); got["device"] != "aa:bb" || got["severity"] != "CRITICAL" {
		t.Errorf("got %v", got)
	}
	w.next()
	s.Transition(3, "c", alert.Warning, alert.Pending)
	got := w.next()
	if a := got["transition"].(map[string]any); a["device"] != "c" || a["state"] != "PENDING" {
		t.Errorf("got %v", a)
	}
	// An error behind the first line is the last line.
	s.hub.Close()
	last := w.next()
	if e, ok := last["error"].(map[string]any); !ok || e["code"] != 14.0 {
		t.Errorf("got %v, want an error line", last)
	}
	if w.lines.Scan() {
		t.Errorf("behind the error: %q", w.lines.Text())
	}
}

func TestHeartbeatLine(t *testing.T) {
	s := newSite(t, nil)
	w := s.lines(t, "/v1/alerts:watch?heartbeat=1s")
	w.next()
	if !w.lines.Scan() || !strings.Contains(w.lines.Text(), `"heartbeat"`) {
		t.Errorf("got %q, want a heartbeat", w.lines.Text())
	}
}

func TestGRPCWeb(t *testing.T) {
	s := newSite(t, nil)
	s.Put(apitest.Twin("aa:bb", 3))
	msg, err := proto.Marshal(&doppelv1.GetTwinRequest{Id: "aa:bb"})
	if err != nil {
		t.Fatal(err)
	}
	frame := binary.BigEndian.AppendUint32([]byte{0}, uint32(len(msg)))
	code, header, got := s.do(t, "POST", "/doppel.v1.TwinService/GetTwin", "application/grpc-web+proto", append(frame, msg...))
	if code != http.StatusOK || header.Get("Content-Type") != "application/grpc-web+proto" || len(got) < 5 {
		t.Fatalf("got %d %v %q", code, header, got)
	}
	size := binary.BigEndian.Uint32(got[1:5])
	var tw doppelv1.Twin
	if err := proto.Unmarshal(got[5:5+size], &tw); err != nil || tw.GetId() != "aa:bb" || tw.GetSeq() != 3 {
		t.Errorf("got %v, %v", &tw, err)
	}
	if trailer := strings.ToLower(string(got[5+size:])); !strings.Contains(trailer, "grpc-status: 0") && !strings.Contains(trailer, "grpc-status:0") {
		t.Errorf("trailer %q", trailer)
	}
}

func TestConnect(t *testing.T) {
	s := newSite(t, nil)
	s.Put(apitest.Twin("aa:bb", 3))
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.url+"/doppel.v1.TwinService/GetTwin", strings.NewReader(`{"id":"aa:bb"}`))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Connect-Protocol-Version", "1")
	resp, err := s.client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var got map[string]any
	if err := json.NewDecoder(resp.Body).Decode(&got); err != nil || got["seq"] != "3" {
		t.Errorf("got %v, %v", got, err)
	}
}

// Plain gRPC works on the HTTP address, too.
func TestGRPC(t *testing.T) {
	s := newSite(t, nil)
	s.Put(apitest.Twin("aa:bb", 3))
	conn, err := grpc.NewClient(strings.TrimPrefix(s.url, "http://"), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	twins := doppelv1.NewTwinServiceClient(conn)
	if got, err := twins.GetTwin(t.Context(), &doppelv1.GetTwinRequest{Id: "aa:bb"}); err != nil || got.GetSeq() != 3 {
		t.Errorf("got %v, %v", got, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	watch, err := twins.WatchTwins(ctx, &doppelv1.WatchTwinsRequest{})
	if err != nil {
		t.Fatal(err)
	}
	for {
		m, err := watch.Recv()
		if err != nil {
			t.Fatal(err)
		}
		if m.GetSnapshotDone() != nil {
			s.Put(apitest.Twin("aa:bb", 4))
		}
		if m.GetChanged().GetSeq() == 4 {
			return
		}
	}
}

func TestHealthAndMetrics(t *testing.T) {
	ready := errors.New("mqtt: not connected")
	s := newSite(t, func(cfg *Config) { cfg.Ready = func() error { return ready } })
	if code, _, body := s.do(t, "GET", "/livez", "", nil); code != http.StatusOK || string(body) != "ok\n" {
		t.Errorf("livez: got %d %q", code, body)
	}
	if code, got := s.object(t, "GET", "/readyz", ""); code != http.StatusServiceUnavailable || got["message"] != "mqtt: not connected" {
		t.Errorf("readyz: got %d %v", code, got)
	}
	if code, _, body := s.do(t, "GET", "/metrics", "", nil); code != http.StatusOK || !strings.Contains(string(body), "doppel_answer 42") {
		t.Errorf("metrics: got %d %q", code, body)
	}
	if code, _, _ := s.do(t, "GET", "/debug/pprof/", "", nil); code != http.StatusNotFound {
		t.Errorf("pprof: got %d, want 404 unless asked for", code)
	}
	s = newSite(t, func(cfg *Config) { cfg.Pprof = true })
	if code, _, _ := s.do(t, "GET", "/readyz", "", nil); code != http.StatusOK {
		t.Errorf("readyz: got %d, want 200", code)
	}
	if code, _, _ := s.do(t, "GET", "/debug/pprof/cmdline", "", nil); code != http.StatusOK {
		t.Errorf("pprof: got %d, want 200", code)
	}
}

func TestRequestsAreLimited(t *testing.T) {
	s := newSite(t, nil)
	body := `{"ids":["` + strings.Repeat("x", maxBody) + `"]}`
	if code, got := s.object(t, "POST", "/v1/twins:batchGet", body); code != http.StatusRequestEntityTooLarge || got["code"] != 8.0 {
		t.Errorf("got %d %v, want 413", code, got)
	}
}

func TestNewNeedsItsParts(t *testing.T) {
	if _, err := New(Config{}); err == nil {
		t.Error("got no error")
	}
}
