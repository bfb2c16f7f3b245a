package fleet

import (
	"context"
	"log/slog"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/doppel-iot/doppel/sim/device"
)

const (
	// tick is the least distance between two writes of a connection: what falls due meanwhile
	// shares a system call.
	tick = 20 * time.Millisecond
	// writeSize is when a write is full.
	writeSize = 32 << 10
	// pause is how long a connection waits after the broker refused a message.
	pause = 200 * time.Millisecond
)

// conn is one MQTT connection and the devices that use it.
type conn struct {
	cfg      Config
	endpoint endpoint
	clientID string
	log      *slog.Logger

	// Owned by the writer.
	link      *link
	limit     int // messages in flight
	out       []byte
	devices   queue[*sender]
	later     queue[*message]
	script    script
	obedient  map[string]*listener // by id
	nextCut   int64
	lastWrite int64
	until     int64
	unpaced   bool  // devices are always due; their keys in the queue are turns
	turn      int64 // last one given

	mu     sync.Mutex
	window *window
	totals totals
	// waiting is set when the writer sleeps for want of room; freed wakes it.
	waiting bool
	inbox   []heard // what obedient devices were told
	refused bool    // the broker refused a message; the link was cut for it
	freed   chan struct{}
	// lag is how long the last acknowledged message took, nanoseconds.
	lag atomic.Int64
	// behind is how late the next due sample is, nanoseconds.
	behind atomic.Int64
}

func newConn(cfg Config, e endpoint, clientID string, index int) *conn {
	return &conn{
		cfg:      cfg,
		endpoint: e,
		clientID: clientID,
		log:      cfg.Log.With("client_id", clientID),
		window:   newWindow(cfg.Inflight),
		obedient: make(map[string]*listener),
		limit:    cfg.Inflight,
		totals:   newTotals(),
		freed:    make(chan struct{}, 1),
		script: script{
			faults:  cfg.Faults,
			random:  device.NewRandom(cfg.Seed, 1<<32+uint64(index)),
			encoder: encoder{format: cfg.Format},
			batch:   cfg.Batch,
			props:   telemetryProperties(cfg),
		},
	}
}

// open connects and starts the reader.
func (c *conn) open(ctx context.Context) error {
	l, err := dial(ctx, c.endpoint, c.cfg.Version, c.clientID)
	if err != nil {
		return err
	}
	c.link = l
	c.limit = min(c.cfg.Inflight, max(l.receiveMaximum, 1))
	go c.read(l)
	return nil
}

// run publishes until everything was sent and acknowledged, or ctx ends. stop ends the sending of
// new samples early.
func (c *conn) run(ctx context.Context, stop <-chan struct{}) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	c.nextCut = time.Now().Add(time.Second).UnixNano()
	if err := c.subscribeAgain(ctx); err != nil {
		c.log.Debug("subscribe failed", "error", err) // the connection has ended
	}
	for {
		select {
		case <-stop:
			c.abandonSchedule()
			stop = nil
		default:
		}
		c.hear()
		now := time.Now().UnixNano()
		full, wrote := c.fill(now)
		if wrote > 0 {
			c.write(wrote)
			if !full {
				now = time.Now().UnixNano()
			}
		}
		if full && wrote > 0 && ctx.Err() == nil {
			continue
		}
		c.mayCut(now)
		if c.exhausted() && c.settled() {
			c.link.leave()
			<-c.link.ended
			return
		}
		timer.Reset(c.sleep(now))
		select {
		case <-ctx.Done():
			c.link.cut()
			<-c.link.ended
			return
		case <-c.link.ended:
			if !c.reconnect(ctx) {
				return
			}
		case <-c.freed:
		case <-stop:
			c.abandonSchedule()
			stop = nil
		case <-timer.C:
		}
	}
}

// fill takes what is due into the window, as far as there is room, and gives the number of new
// messages. full says that more may be due at once.
func (c *conn) fill(now int64) (full bool, count int) {
	c.mu.Lock()
	room := c.limit - c.window.waiting()
	next := c.window.tail
	c.waiting = room <= 0
	c.mu.Unlock()

	c.out = c.out[:0]
	for count < room && len(c.out) < writeSize {
		m := c.next(now)
		if m == nil {
			c.behind.Store(0)
			return false, count
		}
		s := c.window.fill(next+uint64(count), m)
		c.out = append(c.out, s.packet...)
		count++
	}
	if !c.unpaced && !c.devices.empty() {
		c.behind.Store(max(0, now-c.devices.top().at))
	}
	return true, count
}

