// Package command keeps the commands that people send to devices, from the call to the answer: in the
// order they came for each device, one of them with the device at a time, once for each idempotency key.
//
// It speaks no MQTT (a Sender does), knows no twins (a Presence does) and keeps nothing on disk: what
// becomes of commands when a node ends or a partition moves is in DESIGN.md.
//
// Concurrency: everything exported is safe for concurrent use. A Book has one lock, never held while it
// sends or asks, and Run's few goroutines.
package command

import (
	"context"
	"errors"
	"hash/maphash"
	"time"
)

// Command is what somebody wants a device to do.
type Command struct {
	Partition int32 // of the device
	Device    string
	Name      string // checked: [A-Za-z0-9._-]{1,64}
	Body      []byte // JSON; empty: none
	// Timeout is how long the answer may take, waiting for the device included. Default 30 s.
	Timeout time.Duration
	// Key names the command: one with the key of another is that other one. Empty: nobody repeats it.
	Key string
	// Queue makes it wait for a device that is offline.
	Queue bool
}

// Answer is what a device said to a command.
type Answer struct {
	Status int32  // of its own choice; 200 without one
	Body   []byte // as it came
}

// Reply is an Answer on its way from a device. Correlation empty: the device speaks MQTT 3.1.1.
type Reply struct {
	Device, Name string
	Correlation  []byte
	Answer       Answer
}

// Message is a Command on its way to its device.
type Message struct {
	Device, Name string
	Body         []byte
	Correlation  []byte
	Expiry       time.Duration
}

// Sender sends commands to devices.
type Sender interface {
	// Send returns when the broker has the message. An error that is ErrNotSent says that no device can
	// have seen it.
	Send(ctx context.Context, m *Message) error
}

// Presence knows which devices are there.
type Presence interface {
	// Online says whether the device is, by what is durable. host.ErrUnknownDevice without a twin,
	// host.ErrUnavailable if this node does not serve the partition.
	Online(ctx context.Context, partition int32, device string) (bool, error)
}

// What can become of a command instead of an answer; people see these words.
var (
	ErrOffline   = errors.New("the device is offline (queue_if_offline would let the command wait for it)")
	ErrNoReply   = errors.New("the device did not reply in time")
	ErrExpired   = errors.New("the command has expired before it could be sent to the device")
	ErrFull      = errors.New("too many commands are waiting")
	ErrTooLarge  = errors.New("the reply of the device is larger than 64 KiB")
	ErrNotSent   = errors.New("the command was not sent")
	ErrUncertain = errors.New("the command may have reached the device or not")
	ErrKeyReused = errors.New("the idempotency key was used for another command within the last 10 minutes")
)

// Bounds.
const (
	// DefaultTimeout is that of a command without one, and MaxTimeout the longest.
	DefaultTimeout = 30 * time.Second
	MaxTimeout     = 10 * time.Minute
	// MaxBody bounds a command's body and a reply's, in bytes.
	MaxBody = 64 << 10

	maxWaiting       = 100       // of one device, without the one that the device has
	maxCommands      = 100_000   // of a node
	maxBytes         = 256 << 20 // of their bodies
	remember         = 10 * time.Minute
	maxRemembered    = 100_000
	maxRememberBytes = 64 << 20
)

var seed = maphash.MakeSeed()

// sum tells commands apart that have the same key.
func (c *Command) sum() uint64 {
	var h maphash.Hash
	h.SetSeed(seed)
	_, _ = h.WriteString(c.Name) // never fails
	_ = h.WriteByte(0)
	_, _ = h.Write(c.Body)
	return h.Sum64()
}
