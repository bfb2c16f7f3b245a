package rules

import (
	"context"
	"time"

	"github.com/doppel-iot/doppel/actors/host"
)

// send routes m: mostly to the owner, sometimes to a node that was it, sometimes into ingest.
func (w *world) send(m *message) {
	if m == nil {
		return
	}
	n := w.owner
	if all := w.running(); w.rng.IntN(10) == 0 && len(all) > 0 {
		n = all[w.rng.IntN(len(all))]
	}
	w.sendTo(n, m, w.rng.IntN(8) == 0)
}

// sendTo hands m to n, or to ingest.
func (w *world) sendTo(n *node, m *message, slowly bool) {
	if m.received == 0 {
		m.received = time.Now().UnixNano()
	}
	m.sent = time.Now()
	w.mu.Lock()
	w.open[m] = true
	if !m.stored && slowly {
		m.stored = true
		w.onWay = append(w.onWay, m)
		w.mu.Unlock()
		return
	}
	w.token++
	msg := w.message(m)
	msg.Token, msg.Reply = w.token, n
	w.tries[w.token] = m
	m.open++
	w.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	if err := n.push(ctx, []host.Message{msg}); err != nil {
		w.verdict(n, msg.Token, host.Busy)
	}
}

func (w *world) message(m *message) host.Message {
	return host.Message{Kind: m.kind, Device: []byte(m.device), Payload: []byte(m.payload), Topic: "devices", ReceivedAt: m.received}
}

// verdict takes what a node made of a message.
func (w *world) verdict(n *node, token uint64, v host.Verdict) {
	w.mu.Lock()
	m := w.tries[token]
	delete(w.tries, token)
	if m == nil {
		w.mu.Unlock()
		w.judge.fail("node %s answers a message twice", n.name)
		return
	}
	m.open--
	first := false
	switch {
	case v == host.Released:
		first = true
		m.acked = true
		delete(w.open, m)
	case !m.acked:
		w.again = append(w.again, m)
	}
	w.mu.Unlock()
	if first {
		w.acknowledged(m, n.name)
	}
}

func (w *world) acknowledged(m *message, by string) {
	if m.poison {
		w.judge.refused(m.payload, by)
	}
	for _, n := range m.numbers {
		w.judge.released(n, by, m.payload)
	}
}

// sendAgain sends what was turned away, or was not answered for a second.
func (w *world) sendAgain() {
	w.mu.Lock()
	var m *message
	if len(w.again) > 0 {
		i := w.rng.IntN(len(w.again))
		m = w.again[i]
		w.again = append(w.again[:i:i], w.again[i+1:]...)
	}
	w.mu.Unlock()
	if m == nil {
		if m = w.anyOpen(); m != nil && time.Since(m.sent) < time.Second {
			return
		}
	}
	if m != nil && !m.acked {
		w.send(m)
	}
}

// anyOpen is a message that was sent and is not acknowledged.
func (w *world) anyOpen() *message {
	w.mu.Lock()
	defer w.mu.Unlock()
	var oldest *message
	skip := 0
	if len(w.open) > 0 {
		skip = w.rng.IntN(len(w.open))
	}
	for m := range w.open { // by the order they were sent, or the seed would not decide
		if oldest == nil || m.sent.Before(oldest.sent) || m.sent.Equal(oldest.sent) && m.payload < oldest.payload {
			oldest = m
		}
	}
	if skip%2 == 0 {
		return oldest
	}
	return nil
}
