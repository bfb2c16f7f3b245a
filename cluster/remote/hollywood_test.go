package remote

import (
	"sync"
	"testing"
	"time"

	"github.com/anthdm/hollywood/actor"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"

	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
)

// sent is a message as an actor got it.
type sent struct {
	seq    uint64
	sender string
}

type recorder struct {
	mu   sync.Mutex
	got  []sent
	dead []any
}

func (r *recorder) receive(c *actor.Context) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch m := c.Message().(type) {
	case *doppelv1.Heartbeat:
		s := sent{seq: m.GetSeq()}
		if c.Sender() != nil {
			s.sender = c.Sender().String()
			c.Respond(beat(m.GetSeq() + 1000))
		}
		r.got = append(r.got, s)
	case actor.DeadLetterEvent:
		r.dead = append(r.dead, m.Message)
	}
}

func (r *recorder) all() ([]sent, int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]sent(nil), r.got...), len(r.dead)
}

// TestActorsOfTheEngine: stock actors send, answer and ask across nodes, and a message without
// sender stays so beside those that have one.
func TestActorsOfTheEngine(t *testing.T) {
	a, b := startNode(t), startNode(t)
	a.connected(t, b.Address())
	b.connected(t, a.Address())
	var there, here recorder
	pid := b.engine.SpawnFunc(there.receive, "kind", actor.WithID("with/slash"))
	asker := a.engine.SpawnFunc(here.receive, "asker", actor.WithID("1"))
	target := actor.NewPID(b.Address(), pid.GetID())
	for i := range 200 {
		var sender *actor.PID
		if i%2 == 1 {
			sender = asker
		}
		a.engine.SendWithSender(target, beat(uint64(i)), sender)
	}
	var want, answers []sent
	for i := range 200 {
		s := sent{seq: uint64(i)}
		if i%2 == 1 {
			s.sender = a.Address() + "/asker/1"
			answers = append(answers, sent{seq: s.seq + 1000}) // Hollywood answers without a sender
		}
		want = append(want, s)
	}
	eventually(t, "all arrived", func() bool { got, _ := there.all(); return len(got) == len(want) })
	got, _ := there.all()
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(sent{})); diff != "" {
		t.Errorf("messages (-want +got):\n%s", diff)
	}
	eventually(t, "all answers came", func() bool { got, _ := here.all(); return len(got) >= len(answers) })
	got, _ = here.all()
	if diff := cmp.Diff(answers, got, cmp.AllowUnexported(sent{})); diff != "" {
		t.Errorf("answers (-want +got):\n%s", diff)
	}

	res, err := a.engine.Request(target, beat(5), 10*time.Second).Result()
	if m, ok := res.(*doppelv1.Heartbeat); err != nil || !ok || m.GetSeq() != 1005 {
		t.Errorf("got %v, %v; want the answer 1005", res, err)
	}
}

// TestHollywoodsOwnMessagesStayHere: what only one process understands becomes a dead letter.
func TestHollywoodsOwnMessagesStayHere(t *testing.T) {
	a, b := startNode(t), startNode(t)
	in := b.inbox()
	a.connected(t, b.Address())
	var dead recorder
	a.engine.Subscribe(a.engine.SpawnFunc(dead.receive, "dead"))
	inbox := actor.NewPID(b.Address(), "inbox")
	eventually(t, "a dead letter", func() bool {
		a.engine.Send(inbox, struct{ private int }{1})
		_, n := dead.all()
		return n > 0
	})
	_, before := dead.all()
	a.engine.Send(inbox, nil)
	a.engine.SendWithSender(inbox, beat(1), actor.NewPID("third:1", "x"))
	a.engine.Poison(inbox)
	eventually(t, "three more", func() bool { _, n := dead.all(); return n >= before+3 })
	a.engine.Send(inbox, beat(2))
	eventually(t, "the next arrives", func() bool { return in.len() == 1 })
	if got := in.seqs()[0]; got != 2 {
		t.Errorf("got message %d, want 2", got)
	}
	if a.Stats().Rejected.Load() < 3 {
		t.Error("they were not counted")
	}
}

// TestHandlersAreActors of the engine of their node, too, and survive what is not for them.
func TestHandlersAreActors(t *testing.T) {
	a := startNode(t)
	in := a.inbox()
	a.Handle("broken", func(string, proto.Message) { panic("on purpose") })
	a.engine.Send(actor.NewPID(a.Address(), "broken"), beat(1))
	pid := actor.NewPID(a.Address(), "inbox")
	a.engine.Poison(pid)
	a.engine.Send(pid, "text")
	a.engine.Send(pid, beat(1))
	a.engine.SendWithSender(pid, beat(2), actor.NewPID("elsewhere:1", "x"))
	if diff := cmp.Diff([]uint64{1, 2}, in.seqs()); diff != "" {
		t.Errorf("messages (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{a.Address(), "elsewhere:1"}, in.from); diff != "" {
		t.Errorf("from (-want +got):\n%s", diff)
	}
	defer func() {
		if recover() == nil {
			t.Error("a name was given twice")
		}
	}()
	a.Handle("inbox", nil)
}

// TestOwnAddress: a node tells itself something as it tells others.
func TestOwnAddress(t *testing.T) {
	a := startNode(t)
	in := a.inbox()
	var mu sync.Mutex
	mu.Lock()                                                                  // the handler does not run in the caller
	a.Handle("locked", func(string, proto.Message) { mu.Lock(); mu.Unlock() }) //nolint:staticcheck // only to pass
	mustTell(t, a, a.Address(), "locked", beat(1))
	mu.Unlock()
	for i := range 100 {
		m := beat(uint64(i + 1))
		mustTell(t, a, a.Address(), "inbox", m)
		m.Reset()
	}
	mustTell(t, a, a.Address(), "nobody", beat(1))
	eventually(t, "all arrived", func() bool { return in.len() == 100 })
	if diff := cmp.Diff(numbers(100), in.seqs()); diff != "" {
		t.Errorf("order (-want +got):\n%s", diff)
	}
	eventually(t, "the refusal came", func() bool { return len(a.refusals()) == 1 })
	if in.from[0] != a.Address() || a.Heard(a.Address()).IsZero() {
		t.Errorf("from %s, heard %v", in.from[0], a.Heard(a.Address()))
	}
}
