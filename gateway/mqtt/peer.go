package mqtt

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	mochi "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/packets"

	"github.com/doppel-iot/doppel/actors/host"
)

// quotaExceeded is the reason code of a message that could not be made durable: try again.
const quotaExceeded = 0x97

// ownReceipt marks the PUBREC of a message of ours in the broker's in-flight table.
const ownReceipt = "doppel"

// peer is one connection of a device to the embedded broker: what it sent and has no acknowledgement
// for. Acknowledgements leave in order of arrival [MQTT-4.6.0-2] [MQTT-4.6.0-3].
type peer struct {
	broker *Broker
	cl     *mochi.Client // nil: the broker's own, for last wills; nothing is acknowledged
	// ctx ends with the connection, so that no delivery outlives it.
	ctx    context.Context //nolint:containedctx // the lifetime of the connection, not of a call
	cancel context.CancelFunc
	// repeat is a packet identifier of QoS 2 whose message is released already. Read goroutine only.
	repeat uint16
	// standIn takes the place of the identifier sent while a packet is processed; 0: none. Read
	// goroutine only.
	sent, standIn uint16

	mu      sync.Mutex
	room    sync.Cond
	held    ring
	acks    []byte // due, not yet being written
	oldest  int64  // arrival of the oldest message in acks
	writing int    // bytes being written
	writer  bool   // a goroutine writes
	retry   bool   // a timer or goroutine delivers again
	cut     bool   // an error that MQTT 3.1.1 cannot tell: the connection must go
	gone    bool   // hung up by us, or taken over; the reader has yet to notice
	closed  bool
	clock   int64
	marks   []peerMark // by seq
}

func newPeer(b *Broker, cl *mochi.Client) *peer {
	p := &peer{broker: b, cl: cl}
	p.room.L = &p.mu
	p.ctx, p.cancel = context.WithCancel(b.work)
	return p
}

// push enters a message or a dead letter. It waits while too much is unacknowledged, which keeps the
// device's connection unread. false: the connection has gone.
func (p *peer) push(m *host.Message, letter *host.DeadLetter, id uint16, qos byte, state slotState) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for p.full() && !p.gone {
		p.room.Wait()
	}
	if p.gone {
		return false
	}
	s, seq := p.held.push()
	p.clock = max(p.clock+1, m.ReceivedAt)
	m.ReceivedAt, m.Token, m.Reply = p.clock, uint64(seq), p
	s.msg, s.letter, s.id, s.qos, s.state = *m, letter, id, qos, state
	p.broker.held.Add(int64(p.held.weighed(s)))
	p.broker.stats.Unacked.Add(1)
	switch state {
	case done:
		p.release()
	case waiting:
		p.armRetry()
	case delivered:
	}
	return true
}

// full says that the device must wait, for its own window or for everybody's. Under mu.
func (p *peer) full() bool {
	held := p.held.len()
	return held+(len(p.acks)+p.writing)/pubackLen >= p.broker.cfg.MaxUnacked ||
		held >= fairShare && p.cl != nil && p.broker.held.Load() >= int64(p.broker.cfg.MaxHeldBytes)
}

// original is the identifier the device gave to the packet being processed.
func (p *peer) original(id uint16) uint16 {
	if p.standIn != 0 && id == p.standIn {
		return p.sent
	}
	return id
}

// holds reports whether a QoS 2 message of this identifier is held.
func (p *peer) holds(id uint16) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for seq := p.held.head; seq != p.held.tail; seq++ {
		if s := p.held.at(seq); s.id == id && s.qos == 2 {
			return true
		}
	}
	return false
}

// Done implements [host.Reply]. It never blocks on the device.
func (p *peer) Done(tokens []uint64, v host.Verdict) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, token := range tokens {
		s := p.held.at(uint32(token))
		switch {
		case s == nil || s.state == done:
			p.broker.stats.Stale.Add(1)
		case v == host.Released:
			s.state = done
		case p.gone: // the device sends it again; QoS 0 ends here
			s.state, s.id = done, 0
		case v == host.Failed && s.id != 0:
			s.state, s.code = done, quotaExceeded
		case s.state == delivered:
			s.again(time.Now())
			p.armRetry()
		}
	}
	p.release()
}

func (p *peer) settle(token uint64, err error) {
	v := host.Released
	if err != nil {
		v = host.Failed
	}
	p.Done([]uint64{token}, v)
}

// release frees what is done at the head of the ring and sees that its acknowledgements are written.
func (p *peer) release() {
	n := 0
	for s := p.held.first(); s != nil; s = p.held.first() {
		if s.id != 0 && !p.cut {
			p.acknowledge(s)
		}
		p.broker.held.Add(-int64(p.held.pop()))
		n++
	}
	if n == 0 {
		return
	}
	p.broker.stats.Unacked.Add(-int64(n))
	p.passMarks()
	p.room.Broadcast()
	if (len(p.acks) > 0 || p.cut) && !p.writer && !p.gone {
		p.writer = p.broker.gate.start(p.write)
	}
}

