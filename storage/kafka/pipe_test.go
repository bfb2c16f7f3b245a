package kafka

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand"
	"net"
	"testing"

	"golang.org/x/net/nettest"
)

func TestPipeConn(t *testing.T) {
	nettest.TestConn(t, func() (c1, c2 net.Conn, stop func(), err error) {
		a, b := newPipeConns(advertised("127.0.0.1:1"))
		return a, b, func() { a.Close(); b.Close() }, nil
	})
}

// Bytes arrive as they were sent whatever the sizes of writes and reads, around the end of the ring.
func TestPipeKeepsBytes(t *testing.T) {
	a, b := newPipeConns(advertised("127.0.0.1:1"))
	rng := rand.New(rand.NewSource(1))
	want := make([]byte, 5*pipeBytes)
	rng.Read(want)
	sizes := rand.New(rand.NewSource(2))
	go func() {
		for rest := want; len(rest) > 0; {
			n := min(len(rest), 1+sizes.Intn(2*pipeBytes))
			a.Write(rest[:n])
			rest = rest[n:]
		}
		a.Close()
	}()
	var got bytes.Buffer
	buf := make([]byte, pipeBytes)
	for {
		n, err := b.Read(buf[:1+rng.Intn(len(buf))])
		got.Write(buf[:n])
		if err != nil {
			if !errors.Is(err, io.EOF) {
				t.Fatal(err)
			}
			break
		}
	}
	if !bytes.Equal(got.Bytes(), want) {
		t.Errorf("got %d bytes that differ from the %d sent", got.Len(), len(want))
	}
}

func TestDoorsClose(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	d := newDoors(ln, ln.Addr())
	if err := errors.Join(d.Close()); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Accept(); err == nil {
		t.Error("accepted after Close")
	}
	if _, err := d.dial(context.Background()); !errors.Is(err, net.ErrClosed) {
		t.Errorf("got error %v, want %v", err, net.ErrClosed)
	}
}
