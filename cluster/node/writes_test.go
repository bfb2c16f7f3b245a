package node_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/eclipse/paho.golang/paho"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/doppel-iot/doppel/cluster/node/nodetest"
	"github.com/doppel-iot/doppel/gateway/cli"
	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
)

// doppel runs a client command against a node.
func doppel(t *testing.T, n *nodetest.Node, stdin string, args ...string) (stdout, stderr string, err error) {
	t.Helper()
	root := cli.Root()
	var out, errs bytes.Buffer
	root.SetArgs(append(args, "--addr", n.Addresses.GRPC))
	root.SetIn(strings.NewReader(stdin))
	root.SetOut(&out)
	root.SetErr(&errs)
	err = root.ExecuteContext(t.Context())
	return out.String(), errs.String(), err
}

func must(t *testing.T, n *nodetest.Node, args ...string) string {
	t.Helper()
	out, errs, err := doppel(t, n, "", args...)
	if err != nil {
		t.Fatalf("doppel %v: %v\n%s", args, err, errs)
	}
	return out
}

// toldLast waits for the newest desired message of a device.
func toldLast(t *testing.T, d *nodetest.Device, want string) *paho.Publish {
	t.Helper()
	var last *paho.Publish
	if !nodetest.Poll(func() bool {
		if got := d.Received(d.Topic("desired")); len(got) > 0 {
			last = got[len(got)-1]
		}
		return last != nil && string(last.Payload) == want
	}) {
		t.Fatalf("device %s was told %v, want %s", d.ID, last, want)
	}
	return last
}

// TestDesiredReachesTheDevice: retained at the embedded broker, told again when the device is back, and when the
// broker has begun anew; gone with the twin.
func TestDesiredReachesTheDevice(t *testing.T) {
	cfg := nodetest.Embedded(t)
	n := nodetest.Start(t, cfg)
	d := n.Device("pump-1")
	d.Send(&paho.Publish{Topic: d.Topic("status"), Payload: []byte(`{"online":true,"boot":1,"session":1}`), Retain: true})
	n.Await("pump-1", "online", (*doppelv1.Twin).GetOnline)
	must(t, n, "twin", "set-desired", "pump-1", `{"rate":10}`)
	diverged := `{"version":1,"desired":{"rate":10},"delta":{"rate":10}}`
	p := toldLast(t, d, diverged)
	if p.QoS != 1 || p.Properties.ContentType != "application/json" {
		t.Errorf("QoS %d, content type %q", p.QoS, p.Properties.ContentType)
	}
	if p := toldLast(t, n.Device("pump-1"), diverged); !p.Retain {
		t.Error("a later subscriber got it, but not as retained")
	}
	d.Send(&paho.Publish{Topic: d.Topic("reported"), Payload: []byte(`{"rate":10.0}`)})
	converged := `{"version":1,"desired":{"rate":10},"delta":{}}`
	toldLast(t, d, converged)
	if tw := n.Twin("pump-1"); tw.GetConvergence() == nil || tw.GetDivergeTime() != nil {
		t.Errorf("converged after %v, diverges since %v", tw.GetConvergence(), tw.GetDivergeTime())
	}
	before := len(d.Received(d.Topic("desired")))
	d.Send(&paho.Publish{Topic: d.Topic("status"), Payload: []byte(`{"online":true,"boot":1,"session":2}`), Retain: true})
	if !nodetest.Poll(func() bool { return len(d.Received(d.Topic("desired"))) == before+1 }) {
		t.Error("not told again when the device is back")
	}

	n.Stop()
	n = nodetest.Start(t, cfg) // its broker knows nothing any more
	d = n.Device("pump-1")
	toldLast(t, d, converged)
	must(t, n, "twin", "delete", "pump-1")
	if !nodetest.Poll(func() bool {
		got := d.Received(d.Topic("desired"))
		return len(got[len(got)-1].Payload) == 0
	}) {
		t.Error("the device is not told that there is nothing any more")
	}
	if n.Twin("pump-1") != nil {
		t.Error("the twin is still there")
	}
	late := n.Device("pump-1")
	late.Telemetry(`{"boot":1,"seq":1,"metrics":{"t":20}}`)
	n.Await("pump-1", "fresh", func(tw *doppelv1.Twin) bool { return tw.GetCounters().GetApplied() == 1 && tw.GetDesired() == nil })
	if got := late.Received(late.Topic("desired")); len(got) != 0 {
		t.Errorf("a fresh device got %v", got)
	}
}

