package host

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/doppel-iot/doppel/actors/codec"
	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
)

// restored is what a restore gave.
type restored struct {
	Hashes map[string]uint64
	Alerts []string
	Src    codec.Position
	Now    int64
	Emit   []int64
	Dirty  map[string]int64 // since
	V      int64
	Floor  codec.Floor
	Logged bool
	Again  bool // the floor is to be written anew
	Differ uint64
}

// restoreAs restores the partition of h as of a claim.
func restoreAs(tb rapid.TB, h *Host, claim int64) (restored, bool) {
	tb.Helper()
	o := newOwner(h.parts[0])
	o.epoch, o.prev = uint64(claim), claim
	before := h.stats.Warm.Load()
	emit, err := o.restore(context.Background())
	if err != nil {
		tb.Errorf("restore: %v", err)
	}
	r := restored{
		Hashes: map[string]uint64{}, Src: o.src, Now: o.now, Dirty: map[string]int64{}, V: o.ckpt.read, Floor: o.ckpt.floor.kept,
		Logged: o.settled.logged, Again: o.ckpt.floor.again, Differ: h.stats.ReplayDifferences.Load(),
	}
	for id, c := range o.twins {
		r.Hashes[id] = c.twin.Hash()
	}
	for id, p := range o.idle.passive {
		if !o.decode(&o.idle.read, id, p) {
			tb.Errorf("passive twin %s", id)
		}
		r.Hashes[id] = o.idle.read.Hash()
	}
	for id, e := range o.alerts.byID {
		r.Alerts = append(r.Alerts, fmt.Sprint(id, e))
	}
	slices.Sort(r.Alerts)
	for _, e := range emit {
		r.Emit = append(r.Emit, e.at.Next)
	}
	for last := int64(-1); o.ckpt.dirty.len() > 0; o.ckpt.dirty.pop() {
		d := o.ckpt.dirty.front()
		if d.since.Next < last || !d.cell.dirty {
			tb.Errorf("dirty twins are out of order: %d behind %d", d.since.Next, last)
		}
		last = d.since.Next
		r.Dirty[d.cell.id()] = last
	}
	return r, h.stats.Warm.Load() > before
}

// history is a plant with two hosts that fight for its partition, while others read ahead.
type history struct {
	*plant
	t     *rapid.T
	tb    *testing.T
	hosts [2]*Host
	heirs []*Host
	seq   map[string]int
	reply replies

	script []uint16
}

// pick draws from the script: rapid must not be asked inside a bubble.
func (y *history) pick(lo, hi int) int {
	if len(y.script) == 0 {
		return lo
	}
	v := lo + int(y.script[0])%(hi-lo+1)
	y.script = y.script[1:]
	return v
}

func (y *history) send() {
	h := y.hosts[y.pick(0, 1)]
	for range y.pick(1, 6) {
		id := fmt.Sprintf("dev-%d", y.pick(0, 5))
		y.seq[id] += 1 + y.pick(0, 4)/4 // two: one is missing
		m := Message{
			Kind: Telemetry, Device: []byte(id), ReceivedAt: time.Now().UnixNano(), Reply: &y.reply, Topic: "devices",
			Payload: fmt.Appendf(nil, `{"boot":1,"samples":[{"seq":%d,"time":%d,"metrics":{"t":%d}}]}`, y.seq[id], time.Now().UnixNano(),
				y.pick(0, 99)),
		}
		if y.pick(0, 3) == 0 {
			y.ingest.put(&m)
			continue
		}
		_ = h.Offer(context.Background(), 0, []Message{m}, time.Millisecond) // it may own nothing
	}
}

// late lets what a stale owner has sent to doppel.state land behind the floor of a newer one.
func (y *history) late() {
	var old []LogRecord
	var dec codec.CheckpointDecoder
	newest, recs := uint64(0), y.state.all()
	for _, r := range recs {
		if epoch, floor, err := stateEpoch(&dec, r); err == nil && floor {
			newest = max(newest, epoch)
		}
	}
	for _, r := range recs {
		if epoch, _, err := stateEpoch(&dec, r); err != nil || epoch >= newest {
			continue
		}
		if y.pick(0, 1) == 0 {
			old = append(old, r)
		}
	}
	for _, r := range old {
		y.state.add(r.Key, r.Value)
	}
}

