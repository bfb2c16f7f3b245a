package fault

import (
	"bytes"
	"io"
	"net"
	"os"
	"testing"
	"time"
)

// through sends a frame to an echo behind a proxy and says whether it comes back within a while.
func through(t *testing.T, p *Proxy, within time.Duration) bool {
	t.Helper()
	c, err := net.Dial("tcp", p.Addr())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	frame := []byte("\x00\x00\x00\x05hello")
	_ = c.SetDeadline(time.Now().Add(within))
	if _, err := c.Write(frame); err != nil {
		return false
	}
	back := make([]byte, len(frame))
	_, err = io.ReadFull(c, back)
	return err == nil && bytes.Equal(back, frame)
}

// TestRelays: a pair is cut in the direction that is cut, and who a connection comes from is known by its
// process.
func TestRelays(t *testing.T) {
	const short, long = 200 * time.Millisecond, 10 * time.Second
	addr, _ := echo(t)
	me := Subject("node-1") // this process; node-2 is none
	r := newRelays(Members(), func(s Subject) int {
		if s == me {
			return os.Getpid()
		}
		return 0
	})
	t.Cleanup(r.close)
	toKafka, err1 := r.toServer(t.Context(), "node-1", Kafka, addr)
	toPeer, err2 := r.toNode(t.Context(), "node-2", addr)
	if err1 != nil || err2 != nil {
		t.Fatal(err1, err2)
	}
	dead := disturbance{loss: 1}
	for _, c := range []struct {
		from, to    Subject
		kafka, peer bool
	}{
		{"node-1", Kafka, false, true},
		{Kafka, "node-1", false, true},
		{"node-2", Kafka, true, true},
		{"node-1", "node-2", true, false},
		{"node-2", "node-1", true, false},
		{"node-3", "node-2", true, true},
		{"node-1", Mosquitto, true, true},
	} {
		r.disturb(c.from, c.to, dead)
		limit := func(passes bool) time.Duration {
			if passes {
				return long
			}
			return short
		}
		if got := through(t, toKafka, limit(c.kafka)); got != c.kafka {
			t.Errorf("%s to %s is cut: node-1 and kafka: passes %v, want %v", c.from, c.to, got, c.kafka)
		}
		if got := through(t, toPeer, limit(c.peer)); got != c.peer {
			t.Errorf("%s to %s is cut: node-1 and node-2: passes %v, want %v", c.from, c.to, got, c.peer)
		}
		r.disturb(c.from, c.to, disturbance{})
	}
	r.disturb("node-1", Kafka, disturbance{delay: 300 * time.Millisecond})
	if start := time.Now(); !through(t, toKafka, long) || time.Since(start) < 300*time.Millisecond {
		t.Errorf("a slow link passes in %v, want at least 300 ms", time.Since(start))
	}
	r.disturb("node-1", Kafka, disturbance{loss: 0.5})
	for range 5 {
		if !through(t, toKafka, long) {
			t.Error("a lossy link passes nothing in the end")
		}
	}
}
