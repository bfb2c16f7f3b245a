package fault

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"time"
)

// echo answers every Kafka frame with itself, and tells what it got.
func echo(t *testing.T) (addr string, got chan []byte) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	got = make(chan []byte, 100)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				for {
					head := make([]byte, 4)
					if _, err := io.ReadFull(c, head); err != nil {
						return
					}
					body := make([]byte, binary.BigEndian.Uint32(head))
					n, err := io.ReadFull(c, body)
					got <- body[:n]
					if err != nil {
						return
					}
					if _, err := c.Write(append(head, body...)); err != nil {
						return
					}
				}
			}()
		}
	}()
	return l.Addr().String(), got
}

func proxied(t *testing.T) (*Proxy, chan []byte) {
	t.Helper()
	addr, got := echo(t)
	p, err := NewProxy(t.Context(), addr, true)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	return p, got
}

func dial(t *testing.T, p *Proxy) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", p.Addr())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// frame is a request with an API key.
func frame(key uint16, text string) []byte {
	b := binary.BigEndian.AppendUint32(nil, uint32(2+len(text)))
	b = binary.BigEndian.AppendUint16(b, key)
	return append(b, text...)
}

// ask sends a frame and waits for its answer.
func ask(c net.Conn, f []byte, within time.Duration) error {
	if _, err := c.Write(f); err != nil {
		return err
	}
	_ = c.SetReadDeadline(time.Now().Add(within))
	answer := make([]byte, len(f))
	if _, err := io.ReadFull(c, answer); err != nil {
		return err
	}
	if !bytes.Equal(answer, f) {
		return io.ErrUnexpectedEOF
	}
	return nil
}

const patience = 5 * time.Second

func expect(t *testing.T, got chan []byte, want []byte) {
	t.Helper()
	select {
	case b := <-got:
		if !bytes.Equal(b, want) {
			t.Errorf("the server got %q, want %q", b, want)
		}
	case <-time.After(patience):
		t.Errorf("the server got nothing, want %q", want)
	}
}

func TestProxyCut(t *testing.T) {
	p, _ := proxied(t)
	c := dial(t, p)
	if err := ask(c, frame(3, "a"), patience); err != nil {
		t.Fatalf("before the cut: %v", err)
	}
	p.Cut()
	if err := ask(c, frame(3, "b"), patience); err == nil {
		t.Error("a connection lives on")
	}
	if c, err := net.Dial("tcp", p.Addr()); err == nil { // it may be reset before it is there
		defer c.Close()
		if ask(c, frame(3, "c"), patience) == nil {
			t.Error("a new connection is served")
		}
	}
	p.Heal()
	if err := ask(dial(t, p), frame(3, "d"), patience); err != nil {
		t.Errorf("after it healed: %v", err)
	}
}

// TestProxyStall: what is stalled passes once it is healed, and not before; the other direction goes on.
func TestProxyStall(t *testing.T) {
	for name, way := range map[string][2]bool{"up": {true, false}, "down": {false, true}, "both": {true, true}} {
		t.Run(name, func(t *testing.T) {
			p, got := proxied(t)
			c := dial(t, p)
			if err := ask(c, frame(3, "a"), patience); err != nil {
				t.Fatal(err)
			}
			<-got
			p.Stall(way[0], way[1])
			if err := ask(c, frame(3, "b"), 100*time.Millisecond); !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("while stalled: %v, want no answer and nothing broken", err)
			}
			if reached := len(got) > 0; reached == way[0] {
				t.Errorf("reached the server: %v", reached)
			}
			p.Heal()
			_ = c.SetReadDeadline(time.Now().Add(patience))
			answer := make([]byte, 7)
			if _, err := io.ReadFull(c, answer); err != nil || answer[6] != 'b' {
				t.Errorf("after it healed: %q, %v", answer, err)
			}
		})
	}
}

// TestProduceUnanswered: the request arrives whole, its answer never, and other requests are left alone.
func TestProduceUnanswered(t *testing.T) {
	p, got := proxied(t)
	p.Hit(Unanswered, 1)
	c := dial(t, p)
	if err := ask(c, frame(3, "metadata"), patience); err != nil {
		t.Fatalf("another request: %v", err)
	}
	expect(t, got, frame(3, "metadata")[4:])
	if err := ask(c, frame(apiProduce, "records"), patience); err == nil {
		t.Error("the produce request was answered")
	}
	expect(t, got, frame(apiProduce, "records")[4:])
	if err := ask(dial(t, p), frame(apiProduce, "again"), patience); err != nil {
		t.Errorf("the next produce request: %v", err)
	}
	if p.Hits() != 1 {
		t.Errorf("%d requests hit, want 1", p.Hits())
	}
}

// TestProduceTorn: the server gets half of the request.
func TestProduceTorn(t *testing.T) {
	p, got := proxied(t)
	p.Hit(Torn, 1)
	whole := frame(apiProduce, "0123456789")
	if err := ask(dial(t, p), whole, patience); err == nil {
		t.Error("half a request was answered")
	}
	select {
	case b := <-got:
		// A reset may overtake what was sent before it.
		if len(b) >= len(whole)-4 {
			t.Errorf("the server got %q, want half of it at most", b)
		}
	case <-time.After(patience):
		t.Error("the server's connection lives on")
	}
	if err := ask(dial(t, p), frame(apiProduce, "again"), patience); err != nil {
		t.Errorf("the next produce request: %v", err)
	}
}
