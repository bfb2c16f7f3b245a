package node

import "testing"

func TestCollectorPercent(t *testing.T) {
	for _, c := range []struct {
		live uint64
		want int
	}{
		{0, 400}, // before the first collection
		{8 << 20, 400},
		{32 << 20, 400},
		{50 << 20, 250},
		{100 << 20, 100},
		{128 << 20, 100},
		{2 << 30, 100},
	} {
		if got := collectorPercent(c.live); got != c.want {
			t.Errorf("live heap of %d MiB: got %d %%, want %d %%", c.live>>20, got, c.want)
		}
	}
}
