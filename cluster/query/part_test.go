package query_test

import (
	"context"
	"sync"

	"github.com/doppel-iot/doppel/actors/host"
	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
)

// part is a node's own share of the fleet.
type part struct {
	n *node

	mu      sync.Mutex
	drained bool
	audit   func(a *doppelv1.Audit) // changes what an audit finds
}

func (p *part) Status(context.Context) (*doppelv1.Status, error) {
	s := &doppelv1.Status{SamplesPerSecond: 10, Nodes: []*doppelv1.Node{{Id: p.n.id, Address: p.n.address, State: "serving"}}}
	for _, v := range p.n.host.Partitions() {
		one := &doppelv1.Partition{Id: v.ID, State: string(v.State), Twins: uint64(v.Twins)}
		if v.State != host.Idle {
			one.Owner, one.Epoch = p.n.id, uint64(v.Epoch)
			s.Nodes[0].Partitions++
		}
		s.Partitions = append(s.Partitions, one)
		s.Twins += uint64(v.Twins)
	}
	return s, nil
}

func (p *part) Audit(ctx context.Context, deep bool) (*doppelv1.Audit, error) {
	a := &doppelv1.Audit{Balanced: true, Totals: &doppelv1.Counters{}, Twins: &doppelv1.Counters{}}
	acc := p.n.host.Stats().Accounts()
	a.Received, a.Totals.Applied = acc.Received, acc.Applied
	for _, v := range p.n.host.Partitions() {
		if v.State != host.Serving {
			continue
		}
		s, err := p.n.host.Standing(ctx, v.ID)
		if err != nil {
			return nil, err
		}
		a.Twins.Applied += s.Counters.Applied
		a.Partitions = append(a.Partitions, s.Audit)
		if deep {
			c, err := p.n.host.Check(ctx, v.ID)
			if err != nil {
				return nil, err
			}
			if a.GetLog() == nil {
				a.Log = &doppelv1.LogAudit{Whole: true}
			}
			a.Log.Records += c.Fold.Records
			a.Log.Refused += c.Fold.Refused
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.audit != nil {
		p.audit(a)
	}
	return a, nil
}

func (p *part) Drain(_ context.Context, undo bool) (*doppelv1.Node, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.drained = !undo
	return &doppelv1.Node{Id: p.n.id, State: "draining"}, nil
}
