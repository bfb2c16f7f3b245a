package handover

import (
	"context"
	"time"

	"github.com/doppel-iot/doppel/cluster/placement"
	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
)

// phase is where a partition is on its way to this node or from it.
type phase uint8

const (
	absent    phase = iota // not here
	warming                // its state is being read
	warm                   // waits for its turn to be asked for
	asking                 // its owner was asked to let go
	owned                  // the host claims or serves it
	releasing              // the host lets go of it
)

// slot is one partition.
type slot struct {
	phase  phase
	since  time.Time // of the phase
	told   time.Time // when its owner was asked last
	ceded  int64     // generation by which it was given away; only a newer table brings it back
	cancel context.CancelFunc
}

func (s *slot) enter(p phase, now time.Time) {
	if s.phase == p {
		return
	}
	s.stop()
	s.phase, s.since, s.told = p, now, time.Time{}
}

// stop ends what reads its state, unless it is about to be owned.
func (s *slot) stop() {
	if s.cancel != nil {
		s.cancel()
		s.cancel = nil
	}
}

// askAgain is the time after which a request that had no answer is repeated.
const askAgain = 250 * time.Millisecond

// reconcile takes every partition one step towards where the table wants it.
func (m *Mover) reconcile(ctx context.Context, now time.Time) {
	m.mu.Lock()
	t, since := m.table, m.since
	m.mu.Unlock()
	if t == nil {
		return
	}
	fresh := m.cfg.Fresh()
	reading, between, moving := 0, 0, int64(0)
	for i := range m.slots {
		switch m.slots[i].phase {
		case warming:
			reading++
		case asking:
			between++
		case absent, warm, owned, releasing:
		}
	}
	for i := range m.slots {
		p, s := int32(i), &m.slots[i]
		id, ok := t.Owner(p)
		mine := ok && id == m.cfg.Node
		wanted := mine && fresh && t.Generation > s.ceded
		switch s.phase {
		case absent:
			server, waits := m.server(t, p, now, since)
			switch {
			case !wanted || waits:
			case server == "":
				m.own(s, p, now)
			case reading < m.cfg.Warming:
				reading++
				m.warm(ctx, s, p, now)
			}
		case warming:
			if server, _ := m.server(t, p, now, since); !wanted {
				s.enter(absent, now)
			} else if server == "" {
				m.own(s, p, now)
			}
		case warm, asking:
			server, _ := m.server(t, p, now, since)
			switch {
			case !wanted:
				s.stop()
				s.enter(absent, now)
			case server == "", s.phase == asking && now.Sub(s.since) > m.cfg.Patience:
				m.own(s, p, now)
			case s.phase == warm && between < m.cfg.AtOnce:
				between++
				s.phase, s.since = asking, now
				m.ask(s, p, server, t.Generation, now)
			case s.phase == asking && now.Sub(s.told) > askAgain:
				m.ask(s, p, server, t.Generation, now)
			}
		case owned:
			m.keep(ctx, s, p, mine, now, since)
		case releasing:
		}
		if s.phase != absent && s.phase != owned || s.phase == owned && !mine {
			moving++
		}
	}
	m.moves.Store(moving)
}

// server is the address of another node that serves p and is there to be asked; empty: nobody is waited
// for. waits: it is too early to know.
func (m *Mover) server(t *placement.Table, p int32, now, since time.Time) (address string, waits bool) {
	id, address, _, ok := m.cfg.Peers.Server(p)
	if ok && id != m.cfg.Node && now.Sub(m.cfg.Peers.Heard(id)) < m.cfg.Silence {
		return address, false
	}
	if now.Sub(since) > m.cfg.Silence {
		return "", false
	}
	for _, member := range t.Members { // one of them may serve it and have had no time to say so
		if member.ID != m.cfg.Node && m.cfg.Peers.Heard(member.ID).IsZero() {
			return "", true
		}
	}
	return "", false
}

