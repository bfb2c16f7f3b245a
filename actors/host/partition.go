package host

import (
	"context"
	"errors"
	"math/rand/v2"
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

	held int64 // samples of it that the accounts say are held; of the goroutine of run
}

func newPartition(h *Host, id int32) *partition {
	p := &partition{id: id, host: h, box: newMailbox(room{h.cfg.Mailbox, h.cfg.MailboxBytes})}
	p.view.Store(&View{ID: id, State: Idle})
	return p
}

// run serves the partition until ctx ends, with one owner after another (O5): an owner that lost its
// epoch is thrown away whole and the next one starts from the log.
func (p *partition) run(ctx context.Context) error {
	const firstBackoff, maxBackoff = 50 * time.Millisecond, 5 * time.Second
	log := p.host.log.With("partition", p.id)
	backoff := firstBackoff
	p.box.setShut(false)
	defer p.turnAway()
	for {
		o, begin := newOwner(p), time.Now()
		err := o.run(ctx)
		o.discard()
		p.view.Store(&View{ID: p.id, State: Idle})
		p.giveBack(p.box.takeMessages(nil)) // another way may be open now
		if ctx.Err() != nil {
			if err != nil && !errors.Is(err, ctx.Err()) {
				log.WarnContext(ctx, "partition left before everything was acknowledged", "epoch", o.epoch, "err", err)
			}
			return nil
		}
		if errors.Is(err, errRefuseToServe) {
			return err
		}
		if errors.Is(err, errRestart) {
			log.InfoContext(ctx, "partition restores itself", "epoch", o.epoch)
			continue
		}
		if o.served && time.Since(begin) > 2*maxBackoff { // not one that fails at the same record again
			backoff = firstBackoff
		}
		p.host.stats.Fenced.Add(1)
		log.WarnContext(ctx, "epoch ended, claiming again", "epoch", o.epoch, "err", err, "backoff", backoff)
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(backoff + rand.N(backoff)):
		}
		backoff = min(2*backoff, maxBackoff)
	}
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
