package host

import (
	"math"
	"testing"

	"github.com/doppel-iot/doppel/actors/alert"
	"github.com/doppel-iot/doppel/actors/codec"
	"github.com/doppel-iot/doppel/actors/twin"
)

// TestReplayCompares: a replay that gives other scores or alerts than were recorded is a difference,
// one that gives the same is none (R5).
func TestReplayCompares(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*twin.Effects)
		want   uint64
	}{
		{"the same", func(*twin.Effects) {}, 0},
		{"score", func(fx *twin.Effects) { fx.Applied[0].Readings[1].Score = 3 }, 1},
		{"value", func(fx *twin.Effects) {
			fx.Applied[0].Readings[1].Value = math.Nextafter(fx.Applied[0].Readings[1].Value, 9)
		}, 1},
		{"count", func(fx *twin.Effects) { fx.Applied[0].Count++ }, 1},
		{"nothing applied", func(fx *twin.Effects) { fx.Applied = nil }, 1},
		{"an alert more", func(fx *twin.Effects) { fx.Transitions = append(fx.Transitions, alert.Alert{ID: 1}) }, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			live, restored := quiet(t, nil), quiet(t, nil)
			cell := live.newCell("d")
			for s := range 50 {
				feedTwin(t, live, cell)
				ev := live.event
				ev.Kind, ev.Epoch, ev.N, ev.Now = codec.KindOf(ev.Input.Kind), 0, uint64(s+1), live.now
				ev.Digest, ev.SetDigest, ev.Version = cell.twin.Digest(), cell.twin.SetDigest(), cell.twin.Version()
				var dec codec.EventDecoder
				var recorded codec.Event
				if err := dec.Decode(codec.AppendEvent(nil, &ev), &recorded); err != nil {
					t.Fatal(err)
				}
				if s == 49 {
					c.change(&recorded.Effects)
				}
				restored.replay(LogRecord{Offset: int64(s), Key: []byte("d")}, &recorded, Cursor{}, -1)
			}
			if got := restored.host.stats.ReplayDifferences.Load(); got != c.want {
				t.Errorf("got %d differences, want %d", got, c.want)
			}
		})
	}
}
