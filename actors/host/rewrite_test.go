package host

import (
	"context"
	"fmt"
	"testing"
	"time"
)

// keepsState is a Retention that knows how much of doppel.state may go.
type keepsState struct{ below int64 }

func (k *keepsState) Needs(_ int32, n Needs)    { k.below = n.State }
func (*keepsState) Oldest(int32) (Cursor, bool) { return Cursor{}, false }

// stateLog acknowledges what it is given when it is told to.
type stateLog struct {
	Log
	unacked []func()
	next    int64
}

func (l *stateLog) Append(_ context.Context, _ int32, recs []Record, acks Acks) {
	for i := range recs {
		n, offset := recs[i].N, l.next
		l.unacked = append(l.unacked, func() { acks.Ack(n, offset, nil) })
		l.next++
	}
}

// TestRewriteOfBusyTwins: a pass ends also where checkpoints are due without a break, cost all they may,
// and some of them are always on their way.
func TestRewriteOfBusyTwins(t *testing.T) {
	const twins = 3000
	state, keeps := &stateLog{}, &keepsState{}
	var clock int64 = 1e18
	o := quiet(t, func(cfg *Config) {
		cfg.State, cfg.Retention, cfg.CheckpointAfter, cfg.PassivateAfter = state, keeps, time.Nanosecond, -1
		cfg.Clock = func() int64 { return clock }
	})
	o.ckpt.prev, o.feed.settled = -1, true
	o.begin(t.Context(), nil)
	var all []*cell
	for i := range twins {
		c := o.newCell(fmt.Sprintf("dev-%d", i))
		o.adopt(c)
		c.anchored = uint16(clock / int64(24*time.Hour)) // nothing of the changelog is acknowledged here
		all = append(all, c)
	}
	const most = 20 * (rewriteFactor*twins + rewriteLeast) // records, were nothing ever rewritten
	for state.next < most && keeps.below == 0 {
		for _, c := range all {
			o.ckpt.changed(c, Cursor{Next: o.prev, Epoch: o.epoch}, o.now)
		}
		clock += wheelTick
		late := state.unacked
		state.unacked = nil
		o.turn(t.Context(), false) // these records are on their way during the whole turn
		for _, ack := range late {
			ack()
		}
		if o.stopped != nil {
			t.Fatal(o.stopped)
		}
	}
	if keeps.below == 0 {
		t.Errorf("nothing of %d records may go", state.next)
	}
}

// TestRewriteOfBroken: the state of a twin that cannot be written anew is not removed.
func TestRewriteOfBroken(t *testing.T) {
	o := idlers(t, 3, func(cfg *Config) { cfg.Retention, cfg.State = &keepsState{}, &stateLog{} })
	for _, c := range o.twins {
		c.broken, c.quarantined = true, true
		break
	}
	o.ckpt.prev = rewriteLeast + 100
	o.ckpt.credit = 10
	o.rewrite()
	if o.ckpt.flying.len() != 2 {
		t.Fatalf("%d checkpoints on their way, want 2", o.ckpt.flying.len())
	}
	o.ckpt.pass.end()
	if got := o.ckpt.pass.done; got != 0 {
		t.Errorf("state below %d may go, where the last state of a broken twin is", got)
	}
}