func (y *history) act() {
	h := y.hosts[y.pick(0, 1)]
	switch y.pick(0, 13) {
	case 0, 1, 2, 3:
		y.send()
	case 4:
		h.Own(0)
	case 5:
		_ = h.Release(context.Background(), 0)
	case 6:
		h.Drop(0)
	case 7:
		time.Sleep(time.Duration(y.pick(1, 2000)) * time.Millisecond)
	case 8:
		y.state.compact()
	case 9:
		y.late()
	case 10: // a straggler of an older epoch, or foreign bytes
		value := []byte("foreign")
		if recs := y.log.all(); len(recs) > 0 && y.pick(0, 1) == 1 {
			value = recs[y.pick(0, len(recs)-1)].Value
		}
		var dec codec.EventDecoder
		var ev codec.Event
		if dec.Decode(value, &ev) == nil && ev.Kind == doppelv1.EventKind_EVENT_KIND_CLAIM {
			return
		}
		y.log.add([]byte("dev-0"), value)
	default:
		if len(y.heirs) < 4 {
			heir := y.host(y.tb, nil)
			if err := heir.Warm(context.Background(), 0); err != nil {
				y.t.Errorf("warm: %v", err)
			}
			y.heirs = append(y.heirs, heir)
		}
	}
	synctest.Wait()
}

// TestWarmEqualsCold: whatever was written between reading ahead and the claim, a warm restore is the cold
// one bit for bit, and it may only take twins for clean that their newest checkpoints hold entirely.
func TestWarmEqualsCold(t *testing.T) {
	warm, cleaner := 0, 0
	rapid.Check(t, func(rt *rapid.T) {
		script := rapid.SliceOfN(rapid.Uint16(), 20, 600).Draw(rt, "script")
		synctest.Test(t, func(t *testing.T) {
			y := &history{plant: newPlant(), t: rt, tb: t, seq: map[string]int{}, script: script}
			for i := range y.hosts {
				y.hosts[i] = y.host(t, nil)
			}
			y.hosts[0].Own(0)
			synctest.Wait()
			for len(y.script) > 0 {
				y.act()
			}
			for _, h := range y.hosts {
				h.Drop(0)
			}
			time.Sleep(10 * time.Second)
			synctest.Wait()
			claim := y.log.add(nil, codec.AppendEvent(nil, &codec.Event{
				Kind: doppelv1.EventKind_EVENT_KIND_CLAIM, Now: time.Now().UnixNano(), Claim: &codec.Claim{Node: "last"},
			}))
			want, _ := restoreAs(rt, y.host(t, nil), claim)
			for i, heir := range y.heirs {
				got, taken := restoreAs(rt, heir, claim)
				if taken {
					warm++
				}
				y.compare(i, want, got, claim)
				if len(got.Dirty) < len(want.Dirty) {
					cleaner++
				}
				heir.Drop(0)
			}
		})
	})
	if warm == 0 {
		t.Errorf("nothing was ever restored from what was read ahead")
	}
	t.Logf("%d warm restores, %d of them with fewer dirty twins than the cold one", warm, cleaner)
}

func (y *history) compare(i int, want, got restored, claim int64) {
	y.t.Helper()
	newest := y.newest()
	for id := range want.Hashes {
		asof, ok := newest[id]
		if !ok {
			asof = -1
		}
		since, dirty := got.Dirty[id]
		if !dirty {
			since = claim
		}
		if y.changed(id, asof, since) { // C2
			y.t.Errorf("heir %d: %s is dirty %t since %d, its newest checkpoint holds up to %d", i, id, dirty, since, asof)
		}
	}
	want.Dirty, got.Dirty = nil, nil
	if got.Floor.Start.Next > want.Floor.Start.Next { // it was there when the heir looked; a stale one hides it now
		if !got.Again {
			y.t.Errorf("heir %d: its floor is not in doppel.state any more, and not to be written anew", i)
		}
		want.Emit = slices.DeleteFunc(want.Emit, func(offset int64) bool { return offset < got.Floor.EffectsNext })
		want.Floor, want.Now = got.Floor, got.Now
	}
	want.Again, got.Again = false, false
	if got.Now != want.Now && got.Floor.Start != want.Floor.Start {
		y.t.Errorf("heir %d: now %d, want %d", i, got.Now, want.Now)
	}
	slices.Sort(got.Emit)
	if diff := gocmp.Diff(want, got); diff != "" {
		y.t.Errorf("heir %d: warm against cold:\n%s", i, diff)
	}
}

// newest are the last offsets that the newest checkpoints include.
func (y *history) newest() map[string]int64 {
	asof := make(map[string]int64)
	var dec codec.CheckpointDecoder
	var c codec.Checkpoint
	for _, r := range y.state.recs {
		if string(r.Key) != codec.FloorKey && !y.state.gone[r.Offset] && dec.Decode(r.Value, &c) == nil {
			asof[string(r.Key)] = c.Asof
		}
	}
	return asof
}

// changed says whether a valid record behind offset asof and in front of to changes a twin.
func (y *history) changed(id string, asof, to int64) bool {
	var v Validator
	var dec codec.EventDecoder
	var ev codec.Event
	for _, r := range y.log.recs[:to] {
		err := dec.Decode(r.Value, &ev)
		if v.Valid(r.Offset, &ev, err) && string(r.Key) == id && r.Offset > asof {
			return true
		}
	}
	return false
}
