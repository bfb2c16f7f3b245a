package mqtt

import (
	"io"

	"github.com/eclipse/paho.golang/packets"
)

// marks tell when everything that the broker had for us at some moment is released.
//
// A broker answers PINGREQ behind the messages it has sent before, so that what came before PINGRESP
// covers all it had, unless it holds more back for want of Receive Maximum. That can be told: it has
// seen just the acknowledgements written before PINGREQ, so what came until PINGRESP less those was
// under way when it answered. Was that a full window, the mark is put anew when the window is through.
//
// A mark survives its connection: on the next one it is put again, behind all that the broker delivers
// again. The fields are guarded by the ledger's mutex.
type marks struct {
	wake chan struct{} // something is asked for; holds one wake-up

	asked    []*mark // for the next PINGREQ
	pinged   []*mark // with the PINGREQ numbered at
	answered []*mark // by seq: until all before is released

	pings, pongs uint64 // PINGREQs written or about to be, PINGRESPs read, on this connection
	at           uint64
	paidAt       uint64 // acknowledgements certainly written before that PINGREQ

	// messages that want an acknowledgement; of these released; of these acknowledged on the wire
	owed, due, paid uint64
	// window is our Receive Maximum; hinted, if not 0, what the broker's own makes of it: some use one
	// figure for both directions.
	window, hinted uint64
}

// mark is one question.
type mark struct {
	cleared chan struct{}
	seq     uint32 // when answered: the first message not covered
	again   bool   // when answered: the window was full
}

func (k *marks) reset() {
	k.asked = append(append(k.asked, k.pinged...), k.answered...)
	k.pinged, k.answered = nil, nil
	k.pings, k.pongs, k.at, k.paidAt, k.owed, k.due, k.paid = 0, 0, 0, 0, 0, 0, 0
	k.wakeIfAsked()
}

func (k *marks) wakeIfAsked() {
	if len(k.asked) > 0 {
		wake(k.wake)
	}
}

func (k *marks) owe(id uint16) {
	if id != 0 {
		k.owed++
	}
}

// passed answers the questions whose messages are all before head.
func (k *marks) passed(head uint32) {
	n := 0
	for ; n < len(k.answered) && int32(head-k.answered[n].seq) >= 0; n++ {
		if m := k.answered[n]; m.again {
			k.asked = append(k.asked, m)
		} else {
			close(m.cleared)
		}
	}
	if n > 0 {
		k.answered = append(k.answered[:0], k.answered[n:]...)
		k.wakeIfAsked()
	}
}

// setWindow notes what the two sides agreed on when they connected.
func (l *ledger) setWindow(connect, ack *packets.Properties) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.window, l.hinted = 65535, 0
	if connect != nil && connect.ReceiveMaximum != nil {
		l.window = uint64(*connect.ReceiveMaximum)
	}
	if ack != nil && ack.ReceiveMaximum != nil {
		l.hinted = uint64(*ack.ReceiveMaximum)
	}
}

// ask puts a mark.
func (l *ledger) ask() *mark {
	m := &mark{cleared: make(chan struct{})}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.asked = append(l.asked, m)
	wake(l.wake)
	return m
}

// forget takes a mark back.
func (l *ledger) forget(m *mark) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, list := range []*[]*mark{&l.asked, &l.pinged, &l.answered} {
		kept := (*list)[:0]
		for _, other := range *list {
			if other != m {
				kept = append(kept, other)
			}
		}
		*list = kept
	}
}

// ping is called by the only writer of PINGREQs on w, whether one is due or not. It says whether one is
// to be written now, and whether w is still in force.
func (l *ledger) ping(w io.Writer, due bool) (write, inForce bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.w != w {
		l.wakeIfAsked() // the wake-up was for the connection in force
		return false, false
	}
	asked := len(l.asked) > 0 && len(l.pinged) == 0
	if !asked && !due {
		return false, true
	}
	l.pings++
	if asked {
		l.pinged, l.asked = l.asked, nil
		l.at, l.paidAt = l.pings, l.paid
	}
	return true, true
}

// pingWritten is called when the PINGREQ is on the wire and another may follow.
func (l *ledger) pingWritten() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.wakeIfAsked()
}

// pong is called when a PINGRESP was read from w and all messages before it have been entered.
func (l *ledger) pong(w io.Writer) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.w != w {
		return
	}
	l.pongs++
	if len(l.pinged) == 0 || l.pongs < l.at {
		return
	}
	if l.owed-l.due > l.hinted {
		l.hinted = 0 // the broker proves that it was not meant that way
	}
	window := l.window
	if l.hinted > 0 {
		window = min(window, l.hinted)
	}
	full := l.owed-l.paidAt >= window
	for _, m := range l.pinged {
		m.seq, m.again = l.held.tail, full
	}
	l.answered = append(l.answered, l.pinged...)
	l.pinged = nil
	l.wakeIfAsked()
	l.passed(l.held.head)
}

// unanswered reports whether a PINGREQ is under way on w.
func (l *ledger) unanswered(w io.Writer) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w == w && l.pings > l.pongs
}
