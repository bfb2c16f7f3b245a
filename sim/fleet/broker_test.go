package fleet

import (
	"bufio"
	"encoding/binary"
	"net"
	"sync"
	"testing"
	"time"
)

// received is one PUBLISH as the fake broker saw it.
type received struct {
	conn    int
	topic   string
	id      uint16
	payload string
}

// fakeBroker accepts connections and takes PUBLISHes; what it answers, the test decides.
type fakeBroker struct {
	t        *testing.T
	listener net.Listener
	// answer is asked for each PUBLISH, one at a time: the PUBACK's reason, and whether to send it at
	// all or to cut the connection instead.
	answer  func(r received) (reason byte, cut, silent bool)
	connack []byte

	mu   sync.Mutex
	seen []received
	all  sync.WaitGroup
}

func newFakeBroker(t *testing.T, answer func(received) (byte, bool, bool)) *fakeBroker {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	b := &fakeBroker{t: t, listener: l, answer: answer, connack: []byte{packetConnack, 3, 0, 0, 0}}
	b.all.Go(b.accept)
	t.Cleanup(func() {
		_ = l.Close()
		b.all.Wait()
	})
	return b
}

func (b *fakeBroker) url() string { return "mqtt://" + b.listener.Addr().String() }

func (b *fakeBroker) accept() {
	for n := 0; ; n++ {
		c, err := b.listener.Accept()
		if err != nil {
			return
		}
		b.all.Go(func() { b.serve(c, n) })
	}
}

func (b *fakeBroker) serve(c net.Conn, n int) {
	defer c.Close()
	// A test that ends early leaves connections; they must not hold it up.
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	r := bufio.NewReader(c)
	for {
		first, err := r.Peek(1)
		if err != nil {
			return
		}
		header := first[0] // the next read may overwrite it
		p, err := readPacket(r, nil)
		if err != nil {
			return
		}
		switch p.kind {
		case packetConnect:
			_, _ = c.Write(b.connack)
		case packetPublish & 0xF0:
			if header != packetPublish {
				b.t.Errorf("PUBLISH with flags 0x%02x", header)
			}
			if !b.take(c, parsePublish(n, p.body)) {
				return
			}
		case packetPingreq:
			_, _ = c.Write([]byte{packetPingresp, 0})
		case packetDisconnect:
			return
		}
	}
}

func (b *fakeBroker) take(c net.Conn, m received) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.seen = append(b.seen, m)
	reason, cut, silent := b.answer(m)
	switch {
	case cut:
		return false
	case silent:
	case reason == 0:
		_, _ = c.Write([]byte{packetPuback, 2, byte(m.id >> 8), byte(m.id)})
	default:
		_, _ = c.Write([]byte{packetPuback, 4, byte(m.id >> 8), byte(m.id), reason, 0})
	}
	return true
}

func (b *fakeBroker) messages() []received {
	b.mu.Lock()
	defer b.mu.Unlock()
	return append([]received(nil), b.seen...)
}

func parsePublish(conn int, body []byte) received {
	n := int(binary.BigEndian.Uint16(body))
	m := received{conn: conn, topic: string(body[2 : 2+n])}
	body = body[2+n:]
	m.id = binary.BigEndian.Uint16(body)
	props, k := binary.Uvarint(body[2:])
	m.payload = string(body[2+k+int(props):])
	return m
}

func acceptAll(received) (byte, bool, bool) { return 0, false, false }
