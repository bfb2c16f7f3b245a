package node_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/doppel-iot/doppel/cluster/node/nodetest"
)

// alertmanager is a real one.
type alertmanager struct {
	t    *testing.T
	addr string
	cmd  *exec.Cmd
	out  bytes.Buffer
}

// start runs one that knows nothing yet.
func (a *alertmanager) start() {
	a.t.Helper()
	program, err := exec.LookPath("alertmanager")
	if err != nil {
		a.t.Fatalf("%v: make test builds it", err)
	}
	if a.addr == "" {
		l, err := new(net.ListenConfig).Listen(a.t.Context(), "tcp", "127.0.0.1:0")
		if err != nil {
			a.t.Fatal(err)
		}
		a.addr = l.Addr().String()
		if err := l.Close(); err != nil {
			a.t.Fatal(err)
		}
	}
	dir := a.t.TempDir()
	config := filepath.Join(dir, "alertmanager.yml")
	if err := os.WriteFile(config, []byte("route: {receiver: nobody}\nreceivers: [{name: nobody}]\n"), 0o600); err != nil {
		a.t.Fatal(err)
	}
	a.cmd = exec.Command(program, "--config.file="+config, "--storage.path="+dir, "--web.listen-address="+a.addr, "--cluster.listen-address=")
	a.cmd.Stdout, a.cmd.Stderr = &a.out, &a.out
	if err := a.cmd.Start(); err != nil {
		a.t.Fatal(err)
	}
	if !nodetest.Poll(func() bool { _, err := a.alerts(); return err == nil }) {
		a.stop()
		a.t.Fatalf("the Alertmanager does not answer:\n%s", a.out.String())
	}
}

func (a *alertmanager) stop() {
	_ = a.cmd.Process.Kill()
	_ = a.cmd.Wait()
}

// alerts are those that it takes for firing, by their labels.
func (a *alertmanager) alerts() ([]map[string]string, error) {
	req, err := http.NewRequestWithContext(a.t.Context(), http.MethodGet, "http://"+a.addr+"/api/v2/alerts", http.NoBody)
	if err != nil {
		return nil, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	var got []struct{ Labels map[string]string }
	if err := json.NewDecoder(resp.Body).Decode(&got); err != nil {
		return nil, err
	}
	var all []map[string]string
	for _, g := range got {
		all = append(all, g.Labels)
	}
	return all, nil
}

// await waits until exactly these fire there.
func (a *alertmanager) await(when string, want ...map[string]string) {
	a.t.Helper()
	var got []map[string]string
	if !nodetest.Poll(func() bool { got, _ = a.alerts(); return cmp.Equal(want, got) }) {
		a.t.Fatalf("%s (-want +got):\n%s", when, cmp.Diff(want, got))
	}
}

// TestAlertmanager: what fires fires there, also when it was away meanwhile or has forgotten it, what is over is
// over there, and what a node that is gone told ends by itself.
func TestAlertmanager(t *testing.T) {
	am := &alertmanager{t: t}
	am.start()
	t.Cleanup(func() { am.stop() })
	cfg := nodetest.Embedded(t)
	sinks(t, &cfg, fmt.Sprintf("sinks:\n- {name: am, kind: alertmanager, url: 'http://%s', resend_every: 500ms}\n", am.addr))
	n := nodetest.Start(t, cfg)
	one, two := n.Device(nodetest.Unique("one")), n.Device(nodetest.Unique("two"))
	fires := func(device string) map[string]string {
		return map[string]string{"alertname": "builtin.offline", "device": device, "severity": "warning"}
	}
	presence(one, 1, true)
	presence(one, 1, false)
	am.await("an alert fires", fires(one.ID))
	am.stop()
	am.start() // with nothing
	am.await("it has forgotten it", fires(one.ID))
	am.stop()
	presence(one, 2, true)
	presence(two, 1, true)
	presence(two, 1, false)
	am.start()
	am.await("it was away", fires(two.ID))
	if got := n.Metrics()[`doppel_notifications_total{result="dropped",sink="am"}`]; got != 0 {
		t.Errorf("it refused %v notifications:\n%s", got, am.out.String())
	}
	n.Stop()
	am.await("the node is gone") // it hears nothing any more, and takes it for over
	n = nodetest.Start(t, cfg)
	am.await("the node is back", fires(two.ID))
	two = n.Device(two.ID)
	presence(two, 2, true)
	am.await("it is over")
}
