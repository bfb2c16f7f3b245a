// Package registry keeps doppel.nodes: the record by which others reach this node and find its MQTT
// session, and the records of the others.
//
// A record stands there from before a node's first SUBSCRIBE until its session is empty and gone: as long
// as it does, messages may wait for that node. A node that leaves removes its own. The record of a node
// that is certainly dead is removed by another one, which adopts its session first (adoption.go). So a
// node that was taken for dead and comes back must not simply connect again: Permit.
//
// Safe for concurrent use.
package registry

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"sync"
	"time"

	"github.com/doppel-iot/doppel/cluster/placement"
	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
)

// Log is doppel.nodes.
type Log interface {
	PutNode(ctx context.Context, n *doppelv1.NodeRecord) error
	// RemoveNode ends the record of an incarnation.
	RemoveNode(ctx context.Context, id string, incarnation uint64) error
	// FollowNodes calls fn with every record, oldest first, and nil for one that ended, until ctx ends;
	// ready once, behind what stood there at the start.
	FollowNodes(ctx context.Context, ready func(), fn func(id string, n *doppelv1.NodeRecord)) error
}

// Config of a Registry. All but the times must be set.
type Config struct {
	Record *doppelv1.NodeRecord // of this node
	Log    Log
	// Table is the group's newest; nil: none yet. Fresh says that the session with the group is in force.
	Table func() *placement.Table
	Fresh func() bool
	// Adopt takes over the MQTT session of a dead node and returns when it is empty and ended.
	Adopt func(ctx context.Context, n *doppelv1.NodeRecord) error
	// Node is told every record, nil where one ended; Known once, behind those that stood there already.
	Node  func(id string, n *doppelv1.NodeRecord)
	Known func()
	// Met says that those other nodes that are heard from know of this one, Placed that every partition is
	// served by somebody this node knows: what comes before that takes the slow path needlessly.
	Met    func(ids []string, within time.Duration) bool
	Placed func() bool
	// Heard is when a node was last heard of; nil: nobody listens.
	Heard  func(id string) time.Time
	Logger *slog.Logger

	// Grace is how long a node must have been out of the group to be adopted (default 1 s), Doubt how long
	// one that is heard of (default 5 s): it lives, and after an outage of Kafka comes back a little later.
	Grace, Doubt time.Duration
}

// Registry is this node's view of doppel.nodes.
type Registry struct {
	cfg Config
	put time.Time // when its record was written last; of Run

	mu       sync.Mutex
	known    bool
	records  map[string]*doppelv1.NodeRecord
	absent   map[string]time.Time // since when a recorded node has been out of the group
	present  time.Time            // since when this one has been in it
	adopting map[string]context.CancelFunc
	left     bool
	adopted  bool // the record of this incarnation was removed by another node
}

// New returns a Registry that knows of nobody.
func New(cfg Config) (*Registry, error) {
	if cfg.Record.GetId() == "" || cfg.Log == nil || cfg.Table == nil || cfg.Fresh == nil || cfg.Adopt == nil || cfg.Logger == nil {
		return nil, errors.New("registry: record, log, table, fresh, adopt and logger must be set")
	}
	cfg.Grace, cfg.Doubt = cmp.Or(cfg.Grace, time.Second), cmp.Or(cfg.Doubt, 5*time.Second)
	return &Registry{
		cfg: cfg, records: make(map[string]*doppelv1.NodeRecord), absent: make(map[string]time.Time),
		adopting: make(map[string]context.CancelFunc),
	}, nil
}

// Run follows the records and adopts dead nodes until ctx ends.
func (r *Registry) Run(ctx context.Context) error {
	const pace = 100 * time.Millisecond
	following := make(chan error, 1)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() { following <- r.cfg.Log.FollowNodes(ctx, r.caughtUp, r.enter) }()
	var adoptions sync.WaitGroup
	defer adoptions.Wait()
	t := time.NewTicker(pace)
	defer t.Stop()
	for {
		select {
		case err := <-following:
			if ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("follow the nodes: %w", err)
		case <-t.C:
			r.register(ctx, time.Now())
			r.look(ctx, time.Now(), &adoptions)
		}
	}
}

func (r *Registry) caughtUp() {
	r.mu.Lock()
	r.known = true
	r.mu.Unlock()
	if r.cfg.Known != nil {
		r.cfg.Known()
	}
}

