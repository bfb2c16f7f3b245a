package mqtt

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/doppel-iot/doppel/actors/host"
)

// TestBrokerHoldsBackAll: what all connections together have unacknowledged is bounded in bytes; each may
// have a little nevertheless, and none is forgotten once there is room.
func TestBrokerHoldsBackAll(t *testing.T) {
	o := newOwner(holdAll)
	const devices, each, size = 10, 20, 10_000
	b, addr, _ := startBroker(t, o, func(c *BrokerConfig) { c.MaxHeldBytes = 15 * size })
	var wg sync.WaitGroup
	for n := range devices {
		d := newDevice(t, addr, nil)
		for range each {
			wg.Go(func() {
				if _, err := d.publish(fmt.Sprintf("devices/d%d/telemetry", n), 1, false, strings.Repeat("x", size)); err != nil {
					t.Error(err)
				}
			})
		}
	}
	o.await(t, devices*fairShare)
	most := int64(15 + devices*fairShare)
	never(t, "more than the bound", 200*time.Millisecond, func() bool { return b.Stats().Unacked.Load() > most })
	o.mu.Lock()
	o.verdict = releaseAll
	held := append([]host.Message(nil), o.msgs...)
	o.mu.Unlock()
	for _, m := range held {
		m.Reply.Done([]uint64{m.Token}, host.Released)
	}
	wg.Wait()
	if left := b.held.Load(); left != 0 {
		t.Errorf("%d bytes held with nothing unacknowledged, want none", left)
	}
}

// TestLedgerBoundsBytes: large messages fill a ledger before their number does.
func TestLedgerBoundsBytes(t *testing.T) {
	l := newLedger(1000, 100_000, &Stats{}, Observer{})
	w := &wire{}
	l.reset(w)
	push := func() {
		if _, err := l.push(w, []host.Message{{Payload: make([]byte, 10_000-slotOverhead)}}, []uint16{1}); err != nil {
			t.Error(err)
		}
	}
	for range 10 {
		push()
	}
	entered := make(chan struct{})
	go func() { defer close(entered); push() }()
	select {
	case <-entered:
		t.Fatal("a message entered a full ledger")
	case <-time.After(50 * time.Millisecond):
	}
	l.Done([]uint64{l.token(0)}, host.Released)
	<-entered
	l.reset(nil)
	if l.held.bytes != 0 {
		t.Errorf("%d bytes held after a reset, want none", l.held.bytes)
	}
}
