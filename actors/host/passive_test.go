package host

import (
	"fmt"
	"testing"
	"time"

	"github.com/doppel-iot/doppel/actors/alert"
	"github.com/doppel-iot/doppel/actors/twin"
)

// idlers is an owner of fed twins that have been silent for an hour, with nothing due.
func idlers(t *testing.T, twins int, change func(*Config)) *owner {
	t.Helper()
	o := quiet(t, func(cfg *Config) {
		cfg.Rules = &alert.Set{} // nobody minds silence
		if change != nil {
			change(cfg)
		}
	})
	for i := range twins {
		c := o.newCell(fmt.Sprintf("dev-%d", i))
		o.adopt(c)
		feedTwin(t, o, c)
	}
	o.now += int64(time.Hour)
	return o
}

// TestSweepIsBounded: one sweep puts no more than its share to rest, the next not before the next tick.
func TestSweepIsBounded(t *testing.T) {
	const twins = 3*sweepMost + 5
	o := idlers(t, twins, nil)
	for _, tc := range []struct {
		passed int64
		want   int
	}{{0, sweepMost}, {1, sweepMost}, {wheelTick, 2 * sweepMost}, {wheelTick, 3 * sweepMost}, {wheelTick, twins}} {
		o.now += tc.passed
		o.sweep()
		if got := len(o.idle.passive); got != tc.want {
			t.Fatalf("%d passive twins, want %d", got, tc.want)
		}
		if got := len(o.twins) + len(o.idle.passive); got != twins || len(o.idle.rota) != len(o.twins) {
			t.Fatalf("%d twins, %d on the rota, want %d and %d", got, len(o.idle.rota), twins, len(o.twins))
		}
	}
}

// TestMayRest lists what keeps a silent twin hot.
func TestMayRest(t *testing.T) {
	for _, tc := range []struct {
		name   string
		change func(*Config)
		make   func(*owner, *cell)
		want   int
	}{
		{"nothing", nil, func(*owner, *cell) {}, 1},
		{"not silent for long enough", nil, func(o *owner, c *cell) { o.now = c.twin.LastSeen() + int64(10*time.Minute) - 1 }, 0},
		{"silent for long enough", nil, func(o *owner, c *cell) { o.now = c.twin.LastSeen() + int64(10*time.Minute) }, 1},
		{"never", func(cfg *Config) { cfg.PassivateAfter = -1 }, func(*owner, *cell) {}, 0},
		{"quarantined", nil, func(_ *owner, c *cell) { c.quarantined = true }, 0},
		{"a record under way", nil, func(o *owner, c *cell) { c.lastN = o.released + 1 }, 0},
		{"a held sample", nil, func(o *owner, c *cell) {
			o.event.Input = twin.Input{Kind: twin.KindSample, ReceivedAt: o.now, Sample: twin.Sample{Numbered: true, Boot: 1, Seq: 9}}
			o.step(c)
			o.now += int64(time.Hour)
		}, 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			o := idlers(t, 1, tc.change)
			for _, c := range o.twins {
				tc.make(o, c)
			}
			o.sweep()
			if got := len(o.idle.passive); got != tc.want {
				t.Errorf("%d passive twins, want %d", got, tc.want)
			}
		})
	}
}

// TestWake: an input finds a passive twin as it was, under its old PID; its wheel entries are void.
func TestWake(t *testing.T) {
	o := idlers(t, 2, nil)
	hashes := make(map[string]uint64)
	for id, c := range o.twins {
		hashes[id] = c.twin.Hash()
	}
	o.sweep()
	for id, want := range hashes {
		p := o.idle.passive[id]
		c := o.find(id)
		if c == nil || c.quarantined || c.twin.Hash() != want || c.twin.ID() != id || !c.online {
			t.Fatalf("%s woke as %+v", id, c)
		}
		if o.host.engine.Registry.GetPID("twin", id) == nil || o.twins[id] != c || o.idle.passive[id] != nil {
			t.Errorf("%s is not known as hot", id)
		}
		if p.memory != "" || p.lookAt != 0 {
			t.Errorf("%s: the compact form lives on: %+v", id, p)
		}
	}
	if o.find("nobody") != nil {
		t.Error("a twin of a device that never was")
	}
	if len(o.idle.rota) != 2 {
		t.Errorf("%d twins on the rota, want 2", len(o.idle.rota))
	}
}

// TestWakeKeepsDue: what is due stays due, on the way to rest and back, whatever wakes the twin.
func TestWakeKeepsDue(t *testing.T) {
	o := quiet(t, nil)
	c := o.newCell("dev")
	o.adopt(c)
	for range 9 { // its interval is known, so that silence is due for an alert
		feedTwin(t, o, c)
	}
	due := c.twin.Due()
	o.passivate(c)
	p := o.idle.passive["dev"]
	if due == 0 || p.lookAt != due {
		t.Fatalf("the passive twin is looked at at %d, want %d", p.lookAt, due)
	}
	if c := o.find("dev"); c.lookAt != due {
		t.Errorf("the twin that woke is looked at at %d, want %d", c.lookAt, due)
	}
}

// TestUnreadable: what cannot be decoded is quarantined and seen, and harms nobody else.
func TestUnreadable(t *testing.T) {
	o := idlers(t, 2, nil)
	o.sweep()
	first := true
	for id, p := range o.idle.passive {
		if !first {
			if c := o.activate(p); c.quarantined {
				t.Errorf("%s is quarantined", id)
			}
			continue
		}
		first = false
		p.memory = p.memory[:len(p.memory)-3]
		c := o.activate(p)
		if !c.quarantined || c.id() != id {
			t.Errorf("%s woke as %+v", id, c)
		}
	}
	if got := o.host.stats.Panics.Load(); got != 1 {
		t.Errorf("%d panics counted, want 1", got)
	}
}

// TestShrink: the map of hot twins does not stay as large as it once was.
func TestShrink(t *testing.T) {
	const twins = 5000
	o := idlers(t, twins, nil)
	for len(o.twins) > 0 {
		o.sweep()
		o.now += wheelTick
	}
	if o.idle.peak > twins/4 || cap(o.idle.rota) > twins/2 || len(o.idle.passive) != twins {
		t.Errorf("room for %d hot twins, %d on the rota; %d passive", o.idle.peak, cap(o.idle.rota), len(o.idle.passive))
	}
}
