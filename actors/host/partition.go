package host

import (
	"context"
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
}

// partition is a slot of the node: its mailbox outlives the owners that serve it one after another.
type partition struct {
	id   int32
	host *Host
	box  *mailbox
	view atomic.Pointer[View]

	held int64 // samples of it that the accounts say are held; of its succession
}

func newPartition(h *Host, id int32) *partition {
	p := &partition{id: id, host: h, box: newMailbox(room{h.cfg.Mailbox, h.cfg.MailboxBytes})}
	p.view.Store(&View{ID: id, State: Idle})
	return p
}

// run serves the partition until ctx ends.
func (p *partition) run(ctx context.Context) error {
	// What is in flight ends in order, also while leaving; but not even a log that hangs may hold us.
	work, abandon := context.WithCancel(context.WithoutCancel(ctx))
	defer abandon()
	defer context.AfterFunc(ctx, func() { p.host.after(leaveWithin, abandon) })()
	tick := time.NewTicker(time.Duration(wheelTick))
	defer tick.Stop()
	s := newSuccession(p)
	defer s.end()
	for done := ctx.Done(); !s.step(ctx, work); {
		select {
		case <-p.box.wake:
		case <-tick.C:
		case <-done:
			done = nil
		case <-work.Done():
		}
	}
	return s.err
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

// turnAway gives the messages that no owner will look at back to their doors.
func (p *partition) turnAway() { p.giveBack(p.box.setShut(true)) }

func (p *partition) giveBack(msgs []Message) {
	var replies replyBatch
	for _, m := range msgs {
		replies.add(m.Reply, m.Token, NotOwner)
	}
	replies.flush()
}
