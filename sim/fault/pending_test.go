package fault

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/eclipse/paho.golang/paho"
	"github.com/google/go-cmp/cmp"
	"github.com/spf13/pflag"

	"github.com/doppel-iot/doppel/actors/alert"
	"github.com/doppel-iot/doppel/actors/host"
	product "github.com/doppel-iot/doppel/cluster/node"
	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
)

// asNode makes this test binary a node, the product in all but what the value says: rules that have
// something pending, since the built-in ones fire at once; or checkpoints so soon that a round has many.
const (
	asNode         = "TORTURE_AS_NODE"
	withRules      = "rules"
	withCheckpoint = "checkpoints"
)

// soon is when the changes of a node with many checkpoints get theirs; the product waits a minute.
const soon = time.Second

// pendingFor is how long the rules of that node wait before they fire.
const pendingFor = 5 * time.Second

func pendingRules() []alert.Rule {
	return []alert.Rule{
		{ID: "hot", Version: 1, Kind: alert.Threshold, Metric: "temperature", ForDuration: pendingFor, Levels: []alert.Level{{Severity: alert.Warning, Enter: 80, Exit: 70}}},
		{ID: "gone", Version: 1, Kind: alert.Offline, ForDuration: pendingFor, Levels: []alert.Level{{Severity: alert.Warning}}},
	}
}

// runNode is `doppel run` with what differs; args are its command line.
func runNode(args []string) error {
	var cfg product.Config
	fs := pflag.NewFlagSet("run", pflag.ContinueOnError)
	cfg.Flags(fs)
	if err := fs.Parse(args[1:]); err != nil {
		return err
	}
	rules, err := alert.NewSet(pendingRules())
	if err != nil {
		return err
	}
	n, err := product.New(cfg, slog.New(slog.NewTextHandler(os.Stderr, nil)))
	if err != nil {
		return err
	}
	n.Adjust(func(c *host.Config) {
		if os.Getenv(asNode) == withRules {
			c.Rules = rules
		} else {
			c.CheckpointAfter = soon
		}
	})
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	return n.Run(ctx)
}

// pendingRig runs such a node, embedded.
func pendingRig(t *testing.T) *Rig {
	t.Helper()
	t.Setenv(asNode, withRules)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	r, err := NewRig(t.Context(), Embedded, root(t), t.TempDir(), self)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(r.LogTail())
		}
		r.Close()
	})
	return r
}

// killNow kills the node and returns once it serves again.
func (r *Rig) killNow(t *testing.T) {
	t.Helper()
	err := r.Inject(t.Context(), []Fault{{Subject: Node, Kind: Kill}}, testWriter{t})
	if err != nil || !r.Ready(t.Context()) {
		t.Fatalf("the node is not back after a kill: %v", err)
	}
}

// publish sends one message, as a device that connects for it.
func (r *Rig) publish(t *testing.T, topic, payload string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	defer cancel()
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", strings.TrimPrefix(r.Devices, "mqtt://"))
	if err != nil {
		t.Fatal(err)
	}
	c := paho.NewClient(paho.ClientConfig{Conn: conn})
	if _, err := c.Connect(ctx, &paho.Connect{ClientID: "pending-test", CleanStart: true, KeepAlive: 30}); err != nil {
		t.Fatalf("connect: %v", err)
	}
	if res, err := c.Publish(ctx, &paho.Publish{Topic: topic, QoS: 1, Payload: []byte(payload)}); err != nil || res.ReasonCode != 0 {
		t.Fatalf("publish: %v, %v", res, err)
	}
	_ = c.Disconnect(&paho.Disconnect{})
	<-c.Done()
}

