package host

import (
	"context"

	"github.com/anthdm/hollywood/actor"

	"github.com/doppel-iot/doppel/actors/twin"
)

// pidKind is the first part of every twin's PID: twin/<device>.
const pidKind = "twin/"

// cell is a twin as an actor: a Hollywood Processer without goroutine or mailbox of its own. Its
// state belongs to the partition's goroutine; Send only enqueues there.
type cell struct {
	pid  actor.PID
	part *partition
	twin twin.Twin

	tags        map[string]string // as indexed
	tagsVersion uint64
	lastN       uint64 // count of its newest record in this epoch
	lookAt      int64  // when the wheel looks at it; 0: not scheduled
	place       uint32 // in the roster; 0: none
	anchored    uint16 // day of its last anchor in this epoch, since 1970
	online      bool   // as counted by the partition
	deleted     bool   // as counted by the partition
	dirty       bool   // has released changes that no checkpoint includes
	atBarrier   bool   // waits to declare a gap
	quarantined bool   // its code panicked; inputs go to the dead letters
	broken      bool   // and this is what the panic left of it, not its state
}

// id is the device id, sharing the PID's memory.
func (c *cell) id() string { return c.pid.GetID()[len(pidKind):] }

// lookTime implements scheduled.
func (c *cell) lookTime() *int64 { return &c.lookAt }

// PID implements actor.Processer.
func (c *cell) PID() *actor.PID { return &c.pid }

// Start implements actor.Processer; a cell starts nothing.
func (c *cell) Start() {}

// Shutdown implements actor.Processer. A twin ends with its partition or by passivation, never alone.
func (c *cell) Shutdown() {}

// Invoke implements actor.Processer; messages reach the twin through its partition only.
func (c *cell) Invoke([]actor.Envelope) {}

// Send implements actor.Processer: a Message goes to the partition's mailbox and waits there for
// room. Anything else is not for twins and is dropped, as Hollywood does with dead letters.
func (c *cell) Send(_ *actor.PID, msg any, _ *actor.PID) {
	if m, ok := msg.(Message); ok {
		_ = c.part.box.push(context.Background(), []Message{m})
	}
}
