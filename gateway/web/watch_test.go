package web

import (
	"bufio"
	"context"
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/doppel-iot/doppel/actors/alert"
	"github.com/doppel-iot/doppel/gateway/api/apitest"
)

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
