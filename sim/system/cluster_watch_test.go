package system_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/doppel-iot/doppel/cluster/node/nodetest"
)

// watches are a WatchAlerts and a WatchTwins of one device, by a client that knows several nodes.
type watches struct {
	t             *testing.T
	publisher     *process
	device        string
	alerts, twins *background
	changes       int
}

func (c *cluster) watches(nodes ...*process) *watches {
	c.t.Helper()
	w := &watches{t: c.t, publisher: nodes[0], device: nodetest.Unique("watched")}
	w.online(true)
	nodes[0].await(w.device, "online", func(tw twin) bool { return tw.Online })
	w.alerts = launchBeside(c.t, "alerts", "watch", w.device, "--addr", doors(nodes...), "-o", "json")
	w.twins = launchBeside(c.t, "twin", "watch", w.device, "--addr", doors(nodes...), "-o", "json")
	for _, b := range []*background{w.alerts, w.twins} {
		w.sees(b, "the end of the snapshot", func(ev *event) bool { return ev.SnapshotDone != nil })
	}
	return w
}

func (w *watches) online(yes bool) {
	w.t.Helper()
	w.changes++
	w.publisher.pub(w.device+"/status", fmt.Sprintf(`{"online":%t,"boot":1,"session":%d}`, yes, w.changes), "-r")
}

func (w *watches) sees(b *background, what string, is func(*event) bool) {
	w.t.Helper()
	if !nodetest.Poll(func() bool {
		for _, ev := range b.events() {
			if is(&ev) {
				return true
			}
		}
		return false
	}) {
		w.t.Fatalf("%v: %s does not come", b.cmd.Args, what)
	}
}

// change lets an alert fire and resolve, and a property change: both watches must see it.
func (w *watches) change(when string) {
	w.t.Helper()
	states := w.transitions()
	for _, step := range []struct {
		online bool
		state  string
	}{{false, "FIRING"}, {true, "RESOLVED"}} {
		w.online(step.online)
		states = append(states, step.state)
		if !nodetest.Poll(func() bool { return len(w.transitions()) >= len(states) }) {
			break
		}
	}
	if diff := cmp.Diff(states, w.transitions()); diff != "" {
		w.t.Fatalf("%s: transitions seen (-want +got):\n%s", when, diff)
	}
	w.publisher.pub(w.device+"/reported", fmt.Sprintf(`{"when":%q}`, when))
	w.sees(w.twins, when, func(ev *event) bool {
		return ev.Changed != nil && ev.Changed.Reported["when"] == when || ev.Snapshot != nil && ev.Snapshot.Reported["when"] == when
	})
}

// transitions are the states that the alert of the device was seen to take. A gap is one too: there must
// be none.
func (w *watches) transitions() (states []string) {
	w.t.Helper()
	for _, ev := range w.alerts.events() {
		switch {
		case ev.Gap != nil:
			states = append(states, "gap: "+ev.Gap.Reason)
		case ev.Transition != nil && ev.Transition.Rule == "builtin.offline":
			states = append(states, ev.Transition.State)
		}
	}
	return states
}

func (w *watches) end() {
	w.t.Helper()
	for _, b := range []*background{w.alerts, w.twins} {
		if code := b.interrupt(10 * time.Second); code != 0 {
			w.t.Errorf("%v: exit code %d, want 0", b.cmd.Args, code)
		}
	}
}
