package registry

import (
	"context"
	"sync"
	"time"

	"github.com/doppel-iot/doppel/cluster/placement"
	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
)

// look starts and ends adoptions. Of the nodes of the group the first, or another one if that does not come
// to an end, sees to those that are recorded but have not been in the group for Grace: their share of the
// messages waits in their sessions. An adoption ends at once when its node is back.
func (r *Registry) look(ctx context.Context, now time.Time, running *sync.WaitGroup) {
	table := r.cfg.Table()
	if table == nil || len(table.Members) == 0 {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	fresh := r.cfg.Fresh()
	if !table.Has(r.cfg.Record.GetId()) || !fresh {
		r.present = time.Time{} // whoever adopts may do so now
	}
	for id := range r.absent {
		if r.records[id] == nil || table.Has(id) {
			delete(r.absent, id)
		}
	}
	for id, stop := range r.adopting {
		if table.Has(id) {
			stop()
		}
	}
	for id, n := range r.records {
		if id == r.cfg.Record.GetId() || table.Has(id) {
			continue
		}
		since, ok := r.absent[id]
		if !ok {
			r.absent[id] = now
			continue
		}
		if _, already := r.adopting[id]; already || !fresh || !r.known || !r.turn(table, now.Sub(since)-r.grace(id, now)) {
			continue
		}
		r.begin(ctx, table, n, running)
	}
}

// grace is how long a node must have been out of the group.
func (r *Registry) grace(id string, now time.Time) time.Duration {
	const silent = time.Second
	if r.cfg.Heard != nil && now.Sub(r.cfg.Heard(id)) < silent {
		return r.cfg.Doubt
	}
	return r.cfg.Grace
}

// begin adopts a node. mu is held.
func (r *Registry) begin(ctx context.Context, table *placement.Table, n *doppelv1.NodeRecord, running *sync.WaitGroup) {
	ctx, cancel := context.WithCancel(ctx)
	r.adopting[n.GetId()] = cancel
	running.Go(func() {
		defer cancel()
		log := r.cfg.Logger.With("node_id", n.GetId())
		log.InfoContext(ctx, "node is gone, adopting its session", "generation", table.Generation)
		begun := time.Now()
		err := r.cfg.Adopt(ctx, n)
		if err == nil {
			err = r.cfg.Log.RemoveNode(ctx, n.GetId(), n.GetIncarnation())
		}
		r.mu.Lock()
		delete(r.adopting, n.GetId())
		if err != nil {
			r.absent[n.GetId()] = time.Now() // again after Grace
		}
		r.mu.Unlock()
		if err != nil {
			log.WarnContext(ctx, "session not adopted", "err", err)
			return
		}
		log.InfoContext(ctx, "session adopted", "took", time.Since(begun))
	})
}

// standIn is how long a node has for an adoption before it is the next one's turn: its way to the broker may
// be blocked.
const standIn = 30 * time.Second

// turn says whether it is this node's to adopt one that has been due for so long.
func (r *Registry) turn(table *placement.Table, due time.Duration) bool {
	if due < 0 {
		return false
	}
	return table.Members[int(due/standIn)%len(table.Members)].ID == r.cfg.Record.GetId()
}
