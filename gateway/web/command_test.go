package web

import (
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/doppel-iot/doppel/gateway/api/apitest"
)

func TestCommandAsJSON(t *testing.T) {
	s := newSite(t, nil)
	s.Put(apitest.Twin("aa:bb", 2))
	s.Put(apitest.Twin("off", 1))
	code, got := s.object(t, "POST", "/v1/twins/aa:bb/commands/Set.speed_1-2", `{"body":{"speed":[3]},"timeout":"5s","queueIfOffline":true}`)
	want := map[string]any{"status": 200.0, "body": map[string]any{"device": "aa:bb", "told": map[string]any{"speed": []any{3.0}}}}
	if diff := cmp.Diff(want, got); code != http.StatusOK || diff != "" {
		t.Errorf("got %d (-want +got)\n%s", code, diff)
	}
	for _, tc := range []struct {
		path, body string
		code       int
	}{
		{"aa:bb/commands/ping", ``, http.StatusOK},
		{"aa:bb/commands/ping", `{}`, http.StatusOK},
		{"aa:bb/commands/ping", `{"body":`, http.StatusBadRequest},
		{"aa:bb/commands/ping", `{"boddy":1}`, http.StatusBadRequest},
		{"aa:bb/commands/ping", `{"timeout":"11m0s"}`, http.StatusBadRequest},
		{"aa:bb/commands/ping", `{"timeout":"soon"}`, http.StatusBadRequest},
		{"aa:bb/commands/ping", `{"body":"` + strings.Repeat("x", 64<<10) + `"}`, http.StatusBadRequest},
		{"aa:bb/commands/p%2Bng", `{}`, http.StatusBadRequest},
		{"aa:bb/commands/a/b", `{}`, http.StatusNotFound},
		{"off/commands/ping", `{}`, http.StatusBadRequest},
		{"nobody/commands/ping", `{}`, http.StatusNotFound},
		{"aa:bb/commands/mute", `{"timeout":"0.01s"}`, http.StatusGatewayTimeout},
	} {
		if code, got := s.object(t, "POST", "/v1/twins/"+tc.path, tc.body); code != tc.code {
			t.Errorf("%s %.40s: got %d %v, want %d", tc.path, tc.body, code, got, tc.code)
		}
	}
}

func TestWaits(t *testing.T) {
	for path, want := range map[string]bool{
		"/v1/twins/a/commands/ping":            true,
		"/doppel.v1.TwinService/InvokeCommand": true,
		"/v1/twins/commands":                   false,
		"/v1/twins/a":                          false,
		"/commands/x":                          false,
		"/doppel.v1.TwinService/GetTwin":       false,
	} {
		if got := waits(path); got != want {
			t.Errorf("%s: %t, want %t", path, got, want)
		}
	}
}
