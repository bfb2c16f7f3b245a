package mqtt

import (
	"context"
	"fmt"
)

// Clear returns nil once everything that had come from devices when Clear was called is released, or
// was given back to them with the end of their connection. It waits until then or until ctx ends, and
// does not need a moment without messages.
func (b *Broker) Clear(ctx context.Context) error {
	var marks []chan struct{}
	mark := func(p *peer) {
		if c := p.mark(); c != nil {
			marks = append(marks, c)
		}
	}
	mark(b.wills)
	each := func(k, v any) bool {
		if p, ok := v.(*peer); ok {
			mark(p)
		} else if p, ok := k.(*peer); ok {
			mark(p)
		}
		return true
	}
	b.hook.peers.Range(each)
	b.leftovers.Range(each) // last: that is the way they go
	for _, c := range marks {
		select {
		case <-c:
		case <-ctx.Done():
			return fmt.Errorf("clear: %w", ctx.Err())
		}
	}
	return nil
}

// peerMark is closed when everything before seq is released.
type peerMark struct {
	seq    uint32
	passed chan struct{}
}

// mark returns nil if nothing is held.
func (p *peer) mark() chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.held.len() == 0 {
		return nil
	}
	if n := len(p.marks); n > 0 && p.marks[n-1].seq == p.held.tail {
		return p.marks[n-1].passed
	}
	m := peerMark{seq: p.held.tail, passed: make(chan struct{})}
	p.marks = append(p.marks, m)
	return m.passed
}

// passMarks closes the marks that are passed, and ends the peer's afterlife with its last message.
// Under mu.
func (p *peer) passMarks() {
	n := 0
	for ; n < len(p.marks) && int32(p.held.head-p.marks[n].seq) >= 0; n++ {
		close(p.marks[n].passed)
	}
	if n > 0 {
		p.marks = append(p.marks[:0], p.marks[n:]...)
	}
	p.leaveIfEmpty()
}

// leaveIfEmpty forgets a peer whose connection is gone and of which nothing is held. Under mu.
func (p *peer) leaveIfEmpty() {
	if p.closed && p.held.len() == 0 {
		p.broker.leftovers.Delete(p)
	}
}
