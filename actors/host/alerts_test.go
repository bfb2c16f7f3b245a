package host

import (
	"testing"

	"github.com/doppel-iot/doppel/actors/alert"
)

// TestAlertsExpire: alerts leave the index a day after they resolved, though nobody lists them.
func TestAlertsExpire(t *testing.T) {
	o := quiet(t, nil)
	o.now = 1e18
	o.turn(t.Context(), false)
	for id := range uint64(10) {
		state := alert.Resolved
		if id == 0 {
			state = alert.Firing
		}
		o.alerts.apply(&Transition{Device: "d", Alert: alert.Alert{ID: id, State: state, UpdateTime: o.now}})
	}
	for _, c := range []struct{ passed, want int64 }{{1e9, 10}, {keepResolved / 2, 10}, {keepResolved + expireEvery, 1}} {
		o.now = 1e18 + c.passed
		o.turn(t.Context(), false)
		if got := int64(len(o.alerts.byID)); got != c.want {
			t.Errorf("after %d s the index has %d alerts, want %d", c.passed/1e9, got, c.want)
		}
	}
}

// TestAlertsCrowdOut: a device that flaps does not fill the index; what is open stays.
func TestAlertsCrowdOut(t *testing.T) {
	var x alertIndex
	x.apply(&Transition{Device: "d", Alert: alert.Alert{ID: 1, State: alert.Firing}})
	x.apply(&Transition{Device: "e", Alert: alert.Alert{ID: 2, State: alert.Resolved}})
	for id := range uint64(2 * listedMost) {
		x.apply(&Transition{Device: "d", Alert: alert.Alert{ID: 10 + id, State: alert.Firing}})
		x.apply(&Transition{Device: "d", Alert: alert.Alert{ID: 10 + id, State: alert.Resolved}})
	}
	all := x.of("d")
	if len(all) != listedMost || all[0].ID != 1 || all[listedMost-1].ID != 9+2*listedMost || x.open != 1 || len(x.of("e")) != 1 {
		t.Errorf("%d alerts of the device from %d to %d, %d open", len(all), all[0].ID, all[len(all)-1].ID, x.open)
	}
}