// own claims p.
func (m *Mover) own(s *slot, p int32, now time.Time) {
	m.cfg.Host.Own(p)
	s.enter(owned, now) // after Own, which takes over what was read
}

// warm reads the state of p while another node serves it.
func (m *Mover) warm(ctx context.Context, s *slot, p int32, now time.Time) {
	s.enter(warming, now)
	ctx, s.cancel = context.WithCancel(ctx)
	begun := s.since
	m.cfg.Go(func() {
		err := m.cfg.Host.Warm(ctx, p)
		m.post(func(_ context.Context, now time.Time) {
			s := &m.slots[p]
			if s.phase != warming || s.since != begun {
				return
			}
			if err != nil {
				m.cfg.Logger.Warn("state of a partition not read ahead", "partition", p, "err", err)
			}
			s.phase, s.since = warm, now // its reading goes on
		})
	})
}

// ask asks the node that serves p to let go of it.
func (m *Mover) ask(s *slot, p int32, address string, generation int64, now time.Time) {
	s.told = now
	_ = m.cfg.Wire.Tell(address, Actor, &doppelv1.TakePartition{Partition: p, Generation: generation}) // asked again soon
}

// released is the answer of the node that served p.
func (m *Mover) released(p int32, now time.Time) {
	if s := &m.slots[p]; s.phase == asking {
		m.own(s, p, now)
	}
}

// asked is the request of a node that is to own p by a table of a generation.
func (m *Mover) asked(ctx context.Context, from string, p int32, generation int64, now time.Time) {
	m.mu.Lock()
	t := m.table
	m.mu.Unlock()
	if t != nil && t.Generation >= generation {
		if id, ok := t.Owner(p); ok && id == m.cfg.Node {
			return // its table is older than ours
		}
	}
	s := &m.slots[p]
	s.ceded = max(s.ceded, generation)
	switch {
	case s.phase == releasing: // it is asked again
	case s.phase == owned && m.cfg.Fresh():
		m.release(ctx, s, p, from, generation, now)
	case s.phase == owned:
		// Who does not reach the group hardly reaches the log: what is in flight would be waited for in vain.
		m.cfg.Host.Drop(p)
		s.enter(absent, now)
		fallthrough
	default:
		m.tellReleased(from, p, generation)
	}
}

// release lets go of p and tells address so; empty: nobody asked.
func (m *Mover) release(ctx context.Context, s *slot, p int32, address string, generation int64, now time.Time) {
	s.enter(releasing, now)
	m.cfg.Go(func() {
		err := m.cfg.Host.Release(ctx, p) // bounded by itself
		if err != nil {
			m.cfg.Logger.Warn("partition let go before all of it was settled", "partition", p, "err", err)
		}
		if address != "" {
			m.tellReleased(address, p, generation)
		}
		m.post(func(_ context.Context, now time.Time) { m.slots[p].enter(absent, now) })
	})
}

func (m *Mover) tellReleased(address string, p int32, generation int64) {
	_ = m.cfg.Wire.Tell(address, Actor, &doppelv1.PartitionReleased{Partition: p, Generation: generation}) // it asks again
}

// keep looks after a partition of this node's: whether it is to go, or has gone.
func (m *Mover) keep(ctx context.Context, s *slot, p int32, mine bool, now, since time.Time) {
	serves := m.cfg.Host.Serves(p) // asked first: what it serves is in the picture by then
	server, _, _, _ := m.cfg.Peers.Server(p)
	switch {
	case server != "" && server != m.cfg.Node && serves:
		// Another one has claimed it since: what we hold of it is no state any more (O5).
		m.cfg.Host.Drop(p)
		s.enter(absent, now)
	case mine:
	case !serves:
		m.cfg.Host.Drop(p)
		s.enter(absent, now)
	case now.Sub(since) > m.cfg.Unasked:
		m.release(ctx, s, p, "", 0, now)
	}
}