func (p *peer) acknowledge(s *slot) {
	if s.code != 0 {
		p.broker.stats.Negative.Add(1)
		if p.cl.Properties.ProtocolVersion < 5 {
			p.cut = true
			return
		}
	}
	if len(p.acks) == 0 {
		p.oldest = s.msg.ReceivedAt
	}
	first := byte(typePuback)
	if s.qos == 2 {
		first = typePubrec
		if s.code == 0 {
			p.remember(s.id)
		}
	}
	if s.code == 0 {
		p.acks = append(p.acks, first, 2, byte(s.id>>8), byte(s.id))
	} else {
		p.acks = append(p.acks, first, 3, byte(s.id>>8), byte(s.id), s.code)
	}
}

// remember puts the PUBREC where the broker looks when PUBREL comes, also after a resumption of the
// session.
func (p *peer) remember(id uint16) {
	receipt := packets.Packet{
		FixedHeader: packets.FixedHeader{Type: packets.Pubrec}, PacketID: id,
		Created: time.Now().Unix(), Origin: ownReceipt,
	}
	if p.cl.State.Inflight.Set(receipt) {
		atomic.AddInt64(&p.broker.server.Info.Inflight, 1)
	}
	p.cl.State.Inflight.DecreaseReceiveQuota() // PUBREL gives it back
}

// write sends acknowledgements until none is due. A device that does not read them is cut off.
func (p *peer) write() {
	var spare []byte
	p.mu.Lock()
	defer p.mu.Unlock()
	for len(p.acks) > 0 && !p.gone {
		buf, oldest := p.acks, p.oldest
		p.acks, p.writing = spare[:0], len(buf)
		p.mu.Unlock()

		err := p.send(buf)
		if err == nil {
			p.broker.stats.Acked.Add(uint64(len(buf) / pubackLen))
			p.broker.stats.AckWrites.Add(1)
			p.broker.cfg.Observe.acked(time.Duration(time.Now().UnixNano() - oldest))
		}

		p.mu.Lock()
		spare, p.writing = buf, 0
		p.room.Broadcast()
		if err != nil {
			p.hangUp()
			break
		}
	}
	p.writer = false
	if p.cut {
		p.hangUp() // the device connects anew and sends again
	}
}

// hangUp closes the connection under the broker, which then publishes the device's last will: were
// the broker told to stop the client, it would take that for a farewell and drop the will.
func (p *peer) hangUp() {
	p.gone = true
	p.acks = nil
	p.cancel()
	p.room.Broadcast() // the reader may be waiting in push
	_ = p.cl.Net.Conn.Close()
}

// send writes under the client's lock, as the broker's own writes do. The deadline replaces an old
// one that may have passed; it bounds nothing, because the broker moves it with every packet it reads.
func (p *peer) send(b []byte) error {
	p.cl.Lock()
	defer p.cl.Unlock()
	c, timeout := p.cl.Net.Conn, p.broker.cfg.WriteTimeout
	if err := c.SetWriteDeadline(time.Now().Add(timeout)); err != nil {
		return err
	}
	defer time.AfterFunc(timeout, func() { _ = c.Close() }).Stop()
	_, err := c.Write(b)
	return err
}

// close forgets what waits: the device sends it again. What the inlet has stays held for its verdict.
// It may be called again.
func (p *peer) close() {
	p.cancel()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.gone, p.closed = true, true
	p.acks = nil
	for seq := p.held.head; seq != p.held.tail; seq++ {
		if s := p.held.at(seq); s.state == waiting {
			s.state, s.id = done, 0
		}
	}
	p.release()
	p.leaveIfEmpty()
	p.room.Broadcast()
}

// idle reports whether nothing is held and nothing to be written.
func (p *peer) idle() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.held.len() == 0 && (p.gone || len(p.acks)+p.writing == 0)
}

// armRetry starts the goroutine that delivers again, if none is under way.
func (p *peer) armRetry() {
	if !p.retry {
		p.retry = p.broker.gate.start(p.redeliver)
	}
}

// redeliver delivers what is due again, until nothing waits.
func (p *peer) redeliver() {
	ctx := p.ctx
	var (
		msgs    []host.Message
		letters []refusal
		next    int64
	)
	for {
		p.mu.Lock()
		msgs, letters, next = p.held.takeDue(time.Now().UnixNano(), msgs[:0], letters[:0])
		if len(msgs)+len(letters) == 0 && next == 0 || ctx.Err() != nil {
			p.retry = false
			p.mu.Unlock()
			return
		}
		p.mu.Unlock()
		p.broker.stats.Redelivered.Add(uint64(len(msgs) + len(letters)))
		for _, r := range letters {
			p.broker.sink.refuser.Refuse(ctx, *r.letter, func(err error) { p.settle(r.token, err) })
		}
		if len(msgs) > 0 {
			p.deliver(msgs)
			clear(msgs)
			continue
		}
		select {
		case <-ctx.Done():
		case <-time.After(time.Until(time.Unix(0, next))):
		}
	}
}

func (p *peer) deliver(msgs []host.Message) {
	if err := p.broker.sink.inlet.Deliver(p.ctx, msgs); err != nil {
		tokens := make([]uint64, len(msgs))
		for i := range msgs {
			tokens[i] = msgs[i].Token
		}
		p.Done(tokens, host.NotOwner)
	}
}
