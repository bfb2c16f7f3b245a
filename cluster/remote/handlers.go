package remote

import (
	"fmt"
	"maps"
	"sync"
	"sync/atomic"

	"github.com/anthdm/hollywood/actor"
	"google.golang.org/protobuf/proto"
)

// handler is an actor that is a function: a Hollywood Processer without goroutine or mailbox.
type handler struct {
	r   *Remote
	pid *actor.PID
	fn  func(from string, m proto.Message)
	// decode takes messages of that kind, and only from the wire, in place of fn.
	decode func(from string, b []byte) error
	kind   string
}

var _ actor.Processer = (*handler)(nil)

// PID implements actor.Processer.
func (h *handler) PID() *actor.PID { return h.pid }

// Start implements actor.Processer; a handler starts nothing.
func (h *handler) Start() {}

// Shutdown implements actor.Processer; a handler ends with its Remote.
func (h *handler) Shutdown() {}

// Invoke implements actor.Processer; a handler has no mailbox that would call it.
func (h *handler) Invoke([]actor.Envelope) {}

// Send implements actor.Processer, for actors of this node. What is not a protobuf message, as
// Hollywood's own, is not for handlers; a panic does not reach the sender.
func (h *handler) Send(_ *actor.PID, msg any, sender *actor.PID) {
	m, ok := msg.(proto.Message)
	if !ok || h.fn == nil {
		return
	}
	from := h.pid.GetAddress()
	if sender != nil {
		from = sender.GetAddress()
	}
	if err := protect(func() { h.fn(from, m) }); err != nil {
		h.r.log.Error("actor panicked", "actor", h.pid.GetID(), "err", err, "stack", err.stack)
	}
}

// handlers by name. Reading takes no lock.
type handlers struct {
	mu     sync.Mutex
	byName atomic.Pointer[map[string]*handler]
}

func (s *handlers) get(name []byte) *handler {
	m := s.byName.Load()
	if m == nil {
		return nil
	}
	return (*m)[string(name)]
}

func (s *handlers) add(h *handler) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	next := map[string]*handler{}
	if m := s.byName.Load(); m != nil {
		next = maps.Clone(*m)
	}
	if next[h.pid.GetID()] != nil {
		return fmt.Errorf("actor %s is there already", h.pid.GetID())
	}
	next[h.pid.GetID()] = h
	s.byName.Store(&next)
	return nil
}

// spawn makes all handlers actors of e.
func (s *handlers) spawn(e *actor.Engine) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if m := s.byName.Load(); m != nil {
		for _, h := range *m {
			e.SpawnProc(h)
		}
	}
}

// Handle makes fn an actor of this node, called name. from is the address of the node that a message
// is from. fn runs on the goroutine that reads the stream of that node, so calls for one node are in
// order and those for different nodes are concurrent. It must not block: the node it is from would be
// thought to be stalled. It may keep m. A panic refuses the message and nothing else.
//
// Handle panics if the name is taken.
func (r *Remote) Handle(name string, fn func(from string, m proto.Message)) {
	r.handle(&handler{fn: fn}, name)
}

// HandleEncoded is Handle for messages of one type, by its full name, that fn decodes itself; others are refused.
// b is fn's until it returns. An error says that b is no message of that type, and refuses it. What this node's engine
// sends does not reach it.
func (r *Remote) HandleEncoded(name, kind string, fn func(from string, b []byte) error) {
	r.handle(&handler{kind: kind, decode: fn}, name)
}

func (r *Remote) handle(h *handler, name string) {
	h.r, h.pid = r, actor.NewPID(r.cfg.Address, name)
	r.mu.RLock() // an engine that starts meanwhile spawns it
	defer r.mu.RUnlock()
	if err := r.handlers.add(h); err != nil {
		panic("remote: " + err.Error())
	}
	if e := r.engine.Load(); e != nil {
		e.SpawnProc(h)
	}
}