// due is when the next message is due.
func (c *conn) due() int64 {
	at := int64(math.MaxInt64)
	if !c.devices.empty() {
		at = c.devices.top().at
	}
	if !c.later.empty() {
		at = min(at, c.later.top().at)
	}
	return at
}

// write publishes the messages that fill has put behind the window's tail.
func (c *conn) write(count int) {
	now := time.Now().UnixNano()
	c.mu.Lock()
	for range count {
		s := c.window.at(c.window.tail)
		s.sentAt = now
		c.totals.wrote(s)
		if s.kind == sampleMessage {
			if c.cfg.Observer != nil {
				c.cfg.Observer.Sent(s.device.index, s.first, s.samples, now)
			}
		}
		c.window.tail++
	}
	c.mu.Unlock()
	c.send(c.out)
}

// send writes bytes. A failed write ends the reader, whose end is where reconnecting starts.
func (c *conn) send(b []byte) {
	c.lastWrite = time.Now().UnixNano()
	if _, err := c.link.net.Write(b); err != nil {
		c.link.cut()
	}
}

// sleep is how long nothing has to be done.
func (c *conn) sleep(now int64) time.Duration {
	c.mu.Lock()
	stuck := c.window.waiting() >= c.limit
	c.waiting = stuck
	c.mu.Unlock()
	const heartbeat = int64(keepAlive / 3)
	if now-c.lastWrite > heartbeat {
		c.send([]byte{packetPingreq, 0})
	}
	wake := min(c.lastWrite+heartbeat, now+int64(time.Second))
	if c.cfg.Faults.DropConn > 0 {
		wake = min(wake, c.nextCut)
	}
	if c.exhausted() {
		wake = min(wake, now+int64(20*time.Millisecond))
	}
	if !stuck {
		wake = min(wake, max(c.due(), c.lastWrite+int64(tick)))
	}
	return time.Duration(max(wake-now, 0))
}

// mayCut throws the dice of the drop-conn fault once a second.
func (c *conn) mayCut(now int64) {
	if now < c.nextCut {
		return
	}
	c.nextCut += int64(time.Second)
	if c.script.random.Chance(c.cfg.Faults.DropConn) && !c.exhausted() {
		c.mu.Lock()
		c.totals.cuts++
		c.mu.Unlock()
		c.link.cut()
	}
}

// exhausted: nothing will be taken from the devices any more.
func (c *conn) exhausted() bool { return c.devices.empty() && c.later.empty() }

// settled: nothing waits for its PUBACK.
func (c *conn) settled() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.window.waiting() == 0
}

// reconnect opens the connection anew and sends what is unacknowledged again, oldest first.
func (c *conn) reconnect(ctx context.Context) bool {
	c.link.cut()
	wait := time.Duration(0)
	c.mu.Lock()
	if c.refused {
		c.refused, wait = false, pause
	}
	c.mu.Unlock()
	for {
		select {
		case <-ctx.Done():
			return false
		case <-time.After(wait):
		}
		err := c.open(ctx)
		if err == nil {
			err = c.subscribeAgain(ctx)
		}
		if err == nil {
			c.resend()
			return true
		}
		c.log.Debug("reconnect failed", "error", err)
		wait = min(max(2*wait, 50*time.Millisecond), time.Second)
	}
}

// resend writes the unacknowledged messages in their order. They are new to the session, so they
// do not carry the DUP flag.
func (c *conn) resend() {
	c.mu.Lock()
	n, end := c.window.head, c.window.tail
	c.mu.Unlock()
	for n < end {
		c.out = c.out[:0]
		c.mu.Lock()
		for n = max(n, c.window.head); n < end && len(c.out) < writeSize; n++ {
			s := c.window.at(n)
			if s.acked {
				continue
			}
			c.totals.resent += uint64(s.samples)
			c.out = append(c.out, s.packet...)
		}
		c.mu.Unlock()
		if len(c.out) > 0 {
			c.send(c.out)
		}
	}
}
