package router

import (
	"math"
	"slices"
	"sync"
	"time"

	"github.com/doppel-iot/doppel/actors/host"
	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
)

const (
	// acceptAfter is how long a verdict is waited for before "accepted" is said: few messages need it,
	// as verdicts take two lingers and a commit. It leaves the most of AcceptWithin.
	acceptAfter = 80 * time.Millisecond
	// maxUnknown bounds the questions that are answered at once; what is left is asked again.
	maxUnknown = 1 << 10
	// maxIndexes bounds a response.
	maxIndexes = 1 << 13
)

// receipts are the messages of one node that have no verdict yet, and the verdicts on their way back
// to it: it is their Reply. A token is the slot of a receipt and the index of the message.
//
// Verdicts that come soon after others wait for more and travel together, whatever request they are
// about.
type receipts struct {
	r       *Router
	address string

	sender   sync.Mutex // held while responses are sent, so that they leave in order; before mu
	response doppelv1.DeliverResponse
	indexes  []uint32
	telling  batch // on its way

	mu     sync.Mutex
	table  []receipt
	free   []uint64 // slots
	open   map[uint64]uint64
	due    batch
	unsaid []claim // in order of at
	timer  Timer
	wake   time.Time // when it fires; zero: not armed
	told   time.Time // when it fired last
	closed bool
}

// receipt is one request.
type receipt struct {
	id    uint64
	n     int
	left  int // without a verdict
	aloft int // not in a mailbox yet, and one while they are handed over
}

// batch is what is told at once. A message is named by the id of its request plus its index.
type batch struct {
	verdicts [hopUnanswered][]uint64
	unknown  []uint64 // ids of requests asked for that have no message without a verdict
}

func (b *batch) reset() {
	for v := range b.verdicts {
		b.verdicts[v] = b.verdicts[v][:0]
	}
	b.unknown = b.unknown[:0]
}

// claim is a receipt whose sender is to hear that its messages were accepted.
type claim struct {
	slot, id uint64
	at       time.Time
}

func newReceipts(r *Router, address string) *receipts {
	of := &receipts{r: r, address: address, open: make(map[uint64]uint64)}
	of.timer = r.cfg.Beside.Timer(of.tell)
	return of
}

// begin opens a receipt for a request of n messages, one aloft.
func (of *receipts) begin(id uint64, n int) (slot uint64) {
	of.mu.Lock()
	defer of.mu.Unlock()
	if last := len(of.free); last > 0 {
		slot, of.free = of.free[last-1], of.free[:last-1]
	} else {
		slot = uint64(len(of.table))
		of.table = append(of.table, receipt{})
	}
	of.table[slot] = receipt{id: id, n: n, left: n, aloft: 1}
	of.open[id] = slot
	return slot
}

// landed takes n of a receipt as no longer aloft; below 0: as aloft. Once none is, all of it is
// accepted.
func (of *receipts) landed(slot uint64, n int) {
	of.mu.Lock()
	defer of.mu.Unlock()
	at := &of.table[slot]
	if at.aloft -= n; at.aloft > 0 {
		return
	}
	if at.left == 0 {
		of.drop(slot)
		return
	}
	now := of.r.now()
	of.unsaid = append(of.unsaid, claim{slot, at.id, now})
	of.arm(now.Add(acceptAfter))
}

// drop frees a slot. Under mu.
func (of *receipts) drop(slot uint64) {
	if at := of.table[slot]; of.open[at.id] == slot {
		delete(of.open, at.id)
	}
	of.table[slot] = receipt{}
	of.free = append(of.free, slot)
}

// Done implements host.Reply.
func (of *receipts) Done(tokens []uint64, v host.Verdict) {
	end := hopOf(v)
	of.r.stats.answered[end].Add(uint64(len(tokens)))
	of.mu.Lock()
	defer of.mu.Unlock()
	due := of.due.verdicts[end]
	for _, token := range tokens {
		slot := token >> 32
		at := &of.table[slot]
		due = append(due, at.id+token&math.MaxUint32)
		if at.left--; at.left == 0 && at.aloft == 0 {
			of.drop(slot)
		}
	}
	of.due.verdicts[end] = due
	of.arm(of.told.Add(2 * of.r.cfg.Linger))
}

// inquire answers a node that waits for verdicts.
func (of *receipts) inquire(id uint64) {
	of.mu.Lock()
	defer of.mu.Unlock()
	now := of.r.now()
	if slot, ok := of.open[id]; ok {
		if of.table[slot].aloft == 0 {
			of.unsaid = append(of.unsaid, claim{slot, id, now.Add(-acceptAfter)})
		}
	} else if len(of.due.unknown) < maxUnknown {
		of.due.unknown = append(of.due.unknown, id)
	}
	of.arm(now)
}

// arm sees to it that tell is called at that time or before. Under mu.
func (of *receipts) arm(at time.Time) {
	if of.closed || !of.wake.IsZero() && !at.Before(of.wake) {
		return
	}
	of.wake = at
	of.timer.Reset(max(at.Sub(of.r.now()), gather))
}

// tell sends what is due. What does not get through is asked for.
func (of *receipts) tell() {
	of.sender.Lock()
	defer of.sender.Unlock()
	of.mu.Lock()
	of.wake, of.told = time.Time{}, of.r.now()
	of.due, of.telling = of.telling, of.due
	accepted := of.ripe(of.told)
	of.mu.Unlock()

	of.send(accepted, doppelv1.DeliveryVerdict_DELIVERY_VERDICT_ACCEPTED)
	for end, names := range of.telling.verdicts {
		of.send(names, hop(end).verdict())
	}
	for _, id := range of.telling.unknown {
		of.response.Id, of.response.Indexes = id, nil
		of.response.Verdict = doppelv1.DeliveryVerdict_DELIVERY_VERDICT_NOT_OWNER
		_ = of.r.cfg.Wire.Tell(of.address, outboxName, &of.response) // asked again
	}
	of.telling.reset()
}

// ripe are the messages to be told as accepted now. Those with a verdict by now may be among them: it
// stands. Under mu.
func (of *receipts) ripe(now time.Time) (names []uint64) {
	n := 0
	for ; n < len(of.unsaid) && now.Sub(of.unsaid[n].at) >= acceptAfter/2; n++ {
		at := &of.table[of.unsaid[n].slot]
		if at.id != of.unsaid[n].id {
			continue
		}
		for i := range at.n {
			names = append(names, at.id+uint64(i))
		}
	}
	of.unsaid = slices.Delete(of.unsaid, 0, n)
	if len(of.unsaid) > 0 {
		of.arm(of.unsaid[0].at.Add(acceptAfter))
	}
	return names
}

// send tells one verdict of any number of messages.
func (of *receipts) send(names []uint64, v doppelv1.DeliveryVerdict) {
	for len(names) > 0 {
		first := names[0] // in the order of ids, which wraps around
		for _, name := range names {
			if int64(name-first) < 0 {
				first = name
			}
		}
		of.indexes = of.indexes[:0]
		far := 0
		for _, name := range names {
			if at := name - first; at <= math.MaxUint32 && len(of.indexes) < maxIndexes {
				of.indexes = append(of.indexes, uint32(at))
			} else {
				names[far] = name
				far++
			}
		}
		names = names[:far]
		of.response.Id, of.response.Verdict, of.response.Indexes = first, v, of.indexes
		_ = of.r.cfg.Wire.Tell(of.address, outboxName, &of.response) // what is lost is asked for
	}
}

// close tells what is due and no more.
func (of *receipts) close() {
	of.mu.Lock()
	of.closed = true
	of.timer.Stop()
	of.mu.Unlock()
	of.tell()
}
