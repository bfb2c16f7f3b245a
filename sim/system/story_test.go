package system_test

import (
	"encoding/json"
	"fmt"
	"net"
	"os/exec"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/doppel-iot/doppel/cluster/node/nodetest"
)

// pub publishes with mosquitto_pub, as a device no one here wrote.
func (p *process) pub(topic, payload string, args ...string) {
	p.t.Helper()
	host, port, err := net.SplitHostPort(strings.TrimPrefix(p.broker, "mqtt://"))
	if err != nil {
		p.t.Fatal(err)
	}
	ok(p.t, "mosquitto_pub", append([]string{"-h", host, "-p", port, "-q", "1", "-t", p.root + "/" + topic, "-m", payload}, args...)...)
}

// twin is a twin as `doppel twin get -o json` shows it.
type twin struct {
	ID, Boot, Seq string
	Online        bool
	Reported      map[string]any
	Metrics       map[string]struct{ Value float64 }
	OpenAlerts    []string
	Counters      struct{ Applied, Late, Duplicate, DeadLettered string }
	Digest        string
}

func (p *process) twin(id string) (twin, bool) {
	p.t.Helper()
	r := run(p.t, nil, binary, "twin", "get", id, "--addr", p.GRPC, "-o", "json")
	var tw twin
	switch {
	case r.code == 3:
		return tw, false
	case r.code != 0:
		p.t.Fatalf("twin get: exit code %d: %s", r.code, r.stderr)
	}
	if err := json.Unmarshal([]byte(r.stdout), &tw); err != nil {
		p.t.Fatalf("twin get: %v: %s", err, r.stdout)
	}
	return tw, true
}

func (p *process) await(id, what string, holds func(twin) bool) twin {
	p.t.Helper()
	var tw twin
	if !nodetest.Poll(func() bool { var there bool; tw, there = p.twin(id); return there && holds(tw) }) {
		p.t.Fatalf("%s: not %s: %+v", id, what, tw)
	}
	return tw
}

func onBoth(t *testing.T, tell func(t *testing.T, p *process)) {
	t.Helper()
	t.Run("embedded", func(t *testing.T) { tell(t, start(t, "--data-dir", t.TempDir())) })
	t.Run("real", func(t *testing.T) { tell(t, startReal(t)) })
}

// TestStrangersTellTheSameStory: what mosquitto_pub sends is what doppel, grpcurl and curl show, whatever
// version of MQTT it speaks.
func TestStrangersTellTheSameStory(t *testing.T) {
	onBoth(t, func(t *testing.T, p *process) {
		const id = "00:1b:44:11:3a:b7" // a MAC address is a device id
		p.pub(id+"/telemetry", `{"boot":3,"seq":1,"time":"2026-11-22T10:00:00Z","metrics":{"temperature":21.5}}`, "-V", "mqttv311")
		p.pub(id+"/telemetry", `{"boot":3,"seq":2,"time":1795341601000000000,"metrics":{"temperature":21.75,"ok":true}}`,
			"-V", "mqttv5", "-D", "publish", "content-type", "application/json; charset=utf-8")
		p.pub(id+"/reported", `{"firmware":"1.2.3"}`, "-V", "mqttv5", "-D", "publish", "user-property", "boot", "3", "-D", "publish", "user-property", "seq", "1")
		p.pub(id+"/reported", `{"firmware":"stale"}`, "-V", "mqttv5", "-D", "publish", "user-property", "boot", "3", "-D", "publish", "user-property", "seq", "1")
		p.pub(id+"/telemetry", `{"boot":3,"seq":2,"time":1795341601000000000,"metrics":{"temperature":21.75,"ok":true}}`, "-V", "mqttv311")
		p.pub(id+"/telemetry", `21.5`, "-V", "mqttv5", "-D", "publish", "content-type", "text/plain")

		told := p.await(id, "complete", func(tw twin) bool {
			return tw.Counters.DeadLettered == "1" && tw.Counters.Duplicate == "1" && tw.Reported != nil
		})
		if told.Boot != "3" || told.Seq != "2" || !told.Online || told.Counters.Applied != "2" || told.Reported["firmware"] != "1.2.3" ||
			told.Metrics["temperature"].Value != 21.75 || told.Metrics["ok"].Value != 1 {
			t.Errorf("doppel shows %+v", told)
		}
		for name, text := range map[string]string{
			"curl":          ok(t, "curl", "-sS", "--fail", "http://"+p.HTTP+"/v1/twins/"+id),
			"curl, escaped": ok(t, "curl", "-sS", "--fail", "http://"+p.HTTP+"/v1/twins/"+strings.ReplaceAll(id, ":", "%3A")),
			"grpcurl":       ok(t, "grpcurl", "-plaintext", "-emit-defaults", "-d", fmt.Sprintf(`{"id":%q}`, id), p.GRPC, "doppel.v1.TwinService/GetTwin"),
		} {
			var same twin
			if err := json.Unmarshal([]byte(text), &same); err != nil {
				t.Fatalf("%s: %v: %s", name, err, text)
			}
			if diff := cmp.Diff(told, same); diff != "" {
				t.Errorf("%s (-doppel +%s):\n%s", name, name, diff)
			}
		}
		var list []twin
		text := ok(t, binary, "twin", "list", "--addr", p.GRPC, "-o", "json", "--filter", `metrics["temperature"].value > 21 && boot == 3`)
		if err := json.Unmarshal([]byte(text), &list); err != nil || len(list) != 1 || list[0].ID != id {
			t.Errorf("twin list: %v %s, want one array with the twin", err, text)
		}
		services := strings.Fields(ok(t, "grpcurl", "-plaintext", p.GRPC, "list"))
		for _, want := range []string{"doppel.v1.TwinService", "doppel.v1.AlertService", "doppel.v1.FleetService", "grpc.health.v1.Health"} {
			if !strings.Contains(" "+strings.Join(services, " ")+" ", " "+want+" ") {
				t.Errorf("reflection lists %v, %s is missing", services, want)
			}
		}
		if health := ok(t, "grpcurl", "-plaintext", p.GRPC, "grpc.health.v1.Health/Check"); !strings.Contains(health, `"SERVING"`) {
			t.Errorf("health: %s", health)
		}
		for _, path := range []string{"/livez", "/readyz"} {
			ok(t, "curl", "-sS", "--fail", "http://"+p.HTTP+path)
		}
	})
}

