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