func (r *Registry) enter(id string, n *doppelv1.NodeRecord) {
	r.mu.Lock()
	if n == nil {
		r.adopted = r.adopted || id == r.cfg.Record.GetId() && r.records[id].GetIncarnation() == r.cfg.Record.GetIncarnation()
		delete(r.records, id)
	} else {
		r.records[id] = n
	}
	r.mu.Unlock()
	if r.cfg.Node != nil {
		r.cfg.Node(id, n)
	}
}

// Records are those of all nodes, this one's included, by id.
func (r *Registry) Records() map[string]*doppelv1.NodeRecord {
	r.mu.Lock()
	defer r.mu.Unlock()
	return maps.Clone(r.records)
}

// Gathered says that every recorded node is in the group, or has been out of it for Grace: those that start
// together join one after the other, and partitions move each time.
func (r *Registry) Gathered() bool {
	table := r.cfg.Table()
	r.mu.Lock()
	defer r.mu.Unlock()
	if table == nil || !r.known {
		return false
	}
	for id := range r.records {
		if since, out := r.absent[id]; !table.Has(id) && (!out || time.Since(since) < r.cfg.Grace) {
			return false
		}
	}
	return true
}

// Permit returns when this node may connect to its MQTT session: it is in the group, its record stands,
// the others know of it, and whoever adopted its session has had the time to let go of it.
func (r *Registry) Permit(ctx context.Context) error {
	const (
		pace     = 20 * time.Millisecond
		patience = 3 * time.Second // for others to get to know this node, and it them
	)
	t := time.NewTicker(pace)
	defer t.Stop()
	var since time.Time // when everything but the others' knowledge was there
	for {
		now := time.Now()
		switch in, long, stands := r.joined(now); {
		case !in || !stands || long < handBack:
			since = time.Time{}
		default:
			if since.IsZero() {
				since = now
			}
			if r.met() && r.placed() || now.Sub(since) > patience {
				return nil
			}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-t.C:
		}
	}
}

// handBack is how long a node that comes back to the group leaves its session to whoever adopted it: that
// node lets go as soon as it sees the table.
const handBack = 500 * time.Millisecond

// joined says whether this node is in the group, for how long, and whether its record stands.
func (r *Registry) joined(now time.Time) (in bool, since time.Duration, stands bool) {
	table := r.cfg.Table()
	r.mu.Lock()
	defer r.mu.Unlock()
	id := r.cfg.Record.GetId()
	if table == nil || !table.Has(id) || !r.cfg.Fresh() || r.left {
		r.present = time.Time{}
		return false, 0, false
	}
	if r.present.IsZero() {
		r.present = now
	}
	if since = now.Sub(r.present); len(table.Members) == 1 {
		since = handBack // nobody else is there to have adopted it
	}
	return true, since, r.records[id].GetIncarnation() == r.cfg.Record.GetIncarnation()
}

func (r *Registry) met() bool {
	if r.cfg.Met == nil {
		return true
	}
	var ids []string
	for _, m := range r.cfg.Table().Members {
		if m.ID != r.cfg.Record.GetId() {
			ids = append(ids, m.ID)
		}
	}
	return r.cfg.Met(ids, time.Second)
}

func (r *Registry) placed() bool { return r.cfg.Placed == nil || r.cfg.Placed() }

// Adopted says whether another node has taken this one for dead, and adopted its session, since this was
// asked last.
func (r *Registry) Adopted() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	was := r.adopted
	r.adopted = false
	return was
}

// Withdraw removes this node's record: its session is gone, nothing waits for it.
func (r *Registry) Withdraw(ctx context.Context) error {
	r.mu.Lock()
	r.left = true
	r.mu.Unlock()
	if err := r.cfg.Log.RemoveNode(ctx, r.cfg.Record.GetId(), r.cfg.Record.GetIncarnation()); err != nil {
		return fmt.Errorf("record of this node: %w", err)
	}
	return nil
}

// register writes this node's record where it does not stand: at the start, and after it was removed by a
// node that took this one for dead.
func (r *Registry) register(ctx context.Context, now time.Time) {
	const again = time.Second // what was written takes a moment to be read
	if in, _, stands := r.joined(now); !in || stands || now.Sub(r.put) < again {
		return
	}
	r.put = now
	ctx, cancel := context.WithTimeout(ctx, 2*again)
	defer cancel()
	if err := r.cfg.Log.PutNode(ctx, r.cfg.Record); err != nil {
		r.cfg.Logger.WarnContext(ctx, "record of this node not written, trying again", "err", err)
	}
}