// TestTwinsOverJSON: PATCH and DELETE as every HTTP client makes them.
func TestTwinsOverJSON(t *testing.T) {
	n := nodetest.Start(t, nodetest.Embedded(t))
	call := func(method, path, body string) (int, map[string]any) {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), method, "http://"+n.Addresses.HTTP+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", "application/json")
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		text, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		var got map[string]any
		if err := json.Unmarshal(text, &got); err != nil {
			t.Fatalf("%s %s: %d %s", method, path, resp.StatusCode, text)
		}
		return resp.StatusCode, got
	}
	if code, got := call("PATCH", "/v1/twins/aa:bb:cc", `{"desired":{"rate":10}}`); code != 404 {
		t.Errorf("no twin: %d %v", code, got)
	}
	code, got := call("PATCH", "/v1/twins/aa:bb:cc?allowMissing=true", `{"desired":{"rate":10,"maxRate":5},"tags":{"site":"brno"}}`)
	if code != 200 || got["desiredVersion"] != "1" || got["delta"].(map[string]any)["rate"] != 10.0 {
		t.Fatalf("made: %d %v", code, got)
	}
	etag := got["etag"]
	code, got = call("PATCH", "/v1/twins/aa:bb:cc?updateMask=desired.rate,desired.maxRate,tags.line", `{"desired":{"maxRate":7},"tags":{"line":"3"}}`)
	want := map[string]any{"maxRate": 7.0}
	if diff := cmp.Diff(want, got["desired"]); code != 200 || diff != "" {
		t.Errorf("by a mask: %d %v", code, diff)
	}
	if diff := cmp.Diff(map[string]any{"site": "brno", "line": "3"}, got["tags"]); diff != "" {
		t.Errorf("tags (-want +got):\n%s", diff)
	}
	for _, tc := range []struct {
		method, query, body string
		code                int
	}{
		{"PATCH", fmt.Sprintf("?etag=%v", etag), `{"tags":{"a":"b"}}`, 409},
		{"PATCH", "?updateMask=online", `{}`, 400},
		{"PATCH", "", `{"desired":[1]}`, 400},
		{"PATCH", "", `{"desired"`, 400},
		{"DELETE", fmt.Sprintf("?etag=%v", etag), ``, 409},
	} {
		if code, got := call(tc.method, "/v1/twins/aa:bb:cc"+tc.query, tc.body); code != tc.code {
			t.Errorf("%s %s %s: %d %v, want %d", tc.method, tc.query, tc.body, code, got, tc.code)
		}
	}
	if code, got := call("DELETE", "/v1/twins/aa:bb:cc", ""); code != 200 || len(got) != 0 {
		t.Errorf("delete: %d %v", code, got)
	}
	if code, got := call("GET", "/v1/twins/aa:bb:cc", ""); code != 404 {
		t.Errorf("deleted: %d %v", code, got)
	}
}

// TestTwinCommands: what people type.
func TestTwinCommands(t *testing.T) {
	n := nodetest.Start(t, nodetest.Embedded(t))
	_, _, err := doppel(t, n, "", "twin", "set-desired", "pump-1", `{"rate":10}`)
	if status.Code(err) != codes.NotFound {
		t.Errorf("no such twin: %v", err)
	}
	must(t, n, "twin", "set-desired", "pump-1", `{"rate":10,"old":1}`, "--create")
	must(t, n, "twin", "set-desired", "pump-1", `{"old":null}`)
	must(t, n, "twin", "set-tags", "pump-1", "site=brno", "line=3")
	out := must(t, n, "twin", "tag", "pump-1", "floor=2", "line-")
	for _, want := range []string{`Desired      {"rate":10} (version 2)`, `Delta        {"rate":10} since `, "Tags         floor=2 site=brno"} {
		if !strings.Contains(out, want) {
			t.Errorf("want %q in\n%s", want, out)
		}
	}
	for _, args := range [][]string{
		{"set-desired", "pump-1", "[1]"}, {"set-desired", "pump-1"}, {"tag", "pump-1"}, {"tag", "pump-1", "=x"}, {"set-tags", "pump-1", "a-"}, {"import", "nowhere.csv"},
	} {
		if _, _, err := doppel(t, n, "", append([]string{"twin"}, args...)...); err == nil || status.Code(err) != codes.Unknown {
			t.Errorf("%v: %v, want wrong usage", args, err)
		}
	}
	if _, _, err := doppel(t, n, "", "twin", "delete", "pump-1", "--etag", "0011223344556677"); status.Code(err) != codes.Aborted {
		t.Errorf("delete with an old etag: %v", err)
	}
	if out := must(t, n, "twin", "delete", "pump-1"); out != "deleted pump-1\n" {
		t.Errorf("delete says %q", out)
	}
	if _, _, err := doppel(t, n, "", "twin", "delete", "pump-1"); status.Code(err) != codes.NotFound {
		t.Errorf("deleted twice: %v", err)
	}
}

