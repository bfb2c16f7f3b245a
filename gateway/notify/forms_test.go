package notify

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/timestamppb"

	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
)

func file(t *testing.T, content string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

// one delivers a transition to a sink at r and gives what came.
func one(t *testing.T, r *receiver, s Sink, a *doppelv1.Alert) received {
	t.Helper()
	s.Name, s.URL = "ops", r.URL+"/hook"
	f := newFixture(t, s)
	f.start()
	f.topic.put(7, 1234, a)
	poll(t, "it is told", func() bool { return len(r.all()) == 1 })
	f.stop()
	return r.all()[0]
}

// TestCloudEvents: both modes say the same of a transition, and what doppel.alerts says of it.
func TestCloudEvents(t *testing.T) {
	a := alarm("pump-1", firing)
	a.UpdateTime = timestamppb.New(time.Now().Add(-time.Minute).Truncate(time.Millisecond))
	want := map[string]string{
		"specversion": "1.0", "id": "00000000000000aa/7:1234:0", "source": "urn:test", "type": "doppel.v1.alert.firing", "subject": "pump-1",
		"time": a.GetUpdateTime().AsTime().Format(time.RFC3339Nano),
	}
	check := func(t *testing.T, data []byte) {
		t.Helper()
		got := &doppelv1.Alert{}
		if err := protojson.Unmarshal(data, got); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(a, got, protocmp.Transform()); diff != "" {
			t.Errorf("alert (-want +got):\n%s", diff)
		}
	}
	t.Run("structured", func(t *testing.T) {
		got := one(t, newReceiver(t), Sink{Kind: Webhook}, a)
		var e map[string]json.RawMessage
		if err := json.Unmarshal(got.body, &e); err != nil {
			t.Fatal(err)
		}
		check(t, e["data"])
		delete(e, "data")
		attributes := map[string]string{}
		for name, value := range e {
			var s string
			if err := json.Unmarshal(value, &s); err != nil {
				t.Fatal(err)
			}
			attributes[name] = s
		}
		want := map[string]string{"datacontenttype": "application/json", "specversion": want["specversion"], "id": want["id"], "source": want["source"], "type": want["type"], "subject": want["subject"], "time": want["time"]}
		if diff := cmp.Diff(want, attributes); diff != "" {
			t.Errorf("attributes (-want +got):\n%s", diff)
		}
		if ct := got.header.Get("Content-Type"); ct != "application/cloudevents+json; charset=utf-8" {
			t.Errorf("content type %s", ct)
		}
	})
	t.Run("binary", func(t *testing.T) {
		got := one(t, newReceiver(t), Sink{Kind: Webhook, Mode: "binary"}, a)
		check(t, got.body)
		for name, value := range want {
			if is := got.header.Get("ce-" + name); is != value {
				t.Errorf("ce-%s: %q, want %q", name, is, value)
			}
		}
		if ct := got.header.Get("Content-Type"); ct != "application/json" {
			t.Errorf("content type %s", ct)
		}
	})
}

// TestSecrets: they come from files, without the line's end, and sign what is sent.
func TestSecrets(t *testing.T) {
	a := alarm("pump-1", firing)
	got := one(t, newReceiver(t), Sink{Kind: Webhook, BearerTokenFile: file(t, "token\n"), HMACSecretFile: file(t, "key\n"), Headers: map[string]string{"X-Team": "ops"}}, a)
	if is := got.header.Get("Authorization"); is != "Bearer token" {
		t.Errorf("authorization %q", is)
	}
	if is := got.header.Get("X-Team"); is != "ops" {
		t.Errorf("header %q", is)
	}
	var at, v1 string
	for part := range strings.SplitSeq(got.header.Get("Doppel-Signature"), ",") {
		switch name, value, _ := strings.Cut(part, "="); name {
		case "t":
			at = value
		case "v1":
			v1 = value
		}
	}
	m := hmac.New(sha256.New, []byte("key"))
	m.Write([]byte(at + "." + string(got.body)))
	if want := hex.EncodeToString(m.Sum(nil)); v1 != want || at == "" {
		t.Errorf("signature %q, want v1=%s", got.header.Get("Doppel-Signature"), want)
	}
	got = one(t, newReceiver(t), Sink{Kind: Webhook, Username: "me", PasswordFile: file(t, "pass")}, a)
	r := http.Request{Header: got.header}
	if user, password, _ := r.BasicAuth(); user != "me" || password != "pass" {
		t.Errorf("user %q, password %q", user, password)
	}
	for name, content := range map[string]string{"empty": " \n", "gone": ""} {
		secretFile := file(t, content)
		if name == "gone" {
			if err := os.Remove(secretFile); err != nil {
				t.Fatal(err)
			}
		}
		quiet := newReceiver(t)
		f := newFixture(t, Sink{Name: "ops", Kind: Webhook, URL: quiet.URL, BearerTokenFile: secretFile})
		f.start()
		f.topic.put(0, 1, a)
		poll(t, "it fails", func() bool { return f.count("ops", Failed) > 0 })
		if err := os.WriteFile(secretFile, []byte("here"), 0o600); err != nil {
			t.Fatal(err)
		}
		poll(t, "it is told once there is one", func() bool { return f.count("ops", Delivered) == 1 })
		f.stop()
	}
}

// TestRedirectsAreNotFollowed: they would take secrets elsewhere.
func TestRedirectsAreNotFollowed(t *testing.T) {
	elsewhere, r := newReceiver(t), newReceiver(t)
	r.does(func(n int, w http.ResponseWriter, req *http.Request) bool {
		if n == 1 {
			http.Redirect(w, req, elsewhere.URL, http.StatusTemporaryRedirect)
		}
		return n == 1
	})
	f := newFixture(t, Sink{Name: "ops", Kind: Webhook, URL: r.URL})
	f.start()
	f.topic.put(0, 1, alarm("a", firing))
	poll(t, "it is told here", func() bool { return f.count("ops", Delivered) == 1 })
	if len(elsewhere.all()) != 0 {
		t.Error("it was told elsewhere")
	}
}

// TestAuthority: a receiver behind an authority of one's own.
func TestAuthority(t *testing.T) {
	s := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) }))
	defer s.Close()
	ca := file(t, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})))
	f := newFixture(t, Sink{Name: "known", Kind: Webhook, URL: s.URL, CAFile: ca}, Sink{Name: "unknown", Kind: Webhook, URL: s.URL})
	f.start()
	f.topic.put(0, 1, alarm("a", firing))
	poll(t, "one is told, the other is not", func() bool { return f.count("known", Delivered) == 1 && f.count("unknown", Failed) > 0 })
}

