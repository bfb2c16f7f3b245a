package web

import (
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	rpcstatus "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/doppel-iot/doppel/gateway/api/apitest"
	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
)

// grpcWeb is a client of gRPC-Web as a page would have one: a message is five bytes (a flag, its length) and its
// content; the frame with flag 0x80 holds the trailers. What came stands in calls[name].
const grpcWeb = `(() => {
	window.calls = {};
	const text = bytes => btoa(String.fromCharCode(...bytes));
	const head = (call, lines) => {
		for (const line of lines) {
			const at = line.indexOf(":");
			if (at > 0) call.trailers[line.slice(0, at).trim().toLowerCase()] = line.slice(at + 1).trim();
		}
	};
	window.grpcWeb = async (name, base, method, request) => {
		const body = Uint8Array.from(atob(request), c => c.charCodeAt(0));
		const framed = new Uint8Array(5 + body.length);
		new DataView(framed.buffer).setUint32(1, body.length);
		framed.set(body, 5);
		const stop = new AbortController();
		const call = window.calls[name] = {messages: [], trailers: {}, over: "", stop: () => stop.abort()};
		try {
			const answer = await fetch(base + method, {
				method: "POST", body: framed, signal: stop.signal,
				headers: {"content-type": "application/grpc-web+proto", "x-grpc-web": "1"},
			});
			call.type = answer.headers.get("content-type");
			head(call, [...answer.headers].map(([k, v]) => k + ":" + v));
			const reader = answer.body.getReader();
			let rest = new Uint8Array();
			for (;;) {
				const {done, value} = await reader.read();
				if (done) break;
				const all = new Uint8Array(rest.length + value.length);
				all.set(rest);
				all.set(value, rest.length);
				rest = all;
				while (rest.length >= 5) {
					const size = new DataView(rest.buffer, rest.byteOffset).getUint32(1);
					if (rest.length < 5 + size) break;
					const content = rest.slice(5, 5 + size);
					if (rest[0] & 0x80) head(call, new TextDecoder().decode(content).split("\r\n"));
					else call.messages.push(text(content));
					rest = rest.slice(5 + size);
				}
			}
			call.over = "end";
		} catch (e) {
			call.over = e.name;
		}
	};
})()`

// webCall begins a call in the page.
func webCall(t *testing.T, b *browser, name, base, method string, req proto.Message) {
	t.Helper()
	body, err := proto.Marshal(req)
	if err != nil {
		t.Fatal(err)
	}
	b.eval(fmt.Sprintf("void grpcWeb(%q, %q, %q, %q)", name, base, method, base64.StdEncoding.EncodeToString(body)))
}

// webMessage decodes the nth message of a call.
func webMessage(t *testing.T, b *browser, name string, n int, into proto.Message) {
	t.Helper()
	at := fmt.Sprintf("calls[%q].messages", name)
	b.until(fmt.Sprintf("message %d of %s", n, name), fmt.Sprintf("%s.length > %d", at, n), fmt.Sprintf("JSON.stringify(calls[%q])", name))
	text, _ := b.eval(fmt.Sprintf("%s[%d]", at, n)).(string)
	body, err := base64.StdEncoding.DecodeString(text)
	if err == nil {
		err = proto.Unmarshal(body, into)
	}
	if err != nil {
		t.Fatalf("message %d of %s: %v", n, name, err)
	}
}

func webOver(b *browser, name string) (how, grpcStatus any) {
	b.t.Helper()
	b.until("the end of "+name, fmt.Sprintf(`calls[%q].over !== ""`, name), fmt.Sprintf("JSON.stringify(calls[%q])", name))
	return b.eval(fmt.Sprintf("calls[%q].over", name)), b.eval(fmt.Sprintf(`calls[%q].trailers["grpc-status"]`, name))
}

