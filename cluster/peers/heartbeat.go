package peers

import (
	"context"
	"maps"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
)

// Listen begins to take what other nodes send. Run does it; a simulation calls it, Beat and Clear instead.
func (p *Peers) Listen() {
	if p.cfg.Wire == nil {
		return
	}
	p.cfg.Wire.Handle(Actor, func(_ string, m proto.Message) {
		if hb, ok := m.(*doppelv1.Heartbeat); ok {
			p.receive(hb, p.cfg.Clock())
		}
	})
}

// Run sends heartbeats and answers those of others until ctx ends.
func (p *Peers) Run(ctx context.Context) error {
	p.Listen()
	done := make(chan struct{})
	go func() {
		defer close(done)
		p.clear(ctx)
	}()
	defer func() { <-done }()
	t := time.NewTicker(p.cfg.Every)
	defer t.Stop()
	for {
		p.Beat()
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
		case <-p.kick:
		}
	}
}

// Beat sends a heartbeat to every other node. What cannot be sent is not missed: the next one says it again.
func (p *Peers) Beat() {
	now := p.cfg.Clock()
	type letter struct {
		address string
		hb      *doppelv1.Heartbeat
	}
	p.mu.Lock()
	seq := p.clearance.next(now)
	partitions := slices.Sorted(maps.Keys(p.serves))
	epochs := make([]uint64, len(partitions))
	for i, partition := range partitions {
		epochs[i] = p.serves[partition]
	}
	var out []letter
	for _, n := range p.nodes {
		if n.address == "" {
			continue
		}
		out = append(out, letter{n.address, &doppelv1.Heartbeat{
			Node: p.cfg.Node, Incarnation: p.cfg.Incarnation, Seq: seq,
			ClearedSeq: n.cleared.seq, ClearedIncarnation: n.cleared.incarnation,
			Partitions: partitions, Epochs: epochs,
		}})
	}
	p.mu.Unlock()
	for _, l := range out {
		_ = p.cfg.Wire.Tell(l.address, Actor, l.hb) // it is down, or slow: silence says so
	}
}

// receive enters what another node says.
func (p *Peers) receive(hb *doppelv1.Heartbeat, now time.Time) {
	p.mu.Lock()
	n := p.nodes[hb.GetNode()]
	if n == nil || len(hb.GetPartitions()) != len(hb.GetEpochs()) ||
		hb.GetIncarnation() < n.incarnation || hb.GetIncarnation() == n.incarnation && hb.GetSeq() <= n.seq {
		p.mu.Unlock()
		return // of no node with a record, or overtaken
	}
	if hb.GetIncarnation() != n.incarnation {
		p.clearance.forget(hb.GetNode())
	}
	n.incarnation, n.seq, n.heard, n.knows = hb.GetIncarnation(), hb.GetSeq(), now, true
	if hb.GetClearedIncarnation() == p.cfg.Incarnation {
		p.clearance.clear(hb.GetNode(), hb.GetClearedSeq())
	}
	serves := make(map[int32]uint64, len(hb.GetPartitions()))
	for i, partition := range hb.GetPartitions() {
		serves[partition] = hb.GetEpochs()[i]
	}
	changed := !maps.Equal(serves, n.serves)
	n.serves = serves
	p.mu.Unlock()
	if changed && p.cfg.Changed != nil {
		p.cfg.Changed()
	}
}

// beatSeen is a heartbeat of a node by its number.
type beatSeen struct{ incarnation, seq uint64 }

// clear asks this node's gateway over and over whether it is clear, and for which heartbeats that is so.
func (p *Peers) clear(ctx context.Context) {
	const pause = 20 * time.Millisecond
	for {
		wait := p.cfg.Every / 2
		if err := p.Clear(ctx); err != nil {
			wait = pause
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
	}
}

// Clear asks this node's gateway once whether it is clear.
func (p *Peers) Clear(ctx context.Context) error {
	seen, own := p.seen()
	if p.cfg.Clear != nil {
		if err := p.cfg.Clear(ctx); err != nil {
			return err
		}
	}
	p.cleared(seen, own)
	return nil
}

// seen are the newest heartbeats of all nodes.
func (p *Peers) seen() (others map[string]beatSeen, own uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	others = make(map[string]beatSeen, len(p.nodes))
	for id, n := range p.nodes {
		if n.seq > 0 {
			others[id] = beatSeen{n.incarnation, n.seq}
		}
	}
	return others, p.clearance.seq
}

// cleared enters that this node's gateway is clear as of those heartbeats.
func (p *Peers) cleared(others map[string]beatSeen, own uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.clearance.clear(p.cfg.Node, own)
	for id, at := range others {
		if n := p.nodes[id]; n != nil {
			n.cleared = at
		}
	}
}
