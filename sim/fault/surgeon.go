package fault

import (
	"bufio"
	"encoding/binary"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// surgeon follows the requests of Kafka connections and hits those that produce, where a cut at a random
// time hardly ever falls: behind the request and before its answer, or in the middle of the request.
type surgeon struct {
	hits atomic.Int64

	mu   sync.Mutex
	kind Kind
	left int
}

// The header of a request: its length, then the key of the API.
const (
	requestHead = 6
	apiProduce  = 0
)

// answerLimit is how long a broker may take for the answer that is thrown away.
const answerLimit = 2 * time.Second

func (s *surgeon) arm(k Kind, n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.kind, s.left = k, n
}

// take gives the kind of hit for a produce request; false: none.
func (s *surgeon) take() (Kind, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.left == 0 {
		return "", false
	}
	s.left--
	s.hits.Add(1)
	return s.kind, true
}

// copy forwards requests towards the server until the connection ends.
func (s *surgeon) copy(c *pair, g *gate) {
	from := bufio.NewReaderSize(c.client, 64<<10)
	for {
		if !g.pass(c.done) {
			return
		}
		head, err := from.Peek(requestHead)
		if err != nil {
			c.reset()
			return
		}
		if !g.pass(c.done) {
			return
		}
		size := 4 + int64(binary.BigEndian.Uint32(head))
		kind, hit := Kind(""), false
		if binary.BigEndian.Uint16(head[4:]) == apiProduce {
			kind, hit = s.take()
		}
		switch {
		case !hit:
			err = relay(c.server, from, size)
		case kind == Torn:
			_ = relay(c.server, from, size/2) // it is cut anyway
			c.reset()
			return
		default:
			s.swallow(c, from, size)
			return
		}
		if err != nil {
			c.reset()
			return
		}
	}
}

// swallow sends a request and cuts the connection once the broker has answered.
func (s *surgeon) swallow(c *pair, from *bufio.Reader, size int64) {
	answered := c.mute()
	defer c.reset()
	if relay(c.server, from, size) != nil {
		return
	}
	select {
	case <-answered:
	case <-c.done:
	case <-time.After(answerLimit):
	}
}

func relay(to *net.TCPConn, from *bufio.Reader, size int64) error {
	_, err := io.CopyN(to, from, size)
	return err
}