// posted are the alerts that an Alertmanager was told, in order.
func posted(t *testing.T, r *receiver) (all []postableAlert) {
	t.Helper()
	for _, g := range r.all() {
		if g.path != "/am/api/v2/alerts" || g.header.Get("Content-Type") != "application/json" {
			t.Errorf("POST %s with %s", g.path, g.header.Get("Content-Type"))
		}
		var some []postableAlert
		if err := json.Unmarshal(g.body, &some); err != nil {
			t.Fatal(err)
		}
		all = append(all, some...)
	}
	return all
}

// TestAlertmanager: an alert that fires is told again before it ends by itself, one whose labels change ends
// under the old ones, and one that is over ends.
func TestAlertmanager(t *testing.T) {
	r := newReceiver(t)
	f := newFixture(t, Sink{Name: "am", Kind: Alertmanager, URL: r.URL + "/am/", ResendEvery: 100 * time.Millisecond})
	f.start()
	tags := map[string]string{"site": "brno", "device": "x", "9-line": "1", "__a": "b"}
	a := alarm("pump-1", firing, func(a *doppelv1.Alert) { a.Tags = tags })
	shadow := alarm("shadow", firing, func(a *doppelv1.Alert) { a.Shadow = true })
	f.mu.Lock()
	f.open = []*doppelv1.Alert{a, alarm("pending", pending), alarm("over", resolved), shadow}
	f.mu.Unlock()
	poll(t, "what fires is told again and again", func() bool { return len(posted(t, r)) > 3 })
	got := posted(t, r)[1]
	want := postableAlert{
		Labels: map[string]string{
			"alertname": "hot", "device": "pump-1", "severity": "warning", "metric": "temperature",
			"site": "brno", "tag_device": "x", "tag_9_line": "1", "tag___a": "b",
		},
		Annotations: map[string]string{"summary": "hot on pump-1", "description": "it is hot", "alert_id": "00000000000000aa", "value": "91.5", "score": "4.25"},
		StartsAt:    a.GetFireTime().AsTime(), EndsAt: got.EndsAt,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if left := got.EndsAt.Sub(r.all()[1].at); left < 300*time.Millisecond || left > 400*time.Millisecond {
		t.Errorf("it ends in %v, want four times as late as it is told again", left)
	}
	critical := alarm("pump-1", firing, func(c *doppelv1.Alert) {
		c.Severity, c.Tags, c.FireTime, c.AcknowledgedBy = doppelv1.Severity_CRITICAL, tags, a.GetFireTime(), "eva"
	})
	f.mu.Lock()
	f.open = nil
	f.mu.Unlock()
	f.topic.put(0, 5, critical)
	poll(t, "it is told", func() bool { return f.count("am", Delivered) == 1 })
	all := posted(t, r)
	before, after := all[len(all)-2], all[len(all)-1]
	if before.Labels["severity"] != "warning" || before.EndsAt.After(time.Now()) || !before.StartsAt.Equal(a.GetFireTime().AsTime()) {
		t.Errorf("under the old labels: %+v", before)
	}
	if after.Labels["severity"] != "critical" || after.EndsAt.Before(time.Now()) || after.Annotations["acknowledged_by"] != "eva" {
		t.Errorf("under the new labels: %+v", after)
	}
	over := alarm("pump-1", resolved, func(c *doppelv1.Alert) {
		c.Severity, c.Tags, c.FireTime = doppelv1.Severity_CRITICAL, tags, a.GetFireTime()
	})
	f.topic.put(0, 6, over)
	poll(t, "it is told", func() bool { return f.count("am", Delivered) == 2 })
	all = posted(t, r)
	if end := all[len(all)-1]; !end.EndsAt.Equal(over.GetResolveTime().AsTime()) || !cmp.Equal(end.Labels, after.Labels) {
		t.Errorf("over: %+v", end)
	}
}

// TestOneRefusedOfMany: an Alertmanager that refuses a request is told one by one.
func TestOneRefusedOfMany(t *testing.T) {
	r := newReceiver(t)
	f := newFixture(t, Sink{Name: "am", Kind: Alertmanager, URL: r.URL + "/am"})
	hold := make(chan struct{})
	r.does(func(n int, w http.ResponseWriter, _ *http.Request) bool {
		if n == 1 {
			<-hold // so that the others wait together
			return false
		}
		if body := r.all()[n-1].body; strings.Contains(string(body), `"bad"`) {
			http.Error(w, "bad label", http.StatusBadRequest)
			return true
		}
		return false
	})
	f.start()
	f.topic.put(0, 1, alarm("first", firing))
	poll(t, "the first one is told", func() bool { return len(r.all()) == 1 })
	for i, device := range []string{"a", "bad", "c"} {
		f.topic.put(0, int64(2+i), alarm(device, firing, func(a *doppelv1.Alert) { a.Id = device }))
	}
	close(hold)
	poll(t, "the others are", func() bool { return f.count("am", Delivered) == 3 && f.count("am", Dropped) == 1 })
}

// TestParse: a file of sinks, and what may be wrong with one.
func TestParse(t *testing.T) {
	nearest := func(string, []string) string { return "url" }
	sinks, err := Parse([]byte(`
sinks:
- name: ops
  kind: webhook
  url: https://example.org/hook
  filter: severity == "CRITICAL"
  min_severity: warning
  send_resolved: false
  mode: binary
  headers: {X-Team: ops}
  hmac_secret_file: /run/secrets/hook
  timeout: 3s
  max_age: 1h
- {name: am, kind: alertmanager, url: "http://am:9093", username: u, password_file: /p}
`), nearest)
	if err != nil {
		t.Fatal(err)
	}
	if len(sinks) != 2 || sinks[0].Timeout != 3*time.Second || sinks[0].MaxAge != time.Hour || sinks[0].resolved() || sinks[0].severity != doppelv1.Severity_WARNING ||
		!sinks[1].resolved() || sinks[1].Timeout != 10*time.Second || sinks[1].ResendEvery != time.Minute || sinks[1].MaxAge != 24*time.Hour {
		t.Errorf("got %+v", sinks)
	}
	for text, want := range map[string]string{
		"": "is empty", "sinks:": "has no sinks", "- a": "line 1: want a mapping", "sinkz: []": "line 1: sinkz is not a setting",
		"sinks: [{urll: x}]": "urll is not a setting; did you mean url?",
		"sinks: [x]":         "want a mapping",
		"sinks: [{name: A, kind: webhook, url: http://x}]":                                                      "name: want lower-case",
		"sinks: [{name: a, kind: pager, url: http://x}]":                                                        `kind: "pager" is neither`,
		"sinks: [{name: a, kind: webhook}]":                                                                     "url: ",
		"sinks: [{name: a, kind: webhook, url: 'ftp://x'}]":                                                     "url: ",
		"sinks: [{name: a, kind: webhook, url: 'http://u:secret@x'}]":                                           "url: holds a user",
		"sinks: [{name: a, kind: webhook, url: http://x, filter: 'x y'}]":                                       "filter: 1:3",
		"sinks: [{name: a, kind: webhook, url: http://x, min_severity: high}]":                                  "min_severity: ",
		"sinks: [{name: a, kind: webhook, url: http://x, mode: xml}]":                                           "mode: ",
		"sinks: [{name: a, kind: alertmanager, url: http://x, mode: binary}]":                                   "only a webhook",
		"sinks: [{name: a, kind: webhook, url: http://x, username: u}]":                                         "give both",
		"sinks: [{name: a, kind: webhook, url: http://x, username: u, password_file: p, bearer_token_file: b}]": "give one of them",
		"sinks: [{name: a, kind: webhook, url: http://x, headers: {content-type: x}}]":                          "set by the delivery itself",
		"sinks: [{name: a, kind: webhook, url: http://x, timeout: -1s}]":                                        "must not be negative",
		"sinks: [{name: a, kind: webhook, url: http://x}, {name: a, kind: webhook, url: http://y}]":             "two of that name",
	} {
		if _, err := Parse([]byte(text), nearest); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
	_, err = Parse([]byte("sinks: [{name: a, kind: webhook, url: 'http://u:secret@x'}]"), nearest)
	if strings.Contains(err.Error(), "secret") {
		t.Errorf("it tells a password: %v", err)
	}
}
