package host

import (
	"sync"
	"testing"
	"testing/synctest"
)

// watchers note which twins they were told of.
type watchers struct {
	mu   sync.Mutex
	told []string
}

// TwinsWatched implements Watchers.
func (*watchers) TwinsWatched() bool { return true }

// TwinChanged implements Watchers.
func (w *watchers) TwinChanged(_ int32, device string, _ uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.told = append(w.told, device)
}

func (w *watchers) take() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	told := w.told
	w.told = nil
	return told
}

// TestWatchersOfALostEpoch: what an epoch appended and did not live to release is part of the next one's
// state. Nobody was told of it, and its redelivery changes nothing any more: so the next one tells.
func TestWatchersOfALostEpoch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, w := newPlant(), &watchers{}
		h := p.host(t, func(c *Config) { c.Watchers = w })
		var r replies
		h.Own(0)
		synctest.Wait()
		offer(t, h, sample(&r, "quiet", 1), sample(&r, "last", 1))
		w.take()

		p.log.hang()
		offer(t, h, sample(&r, "last", 2))
		h.Drop(0)
		h.Own(0)
		synctest.Wait()
		if told := w.take(); len(told) > 0 {
			t.Errorf("told of %q before it was released", told)
		}
		p.log.goOn() // the record lands, and then the claim
		synctest.Wait()
		twin, err := h.Twin(t.Context(), 0, "last")
		if err != nil {
			t.Fatal(err)
		}
		if got := twin.GetCounters().GetApplied(); got != 2 {
			t.Fatalf("%d samples applied, want 2: the record did not count", got)
		}
		offer(t, h, sample(&r, "last", 2)) // the door's copy
		told := make(map[string]bool)
		for _, id := range w.take() {
			told[id] = true
		}
		if !told["last"] {
			t.Error("nobody was told of a change that the next epoch found in the log")
		}

		// After an orderly end there is nothing that was not told.
		if err := h.Release(t.Context(), 0); err != nil {
			t.Fatal(err)
		}
		w.take()
		h.Own(0)
		synctest.Wait()
		if told := w.take(); len(told) > 0 {
			t.Errorf("told of %q, which did not change", told)
		}
		h.Drop(0)
		synctest.Wait()
	})
}
