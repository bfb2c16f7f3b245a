package remote

import (
	"errors"
	"slices"
	"testing"
	"time"
)

// TestDeadPeerCostsOthersNothing: one peer refuses connections, another swallows them.
func TestDeadPeerCostsOthersNothing(t *testing.T) {
	a, b := startNode(t, func(c *Config) { c.DialTimeout = 500 * time.Millisecond }), startNode(t)
	in := b.inbox()
	a.connected(t, b.Address())

	gone := listen(t, "127.0.0.1:0")
	refusing := gone.Addr().String()
	if err := gone.Close(); err != nil {
		t.Fatal(err)
	}
	silent := listen(t, "127.0.0.1:0") // nobody accepts
	t.Cleanup(func() { _ = silent.Close() })

	dead := []string{refusing, silent.Addr().String()}
	for i := range 1000 {
		mustTell(t, a, b.Address(), "inbox", beat(uint64(i+1)))
		for _, address := range dead {
			if err := a.Tell(address, "inbox", beat(1)); err != nil && !errors.Is(err, ErrDown) {
				t.Fatalf("got %v, want ErrDown", err)
			}
		}
	}
	eventually(t, "the good peer has all", func() bool { return in.len() == 1000 })
	for _, address := range dead {
		eventually(t, "the dead peer is down", func() bool { return errors.Is(a.Tell(address, "inbox", beat(1)), ErrDown) })
	}
	// Down, telling costs about what it costs to look: well below what one dial would take.
	began := time.Now()
	for range 10_000 {
		if err := a.Tell(dead[0], "inbox", beat(1)); !errors.Is(err, ErrDown) {
			t.Fatalf("got %v, want ErrDown", err)
		}
	}
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("10,000 calls to a dead peer took %v", took)
	}
	if got := a.Stats().Queued.Load(); got != 0 {
		t.Errorf("%d bytes are queued for dead peers, want 0", got)
	}
	if got, want := in.seqs(), numbers(1000); !slices.Equal(got, want) {
		t.Errorf("the good peer got %d messages in disorder", len(got))
	}
}

// TestConnectingPeerGetsALittle: what is told before the connection stands arrives, and is bounded.
func TestConnectingPeerGetsALittle(t *testing.T) {
	l := listen(t, "127.0.0.1:0")
	a := startNode(t, func(c *Config) { c.DialTimeout = time.Minute })
	told := 0
	for {
		err := a.Tell(l.Addr().String(), "inbox", padded(1000))
		if err == nil {
			told++
			continue
		}
		if !errors.Is(err, ErrDown) {
			t.Fatalf("got %v, want ErrDown", err)
		}
		break
	}
	if got, want := told, (8<<20)/connectingShare/1000; got < want/2 || got > want {
		t.Errorf("%d messages were taken while connecting, want about %d", got, want)
	}
	b := startNodeOn(t, l, l.Addr().String())
	in := b.inbox()
	eventually(t, "they arrived", func() bool { return in.len() == told })
}

func TestStalledPeerFillsItsOwnBufferOnly(t *testing.T) {
	const buffer = 2 << 20
	small := func(c *Config) { c.Buffer, c.StallAfter = buffer, 5*time.Second }
	a, b, good := startNode(t, small), startNode(t), startNode(t)
	in, other := b.inbox(), good.inbox()
	p := startProxy(t, b.Address())
	a.connected(t, p.address())
	a.connected(t, good.Address())

	p.pause(true)
	accepted, full := 0, false
	for !full && accepted < 256<<20 {
		switch err := a.Tell(p.address(), "inbox", padded(32<<10)); {
		case err == nil:
			accepted += 32 << 10
		case errors.Is(err, ErrFull):
			full = true
		default:
			t.Fatal(err)
		}
	}
	if !full {
		t.Fatalf("a peer that stands still took %d bytes", accepted)
	}
	if got := a.Stats().Queued.Load(); got > buffer {
		t.Errorf("%d bytes are queued, want at most %d", got, buffer)
	}
	for i := range 1000 {
		mustTell(t, a, good.Address(), "inbox", beat(uint64(i+1)))
	}
	eventually(t, "the good peer has all", func() bool { return other.len() == 1000 })
	if a.is(p.address(), down) {
		t.Error("the peer was given up before the good one had all: nothing is proven")
	}

	eventually(t, "the peer is given up", func() bool { return a.is(p.address(), down) })
	if got := a.Stats().Stalls.Load(); got != 1 {
		t.Errorf("%d stalls, want 1", got)
	}
	if err := a.Tell(p.address(), "inbox", beat(1)); !errors.Is(err, ErrDown) {
		t.Errorf("got %v, want ErrDown", err)
	}
	if got := a.Stats().Queued.Load(); got != 0 {
		t.Errorf("%d bytes are queued for a peer that is down, want 0", got)
	}
	if a.Stats().Dropped.Load() == 0 {
		t.Error("nothing was counted as dropped")
	}

	p.pause(false)
	eventually(t, "the peer is back", func() bool { return a.is(p.address(), up) })
	before := in.len()
	mustTell(t, a, p.address(), "inbox", beat(7))
	eventually(t, "it hears again", func() bool { return in.len() > before })
}

