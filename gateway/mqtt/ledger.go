package mqtt

import (
	"context"
	"errors"
	"io"
	"sync"
	"time"

	"github.com/doppel-iot/doppel/actors/host"
)

// errConnectionGone: the connection a message came by is no longer in force.
var errConnectionGone = errors.New("connection is gone")

// ledger is what one broker connection owes: every message received and not yet acknowledged. It
// sends PUBACKs strictly in order of arrival [MQTT-4.6.0-2], many in one write, and none before its
// message is released.
//
// A token is the connection's epoch and the message's sequence number: a verdict for an earlier
// connection finds another epoch and does nothing, because the broker delivers that message again.
// Messages and acknowledgements not yet written together never exceed the limit, whatever the broker
// makes of Receive Maximum; nor do messages weigh more than a batch above theirs.
type ledger struct {
	limit   int // messages
	weight  int // bytes, passed by one batch at most
	stats   *Stats
	observe Observer
	// wakeWriter and wakeRetry hold at most one wake-up each.
	wakeWriter, wakeRetry chan struct{}

	mu      sync.Mutex
	change  sync.Cond // room was made, everything was written, or the connection changed
	marks             // what of it the broker had to send when asked
	w       io.Writer // connection in force; nil: none
	epoch   uint32
	held    ring
	acks    []byte // due, not yet being written
	writing int    // bytes being written
	oldest  int64  // arrival of the oldest message in acks
}

func newLedger(limit, weight int, stats *Stats, observe Observer) *ledger {
	l := &ledger{
		limit: limit, weight: weight, stats: stats, observe: observe,
		wakeWriter: make(chan struct{}, 1), wakeRetry: make(chan struct{}, 1),
		marks: marks{wake: make(chan struct{}, 1)},
	}
	l.change.L = &l.mu
	return l
}

// reset puts a new connection in force, or none, and forgets what the old one owed.
func (l *ledger) reset(w io.Writer) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.w = w
	l.epoch++
	l.stats.Unacked.Add(-int64(l.held.len()))
	l.held.clear()
	l.acks = l.acks[:0]
	l.marks.reset()
	l.change.Broadcast()
}

// push enters messages that came by w, as many as there is room for, and stamps their tokens. It
// waits until there is room for one.
func (l *ledger) push(w io.Writer, msgs []host.Message, ids []uint16) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	room, err := l.waitRoom(w)
	if err != nil {
		return 0, err
	}
	n := min(room, len(msgs), len(ids))
	for i, id := range ids[:n] {
		s, seq := l.held.push()
		m := &msgs[i]
		m.Token, m.Reply = l.token(seq), l
		s.msg, s.id = *m, id
		l.held.weighed(s)
		l.owe(id)
	}
	l.stats.Unacked.Add(int64(n))
	return n, nil
}

// pushRefusal enters a dead letter of the door.
func (l *ledger) pushRefusal(w io.Writer, letter *host.DeadLetter, id uint16) (refusal, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, err := l.waitRoom(w); err != nil {
		return refusal{}, err
	}
	s, seq := l.held.push()
	s.letter, s.id = letter, id
	s.msg.Token, s.msg.ReceivedAt = l.token(seq), letter.ReceivedAt
	l.held.weighed(s)
	l.owe(id)
	l.stats.Unacked.Add(1)
	return refusal{letter: letter, token: s.msg.Token}, nil
}

// pushDone enters a message that needs nothing but its acknowledgement, in its turn.
func (l *ledger) pushDone(w io.Writer, id uint16, receivedAt int64) error {
	l.mu.Lock()
	if _, err := l.waitRoom(w); err != nil {
		l.mu.Unlock()
		return err
	}
	s, _ := l.held.push()
	s.id, s.state, s.msg.ReceivedAt = id, done, receivedAt
	l.held.weighed(s)
	l.owe(id)
	l.stats.Unacked.Add(1)
	l.release()
	l.mu.Unlock()
	wake(l.wakeWriter)
	return nil
}

func (l *ledger) waitRoom(w io.Writer) (int, error) {
	for {
		if l.w != w || w == nil {
			return 0, errConnectionGone
		}
		room := l.limit - l.held.len() - (len(l.acks)+l.writing)/pubackLen
		if room > 0 && l.held.bytes < l.weight {
			return room, nil
		}
		l.change.Wait()
	}
}

func (l *ledger) token(seq uint32) uint64 { return uint64(l.epoch)<<32 | uint64(seq) }

