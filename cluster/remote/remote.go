// Package remote carries messages between the actors of different nodes: it is Hollywood's
// actor.Remoter over bidirectional gRPC streams (NodeService.Exchange).
//
// Delivery is at most once and in order. Of what one node tells another while its stream holds, a
// prefix arrives, less what was refused message by message; nothing of it arrives after what was told
// over a later stream. Whoever needs to know asks for an answer and
// tells again. The package knows nothing of who is in the cluster, what a message means or where a
// partition lives.
//
// Every peer has its own connection, its own bounded buffer and its own goroutines; the only thing
// that peers share is a map that is locked for look-ups. So a peer that is dead, stalled or slow
// costs the others nothing. Everything exported is safe for concurrent use.
package remote

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/anthdm/hollywood/actor"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
)

// Why a message was not taken. Nothing of it was sent.
var (
	// ErrDown: the peer is not connected. It is tried again all the time.
	ErrDown = errors.New("peer is down")
	// ErrFull: the peer does not take what is already buffered for it fast enough.
	ErrFull = errors.New("buffer of the peer is full")
	// ErrTooLarge: the message alone exceeds Config.MaxMessage.
	ErrTooLarge = errors.New("message is too large")
	// ErrNotProto: only protobuf messages go to other nodes.
	ErrNotProto = errors.New("not a protobuf message")
	// ErrSender: a receiver could not answer, because the sender is an actor of another node.
	ErrSender = errors.New("sender is not of this node")
	// ErrStopped: the Remote has not been started, or was stopped.
	ErrStopped = errors.New("remote is stopped")
)

// Remote implements actor.Remoter.
type Remote struct {
	cfg      Config
	log      *slog.Logger
	stats    Stats
	chunks   chunkPool
	engine   atomic.Pointer[actor.Engine]
	handlers handlers
	inbounds inbounds
	heard    clocks

	// stopping ends what waits for more to do; stopped, everything.
	stopping, stopped context.Context    //nolint:containedctx // the life of the Remote, which Start and Stop delimit
	stop, kill        context.CancelFunc // of them
	wg                sync.WaitGroup     // peers and streams of others

	mu      sync.RWMutex
	started bool
	peers   map[string]*peer
}

var _ actor.Remoter = (*Remote)(nil)

// New returns a Remote that does nothing yet. Pass it to actor.EngineConfig.WithRemote, which starts
// it, and Register it with a gRPC server made with its ServerOptions.
func New(cfg Config) *Remote {
	cfg.complete()
	r := &Remote{cfg: cfg, log: cfg.Logger, peers: map[string]*peer{}}
	r.stopped, r.kill = context.WithCancel(context.Background()) //nolint:gosec // Stop calls both
	r.stopping, r.stop = context.WithCancel(r.stopped)
	return r
}

// Address implements actor.Remoter.
func (r *Remote) Address() string { return r.cfg.Address }

// Stats are the accounts of this Remote.
func (r *Remote) Stats() *Stats { return &r.stats }

// Start implements actor.Remoter: the engine calls it as it is made.
func (r *Remote) Start(e *actor.Engine) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.started || r.stopping.Err() != nil {
		return errors.New("remote: started twice")
	}
	r.started = true
	r.engine.Store(e)
	r.handlers.spawn(e)
	return nil
}

// Stop implements actor.Remoter: what was told before goes out, as far as peers take it within
// FlushTimeout; the streams of others end. It may be called again. The wait group is done when no
// goroutine is left.
func (r *Remote) Stop() *sync.WaitGroup {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.stopping.Err() == nil {
		r.stop()
		time.AfterFunc(r.cfg.FlushTimeout, r.kill)
	}
	return &r.wg
}

// Send implements actor.Remoter. A message that is not taken becomes a dead letter event.
func (r *Remote) Send(pid *actor.PID, msg any, sender *actor.PID) {
	if err := r.send(pid, msg, sender); err != nil {
		r.log.Debug("message not sent", "target", pid, "err", err)
		if e := r.engine.Load(); e != nil {
			e.BroadcastEvent(actor.DeadLetterEvent{Target: pid, Message: msg, Sender: sender})
		}
	}
}

func (r *Remote) send(pid *actor.PID, msg any, sender *actor.PID) error {
	m, ok := msg.(proto.Message)
	if !ok {
		r.stats.Rejected.Add(1)
		return ErrNotProto
	}
	from := ""
	if sender != nil {
		if sender.GetAddress() != r.cfg.Address {
			r.stats.Rejected.Add(1)
			return ErrSender
		}
		from = sender.GetID()
	}
	return r.tell(pid.GetAddress(), envelope{target: pid.GetID(), sender: from, message: m})
}

// Tell sends m to the actor called name of the node at address, which may be this one. It does not
// block; m is encoded before it returns and may be reused. Nil says that m will be sent, not that
// it arrives.
func (r *Remote) Tell(address, name string, m proto.Message) error {
	return r.tell(address, envelope{target: name, message: m})
}

// TellEncoded is Tell for the encoding of a message; kind is the full name of its type.
func (r *Remote) TellEncoded(address, name, kind string, b []byte) error {
	return r.tell(address, envelope{target: name, kind: kind, encoded: b})
}

func (r *Remote) tell(address string, e envelope) error {
	err := e.check()
	if err == nil {
		var p *peer
		if p, err = r.peer(address); err == nil {
			err = p.tell(e)
		}
	}
	if err != nil {
		r.stats.Rejected.Add(1)
		return fmt.Errorf("tell %s at %s: %w", e.target, address, err)
	}
	return nil
}

// Conn returns the connection to the node at address, for calls of other services. It is shared and
// must not be closed.
func (r *Remote) Conn(address string) (*grpc.ClientConn, error) {
	p, err := r.peer(address)
	if err != nil {
		return nil, fmt.Errorf("connection to %s: %w", address, err)
	}
	return p.conn, nil
}

// Heard returns when something last came from the node at address; zero: never.
func (r *Remote) Heard(address string) time.Time { return r.heard.at(address) }

// Forget ends the connection to a node that has left the cluster and throws away what waits for it.
// Telling it something makes it known again.
func (r *Remote) Forget(address string) {
	r.mu.Lock()
	p := r.peers[address]
	delete(r.peers, address)
	r.mu.Unlock()
	if p != nil {
		p.kill()
	}
	r.heard.forget(address)
}

// peer returns the peer at address, which begins to connect when it is first asked for.
func (r *Remote) peer(address string) (*peer, error) {
	r.mu.RLock()
	p := r.peers[address]
	r.mu.RUnlock()
	if p != nil {
		return p, nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if p := r.peers[address]; p != nil {
		return p, nil
	}
	if !r.started || r.stopping.Err() != nil {
		return nil, ErrStopped
	}
	p, err := newPeer(r, address)
	if err != nil {
		return nil, err
	}
	r.peers[address] = p
	r.wg.Go(p.run)
	return p, nil
}
