package host

import (
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/doppel-iot/doppel/actors/codec"
	"github.com/doppel-iot/doppel/actors/twin"
	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
)

// doors are gateways as a test wants them.
type doors struct {
	mu           sync.Mutex
	marks        uint64
	cleared      uint64
	gone         bool
	clearsAtOnce bool
}

// Mark implements Gateways.
func (d *doors) Mark() uint64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.marks++
	if d.clearsAtOnce {
		d.cleared = d.marks
	}
	return d.marks
}

// Cleared implements Gateways.
func (d *doors) Cleared() uint64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.cleared
}

// Settled implements Gateways.
func (d *doors) Settled() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return !d.gone
}

func (d *doors) set(change func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	change()
}

// events are the valid records of a log by kind.
func (p *plant) events(tb testing.TB) map[doppelv1.EventKind]int {
	tb.Helper()
	p.log.mu.Lock()
	defer p.log.mu.Unlock()
	n := make(map[doppelv1.EventKind]int)
	var v Validator
	var dec codec.EventDecoder
	var ev codec.Event
	for _, r := range p.log.recs {
		if err := dec.Decode(r.Value, &ev); !v.Valid(r.Offset, &ev, err) {
			tb.Errorf("offset %d is void", r.Offset)
		}
		n[ev.Kind]++
	}
	return n
}

const (
	gapKind       = doppelv1.EventKind_EVENT_KIND_GAP
	unsettledKind = doppelv1.EventKind_EVENT_KIND_UNSETTLED
	settledKind   = doppelv1.EventKind_EVENT_KIND_SETTLED
)

// TestGapWaitsForGateways: a gap is declared only when every gateway has cleared a mark put after it was
// due, and what it wrote to ingest before it did is handled (P2).
func TestGapWaitsForGateways(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, d := newPlant(), &doors{clearsAtOnce: true}
		h := p.host(t, func(c *Config) { c.Gateways = d })
		h.Own(0)
		time.Sleep(time.Second)
		if v := h.Partition(0); v.Unsettled {
			t.Error("unsettled though all is cleared")
		}
		d.set(func() { d.clearsAtOnce = false })
		var r replies
		offer(t, h, sample(&r, "d", 1), sample(&r, "d", 3), sample(&r, "e", 1), sample(&r, "e", 3))
		time.Sleep(20 * time.Second)
		if got := p.events(t)[gapKind]; got != 0 {
			t.Fatalf("%d gaps while a gateway has not cleared", got)
		}
		m := sample(&r, "d", 2) // the gateway had it, and clears by writing it to ingest
		p.ingest.put(&m)
		d.set(func() { d.cleared = d.marks })
		time.Sleep(time.Second)
		if got := p.events(t)[gapKind]; got != 1 {
			t.Errorf("%d gaps, want one, of e", got)
		}
		for id, want := range map[string]uint64{"d": 3, "e": 2} {
			tw, err := h.Twin(t.Context(), 0, id)
			if err != nil {
				t.Fatal(err)
			}
			if c := tw.GetCounters(); c.GetApplied() != want || c.GetLate() != 0 {
				t.Errorf("%s: %d applied and %d late, want %d and 0", id, c.GetApplied(), c.GetLate(), want)
			}
		}
		h.Drop(0)
		synctest.Wait()
	})
}

// TestUnsettled: while a gateway is gone, and after a claim, samples are held for a minute; beyond that a gap is
// forced. All of it is logged, and the next owner knows.
func TestUnsettled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, d := newPlant(), &doors{clearsAtOnce: true}
		gateways := func(c *Config) { c.Gateways = d }
		h := p.host(t, gateways)
		h.Own(0)
		time.Sleep(time.Second)
		d.set(func() { d.gone, d.clearsAtOnce = true, false })
		time.Sleep(2 * time.Duration(wheelTick))
		if got := p.events(t)[unsettledKind]; got != 1 || !h.Partition(0).Unsettled {
			t.Errorf("%d records of an unsettled partition %+v", got, h.Partition(0))
		}
		var r replies
		offer(t, h, sample(&r, "d", 1), sample(&r, "d", 3))
		time.Sleep(twin.UnsettledLimits().Hold - time.Second)
		if got := p.events(t)[gapKind]; got != 0 {
			t.Errorf("%d gaps before the limit", got)
		}
		time.Sleep(2 * time.Second)
		if n, forced := p.events(t)[gapKind], h.Stats().ForcedGaps.Load(); n != 1 || forced != 1 {
			t.Errorf("%d gaps, %d forced, want 1 and 1", n, forced)
		}
		offer(t, h, sample(&r, "d", 5))
		if err := h.Release(t.Context(), 0); err != nil {
			t.Fatal(err)
		}

		// The next owner has the mark of its claim not cleared: unsettled, but the log says so already.
		next := p.host(t, gateways)
		d.set(func() { d.gone = false })
		next.Own(0)
		time.Sleep(20 * time.Second)
		n := p.events(t)
		if n[gapKind] != 1 || n[settledKind] != 0 || n[unsettledKind] != 1 || !next.Partition(0).Unsettled {
			t.Errorf("before the mark of the claim is cleared: %v, view %+v", n, next.Partition(0))
		}
		d.set(func() { d.clearsAtOnce, d.cleared = true, d.marks })
		time.Sleep(time.Second)
		n = p.events(t)
		if n[gapKind] != 2 || n[settledKind] != 1 || next.Partition(0).Unsettled || next.Stats().ForcedGaps.Load() != 0 {
			t.Errorf("settled: %v, view %+v", n, next.Partition(0))
		}
		if err := next.Release(t.Context(), 0); err != nil {
			t.Fatal(err)
		}

		// And the one after finds it settled.
		last := p.host(t, gateways)
		last.Own(0)
		time.Sleep(time.Second)
		if n := p.events(t); n[settledKind] != 1 || n[unsettledKind] != 1 || last.Partition(0).Unsettled {
			t.Errorf("after another claim: %v, view %+v", n, last.Partition(0))
		}
		f := NewFold(last.cfg.Rules, Cursor{}, "")
		for _, rec := range p.log.recs {
			f.Take(rec)
		}
		if f.Stats.Void != 0 || f.First != nil {
			t.Errorf("a fold finds %d void, %v", f.Stats.Void, f.First)
		}
		last.Drop(0)
		synctest.Wait()
	})
}
