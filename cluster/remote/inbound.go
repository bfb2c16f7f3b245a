package remote

import (
	"fmt"
	"runtime/debug"
	"strings"

	"github.com/anthdm/hollywood/actor"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
)

// maxDetail bounds what a refusal tells, in bytes.
const maxDetail = 512

// inbound delivers what comes over one stream. It belongs to the goroutine that reads the stream,
// but for its channels.
type inbound struct {
	r        *Remote
	from     string                              // address of the sending node
	types    map[string]protoreflect.MessageType // those seen
	refusals []*doppelv1.Refusal                 // of the last batch

	replaced chan struct{} // closed when the node has opened another stream
	ended    chan struct{} // closed when nothing more is delivered
}

func (r *Remote) newInbound() *inbound {
	return &inbound{
		r: r, types: map[string]protoreflect.MessageType{},
		replaced: make(chan struct{}), ended: make(chan struct{}),
	}
}

// take delivers a batch, keeps its refusals, and returns the number of its messages. An error says
// that the batch is malformed; what is before the defect was delivered.
func (in *inbound) take(b []byte) (n int, err error) {
	in.refusals = nil
	_, n, err = parseRequest(b, in.deliver)
	in.r.stats.Received.Add(uint64(n))
	in.r.stats.ReceivedBytes.Add(uint64(len(b)))
	return n, err
}

// deliver hands one message to its actor, or refuses it.
func (in *inbound) deliver(e *received) {
	h := in.r.handlers.get(e.target)
	if h != nil && h.decode != nil {
		in.hand(h, e)
		return
	}
	m, err := in.decode(e)
	if err != nil {
		return
	}
	var run func()
	if h != nil {
		run = func() { h.fn(in.from, m) }
	} else if engine, pid := in.find(e.target); pid != nil {
		var sender *actor.PID
		if len(e.sender) > 0 {
			sender = actor.NewPID(in.from, string(e.sender))
		}
		run = func() { engine.SendLocal(pid, m, sender) }
	} else {
		in.refuse(e, doppelv1.RefusalReason_REFUSAL_REASON_UNKNOWN_TARGET, string(e.target))
		return
	}
	in.run(e, run)
}

// run calls fn, which takes the message in e.
func (in *inbound) run(e *received, fn func()) {
	if err := protect(fn); err != nil {
		in.r.log.Error("actor panicked", "actor", string(e.target), "type", string(e.kind), "err", err, "stack", err.stack)
		in.refuse(e, doppelv1.RefusalReason_REFUSAL_REASON_FAILED, err.Error())
	}
}

// hand gives the message in e to a handler that decodes.
func (in *inbound) hand(h *handler, e *received) {
	if string(e.kind) != h.kind {
		in.refuse(e, doppelv1.RefusalReason_REFUSAL_REASON_UNKNOWN_TYPE, string(e.kind))
		return
	}
	in.run(e, func() {
		if err := h.decode(in.from, e.message); err != nil {
			in.refuse(e, doppelv1.RefusalReason_REFUSAL_REASON_NOT_DECODABLE, string(e.kind)+": "+err.Error())
		}
	})
}

// decode returns the message in e, or refuses it and says so.
func (in *inbound) decode(e *received) (proto.Message, error) {
	typ, ok := in.types[string(e.kind)]
	if !ok {
		var err error
		if typ, err = protoregistry.GlobalTypes.FindMessageByName(protoreflect.FullName(e.kind)); err != nil {
			in.refuse(e, doppelv1.RefusalReason_REFUSAL_REASON_UNKNOWN_TYPE, string(e.kind))
			return nil, err
		}
		in.types[string(e.kind)] = typ
	}
	m := typ.New().Interface()
	if err := proto.Unmarshal(e.message, m); err != nil {
		in.refuse(e, doppelv1.RefusalReason_REFUSAL_REASON_NOT_DECODABLE, string(e.kind)+": "+err.Error())
		return nil, err
	}
	return m, nil
}

// find looks an actor up in the engine. Hollywood finds only those whose name is KIND/ID, as those
// that it spawns.
func (in *inbound) find(target []byte) (*actor.Engine, *actor.PID) {
	engine := in.r.engine.Load()
	if engine == nil {
		return nil, nil
	}
	kind, id, ok := strings.Cut(string(target), "/")
	if !ok {
		return nil, nil
	}
	return engine, engine.Registry.GetPID(kind, id)
}

func (in *inbound) refuse(e *received, why doppelv1.RefusalReason, detail string) {
	in.r.stats.Refusals.Add(1)
	detail = strings.ToValidUTF8(detail[:min(len(detail), maxDetail)], "?")
	in.refusals = append(in.refusals, &doppelv1.Refusal{Id: e.id, Reason: why, Detail: detail})
}

// panicked is what an actor panicked with, and where.
type panicked struct {
	value any
	stack string
}

func (p *panicked) Error() string { return fmt.Sprintf("panic: %v", p.value) }

// protect runs fn and returns its panic, or nil.
func protect(fn func()) (p *panicked) {
	defer func() {
		if v := recover(); v != nil {
			p = &panicked{value: v, stack: string(debug.Stack())}
		}
	}()
	fn()
	return nil
}
