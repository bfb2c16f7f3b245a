// Package lowwater keeps what comes on a connection from waking the process while nobody is to read it.
//
// Go's poller is edge-triggered: each segment that arrives wakes a thread, which finds no goroutine that
// waits for it. For a connection that is read by the clock, those are most of the wake-ups of a node.
package lowwater

import (
	"net"
	"syscall"
)

// high is the mark of a connection that rests, in bytes: what waits beyond it wakes the process as before.
const high = 256 << 10

// Mark is the low-water mark of a connection, SO_RCVLOWAT. Whoever raised it lowers it before it waits
// for the connection; the end of the connection wakes in any case. The nil Mark does nothing. Not for
// concurrent use.
type Mark struct {
	raw          syscall.RawConn
	raise, lower func(fd uintptr) // bound once: a closure for each call would be garbage
	raised       bool
}

// Of returns the mark of a TCP connection, also of one below TLS; nil where there is none, as on systems
// other than Linux.
func Of(c net.Conn) *Mark {
	if above, ok := c.(interface{ NetConn() net.Conn }); ok {
		c = above.NetConn()
	}
	tcp, ok := c.(*net.TCPConn)
	if !ok || !supported {
		return nil
	}
	raw, err := tcp.SyscallConn()
	if err != nil {
		return nil
	}
	m := &Mark{raw: raw}
	m.raise = func(fd uintptr) { m.raised = set(fd, high) == nil }
	m.lower = func(fd uintptr) { m.raised = set(fd, 1) != nil }
	return m
}

// Raise lets the connection come without a wake-up.
func (m *Mark) Raise() {
	if m != nil && !m.raised {
		_ = m.raw.Control(m.raise) // closed: the read will tell
	}
}

// Lower has it wake again, at once if something has come.
func (m *Mark) Lower() {
	if m != nil && m.raised {
		_ = m.raw.Control(m.lower)
	}
}
