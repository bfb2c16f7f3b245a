package fleet

import (
	"testing"

	"github.com/doppel-iot/doppel/actors/codec"
	"github.com/doppel-iot/doppel/sim/device"
)

// Every poison must be refused as a whole, for the reason it was brewed for, without a number that
// would leave a hole, and be unlike any other.
func TestPoisonIsRefused(t *testing.T) {
	t.Parallel()
	const now = 1795341600123456789
	r := device.NewRandom(1, 1)
	d := codec.NewDecoder()
	seen := make(map[string]bool)
	reasons := make(map[string]int)
	for range 3000 {
		p := brew(r, "sim-00001", now)
		if seen[string(p.payload)] {
			t.Errorf("brewed twice: %.100q", p.payload)
		}
		seen[string(p.payload)] = true
		reasons[p.reason]++
		items, refusal := d.Telemetry(p.contentType, p.payload, now)
		if refusal == nil && len(items) == 1 {
			refusal = items[0].Refusal
		}
		switch {
		case refusal == nil:
			t.Errorf("taken: %.100q", p.payload)
		case string(refusal.Reason) != p.reason:
			t.Errorf("refused for %s, want %s: %.100q", refusal.Reason, p.reason, p.payload)
		case refusal.Numbered:
			t.Errorf("%s takes number %d/%d: %.100q", p.reason, refusal.Boot, refusal.Seq, p.payload)
		}
	}
	if len(reasons) != 12 {
		t.Errorf("reasons: %v", reasons)
	}
}