// Done implements [host.Reply]. It never blocks on the connection.
func (l *ledger) Done(tokens []uint64, v host.Verdict) {
	l.mu.Lock()
	again := false
	for _, token := range tokens {
		s := l.held.at(uint32(token))
		if uint32(token>>32) != l.epoch || s == nil {
			l.stats.Stale.Add(1)
			continue
		}
		switch {
		case v == host.Released:
			s.state = done
		case s.state == delivered:
			s.again(time.Now())
			again = true
		}
	}
	due := l.release()
	l.mu.Unlock()
	if due {
		wake(l.wakeWriter)
	}
	if again {
		wake(l.wakeRetry)
	}
}

// settle is the verdict of the refuser.
func (l *ledger) settle(token uint64, err error) {
	v := host.Released
	if err != nil {
		v = host.Failed
	}
	l.Done([]uint64{token}, v)
}

// release moves what is done at the head of the ring to acks and reports whether there is any.
func (l *ledger) release() bool {
	n := 0
	for s := l.held.first(); s != nil; s = l.held.first() {
		if s.id != 0 {
			if len(l.acks) == 0 {
				l.oldest = s.msg.ReceivedAt
			}
			l.acks = append(l.acks, typePuback, 2, byte(s.id>>8), byte(s.id))
			l.due++
		}
		l.held.pop()
		n++
	}
	if n > 0 {
		l.stats.Unacked.Add(-int64(n))
		l.passed(l.held.head)
		l.change.Broadcast()
	}
	return n > 0
}

// pubackLen is the length of a PUBACK with reason code 0x00.
const pubackLen = 4

// writeAcks writes acknowledgements as they come due, until ctx ends.
func (l *ledger) writeAcks(ctx context.Context) {
	var spare []byte
	var last time.Time // a write
	for {
		select {
		case <-ctx.Done():
			return
		case <-l.wakeWriter:
		}
		if pause := breath - time.Since(last); pause > 0 {
			time.Sleep(pause) // partitions release one after the other
		}
		last = time.Now()
		for {
			l.mu.Lock()
			buf, w, oldest := l.acks, l.w, l.oldest
			if len(buf) == 0 || w == nil {
				l.mu.Unlock()
				break
			}
			l.acks, l.writing = spare[:0], len(buf)
			l.mu.Unlock()

			err := writeLocked(w, buf)
			if err == nil {
				l.stats.Acked.Add(uint64(len(buf) / pubackLen))
				l.stats.AckWrites.Add(1)
				l.observe.acked(time.Duration(time.Now().UnixNano() - oldest))
			} else if c, ok := w.(io.Closer); ok {
				_ = c.Close() // the reader notices and the connection is made anew
			}

			l.mu.Lock()
			if l.w == w {
				l.paid += uint64(len(buf) / pubackLen)
			}
			spare, l.writing = buf, 0
			l.change.Broadcast()
			l.mu.Unlock()
		}
	}
}

// writeLocked follows paho's convention: a writer that is a Locker is written to under its lock.
func writeLocked(w io.Writer, b []byte) error {
	if mu, ok := w.(sync.Locker); ok {
		mu.Lock()
		defer mu.Unlock()
	}
	_, err := w.Write(b)
	return err
}

// drain waits until everything received is acknowledged and written, or the connection is gone.
func (l *ledger) drain(ctx context.Context) error {
	defer context.AfterFunc(ctx, func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.change.Broadcast()
	})()
	l.mu.Lock()
	defer l.mu.Unlock()
	for l.w != nil && (l.held.len() > 0 || len(l.acks) > 0 || l.writing > 0) {
		if err := ctx.Err(); err != nil {
			return err
		}
		l.change.Wait()
	}
	return nil
}

// idle reports whether nothing is owed.
func (l *ledger) idle() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.held.len() == 0
}

// takeDue returns what is to be delivered again now, and when to ask next.
func (l *ledger) takeDue(msgs []host.Message, letters []refusal) (_ []host.Message, _ []refusal, next int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.held.takeDue(time.Now().UnixNano(), msgs, letters)
}

func wake(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// undelivered is for messages the inlet did not take.
func (l *ledger) undelivered(msgs []host.Message) {
	tokens := make([]uint64, len(msgs))
	for i := range msgs {
		tokens[i] = msgs[i].Token
	}
	l.Done(tokens, host.NotOwner)
}