// TestRowsForPsql: every sample is a row that psql finds, once.
func TestRowsForPsql(t *testing.T) {
	p := startReal(t)
	id := nodetest.Unique("psql")
	for seq := 1; seq <= 5; seq++ {
		text := fmt.Sprintf(`{"boot":3,"seq":%d,"time":%d,"metrics":{"temperature":%d.5}}`, seq, 1795341600_000000000+int64(seq), 20+seq)
		p.pub(id+"/telemetry", text)
		p.pub(id+"/telemetry", text) // again
	}
	host, port, err := net.SplitHostPort(nodetest.RealServices(t).QuestDBPG)
	if err != nil {
		t.Fatal(err)
	}
	query := "select boot, seq, late, temperature from telemetry where device = '" + id + "' order by seq"
	var got result
	want := "3|1|f|21.5\n3|2|f|22.5\n3|3|f|23.5\n3|4|f|24.5\n3|5|f|25.5\n"
	if !nodetest.Poll(func() bool {
		got = run(t, []string{"PGPASSWORD=quest"}, "psql", "-h", host, "-p", port, "-U", "admin", "-d", "qdb", "-At", "-c", query)
		return got.code == 0 && got.stdout == want
	}) {
		t.Errorf("psql: %q %s, want %q", got.stdout, got.stderr, want)
	}
}

// TestLastWill: a client that is killed goes offline by its last will, and an alert says so.
func TestLastWill(t *testing.T) {
	onBoth(t, func(t *testing.T, p *process) {
		id := nodetest.Unique("will")
		host, port, err := net.SplitHostPort(strings.TrimPrefix(p.broker, "mqtt://"))
		if err != nil {
			t.Fatal(err)
		}
		topic := p.root + "/" + id + "/status"
		client := exec.CommandContext(t.Context(), "stdbuf", "-oL", "mosquitto_sub", "-h", host, "-p", port, "-t", p.root+"/"+id+"/desired", "-d",
			"--will-topic", topic, "--will-payload", `{"online":false,"boot":1,"session":1}`, "--will-qos", "1", "--will-retain")
		var says lockedText // stdbuf: it would keep what it says to itself
		client.Stdout, client.Stderr = &says, &says
		if err := client.Start(); err != nil {
			t.Fatalf("%v: this test needs mosquitto_sub: run make test", err)
		}
		defer func() { _ = client.Process.Kill(); _ = client.Wait() }()
		if !nodetest.Poll(func() bool { return strings.Contains(says.String(), "SUBACK") }) {
			t.Fatalf("mosquitto_sub: %s", says.String())
		}
		p.pub(id+"/status", `{"online":true,"boot":1,"session":1}`, "-r")
		p.await(id, "online", func(tw twin) bool { return tw.Online })
		if err := client.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		p.await(id, "offline with an alert", func(tw twin) bool { return !tw.Online && len(tw.OpenAlerts) == 1 })
		var alerts []struct{ Device, Rule, State, Severity string }
		text := ok(t, binary, "alerts", "list", "--addr", p.GRPC, "-o", "json", "--filter", fmt.Sprintf("device == %q", id))
		if err := json.Unmarshal([]byte(text), &alerts); err != nil {
			t.Fatalf("alerts list: %v: %s", err, text)
		}
		if len(alerts) != 1 || alerts[0].Rule != "builtin.offline" || alerts[0].State != "FIRING" || alerts[0].Severity != "WARNING" {
			t.Errorf("alerts %+v, want builtin.offline firing", alerts)
		}
		p.pub(id+"/status", `{"online":true,"boot":1,"session":2}`, "-r")
		p.await(id, "back", func(tw twin) bool { return tw.Online && len(tw.OpenAlerts) == 0 })
	})
}