// TestGRPCWebInABrowser, a real one: a call, an error with its details, and a watch that goes on until the page has
// enough.
func TestGRPCWebInABrowser(t *testing.T) {
	s := newSite(t, nil)
	s.Put(apitest.Twin(mac, 7))
	b := newBrowser(t, 800, 600)
	b.open(s.url + "/")
	b.until("the page", `document.readyState === "complete"`, `document.readyState`)
	b.eval(grpcWeb)

	webCall(t, b, "get", "", doppelv1.TwinService_GetTwin_FullMethodName, &doppelv1.GetTwinRequest{Id: mac})
	var twin doppelv1.Twin
	webMessage(t, b, "get", 0, &twin)
	if how, code := webOver(b, "get"); how != "end" || code != "0" || twin.GetId() != mac || twin.GetSeq() != 7 {
		t.Errorf("get: %v, status %v, %v", how, code, &twin)
	}
	if got := b.eval(`calls.get.type`); got != "application/grpc-web+proto" {
		t.Errorf("content type %v", got)
	}

	webCall(t, b, "wrong", "", doppelv1.TwinService_GetTwin_FullMethodName, &doppelv1.GetTwinRequest{Id: "a/b"})
	if how, code := webOver(b, "wrong"); how != "end" || code != "3" {
		t.Errorf("wrong id: %v, status %v; want 3", how, code)
	}
	details, _ := b.eval(`calls.wrong.trailers["grpc-status-details-bin"]`).(string)
	raw, err := base64.RawStdEncoding.DecodeString(strings.TrimRight(details, "="))
	var st rpcstatus.Status
	if err == nil {
		err = proto.Unmarshal(raw, &st)
	}
	var bad errdetails.BadRequest
	if err == nil && len(st.GetDetails()) == 1 {
		err = st.GetDetails()[0].UnmarshalTo(&bad)
	}
	if err != nil || len(bad.GetFieldViolations()) != 1 || bad.GetFieldViolations()[0].GetField() != "id" {
		t.Errorf("details %q: %v, %v", details, &st, err)
	}

	webCall(t, b, "watch", "", doppelv1.TwinService_WatchTwins_FullMethodName, &doppelv1.WatchTwinsRequest{Ids: []string{mac}})
	var snapshot, done, changed doppelv1.WatchTwinsResponse
	webMessage(t, b, "watch", 0, &snapshot)
	webMessage(t, b, "watch", 1, &done)
	if snapshot.GetSnapshot().GetSeq() != 7 || done.GetSnapshotDone() == nil {
		t.Errorf("watch: first %v, then %v", &snapshot, &done)
	}
	s.Put(apitest.Twin(mac, 8))
	webMessage(t, b, "watch", 2, &changed)
	if changed.GetChanged().GetSeq() != 8 || changed.GetResumeToken() == "" {
		t.Errorf("watch: changed %v", &changed)
	}
	b.eval(`calls.watch.stop()`)
	if how, _ := webOver(b, "watch"); how != "AbortError" {
		t.Errorf("the watch ends with %v", how)
	}
}

// TestOtherOrigins: a page of somebody else reads nothing here and changes nothing, in whatever way it asks.
func TestOtherOrigins(t *testing.T) {
	s := newSite(t, nil)
	s.Put(apitest.Twin(mac, 7))
	page := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		_, _ = io.WriteString(w, "<!doctype html><title>elsewhere</title>")
	}))
	t.Cleanup(page.Close)
	b := newBrowser(t, 800, 600)
	b.open(page.URL)
	b.until("the other page", `document.title === "elsewhere"`, `document.title`)
	b.eval(grpcWeb)
	webCall(t, b, "get", s.url, doppelv1.TwinService_GetTwin_FullMethodName, &doppelv1.GetTwinRequest{Id: mac})
	if how, _ := webOver(b, "get"); how != "TypeError" {
		t.Errorf("gRPC-Web from elsewhere ends with %v, want the browser's refusal", how)
	}
	// What needs no permission is sent: as a form would be, and the answer hidden.
	post := func(base, options string) any {
		return b.eval(fmt.Sprintf(`fetch(%q, {method: "POST", body: %q, %s}).then(r => r.type + " " + r.status, e => e.name)`,
			base+"/v1/alerts:silence", `{"filter": "true", "duration": "60s"}`, options))
	}
	const form = `headers: {"content-type": "application/x-www-form-urlencoded"}`
	if got := post(s.url, `mode: "no-cors", `+form); got != "opaque 0" {
		t.Errorf("a form from elsewhere: %v", got)
	}
	if got := b.eval(fmt.Sprintf(`fetch(%q).then(r => r.status, e => e.name)`, s.url+"/v1/twins")); got != "TypeError" {
		t.Errorf("twins read from elsewhere: %v", got)
	}
	if list, err := s.Silences(t.Context()); err != nil || len(list) != 0 {
		t.Errorf("a page of somebody else silenced alerts: %v, %v", list, err)
	}
	// The same from the page of this node is taken.
	b.open(s.url + "/")
	b.until("the page", `document.querySelector("#list-form") !== null`, `document.title`)
	if got := post("", form); got != "basic 200" {
		t.Errorf("a form of its own: %v", got)
	}
	if list, err := s.Silences(t.Context()); err != nil || len(list) != 1 {
		t.Errorf("its own page made no silence: %v, %v", list, err)
	}
}
