package host

import (
	"context"
	"sync"
	"sync/atomic"
	"time"
)

// PartitionState says what this node does with a partition.
type PartitionState string

// The states, in the order of a partition's life.
const (
	Idle      PartitionState = "idle"
	Claiming  PartitionState = "claiming"
	Restoring PartitionState = "restoring"
	Serving   PartitionState = "serving"
	Leaving   PartitionState = "leaving" // takes no more messages, and answers queries still
)

// View is what a partition shows of itself; taken at the end of a turn.
type View struct {
	ID         int32
	State      PartitionState
	Epoch      int64
	Twins      int64 // passive ones included
	Passive    int64
	Online     int64
	OpenAlerts int64
	Next       int64 // offset behind the last released record
	Ingest     int64 // offset in doppel.ingest behind what is handled
	Unsettled  bool  // messages may be stranded at a gateway: gaps wait longer
}

// answers says whether there is an owner that queries may ask.
func (v *View) answers() bool { return v.State == Serving || v.State == Leaving }

// partition is a slot of the node: its mailbox outlives the owners that serve it one after another.
type partition struct {
	id   int32
	host *Host
	box  *mailbox
	view atomic.Pointer[View]

	turn    sync.Mutex // held for a turn, and by a read in between two of them
	serving *owner     // of whoever holds turn; nil: nobody serves

	mu     sync.Mutex
	tenure *tenure // nil: another node's
	warm   *warmth // what was read ahead of Own; nil: nothing
	again  bool    // to be owned again when the tenure that ends is over

	held int64 // samples of it that the accounts say are held; of its succession
}

func newPartition(h *Host, id int32) *partition {
	p := &partition{id: id, host: h, box: newMailbox(room{h.cfg.Mailbox, h.cfg.MailboxBytes}, h.beat)}
	p.view.Store(&View{ID: id, State: Idle})
	p.box.shutOut()
	return p
}

// show publishes a view, and tells of a change of what is served.
func (p *partition) show(v *View) {
	old := p.view.Swap(v)
	if was, is := old.answers(), v.answers(); was != is {
		p.host.cfg.Served(p.id, uint64(max(old.Epoch, v.Epoch)), is)
	}
}

// run serves the partition until ctx ends, and leaves in order, or at once when patience ends.
func (p *partition) run(ctx, patience context.Context) error {
	// What is in flight ends in order, also while leaving; but not even a log that hangs may hold us.
	work, abandon := context.WithCancel(patience)
	defer abandon()
	defer context.AfterFunc(ctx, func() { p.host.after(leaveWithin, abandon) })()
	tick := time.NewTimer(untilTick(time.Now()))
	defer tick.Stop()
	s := newSuccession(p)
	defer s.end()
	for done := ctx.Done(); !s.step(ctx, work); {
		select {
		case <-p.box.wake:
		case now := <-tick.C:
			tick.Reset(untilTick(now))
		case <-done:
			done = nil
		case <-work.Done():
		}
	}
	return s.err
}

// untilTick is how long it is to the next tick, which is the same for all partitions: one timer that wakes
// sixty-four costs less than sixty-four that wake one.
func untilTick(now time.Time) time.Duration {
	return time.Duration(wheelTick - now.UnixNano()%wheelTick)
}

// offer hands msgs to the owner that serves now.
func (p *partition) offer(ctx context.Context, msgs []Message, patience time.Duration) error {
	if p.view.Load().State != Serving {
		return ErrUnavailable
	}
	return p.box.offer(ctx, msgs, patience, p.progress)
}

// progress changes as long as records are released.
func (p *partition) progress() int64 { return p.view.Load().Next }

// turnAway gives the messages that no owner will look at back to their doors, and answers the calls. The
// next owner of its samples counts them.
func (p *partition) turnAway() {
	p.giveBack(p.box.shutOut())
	p.box.end()
	p.host.stats.takeOver(-p.held)
	p.held = 0
}

func (p *partition) giveBack(msgs []Message) {
	var replies replyBatch
	for _, m := range msgs {
		replies.add(m.Reply, m.Token, NotOwner)
	}
	replies.flush()
}