// transitions are those of a rule in doppel.alerts, in the order of the log, each position once; it waits
// until the alert is over.
func (r *Rig) transitions(t *testing.T, rule string, last doppelv1.AlertState) []*doppelv1.Alert {
	t.Helper()
	var all []*doppelv1.Alert
	over := func() bool {
		recs, err := readTopic(t.Context(), r.Kafka, "doppel.alerts")
		if err != nil {
			t.Fatal(err)
		}
		found, err := readAlerts(recs)
		if err != nil {
			t.Fatal(err)
		}
		var places []position
		for text, as := range found {
			var p position
			if _, err := fmt.Sscanf(text, "%d:%d:%d", &p.partition, &p.offset, &p.index); err != nil {
				t.Fatalf("position %q: %v", text, err)
			}
			if as[0].GetRule() == rule {
				places = append(places, p)
			}
		}
		slices.SortFunc(places, func(a, b position) int { return int(a.offset - b.offset) })
		all = nil
		for _, p := range places {
			all = append(all, found[p.String()][0])
		}
		return len(all) > 0 && all[len(all)-1].GetState() == last
	}
	if !await(t.Context(), 2*patience, over) {
		t.Fatalf("%s does not get %v: %v", rule, last, all)
	}
	return all
}

// life is what an alert's transitions say, times as distances from a start.
func life(all []*doppelv1.Alert, start time.Time) []string {
	var lines []string
	for _, a := range all {
		since := func(at interface{ AsTime() time.Time }) time.Duration { return at.AsTime().Sub(start) }
		line := fmt.Sprintf("%s %v created %v", a.GetId(), a.GetState(), since(a.GetCreateTime()))
		if a.GetFireTime() != nil {
			line += fmt.Sprintf(" fired %v", since(a.GetFireTime()))
		}
		if a.GetResolveTime() != nil {
			line += fmt.Sprintf(" resolved %v", since(a.GetResolveTime()))
		}
		lines = append(lines, line)
	}
	return lines
}

// TestPendingAlertSurvives: an alert whose owner dies again and again while it is pending fires at the same
// event time as without, once.
func TestPendingAlertSurvives(t *testing.T) {
	start := time.Now().Add(-time.Minute).Truncate(time.Second)
	tell := func(killed bool) []string {
		r := pendingRig(t)
		for i, temperature := range []int{20, 90, 91, 92, 93, 94, 95, 96, 20} {
			r.publish(t, "devices/pump-1/telemetry", fmt.Sprintf(`{"boot":1,"seq":%d,"time":%d,"metrics":{"temperature":%d}}`,
				i+1, start.Add(time.Duration(i)*time.Second).UnixNano(), temperature))
			if killed {
				r.killNow(t)
			}
		}
		return life(r.transitions(t, "hot", doppelv1.AlertState_RESOLVED), start)
	}
	calm, killed := tell(false), tell(true)
	if diff := cmp.Diff(calm, killed); diff != "" {
		t.Errorf("transitions (-without kills +with):\n%s", diff)
	}
	if len(calm) != 3 || !strings.Contains(calm[1], "FIRING created 1s fired 6s") || !strings.Contains(calm[2], "resolved 8s") {
		t.Errorf("transitions %q: want pending at 1 s, firing at 6 s, resolved at 8 s", calm)
	}
}

// TestPendingTimerSurvives: the same where no sample comes and only time makes it fire.
func TestPendingTimerSurvives(t *testing.T) {
	r := pendingRig(t)
	r.publish(t, "devices/pump-2/status", `{"online":true,"boot":1,"session":1}`)
	r.publish(t, "devices/pump-2/status", `{"online":false,"boot":1,"session":1}`)
	r.killNow(t)
	all := r.transitions(t, "gone", doppelv1.AlertState_FIRING)
	// The node was back long before: what is added is a look of the owner, and a busy machine.
	took := all[len(all)-1].GetFireTime().AsTime().Sub(all[0].GetCreateTime().AsTime())
	if len(all) != 2 || took < pendingFor || took > pendingFor+2*time.Second {
		t.Errorf("%d transitions, fired after %v: want pending and firing, %v apart: %v", len(all), took, pendingFor, all)
	}
}
