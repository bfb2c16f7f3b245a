package mqtt

import (
	"net"
	"testing"
	"testing/synctest"
	"time"
)

// chunks is a connection that always has n bytes to read.
type chunks struct {
	net.Conn
	n int
}

func (c chunks) Read(p []byte) (int, error) { return min(len(p), c.n), nil }

func TestPacedReads(t *testing.T) {
	for _, c := range []struct {
		name  string
		bytes int
		idle  time.Duration // before each read
		want  time.Duration // ten reads, without idle
	}{
		{"few bytes", 100, 0, 9 * breath},
		{"few bytes now and then", 100, breath, 0},
		{"few bytes twice a breath", 100, breath / 2, 9 * breath / 2},
		{"many bytes", little, 0, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := &paced{Conn: chunks{n: c.bytes}}
				buf := make([]byte, readBuffer)
				var waited time.Duration
				for range 10 {
					time.Sleep(c.idle)
					start := time.Now()
					if n, err := r.Read(buf); n != c.bytes || err != nil {
						t.Fatalf("read: %d, %v", n, err)
					}
					waited += time.Since(start)
				}
				if waited != c.want {
					t.Errorf("ten reads waited %v, want %v", waited, c.want)
				}
			})
		})
	}
}
