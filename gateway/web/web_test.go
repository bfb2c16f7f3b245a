package web

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/doppel-iot/doppel/actors/alert"
	"github.com/doppel-iot/doppel/actors/host"
	"github.com/doppel-iot/doppel/gateway/api/apitest"
	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
)

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
		"openAlerts": []any{}, "counters": nil, "owner": "", "epoch": "0", "quarantined": false, "stale": false, "divergeTime": nil, "convergence": nil,
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
	// The verbs still are verbs, of ids with colons, too; what is not served says so, and what is says what is missing.
	for call, want := range map[string]int{
		"POST /v1/twins/aa:bb:cc:dd:ee:ff:reset":       http.StatusNotImplemented,
		"POST /v1/twins/aa%3Abb:replay":                http.StatusNotImplemented,
		"POST /v1/twins/aa:bb/commands/restart":        http.StatusNotFound,
		"POST /v1/twins/aa:bb/commands/re:start":       http.StatusBadRequest,
		"POST /v1/alerts/0000000000000abc:acknowledge": http.StatusNotImplemented,
		"POST /v1/alerts:silence":                      http.StatusBadRequest,
		"POST /v1/rules:test":                          http.StatusBadRequest,
		"POST /v1/deadLetters:redrive":                 http.StatusNotImplemented,
		"GET /v1/twins/aa:bb/history":                  http.StatusBadRequest,
		"GET /v1/alerts/0000000000000abc:explain":      http.StatusNotImplemented,
		"GET /v1/deadLetters":                          http.StatusNotImplemented,
		"DELETE /v1/rules/A:b":                         http.StatusBadRequest,
		"PUT /v1/rules/a.b":                            http.StatusBadRequest,
	} {
		method, path, _ := strings.Cut(call, " ")
		body := ""
		if method == "POST" || method == "PUT" {
			body = "{}"
		}
		code, got := s.object(t, method, path, body)
		if rpc := map[int]float64{http.StatusNotImplemented: 12, http.StatusBadRequest: 3, http.StatusNotFound: 5}[want]; code != want || got["code"] != rpc {
			t.Errorf("%s: got %d %v, want %d", call, code, got, want)
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
		{"GET", "/v1/twins/aa:bb/history", "", 400, 3, "metric"},
		{"GET", "/v1/twins/aa:bb/history?metric=m", "", 404, 5, ""},
		{"GET", "/v1/twins/a/history?metric=m&interval=0s", "", 400, 3, "interval"},
		{"GET", "/v1/twins/" + strings.Repeat("x", 200), "", 400, 3, "id"},
		{"GET", "/v1/twins?filter=nope", "", 400, 3, "filter"},
		{"GET", "/v1/twins?pageToken=x", "", 400, 3, "page_token"},
		{"GET", "/v1/twins?nosuch=1", "", 400, 3, "nosuch"},
		{"GET", "/v1/twins?pageSize=many", "", 400, 3, "page_size"},
		{"GET", "/v1/twins?readMask=no_such", "", 400, 3, "read_mask"},
		{"GET", "/v1/twins/a?time=yesterday", "", 400, 3, "time"},
		{"GET", "/v1/twins/a?version=-1", "", 400, 3, "version"},
		{"GET", "/v1/twins/a/history?metric=m&interval=30", "", 400, 3, "interval"},
		{"PATCH", "/v1/twins/a?allowMissing=perhaps", "{}", 400, 3, "allow_missing"},
		{"GET", "/v1/twins?heartbeat=1s", "", 400, 3, "heartbeat"},
		{"GET", "/v1/twins/a?nosuch.x=1", "", 400, 3, "nosuch.x"},
		{"GET", "/v1/alerts/00000000000000ff:explain?nosuch=1", "", 400, 3, "nosuch"},
		{"DELETE", "/v1/twins/a:b?nosuch=1", "", 400, 3, "nosuch"},
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
	if code, header, body := s.do(t, "PUT", "/v1/twins/a:b", "", nil); code != http.StatusMethodNotAllowed || header.Get("Allow") != "DELETE, GET, PATCH" || !strings.Contains(string(body), `"code":`) {
		t.Errorf("PUT /v1/twins/a:b: got %d, %q, %s, want 405 with what is allowed, as JSON", code, header.Get("Allow"), body)
	}
	s.Fail(host.ErrUnavailable)
	for _, path := range []string{"/v1/twins/a", "/v1/twins", "/v1/status", "/v1/twins:watch", "/v1/alerts:watch"} {
		if status, got := s.object(t, "GET", path, ""); status != 503 || got["code"] != 14.0 {
			t.Errorf("%s: got %d %v, want 503", path, status, got)
		}
	}
}

// TestMasksInTheQuery: paths are taken in both spellings of fields, and as they are where they name tags, metrics
// or properties.
func TestMasksInTheQuery(t *testing.T) {
	s := newSite(t, nil)
	tw := apitest.Twin("a", 7)
	tw.Tags = map[string]string{"site-id": "x", "a_b": "y", "aB": "z"}
	s.Put(tw)
	for mask, want := range map[string]string{
		"last_seen":           "lastSeen",
		"lastSeen":            "lastSeen",
		"id,last_seen":        "id lastSeen",
		"id , version":        "id version",
		"tags.site-id":        "tags=site-id",
		"tags.a_b,tags.aB":    "tags=aB,a_b",
		"version&readMask=id": "id version",
	} {
		_, got := s.object(t, "GET", "/v1/twins/a?readMask="+strings.ReplaceAll(mask, " ", "%20"), "")
		var there []string
		for _, name := range []string{"id", "lastSeen", "version", "createTime"} {
			if v := got[name]; v != nil && v != "" && v != "0" {
				there = append(there, name)
			}
		}
		if tags, _ := got["tags"].(map[string]any); len(tags) > 0 {
			there = append(there, "tags="+strings.Join(slices.Sorted(maps.Keys(tags)), ","))
		}
		if text := strings.Join(there, " "); text != want {
			t.Errorf("readMask=%s: got %s, want %s", mask, text, want)
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

// TestBodyIsJSON: curl says that what it posts is a form, and some clients say nothing.
func TestBodyIsJSON(t *testing.T) {
	s := newSite(t, nil)
	s.Put(apitest.Twin("a", 2))
	for _, contentType := range []string{"", "application/json", "application/x-www-form-urlencoded"} {
		code, _, body := s.do(t, "POST", "/v1/twins:batchGet", contentType, []byte(`{"ids":["a"]}`))
		if code != http.StatusOK || !strings.Contains(string(body), `"id":"a"`) {
			t.Errorf("content type %q: got %d %s", contentType, code, body)
		}
	}
	if code, _, _ := s.do(t, "POST", "/v1/twins:batchGet", "text/xml", []byte(`<ids/>`)); code != http.StatusUnsupportedMediaType {
		t.Errorf("text/xml: got %d, want 415", code)
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

func TestOtherSitesMayNotWrite(t *testing.T) {
	s := newSite(t, nil)
	for origin, want := range map[string]int{"": http.StatusOK, s.url: http.StatusOK, "http://elsewhere.example": http.StatusForbidden} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.url+"/v1/twins:batchGet", strings.NewReader(`{"ids":["a"]}`))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", "application/json")
		if origin != "" {
			req.Header.Set("Origin", origin)
		}
		resp, err := s.client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != want {
			t.Errorf("from %q: got %d, want %d", origin, resp.StatusCode, want)
		}
	}
}

// TestBadBodies: what is no JSON of the message is the caller's mistake, with the field that is wrong.
func TestBadBodies(t *testing.T) {
	s := newSite(t, nil)
	s.Put(apitest.Twin("pump-1", 1))
	for body, want := range map[string]string{
		`[null]`: "body", `null]`: "body", `{"ids":7}`: "body", `{"nosuch":1}`: "nosuch", "\xff": "body",
	} {
		code, got := s.object(t, "POST", "/v1/twins:batchGet", body)
		text, _ := got["message"].(string)
		if code != http.StatusBadRequest || got["code"] != 3.0 || !strings.Contains(text, want) {
			t.Errorf("%q: got %d %v, want 400 and a message about %s", body, code, got, want)
		}
	}
	if code, got := s.object(t, "POST", "/v1/twins:batchGet", ""); code != http.StatusOK {
		t.Errorf("no body: got %d %v, want that of an empty message", code, got)
	}
	for body, want := range map[string]int{"": http.StatusOK, "{ }\n": http.StatusOK, `{"ids":["x"]}`: http.StatusBadRequest, "x": http.StatusBadRequest} {
		if code, got := s.object(t, "GET", "/v1/twins/pump-1", body); code != want {
			t.Errorf("a call without a body, with %q: got %d %v, want %d", body, code, got, want)
		}
	}
	if code, got := s.object(t, "POST", "/v1/silences/x:expire", "{}"); code == http.StatusInternalServerError {
		t.Errorf("a verb without a body: got %d %v", code, got)
	}
	for _, path := range []string{"/v1/twins/%ff", "/v1/twins?filter=%ff"} {
		if code, got := s.object(t, "GET", path, ""); code != http.StatusBadRequest {
			t.Errorf("%s: got %d %v, want 400", path, code, got)
		}
	}
}

// TestCompressedBodies: a body may come as gzip; what only says so is the caller's mistake.
func TestCompressedBodies(t *testing.T) {
	s := newSite(t, nil)
	s.Put(apitest.Twin("a", 1))
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	_, _ = z.Write([]byte(`{"ids":["a"]}`))
	_ = z.Close()
	bomb := bytes.Buffer{}
	z = gzip.NewWriter(&bomb)
	_, _ = z.Write(bytes.Repeat([]byte(" "), 64<<20))
	_ = z.Close()
	for _, tt := range []struct {
		name string
		body []byte
		want int
	}{
		{"whole", packed.Bytes(), http.StatusOK},
		{"cut", packed.Bytes()[:packed.Len()-4], http.StatusBadRequest},
		{"plain", []byte(`{"ids":["a"]}`), http.StatusBadRequest},
		{"bomb", bomb.Bytes(), http.StatusTooManyRequests},
	} {
		req := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/v1/twins:batchGet", bytes.NewReader(tt.body))
		req.Header.Set("Content-Type", "application/json")
		req.Header.Set("Content-Encoding", "gzip")
		w := httptest.NewRecorder()
		s.handler.ServeHTTP(w, req)
		if w.Code != tt.want || tt.want == http.StatusOK && !strings.Contains(w.Body.String(), `"a"`) {
			t.Errorf("%s: got %d %s, want %d", tt.name, w.Code, w.Body, tt.want)
		}
	}
}
