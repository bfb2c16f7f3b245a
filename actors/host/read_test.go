package host

import (
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// TestReadsOfAHangingLog: a log that does not answer holds no read for longer than a second, what is shown is
// said to be stale, and nothing of that stays when it answers again.
func TestReadsOfAHangingLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPlant()
		h := p.host(t, nil)
		h.Own(0)
		synctest.Wait()
		var r replies
		offer(t, h, sample(&r, "d", 1), sample(&r, "e", 1))
		read := func(device string, stale bool, within time.Duration) {
			t.Helper()
			begin := time.Now()
			tw, err := h.Twin(t.Context(), 0, device)
			if took := time.Since(begin); err != nil || tw.GetStale() != stale || took > within {
				t.Errorf("%s: %v, stale %t after %v, want %t within %v", device, err, tw.GetStale(), took, stale, within)
			}
		}
		read("d", false, 0)
		p.log.hang()
		read("d", false, 0) // it was looked at just now
		offer(t, h, sample(&r, "d", 2))
		read("e", false, 0)
		read("d", true, time.Second+time.Duration(2*wheelTick))
		read("d", true, 0)
		read("e", true, 0)
		if ids, err := h.Devices(t.Context(), 0); len(ids) != 2 || err != nil {
			t.Errorf("devices %v, %v", ids, err)
		}
		time.Sleep(time.Minute)
		read("d", true, 0)
		if got := r.count(Released); got != 2 {
			t.Errorf("%d released, want the 2 of before", got)
		}
		p.log.goOn()
		synctest.Wait()
		read("d", false, 0)
		if got := r.count(Released); got != 3 || h.Stats().Fenced.Load() != 0 {
			t.Errorf("%d released and %d epochs ended, want 3 and 0", got, h.Stats().Fenced.Load())
		}
		h.Drop(0)
		synctest.Wait()
	})
}

// TestReadsLookFirst: a read on an idle owner whose last look is too old waits for one (O7): a stale owner
// does not show what another has changed since.
func TestReadsLookFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPlant()
		a, b := p.host(t, nil), p.host(t, nil)
		a.Own(0)
		synctest.Wait()
		var r replies
		offer(t, a, sample(&r, "d", 1))
		time.Sleep(time.Second)

		// Idle, and the log hangs: the next look has no answer.
		p.log.hang()
		time.Sleep(time.Duration(verifyEvery) - 2*time.Second)
		begin := time.Now()
		tw, err := a.Twin(t.Context(), 0, "d")
		if err != nil || tw.GetStale() || time.Since(begin) != 0 {
			t.Errorf("looked at a while ago: %v, stale %t after %v", err, tw.GetStale(), time.Since(begin))
		}
		time.Sleep(2*time.Second + 100*time.Millisecond)
		begin = time.Now()
		tw, err = a.Twin(t.Context(), 0, "d")
		if took := time.Since(begin); err != nil || !tw.GetStale() || took == 0 || took > time.Duration(readPatience)+time.Duration(2*wheelTick) {
			t.Errorf("not looked at for long: %v, stale %t after %v", err, tw.GetStale(), took)
		}
		p.log.goOn()
		synctest.Wait()

		// Another takes over while this one is not heard of; a read must not show what was before.
		time.Sleep(2900 * time.Millisecond)
		b.Own(0)
		synctest.Wait()
		offer(t, b, sample(&r, "d", 2))
		time.Sleep(200 * time.Millisecond)
		if tw, err := a.Twin(t.Context(), 0, "d"); err == nil && tw.GetVersion() != 2 { // it may have it again
			t.Errorf("a stale owner shows version %d", tw.GetVersion())
		}
		a.Drop(0)
		b.Drop(0)
		synctest.Wait()
	})
}

// TestReadAfterAPause: after a time in which the process did not run, the last turn is no sign of currency; a read
// before the next one looks at the log, too.
func TestReadAfterAPause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPlant()
		var skew atomic.Int64
		h := p.host(t, func(c *Config) { c.Clock = func() int64 { return time.Now().UnixNano() + skew.Load() } })
		h.Own(0)
		synctest.Wait()
		var r replies
		offer(t, h, sample(&r, "d", 1))
		synctest.Wait()
		p.log.hang()
		skew.Store(int64(10 * time.Second))
		begin := time.Now()
		if tw, err := h.Twin(t.Context(), 0, "d"); err != nil || !tw.GetStale() || time.Since(begin) == 0 {
			t.Errorf("%v, stale %t after %v", err, tw.GetStale(), time.Since(begin))
		}
		p.log.goOn()
		h.Drop(0)
		synctest.Wait()
	})
}

// TestReadInPlace: a read that nothing is in the way of needs no turn of the partition, and one of what is not released
// waits for it.
func TestReadInPlace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPlant()
		h := p.host(t, nil)
		h.Own(0)
		synctest.Wait()
		var r replies
		offer(t, h, sample(&r, "d", 1))
		synctest.Wait()
		in := h.parts[0]
		seen := func(o *owner) uint64 { return o.twins["d"].lastN }
		if !in.readInPlace(seen) {
			t.Error("nobody takes a turn and everything is released")
		}
		in.turn.Lock()
		if in.readInPlace(seen) {
			t.Error("somebody takes a turn")
		}
		in.turn.Unlock()
		p.log.hang()
		offer(t, h, sample(&r, "d", 2))
		synctest.Wait()
		if in.readInPlace(seen) {
			t.Error("what it saw may still be refused")
		}
		p.log.goOn()
		h.Drop(0)
		synctest.Wait()
		if in.readInPlace(seen) {
			t.Error("nobody serves")
		}
	})
}
