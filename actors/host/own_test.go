package host

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// sample is a telemetry message of one sample.
func sample(r Reply, device string, seq int) Message {
	return Message{
		Kind: Telemetry, Device: []byte(device), ReceivedAt: time.Now().UnixNano(), Reply: r, Topic: "devices",
		Payload: fmt.Appendf(nil, `{"boot":1,"samples":[{"seq":%d,"metrics":{"t":20}}]}`, seq),
	}
}

func offer(t *testing.T, h *Host, m ...Message) {
	t.Helper()
	if err := h.Offer(t.Context(), 0, m, time.Second); err != nil {
		t.Fatal(err)
	}
	synctest.Wait()
}

func balance(t *testing.T, h *Host, name string, want Accounts) {
	t.Helper()
	if got := h.Stats().Accounts(); got != want {
		t.Errorf("%s: accounts %+v, want %+v", name, got, want)
	}
}

// TestOwnership: a partition goes from one node to the other and back; the accounts of both balance, and what
// it holds goes with it.
func TestOwnership(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPlant()
		var served [2]atomic.Int64 // +1 for each begin, -1 for each end
		var hosts [2]*Host
		for i := range hosts {
			hosts[i] = p.host(t, func(c *Config) {
				c.Limits.Hold, c.Limits.Held = time.Hour, 1024
				c.Served = func(_ int32, _ uint64, serving bool) {
					if serving {
						served[i].Add(1)
					} else {
						served[i].Add(-1)
					}
				}
			})
		}
		a, b := hosts[0], hosts[1]
		var r replies
		if err := a.Offer(t.Context(), 0, []Message{sample(&r, "d", 1)}, time.Second); !errors.Is(err, ErrUnavailable) {
			t.Errorf("offered before owned: %v", err)
		}
		a.Own(0)
		a.Own(0)
		synctest.Wait()
		if s, total := a.Restored(); s != 1 || total != 1 {
			t.Errorf("restored %d of %d", s, total)
		}
		offer(t, a, sample(&r, "d", 1), sample(&r, "d", 3))
		if got := r.count(Released); got != 2 {
			t.Errorf("%d released, want 2", got)
		}
		balance(t, a, "owner", Accounts{Received: 2, Applied: 1, Held: 1})
		if err := a.Release(t.Context(), 0); err != nil {
			t.Fatal(err)
		}
		balance(t, a, "left", Accounts{Received: 1, Applied: 1})
		if s, total := a.Restored(); s != 0 || total != 0 || served[0].Load() != 0 {
			t.Errorf("restored %d of %d after the release, served %d", s, total, served[0].Load())
		}
		if _, err := a.Twin(t.Context(), 0, "d"); !errors.Is(err, ErrUnavailable) {
			t.Errorf("asked where it is not: %v", err)
		}
		claims := len(p.state.all())
		b.Own(0)
		synctest.Wait()
		balance(t, b, "came", Accounts{Received: 1, Held: 1})
		if served[1].Load() != 1 {
			t.Errorf("b serves %d", served[1].Load())
		}
		if claims < 2 { // a checkpoint and a floor
			t.Errorf("%d records in doppel.state after a release", claims)
		}
		if got := b.Stats().Replayed.Load(); got != 0 {
			t.Errorf("%d records replayed after an orderly move, want 0", got)
		}
		offer(t, b, sample(&r, "d", 2))
		balance(t, b, "filled", Accounts{Received: 2, Applied: 2})

		// Dropped with records in flight: nothing of them is counted, and they are sent back.
		p.log.hang()
		offer(t, b, sample(&r, "d", 4))
		b.Drop(0)
		b.Own(0) // and again at once
		synctest.Wait()
		if got := r.count(NotOwner); got != 1 {
			t.Errorf("%d given back, want 1", got)
		}
		balance(t, b, "dropped", Accounts{Received: 2, Applied: 2})
		p.log.goOn()
		synctest.Wait()
		if s, total := b.Restored(); s != 1 || total != 1 {
			t.Errorf("restored %d of %d after a drop", s, total)
		}
		b.Drop(0)
		synctest.Wait()
	})
}

// TestReleaseIsBounded: a log that hangs does not hold a partition for ever, nor longer than who asks waits.
func TestReleaseIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPlant()
		h := p.host(t, nil)
		var r replies
		h.Own(0)
		synctest.Wait()
		p.log.hang()
		offer(t, h, sample(&r, "d", 1))
		begin := time.Now()
		if err := h.Release(t.Context(), 0); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(begin); took > leaveWithin {
			t.Errorf("released after %v", took)
		}
		if got := r.count(NotOwner); got != 1 {
			t.Errorf("%d given back, want 1", got)
		}
		p.log.goOn()
		h.Own(0)
		synctest.Wait()
		p.log.hang()
		offer(t, h, sample(&r, "d", 2))
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		begin = time.Now()
		if err := h.Release(ctx, 0); !errors.Is(err, context.DeadlineExceeded) || time.Since(begin) != time.Second {
			t.Errorf("released with %v after %v", err, time.Since(begin))
		}
		synctest.Wait()
		if got := r.count(NotOwner); got != 2 {
			t.Errorf("%d given back, want 2", got)
		}
		p.log.goOn()
		synctest.Wait()
	})
}

// TestFailed: a partition that refuses to serve says so once, and can be owned again.
func TestFailed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPlant()
		h := p.host(t, nil)
		h.Own(0)
		synctest.Wait()
		var r replies
		offer(t, h, sample(&r, "d", 1))
		if err := h.Release(t.Context(), 0); err != nil {
			t.Fatal(err)
		}
		kept := p.log
		p.log = newStore() // made anew: doppel.state knows more than it has
		h = p.host(t, nil)
		h.Own(0)
		select {
		case err := <-h.Failed():
			if !errors.Is(err, errRefuseToServe) {
				t.Errorf("failed with %v", err)
			}
		case <-time.After(time.Minute):
			t.Error("nothing failed")
		}
		synctest.Wait()
		if s, total := h.Restored(); s != 0 || total != 0 {
			t.Errorf("restored %d of %d", s, total)
		}
		p.log = kept
		h = p.host(t, nil)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- h.Serve(ctx, []int32{0}) }()
		synctest.Wait()
		if s, _ := h.Restored(); s != 1 {
			t.Error("the old log is not served")
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}