// TestImport: many twins from a file of any kind; bad lines are named.
func TestImport(t *testing.T) {
	n := nodetest.Start(t, nodetest.Embedded(t))
	ctx, cancel := context.WithTimeout(t.Context(), nodetest.Patience)
	defer cancel()
	var table strings.Builder
	table.WriteString("\ufeffid,site,line\n")
	for i := range 500 {
		fmt.Fprintf(&table, "pump-%d,brno,%d\n", i, i%3)
	}
	table.WriteString("pump 1,brno,1\npump-7,brno\n\"pump-8\",\"a, b\",\npump-9,\"x\"y,1\npump-0,oslo,\n")
	path := filepath.Join(t.TempDir(), "fleet.csv")
	if err := os.WriteFile(path, []byte(table.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, dry := range []bool{true, false} {
		args := []string{"twin", "import", path}
		want := "imported 502 twins, 3 bad lines\n"
		if dry {
			args, want = append(args, "--dry-run"), "would import 502 twins, 3 bad lines\n"
		}
		out, errs, err := doppel(t, n, "", args...)
		if err == nil || status.Code(err) != codes.Unknown || out != want {
			t.Errorf("import says %q, %v; want %q", out, err, want)
		}
		for _, line := range []string{path + ":502: ", path + ":503: 2 fields", path + ":505: "} {
			if !strings.Contains(errs, line) {
				t.Errorf("want %q in\n%s", line, errs)
			}
		}
		list, err := n.Twins().ListTwins(ctx, &doppelv1.ListTwinsRequest{Filter: `tags["site"] == "brno" && tags["line"] == "2"`})
		if err != nil || dry != (list.GetTotalSize() == 0) || !dry && list.GetTotalSize() != 165 {
			t.Errorf("dry %t: %d twins, %v", dry, list.GetTotalSize(), err)
		}
	}
	if diff := cmp.Diff(map[string]string{"site": "a, b", "line": "2"}, n.Twin("pump-8").GetTags()); diff != "" {
		t.Errorf("pump-8 (-want +got):\n%s", diff)
	}
	if got := n.Twin("pump-0").GetTags()["site"]; got != "oslo" {
		t.Errorf("the last row of a twin has %q", got)
	}

	lines := `{"id":"pump-1","tags":{"line":null,"floor":"1"},"desired":{"rate":10}}

{"id":"new-1"}
{"id":"pump-2","tagz":{}}
{"id":"pump-3",
 "desired":{"rate":20}}
{"id":"pump-4","desired":5}
{"id":"pump-5","tags":{"":"x"}}
`
	array := "[" + strings.ReplaceAll(strings.TrimSpace(lines), "}\n{", "},\n{")
	array = strings.ReplaceAll(array, "}\n\n{", "},\n\n{") + "\n]"
	for name, text := range map[string]string{"lines": lines, "an array": array} {
		out, errs, err := doppel(t, n, text, "twin", "import", "-")
		if err == nil || out != "imported 3 twins, 3 bad lines\n" {
			t.Errorf("%s: %q, %v", name, out, err)
		}
		for _, line := range []string{"-:4: ", "-:7: ", "-:8: pump-5: "} {
			if !strings.Contains(errs, line) {
				t.Errorf("%s: want %q in\n%s", name, line, errs)
			}
		}
	}
	tw := n.Twin("pump-1")
	if diff := cmp.Diff(map[string]string{"site": "brno", "floor": "1"}, tw.GetTags()); diff != "" || tw.GetDesiredVersion() != 1 {
		t.Errorf("pump-1, desired version %d (-want +got):\n%s", tw.GetDesiredVersion(), diff)
	}
	if n.Twin("new-1") == nil || n.Twin("pump-3").GetDelta().GetFields()["rate"].GetNumberValue() != 20 {
		t.Error("new-1 is not made, or pump-3 not changed")
	}
	for name, text := range map[string]string{"nothing": "", "no id": "name,site\na,b\n", "not JSON": "{\"id\":\"a\"}\n{", "no column": "id,,x\n"} {
		if _, _, err := doppel(t, n, text, "twin", "import", "-"); err == nil {
			t.Errorf("%s was imported", name)
		}
	}
}