// TestBlockedHandlerIsAStall: a node whose actors take nothing is given up as one that is dead, and
// holds only a window of what was sent to it.
func TestBlockedHandlerIsAStall(t *testing.T) {
	a := startNode(t, func(c *Config) { c.StallAfter = time.Second })
	b := startNode(t)
	free := make(chan struct{})
	b.Handle("inbox", blockOn(free))
	a.connected(t, b.Address())
	sent := 0
	for {
		err := a.Tell(b.Address(), "inbox", padded(32<<10))
		if errors.Is(err, ErrDown) {
			break
		}
		if err == nil {
			sent++
		}
	}
	if got := a.Stats().Stalls.Load(); got == 0 {
		t.Error("the peer was not given up")
	}
	if got, most := a.Stats().SentBytes.Load(), uint64(4*streamWindow); got > most {
		t.Errorf("%d bytes were sent to a node that reads nothing, want at most %d", got, most)
	}
	close(free)
	eventually(t, "the peer is back", func() bool { return a.is(b.Address(), up) })
}

func TestCutConnectionIsMadeAgain(t *testing.T) {
	a, b := startNode(t), startNode(t)
	in := b.inbox()
	p := startProxy(t, b.Address())
	a.connected(t, p.address())
	for round := range 5 {
		p.cut()
		eventually(t, "a message gets through", func() bool {
			_ = a.Tell(p.address(), "inbox", beat(uint64(round+1)))
			s := in.seqs()
			return len(s) > 0 && s[len(s)-1] == uint64(round+1)
		})
	}
	if s := in.seqs(); !slices.IsSorted(s) {
		t.Errorf("messages overtook each other: %v", s)
	}
	if got := a.Stats().Connects.Load(); got < 6 {
		t.Errorf("%d streams were made, want at least 6", got)
	}
}

// TestRestartedNode is one that comes back under its old address.
func TestRestartedNode(t *testing.T) {
	a := startNode(t)
	l := listen(t, "127.0.0.1:0")
	address := l.Addr().String()
	t.Run("first life", func(t *testing.T) {
		b := startNodeOn(t, l, address)
		in := b.inbox()
		a.connected(t, address)
		mustTell(t, a, address, "inbox", beat(1))
		eventually(t, "it heard", func() bool { return in.len() == 1 })
	})
	eventually(t, "it is down", func() bool { return a.is(address, down) })
	b := startNodeOn(t, listen(t, address), address)
	in := b.inbox()
	eventually(t, "it is up again", func() bool { return a.is(address, up) })
	mustTell(t, a, address, "inbox", beat(2))
	eventually(t, "it heard", func() bool { return in.len() == 1 })
}

func TestHeard(t *testing.T) {
	a, b := startNode(t), startNode(t, func(c *Config) { c.StallAfter = 2 * time.Second })
	if got := a.Heard(b.Address()); !got.IsZero() {
		t.Errorf("heard at %v before anything was said", got)
	}
	b.connected(t, a.Address())
	first := a.Heard(b.Address())
	if first.IsZero() || b.Heard(a.Address()).IsZero() {
		t.Error("a connection does not count as hearing of each other")
	}
	eventually(t, "pings are heard", func() bool { return a.Heard(b.Address()).After(first) })
}

func TestForget(t *testing.T) {
	a, b := startNode(t), startNode(t)
	in := b.inbox()
	a.connected(t, b.Address())
	a.Forget(b.Address())
	a.Forget(b.Address())
	eventually(t, "the stream ended", func() bool { return a.Stats().Connected.Load() == 0 })
	a.connected(t, b.Address())
	mustTell(t, a, b.Address(), "inbox", beat(1))
	eventually(t, "it is known again", func() bool { return in.len() == 1 })
}
